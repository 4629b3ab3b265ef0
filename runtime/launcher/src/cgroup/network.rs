//! Classes and priorities of what a group sends (config-linux "Network"). Cgroup v2 has none, and passes over them as runc does
//! (cgroups `fs2/fs2.go`, Set): engines ask for them without knowing the machine.

use super::{Cgroup, Files, Journal};
use crate::{
    error::{Error, Result},
    json::Json,
};

pub fn v1(group: &Cgroup, network: &Json, journal: Option<&Journal>) -> Result<()> {
    let files = |controller: &str| {
        // runc's words (cgroups `fs/fs.go`, Set).
        let missing =
            || Error::new(format!("cannot set {controller} limit: container could not join or create cgroup"));
        group.dir(controller).map(|dir| Files::new(dir, journal)).ok_or_else(missing)
    };
    if let Some(class) = class(network) {
        files("net_cls")?.write("net_cls.classid", &class.to_string())?;
    }
    for entry in network.get("priorities").items() {
        let name = entry.get("name").str().unwrap_or_default();
        let priority = entry.get("priority").u32().unwrap_or(0);
        files("net_prio")?.write("net_prio.ifpriomap", &format!("{name} {priority}"))?;
    }
    Ok(())
}

/// 0 is what a group has without one.
fn class(network: &Json) -> Option<u32> {
    network.get("classID").u32().filter(|&class| class != 0)
}
