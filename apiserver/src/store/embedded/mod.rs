//! The embedded store: redb below, one writer thread above, group commit between.
//!
//! ```text
//!  txn ─┐                         ┌─ commit + one sync ─► replies
//!  txn ─┼─► queue ─► writer thread┤
//!  txn ─┘   (bounded)             └─ recent events ─► watchers (they pull; a slow one falls back to the log)
//!  get, range ─► redb read transactions, never waiting for the writer
//! ```
//!
//! All transactions that wait when the writer comes round are applied in one redb transaction and share its sync, so
//! the number of writes a second does not depend on how long a sync takes. A redb transaction becomes visible only when
//! it is synced, so nobody reads what a power loss could still take back.
//!
//! After an I/O error redb refuses further commits until the file is opened again. The writer does that by itself, when
//! the next transaction comes, so a full disk is an error while it is full and nothing more.

mod compaction;
mod read;
mod recent;
pub mod snapshot;
mod tables;
mod writer;

use super::{Batches, Outcome, Page, Pieces, Range, Record, Revision, Store, StoreError, Txn, Watch, check_txn};
use coracle_api::clock::Clock;
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::RwLock;
use recent::Recent;
use redb::{Database, DatabaseError, StorageBackend};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::{mpsc, oneshot, watch};

/// Opens the storage under the database; called again after an I/O error.
pub type Opener = Box<dyn Fn() -> Result<Box<dyn StorageBackend>, StoreError> + Send + Sync>;

/// Transactions that may wait for the writer before callers have to.
const QUEUE: usize = 4096;

/// redb's page cache, in bytes. The watch cache answers reads, so this serves the writer alone.
const PAGE_CACHE: usize = 8 << 20;

/// The embedded store. Dropping it stops the writer after what it has taken.
pub struct Embedded {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Command>,
    writer: Option<std::thread::JoinHandle<()>>,
}

/// What readers and the writer both see. Lock order: `database`, then `recent`.
struct Shared {
    /// None while the file is being opened again after an I/O error.
    database: RwLock<Option<Database>>,
    recent: RwLock<Recent>,
    /// The newest synced revision; every watcher waits on it.
    revision: watch::Sender<Revision>,
    /// Everything at or before it may be gone.
    compacted: std::sync::atomic::AtomicU64,
    clock: Arc<dyn Clock>,
}

/// What the writer is asked to do.
enum Command {
    Txn(Txn, oneshot::Sender<Result<Outcome, StoreError>>),
    /// A part of a compaction up to this revision; answers how far it came.
    Compact(Revision, oneshot::Sender<Result<Revision, StoreError>>),
    /// A part of what is due; answers how many keys were deleted, and whether there may be more.
    Expire(oneshot::Sender<Result<(usize, bool), StoreError>>),
}

impl Embedded {
    /// Opens or creates the database file at `path`, with mode 0600.
    ///
    /// # Errors
    /// When the file cannot be opened, is locked by another process, or is damaged beyond repair.
    pub fn open(path: impl Into<PathBuf>, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let path = path.into();
        Self::with_backend(Box::new(move || open_file(&path)), clock)
    }

    /// A store that lives in memory and is gone when dropped.
    ///
    /// # Errors
    /// When the writer's thread cannot be started.
    pub fn in_memory(clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        Self::with_backend(Box::new(|| Ok(Box::new(redb::backends::InMemoryBackend::new()))), clock)
    }

    /// Opens a database on any storage; tests put a faulty one here.
    ///
    /// # Errors
    /// As [`Embedded::open`].
    pub fn with_backend(opener: Opener, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let (database, revision, compacted) = open_database(&opener)?;
        let shared = Arc::new(Shared {
            database: RwLock::new(Some(database)),
            recent: RwLock::new(Recent::starting_after(revision)),
            revision: watch::Sender::new(revision),
            compacted: compacted.into(),
            clock,
        });
        let (queue, commands) = mpsc::channel(QUEUE);
        let writer = writer::Writer::new(shared.clone(), opener);
        let writer = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer.run(commands))
            .map_err(|error| StoreError::Unavailable(format!("starting the writer: {error}")))?;
        Ok(Self { shared, queue, writer: Some(writer) })
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Command,
    ) -> Result<T, StoreError> {
        let stopped = || StoreError::Unavailable("the writer has stopped".to_owned());
        let (reply, answer) = oneshot::channel();
        self.queue.send(command(reply)).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        // Closing the queue ends the writer; joining it makes sure that the file is closed when this returns.
        let (closed, _) = mpsc::channel(1);
        self.queue = closed;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

impl Store for Embedded {
    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<Outcome, StoreError>> {
        async move {
            check_txn(&txn)?;
            self.ask(|reply| Command::Txn(txn, reply)).await
        }
        .boxed()
    }

    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Record>, StoreError>> {
        // One look-up in the page cache: cheaper than a trip to another thread.
        std::future::ready(self.shared.get(key)).boxed()
    }

    fn range(&self, range: Range) -> BoxFuture<'_, Result<Page, StoreError>> {
        let shared = self.shared.clone();
        async move {
            tokio::task::spawn_blocking(move || shared.range(&range))
                .await
                .map_err(|error| StoreError::Unavailable(error.to_string()))?
        }
        .boxed()
    }

    fn watch(&self, watch: Watch) -> BoxFuture<'_, Result<Batches, StoreError>> {
        std::future::ready(recent::watch(self.shared.clone(), watch)).boxed()
    }

    fn revision(&self) -> BoxFuture<'_, Result<Revision, StoreError>> {
        let revision = match self.shared.database.read().is_some() {
            true => self.revision_now(),
            false => None,
        };
        let gone = || StoreError::Unavailable("the database is closed after an I/O error".to_owned());
        std::future::ready(revision.ok_or_else(gone)).boxed()
    }

    fn revision_now(&self) -> Option<Revision> {
        // Nobody but this process's writer makes revisions, so the one that was published last is the newest that was
        // acknowledged even while the database is closed: a full disk does not keep anybody from reading.
        (!self.queue.is_closed()).then(|| *self.shared.revision.borrow())
    }

    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<(), StoreError>> {
        async move {
            let compacted = self.shared.compacted.load(Ordering::Acquire);
            if revision <= compacted {
                return Err(StoreError::Compacted { asked: revision, oldest: compacted });
            }
            // Part by part, so that writes go on between.
            while self.ask(|reply| Command::Compact(revision, reply)).await? < revision {}
            Ok(())
        }
        .boxed()
    }

    fn back_up(&self) -> Option<Result<Pieces, StoreError>> {
        Some(self.backup_pieces())
    }

    fn expire(&self) -> BoxFuture<'_, Result<usize, StoreError>> {
        async move {
            let mut total = 0;
            loop {
                let (deleted, more) = self.ask(Command::Expire).await?;
                total += deleted;
                if !more {
                    return Ok(total);
                }
            }
        }
        .boxed()
    }
}

fn open_file(path: &std::path::Path) -> Result<Box<dyn StorageBackend>, StoreError> {
    use std::os::unix::fs::OpenOptionsExt;
    let failed = |error: String| StoreError::Unavailable(format!("opening {}: {error}", path.display()));
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|error| failed(error.to_string()))?;
    // A new file is only there after power loss when its directory entry is.
    if let Some(parent) = path.parent() {
        std::fs::File::open(if parent.as_os_str().is_empty() { ".".as_ref() } else { parent })
            .and_then(|directory| directory.sync_all())
            .map_err(|error| failed(error.to_string()))?;
    }
    let backend = redb::backends::FileBackend::new(file).map_err(|error| failed(error.to_string()))?;
    Ok(Box::new(backend))
}

/// Opens the database, makes its tables, and reads where it stands.
fn open_database(opener: &Opener) -> Result<(Database, Revision, Revision), StoreError> {
    let unavailable = |error: redb::Error| StoreError::Unavailable(error.to_string());
    let backend = Backend(opener()?);
    let length = backend.len().map_err(|error| StoreError::Unavailable(error.to_string()))?;
    let mut database =
        Database::builder().set_cache_size(PAGE_CACHE).create_with_backend(backend).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => {
                StoreError::Unavailable("another server has it open: stop that one first".to_owned())
            }
            error => unavailable(error.into()),
        })?;
    let write = database.begin_write().map_err(|error| unavailable(error.into()))?;
    let (revision, compacted) = {
        let mut meta = write.open_table(tables::META).map_err(|error| unavailable(error.into()))?;
        write.open_table(tables::LOG).map_err(|error| unavailable(error.into()))?;
        write.open_table(tables::LATEST).map_err(|error| unavailable(error.into()))?;
        write.open_table(tables::EXPIRIES).map_err(|error| unavailable(error.into()))?;
        let stored = |name, meta: &redb::Table<&str, u64>| -> Result<Option<u64>, StoreError> {
            use redb::ReadableTable;
            Ok(meta.get(name).map_err(|error| unavailable(error.into()))?.map(|value| value.value()))
        };
        let revision = match stored(tables::REVISION, &meta)? {
            Some(revision) => revision,
            None => {
                meta.insert(tables::REVISION, super::FIRST_REVISION).map_err(|error| unavailable(error.into()))?;
                super::FIRST_REVISION
            }
        };
        (revision, stored(tables::COMPACTED, &meta)?.unwrap_or(0))
    };
    write.commit().map_err(|error| unavailable(error.into()))?;
    snapshot::compact_sparse(&mut database, length)?;
    Ok((database, revision, compacted))
}

/// A boxed back end as a back end, forwarding every call.
#[derive(Debug)]
struct Backend(Box<dyn StorageBackend>);

type LockBounds = std::ops::Bound<u64>;

impl StorageBackend for Backend {
    fn len(&self) -> std::io::Result<u64> {
        self.0.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.0.read(offset, out)
    }
    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.0.set_len(len)
    }
    fn sync_data(&self) -> std::io::Result<()> {
        self.0.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.0.write(offset, data)
    }
    fn close(&self) -> std::io::Result<()> {
        self.0.close()
    }
    fn try_lock_range(&self, start: LockBounds, end: LockBounds) -> Result<bool, redb::BackendError> {
        self.0.try_lock_range(start, end)
    }
    fn try_lock_shared_range(&self, start: LockBounds, end: LockBounds) -> Result<bool, redb::BackendError> {
        self.0.try_lock_shared_range(start, end)
    }
    fn lock_range(&self, start: LockBounds, end: LockBounds) -> Result<(), redb::BackendError> {
        self.0.lock_range(start, end)
    }
    fn lock_shared_range(&self, start: LockBounds, end: LockBounds) -> Result<(), redb::BackendError> {
        self.0.lock_shared_range(start, end)
    }
    fn unlock_range(&self, start: LockBounds, end: LockBounds) -> Result<(), redb::BackendError> {
        self.0.unlock_range(start, end)
    }
    fn query_lock_range(&self, start: LockBounds, end: LockBounds) -> Result<bool, redb::BackendError> {
        self.0.query_lock_range(start, end)
    }
}
