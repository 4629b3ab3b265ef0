//! Control groups: where they are mounted, a container's own, limits, removal.
//!
//! Three layouts exist: **v2** (one tree), **v1** (a tree a controller) and **hybrid** (v1 for the controllers, with a
//! v2 tree beside them that has none of those used here). Hybrid is treated as v1. Nothing is assumed about paths:
//! mounts come from `/proc/self/mountinfo`, the own group from `/proc/self/cgroup` (cgroups(7)).
//!
//! Each controller is one file with `v1` and `v2`, taking the group's directory and `linux.resources`.

pub mod cpu;
pub mod cpuset;
pub mod devices;
mod files;
pub mod freezer;
pub(crate) mod hierarchy;
mod holder;
pub mod io;
pub mod memory;
mod network;
pub mod pids;
pub mod update;

use std::{
    fs,
    io::ErrorKind,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Duration,
};

pub use files::{ControlFile, Files, Journal, write};
pub use hierarchy::{Hierarchy, Mount, unescape};
pub use holder::Holder;

use crate::{
    error::{Context, Error, Result},
    json::Json,
    sys,
};

/// One container's (or pod's) group: a directory in every hierarchy.
#[derive(Clone, Debug)]
pub struct Cgroup {
    v2: bool,
    dirs: Vec<Dir>,
}

/// What [`Cgroup::claim`] did.
#[derive(Debug)]
pub struct Claim {
    /// The part of the group that was not there.
    pub made: Cgroup,
    /// For [`Holder::of`].
    pub mark: Option<String>,
}

#[derive(Clone, Debug)]
struct Dir {
    controllers: Vec<String>,
    depth_of_mount: usize,
    path: PathBuf,
}

impl Dir {
    fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|name| name == controller)
    }
}

impl Cgroup {
    pub fn is_v2(&self) -> bool {
        self.v2
    }

    /// The directory of a controller, or the one directory of v2.
    pub fn dir(&self, controller: &str) -> Option<&Path> {
        let mut dirs = self.dirs.iter();
        let dir = if self.v2 { dirs.next() } else { dirs.find(|dir| dir.has(controller)) };
        dir.map(|dir| dir.path.as_path())
    }

    /// Whether there is a controller of this name for it.
    pub fn counts(&self, controller: &str) -> bool {
        match self.tree() {
            Some(mount) => fs::read_to_string(mount.join("cgroup.controllers"))
                .is_ok_and(|names| names.split_whitespace().any(|name| name == controller)),
            None => self.dir(controller).is_some(),
        }
    }

    /// Where the one tree of v2 is mounted.
    pub fn tree(&self) -> Option<PathBuf> {
        let dir = self.dirs.first().filter(|_| self.v2)?;
        Some(dir.path.components().take(dir.depth_of_mount).collect())
    }

    /// Every directory with its controllers ("" on v2, `name=…` of a hierarchy without), for state files and the container's own cgroup mount.
    pub fn dirs(&self) -> impl Iterator<Item = (String, &Path)> {
        self.dirs.iter().map(|dir| (dir.controllers.join(","), dir.path.as_path()))
    }

    /// Makes the directories, with their parents, ready for processes; returns the part of the group that was not there.
    pub fn create(&self) -> Result<Cgroup> {
        let mut made = Cgroup { v2: self.v2, dirs: Vec::new() };
        for dir in &self.dirs {
            match self.make(dir, &dir.path) {
                Ok(true) => made.dirs.push(dir.clone()),
                Ok(false) => {}
                Err(error) => {
                    // The first error is the one to report.
                    let _ = made.remove();
                    return Err(error);
                }
            }
        }
        Ok(made)
    }

    /// The same for a container, which shares its group with nobody: what is in it would be limited with the container, and
    /// end with it (runc 1.2, `container_linux.go`).
    pub fn claim(&self) -> Result<Claim> {
        let made = self.create()?;
        // What is new holds nothing, and is nobody else's.
        if made.dirs.len() == self.dirs.len() {
            return Ok(Claim { made, mark: None });
        }
        if let Err(error) = self.check_unused() {
            let _ = made.remove();
            return Err(error);
        }
        Ok(Claim { made, mark: Holder::mark(self) })
    }

    /// Refuses a group that somebody else has.
    pub(crate) fn check_unused(&self) -> Result<()> {
        match self.processes().len() {
            0 if freezer::is_frozen(self) => Err(Error::new("container's cgroup unexpectedly frozen")),
            0 => Ok(()),
            count => Err(Error::new(format!("container's cgroup is not empty: {count} process(es) found"))),
        }
    }

    /// Makes one directory, or finds it (false); parents that are missing first, so that nothing is asked about those that
    /// are there.
    fn make(&self, dir: &Dir, path: &Path) -> Result<bool> {
        let what = || format!("create cgroup {}", path.display());
        match (create_dir(path), path.parent()) {
            (Ok(made), _) => return self.prepare(dir, path).map(|()| made),
            (Err(error), _) if error.kind() != ErrorKind::NotFound => return Err(Error::io(what(), error)),
            (_, Some(parent)) if path.components().count() > dir.depth_of_mount + 1 => drop(self.make(dir, parent)?),
            // The hierarchy itself is not there, which the second attempt tells.
            _ => {}
        }
        let parent = path.parent().unwrap_or(path);
        let passed_on = !self.v2 && dir.has("cpuset") && cpuset::pass_on(parent);
        let made = create_dir(path).context(what)?;
        if !passed_on {
            self.prepare(dir, path)?;
        }
        Ok(made)
    }

    /// What a new group needs before a process may enter: on v1 a cpuset with processors and nodes; on v2 the
    /// controllers enabled in the parent.
    fn prepare(&self, dir: &Dir, path: &Path) -> Result<()> {
        if self.v2 {
            if path.components().count() > dir.depth_of_mount
                && let Some(parent) = path.parent()
            {
                enable_controllers(parent, dir.depth_of_mount);
            }
            Ok(())
        } else if dir.has("cpuset") {
            cpuset::inherit(path)
        } else {
            Ok(())
        }
    }

    /// Writes the limits of `linux.resources`, which what they do not name leave as it is.
    pub fn apply(&self, resources: &Json) -> Result<()> {
        self.limit(resources, None)?;
        match resources.get("devices").items() {
            [] => Ok(()),
            devices => self.limit_devices(devices),
        }
    }

    /// Writes the limits of a new container: of devices it may use those alone that are named, also where none is
    /// (config-linux "Allowed Device list").
    pub fn confine(&self, resources: &Json) -> Result<()> {
        self.limit(resources, None)?;
        self.limit_devices(resources.get("devices").items())
    }

    fn limit_devices(&self, devices: &[Json]) -> Result<()> {
        match self.dir("devices") {
            Some(dir) if self.v2 => devices::v2(dir, devices),
            Some(dir) => devices::v1(dir, devices),
            None if devices.is_empty() => Ok(()),
            None => Err(Error::new("linux.resources.devices: the devices controller is not mounted")),
        }
    }

    fn limit(&self, resources: &Json, journal: Option<&Journal>) -> Result<()> {
        if self.v2 {
            return self.limit_v2(resources, journal);
        }
        let files = |dir| Files::new(dir, journal);
        let present = |name: &'static str, key: &str| -> Result<Option<Files<'_>>> {
            match self.dir(name) {
                Some(dir) => Ok(Some(files(dir))),
                None if resources.get(key).is_null()
                    || resources.get(key).items().is_empty() && resources.get(key).members().is_empty() =>
                {
                    Ok(None)
                }
                None => Err(Error::new(format!("linux.resources.{key}: the {name} controller is not mounted"))),
            }
        };
        match self.dir("cpuset") {
            Some(dir) => cpuset::v1(files(dir), resources.get("cpu"))?,
            None if cpuset::is_asked_for(resources.get("cpu")) => {
                return Err(Error::new("linux.resources.cpu: the cpuset controller is not mounted"));
            }
            None => {}
        }
        if let Some(files) = present("cpu", "cpu")? {
            cpu::v1(files, resources.get("cpu"))?;
        }
        if let Some(files) = present("memory", "memory")? {
            memory::v1(files, resources.get("memory"))?;
        }
        if let Some(files) = present("pids", "pids")? {
            pids::apply(files, resources.get("pids"))?;
        }
        if let Some(files) = present("blkio", "blockIO")? {
            io::v1(files, resources.get("blockIO"))?;
        }
        if let Some(files) = present("rdma", "rdma")? {
            io::rdma(files, resources.get("rdma"))?;
        }
        network::v1(self, resources.get("network"), journal)?;
        if !resources.get("unified").members().is_empty() {
            return Err(Error::new("linux.resources.unified: there is no cgroup v2"));
        }
        match (self.dir("hugetlb"), resources.get("hugepageLimits").items()) {
            (_, []) => Ok(()),
            (Some(dir), limits) => io::hugepages(files(dir), limits, "limit_in_bytes"),
            (None, _) => Err(Error::new("linux.resources.hugepageLimits: the hugetlb controller is not mounted")),
        }
    }

    fn limit_v2(&self, resources: &Json, journal: Option<&Journal>) -> Result<()> {
        let dir = self.dir("").ok_or_else(|| Error::new("no cgroup directory"))?;
        let files = Files::new(dir, journal);
        cpuset::v2(files, resources.get("cpu"))?;
        cpu::v2(files, resources.get("cpu"))?;
        memory::v2(files, resources.get("memory"))?;
        pids::apply(files, resources.get("pids"))?;
        io::v2(files, resources.get("blockIO"))?;
        io::hugepages(files, resources.get("hugepageLimits").items(), "max")?;
        io::rdma(files, resources.get("rdma"))?;
        resources
            .get("unified")
            .members()
            .iter()
            .try_for_each(|(file, value)| write_unified(files, file, value.str().unwrap_or_default()))
    }

    /// Gives a group of v2 to a user of the host, who may then make groups below it and move processes there; its limits stay
    /// what they are (cgroup-v2.rst "Delegation"; config-linux "Cgroup ownership").
    pub fn give(&self, user: u32) -> Result<()> {
        let Some(dir) = self.dirs.first().filter(|_| self.v2) else { return Ok(()) };
        let listed = fs::read_to_string("/sys/kernel/cgroup/delegate").ok();
        let files = listed.as_deref().unwrap_or("cgroup.procs\ncgroup.subtree_control\ncgroup.threads");
        for file in std::iter::once("").chain(files.lines()) {
            let path = dir.path.join(file);
            match std::os::unix::fs::lchown(&path, Some(user), None) {
                // Not every group has what the kernel knows (cgroup-v2.rst "Delegation").
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                result => result.context(|| format!("give {} to user {user}", path.display()))?,
            }
        }
        Ok(())
    }

    /// On v2 the directory, which a process can be cloned into.
    pub fn place(&self) -> Result<Option<OwnedFd>> {
        let Some(dir) = self.dirs.first().filter(|_| self.v2) else { return Ok(None) };
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        sys::open(&dir.path, flags, 0).map(Some).context(|| format!("open {}", dir.path.display()))
    }

    /// Opens what a process of one thread writes "0" to in order to enter, once per hierarchy.
    ///
    /// On v1 that is `tasks`: moving oneself alone does not take the lock that stops every fork in the system, for which
    /// `cgroup.procs` waits a grace period of many milliseconds (kernel, cgroup_procs_write_start).
    pub fn doors(&self) -> Result<Vec<OwnedFd>> {
        let name = if self.v2 { "cgroup.procs" } else { "tasks" };
        let open = |dir: &Dir| {
            let path = dir.path.join(name);
            sys::open(&path, libc::O_WRONLY, 0).context(|| format!("open {}", path.display()))
        };
        self.dirs.iter().map(open).collect()
    }

    /// Whether it has controllers that groups below it have been given: such a group of v2 takes no processes (cgroups(7),
    /// "no internal processes").
    pub fn has_passed_on(&self) -> bool {
        let enabled = |dir: &Path| fs::read_to_string(dir.join("cgroup.subtree_control"));
        self.v2 && self.dir("").is_some_and(|dir| enabled(dir).is_ok_and(|names| !names.trim().is_empty()))
    }

    /// A group below this one, which exists already: of each controller that is named, or (`""`) of all (runc
    /// `container_linux.go`, SubCgroupPaths).
    pub fn below(&self, paths: &[(String, String)]) -> Result<Cgroup> {
        let is_of = |dir: &Dir, controller: &str| controller.is_empty() || dir.has(controller);
        for (controller, path) in paths {
            if path.split('/').any(|part| part == "..") {
                return Err(Error::new(format!("{path} is not a sub cgroup path")));
            }
            if !self.dirs.iter().any(|dir| is_of(dir, controller)) {
                return Err(Error::new(format!("unknown controller {controller} in SubCgroupPaths")));
            }
        }
        let mut group = self.clone();
        for dir in &mut group.dirs {
            if let Some((_, path)) = paths.iter().rfind(|(controller, _)| is_of(dir, controller)) {
                dir.path.push(path.trim_start_matches('/'));
            }
        }
        Ok(group)
    }

    /// The processes in the group and below it.
    pub fn processes(&self) -> Vec<i32> {
        // Every hierarchy holds the same processes; `pids` and `freezer` are never shared with anything else.
        let dir = ["pids", "freezer", "devices"]
            .iter()
            .find_map(|name| self.dir(name))
            .or(self.dirs.first().map(|dir| dir.path.as_path()));
        let mut out = Vec::new();
        if let Some(dir) = dir {
            collect_processes(dir, &mut out, 0);
        }
        out
    }

    /// Sends SIGKILL to every process in the group and below.
    pub fn kill(&self) -> Result<()> {
        if self.v2 && self.dir("").is_some_and(|dir| fs::write(dir.join("cgroup.kill"), "1").is_ok()) {
            return Ok(());
        }
        // A process may fork between reading and killing; frozen ones cannot.
        let frozen = freezer::set_within(self, true, Duration::from_millis(100)).is_ok();
        for pid in self.processes() {
            // Gone already: what was wanted.
            let _ = sys::kill(pid, libc::SIGKILL);
        }
        match freezer::set(self, false) {
            // Whoever waited for its end has removed it meanwhile.
            Err(_) if !frozen || self.dir("freezer").is_none_or(|dir| !dir.exists()) => Ok(()),
            result => result,
        }
    }

    /// Removes the directories; a group that does not exist is removed already.
    pub fn remove(&self) -> Result<()> {
        self.dirs.iter().try_for_each(|dir| remove_tree(&dir.path, 0))
    }

    /// Removes the directories if nothing is in them, without waiting.
    pub fn remove_empty(&self) -> std::io::Result<()> {
        self.dirs.iter().try_for_each(|dir| match fs::remove_dir(&dir.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        })
    }

    /// Whether there is anything of it: the directories are made in order and removed in order, so one that is left, by
    /// whoever was killed, is the first or the last.
    pub fn exists(&self) -> bool {
        [self.dirs.first(), self.dirs.last()].into_iter().flatten().any(|dir| dir.path.exists())
    }
}

/// Makes a directory, or finds it there (false).
fn create_dir(path: &Path) -> std::io::Result<bool> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        result => result.map(|()| true),
    }
}

/// Enables for those below what a group has, first in those above it where it lacks something (runc, cgroups
/// `fs2/create.go`). Best effort: a controller that cannot be enabled shows when a limit is written.
fn enable_controllers(dir: &Path, depth_of_mount: usize) {
    const LIMITS: [&str; 5] = ["cpuset", "cpu", "io", "memory", "pids"];
    let read = || fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
    let mut available = read();
    let has_all = LIMITS.iter().all(|name| available.split_whitespace().any(|has| has == *name));
    if let Some(parent) = dir.parent().filter(|_| !has_all && dir.components().count() > depth_of_mount) {
        enable_controllers(parent, depth_of_mount);
        available = read();
    }
    let enabled = fs::read_to_string(dir.join("cgroup.subtree_control")).unwrap_or_default();
    let enabled: Vec<&str> = enabled.split_whitespace().collect();
    for controller in available.split_whitespace().filter(|name| !enabled.contains(name)) {
        let _ = fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

/// Groups nest only as deep as someone made them; a limit guards the recursion.
const MAX_DEPTH: usize = 32;

fn children(dir: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path())
}

fn collect_processes(dir: &Path, out: &mut Vec<i32>, depth: usize) {
    let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    out.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|&pid| pid > 0));
    if depth < MAX_DEPTH {
        children(dir).for_each(|child| collect_processes(&child, out, depth + 1));
    }
}

fn remove_tree(dir: &Path, depth: usize) -> Result<()> {
    // v1 has no event for "empty": an exiting process leaves its group a moment after it can be waited for.
    let mut wait = Duration::from_millis(1);
    loop {
        let error = match fs::remove_dir(dir) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => error,
        };
        if error.raw_os_error() != Some(libc::EBUSY) || wait > Duration::from_millis(600) {
            return Err(Error::io(format!("remove cgroup {}", dir.display()), error));
        }
        if depth < MAX_DEPTH {
            children(dir).try_for_each(|child| remove_tree(&child, depth + 1))?;
        }
        if fs::remove_dir(dir).is_ok() {
            return Ok(());
        }
        std::thread::sleep(wait);
        wait *= 2;
    }
}

/// Writes an entry of `linux.resources.unified`, whatever its name (config-linux "Unified"), but for the files that are no
/// configuration. Each line is one value (`io.max` has one for each device), and so one write.
fn write_unified(files: Files<'_>, file: &str, value: &str) -> Result<()> {
    const NOT_LIMITS: [&str; 5] = ["cgroup.procs", "cgroup.threads", "cgroup.kill", "cgroup.freeze", "cgroup.type"];
    if file.contains('/') || NOT_LIMITS.contains(&file) {
        return Err(Error::new(format!("linux.resources.unified: {file:?} is not a limit")));
    }
    match value.contains('\n') {
        true => value.lines().filter(|line| !line.is_empty()).try_for_each(|line| files.write(file, line)),
        false => files.write(file, value),
    }
}

/// Reads one control file that holds a number ("max" is the largest).
pub fn read_number(dir: &Path, file: &str) -> Option<u64> {
    let text = fs::read_to_string(dir.join(file)).ok()?;
    match text.trim() {
        "max" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

/// Reads the number behind a key of a flat keyed file such as `memory.stat`.
pub fn read_key(dir: &Path, file: &str, key: &str) -> Option<u64> {
    let text = fs::read_to_string(dir.join(file)).ok()?;
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(name, _)| *name == key).and_then(|(_, value)| value.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory that looks like a group of v2 with these files; gone with this.
    struct Files(PathBuf);

    impl Files {
        fn new(name: &str, files: &[&str]) -> Files {
            let dir = std::env::temp_dir().join(format!("cgroup-{name}-{}", std::process::id()));
            fs::create_dir_all(&dir).unwrap();
            files.iter().for_each(|file| fs::write(dir.join(file), "").unwrap());
            Files(dir)
        }

        fn group(&self, path: &str) -> Cgroup {
            let mount = Mount { controllers: vec![], point: self.0.clone(), root: "/".into() };
            Hierarchy::V2 { mount }.group(path).unwrap()
        }

        fn apply(&self, resources: &str) -> Result<()> {
            self.group("/").apply(&Json::parse(resources.as_bytes()).unwrap())
        }

        fn read(&self, file: &str) -> String {
            fs::read_to_string(self.0.join(file)).unwrap()
        }
    }

    impl Drop for Files {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn unified_values_are_written_line_by_line() {
        let files = Files::new("unified", &["io.max", "cgroup.max.descendants", "cgroup.kill"]);
        files.apply(r#"{"unified":{"io.max":"8:0 rbps=1\n8:16 rbps=2\n","cgroup.max.descendants":"5"}}"#).unwrap();
        // Two writes, here one over the other: the kernel takes one line of each.
        assert_eq!(
            (files.read("io.max").as_str(), files.read("cgroup.max.descendants").as_str()),
            ("8:16 rbps=2", "5")
        );
        for bad in [r#"{"unified":{"cgroup.kill":"1"}}"#, r#"{"unified":{"a/io.max":"1"}}"#] {
            assert!(files.apply(bad).unwrap_err().to_string().contains("is not a limit"), "{bad}");
        }
    }

    #[test]
    fn what_the_kernel_does_not_count_is_not_missed() {
        let files = Files::new("uncounted", &["memory.max", "hugetlb.2MB.max"]);
        let pages = r#""hugepageLimits":[{"pageSize":"2MB","limit":4}]"#;
        files.apply(&format!(r#"{{"memory":{{"limit":64,"swap":64}},{pages}}}"#)).unwrap();
        files.apply(r#"{"memory":{"limit":64,"swap":-1}}"#).unwrap();
        // A limit of swap is one that cannot be kept.
        assert!(
            files.apply(r#"{"memory":{"limit":64,"swap":65}}"#).unwrap_err().to_string().contains("memory.swap.max")
        );
        assert_eq!(files.read("hugetlb.2MB.max"), "4");
        fs::write(files.0.join("hugetlb.2MB.rsvd.max"), "").unwrap();
        files.apply(&format!("{{{pages}}}")).unwrap();
        assert_eq!(files.read("hugetlb.2MB.rsvd.max"), "4");
        assert!(files.apply(r#"{"hugepageLimits":[{"limit":4}]}"#).is_err());
    }

    #[test]
    fn what_only_v1_has_is_passed_over() {
        let files = Files::new("network", &["pids.max"]);
        let network = r#""network":{"classID":1048577,"priorities":[{"name":"lo","priority":5}]}"#;
        files.apply(&format!(r#"{{{network},"pids":{{"limit":7}}}}"#)).unwrap();
        assert_eq!(files.read("pids.max"), "7");
    }

    #[test]
    fn a_group_that_is_in_use_is_nobody_elses() {
        let files = Files::new("in-use", &[]);
        let made = files.group("/a/b").claim().unwrap().made;
        made.remove().unwrap();
        assert!(files.0.join("a").exists() && !files.0.join("a/b").exists());
        fs::create_dir_all(files.0.join("a/b/c")).unwrap();
        // What was there is not of the making.
        assert_eq!(files.group("/a/b").claim().unwrap().made.dirs().count(), 0);
        fs::write(files.0.join("a/b/cgroup.events"), "populated 0\nfrozen 1\n").unwrap();
        assert!(files.group("/a/b").claim().unwrap_err().to_string().contains("unexpectedly frozen"));
        fs::write(files.0.join("a/b/c/cgroup.procs"), "7\n8\n").unwrap();
        let error = files.group("/a/b").claim().unwrap_err().to_string();
        assert_eq!(error, "container's cgroup is not empty: 2 process(es) found");
    }

    #[test]
    fn controllers_are_enabled_from_the_top() {
        let files = Files::new("controllers", &["cgroup.controllers", "cgroup.subtree_control"]);
        fs::create_dir_all(files.0.join("a/b")).unwrap();
        for dir in ["a", "a/b"] {
            ["cgroup.controllers", "cgroup.subtree_control"]
                .iter()
                .for_each(|file| fs::write(files.0.join(dir).join(file), "").unwrap());
        }
        let enabled = |dir: &str| files.read(&format!("{dir}/cgroup.subtree_control"));
        fs::write(files.0.join("cgroup.controllers"), "pids\n").unwrap();
        fs::write(files.0.join("a/b/cgroup.controllers"), "cpuset cpu io memory pids\n").unwrap();
        files.group("/a/b/c").create().unwrap();
        // Nothing is lacking there, so nothing is asked above.
        assert_eq!((enabled("."), enabled("a/b")), (String::new(), "+pids".into()));
        fs::write(files.0.join("a/b/cgroup.controllers"), "cpu\n").unwrap();
        fs::write(files.0.join("a/cgroup.controllers"), "memory\n").unwrap();
        files.group("/a/b/d").create().unwrap();
        assert_eq!((enabled("."), enabled("a"), enabled("a/b")), ("+pids".into(), "+memory".into(), "+cpu".into()));
    }

    #[test]
    fn weights_of_disks_are_the_schedulers() {
        let files = Files::new("weights", &["io.weight"]);
        let weights = r#"{"blockIO":{"weight":1000,"weightDevice":[{"major":8,"minor":16,"weight":10}]}}"#;
        files.apply(weights).unwrap();
        // The second is written over the first here.
        assert_eq!(files.read("io.weight"), "8:16 1t 10000");
        fs::write(files.0.join("io.bfq.weight"), "").unwrap();
        files.apply(weights).unwrap();
        assert_eq!(files.read("io.bfq.weight"), "8:16 10 1000");
        for bad in [r#"{"blockIO":{"leafWeight":10}}"#, r#"{"blockIO":{"weightDevice":[{"leafWeight":10}]}}"#] {
            assert!(files.apply(bad).unwrap_err().to_string().contains("leafWeight"), "{bad}");
        }
    }

    #[test]
    fn a_group_is_given_to_the_containers_root() {
        use std::os::unix::fs::MetadataExt;
        let files = Files::new("given", &["cgroup.procs", "cgroup.subtree_control", "cgroup.threads", "pids.max"]);
        files.group("/").give(1234).unwrap();
        let owner = |file: &str| fs::metadata(files.0.join(file)).unwrap().uid();
        let given = ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"].map(owner);
        assert_eq!((given, owner("pids.max")), ([1234; 4], 0));
    }
}
