//! A command in a container, or one that is attached to: its streams and its end (k8s.io/apimachinery remotecommand).

use bytes::Bytes;
use futures::FutureExt;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
};

use crate::{
    activity::{Activity, Watched},
    spdy::{self, Session},
    upgrade::{Agreed, Framing},
    websocket::{self, Codec},
};

/// What is spoken over SPDY (apimachinery `util/remotecommand/constants.go`).
pub const SPDY: &[&str] = &[V5, V4, V3, V2, V1];
/// Channels in messages; who names no protocol means the oldest (kubelet `pkg/cri/streaming/remotecommand/websocket.go`).
pub const WEBSOCKET: &[&str] = &[V5, V4, "v4.base64.channel.k8s.io", V1, "base64.channel.k8s.io", ""];
const V5: &str = "v5.channel.k8s.io";
const V4: &str = "v4.channel.k8s.io";
const V3: &str = "v3.channel.k8s.io";
const V2: &str = "v2.channel.k8s.io";
const V1: &str = "channel.k8s.io";
/// Pieces that wait between the connection and the container.
pub(crate) const WAITING: usize = 16;
/// How long a client may take to open the streams that it asked for.
pub(crate) const OPEN_WITHIN: std::time::Duration = std::time::Duration::from_secs(30);

/// The streams that a client asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub stdin: bool,
    pub stdout: bool,
    /// Never with a terminal, which has one output.
    pub stderr: bool,
    pub tty: bool,
}

/// The size of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    #[serde(rename = "Width")]
    pub columns: u16,
    #[serde(rename = "Height")]
    pub rows: u16,
}

/// The streams, as the container's side sees them.
#[derive(Debug)]
pub struct Streams {
    /// Input; ends when the client closes its half.
    pub stdin: Option<mpsc::Receiver<Bytes>>,
    pub stdout: Option<mpsc::Sender<Bytes>>,
    pub stderr: Option<mpsc::Sender<Bytes>>,
    /// Sizes of the client's terminal, as it changes them.
    pub resize: mpsc::Receiver<Size>,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The command's exit code; an attached client that goes in order has 0.
    Exited(i32),
    /// It did not run, or what became of it is not known.
    Failed(String),
}

impl Outcome {
    /// What the protocol says at the end: a Status since its fourth version, and before that words of what failed.
    fn told(&self, protocol: &str) -> Vec<u8> {
        match self {
            _ if protocol.starts_with("v5.") || protocol.starts_with("v4.") => self.status(),
            Self::Exited(0) => Vec::new(),
            Self::Exited(_) | Self::Failed(_) => self.message().into_bytes(),
        }
    }

    fn message(&self) -> String {
        match self {
            Self::Exited(code) => format!("command terminated with non-zero exit code: exit status {code}"),
            Self::Failed(message) => format!("Internal error occurred: {message}"),
        }
    }

    /// The metav1.Status that clients read the end from.
    pub fn status(&self) -> Vec<u8> {
        let status = match self {
            Self::Exited(0) => json!({"metadata": {}, "status": "Success"}),
            Self::Exited(code) => json!({
                "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
                "message": self.message(),
                "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
            }),
            Self::Failed(message) => json!({
                "metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
                "message": self.message(),
                "details": {"causes": [{"message": message}]},
            }),
        };
        status.to_string().into_bytes()
    }
}

/// The connection's end of [`Streams`].
pub(crate) struct Ends {
    pub stdin: Option<mpsc::Sender<Bytes>>,
    pub stdout: mpsc::Receiver<Bytes>,
    pub stderr: mpsc::Receiver<Bytes>,
    pub resize: mpsc::Sender<Size>,
}

impl Wanted {
    /// The lowest channel on which this side writes.
    fn first(self) -> u8 {
        match self {
            Self { stdout: true, .. } => websocket::STDOUT,
            Self { stderr: true, .. } => websocket::STDERR,
            _ => websocket::ERROR,
        }
    }

    pub(crate) fn streams(self) -> (Streams, Ends) {
        let (stdin_in, stdin_out) = mpsc::channel(WAITING);
        let (stdout_in, stdout) = mpsc::channel(WAITING);
        let (stderr_in, stderr) = mpsc::channel(WAITING);
        let (resize, sizes) = mpsc::channel(WAITING);
        let streams = Streams {
            stdin: self.stdin.then_some(stdin_out),
            stdout: self.stdout.then_some(stdout_in),
            stderr: (self.stderr && !self.tty).then_some(stderr_in),
            resize: sizes,
        };
        (streams, Ends { stdin: self.stdin.then_some(stdin_in), stdout, stderr, resize })
    }
}

/// Serves a command over an upgraded connection. When the client goes, `run` is dropped.
pub(crate) async fn serve<S, R>(
    agreed: Agreed,
    connection: S,
    activity: &Activity,
    wanted: Wanted,
    run: impl FnOnce(Streams) -> R,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    R: Future<Output = Outcome>,
{
    let (streams, ends) = wanted.streams();
    let run = run(streams);
    match agreed.framing {
        Framing::WebSocket => {
            let protocol = websocket::Command {
                codec: Codec::of(agreed.protocol),
                closes: agreed.protocol == V5,
                first: wanted.first(),
                activity,
            };
            let told = run.map(|outcome| outcome.told(agreed.protocol));
            protocol.serve(websocket::accept(connection).await, ends, told).await;
        }
        Framing::Spdy => {
            let session = Session::serve(Watched { connection, activity: activity.clone() });
            over_spdy(session, agreed.protocol, wanted, ends, run).await;
        }
    }
}

/// The streams of one command over SPDY, by their type.
#[derive(Default)]
struct Opened {
    error: Option<spdy::Stream>,
    stdin: Option<spdy::Stream>,
    stdout: Option<spdy::Stream>,
    stderr: Option<spdy::Stream>,
    resize: Option<spdy::Stream>,
}

impl Opened {
    /// Waits for all that were asked for; the error stream always is, and sizes since the third version.
    async fn all(session: &mut Session, protocol: &str, wanted: Wanted) -> Option<Self> {
        let resizes = ![V1, V2].contains(&protocol);
        let mut opened = Self::default();
        while !opened.complete(wanted, resizes) {
            let stream = session.next().await?;
            let place = match stream.header("streamtype").unwrap_or_default() {
                "error" => &mut opened.error,
                "stdin" => &mut opened.stdin,
                "stdout" => &mut opened.stdout,
                "stderr" => &mut opened.stderr,
                "resize" if resizes => &mut opened.resize,
                other => {
                    tracing::debug!(other, "a stream of another type");
                    continue;
                }
            };
            *place = Some(stream);
        }
        Some(opened)
    }

    fn complete(&self, wanted: Wanted, resizes: bool) -> bool {
        self.error.is_some()
            && self.stdin.is_some() >= wanted.stdin
            && self.stdout.is_some() >= wanted.stdout
            && self.stderr.is_some() >= (wanted.stderr && !wanted.tty)
            && self.resize.is_some() >= (wanted.tty && resizes)
    }
}

async fn over_spdy(
    mut session: Session,
    protocol: &str,
    wanted: Wanted,
    ends: Ends,
    run: impl Future<Output = Outcome>,
) {
    let opened = tokio::time::timeout(OPEN_WITHIN, Opened::all(&mut session, protocol, wanted)).await;
    let Ok(Some(opened)) = opened else {
        return tracing::debug!("timed out waiting for client to create streams");
    };
    let Some(error) = opened.error else { return };
    if protocol == V1 {
        // What the first kubelets did (k8s.io/kubelet `v1ProtocolHandler`): nothing is told on the error stream.
        error.output.reset().await;
        if let Some(stdin) = &opened.stdin {
            // A client that is gone is seen below.
            let _ = stdin.output.finish().await;
        }
    }
    if let (Some(stdin), Some(stream)) = (ends.stdin, opened.stdin) {
        tokio::spawn(carry(stream.input, stdin));
    }
    if let Some(stream) = opened.resize {
        tokio::spawn(sizes(stream.input, ends.resize));
    }
    let output = async {
        tokio::join!(write(opened.stdout, ends.stdout), write(opened.stderr, ends.stderr));
    };
    let ended = async {
        // The output is done when the command has let go of it.
        let (outcome, ()) = tokio::join!(run, output);
        if protocol != V1 {
            // A client that is gone does not want to know.
            let _ = error.output.write(outcome.told(protocol).into()).await;
            let _ = error.output.finish().await;
        }
    };
    tokio::pin!(ended);
    let mut input = error.input;
    loop {
        tokio::select! {
            () = &mut ended => return,
            // No more streams come when the connection is gone.
            stream = session.next() => match stream {
                Some(stream) => stream.output.reset().await,
                None => return,
            },
            // Clients send nothing here.
            Some(_) = input.recv() => {}
        }
    }
}

async fn carry(mut from: mpsc::Receiver<Bytes>, to: mpsc::Sender<Bytes>) {
    while let Some(data) = from.recv().await {
        if to.send(data).await.is_err() {
            return;
        }
    }
}

async fn write(stream: Option<spdy::Stream>, mut output: mpsc::Receiver<Bytes>) {
    while let Some(data) = output.recv().await {
        if let Some(stream) = &stream
            && stream.output.write(data).await.is_err()
        {
            return;
        }
    }
    if let Some(stream) = stream {
        // A client that is gone needs no end.
        let _ = stream.output.finish().await;
    }
}

/// Sizes come as JSON objects one after the other, cut anywhere.
async fn sizes(mut from: mpsc::Receiver<Bytes>, to: mpsc::Sender<Size>) {
    let mut buffer = Vec::new();
    while let Some(data) = from.recv().await {
        buffer.extend_from_slice(&data);
        let mut objects = serde_json::Deserializer::from_slice(&buffer).into_iter::<Size>();
        let mut read = 0;
        while let Some(Ok(size)) = objects.next() {
            read = objects.byte_offset();
            if to.send(size).await.is_err() {
                return;
            }
        }
        buffer.drain(..read);
        if buffer.len() > 1024 {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::spdy::client::Client;
    use futures::{SinkExt, StreamExt};
    use tokio::io::DuplexStream;
    use tokio_tungstenite::{
        WebSocketStream,
        tungstenite::{Message, protocol::Role},
    };

    /// A command that says what it is told, and ends so.
    async fn echo(streams: Streams, outcome: Outcome) -> Outcome {
        let Streams { stdin, stdout, stderr, .. } = streams;
        if let (Some(mut stdin), Some(out)) = (stdin, stdout.or(stderr)) {
            out.send(stdin.recv().await.unwrap()).await.unwrap();
        }
        outcome
    }

    fn start(framing: Framing, protocol: &'static str, wanted: Wanted, outcome: Outcome) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        tokio::spawn(async move {
            let agreed = Agreed { framing, protocol };
            serve(agreed, theirs, &Activity::new(), wanted, |streams| echo(streams, outcome)).await;
        });
        ours
    }

    const BOTH: Wanted = Wanted { stdin: true, stdout: true, stderr: false, tty: false };
    const WORDS: &str = "command terminated with non-zero exit code: exit status 3";

    async fn over_websocket(protocol: &'static str, wanted: Wanted, say: Message, outcome: Outcome) -> Vec<Message> {
        let connection = start(Framing::WebSocket, protocol, wanted, outcome);
        let mut socket = WebSocketStream::from_raw_socket(connection, Role::Client, None).await;
        socket.send(say).await.unwrap();
        let mut heard = Vec::new();
        while let Some(Ok(message)) = socket.next().await {
            if !message.is_close() {
                heard.push(message);
            }
        }
        heard
    }

    #[tokio::test]
    async fn channels_are_told_in_base64_to_who_asks() {
        for protocol in ["base64.channel.k8s.io", "v4.base64.channel.k8s.io"] {
            let heard = over_websocket(protocol, BOTH, Message::Text("0aG\nk=".into()), Outcome::Exited(3)).await;
            assert_eq!(heard[..2], [Message::Text("1".into()), Message::Text("1aGk=".into())]);
            let Some((3, told)) = Codec::Base64.content(heard[2].clone()) else { panic!("{heard:?}") };
            assert_eq!(told.starts_with(b"{"), protocol.starts_with("v4"), "{told:?}");
        }
    }

    #[tokio::test]
    async fn the_oldest_protocol_has_words_for_what_fails_alone() {
        for protocol in ["", "channel.k8s.io"] {
            let say = Message::Binary(Bytes::from_static(b"\0hi"));
            let heard = over_websocket(protocol, BOTH, say.clone(), Outcome::Exited(3)).await;
            let [(1, empty), (1, hi), (3, told)] =
                &heard.into_iter().filter_map(|message| Codec::Raw.content(message)).collect::<Vec<_>>()[..]
            else {
                panic!()
            };
            assert_eq!((&empty[..], &hi[..], &told[..]), (&b""[..], &b"hi"[..], WORDS.as_bytes()));
            let heard = over_websocket(protocol, BOTH, say.clone(), Outcome::Exited(0)).await;
            assert_eq!(heard.len(), 2, "{heard:?}");
            let wanted = Wanted { stdout: false, stderr: true, ..BOTH };
            let heard = over_websocket(protocol, wanted, say, Outcome::Exited(0)).await;
            assert_eq!(heard[0], Message::Binary(Bytes::from_static(b"\x02")));
        }
    }

    async fn over_spdy(protocol: &'static str, wanted: Wanted, types: &[&str]) -> Vec<(Vec<u8>, usize, usize)> {
        let mut client = Client::new(start(Framing::Spdy, protocol, wanted, Outcome::Exited(3)));
        let ids: Vec<u32> = (0..types.len()).map(|index| 2 * index as u32 + 1).collect();
        for (id, kind) in ids.iter().zip(types) {
            client.open(*id, &[("streamtype", kind)]).await;
        }
        client.write(3, b"hi").await;
        client.all(&ids).await
    }

    #[tokio::test(start_paused = true)]
    async fn versions_differ_in_sizes_and_ends() {
        let terminal = Wanted { tty: true, ..BOTH };
        let without = ["error", "stdin", "stdout"];
        let with = ["error", "stdin", "stdout", "resize"];
        for (protocol, types) in [(V2, &without[..]), (V3, &with), (V4, &with), (V5, &with)] {
            let said = over_spdy(protocol, terminal, types).await;
            assert_eq!(said[2], (b"hi".to_vec(), 1, 0), "{protocol}");
            let (told, 1, 0) = &said[0] else { panic!("{protocol}: {said:?}") };
            match protocol {
                V4 | V5 => assert_eq!(*told, Outcome::Exited(3).status()),
                _ => assert_eq!(*told, WORDS.as_bytes()),
            }
        }
        // The second version knows nothing of sizes: a stream for them stands for nothing that was asked for.
        assert_eq!(over_spdy(V2, terminal, &["error", "resize", "stdin"]).await[0].0, b"");
        let said = over_spdy(V1, BOTH, &without).await;
        assert_eq!(said, [(Vec::new(), 0, 1), (Vec::new(), 1, 0), (b"hi".to_vec(), 1, 0)]);
    }

    #[tokio::test(start_paused = true)]
    async fn streams_that_do_not_come_are_not_waited_for() {
        let begin = tokio::time::Instant::now();
        assert_eq!(over_spdy(V4, BOTH, &["error", "stdin"]).await[0].0, b"");
        assert_eq!(begin.elapsed(), OPEN_WITHIN);
    }

    #[test]
    fn an_exit_code_is_a_cause() {
        let status: serde_json::Value = serde_json::from_slice(&Outcome::Exited(3).status()).unwrap();
        assert_eq!(status["reason"], "NonZeroExitCode");
        assert_eq!(status["details"]["causes"][0], json!({"reason": "ExitCode", "message": "3"}));
        assert_eq!(Outcome::Exited(0).status(), br#"{"metadata":{},"status":"Success"}"#);
    }

    #[tokio::test]
    async fn sizes_are_read_however_they_are_cut() {
        let (send, receive) = mpsc::channel(8);
        let (to, mut sizes_read) = mpsc::channel(8);
        for piece in [&br#"{"Width":80,"#[..], br#""Height":24}{"Width":1"#, br#"00,"Height":40}"#] {
            send.send(Bytes::from_static(piece)).await.unwrap();
        }
        drop(send);
        sizes(receive, to).await;
        assert_eq!(sizes_read.recv().await, Some(Size { columns: 80, rows: 24 }));
        assert_eq!(sizes_read.recv().await, Some(Size { columns: 100, rows: 40 }));
        assert_eq!(sizes_read.recv().await, None);
    }
}
