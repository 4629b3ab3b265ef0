//! Commands, attachments and forwarded ports by the URLs that CRI gives, over WebSockets.

use k8s_cri::v1;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::Code;

use crate::{
    cri::assert_nothing_left,
    harness::{Clients, Node, sandbox, script},
    isolation::isolated,
};

/// A client's WebSocket (RFC 6455).
struct Socket(TcpStream);

impl Socket {
    /// Opens a URL, or says how the server refuses.
    async fn open(url: &str, protocol: &str) -> Result<Socket, String> {
        let (address, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!(
            "GET /{path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: {protocol}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        if head.starts_with("HTTP/1.1 101") { Ok(Socket(stream)) } else { Err(head.lines().next().unwrap().to_owned()) }
    }

    async fn send(&mut self, channel: u8, data: &[u8]) {
        assert!(data.len() < 125);
        let mut frame = vec![0x82, 0x80 | (data.len() as u8 + 1), 0, 0, 0, 0, channel];
        frame.extend_from_slice(data);
        self.0.write_all(&frame).await.unwrap();
    }

    /// The next piece that is not empty, and its channel; none at the end.
    async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            let kind = self.0.read_u8().await.ok()? & 0xf;
            let length = match self.0.read_u8().await.ok()? {
                126 => u64::from(self.0.read_u16().await.ok()?),
                127 => self.0.read_u64().await.ok()?,
                length => u64::from(length),
            };
            let mut data = vec![0; length as usize];
            self.0.read_exact(&mut data).await.ok()?;
            match kind {
                8 => return None,
                1 | 2 if data.len() > 1 => return Some((data[0], data.split_off(1))),
                _ => {}
            }
        }
    }

    /// All that comes until the end, by channel.
    async fn all(&mut self) -> [String; 5] {
        let mut out: [Vec<u8>; 5] = Default::default();
        while let Some((channel, data)) = self.next().await {
            out[usize::from(channel)].extend(data);
        }
        out.map(|data| String::from_utf8_lossy(&data).into_owned())
    }
}

fn exec(id: &str, command: &[&str], tty: bool) -> v1::ExecRequest {
    let cmd = command.iter().map(|word| (*word).to_owned()).collect();
    v1::ExecRequest { container_id: id.into(), cmd, tty, stdin: true, stdout: true, stderr: !tty }
}

async fn open(cri: &mut Clients, request: v1::ExecRequest) -> Socket {
    let url = cri.runtime.exec(request).await.unwrap().into_inner().url;
    Socket::open(&url, "v5.channel.k8s.io").await.unwrap()
}

const CLOSE: u8 = 255;
const SIZE: u8 = 4;

#[test]
fn commands_end_with_their_code_and_urls_are_good_once() {
    const TEST: &str = "streams::commands_end_with_their_code_and_urls_are_good_once";
    isolated(TEST, || async {
        // Where the streams are served.
        coracle_launcher::sys::raise_loopback().unwrap();
        let node = Node::new(TEST);
        node.install_network();
        let running = node.start().await;
        let mut cri = running.clients.clone();
        let pod = cri.run_sandbox(sandbox(&node, "web")).await;
        let id = cri.run(&pod, script("main", "sleep 1000")).await;
        let request = exec(&id, &["/bin/sh", "-c", "cat; echo err >&2; exit 7"], false);
        let url = cri.runtime.exec(request).await.unwrap().into_inner().url;
        let mut socket = Socket::open(&url, "v5.channel.k8s.io").await.unwrap();
        socket.send(0, b"hello\n").await;
        // The end of the input is not the end of the command.
        socket.send(CLOSE, &[0]).await;
        let [_, stdout, stderr, status, _] = socket.all().await;
        assert_eq!((stdout.as_str(), stderr.as_str()), ("hello\n", "err\n"));
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        assert_eq!(status["reason"], "NonZeroExitCode");
        assert_eq!(status["details"]["causes"][0]["message"], "7");
        let refused = Socket::open(&url, "v5.channel.k8s.io").await.err().unwrap();
        assert!(refused.starts_with("HTTP/1.1 404"), "{refused}");

        let mut socket = open(&mut cri, exec(&id, &["/bin/sh", "-c", "stty size; read x; stty size"], true)).await;
        socket.send(SIZE, br#"{"Width":101,"Height":33}"#).await;
        let mut first = Vec::new();
        while !first.ends_with(b"\n") {
            first.extend(socket.next().await.unwrap().1);
        }
        assert_eq!(String::from_utf8_lossy(&first), "33 101\r\n");
        socket.send(SIZE, br#"{"Width":77,"Height":22}"#).await;
        socket.send(0, b"x\n").await;
        let [_, stdout, ..] = socket.all().await;
        assert!(stdout.ends_with("22 77\r\n"), "{stdout:?}");

        let nothing = open(&mut cri, exec(&id, &["/nothing"], false)).await.all().await;
        let status: serde_json::Value = serde_json::from_str(&nothing[3]).unwrap();
        let message = status["message"].as_str().unwrap();
        let begin = "Internal error occurred: error executing command in container: failed to exec in container: failed to start exec";
        assert!(message.starts_with(begin) && message.contains("/nothing"), "{message}");
        let empty = open(&mut cri, exec(&id, &[], false)).await.all().await;
        assert!(empty[3].contains("InternalError"), "{}", empty[3]);

        let error = cri.runtime.exec(exec("", &["/bin/true"], false)).await.unwrap_err();
        assert_eq!(error.code(), Code::NotFound, "{error}");
        let ended = cri.run(&pod, script("ended", "exit 0")).await;
        cri.wait(&ended).await;
        let error = cri.runtime.exec(exec(&ended, &["/bin/true"], false)).await.unwrap_err();
        assert_eq!(error.message(), "container is in CONTAINER_EXITED state");
        cri.remove_sandbox(&pod).await;
        running.stop().await;
        assert_nothing_left(&node);
    });
}

#[test]
fn ports_of_pods_are_forwarded_and_closed_ones_told() {
    const TEST: &str = "streams::ports_of_pods_are_forwarded_and_closed_ones_told";
    isolated(TEST, || async {
        // Where the streams are served.
        coracle_launcher::sys::raise_loopback().unwrap();
        let node = Node::new(TEST);
        node.install_network();
        let running = node.start().await;
        let mut cri = running.clients.clone();
        let pod = cri.run_sandbox(sandbox(&node, "web")).await;
        let id = cri.run(&pod, script("main", "busybox nc -l -p 8080 -e /bin/echo hello; sleep 1000")).await;
        let listens = ["/bin/sh", "-c", "while ! cat /proc/net/tcp* | busybox grep -q :1F90; do sleep 0.05; done"];
        assert_eq!(cri.exec(&id, &listens).await.exit_code, 0);
        let request = v1::PortForwardRequest { pod_sandbox_id: pod.clone(), port: vec![8080, 81] };
        let url = cri.runtime.port_forward(request).await.unwrap().into_inner().url;
        let [open, _, _, refused, _] = Socket::open(&url, "v4.channel.k8s.io").await.unwrap().all().await;
        // Each channel begins with its port's number.
        assert!(open.ends_with("\u{1f}hello\n"), "{open:?}");
        let words = format!(
            "error forwarding port 81 to pod {pod}, uid : failed to connect to localhost:81 inside namespace {pod:?}, IPv4: "
        );
        assert!(refused[2..].starts_with(&words) && refused.contains(" IPv6 "), "{refused}");
        cri.remove_sandbox(&pod).await;
        running.stop().await;
        assert_nothing_left(&node);
    });
}
