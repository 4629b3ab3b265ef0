//! Which processors and memory nodes a group runs on.

use std::path::Path;

use super::{Files, write};
use crate::{
    error::{Context, Result},
    json::Json,
    sys,
};

/// A new v1 cpuset is empty and no process may enter an empty one: it takes over its parent's.
pub fn inherit(dir: &Path) -> Result<()> {
    ["cpuset.cpus", "cpuset.mems"].into_iter().try_for_each(|file| filled(dir, file).map(drop))
}

/// Has the kernel do the same for groups that are made below from now on, which is cheaper: a value that is written makes it
/// share the processors out anew (cgroups.rst, "clone_children"). Where it cannot, they are filled one by one.
pub fn pass_on(dir: &Path) -> bool {
    write(dir, "cgroup.clone_children", "1").is_ok()
}

/// What a group's file holds, filled from above where it is empty. The parent may be new itself, and whoever made it not that
/// far yet: what is copied from an empty parent stays empty, and so do all groups below.
fn filled(dir: &Path, file: &str) -> Result<String> {
    let own = sys::read_file(dir.join(file)).context(|| format!("read {}/{file}", dir.display()))?;
    match dir.parent() {
        Some(parent) if own.trim().is_empty() => {
            let value = filled(parent, file)?;
            write(dir, file, &value)?;
            Ok(value)
        }
        _ => Ok(own.trim().to_owned()),
    }
}

/// Whether `linux.resources.cpu` names any.
pub fn is_asked_for(cpu: &Json) -> bool {
    ["cpus", "mems"].into_iter().any(|key| cpu.get(key).str().is_some_and(|value| !value.is_empty()))
}

pub fn v1(files: Files<'_>, cpu: &Json) -> Result<()> {
    v2(files, cpu)
}

pub fn v2(files: Files<'_>, cpu: &Json) -> Result<()> {
    for (key, file) in [("cpus", "cpuset.cpus"), ("mems", "cpuset.mems")] {
        if let Some(value) = cpu.get(key).str().filter(|value| !value.is_empty()) {
            files.write(file, value)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_parent_that_is_half_made_is_filled_too() {
        let root = std::env::temp_dir().join(format!("cpuset-{}", std::process::id()));
        let (parent, child) = (root.join("parent"), root.join("parent/child"));
        fs::create_dir_all(&child).unwrap();
        for (dir, cpus, mems) in [(&root, "0-1\n", "0\n"), (&parent, "1\n", "\n"), (&child, "\n", "\n")] {
            fs::write(dir.join("cpuset.cpus"), cpus).unwrap();
            fs::write(dir.join("cpuset.mems"), mems).unwrap();
        }
        inherit(&child).unwrap();
        let read = |dir: &Path, file: &str| fs::read_to_string(dir.join(file)).unwrap().trim().to_owned();
        let found = [&parent, &child].map(|dir| (read(dir, "cpuset.cpus"), read(dir, "cpuset.mems")));
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(found, [("1".into(), "0".into()), ("1".into(), "0".into())]);
    }
}
