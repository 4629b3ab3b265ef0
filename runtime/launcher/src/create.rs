//! Makes a container: the parent's part (groups, clone, state) and the child's (namespaces, root, rights, exec).
//!
//! One clone3 and no helper process. The child enters its groups by itself, through descriptors opened before, and
//! asks the parent only for what it cannot do itself (id mappings, hooks): else they meet once, when it waits, runs, or failed.

use std::{
    fs,
    io::Read,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
};

use crate::{
    cgroup::{Cgroup, Claim, Hierarchy, Holder},
    error::{Context, Error, Result},
    joined::{self, ForChildren, Joined, take},
    json::{Json, object},
    labels::OpenLabels,
    log::Log,
    notify::{Listener, Relay},
    process::Report,
    process_fd::ProcessFd,
    rdt::Class,
    rootfs::{Prepared, Rootfs, take_off_root},
    seccomp::Filter,
    spec::{NamespaceKind, Process, Spec},
    state::{self, START_FIFO, State, Status},
    sys,
    sysctl::Sysctl,
    systemd,
    terminal::Terminal,
};

/// How a process is started, from the command line.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub root: PathBuf,
    pub log: Log,
    pub bundle: PathBuf,
    pub pid_file: Option<PathBuf>,
    pub console_socket: Option<PathBuf>,
    /// Nobody stays between the process and its caller.
    pub detach: bool,
    pub preserve_fds: u32,
    /// Receives a descriptor of the process (`--pidfd-socket`).
    pub pidfd_socket: Option<PathBuf>,
    /// Move the root instead of changing it: for a host whose root is its initramfs, which pivot_root(2) refuses.
    pub no_pivot: bool,
    /// A connected socket of the caller that receives the outcome: `C` with the console, `P` and the pid, `E` and the
    /// error, each one message.
    pub report_fd: Option<RawFd>,
    /// The process becomes the caller's child and dies with it.
    pub child_of_caller: bool,
    /// Stay in the caller's session keyring.
    pub keep_keyring: bool,
    /// systemd makes the groups of containers.
    pub systemd: bool,
    /// Of `exec`: also in a paused container, where it waits.
    pub ignore_paused: bool,
    /// Of `exec`: groups below the container's own, of a controller or ("") of all.
    pub sub_groups: Vec<(String, String)>,
    /// Waits to hear that the container is ready.
    pub listener: Option<Listener>,
}

/// What a started process tells.
const READY: &str = "R";

/// A container that was made.
pub struct Created {
    pub state: State,
    /// In the foreground.
    pub terminal: Option<Terminal>,
    /// Of one that runs.
    pub relay: Option<Relay>,
}

/// Makes the container; it waits for `start` if `wait`, else it runs when this returns.
pub fn create(id: &str, options: &Options, wait: bool) -> Result<Created> {
    let mut spec = Spec::load(&options.bundle)?;
    let mut process = spec.process.take().ok_or_else(|| Error::new("config.json: process is missing"))?;
    process.clamp(&options.log);
    process.scheduling.drop_processors();
    if !spec.personality_flags.is_empty() {
        // None are specified yet (config-linux "Personality").
        let flags = spec.personality_flags.join(" ");
        options.log.warn(&format!("ignoring unsupported personality flags: {flags}"));
    }
    let with_sockets;
    let options = match process.take_sockets(std::env::var) {
        0 => options,
        count => {
            with_sockets = Options { preserve_fds: options.preserve_fds + count, ..options.clone() };
            &with_sockets
        }
    };
    let filter = spec.defaults.filter()?;
    if let Some(filter) = &filter {
        spec.defaults.seccomp = filter.keep(&spec.defaults.seccomp);
    }
    let hierarchy = Hierarchy::discover()?;
    let unit = if options.systemd {
        systemd::check(hierarchy.is_v2())?;
        Some(systemd::Name::of(spec.cgroups_path.as_deref(), id)?)
    } else {
        None
    };
    let cgroups_path = match &unit {
        Some(unit) => unit.group()?,
        None => spec.cgroups_path.clone().unwrap_or_else(|| format!("/{id}")),
    };
    let group = hierarchy.group(&cgroups_path)?;
    let dir = state::reserve(&options.root, id)?;
    let mut class = None;
    let (mut made_group, mut made_unit, mut root_mount) = (None, None, None);
    let made = (|| {
        // Until the container's own process is in the scope.
        let mut placeholder = None;
        let mark = match &unit {
            Some(unit) => {
                if group.exists() {
                    group.check_unused()?;
                }
                placeholder = unit.start(id, &spec.resources, &spec.annotations)?;
                made_unit = Some(unit);
                group.create()?;
                None
            }
            None => {
                let Claim { made, mark } = group.claim()?;
                made_group = Some(made);
                mark
            }
        };
        let holder = Holder::of(&group, mark);
        group.confine(&spec.resources)?;
        if let Some(user) = spec.group_owner(process.uid) {
            group.give(user)?;
        }
        class = spec.intel_rdt.as_ref().map(|rdt| rdt.open(id)).transpose()?;
        let mut relay = None;
        if let Some(listener) = &options.listener {
            let (mount, variable) = listener.prepare(&dir)?;
            spec.mounts.push(mount);
            process.env.push(variable);
            relay = if wait { None } else { listener.clone().open(&dir)? };
        }
        let start = if wait { Some(make_fifo(&dir)?) } else { None };
        let mut state = State::new(dir.clone(), id, &options.bundle, 0, &cgroups_path, &spec.annotations);
        state.class.clone_from(&class);
        state.holder = holder;
        state.unit.clone_from(&unit);
        state.ends_whole = spec.is_new(NamespaceKind::Pid);
        state.rootfs.clone_from(&spec.root);
        state.defaults = Some(spec.defaults.clone());
        let launched = launch(&spec, &process, filter.as_ref(), &group, options, start, &mut state);
        root_mount = state.root_mount;
        let Started { pid, terminal } = launched?;
        drop(placeholder);
        state.set_process(pid);
        state.keep_hooks(&spec.hooks);
        state.save()?;
        if let Some(path) = &options.pid_file {
            write_pid_file(path, pid)?;
        }
        send_pidfd(options, pid)?;
        Ok(Created { state, terminal, relay })
    })();
    if made.is_err() {
        // What was there before stays; what was made goes. The first error is the one to report.
        if let Some(group) = made_group {
            let _ = group.remove();
        }
        if let Some(unit) = made_unit {
            let _ = unit.stop();
        }
        if let Some(id) = root_mount {
            let _ = take_off_root(&spec.root, id);
        }
        let _ = fs::remove_dir_all(&dir);
        if let Some(class) = class {
            class.leave();
        }
    }
    made
}

fn make_fifo(dir: &Path) -> Result<OwnedFd> {
    let path = dir.join(START_FIFO);
    sys::mkfifo(&path, 0o600).context(|| format!("create {}", path.display()))?;
    // Opened for both, a fifo does not wait for its other end, and reading waits for the byte.
    sys::open(&path, libc::O_RDWR, 0).context(|| format!("open {}", path.display()))
}

/// Writes a pid so that a reader never sees half of it.
pub fn write_pid_file(path: &Path, pid: i32) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let part = path.with_file_name(format!(".{name}"));
    fs::write(&part, pid.to_string())
        .and_then(|()| fs::rename(&part, path))
        .context(|| format!("write {}", path.display()))
}

/// Gives a descriptor of a process to the caller who asked for one.
pub fn send_pidfd(options: &Options, pid: i32) -> Result<()> {
    let Some(path) = &options.pidfd_socket else { return Ok(()) };
    let what = || format!("send the process's descriptor to {}", path.display());
    let socket = UnixStream::connect(path).context(what)?;
    let process = ProcessFd::open(pid).context(what)?;
    let pidfd = process.pidfd().context(|| "--pidfd-socket needs Linux 5.3: pidfd_open".into())?;
    sys::send_with_fd(socket.as_raw_fd(), b"pidfd", Some(pidfd.as_raw_fd())).context(what)
}

/// Where the console's master goes.
pub enum ConsoleReceiver {
    Socket(UnixStream),
    Report(RawFd),
    /// The launcher itself, which stays in the foreground.
    Launcher,
}

impl ConsoleReceiver {
    /// A terminal needs somebody to receive it.
    pub fn of(process: &Process, options: &Options) -> Result<Option<ConsoleReceiver>> {
        if options.console_socket.is_some() && !(process.terminal && options.detach) {
            return Err(Error::new("cannot use console socket if runc will not detach or allocate tty"));
        }
        if !process.terminal {
            return Ok(None);
        }
        if let Some(fd) = options.report_fd {
            return Ok(Some(ConsoleReceiver::Report(fd)));
        }
        if !options.detach {
            return Ok(Some(ConsoleReceiver::Launcher));
        }
        let path = options
            .console_socket
            .as_ref()
            .ok_or_else(|| Error::new("cannot allocate tty if runc will detach without setting console socket"))?;
        let socket =
            UnixStream::connect(path).context(|| format!("connect to the console socket {}", path.display()))?;
        Ok(Some(ConsoleReceiver::Socket(socket)))
    }

    pub fn send(&self, master: &OwnedFd, report: &Report) -> Result<()> {
        let (socket, message): (RawFd, &[u8]) = match self {
            // runc sends the console's name; receivers read it for their logs.
            ConsoleReceiver::Socket(socket) => (socket.as_raw_fd(), b"/dev/pts/ptmx"),
            ConsoleReceiver::Report(fd) => (*fd, b"C"),
            ConsoleReceiver::Launcher => return report.give(master),
        };
        sys::send_with_fd(socket, message, Some(master.as_raw_fd())).context(|| "send the console".into())
    }
}

fn launch(
    spec: &Spec,
    process: &Process,
    filter: Option<&Filter>,
    group: &Cgroup,
    options: &Options,
    start: Option<OwnedFd>,
    state: &mut State,
) -> Result<Started> {
    // What is bound in a mount namespace of others is found there, with the rights that the container has there.
    let prepared = if spec.joins(NamespaceKind::Mount) { Prepared::default() } else { Prepared::of(spec)? };
    let mut joined = joined::open(&spec.namespaces)?;
    joined::check(spec, &joined)?;
    // The cgroup namespace begins at the group one is in, so it is made after the child has entered; a time namespace is
    // for one's children.
    let new = spec.namespaces.iter().filter(|namespace| {
        namespace.path.is_none() && !matches!(namespace.kind, NamespaceKind::Cgroup | NamespaceKind::Time)
    });
    let flags = new.fold(0, |flags, namespace| flags | namespace.kind.flag());
    let console = ConsoleReceiver::of(process, options)?;
    let user = take(&mut joined, NamespaceKind::User);
    let for_children = ForChildren {
        pid: take(&mut joined, NamespaceKind::Pid),
        time: take(&mut joined, NamespaceKind::Time),
        new_time: spec.is_new(NamespaceKind::Time),
        offsets: &spec.time_offsets,
    };
    let root_inside = user.is_some() || flags & libc::CLONE_NEWUSER != 0;
    if root_inside {
        process.raise_hard_limits()?;
    }
    let place = group.place()?;
    let (ours, theirs) = sys::message_pair().context(|| "create a socket pair".into())?;
    let mut child = Child {
        spec,
        process,
        filter,
        group,
        options,
        doors: state.class.as_ref().map_or(Ok(Vec::new()), Class::doors)?,
        joined,
        console,
        start,
        prepared: &prepared,
        root_inside,
        hook_state: state,
    };
    let spawned = match user {
        None => {
            for_children.enter()?;
            spawn_into(flags, options, place.as_ref(), &|| group.doors(), &mut child.doors)?
        }
        // Namespaces made inside a user namespace belong to it, and this process must stay outside: another one goes in
        // and makes the container as its sibling.
        Some(user) => match spawn_into(0, options, place.as_ref(), &|| group.doors(), &mut child.doors)? {
            0 => {
                drop(ours);
                run_child(Report(theirs), |report| go_between(&for_children, &user, flags, child, report));
            }
            pid => pid,
        },
    };
    match spawned {
        0 => {
            drop(ours);
            run_child(Report(theirs), |report| child.run(report))
        }
        pid => {
            drop((theirs, child));
            Conversation { spec: Some(spec), filter, options, state }.follow(&ours, pid)
        }
    }
}

/// The process that joins a user namespace and starts the container from there.
fn go_between(
    for_children: &ForChildren<'_>,
    user: &Joined,
    flags: i32,
    child: Child<'_>,
    report: &Report,
) -> Result<std::convert::Infallible> {
    for_children.enter()?;
    user.enter()?;
    match sys::clone3((flags | libc::CLONE_PARENT) as u32 as u64, None).context(|| "clone3".into())? {
        0 => child.run(report),
        pid => {
            report.send(&format!("N{pid}"));
            sys::exit_now(0)
        }
    }
}

/// clone3, into the group where that is possible; else the child finds the doors of its groups open.
pub fn spawn_into(
    flags: i32,
    options: &Options,
    place: Option<&OwnedFd>,
    group: &dyn Fn() -> Result<Vec<OwnedFd>>,
    doors: &mut Vec<OwnedFd>,
) -> Result<i32> {
    if let Some(place) = place {
        match clone_as(flags, options, Some(place)) {
            // Kernels before 5.3 do not know the call and those before 5.7 not the flag, and some groups can be entered in the other way only.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EINVAL | libc::E2BIG | libc::EOPNOTSUPP | libc::EBUSY | libc::ENOSYS)
                ) => {}
            result => return result.context(|| "clone3".into()),
        }
    }
    doors.extend(group()?);
    clone_as(flags, options, None).context(|| "clone3".into())
}

/// With or without this process as the parent.
fn clone_as(flags: i32, options: &Options, into: Option<&OwnedFd>) -> std::io::Result<i32> {
    let parent = if options.child_of_caller { libc::CLONE_PARENT } else { 0 };
    // Flags are sign-extended nowhere: CLONE_NEW* fit in 31 bits.
    sys::clone3((flags | parent) as u32 as u64, into.map(AsFd::as_fd))
}

/// Runs the child's part; it ends by becoming the program or by reporting why not.
pub fn run_child(report: Report, body: impl FnOnce(&Report) -> Result<std::convert::Infallible>) -> ! {
    let Err(error) = body(&report);
    report.send(&format!("E{error}"));
    sys::exit_now(1)
}

/// The launcher's part of the conversation with a child ([`Report`]).
pub struct Conversation<'a> {
    /// Of a container that is made.
    pub spec: Option<&'a Spec>,
    pub filter: Option<&'a Filter>,
    pub options: &'a Options,
    /// The container as hooks and who listens to a filter see it.
    pub state: &'a mut State,
}

/// A process that runs, or waits for `start`.
pub struct Started {
    pub pid: i32,
    /// In the foreground.
    pub terminal: Option<Terminal>,
}

impl Conversation<'_> {
    /// Does what the child asks for, until it has started.
    pub fn follow(mut self, socket: &OwnedFd, mut pid: i32) -> Result<Started> {
        let mut buffer = vec![0; 16 << 10];
        let mut terminal = None;
        let failure = loop {
            let (count, fd) = match sys::receive_with_fd(socket, &mut buffer) {
                Ok((0, _)) => return Ok(Started { pid, terminal }),
                Ok(received) => received,
                Err(error) => break Error::io("read the child's report", error),
            };
            let text = String::from_utf8_lossy(&buffer[1..count]);
            let done = match (buffer[0], self.spec) {
                (b'R', _) => return Ok(Started { pid, terminal }),
                (b'E', _) => break Error::new(text),
                (b'N', _) => {
                    if !self.options.child_of_caller {
                        let _ = sys::waitpid(pid);
                    }
                    pid = text.parse().unwrap_or(0);
                    continue;
                }
                (b'M', Some(_)) => {
                    self.state.root_mount = text.parse().ok();
                    continue;
                }
                (b'U', Some(spec)) => spec.mappings.write(pid),
                (b'H', Some(spec)) => self.run_hooks(spec, pid),
                (b'C', _) => fd.map(Terminal::take).transpose().map(|taken| terminal = taken),
                (b'S', _) => self.hand_over_listener(pid, text.parse().unwrap_or(-1)),
                _ => Err(Error::new("the child said something else")),
            };
            let answered = done.and_then(|()| sys::write(socket, b"g").map(drop).context(|| "answer the child".into()));
            if let Err(error) = answered {
                break error;
            }
        };
        // It may still be waiting for an answer.
        if pid > 0 {
            let _ = sys::kill(pid, libc::SIGKILL);
            if !self.options.child_of_caller {
                let _ = sys::waitpid(pid);
            }
        }
        Err(Error::new(format!("unable to start container process: {failure}")))
    }

    fn run_hooks(&mut self, spec: &Spec, pid: i32) -> Result<()> {
        self.state.pid = pid;
        let state = self.state.describe(Some(Status::Creating));
        spec.prestart.run(&state)?;
        spec.create_runtime.run(&state)
    }

    /// Gives a filter's descriptor to who listens (config-linux "Container Process State").
    fn hand_over_listener(&mut self, pid: i32, number: i32) -> Result<()> {
        let what = || "hand over the seccomp listener".to_owned();
        let listener =
            self.filter.and_then(|filter| filter.listener.as_ref()).ok_or_else(|| Error::new("nobody listens"))?;
        let process = ProcessFd::open(pid).context(what)?;
        let needed = || "linux.seccomp.listenerPath needs Linux 5.6: pidfd_getfd".to_owned();
        let fd = process.pidfd().and_then(|pidfd| sys::pidfd_getfd(pidfd, number));
        let fd = match fd {
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Err(error).context(needed),
            result => result.context(what),
        }?;
        // Of a later process the container runs already.
        let status = match self.spec {
            Some(_) => {
                self.state.pid = pid;
                Status::Creating
            }
            None => Status::Running,
        };
        let message = object([
            ("ociVersion", "1.2.0".into()),
            ("fds", Json::Arr(vec!["seccompFd".into()])),
            ("pid", pid.into()),
            ("metadata", listener.metadata.as_str().into()),
            ("state", self.state.describe(Some(status))),
        ]);
        let socket = UnixStream::connect(&listener.path)
            .context(|| format!("connect to the seccomp listener {}", listener.path))?;
        sys::send_with_fd(socket.as_raw_fd(), message.to_string().as_bytes(), Some(fd.as_raw_fd())).context(what)
    }
}

struct Child<'a> {
    spec: &'a Spec,
    process: &'a Process,
    filter: Option<&'a Filter>,
    group: &'a Cgroup,
    options: &'a Options,
    doors: Vec<OwnedFd>,
    joined: Vec<Joined>,
    console: Option<ConsoleReceiver>,
    start: Option<OwnedFd>,
    prepared: &'a Prepared,
    /// The container has a user namespace, of which this process becomes root.
    root_inside: bool,
    hook_state: &'a State,
}

impl Child<'_> {
    fn run(mut self, report: &Report) -> Result<std::convert::Infallible> {
        // Still with the rights of who started it. That it cannot be opened is told when it is needed.
        let joins_mounts = self.spec.joins(NamespaceKind::Mount);
        let place = sys::open(&self.spec.root, libc::O_PATH | libc::O_DIRECTORY, 0).ok();
        let place = place.filter(|_| self.root_inside && !joins_mounts);
        if self.root_inside {
            if self.spec.is_new(NamespaceKind::User) {
                report.ask("U")?;
            }
            sys::become_root().context(|| "become root in the user namespace".into())?;
        }
        begin(self.process, std::mem::take(&mut self.doors), self.options)?;
        let labels = self.process.labels.open()?;
        self.joined.iter().try_for_each(Joined::enter)?;
        if joins_mounts {
            joined::check_proc(self.spec)?;
        }
        if self.spec.is_new(NamespaceKind::Cgroup) {
            sys::unshare(libc::CLONE_NEWCGROUP).context(|| "unshare the cgroup namespace".into())?;
        }
        if self.spec.is_new(NamespaceKind::Network) {
            // A new one has no other interface and this one down (runc's "loopback" network, `network_linux.go`).
            sys::raise_loopback().context(|| "bring the loopback interface up".into())?;
        }
        if let Some(hostname) = &self.spec.hostname {
            sys::sethostname(hostname).context(|| format!("set hostname {hostname:?}"))?;
        }
        if let Some(domainname) = &self.spec.domainname {
            sys::setdomainname(domainname).context(|| format!("set domainname {domainname:?}"))?;
        }
        // The file modes in the container must not depend on the caller's mask.
        sys::umask(0);
        let rootfs = Rootfs::open(self.spec, self.prepared, place)?;
        let made = self.make_root(&rootfs, report);
        if made.is_err() && joins_mounts {
            rootfs.give_up();
        }
        drop(rootfs);
        if let (Some((master, slave)), Some(receiver)) = (made?, &self.console) {
            hand_over_console(self.process, master, &slave, receiver, report)?;
        }
        let start = self.start.take();
        let state = self.state_inside(Status::Created);
        let last = || match self.spec.start_container.is_empty() {
            true => Ok(()),
            false => self.spec.start_container.run(&state),
        };
        let personality = self.spec.personality;
        finish(
            Finish { process: self.process, filter: self.filter, options: self.options, labels, personality },
            report,
            start,
            &last,
        )
    }

    /// From an empty root to this process in a furnished one; the console, if there is one.
    fn make_root(&self, rootfs: &Rootfs<'_>, report: &Report) -> Result<Option<(OwnedFd, OwnedFd)>> {
        if self.spec.namespace(NamespaceKind::Mount).is_none() {
            report.send(&format!("M{}", rootfs.mount_id()?));
            rootfs.keep_apart()?;
        }
        rootfs.furnish(Some(self.group))?;
        let console = self.console.as_ref().map(|_| rootfs.open_console()).transpose()?;
        if !self.spec.prestart.is_empty() || !self.spec.create_runtime.is_empty() {
            report.ask("H")?;
        }
        if !self.spec.create_container.is_empty() {
            self.spec.create_container.run(&self.state_inside(Status::Creating))?;
        }
        // After the hooks: one may have brought the interfaces that are meant (runc, `standard_init_linux.go`).
        self.spec.sysctls.iter().try_for_each(Sysctl::write)?;
        rootfs.make_cwd(&self.process.cwd);
        rootfs.mask()?;
        rootfs.enter(self.options.no_pivot)?;
        Ok(console)
    }

    /// The state for hooks that run in the container, which know its process by the number it has there.
    fn state_inside(&self, status: Status) -> Json {
        let mut state = self.hook_state.clone();
        state.pid = std::process::id() as i32;
        state.describe(Some(status))
    }
}

/// The first steps of a container's process, before it leaves the host's namespaces.
pub fn begin(process: &Process, doors: Vec<OwnedFd>, options: &Options) -> Result<()> {
    sys::setsid().context(|| "start a session".into())?;
    // What this process opens by itself is so from the start; `finish` has no /proc to trust.
    let inherited = 3 + options.preserve_fds;
    if !sys::close_on_exec_from(inherited).context(|| "close descriptors".into())? {
        sys::close_on_exec_listed(inherited).context(|| "close descriptors".into())?;
    }
    enter_groups(doors)?;
    if process.scheduling.first_processors.is_none() {
        // The caller's are not the container's, and kernels since 6.2 would keep them in its group (runc 1.2.7). Best effort, as
        // there: no group has more than this can name.
        let _ = sys::set_affinity_mask(&sys::ALL_PROCESSORS);
    }
    process.set_oom_score(&options.log)?;
    if options.keep_keyring {
        return Ok(());
    }
    process.labels.make_keyring(|| match sys::join_session_keyring() {
        // A kernel without keys, or a runtime around this one that forbids them.
        Err(error) if !matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
            Err(Error::io("join a session keyring", error))
        }
        _ => Ok(()),
    })
}

/// "0" is the writer itself.
pub fn enter_groups(doors: Vec<OwnedFd>) -> Result<()> {
    for door in doors {
        std::io::Write::write_all(&mut fs::File::from(door), b"0").context(|| "enter the cgroup or class".into())?;
    }
    Ok(())
}

/// Gives the master away and takes the slave.
pub fn hand_over_console(
    process: &Process,
    master: OwnedFd,
    slave: &OwnedFd,
    receiver: &ConsoleReceiver,
    report: &Report,
) -> Result<()> {
    if let Some((rows, columns)) = process.console_size {
        sys::set_window_size(&master, rows, columns).context(|| "set the console's size".into())?;
    }
    receiver.send(&master, report)?;
    process.take_console(slave)
}

/// What the last steps need.
pub struct Finish<'a> {
    pub process: &'a Process,
    pub filter: Option<&'a Filter>,
    pub options: &'a Options,
    pub labels: OpenLabels,
    pub personality: Option<u64>,
}

/// From a process in its namespaces to the user's program; `last` is done right before it.
pub fn finish(
    finish: Finish<'_>,
    report: &Report,
    start: Option<OwnedFd>,
    last: &dyn Fn() -> Result<()>,
) -> Result<std::convert::Infallible> {
    let Finish { process, filter, options, labels, personality } = finish;
    sys::close_on_exec_from(3 + options.preserve_fds).context(|| "close descriptors".into())?;
    if let Some(domain) = personality {
        sys::personality(domain).context(|| "set linux.personality".into())?;
    }
    // As root, who may read what the user may not.
    let env = if process.has_home() { None } else { Some(process.env_with_home()) };
    // Before rights go: the directory may be one that only root can enter; then again as the user, as runc does.
    let as_root = process.enter_cwd();
    process.drop_rights(filter, &|number| {
        let asked = report.ask(&format!("S{number}"));
        // The container must not hold its own judge.
        drop(sys::adopt(number.into()));
        asked
    })?;
    if as_root.is_err() {
        process.enter_cwd()?;
    }
    if options.child_of_caller {
        // After the change of user, which clears it (prctl(2)).
        sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as u64).context(|| "set the parent-death signal".into())?;
    }
    let program = process.program()?;
    sys::reset_signals();
    if let Some(fifo) = start {
        report.send(READY);
        wait_for_start(report, fifo)?;
    }
    last()?;
    labels.apply(&process.labels)?;
    Err(process.exec(&program, env.as_ref().unwrap_or(&process.env)))
}

/// The parent returns from `create` now: its end of the pipe gets an end of file by closing ours.
fn wait_for_start(report: &Report, fifo: OwnedFd) -> Result<()> {
    let null = sys::open("/dev/null", libc::O_WRONLY, 0)
        .or_else(|_| sys::pipe().map(|(_, write)| write))
        .context(|| "open /dev/null".into())?;
    // Whoever made the container may be gone by then: what comes later is said to nobody.
    sys::replace_fd(&null, &report.0).context(|| "close the report".into())?;
    let mut byte = [0];
    fs::File::from(fifo).read_exact(&mut byte).context(|| "wait for start".into())
}
