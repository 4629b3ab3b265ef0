//! Directories, mounts, namespaces and cgroups that no record names.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use coracle_launcher::{
    cgroup::{Hierarchy, unescape},
    sys,
};

use super::{Dirs, Finding, Known, Remedy, What};
use crate::error::{Context, Result};

/// Directories of sandboxes and containers without a record, and what else bears their ids.
pub fn directories(dirs: &Dirs<'_>, known: &Known) -> Vec<Finding> {
    let (data, run) = (dirs.data, dirs.run);
    let mut out = Vec::new();
    let mut look = |what: What, dir: PathBuf, whole: &dyn Fn(&str) -> bool, problem: &str| {
        for name in names(&dir).into_iter().filter(|name| !whole(name)) {
            let path = dir.join(&name);
            out.push(Finding::new(what, path.display().to_string(), problem, Remedy::Remove(path)));
        }
    };
    let sandbox = |id: &str| known.sandboxes.contains_key(id);
    let container = |id: &str| known.containers.contains_key(id);
    look(What::Sandbox, run.join("sandboxes"), &sandbox, "belongs to no sandbox");
    look(What::Container, run.join("containers"), &container, "belongs to no container");
    look(What::Container, run.join("oci"), &container, "is the state of no container");
    look(What::Snapshot, data.join("snapshots/c"), &container, "belongs to no container");
    look(What::Container, data.join("removed"), &|_| false, "was being removed");
    look(What::Layer, data.join("snapshots/t"), &|_| false, "was being unpacked or removed");
    look(What::Blob, data.join("content/ingest"), &|_| false, "is half written");
    for name in names(&data.join("cni")) {
        if let Some(id) = name.strip_suffix(".json").filter(|id| !sandbox(id)) {
            let problem = "is attached to a network, but there is no such sandbox";
            out.push(Finding::new(What::Network, id, problem, Remedy::Start));
        }
    }
    out
}

/// Mounts below the directories of sandboxes and containers that are not there, or that do not run.
pub fn mounts(dirs: &Dirs<'_>, known: &Known) -> Result<Vec<Finding>> {
    let text = fs::read_to_string("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
    let mut out: Vec<Finding> = text.lines().filter_map(|line| mount(line, dirs, known)).collect();
    // The last mounted first: what lies on top has to go before what it lies on.
    out.reverse();
    Ok(out)
}

/// Looks at one line of mountinfo (proc_pid_mountinfo(5)).
fn mount(line: &str, dirs: &Dirs<'_>, known: &Known) -> Option<Finding> {
    let (left, right) = line.split_once(" - ")?;
    let point = PathBuf::from(unescape(left.split(' ').nth(4)?));
    let kind = right.split(' ').next()?;
    let below =
        |dir: PathBuf| Some(point.strip_prefix(dir).ok()?.components().next()?.as_os_str().to_str()?.to_owned());
    let of = |name: &str| below(dirs.data.join(name)).or_else(|| below(dirs.run.join(name)));
    let problem = if let Some(id) = of("sandboxes") {
        match known.sandboxes.get(&id) {
            None => "belongs to no sandbox",
            // A namespace of a container that rests goes with its next start.
            Some(sandbox) if !sandbox.ready && !sandbox.standalone => "is of a sandbox that was stopped",
            Some(_) => return None,
        }
    } else if of("containers").is_some_and(|id| !known.containers.contains_key(&id)) {
        "belongs to no container"
    } else {
        return None;
    };
    let what = if kind == "nsfs" { What::Namespace } else { What::Mount };
    Some(Finding::new(what, point.display().to_string(), problem, Remedy::Unmount(point)))
}

/// Groups that bear the id of something that is not there, or that does not run.
pub fn groups(dirs: &Dirs<'_>, known: &Known) -> Result<Vec<Finding>> {
    let hierarchy = Hierarchy::discover().context("find the cgroup hierarchies")?;
    let parents: BTreeSet<&str> = known.groups.iter().map(String::as_str).chain([dirs.cgroup_parent]).collect();
    let mut found = BTreeSet::new();
    for parent in parents {
        let group = hierarchy.group(parent).context("find the cgroup")?;
        for (_, dir) in group.dirs() {
            for name in names(dir).into_iter().filter(|name| is_id(name)) {
                if is_anothers(&dir.join(&name), dirs.run) {
                    continue;
                }
                let problem = match (known.containers.get(&name), known.sandboxes.contains_key(&name)) {
                    (Some(true), _) | (None, true) => continue,
                    (Some(false), _) => "is of a container that does not run",
                    (None, false) => "belongs to no sandbox and no container",
                };
                found.insert((format!("{}/{name}", parent.trim_end_matches('/')), problem));
            }
        }
    }
    let finding =
        |(path, problem): (String, &str)| Finding::new(What::Cgroup, path.clone(), problem, Remedy::EndGroup(path));
    Ok(found.into_iter().map(finding).collect())
}

/// Whether another runtime's shim, one with another run directory, has processes in the group.
fn is_anothers(group: &Path, run: &Path) -> bool {
    let processes = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let shims = processes.lines().filter_map(|pid| shim_dir(pid.parse().ok()?));
    shims.into_iter().any(|dir| !dir.starts_with(run))
}

/// The directory of the shim that a process descends from.
fn shim_dir(mut pid: u32) -> Option<PathBuf> {
    // A tree of processes may be deep, but not without end.
    for _ in 0..64 {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        if status.starts_with("Name:\tcoracle-shim\n") {
            let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let mut words = line.split(|&byte| byte == 0).skip_while(|word| *word != b"--dir");
            return Some(PathBuf::from(std::ffi::OsStr::from_bytes(words.nth(1)?)));
        }
        pid = status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok().filter(|&pid| pid > 0)?;
    }
    None
}

/// Sandboxes and containers are named by 64 hexadecimal digits; another name is another's group.
fn is_id(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

pub(super) fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Removes a file or directory, letting go of what is mounted in it: else its files would be another's.
pub(super) fn remove(path: &Path) -> Result<()> {
    let text = fs::read_to_string("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
    let points = text.lines().rev().filter_map(|line| Some(PathBuf::from(unescape(line.split(' ').nth(4)?))));
    for point in points.filter(|point| point.starts_with(path)) {
        unmount(&point)?;
    }
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).context(format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

pub(super) fn unmount(point: &Path) -> Result<()> {
    match sys::umount(point, libc::MNT_DETACH) {
        // Gone with what it was mounted on.
        Err(error) if !matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOENT)) => {
            Err(error).context(format!("unmount {}", point.display()))
        }
        _ => Ok(()),
    }
}

pub(super) fn end_group(path: &str) -> Result<()> {
    let hierarchy = Hierarchy::discover().context("find the cgroup hierarchies")?;
    let group = hierarchy.group(path).context("find the cgroup")?;
    if !group.processes().is_empty() {
        group.kill().context("kill what is left")?;
    }
    group.remove().context("remove the cgroup")
}
