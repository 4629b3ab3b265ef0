//! The journal: every write since the last commit that is known to be on the disk.
//!
//! ```text
//!  group ─► record of epoch 7 appended to file 0 and synced ─► replies; redb is given it later, in memory
//!           file 0 is full ─► redb commit that says "epoch 8", its sync left to a thread; records go to file 1 meanwhile
//!           file 1 is full, and that sync is done ─► redb commit that says "epoch 9"; records go to file 0, over the old
//! ```
//!
//! A group costs one write in one place, whose sync takes a fraction of that of the pages that redb would write all over
//! its file. redb's pages are written once for many groups.
//!
//! The database says of which epoch on the journal counts. What opens it applies the records of that epoch and of the
//! next, in order, whose revisions it does not have. A record is whole or it is not there: its sum covers its epoch, so
//! neither a torn one nor what an earlier epoch left behind it is taken for one. Only the last of an epoch can be torn,
//! since each is synced before the next is written: one that is not whole although others follow was damaged, and took
//! acknowledged writes with it.
//!
//! | bytes | |
//! |---|---|
//! | 4, 4 | length of what follows, CRC-32 of what follows |
//! | 8, 8, 8 | epoch, first and last revision |
//! | 8, 8, 4, … | for each write: position, time in ms at which it expires or 0, length and bytes of its log record |
//!
//! Numbers are big-endian.

use super::super::{Revision, StoreError};
use super::read::unavailable;
use super::tables::revision_of;
use redb::{StorageBackend, StorageError};
use std::io;

/// A file so long is done with when the other one is free.
pub(super) const FULL: u64 = 4 << 20;

/// A file grows by so many zeros beyond its need, because overwriting is synced sooner than appending.
const AHEAD: usize = 256 << 10;

/// The most memory that is kept for records between groups.
const KEPT: usize = 1 << 20;

/// What is looked through at a time for records behind a broken one.
const CHUNK: u64 = 256 << 10;

/// Length and sum.
const FRAME: usize = 8;

/// Epoch, first and last revision.
const HEAD: usize = 24;

pub(super) struct Journal {
    files: [Box<dyn StorageBackend>; 2],
    /// The file that is written to, how far, and how long it is.
    current: usize,
    end: u64,
    length: u64,
    epoch: u64,
    full: u64,
    /// The record that is being made.
    record: Vec<u8>,
}

/// One write, as a record holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    pub place: u64,
    /// In ms; 0 when it does not.
    pub expires: u64,
    /// The encoded log record.
    pub bytes: &'a [u8],
}

fn failed(error: io::Error) -> StoreError {
    unavailable(StorageError::Io(error))
}

impl Journal {
    /// A journal that is to be read, then begun anew.
    pub(super) fn new(files: [Box<dyn StorageBackend>; 2], full: u64) -> Self {
        Self { files, current: 0, end: 0, length: 0, epoch: 0, full, record: Vec::new() }
    }

    /// Hands `apply` the writes after `revision` that were made in `epoch` or the one after it, and says up to which
    /// revision there were some.
    ///
    /// # Errors
    /// When a file cannot be read, or is damaged: a record is not whole though others follow, or revisions after those that the
    /// database has are missing.
    pub(super) fn replay(
        &self,
        epoch: u64,
        mut revision: Revision,
        mut apply: impl FnMut(Entry<'_>) -> Result<(), StoreError>,
    ) -> Result<Revision, StoreError> {
        for epoch in [epoch, epoch + 1] {
            for file in &self.files {
                let mut reader = Reader { file: &**file, offset: 0, length: file.len().map_err(failed)?, epoch };
                while let Some(record) = reader.next()? {
                    if record.first > revision + 1 {
                        let (from, to) = (revision + 1, record.first - 1);
                        return Err(StoreError::Damaged(format!("the journal misses revisions {from} to {to}")));
                    }
                    for entry in record.entries() {
                        let entry = entry.ok_or_else(|| StoreError::Damaged("a journal record is cut".to_owned()))?;
                        if revision_of(entry.place) > revision {
                            apply(entry)?;
                        }
                    }
                    revision = revision.max(record.last);
                }
            }
        }
        Ok(revision)
    }

    /// Goes on in the other file, as `epoch`: what is there is no longer needed.
    pub(super) fn begin(&mut self, epoch: u64) -> Result<(), StoreError> {
        self.current = 1 - self.current;
        self.epoch = epoch;
        self.end = 0;
        let file = &self.files[self.current];
        self.length = file.len().map_err(failed)?;
        // One group may have been much larger than most.
        if self.length > self.full * 2 {
            self.length = self.full;
            file.set_len(self.length).map_err(failed)?;
        }
        Ok(())
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether nothing was written since the epoch began.
    pub(super) fn is_empty(&self) -> bool {
        self.end == 0
    }

    pub(super) fn is_full(&self) -> bool {
        self.end >= self.full
    }

    /// Whether it is so full that the disk must be waited for.
    pub(super) fn is_overfull(&self) -> bool {
        self.end >= self.full * 16
    }

    /// Adds a write to the record that is being made.
    pub(super) fn push(&mut self, entry: Entry<'_>) {
        if self.record.is_empty() {
            self.record.resize(FRAME + HEAD, 0);
        }
        self.record.extend_from_slice(&entry.place.to_be_bytes());
        self.record.extend_from_slice(&entry.expires.to_be_bytes());
        self.record.extend_from_slice(&(entry.bytes.len() as u32).to_be_bytes());
        self.record.extend_from_slice(entry.bytes);
    }

    /// Forgets the record that is being made.
    pub(super) fn discard(&mut self) {
        self.record.clear();
        self.record.shrink_to(KEPT);
    }

    /// Writes the record, with the revisions it is about, and syncs it.
    pub(super) fn commit(&mut self, first: Revision, last: Revision) -> Result<(), StoreError> {
        let length = u32::try_from(self.record.len() - FRAME);
        let length = length.map_err(|_| StoreError::Unavailable("a group of writes of over 4 GiB".to_owned()))?;
        for (at, number) in [(8, self.epoch), (16, first), (24, last)] {
            self.record[at..at + 8].copy_from_slice(&number.to_be_bytes());
        }
        let sum = sum(&self.record[FRAME..]);
        self.record[..4].copy_from_slice(&length.to_be_bytes());
        self.record[4..8].copy_from_slice(&sum.to_be_bytes());
        self.append().map_err(failed)?;
        self.discard();
        Ok(())
    }

    fn append(&mut self) -> io::Result<()> {
        let file = &self.files[self.current];
        let end = self.end + self.record.len() as u64;
        if end > self.length {
            let length = end + AHEAD as u64;
            file.set_len(length)?;
            file.write(end, &vec![0; AHEAD])?;
            self.length = length;
        }
        file.write(self.end, &self.record)?;
        file.sync_data()?;
        self.end = end;
        Ok(())
    }
}

fn sum(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// The records of one epoch in a file, from its start.
struct Reader<'a> {
    file: &'a dyn StorageBackend,
    offset: u64,
    length: u64,
    epoch: u64,
}

struct Record {
    first: Revision,
    last: Revision,
    body: Vec<u8>,
}

impl Reader<'_> {
    /// The next record, or None behind the last.
    fn next(&mut self) -> Result<Option<Record>, StoreError> {
        let record = self.at(self.offset).map_err(failed)?;
        match &record {
            Some(record) => self.offset += (FRAME + record.body.len()) as u64,
            None => {
                if let Some(place) = self.find_behind().map_err(failed)? {
                    let damaged = format!(
                        "its journal is broken from byte {} on and goes on at byte {place}: put a backup in its place with `coracle server restore`",
                        self.offset
                    );
                    return Err(StoreError::Damaged(damaged));
                }
            }
        }
        Ok(record)
    }

    /// The record that begins there, if a whole one of this epoch does.
    fn at(&self, offset: u64) -> io::Result<Option<Record>> {
        let left = self.length.saturating_sub(offset);
        if left < (FRAME + HEAD) as u64 {
            return Ok(None);
        }
        let mut frame = [0; FRAME + HEAD];
        self.file.read(offset, &mut frame)?;
        let length = number(&frame[..4]);
        let epoch = number(&frame[8..16]);
        if epoch != self.epoch || length < HEAD as u64 || length > left - FRAME as u64 {
            return Ok(None);
        }
        // At most the rest of the file.
        let mut body = vec![0; length as usize];
        self.file.read(offset + FRAME as u64, &mut body)?;
        let whole = u64::from(sum(&body)) == number(&frame[4..8]);
        Ok(whole.then(|| Record { first: number(&body[8..16]), last: number(&body[16..24]), body }))
    }

    /// Where behind what is not a record another one of this epoch begins.
    fn find_behind(&self) -> io::Result<Option<u64>> {
        let epoch = self.epoch.to_be_bytes();
        let mut chunk = Vec::new();
        let mut from = self.offset + FRAME as u64 + 1;
        while from + (epoch.len() as u64) <= self.length {
            chunk.resize((self.length - from).min(CHUNK) as usize, 0);
            self.file.read(from, &mut chunk)?;
            for found in memchr::memmem::find_iter(&chunk, &epoch) {
                let place = from + found as u64 - FRAME as u64;
                if self.at(place)?.is_some() {
                    return Ok(Some(place));
                }
            }
            // An epoch may lie across the end of the chunk.
            from += (chunk.len() - (epoch.len() - 1)) as u64;
        }
        Ok(None)
    }
}

impl Record {
    /// The writes; None for what does not fit, after which there is nothing.
    fn entries(&self) -> impl Iterator<Item = Option<Entry<'_>>> {
        let mut rest = &self.body[HEAD..];
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let entry = split(rest);
            rest = entry.map_or(&[], |(_, rest)| rest);
            Some(entry.map(|(entry, _)| entry))
        })
    }
}

fn split(bytes: &[u8]) -> Option<(Entry<'_>, &[u8])> {
    let (head, rest) = bytes.split_at_checked(20)?;
    let (bytes, rest) = rest.split_at_checked(usize::try_from(number(&head[16..])).ok()?)?;
    Some((Entry { place: number(&head[..8]), expires: number(&head[8..16]), bytes }, rest))
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::super::tables::position;
    use super::*;
    use redb::backends::InMemoryBackend;
    use std::sync::Arc;

    /// A file that two journals have, one after the other.
    #[derive(Clone, Debug)]
    struct File(Arc<InMemoryBackend>);

    impl StorageBackend for File {
        fn len(&self) -> io::Result<u64> {
            self.0.len()
        }
        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.0.read(offset, out)
        }
        fn set_len(&self, len: u64) -> io::Result<()> {
            self.0.set_len(len)
        }
        fn sync_data(&self) -> io::Result<()> {
            self.0.sync_data()
        }
        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.0.write(offset, data)
        }
    }

    fn files() -> [File; 2] {
        std::array::from_fn(|_| File(Arc::new(InMemoryBackend::new())))
    }

    fn journal(files: &[File; 2]) -> Journal {
        Journal::new(files.clone().map(|file| Box::new(file) as _), 1000)
    }

    fn write(journal: &mut Journal, revision: Revision, size: usize) {
        journal.push(Entry { place: position(revision, 0), expires: revision % 2, bytes: &vec![b'x'; size] });
        journal.commit(revision, revision).unwrap();
    }

    fn replay(files: &[File; 2], epoch: u64, revision: Revision) -> Result<(Revision, Vec<u64>), StoreError> {
        let mut seen = Vec::new();
        let last = journal(files).replay(epoch, revision, |entry| {
            assert_eq!(entry.expires, revision_of(entry.place) % 2);
            seen.push(revision_of(entry.place));
            Ok(())
        })?;
        Ok((last, seen))
    }

    #[test]
    fn what_the_database_does_not_have_comes_back_in_order() {
        let files = files();
        let mut journal = journal(&files);
        journal.begin(7).unwrap();
        (11..=14).for_each(|revision| write(&mut journal, revision, 300));
        assert!(journal.is_full());
        journal.begin(8).unwrap();
        (15..=16).for_each(|revision| write(&mut journal, revision, 10));
        assert_eq!(replay(&files, 7, 10).unwrap(), (16, vec![11, 12, 13, 14, 15, 16]));
        assert_eq!(replay(&files, 7, 12).unwrap(), (16, vec![13, 14, 15, 16]), "some are there already");
        assert_eq!(replay(&files, 8, 14).unwrap(), (16, vec![15, 16]), "the older epoch counts no longer");
        assert_eq!(replay(&files, 9, 20).unwrap(), (20, vec![]));
        assert_eq!(replay(&files, 3, 0).unwrap(), (0, vec![]), "of another database");

        // The first file is written to again, over the old.
        journal.begin(9).unwrap();
        write(&mut journal, 17, 300);
        assert_eq!(replay(&files, 8, 14).unwrap(), (17, vec![15, 16, 17]), "and nothing of what is behind it");
        assert!(matches!(replay(&files, 8, 10), Err(StoreError::Damaged(_))), "11 to 14 are nowhere");
    }

    #[test]
    fn a_torn_record_is_not_there_and_is_written_over() {
        let files = files();
        let mut first = journal(&files);
        first.begin(1).unwrap();
        write(&mut first, 1, 100);
        let end = first.end;
        write(&mut first, 2, 100);
        for at in end..first.end {
            let mut byte = [0];
            files[1].read(at, &mut byte).unwrap();
            files[1].write(at, &[byte[0] ^ 0x10]).unwrap();
            assert_eq!(replay(&files, 1, 0).unwrap(), (1, vec![1]), "byte {at} is another");
            files[1].write(at, &byte).unwrap();
        }
        assert_eq!(replay(&files, 1, 0).unwrap(), (2, vec![1, 2]));
    }

    #[test]
    fn a_broken_record_with_others_behind_it_is_damage() {
        let files = files();
        let mut journal = journal(&files);
        // What an epoch of before left here.
        journal.begin(1).unwrap();
        (1..=9).for_each(|revision| write(&mut journal, revision, 100));
        (2..=3).for_each(|epoch| journal.begin(epoch).unwrap());
        write(&mut journal, 10, 100);
        let end = journal.end;
        // So much that it is read in parts.
        write(&mut journal, 11, CHUNK as usize - 100);
        let next = journal.end;
        write(&mut journal, 12, 100);
        assert_eq!(replay(&files, 3, 9).unwrap(), (12, vec![10, 11, 12]));
        for at in (end..end + 200).chain(next - 100..next) {
            let mut byte = [0];
            files[1].read(at, &mut byte).unwrap();
            files[1].write(at, &[byte[0] ^ 0x10]).unwrap();
            let Err(StoreError::Damaged(why)) = replay(&files, 3, 9) else { panic!("byte {at} is another") };
            assert_eq!(
                why,
                format!(
                    "its journal is broken from byte {end} on and goes on at byte {next}: put a backup in its place with `coracle server restore`"
                )
            );
            files[1].write(at, &byte).unwrap();
        }
    }

    #[test]
    fn a_record_is_found_wherever_the_next_part_begins() {
        for size in CHUNK as usize - 70..CHUNK as usize - 30 {
            let files = files();
            let mut journal = journal(&files);
            journal.begin(1).unwrap();
            write(&mut journal, 1, size);
            write(&mut journal, 2, 1);
            files[1].write(0, &[0xff]).unwrap();
            assert!(matches!(replay(&files, 1, 0), Err(StoreError::Damaged(_))), "behind {size} bytes");
        }
    }

    #[test]
    fn a_file_that_grew_much_is_cut_when_its_turn_comes() {
        let files = files();
        let mut journal = journal(&files);
        journal.begin(1).unwrap();
        write(&mut journal, 1, 3_000_000);
        assert_eq!(files[1].len().unwrap(), journal.end + AHEAD as u64);
        assert!(journal.record.capacity() <= KEPT);
        journal.begin(2).unwrap();
        journal.begin(3).unwrap();
        assert_eq!(files[1].len().unwrap(), 1000);
        write(&mut journal, 2, 10);
        assert_eq!(replay(&files, 3, 1).unwrap(), (2, vec![2]));
    }

    #[test]
    fn what_was_discarded_is_not_written() {
        let files = files();
        let mut journal = journal(&files);
        journal.begin(1).unwrap();
        journal.push(Entry { place: position(1, 0), expires: 1, bytes: b"no" });
        journal.discard();
        write(&mut journal, 1, 2);
        let mut bytes = Vec::new();
        self::journal(&files)
            .replay(1, 0, |entry| {
                bytes.extend_from_slice(entry.bytes);
                Ok(())
            })
            .unwrap();
        assert_eq!(bytes, b"xx");
    }
}
