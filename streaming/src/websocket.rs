//! WebSockets whose messages begin with the number of a channel (k8s.io/apimachinery remotecommand constants).

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use futures::{Sink, SinkExt, Stream, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::mpsc,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self, Message, Utf8Bytes,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};

use base64::{Engine, prelude::BASE64_STANDARD};

use crate::{
    activity::Activity,
    command::{Ends, Size},
};

const STDIN: u8 = 0;
pub const STDOUT: u8 = 1;
pub const STDERR: u8 = 2;
pub const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// Of v5: the second byte names a channel that the client closes.
const CLOSE: u8 = 255;
/// How long a client may take to close its side.
const LINGER: Duration = Duration::from_secs(5);
/// No message is larger; clients send at most what one read gives them.
const LARGEST: usize = 1 << 20;

/// The server's end of a connection whose handshake is done.
pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(connection: S) -> WebSocketStream<S> {
    let config = WebSocketConfig::default()
        .max_message_size(Some(LARGEST))
        .max_frame_size(Some(LARGEST))
        .write_buffer_size(0)
        .max_write_buffer_size(4 * LARGEST);
    WebSocketStream::from_raw_socket(connection, Role::Server, Some(config)).await
}

/// How channels are told in messages (k8s.io/streaming `httpstream/wsstream/conn.go`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// The channel is the first byte.
    Raw,
    /// The channel is the first character, `0` and on; the rest is in base64. The messages are text.
    Base64,
}

impl Codec {
    /// That of a protocol.
    pub fn of(protocol: &str) -> Self {
        if protocol.ends_with("base64.channel.k8s.io") { Self::Base64 } else { Self::Raw }
    }

    /// A message on a channel.
    pub fn message(self, channel: u8, data: &[u8]) -> Message {
        match self {
            Self::Raw => {
                let mut bytes = BytesMut::with_capacity(1 + data.len());
                bytes.extend_from_slice(&[channel]);
                bytes.extend_from_slice(data);
                Message::Binary(bytes.freeze())
            }
            Self::Base64 => {
                let mut text = String::from(char::from(b'0'.wrapping_add(channel)));
                BASE64_STANDARD.encode_string(data, &mut text);
                Message::Text(text.into())
            }
        }
    }

    /// The channel and the content of a message; none for one that carries nothing, or is no base64.
    pub fn content(self, message: Message) -> Option<(u8, Bytes)> {
        let mut bytes = match message {
            Message::Binary(bytes) => bytes,
            // Some clients send text that is meant as bytes.
            Message::Text(text) => Bytes::copy_from_slice(text.as_bytes()),
            _ => return None,
        };
        let channel = bytes.first().copied()?;
        bytes.advance(1);
        match self {
            Self::Raw => Some((channel, bytes)),
            Self::Base64 => {
                // Go's decoder passes over ends of lines.
                let text: Vec<u8> = bytes.iter().copied().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect();
                Some((channel.wrapping_sub(b'0'), BASE64_STANDARD.decode(text).ok()?.into()))
            }
        }
    }
}

/// A command over a WebSocket.
pub struct Command<'a> {
    pub codec: Codec,
    /// Whether the client can close a channel.
    pub closes: bool,
    /// The channel of a first empty message, which tells the client that the streams are there.
    pub first: u8,
    pub activity: &'a Activity,
}

impl Command<'_> {
    /// Serves it until it has ended and its output is sent, or until the client is gone. `run` gives what is told of the end.
    pub async fn serve<S>(self, mut socket: WebSocketStream<S>, mut ends: Ends, run: impl Future<Output = Vec<u8>>)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        if socket.send(self.codec.message(self.first, &[])).await.is_err() {
            return;
        }
        tokio::pin!(run);
        let (mut told, mut waiting) = (None, None::<Bytes>);
        let (mut stdout, mut stderr) = (true, true);
        while told.is_none() || stdout || stderr {
            let sent = tokio::select! {
                ended = &mut run, if told.is_none() => {
                    told = Some(ended);
                    Ok(())
                }
                data = ends.stdout.recv(), if stdout => self.forward(&mut socket, STDOUT, data, &mut stdout).await,
                data = ends.stderr.recv(), if stderr => self.forward(&mut socket, STDERR, data, &mut stderr).await,
                room = room(ends.stdin.clone()), if waiting.is_some() => {
                    match (room, waiting.take()) {
                        (Some(room), Some(data)) => drop(room.send(data)),
                        // The command does not read any more.
                        _ => ends.stdin = None,
                    }
                    Ok(())
                }
                // Nothing more is read while the command has not taken what came.
                received = socket.next(), if waiting.is_none() => match received {
                    Some(Ok(received)) => {
                        self.receive(received, &mut ends, &mut waiting);
                        Ok(())
                    }
                    Some(Err(error)) => Err(error),
                    None => return,
                },
            };
            if let Err(error) = sent {
                return tracing::debug!(%error, "a client went away");
            }
        }
        if let Some(told) = told.filter(|told| !told.is_empty()) {
            // A client that is gone does not want to know.
            let _ = socket.send(self.codec.message(ERROR, &told)).await;
        }
        close(&mut socket).await;
        // Closed with something unread, the connection would be reset, and the client lose what it has not read.
        let rest = async { while let Some(Ok(_)) = socket.next().await {} };
        let _ = tokio::time::timeout(LINGER, rest).await;
    }

    async fn forward<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        socket: &mut WebSocketStream<S>,
        channel: u8,
        data: Option<Bytes>,
        open: &mut bool,
    ) -> Result<(), tungstenite::Error> {
        match data {
            Some(data) => {
                self.activity.used();
                socket.send(self.codec.message(channel, &data)).await
            }
            None => {
                *open = false;
                Ok(())
            }
        }
    }

    fn receive(&self, received: Message, ends: &mut Ends, waiting: &mut Option<Bytes>) {
        // Pings are no use, as upstream has it: only messages are.
        if received.is_binary() || received.is_text() {
            self.activity.used();
        }
        match self.codec.content(received) {
            Some((STDIN, data)) if !data.is_empty() && ends.stdin.is_some() => *waiting = Some(data),
            Some((RESIZE, data)) => {
                if let Ok(size) = serde_json::from_slice::<Size>(&data) {
                    // Only the last size counts; one that finds no room is followed by others.
                    let _ = ends.resize.try_send(size);
                }
            }
            Some((CLOSE, data)) if self.closes && data.first() == Some(&STDIN) => ends.stdin = None,
            _ => {}
        }
    }
}

async fn room(stdin: Option<mpsc::Sender<Bytes>>) -> Option<mpsc::OwnedPermit<Bytes>> {
    stdin?.reserve_owned().await.ok()
}

/// Says that all is well: clients take a close without a code for a failure.
pub async fn close<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut WebSocketStream<S>) {
    let frame = CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() };
    // A client that is gone does not want to know.
    let _ = socket.close(Some(frame)).await;
}

/// Binary messages as one stream of bytes: SPDY in a WebSocket (KEP-4006).
pub struct Tunnel<S> {
    socket: WebSocketStream<S>,
    rest: Bytes,
}

impl<S> Tunnel<S> {
    pub fn new(socket: WebSocketStream<S>) -> Self {
        Self { socket, rest: Bytes::new() }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Tunnel<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(Pin::new(&mut self.socket).poll_next(context)) {
                Some(Ok(Message::Binary(data))) => self.rest = data,
                Some(Ok(Message::Close(_))) | None => return Poll::Ready(Ok(())),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
            }
        }
        let length = self.rest.len().min(buffer.remaining());
        buffer.put_slice(&self.rest.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Tunnel<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.socket).poll_ready(context)).map_err(io::Error::other)?;
        let data = &data[..data.len().min(LARGEST)];
        let sent = Pin::new(&mut self.socket).start_send(Message::Binary(Bytes::copy_from_slice(data)));
        Poll::Ready(sent.map(|()| data.len()).map_err(io::Error::other))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context).map_err(io::Error::other)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_close(context).map_err(io::Error::other)
    }
}
