//! Clients that go away in the middle: nothing of what was done for them alone is left, no descriptor, process or file.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::engine::{Engine, IMAGE, ours_alone};

const HELD: &str = "descriptors and files of our process are counted";

/// The daemon notices within a second or two; a slow machine takes longer.
const LIMIT: Duration = Duration::from_secs(30);

/// The key is the example of RFC 6455, 1.3.
const WEBSOCKET: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// What a daemon holds.
#[derive(Debug, PartialEq)]
struct Held {
    descriptors: usize,
    processes: usize,
    files: BTreeSet<String>,
}

impl Held {
    fn by(engine: &Engine) -> Held {
        let descriptors = fs::read_dir(format!("/proc/{}/fd", engine.daemon())).unwrap().count();
        let mut files = BTreeSet::new();
        list(&engine.path("data"), &mut files);
        Held { descriptors, processes: engine.processes(), files }
    }
}

fn list(dir: &Path, files: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            list(&entry.path(), files);
        }
        files.insert(entry.path().to_string_lossy().into_owned());
    }
}

/// Begins something for several clients, who go away, and waits until the daemon holds no more than before: what is
/// opened once for all (a thread's own, a socket that is kept) is not of each client.
#[track_caller]
fn goes_away(engine: &Engine, what: &str, begin: impl Fn() -> UnixStream) {
    const CLIENTS: usize = 6;
    let before = Held::by(engine);
    let streams: Vec<_> = (0..CLIENTS).map(|_| begin()).collect();
    drop(streams);
    let start = Instant::now();
    loop {
        let now = Held::by(engine);
        let files: Vec<_> = now.files.difference(&before.files).collect();
        if now.descriptors < before.descriptors + CLIENTS / 2 && now.processes <= before.processes && files.is_empty() {
            return;
        }
        let counts = [(before.descriptors, now.descriptors), (before.processes, now.processes)];
        assert!(start.elapsed() < LIMIT, "{what}: descriptors and processes {counts:?}, files {files:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Reads until something is there.
fn await_bytes(stream: &mut impl Read) {
    let mut buffer = [0; 64];
    assert_ne!(stream.read(&mut buffer).unwrap(), 0);
}

#[test]
fn a_client_that_goes_away_leaves_nothing() {
    if ours_alone(HELD) {
        return;
    }
    let engine = Engine::start();
    engine.ok(&["run", "-d", "-i", "--name", "quiet", IMAGE, "sh", "-c", "echo here; cat"]);
    let get = |path: &'static str| {
        let engine = &engine;
        move || {
            let mut stream = engine.send("GET", path, "");
            await_bytes(&mut stream);
            stream
        }
    };
    goes_away(&engine, "logs", get("/containers/quiet/logs?follow=1&stdout=1&stderr=1"));
    goes_away(&engine, "events", || engine.send("GET", "/events", ""));
    goes_away(&engine, "stats", get("/containers/quiet/stats"));
    goes_away(&engine, "export", get("/containers/quiet/export"));
    goes_away(&engine, "save", get("/images/busybox:test/get"));
    goes_away(&engine, "wait", || engine.send("POST", "/containers/quiet/wait", ""));
    for upgrade in ["", "Connection: Upgrade\r\nUpgrade: tcp\r\n"] {
        goes_away(&engine, "attach", || {
            let path = "/containers/quiet/attach?stream=1&stdin=1&stdout=1&stderr=1";
            let mut stream = engine.send_with("POST", path, upgrade, "");
            await_bytes(&mut stream);
            stream
        });
    }
    // Between two messages, and in the middle of one: the head of a text message of ten bytes.
    for begun in [&[][..], &[0x81, 0x80 | 10, 0, 0]] {
        goes_away(&engine, "attach over a WebSocket", || {
            let path = "/containers/quiet/attach/ws?stream=1&logs=1&stdin=1&stdout=1&stderr=1";
            let mut stream = engine.send_with("GET", path, WEBSOCKET, "");
            let mut said = String::new();
            while !said.contains("here\n") {
                let mut buffer = [0; 256];
                let count = stream.read(&mut buffer).unwrap();
                assert_ne!(count, 0, "{said}");
                said += &String::from_utf8_lossy(&buffer[..count]);
            }
            stream.write_all(begun).unwrap();
            stream
        });
    }
    assert_eq!(engine.ok(&["inspect", "-f", "{{.State.Running}}", "quiet"]), "true");
    engine.ok(&["rm", "-f", "quiet"]);
}

#[test]
fn a_client_that_goes_away_from_exec_leaves_the_process_alone() {
    if ours_alone(HELD) {
        return;
    }
    let engine = Engine::start();
    engine.ok(&["run", "-d", "--name", "box", IMAGE, "sleep", "1000"]);
    // One descriptor each is held for what runs on: it is followed to its end.
    let run = |command: &str| {
        let body =
            json!({ "Cmd": ["sh", "-c", command], "AttachStdin": true, "AttachStdout": true, "AttachStderr": true });
        let (_, made) = engine.request("POST", "/containers/box/exec", &body);
        let path = format!("/exec/{}/start", made["Id"].as_str().unwrap());
        let mut stream = engine.send_with(
            "POST",
            &path,
            "Connection: Upgrade\r\nUpgrade: tcp\r\n",
            &json!({ "Detach": false }).to_string(),
        );
        await_bytes(&mut stream);
        stream
    };
    // Its input ends with the client, and so does it.
    goes_away(&engine, "exec", || run("echo here; cat"));
    drop(run("echo here; exec sleep 999"));
    let start = Instant::now();
    while !engine.ok(&["top", "box"]).contains("sleep 999") {
        assert!(start.elapsed() < LIMIT, "it ended with its client");
    }
    engine.ok(&["rm", "-f", "box"]);
}

#[test]
fn a_client_that_goes_away_from_a_build_or_a_pull_ends_it() {
    if ours_alone(HELD) {
        return;
    }
    let engine = Engine::start();
    let mut context = tar::Builder::new(Vec::new());
    let text = format!("FROM {IMAGE}\nRUN echo here; sleep 998\n");
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    context.append_data(&mut header, "Dockerfile", text.as_bytes()).unwrap();
    let context = context.into_inner().unwrap();
    // Where a daemon's builds keep their files is made by the first.
    engine.docker_with(&["build", "-"], &format!("FROM {IMAGE}\nRUN true\n")).ok();
    goes_away(&engine, "build", || {
        let mut stream = engine.send_bytes("POST", "/build?nocache=1", "Content-Type: application/x-tar\r\n", &context);
        let mut said = String::new();
        let mut buffer = [0; 1024];
        while !said.contains("here\\n") {
            let count = stream.read(&mut buffer).unwrap();
            assert_ne!(count, 0, "{said}");
            said += &String::from_utf8_lossy(&buffer[..count]);
        }
        stream
    });
    assert_eq!(engine.ok(&["ps", "-aq"]), "");
    // A context that stops coming.
    let headers = "Content-Type: application/x-tar\r\nContent-Length: 99999\r\n";
    goes_away(&engine, "context", || engine.send_with("POST", "/build", headers, "x"));
    // A registry that takes the request and says nothing.
    let script = "import socket\nserver = socket.create_server(('127.0.0.1', 5999))\nprint('ready', flush=True)\nheld = []\nwhile True:\n  held.append(server.accept())\n  print('taken', flush=True)";
    let mut silent = engine.in_network(&["/usr/bin/python3", "-c", script]).stdout(Stdio::piped()).spawn().unwrap();
    let told = RefCell::new(silent.stdout.take().unwrap());
    await_bytes(&mut *told.borrow_mut());
    goes_away(&engine, "pull", || {
        let stream = engine.send("POST", "/images/create?fromImage=127.0.0.1:5999/x&tag=1", "");
        await_bytes(&mut *told.borrow_mut());
        stream
    });
    silent.kill().unwrap();
    silent.wait().unwrap();
}
