//! What is kept about a container between calls: `<root>/<id>/state.json`, and `exec.fifo` until it is started.

use std::{
    fs,
    io::{self, ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{
    cgroup::{Cgroup, Hierarchy, Holder, freezer},
    defaults::Defaults,
    error::{Context, Error, Result},
    hooks::Hooks,
    json::{Json, object},
    log::{Log, rfc3339},
    process_fd::ProcessFd,
    rdt::Class,
    rootfs::take_off_root,
    spec::read_json,
    sys, systemd,
};

/// Where containers are kept unless `--root` says otherwise.
pub const DEFAULT_ROOT: &str = "/run/coracle/oci";
/// While this file is there the container is created and not started; a byte written to it starts it.
pub const START_FIFO: &str = "exec.fifo";

/// A container on disk.
#[derive(Clone, Debug)]
pub struct State {
    pub id: String,
    pub bundle: PathBuf,
    pub pid: i32,
    /// When the process started, in ticks since boot: tells it from another process that got its number.
    pub start_time: u64,
    pub created: String,
    pub cgroups_path: String,
    /// The unit that the group is, where systemd makes groups.
    pub unit: Option<systemd::Name>,
    pub annotations: Json,
    /// `hooks` of the configuration, as far as they are still to run.
    pub hooks: Json,
    /// What it has of cache and memory bandwidth.
    pub class: Option<Class>,
    /// By which its group is known; none in the file of an older launcher.
    pub holder: Option<Holder>,
    /// Whether none of its processes outlives the first, which has a pid namespace of its own.
    pub ends_whole: bool,
    /// Its root as `config.json` says; nothing in the file of an older launcher.
    pub rootfs: PathBuf,
    /// The root's mount, of a container without a mount namespace of its own or of others.
    pub root_mount: Option<u64>,
    /// What later processes have of it; none in the file of an older launcher.
    pub defaults: Option<Defaults>,
    dir: PathBuf,
}

/// State of the specification (runtime.md "State"), and runc's `paused`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Only hooks see it.
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl Status {
    pub fn name(self) -> &'static str {
        match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        }
    }
}

/// Ids are file names (runc's rule).
pub fn check_id(id: &str) -> Result<()> {
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || "_+-.".contains(letter);
    if id.is_empty() || id.len() > 1024 || !id.chars().all(allowed) || id == "." || id == ".." {
        return Err(Error::new(format!("invalid container ID format: {id}")));
    }
    Ok(())
}

/// Reserves an id by making its directory.
pub fn reserve(root: &Path, id: &str) -> Result<PathBuf> {
    check_id(id)?;
    let dir = root.join(id);
    let mut builder = fs::DirBuilder::new();
    builder.mode(0o711);
    let mut result = builder.create(&dir);
    if result.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound) {
        fs::DirBuilder::new()
            .mode(0o700)
            .recursive(true)
            .create(root)
            .context(|| format!("create {}", root.display()))?;
        result = builder.create(&dir);
    }
    match result {
        Ok(()) => Ok(dir),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            Err(Error::new(format!("container with given ID already exists: {id}")))
        }
        Err(error) => Err(Error::io(format!("create {}", dir.display()), error)),
    }
}

impl State {
    pub fn new(dir: PathBuf, id: &str, bundle: &Path, pid: i32, cgroups_path: &str, annotations: &Json) -> State {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
        State {
            id: id.to_owned(),
            bundle: bundle.to_owned(),
            pid,
            start_time: start_time(pid).unwrap_or(0),
            created: rfc3339(now),
            cgroups_path: cgroups_path.to_owned(),
            unit: None,
            annotations: annotations.clone(),
            hooks: Json::Null,
            class: None,
            holder: None,
            ends_whole: false,
            rootfs: PathBuf::new(),
            root_mount: None,
            defaults: None,
            dir,
        }
    }

    /// The process that the container is.
    pub fn set_process(&mut self, pid: i32) {
        self.pid = pid;
        self.start_time = start_time(pid).unwrap_or(0);
    }

    /// Keeps the hooks that run after the creation.
    pub fn keep_hooks(&mut self, hooks: &Json) {
        let later = hooks.members().iter().filter(|(name, _)| matches!(name.as_str(), "poststart" | "poststop"));
        self.hooks = Json::Obj(later.cloned().collect());
    }

    pub fn load(root: &Path, id: &str) -> Result<State> {
        check_id(id)?;
        let dir = root.join(id);
        let path = dir.join("state.json");
        if !path.exists() {
            return Err(Error::new(format!("container does not exist: {id}")));
        }
        let json = read_json(&path)?;
        let text = |key: &str| json.get(key).str().unwrap_or_default().to_owned();
        Ok(State {
            id: id.to_owned(),
            bundle: text("bundle").into(),
            pid: json.get("pid").i64().and_then(|pid| i32::try_from(pid).ok()).unwrap_or(0),
            start_time: json.get("startTime").u64().unwrap_or(0),
            created: text("created"),
            cgroups_path: text("cgroupsPath"),
            unit: systemd::Name::kept(json.get("systemd")),
            annotations: json.get("annotations").clone(),
            hooks: json.get("hooks").clone(),
            class: Class::kept(json.get("intelRdt")),
            holder: Holder::kept(json.get("cgroup")),
            ends_whole: json.get("endsWhole").bool().unwrap_or(false),
            rootfs: text("rootfs").into(),
            root_mount: json.get("rootMount").u64(),
            defaults: Defaults::kept(json.get("defaults")),
            dir,
        })
    }

    /// Writes the file so that a reader sees all of it or the one before.
    pub fn save(&self) -> Result<()> {
        let mut json = self.describe(None);
        if let Json::Obj(members) = &mut json {
            members.push(("startTime".into(), self.start_time.into()));
            members.push(("cgroupsPath".into(), self.cgroups_path.as_str().into()));
            if let Some(holder) = &self.holder {
                members.push(("cgroup".into(), holder.keep()));
            }
            if let Some(unit) = &self.unit {
                members.push(("systemd".into(), unit.keep()));
            }
            members.push(("endsWhole".into(), self.ends_whole.into()));
            if !self.hooks.members().is_empty() {
                members.push(("hooks".into(), self.hooks.clone()));
            }
            members.push(("rootfs".into(), self.rootfs.to_string_lossy().as_ref().into()));
            if let Some(id) = self.root_mount {
                members.push(("rootMount".into(), id.into()));
            }
            if let Some(defaults) = &self.defaults {
                members.push(("defaults".into(), defaults.keep()));
            }
            if let Some(class) = &self.class {
                members.push(("intelRdt".into(), class.keep()));
            }
        }
        let (path, part) = (self.dir.join("state.json"), self.dir.join("state.json.part"));
        let file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part);
        file.and_then(|mut file| file.write_all(json.to_string().as_bytes()))
            .and_then(|()| fs::rename(&part, &path))
            .context(|| format!("write {}", path.display()))
    }

    /// The state as the specification shows it.
    pub fn describe(&self, status: Option<Status>) -> Json {
        let mut out =
            object([("ociVersion", "1.2.0".into()), ("id", self.id.as_str().into()), ("pid", self.pid.into())]);
        let Json::Obj(members) = &mut out else { return out };
        if let Some(status) = status {
            members.push(("status".into(), status.name().into()));
            if status == Status::Stopped {
                members[2].1 = Json::Int(0);
            }
        }
        members.push(("bundle".into(), self.bundle.to_string_lossy().as_ref().into()));
        members.push(("created".into(), self.created.as_str().into()));
        if !self.annotations.members().is_empty() {
            members.push(("annotations".into(), self.annotations.clone()));
        }
        out
    }

    /// The state as `state` and `list` show it: with what runc adds (`list.go`, containerState).
    pub fn show(&self) -> Json {
        let mut out = self.describe(Some(self.status()));
        if let Json::Obj(members) = &mut out {
            if !self.rootfs.as_os_str().is_empty() {
                members.push(("rootfs".into(), self.rootfs.to_string_lossy().as_ref().into()));
            }
            members.push(("owner".into(), self.owner().into()));
        }
        out
    }

    /// The name of who made it, or `#` and the number of who has none.
    pub fn owner(&self) -> String {
        let uid = fs::metadata(&self.dir).map_or(0, |metadata| std::os::unix::fs::MetadataExt::uid(&metadata));
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let named = passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
        });
        named.unwrap_or_else(|| format!("#{uid}"))
    }

    pub fn status(&self) -> Status {
        if start_time(self.pid) != Some(self.start_time) {
            Status::Stopped
        } else if self.dir.join(START_FIFO).exists() {
            Status::Created
        } else if self.cgroup().is_ok_and(|group| freezer::is_frozen(&group)) {
            Status::Paused
        } else {
            Status::Running
        }
    }

    /// Where it is kept.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn cgroup(&self) -> Result<Cgroup> {
        Hierarchy::discover()?.group(&self.cgroups_path)
    }

    /// Whether its group has become no other container's, which is possible when it has stopped.
    pub fn holds(&self, group: &Cgroup) -> bool {
        self.holder.as_ref().is_none_or(|holder| holder.holds(group))
    }

    /// Lets a created container run.
    pub fn start(&self) -> Result<()> {
        match self.status() {
            Status::Created => {}
            Status::Stopped => return Err(Error::new("cannot start a container that has stopped")),
            Status::Creating | Status::Running | Status::Paused => {
                return Err(Error::new("cannot start an already running container"));
            }
        }
        let path = self.dir.join(START_FIFO);
        let fifo = sys::open(&path, libc::O_WRONLY | libc::O_NONBLOCK, 0)
            .context(|| "cannot start a container that has stopped".into())?;
        fs::File::from(fifo).write_all(b"0").context(|| format!("write {}", path.display()))?;
        fs::remove_file(&path).context(|| format!("remove {}", path.display()))
    }

    /// Runs the hooks of a point that has passed: what fails is a line in the log, nothing more (runtime.md "Lifecycle").
    pub fn run_hooks(&self, name: &'static str, status: Status, log: &Log) {
        let failed = match Hooks::parse(&self.hooks, name) {
            Ok(hooks) if hooks.is_empty() => return,
            Ok(hooks) => hooks.run_each(&self.describe(Some(status))),
            Err(error) => vec![error],
        };
        failed.iter().for_each(|error| log.warn(&error.to_string()));
    }

    /// Sends a signal, never to another process that got the number meanwhile.
    pub fn signal(&self, signal: i32) -> Result<()> {
        self.signal_seen(signal).map(drop)
    }

    /// The same; returns the status that the container had.
    fn signal_seen(&self, signal: i32) -> Result<Status> {
        match (ProcessFd::open(self.pid), self.status()) {
            (Ok(process), status) if status != Status::Stopped => {
                process.signal(signal).context(|| format!("send signal {signal} to process {}", self.pid))?;
                Ok(status)
            }
            _ => Err(Error::new("container not running")),
        }
    }

    /// The signal of `kill`. SIGKILL ends the whole container: also the processes that do not end with the first, which
    /// is so in a pid namespace of others, and those that are frozen on v1, where no signal arrives (runc
    /// `container_linux.go`, Signal).
    pub fn kill(&self, signal: i32) -> Result<()> {
        if signal == libc::SIGKILL && self.status() != Status::Stopped && !is_first_of_namespace(self.pid) {
            return self.cgroup()?.kill();
        }
        if self.signal_seen(signal)? == Status::Paused && signal == libc::SIGKILL {
            let group = self.cgroup()?;
            if !group.is_v2() {
                // Whoever waits for its end may have removed it meanwhile.
                let _ = freezer::set(&group, false);
            }
        }
        Ok(())
    }

    /// Removes a stopped container's group and files; with `force`, kills it first.
    pub fn delete(&self, force: bool, log: &Log) -> Result<()> {
        match self.status() {
            Status::Stopped => {}
            status if force || status == Status::Created => {
                match self.kill(libc::SIGKILL) {
                    // It may have ended by itself meanwhile.
                    Err(error) if self.status() != Status::Stopped => return Err(error),
                    _ => wait_gone(self.pid),
                }
            }
            status => {
                return Err(Error::new(format!(
                    "cannot delete container {} that is not stopped: {}",
                    self.id,
                    status.name()
                )));
            }
        }
        self.clean(log)
    }

    /// Removes group and files of a container whose first process is gone.
    pub fn clean(&self, log: &Log) -> Result<()> {
        let group = self.cgroup()?;
        // Without a pid namespace others may have outlived it. Whoever takes the group says so before he enters, so what is in
        // it while it is still this container's was left by that; with one, what is below it is another's, too (runc
        // `state_linux.go`, destroy).
        if self.holds(&group) {
            if group.remove_empty().is_err() && self.holds(&group) {
                if !self.ends_whole {
                    group.kill()?;
                }
                group.remove().context(|| "unable to remove container's cgroup".into())?;
            }
            if let Some(unit) = &self.unit {
                unit.stop()?;
            }
        }
        if let Some(class) = &self.class {
            class.leave();
        }
        // With a mount namespace of its own they are gone; one that it joined has its root from it.
        if let Some(id) = self.root_mount {
            take_off_root(&self.rootfs, id)?;
        }
        let gone = |result: io::Result<()>| match result {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        let what = || format!("remove {}", self.dir.display());
        gone(fs::remove_file(self.dir.join("state.json"))).context(what)?;
        gone(fs::remove_file(self.dir.join(START_FIFO))).context(what)?;
        if fs::remove_dir(&self.dir).is_err() {
            gone(fs::remove_dir_all(&self.dir)).context(what)?;
        }
        self.run_hooks("poststop", Status::Stopped, log);
        Ok(())
    }
}

/// Field 22 of `/proc/PID/stat`, or nothing if the process is no more (zombies count as gone).
pub fn start_time(pid: i32) -> Option<u64> {
    if pid <= 0 {
        return None;
    }
    let text = sys::read_file(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may contain anything.
    let mut fields = text[text.rfind(')')? + 1..].split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") { None } else { fields.nth(18)?.parse().ok() }
}

/// Whether a process is the first of its pid namespace, whose end is that of all in it (pid_namespaces(7)). The last number of
/// `NSpid` is its own there (proc_pid_status(5)).
fn is_first_of_namespace(pid: i32) -> bool {
    let status = sys::read_file(format!("/proc/{pid}/status")).unwrap_or_default();
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    numbers.split_whitespace().last() == Some("1")
}

/// Waits until a killed process has ended, ten seconds at most.
fn wait_gone(pid: i32) {
    if let Ok(process) = ProcessFd::open(pid) {
        process.ends_within(10_000);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_plain_names() {
        for id in ["a", "web-1.x_y+z"] {
            assert!(check_id(id).is_ok(), "{id}");
        }
        for id in ["", "..", "a/b", "a b", "é"] {
            assert!(check_id(id).is_err(), "{id}");
        }
    }

    #[test]
    fn a_process_is_known_by_number_and_start() {
        let own = std::process::id() as i32;
        assert!(start_time(own).is_some());
        assert_eq!(start_time(own), start_time(own));
        assert_eq!(start_time(0), None);
    }
}
