//! The daemon is killed while containers run. dockerd does this with `--live-restore` only, so it is no peer here.

use std::{fs, os::unix::net::UnixListener};

use coracle_tests::binary;

use crate::engine::{Engine, IMAGE, ours_alone};

const LIVE: &str = "dockerd keeps containers through its own death with --live-restore only, and files elsewhere";

#[test]
fn containers_outlive_the_daemon_and_the_next_one_knows_them() {
    if ours_alone(LIVE) {
        return;
    }
    let mut engine = Engine::start();
    engine.ok(&["network", "create", "own"]);
    let serve = "i=0; while true; do i=$((i+1)); echo line$i; echo answer | nc -l -p 80; done";
    engine.ok(&["run", "-d", "--name", "web", "--network", "own", "-p", "8080:80", IMAGE, "sh", "-c", serve]);
    engine.ok(&["run", "-d", "--name", "again", "--restart", "always", IMAGE, "sleep", "1000"]);
    engine.ok(&["run", "-d", "--name", "gone", "--rm", IMAGE, "sleep", "1000"]);
    engine.ok(&["create", "--name", "waiting", IMAGE, "true"]);
    let started = engine.ok(&["inspect", "-f", "{{.State.StartedAt}} {{.State.Pid}}", "web"]);
    engine.crash();
    assert_eq!(engine.ok(&["inspect", "-f", "{{.State.StartedAt}} {{.State.Pid}}", "web"]), started);
    let names = engine.ok(&["ps", "-a", "--format", "{{.Names}} {{.State}}"]);
    assert_eq!(names.lines().collect::<Vec<_>>(), ["waiting created", "gone running", "again running", "web running"]);
    // Its port, its name, its log and its namespaces are as they were.
    // Between two answers nobody listens for a moment.
    let answers = |asked: &dyn Fn() -> String| (0..100).any(|_| asked() == "answer\n");
    let from_host = || engine.on_host(&["busybox", "nc", "-w", "5", "127.0.0.1", "8080"]).stdout;
    let by_name = || engine.docker(&["run", "--rm", "--network", "own", IMAGE, "nc", "web", "80"]).stdout;
    assert!(answers(&from_host) && answers(&from_host) && answers(&by_name));
    assert_eq!(engine.ok(&["exec", "web", "echo", "inside"]), "inside");
    assert!(engine.ok(&["logs", "web"]).starts_with("line1\nline2\nline3\n"));
    let other = engine.ok(&["run", "-d", "--network", "own", IMAGE, "sleep", "1000"]);
    let address = |name: &str| engine.ok(&["inspect", "-f", "{{.NetworkSettings.Networks.own.IPAddress}}", name]);
    assert_ne!(address("web"), address(&other), "addresses in use are not given again");

    // What ends now is dealt with by policy and by --rm.
    engine.ok(&["exec", "again", "kill", "1"]);
    engine.ok(&["exec", "again", "busybox", "kill", "-9", "1"]);
    engine.ok(&["stop", "-t", "0", "gone"]);
    // It is removed a moment after it has ended.
    assert!((0..100).any(|_| !engine.ok(&["ps", "-a", "--format", "{{.Names}}"]).contains("gone")));
    engine.ok(&["stop", "-t", "0", "web"]);
    engine.ok(&["start", "web"]);
    assert!(answers(&from_host));
}

#[test]
fn a_second_daemon_moves_nothing_of_the_first() {
    if ours_alone(LIVE) {
        return;
    }
    let run = tempfile::tempdir().unwrap();
    let engine = Engine::start_with(&["--run-dir", run.path().to_str().unwrap()]);
    // As a daemon keeps it that knows no other place: idle, and the second one would rather have it in memory.
    let (data, own) = (engine.path("data"), engine.path("data/run"));
    fs::create_dir(&own).unwrap();
    let _socket = UnixListener::bind(own.join("cri.sock")).unwrap();
    let program = binary("coracle");
    let script = "busybox mount -t tmpfs run /run && exec \"$@\"";
    let words = ["unshare", "-m", "busybox", "sh", "-c", script, "sh", program.to_str().unwrap(), "runtime"];
    let refused = engine.on_host(&[&words[..], &["--data-dir", data.to_str().unwrap()]].concat()).fails();
    assert!(refused.contains(&format!("a runtime works in {}: stop it first", data.display())), "{refused}");
    assert!(!own.is_symlink() && own.join("cri.sock").exists());
}

#[test]
fn what_belongs_to_running_containers_lies_where_it_is_told_to() {
    if ours_alone(LIVE) {
        return;
    }
    // In memory, as the option is meant.
    let run = tempfile::tempdir_in("/dev/shm").unwrap();
    let mut engine = Engine::start_with(&["--run-dir", run.path().to_str().unwrap()]);
    let id = engine.ok(&["run", "-d", IMAGE, "sleep", "1000"]);
    let bundle = run.path().join("containers").join(&id);
    assert!(bundle.join("config.json").exists());
    assert!(!engine.path("data/run").exists());
    engine.crash();
    assert_eq!(engine.ok(&["exec", &id, "echo", "inside"]), "inside");
    engine.ok(&["rm", "-f", &id]);
    assert!(!bundle.exists());
}

#[test]
fn a_container_that_ended_while_no_daemon_was_there_follows_its_policy() {
    if ours_alone(LIVE) {
        return;
    }
    let mut engine = Engine::start();
    let until_told = "until test -e /stop; do sleep 0.1; done; exit 4";
    engine.ok(&["run", "-d", "--name", "once", IMAGE, "sh", "-c", until_told]);
    engine.ok(&["run", "-d", "--name", "stopped", "--restart", "unless-stopped", IMAGE, "sleep", "1000"]);
    engine.ok(&["stop", "-t", "0", "stopped"]);
    engine.ok(&["exec", "once", "touch", "/stop"]);
    engine.crash();
    assert_eq!(engine.ok(&["wait", "once"]), "4", "the shim kept the code");
    assert_eq!(engine.ok(&["inspect", "-f", "{{.State.Status}}", "stopped"]), "exited");
}

#[test]
fn what_is_removed_is_gone_at_once_and_off_the_disk_soon() {
    if ours_alone(LIVE) {
        return;
    }
    let mut engine = Engine::start();
    let count = |engine: &Engine, name: &str| fs::read_dir(engine.path("data").join(name)).unwrap().count();
    // The daemon tells nobody when; it is asked something else until it has come to it, for some seconds at most.
    let emptied =
        |engine: &Engine| (0..500).any(|_| !engine.ok(&["version"]).is_empty() && count(engine, "removed") == 0);
    let fill = "mkdir /many; i=0; while [ $i -lt 300 ]; do i=$((i+1)); echo $i > /many/$i; done; sleep 1000";
    engine.ok(&["run", "-d", "--name", "first", IMAGE, "sh", "-c", fill]);
    engine.ok(&["rm", "-f", "first"]);
    engine.ok(&["run", "--rm", "--name", "first", IMAGE, "true"]);
    assert_eq!((count(&engine, "containers"), count(&engine, "snapshots/c")), (0, 0));
    assert!(emptied(&engine), "the files of removed containers stay");
    // What a daemon did not come to, the next one does.
    fs::create_dir_all(engine.path("data/removed/left.snapshot/fs")).unwrap();
    engine.crash();
    assert!(emptied(&engine), "what was left by a killed daemon stays");
}
