//! Notices nodes that have gone silent, taints them, and tells the world that their pods are not ready
//! (upstream's pkg/controller/nodelifecycle).

mod conditions;
mod disruption;
mod taints;

use std::{collections::HashMap, sync::Arc, time::Duration};

use coracle_api::clock::Clock;
use coracle_api::json::json;
use coracle_client::{
    Action, Context, EventType, Informer, Informers, Key, Plan, Reconciler, Snapshot, Step, Wires, action::PatchKind,
    outline::Pod, recorder::reference,
};
use jiff::Timestamp;
use k8s_openapi::{
    api::{coordination::v1::Lease, core::v1::Node},
    apimachinery::pkg::apis::meta::v1::Time,
};
use parking_lot::Mutex;

use crate::pods;

/// Where kubelets keep their leases.
const LEASES: &str = "kube-node-lease";

/// The index of pods by the node they are bound to.
pub const BY_NODE: &str = "node";

/// Values of the index [`BY_NODE`].
pub fn by_node(pod: &Pod, emit: &mut dyn FnMut(&str)) {
    if let Some(node) = pods::node(pod) {
        emit(node);
    }
}

/// How long a node may be silent, or gone.
#[derive(Clone, Copy, Debug)]
pub struct Grace {
    /// After its last sign of life.
    pub running: Duration,
    /// After it was created, before its first sign of life.
    pub starting: Duration,
    /// After it was deleted, before its pods are: who registers a node anew finds them running (pkg/controller/podgc
    /// `quarantineTime`).
    pub deleted: Duration,
}

impl Default for Grace {
    fn default() -> Self {
        Self { running: Duration::from_secs(40), starting: Duration::from_secs(60), deleted: Duration::from_secs(40) }
    }
}

/// Watches over nodes.
pub struct NodeLifecycle {
    nodes: Arc<Informer<Node>>,
    leases: Arc<Informer<Lease>>,
    pods: Arc<Informer<Pod>>,
    clock: Arc<dyn Clock>,
    grace: Grace,
    beats: Arc<Mutex<HashMap<String, Heartbeat>>>,
}

/// A node's last sign of life by our own clock: the node's clock may be wrong, so what counts is when a change was seen.
#[derive(Clone, Debug, PartialEq)]
pub struct Heartbeat {
    lease: Option<Timestamp>,
    status: Option<Timestamp>,
    /// When either changed last.
    pub seen: Timestamp,
}

/// What a plan reads.
pub struct State {
    pub nodes: Arc<Snapshot<Node>>,
    /// With the index by node.
    pub pods: Arc<Snapshot<Pod>>,
    pub beats: HashMap<String, Timestamp>,
    pub grace: Grace,
}

impl NodeLifecycle {
    /// The controller over the process's informers.
    pub fn new(informers: &Informers, clock: Arc<dyn Clock>, grace: Grace) -> Self {
        let pods = informers.get::<Pod>();
        pods.add_index(BY_NODE, by_node);
        let leases = informers.in_namespace::<Lease>(LEASES, coracle_client::Scope::all());
        Self { nodes: informers.get(), leases, pods, clock, grace, beats: Arc::default() }
    }
}

impl Reconciler for NodeLifecycle {
    type Key = Key;
    type Snapshot = State;

    fn name(&self) -> &'static str {
        "node-lifecycle"
    }

    fn wire(&self, wires: &mut Wires<Key>) {
        let (beats, clock) = (self.beats.clone(), self.clock.clone());
        wires.on(&self.nodes, move |event, emit| {
            let node = event.object();
            let name = node.metadata.name.clone().unwrap_or_default();
            if event.is_deleted() {
                beats.lock().remove(&name);
            } else {
                let heartbeat = conditions::find(node, "Ready").and_then(|ready| ready.last_heartbeat_time.as_ref());
                beat(&beats, &name, clock.now(), |beat| &mut beat.status, heartbeat.map(|time| time.0));
            }
            emit(Key::of(&node.metadata));
        });
        let (beats, clock) = (self.beats.clone(), self.clock.clone());
        wires.on(&self.leases, move |event, emit| {
            let lease = event.object();
            let name = lease.metadata.name.as_deref().unwrap_or_default();
            let renewed = lease.spec.as_ref().and_then(|spec| spec.renew_time.as_ref()).map(|time| time.0);
            if !event.is_deleted() && beat(&beats, name, clock.now(), |beat| &mut beat.lease, renewed) {
                emit(Key::cluster(name));
            }
        });
        let nodes = self.nodes.clone();
        wires.on(&self.pods, move |event, emit| {
            // A pod that is made ready on a dead node: somebody else's write raced with ours.
            let Some(name) = pods::node(event.object()) else { return };
            let silent = |node: Arc<Node>| conditions::ready(&node) == "Unknown";
            if nodes.find("", name).is_some_and(silent) {
                emit(Key::cluster(name));
            }
        });
    }

    fn snapshot(&self) -> State {
        let beats = self.beats.lock().iter().map(|(name, beat)| (name.clone(), beat.seen)).collect();
        State { nodes: self.nodes.snapshot(), pods: self.pods.snapshot(), beats, grace: self.grace }
    }

    fn plan(&self, state: &State, key: &Key, context: &Context<'_>) -> Plan {
        plan(state, key, context)
    }
}

/// Notes a sign of life; true when the node may have come back (or is new), so that it is looked at at once.
fn beat(
    beats: &Mutex<HashMap<String, Heartbeat>>,
    name: &str,
    now: Timestamp,
    field: impl Fn(&mut Heartbeat) -> &mut Option<Timestamp>,
    value: Option<Timestamp>,
) -> bool {
    let mut beats = beats.lock();
    let Some(have) = beats.get_mut(name) else {
        let mut first = Heartbeat { lease: None, status: None, seen: now };
        *field(&mut first) = value;
        beats.insert(name.to_owned(), first);
        return true;
    };
    if *field(have) == value {
        return false;
    }
    *field(have) = value;
    let pause = Duration::try_from(now.duration_since(have.seen)).unwrap_or_default();
    have.seen = now;
    // Renewals come every ten seconds; a longer pause may have cost the node its readiness.
    pause > Duration::from_secs(20)
}

/// What has to be done for one node.
pub fn plan(state: &State, key: &Key, context: &Context<'_>) -> Plan {
    let Some(node) = state.nodes.get(key) else { return Plan::nothing() };
    let mut plan = Plan::default();
    let mut node = node.as_ref().clone();
    let silent = silence(state, &node, context.now);
    if let Some(left) = silent.left {
        plan.requeue(left);
    } else {
        declare_unknown(&mut plan, &mut node, context.now);
    }
    if conditions::ready(&node) == "Unknown" {
        unready_pods(&mut plan, state, &node, context.now);
    }
    let evict = disruption::evicts(&state.nodes, &node);
    if let Some(taints) = taints::wanted(&node, evict, context.now) {
        let version = node.metadata.resource_version.clone();
        let mut patch = json!({"spec": {"taints": taints}});
        if plan.actions.is_empty() {
            patch["metadata"] = json!({"resourceVersion": version});
            plan.push(Action::patch(&node, PatchKind::Merge, patch));
        } else {
            // The status that is written first changes the version; its event brings the node back for the taints.
            plan.requeue(Duration::ZERO);
        }
    }
    plan
}

struct Silence {
    /// Time left until the node counts as silent; None once it does.
    left: Option<Duration>,
}

fn silence(state: &State, node: &Node, now: Timestamp) -> Silence {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let started = conditions::find(node, "Ready").is_some();
    let grace = if started { state.grace.running } else { state.grace.starting };
    let seen = state.beats.get(name).copied().unwrap_or(now);
    let elapsed = Duration::try_from(now.duration_since(seen)).unwrap_or_default();
    Silence { left: Some(grace.saturating_sub(elapsed)).filter(|left| !left.is_zero()) }
}

fn declare_unknown(plan: &mut Plan, node: &mut Node, now: Timestamp) {
    let was_ready = conditions::ready(node) == "True";
    if !conditions::declare_unknown(node, now) {
        return;
    }
    let status = json!({"conditions": node.status.as_ref().and_then(|status| status.conditions.as_ref())});
    let version = &node.metadata.resource_version;
    let patch = json!({"metadata": {"resourceVersion": version}, "status": status});
    plan.push(Action::patch_status(node, PatchKind::Merge, patch));
    if was_ready {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        plan.note(
            reference(node),
            EventType::Normal,
            "NodeNotReady",
            format!("Node {name} status is now: NodeNotReady"),
        );
    }
}

/// Nobody on a silent node says that its pods are not ready any more, so we do.
fn unready_pods(plan: &mut Plan, state: &State, node: &Node, now: Timestamp) {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let ready = state.pods.by_index(BY_NODE, name).filter(|pod| pods::is_ready(pod));
    let actions: Vec<Action> = ready
        .map(|pod| {
            let condition = json!({"type": "Ready", "status": "False", "lastTransitionTime": Time(now)});
            Action::patch_status(pod.as_ref(), PatchKind::Strategic, json!({"status": {"conditions": [condition]}}))
                .lenient()
                .on_success(reference(pod.as_ref()), "NodeNotReady", "Node is not ready")
        })
        .collect();
    if !actions.is_empty() {
        plan.actions.push(Step::Parallel(actions));
    }
}

#[cfg(test)]
mod tests;
