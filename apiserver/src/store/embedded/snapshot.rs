//! Backup, restore and defragmentation of the embedded store.
//!
//! A backup is one redb read transaction written out, so it is consistent and nobody waits for it:
//!
//! ```text
//! "coracle store 1\n"  revision
//! 1 position created expires key value      for every key that lives, in order; numbers big-endian, texts with length
//! 0 count sha256                            of all bytes before the sum
//! ```
//!
//! A restored store goes on far ahead of the backup's revision, and everything up to there counts as compacted: what a
//! client saw after the backup was taken did not happen, so it must not resume a watch from there but read again (as
//! `etcdutl snapshot restore --bump-revision --mark-compacted`).

use super::super::{MAX_VALUE, Pieces, Revision, StoreError};
use super::deferred::Deferred;
use super::journal::FULL;
use super::read::unavailable;
use super::tables::{COMPACTED, EXPIRIES, LATEST, LOG, LogRecord, META, REVISION, revision_of};
use super::{Embedded, PAGE_CACHE, backend, catch_up, files, open_database, open_file};
use bytes::Bytes;
use futures::StreamExt;
use redb::{Database, DatabaseError, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;
use tokio::sync::mpsc;

const MAGIC: &[u8] = b"coracle store 1\n";
const RECORD: u8 = 1;
const END: u8 = 0;

/// How far a restored store is ahead of its backup: more than anybody writes between a backup and its use.
pub const BUMP: u64 = 1_000_000_000;

/// The longest key that a backup may hold.
const MAX_KEY: usize = 64 << 10;

/// Bytes that a backup hands on at a time, and how many of those may wait for the reader.
const PIECE: usize = 256 << 10;
const PIECES: usize = 4;

/// Records that are written in one transaction of a restore.
const CHUNK: usize = 1000;

/// A file is compacted when it is opened if it is at least so large and no more than a third of it is used.
const COMPACT_FROM: u64 = 64 << 20;
const USED_THIRD: u64 = 3;

/// What a backup or a restored store holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The revision of the backup, or the one that the restored store goes on from.
    pub revision: Revision,
    pub keys: u64,
}

impl Embedded {
    /// A backup of the store as it is now.
    ///
    /// # Errors
    /// When the store is closed after an I/O error.
    pub(super) fn backup_pieces(&self) -> Result<Pieces, StoreError> {
        // One that is closed is to be told at once.
        drop(self.shared.begin()?);
        let (sender, receiver) = mpsc::channel(PIECES);
        let (shared, queue) = (self.shared.clone(), self.queue.downgrade());
        tokio::spawn(async move {
            let begun = catch_up(&shared, &queue).await.and_then(|()| shared.begin());
            tokio::task::spawn_blocking(move || {
                let mut out = Channel { sender: sender.clone(), piece: Vec::with_capacity(PIECE) };
                let written = begun.and_then(|read| write_backup(&read, &mut out));
                if let Err(error) = written.and_then(|_| out.flush().map_err(broken)) {
                    // Nobody listens to a backup whose reader has gone.
                    let _ = sender.blocking_send(Err(error));
                }
            });
        });
        let stream = futures::stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|piece| (piece, receiver))
        });
        Ok(stream.boxed())
    }
}

/// Hands on what is written, in pieces; waits while too many are on their way.
struct Channel {
    sender: mpsc::Sender<Result<Bytes, StoreError>>,
    piece: Vec<u8>,
}

impl Write for Channel {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::take(&mut self.piece);
        self.sender.blocking_send(Ok(piece.into())).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }
}

/// Writes, and sums up what it wrote.
struct Summed<W> {
    out: W,
    sum: Sha256,
}

impl<W: Write> Summed<W> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.sum.update(bytes);
        self.out.write_all(bytes).map_err(broken)
    }

    fn text(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.put(&(bytes.len() as u64).to_be_bytes())?;
        self.put(bytes)
    }
}

fn broken(error: io::Error) -> StoreError {
    StoreError::Unavailable(format!("writing the backup: {error}"))
}

fn write_backup(read: &ReadTransaction, out: &mut impl Write) -> Result<Summary, StoreError> {
    let revision = {
        let meta = read.open_table(META).map_err(unavailable)?;
        meta.get(REVISION).map_err(unavailable)?.map_or(0, |value| value.value())
    };
    let mut expiries = HashMap::new();
    for row in read.open_table(EXPIRIES).map_err(unavailable)?.iter().map_err(unavailable)? {
        let (key, position) = row.map_err(unavailable)?;
        expiries.insert(position.value(), key.value().0);
    }
    let latest = read.open_table(LATEST).map_err(unavailable)?;
    let log = read.open_table(LOG).map_err(unavailable)?;
    let mut out = Summed { out, sum: Sha256::new() };
    out.put(MAGIC)?;
    out.put(&revision.to_be_bytes())?;
    let mut keys = 0u64;
    for row in latest.iter().map_err(unavailable)? {
        let (key, row) = row.map_err(unavailable)?;
        let (position, created, alive) = row.value();
        if !alive {
            continue;
        }
        let stored = log.get(position).map_err(unavailable)?;
        let stored = stored.ok_or_else(|| StoreError::Damaged(format!("the log misses position {position}")))?;
        let record = LogRecord::decode(stored.value())?;
        let Some(value) = record.value.filter(|_| record.key == key.value()) else {
            return Err(StoreError::Damaged(format!("position {position} is not the newest write of its key")));
        };
        out.put(&[RECORD])?;
        for number in [position, created, expiries.get(&position).copied().unwrap_or(0)] {
            out.put(&number.to_be_bytes())?;
        }
        out.text(record.key.as_bytes())?;
        out.text(value)?;
        keys += 1;
    }
    out.put(&[END])?;
    out.put(&keys.to_be_bytes())?;
    let sum = out.sum.clone().finalize();
    out.out.write_all(&sum).map_err(broken)?;
    Ok(Summary { revision, keys })
}

/// Whether another process has the store at `path` open.
///
/// # Errors
/// When the file cannot be opened for another reason.
pub fn is_in_use(path: &Path) -> Result<bool, StoreError> {
    if !path.exists() {
        return Ok(false);
    }
    match open_alone(path) {
        Ok(_) => Ok(false),
        Err(DatabaseError::DatabaseAlreadyOpen) => Ok(true),
        Err(error) => Err(unavailable(error)),
    }
}

/// The database without its journal.
fn open_alone(path: &Path) -> Result<Database, DatabaseError> {
    let backend = open_file(path).and_then(|file| backend(file, path)).map_err(|error| {
        let error = io::Error::other(error.to_string());
        DatabaseError::Storage(redb::StorageError::Io(error))
    })?;
    Database::builder().set_cache_size(PAGE_CACHE).create_with_backend(Deferred::new(backend))
}

/// The database with all that the journal has.
fn open(path: &Path) -> Result<Database, StoreError> {
    Ok(open_database(&files(path.to_owned()), FULL)?.database)
}

/// Writes a backup of a store that nobody has open.
///
/// # Errors
/// When the store is in use or damaged, or `out` cannot be written.
pub fn back_up_file(path: &Path, out: &mut impl Write) -> Result<Summary, StoreError> {
    let database = open(path)?;
    let read = database.begin_read().map_err(unavailable)?;
    write_backup(&read, out)
}

/// Reads a backup to its end without keeping anything: whether it is whole.
///
/// # Errors
/// When it is cut short, or not what was written.
pub fn verify(backup: impl Read) -> Result<Summary, StoreError> {
    let mut reader = Reader::new(backup)?;
    while reader.next()?.is_some() {}
    Ok(Summary { revision: reader.revision, keys: reader.keys })
}

/// Makes a store at `path`, where there is none, from a backup.
///
/// # Errors
/// When the backup is not whole, or the store cannot be written.
pub fn restore(backup: impl Read, path: &Path) -> Result<Summary, StoreError> {
    let mut reader = Reader::new(backup)?;
    let revision = reader.revision.saturating_add(BUMP);
    let database = open_alone(path).map_err(unavailable)?;
    loop {
        let write = database.begin_write().map_err(unavailable)?;
        let mut more = true;
        {
            let mut log = write.open_table(LOG).map_err(unavailable)?;
            let mut latest = write.open_table(LATEST).map_err(unavailable)?;
            let mut expiries = write.open_table(EXPIRIES).map_err(unavailable)?;
            let mut encoded = Vec::new();
            for _ in 0..CHUNK {
                let Some(entry) = reader.next()? else {
                    more = false;
                    break;
                };
                let record =
                    LogRecord { previous: 0, created: entry.created, key: &entry.key, value: Some(&entry.value) };
                encoded.clear();
                record.encode(&mut encoded);
                log.insert(entry.position, encoded.as_slice()).map_err(unavailable)?;
                latest.insert(entry.key.as_str(), (entry.position, entry.created, true)).map_err(unavailable)?;
                if entry.expires != 0 {
                    expiries.insert((entry.expires, entry.key.as_str()), entry.position).map_err(unavailable)?;
                }
            }
            if !more {
                let mut meta = write.open_table(META).map_err(unavailable)?;
                for name in [REVISION, COMPACTED] {
                    meta.insert(name, revision).map_err(unavailable)?;
                }
            }
        }
        write.commit().map_err(unavailable)?;
        if !more {
            return Ok(Summary { revision, keys: reader.keys });
        }
    }
}

struct Entry {
    position: u64,
    created: Revision,
    expires: u64,
    key: String,
    value: Vec<u8>,
}

/// Reads a backup; what it says of itself is believed only as far as it goes.
struct Reader<R> {
    input: BufReader<R>,
    sum: Sha256,
    revision: Revision,
    keys: u64,
}

fn damaged(why: &str) -> StoreError {
    StoreError::Damaged(format!("the backup {why}"))
}

impl<R: Read> Reader<R> {
    fn new(input: R) -> Result<Self, StoreError> {
        let mut reader = Self { input: BufReader::new(input), sum: Sha256::new(), revision: 0, keys: 0 };
        if reader.take(MAGIC.len())? != MAGIC {
            return Err(damaged("is none: it begins with something else"));
        }
        reader.revision = reader.number()?;
        Ok(reader)
    }

    fn take(&mut self, length: usize) -> Result<Vec<u8>, StoreError> {
        let mut bytes = vec![0; length];
        self.input.read_exact(&mut bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => damaged("is cut short"),
            _ => StoreError::Unavailable(format!("reading the backup: {error}")),
        })?;
        self.sum.update(&bytes);
        Ok(bytes)
    }

    fn number(&mut self) -> Result<u64, StoreError> {
        Ok(self.take(8)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn text(&mut self, most: usize) -> Result<Vec<u8>, StoreError> {
        let length = self.number()?;
        match usize::try_from(length).ok().filter(|length| *length <= most) {
            Some(length) => self.take(length),
            None => Err(damaged("holds something larger than the store takes")),
        }
    }

    /// The next record; None after the last, when the sum holds.
    fn next(&mut self) -> Result<Option<Entry>, StoreError> {
        match self.take(1)?.as_slice() {
            [RECORD] => {}
            [END] => return self.end().map(|()| None),
            _ => return Err(damaged("is damaged")),
        }
        let (position, created, expires) = (self.number()?, self.number()?, self.number()?);
        let key = String::from_utf8(self.text(MAX_KEY)?).map_err(|_| damaged("holds a key that is no text"))?;
        let value = self.text(MAX_VALUE)?;
        if revision_of(position) > self.revision || created > revision_of(position) {
            return Err(damaged("holds a write from its own future"));
        }
        self.keys += 1;
        Ok(Some(Entry { position, created, expires, key, value }))
    }

    fn end(&mut self) -> Result<(), StoreError> {
        let count = self.number()?;
        let expected = self.sum.clone().finalize();
        let sum = self.take(expected.len())?;
        let more = self.input.read(&mut [0]).map_err(|error| StoreError::Unavailable(error.to_string()))?;
        if count == self.keys && sum == expected.as_slice() && more == 0 { Ok(()) } else { Err(damaged("is damaged")) }
    }
}

/// Gives back the space of a store that nobody has open. Whether there was any.
///
/// # Errors
/// When the store is in use or damaged.
pub fn defragment(path: &Path) -> Result<bool, StoreError> {
    let mut database = open(path)?;
    compact(&mut database)
}

fn compact(database: &mut Database) -> Result<bool, StoreError> {
    database.compact().map_err(|error| StoreError::Unavailable(error.to_string()))
}

/// Gives space back while a store is being opened, when much of its file is empty: redb cannot do so later.
pub(super) fn compact_sparse(database: &mut Database, length: u64) -> Result<(), StoreError> {
    if length < COMPACT_FROM {
        return Ok(());
    }
    let used: u64 = {
        let read = database.begin_read().map_err(unavailable)?;
        let bytes = |stats: redb::TableStats| stats.stored_bytes() + stats.metadata_bytes() + stats.fragmented_bytes();
        let log = read.open_table(LOG).map_err(unavailable)?.stats().map_err(unavailable)?;
        bytes(log) + bytes(read.open_table(LATEST).map_err(unavailable)?.stats().map_err(unavailable)?)
    };
    if used > length / USED_THIRD {
        return Ok(());
    }
    compact(database)?;
    tracing::info!(length, used, "the store's file was compacted");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::super::{Op, Outcome, Range, Store, Txn, Watch};
    use super::*;
    use coracle_api::clock::ManualClock;
    use std::sync::Arc;
    use std::time::Duration;

    async fn put(store: &Embedded, key: &str, value: &str, ttl: Option<Duration>) -> Revision {
        let ops = vec![Op::Put { key: key.into(), value: value.to_owned().into(), ttl }];
        match store.txn(Txn { compare: vec![], ops }).await.unwrap() {
            Outcome::Committed(revision) => revision,
            other => panic!("{other:?}"),
        }
    }

    async fn backup(store: &Embedded) -> Vec<u8> {
        let mut out = Vec::new();
        let mut pieces = store.backup_pieces().unwrap();
        while let Some(piece) = pieces.next().await {
            out.extend_from_slice(&piece.unwrap());
        }
        out
    }

    #[tokio::test]
    async fn a_backup_comes_back_and_old_watches_do_not() {
        let directory = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(jiff::Timestamp::now()));
        let path = directory.path().join("store");
        let store = Embedded::open(&path, clock.clone()).unwrap();
        put(&store, "/a", "1", None).await;
        put(&store, "/a", "2", None).await;
        put(&store, "/b", "x", None).await;
        store.txn(Txn { compare: vec![], ops: vec![Op::delete("/b")] }).await.unwrap();
        put(&store, "/c", "soon gone", Some(Duration::from_secs(60))).await;
        let large = "l".repeat(PIECE * 2);
        let last = put(&store, "/d", &large, None).await;
        let bytes = backup(&store).await;
        assert!(is_in_use(&path).unwrap());
        assert!(back_up_file(&path, &mut Vec::new()).is_err(), "it is in use");
        put(&store, "/e", "after the backup", None).await;
        assert_eq!(verify(bytes.as_slice()).unwrap(), Summary { revision: last, keys: 3 });

        let restored = directory.path().join("restored");
        let summary = restore(bytes.as_slice(), &restored).unwrap();
        assert_eq!(summary, Summary { revision: last + BUMP, keys: 3 });
        assert!(!is_in_use(&restored).unwrap());
        let mut again = Vec::new();
        assert_eq!(back_up_file(&restored, &mut again).unwrap().keys, 3);
        let other = Embedded::open(&restored, clock.clone()).unwrap();
        let page = other.range(Range::default()).await.unwrap();
        let found: Vec<(&str, usize)> = page.records.iter().map(|r| (&*r.key, r.value.len())).collect();
        assert_eq!(found, [("/a", 1), ("/c", 9), ("/d", large.len())]);
        assert_eq!((page.revision, page.records[2].modified), (last + BUMP, last));
        let watch = |from| Watch { from, ..Watch::default() };
        for from in [last, last + 2, last + BUMP] {
            let ended = match other.watch(watch(from)).await {
                Ok(mut batches) => batches.next().await.unwrap().err(),
                Err(error) => Some(error),
            };
            assert!(matches!(ended, Some(StoreError::Compacted { .. })), "{from}: {ended:?}");
        }
        let mut batches = other.watch(watch(last + BUMP + 1)).await.unwrap();
        let next = put(&other, "/a", "3", None).await;
        assert_eq!(next, last + BUMP + 1);
        assert_eq!(batches.next().await.unwrap().unwrap().events[0].modified, next);
        clock.advance(Duration::from_secs(61));
        assert_eq!(other.expire().await.unwrap(), 1, "what was to go still goes");
        other.compact(next).await.unwrap();
    }

    #[tokio::test]
    async fn what_is_no_whole_backup_is_refused() {
        let store = Embedded::in_memory(Arc::new(ManualClock::new(jiff::Timestamp::now()))).unwrap();
        put(&store, "/a", "1", None).await;
        let good = backup(&store).await;
        assert!(verify(good.as_slice()).is_ok());
        for length in 0..good.len() {
            assert!(verify(&good[..length]).is_err(), "cut at {length}");
        }
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x40;
            assert!(verify(bad.as_slice()).is_err(), "another byte at {at}");
        }
        let longer = [good.as_slice(), b"x"].concat();
        assert!(verify(longer.as_slice()).is_err());
    }

    #[tokio::test]
    async fn space_is_given_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        let clock = Arc::new(ManualClock::new(jiff::Timestamp::now()));
        let store = Embedded::open(&path, clock.clone()).unwrap();
        let big = "b".repeat(1 << 20);
        let mut last = 0;
        for _ in 0..80 {
            last = put(&store, "/big", &big, None).await;
        }
        put(&store, "/small", "s", None).await;
        let before = std::fs::metadata(&path).unwrap().len();
        store.compact(last).await.unwrap();
        drop(store);
        let store = Embedded::open(&path, clock).unwrap();
        assert_eq!(store.get("/small").await.unwrap().unwrap().value, "s");
        assert_eq!(store.get("/big").await.unwrap().unwrap().value.len(), big.len());
        drop(store);
        let after = std::fs::metadata(&path).unwrap().len();
        assert!(before >= COMPACT_FROM && after < before / 4, "{before} → {after}");
        assert!(!defragment(&path).unwrap() || std::fs::metadata(&path).unwrap().len() <= after);
    }
}
