//! What is written to a connection at about the same time is sent together.
//!
//! HTTP/2 asks for a flush after every frame of data, and each flush would be a TLS record and a system call of its own,
//! though a change is told to a dozen watchers of one connection at once. So frames are held until the connection's task has
//! nothing more to do and every task that was ready to run then has run, and go out then: nothing waits longer.

use parking_lot::Mutex;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is held at most; it is also what rustls encrypts at once by default.
const HELD: usize = 64 << 10;

/// Writes of this size go past: copying them would cost more than it saves.
const LARGE: usize = 16 << 10;

/// Room that an idle connection keeps.
const KEPT: usize = 4 << 10;

/// The end of a connection that is written to.
pub struct Gather<S>(Arc<Mutex<Held<S>>>);

/// The end that sends what was written.
pub struct Sender<S>(Arc<Mutex<Held<S>>>);

struct Held<S> {
    stream: S,
    bytes: Vec<u8>,
    /// How much of `bytes` is sent.
    sent: usize,
    /// The stream has taken bytes that it may not have passed on.
    unflushed: bool,
}

/// Takes a stream apart into both ends, for one task.
pub fn gather<S>(stream: S) -> (Gather<S>, Sender<S>) {
    let held = Arc::new(Mutex::new(Held { stream, bytes: Vec::new(), sent: 0, unflushed: false }));
    (Gather(held.clone()), Sender(held))
}

impl<S: AsyncWrite + Unpin> Sender<S> {
    /// Drives a connection, and sends after each of its turns.
    ///
    /// # Errors
    /// What the connection ends with, or what sending fails with.
    pub async fn drive<E: From<io::Error>>(&self, connection: impl Future<Output = Result<(), E>>) -> Result<(), E> {
        let mut connection = pin!(connection);
        let mut let_others = true;
        poll_fn(|cx| {
            if let Poll::Ready(result) = connection.as_mut().poll(cx) {
                return Poll::Ready(result);
            }
            let mut held = self.0.lock();
            if held.is_empty() {
                return Poll::Pending;
            }
            if std::mem::replace(&mut let_others, false) {
                // Whoever is ready to run may have more for this connection: it comes again after them.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let_others = true;
            match held.poll_send(cx) {
                Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
                _ => Poll::Pending,
            }
        })
        .await
    }
}

impl<S: AsyncWrite + Unpin> Held<S> {
    /// Whether there is nothing to send.
    fn is_empty(&self) -> bool {
        self.bytes.is_empty() && !self.unflushed
    }

    /// Hands everything to the stream.
    fn poll_write_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.bytes.len() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.bytes[self.sent..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.sent += count,
            }
            self.unflushed = true;
        }
        self.sent = 0;
        self.bytes.clear();
        self.bytes.shrink_to(KEPT);
        Poll::Ready(Ok(()))
    }

    /// Sends everything.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write_held(cx))?;
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Makes room for so many bytes, sending when there is none.
    fn poll_room(&mut self, cx: &mut Context<'_>, length: usize) -> Poll<io::Result<()>> {
        if self.bytes.len() + length > HELD {
            ready!(self.poll_write_held(cx))?;
        }
        let wanted = self.bytes.len() + length;
        if wanted > self.bytes.capacity() {
            let capacity = if wanted <= KEPT { KEPT } else { HELD };
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gather<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.lock().stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gather<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut held = self.0.lock();
        let length = parts.iter().map(|part| part.len()).sum();
        if length >= LARGE {
            ready!(held.poll_write_held(cx))?;
            held.unflushed = true;
            return Pin::new(&mut held.stream).poll_write_vectored(cx, parts);
        }
        ready!(held.poll_room(cx, length))?;
        parts.iter().for_each(|part| held.bytes.extend_from_slice(part));
        Poll::Ready(Ok(length))
    }

    fn is_write_vectored(&self) -> bool {
        self.0.lock().stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // At the end of the turn.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut held = self.0.lock();
        ready!(held.poll_send(cx))?;
        Pin::new(&mut held.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn everything_arrives_in_order_through_a_narrow_pipe() {
        let (near, mut far) = tokio::io::duplex(1000);
        let (mut end, sender) = gather(near);
        let parts = [3, 5000, LARGE, 7, HELD - 1, 2 * HELD, 10, 0, LARGE - 1];
        let sent: Vec<Vec<u8>> = parts.iter().zip(1..).map(|(length, byte)| vec![byte; *length]).collect();
        let expected = sent.concat();
        let writing = async move {
            for part in sent {
                end.write_all(&part).await?;
                end.flush().await?;
            }
            // What a connection that idles looks like: its last words are sent by the sender alone.
            std::future::pending::<()>().await;
            Ok::<_, io::Error>(())
        };
        let mut found = vec![0; expected.len()];
        tokio::select! {
            _ = sender.drive(writing) => unreachable!("it idles"),
            read = far.read_exact(&mut found) => assert_eq!(read.unwrap(), expected.len()),
        }
        assert!(found == expected);
    }

    #[tokio::test]
    async fn what_is_written_in_one_turn_is_sent_at_once_and_shut_down_after() {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let (mut end, sender) = gather(near);
        let writing = async move {
            end.write_all(b"a").await?;
            end.flush().await?;
            end.write_all(b"b").await?;
            end.shutdown().await
        };
        sender.drive(writing).await.unwrap();
        drop(sender);
        let mut found = String::new();
        far.read_to_string(&mut found).await.unwrap();
        assert_eq!(found, "ab");
    }

    #[tokio::test]
    async fn a_stream_that_breaks_ends_the_connection() {
        let (near, far) = tokio::io::duplex(10);
        let (mut end, sender) = gather(near);
        drop(far);
        let writing = async move {
            end.write_all(b"a").await?;
            std::future::pending::<io::Result<()>>().await
        };
        assert_eq!(sender.drive(writing).await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
