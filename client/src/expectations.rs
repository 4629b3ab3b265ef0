//! What a reconciler has written and not seen yet.
//!
//! A plan that is made on a snapshot from before one's own writes would do them twice. Upstream's controllers count
//! the creations and deletions that they expect to see (pkg/controller/controller_utils.go, `ControllerExpectations`);
//! here the written object's resource version and uid are noted instead, which needs no counting of events,
//! cannot drift, and covers updates too. As upstream, a key whose writes are not seen within five minutes is planned anyway.

use std::{collections::HashMap, hash::Hash, sync::Arc, time::Duration};

use kube::Resource;
use parking_lot::Mutex;

use crate::{Informer, Key};

/// Upstream's `ExpectationsTimeout`.
pub const EXPECTATIONS_TTL: Duration = Duration::from_secs(5 * 60);

/// The side of an informer that expectations need.
pub trait View: Send + Sync {
    /// The highest resource version seen.
    fn version(&self) -> u64;
    /// Whether the object with this uid is gone or marked for deletion.
    fn is_going(&self, key: &Key, uid: &str) -> bool;
}

impl<K: Resource + Send + Sync + 'static> View for Informer<K> {
    fn version(&self) -> u64 {
        self.snapshot().version()
    }

    fn is_going(&self, key: &Key, uid: &str) -> bool {
        self.snapshot().get(key).is_none_or(|object| {
            let meta = object.meta();
            meta.uid.as_deref() != Some(uid) || meta.deletion_timestamp.is_some()
        })
    }
}

/// One write that has to be seen.
#[derive(Clone)]
pub enum Expected {
    /// A created or updated object: some object of its resource is seen at this version or a later one.
    Version { view: Arc<dyn View>, version: u64 },
    /// A deleted object: it is gone, replaced or marked.
    Going { view: Arc<dyn View>, key: Key, uid: String },
}

impl Expected {
    fn is_seen(&self) -> bool {
        match self {
            Self::Version { view, version } => view.version() >= *version,
            Self::Going { view, key, uid } => view.is_going(key, uid),
        }
    }
}

/// The unseen writes of each key.
pub struct Expectations<T> {
    keys: Mutex<HashMap<T, Waiting>>,
    ttl: Duration,
}

struct Waiting {
    since: Duration,
    unseen: Vec<Expected>,
}

impl<T: Clone + Eq + Hash> Default for Expectations<T> {
    fn default() -> Self {
        Self::new(EXPECTATIONS_TTL)
    }
}

impl<T: Clone + Eq + Hash> Expectations<T> {
    /// No expectations; those to come are given up after `ttl`.
    pub fn new(ttl: Duration) -> Self {
        Self { keys: Mutex::new(HashMap::new()), ttl }
    }

    /// Notes a write made for `key` at the monotonic time `now`.
    pub fn expect(&self, key: &T, expected: Expected, now: Duration) {
        let mut keys = self.keys.lock();
        let waiting = keys.entry(key.clone()).or_insert_with(|| Waiting { since: now, unseen: Vec::new() });
        waiting.since = now;
        match expected {
            Expected::Version { view, version } => {
                // Versions of one resource arrive in order: the highest stands for all.
                let have = waiting.unseen.iter_mut().find_map(|have| match have {
                    Expected::Version { view: other, version } if Arc::ptr_eq(other, &view) => Some(version),
                    _ => None,
                });
                match have {
                    Some(have) => *have = (*have).max(version),
                    None => waiting.unseen.push(Expected::Version { view, version }),
                }
            }
            going => waiting.unseen.push(going),
        }
    }

    /// Whether all writes for `key` are seen (or have been waited for long enough). Ask before taking the snapshot:
    /// asked after it, a write that arrives in between would be planned again.
    pub fn satisfied(&self, key: &T, now: Duration) -> bool {
        let mut keys = self.keys.lock();
        let Some(waiting) = keys.get_mut(key) else { return true };
        waiting.unseen.retain(|expected| !expected.is_seen());
        let over = waiting.unseen.is_empty() || now.saturating_sub(waiting.since) >= self.ttl;
        if over {
            keys.remove(key);
        }
        over
    }

    /// The key is gone, and with it what was expected for it.
    pub fn forget(&self, key: &T) {
        self.keys.lock().remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[derive(Default)]
    struct Fake(AtomicU64, Mutex<Vec<String>>);

    impl View for Fake {
        fn version(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }
        fn is_going(&self, _: &Key, uid: &str) -> bool {
            self.1.lock().iter().any(|have| have == uid)
        }
    }

    #[test]
    fn waits_for_versions_deletions_or_the_ttl() {
        let pods = Arc::new(Fake::default());
        let view: Arc<dyn View> = pods.clone();
        let expectations = Expectations::<&str>::default();
        let zero = Duration::ZERO;
        assert!(expectations.satisfied(&"a", zero));
        expectations.expect(&"a", Expected::Version { view: view.clone(), version: 5 }, zero);
        expectations.expect(&"a", Expected::Version { view: view.clone(), version: 3 }, zero);
        expectations.expect(&"a", Expected::Going { view, key: Key::new("d", "p"), uid: "u".into() }, zero);
        assert!(!expectations.satisfied(&"a", zero));
        assert!(expectations.satisfied(&"b", zero), "other keys are free");
        pods.0.store(4, Ordering::Relaxed);
        pods.1.lock().push("u".into());
        assert!(!expectations.satisfied(&"a", zero), "version 5 is not seen");
        assert!(expectations.satisfied(&"a", EXPECTATIONS_TTL), "the time is over");
        assert!(expectations.satisfied(&"a", zero));
    }
}
