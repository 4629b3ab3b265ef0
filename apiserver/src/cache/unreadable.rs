//! Records that are no objects: something else than a server wrote them, or a disk lost them in part.
//!
//! They are not passed over in silence: who owns what, or whether a namespace is empty, would be answered wrongly. Whoever asks
//! for one, or for a list that it belongs to, is told; all else goes on (apiserver `storage/corrupt_obj_deleter.go`, KEP-3926).

use super::defaults::filled;
use super::object::{Change, Object};
use crate::registry::Row;
use crate::store::Revision;
use parking_lot::RwLock;
use serde::de::IgnoredAny;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// A record that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    pub revision: Revision,
    pub why: String,
}

/// Those of a resource, by the key that their object would have.
#[derive(Debug, Default)]
pub struct UnreadableRecords(RwLock<BTreeMap<Arc<str>, Unreadable>>);

impl UnreadableRecords {
    pub fn get(&self, key: &str) -> Option<Unreadable> {
        self.0.read().get(key).cloned()
    }

    /// The first of those whose key begins with `prefix`.
    pub fn first(&self, prefix: &str) -> Option<(Arc<str>, Unreadable)> {
        let records = self.0.read();
        let (key, record) = records.range::<str, _>((Bound::Included(prefix), Bound::Unbounded)).next()?;
        key.starts_with(prefix).then(|| (key.clone(), record.clone()))
    }

    pub(super) fn add(&self, key: &Arc<str>, revision: Revision, why: String) {
        tracing::error!(%key, revision, %why, "a stored object cannot be read");
        self.0.write().insert(key.clone(), Unreadable { revision, why });
    }

    pub(super) fn remove(&self, key: &str) {
        if !self.0.read().is_empty() {
            self.0.write().remove(key);
        }
    }

    pub(super) fn clear(&self) {
        self.0.write().clear();
    }
}

/// Makes an object of a record that perhaps no server wrote: every byte of it is looked at. What [defaults](super::Defaults) it may
/// lack are filled in if it `lacks` some.
///
/// # Errors
/// What is wrong with it.
pub fn checked(
    key: &Arc<str>,
    stored: &[u8],
    created: Revision,
    revision: Revision,
    change: Change,
    row: &Row,
    lacks: bool,
) -> Result<Object, String> {
    std::str::from_utf8(stored).map_err(|error| error.to_string())?;
    serde_json::from_slice::<IgnoredAny>(stored).map_err(|error| error.to_string())?;
    let whole = if lacks { filled(stored, row) } else { None };
    let stored = whole.as_deref().unwrap_or(stored);
    Object::new(key.clone(), stored, created, revision, change, row).ok_or_else(|| "it is not an object".to_owned())
}
