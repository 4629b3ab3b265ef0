//! What the embedded store keeps in redb, and how it is encoded.
//!
//! | table | key | value |
//! |---|---|---|
//! | `log` | position of a write | the [`LogRecord`]: key, value or tombstone, and where the key's previous write is |
//! | `latest` | key | position of its newest write, revision of its creation, whether it lives |
//! | `expiries` | time in ms, key | position of the write that has this time to live |
//! | `meta` | name | number: `revision`, `compacted`, `journal` (the epoch from which on the journal counts) |
//!
//! A position is `revision << 8 | index of the write in its transaction`, so the log is ordered by revision.
//! Example: `put a`, then `put a` and `delete b` in one transaction on a store at revision 5 gives positions 0x600,
//! 0x700 and 0x701; the record at 0x700 names 0x600 as previous. Compacting at 7 walks (compacted, 7], drops 0x600
//! because 0x700 supersedes it, and drops 0x701 with the `latest` row of `b` because a tombstone supersedes itself.

use super::super::{Revision, StoreError};
use bytes::Bytes;
use redb::TableDefinition;

pub(super) const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
pub(super) const LATEST: TableDefinition<&str, Latest> = TableDefinition::new("latest");
pub(super) const EXPIRIES: TableDefinition<(u64, &str), u64> = TableDefinition::new("expiries");
pub(super) const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

pub(super) const REVISION: &str = "revision";
pub(super) const COMPACTED: &str = "compacted";
pub(super) const JOURNAL: &str = "journal";

/// Position, revision of creation, alive.
pub(super) type Latest = (u64, u64, bool);

/// Where the `index`th write of a revision stands in the log.
pub(super) fn position(revision: Revision, index: usize) -> u64 {
    (revision << 8) | index as u64
}

/// The revision that a position belongs to.
pub(super) fn revision_of(position: u64) -> Revision {
    position >> 8
}

/// One write, borrowed from the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LogRecord<'a> {
    /// Position of the previous write of the key; 0 when there is none or it was compacted together with its key.
    pub previous: u64,
    /// The revision that began this life of the key.
    pub created: Revision,
    pub key: &'a str,
    /// Absent in a tombstone.
    pub value: Option<&'a [u8]>,
}

const HEADER: usize = 1 + 8 + 8 + 4;

impl<'a> LogRecord<'a> {
    /// Appends the encoded record to `out`.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.reserve(HEADER + self.key.len() + self.value.map_or(0, <[u8]>::len));
        out.push(u8::from(self.value.is_some()));
        out.extend_from_slice(&self.previous.to_be_bytes());
        out.extend_from_slice(&self.created.to_be_bytes());
        out.extend_from_slice(&(self.key.len() as u32).to_be_bytes());
        out.extend_from_slice(self.key.as_bytes());
        if let Some(value) = self.value {
            out.extend_from_slice(value);
        }
    }

    /// Reads what [`encode`](Self::encode) wrote.
    pub(super) fn decode(bytes: &'a [u8]) -> Result<Self, StoreError> {
        let damaged = || StoreError::Damaged("a log record is cut short".to_owned());
        let number = |from: usize| -> Result<u64, StoreError> {
            let field = bytes.get(from..from + 8).ok_or_else(damaged)?;
            Ok(field.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
        };
        let alive = *bytes.first().ok_or_else(damaged)? == 1;
        let (previous, created) = (number(1)?, number(9)?);
        let length = bytes.get(17..21).ok_or_else(damaged)?;
        let length = length.iter().fold(0usize, |number, byte| number << 8 | usize::from(*byte));
        let key = bytes.get(HEADER..HEADER + length).ok_or_else(damaged)?;
        let key = std::str::from_utf8(key).map_err(|_| damaged())?;
        let value = alive.then(|| &bytes[HEADER + length..]);
        Ok(Self { previous, created, key, value })
    }

    /// The value as owned bytes.
    pub(super) fn bytes(&self) -> Option<Bytes> {
        self.value.map(Bytes::copy_from_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_as_written() {
        let long = vec![7u8; 70_000];
        for (key, value) in [("/a", Some(&b"x"[..])), ("/a", None), ("", Some(b"")), ("/ü", Some(&long[..]))] {
            let record = LogRecord { previous: u64::MAX - 3, created: 9, key, value };
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            assert_eq!(LogRecord::decode(&bytes).unwrap(), record);
            assert!(LogRecord::decode(&bytes[..HEADER - 1]).is_err());
        }
    }

    #[test]
    fn positions_order_by_revision_then_index() {
        assert!(position(2, 255) < position(3, 0));
        assert_eq!(revision_of(position(77, 12)), 77);
    }
}
