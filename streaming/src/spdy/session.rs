//! A connection with its streams: one task reads, one writes.

use std::{collections::HashMap, io, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    frame::{self, Frame, MAX_DATA},
    headers::{self, Headers, Packer, Unpacker},
};

/// Pieces of one stream that wait to be taken before the connection is read no further.
const WAITING: usize = 32;
/// Frames that wait to be written.
const OUTGOING: usize = 16;
/// How long a client may take to see that the connection is at its end.
const LINGER: Duration = Duration::from_secs(5);
/// Streams at a time: two for each forwarded connection.
const STREAMS: usize = 512;

/// The server's end of a connection. Dropping it, and the halves of streams that this side writes, closes it.
pub struct Session {
    opened: mpsc::Receiver<Stream>,
    /// Nothing is read any more when this is gone, whether the client has more to say or not.
    _reading: DropGuard,
}

/// A stream that the client opened.
pub struct Stream {
    pub id: u32,
    pub headers: Headers,
    /// What the client sends; ends with its half.
    pub input: mpsc::Receiver<Bytes>,
    /// Where this side writes.
    pub output: Writer,
}

impl Stream {
    /// The value of a header of the stream.
    pub fn header(&self, name: &str) -> Option<&str> {
        headers::value(&self.headers, name)
    }
}

/// This side's half of a stream. It must be finished: a dropped one leaves the client waiting.
#[derive(Clone)]
pub struct Writer {
    stream: u32,
    frames: mpsc::Sender<Outgoing>,
}

enum Outgoing {
    Frame(Frame),
    Reply(u32),
}

impl Writer {
    /// Sends data.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn write(&self, mut data: Bytes) -> io::Result<()> {
        while !data.is_empty() {
            let piece = data.split_to(data.len().min(MAX_DATA));
            self.send(Frame::Data { stream: self.stream, fin: false, data: piece }).await?;
        }
        Ok(())
    }

    /// Ends this half.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn finish(&self) -> io::Result<()> {
        self.send(Frame::Data { stream: self.stream, fin: true, data: Bytes::new() }).await
    }

    /// Ends the stream at once, both halves.
    pub async fn reset(&self) {
        // Nobody to tell when the connection is gone.
        let _ = self.send(Frame::Reset { stream: self.stream }).await;
    }

    async fn send(&self, frame: Frame) -> io::Result<()> {
        let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "the connection is gone");
        self.frames.send(Outgoing::Frame(frame)).await.map_err(gone)
    }
}

impl Session {
    /// Serves the streams of a connection that was upgraded to SPDY/3.1.
    pub fn serve(connection: impl AsyncRead + AsyncWrite + Send + 'static) -> Self {
        let (reader, writer) = tokio::io::split(connection);
        let (frames, outgoing) = mpsc::channel(OUTGOING);
        let (open, opened) = mpsc::channel(STREAMS);
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        tokio::spawn(write(writer, outgoing));
        tokio::spawn(async move {
            let mut reader = reader;
            let mut reading = Reading { frames, open, inputs: HashMap::new(), unpacker: Unpacker::default() };
            match stopped.run_until_cancelled(reading.run(&mut reader)).await {
                Some(Ok(())) => {}
                Some(Err(error)) => tracing::debug!(%error, "a SPDY connection ended"),
                None => {
                    drop(reading);
                    // Closed with something unread, the connection would be reset, and the client lose what it has not read.
                    let rest = async { tokio::io::copy(&mut reader, &mut tokio::io::sink()).await };
                    let _ = tokio::time::timeout(LINGER, rest).await;
                }
            }
        });
        Self { opened, _reading: stop.drop_guard() }
    }

    /// The next stream that the client opens; none when it opens no more.
    pub async fn next(&mut self) -> Option<Stream> {
        self.opened.recv().await
    }
}

struct Reading {
    frames: mpsc::Sender<Outgoing>,
    open: mpsc::Sender<Stream>,
    inputs: HashMap<u32, mpsc::Sender<Bytes>>,
    unpacker: Unpacker,
}

impl Reading {
    async fn run(&mut self, mut reader: impl AsyncRead + Unpin) -> io::Result<()> {
        let mut buffer = BytesMut::with_capacity(MAX_DATA);
        loop {
            while let Some(frame) = frame::take(&mut buffer)? {
                if !self.handle(frame).await? {
                    return Ok(());
                }
            }
            if reader.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
    }

    /// False when the connection is to end.
    async fn handle(&mut self, frame: Frame) -> io::Result<bool> {
        match frame {
            Frame::Open { stream, fin, block } => {
                let headers = self.unpacker.unpack(&block)?;
                self.inputs.retain(|_, input| !input.is_closed());
                if self.inputs.len() >= STREAMS || self.inputs.contains_key(&stream) {
                    let refuse = Outgoing::Frame(Frame::Reset { stream });
                    return Ok(self.frames.send(refuse).await.is_ok());
                }
                let (sender, input) = mpsc::channel(WAITING);
                if !fin {
                    self.inputs.insert(stream, sender);
                }
                let output = Writer { stream, frames: self.frames.clone() };
                if self.frames.send(Outgoing::Reply(stream)).await.is_err() {
                    return Ok(false);
                }
                return Ok(self.open.send(Stream { id: stream, headers, input, output }).await.is_ok());
            }
            Frame::Data { stream, fin, data } => {
                if let Some(input) = self.inputs.get(&stream)
                    && !data.is_empty()
                {
                    // Who does not want it any more does not hold the others up.
                    let _ = input.send(data).await;
                }
                if fin {
                    self.inputs.remove(&stream);
                }
            }
            Frame::Reset { stream } => drop(self.inputs.remove(&stream)),
            // Even numbers are answers to pings of this side, which sends none.
            Frame::Ping { number } if number % 2 == 1 => {
                return Ok(self.frames.send(Outgoing::Frame(Frame::Ping { number })).await.is_ok());
            }
            Frame::Reply { block, .. } | Frame::Headers { block } => drop(self.unpacker.unpack(&block)?),
            Frame::GoAway => return Ok(!self.inputs.is_empty()),
            Frame::Ping { .. } | Frame::Other => {}
        }
        Ok(true)
    }
}

async fn write(mut writer: impl AsyncWrite + Unpin, mut frames: mpsc::Receiver<Outgoing>) {
    let (mut packer, mut buffer) = (Packer::default(), BytesMut::new());
    while let Some(frame) = frames.recv().await {
        let mut next = Some(frame);
        // What waits goes in one write.
        while let Some(frame) = next {
            match frame {
                Outgoing::Frame(frame) => frame::put(&frame, &mut buffer),
                Outgoing::Reply(stream) => match packer.pack(&Headers::new()) {
                    Ok(block) => frame::put(&Frame::Reply { stream, block: block.into() }, &mut buffer),
                    Err(error) => return tracing::warn!(%error, "pack the headers of a SPDY reply"),
                },
            }
            next = if buffer.len() < 4 * MAX_DATA { frames.try_recv().ok() } else { None };
        }
        if writer.write_all_buf(&mut buffer).await.is_err() || writer.flush().await.is_err() {
            return;
        }
    }
    // The client may be gone already.
    let _ = writer.shutdown().await;
}

#[cfg(test)]
mod tests {
    use super::{super::client::Client, *};

    #[tokio::test]
    async fn streams_carry_both_ways_and_end_by_halves() {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let mut session = Session::serve(theirs);
        let mut client = Client::new(ours);
        client.open(1, &[("streamtype", "stdin")]).await;
        let mut stream = session.next().await.unwrap();
        assert_eq!(stream.header("streamtype"), Some("stdin"));
        assert!(matches!(client.next().await, Some(Frame::Reply { stream: 1, .. })));
        client.send(Frame::Data { stream: 1, fin: true, data: Bytes::from_static(b"in") }).await;
        assert_eq!(stream.input.recv().await.as_deref(), Some(&b"in"[..]));
        assert_eq!(stream.input.recv().await, None);
        stream.output.write(Bytes::from_static(b"out")).await.unwrap();
        stream.output.finish().await.unwrap();
        let out = Frame::Data { stream: 1, fin: false, data: Bytes::from_static(b"out") };
        assert_eq!(client.next().await, Some(out));
        assert_eq!(client.next().await, Some(Frame::Data { stream: 1, fin: true, data: Bytes::new() }));
        client.send(Frame::Ping { number: 9 }).await;
        assert_eq!(client.next().await, Some(Frame::Ping { number: 9 }));
        // Nobody here any more: the connection closes.
        drop((stream, session));
        assert_eq!(client.next().await, None);
    }

    #[tokio::test]
    async fn a_session_that_is_dropped_closes_though_the_client_stays() {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let mut session = Session::serve(theirs);
        let mut client = Client::new(ours);
        client.open(1, &[]).await;
        let Stream { mut input, .. } = session.next().await.unwrap();
        assert!(matches!(client.next().await, Some(Frame::Reply { stream: 1, .. })));
        drop(session);
        assert_eq!(client.next().await, None);
        assert_eq!(input.recv().await, None);
    }

    #[tokio::test]
    async fn a_connection_that_ends_ends_its_streams() {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let mut session = Session::serve(theirs);
        let mut client = Client::new(ours);
        client.open(1, &[]).await;
        let mut stream = session.next().await.unwrap();
        drop(client);
        assert_eq!(stream.input.recv().await, None);
        assert!(session.next().await.is_none());
    }
}
