//! The cgroups that a bench's containers lived in.

use std::fs;

/// Removes an empty group from every hierarchy.
pub fn remove(group: &str) {
    for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
        let _ = fs::remove_dir(hierarchy.path().join(group.trim_start_matches('/')));
    }
}
