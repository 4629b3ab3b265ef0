//! Stops and continues every process of a group.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use super::{Cgroup, write};
use crate::error::{Error, Result};

/// As long as runc waits (cgroups `fs2/freezer.go`): a process that waits for a disk stops when that has answered.
const PATIENCE: Duration = Duration::from_secs(10);

/// Freezes or thaws; returns when the group is in the state asked for. One that is removed meanwhile never is.
pub fn set(group: &Cgroup, frozen: bool) -> Result<()> {
    set_within(group, frozen, PATIENCE)
}

/// The same, with less patience. A group that does not freeze in time is thawed again: half of it would stand still.
pub fn set_within(group: &Cgroup, frozen: bool, patience: Duration) -> Result<()> {
    let dir = group.dir("freezer").ok_or_else(|| Error::new("the freezer controller is not mounted"))?;
    order(group, dir, frozen)?;
    let result = wait(group, dir, frozen, patience);
    if frozen && result.is_err() && dir.exists() {
        order(group, dir, false)?;
    }
    result
}

fn order(group: &Cgroup, dir: &Path, frozen: bool) -> Result<()> {
    if group.is_v2() {
        write(dir, "cgroup.freeze", if frozen { "1" } else { "0" })
    } else {
        write(dir, "freezer.state", if frozen { "FROZEN" } else { "THAWED" })
    }
}

fn wait(group: &Cgroup, dir: &Path, frozen: bool, patience: Duration) -> Result<()> {
    const SHORT: u32 = 200;
    let end = Instant::now() + patience;
    // v1 reports FREEZING until the last process has stopped and has no event for it; writing again pushes stragglers.
    for attempt in 0.. {
        if is_frozen(group) == frozen {
            return Ok(());
        }
        if frozen && !group.is_v2() && attempt % 25 == 24 {
            write(dir, "freezer.state", "FROZEN")?;
        }
        if !dir.exists() {
            return Err(Error::new(format!("{} is gone", dir.display())));
        }
        if Instant::now() >= end {
            break;
        }
        std::thread::sleep(Duration::from_micros(if attempt < SHORT { 500 } else { 10_000 }));
    }
    Err(Error::new(format!(
        "the processes of {} did not {} in time",
        dir.display(),
        if frozen { "freeze" } else { "thaw" }
    )))
}

/// Whether the whole group is frozen.
pub fn is_frozen(group: &Cgroup) -> bool {
    let Some(dir) = group.dir("freezer") else { return false };
    if group.is_v2() {
        fs::read_to_string(dir.join("cgroup.events")).is_ok_and(|text| text.lines().any(|line| line == "frozen 1"))
    } else {
        fs::read_to_string(dir.join("freezer.state")).is_ok_and(|text| text.trim() == "FROZEN")
    }
}

#[cfg(test)]
mod tests {
    use std::{path::PathBuf, thread};

    use super::*;
    use crate::{
        cgroup::{Hierarchy, Mount},
        sys,
    };

    /// A directory that looks like a group of v2, not frozen.
    fn group_dir(test: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("freezer-{test}-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("cgroup.freeze"), "0").unwrap();
        dir
    }

    #[test]
    fn what_does_not_freeze_in_time_goes_on() {
        let dir = group_dir("late");
        fs::write(dir.join("cgroup.events"), "populated 1\nfrozen 0\n").unwrap();
        let mount = Mount { controllers: vec![], point: dir.clone(), root: "/".into() };
        let group = Hierarchy::V2 { mount }.group("/").unwrap();
        let error = set_within(&group, true, Duration::from_millis(5)).unwrap_err().to_string();
        assert!(error.contains("did not freeze in time"), "{error}");
        assert_eq!(fs::read_to_string(dir.join("cgroup.freeze")).unwrap(), "0");
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_group_that_is_removed_is_not_waited_for() {
        let dir = group_dir("removed");
        // Read once the write was made; the reader waits for what is written to it.
        let events = dir.join("cgroup.events");
        sys::mkfifo(&events, 0o600).unwrap();
        let mount = Mount { controllers: vec![], point: dir.clone(), root: "/".into() };
        let group = Hierarchy::V2 { mount }.group("/").unwrap();
        let freezing = thread::spawn(move || set(&group, true));
        let asked = fs::OpenOptions::new().write(true).open(&events).unwrap();
        fs::remove_dir_all(&dir).unwrap();
        drop(asked);
        let error = freezing.join().unwrap().unwrap_err().to_string();
        assert!(error.contains("is gone"), "{error}");
    }
}
