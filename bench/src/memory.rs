//! What the processes of a lab keep in memory.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::Result;

/// Resident and proportional memory by program, in KiB, with the number of processes.
#[derive(Debug, Default, Clone, Copy)]
pub struct Memory {
    pub processes: u32,
    pub resident: u64,
    pub proportional: u64,
}

/// The memory of every process below the lab's cgroup, by the name a process goes by.
pub fn of_lab(cgroup: &Path) -> Result<BTreeMap<String, Memory>> {
    let mut found = BTreeMap::new();
    collect(cgroup, &mut found)?;
    Ok(found)
}

fn collect(dir: &Path, found: &mut BTreeMap<String, Memory>) -> Result<()> {
    let procs = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    for pid in procs.lines() {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let role = command.split('\0').nth(1).unwrap_or_default().to_owned();
        let name = if name.trim() == "coracle" { format!("coracle {role}") } else { name.trim().to_owned() };
        let memory: &mut Memory = found.entry(name).or_default();
        memory.processes += 1;
        memory.resident += field(&format!("/proc/{pid}/status"), "VmRSS:");
        memory.proportional += field(&format!("/proc/{pid}/smaps_rollup"), "Pss:");
    }
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), found)?;
        }
    }
    Ok(())
}

fn field(path: &str, name: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
