//! Where control groups are mounted.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader},
    path::PathBuf,
};

use super::{Cgroup, Dir};
use crate::error::{Context, Error, Result};

/// The v1 controllers that containers get a group in, where they are mounted.
const V1_CONTROLLERS: [&str; 9] =
    ["cpuset", "cpu", "cpuacct", "memory", "devices", "freezer", "blkio", "pids", "hugetlb"];
/// Those of v1 beside them, as runc joins them (cgroups `fs/fs.go`, subsystems). Where they are alone, whoever mounted them
/// wanted them for himself, and the system has v2.
const V1_BESIDE: [&str; 6] = ["net_cls", "net_prio", "perf_event", "rdma", "misc", "name=systemd"];

fn v1_controllers() -> impl Iterator<Item = &'static str> {
    V1_CONTROLLERS.into_iter().chain(V1_BESIDE)
}

/// The cgroup mounts of this process's mount namespace.
#[derive(Clone, Debug, PartialEq)]
pub enum Hierarchy {
    V1 { mounts: Vec<Mount> },
    V2 { mount: Mount },
}

/// One cgroup file system: its controllers (v1), where it is mounted, and which of its groups is seen there as `/`.
#[derive(Clone, Debug, PartialEq)]
pub struct Mount {
    pub controllers: Vec<String>,
    pub point: PathBuf,
    pub root: String,
}

impl Mount {
    /// A group's path, seen from the mount.
    fn relative<'a>(&self, group: &'a str) -> &'a str {
        group.strip_prefix(&self.root).unwrap_or(group).trim_start_matches('/')
    }

    fn dir(&self, path: PathBuf) -> Dir {
        Dir { controllers: self.controllers.clone(), depth_of_mount: self.point.components().count(), path }
    }
}

/// The mounts that were found so far.
struct Search {
    /// The controllers whose mounts are looked for.
    wanted: Vec<&'static str>,
    v1: Vec<Mount>,
    v2: Option<Mount>,
}

impl Search {
    /// Lines of `/proc/self/cgroup` are `id:controllers:path` (cgroups(7)), one for each hierarchy of the system.
    fn of(proc_cgroup: &str) -> Search {
        let listed: Vec<&str> =
            proc_cgroup.lines().filter_map(|line| line.split(':').nth(1)).flat_map(|names| names.split(',')).collect();
        let wanted = match V1_CONTROLLERS.iter().any(|name| listed.contains(name)) {
            true => v1_controllers().filter(|name| listed.contains(name)).collect(),
            false => Vec::new(),
        };
        Search { wanted, v1: Vec::new(), v2: None }
    }

    /// Whether what follows changes nothing.
    fn has_all(&self) -> bool {
        let is_mounted = |name: &&str| self.v1.iter().any(|mount| mount.controllers.iter().any(|has| has == name));
        if self.wanted.is_empty() { self.v2.is_some() } else { self.wanted.iter().all(is_mounted) }
    }

    /// One line of mountinfo (proc_pid_mountinfo(5)): `id parent dev root point options … - type source super`.
    fn take(&mut self, line: &str) {
        let Some((left, right)) = line.split_once(" - ") else { return };
        let (mut left, mut right) = (left.split(' ').skip(3), right.split(' '));
        let (Some(root), Some(point)) = (left.next(), left.next()) else { return };
        let mount = |controllers| Mount { controllers, point: PathBuf::from(unescape(point)), root: unescape(root) };
        match right.next() {
            Some("cgroup2") if self.v2.is_none() => self.v2 = Some(mount(Vec::new())),
            Some("cgroup") => {
                let options = right.nth(1).unwrap_or_default();
                let known = |name: &&str| v1_controllers().any(|known| known == *name);
                let controllers: Vec<String> = options.split(',').filter(known).map(str::to_owned).collect();
                if !controllers.is_empty() && !self.v1.iter().any(|mount| mount.controllers == controllers) {
                    self.v1.push(mount(controllers));
                }
            }
            _ => {}
        }
    }

    fn finish(self) -> Option<Hierarchy> {
        let v2 = self.v2.map(|mount| Hierarchy::V2 { mount });
        let rules = |mount: &Mount| mount.controllers.iter().any(|name| V1_CONTROLLERS.contains(&name.as_str()));
        if self.v1.iter().any(rules) { Some(Hierarchy::V1 { mounts: self.v1 }) } else { v2 }
    }
}

impl Hierarchy {
    /// Reads the mounts of this process.
    pub fn discover() -> Result<Hierarchy> {
        let own = fs::read_to_string("/proc/self/cgroup").context(|| "read /proc/self/cgroup".into())?;
        let file = File::open("/proc/self/mountinfo").context(|| "read /proc/self/mountinfo".into())?;
        let found = Hierarchy::read(&own, BufReader::new(file)).context(|| "read /proc/self/mountinfo".into())?;
        found.ok_or_else(|| Error::new("no cgroup file system is mounted"))
    }

    /// All that mountinfo says.
    pub fn parse(mountinfo: &str) -> Option<Hierarchy> {
        let mut search = Search::of("");
        mountinfo.lines().for_each(|line| search.take(line));
        search.finish()
    }

    /// Reads mountinfo as far as it must. What is mounted for containers comes last there, is much where many run, and every
    /// line of it takes the kernel its time; which hierarchies there are to be found is in `/proc/self/cgroup`.
    fn read(proc_cgroup: &str, mut mountinfo: impl BufRead) -> io::Result<Option<Hierarchy>> {
        let mut search = Search::of(proc_cgroup);
        let mut line = Vec::new();
        while !search.has_all() && mountinfo.read_until(b'\n', &mut line)? > 0 {
            search.take(String::from_utf8_lossy(&line).trim_end_matches('\n'));
            line.clear();
        }
        Ok(search.finish())
    }

    pub fn is_v2(&self) -> bool {
        matches!(self, Hierarchy::V2 { .. })
    }

    fn mounts(&self) -> &[Mount] {
        match self {
            Hierarchy::V1 { mounts } => mounts,
            Hierarchy::V2 { mount } => std::slice::from_ref(mount),
        }
    }

    /// The group that a process is in, by its `/proc/PID/cgroup`.
    pub fn group_of(&self, proc_cgroup: &str) -> Result<Cgroup> {
        let dirs = self.mounts().iter().map(|mount| {
            let path = own_group(proc_cgroup, mount.controllers.first().map_or("", String::as_str));
            // What is outside of this process's cgroup namespace begins with "/.." (cgroup_namespaces(7)).
            if path.split('/').any(|part| part == "..") {
                return Err(Error::new(format!("cgroup {path:?} cannot be seen from here")));
            }
            Ok(mount.dir(mount.point.join(mount.relative(path))))
        });
        Ok(Cgroup { v2: self.is_v2(), dirs: dirs.collect::<Result<_>>()? })
    }

    /// The group of `linux.cgroupsPath`: absolute from the mount, relative from the own group, on v2 from the one
    /// above it (OCI, config-linux).
    pub fn group(&self, path: &str) -> Result<Cgroup> {
        if path.split('/').any(|part| part == "..") {
            return Err(Error::new(format!("cgroupsPath {path:?} contains \"..\"")));
        }
        let own = if path.starts_with('/') {
            String::new()
        } else {
            fs::read_to_string("/proc/self/cgroup").unwrap_or_default()
        };
        let mut dirs = Vec::new();
        for mount in self.mounts() {
            let mut dir = mount.point.clone();
            if !path.starts_with('/') {
                let own = own_group(&own, mount.controllers.first().map_or("", String::as_str));
                let own = if self.is_v2() { above(own) } else { own };
                dir.push(mount.relative(own));
            }
            dir.push(path.trim_start_matches('/'));
            dirs.push(mount.dir(dir));
        }
        Ok(Cgroup { v2: self.is_v2(), dirs })
    }
}

/// The own path in the hierarchy of `controller` ("" for v2), by lines `id:controllers:path`.
fn own_group<'a>(proc_cgroup: &'a str, controller: &str) -> &'a str {
    let mut lines = proc_cgroup.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        Some((parts.next()?, parts.next()?))
    });
    lines.find(|(names, _)| names.split(',').any(|name| name == controller)).map_or("/", |(_, path)| path)
}

/// Where groups are made beside the own one: below a group with processes no controller can be enabled on v2 (runc, cgroups
/// `fs2/defaultpath.go`).
fn above(own: &str) -> &str {
    own.rsplit_once('/').map_or("", |(above, _)| above)
}

/// mountinfo writes space, tab, newline and backslash in octal.
pub fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        match rest.get(at + 1..at + 4).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                out.push(byte as char);
                rest = &rest[at + 4..];
            }
            None => {
                out.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn tells_the_layouts_apart() {
        let v1 = "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
                  33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw shared:3 - cgroup cgroup rw,cpuacct\n\
                  40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
                  41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let Some(hierarchy @ Hierarchy::V1 { .. }) = Hierarchy::parse(v1) else { panic!("hybrid is v1") };
        let group = hierarchy.group("/a/b").unwrap();
        assert_eq!(group.dir("cpuacct").unwrap(), Path::new("/sys/fs/cgroup/cpu,cpuacct/a/b"));
        assert_eq!(group.dir("memory"), None);
        assert_eq!(group.dir("name=systemd").unwrap(), Path::new("/sys/fs/cgroup/systemd/a/b"));
        let alone = "31 23 0:26 / /net rw - cgroup none rw,net_cls\n30 23 0:26 / /c rw - cgroup2 cgroup2 rw\n";
        assert!(Hierarchy::parse(alone).unwrap().is_v2());
        let v2 = "30 23 0:26 / /sys/fs/cgroup\\040x rw - cgroup2 cgroup2 rw\n";
        let Some(hierarchy @ Hierarchy::V2 { .. }) = Hierarchy::parse(v2) else { panic!("only v2") };
        assert_eq!(hierarchy.group("/a").unwrap().dir("memory").unwrap(), Path::new("/sys/fs/cgroup x/a"));
        assert_eq!(Hierarchy::parse("22 27 0:21 / /proc rw - proc proc rw"), None);
    }

    #[test]
    fn a_path_stays_below_its_mount() {
        let hierarchy = Hierarchy::V2 { mount: Mount { controllers: vec![], point: "/c".into(), root: "/".into() } };
        assert!(hierarchy.group("/a/../../etc").is_err());
        assert_eq!(own_group("4:memory,cpu:/x\n0::/y\n", "cpu"), "/x");
        assert_eq!(own_group("4:memory:/x\n0::/y\n", ""), "/y");
        assert_eq!((above("/a/b"), above("/a"), above("/")), ("/a", "", ""));
    }

    #[test]
    fn the_group_of_a_process_is_found_below_the_mount() {
        let hierarchy = Hierarchy::V2 { mount: Mount { controllers: vec![], point: "/c".into(), root: "/pod".into() } };
        let group = |text: &str| hierarchy.group_of(text).map(|group| group.dir("").unwrap().to_owned());
        assert_eq!(group("0::/pod/box/init.scope\n").unwrap(), Path::new("/c/box/init.scope"));
        assert_eq!(group("0::/pod\n").unwrap(), Path::new("/c"));
        assert!(group("0::/../other\n").is_err());
    }

    #[test]
    fn a_group_that_has_passed_controllers_on_is_known() {
        let dir = std::env::temp_dir().join(format!("passed-on-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let group = |hierarchy: Hierarchy| hierarchy.group("/").unwrap().has_passed_on();
        let mount = || Mount { controllers: vec![], point: dir.clone(), root: "/".into() };
        let v2 = |text: &str| {
            fs::write(dir.join("cgroup.subtree_control"), text).unwrap();
            group(Hierarchy::V2 { mount: mount() })
        };
        assert!(v2("cpu memory\n") && !v2("\n"));
        assert!(!group(Hierarchy::V1 { mounts: vec![mount()] }));
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn reads_no_further_than_it_must() {
        const CPU: &str = "32 31 0:29 / /c/cpu rw - cgroup cgroup rw,cpu\n";
        const PIDS: &str = "33 31 0:30 / /c/pids rw - cgroup cgroup rw,pids\n";
        const UNIFIED: &str = "34 31 0:31 / /c/unified rw - cgroup2 cgroup2 rw\n";
        const REST: &str = "35 31 0:32 / /run/x rw - overlay overlay rw\n";
        let left = |own: &str, table: &str| {
            let mut rest = table.as_bytes();
            let found = Hierarchy::read(own, &mut rest).unwrap();
            assert_eq!(found, Hierarchy::parse(table), "{own:?}");
            String::from_utf8(rest.to_vec()).unwrap()
        };
        const SYSTEMD: &str = "36 31 0:33 / /c/systemd rw - cgroup cgroup rw,xattr,name=systemd\n";
        // A hierarchy that is not mounted here is looked for to the end, as are those of others never.
        let all = format!("{REST}{UNIFIED}{CPU}{PIDS}{REST}");
        assert_eq!(left("3:name=other:/\n2:cpu:/\n1:pids:/\n0::/\n", &all), REST);
        assert_eq!(left("3:name=systemd:/\n2:cpu:/\n0::/\n", &format!("{CPU}{SYSTEMD}{REST}")), REST);
        // Beside v2 nobody looks for it.
        assert_eq!(left("1:name=systemd:/\n0::/\n", &format!("{SYSTEMD}{UNIFIED}{REST}")), REST);
        assert_eq!(left("3:memory:/\n2:cpu:/\n1:pids:/\n0::/\n", &all), "");
        assert_eq!(left("1:name=systemd:/\n0::/\n", &format!("{UNIFIED}{REST}")), REST);
        assert_eq!(left("2:cpu:/\n0::/\n", &format!("{UNIFIED}{REST}")), "");
        assert_eq!(left("0::/\n", REST), "");
    }
}
