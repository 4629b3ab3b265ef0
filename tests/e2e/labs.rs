//! Labs come, go on and go, and leave nothing.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

use coracle_tests::{Host, Lab};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

#[test]
fn a_lab_leaves_the_host_as_it_was() {
    let host = Host::look();
    let lab = Lab::up("trace", 2);
    lab.lite("create deployment web --image=coracle/hello:v1 --replicas=4").ok();
    lab.lite("rollout status deployment/web --timeout=60s").ok();
    lab.lab(&["down"]).ok();
    host.assert_unchanged();
    assert_eq!(lab.home().read_dir().map_or(0, Iterator::count), 0, "files were left behind");
}

#[test]
fn a_second_up_changes_nothing() {
    let lab = Lab::up("twice", 1);
    let before = lab.status();
    let said = lab.lab(&["up", "--nodes", "1"]).ok();
    assert!(said.starts_with("Lab \"twice\" runs already"), "{said}");
    assert_eq!(before["nodes"][0]["pid"], lab.status()["nodes"][0]["pid"]);
}

#[test]
fn labs_stand_side_by_side() {
    let (one, other) = (Lab::up("one", 1), Lab::up("other", 1));
    one.lite("create deployment web --image=coracle/hello:v1").ok();
    assert!(other.lite("get deployment web").fails().contains("NotFound"));
    assert_eq!(one.lite("get nodes -o name").ok(), "node/one-1\n");
    assert_eq!(other.lite("get nodes -o name").ok(), "node/other-1\n");
}

#[test]
fn an_interrupted_up_leaves_nothing() {
    let host = Host::look();
    let lab = Lab::prepare("broken");
    let mut command = lab.command("coracle");
    command.args(["lab", "--name", "broken", "up", "--nodes", "3"]).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // The server is up and nodes are being started: the worst moment.
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let ready = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("server ready")));
    assert!(ready.is_some());
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT).unwrap();
    assert!(!child.wait().unwrap().success());
    host.assert_unchanged();
    assert_eq!(lab.home().read_dir().map_or(0, Iterator::count), 0, "files were left behind");
}

#[test]
fn nodes_come_and_go() {
    let lab = Lab::up("fleet", 1);
    lab.lab(&["node", "add"]).ok();
    assert_eq!(lab.lite("get nodes -o name").ok(), "node/fleet-1\nnode/fleet-2\n");
    lab.lab(&["node", "stop", "fleet-2"]).ok();
    assert_eq!(lab.status()["nodes"][1]["state"], "stopped");
    lab.lab(&["node", "start", "fleet-2"]).ok();
    assert_eq!(lab.status()["nodes"][1]["state"], "running");
    lab.lab(&["node", "rm", "fleet-1"]).ok();
    assert_eq!(lab.lite("get nodes -o name").ok(), "node/fleet-2\n");
    let unknown = lab.lab(&["node", "rm", "fleet-9"]).fails();
    assert!(unknown.contains("has no node \"fleet-9\"; it has: fleet-2"), "{unknown}");
}

#[test]
fn a_lab_that_lost_all_its_processes_goes_on() {
    let lab = Lab::up("phoenix", 1);
    lab.lite("create deployment web --image=coracle/hello:v1 --replicas=2").ok();
    lab.lite("rollout status deployment/web --timeout=60s").ok();
    // What a power cut does: everything is gone at once, without a word.
    let status = lab.status();
    let node = status["nodes"][0]["pid"].as_i64().unwrap();
    let server = lab.process("server");
    for pid in [i32::try_from(node).unwrap(), server] {
        lab.kill_tree(pid);
    }
    assert_eq!(lab.status()["nodes"][0]["state"], "dead");
    lab.lab(&["up"]).ok();
    lab.lite("rollout status deployment/web --timeout=90s").ok();
    lab.lite("wait --for=condition=Ready pod -l app=web --timeout=90s").ok();
}
