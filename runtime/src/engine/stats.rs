//! What containers use, from their groups' files.

use std::{
    path::Path,
    sync::atomic::{AtomicI64, AtomicU64},
};

use coracle_launcher::cgroup::{Cgroup, read_key, read_number};

use super::{
    Container, Engine, Sandbox,
    model::{Status, now},
};
use crate::error::{Context, Result};

/// The sample before, from which a rate is made.
#[derive(Default)]
pub(super) struct CpuMeter {
    pub at: AtomicI64,
    pub total: AtomicU64,
}

/// One sample; times in nanoseconds since 1970, the rest in bytes, counts and nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    pub at: i64,
    pub cpu_total: u64,
    /// Billionths of a processor since the sample before; 0 in the first.
    pub cpu_rate: u64,
    pub memory_usage: u64,
    /// Usage without what the kernel could drop at once.
    pub working_set: u64,
    pub available: u64,
    pub rss: u64,
    pub page_faults: u64,
    pub major_page_faults: u64,
    pub swap: u64,
    pub pids: u64,
}

impl Engine {
    /// A container's use now; one that does not run has only a time.
    pub fn container_stats(&self, container: &Container) -> Result<Stats> {
        let mut stats = if container.state().status == Status::Running {
            self.group_stats(&container.cgroups_path)?
        } else {
            Stats { at: now(), ..Stats::default() }
        };
        if stats.cpu_total > 0 {
            stats.cpu_rate = Engine::cpu_rate(container, stats.at, stats.cpu_total);
        }
        Ok(stats)
    }

    /// The use of all of a sandbox's containers together.
    pub fn sandbox_stats(&self, sandbox: &Sandbox) -> Result<Stats> {
        self.group_stats(&self.sandbox_group(sandbox))
    }

    fn group_stats(&self, path: &str) -> Result<Stats> {
        let group = self.hierarchy.group(path).context("find the cgroup")?;
        Ok(sample(&group, now()))
    }

    /// Space that a container's own files take.
    pub fn writable_usage(&self, container: &Container) -> crate::snapshots::Usage {
        self.snapshots.usage(&container.id)
    }
}

fn sample(group: &Cgroup, at: i64) -> Stats {
    let v2 = group.is_v2();
    let dir = |controller: &str| group.dir(controller).unwrap_or(Path::new("/nonexistent"));
    let memory = dir("memory");
    let (usage_file, limit_file) =
        if v2 { ("memory.current", "memory.max") } else { ("memory.usage_in_bytes", "memory.limit_in_bytes") };
    let key =
        |v1_key: &str, v2_key: &str| read_key(memory, "memory.stat", if v2 { v2_key } else { v1_key }).unwrap_or(0);
    let usage = read_number(memory, usage_file).unwrap_or(0);
    let working_set = usage.saturating_sub(key("total_inactive_file", "inactive_file"));
    // v1 writes "no limit" as the largest multiple of a page.
    let limit = read_number(memory, limit_file).filter(|&limit| limit < 1 << 60);
    let cpu_total = if v2 {
        read_key(dir("cpu"), "cpu.stat", "usage_usec").unwrap_or(0) * 1000
    } else {
        read_number(dir("cpuacct"), "cpuacct.usage").unwrap_or(0)
    };
    Stats {
        at,
        cpu_total,
        cpu_rate: 0,
        memory_usage: usage,
        working_set,
        available: limit.map_or(0, |limit| limit.saturating_sub(working_set)),
        rss: key("total_rss", "anon"),
        page_faults: key("total_pgfault", "pgfault"),
        major_page_faults: key("total_pgmajfault", "pgmajfault"),
        swap: if v2 { read_number(memory, "memory.swap.current").unwrap_or(0) } else { key("total_swap", "swap") },
        pids: read_number(dir("pids"), "pids.current").unwrap_or(0),
    }
}
