//! Intel RDT and what is like it: shares of a processor's cache and memory bandwidth, by the kernel's resctrl file system (OCI
//! runtime specification, config-linux.md "IntelRdt"; kernel documentation, "User Interface for Resource Control feature").
//!
//! A class of service is a directory. One that the container names is its owner's, who made it or will remove it; one that has
//! the container's name ends with it.

use std::{
    collections::HashSet,
    fs,
    io::{self, ErrorKind},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use crate::{
    cgroup::hierarchy::unescape,
    error::{Context, Error, Result},
    json::{Json, object},
    state::State,
    sys,
};

/// `linux.intelRdt` of a configuration.
#[derive(Clone, Debug)]
pub struct IntelRdt {
    class: Option<String>,
    /// Lines for the file `schemata`; none, and it is not written.
    schemata: Vec<String>,
    monitored: bool,
}

/// The class that a container is in.
#[derive(Clone, Debug, PartialEq)]
pub struct Class {
    dir: PathBuf,
    /// It has the container's name.
    own: bool,
    /// The container's directory of counters.
    monitor: Option<PathBuf>,
}

impl IntelRdt {
    /// Judges what a configuration says.
    pub fn parse(config: &Json) -> Result<Option<IntelRdt>> {
        if config.is_null() {
            return Ok(None);
        }
        let text = |key: &str| config.get(key).str().filter(|text| !text.is_empty());
        let class = text("closID");
        if let Some(name) = class.filter(|name| matches!(*name, "." | "..") || name.contains(['/', '\n'])) {
            return Err(Error::new(format!("invalid intelRdt.ClosID {name:?}")));
        }
        let bandwidth = text("memBwSchema");
        if bandwidth.is_some_and(|line| !line.starts_with("MB:") || line.contains('\n')) {
            return Err(Error::new("linux.intelRdt.memBwSchema: it must be one line that begins with \"MB:\""));
        }
        // Lines of bandwidth give way to a setting of their own; the newer list adds to both.
        let cache = text("l3CacheSchema").unwrap_or_default().lines();
        let cache = cache.filter(|line| bandwidth.is_none() || !line.starts_with("MB:"));
        let more = config.get("schemata").strings();
        let schemata: Vec<String> = cache.chain(bandwidth).map(str::to_owned).chain(more).collect();
        let monitored = ["enableCMT", "enableMBM", "enableMonitoring"];
        let monitored = monitored.iter().any(|key| config.get(key).bool() == Some(true));
        Ok(Some(IntelRdt { class: class.map(str::to_owned), schemata, monitored }))
    }

    /// Makes or finds the container's class.
    pub fn open(&self, id: &str) -> Result<Class> {
        let table = sys::read_file("/proc/self/mountinfo").context(|| "read /proc/self/mountinfo".into())?;
        let root = mount_point(&table).ok_or_else(|| {
            Error::new("intelRdt is specified in config, but Intel RDT is not supported or enabled: no resctrl file system is mounted")
        })?;
        self.open_below(&root, id)
    }

    fn open_below(&self, root: &Path, id: &str) -> Result<Class> {
        let dir = root.join(self.class.as_deref().unwrap_or(id));
        let mut class = Class { dir: dir.clone(), own: self.class.is_none(), monitor: None };
        // Of one that is named alone somebody else has said what it gives.
        let is_others = self.class.is_some() && self.schemata.is_empty();
        if is_others && !dir.is_dir() {
            return Err(Error::new(format!("linux.intelRdt.closID: {} must be there already", dir.display())));
        }
        let made = if is_others { Ok(()) } else { fs::create_dir(&dir) };
        match made {
            Ok(()) if is_others => {}
            Ok(()) => class.write_schemata_or_leave(&self.schemata)?,
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(Error::io(format!("create {}", dir.display()), error));
            }
            Err(_) if class.own => class.write_schemata(&self.schemata)?,
            Err(_) => class.has(&self.schemata)?,
        }
        if self.monitored {
            let monitor = dir.join("mon_groups").join(id);
            if let Err(error) = fs::create_dir(&monitor)
                && error.kind() != ErrorKind::AlreadyExists
            {
                class.leave();
                return Err(Error::io(format!("create {}", monitor.display()), error));
            }
            class.monitor = Some(monitor);
        }
        Ok(class)
    }
}

/// Gives a running container other shares; one without a class gets one of its own (runc `update.go`).
///
/// # Errors
/// When there can be no class, or the kernel does not take the lines. A class that was made is gone again then.
pub fn change(state: &mut State, cache: Option<&str>, bandwidth: Option<&str>) -> Result<()> {
    let line = |text: Option<&str>| text.map_or(Json::Null, Json::from);
    let asked = object([("l3CacheSchema", line(cache)), ("memBwSchema", line(bandwidth))]);
    let Some(asked) = IntelRdt::parse(&asked)?.filter(|asked| !asked.schemata.is_empty()) else { return Ok(()) };
    if let Some(class) = &state.class {
        return class.write_schemata(&asked.schemata);
    }
    let group = state.cgroup()?;
    let class = asked.open(&state.id)?;
    state.class = Some(class.clone());
    let changed = class.take_in(|| group.processes()).and_then(|()| state.save());
    if changed.is_err() {
        class.leave();
    }
    changed
}

impl Class {
    /// Moves all threads of processes here, also those that they start meanwhile.
    fn take_in(&self, processes: impl Fn() -> Vec<i32>) -> Result<()> {
        let path = self.dir.join("tasks");
        let mut moved = HashSet::new();
        loop {
            let before = moved.len();
            for pid in processes() {
                // Processes and threads may end at any time.
                let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
                for thread in threads.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()) {
                    if moved.insert(thread)
                        && let Err(error) = fs::write(&path, thread.to_string())
                        && error.raw_os_error() != Some(libc::ESRCH)
                    {
                        return Err(Error::io(format!("move thread {thread} to {}", self.dir.display()), error));
                    }
                }
            }
            // What a thread that was moved starts is in its class from the start.
            if moved.len() == before {
                return Ok(());
            }
        }
    }

    /// The files through which a process comes in; "0" is the writer itself, as in cgroups.
    pub fn doors(&self) -> Result<Vec<OwnedFd>> {
        let open = |dir: &PathBuf| {
            let path = dir.join("tasks");
            sys::open(&path, libc::O_WRONLY, 0).context(|| format!("open {}", path.display()))
        };
        std::iter::once(&self.dir).chain(&self.monitor).map(open).collect()
    }

    /// Changes what the class may use.
    pub fn write_schemata(&self, lines: &[String]) -> Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let path = self.dir.join("schemata");
        let text = lines.iter().fold(String::new(), |text, line| text + line + "\n");
        fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|mut file| io::Write::write_all(&mut file, text.as_bytes()))
            .map_err(|error| {
                // What is wrong with a line stands elsewhere.
                let why = self.dir.parent().map(|root| root.join("info/last_cmd_status"));
                let why = why.and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default();
                let why = why.trim();
                let why = if matches!(why, "" | "ok") { String::new() } else { format!(" ({why})") };
                Error::io(format!("write {:?} to {}{why}", text.trim_end(), path.display()), error)
            })
    }

    fn write_schemata_or_leave(&self, lines: &[String]) -> Result<()> {
        let written = self.write_schemata(lines);
        if written.is_err() {
            // It was made a moment ago, by this process.
            let _ = fs::remove_dir(&self.dir);
        }
        written
    }

    /// Refuses a class that gives something else than what is asked of it.
    fn has(&self, lines: &[String]) -> Result<()> {
        let path = self.dir.join("schemata");
        let there = fs::read_to_string(&path).context(|| format!("read {}", path.display()))?;
        let there: Vec<_> = there.lines().filter_map(shares).collect();
        let asked = lines.iter().flat_map(|line| line.lines()).filter_map(shares);
        match asked.into_iter().find(|line| !there.contains(line)) {
            Some((resource, _)) => {
                Err(Error::new(format!("linux.intelRdt: {} has another {resource} than what is asked", path.display())))
            }
            None => Ok(()),
        }
    }

    /// Removes what ends with the container.
    pub fn leave(&self) {
        // Gone already, or with processes that go elsewhere then: neither keeps the container.
        for dir in self.monitor.iter().chain(self.own.then_some(&self.dir)) {
            let _ = fs::remove_dir(dir);
        }
    }

    /// What `events` tells.
    pub fn stats(&self) -> Json {
        let line = |dir: Option<&Path>, resource: &str| {
            let text = dir.and_then(|dir| fs::read_to_string(dir.join("schemata")).ok()).unwrap_or_default();
            let mut lines = text.lines().map(str::trim);
            lines.find(|line| line.starts_with(resource)).unwrap_or_default().to_owned()
        };
        let root = self.dir.parent();
        object([
            ("l3_cache_schema_root", line(root, "L3").as_str().into()),
            ("l3_cache_schema", line(Some(&self.dir), "L3").as_str().into()),
            ("mem_bw_schema_root", line(root, "MB").as_str().into()),
            ("mem_bw_schema", line(Some(&self.dir), "MB").as_str().into()),
        ])
    }

    /// As it is kept with a container's state.
    pub fn keep(&self) -> Json {
        let path = |path: &Path| Json::from(path.to_string_lossy().as_ref());
        let monitor = self.monitor.as_deref().map_or(Json::Null, path);
        object([("dir", path(&self.dir)), ("own", self.own.into()), ("monitor", monitor)])
    }

    pub fn kept(state: &Json) -> Option<Class> {
        Some(Class {
            dir: state.get("dir").str()?.into(),
            own: state.get("own").bool()?,
            monitor: state.get("monitor").str().map(PathBuf::from),
        })
    }
}

/// What a line gives of a resource, by domain and without what may be written differently: spaces, and zeros before a number.
fn shares(line: &str) -> Option<(&str, Vec<(&str, &str)>)> {
    let (resource, domains) = line.trim().split_once(':')?;
    let number = |text: &str| text.find(|letter| letter != '0').map_or(text.len().saturating_sub(1), |at| at);
    let mut domains: Vec<_> = domains
        .split(';')
        .filter_map(|domain| domain.split_once('='))
        .map(|(domain, share)| (domain.trim(), share.trim()))
        .map(|(domain, share)| (domain, &share[number(share)..]))
        .collect();
    domains.sort_unstable();
    Some((resource, domains))
}

/// Where resctrl is mounted (proc_pid_mountinfo(5)).
fn mount_point(table: &str) -> Option<PathBuf> {
    let line =
        table.lines().find(|line| line.split_once(" - ").is_some_and(|(_, kind)| kind.starts_with("resctrl ")))?;
    line.split(' ').nth(4).map(|point| unescape(point).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file system whose directories are filled as resctrl fills its own.
    struct Fake(PathBuf);

    impl Fake {
        fn new(name: &str) -> Fake {
            let root = std::env::temp_dir().join(format!("resctrl-{name}-{}", std::process::id()));
            fs::create_dir(&root).unwrap();
            Fake(root)
        }

        fn root(&self) -> &Path {
            &self.0
        }

        fn class(&self, name: &str, schemata: &str) -> PathBuf {
            let dir = self.root().join(name);
            fs::create_dir_all(dir.join("mon_groups")).unwrap();
            fs::write(dir.join("schemata"), schemata).unwrap();
            fs::write(dir.join("tasks"), "").unwrap();
            dir
        }
    }

    impl Drop for Fake {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn parse(config: &str) -> Result<Option<IntelRdt>> {
        IntelRdt::parse(&Json::parse(config.as_bytes()).unwrap())
    }

    fn rdt(config: &str) -> IntelRdt {
        parse(config).unwrap().unwrap()
    }

    #[test]
    fn a_configuration_is_judged() {
        assert!(parse("null").unwrap().is_none());
        for name in [".", "..", "a/b", "a\\nb"] {
            assert!(parse(&format!("{{\"closID\":\"{name}\"}}")).is_err(), "{name}");
        }
        for line in ["L3:0=f", "MB:0=20\\nMB:1=70"] {
            assert!(parse(&format!("{{\"memBwSchema\":\"{line}\"}}")).is_err(), "{line}");
        }
        let both = rdt(r#"{"l3CacheSchema":"L3:0=f\nMB:0=10","memBwSchema":"MB:0=20","schemata":["L2:0=3"]}"#);
        assert_eq!(both.schemata, ["L3:0=f", "MB:0=20", "L2:0=3"]);
        assert_eq!(rdt(r#"{"l3CacheSchema":"L3:0=f\nMB:0=10"}"#).schemata, ["L3:0=f", "MB:0=10"]);
        assert!(rdt(r#"{"enableCMT":true}"#).monitored && !rdt(r#"{"enableMBM":false}"#).monitored);
    }

    #[test]
    fn a_class_that_is_named_stays() {
        let fake = Fake::new("named");
        let dir = fake.class("gold", "    L3:0=0ff;1=c0\n    MB:0=100;1=100\n");
        let open = |config: &str| rdt(config).open_below(fake.root(), "web");
        let class = open(r#"{"closID":"gold","l3CacheSchema":"L3:1=c0;0=ff"}"#).unwrap();
        assert_eq!(class, Class { dir: dir.clone(), own: false, monitor: None });
        for door in class.doors().unwrap() {
            io::Write::write_all(&mut fs::File::from(door), b"0").unwrap();
        }
        assert_eq!(fs::read_to_string(dir.join("tasks")).unwrap(), "0");
        class.leave();
        assert!(dir.exists());
        // It gives something else.
        for other in ["L3:0=ff;1=c1", "L3:0=ff", "L2:0=ff"] {
            assert!(open(&format!(r#"{{"closID":"gold","l3CacheSchema":"{other}"}}"#)).is_err(), "{other}");
        }
        assert!(open(r#"{"closID":"gold"}"#).is_ok());
        let error = open(r#"{"closID":"silver"}"#).unwrap_err().to_string();
        assert!(error.ends_with("/silver must be there already") && !fake.root().join("silver").exists(), "{error}");
    }

    #[test]
    fn a_class_of_the_containers_own_goes_with_it() {
        let fake = Fake::new("own");
        let dir = fake.class("web", "L3:0=fff\n");
        let class = rdt(r#"{"l3CacheSchema":"L3:0=f","memBwSchema":"MB:0=20","enableMBM":true}"#)
            .open_below(fake.root(), "web");
        let class = class.unwrap();
        assert_eq!(fs::read_to_string(dir.join("schemata")).unwrap(), "L3:0=f\nMB:0=20\n");
        assert_eq!(Class::kept(&class.keep()), Some(class.clone()));
        assert_eq!(class.stats().get("mem_bw_schema").str(), Some("MB:0=20"));
        let monitor = dir.join("mon_groups/web");
        assert!(monitor.exists());
        for file in ["schemata", "tasks"] {
            fs::remove_file(dir.join(file)).unwrap();
        }
        // Where the file system is the kernel's, this directory goes with the one above.
        class.leave();
        assert!(!monitor.exists());
        fs::remove_dir(dir.join("mon_groups")).unwrap();
        class.leave();
        assert!(!dir.exists());
    }

    #[test]
    fn threads_that_run_are_moved_and_those_that_ended_are_no_error() {
        let fake = Fake::new("moved");
        let dir = fake.class("web", "");
        let class = rdt(r#"{"l3CacheSchema":"L3:0=f"}"#).open_below(fake.root(), "web").unwrap();
        let (sender, stop) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || stop.recv());
        let asked = std::cell::Cell::new(0);
        let own = std::process::id() as i32;
        class
            .take_in(|| {
                asked.set(asked.get() + 1);
                vec![own, i32::MAX]
            })
            .unwrap();
        // Once more than there was something new; the file keeps the last thread's number, where it is no kernel's.
        assert!(asked.get() >= 2);
        let last = fs::read_to_string(dir.join("tasks")).unwrap();
        assert!(Path::new(&format!("/proc/{own}/task/{last}")).exists() && last != own.to_string(), "{last}");
        drop(sender);
        let _ = thread.join();
        fs::remove_file(dir.join("tasks")).unwrap();
        fs::create_dir(dir.join("tasks")).unwrap();
        let error = class.take_in(|| vec![own]).unwrap_err().to_string();
        assert!(error.starts_with("move thread "), "{error}");
    }

    #[test]
    fn the_file_system_is_found() {
        let table = "22 27 0:21 / /proc rw - proc proc rw\n40 30 0:35 / /sys/fs/res\\040ctrl rw - resctrl resctrl rw\n";
        assert_eq!(mount_point(table), Some("/sys/fs/res ctrl".into()));
        assert_eq!(mount_point("22 27 0:21 / /resctrl rw - proc resctrl rw\n"), None);
    }
}
