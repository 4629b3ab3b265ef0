//! Stops and continues every process of a group.

use std::{fs, time::Duration};

use super::{Cgroup, write};
use crate::error::{Error, Result};

/// Freezes or thaws; returns when the group is in the state asked for.
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
