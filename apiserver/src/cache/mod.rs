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

mod defaults;
mod index;
pub mod measured;
mod object;
mod resource;
pub(crate) mod scan;
mod selection;
pub mod unreadable;
pub mod watcher;
mod watchers;

pub(crate) use defaults::rewrite;
pub use defaults::{Defaults, MARK};
pub use index::{Field, Labels};
pub use object::{CLOSING, Change, Object, encode, encode_before, encode_managed, with_revision};
pub use resource::{CacheEvent, Objects, ResourceCache, Snapshot, TooOld};
pub use selection::Selection;

use crate::registry::{Registry, Row};
use crate::store::{Batch, Event, Range, Revision, Store, StoreError, Watch};
use arc_swap::ArcSwap;
use futures::StreamExt;
use parking_lot::RwLock;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
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

type Resources = HashMap<String, Arc<ResourceCache>>;

/// Commands that wait; whoever has more to say waits too.
const COMMANDS: usize = 16;

/// A change of what is cached.
struct Command {
    /// The storage whose cache is dropped.
    remove: Option<String>,
    /// The row whose objects are read from the store, in the place of a cache of the same storage.
    add: Option<Arc<Row>>,
    done: oneshot::Sender<Result<(), StoreError>>,
}

/// Whether others may write to a store, too.
pub(crate) fn is_shared(store: &dyn Store) -> bool {
    store.revision_now().is_none()
}

/// The caches of all rows, and the task that feeds them.
pub struct Cacher {
    store: Arc<dyn Store>,
    /// By the part of the key that names the resource; custom resources come and go.
    resources: ArcSwap<Resources>,
    /// What the task that applies the store's writes is to do between two of them.
    commands: mpsc::Sender<Command>,
    received: tokio::sync::Mutex<mpsc::Receiver<Command>>,
    progress: watch::Sender<Revision>,
    /// What may be missing in records.
    defaults: Defaults,
    /// Node ports that services hold: keys of the store that are no objects.
    node_ports: RwLock<HashSet<i64>>,
}

impl Cacher {
    /// Loads everything from the store.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn load(store: Arc<dyn Store>, registry: &Registry) -> Result<Arc<Self>, StoreError> {
        let defaults = Defaults::load(&*store).await?;
        let mut resources = Resources::new();
        for row in registry.current().rows().filter(|row| row.is_stored()) {
            // Of the versions of a custom resource, the one that is stored has the cache.
            let converts = row.strategy.custom().is_some_and(|custom| custom.converts());
            if !converts || !resources.contains_key(&*row.storage) {
                resources
                    .insert(row.storage.to_string(), Arc::new(ResourceCache::new(row.clone(), is_shared(&*store))));
            }
        }
        let (commands, received) = mpsc::channel(COMMANDS);
        let cacher = Arc::new(Self {
            store,
            resources: ArcSwap::from_pointee(resources),
            commands,
            received: tokio::sync::Mutex::new(received),
            progress: watch::Sender::new(0),
            defaults,
            node_ports: RwLock::default(),
        });
        let revision = cacher.reload().await?;
        cacher.refill(revision).await?;
        cacher.progress.send_replace(revision);
        Ok(cacher)
    }

    /// What may be missing in the store's records.
    pub fn defaults(&self) -> &Defaults {
        &self.defaults
    }

    /// The cache of a row.
    pub fn resource(&self, row: &Row) -> Option<Arc<ResourceCache>> {
        self.resources.load().get(&*row.storage).cloned()
    }

    /// Caches the objects of a row from now on, or reads them again under what the row is now.
    ///
    /// # Errors
    /// When the store cannot be read, or the cache's task has ended.
    pub async fn add(&self, row: Arc<Row>) -> Result<(), StoreError> {
        self.command(None, Some(row)).await
    }

    /// Forgets the objects of a storage.
    ///
    /// # Errors
    /// When the cache's task has ended.
    pub async fn remove(&self, storage: &str) -> Result<(), StoreError> {
        self.command(Some(storage.to_owned()), None).await
    }

    async fn command(&self, remove: Option<String>, add: Option<Arc<Row>>) -> Result<(), StoreError> {
        let ended = || StoreError::Unavailable("the watch cache has ended".to_owned());
        let (done, answer) = oneshot::channel();
        self.commands.send(Command { remove, add, done }).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }

    /// Does what is asked between two writes, so that a new cache holds exactly what is true at `progress`.
    async fn obey(&self, command: Command) {
        let mut resources = Resources::clone(&self.resources.load());
        if let Some(cache) = command.remove.and_then(|storage| resources.remove(&storage)) {
            cache.end();
        }
        let mut result = Ok(());
        if let Some(row) = command.add {
            let cache = Arc::new(ResourceCache::new(row, is_shared(&*self.store)));
            result = self.read(&cache, self.progress()).await;
            if result.is_ok()
                && let Some(before) = resources.insert(cache.row.storage.to_string(), cache)
            {
                before.end();
            }
        }
        self.resources.store(Arc::new(resources));
        // Whoever asked may have stopped waiting.
        let _ = command.done.send(result);
    }

    /// Lets go of what was kept for lists that were not gone on with.
    pub fn forget_kept(&self) {
        self.resources.load().values().for_each(|cache| cache.forget_kept());
    }

    /// How far the caches have come.
    pub fn progress(&self) -> Revision {
        *self.progress.borrow()
    }

    /// The newest state of a resource, and a revision: all that was written up to that is in the state, perhaps more.
    pub fn newest(&self, cache: &ResourceCache) -> (Revision, Arc<Snapshot>) {
        // In this order.
        let progress = self.progress();
        (progress, cache.snapshot())
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
        // Nobody else takes commands, so this never waits.
        let mut commands = self.received.lock().await;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                error = self.follow(&mut commands) => match error {
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
    async fn follow(&self, commands: &mut mpsc::Receiver<Command>) -> StoreError {
        let watch = Watch { prefix: PREFIX.to_owned(), from: self.progress() + 1, previous: false };
        let mut batches = match self.store.watch(watch).await {
            Ok(batches) => batches,
            Err(error) => return error,
        };
        loop {
            tokio::select! {
                batch = batches.next() => match batch {
                    Some(Ok(batch)) => self.apply(&batch),
                    Some(Err(error)) => return error,
                    None => return StoreError::Unavailable("the watch ended".to_owned()),
                },
                Some(command) = commands.recv() => self.obey(command).await,
            }
        }
    }

    fn apply(&self, batch: &Batch) {
        match batch.events.as_slice() {
            [] => {}
            [event] => {
                self.note_node_port(event);
                let resources = self.resources.load();
                if let Some(cache) = cache_of(&resources, &event.key) {
                    cache.apply(std::slice::from_ref(event), &self.defaults);
                }
            }
            events => {
                events.iter().for_each(|event| self.note_node_port(event));
                let resources = self.resources.load();
                for (cache, events) in by_resource(&resources, events.to_vec()) {
                    cache.apply(&events, &self.defaults);
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

    /// Reads every resource as of one revision.
    async fn reload(&self) -> Result<Revision, StoreError> {
        let revision = self.store.revision().await?;
        for cache in self.resources.load_full().values() {
            self.read(cache, revision).await?;
        }
        let range = Range { prefix: NODE_PORTS.to_owned(), from: None, limit: 0, at: Some(revision) };
        let taken = self.store.range(range).await?.records;
        *self.node_ports.write() =
            taken.iter().filter_map(|record| record.key.strip_prefix(NODE_PORTS)?.parse().ok()).collect();
        Ok(revision)
    }

    /// Reads one resource as of a revision.
    async fn read(&self, cache: &ResourceCache, revision: Revision) -> Result<(), StoreError> {
        let prefix = format!("{PREFIX}{}/", cache.row.storage);
        let mut objects = Objects::new();
        cache.unreadable.clear();
        let lacks = self.defaults.lack_at(revision);
        let mut from = None;
        loop {
            let range = Range { prefix: prefix.clone(), from, limit: LOAD_PAGE, at: Some(revision) };
            let page = self.store.range(range).await?;
            // The next page begins right behind the last key.
            from = page.records.last().map(|record| format!("{}\0", record.key));
            for record in page.records {
                let Some(key) = object_key(&record.key, &cache.row) else { continue };
                let (value, created, modified) = (&record.value, record.created, record.modified);
                match unreadable::checked(&key, value, created, modified, Change::Added, &cache.row, lacks) {
                    Ok(object) => drop(objects.insert(key, Arc::new(object))),
                    Err(why) => cache.unreadable.add(&key, modified, why),
                }
            }
            if !page.more {
                break;
            }
        }
        cache.reset(objects, revision, revision);
        Ok(())
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
        let resources = self.resources.load_full();
        for cache in resources.values() {
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
            for (cache, events) in by_resource(&resources, batch.events) {
                cache.refill(events, &self.defaults);
            }
        }
        Ok(())
    }
}

/// The cache that an event belongs to. Storages of custom resources are `group/plural`, and only groups have dots.
fn cache_of<'a>(resources: &'a Resources, key: &str) -> Option<&'a Arc<ResourceCache>> {
    let rest = key.strip_prefix(PREFIX)?;
    let first = rest.find('/')?;
    let end = if rest[..first].contains('.') { first + 1 + rest[first + 1..].find('/')? } else { first };
    resources.get(&rest[..end])
}

fn by_resource(resources: &Resources, events: Vec<Event>) -> Vec<(&Arc<ResourceCache>, Vec<Event>)> {
    let mut groups: Vec<(&Arc<ResourceCache>, Vec<Event>)> = Vec::new();
    for event in events {
        let Some(cache) = cache_of(resources, &event.key) else { continue };
        match groups.iter_mut().find(|(other, _)| Arc::ptr_eq(other, cache)) {
            Some((_, events)) => events.push(event),
            None => groups.push((cache, vec![event])),
        }
    }
    groups
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
