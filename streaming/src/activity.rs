//! When a connection was last used: one that nobody uses for hours is closed.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

/// The last use of one connection.
#[derive(Clone)]
pub struct Activity {
    begin: Instant,
    /// Milliseconds since the beginning.
    last: Arc<AtomicU64>,
}

impl Activity {
    pub fn new() -> Self {
        Self { begin: Instant::now(), last: Arc::default() }
    }

    /// It is used now.
    pub fn used(&self) {
        let passed = u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(passed, Ordering::Relaxed);
    }

    /// Waits until it was not used for so long.
    pub async fn unused_for(&self, limit: Duration) {
        loop {
            let until = self.begin + Duration::from_millis(self.last.load(Ordering::Relaxed)) + limit;
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }
}

/// A connection of which every byte is a use.
pub struct Watched<S> {
    pub connection: S,
    pub activity: Activity,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.connection).poll_read(context, buffer))?;
        self.activity.used();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.connection).poll_write(context, data))?;
        self.activity.used();
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn every_use_begins_anew() {
        let (activity, limit) = (Activity::new(), Duration::from_secs(10));
        let begin = Instant::now();
        let user = activity.clone();
        let uses = async {
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_secs(9)).await;
                user.used();
            }
        };
        tokio::join!(uses, activity.unused_for(limit));
        assert_eq!(begin.elapsed().as_secs(), 37);
    }
}
