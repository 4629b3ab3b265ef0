//! Removes pods that nobody else will: of nodes that are gone, being deleted without ever having had a node,
//! and ended ones beyond a number (upstream's pkg/controller/podgc).

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use coracle_api::{clock::Clock, json::json};
use coracle_client::{
    Action, Context, Informer, Informers, Key, Plan, Reconciler, ResourceId, Snapshot, Step, Verb, Wires,
    action::PatchKind, executor::Outcome, outline::Pod,
};
use jiff::Timestamp;
use k8s_openapi::{api::core::v1::Node, apimachinery::pkg::apis::meta::v1::Time};
use parking_lot::Mutex;

use crate::{
    node_lifecycle::{BY_NODE, by_node},
    pods,
};

/// The index of ended pods, and of those that are being deleted without a node.
pub const BY_STATE: &str = "gc-state";
const ENDED: &str = "ended";
const NEVER_PLACED: &str = "never-placed";

/// Ended pods that are kept (upstream's `terminated-pod-gc-threshold`).
const KEPT: usize = 12_500;
/// Pods removed in one plan.
const BATCH: usize = 500;
const RETRY: Duration = Duration::from_secs(20);
/// Nodes remembered as missing before those without pods are forgotten.
const MISSING: usize = 1000;

/// The key for pods that have no node to be a key.
const CLUSTER: &str = "";

/// Values of the index [`BY_STATE`].
pub fn by_state(pod: &Pod, emit: &mut dyn FnMut(&str)) {
    if pods::is_terminal(pod) && pod.metadata.deletion_timestamp.is_none() {
        emit(ENDED);
    }
    if pod.metadata.deletion_timestamp.is_some() && pods::node(pod).is_none() {
        emit(NEVER_PLACED);
    }
}

/// Removes pods. Its keys are nodes, and one for pods without.
pub struct PodGc {
    nodes: Arc<Informer<Node>>,
    pods: Arc<Informer<Pod>>,
    /// Nodes that the server itself said are not there.
    absent: Arc<Mutex<HashSet<String>>>,
    /// Since when a node is missed.
    missing: Arc<Mutex<HashMap<String, Timestamp>>>,
    clock: Arc<dyn Clock>,
    quarantine: Duration,
}

/// What a plan reads.
pub struct State {
    pub nodes: Arc<Snapshot<Node>>,
    /// With the indexes by node and by state.
    pub pods: Arc<Snapshot<Pod>>,
    pub absent: HashSet<String>,
    pub missing: HashMap<String, Timestamp>,
    pub quarantine: Duration,
}

impl PodGc {
    /// The controller over the process's informers. A node that is gone keeps its pods for the time of the quarantine.
    pub fn new(informers: &Informers, clock: Arc<dyn Clock>, quarantine: Duration) -> Self {
        let pods = informers.get::<Pod>();
        pods.add_index(BY_NODE, by_node);
        pods.add_index(BY_STATE, by_state);
        Self { nodes: informers.get(), pods, absent: Arc::default(), missing: Arc::default(), clock, quarantine }
    }
}

impl Reconciler for PodGc {
    type Key = Key;
    type Snapshot = State;

    fn name(&self) -> &'static str {
        "pod-garbage-collector"
    }

    fn wire(&self, wires: &mut Wires<Key>) {
        let (absent, missing, clock, pods) =
            (self.absent.clone(), self.missing.clone(), self.clock.clone(), self.pods.clone());
        let miss = move |node: &str| {
            let mut missing = missing.lock();
            if missing.len() >= MISSING {
                let pods = pods.snapshot();
                missing.retain(|node, _| pods.count_by_index(BY_NODE, node) > 0);
            }
            missing.entry(node.to_owned()).or_insert_with(|| clock.now());
        };
        let (missed, found) = (miss.clone(), self.missing.clone());
        wires.on(&self.nodes, move |event, emit| {
            let name = event.object().metadata.name.as_deref().unwrap_or_default();
            if event.is_deleted() {
                missed(name);
                emit(Key::cluster(name));
            } else {
                absent.lock().remove(name);
                found.lock().remove(name);
            }
        });
        let nodes = self.nodes.clone();
        wires.on(&self.pods, move |event, emit| match pods::node(event.object()) {
            Some(node) => {
                if nodes.find("", node).is_none() {
                    miss(node);
                    emit(Key::cluster(node));
                }
                if pods::is_terminal(event.object()) {
                    emit(Key::cluster(CLUSTER));
                }
            }
            None => emit(Key::cluster(CLUSTER)),
        });
    }

    fn snapshot(&self) -> State {
        State {
            nodes: self.nodes.snapshot(),
            pods: self.pods.snapshot(),
            absent: self.absent.lock().clone(),
            missing: self.missing.lock().clone(),
            quarantine: self.quarantine,
        }
    }

    fn plan(&self, state: &State, key: &Key, context: &Context<'_>) -> Plan {
        if key.name() == CLUSTER { without_node(state) } else { of_node(state, key.name(), context.now) }
    }

    fn observe(&self, _: &Key, action: &Action, outcome: &Outcome) {
        if let (Verb::Probe, Err(error)) = (&action.verb, outcome)
            && error.is_not_found()
        {
            self.absent.lock().insert(action.name.clone());
        }
    }
}

/// Pods of a node that is not there. The server is asked before anything is removed: ours may have missed the node.
pub fn of_node(state: &State, node: &str, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    if state.nodes.find("", node).is_some() || state.pods.count_by_index(BY_NODE, node) == 0 {
        return plan;
    }
    // The pods' informer may be ahead of the nodes'.
    let since = state.missing.get(node).copied().unwrap_or(now);
    let left = state.quarantine.saturating_sub(Duration::try_from(now.duration_since(since)).unwrap_or_default());
    if !left.is_zero() {
        plan.requeue(left);
        return plan;
    }
    if !state.absent.contains(node) {
        plan.push(Action::at(ResourceId::of::<Node>(), &Key::cluster(node), Verb::Probe));
        plan.requeue(Duration::from_millis(1));
        return plan;
    }
    let pods: Vec<_> = state.pods.by_index(BY_NODE, node).take(BATCH).collect();
    let failed = pods.iter().filter(|pod| !pods::is_terminal(pod)).map(|pod| fail(pod, now)).collect();
    plan.actions = vec![Step::Parallel(failed), Step::Parallel(pods.iter().map(|pod| remove(pod)).collect())];
    plan.requeue(RETRY);
    plan
}

/// Pods that are being deleted and never had a node, and ended pods beyond the number that is kept, the oldest first.
pub fn without_node(state: &State) -> Plan {
    let mut victims: Vec<&Arc<Pod>> = state.pods.by_index(BY_STATE, NEVER_PLACED).take(BATCH).collect();
    let surplus = state.pods.count_by_index(BY_STATE, ENDED).saturating_sub(KEPT);
    if surplus > 0 {
        let mut ended: Vec<&Arc<Pod>> = state.pods.by_index(BY_STATE, ENDED).collect();
        ended.sort_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0));
        victims.extend(ended.into_iter().take(surplus.min(BATCH)));
    }
    let mut plan = Plan::default();
    if !victims.is_empty() {
        plan.actions.push(Step::Parallel(victims.into_iter().map(|pod| remove(pod)).collect()));
    }
    plan
}

fn fail(pod: &Pod, now: Timestamp) -> Action {
    let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
        "message": "PodGC: node no longer exists", "lastTransitionTime": Time(now),
        "observedGeneration": pod.metadata.generation});
    let patch = json!({"status": {"phase": "Failed", "conditions": [condition]}});
    Action::patch_status(pod, PatchKind::Strategic, patch).lenient()
}

fn remove(pod: &Pod) -> Action {
    let verb = Verb::Delete { uid: pod.metadata.uid.clone(), version: None, propagation: None, grace: Some(0) };
    Action::at(ResourceId::of::<Pod>(), &Key::of(&pod.metadata), verb)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(pods: Vec<coracle_api::json::Value>, absent: &[&str]) -> State {
        let pods = pods.into_iter().map(|pod| coracle_api::json::from_value::<Pod>(pod).unwrap());
        let node: Node = coracle_api::json::from_value(json!({"metadata": {"name": "there"}})).unwrap();
        State {
            nodes: Arc::new(Snapshot::of([node], &[])),
            pods: Arc::new(Snapshot::of(pods, &[(BY_NODE, by_node), (BY_STATE, by_state)])),
            absent: absent.iter().map(|name| (*name).to_owned()).collect(),
            missing: [("gone".to_owned(), Timestamp::UNIX_EPOCH)].into(),
            quarantine: Duration::from_secs(40),
        }
    }

    fn pod(name: &str, node: Option<&str>, going: bool) -> coracle_api::json::Value {
        json!({"metadata": {"name": name, "namespace": "d", "uid": name, "generation": 3, "deletionTimestamp": going.then_some("2026-01-01T00:00:00Z")},
            "spec": {"nodeName": node, "containers": []}, "status": {"phase": "Running"}})
    }

    #[test]
    fn pods_of_a_node_that_is_gone_go_after_the_server_agrees() {
        let pods = || vec![pod("a", Some("gone"), true), pod("b", Some("there"), true)];
        let waited = of_node(&state(pods(), &["gone"]), "gone", Timestamp::from_second(15).unwrap());
        assert!(waited.actions.is_empty(), "it may come back");
        assert_eq!(waited.requeue_after, Some(Duration::from_secs(25)));
        let later = Timestamp::from_second(40).unwrap();
        assert_eq!(of_node(&state(pods(), &[]), "gone", later).describe(), ["get nodes gone"]);
        let plan = of_node(&state(pods(), &["gone"]), "gone", later);
        assert_eq!(plan.describe(), ["patch pods/status d/a", "delete pods d/a"]);
        let Verb::Patch { body, .. } = &plan.actions[0].actions()[0].verb else { panic!() };
        let told = &body["status"]["conditions"][0];
        assert_eq!(
            (&told["type"], &told["reason"], &told["observedGeneration"]),
            (&json!("DisruptionTarget"), &json!("DeletionByPodGC"), &json!(3))
        );
        assert_eq!(of_node(&state(pods(), &["there"]), "there", later), Plan::nothing());
    }

    #[test]
    fn pods_that_never_had_a_node_go_at_once() {
        let state = state(vec![pod("a", None, true), pod("b", None, false), pod("c", Some("there"), true)], &[]);
        assert_eq!(without_node(&state).describe(), ["delete pods d/a"]);
    }
}
