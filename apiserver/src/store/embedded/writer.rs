//! The writer: one thread that takes waiting transactions together and syncs them once, in the journal. What they wrote is
//! given to redb when its clients have been answered.

use super::super::{Event, Op, Outcome, Revision, StoreError, Txn};
use super::journal::Entry;
use super::read::unavailable;
use super::tables::{EXPIRIES, JOURNAL, META, position, revision_of};
use super::unapplied::Unapplied;
use super::{Command, Disk, Journal, Opener, Recent, Shared, open_database};
use bytes::Bytes;
use redb::{Durability, ReadableDatabase, StorageError, WriteTransaction};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// How many commands share one sync at most; bounds the memory of what redb is given at once.
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
    /// What the journal has and the database has not.
    unapplied: Unapplied,
}

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// An answer that is known but may only be given once the group is synced.
struct Pending(Reply<Outcome>, Result<Outcome, StoreError>);

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, opener: Opener, full: u64, disk: Disk) -> Self {
        Self { shared, opener, full, disk: Some(disk), unapplied: Unapplied::default() }
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
                    Command::Apply(reply) => {
                        self.commit_group(&mut group);
                        let _ = reply.send(self.apply());
                    }
                    Command::Compact(revision, reply) => {
                        self.commit_group(&mut group);
                        let compacted = self.ready().and_then(|()| self.apply()).and_then(|()| self.compact(revision));
                        let _ = reply.send(compacted);
                    }
                    Command::Expire(reply) => {
                        self.commit_group(&mut group);
                        let _ = reply.send(self.ready().and_then(|()| self.expire()));
                    }
                }
            }
            self.commit_group(&mut group);
            // Whoever comes next opens the database again: what was answered is in the journal.
            if self.disk.is_some()
                && let Err(error) = self.send()
            {
                self.close(&error);
            }
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
        self.forget();
        *self.shared.database.write() = Some(opened.database);
        *self.shared.recent.write() = Recent::starting_after(opened.revision);
        self.shared.compacted.store(opened.compacted, Ordering::Release);
        self.shared.revision.send_replace(opened.revision);
        Ok(())
    }

    /// Closes the database after an I/O error: redb takes no commit before the file is opened again.
    pub(super) fn close(&mut self, error: &StoreError) {
        tracing::error!(%error, "the store cannot write and will be opened again");
        self.forget();
        drop(self.shared.database.write().take());
        self.disk = None;
    }

    /// Nothing is left that redb would have to be given.
    fn forget(&mut self) {
        self.unapplied.clear();
        self.shared.behind.store(false, Ordering::Release);
    }

    pub(super) fn begin(&self) -> Result<WriteTransaction, StoreError> {
        self.shared.begin_write()
    }

    /// Takes the transactions of the group in turn; every reply follows the sync.
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
        let mut taking = self.take()?;
        for (txn, then, reply) in group.drain(..) {
            let outcome = taking.take_both(txn, then);
            let failed = outcome.as_ref().err().cloned();
            pending.push(Pending(reply, outcome));
            if let Some(error) = failed {
                return Err(error);
            }
        }
        let (revision, events) = (taking.revision, taking.events);
        self.sync(revision, events)
    }

    fn take(&mut self) -> Result<Taking<'_>, StoreError> {
        if !self.unapplied.are_on_their_way() {
            self.unapplied.arrive()?;
        }
        self.unapplied.begin(self.shared.database.read().as_ref().ok_or_else(closed)?)?;
        let revision = *self.shared.revision.borrow();
        Ok(Taking {
            unapplied: &mut self.unapplied,
            journal: &mut self.disk.as_mut().ok_or_else(closed)?.journal,
            revision,
            now: now_ms(&self.shared),
            events: Vec::new(),
            record: Vec::new(),
        })
    }

    /// Syncs in the journal and publishes.
    fn sync(&mut self, revision: Revision, events: Vec<Event>) -> Result<(), StoreError> {
        if events.is_empty() {
            return Ok(());
        }
        let disk = self.disk.as_mut().ok_or_else(closed)?;
        let first = *self.shared.revision.borrow() + 1;
        disk.journal.commit(first, revision)?;
        // Before anybody hears of them: who then reads from redb has it brought up to them.
        self.shared.behind.store(true, Ordering::Release);
        self.shared.recent.write().extend(events);
        self.shared.revision.send_replace(revision);
        Ok(())
    }

    /// Brings to redb what is worth it, while the next are taken; a file of the journal that is full is done with.
    fn send(&mut self) -> Result<(), StoreError> {
        let disk = self.disk.as_ref().ok_or_else(closed)?;
        if disk.journal.is_overfull() {
            // Its other file is needed until the disk has what was in it: that must be waited for.
            self.apply_all()?;
            let write = self.begin()?;
            return self.commit(write, true);
        }
        if self.unapplied.are_too_many() {
            return self.apply_all();
        }
        let is_due = self.unapplied.are_many() || disk.journal.is_full();
        if is_due && !self.unapplied.are_on_their_way() { self.send_all() } else { Ok(()) }
    }

    /// Brings everything to redb, and waits until it is there.
    fn apply(&mut self) -> Result<(), StoreError> {
        self.apply_all().inspect_err(|error| self.close(error))
    }

    fn apply_all(&mut self) -> Result<(), StoreError> {
        self.send_all()?;
        self.unapplied.arrive()?;
        self.shared.behind.store(false, Ordering::Release);
        Ok(())
    }

    fn send_all(&mut self) -> Result<(), StoreError> {
        self.unapplied.arrive()?;
        if self.unapplied.is_empty() {
            return Ok(());
        }
        let disk = self.disk.as_mut().ok_or_else(closed)?;
        let settled = disk.storage.is_settled().map_err(|error| unavailable(StorageError::Io(error)))?;
        // What the other file of the journal has must be on the disk before that is written over.
        let to_disk = disk.journal.is_full() && settled;
        let epoch = to_disk.then(|| disk.journal.epoch() + 1);
        let (shared, storage) = (self.shared.clone(), disk.storage.clone());
        let revision = *self.shared.revision.borrow();
        self.unapplied.send(move |batch| {
            let mut write = shared.begin_write()?;
            batch.write_to(&write, revision)?;
            if let Some(epoch) = epoch {
                begin_epoch(&write, epoch)?;
                write.set_durability(Durability::Immediate).map_err(unavailable)?;
                return storage.without_waiting(|| write.commit()).map_err(unavailable);
            }
            write.set_durability(Durability::None).map_err(unavailable)?;
            write.commit().map_err(unavailable)
        })?;
        // The database need not have said so: what opens it reads the epoch after the one that it tells of, too.
        epoch.map_or(Ok(()), |epoch| disk.journal.begin(epoch))
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
        let epoch = disk.journal.epoch() + 1;
        begin_epoch(&write, epoch)?;
        write.set_durability(Durability::Immediate).map_err(unavailable)?;
        disk.storage.without_waiting(|| write.commit()).map_err(unavailable)?;
        disk.journal.begin(epoch)
    }

    /// Leaves nothing to the journal.
    fn settle(&mut self) -> Result<(), StoreError> {
        self.apply()?;
        if self.disk.as_ref().is_none_or(|disk| disk.journal.is_empty()) {
            return Ok(());
        }
        let write = self.begin()?;
        let disk = self.disk.as_mut().ok_or_else(closed)?;
        let epoch = disk.journal.epoch() + 1;
        begin_epoch(&write, epoch)?;
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
        self.apply_all()?;
        let due = self.due()?;
        let mut taking = self.take()?;
        let mut deleted = 0;
        for (time, key, place) in due.iter().cloned() {
            // Only if the key was not written since: a later write has its own time to live, or none.
            if taking.unapplied.latest(&key)?.is_some_and(|(newest, _, alive)| alive && newest == place) {
                taking.take(Txn { compare: Vec::new(), ops: vec![Op::delete(key.as_str())] })?;
                deleted += 1;
            }
            taking.unapplied.spend(time, key);
        }
        let (revision, events) = (taking.revision, taking.events);
        self.sync(revision, events)?;
        // The next chunk must not find these again.
        self.apply_all()?;
        Ok((due.len(), deleted))
    }

    /// Some rows of the table of expiries whose time has come.
    fn due(&self) -> Result<Vec<(u64, String, u64)>, StoreError> {
        let now = now_ms(&self.shared);
        let read = self.shared.database.read().as_ref().ok_or_else(closed)?.begin_read().map_err(unavailable)?;
        let expiries = read.open_table(EXPIRIES).map_err(unavailable)?;
        let rows = expiries.range(..=(now, "")).map_err(unavailable)?.take(EXPIRE_CHUNK);
        rows.map(|row| {
            let (key, place) = row.map_err(unavailable)?;
            Ok((key.value().0, key.value().1.to_owned(), place.value()))
        })
        .collect()
    }
}

fn closed() -> StoreError {
    StoreError::Unavailable("the database is closed".to_owned())
}

/// Says in the transaction that what the journal had before `epoch` is in the database with it.
fn begin_epoch(write: &WriteTransaction, epoch: u64) -> Result<(), StoreError> {
    write.open_table(META).map_err(unavailable)?.insert(JOURNAL, epoch).map_err(unavailable)?;
    Ok(())
}

fn now_ms(shared: &Shared) -> u64 {
    u64::try_from(shared.clock.now().as_millisecond()).unwrap_or(0)
}

/// Transactions as they are taken.
struct Taking<'a> {
    unapplied: &'a mut Unapplied,
    journal: &'a mut Journal,
    revision: Revision,
    now: u64,
    events: Vec<Event>,
    record: Vec<u8>,
}

impl Taking<'_> {
    /// A transaction, and what follows it as a revision of its own.
    fn take_both(&mut self, txn: Txn, then: Vec<Op>) -> Result<Outcome, StoreError> {
        match self.take(txn)? {
            Outcome::Committed(_) if !then.is_empty() => self.take(Txn { compare: Vec::new(), ops: then }),
            outcome => Ok(outcome),
        }
    }

    fn take(&mut self, txn: Txn) -> Result<Outcome, StoreError> {
        for compare in &txn.compare {
            let modified = match self.unapplied.latest(&compare.key)? {
                Some((place, _, true)) => revision_of(place),
                _ => 0,
            };
            if modified != compare.modified {
                let current = txn.compare.iter().map(|compare| self.unapplied.current(&compare.key));
                return current.collect::<Result<_, _>>().map(Outcome::Conflict);
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
        let (previous, created) = match self.unapplied.latest(&key)? {
            Some((place, created, true)) => (place, created),
            Some((place, _, false)) => (place, revision),
            None => (0, revision),
        };
        let due = ttl.map(|ttl| self.now.saturating_add(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)));
        self.write(position(revision, index), due.unwrap_or(0), (previous, created), key, Some(value));
        Ok(())
    }

    fn delete(&mut self, revision: Revision, index: usize, key: Arc<str>) -> Result<(), StoreError> {
        if let Some((previous, created, true)) = self.unapplied.latest(&key)? {
            self.write(position(revision, index), 0, (previous, created), key, None);
        }
        Ok(())
    }

    fn write(&mut self, place: u64, expires: u64, from: (u64, Revision), key: Arc<str>, value: Option<Bytes>) {
        let (created, modified) = (from.1, revision_of(place));
        self.events.push(Event { key: key.clone(), value: value.clone(), previous: None, created, modified });
        self.unapplied.push(place, expires, from, key, value, &mut self.record);
        self.journal.push(Entry { place, expires, bytes: &self.record });
    }
}
