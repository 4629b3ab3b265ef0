//! The lab's part of every cgroup hierarchy the machine has: v1 controllers, v2, or both.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

/// Where the cgroup hierarchies are mounted.
#[derive(Clone, Debug)]
struct Hierarchy {
    root: PathBuf,
    version: Version,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    /// v1; a cpuset must be told its processors and memory before it takes a process.
    One {
        cpuset: bool,
    },
    Two,
}

/// The hierarchies of this machine.
#[derive(Clone, Debug)]
pub struct Cgroups(Vec<Hierarchy>);

impl Cgroups {
    /// Looks which hierarchies are mounted.
    pub fn find() -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
        Ok(Self(mounts.lines().filter_map(hierarchy).collect()))
    }

    /// Makes the cgroup `path` (relative to the root) everywhere and returns its directories.
    pub fn create(&self, path: &str) -> Result<Vec<PathBuf>> {
        self.0.iter().map(|hierarchy| create(hierarchy, path)).collect()
    }

    /// The directories of the cgroup `path`, whether they exist or not.
    pub fn directories(&self, path: &str) -> Vec<PathBuf> {
        self.0.iter().map(|hierarchy| hierarchy.root.join(path)).collect()
    }

    /// Removes the cgroup `path` and everything below it. The processes in it must be gone; the kernel may take a
    /// moment to notice, for which there is no event in v1.
    pub fn remove(&self, path: &str, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        for dir in self.directories(path) {
            loop {
                match remove_tree(&dir) {
                    Err(error) if error.raw_os_error() == Some(nix::libc::EBUSY) && Instant::now() < deadline => {
                        std::thread::yield_now();
                    }
                    outcome => break outcome.with_context(|| format!("remove cgroup {}", dir.display()))?,
                }
            }
        }
        Ok(())
    }

    /// Removes the cgroup `path` where nothing is left in it.
    pub fn remove_if_empty(&self, path: &str) {
        for dir in self.directories(path) {
            // Somebody else's are still in it.
            let _ = fs::remove_dir(dir);
        }
    }
}

/// A line of proc_pid_mountinfo(5): fields 4 (root) and 5 (mount point), then after " - " the type and the options.
fn hierarchy(line: &str) -> Option<Hierarchy> {
    let (mount, filesystem) = line.split_once(" - ")?;
    let mut mount = mount.split(' ').skip(3);
    let (root, target) = (mount.next()?, mount.next()?);
    if root != "/" {
        return None;
    }
    let mut filesystem = filesystem.split(' ');
    let kind = filesystem.next()?;
    let options = filesystem.nth(1)?;
    let version = match kind {
        "cgroup" => Version::One { cpuset: options.split(',').any(|option| option == "cpuset") },
        "cgroup2" => Version::Two,
        _ => return None,
    };
    Some(Hierarchy { root: target.into(), version })
}

fn create(hierarchy: &Hierarchy, path: &str) -> Result<PathBuf> {
    let mut dir = hierarchy.root.clone();
    for part in Path::new(path).components() {
        let parent = dir.clone();
        dir.push(part);
        match fs::create_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            outcome => outcome.with_context(|| format!("make cgroup {}", dir.display()))?,
        }
        match hierarchy.version {
            Version::One { cpuset: true } => inherit_cpuset(&parent, &dir)?,
            Version::One { cpuset: false } => {}
            Version::Two => delegate(&parent),
        }
    }
    Ok(dir)
}

fn inherit_cpuset(parent: &Path, dir: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let own = dir.join(file);
        let value = fs::read_to_string(&own).with_context(|| format!("read {}", own.display()))?;
        if value.trim().is_empty() {
            let inherited =
                fs::read_to_string(parent.join(file)).with_context(|| format!("read {file} of the parent"))?;
            fs::write(&own, inherited.trim()).with_context(|| format!("write {}", own.display()))?;
        }
    }
    Ok(())
}

/// Lets the children of `parent` have the controllers it has. One that cannot be given (it is used by v1) is left.
fn delegate(parent: &Path) {
    let controllers = fs::read_to_string(parent.join("cgroup.controllers")).unwrap_or_default();
    for controller in controllers.split_whitespace() {
        let _ = fs::write(parent.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    match fs::remove_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_read_from_mountinfo() {
        let v1 =
            hierarchy("33 25 0:28 / /sys/fs/cgroup/cpuset rw,relatime shared:9 - cgroup cgroup rw,cpuset").unwrap();
        assert_eq!((v1.root.to_str().unwrap(), v1.version), ("/sys/fs/cgroup/cpuset", Version::One { cpuset: true }));
        let v2 = hierarchy("24 20 0:22 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw").unwrap();
        assert_eq!(v2.version, Version::Two);
        assert!(hierarchy("24 20 0:22 /other /mnt rw - cgroup cgroup rw,cpu").is_none());
        assert!(hierarchy("24 20 8:1 / / rw - ext4 /dev/vda rw").is_none());
    }

    #[test]
    fn a_cgroup_comes_and_goes() {
        let cgroups = Cgroups::find().unwrap();
        let path = format!("coracle-test-{}", std::process::id());
        let made = cgroups.create(&format!("{path}/a/b")).unwrap();
        assert!(!made.is_empty() && made.iter().all(|dir| dir.is_dir()));
        cgroups.remove(&path, Duration::from_secs(5)).unwrap();
        assert!(cgroups.directories(&path).iter().all(|dir| !dir.exists()));
    }
}
