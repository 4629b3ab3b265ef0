//! Hijacked connections: a client's terminal or pipes on one side, a process's streams on the other.
//!
//! Without a terminal, output is multiplexed: eight bytes before each piece, `[1|2, 0, 0, 0, length]` (Docker Engine API,
//! "Stream format").

use axum::body::Body;
use bytes::Bytes;
use coracle_shim::protocol::{Reply, Request};
use futures::{FutureExt, future::BoxFuture};
use http::{HeaderValue, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{
    http::{Call, Problem},
    server::{Peer, hung_up},
    websocket,
};
use crate::{
    engine::shim::{Session, SessionReader, SessionWriter},
    error::Result,
};

const BUFFER: usize = 32 << 10;
pub const RAW: &str = "application/vnd.docker.raw-stream";
pub const MULTIPLEXED: &str = "application/vnd.docker.multiplexed-stream";

/// How a client's streams are to be treated.
#[derive(Clone, Debug)]
pub struct Options {
    pub tty: bool,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    /// The keys that let go of the process.
    pub detach_keys: Vec<u8>,
    /// The end of the client's input is the end of the process's.
    pub close_stdin: bool,
}

/// Why the streams ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Exited(i32),
    Detached,
    /// The client or the shim is gone.
    Lost,
}

/// A connection that was taken over, or will be when the response is out.
pub enum Hijack {
    Upgrade(hyper::upgrade::OnUpgrade, Option<Peer>),
    WebSocket(hyper::upgrade::OnUpgrade),
    /// The client did not ask for an upgrade: output is the response's body, input there is none.
    Body(tokio::io::DuplexStream, Option<Peer>),
}

/// A taken-over connection.
pub struct Duplex {
    pub read: Box<dyn AsyncRead + Send + Unpin>,
    pub write: Box<dyn AsyncWrite + Send + Unpin>,
    /// Comes when the client is gone, which its halves may not tell.
    pub gone: BoxFuture<'static, ()>,
}

impl Hijack {
    /// The connection, once it is ours.
    pub async fn take(self) -> Result<Duplex> {
        match self {
            Hijack::Upgrade(upgrade, peer) => {
                let upgraded = upgrade
                    .await
                    .map_err(|error| crate::Error::unavailable(format!("the connection was not upgraded: {error}")))?;
                let (read, write) = tokio::io::split(TokioIo::new(upgraded));
                Ok(Duplex { read: Box::new(read), write: Box::new(write), gone: hung_up(peer).boxed() })
            }
            Hijack::WebSocket(upgrade) => websocket::open(upgrade).await,
            Hijack::Body(write, peer) => {
                Ok(Duplex { read: Box::new(tokio::io::empty()), write: Box::new(write), gone: hung_up(peer).boxed() })
            }
        }
    }
}

/// The response that hands the connection over, and the connection.
pub fn hijack(call: &mut Call, multiplexed: bool) -> (Response<Body>, Hijack) {
    let kind = if multiplexed && call.version >= 42 { MULTIPLEXED } else { RAW };
    let asked = call.request.headers().contains_key(header::UPGRADE);
    let peer = call.request.extensions().get::<Peer>().cloned();
    if asked {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("tcp"));
        return (response, Hijack::Upgrade(hyper::upgrade::on(&mut call.request), peer));
    }
    let (ours, theirs) = tokio::io::duplex(BUFFER);
    let mut response = Response::new(Body::from_stream(tokio_util::io::ReaderStream::new(theirs)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    (response, Hijack::Body(ours, peer))
}

/// One piece of multiplexed output.
pub fn frame(stderr: bool, data: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(8 + data.len());
    out.extend_from_slice(&[if stderr { 2 } else { 1 }, 0, 0, 0]);
    out.extend_from_slice(&(data.len() as u32).to_be_bytes());
    out.extend_from_slice(data);
    out.into()
}

/// Carries bytes both ways until the process ends, the client lets go, or either is lost. The client learns of the end
/// after `before_close` has run.
pub async fn pump(connection: Duplex, session: Session, options: &Options, before_close: impl FnOnce(End)) -> End {
    let Duplex { read, mut write, gone } = connection;
    let (input, mut output) = session.split();
    let input = feed(read, input, options);
    tokio::pin!(input);
    let end = tokio::select! {
        end = deliver(&mut output, &mut write, options) => end,
        () = &mut input => End::Detached,
        () = gone => End::Lost,
    };
    before_close(end);
    let _ = write.shutdown().await;
    end
}

async fn deliver(output: &mut SessionReader, write: &mut (impl AsyncWrite + Unpin), options: &Options) -> End {
    loop {
        let (stderr, data) = match output.next().await {
            Ok(Reply::Stdout { data }) => (false, data),
            Ok(Reply::Stderr { data }) => (true, data),
            Ok(Reply::Exited { exit, .. }) => return End::Exited(exit.code as i32),
            Ok(_) => continue,
            Err(_) => return End::Lost,
        };
        if stderr && !options.stderr || !stderr && !options.stdout {
            continue;
        }
        let written =
            if options.tty { write.write_all(&data).await } else { write.write_all(&frame(stderr, &data)).await };
        if written.is_err() || write.flush().await.is_err() {
            return End::Lost;
        }
    }
}

/// Carries input; returns when the detach keys came, and never otherwise.
async fn feed(mut read: impl AsyncRead + Unpin, mut input: SessionWriter, options: &Options) {
    let mut buffer = vec![0; BUFFER];
    let mut keys = DetachKeys::new(if options.tty && options.stdin { &options.detach_keys } else { &[] });
    loop {
        let count = match read.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(count) => count,
        };
        if !options.stdin {
            continue;
        }
        let (data, detach) = keys.filter(&buffer[..count]);
        if !data.is_empty() && input.send(&[Request::Stdin { data }]).await.is_err() {
            break;
        }
        if detach {
            return;
        }
    }
    if options.stdin && options.close_stdin {
        let _ = input.send(&[Request::CloseStdin]).await;
    }
    // The client has no more to say but listens: this half keeps the shim's connection whole.
    std::future::pending().await
}

/// Finds a sequence of keys in input; what turns out not to be it is passed on.
struct DetachKeys<'a> {
    keys: &'a [u8],
    seen: usize,
}

impl<'a> DetachKeys<'a> {
    fn new(keys: &'a [u8]) -> DetachKeys<'a> {
        DetachKeys { keys, seen: 0 }
    }

    fn filter(&mut self, data: &[u8]) -> (Vec<u8>, bool) {
        if self.keys.is_empty() {
            return (data.to_vec(), false);
        }
        let mut out = Vec::with_capacity(data.len());
        for &byte in data {
            if byte == self.keys[self.seen] {
                self.seen += 1;
                if self.seen == self.keys.len() {
                    return (out, true);
                }
                continue;
            }
            out.extend_from_slice(&self.keys[..self.seen]);
            self.seen = usize::from(byte == self.keys[0]);
            if self.seen == 0 {
                out.push(byte);
            }
        }
        (out, false)
    }
}

/// `ctrl-p,ctrl-q` as bytes (moby `pkg/term/ascii.go`); the default where nothing is given.
pub fn detach_keys(text: &str) -> std::result::Result<Vec<u8>, Problem> {
    if text.is_empty() {
        return Ok(vec![16, 17]);
    }
    let bad = || Problem::bad(format!("Invalid detach keys ({text}) provided"));
    text.split(',')
        .map(|key| match key.strip_prefix("ctrl-") {
            Some("@") => Ok(0),
            Some(letter) if letter.len() == 1 => match letter.as_bytes()[0] {
                letter @ b'a'..=b'z' => Ok(letter - b'a' + 1),
                letter @ b'['..=b'_' => Ok(letter - b'[' + 27),
                _ => Err(bad()),
            },
            None if key.len() == 1 && key.is_ascii() => Ok(key.as_bytes()[0]),
            _ => Err(bad()),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detach_keys_are_read_and_found() {
        assert_eq!(detach_keys("").unwrap(), [16, 17]);
        assert_eq!(detach_keys("a,ctrl-a,ctrl-\\").unwrap(), [b'a', 1, 28]);
        assert!(detach_keys("ctrl-1").is_err());
        let keys = [16, 17];
        let mut filter = DetachKeys::new(&keys);
        assert_eq!(filter.filter(b"ab\x10"), (b"ab".to_vec(), false));
        assert_eq!(filter.filter(b"c\x10\x10\x11d"), (b"\x10c\x10".to_vec(), true));
    }

    #[test]
    fn frames_carry_stream_and_length() {
        assert_eq!(&frame(true, b"ab")[..], [2, 0, 0, 0, 0, 0, 0, 2, b'a', b'b']);
    }
}
