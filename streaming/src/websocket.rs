//! WebSockets whose messages begin with the number of a channel (k8s.io/apimachinery remotecommand constants).

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
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

use crate::command::{Ends, Outcome, Size};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// Of v5: the second byte names a channel that the client closes.
const CLOSE: u8 = 255;
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

/// A message on a channel.
pub fn message(channel: u8, data: &[u8]) -> Message {
    let mut bytes = BytesMut::with_capacity(1 + data.len());
    bytes.extend_from_slice(&[channel]);
    bytes.extend_from_slice(data);
    Message::Binary(bytes.freeze())
}

/// The channel and the content of a message; none for one that carries nothing.
pub fn content(message: Message) -> Option<(u8, Bytes)> {
    let mut bytes = match message {
        Message::Binary(bytes) => bytes,
        // Some clients send text that is meant as bytes.
        Message::Text(text) => Bytes::copy_from_slice(text.as_bytes()),
        _ => return None,
    };
    let channel = bytes.first().copied()?;
    bytes.advance(1);
    Some((channel, bytes))
}

/// Serves a command until it has ended and its output is sent, or until the client is gone.
pub async fn command<S>(
    mut socket: WebSocketStream<S>,
    closes: bool,
    mut ends: Ends,
    run: impl Future<Output = Outcome>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // A first empty message tells the client that the streams are there.
    if socket.send(message(STDOUT, &[])).await.is_err() {
        return;
    }
    tokio::pin!(run);
    let (mut outcome, mut waiting) = (None, None::<Bytes>);
    let (mut stdout, mut stderr) = (true, true);
    while outcome.is_none() || stdout || stderr {
        let sent = tokio::select! {
            ended = &mut run, if outcome.is_none() => {
                outcome = Some(ended);
                Ok(())
            }
            data = ends.stdout.recv(), if stdout => forward(&mut socket, STDOUT, data, &mut stdout).await,
            data = ends.stderr.recv(), if stderr => forward(&mut socket, STDERR, data, &mut stderr).await,
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
                    receive(received, closes, &mut ends, &mut waiting);
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
    if let Some(outcome) = outcome {
        // A client that is gone does not want to know.
        let _ = socket.send(message(ERROR, &outcome.status())).await;
    }
    close(&mut socket).await;
}

/// Says that all is well: clients take a close without a code for a failure.
pub async fn close<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut WebSocketStream<S>) {
    let frame = CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() };
    // A client that is gone does not want to know.
    let _ = socket.close(Some(frame)).await;
}

async fn room(stdin: Option<mpsc::Sender<Bytes>>) -> Option<mpsc::OwnedPermit<Bytes>> {
    stdin?.reserve_owned().await.ok()
}

async fn forward<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut WebSocketStream<S>,
    channel: u8,
    data: Option<Bytes>,
    open: &mut bool,
) -> Result<(), tungstenite::Error> {
    match data {
        Some(data) => socket.send(message(channel, &data)).await,
        None => {
            *open = false;
            Ok(())
        }
    }
}

fn receive(received: Message, closes: bool, ends: &mut Ends, waiting: &mut Option<Bytes>) {
    match content(received) {
        Some((STDIN, data)) if !data.is_empty() && ends.stdin.is_some() => *waiting = Some(data),
        Some((RESIZE, data)) => {
            if let Ok(size) = serde_json::from_slice::<Size>(&data) {
                // Only the last size counts; one that finds no room is followed by others.
                let _ = ends.resize.try_send(size);
            }
        }
        Some((CLOSE, data)) if closes && data.first() == Some(&STDIN) => ends.stdin = None,
        _ => {}
    }
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
