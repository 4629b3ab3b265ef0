//! Reads: redb snapshots.

use super::super::{Page, Range, Record, Revision, StoreError};
use super::Shared;
use super::tables::{LATEST, LOG, LogRecord, META, REVISION, revision_of};
use redb::{ReadOnlyTable, ReadTransaction, ReadableDatabase, WriteTransaction};
use std::sync::atomic::Ordering;

pub(super) fn unavailable(error: impl Into<redb::Error>) -> StoreError {
    StoreError::Unavailable(error.into().to_string())
}

impl Shared {
    pub(super) fn begin_write(&self) -> Result<WriteTransaction, StoreError> {
        match &*self.database.read() {
            Some(database) => database.begin_write().map_err(unavailable),
            None => Err(StoreError::Unavailable("the database is closed after an I/O error".to_owned())),
        }
    }

    pub(super) fn begin(&self) -> Result<ReadTransaction, StoreError> {
        match &*self.database.read() {
            Some(database) => database.begin_read().map_err(unavailable),
            None => Err(StoreError::Unavailable("the database is closed after an I/O error".to_owned())),
        }
    }

    pub(super) fn get(&self, key: &str) -> Result<Option<Record>, StoreError> {
        let read = self.begin()?;
        let latest = read.open_table(LATEST).map_err(unavailable)?;
        let Some(row) = latest.get(key).map_err(unavailable)? else { return Ok(None) };
        let (position, created, alive) = row.value();
        if !alive {
            return Ok(None);
        }
        let log = read.open_table(LOG).map_err(unavailable)?;
        record_at(&log, position, created)
    }

    pub(super) fn range(&self, range: &Range) -> Result<Page, StoreError> {
        let read = self.begin()?;
        let current = {
            let meta = read.open_table(META).map_err(unavailable)?;
            meta.get(REVISION).map_err(unavailable)?.map_or(0, |value| value.value())
        };
        let at = range.at.unwrap_or(current);
        if at > current {
            return Err(StoreError::Future { asked: at, current });
        }
        let compacted = self.compacted.load(Ordering::Acquire);
        if at < compacted {
            return Err(StoreError::Compacted { asked: at, oldest: compacted });
        }
        let latest = read.open_table(LATEST).map_err(unavailable)?;
        let log = read.open_table(LOG).map_err(unavailable)?;
        let from = range.from.as_deref().filter(|from| *from > range.prefix.as_str()).unwrap_or(&range.prefix);
        let mut page = Page { revision: at, ..Page::default() };
        for row in latest.range(from..).map_err(unavailable)? {
            let (key, row) = row.map_err(unavailable)?;
            if !key.value().starts_with(&range.prefix) {
                break;
            }
            let Some(record) = as_of(&log, row.value(), at)? else { continue };
            if range.limit > 0 && page.records.len() == range.limit {
                page.more = true;
                break;
            }
            page.records.push(record);
        }
        Ok(page)
    }
}

/// The record of a key as it stood at revision `at`, following the key's writes back from the newest.
fn as_of(
    log: &ReadOnlyTable<u64, &'static [u8]>,
    (mut position, created, alive): (u64, u64, bool),
    at: Revision,
) -> Result<Option<Record>, StoreError> {
    if revision_of(position) <= at {
        return if alive { record_at(log, position, created) } else { Ok(None) };
    }
    while revision_of(position) > at {
        let Some(row) = log.get(position).map_err(unavailable)? else { return Ok(None) };
        position = LogRecord::decode(row.value())?.previous;
        if position == 0 {
            return Ok(None);
        }
    }
    let Some(row) = log.get(position).map_err(unavailable)? else { return Ok(None) };
    let record = LogRecord::decode(row.value())?;
    Ok(record.bytes().map(|value| Record {
        key: record.key.into(),
        value,
        created: record.created,
        modified: revision_of(position),
    }))
}

pub(super) fn record_at(
    log: &ReadOnlyTable<u64, &'static [u8]>,
    position: u64,
    created: Revision,
) -> Result<Option<Record>, StoreError> {
    let row = log.get(position).map_err(unavailable)?;
    let row = row.ok_or_else(|| StoreError::Damaged(format!("the log misses position {position}")))?;
    let record = LogRecord::decode(row.value())?;
    Ok(record.bytes().map(|value| Record { key: record.key.into(), value, created, modified: revision_of(position) }))
}
