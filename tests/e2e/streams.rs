//! exec, attach, port-forward and cp, by the unmodified kubectl, over WebSocket and over SPDY.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
};

use coracle_tests::{Lab, Output, run};

use crate::images::busybox_archive;

/// kubectl speaks WebSocket, or with this off SPDY.
const FRAMINGS: [&str; 2] = ["true", "false"];

fn kubectl(lab: &Lab, websockets: &str, arguments: &[&str], input: &str) -> Output {
    run(lab.kubectl_command().env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websockets).args(arguments), input)
}

#[test]
fn commands_run_in_containers_with_their_streams_and_exit_codes() {
    let lab = Lab::up("inside", 1);
    lab.lite("run web --image=coracle/hello:v1").ok();
    lab.lite("wait --for=condition=Ready pod/web --timeout=30s").ok();
    // More than any buffer on the way holds.
    let long: String = (0..200_000).map(|number| format!("{number}\n")).collect();
    for websockets in FRAMINGS {
        let exec = |arguments: &[&str], input: &str| {
            kubectl(&lab, websockets, &[&["exec", "-i", "web", "--", "/hello"], arguments].concat(), input)
        };
        assert_eq!(exec(&["print", "from", "inside"], "").ok(), "from inside\n");
        let failed = exec(&["exit", "7"], "");
        assert_eq!(failed.status.code(), Some(7), "{}", failed.stderr);
        assert_eq!(failed.stderr, "command terminated with exit code 7\n");
        // The end of the input is heard, and every byte comes back.
        assert!(exec(&["cat", "/proc/self/fd/0"], &long).ok() == long, "input and output differ");
        let missing = kubectl(&lab, websockets, &["exec", "web", "--", "/nowhere"], "").fails();
        assert!(missing.contains("no such file or directory"), "{missing}");
        let container = kubectl(&lab, websockets, &["exec", "web", "-c", "other", "--", "/hello"], "").fails();
        assert_eq!(container, "Error from server (BadRequest): container other is not valid for pod web\n");
    }
    assert!(lab.lite_with("exec -i web -- /hello cat /proc/self/fd/0", &long).ok() == long, "input and output differ");
    let failed = lab.lite("exec web -- /hello exit 7");
    assert_eq!((failed.status.code(), failed.stderr.as_str()), (Some(7), "command terminated with exit code 7\n"));
    let missing = lab.lite("exec web -- /nowhere").fails();
    assert!(missing.contains("no such file or directory"), "{missing}");
    // kubectl makes the pod, attaches to it, and passes the input on; what it prints is the pod's.
    let attached = "run once --rm -i --quiet --image=coracle/hello:v1 --restart=Never -- cat /proc/self/fd/0";
    let attached = kubectl(&lab, "true", &attached.split(' ').collect::<Vec<_>>(), "to the container\n");
    assert_eq!(attached.ok(), "to the container\n");
    let attached = "run twice --rm -i --quiet --image=coracle/hello:v1 --restart=Never -- cat /proc/self/fd/0";
    assert_eq!(lab.lite_with(attached, "to the container\n").ok(), "to the container\n");
    assert!(lab.lite("get pod twice").fails().contains("NotFound"));
}

#[test]
fn a_terminal_is_one_and_files_are_copied() {
    let lab = Lab::up("tty", 1);
    let archive = lab.home().join("busybox.tar");
    fs::write(&archive, busybox_archive()).unwrap();
    lab.lab(&["load", archive.to_str().unwrap()]).ok();
    lab.lite("run box --image=busybox:test --command -- /bin/busybox sleep 1000").ok();
    lab.lite("wait --for=condition=Ready pod/box --timeout=30s").ok();
    lab.kubectl("exec box -- /bin/busybox --install -s /bin").ok();

    // script(1) gives kubectl a terminal; the command in the container has one, too, of the same size.
    let line = "stty rows 40 cols 100; kubectl exec -it box -- /bin/busybox sh -c 'tty; stty size'";
    let mut script = lab.kubectl_command_named("script");
    let said = run(script.args(["-qec", line, "/dev/null"]), "").ok();
    assert!(said.contains("/dev/pts/0") && said.contains("40 100"), "{said:?}");

    let source = lab.home().join("letter");
    fs::write(&source, "to the pod and back\n".repeat(10_000)).unwrap();
    let (there, back) = ("box:/tmp-letter", lab.home().join("back"));
    run(lab.kubectl_command().args(["cp", source.to_str().unwrap(), there]), "").ok();
    run(lab.kubectl_command().args(["cp", there, back.to_str().unwrap()]), "").ok();
    assert!(fs::read(&source).unwrap() == fs::read(&back).unwrap(), "the file changed on its way");
    fs::remove_file(&back).unwrap();
    lab.lite(&format!("cp {} box:/two", source.display())).ok();
    lab.lite(&format!("cp box:/two {}", back.display())).ok();
    assert!(fs::read(&source).unwrap() == fs::read(&back).unwrap(), "the file changed on its way");
    for file in [archive, source, back] {
        fs::remove_file(file).unwrap();
    }
}

/// A running `port-forward`, ended with this.
struct Forward {
    process: Child,
    port: u16,
}

impl Forward {
    fn start(mut command: Command) -> Self {
        command.args(["port-forward", "pod/web", ":8080", ":81"]);
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        // Forwarding from 127.0.0.1:34567 -> 8080
        let first = lines.next().expect("a line").unwrap();
        let port = first.split(['>', ':', ' ']).filter_map(|word| word.parse().ok()).next();
        std::thread::spawn(move || lines.for_each(drop));
        Self { process, port: port.unwrap_or_else(|| panic!("{first}")) }
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

#[test]
fn ports_of_a_pod_are_reached_through_the_api() {
    let lab = Lab::up("ports", 2);
    lab.lite("run web --image=coracle/hello:v1").ok();
    lab.lite("wait --for=condition=Ready pod/web --timeout=30s").ok();
    let with = |websockets: &str| {
        let mut command = lab.kubectl_command();
        command.env("KUBECTL_PORT_FORWARD_WEBSOCKETS", websockets);
        command
    };
    for command in FRAMINGS.map(with).into_iter().chain([lab.command("kubectl-lite")]) {
        let forward = Forward::start(command);
        let connections: Vec<_> = (0..3)
            .map(|_| {
                let mut connection = TcpStream::connect(("127.0.0.1", forward.port)).unwrap();
                connection.write_all(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n").unwrap();
                connection
            })
            .collect();
        for mut connection in connections {
            let mut answer = String::new();
            connection.read_to_string(&mut answer).unwrap();
            assert!(answer.contains("pod web"), "{answer:?}");
        }
    }
}
