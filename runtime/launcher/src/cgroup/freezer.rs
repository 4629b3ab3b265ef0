//! Stops and continues every process of a group.

use std::{fs, time::Duration};

use super::{Cgroup, write};
use crate::error::{Error, Result};

/// Freezes or thaws; returns when the group is in the state asked for. One that is removed meanwhile never is.
pub fn set(group: &Cgroup, frozen: bool) -> Result<()> {
    let dir = group.dir("freezer").ok_or_else(|| Error::new("the freezer controller is not mounted"))?;
    if group.is_v2() {
        write(dir, "cgroup.freeze", if frozen { "1" } else { "0" })?;
    } else {
        write(dir, "freezer.state", if frozen { "FROZEN" } else { "THAWED" })?;
    }
    // v1 reports FREEZING until the last process has stopped and has no event for it; writing again pushes stragglers.
    for attempt in 0..200 {
        if is_frozen(group) == frozen {
            return Ok(());
        }
        if frozen && !group.is_v2() && attempt % 25 == 24 {
            write(dir, "freezer.state", "FROZEN")?;
        }
        if !dir.exists() {
            return Err(Error::new(format!("{} is gone", dir.display())));
        }
        std::thread::sleep(Duration::from_micros(500));
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
    use std::thread;

    use super::*;
    use crate::{
        cgroup::{Hierarchy, Mount},
        sys,
    };

    #[test]
    fn a_group_that_is_removed_is_not_waited_for() {
        let dir = std::env::temp_dir().join(format!("freezer-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("cgroup.freeze"), "0").unwrap();
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
