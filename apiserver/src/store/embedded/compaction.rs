//! Compaction: forgetting overwritten and deleted values, a chunk at a time, so that writes go on between.

use super::super::{Revision, StoreError};
use super::read::unavailable;
use super::tables::{COMPACTED, LATEST, LOG, LogRecord, META, position, revision_of};
use super::writer::Writer;
use redb::ReadableTable;
use std::sync::atomic::Ordering;

/// Log records that are looked at in one transaction.
const CHUNK: usize = 1000;

impl Writer {
    /// Goes a part of the way to `revision`, and says how far it came.
    pub(super) fn compact(&mut self, revision: Revision) -> Result<Revision, StoreError> {
        let current = *self.shared.revision.borrow();
        if revision > current {
            return Err(StoreError::Future { asked: revision, current });
        }
        let from = self.shared.compacted.load(Ordering::Acquire);
        if from >= revision { Ok(from) } else { self.compact_chunk(from, revision) }
    }

    /// Walks the log after `from`, and says up to where it came.
    fn compact_chunk(&mut self, from: Revision, to: Revision) -> Result<Revision, StoreError> {
        let write = self.begin()?;
        let mut reached = to;
        {
            let mut log = write.open_table(LOG).map_err(unavailable)?;
            let mut latest = write.open_table(LATEST).map_err(unavailable)?;
            let mut superseded = Vec::new();
            let mut tombstones = Vec::new();
            let mut seen = (0usize, from);
            for row in log.range(position(from + 1, 0)..position(to + 1, 0)).map_err(unavailable)? {
                let (place, row) = row.map_err(unavailable)?;
                let revision = revision_of(place.value());
                if seen.0 >= CHUNK && revision != seen.1 {
                    reached = seen.1;
                    break;
                }
                seen = (seen.0 + 1, revision);
                let record = LogRecord::decode(row.value())?;
                if record.previous != 0 {
                    superseded.push(record.previous);
                }
                if record.value.is_none() {
                    superseded.push(place.value());
                    tombstones.push((record.key.to_owned(), place.value()));
                }
            }
            for place in superseded {
                log.remove(place).map_err(unavailable)?;
            }
            for (key, place) in tombstones {
                let newest = latest.get(key.as_str()).map_err(unavailable)?.map(|row| row.value().0);
                if newest == Some(place) {
                    latest.remove(key.as_str()).map_err(unavailable)?;
                }
            }
            let mut meta = write.open_table(META).map_err(unavailable)?;
            meta.insert(COMPACTED, reached).map_err(unavailable)?;
        }
        // Before the commit: a reader that begins after it must not be told that the revision is still whole.
        self.shared.compacted.store(reached, Ordering::Release);
        // Nothing of it is in the journal: after a power loss it is done again.
        self.commit(write, true).inspect_err(|error| self.close(error))?;
        Ok(reached)
    }
}
