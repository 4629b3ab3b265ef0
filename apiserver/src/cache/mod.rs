//! The watch cache: everything the store holds, ready to be sent.
//!
//! ```text
//!  store.watch("/registry/") ─► cacher task ─┬─► pods:   snapshot + history ─► GET, LIST, watchers
//!                                            ├─► nodes:  snapshot + history
//!                                            └─► progress (revision up to which all of it is true)
//! ```
//!
//! One watch serves every resource, so one number says how far all of them have come. A consistent read waits until
//! that number has reached the store's revision.

mod index;
mod object;
mod resource;
mod selection;
pub mod watcher;

pub use index::{Field, Labels};
pub use object::{CLOSING, Change, Object, encode, with_revision};
pub use resource::{CacheEvent, Objects, ResourceCache, Snapshot, TooOld};
pub use selection::Selection;

use crate::registry::{Registry, Row};
use crate::store::{Batch, Event, Range, Revision, Store, StoreError, Watch};
use futures::StreamExt;
use parking_lot::RwLock;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// All keys of the API begin with this.
pub const PREFIX: &str = "/registry/";

/// Below this, a key for each node port that is taken.
pub const NODE_PORTS: &str = "/registry/nodeports/";

/// How much of the past is read back after a restart, in revisions.
const REFILL: u64 = 4096;

/// How long a reader waits for the watch before the store is asked to show how far it has come.
const ANNOUNCE_AFTER: Duration = Duration::from_millis(100);

/// How long to wait before the store's watch is tried again.
const RETRY: Duration = Duration::from_millis(200);

/// Objects read from the store at a time while loading.
const LOAD_PAGE: usize = 500;

/// The caches of all rows, and the task that feeds them.
pub struct Cacher {
    store: Arc<dyn Store>,
    resources: HashMap<String, Arc<ResourceCache>>,
    progress: watch::Sender<Revision>,
    /// Node ports that services hold: keys of the store that are no objects.
    node_ports: RwLock<HashSet<i64>>,
}

impl Cacher {
    /// Loads everything from the store.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn load(store: Arc<dyn Store>, registry: &Registry) -> Result<Arc<Self>, StoreError> {
        let resources =
            registry.rows().map(|row| (row.storage.to_string(), Arc::new(ResourceCache::new(row.clone())))).collect();
        let cacher =
            Arc::new(Self { store, resources, progress: watch::Sender::new(0), node_ports: RwLock::default() });
        let revision = cacher.reload().await?;
        cacher.refill(revision).await?;
        cacher.progress.send_replace(revision);
        Ok(cacher)
    }

    /// The cache of a row.
    pub fn resource(&self, row: &Row) -> Option<&Arc<ResourceCache>> {
        self.resources.get(&*row.storage)
    }

    /// Lets go of what was kept for lists that were not gone on with.
    pub fn forget_kept(&self) {
        self.resources.values().for_each(|cache| cache.forget_kept());
    }

    /// How far the caches have come.
    pub fn progress(&self) -> Revision {
        *self.progress.borrow()
    }

    /// Waits until the caches hold everything up to `revision`; false when they do not in time.
    pub async fn reached(&self, revision: Revision, limit: Duration) -> bool {
        if self.progress() >= revision {
            return true;
        }
        let mut progress = self.progress.subscribe();
        let mut wait = async |limit| {
            let reached = tokio::time::timeout(limit, progress.wait_for(|progress| *progress >= revision)).await;
            matches!(reached, Ok(Ok(_)))
        };
        if wait(limit.min(ANNOUNCE_AFTER)).await {
            return true;
        }
        // Perhaps what made the revision is not ours to see.
        if self.store.announce().await.is_err() {
            return false;
        }
        wait(limit).await
    }

    /// Follows the store until told to stop.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                error = self.follow() => match error {
                    StoreError::Compacted { .. } => {
                        tracing::warn!(%error, "the cache fell behind the store and is loaded again");
                        if let Ok(revision) = self.reload().await {
                            self.progress.send_replace(revision);
                            continue;
                        }
                    }
                    error => tracing::warn!(%error, "the store's watch ended and is begun again"),
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }

    /// Applies batches until the watch fails, and says why.
    async fn follow(&self) -> StoreError {
        let watch = Watch { prefix: PREFIX.to_owned(), from: self.progress() + 1, previous: false };
        let mut batches = match self.store.watch(watch).await {
            Ok(batches) => batches,
            Err(error) => return error,
        };
        while let Some(batch) = batches.next().await {
            match batch {
                Ok(batch) => self.apply(&batch),
                Err(error) => return error,
            }
        }
        StoreError::Unavailable("the watch ended".to_owned())
    }

    fn apply(&self, batch: &Batch) {
        match batch.events.as_slice() {
            [] => {}
            [event] => {
                self.note_node_port(event);
                if let Some(cache) = self.cache_of(&event.key) {
                    cache.apply(std::slice::from_ref(event));
                }
            }
            events => {
                events.iter().for_each(|event| self.note_node_port(event));
                for (cache, events) in self.by_resource(events.to_vec()) {
                    cache.apply(&events);
                }
            }
        }
        self.progress.send_modify(|progress| *progress = (*progress).max(batch.revision));
    }

    /// Whether a service holds this node port.
    pub fn node_port_taken(&self, port: i64) -> bool {
        self.node_ports.read().contains(&port)
    }

    fn note_node_port(&self, event: &Event) {
        let Some(port) = event.key.strip_prefix(NODE_PORTS).and_then(|port| port.parse().ok()) else { return };
        let mut taken = self.node_ports.write();
        if event.value.is_some() {
            taken.insert(port)
        } else {
            taken.remove(&port)
        };
    }

    fn cache_of(&self, key: &str) -> Option<&Arc<ResourceCache>> {
        let storage = key.strip_prefix(PREFIX)?.split('/').next()?;
        self.resources.get(storage)
    }

    fn by_resource(&self, events: Vec<Event>) -> Vec<(&Arc<ResourceCache>, Vec<Event>)> {
        let mut groups: Vec<(&Arc<ResourceCache>, Vec<Event>)> = Vec::new();
        for event in events {
            let Some(cache) = self.cache_of(&event.key) else { continue };
            match groups.iter_mut().find(|(other, _)| Arc::ptr_eq(other, cache)) {
                Some((_, events)) => events.push(event),
                None => groups.push((cache, vec![event])),
            }
        }
        groups
    }

    /// Reads every resource as of one revision.
    async fn reload(&self) -> Result<Revision, StoreError> {
        let revision = self.store.revision().await?;
        for cache in self.resources.values() {
            let prefix = format!("{PREFIX}{}/", cache.row.storage);
            let mut objects = Objects::new();
            let mut from = None;
            loop {
                let range = Range { prefix: prefix.clone(), from, limit: LOAD_PAGE, at: Some(revision) };
                let page = self.store.range(range).await?;
                // The next page begins right behind the last key.
                from = page.records.last().map(|record| format!("{}\0", record.key));
                for record in page.records {
                    let Some(key) = object_key(&record.key, &cache.row) else { continue };
                    match Object::new(
                        key.clone(),
                        &record.value,
                        record.created,
                        record.modified,
                        Change::Added,
                        &cache.row,
                    ) {
                        Some(object) => drop(objects.insert(key, Arc::new(object))),
                        None => tracing::warn!(key = %record.key, "skipping a record that is not an object"),
                    }
                }
                if !page.more {
                    break;
                }
            }
            cache.reset(objects, revision, revision);
        }
        let range = Range { prefix: NODE_PORTS.to_owned(), from: None, limit: 0, at: Some(revision) };
        let taken = self.store.range(range).await?.records;
        *self.node_ports.write() =
            taken.iter().filter_map(|record| record.key.strip_prefix(NODE_PORTS)?.parse().ok()).collect();
        Ok(revision)
    }

    /// Reads the recent past back, so that watches begun before a restart can go on.
    async fn refill(&self, revision: Revision) -> Result<(), StoreError> {
        let mut from = revision.saturating_sub(REFILL).max(1);
        while from <= revision {
            match self.refill_from(from, revision).await {
                // Some of it is gone: the rest will do.
                Err(StoreError::Compacted { oldest, .. }) if from <= oldest => from = oldest + 1,
                result => return result,
            }
        }
        Ok(())
    }

    async fn refill_from(&self, from: Revision, revision: Revision) -> Result<(), StoreError> {
        let mut batches = self.store.watch(Watch { prefix: PREFIX.to_owned(), from, previous: true }).await?;
        for cache in self.resources.values() {
            cache.reset(cache.snapshot().objects.clone(), revision, from - 1);
        }
        // So that there is something to read up to `revision`, whoever wrote that.
        self.store.announce().await?;
        let mut reached = from - 1;
        while reached < revision {
            let Some(batch) = batches.next().await else { break };
            let mut batch = batch?;
            reached = batch.revision;
            batch.events.retain(|event| event.modified <= revision);
            for (cache, events) in self.by_resource(batch.events) {
                cache.refill(events);
            }
        }
        Ok(())
    }
}

/// `namespace/name`, or `name`, from a store key.
fn object_key(key: &str, row: &Row) -> Option<Arc<str>> {
    let rest = key.strip_prefix(PREFIX)?.strip_prefix(&*row.storage)?.strip_prefix('/')?;
    (rest.contains('/') == row.namespaced && !rest.is_empty()).then(|| rest.into())
}

/// The store key of an object.
pub fn store_key(row: &Row, namespace: &str, name: &str) -> Arc<str> {
    if row.namespaced {
        format!("{PREFIX}{}/{namespace}/{name}", row.storage).into()
    } else {
        format!("{PREFIX}{}/{name}", row.storage).into()
    }
}
