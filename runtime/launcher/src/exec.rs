//! Runs another process in a container that runs already.

use std::{
    borrow::Cow,
    fs,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use crate::{
    cgroup::{Cgroup, Hierarchy},
    create::{self, ConsoleReceiver, Conversation, Finish, Options, Started},
    defaults::Defaults,
    error::{Context, Error, Result},
    json::Json,
    process::Report,
    process_fd::ProcessFd,
    rdt::Class,
    seccomp::Filter,
    spec::{NamespaceKind, Process, Spec},
    state::{State, Status},
    sys,
};

/// Starts `process` in the container.
pub fn exec(state: &State, mut process: Process, options: &Options) -> Result<Started> {
    match state.status() {
        // One that is created has all that it will have.
        Status::Creating | Status::Created | Status::Running => {}
        Status::Paused if options.ignore_paused => {}
        Status::Paused => {
            return Err(Error::new("cannot exec in a paused container (use --ignore-paused to override)"));
        }
        Status::Stopped => return Err(Error::new("cannot exec in a stopped container")),
    }
    process.clamp(&options.log);
    let defaults = defaults(state)?;
    let filter = defaults.filter()?;
    let group = state.cgroup()?.below(&options.sub_groups)?;
    let target = ProcessFd::open(state.pid).context(|| format!("open process {}", state.pid))?;
    // Between the look at the state and now the number may have gone to another process.
    if state.status() == Status::Stopped {
        return Err(Error::new("cannot exec in a stopped container"));
    }
    let namespaces = differing_namespaces(state.pid)?;
    let console = ConsoleReceiver::of(&process, options)?;
    let root = sys::open(format!("/proc/{}/root", state.pid), libc::O_PATH | libc::O_DIRECTORY, 0)
        .context(|| "open the container's root".into())?;
    // These two are entered by one's children.
    let for_children = namespaces & (libc::CLONE_NEWPID | NamespaceKind::Time.flag());
    if for_children != 0 {
        target.join(for_children).context(|| "join the pid namespace".into())?;
    }
    let namespaces = namespaces & !for_children;
    if namespaces & libc::CLONE_NEWUSER != 0 {
        process.raise_hard_limits()?;
    }
    let (ours, theirs) = sys::message_pair().context(|| "create a socket pair".into())?;
    let mut child = Child {
        process: &process,
        filter: filter.as_ref(),
        options,
        doors: state.class.as_ref().map_or(Ok(Vec::new()), Class::doors)?,
        target,
        namespaces,
        root,
        console,
        personality: defaults.personality()?,
    };
    let place = group.place()?;
    // Of a group that was named no other is taken (runc `container_linux.go`, `SubCgroupPaths`).
    let doors = || match options.sub_groups.is_empty() && group.has_passed_on() {
        true => beside(state.pid)?.doors(),
        false => group.doors(),
    };
    // Before it is in the group, whose processors may be others (config.md "Linux Process", execCPUAffinity): it inherits them.
    let own = process
        .scheduling
        .first_processors
        .as_ref()
        .map(|first| sys::affinity().and_then(|own| sys::set_affinity(first).map(|()| own)));
    let own = own.transpose().context(|| "set process.execCPUAffinity.initial".into())?;
    let spawned = create::spawn_into(0, options, place.as_ref(), &doors, &mut child.doors)?;
    if let Some(own) = own.filter(|_| spawned != 0) {
        // This process ends soon: that it cannot have them back harms nobody.
        let _ = sys::set_affinity_mask(&own);
    }
    match spawned {
        0 => {
            drop(ours);
            create::run_child(Report(theirs), |report| child.run(report))
        }
        pid => {
            drop((theirs, child));
            let mut state = state.clone();
            let conversation = Conversation { spec: None, filter: filter.as_ref(), options, state: &mut state };
            let started = conversation.follow(&ours, pid)?;
            if let Some(path) = &options.pid_file {
                create::write_pid_file(path, started.pid)?;
            }
            create::send_pidfd(options, started.pid)?;
            Ok(started)
        }
    }
}

/// The group that a process is in. The container's first one has gone to a group below the container's own when that takes
/// no processes (runc `process_linux.go`, issue 2356).
fn beside(pid: i32) -> Result<Cgroup> {
    let what = || format!("find the cgroup of process {pid}");
    let groups = sys::read_file(format!("/proc/{pid}/cgroup")).context(what)?;
    Hierarchy::discover()?.group_of(&groups).context(what)
}

/// The namespaces that are not this process's own, as setns flags.
fn differing_namespaces(pid: i32) -> Result<i32> {
    let kinds = [
        ("mnt", libc::CLONE_NEWNS),
        ("net", libc::CLONE_NEWNET),
        ("ipc", libc::CLONE_NEWIPC),
        ("uts", libc::CLONE_NEWUTS),
        ("pid", libc::CLONE_NEWPID),
        ("cgroup", libc::CLONE_NEWCGROUP),
        ("user", libc::CLONE_NEWUSER),
        ("time", NamespaceKind::Time.flag()),
    ];
    let mut flags = 0;
    for (name, flag) in kinds {
        // A kernel without this kind has no file for it.
        let Ok(ours) = fs::read_link(format!("/proc/self/ns/{name}")) else { continue };
        let theirs = fs::read_link(format!("/proc/{pid}/ns/{name}"))
            .context(|| format!("read the {name} namespace of process {pid}"))?;
        if theirs != ours {
            flags |= flag;
        }
    }
    Ok(flags)
}

struct Child<'a> {
    process: &'a Process,
    filter: Option<&'a Filter>,
    options: &'a Options,
    doors: Vec<OwnedFd>,
    target: ProcessFd,
    namespaces: i32,
    root: OwnedFd,
    console: Option<ConsoleReceiver>,
    personality: Option<u64>,
}

impl Child<'_> {
    fn run(self, report: &Report) -> Result<std::convert::Infallible> {
        create::begin(self.process, self.doors, self.options)?;
        let labels = self.process.labels.open()?;
        if self.namespaces != 0 {
            self.target.join(self.namespaces).context(|| "join the container's namespaces".into())?;
        }
        if self.namespaces & libc::CLONE_NEWUSER != 0 {
            sys::become_root().context(|| "become root in the user namespace".into())?;
        }
        sys::fchdir(&self.root).context(|| "enter the container's root".into())?;
        sys::chroot(".").context(|| "enter the container's root".into())?;
        if let Some(receiver) = &self.console {
            let (master, slave) = open_console(&self.root)?;
            create::hand_over_console(self.process, master, &slave, receiver, report)?;
        }
        let finish = Finish {
            process: self.process,
            filter: self.filter,
            options: self.options,
            labels,
            personality: self.personality,
        };
        create::finish(finish, report, None, &|| Ok(()))
    }
}

/// A pty from the container's devpts; what lies at `/dev/ptmx` is looked at before it is trusted.
fn open_console(root: &OwnedFd) -> Result<(OwnedFd, OwnedFd)> {
    let path = Path::new("dev/ptmx");
    let master = sys::openat2(
        root.as_fd(),
        path,
        libc::O_RDWR | libc::O_NOCTTY | libc::O_NONBLOCK,
        0,
        sys::RESOLVE_IN_ROOT | sys::RESOLVE_NO_MAGICLINKS,
    )
    .context(|| "open /dev/ptmx of the container".into())?;
    let stat = sys::fstat(&master).context(|| "stat /dev/ptmx of the container".into())?;
    if stat.st_mode & libc::S_IFMT != libc::S_IFCHR || stat.st_rdev != libc::makedev(5, 2) {
        return Err(Error::new("/dev/ptmx of the container is not the pty multiplexer"));
    }
    sys::set_blocking(&master).context(|| "set /dev/ptmx blocking".into())?;
    let slave = sys::pty_peer(&master).context(|| "open the console".into())?;
    Ok((master, slave))
}

/// What the container gives to every process; a launcher that kept nothing yet looked at the bundle.
fn defaults(state: &State) -> Result<Cow<'_, Defaults>> {
    match &state.defaults {
        Some(defaults) => Ok(Cow::Borrowed(defaults)),
        None => Ok(Cow::Owned(Spec::load(&state.bundle)?.defaults)),
    }
}

/// The process of `exec --process`, filled with what it leaves out.
pub fn process_of_file(state: &State, mut process: Json) -> Result<Process> {
    defaults(state)?.fill(&mut process);
    Process::parse(&process)
}

/// The process of `exec ID COMMAND…`: the container's own with another command (runc's rule).
pub fn process_of_container(state: &State, change: impl FnOnce(&mut Process) -> Result<()>) -> Result<Process> {
    let spec = Spec::load(&state.bundle)?;
    let mut process = spec.process.ok_or_else(|| Error::new("config.json: process is missing"))?;
    process.terminal = false;
    process.console_size = None;
    change(&mut process)?;
    Ok(process)
}
