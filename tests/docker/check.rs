//! `coracle runtime check`, as an administrator types it after a machine was treated badly.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use coracle_tests::{Output, binary, run};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::engine::{IMAGE, busybox, only_child, ours_alone};

/// Namespaces that end with the test, a data directory, and groups.
struct Machine {
    keeper: Child,
    dir: tempfile::TempDir,
    group: String,
}

impl Machine {
    fn new() -> Machine {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "unshare", "-n", "-m", "-p", "--fork", "--kill-child"]);
        // Says that it is there: then the namespaces are.
        command.args([
            "--mount-proc",
            "busybox",
            "sh",
            "-c",
            "busybox ip link set lo up; echo here; exec busybox sleep 1000",
        ]);
        let mut keeper = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(keeper.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "here\n");
        let group = format!("coracle-check-{}", std::process::id());
        Machine { keeper, dir: tempfile::tempdir().unwrap(), group }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &only_child(self.keeper.id()).to_string(), "-n", "-m", "-p", "--"]);
        command.arg(program).args(arguments);
        command
    }

    fn shell(&self, script: &str) {
        run(&mut self.command(Path::new("busybox"), &["sh", "-ec", script]), "").ok();
    }

    fn runtime(&self, more: &[&str]) -> Command {
        let mut command = self.command(&binary("coracle"), &["runtime", "--data-dir"]);
        command.arg(self.path("data")).arg("--docker-socket").arg(self.path("docker.sock"));
        command.args(["--cgroup-parent", &format!("/{}", self.group)]).args(more);
        command
    }

    fn check(&self, more: &[&str]) -> Output {
        run(&mut self.runtime(&[&["check"], more].concat()), "")
    }

    /// Does something with a runtime that serves, and ends it in order.
    fn serving(&self, act: impl FnOnce()) {
        let mut command = self.runtime(&[]);
        let mut daemon = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(daemon.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        act();
        kill(Pid::from_raw(only_child(daemon.id()) as i32), Signal::SIGTERM).unwrap();
        assert!(daemon.wait().unwrap().success());
    }

    fn docker(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("docker");
        command.env("DOCKER_HOST", format!("unix://{}", self.path("docker.sock").display()));
        run(command.env("DOCKER_CONFIG", self.path("config")).args(arguments), "").ok().to_owned()
    }

    /// Directories of a group of this name in the hierarchies that there are.
    fn groups(&self, name: &str) -> Vec<PathBuf> {
        let hierarchies = fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path());
        let all = hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]);
        all.map(|path| path.join(&self.group).join(name)).filter(|path| path.exists()).collect()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
        for name in ["0123456789abcdef".repeat(4).as_str(), ""] {
            self.groups(name).iter().for_each(|group| drop(fs::remove_dir(group)));
        }
    }
}

#[test]
fn what_is_wrong_is_told_and_put_right() {
    if ours_alone("dockerd has no such command") {
        return;
    }
    let machine = Machine::new();
    let archive = machine.path("busybox.tar");
    fs::write(&archive, busybox(machine.dir.path())).unwrap();
    machine.serving(|| {
        machine.docker(&["import", "-c", "CMD [\"/bin/sh\"]", archive.to_str().unwrap(), IMAGE]);
        machine.docker(&["run", "--rm", "--network", "none", IMAGE, "true"]);
        let refused = machine.check(&[]);
        assert!(refused.status.code() == Some(1) && refused.stderr.contains("stop it first"), "{refused:?}");
    });
    let clean = machine.check(&[]);
    assert_eq!(
        (clean.status.code(), clean.stdout.as_str(), clean.stderr.as_str()),
        (Some(0), "nothing is wrong\n", "")
    );

    // A broken blob, a mount and a namespace that nobody knows, and a group of nobody's.
    let id = "0123456789abcdef".repeat(4);
    let blobs = fs::read_dir(machine.path("data/content/sha256")).unwrap().flatten();
    let blob = blobs.max_by_key(|entry| entry.metadata().unwrap().len()).unwrap().path();
    fs::OpenOptions::new().append(true).open(&blob).unwrap().write_all(b"x").unwrap();
    let (shm, pin) = (format!("data/sandboxes/{id}/shm"), format!("data/run/sandboxes/{id}/ns"));
    machine.shell(&format!(
        "cd {}; mkdir -p {shm} {pin}; mount -t tmpfs x {shm}; touch {pin}/net; mount --bind /proc/self/ns/net {pin}/net",
        machine.dir.path().display()
    ));
    // On the first version of cgroups each controller has a tree of its own.
    let pids = Path::new("/sys/fs/cgroup/pids");
    let tree = if pids.exists() { pids } else { Path::new("/sys/fs/cgroup") };
    fs::create_dir_all(tree.join(&machine.group).join(&id)).unwrap();
    let expected =
        ["belongs to no sandbox and no container", "belongs to no sandbox", "has the digest", "sandbox.json"];
    for _ in 0..2 {
        let found = machine.check(&[]);
        assert!(
            found.status.code() == Some(1) && expected.iter().all(|words| found.stdout.contains(words)),
            "{found:?}"
        );
        for what in ["mount ", "namespace ", "cgroup ", "blob "] {
            assert!(found.stdout.lines().any(|line| line.starts_with(what)), "no {what:?} in {}", found.stdout);
        }
        let count = found.stdout.lines().count();
        assert!(found.stderr.contains(&format!("{count} problems; --repair makes them right")), "{found:?}");
    }
    let repaired = machine.check(&["--repair"]);
    assert_eq!(repaired.status.code(), Some(0), "{repaired:?}");
    assert!(repaired.stdout.lines().all(|line| line.ends_with(" (repaired)")), "{repaired:?}");
    assert!(machine.groups(&id).is_empty() && !machine.path(&shm).exists() && !machine.path(&pin).exists());
    machine.shell(&format!("! grep -q {} /proc/self/mountinfo", machine.dir.path().display()));
    // What only the broken blob held together goes with the next start.
    let again = machine.check(&[]);
    assert!(again.stdout.lines().all(|line| line.contains("by no image") || line == "nothing is wrong"), "{again:?}");
    machine.serving(|| {
        machine.docker(&["images"]);
    });
    let clean = machine.check(&[]);
    assert_eq!((clean.status.code(), clean.stdout.as_str()), (Some(0), "nothing is wrong\n"), "{clean:?}");
}
