//! A daemon of a test's own: in namespaces of its own, which end with it and take everything along.

use std::{
    env, fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::{fs::symlink, net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use coracle_tests::{Output, binary, run};
use serde_json::Value;
use tempfile::TempDir;

pub const IMAGE: &str = "busybox:test";
/// In a daemon's directory: what it says.
const LOG: &str = "daemon.log";
/// The minor version of the API that tests are written for.
const NEWEST: u32 = 50;

/// A daemon with the image [`IMAGE`].
pub struct Engine {
    process: Child,
    /// Says when it serves; a peer says that elsewhere.
    output: Option<BufReader<ChildStdout>>,
    dir: TempDir,
    host: String,
    group: String,
    version: OnceLock<String>,
}

static NEXT: AtomicU32 = AtomicU32::new(0);

/// The program that is driven instead of ours, if there is one.
pub fn peer() -> Option<PathBuf> {
    env::var_os("CORACLE_DOCKER_PEER").map(PathBuf::from)
}

impl Engine {
    /// Starts a daemon, ours or the peer that was named.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with further options, which a peer has too.
    pub fn start_with(options: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let group = format!("coracle-docker-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let socket = dir.path().join("docker.sock");
        let (process, output) = match peer() {
            Some(program) => (spawn_peer(&program, dir.path(), &socket, &group, options), None),
            None => {
                let (process, output) = spawn(dir.path(), &socket, &group, options);
                (process, Some(output))
            }
        };
        let host = format!("unix://{}", socket.display());
        let engine = Self { process, output, dir, host, group, version: OnceLock::new() };
        engine.import();
        engine
    }

    fn import(&self) {
        let archive = self.dir.path().join("busybox.tar");
        fs::write(&archive, busybox(self.dir.path())).unwrap();
        self.docker(&["import", "-c", "CMD [\"/bin/sh\"]", archive.to_str().unwrap(), IMAGE]).ok();
    }

    /// Runs the CLI.
    pub fn docker(&self, arguments: &[&str]) -> Output {
        self.docker_with(arguments, "")
    }

    /// Runs the CLI with something on its standard input.
    pub fn docker_with(&self, arguments: &[&str], input: &str) -> Output {
        let mut command = Command::new("docker");
        command.env("DOCKER_HOST", &self.host).env("DOCKER_CONFIG", self.dir.path().join("config")).args(arguments);
        run(&mut command, input)
    }

    /// What a command that must succeed printed, without the last newline.
    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> String {
        self.docker(arguments).ok().trim_end().to_owned()
    }

    /// Where the daemon listens.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// A command line of another client of the daemon.
    pub fn client(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("DOCKER_HOST", &self.host).env("DOCKER_CONFIG", self.dir.path().join("config"));
        command
    }

    /// Kills the daemon as a fault would, and waits until the next one serves. A peer has no tests of this.
    pub fn crash(&mut self) {
        let daemon = self.daemon();
        let Some(output) = &mut self.output else { panic!("a peer is not started again") };
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(daemon as i32), nix::sys::signal::Signal::SIGKILL).unwrap();
        assert_ready(output, self.dir.path(), &mut self.process);
    }

    /// The cgroup that its containers are in.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// The daemon's process.
    pub fn daemon(&self) -> u32 {
        let program = peer().unwrap_or_else(|| "coracle".into());
        let program = program.file_name().unwrap().to_string_lossy().into_owned();
        let first = only_child(self.process.id());
        // A shell may become the last program that it runs.
        std::iter::once(first)
            .chain(children(first))
            .find(|child| fs::read_to_string(format!("/proc/{child}/comm")).is_ok_and(|name| name.trim() == program))
            .expect("the daemon runs")
    }

    /// How many processes there are in the daemon's namespaces.
    pub fn processes(&self) -> usize {
        fs::read_dir(format!("/proc/{}/root/proc", self.daemon()))
            .unwrap()
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()))
            .count()
    }

    /// The daemon's socket.
    pub fn socket(&self) -> &str {
        self.host.trim_start_matches("unix://")
    }

    /// Whether the daemon under test is another one than ours.
    pub fn is_peer(&self) -> bool {
        peer().is_some()
    }

    /// The newest version of the API that both this test and the daemon speak, of 1.x.
    pub fn minor(&self) -> u32 {
        let version = self.version.get_or_init(|| {
            let mut answer = String::new();
            self.send_to("GET", "/version", "", b"").read_to_string(&mut answer).unwrap();
            let (_, body) = answer.split_once("\r\n\r\n").unwrap();
            let said: Value = serde_json::from_str(body).unwrap();
            said["ApiVersion"].as_str().unwrap().to_owned()
        });
        version.strip_prefix("1.").and_then(|minor| minor.parse::<u32>().ok()).unwrap().min(NEWEST)
    }

    /// What is expected of a daemon of API 1.`minor` and newer, and of an older one.
    pub fn since<T>(&self, minor: u32, newer: T, older: T) -> T {
        if self.minor() < minor { older } else { newer }
    }

    /// Whether the daemon, a peer, is too old for what a test is about: told with the test's name.
    pub fn is_older(&self, minor: u32, what: &str) -> bool {
        let older = self.minor() < minor;
        if older {
            eprintln!("newer than the peer: {}: {what}, API 1.{minor}", name());
        }
        older
    }

    /// A file of the test's own.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs a program in the daemon's network, as somebody on its host would.
    pub fn on_host(&self, arguments: &[&str]) -> Output {
        run(&mut self.in_network(arguments), "")
    }

    /// A program to be run in the daemon's network; it does not outlive the test.
    pub fn in_network(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "nsenter"]);
        command.args(["-t", &only_child(self.process.id()).to_string(), "-n"]);
        command.args(arguments);
        command
    }

    /// What the API answers to a request without a body.
    pub fn post(&self, path: &str) -> String {
        let mut answer = String::new();
        self.send("POST", path, "").read_to_string(&mut answer).unwrap();
        answer
    }

    /// A request with a JSON body: the status and the JSON of the answer.
    pub fn request(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let mut answer = String::new();
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.send(method, path, &body).read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer}"));
        let status = head.split_whitespace().nth(1).and_then(|word| word.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status: {head}"));
        (status, serde_json::from_str(body).unwrap_or(Value::Null))
    }

    /// A connection on which a request was sent and nothing read yet.
    pub fn send(&self, method: &str, path: &str, body: &str) -> UnixStream {
        self.send_with(method, path, "Content-Type: application/json\r\n", body)
    }

    /// The same with headers of one's own.
    pub fn send_with(&self, method: &str, path: &str, headers: &str, body: &str) -> UnixStream {
        self.send_bytes(method, path, headers, body.as_bytes())
    }

    /// A path without a version is asked for in the newest that both speak.
    pub fn send_bytes(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> UnixStream {
        match path.starts_with("/v1.") {
            true => self.send_to(method, path, headers, body),
            false => self.send_to(method, &format!("/v1.{}{path}", self.minor()), headers, body),
        }
    }

    fn send_to(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> UnixStream {
        let mut socket = UnixStream::connect(self.socket()).unwrap();
        // An upgrade needs 1.1; otherwise the answer ends with the connection.
        let version = if headers.contains("Upgrade") { "1.1\r\nHost: docker" } else { "1.0" };
        let length = if headers.contains("Content-Length") {
            String::new()
        } else {
            format!("Content-Length: {}\r\n", body.len())
        };
        let mut request = format!("{method} {path} HTTP/{version}\r\n{headers}{length}\r\n").into_bytes();
        request.extend_from_slice(body);
        // A daemon that refuses what it has read so far has answered.
        let _ = socket.write_all(&request);
        socket
    }
}

/// Those of a process with one thread.
fn children(parent: u32) -> impl Iterator<Item = u32> {
    let text = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>().into_iter()
}

pub fn only_child(parent: u32) -> u32 {
    children(parent).next().expect("what keeps the daemon runs")
}

fn spawn(dir: &Path, socket: &Path, group: &str, more: &[&str]) -> (Child, BufReader<ChildStdout>) {
    // The first process of the namespaces starts a daemon that was killed again, as a service manager would.
    let script = "busybox ip link set lo up && while true; do \"$@\"; [ $? = 137 ] || exit; done";
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "unshare", "-n", "-m", "-p", "--fork", "--kill-child", "--mount-proc"]);
    command.args(["busybox", "sh", "-c", script, "sh"]).arg(binary("coracle")).arg("runtime");
    command.arg("--data-dir").arg(dir.join("data")).arg("--docker-socket").arg(socket);
    command.args(["--cgroup-parent", &format!("/{group}")]).args(more);
    let log = fs::File::create(dir.join(LOG)).unwrap();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
    let mut child = command.spawn().expect("util-linux and busybox-static are installed");
    let mut output = BufReader::new(child.stdout.take().unwrap());
    assert_ready(&mut output, dir, &mut child);
    (child, output)
}

/// The peer, as ours is started. What it keeps at fixed places below /run goes with its namespaces.
fn spawn_peer(program: &Path, dir: &Path, socket: &Path, group: &str, more: &[&str]) -> Child {
    let script = "busybox ip link set lo up && mount -t tmpfs run /run && \"$@\"";
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "unshare", "-n", "-m", "-p", "--fork", "--kill-child", "--mount-proc"]);
    command.args(["busybox", "sh", "-c", script, "sh"]).arg(program).arg("--data-root").arg(dir.join("data"));
    command.arg("--exec-root").arg(dir.join("exec")).arg("--pidfile").arg(dir.join("pid"));
    command.args(["-H", &format!("unix://{}", socket.display()), "--exec-opt", "native.cgroupdriver=cgroupfs"]);
    command.args(["--cgroup-parent", &format!("/{group}")]).args(more);
    // What ours does without being told.
    if more.contains(&"--tlscacert") {
        command.arg("--tlsverify");
    }
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains("API listen on") {
        assert_ne!(log.read_line(&mut said).unwrap(), 0, "the peer did not start: {said}");
    }
    // Nobody else reads what it says later; it must not wait for that.
    thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
    child
}

/// Waits for a daemon to serve. One that does not has said why, and what kept it has ended with it.
#[track_caller]
fn assert_ready(output: &mut impl BufRead, dir: &Path, keeper: &mut Child) {
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    if line.trim() != "ready" {
        let said = fs::read_to_string(dir.join(LOG)).unwrap_or_default();
        let ended = if line.is_empty() { keeper.wait().ok() } else { None };
        panic!("the daemon did not start: it printed {line:?}, ended with {ended:?}, and said: {said}");
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let left = self.docker(&["ps", "-aq"]).stdout;
        let left: Vec<&str> = left.split_whitespace().collect();
        if !left.is_empty() {
            self.docker(&[&["rm", "-f"], &left[..]].concat());
        }
        // Its namespaces end with it, and everything in them.
        let _ = self.process.kill();
        let _ = self.process.wait();
        for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let group = hierarchy.path().join(&self.group);
            // A `--cgroup-parent` of a test.
            let _ = fs::remove_dir(group.join("inner"));
            let _ = fs::remove_dir(group);
        }
        let _ = fs::remove_dir(Path::new("/sys/fs/cgroup").join(&self.group));
    }
}

/// Whether a peer is driven, of which a test says why it is none of its: told with the test's name.
pub fn ours_alone(why: &str) -> bool {
    let alone = peer().is_some();
    if alone {
        eprintln!("ours alone: {}: {why}", name());
    }
    alone
}

/// The test's.
fn name() -> String {
    thread::current().name().unwrap_or_default().to_owned()
}

/// A file system of busybox, its names, users, and something in /data.
pub fn busybox(dir: &Path) -> Vec<u8> {
    let root = dir.join("root");
    for name in ["bin", "etc", "tmp", "data", "root"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("the package busybox-static is installed");
    for name in [
        "sh", "cat", "echo", "sleep", "id", "hostname", "mount", "ls", "true", "false", "kill", "touch", "rm", "ip",
        "nslookup", "nc", "ping", "pwd", "env", "test", "stty", "tail", "ps", "grep", "wc", "cut",
    ] {
        symlink("/bin/busybox", root.join("bin").join(name)).unwrap();
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/:/bin/sh\n").unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\nweb:x:33:\n").unwrap();
    fs::write(root.join("data/seed"), "seed\n").unwrap();
    let mut builder = tar::Builder::new(Vec::new());
    builder.follow_symlinks(false);
    builder.append_dir_all(".", &root).unwrap();
    builder.into_inner().unwrap()
}
