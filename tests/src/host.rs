//! The host as a test finds it, to be found the same way afterwards.

use std::{collections::BTreeSet, fs, path::Path};

/// What a lab could leave behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    mounts: BTreeSet<String>,
    links: BTreeSet<String>,
    routes: String,
    cgroups: BTreeSet<String>,
    processes: BTreeSet<String>,
}

impl Host {
    /// Looks.
    pub fn look() -> Self {
        let lines = |path: &str| fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect();
        Self {
            mounts: lines("/proc/self/mounts"),
            links: names("/sys/class/net"),
            routes: fs::read_to_string("/proc/net/route").unwrap_or_default(),
            cgroups: cgroups(),
            processes: processes(),
        }
    }

    /// Panics with what is there now and was not, and what is gone.
    #[track_caller]
    pub fn assert_unchanged(&self) {
        let now = Self::look();
        assert_eq!(
            now.mounts.difference(&self.mounts).collect::<Vec<_>>(),
            Vec::<&String>::new(),
            "mounts were left behind"
        );
        assert_eq!(now.links, self.links, "network links changed");
        assert_eq!(now.routes, self.routes, "routes changed");
        assert_eq!(
            now.cgroups.difference(&self.cgroups).collect::<Vec<_>>(),
            Vec::<&String>::new(),
            "cgroups were left behind"
        );
        let left: Vec<_> = now.processes.difference(&self.processes).collect();
        assert!(left.is_empty(), "processes were left behind: {left:?}");
    }
}

fn names(dir: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Every cgroup of ours, in every hierarchy.
fn cgroups() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut roots: Vec<_> =
        fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    roots.push("/sys/fs/cgroup".into());
    for root in roots.iter().filter(|root| root.is_dir()) {
        below(&root.join("coracle"), &mut found);
    }
    found
}

fn below(dir: &Path, found: &mut BTreeSet<String>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    found.insert(dir.display().to_string());
    for entry in entries.flatten().filter(|entry| entry.path().is_dir()) {
        below(&entry.path(), found);
    }
}

/// The processes that a lab starts, by their names.
fn processes() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        let zombie = fs::read_to_string(entry.path().join("stat")).is_ok_and(|stat| stat.contains(") Z "));
        if (name.starts_with("coracle") || name.trim() == "hello") && !zombie {
            found.insert(format!("{} {}", entry.file_name().to_string_lossy(), name.trim()));
        }
    }
    found
}
