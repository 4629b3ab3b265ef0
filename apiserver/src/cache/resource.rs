//! The cache of one stored resource: a snapshot for reads, a bounded history for watches.
//!
//! One task writes (the [cacher](super::Cacher)); readers take the snapshot with one atomic load and never wait. The
//! order is: history first, then snapshot, then the signal. So a watcher that starts from a snapshot finds everything
//! after it in the history.

use super::defaults::Defaults;
use super::object::{Change, Object};
use super::unreadable::{self, UnreadableRecords};
use super::watchers::Watchers;
use crate::registry::Row;
use crate::store::{self, Revision};
use arc_swap::ArcSwap;
use bytes::Bytes;
use imbl::OrdMap;
use parking_lot::{Mutex, RwLock};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// How many events, and how many bytes of objects, a resource's history holds.
const MAX_EVENTS: usize = 8192;
const MAX_BYTES: usize = 16 << 20;

/// How long a history is as large as that, and how much of what is older it holds, whichever is more: after a busy moment it
/// would be what takes the most memory, and whoever watches has seen it (apiserver `storage/cacher/watch_cache.go`,
/// `eventFreshDuration` and `defaultLowerBoundCapacity`).
const FRESH: Duration = Duration::from_secs(75);
const STALE_EVENTS: usize = 100;
const STALE_BYTES: usize = 512 << 10;

/// Joined frames that are kept, of 64 KiB or little more each.
const KEPT_JOINED: usize = 4;

/// Snapshots that are kept for the pages of lists that were begun.
const KEPT_SNAPSHOTS: usize = 16;

/// How long they are kept; after that the next page is read from the store's history.
const KEPT_FOR: Duration = Duration::from_secs(60);

/// Objects by `namespace/name`, in the order of lists.
pub type Objects = OrdMap<Arc<str>, Arc<Object>>;

/// All objects of a resource as they stood at a revision.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub objects: Objects,
    /// The newest write that is in here.
    pub revision: Revision,
}

impl Snapshot {
    /// One object.
    pub fn get(&self, key: &str) -> Option<&Arc<Object>> {
        self.objects.get(key)
    }

    /// The objects at or after `from` whose key begins with `prefix`.
    pub fn range<'a>(&'a self, prefix: &'a str, from: &'a str) -> impl Iterator<Item = &'a Arc<Object>> {
        let start = if from > prefix { from } else { prefix };
        let rest = self.objects.range::<_, str>((std::ops::Bound::Included(start), std::ops::Bound::Unbounded));
        rest.take_while(move |(key, _)| key.starts_with(prefix)).map(|(_, object)| object)
    }
}

/// One write in the history.
#[derive(Debug)]
pub struct CacheEvent {
    pub change: Change,
    pub revision: Revision,
    /// The object after the write; for a deletion the last state, carrying the deletion's revision.
    object: Arc<Object>,
    /// The object before the write; for a deletion its last state, too.
    pub previous: Option<Arc<Object>>,
    /// The last state carrying the revision of the write, made for the first watcher to whom the object is gone by it.
    gone: OnceLock<Arc<Object>>,
    at: Instant,
}

impl CacheEvent {
    fn new(change: Change, revision: Revision, object: Arc<Object>, previous: Option<Arc<Object>>) -> Self {
        Self { change, revision, object, previous, gone: OnceLock::new(), at: Instant::now() }
    }

    /// A deletion. The last state is held once, as watchers are shown it: it says the same of labels and fields.
    fn deletion(revision: Revision, last: &Object) -> Self {
        let gone = Arc::new(last.at(revision, Change::Deleted));
        let event = Self::new(Change::Deleted, revision, gone.clone(), Some(gone.clone()));
        Self { gone: OnceLock::from(gone), ..event }
    }

    /// The object as it is after the write, for selectors.
    pub fn object(&self) -> &Arc<Object> {
        &self.object
    }

    /// The object before the write as a watcher is shown it for whom it is gone.
    pub fn gone(&self) -> &Arc<Object> {
        let last = self.previous.as_ref().unwrap_or(&self.object);
        self.gone.get_or_init(|| Arc::new(last.at(self.revision, Change::Deleted)))
    }
}

#[derive(Debug, Default)]
struct History {
    events: VecDeque<Arc<CacheEvent>>,
    bytes: usize,
    /// Every event after it is in `events`.
    floor: Revision,
}

/// Why a watch cannot go on from where it is.
#[derive(Debug, PartialEq, Eq)]
pub struct TooOld {
    /// The oldest revision a watch can start from.
    pub oldest: Revision,
}

/// The cache of one row.
#[derive(Debug)]
pub struct ResourceCache {
    pub row: Arc<Row>,
    snapshot: ArcSwap<Snapshot>,
    history: RwLock<History>,
    /// The revision of the newest event; watchers wait on it.
    signal: watch::Sender<Revision>,
    /// The frames that were joined last, from one revision to another, the newest last. Watchers come in crowds that are
    /// equally far, and each crowd wants the same.
    joined: Mutex<VecDeque<(Revision, Revision, Bytes)>>,
    /// Snapshots that a continue token may name, oldest first.
    kept: Mutex<VecDeque<(Instant, Snapshot)>>,
    pub unreadable: UnreadableRecords,
    watchers: Arc<Watchers>,
    /// Of all objects of the snapshot.
    bytes: AtomicUsize,
    /// Others write to the store, too: what they write is checked.
    shared: bool,
    /// Nothing more comes: the resource is gone, or another cache has taken this one's place.
    ended: CancellationToken,
}

impl ResourceCache {
    pub fn new(row: Arc<Row>, shared: bool) -> Self {
        Self {
            row,
            snapshot: ArcSwap::default(),
            history: RwLock::default(),
            signal: watch::Sender::new(0),
            joined: Mutex::default(),
            kept: Mutex::default(),
            unreadable: UnreadableRecords::default(),
            watchers: Arc::default(),
            bytes: AtomicUsize::new(0),
            shared,
            ended: CancellationToken::new(),
        }
    }

    /// Ends the watches: clients come back and find what there is then.
    pub(super) fn end(&self) {
        self.ended.cancel();
    }

    /// Completes when nothing more comes.
    pub fn ended(&self) -> WaitForCancellationFutureOwned {
        self.ended.clone().cancelled_owned()
    }

    /// The frames of all events from one revision to another, joined by the first who asks.
    pub(super) fn joined(&self, from: Revision, to: Revision, join: impl FnOnce() -> Bytes) -> Bytes {
        let mut joined = self.joined.lock();
        if let Some((.., bytes)) = joined.iter().find(|(first, last, _)| (*first, *last) == (from, to)) {
            return bytes.clone();
        }
        if joined.len() == KEPT_JOINED {
            joined.pop_front();
        }
        let bytes = join();
        joined.push_back((from, to, bytes.clone()));
        bytes
    }

    /// The newest state.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Who watches.
    pub fn watchers(&self) -> &Arc<Watchers> {
        &self.watchers
    }

    /// Bytes of an object, on average.
    pub fn average_size(&self) -> usize {
        self.bytes.load(Ordering::Relaxed) / self.snapshot.load().objects.len().max(1)
    }

    /// Keeps a snapshot for the next pages of a list at its revision.
    pub fn keep(&self, snapshot: Snapshot) {
        let mut kept = self.kept.lock();
        if kept.iter().any(|(_, other)| other.revision == snapshot.revision) {
            return;
        }
        if kept.len() == KEPT_SNAPSHOTS {
            kept.pop_front();
        }
        kept.push_back((Instant::now(), snapshot));
    }

    /// A snapshot that was kept at this revision.
    pub fn kept(&self, revision: Revision) -> Option<Snapshot> {
        self.kept
            .lock()
            .iter()
            .find(|(_, snapshot)| snapshot.revision == revision)
            .map(|(_, snapshot)| snapshot.clone())
    }

    /// Lets go of what nobody is likely to come back for: it holds objects that are long gone.
    pub fn forget_kept(&self) {
        self.joined.lock().clear();
        self.kept.lock().retain(|(since, _)| since.elapsed() < KEPT_FOR);
        let stale = self.history.read().has_stale();
        if stale {
            self.history.write().forget_stale();
        }
    }

    /// Waits on this for news; it holds the revision of the newest event.
    pub fn subscribe(&self) -> watch::Receiver<Revision> {
        self.signal.subscribe()
    }

    /// The events after `revision`, oldest first, at most `limit` but always whole revisions.
    pub fn since(&self, revision: Revision, limit: usize) -> Result<Vec<Arc<CacheEvent>>, TooOld> {
        let history = self.history.read();
        if revision < history.floor {
            return Err(TooOld { oldest: history.floor });
        }
        let start = history.events.partition_point(|event| event.revision <= revision);
        let mut end = history.events.len().min(start + limit);
        while end > start
            && end < history.events.len()
            && history.events[end].revision == history.events[end - 1].revision
        {
            end += 1;
        }
        Ok(history.events.range(start..end).cloned().collect())
    }

    /// Replaces everything by what the store holds at `revision`; the history begins after `floor`.
    pub(super) fn reset(&self, objects: Objects, revision: Revision, floor: Revision) {
        let mut history = self.history.write();
        *history = History { floor, ..History::default() };
        self.joined.lock().clear();
        self.bytes.store(objects.values().map(|object| object.size()).sum(), Ordering::Relaxed);
        self.snapshot.store(Arc::new(Snapshot { objects, revision }));
        drop(history);
        self.signal.send_modify(|newest| *newest = (*newest).max(revision));
    }

    /// Puts events of the past, which the snapshot already holds, into the history.
    pub(super) fn refill(&self, events: Vec<store::Event>, defaults: &Defaults) {
        let snapshot = self.snapshot();
        let events: Vec<_> = events
            .into_iter()
            .filter_map(|event| {
                let key = super::object_key(&event.key, &self.row)?;
                let known = snapshot.get(&key).filter(|object| object.revision == event.modified).cloned();
                let (created, before) = (event.created, event.modified - 1);
                let previous = event.previous.as_ref().and_then(|stored| {
                    self.object(&key, stored, created, before, Change::Modified, defaults).ok().map(Arc::new)
                });
                self.event(&key, &event, known, previous, defaults).map(Arc::new)
            })
            .collect();
        self.history.write().extend(events);
    }

    /// Applies the store's events, in order.
    pub(super) fn apply(&self, events: &[store::Event], defaults: &Defaults) {
        let mut next = Snapshot::clone(&self.snapshot.load());
        let mut made = Vec::with_capacity(events.len());
        let mut unread = false;
        let mut bytes = self.bytes.load(Ordering::Relaxed);
        for event in events {
            let Some(key) = super::object_key(&event.key, &self.row) else { continue };
            let previous = match &event.value {
                None => next.objects.remove(&*key),
                Some(_) => next.get(&key).cloned(),
            };
            let before = previous.as_ref().map_or(0, |object| object.size());
            next.revision = event.modified;
            self.unreadable.remove(&key);
            let Some(made_event) = self.event(&key, event, None, previous, defaults) else {
                bytes = bytes.saturating_sub(before);
                if event.value.is_some() {
                    next.objects.remove(&*key);
                    unread = true;
                }
                continue;
            };
            bytes = bytes.saturating_sub(before);
            if event.value.is_some() {
                bytes += made_event.object().size();
                next.objects.insert(key, made_event.object().clone());
            }
            made.push(Arc::new(made_event));
        }
        self.bytes.store(bytes, Ordering::Relaxed);
        let revision = next.revision;
        let mut history = self.history.write();
        history.extend(made);
        if unread {
            // Watchers cannot be told what became of it: they are to list again, which says so.
            *history = History { floor: revision, ..History::default() };
        }
        drop(history);
        self.snapshot.store(Arc::new(next));
        self.signal.send_replace(revision);
    }

    fn event(
        &self,
        key: &Arc<str>,
        event: &store::Event,
        known: Option<Arc<Object>>,
        previous: Option<Arc<Object>>,
        defaults: &Defaults,
    ) -> Option<CacheEvent> {
        let Some(stored) = &event.value else {
            return Some(CacheEvent::deletion(event.modified, &*previous?));
        };
        let change = if event.created == event.modified { Change::Added } else { Change::Modified };
        let object = known.or_else(|| {
            let (created, modified) = (event.created, event.modified);
            let made = self.object(key, stored, created, modified, change, defaults);
            made.inspect_err(|why| self.unreadable.add(key, modified, why.clone())).ok().map(Arc::new)
        })?;
        Some(CacheEvent::new(change, event.modified, object, previous))
    }

    /// An object as a record has it that was there at `revision`.
    fn object(
        &self,
        key: &Arc<str>,
        stored: &[u8],
        created: Revision,
        revision: Revision,
        change: Change,
        defaults: &Defaults,
    ) -> Result<Object, String> {
        let lacks = defaults.lack_at(revision);
        match self.shared || lacks {
            true => unreadable::checked(key, stored, created, revision, change, &self.row, lacks),
            false => Object::new(key.clone(), stored, created, revision, change, &self.row)
                .ok_or_else(|| "it is not an object".to_owned()),
        }
    }
}

impl History {
    fn extend(&mut self, events: Vec<Arc<CacheEvent>>) {
        for event in events {
            self.bytes += event.object.size();
            self.events.push_back(event);
        }
        while self.events.len() > MAX_EVENTS
            || self.bytes > MAX_BYTES
            || self.events.front().is_some_and(|event| event.revision <= self.floor)
        {
            self.forget_first();
        }
    }

    /// Whether it holds more of what is old than it should.
    fn has_stale(&self) -> bool {
        let is_large = self.bytes > STALE_BYTES && self.events.len() > STALE_EVENTS;
        is_large && self.events.front().is_some_and(|event| event.at.elapsed() >= FRESH)
    }

    fn forget_stale(&mut self) {
        while self.has_stale() || self.events.front().is_some_and(|event| event.revision <= self.floor) {
            self.forget_first();
        }
        self.events.shrink_to(2 * self.events.len());
    }

    fn forget_first(&mut self) {
        if let Some(event) = self.events.pop_front() {
            self.bytes -= event.object.size();
            self.floor = self.floor.max(event.revision);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::json::json;

    fn object(revision: Revision, bytes: usize) -> Arc<Object> {
        let value = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "a", "namespace": "x",
            "labels": {"app": "web"}, "annotations": {"long": "l".repeat(bytes)}}, "spec": {"nodeName": "n"}});
        let stored = super::super::encode(&value);
        Arc::new(Object::new("x/a".into(), &stored, 1, revision, Change::Added, crate::registry::pods()).unwrap())
    }

    fn history(events: u64, bytes: usize) -> History {
        let mut history = History::default();
        let event = |at| Arc::new(CacheEvent::new(Change::Modified, at, object(at, bytes), None));
        history.extend((1..=events).map(event).collect());
        history
    }

    #[tokio::test(start_paused = true)]
    async fn a_history_is_small_when_it_is_old() {
        let mut large = history(300, 8 << 10);
        let mut short = history(100, 8 << 10);
        let mut light = history(300, 100);
        tokio::time::advance(FRESH - Duration::from_millis(1)).await;
        assert!(![&large, &short, &light].into_iter().any(History::has_stale), "all of it is fresh");
        tokio::time::advance(Duration::from_millis(1)).await;
        for history in [&mut large, &mut short, &mut light] {
            history.forget_stale();
        }
        assert_eq!((large.events.len(), large.floor), (STALE_EVENTS, 200));
        assert_eq!((short.events.len(), short.floor, light.events.len()), (100, 0, 300));
        assert_eq!(large.bytes, large.events.iter().map(|event| event.object.size()).sum::<usize>());
    }

    #[test]
    fn the_last_state_of_what_is_deleted_is_held_once() {
        let last = object(3, 10);
        let event = CacheEvent::deletion(7, &last);
        let shown = event.object().parse();
        assert_eq!((&shown["metadata"]["resourceVersion"], event.object().revision), (&json!("7"), 7));
        assert_eq!((event.object().labels().get("app"), event.object().field(0)), (Some("web"), last.field(0)));
        assert!(Arc::ptr_eq(event.object(), event.gone()));
        assert!(event.previous.is_some_and(|previous| Arc::ptr_eq(&previous, &event.object)));
    }
}
