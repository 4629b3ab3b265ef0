//! Other clients than the CLI, and other ways to the daemon than its socket.

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    process::{Command, Stdio},
};

use coracle_tests::run;

use crate::engine::{Engine, IMAGE};

#[test]
fn docker_py_does_what_people_write_with_it() {
    let engine = Engine::start();
    let script = format!(
        r#"
import docker, io, tarfile
client = docker.from_env()
assert client.ping()
assert client.containers.run("{IMAGE}", "echo hello", remove=True) == b"hello\n"
box = client.containers.run("{IMAGE}", "sh -c 'echo started; sleep 1000'", detach=True, name="box", labels={{"a": "b"}})
assert client.containers.list(filters={{"label": "a=b"}})[0].id == box.id
code, output = box.exec_run(["sh", "-c", "echo out; echo err >&2; exit 3"], demux=True)
assert (code, output) == (3, (b"out\n", b"err\n")), (code, output)
stats = box.stats(stream=False)
assert stats["memory_stats"]["usage"] > 0 and stats["networks"]["eth0"], stats
archive = io.BytesIO()
with tarfile.open(fileobj=archive, mode="w") as tar:
    info = tarfile.TarInfo("sent")
    info.size = 4
    tar.addfile(info, io.BytesIO(b"text"))
assert box.put_archive("/tmp", archive.getvalue())
chunks, stat = box.get_archive("/tmp/sent")
with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
    assert tar.extractfile("sent").read() == b"text" and stat["name"] == "sent"
network = client.networks.create("own")
network.connect(box, aliases=["alias"])
network.reload()
assert [other.id for other in network.containers] == [box.id]
network.disconnect(box)
network.remove()
client.volumes.create("data").remove()
assert box.logs() == b"started\n"
box.stop(timeout=0)
assert box.wait()["StatusCode"] == 137
try:
    client.containers.get("nobody")
except docker.errors.NotFound as error:
    assert "No such container: nobody" in str(error)
box.remove()
assert not client.containers.list(all=True)
print("done")
"#
    );
    let mut python = engine.client("/usr/bin/python3");
    assert_eq!(run(python.args(["-c", &script]), "").ok(), "done\n");
}

fn openssl(dir: &Path, arguments: &[&str]) {
    run(Command::new("openssl").current_dir(dir).args(arguments), "").ok();
}

/// A certificate and its key, `NAME.pem` and `NAME.key`, signed by `authority`.
fn certificate(dir: &Path, name: &str, authority: &str, extensions: &str) {
    let (key, request, cert) = (format!("{name}.key"), format!("{name}.csr"), format!("{name}.pem"));
    fs::write(dir.join("extensions"), extensions).unwrap();
    let subject = format!("/CN={name}");
    openssl(dir, &["req", "-newkey", "rsa:2048", "-nodes", "-keyout", &key, "-out", &request, "-subj", &subject]);
    let (ca, ca_key) = (format!("{authority}.pem"), format!("{authority}.key"));
    let sign = ["x509", "-req", "-in", &request, "-CA", &ca, "-CAkey", &ca_key, "-CAcreateserial", "-out", &cert];
    openssl(dir, &[&sign[..], &["-days", "2", "-extfile", "extensions"]].concat());
}

#[test]
fn tcp_opens_to_clients_with_certificates_only() {
    let dir = tempfile::tempdir().unwrap();
    for authority in ["ca", "stranger"] {
        let (key, cert, subject) = (format!("{authority}.key"), format!("{authority}.pem"), format!("/CN={authority}"));
        let make = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", &key, "-out", &cert, "-days", "2"];
        openssl(dir.path(), &[&make[..], &["-subj", &subject]].concat());
    }
    certificate(dir.path(), "server", "ca", "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth\n");
    certificate(dir.path(), "client", "ca", "extendedKeyUsage=clientAuth\n");
    certificate(dir.path(), "intruder", "stranger", "extendedKeyUsage=clientAuth\n");
    let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    let (ca, cert, key) = (path("ca.pem"), path("server.pem"), path("server.key"));
    let options = ["-H", "tcp://127.0.0.1:2376", "--tlscacert", &ca, "--tlscert", &cert, "--tlskey", &key];
    let engine = Engine::start_with(&options);
    let ask = |name: &str, arguments: &[&str]| {
        let (cert, key) = (path(&format!("{name}.pem")), path(&format!("{name}.key")));
        let tls = ["docker", "-H", "tcp://127.0.0.1:2376", "--tlsverify", "--tlscacert", &ca, "--tlscert", &cert];
        engine.on_host(&[&tls[..], &["--tlskey", &key], arguments].concat())
    };
    assert_eq!(ask("client", &["run", "--rm", IMAGE, "echo", "hello"]).ok(), "hello\n");
    assert!(!ask("intruder", &["ps"]).status.success());
    let bare = engine.on_host(&["docker", "-H", "tcp://127.0.0.1:2376", "ps"]);
    assert!(!bare.status.success());

    // A client that is there is asked whether it is: timer 2 of proc_net_tcp (kernel, `net/ipv4/tcp_ipv4.c`), within 15
    // seconds of 100 ticks.
    let (cert, key) = (path("client.pem"), path("client.key"));
    let tls = ["docker", "-H", "tcp://127.0.0.1:2376", "--tlsverify", "--tlscacert", &ca, "--tlscert", &cert];
    let mut listener = engine.in_network(&[&tls[..], &["--tlskey", &key, "events"]].concat());
    let mut listener = listener.stdout(Stdio::null()).spawn().unwrap();
    let asked_in = || {
        let connections = fs::read_to_string(format!("/proc/{}/net/tcp", engine.daemon())).unwrap();
        let connections = connections.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        // Local address 127.0.0.1:2376, state ESTABLISHED.
        let ours = connections.filter(|words| words[1].ends_with(":0948") && words[3] == "01");
        let timers: Vec<_> = ours
            .filter_map(|words| words[5].split_once(':').map(|(kind, ticks)| (kind.to_owned(), ticks.to_owned())))
            .collect();
        timers.iter().find(|(kind, _)| kind == "02").and_then(|(_, ticks)| u64::from_str_radix(ticks, 16).ok())
    };
    // Each look is a process's file: a million take longer than any client to connect.
    let ticks = (0..1_000_000).find_map(|_| asked_in()).expect("the client is never asked");
    assert!(ticks <= 1500, "asked in {ticks} ticks");
    listener.kill().unwrap();
    listener.wait().unwrap();
}

#[test]
fn a_websocket_carries_a_containers_streams() {
    let engine = Engine::start();
    engine.ok(&["run", "-di", "--name", "echo", IMAGE, "cat"]);
    let mut socket = UnixStream::connect(engine.socket()).unwrap();
    let path = "/v1.41/containers/echo/attach/ws?stream=1&stdin=1&stdout=1&stderr=1";
    write!(
        socket,
        "GET {path} HTTP/1.1\r\nHost: docker\r\nOrigin: http://docker\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    assert!(head.starts_with("http/1.1 101"), "{head}");
    // The key and its answer are the example of RFC 6455, 1.3.
    assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
    // A text message, masked with zeros.
    socket.write_all(&[0x81, 0x80 | 6, 0, 0, 0, 0]).unwrap();
    socket.write_all(b"hello\n").unwrap();
    let mut said = Vec::new();
    while said != b"hello\n" {
        let mut frame = [0; 2];
        socket.read_exact(&mut frame).unwrap();
        let mut data = vec![0; usize::from(frame[1])];
        socket.read_exact(&mut data).unwrap();
        said.extend_from_slice(&data);
    }
    // The client's end leaves the container running.
    drop(socket);
    assert_eq!(engine.ok(&["inspect", "-f", "{{.State.Running}}", "echo"]), "true");
    let refused = {
        let mut command = engine.client("curl");
        command.args(["-s", "--unix-socket", engine.socket(), &format!("http://docker{path}")]);
        run(&mut command, "").ok()
    };
    assert!(refused.contains("not a WebSocket handshake") || engine.is_peer(), "{refused}");
}
