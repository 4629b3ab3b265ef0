//! Storage below redb of which one sync can be left to a thread, while the writer goes on.
//!
//! ```text
//!  commit ── pages, header ──► write ──► sync_data, which returns at once
//!                                            │
//!                                            └─► a thread syncs; until it has, nothing more is written
//! ```
//!
//! redb takes a commit for durable when `sync_data` returns, and then gives pages of the commit before to whoever needs
//! some. Were such a page written before the sync is done, a power loss could leave neither commit whole, so writes wait
//! for it. What must not be lost meanwhile is in the journal.

use parking_lot::{Condvar, Mutex, MutexGuard};
use redb::{BackendError, StorageBackend};
use std::io;
use std::ops::Bound;
use std::sync::Arc;

/// A handle to the storage; redb has one, the writer another.
#[derive(Clone, Debug)]
pub(super) struct Deferred(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    storage: Box<dyn StorageBackend>,
    state: Mutex<State>,
    settled: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The next sync is left to a thread.
    leave: bool,
    /// A thread is syncing.
    running: bool,
    /// Why a sync that was left to a thread failed: then nothing is sure any more, and everything fails.
    failed: Option<String>,
}

impl Deferred {
    pub(super) fn new(storage: Box<dyn StorageBackend>) -> Self {
        Self(Arc::new(Inner { storage, state: Mutex::default(), settled: Condvar::new() }))
    }

    /// Does `commit`, whose sync is left to a thread.
    pub(super) fn without_waiting<T>(&self, commit: impl FnOnce() -> T) -> T {
        self.0.state.lock().leave = true;
        let result = commit();
        self.0.state.lock().leave = false;
        result
    }

    /// Whether no sync is under way.
    ///
    /// # Errors
    /// When the last one failed.
    pub(super) fn is_settled(&self) -> io::Result<bool> {
        let state = self.0.state.lock();
        state.check()?;
        Ok(!state.running)
    }
}

impl State {
    fn check(&self) -> io::Result<()> {
        match &self.failed {
            Some(error) => Err(io::Error::other(format!("syncing failed before: {error}"))),
            None => Ok(()),
        }
    }
}

impl Inner {
    /// Waits until no sync is under way.
    fn settled(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state.lock();
        while state.running {
            self.settled.wait(&mut state);
        }
        state.check()?;
        Ok(state)
    }

    fn sync(&self) {
        let result = self.storage.sync_data();
        let mut state = self.state.lock();
        state.running = false;
        state.failed = result.err().map(|error| error.to_string());
        self.settled.notify_all();
    }
}

impl StorageBackend for Deferred {
    fn len(&self) -> io::Result<u64> {
        self.0.storage.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.storage.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        drop(self.0.settled()?);
        self.0.storage.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.0.settled()?;
        if std::mem::take(&mut state.leave) {
            let inner = self.0.clone();
            state.running = true;
            if std::thread::Builder::new().name("store-sync".to_owned()).spawn(move || inner.sync()).is_ok() {
                return Ok(());
            }
            state.running = false;
        }
        drop(state);
        self.0.storage.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        drop(self.0.settled()?);
        self.0.storage.write(offset, data)
    }
    fn close(&self) -> io::Result<()> {
        // The file is let go even when its last sync failed.
        drop(self.0.settled());
        self.0.storage.close()
    }
    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.storage.try_lock_range(start, end)
    }
    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.storage.try_lock_shared_range(start, end)
    }
    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.storage.lock_range(start, end)
    }
    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.storage.lock_shared_range(start, end)
    }
    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.storage.unlock_range(start, end)
    }
    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.storage.query_lock_range(start, end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// Says what is done to it, and syncs when it is let.
    #[derive(Debug)]
    struct Slow {
        done: Mutex<mpsc::Sender<&'static str>>,
        let_go: Mutex<mpsc::Receiver<io::Result<()>>>,
    }

    impl StorageBackend for Slow {
        fn len(&self) -> io::Result<u64> {
            Ok(0)
        }
        fn read(&self, _: u64, _: &mut [u8]) -> io::Result<()> {
            Ok(())
        }
        fn set_len(&self, _: u64) -> io::Result<()> {
            let _ = self.done.lock().send("length");
            Ok(())
        }
        fn sync_data(&self) -> io::Result<()> {
            let _ = self.done.lock().send("sync begins");
            let result = self.let_go.lock().recv().unwrap_or(Ok(()));
            let _ = self.done.lock().send("sync ends");
            result
        }
        fn write(&self, _: u64, _: &[u8]) -> io::Result<()> {
            let _ = self.done.lock().send("write");
            Ok(())
        }
    }

    fn slow() -> (Deferred, mpsc::Receiver<&'static str>, mpsc::Sender<io::Result<()>>) {
        let (done, seen) = mpsc::channel();
        let (go, let_go) = mpsc::channel();
        (Deferred::new(Box::new(Slow { done: done.into(), let_go: let_go.into() })), seen, go)
    }

    #[test]
    fn what_is_written_waits_for_a_sync_that_was_left_to_a_thread() {
        let (storage, seen, go) = slow();
        storage.write(0, b"1").unwrap();
        storage.without_waiting(|| storage.sync_data()).unwrap();
        assert_eq!((seen.recv().unwrap(), seen.recv().unwrap()), ("write", "sync begins"));
        assert!(!storage.is_settled().unwrap());
        let writers: Vec<_> = (0..3)
            .map(|nth| {
                let storage = storage.clone();
                std::thread::spawn(move || if nth == 0 { storage.set_len(1) } else { storage.write(0, b"2") })
            })
            .collect();
        go.send(Ok(())).unwrap();
        assert_eq!(seen.recv().unwrap(), "sync ends", "before anything else is written");
        for writer in writers {
            writer.join().unwrap().unwrap();
        }
        assert!(storage.is_settled().unwrap());
        go.send(Ok(())).unwrap();
        storage.sync_data().unwrap();
        let rest: Vec<_> = seen.try_iter().collect();
        assert_eq!(rest[3..], ["sync begins", "sync ends"], "one that is not left to a thread is done on return");
    }

    #[test]
    fn nothing_is_written_after_a_sync_that_failed() {
        let (storage, seen, go) = slow();
        go.send(Err(io::Error::other("broken"))).unwrap();
        storage.without_waiting(|| storage.sync_data()).unwrap();
        let error = storage.write(0, b"1").unwrap_err().to_string();
        assert_eq!(error, "syncing failed before: broken");
        assert!(storage.is_settled().is_err() && storage.sync_data().is_err() && storage.set_len(1).is_err());
        storage.close().unwrap();
        assert_eq!(seen.try_iter().collect::<Vec<_>>(), ["sync begins", "sync ends"]);
    }
}
