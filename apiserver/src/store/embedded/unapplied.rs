//! Writes that the journal has and redb has not yet.
//!
//! ```text
//!  group ─► journal, synced ─► events, replies
//!     └────► next ── many of them, or a reader asks ──► on their way ── a thread, one redb transaction ──► redb
//! ```
//!
//! A redb transaction costs about as much as two of the writes in it, and the work for one delays no client: while redb is
//! given a hundred writes, the writer takes the next. What a key is, is asked of the next, of those on their way, and of redb as it
//! was before them. Whoever reads from redb has it brought up to date first.

use super::super::{Record, Revision, StoreError};
use super::read::{record_at, unavailable};
use super::tables::{EXPIRIES, LATEST, LOG, Latest, LogRecord, META, REVISION, revision_of};
use bytes::Bytes;
use redb::{Database, ReadOnlyTable, ReadableDatabase, WriteTransaction};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender, TryRecvError};

/// So many writes, or so many bytes of keys and values, are worth a transaction of redb's.
const MANY: usize = 128;
const MANY_BYTES: usize = 1 << 20;

/// So many times as many wait for those that are on their way, and no more.
const BEHIND: usize = 16;

/// One write, as the log is to have it.
struct Write {
    place: u64,
    /// When it expires, in ms; 0 when it does not.
    expires: u64,
    previous: u64,
    created: Revision,
    key: Arc<str>,
    /// Absent in a tombstone.
    value: Option<Bytes>,
}

impl Write {
    fn record(&self) -> LogRecord<'_> {
        LogRecord { previous: self.previous, created: self.created, key: &self.key, value: self.value.as_deref() }
    }
}

/// Writes that go to redb together.
#[derive(Default)]
pub(super) struct Batch {
    /// In order of their places.
    writes: Vec<Write>,
    /// Where in `writes` a key's newest write is.
    newest: HashMap<Arc<str>, usize>,
    /// Rows of the table of expiries that are done with.
    spent: Vec<(u64, String)>,
    bytes: usize,
}

impl Batch {
    fn newest(&self, key: &str) -> Option<&Write> {
        self.newest.get(key).map(|at| &self.writes[*at])
    }

    fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.spent.is_empty()
    }

    fn is_times(&self, times: usize) -> bool {
        self.writes.len() >= MANY * times || self.bytes >= MANY_BYTES * times
    }

    /// Writes everything into a transaction, after which the store is at `revision`.
    pub(super) fn write_to(&self, write: &WriteTransaction, revision: Revision) -> Result<(), StoreError> {
        let mut log = write.open_table(LOG).map_err(unavailable)?;
        let mut latest = write.open_table(LATEST).map_err(unavailable)?;
        let mut buffer = Vec::new();
        for write in &self.writes {
            buffer.clear();
            write.record().encode(&mut buffer);
            log.insert(write.place, buffer.as_slice()).map_err(unavailable)?;
        }
        // In order of the keys: neighbours are on one page.
        let mut newest: Vec<&Write> = self.newest.values().map(|at| &self.writes[*at]).collect();
        newest.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        for write in newest {
            let row = (write.place, write.created, write.value.is_some());
            latest.insert(&*write.key, row).map_err(unavailable)?;
        }
        let expiring = || self.writes.iter().filter(|write| write.expires != 0);
        if expiring().next().is_some() || !self.spent.is_empty() {
            let mut expiries = write.open_table(EXPIRIES).map_err(unavailable)?;
            for write in expiring() {
                expiries.insert((write.expires, &*write.key), write.place).map_err(unavailable)?;
            }
            for (time, key) in &self.spent {
                expiries.remove((*time, key.as_str())).map_err(unavailable)?;
            }
        }
        let mut meta = write.open_table(META).map_err(unavailable)?;
        meta.insert(REVISION, revision).map_err(unavailable)?;
        Ok(())
    }
}

/// What redb has, as it was before what is on its way to it.
struct Applied {
    log: ReadOnlyTable<u64, &'static [u8]>,
    latest: ReadOnlyTable<&'static str, Latest>,
}

type Brought = Result<(), StoreError>;
type Job = Box<dyn FnOnce() -> Brought + Send>;

/// The thread that brings them, one batch at a time. It is one for all: what redb allocates outlives a batch.
struct Bringer {
    jobs: SyncSender<Job>,
    results: Receiver<Brought>,
}

impl Bringer {
    fn start() -> Result<Self, StoreError> {
        let (jobs, waiting) = mpsc::sync_channel::<Job>(1);
        let (done, results) = mpsc::sync_channel(1);
        let run = move || {
            while let Ok(job) = waiting.recv() {
                // By now the job holds nothing of the database's any more.
                let result = job();
                if done.send(result).is_err() {
                    break;
                }
            }
        };
        let thread = std::thread::Builder::new().name("store-apply".to_owned()).spawn(run);
        let no_thread = |error| StoreError::Unavailable(format!("starting a thread of the store's: {error}"));
        thread.map(|_| Self { jobs, results }).map_err(no_thread)
    }
}

#[derive(Default)]
pub(super) struct Unapplied {
    next: Batch,
    on_their_way: Option<Arc<Batch>>,
    /// What became of them, if that is known.
    brought: Option<Brought>,
    bringer: Option<Bringer>,
    /// A snapshot of redb's keeps pages from being used again: it goes when what was on its way is there.
    applied: Option<Applied>,
}

impl Unapplied {
    /// Reads what is not here from `database` from now on, if it does not yet.
    pub(super) fn begin(&mut self, database: &Database) -> Result<(), StoreError> {
        if self.applied.is_none() {
            let read = database.begin_read().map_err(unavailable)?;
            let log = read.open_table(LOG).map_err(unavailable)?;
            self.applied = Some(Applied { log, latest: read.open_table(LATEST).map_err(unavailable)? });
        }
        Ok(())
    }

    fn applied(&self) -> Result<&Applied, StoreError> {
        self.applied.as_ref().ok_or_else(|| StoreError::Unavailable("the database is closed".to_owned()))
    }

    fn newest(&self, key: &str) -> Option<&Write> {
        let before = || self.on_their_way.as_ref().and_then(|batch| batch.newest(key));
        self.next.newest(key).or_else(before)
    }

    /// Where a key's newest write is.
    pub(super) fn latest(&self, key: &str) -> Result<Option<Latest>, StoreError> {
        match self.newest(key) {
            Some(write) => Ok(Some((write.place, write.created, write.value.is_some()))),
            None => Ok(self.applied()?.latest.get(key).map_err(unavailable)?.map(|row| row.value())),
        }
    }

    /// A key as it is now, if it lives.
    pub(super) fn current(&self, key: &str) -> Result<Option<Record>, StoreError> {
        if let Some(write) = self.newest(key) {
            let record = |value: &Bytes| Record {
                key: write.key.clone(),
                value: value.clone(),
                created: write.created,
                modified: revision_of(write.place),
            };
            return Ok(write.value.as_ref().map(record));
        }
        let applied = self.applied()?;
        match applied.latest.get(key).map_err(unavailable)?.map(|row| row.value()) {
            Some((place, created, true)) => record_at(&applied.log, place, created),
            _ => Ok(None),
        }
    }

    /// Adds a write, whose log record is also put into `record`.
    pub(super) fn push(
        &mut self,
        place: u64,
        expires: u64,
        (previous, created): (u64, Revision),
        key: Arc<str>,
        value: Option<Bytes>,
        record: &mut Vec<u8>,
    ) {
        let write = Write { place, expires, previous, created, key, value };
        record.clear();
        write.record().encode(record);
        self.next.bytes += record.len();
        self.next.newest.insert(write.key.clone(), self.next.writes.len());
        self.next.writes.push(write);
    }

    /// A row of the table of expiries is done with.
    pub(super) fn spend(&mut self, time: u64, key: String) {
        self.next.spent.push((time, key));
    }

    /// Whether nothing waits to be brought to redb.
    pub(super) fn is_empty(&self) -> bool {
        self.next.is_empty()
    }

    /// Whether a transaction is worth it.
    pub(super) fn are_many(&self) -> bool {
        self.next.is_times(1)
    }

    /// Whether the writer must wait for what is on its way: memory is bounded.
    pub(super) fn are_too_many(&self) -> bool {
        self.next.is_times(BEHIND)
    }

    /// Whether some are on their way still.
    pub(super) fn are_on_their_way(&mut self) -> bool {
        if let (Some(bringer), Some(_), None) = (&self.bringer, &self.on_their_way, &self.brought) {
            match bringer.results.try_recv() {
                Ok(result) => self.brought = Some(result),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => {}
            }
        }
        false
    }

    /// What is next goes on its way: a thread does `bring`. Nothing may be on its way.
    ///
    /// # Errors
    /// Where no thread can be had: then they are in the journal alone.
    pub(super) fn send(&mut self, bring: impl FnOnce(&Batch) -> Brought + Send + 'static) -> Result<(), StoreError> {
        let bringer = match self.bringer.take() {
            Some(bringer) => bringer,
            None => Bringer::start()?,
        };
        let batch = Arc::new(std::mem::take(&mut self.next));
        let theirs = batch.clone();
        self.on_their_way = Some(batch);
        let sent = bringer.jobs.send(Box::new(move || bring(&theirs)));
        self.bringer = Some(bringer);
        sent.map_err(|_| ended())
    }

    /// Waits for what is on its way.
    pub(super) fn arrive(&mut self) -> Result<(), StoreError> {
        if self.on_their_way.is_none() {
            return Ok(());
        }
        let waited = || self.bringer.as_ref().and_then(|bringer| bringer.results.recv().ok());
        let brought = self.brought.take().or_else(waited);
        self.on_their_way = None;
        self.applied = None;
        brought.unwrap_or_else(|| {
            self.bringer = None;
            Err(ended())
        })
    }

    /// Forgets everything: it will be read from the journal. What is on its way is waited for: it has the database.
    pub(super) fn clear(&mut self) {
        let _ = self.arrive();
        *self = Self { bringer: self.bringer.take(), ..Self::default() };
    }
}

fn ended() -> StoreError {
    StoreError::Unavailable("a thread of the store's has ended".to_owned())
}
