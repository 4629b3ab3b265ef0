//! A command in a container, or one that is attached to: its streams and its end (k8s.io/apimachinery remotecommand).

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
};

use crate::{
    spdy::{self, Session},
    upgrade::{Agreed, Framing},
    websocket,
};

/// Protocols in which the command's end is told as a Status.
pub const PROTOCOLS: &[&str] = &["v5.channel.k8s.io", "v4.channel.k8s.io"];
/// Pieces that wait between the connection and the container.
pub(crate) const WAITING: usize = 16;
/// How long a client may take to open the streams that it asked for.
const OPEN_WITHIN: std::time::Duration = std::time::Duration::from_secs(30);

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
    /// The metav1.Status that clients read the end from.
    pub fn status(&self) -> Vec<u8> {
        let status = match self {
            Self::Exited(0) => json!({"metadata": {}, "status": "Success"}),
            Self::Exited(code) => json!({
                "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
                "message": format!("command terminated with non-zero exit code: exit status {code}"),
                "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
            }),
            Self::Failed(message) => json!({
                "metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
                "message": format!("Internal error occurred: {message}"),
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
pub(crate) async fn serve<S, R>(agreed: Agreed, connection: S, wanted: Wanted, run: impl FnOnce(Streams) -> R)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    R: Future<Output = Outcome>,
{
    let (streams, ends) = wanted.streams();
    let run = run(streams);
    match agreed.framing {
        Framing::WebSocket => {
            websocket::command(websocket::accept(connection).await, agreed.protocol == PROTOCOLS[0], ends, run).await;
        }
        Framing::Spdy => over_spdy(Session::serve(connection), wanted, ends, run).await,
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
    /// Waits for all that were asked for; the error stream always is.
    async fn all(session: &mut Session, wanted: Wanted) -> Option<Self> {
        let mut opened = Self::default();
        while !opened.complete(wanted) {
            let stream = session.next().await?;
            let place = match stream.header("streamtype")? {
                "error" => &mut opened.error,
                "stdin" => &mut opened.stdin,
                "stdout" => &mut opened.stdout,
                "stderr" => &mut opened.stderr,
                "resize" => &mut opened.resize,
                other => {
                    tracing::debug!(other, "a stream of another type");
                    return None;
                }
            };
            *place = Some(stream);
        }
        Some(opened)
    }

    fn complete(&self, wanted: Wanted) -> bool {
        self.error.is_some()
            && self.stdin.is_some() >= wanted.stdin
            && self.stdout.is_some() >= wanted.stdout
            && self.stderr.is_some() >= (wanted.stderr && !wanted.tty)
            && self.resize.is_some() >= wanted.tty
    }
}

async fn over_spdy(mut session: Session, wanted: Wanted, ends: Ends, run: impl Future<Output = Outcome>) {
    let Ok(Some(opened)) = tokio::time::timeout(OPEN_WITHIN, Opened::all(&mut session, wanted)).await else { return };
    let Some(error) = opened.error else { return };
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
        // A client that is gone does not want to know.
        let _ = error.output.write(outcome.status().into()).await;
        let _ = error.output.finish().await;
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
