//! User namespaces and mounts whose owners are mapped (config-linux "User namespace mappings", user_namespaces(7)).

use std::{
    fs,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use crate::{
    error::{Context, Error, Result},
    json::Json,
    sys,
};

/// The kernel's limit since 4.15.
const MAX_EXTENTS: usize = 340;

/// A range of ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    pub inside: u32,
    pub outside: u32,
    pub size: u32,
}

/// Users and groups of a namespace (or of a mount).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mappings {
    pub users: Vec<Mapping>,
    pub groups: Vec<Mapping>,
}

impl Mappings {
    /// Reads `uidMappings` and `gidMappings` of an object.
    pub fn parse(object: &Json) -> Result<Mappings> {
        let read = |key: &str| -> Result<Vec<Mapping>> {
            let entries = object.get(key).items();
            if entries.len() > MAX_EXTENTS {
                return Err(Error::new(format!("{key}: more than {MAX_EXTENTS} ranges")));
            }
            let number = |entry: &Json, name: &str| {
                entry.get(name).u32().ok_or_else(|| Error::new(format!("{key}: {name} is missing")))
            };
            let mapping = |entry: &Json| {
                let (inside, outside) = (number(entry, "containerID")?, number(entry, "hostID")?);
                Ok(Mapping { inside, outside, size: number(entry, "size")? })
            };
            entries.iter().map(mapping).collect()
        };
        let mappings = Mappings { users: read("uidMappings")?, groups: read("gidMappings")? };
        if mappings.users.is_empty() != mappings.groups.is_empty() {
            return Err(Error::new("uidMappings and gidMappings go together"));
        }
        Ok(mappings)
    }

    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// Gives the namespace of a process its mappings, once.
    pub fn write(&self, pid: i32) -> Result<()> {
        for (file, ranges) in [("uid_map", &self.users), ("gid_map", &self.groups)] {
            let lines: String =
                ranges.iter().map(|range| format!("{} {} {}\n", range.inside, range.outside, range.size)).collect();
            fs::write(format!("/proc/{pid}/{file}"), lines).context(|| format!("write {file}"))?;
        }
        Ok(())
    }

    /// Those of another namespace, its outside as this process has it.
    pub fn of_namespace(path: &Path) -> Result<Mappings> {
        let namespace = sys::open(path, libc::O_RDONLY, 0).context(|| "open".into())?;
        let (joined, join) = sys::pipe().context(|| "create a pipe".into())?;
        let (read, write) = sys::pipe().context(|| "create a pipe".into())?;
        // Only of a process in it can they be read (user_namespaces(7)).
        let pid = sys::clone3(0, None).context(|| "clone3".into())?;
        if pid == 0 {
            drop(write);
            let result = sys::setns(&namespace, libc::CLONE_NEWUSER);
            let number = result.map_or_else(|error| error.raw_os_error().unwrap_or(libc::EINVAL), |()| 0);
            let _ = sys::write(&join, &number.to_ne_bytes());
            let _ = sys::read(&read, &mut [0]);
            sys::exit_now(0);
        }
        let held = Held { pid, door: Some(write) };
        drop(join);
        let mut number = [0; 4];
        match sys::read(&joined, &mut number).map(|count| (count, i32::from_ne_bytes(number))) {
            Ok((4, 0)) => {}
            Ok((4, number)) => return Err(Error::io("join", std::io::Error::from_raw_os_error(number))),
            _ => return Err(Error::new("the process that was to join is gone")),
        }
        let ranges = |file: &str| -> Result<Vec<Mapping>> {
            let text = sys::read_file(format!("/proc/{}/{file}", held.pid)).context(|| format!("read {file}"))?;
            let range = |line: &str| {
                let mut numbers = line.split_whitespace().map(str::parse::<u32>);
                let mut next = || numbers.next()?.ok();
                Some(Mapping { inside: next()?, outside: next()?, size: next()? })
            };
            text.lines().map(|line| range(line).ok_or_else(|| Error::new(format!("{file}: {line:?}")))).collect()
        };
        Ok(Mappings { users: ranges("uid_map")?, groups: ranges("gid_map")? })
    }

    /// A user namespace with these mappings, for a mount.
    pub fn namespace(&self) -> Result<OwnedFd> {
        let held = self.hold(0)?;
        sys::open(held.path("user"), libc::O_RDONLY, 0).context(|| "open a user namespace".into())
    }

    /// Makes a user namespace with these mappings and others (`CLONE_NEW*`) that belong to it.
    pub fn hold(&self, others: i32) -> Result<Held> {
        let (read, write) = sys::pipe().context(|| "create a pipe".into())?;
        let flags = (libc::CLONE_NEWUSER | others) as u32;
        let pid = sys::clone3(flags.into(), None).context(|| "create a user namespace".into())?;
        if pid == 0 {
            // It lives until the other end is closed. The caller may have threads: nothing here allocates.
            drop(write);
            let _ = std::io::Read::read(&mut fs::File::from(read), &mut [0]);
            sys::exit_now(0);
        }
        let held = Held { pid, door: Some(write) };
        self.write(pid)?;
        Ok(held)
    }

    /// Whom a user and a group of the inside are outside; none where they are nobody.
    pub fn outside(&self, user: u32, group: u32) -> Option<(u32, u32)> {
        let find = |ranges: &[Mapping], id: u32| {
            let range = ranges.iter().find(|range| id.checked_sub(range.inside).is_some_and(|at| at < range.size))?;
            range.outside.checked_add(id - range.inside)
        };
        Some((find(&self.users, user)?, find(&self.groups, group)?))
    }
}

/// Namespaces that a process holds which does nothing else. They end with this, unless they are kept otherwise by then.
pub struct Held {
    pid: i32,
    door: Option<OwnedFd>,
}

impl Held {
    /// The file of a namespace (`user`, `net` …).
    pub fn path(&self, kind: &str) -> String {
        format!("/proc/{}/ns/{kind}", self.pid)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.door.take());
        let _ = sys::waitpid(self.pid);
    }
}

/// How mounts are copied by [`detached`].
#[derive(Clone, Copy, Default)]
pub struct Detached<'a> {
    /// With those below.
    pub recursive: bool,
    /// What is mounted there later comes after.
    pub follows: bool,
    pub mappings: Option<&'a Mappings>,
    /// The mappings are those of the mounts below, too (`ridmap`).
    pub map_tree: bool,
}

/// A copy of the mounts at a path, belonging nowhere yet; its owners mapped, if mappings are given. Nothing that is mounted
/// there later goes back to where it came from.
pub fn detached(source: &str, wanted: Detached<'_>) -> Result<OwnedFd> {
    let Detached { recursive, follows, mappings, map_tree } = wanted;
    // mount(2) takes no source from another namespace, and can map no owners.
    if !sys::has_mount_setattr() {
        return Err(Error::new(format!(
            "mount {source:?}: bind mounts into a user namespace and mapped owners need Linux 5.12: mount_setattr"
        )));
    }
    let tree = sys::open_tree(source, recursive).context(|| format!("open the mount at {source:?}"))?;
    let propagation = if follows { libc::MS_SLAVE } else { libc::MS_PRIVATE };
    sys::set_mount(&tree, recursive, sys::MountAttributes { propagation, ..Default::default() })
        .context(|| format!("cut the mount of {source:?} off"))?;
    if let Some(mappings) = mappings {
        let namespace = mappings.namespace()?;
        let attributes = sys::MountAttributes { owners: Some(namespace.as_fd()), ..Default::default() };
        sys::set_mount(&tree, map_tree, attributes).context(|| format!("map the owners at {source:?}"))?;
    }
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_inside_are_others_outside() {
        let ranges = vec![
            Mapping { inside: 0, outside: 100_000, size: 10 },
            Mapping { inside: 20, outside: u32::MAX, size: u32::MAX },
        ];
        let mappings = Mappings { users: ranges.clone(), groups: ranges };
        assert_eq!(mappings.outside(0, 9), Some((100_000, 100_009)));
        assert_eq!((mappings.outside(10, 0), mappings.outside(20, 21)), (None, None));
    }

    #[test]
    fn mappings_are_read_whole_or_refused() {
        let parse = |text: &str| Mappings::parse(&Json::parse(text.as_bytes()).unwrap());
        let range = r#"[{"containerID":0,"hostID":100000,"size":65536}]"#;
        let both = parse(&format!(r#"{{"uidMappings":{range},"gidMappings":{range}}}"#)).unwrap();
        assert_eq!(both.users, [Mapping { inside: 0, outside: 100_000, size: 65_536 }]);
        assert!(parse("{}").unwrap().is_empty());
        assert!(parse(&format!(r#"{{"uidMappings":{range}}}"#)).is_err());
        assert!(parse(r#"{"uidMappings":[{"hostID":1}],"gidMappings":[]}"#).is_err());
    }
}
