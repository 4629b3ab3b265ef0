//! The embedded store: redb below, one writer thread above, group commit between.
//!
//! ```text
//!  txn ─┐                         ┌─ journal + one sync ─► replies
//!  txn ─┼─► queue ─► writer thread┼─ recent events ─► watchers (they pull; a slow one falls back to the log)
//!  txn ─┘   (bounded)             └─ redb, many writes at a time
//!  get, range ─► redb read transactions, after what the writer has not yet given to redb
//! ```
//!
//! All transactions that wait when the writer comes round share one sync, so the number of writes a second does not depend
//! on how long a sync takes. They are synced in the journal; redb is given them later (`unapplied.rs`), and its own pages
//! follow now and then. What the journal has not is in nothing that is read, so nobody reads what a power loss could still
//! take back.
//!
//! After an I/O error redb refuses further commits until the file is opened again. The writer does that by itself, when
//! the next transaction comes, so a full disk is an error while it is full and nothing more.

mod compaction;
mod deferred;
mod journal;
mod read;
mod recent;
pub mod snapshot;
mod tables;
mod unapplied;
mod writer;

use super::{
    Batches, Op, Outcome, Page, Pieces, Range, Record, Revision, Store, StoreError, Txn, Watch, check_ops, check_txn,
};
use coracle_api::clock::Clock;
use deferred::Deferred;
use futures::FutureExt;
use futures::future::BoxFuture;
use journal::Journal;
use parking_lot::RwLock;
use read::unavailable;
use recent::Recent;
use redb::{Database, DatabaseError, ReadableTable, StorageBackend};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tables::{COMPACTED, EXPIRIES, JOURNAL, LATEST, LOG, LogRecord, META, REVISION};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};

/// What the store keeps on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Database,
    /// One of the journal's two files.
    Journal(usize),
}

/// Opens the storage of a part; called again after an I/O error.
pub type Opener = Box<dyn Fn(Part) -> Result<Box<dyn StorageBackend>, StoreError> + Send + Sync>;

/// What is below the database.
struct Disk {
    storage: Deferred,
    journal: Journal,
}

struct Opened {
    database: Database,
    disk: Disk,
    revision: Revision,
    compacted: Revision,
}

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
    /// Whether redb has not all that was published.
    behind: AtomicBool,
    /// Everything at or before it may be gone.
    compacted: std::sync::atomic::AtomicU64,
    clock: Arc<dyn Clock>,
}

/// What the writer is asked to do.
enum Command {
    /// A transaction, and what is written after it as a revision of its own, if anything.
    Txn(Txn, Vec<Op>, oneshot::Sender<Result<Outcome, StoreError>>),
    /// To give redb what was published so far.
    Apply(oneshot::Sender<Result<(), StoreError>>),
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
        Self::with_backend(files(path.into()), clock)
    }

    /// A store that lives in memory and is gone when dropped.
    ///
    /// # Errors
    /// When the writer's thread cannot be started.
    pub fn in_memory(clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        Self::with_backend(Box::new(|_| Ok(Box::new(redb::backends::InMemoryBackend::new()))), clock)
    }

    /// Opens a database on any storage; tests put a faulty one here.
    ///
    /// # Errors
    /// As [`Embedded::open`].
    pub fn with_backend(opener: Opener, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        Self::with_journal(opener, clock, journal::FULL)
    }

    /// As [`Embedded::with_backend`], with files of the journal that are done with at `full` bytes.
    ///
    /// # Errors
    /// As [`Embedded::open`].
    pub fn with_journal(opener: Opener, clock: Arc<dyn Clock>, full: u64) -> Result<Self, StoreError> {
        let Opened { database, disk, revision, compacted } = open_database(&opener, full)?;
        let shared = Arc::new(Shared {
            database: RwLock::new(Some(database)),
            recent: RwLock::new(Recent::starting_after(revision)),
            revision: watch::Sender::new(revision),
            behind: false.into(),
            compacted: compacted.into(),
            clock,
        });
        let (queue, commands) = mpsc::channel(QUEUE);
        let writer = writer::Writer::new(shared.clone(), opener, full, disk);
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
        let (reply, answer) = oneshot::channel();
        self.queue.send(command(reply)).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    async fn catch_up(&self) -> Result<(), StoreError> {
        catch_up(&self.shared, &self.queue.downgrade()).await
    }
}

fn stopped() -> StoreError {
    StoreError::Unavailable("the writer has stopped".to_owned())
}

/// Has redb given what was published before the call.
async fn catch_up(shared: &Shared, queue: &mpsc::WeakSender<Command>) -> Result<(), StoreError> {
    if !shared.behind.load(Ordering::Acquire) {
        return Ok(());
    }
    let (reply, answer) = oneshot::channel();
    let mut command = Command::Apply(reply);
    // The queue must not be kept open while this waits: closing the store waits for the writer.
    while let Err(refused) = queue.upgrade().ok_or_else(stopped)?.try_send(command) {
        match refused {
            TrySendError::Full(back) => command = back,
            TrySendError::Closed(_) => return Err(stopped()),
        }
        // The writer is taking from it all the time.
        tokio::task::yield_now().await;
    }
    answer.await.map_err(|_| stopped())?
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
            self.ask(|reply| Command::Txn(txn, Vec::new(), reply)).await
        }
        .boxed()
    }

    fn txn_then(&self, txn: Txn, then: Vec<Op>) -> BoxFuture<'_, Result<Outcome, StoreError>> {
        async move {
            check_txn(&txn)?;
            check_ops(&then)?;
            self.ask(|reply| Command::Txn(txn, then, reply)).await
        }
        .boxed()
    }

    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Record>, StoreError>> {
        async move {
            self.catch_up().await?;
            // One look-up in the page cache: cheaper than a trip to another thread.
            self.shared.get(key)
        }
        .boxed()
    }

    fn range(&self, range: Range) -> BoxFuture<'_, Result<Page, StoreError>> {
        let shared = self.shared.clone();
        async move {
            self.catch_up().await?;
            tokio::task::spawn_blocking(move || shared.range(&range))
                .await
                .map_err(|error| StoreError::Unavailable(error.to_string()))?
        }
        .boxed()
    }

    fn watch(&self, watch: Watch) -> BoxFuture<'_, Result<Batches, StoreError>> {
        std::future::ready(recent::watch(self.shared.clone(), self.queue.downgrade(), watch)).boxed()
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

/// Opens the parts of the store at `path`.
fn files(path: PathBuf) -> Opener {
    let opened = AtomicBool::new(false);
    Box::new(move |part| match part {
        Part::Database => {
            let file = open_file(&path)?;
            // A sync that failed leaves pages in memory that the disk does not have. What it does have counts.
            if opened.swap(true, Ordering::Relaxed) {
                let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
            }
            backend(file, &path)
        }
        Part::Journal(nth) => {
            let path = journal_path(&path, nth);
            backend(open_file(&path)?, &path)
        }
    })
}

/// Where a file of the journal of the store at `path` is.
#[must_use]
pub fn journal_path(path: &Path, nth: usize) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".journal-{nth}"));
    path.with_file_name(name)
}

fn open_file(path: &Path) -> Result<File, StoreError> {
    use std::os::unix::fs::OpenOptionsExt;
    let file = File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    // A new file is only there after power loss when its directory entry is.
    let synced = file.and_then(|file| {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(".".as_ref()))?.sync_all()?;
        Ok(file)
    });
    synced.map_err(|error| StoreError::Unavailable(format!("opening {}: {error}", path.display())))
}

fn backend(file: File, path: &Path) -> Result<Box<dyn StorageBackend>, StoreError> {
    let backend = redb::backends::FileBackend::new(file);
    let backend = backend.map_err(|error| StoreError::Unavailable(format!("opening {}: {error}", path.display())))?;
    Ok(Box::new(backend))
}

/// Opens the database, makes its tables, gives it what the journal has more, and reads where it stands.
fn open_database(opener: &Opener, full: u64) -> Result<Opened, StoreError> {
    let storage = Deferred::new(opener(Part::Database)?);
    let length = storage.len().map_err(|error| StoreError::Unavailable(error.to_string()))?;
    let database = Database::builder().set_cache_size(PAGE_CACHE).create_with_backend(storage.clone());
    let mut database = database.map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => {
            StoreError::Unavailable("another server has it open: stop that one first".to_owned())
        }
        error => unavailable(error),
    })?;
    // After the database, whose lock says that nobody else writes to them.
    let mut journal = Journal::new([opener(Part::Journal(0))?, opener(Part::Journal(1))?], full);
    let write = database.begin_write().map_err(unavailable)?;
    let (revision, compacted, epoch) = {
        let mut meta = write.open_table(META).map_err(unavailable)?;
        let mut log = write.open_table(LOG).map_err(unavailable)?;
        let mut latest = write.open_table(LATEST).map_err(unavailable)?;
        let mut expiries = write.open_table(EXPIRIES).map_err(unavailable)?;
        let stored = |name, meta: &redb::Table<&str, u64>| -> Result<Option<u64>, StoreError> {
            Ok(meta.get(name).map_err(unavailable)?.map(|value| value.value()))
        };
        let mut revision = stored(REVISION, &meta)?.unwrap_or(super::FIRST_REVISION);
        let epoch = match stored(JOURNAL, &meta)? {
            Some(epoch) => {
                revision = journal.replay(epoch, revision, |entry| {
                    let record = LogRecord::decode(entry.bytes)?;
                    log.insert(entry.place, entry.bytes).map_err(unavailable)?;
                    let newest = (entry.place, record.created, record.value.is_some());
                    latest.insert(record.key, newest).map_err(unavailable)?;
                    if entry.expires != 0 {
                        expiries.insert((entry.expires, record.key), entry.place).map_err(unavailable)?;
                    }
                    Ok(())
                })?;
                // Past the epoch that was begun while the database was on its way to the disk.
                epoch + 2
            }
            // By chance, so that a journal that another database left here is none of this one's.
            None => fastrand::u64(1..1 << 62),
        };
        meta.insert(REVISION, revision).map_err(unavailable)?;
        meta.insert(JOURNAL, epoch).map_err(unavailable)?;
        (revision, stored(COMPACTED, &meta)?.unwrap_or(0), epoch)
    };
    write.commit().map_err(unavailable)?;
    snapshot::compact_sparse(&mut database, length)?;
    journal.begin(epoch)?;
    Ok(Opened { database, disk: Disk { storage, journal }, revision, compacted })
}
