//! A bundle with busybox in it, the launcher on it, and namespaces of its own around each test: whatever it leaves ends with
//! them. Groups are the one thing that outlives namespaces; they are removed by name.

use std::{
    fs,
    os::{fd::OwnedFd, unix::fs::symlink},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use coracle_launcher::cgroup::{Cgroup, Hierarchy};
use serde_json::{Value, json};

const INSIDE: &str = "CORACLE_TEST_INSIDE";

/// Runs `body` in namespaces of its own by running this test again there.
pub fn isolated(test: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    let status = Command::new("unshare")
        .args(["--pid", "--fork", "--kill-child", "--mount", "--mount-proc", "--net", "--uts", "--ipc"])
        .arg(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(INSIDE, "1")
        .status()
        .unwrap();
    let left = Hierarchy::discover().unwrap().group(&group(test)).unwrap();
    let below: Vec<_> = left.dirs().flat_map(|(_, dir)| children(dir)).collect();
    let removed = left.remove();
    assert!(status.success(), "{test} failed inside its namespaces");
    assert!(below.is_empty(), "{test} left groups behind: {below:?}");
    removed.unwrap();
}

fn children(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// The group that a test's containers are in.
fn group(test: &str) -> String {
    format!("/coracle-launcher-test-{}", test.replace("::", "-"))
}

/// The launcher. It is in this program, which runs where nothing else was built, too.
pub fn launcher() -> Command {
    static PROGRAM: OnceLock<OwnedFd> = OnceLock::new();
    Command::new(coracle_programs::exec_path(PROGRAM.get_or_init(|| coracle_programs::LAUNCHER.memfd().unwrap())))
}

/// Waits, with a bound, until something is so.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub struct Bundle {
    pub dir: tempfile::TempDir,
    pub config: Value,
    group: String,
}

impl Bundle {
    /// Whose container runs a script of busybox's.
    pub fn new(test: &str, script: &str) -> Bundle {
        let dir = tempfile::tempdir().unwrap();
        let rootfs = dir.path().join("rootfs");
        fs::create_dir_all(rootfs.join("bin")).unwrap();
        fs::copy("/bin/busybox", rootfs.join("bin/busybox")).unwrap();
        for name in ["sh", "cat", "id", "ls", "sleep", "readlink", "stat", "grep", "touch"] {
            symlink("busybox", rootfs.join("bin").join(name)).unwrap();
        }
        let mount = |at: &str, kind: &str, options: &[&str]| json!({ "destination": at, "type": kind, "source": kind, "options": options });
        let group = format!("{}/c", group(test));
        let namespaces = ["pid", "network", "ipc", "uts", "mount"].map(|kind| json!({ "type": kind }));
        let config = json!({
            "ociVersion": "1.2.0",
            "root": { "path": "rootfs" },
            "process": {
                "args": ["/bin/sh", "-c", script], "cwd": "/", "env": ["PATH=/bin"], "user": { "uid": 0, "gid": 0 },
                "capabilities": { "bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"] },
            },
            "mounts": [
                mount("/proc", "proc", &[]), mount("/dev", "tmpfs", &["mode=755"]),
                mount("/dev/pts", "devpts", &["newinstance", "ptmxmode=0666", "mode=0620"]),
            ],
            "linux": { "cgroupsPath": group, "namespaces": namespaces },
        });
        Bundle { dir, config, group }
    }

    pub fn rootfs(&self) -> PathBuf {
        self.dir.path().join("rootfs")
    }

    /// The container's group.
    pub fn cgroup(&self) -> Cgroup {
        Hierarchy::discover().unwrap().group(&self.group).unwrap()
    }

    /// The test's, which that is in.
    pub fn parent(&self) -> Cgroup {
        Hierarchy::discover().unwrap().group(self.group.trim_end_matches("/c")).unwrap()
    }

    pub fn push(&mut self, list: &str, entry: Value) {
        self.config.pointer_mut(list).unwrap().as_array_mut().unwrap().push(entry);
    }

    /// A container that does not get this namespace.
    pub fn without(&mut self, kind: &str) {
        self.config["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != kind);
    }

    pub fn write(&self) -> &Path {
        fs::write(self.dir.path().join("config.json"), self.config.to_string()).unwrap();
        self.dir.path()
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = launcher();
        command.arg("--root").arg(self.dir.path().join("state")).args(arguments).current_dir(self.write());
        command
    }

    pub fn oci(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// What it says on both streams, if it does what it should.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.oci(arguments);
        let text = text(&output);
        assert!(output.status.success(), "{arguments:?}: {text}");
        text
    }

    /// What it says on both streams, if it refuses.
    pub fn refused(&self, arguments: &[&str]) -> String {
        let output = self.oci(arguments);
        let text = text(&output);
        assert!(!output.status.success(), "{arguments:?}: {text}");
        text
    }

    /// For a process that stays and must not hold the caller's streams.
    pub fn quiet(&self, arguments: &[&str]) {
        let mut command = self.command(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        assert!(command.status().unwrap().success(), "{arguments:?}");
    }

    /// Runs the container to its end: exit code, output, errors.
    pub fn run(&self) -> (i32, String, String) {
        let output = self.oci(&["run", "c"]);
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.clone(), output.stderr.clone()].concat()).into_owned()
}
