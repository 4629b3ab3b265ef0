//! Labs come, go on and go, and leave nothing.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use coracle_tests::{Host, Lab, run};
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
fn labs_come_up_at_the_same_moment_and_stand_side_by_side() {
    // At the same moment: both want the usual port of the API.
    let (one, other) = thread::scope(|scope| {
        let one = scope.spawn(|| Lab::up("one", 1));
        let other = Lab::up("other", 1);
        (one.join().unwrap(), other)
    });
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

#[test]
fn docker_sees_a_nodes_pods_and_the_kubelet_makes_what_it_removes() {
    let lab = Lab::up("dock", 1);
    lab.lite("create deployment web --image=coracle/hello:v1").ok();
    lab.lite("rollout status deployment/web --timeout=60s").ok();
    let said = lab.lab(&["docker-env", "dock-1"]).ok();
    let host = said.trim().strip_prefix("export DOCKER_HOST=").expect("a line for the shell");
    let docker = |arguments: &str| {
        let mut command = Command::new("docker");
        run(command.env("DOCKER_HOST", host).env("HOME", lab.home()).args(arguments.split(' ')), "")
    };
    let running = docker("ps --no-trunc --format {{.ID}}={{.Image}}={{.Names}}").ok();
    let (id, rest) = running.trim().split_once('=').expect("one container");
    assert!(rest.starts_with("coracle/hello:v1=k8s_hello_web-"), "{running}");
    assert_eq!(docker("run --rm coracle/hello:v1 print from docker").ok(), "from docker\n");
    docker(&format!("rm -f {id}")).ok();
    let pod = lab.lite("get pods -l app=web -o name").ok();
    let restarted =
        format!("wait --for=jsonpath={{.status.containerStatuses[0].restartCount}}=1 {} --timeout=60s", pod.trim());
    lab.lite(&restarted).ok();
    lab.lite("rollout status deployment/web --timeout=60s").ok();
    assert_ne!(docker("ps --no-trunc --format {{.ID}}").ok().trim(), id);
    let unknown = lab.lab(&["docker-env", "dock-9"]).fails();
    assert!(unknown.contains("has no node \"dock-9\""), "{unknown}");
}

#[test]
fn a_port_of_the_nodes_is_published_on_the_host() {
    let lab = Lab::up("pier", 2);
    let manifest = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  hostNetwork: true\n  nodeName: pier-2\n  containers: [{name: hello, image: \"coracle/hello:v1\", args: [serve, \"30080\"]}]\n";
    lab.lite_with("apply -f -", manifest).ok();
    lab.lite("wait --for=condition=Ready pod/web --timeout=30s").ok();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let said = lab.lab(&["publish", &format!("{free}:30080")]).ok();
    assert_eq!(said, format!("127.0.0.1:{free} -> port 30080 of every node\n"));
    let deadline = Instant::now() + Duration::from_secs(20);
    let answer = loop {
        let mut answer = String::new();
        if let Ok(mut connection) = TcpStream::connect(("127.0.0.1", free)) {
            let sent = connection.write_all(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n");
            if sent.and_then(|()| connection.read_to_string(&mut answer)).is_ok() && !answer.is_empty() {
                break answer;
            }
        }
        assert!(Instant::now() < deadline, "nothing answers at the published port");
    };
    assert!(answer.contains("pod web") || answer.contains("version v1"), "{answer}");
    lab.lab(&["publish", "--remove", &format!("{free}:30080")]).ok();
    while TcpStream::connect(("127.0.0.1", free)).is_ok() {
        assert!(Instant::now() < deadline, "the port is still published");
    }
}
