//! What records of older servers lack: today's defaults are filled in as such a record is read, as upstream does with whatever
//! it decodes (apimachinery `runtime/serializer/versioning`, `codec.Decode`).
//!
//! To find out what a record lacks takes parsing it, so it is known of all of them together, by a key that no watch sees:
//!
//! ```text
//! /coracle/defaults   7     since the revision that wrote this, everything is there that the defaults numbered 7 fill in
//! ```
//!
//! Where it says another number, or is not there, records are filled in as they are read until all of them have been
//! [written anew](rewrite). A kill in between leaves no key, and the next server begins again.

use super::object::encode_managed;
use super::{Cacher, PREFIX, object_key};
use crate::registry::Row;
use crate::registry::strategy::DEFAULTS;
use crate::store::{Compare, Op, Outcome, Range, Record, Revision, Store, StoreError, Txn};
use bytes::Bytes;
use coracle_api::decode::{self, FieldValidation};
use coracle_api::json;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The key of the number.
pub const MARK: &str = "/coracle/defaults";

/// Records that are looked at together to be written anew, and the time between two of them, or between two writes: whoever
/// else writes comes first.
const PAGE: usize = 100;
const PACE: Duration = Duration::from_millis(10);

/// Since when nothing is missing.
#[derive(Debug)]
pub struct Defaults(AtomicU64);

/// Something may be missing in what is there now.
const NOT_YET: Revision = Revision::MAX;

impl Defaults {
    /// What the store says of itself. A mark of other defaults is taken away before anything is written by these.
    pub(super) async fn load(store: &dyn Store) -> Result<Self, StoreError> {
        let mark = match store.get(MARK).await {
            // Who keeps this server from other keys than the API's has it fill in everything, always.
            Err(StoreError::Refused(why)) => {
                tracing::warn!(%why, "the store refuses {MARK}: all that is read is looked at for defaults");
                return Ok(Self(NOT_YET.into()));
            }
            mark => mark?,
        };
        let since = match mark {
            Some(mark) if is_ours(&mark) => mark.modified,
            Some(mark) => {
                remove(store, &mark).await?;
                NOT_YET
            }
            None => {
                let first = Range { prefix: PREFIX.to_owned(), from: None, limit: 1, at: None };
                let new = store.range(first).await?.records.is_empty();
                let written = if new { write(store, None).await? } else { None };
                written.unwrap_or(NOT_YET)
            }
        };
        Ok(Self(since.into()))
    }

    /// Whether something may be missing in what was there at a revision.
    pub fn lack_at(&self, revision: Revision) -> bool {
        revision < self.0.load(Ordering::Relaxed)
    }

    /// Whether something may be missing in what is there now.
    pub fn lack_now(&self) -> bool {
        self.0.load(Ordering::Relaxed) == NOT_YET
    }

    /// Others may write by other defaults: what is read is looked at from now on, and the next server does so, too.
    pub async fn doubt(&self, store: &dyn Store) -> Result<(), StoreError> {
        if let Some(mark) = store.get(MARK).await? {
            remove(store, &mark).await?;
        }
        self.0.store(NOT_YET, Ordering::Relaxed);
        Ok(())
    }

    /// The mark as it is now. Where it has these defaults' number, another server wrote everything anew.
    pub async fn mark(&self, store: &dyn Store) -> Result<Option<Record>, StoreError> {
        let mark = store.get(MARK).await?;
        if let Some(mark) = mark.as_ref().filter(|mark| is_ours(mark)) {
            self.0.store(mark.modified, Ordering::Relaxed);
        }
        Ok(mark)
    }

    /// Everything has been [written anew](rewrite) since the mark was `before`.
    pub async fn settle(&self, store: &dyn Store, before: Option<&Record>) -> Result<(), StoreError> {
        if let Some(since) = write(store, before).await? {
            self.0.store(since, Ordering::Relaxed);
        }
        Ok(())
    }
}

fn is_ours(mark: &Record) -> bool {
    *mark.value == *DEFAULTS.to_string().as_bytes()
}

/// Writes the mark, if it is still as it was, and gives its revision.
async fn write(store: &dyn Store, before: Option<&Record>) -> Result<Option<Revision>, StoreError> {
    let compare = Compare { key: MARK.into(), modified: before.map_or(0, |mark| mark.modified) };
    let txn = Txn { compare: vec![compare], ops: vec![Op::put(MARK, DEFAULTS.to_string())] };
    Ok(match store.txn(txn).await? {
        Outcome::Committed(revision) => Some(revision),
        Outcome::Conflict(_) => None,
    })
}

/// Takes the mark away, unless another server has.
async fn remove(store: &dyn Store, mark: &Record) -> Result<(), StoreError> {
    let txn = Txn { compare: vec![Compare::modified(MARK, mark.modified)], ops: vec![Op::delete(MARK)] };
    store.txn(txn).await.map(drop)
}

/// A record with what it lacks; None when that is nothing. Custom resources have their schema's defaults whenever they are
/// read, and what does not fit its kind's schema is left alone: it was not written by a server.
pub(super) fn filled(stored: &[u8], row: &Row) -> Option<Bytes> {
    if row.strategy.custom().is_some() {
        return None;
    }
    let (mut object, managed_fields) = json::read_apart(stored, &["metadata", "managedFields"]).ok()?;
    let given = object.clone();
    decode::check(given.clone(), row.type_ref(0).ok()?, FieldValidation::Ignore).ok()?;
    row.strategy.default(&mut object);
    (!json::same(&object, &given)).then(|| encode_managed(&object, managed_fields.map(str::as_bytes)))
}

/// Writes everything anew that lacks something, and says how much that was. What is written meanwhile by others lacks nothing.
pub async fn rewrite(cacher: &Cacher) -> Result<usize, StoreError> {
    let resources = cacher.resources.load_full();
    let mut rows: Vec<&Row> = resources.values().map(|cache| &*cache.row).collect();
    rows.retain(|row| row.strategy.custom().is_none());
    rows.sort_by_key(|row| &*row.storage);
    let mut written = 0;
    for row in rows {
        written += rewrite_row(row, &*cacher.store).await?;
    }
    Ok(written)
}

async fn rewrite_row(row: &Row, store: &dyn Store) -> Result<usize, StoreError> {
    let ttl = row.strategy.traits().ttl.map(Duration::from_secs);
    let prefix = format!("{PREFIX}{}/", row.storage);
    let (mut written, mut from) = (0, None);
    loop {
        let page = store.range(Range { prefix: prefix.clone(), from, limit: PAGE, at: None }).await?;
        from = page.records.last().map(|record| format!("{}\0", record.key));
        for record in page.records {
            if object_key(&record.key, row).is_none() {
                continue;
            }
            let Some(value) = filled(&record.value, row) else { continue };
            let compare = vec![Compare::modified(record.key.clone(), record.modified)];
            let txn = Txn { compare, ops: vec![Op::Put { key: record.key, value, ttl }] };
            written += usize::from(matches!(store.txn(txn).await?, Outcome::Committed(_)));
            tokio::time::sleep(PACE).await;
        }
        if !page.more {
            return Ok(written);
        }
        tokio::time::sleep(PACE).await;
    }
}
