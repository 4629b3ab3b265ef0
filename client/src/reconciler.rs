//! What a controller is: what it watches, how changes map to keys, and a plan.

use std::{collections::HashMap, fmt::Display, hash::Hash, sync::Arc};

use jiff::Timestamp;
use kube::Resource;

use crate::{
    Event, Informer, ResourceId, Subscription, WorkQueue,
    action::{Action, Plan},
    executor::Outcome,
    expectations::View,
};

/// What a plan may know beside the snapshot.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The wall clock, read once for the whole plan.
    pub now: Timestamp,
    /// Why the key's last plan failed, if it did; gone after a plan that succeeded.
    pub failure: Option<&'a Failure>,
}

impl Context<'_> {
    /// A context of the given time, without a failure before it.
    pub fn at(now: Timestamp) -> Self {
        Self { now, failure: None }
    }
}

/// An action that failed for another reason than a conflict.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// What was tried, as `Action::describe` says it.
    pub action: String,
    /// The announcement's reason, where the action had one: `FailedCreate`.
    pub reason: Option<&'static str>,
    /// The server's words.
    pub message: String,
    /// The HTTP code, 0 where there was no answer.
    pub code: u16,
}

/// A controller. Everything around the plan is the driver's.
pub trait Reconciler: Send + Sync + 'static {
    /// What is worked on one at a time.
    type Key: Clone + Eq + Hash + Display + Send + Sync + 'static;
    /// Everything a plan reads, taken at one moment.
    type Snapshot: Send;

    /// The name in logs and metrics.
    fn name(&self) -> &'static str;

    /// Subscribes to informers. Has to map every change of an object that the plan writes to the key it was
    /// written for: that is how the driver learns that the write is seen.
    fn wire(&self, wires: &mut Wires<Self::Key>);

    /// The snapshots of all informers that the plan reads.
    fn snapshot(&self) -> Self::Snapshot;

    /// What is to be done for `key`. No I/O, no clock, no randomness; never learns which event woke it.
    fn plan(&self, snapshot: &Self::Snapshot, key: &Self::Key, context: &Context<'_>) -> Plan;

    /// Told of each action's outcome; for those that have to remember what the API does not show (probes).
    fn observe(&self, key: &Self::Key, action: &Action, outcome: &Outcome) {
        let _ = (key, action, outcome);
    }

    /// How many keys are worked on at a time.
    fn workers(&self) -> usize {
        4
    }
}

/// The connections between informers and a controller's queue.
pub struct Wires<T> {
    queue: Arc<WorkQueue<T>>,
    subscriptions: Vec<Subscription>,
    views: HashMap<ResourceId, Arc<dyn View>>,
    // A mutex because the futures are only Send, and workers share the wires.
    synced: parking_lot::Mutex<Vec<futures::future::BoxFuture<'static, ()>>>,
}

impl<T: Clone + Eq + Hash + Send + Sync + 'static> Wires<T> {
    pub(crate) fn new(queue: Arc<WorkQueue<T>>) -> Self {
        Self { queue, subscriptions: Vec::new(), views: HashMap::new(), synced: parking_lot::Mutex::default() }
    }

    /// Queues the keys that `keys` gives for each change of `informer`'s objects.
    pub fn on<K>(
        &mut self,
        informer: &Arc<Informer<K>>,
        keys: impl Fn(&Event<K>, &mut dyn FnMut(T)) + Send + Sync + 'static,
    ) where
        K: Resource + Send + Sync + 'static,
        K::DynamicType: Default,
    {
        self.views.insert(ResourceId::of::<K>(), informer.clone());
        self.on_untyped(informer, keys);
    }

    /// As `on`, for informers whose resource is not in their type; their writes are not waited for.
    pub fn on_untyped<K>(
        &mut self,
        informer: &Arc<Informer<K>>,
        keys: impl Fn(&Event<K>, &mut dyn FnMut(T)) + Send + Sync + 'static,
    ) where
        K: Send + Sync + 'static,
    {
        let queue = self.queue.clone();
        self.subscriptions.push(informer.subscribe(move |event| keys(event, &mut |key| queue.add(key))));
        let informer = informer.clone();
        self.synced.lock().push(Box::pin(async move { informer.synced().await }));
    }

    /// Reads `informer` in plans without being woken by it, and still waits for its first list.
    pub fn reads<K: Send + Sync + 'static>(&mut self, informer: &Arc<Informer<K>>) {
        let informer = informer.clone();
        self.synced.lock().push(Box::pin(async move { informer.synced().await }));
    }

    /// The queue itself, for keys that come from elsewhere than an informer.
    pub fn queue(&self) -> &Arc<WorkQueue<T>> {
        &self.queue
    }

    pub(crate) async fn synced(&mut self) {
        let waits = std::mem::take(self.synced.get_mut());
        futures::future::join_all(waits).await;
    }

    pub(crate) fn view(&self, resource: &ResourceId) -> Option<&Arc<dyn View>> {
        self.views.get(resource)
    }
}
