//! The writer: one thread that applies waiting transactions together and syncs them once, in the journal.

use super::super::{Event, Op, Outcome, Record, Revision, StoreError, Txn};
use super::journal::Entry;
use super::read::unavailable;
use super::tables::{EXPIRIES, JOURNAL, LATEST, LOG, Latest, LogRecord, META, REVISION, position, revision_of};
use super::{Command, Disk, Journal, Opener, Recent, Shared, open_database};
use bytes::Bytes;
use redb::{Durability, ReadableTable, StorageError, Table, WriteTransaction};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// How many commands share one sync at most; bounds the memory of one redb transaction.
const GROUP: usize = 1024;

/// Expired keys that are deleted in one transaction.
const EXPIRE_CHUNK: usize = 100;

pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    opener: Opener,
    /// How long a file of the journal gets.
    full: u64,
    /// What is below the database; None while that is closed.
    disk: Option<Disk>,
}

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// An answer that is known but may only be given once the group is synced.
struct Pending(Reply<Outcome>, Result<Outcome, StoreError>);

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, opener: Opener, full: u64, disk: Disk) -> Self {
        Self { shared, opener, full, disk: Some(disk) }
    }

    /// Serves commands until the queue is closed and empty.
    pub(super) fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut waiting = Vec::new();
        let mut busy = false;
        while commands.blocking_recv_many(&mut waiting, GROUP) > 0 {
            if busy {
                // Where there is more to do than processors, others are about to ask: a larger group costs each less. On an
                // idle machine this returns at once.
                std::thread::yield_now();
                while waiting.len() < GROUP
                    && let Ok(command) = commands.try_recv()
                {
                    waiting.push(command);
                }
            }
            busy = waiting.len() > 1;
            let mut group = Vec::with_capacity(waiting.len());
            for command in waiting.drain(..) {
                match command {
                    Command::Txn(txn, then, reply) => group.push((txn, then, reply)),
                    Command::Compact(revision, reply) => {
                        self.commit_group(&mut group);
                        let _ = reply.send(self.ready().and_then(|()| self.compact(revision)));
                    }
                    Command::Expire(reply) => {
                        self.commit_group(&mut group);
                        let _ = reply.send(self.ready().and_then(|()| self.expire()));
                    }
                }
            }
            self.commit_group(&mut group);
        }
        if let Err(error) = self.settle() {
            tracing::warn!(%error, "the newest writes stay in the journal alone until the store is opened again");
        }
    }

    /// Opens the database again if an I/O error closed it.
    fn ready(&mut self) -> Result<(), StoreError> {
        match self.disk.as_ref().map(|disk| disk.storage.is_settled()) {
            Some(Ok(_)) => return Ok(()),
            Some(Err(error)) => self.close(&unavailable(StorageError::Io(error))),
            None => {}
        }
        let opened = open_database(&self.opener, self.full)?;
        tracing::info!(revision = opened.revision, "the store is open again");
        // What a failed commit left behind, if it did get through, was never published: watchers find it in the log.
        self.disk = Some(opened.disk);
        *self.shared.database.write() = Some(opened.database);
        *self.shared.recent.write() = Recent::starting_after(opened.revision);
        self.shared.compacted.store(opened.compacted, Ordering::Release);
        self.shared.revision.send_replace(opened.revision);
        Ok(())
    }

    /// Closes the database after an I/O error: redb takes no commit before the file is opened again.
    pub(super) fn close(&mut self, error: &StoreError) {
        tracing::error!(%error, "the store cannot write and will be opened again");
        drop(self.shared.database.write().take());
        self.disk = None;
    }

    pub(super) fn begin(&self) -> Result<WriteTransaction, StoreError> {
        self.shared.database.read().as_ref().ok_or_else(closed)?.begin_write().map_err(unavailable)
    }

    /// Applies the group as one redb transaction; every reply follows the sync.
    fn commit_group(&mut self, group: &mut Vec<(Txn, Vec<Op>, Reply<Outcome>)>) {
        if group.is_empty() {
            return;
        }
        if let Err(error) = self.ready() {
            for (.., reply) in group.drain(..) {
                let _ = reply.send(Err(error.clone()));
            }
            return;
        }
        let mut pending = Vec::with_capacity(group.len());
        match self.apply_group(group, &mut pending) {
            Ok(()) => {
                for Pending(reply, outcome) in pending {
                    let _ = reply.send(outcome);
                }
            }
            Err(error) => {
                self.close(&error);
                let replies = pending.into_iter().map(|Pending(reply, _)| reply);
                for reply in replies.chain(group.drain(..).map(|(.., reply)| reply)) {
                    let _ = reply.send(Err(error.clone()));
                }
            }
        }
    }

    fn apply_group(
        &mut self,
        group: &mut Vec<(Txn, Vec<Op>, Reply<Outcome>)>,
        pending: &mut Vec<Pending>,
    ) -> Result<(), StoreError> {
        let write = self.begin()?;
        let disk = self.disk.as_mut().ok_or_else(closed)?;
        let mut batch = Applying::open(&write, &self.shared, &mut disk.journal)?;
        for (txn, then, reply) in group.drain(..) {
            let outcome = batch.apply_both(txn, then);
            let failed = outcome.as_ref().err().cloned();
            pending.push(Pending(reply, outcome));
            if let Some(error) = failed {
                return Err(error);
            }
        }
        let (revision, events) = batch.finish()?;
        self.sync(write, revision, events)
    }

    /// Syncs in the journal, commits and publishes.
    fn sync(&mut self, write: WriteTransaction, revision: Revision, events: Vec<Event>) -> Result<(), StoreError> {
        if events.is_empty() {
            return write.abort().map_err(unavailable);
        }
        let disk = self.disk.as_mut().ok_or_else(closed)?;
        let first = *self.shared.revision.borrow() + 1;
        disk.journal.commit(first, revision)?;
        let full = disk.journal.is_full();
        self.commit(write, full)?;
        self.shared.recent.write().extend(events);
        self.shared.revision.send_replace(revision);
        Ok(())
    }

    /// Commits, in memory or, if `to_disk`, to the disk, unless it has not yet done with the commit before; nobody waits
    /// for it, since the journal has every write.
    pub(super) fn commit(&mut self, mut write: WriteTransaction, to_disk: bool) -> Result<(), StoreError> {
        let disk = self.disk.as_mut().ok_or_else(closed)?;
        let settled = to_disk && disk.storage.is_settled().map_err(|error| unavailable(StorageError::Io(error)))?;
        if !settled && !disk.journal.is_overfull() {
            write.set_durability(Durability::None).map_err(unavailable)?;
            return write.commit().map_err(unavailable);
        }
        let epoch = begin_epoch(&write, &disk.journal)?;
        write.set_durability(Durability::Immediate).map_err(unavailable)?;
        disk.storage.without_waiting(|| write.commit()).map_err(unavailable)?;
        disk.journal.begin(epoch)
    }

    /// Leaves nothing to the journal.
    fn settle(&mut self) -> Result<(), StoreError> {
        if self.disk.as_ref().is_none_or(|disk| disk.journal.is_empty()) {
            return Ok(());
        }
        let write = self.begin()?;
        let disk = self.disk.as_mut().ok_or_else(closed)?;
        let epoch = begin_epoch(&write, &disk.journal)?;
        write.commit().map_err(unavailable)?;
        disk.journal.begin(epoch)
    }

    /// Deletes some of the keys whose time to live has passed, each as a revision of its own.
    fn expire(&mut self) -> Result<(usize, bool), StoreError> {
        let (rows, deleted) = self.expire_chunk().inspect_err(|error| self.close(error))?;
        Ok((deleted, rows == EXPIRE_CHUNK))
    }

    /// How many rows of the table of expiries went, and how many keys with them.
    fn expire_chunk(&mut self) -> Result<(usize, usize), StoreError> {
        let now = now_ms(&self.shared);
        let write = self.begin()?;
        let mut due = Vec::new();
        {
            let mut expiries = write.open_table(EXPIRIES).map_err(unavailable)?;
            for row in expiries.range(..=(now, "")).map_err(unavailable)?.take(EXPIRE_CHUNK) {
                let (key, place) = row.map_err(unavailable)?;
                due.push((key.value().0, key.value().1.to_owned(), place.value()));
            }
            for (time, key, _) in &due {
                expiries.remove((*time, key.as_str())).map_err(unavailable)?;
            }
        }
        if due.is_empty() {
            write.abort().map_err(unavailable)?;
            return Ok((0, 0));
        }
        let disk = self.disk.as_mut().ok_or_else(closed)?;
        let mut batch = Applying::open(&write, &self.shared, &mut disk.journal)?;
        let mut deleted = 0;
        for (_, key, place) in &due {
            // Only if the key was not written since: a later write has its own time to live, or none.
            if batch.latest(key)?.is_some_and(|(newest, _, alive)| alive && newest == *place) {
                batch.apply(Txn { compare: Vec::new(), ops: vec![Op::delete(key.as_str())] })?;
                deleted += 1;
            }
        }
        let (revision, events) = batch.finish()?;
        if events.is_empty() {
            self.commit(write, false)?;
        } else {
            self.sync(write, revision, events)?;
        }
        Ok((due.len(), deleted))
    }
}

fn closed() -> StoreError {
    StoreError::Unavailable("the database is closed".to_owned())
}

/// Says in the transaction that what the journal has so far is in the database with it.
fn begin_epoch(write: &WriteTransaction, journal: &Journal) -> Result<u64, StoreError> {
    let epoch = journal.epoch() + 1;
    write.open_table(META).map_err(unavailable)?.insert(JOURNAL, epoch).map_err(unavailable)?;
    Ok(epoch)
}

fn now_ms(shared: &Shared) -> u64 {
    u64::try_from(shared.clock.now().as_millisecond()).unwrap_or(0)
}

/// The tables of a write transaction while transactions are applied to it.
struct Applying<'txn> {
    log: Table<'txn, u64, &'static [u8]>,
    latest: Table<'txn, &'static str, Latest>,
    write: &'txn WriteTransaction,
    journal: &'txn mut Journal,
    /// Opened for the first write that expires: most groups have none.
    expiries: Option<Table<'txn, (u64, &'static str), u64>>,
    revision: Revision,
    first: Revision,
    now: u64,
    events: Vec<Event>,
    buffer: Vec<u8>,
}

impl<'txn> Applying<'txn> {
    fn open(write: &'txn WriteTransaction, shared: &Shared, journal: &'txn mut Journal) -> Result<Self, StoreError> {
        let revision = *shared.revision.borrow();
        Ok(Self {
            log: write.open_table(LOG).map_err(unavailable)?,
            latest: write.open_table(LATEST).map_err(unavailable)?,
            write,
            journal,
            expiries: None,
            revision,
            first: revision,
            now: now_ms(shared),
            events: Vec::new(),
            buffer: Vec::new(),
        })
    }

    fn latest(&self, key: &str) -> Result<Option<Latest>, StoreError> {
        Ok(self.latest.get(key).map_err(unavailable)?.map(|row| row.value()))
    }

    /// A transaction, and what follows it as a revision of its own.
    fn apply_both(&mut self, txn: Txn, then: Vec<Op>) -> Result<Outcome, StoreError> {
        match self.apply(txn)? {
            Outcome::Committed(_) if !then.is_empty() => self.apply(Txn { compare: Vec::new(), ops: then }),
            outcome => Ok(outcome),
        }
    }

    fn apply(&mut self, txn: Txn) -> Result<Outcome, StoreError> {
        for compare in &txn.compare {
            let modified = match self.latest(&compare.key)? {
                Some((place, _, true)) => revision_of(place),
                _ => 0,
            };
            if modified != compare.modified {
                return self.conflict(&txn);
            }
        }
        let revision = self.revision + 1;
        let before = self.events.len();
        for (index, op) in txn.ops.into_iter().enumerate() {
            match op {
                Op::Put { key, value, ttl } => self.put(revision, index, key, value, ttl)?,
                Op::Delete { key } => self.delete(revision, index, key)?,
            }
        }
        if self.events.len() > before {
            self.revision = revision;
        }
        Ok(Outcome::Committed(self.revision))
    }

    fn put(
        &mut self,
        revision: Revision,
        index: usize,
        key: Arc<str>,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> Result<(), StoreError> {
        let (previous, created) = match self.latest(&key)? {
            Some((place, created, true)) => (place, created),
            Some((place, _, false)) => (place, revision),
            None => (0, revision),
        };
        let place = position(revision, index);
        let due = ttl.map(|ttl| self.now.saturating_add(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)));
        self.append(place, due, LogRecord { previous, created, key: &key, value: Some(&value) })?;
        self.latest.insert(&*key, (place, created, true)).map_err(unavailable)?;
        if let Some(due) = due {
            let expiries = match &mut self.expiries {
                Some(expiries) => expiries,
                none => none.insert(self.write.open_table(EXPIRIES).map_err(unavailable)?),
            };
            expiries.insert((due, &*key), place).map_err(unavailable)?;
        }
        self.events.push(Event { key, value: Some(value), previous: None, created, modified: revision });
        Ok(())
    }

    fn delete(&mut self, revision: Revision, index: usize, key: Arc<str>) -> Result<(), StoreError> {
        let Some((previous, created, true)) = self.latest(&key)? else { return Ok(()) };
        let place = position(revision, index);
        self.append(place, None, LogRecord { previous, created, key: &key, value: None })?;
        self.latest.insert(&*key, (place, created, false)).map_err(unavailable)?;
        self.events.push(Event { key, value: None, previous: None, created, modified: revision });
        Ok(())
    }

    fn append(&mut self, place: u64, due: Option<u64>, record: LogRecord<'_>) -> Result<(), StoreError> {
        self.buffer.clear();
        record.encode(&mut self.buffer);
        self.journal.push(Entry { place, expires: due.unwrap_or(0), bytes: &self.buffer });
        self.log.insert(place, self.buffer.as_slice()).map_err(unavailable)?;
        Ok(())
    }

    /// The current records of what a transaction compared.
    fn conflict(&self, txn: &Txn) -> Result<Outcome, StoreError> {
        let mut current = Vec::with_capacity(txn.compare.len());
        for compare in &txn.compare {
            let Some((place, created, true)) = self.latest(&compare.key)? else {
                current.push(None);
                continue;
            };
            let row = self.log.get(place).map_err(unavailable)?;
            let row = row.ok_or_else(|| StoreError::Damaged(format!("the log misses position {place}")))?;
            let value = LogRecord::decode(row.value())?.bytes().unwrap_or_default();
            current.push(Some(Record { key: compare.key.clone(), value, created, modified: revision_of(place) }));
        }
        Ok(Outcome::Conflict(current))
    }

    fn finish(self) -> Result<(Revision, Vec<Event>), StoreError> {
        if self.revision != self.first {
            let mut meta = self.write.open_table(META).map_err(unavailable)?;
            meta.insert(REVISION, self.revision).map_err(unavailable)?;
        }
        Ok((self.revision, self.events))
    }
}
