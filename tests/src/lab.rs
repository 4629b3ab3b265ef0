//! A lab for one test, under a home of its own, taken down whatever happens.

use std::{
    os::fd::{AsFd, FromRawFd, OwnedFd},
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use nix::{
    libc,
    mount::{MntFlags, MsFlags, mount, umount2},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::{CloneFlags, unshare},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::run::{Output, binary, run};

/// A lab that a test has for itself.
pub struct Lab {
    home: TempDir,
    name: String,
    /// Something is mounted on the home.
    mounted: bool,
}

impl Lab {
    /// A home without a lab in it.
    pub fn prepare(name: &str) -> Self {
        // Short: sockets below it have room for 107 bytes.
        let home = tempfile::Builder::new().prefix("lab").tempdir_in("/tmp").expect("make a directory");
        Self { home, name: name.to_owned(), mounted: false }
    }

    /// A lab with `nodes` nodes, Ready.
    #[track_caller]
    pub fn up(name: &str, nodes: u32) -> Self {
        let lab = Self::prepare(name);
        lab.lab(&["up", "--nodes", &nodes.to_string()]).ok();
        lab
    }

    /// A home without a lab in it, on a file system of its own with room for so many bytes. It is mounted where only this
    /// test and what it starts see it, so it goes with them.
    pub fn on_disk(name: &str, bytes: u64) -> Self {
        let mut lab = Self::prepare(name);
        unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
        let nothing = None::<&str>;
        mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing).expect("keep mounts private");
        let options = format!("size={bytes},mode=0700");
        let mounted = mount(Some("tmpfs"), lab.home.path(), Some("tmpfs"), MsFlags::empty(), Some(options.as_str()));
        mounted.expect("mount a small file system");
        lab.mounted = true;
        lab
    }

    /// `coracle lab …` for this lab.
    pub fn lab(&self, arguments: &[&str]) -> Output {
        run(self.command("coracle").arg("lab").args(["--name", &self.name]).args(arguments), "")
    }

    /// A program of the workspace in this lab's environment.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(binary(program));
        command.env("CORACLE_HOME", self.home.path()).env("KUBECONFIG", self.kubeconfig()).env("NO_COLOR", "1");
        command
    }

    /// kubectl-lite.
    pub fn lite(&self, arguments: &str) -> Output {
        run(self.command("kubectl-lite").args(words(arguments)), "")
    }

    /// kubectl-lite with something on its standard input.
    pub fn lite_with(&self, arguments: &str, input: &str) -> Output {
        run(self.command("kubectl-lite").args(words(arguments)), input)
    }

    /// The unmodified kubectl.
    pub fn kubectl(&self, arguments: &str) -> Output {
        run(self.kubectl_command().args(words(arguments)), "")
    }

    /// The unmodified kubectl, to be given arguments.
    pub fn kubectl_command(&self) -> Command {
        self.kubectl_command_named("kubectl")
    }

    /// A program that starts kubectl.
    pub fn kubectl_command_named(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("KUBECONFIG", self.kubeconfig()).env("HOME", self.home.path());
        command
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.home.path().join("labs").join(&self.name).join("server/admin.kubeconfig")
    }

    /// The lab's home.
    pub fn home(&self) -> &std::path::Path {
        self.home.path()
    }

    /// The lab's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The log of the server or of a node.
    pub fn log(&self, process: &str) -> String {
        let path = self.home.path().join("labs").join(&self.name).join("log").join(format!("{process}.log"));
        std::fs::read_to_string(path).unwrap_or_default()
    }

    /// `lab status -o json`.
    pub fn status(&self) -> Value {
        serde_json::from_str(&self.lab(&["status", "-o", "json"]).ok()).expect("status is JSON")
    }

    /// An object, or a list, as JSON.
    #[track_caller]
    pub fn get(&self, what: &str) -> Value {
        serde_json::from_str(&self.lite(&format!("get {what} -o json")).ok()).expect("JSON")
    }

    /// The process that was recorded for a node or the server: its init.
    pub fn process(&self, name: &str) -> i32 {
        let path = self.home.path().join("run").join(&self.name).join(format!("{name}.pid"));
        let record = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        record.split(' ').next().and_then(|pid| pid.parse().ok()).expect("a record begins with a number")
    }

    /// Kills a process of the lab and the command it keeps, at once.
    pub fn kill_tree(&self, pid: i32) {
        let children = children(pid);
        for pid in std::iter::once(pid).chain(children) {
            let pidfd = Pidfd::open(pid);
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            pidfd.wait();
        }
    }

    /// The command that an init keeps; none while it waits to start it again.
    pub fn command_of(&self, name: &str) -> Option<i32> {
        let program = std::fs::canonicalize(binary("coracle")).expect("the binary exists");
        let mut commands = children(self.process(name)).into_iter();
        commands.find(|pid| std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == program))
    }

    /// The lab's cgroup in the hierarchy of `controller`.
    pub fn cgroup(&self, controller: &str) -> PathBuf {
        let path = PathBuf::from("/proc").join(self.process("server").to_string()).join("cgroup");
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        // cgroups(7): HIERARCHY:CONTROLLERS:PATH, and no controllers for v2.
        let lines = || text.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
        let v1 = lines().find(|(controllers, _)| controllers.split(',').any(|each| each == controller));
        let (root, path) = match v1 {
            Some((_, path)) => (PathBuf::from("/sys/fs/cgroup").join(controller), path),
            None => ("/sys/fs/cgroup".into(), lines().find(|(controllers, _)| controllers.is_empty()).expect("v2").1),
        };
        root.join(path.trim_start_matches('/')).parent().expect("below the lab's").to_path_buf()
    }

    /// Kills the command that an init keeps, not the init.
    pub fn kill_command(&self, name: &str) {
        let command = self.command_of(name).unwrap_or_else(|| panic!("{name} keeps no command"));
        let pidfd = Pidfd::open(command);
        kill(Pid::from_raw(command), Signal::SIGKILL).expect("kill a process of the lab");
        pidfd.wait();
    }

    /// Kills the processes of a node that go by `name`.
    pub fn kill_in_node(&self, node: &str, name: &str) {
        let mut killed = 0;
        let mut waiting = vec![self.process(node)];
        while let Some(pid) = waiting.pop() {
            waiting.extend(children(pid));
            if std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name) {
                kill(Pid::from_raw(pid), Signal::SIGKILL).expect("kill a process of the lab");
                killed += 1;
            }
        }
        assert!(killed > 0, "no process of {node} goes by {name}");
    }

    /// How many processes of containers run under this host name, on whatever node.
    pub fn running_as(&self, hostname: &str) -> usize {
        let (name, mut running, mut waiting) = (format!("HOSTNAME={hostname}"), 0, self.inits());
        while let Some(pid) = waiting.pop() {
            waiting.extend(children(pid));
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            running += usize::from(environment.split(|byte| *byte == 0).any(|variable| variable == name.as_bytes()));
        }
        running
    }

    /// The first processes of the nodes.
    fn inits(&self) -> Vec<i32> {
        let status = self.status();
        let pids = status["nodes"].as_array().into_iter().flatten().filter_map(|node| node["pid"].as_i64());
        pids.filter_map(|pid| i32::try_from(pid).ok()).collect()
    }

    /// Repeats a kubectl-lite command until it succeeds; panics after a minute.
    #[track_caller]
    pub fn until_ok(&self, arguments: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let output = self.lite(arguments);
            if output.status.success() || Instant::now() > deadline {
                return output.ok();
            }
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if thread::panicking() {
            for process in
                self.home.path().join("labs").join(&self.name).join("log").read_dir().into_iter().flatten().flatten()
            {
                let text = std::fs::read_to_string(process.path()).unwrap_or_default();
                let tail: Vec<_> = text.lines().rev().take(30).collect();
                eprintln!(
                    "--- {}\n{}",
                    process.path().display(),
                    tail.into_iter().rev().collect::<Vec<_>>().join("\n")
                );
            }
        }
        let down = self.lab(&["down"]);
        if self.mounted {
            // Under a mount the directory itself cannot be removed.
            let _ = umount2(self.home.path(), MntFlags::MNT_DETACH);
        }
        if !thread::panicking() {
            down.ok();
        }
    }
}

/// The children of a process: those of all its threads.
fn children(pid: i32) -> Vec<i32> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
}

/// A process that can be waited for though it is nobody's child here.
struct Pidfd(Option<OwnedFd>);

impl Pidfd {
    fn open(pid: i32) -> Self {
        // SAFETY: no memory is involved; the descriptor is new and nobody else's.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        // SAFETY: as above.
        Self(i32::try_from(fd).ok().filter(|fd| *fd >= 0).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    fn wait(&self) {
        if let Some(fd) = &self.0 {
            let mut set = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
            poll(&mut set, PollTimeout::from(10_000_u16)).expect("wait for a process");
        }
    }
}

/// Splits at spaces; quotes are not needed in tests.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(' ').filter(|word| !word.is_empty())
}
