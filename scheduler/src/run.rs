//! Wires informers to cache and queue, and runs the cycles.
//!
//! ```text
//! informers ─► cache, queue ─► pop ─► snapshot ─► place ─► assume ─► bind (many in flight)
//!                  ▲                                  └─ refused: condition, event, wait
//!                  └─────────────── events that help ─────────────────────────┘
//! ```

use std::sync::Arc;

use coracle_api::clock::{Clock, SystemClock};
use coracle_api::json::json;
use coracle_client::{
    Action, Client, Event, EventType, Informers, LeaderLease, Metrics, Recorder, Scope, Subscription,
    action::PatchKind, executor::Executor, outline::Pod, recorder::reference,
};
use futures::{FutureExt, future::BoxFuture};
use k8s_openapi::{api::core::v1::Node, apimachinery::pkg::apis::meta::v1::Time};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    cache::Cache,
    cycle::{Refusal, Search},
    framework::{Happened, Plugin},
    plugins::Handle,
    pod_info::PodInfo,
    preemption::{self, Room},
    profile::Profile,
    queue::{Hint, Queue, Queued},
    resources,
    snapshot::Snapshot,
};

/// Bindings on their way at a time.
const BINDINGS: usize = 256;
/// Refusals being written down at a time.
const REPORTS: usize = 32;
/// Cycles between two looks at the rest of the process.
const CYCLES: usize = 16;

/// How the scheduler runs.
#[derive(Clone)]
pub struct Config {
    pub client: Client,
    /// The informers of the process, where it has some; else the scheduler makes its own.
    pub informers: Option<Informers>,
    pub clock: Arc<dyn Clock>,
    /// Breaks ties between nodes.
    pub seed: u64,
    /// The `schedulerName` of the pods that are ours.
    pub name: String,
    /// Waits for the lease `kube-scheduler` before acting.
    pub leader_elect: bool,
    /// The name under which the lease is held: unique per process.
    pub identity: String,
    pub metrics: Metrics,
}

impl Config {
    /// Upstream's defaults.
    pub fn new(client: Client) -> Self {
        Self {
            client,
            informers: None,
            clock: Arc::new(SystemClock::new()),
            seed: fastrand::u64(..),
            name: "default-scheduler".to_owned(),
            leader_elect: false,
            identity: format!("scheduler_{}", std::process::id()),
            metrics: Metrics::default(),
        }
    }
}

/// Schedules until `shutdown`.
///
/// Boxed, so that it is compiled once, here, and not in every program that awaits it.
pub fn run(config: Config, shutdown: CancellationToken) -> BoxFuture<'static, ()> {
    led(config, shutdown).boxed()
}

async fn led(config: Config, shutdown: CancellationToken) {
    if !config.leader_elect {
        return schedule(config, shutdown).await;
    }
    let lease = LeaderLease::new(
        config.client.clone(),
        "kube-system",
        "kube-scheduler",
        &config.identity,
        config.clock.clone(),
    )
    .with_metrics(config.metrics.clone());
    lease.run(shutdown, move |term| schedule(config.clone(), term)).await;
}

async fn schedule(config: Config, shutdown: CancellationToken) {
    let scheduler = Arc::new(Scheduler::new(&config));
    let informers = config
        .informers
        .clone()
        .unwrap_or_else(|| Informers::with_shutdown(config.client.clone(), Scope::all(), shutdown.clone()));
    let (nodes, pods) = (informers.get::<Node>(), informers.get::<Pod>());
    let _subscriptions = [scheduler.clone().watch_nodes(&nodes), scheduler.clone().watch_pods(&pods)];
    tokio::select! {
        () = shutdown.cancelled() => return,
        _ = async { tokio::join!(nodes.synced(), pods.synced()) } => {}
    }
    tracing::debug!(scheduler = config.name, "started");
    tokio::select! {
        () = shutdown.cancelled() => scheduler.queue.close(),
        () = scheduler.clone().cycles(config.seed) => {}
    }
    // What was assumed is bound, or forgotten with us.
    scheduler.tasks.close();
    let _ = tokio::time::timeout(std::time::Duration::from_secs(5), scheduler.tasks.wait()).await;
}

struct Scheduler {
    name: String,
    // Taken for moments only: by informers' handlers, at the start of a cycle and to assume. The queue's lock is never
    // taken under it, nor the other way round.
    cache: Mutex<Cache>,
    queue: Queue,
    profile: Arc<Profile>,
    executor: Executor,
    clock: Arc<dyn Clock>,
    bindings: Arc<Semaphore>,
    reports: Arc<Semaphore>,
    tasks: TaskTracker,
}

impl Scheduler {
    fn new(config: &Config) -> Self {
        let profile = Arc::new(Profile::new(&Handle { client: Some(config.client.clone()) }));
        let hints = profile.clone();
        let hint: Hint = Arc::new(move |pod, refused_by, happened| hints.may_help(pod, refused_by, happened));
        let recorder = Recorder::new(config.client.clone(), config.clock.clone(), &config.name, None);
        Self {
            name: config.name.clone(),
            cache: Mutex::default(),
            queue: Queue::new(config.clock.clone(), hint),
            profile,
            executor: Executor::new(config.client.clone(), recorder),
            clock: config.clock.clone(),
            bindings: Arc::new(Semaphore::new(BINDINGS)),
            reports: Arc::new(Semaphore::new(REPORTS)),
            tasks: TaskTracker::new(),
        }
    }

    fn watch_nodes(self: Arc<Self>, nodes: &Arc<coracle_client::Informer<Node>>) -> Subscription {
        nodes.subscribe(move |event| match event {
            Event::Added(node) => {
                self.cache.lock().set_node(node);
                self.queue.happened(Happened::NodeAdded(node.clone()));
            }
            Event::Updated { old, new } => {
                self.cache.lock().set_node(new);
                if matters(old, new) {
                    self.queue.happened(Happened::NodeUpdated { old: old.clone(), new: new.clone() });
                }
            }
            Event::Deleted(node) => self.cache.lock().remove_node(node.metadata.name.as_deref().unwrap_or_default()),
        })
    }

    fn watch_pods(self: Arc<Self>, pods: &Arc<coracle_client::Informer<Pod>>) -> Subscription {
        pods.subscribe(move |event| {
            let pod = event.object();
            let uid = pod.metadata.uid.as_deref().unwrap_or_default();
            if event.is_deleted() || is_terminal(pod) {
                self.queue.remove(uid);
                let gone = {
                    let mut cache = self.cache.lock();
                    cache.unnominate(uid);
                    cache.remove_pod(uid)
                };
                if let Some(gone) = gone {
                    self.queue.happened(Happened::PodGone(gone));
                }
            } else if let Some(node) = node_of(pod) {
                self.on_placed(event, node);
            } else if self.is_ours(pod) {
                // A status of ours that comes back is no reason to try again.
                if event.old().is_none_or(|old| old.spec != pod.spec || old.metadata.labels != pod.metadata.labels) {
                    let info = Arc::new(PodInfo::new(pod.clone()));
                    // Room that was made before a restart of ours is still the pod's.
                    let nominated = pod.status.as_ref().and_then(|status| status.nominated_node_name.as_deref());
                    if let (Event::Added(_), Some(node)) = (event, nominated.filter(|node| !node.is_empty())) {
                        self.cache.lock().nominate(info.clone(), node);
                    }
                    self.queue.set(info);
                }
            } else {
                self.queue.remove(uid);
            }
        })
    }

    fn on_placed(&self, event: &Event<Pod>, node: &str) {
        let pod = event.object();
        // Nothing that counts here changes while a pod runs but its labels, its resources and its leaving.
        let same = event.old().is_some_and(|old| {
            node_of(old) == Some(node)
                && old.spec == pod.spec
                && resources::told_the_same(old, pod)
                && old.metadata.labels == pod.metadata.labels
                && old.metadata.deletion_timestamp == pod.metadata.deletion_timestamp
        });
        if same {
            return;
        }
        let info = Arc::new(PodInfo::new(pod.clone()));
        let shrunk = event.old().is_some_and(|old| {
            let (before, _, _) = resources::of_pod(old);
            node_of(old).is_some() && before != info.requests && before.covers(&info.requests)
        });
        self.cache.lock().set_pod(info.clone(), node);
        if shrunk {
            self.queue.happened(Happened::PodShrunk);
        }
        self.queue.remove(&info.uid);
        if event.old().is_none_or(|old| node_of(old).is_none()) {
            self.queue.happened(Happened::PodPlaced(info));
        }
    }

    fn is_ours(&self, pod: &Pod) -> bool {
        let Some(spec) = &pod.spec else { return false };
        let gated = spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty());
        let name = spec.scheduler_name.as_deref().unwrap_or("default-scheduler");
        name == self.name && !gated && pod.metadata.deletion_timestamp.is_none()
    }

    async fn cycles(self: Arc<Self>, seed: u64) {
        let mut search = Search::new(seed);
        let mut snapshot = Snapshot::default();
        let mut count = 0;
        while let Some(queued) = self.queue.pop().await {
            self.cycle(&queued, &mut search, &mut snapshot).await;
            count += 1;
            if count % CYCLES == 0 {
                tokio::task::yield_now().await;
            }
        }
    }

    async fn cycle(self: &Arc<Self>, queued: &Queued, search: &mut Search, snapshot: &mut Snapshot) {
        let pod = &queued.pod;
        {
            let mut cache = self.cache.lock();
            if cache.is_placed(&pod.uid) {
                drop(cache);
                return self.queue.done(&pod.uid);
            }
            cache.count_terms(pod);
            cache.update(snapshot);
        }
        match search.place(&self.profile, pod, snapshot) {
            Ok(at) => {
                let node = snapshot.nodes[at].name.clone();
                self.cache.lock().assume(pod.clone(), &node);
                // The semaphore is never closed.
                let Ok(permit) = self.bindings.clone().acquire_owned().await else { return };
                let (scheduler, pod) = (self.clone(), pod.clone());
                self.tasks.spawn(async move {
                    scheduler.bind(&pod, &node).await;
                    drop(permit);
                });
            }
            Err(refusal) => self.refused(pod, refusal, snapshot).await,
        }
    }

    async fn bind(&self, pod: &Arc<PodInfo>, node: &str) {
        let mut reserved: Vec<&Arc<dyn Plugin>> = Vec::new();
        let result = self.bind_cycle(pod, node, &mut reserved).await;
        let recorder = self.executor.recorder();
        match result {
            Ok(()) => {
                self.queue.done(&pod.uid);
                let message = format!("Successfully assigned {} to {node}", pod.key);
                recorder.event(pod.pod.as_ref(), EventType::Normal, "Scheduled", &message);
            }
            Err(error) => {
                for plugin in reserved.iter().rev() {
                    if let Some(point) = plugin.reserve() {
                        point.unreserve(pod, node);
                    }
                }
                tracing::warn!(pod = %pod.key, node, error, "binding failed");
                self.cache.lock().forget(&pod.uid);
                self.queue.happened(Happened::PodGone(pod.clone()));
                recorder.event(
                    pod.pod.as_ref(),
                    EventType::Warning,
                    "FailedScheduling",
                    &format!("binding rejected: {error}"),
                );
                self.queue.unschedulable(&pod.uid, Vec::new());
            }
        }
    }

    async fn bind_cycle<'a>(
        &'a self,
        pod: &PodInfo,
        node: &str,
        reserved: &mut Vec<&'a Arc<dyn Plugin>>,
    ) -> Result<(), String> {
        for plugin in self.profile.plugins() {
            if let Some(point) = plugin.reserve() {
                point.reserve(pod, node).map_err(|unfit| unfit.reasons.join(", "))?;
                reserved.push(plugin);
            }
        }
        for plugin in self.profile.plugins() {
            if let Some(point) = plugin.pre_bind() {
                point.pre_bind(pod, node).await?;
            }
        }
        for plugin in self.profile.plugins() {
            if let Some(point) = plugin.bind() {
                return point.bind(pod, node).await;
            }
        }
        Err("no plugin binds".to_owned())
    }

    async fn refused(self: &Arc<Self>, pod: &Arc<PodInfo>, refusal: Refusal, snapshot: &Snapshot) {
        let prospects = preemption::look(&self.profile, pod, snapshot, &refusal);
        let message = refusal.message() + &prospects.message;
        tracing::debug!(pod = %pod.key, message, "unschedulable");
        if let Some(room) = &prospects.room {
            self.cache.lock().nominate(pod.clone(), &room.node);
        }
        self.queue.unschedulable(&pod.uid, refusal.plugins);
        self.executor.recorder().event(pod.pod.as_ref(), EventType::Warning, "FailedScheduling", &message);
        let condition = self.condition(pod, &message, prospects.room.as_ref());
        if condition.is_none() && prospects.room.is_none() {
            return;
        }
        let Ok(permit) = self.reports.clone().acquire_owned().await else { return };
        let (scheduler, pod) = (self.clone(), pod.clone());
        self.tasks.spawn(async move {
            if let Some(room) = prospects.room {
                scheduler.evict(&pod, &room).await;
            }
            if let Some(action) = condition
                && let Err(error) = scheduler.executor.execute(&action).await
            {
                tracing::debug!(action = action.describe(), error = %error, "the pod's condition was not written");
            }
            drop(permit);
        });
    }

    /// Removes the pods that stand in the way of a more important one.
    async fn evict(&self, pod: &PodInfo, room: &Room) {
        for victim in &room.victims {
            let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler",
                "message": format!("{}: preempting to accommodate a higher priority pod", self.name),
                "lastTransitionTime": Time(self.clock.now())});
            let patch = json!({"status": {"conditions": [condition]}});
            let mark = Action::patch_status(victim.pod.as_ref(), PatchKind::Strategic, patch).lenient();
            let message = format!("Preempted by pod {} on node {}", pod.uid, room.node);
            let delete =
                Action::delete(victim.pod.as_ref()).on_success(reference(victim.pod.as_ref()), "Preempted", message);
            for action in [mark, delete] {
                if let Err(error) = self.executor.execute(&action).await {
                    tracing::warn!(action = action.describe(), error = %error, "preemption failed");
                    self.cache.lock().unnominate(&pod.uid);
                    return;
                }
            }
        }
    }

    /// The condition PodScheduled=False, unless the pod says so already.
    fn condition(&self, pod: &PodInfo, message: &str, room: Option<&Room>) -> Option<Action> {
        let conditions = pod.pod.status.as_ref().and_then(|status| status.conditions.as_ref());
        let current = conditions.into_iter().flatten().find(|condition| condition.type_ == "PodScheduled");
        let says_so = |have: &k8s_openapi::api::core::v1::PodCondition| {
            have.status == "False"
                && have.reason.as_deref() == Some("Unschedulable")
                && have.message.as_deref() == Some(message)
        };
        if current.is_some_and(says_so) && room.is_none() {
            return None;
        }
        let since = current.filter(|have| have.status == "False").and_then(|have| have.last_transition_time.clone());
        let condition = json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
            "lastTransitionTime": since.unwrap_or(Time(self.clock.now())), "lastProbeTime": null});
        let mut patch = json!({"status": {"conditions": [condition]}});
        if let Some(room) = room {
            patch["status"]["nominatedNodeName"] = json!(room.node);
        }
        Some(Action::patch_status(pod.pod.as_ref(), PatchKind::Strategic, patch).lenient())
    }
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|node| !node.is_empty())
}

fn is_terminal(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Whether a change of a node can make a pod fit. Heartbeats cannot.
fn matters(old: &Node, new: &Node) -> bool {
    let allocatable = |node: &Node| node.status.as_ref().and_then(|status| status.allocatable.clone());
    old.spec != new.spec || old.metadata.labels != new.metadata.labels || allocatable(old) != allocatable(new)
}
