//! Makes a container: the parent's part (groups, clone, state) and the child's (namespaces, root, rights, exec).
//!
//! One clone3 and no helper process. The child enters its groups by itself, through descriptors opened before, so
//! parent and child meet only once: when the child reports that it waits, runs, or failed.

use std::{
    fs,
    io::Read,
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
};

use crate::{
    cgroup::{Cgroup, Hierarchy},
    error::{Context, Error, Result},
    log::Log,
    process::Report,
    rootfs::Rootfs,
    seccomp::Filter,
    spec::{Namespace, NamespaceKind, Process, Spec},
    state::{self, START_FIFO, State},
    sys,
};

/// How a process is started, from the command line.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub root: PathBuf,
    pub log: Log,
    pub bundle: PathBuf,
    pub pid_file: Option<PathBuf>,
    pub console_socket: Option<PathBuf>,
    pub preserve_fds: u32,
    /// A connected socket of the caller that receives the outcome: `C` with the console, `P` and the pid, `E` and the
    /// error, each one message.
    pub report_fd: Option<RawFd>,
    /// The process becomes the caller's child and dies with it.
    pub child_of_caller: bool,
}

/// What a started process tells.
const READY: &str = "R";

/// Makes the container; it waits for `start` if `wait`, else it runs when this returns.
pub fn create(id: &str, options: &Options, wait: bool) -> Result<State> {
    let mut spec = Spec::load(&options.bundle)?;
    let mut process = spec.process.take().ok_or_else(|| Error::new("config.json: process is missing"))?;
    process.clamp(&options.log);
    let filter = Filter::of(&spec.seccomp)?;
    let cgroups_path = spec.cgroups_path.clone().unwrap_or_else(|| format!("/{id}"));
    let group = Hierarchy::discover()?.group(&cgroups_path)?;
    let dir = state::reserve(&options.root, id)?;
    let made = (|| {
        group.create().and_then(|()| group.apply(&spec.resources))?;
        let start = if wait { Some(make_fifo(&dir)?) } else { None };
        let pid = launch(&spec, &process, filter.as_ref(), &group, options, start)?;
        let state = State::new(dir.clone(), id, &options.bundle, pid, &cgroups_path, &spec.annotations);
        state.save()?;
        if let Some(path) = &options.pid_file {
            write_pid_file(path, pid)?;
        }
        Ok(state)
    })();
    if made.is_err() {
        // What was there before stays; what was made goes. The first error is the one to report.
        let _ = group.remove();
        let _ = fs::remove_dir_all(&dir);
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

/// Where the console's master goes.
pub enum ConsoleReceiver {
    Socket(UnixStream),
    Report(RawFd),
}

impl ConsoleReceiver {
    /// A terminal needs somebody to receive it.
    pub fn of(process: &Process, options: &Options) -> Result<Option<ConsoleReceiver>> {
        if !process.terminal {
            return match &options.console_socket {
                Some(_) => Err(Error::new("cannot use console socket if runc will not detach or allocate tty")),
                None => Ok(None),
            };
        }
        if let Some(fd) = options.report_fd {
            return Ok(Some(ConsoleReceiver::Report(fd)));
        }
        let path = options
            .console_socket
            .as_ref()
            .ok_or_else(|| Error::new("cannot allocate tty if runc will detach without setting console socket"))?;
        let socket =
            UnixStream::connect(path).context(|| format!("connect to the console socket {}", path.display()))?;
        Ok(Some(ConsoleReceiver::Socket(socket)))
    }

    pub fn send(&self, master: &OwnedFd) -> Result<()> {
        let (socket, message): (RawFd, &[u8]) = match self {
            // runc sends the console's name; receivers read it for their logs.
            ConsoleReceiver::Socket(socket) => (socket.as_raw_fd(), b"/dev/pts/ptmx"),
            ConsoleReceiver::Report(fd) => (*fd, b"C"),
        };
        sys::send_with_fd(socket, message, Some(master.as_raw_fd())).context(|| "send the console".into())
    }
}

/// A namespace to join, opened while its path can be seen.
struct Joined {
    fd: OwnedFd,
    flag: i32,
}

fn open_joined(namespaces: &[Namespace]) -> Result<Vec<Joined>> {
    let joined = namespaces.iter().filter_map(|namespace| Some((namespace.kind, namespace.path.as_ref()?)));
    joined
        .map(|(kind, path)| {
            let fd = sys::open(path, libc::O_RDONLY, 0)
                .context(|| format!("open the {kind:?} namespace {}", path.display()))?;
            Ok(Joined { fd, flag: kind.flag() })
        })
        .collect()
}

fn launch(
    spec: &Spec,
    process: &Process,
    filter: Option<&Filter>,
    group: &Cgroup,
    options: &Options,
    start: Option<OwnedFd>,
) -> Result<i32> {
    let mut joined = open_joined(&spec.namespaces)?;
    // A pid namespace is entered by one's children, so before the clone.
    if let Some(index) = joined.iter().position(|namespace| namespace.flag == libc::CLONE_NEWPID) {
        let namespace = joined.remove(index);
        sys::setns(&namespace.fd, namespace.flag).context(|| "join the pid namespace".into())?;
    }
    // The cgroup namespace begins at the group one is in, so it is made after the child has entered.
    let new =
        spec.namespaces.iter().filter(|namespace| namespace.path.is_none() && namespace.kind != NamespaceKind::Cgroup);
    let flags = new.fold(0, |flags, namespace| flags | namespace.kind.flag());
    let console = ConsoleReceiver::of(process, options)?;
    let doors = group.doors()?;
    let (read, write) = sys::pipe().context(|| "create a pipe".into())?;
    let child = Child { spec, process, filter, group, options, doors, joined, console, start };
    match spawn(flags, options)? {
        0 => {
            drop(read);
            run_child(Report(write), |report| child.run(report))
        }
        pid => {
            drop((write, child));
            outcome(read, pid, options)
        }
    }
}

/// clone3 with or without this process as the parent.
pub fn spawn(flags: i32, options: &Options) -> Result<i32> {
    let parent = if options.child_of_caller { libc::CLONE_PARENT } else { 0 };
    // Flags are sign-extended nowhere: CLONE_NEW* fit in 31 bits.
    sys::clone3((flags | parent) as u32 as u64, None).context(|| "clone3".into())
}

/// Runs the child's part; it ends by becoming the program or by reporting why not.
pub fn run_child(report: Report, body: impl FnOnce(&Report) -> Result<std::convert::Infallible>) -> ! {
    let Err(error) = body(&report);
    report.send(&format!("E{error}"));
    sys::exit_now(1)
}

/// Reads the child's report. Without an error it runs, or waits for `start`.
pub fn outcome(read: OwnedFd, pid: i32, options: &Options) -> Result<i32> {
    let mut message = String::new();
    let result = fs::File::from(read).read_to_string(&mut message).context(|| "read the child's report".into());
    let error = match (result, message.find('E')) {
        (Ok(_), None) => return Ok(pid),
        (Ok(_), Some(at)) => Error::new(&message[at + 1..]),
        (Err(error), _) => error,
    };
    if !options.child_of_caller {
        let _ = sys::waitpid(pid);
    }
    Err(Error::new(format!("unable to start container process: {error}")))
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
}

impl Child<'_> {
    fn run(self, report: &Report) -> Result<std::convert::Infallible> {
        sys::setsid().context(|| "start a session".into())?;
        enter_groups(self.doors)?;
        self.process.set_oom_score(&self.options.log)?;
        for namespace in &self.joined {
            sys::setns(&namespace.fd, namespace.flag).context(|| "join a namespace".into())?;
        }
        if self
            .spec
            .namespaces
            .iter()
            .any(|namespace| namespace.kind == NamespaceKind::Cgroup && namespace.path.is_none())
        {
            sys::unshare(libc::CLONE_NEWCGROUP).context(|| "unshare the cgroup namespace".into())?;
        }
        if let Some(hostname) = &self.spec.hostname {
            sys::sethostname(hostname).context(|| format!("set hostname {hostname:?}"))?;
        }
        if let Some(domainname) = &self.spec.domainname {
            sys::setdomainname(domainname).context(|| format!("set domainname {domainname:?}"))?;
        }
        // The file modes in the container must not depend on the caller's mask.
        sys::umask(0);
        let rootfs = Rootfs::open(self.spec)?;
        rootfs.furnish(Some(self.group))?;
        rootfs.write_sysctls()?;
        let console = self.console.as_ref().map(|_| rootfs.open_console()).transpose()?;
        rootfs.mask()?;
        rootfs.enter()?;
        if let (Some((master, slave)), Some(receiver)) = (console, &self.console) {
            hand_over_console(self.process, master, &slave, receiver)?;
        }
        finish(self.process, self.filter, self.options, report, self.start)
    }
}

/// "0" is the writer itself.
pub fn enter_groups(doors: Vec<OwnedFd>) -> Result<()> {
    for door in doors {
        std::io::Write::write_all(&mut fs::File::from(door), b"0").context(|| "enter the cgroup".into())?;
    }
    Ok(())
}

/// Gives the master away and takes the slave.
pub fn hand_over_console(
    process: &Process,
    master: OwnedFd,
    slave: &OwnedFd,
    receiver: &ConsoleReceiver,
) -> Result<()> {
    if let Some((rows, columns)) = process.console_size {
        sys::set_window_size(&master, rows, columns).context(|| "set the console's size".into())?;
    }
    receiver.send(&master)?;
    process.take_console(slave)
}

/// From a process in its namespaces to the user's program.
pub fn finish(
    process: &Process,
    filter: Option<&Filter>,
    options: &Options,
    report: &Report,
    start: Option<OwnedFd>,
) -> Result<std::convert::Infallible> {
    sys::close_on_exec_from(3 + options.preserve_fds).context(|| "close descriptors".into())?;
    // Before rights go: the directory may be one that only root can enter; then again as the user, as runc does.
    let as_root = process.enter_cwd();
    process.drop_rights(filter)?;
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
    Err(process.exec(&program))
}

/// The parent returns from `create` now: its end of the pipe gets an end of file by closing ours.
fn wait_for_start(report: &Report, fifo: OwnedFd) -> Result<()> {
    let null = sys::open("/dev/null", libc::O_WRONLY, 0)
        .or_else(|_| sys::pipe().map(|(_, write)| write))
        .context(|| "open /dev/null".into())?;
    // dup2 over the report closes the pipe's last writing end.
    sys::replace_fd(&null, &report.0).context(|| "close the report".into())?;
    let mut byte = [0];
    fs::File::from(fifo).read_exact(&mut byte).context(|| "wait for start".into())
}
