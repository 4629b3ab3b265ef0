//! The store: an ordered key space with revisions, the only place where state is kept.
//!
//! ```text
//!   txn(compare, ops) ──► one new revision, or the current records of what was compared
//!   range / get       ──► records as of a revision
//!   watch             ──► batches of whole revisions, in order, without gaps
//! ```
//!
//! # Lifecycle
//! Every committed transaction raises the revision by one and stamps it on each key it wrote. A key's record names
//! the revision that created it and the one that wrote it last; deleting a key and writing it again begins a new
//! life. Revisions that were [compacted](Store::compact) can no longer be read or watched from; the state at the
//! compacted revision and after it stays whole. A put with a time to live is deleted by the store itself once that
//! time has passed, as a revision of its own.
//!
//! # Durability
//! When [`Store::txn`] answers [`Outcome::Committed`], the write survives kill -9 and power loss. When it answers an
//! error the write either happened whole or not at all, and the caller cannot know which.

pub mod embedded;
pub mod etcd;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use std::sync::Arc;
use std::time::Duration;

/// A point in the store's history. The first write of an empty store makes revision 2, as etcd's does.
pub type Revision = u64;

/// The revision of a store that was never written.
pub const FIRST_REVISION: Revision = 1;

/// The most operations, and the most comparisons, one transaction may hold (etcd's default limit is 128).
pub const MAX_TXN_OPS: usize = 128;

/// The largest value a key may hold, in bytes. etcd's default request limit is 1.5 MiB, so that an object which fits here may be
/// too large for a cluster with etcd; what the API's 3 MiB body limit lets through is not refused for that.
pub const MAX_VALUE: usize = 4 << 20;

/// One key as it stood at some revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub key: Arc<str>,
    pub value: Bytes,
    /// The revision that began this life of the key.
    pub created: Revision,
    /// The revision that wrote this value.
    pub modified: Revision,
}

/// What must hold for a transaction to be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    pub key: Arc<str>,
    /// The revision that last wrote the key; 0 says that the key must not exist.
    pub modified: Revision,
}

impl Compare {
    /// The key must not exist.
    pub fn absent(key: impl Into<Arc<str>>) -> Self {
        Self { key: key.into(), modified: 0 }
    }

    /// The key must have been written last by `revision`.
    pub fn modified(key: impl Into<Arc<str>>, revision: Revision) -> Self {
        Self { key: key.into(), modified: revision }
    }
}

/// One write of a transaction. A transaction names a key at most once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Writes the key; with `ttl` the store deletes it when that much time has passed without another write.
    Put { key: Arc<str>, value: Bytes, ttl: Option<Duration> },
    /// Deletes the key; nothing happens when there is none.
    Delete { key: Arc<str> },
}

impl Op {
    /// Writes a key that stays until it is deleted.
    pub fn put(key: impl Into<Arc<str>>, value: impl Into<Bytes>) -> Self {
        Op::Put { key: key.into(), value: value.into(), ttl: None }
    }

    /// Deletes a key.
    pub fn delete(key: impl Into<Arc<str>>) -> Self {
        Op::Delete { key: key.into() }
    }

    /// The key this operation writes.
    pub fn key(&self) -> &Arc<str> {
        match self {
            Op::Put { key, .. } | Op::Delete { key } => key,
        }
    }
}

/// Comparisons and the writes that follow when all of them hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    pub compare: Vec<Compare>,
    pub ops: Vec<Op>,
}

/// What became of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All comparisons held; the writes carry this revision.
    Committed(Revision),
    /// A comparison did not hold and nothing was written. The current records of the compared keys, in their order.
    Conflict(Vec<Option<Record>>),
}

/// Which records to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// Every key that begins with this.
    pub prefix: String,
    /// Only keys at or after this one.
    pub from: Option<String>,
    /// At most so many records; 0 means all.
    pub limit: usize,
    /// As of this revision; the newest when absent.
    pub at: Option<Revision>,
}

/// The records of a [`Range`], ordered by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    pub records: Vec<Record>,
    /// The revision they were read at.
    pub revision: Revision,
    /// Whether the limit cut the answer short.
    pub more: bool,
}

/// One write, as a watcher sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub key: Arc<str>,
    /// The new value; absent when the key was deleted.
    pub value: Option<Bytes>,
    /// The value before, when the watch asked for it and the key existed.
    pub previous: Option<Bytes>,
    /// The revision that began this life of the key.
    pub created: Revision,
    /// The revision of this write.
    pub modified: Revision,
}

/// All that happened up to and including `revision` since the batch before. Without events it is a sign of progress.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    pub revision: Revision,
    pub events: Vec<Event>,
}

/// What to watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    /// Every key that begins with this.
    pub prefix: String,
    /// The first revision of interest.
    pub from: Revision,
    /// Whether events carry the value before them.
    pub previous: bool,
}

/// Why a store did not answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The revision asked for has been compacted away.
    #[error("revision {asked} has been compacted, the oldest kept is {oldest}")]
    Compacted { asked: Revision, oldest: Revision },
    /// The revision asked for has not happened yet.
    #[error("revision {asked} is in the future, the current one is {current}")]
    Future { asked: Revision, current: Revision },
    /// The request itself is wrong: too many operations, a key named twice, a value too large.
    #[error("{0}")]
    Invalid(String),
    /// The back end does not take the request, for a reason that it names.
    #[error("{0}")]
    Refused(String),
    /// The store cannot answer now; a write that got this answer may or may not have happened.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// What was read is not what was written.
    #[error("the store is damaged: {0}")]
    Damaged(String),
}

/// Batches of events until the watch ends with an error.
pub type Batches = BoxStream<'static, Result<Batch, StoreError>>;

/// A backup as it is made, in the form of [`embedded::snapshot`]; ends with an error when it cannot be finished.
pub type Pieces = BoxStream<'static, Result<Bytes, StoreError>>;

/// The store's contract; see the module's documentation for lifecycle and durability.
pub trait Store: Send + Sync + 'static {
    /// Applies the operations if every comparison holds, as one revision. A transaction without any effect (deletes of
    /// absent keys only) commits at the current revision without raising it.
    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<Outcome, StoreError>>;

    /// As [`Store::txn`], and then `then` as a revision of its own, whose number is told. In a store that takes one revision at
    /// a time the first of them may stand alone: when the other fails, or when somebody else writes between them, which is
    /// answered as a conflict. What `then` writes must be among what the transaction wrote or compared.
    fn txn_then(&self, txn: Txn, then: Vec<Op>) -> BoxFuture<'_, Result<Outcome, StoreError>> {
        Box::pin(async move {
            let written: Vec<Arc<str>> = txn.ops.iter().map(|op| op.key().clone()).collect();
            let unwritten = txn.compare.iter().filter(|compare| !written.contains(&compare.key));
            let mut compare: Vec<Compare> = unwritten.cloned().collect();
            match self.txn(txn).await? {
                Outcome::Committed(revision) => {
                    compare.extend(written.into_iter().map(|key| Compare::modified(key, revision)));
                    self.txn(Txn { compare, ops: then }).await
                }
                conflict => Ok(conflict),
            }
        })
    }

    /// Reads one key as of now: no write acknowledged before this call is missed.
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Record>, StoreError>>;

    /// Reads the keys under a prefix in order.
    fn range(&self, range: Range) -> BoxFuture<'_, Result<Page, StoreError>>;

    /// Watches a prefix from a revision on. Batches hold whole revisions, in order, each exactly once. A reader that
    /// falls behind slows nobody: it reads on from the history, and gets [`StoreError::Compacted`] when that is gone.
    fn watch(&self, watch: Watch) -> BoxFuture<'_, Result<Batches, StoreError>>;

    /// The newest revision: at least that of every write acknowledged before this call.
    fn revision(&self) -> BoxFuture<'_, Result<Revision, StoreError>>;

    /// The newest acknowledged revision when it can be known without waiting for anybody.
    fn revision_now(&self) -> Option<Revision> {
        None
    }

    /// Makes open watches show how far they have come, when nothing they watch may have changed.
    fn announce(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Forgets what was overwritten or deleted at or before `revision`.
    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Deletes what has outlived its time to live and says how many keys that were. A store that does so by itself
    /// answers 0.
    fn expire(&self) -> BoxFuture<'_, Result<usize, StoreError>>;

    /// Everything as of now, to be kept elsewhere. None for a store that has a tool of its own for that.
    fn back_up(&self) -> Option<Result<Pieces, StoreError>> {
        None
    }
}

/// Refuses transactions that no back end takes.
pub(crate) fn check_txn(txn: &Txn) -> Result<(), StoreError> {
    if txn.compare.len() > MAX_TXN_OPS {
        return Err(too_many());
    }
    check_ops(&txn.ops)
}

fn too_many() -> StoreError {
    StoreError::Invalid(format!("a transaction holds at most {MAX_TXN_OPS} operations"))
}

/// Refuses writes that no back end takes together.
pub(crate) fn check_ops(ops: &[Op]) -> Result<(), StoreError> {
    if ops.len() > MAX_TXN_OPS {
        return Err(too_many());
    }
    for (index, op) in ops.iter().enumerate() {
        if ops[..index].iter().any(|other| other.key() == op.key()) {
            return Err(StoreError::Invalid(format!("the transaction writes {} twice", op.key())));
        }
        if let Op::Put { value, key, .. } = op
            && value.len() > MAX_VALUE
        {
            return Err(StoreError::Invalid(format!("the value of {key} is larger than {MAX_VALUE} bytes")));
        }
    }
    Ok(())
}
