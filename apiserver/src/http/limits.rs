//! How much the server takes on at a time.

use coracle_api::Status;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Requests in flight, beside watches and logs (upstream `--max-requests-inflight`, `--max-mutating-requests-inflight`).
pub const READS: usize = 400;
pub const WRITES: usize = 200;

/// How many requests may wait for their turn before one is turned away, for each that is in flight.
const QUEUED: usize = 4;

/// Watches, at most.
pub const WATCHES: usize = 20_000;

/// Turns of one kind of request.
#[derive(Clone, Debug)]
struct Turns {
    running: Arc<Semaphore>,
    present: Arc<Semaphore>,
}

impl Turns {
    fn new(running: usize) -> Self {
        Self { running: Arc::new(Semaphore::new(running)), present: Arc::new(Semaphore::new(running * (1 + QUEUED))) }
    }

    /// Waits in a bounded queue.
    async fn take(&self) -> Result<Permit, Status> {
        let present = self.present.clone().try_acquire_owned().map_err(|_| too_many())?;
        let running = self.running.clone().acquire_owned().await.map_err(|_| too_many())?;
        Ok(Permit { _running: Some(running), _present: Some(present) })
    }
}

/// What a request holds while it runs.
#[derive(Debug, Default)]
pub struct Permit {
    _running: Option<OwnedSemaphorePermit>,
    _present: Option<OwnedSemaphorePermit>,
}

/// The server's limits.
#[derive(Debug)]
pub struct Limits {
    reads: Turns,
    writes: Turns,
    watches: Arc<Semaphore>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { reads: Turns::new(READS), writes: Turns::new(WRITES), watches: Arc::new(Semaphore::new(WATCHES)) }
    }
}

impl Limits {
    /// A turn to read.
    pub async fn read(&self) -> Result<Permit, Status> {
        self.reads.take().await
    }

    /// A turn to write.
    pub async fn write(&self) -> Result<Permit, Status> {
        self.writes.take().await
    }

    /// A place for a stream that lasts.
    pub fn stream(&self) -> Result<Permit, Status> {
        let running = self.watches.clone().try_acquire_owned().map_err(|_| too_many())?;
        Ok(Permit { _running: Some(running), _present: None })
    }
}

fn too_many() -> Status {
    Status::too_many_requests("too many requests, please try again later", 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn beyond_the_queue_requests_are_turned_away() {
        let turns = Turns::new(1);
        let first = turns.take().await.unwrap();
        let waiting: Vec<_> = (0..QUEUED)
            .map(|_| {
                let turns = turns.clone();
                tokio::spawn(async move { turns.take().await.map(drop) })
            })
            .collect();
        while turns.present.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(turns.take().await.unwrap_err().code, 429);
        drop(first);
        for request in waiting {
            request.await.unwrap().unwrap();
        }
        assert!(turns.take().await.is_ok());
    }
}
