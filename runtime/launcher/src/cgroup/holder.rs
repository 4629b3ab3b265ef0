//! Whose a group is. One that a stopped container left can be another's by the time the first is deleted: made anew at the
//! same path, or found empty and taken as it was.

use std::{fs, io::ErrorKind, os::unix::fs::MetadataExt, path::Path};

use super::Cgroup;
use crate::{
    json::{Json, object},
    sys,
};

/// Carries the mark of who took a group that was there already. The first needs CAP_SYS_ADMIN on the machine, the second
/// is for root of a user namespace (xattr(7); cgroupfs has it since 5.7).
const MARKS: [&str; 2] = ["trusted.coracle.holder", "user.coracle.holder"];

/// What a group looked like when its container took it.
#[derive(Clone, Debug, PartialEq)]
pub struct Holder {
    /// The kernel gives the number of a directory of cgroupfs to no other (kernfs counts them up).
    inode: u64,
    /// Nothing on directories that were made for the container.
    mark: Option<String>,
}

impl Holder {
    /// Marks a group that was there already, so that who had it before knows it no more.
    pub fn mark(group: &Cgroup) -> Option<String> {
        let dir = telling_dir(group)?;
        let mark = fs::read_to_string("/proc/sys/kernel/random/uuid").ok()?.trim().to_owned();
        // Where neither is allowed the group stays who-knows-whose.
        MARKS.iter().any(|name| sys::setxattr(dir, name, mark.as_bytes()).is_ok()).then_some(mark)
    }

    /// Of a group that is there.
    pub fn of(group: &Cgroup, mark: Option<String>) -> Option<Holder> {
        let inode = fs::metadata(telling_dir(group)?).ok()?.ino();
        Some(Holder { inode, mark })
    }

    /// Whether nobody has taken the group since. One that is not there is nobody's.
    pub fn holds(&self, group: &Cgroup) -> bool {
        let Some(dir) = telling_dir(group) else { return true };
        match fs::metadata(dir) {
            Ok(found) => found.ino() == self.inode && found_mark(dir) == self.mark,
            Err(error) => error.kind() == ErrorKind::NotFound,
        }
    }

    /// As it is kept with a container's state.
    pub fn keep(&self) -> Json {
        object([("inode", self.inode.into()), ("mark", self.mark.as_deref().map_or(Json::Null, Json::from))])
    }

    /// From the state; none in that of an older launcher.
    pub fn kept(state: &Json) -> Option<Holder> {
        Some(Holder { inode: state.get("inode").u64()?, mark: state.get("mark").str().map(str::to_owned) })
    }
}

/// The last one: directories are made and removed in order, so while it is there, and the same, the group was not given up.
fn telling_dir(group: &Cgroup) -> Option<&Path> {
    group.dirs.last().map(|dir| dir.path.as_path())
}

fn found_mark(dir: &Path) -> Option<String> {
    MARKS.iter().find_map(|name| String::from_utf8(sys::getxattr(dir, name).ok()?).ok())
}
