//! A shared informer: one list and watch of a resource, its objects at hand without a request.

use std::{
    fmt::Debug,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use futures::{StreamExt, stream::BoxStream};
use kube::{Resource, runtime::watcher};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    Key,
    store::{IndexFn, Snapshot, version_of},
};

/// What an informer can hold: any Kubernetes object that can be decoded and shared.
pub trait Object: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static {}
impl<K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static> Object for K {}

/// One change, as seen after the snapshot already holds it.
#[derive(Debug)]
pub enum Event<K> {
    /// The object is new here.
    Added(Arc<K>),
    /// The object changed, or was found changed after a relist. Same uid on both.
    Updated { old: Arc<K>, new: Arc<K> },
    /// The object is gone; its last state that was seen.
    Deleted(Arc<K>),
}

impl<K> Clone for Event<K> {
    fn clone(&self) -> Self {
        match self {
            Self::Added(object) => Self::Added(object.clone()),
            Self::Updated { old, new } => Self::Updated { old: old.clone(), new: new.clone() },
            Self::Deleted(object) => Self::Deleted(object.clone()),
        }
    }
}

impl<K> Event<K> {
    /// The newest state of the object: for a deletion its last one.
    pub fn object(&self) -> &Arc<K> {
        match self {
            Self::Added(object) | Self::Deleted(object) | Self::Updated { new: object, .. } => object,
        }
    }

    /// The state before an update.
    pub fn old(&self) -> Option<&Arc<K>> {
        match self {
            Self::Updated { old, .. } => Some(old),
            _ => None,
        }
    }

    /// Whether the object is gone.
    pub fn is_deleted(&self) -> bool {
        matches!(self, Self::Deleted(_))
    }
}

/// How a stream of watch events is begun. Streaming lists are tried first and given up where the server has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// One watch that first sends all objects (KEP-3157).
    Streaming,
    /// Pages of a list, then a watch.
    Paged,
}

/// Opens the stream of events; called again whenever the stream has to begin anew.
pub type Source<K> = Box<dyn Fn(Begin) -> BoxStream<'static, watcher::Result<watcher::Event<K>>> + Send + Sync>;

type Handler<K> = Arc<dyn Fn(&Event<K>) + Send + Sync>;

/// A resource kept in memory by one list and watch, shared by everyone in the process who needs it.
pub struct Informer<K> {
    name: String,
    snapshot: ArcSwap<Snapshot<K>>,
    // Locked by the informer's own task for each batch, and by subscribe and add_index. Never held across an await.
    writer: Mutex<Writer<K>>,
    synced: watch::Sender<bool>,
    version: watch::Sender<u64>,
    next_handler: AtomicU64,
}

struct Writer<K> {
    working: Snapshot<K>,
    handlers: Vec<(u64, Handler<K>)>,
}

/// Ends a subscription when dropped. Must not be dropped inside a handler of the same informer.
pub struct Subscription(Option<Box<dyn FnOnce() + Send + Sync>>);

impl Subscription {
    /// Of what never tells anything by itself.
    pub fn none() -> Self {
        Self(None)
    }

    /// Lets the subscription live as long as the informer.
    pub fn forever(mut self) {
        self.0 = None;
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(end) = self.0.take() {
            end();
        }
    }
}

impl<K: Send + Sync + 'static> Informer<K> {
    /// An informer that is not connected to anything yet; `run` fills it.
    pub fn new(name: impl Into<String>) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            snapshot: ArcSwap::from_pointee(Snapshot::default()),
            writer: Mutex::new(Writer { working: Snapshot::default(), handlers: Vec::new() }),
            synced: watch::Sender::new(false),
            version: watch::Sender::new(0),
            next_handler: AtomicU64::new(0),
        })
    }

    /// The resource's name, for logs and metrics.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The objects now. Costs one atomic operation; hold it for one decision and let it go.
    pub fn snapshot(&self) -> Arc<Snapshot<K>> {
        self.snapshot.load_full()
    }

    /// The object called `name` in `namespace` (empty for cluster-scoped resources).
    pub fn find(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.snapshot.load().find(namespace, name).cloned()
    }

    /// Adds a named index, or does nothing where one of that name stands: same name means same function.
    pub fn add_index(&self, name: &'static str, values: IndexFn<K>) {
        let mut writer = self.writer.lock();
        writer.working.add_index(name, values);
        self.snapshot.store(Arc::new(writer.working.clone()));
    }

    /// Calls `handler` with every change, after an `Added` for each object that is there already: none is missed
    /// and none comes twice. The handler runs on the informer's task and has to be quick: note a key in a queue.
    pub fn subscribe(self: &Arc<Self>, handler: impl Fn(&Event<K>) + Send + Sync + 'static) -> Subscription {
        let id = self.next_handler.fetch_add(1, Ordering::Relaxed);
        let handler: Handler<K> = Arc::new(handler);
        let mut writer = self.writer.lock();
        for object in writer.working.iter() {
            handler(&Event::Added(object.clone()));
        }
        writer.handlers.push((id, handler));
        let informer: Weak<Self> = Arc::downgrade(self);
        Subscription(Some(Box::new(move || {
            if let Some(informer) = informer.upgrade() {
                informer.writer.lock().handlers.retain(|(have, _)| *have != id);
            }
        })))
    }

    /// Waits until the first list is complete. Returns at once when it is.
    pub async fn synced(&self) {
        // The sender lives in self, so the wait cannot fail.
        let _ = self.synced.subscribe().wait_for(|synced| *synced).await;
    }

    /// Whether the first list is complete.
    pub fn has_synced(&self) -> bool {
        *self.synced.borrow()
    }

    /// A level that rises with every published change: the highest resource version seen.
    /// For those who want to be woken rather than called.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }
}

impl<K: Object> Informer<K> {
    /// Follows the resource until `shutdown`. Never gives up: errors are answered by jittered, growing pauses.
    pub async fn run(self: Arc<Self>, source: Source<K>, shutdown: CancellationToken) {
        let mut begin = Begin::Streaming;
        let mut backoff = Backoff::default();
        let mut initial = Initial::default();
        while !shutdown.is_cancelled() {
            let mut stream = source(begin).ready_chunks(BATCH);
            initial.active = true;
            initial.objects.clear();
            let restart = loop {
                let next = tokio::select! {
                    () = shutdown.cancelled() => return,
                    next = next_batch(&mut stream, begin == Begin::Streaming && initial.active) => next,
                };
                match next {
                    Next::Batch(batch) => match self.apply_batch(batch, &mut initial) {
                        Ok(()) => backoff.reset(),
                        Err(error) => match self.judge(&error, begin, &mut backoff) {
                            Verdict::Retry => {}
                            Verdict::Restart(with) => break with,
                        },
                    },
                    // The server took the watch and never said that the initial objects are complete.
                    Next::Silent => break Begin::Paged,
                    Next::End => break begin,
                }
                if let Some(pause) = backoff.due() {
                    tokio::select! {
                        () = shutdown.cancelled() => return,
                        () = tokio::time::sleep(pause) => {}
                    }
                }
            };
            begin = restart;
            if let Some(pause) = backoff.due() {
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = tokio::time::sleep(pause) => {}
                }
            }
        }
    }

    fn judge(&self, error: &watcher::Error, begin: Begin, backoff: &mut Backoff) -> Verdict {
        backoff.fail();
        tracing::debug!(resource = self.name, attempt = backoff.failures, error = %error, "watch failed");
        let code = match error {
            watcher::Error::InitialListFailed(kube::Error::Api(status))
            | watcher::Error::WatchStartFailed(kube::Error::Api(status))
            | watcher::Error::WatchFailed(kube::Error::Api(status))
            | watcher::Error::WatchError(status) => status.code,
            _ => 0,
        };
        match code {
            // Streaming lists are refused by a server that has them switched off: 400 or 422, by version.
            400 | 422 if begin == Begin::Streaming => Verdict::Restart(Begin::Paged),
            // kube's watcher keeps its version when a watch is refused as too old, and would ask for it for ever.
            410 => Verdict::Restart(begin),
            // The version is one that the server does not have (yet): it may have been restored from a backup.
            504 if backoff.failures >= 5 => Verdict::Restart(begin),
            _ => Verdict::Retry,
        }
    }

    /// Applies events in order; stops at the first error, whose event kube's watcher gives last.
    fn apply_batch(
        &self,
        batch: Vec<watcher::Result<watcher::Event<K>>>,
        initial: &mut Initial<K>,
    ) -> Result<(), watcher::Error> {
        let mut error = None;
        let mut changes = Vec::with_capacity(batch.len());
        let mut writer = self.writer.lock();
        let mut finished = false;
        for event in batch {
            match event {
                Ok(watcher::Event::Init) => {
                    initial.objects.clear();
                    initial.active = true;
                }
                Ok(watcher::Event::InitApply(object)) => initial.objects.push(strip(object)),
                Ok(watcher::Event::InitDone) => {
                    replace(&mut writer.working, std::mem::take(&mut initial.objects), &mut changes);
                    initial.active = false;
                    finished = true;
                }
                Ok(watcher::Event::Apply(object)) => apply(&mut writer.working, strip(object), &mut changes),
                Ok(watcher::Event::Delete(object)) => {
                    writer.working.observe_version(version_of(&object));
                    if writer.working.remove(&Key::of(object.meta())).is_some() {
                        changes.push(Event::Deleted(Arc::new(strip(object))));
                    }
                }
                Err(failed) => error = Some(failed),
            }
        }
        if finished || !changes.is_empty() {
            self.publish(&writer, &changes, finished);
        }
        error.map_or(Ok(()), Err)
    }

    /// Readers see the new snapshot before any handler is called, so that a handler's key is planned on it.
    fn publish(&self, writer: &Writer<K>, changes: &[Event<K>], finished: bool) {
        self.snapshot.store(Arc::new(writer.working.clone()));
        for change in changes {
            for (_, handler) in &writer.handlers {
                handler(change);
            }
        }
        let version = writer.working.version();
        self.version.send_replace(version);
        if finished {
            self.synced.send_replace(true);
        }
    }
}

const BATCH: usize = 256;

/// How long a streaming list may be silent before its initial objects are complete.
const STREAMING_SILENCE: Duration = Duration::from_secs(10);

enum Next<K> {
    Batch(Vec<watcher::Result<watcher::Event<K>>>),
    Silent,
    End,
}

enum Verdict {
    Retry,
    Restart(Begin),
}

/// Objects of a list that is not complete yet.
struct Initial<K> {
    active: bool,
    objects: Vec<K>,
}

impl<K> Default for Initial<K> {
    fn default() -> Self {
        Self { active: true, objects: Vec::new() }
    }
}

async fn next_batch<K, S>(stream: &mut S, guard: bool) -> Next<K>
where
    S: futures::Stream<Item = Vec<watcher::Result<watcher::Event<K>>>> + Unpin,
{
    let next = stream.next();
    let batch = if guard {
        match tokio::time::timeout(STREAMING_SILENCE, next).await {
            Ok(batch) => batch,
            Err(_) => return Next::Silent,
        }
    } else {
        next.await
    };
    batch.map_or(Next::End, Next::Batch)
}

/// managedFields are half of an object's memory and nobody who plans reads them.
fn strip<K: Resource>(mut object: K) -> K {
    object.meta_mut().managed_fields = None;
    object
}

fn apply<K: Object>(working: &mut Snapshot<K>, object: K, changes: &mut Vec<Event<K>>) {
    let key = Key::of(object.meta());
    working.observe_version(version_of(&object));
    if working.get(&key).is_some_and(|have| same(have.as_ref(), &object)) {
        return;
    }
    let new = Arc::new(object);
    match working.insert(key, new.clone()) {
        None => changes.push(Event::Added(new)),
        Some(old) if old.meta().uid == new.meta().uid => changes.push(Event::Updated { old, new }),
        // Deleted and made again while nobody looked: two objects, two events.
        Some(old) => changes.extend([Event::Deleted(old), Event::Added(new)]),
    }
}

fn replace<K: Object>(working: &mut Snapshot<K>, objects: Vec<K>, changes: &mut Vec<Event<K>>) {
    let listed: std::collections::HashSet<Key> = objects.iter().map(|object| Key::of(object.meta())).collect();
    let gone: Vec<Key> = working.keys().filter(|key| !listed.contains(*key)).cloned().collect();
    for key in gone {
        if let Some(old) = working.remove(&key) {
            changes.push(Event::Deleted(old));
        }
    }
    for object in objects {
        apply(working, object, changes);
    }
}

fn same<K: Resource>(have: &K, new: &K) -> bool {
    have.meta().uid == new.meta().uid
        && have.meta().resource_version == new.meta().resource_version
        && have.meta().resource_version.is_some()
}

/// Pauses that double from 50 ms to 30 s, each drawn from its upper half so that many clients do not return at once.
#[derive(Default)]
struct Backoff {
    failures: u32,
    due: bool,
}

impl Backoff {
    fn reset(&mut self) {
        self.failures = 0;
        self.due = false;
    }

    fn fail(&mut self) {
        self.failures = self.failures.saturating_add(1);
        self.due = true;
    }

    fn due(&mut self) -> Option<Duration> {
        if !std::mem::take(&mut self.due) {
            return None;
        }
        let full = Duration::from_millis(50 << self.failures.saturating_sub(1).min(10)).min(Duration::from_secs(30));
        Some(full.mul_f64(0.5 + fastrand::f64() / 2.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;
    use k8s_openapi::api::core::v1::ConfigMap;
    use watcher::Event::{Apply, Delete, Init, InitApply, InitDone};

    fn object(name: &str, uid: &str, version: u64) -> ConfigMap {
        let mut map = ConfigMap::default();
        map.metadata.name = Some(name.into());
        map.metadata.uid = Some(uid.into());
        map.metadata.resource_version = Some(version.to_string());
        map.metadata.managed_fields = Some(vec![Default::default()]);
        map
    }

    fn describe(event: &Event<ConfigMap>) -> String {
        let object = event.object();
        let kind = match event {
            Event::Added(_) => '+',
            Event::Updated { .. } => '~',
            Event::Deleted(_) => '-',
        };
        format!("{kind}{}@{}", Key::of(&object.metadata), object.metadata.resource_version.as_deref().unwrap())
    }

    type Script = Vec<watcher::Result<watcher::Event<ConfigMap>>>;

    /// Plays one script a connection, then stays silent.
    fn scripted(scripts: Vec<Script>) -> (Source<ConfigMap>, Arc<Mutex<Vec<Begin>>>) {
        let scripts = Mutex::new(scripts.into_iter());
        let begins = Arc::new(Mutex::new(Vec::new()));
        let seen = begins.clone();
        let source: Source<ConfigMap> = Box::new(move |begin| {
            seen.lock().push(begin);
            match scripts.lock().next() {
                Some(script) => stream::iter(script).chain(stream::pending()).boxed(),
                None => stream::pending().boxed(),
            }
        });
        (source, begins)
    }

    async fn play(scripts: Vec<Script>, until: u64) -> (Vec<String>, Vec<Begin>, Arc<Informer<ConfigMap>>) {
        let informer = Informer::new("configmaps");
        let log = Arc::new(Mutex::new(Vec::new()));
        let sink = log.clone();
        informer.subscribe(move |event| sink.lock().push(describe(event))).forever();
        let (source, begins) = scripted(scripts);
        let token = CancellationToken::new();
        let task = tokio::spawn(informer.clone().run(source, token.clone()));
        informer.changes().wait_for(|version| *version >= until).await.unwrap();
        token.cancel();
        task.await.unwrap();
        let log = log.lock().clone();
        let begins = begins.lock().clone();
        (log, begins, informer)
    }

    fn status(code: u16) -> Box<kube::core::Status> {
        kube::core::Status::failure("no", "Because").with_code(code).boxed()
    }

    #[tokio::test(start_paused = true)]
    async fn lists_then_follows() {
        let script = vec![
            Ok(Init),
            Ok(InitApply(object("a", "1", 1))),
            Ok(InitDone),
            Ok(Apply(object("b", "2", 2))),
            Ok(Apply(object("a", "1", 3))),
            Ok(Delete(object("b", "2", 4))),
            Ok(Apply(object("a", "9", 5))),
        ];
        let (log, _, informer) = play(vec![script], 5).await;
        assert_eq!(log, ["+a@1", "+b@2", "~a@3", "-b@4", "-a@3", "+a@5"]);
        assert!(informer.has_synced());
        assert!(informer.find("", "a").unwrap().metadata.managed_fields.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_relist_reports_only_what_changed() {
        let first = vec![
            Ok(Init),
            Ok(InitApply(object("a", "1", 1))),
            Ok(InitApply(object("b", "2", 2))),
            Ok(InitDone),
            Err(watcher::Error::WatchStartFailed(kube::Error::Api(status(410)))),
        ];
        let second =
            vec![Ok(Init), Ok(InitApply(object("a", "1", 1))), Ok(InitApply(object("c", "3", 7))), Ok(InitDone)];
        let (log, begins, _) = play(vec![first, second], 7).await;
        assert_eq!(log, ["+a@1", "+b@2", "-b@2", "+c@7"]);
        assert_eq!(begins, [Begin::Streaming, Begin::Streaming]);
    }

    #[tokio::test(start_paused = true)]
    async fn falls_back_to_pages() {
        let refused = vec![Err(watcher::Error::WatchStartFailed(kube::Error::Api(status(422))))];
        let silent = vec![Ok(Init)];
        let listed = || vec![Ok(Init), Ok(InitApply(object("a", "1", 1))), Ok(InitDone)];
        for first in [refused, silent] {
            let (log, begins, _) = play(vec![first, listed()], 1).await;
            assert_eq!(log, ["+a@1"]);
            assert_eq!(begins, [Begin::Streaming, Begin::Paged]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_subscriber_sees_all_and_leaves_when_dropped() {
        let (_, _, informer) = play(vec![vec![Ok(Init), Ok(InitApply(object("a", "1", 1))), Ok(InitDone)]], 1).await;
        let log = Arc::new(Mutex::new(Vec::new()));
        let sink = log.clone();
        let subscription = informer.subscribe(move |event| sink.lock().push(describe(event)));
        assert_eq!(*log.lock(), ["+a@1"]);
        drop(subscription);
        assert_eq!(informer.writer.lock().handlers.len(), 1, "only the first subscriber is left");
    }
}
