//! Drives pods off nodes whose NoExecute taints they do not tolerate, or no longer (upstream's pkg/controller/tainteviction).

use std::{sync::Arc, time::Duration};

use coracle_api::json::json;
use coracle_client::{
    Action, Context, Informer, Informers, Key, Plan, Reconciler, Snapshot, Step, Wires, action::PatchKind,
    outline::Pod, recorder::reference,
};
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Node, Taint, Toleration},
    apimachinery::pkg::apis::meta::v1::Time,
};

use crate::{
    node_lifecycle::{BY_NODE, by_node},
    pods,
};

/// Evicts by taint. Its keys are nodes.
pub struct TaintEviction {
    nodes: Arc<Informer<Node>>,
    pods: Arc<Informer<Pod>>,
}

/// What a plan reads.
pub struct State {
    pub nodes: Arc<Snapshot<Node>>,
    /// With the index by node.
    pub pods: Arc<Snapshot<Pod>>,
}

impl TaintEviction {
    /// The controller over the process's informers.
    pub fn new(informers: &Informers) -> Self {
        let pods = informers.get::<Pod>();
        pods.add_index(BY_NODE, by_node);
        Self { nodes: informers.get(), pods }
    }
}

impl Reconciler for TaintEviction {
    type Key = Key;
    type Snapshot = State;

    fn name(&self) -> &'static str {
        "taint-eviction"
    }

    fn wire(&self, wires: &mut Wires<Key>) {
        wires.on(&self.nodes, |event, emit| {
            if !event.is_deleted() && event.old().is_none_or(|old| no_execute(old).ne(no_execute(event.object()))) {
                emit(Key::of(&event.object().metadata));
            }
        });
        let nodes = self.nodes.clone();
        wires.on(&self.pods, move |event, emit| {
            let Some(name) = pods::node(event.object()) else { return };
            if nodes.find("", name).is_some_and(|node| no_execute(&node).next().is_some()) {
                emit(Key::cluster(name));
            }
        });
    }

    fn snapshot(&self) -> State {
        State { nodes: self.nodes.snapshot(), pods: self.pods.snapshot() }
    }

    fn plan(&self, state: &State, key: &Key, context: &Context<'_>) -> Plan {
        plan(state, key, context)
    }
}

fn no_execute(node: &Node) -> impl Iterator<Item = &Taint> {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
    taints.into_iter().flatten().filter(|taint| taint.effect == "NoExecute")
}

/// What has to be done for the pods of one node.
pub fn plan(state: &State, key: &Key, context: &Context<'_>) -> Plan {
    let Some(node) = state.nodes.get(key) else { return Plan::nothing() };
    let taints: Vec<&Taint> = no_execute(node).collect();
    let mut plan = Plan::default();
    if taints.is_empty() {
        return plan;
    }
    let (mut marks, mut deletes) = (Vec::new(), Vec::new());
    for pod in state.pods.by_index(BY_NODE, key.name()).filter(|pod| pods::is_active(pod)) {
        match stays(pod, &taints, context.now) {
            Stay::Forever => {}
            Stay::For(left) if !left.is_zero() => plan.requeue(left),
            Stay::For(_) => {
                marks.push(mark(pod, context.now));
                deletes.push(delete(pod));
            }
        }
    }
    if !deletes.is_empty() {
        plan.actions = vec![Step::Parallel(marks), Step::Parallel(deletes)];
    }
    plan
}

enum Stay {
    Forever,
    For(Duration),
}

/// How long the pod may stay: until the first of its tolerations ends, counted from when its taint was added.
fn stays(pod: &Pod, taints: &[&Taint], now: Timestamp) -> Stay {
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
    let mut shortest: Option<Duration> = None;
    for taint in taints {
        let mut tolerated = false;
        for toleration in tolerations.iter().filter(|toleration| tolerates(toleration, taint)) {
            tolerated = true;
            let Some(seconds) = toleration.toleration_seconds else { continue };
            let allowed = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
            let since = taint.time_added.as_ref().map_or(now, |time| time.0);
            let elapsed = Duration::try_from(now.duration_since(since)).unwrap_or_default();
            let left = allowed.saturating_sub(elapsed);
            shortest = Some(shortest.map_or(left, |have| have.min(left)));
        }
        if !tolerated {
            return Stay::For(Duration::ZERO);
        }
    }
    shortest.map_or(Stay::Forever, Stay::For)
}

/// Whether a toleration covers a taint (upstream's `Toleration.ToleratesTaint`).
fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let given = |field: &Option<String>| field.clone().filter(|text| !text.is_empty());
    if given(&toleration.effect).is_some_and(|effect| effect != taint.effect)
        || given(&toleration.key).is_some_and(|key| key != taint.key)
    {
        return false;
    }
    match toleration.operator.as_deref() {
        Some("Exists") => true,
        None | Some("" | "Equal") => given(&toleration.value) == given(&taint.value),
        Some(_) => false,
    }
}

fn mark(pod: &Pod, now: Timestamp) -> Action {
    let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
        "message": "Taint manager: deleting due to NoExecute taint", "lastTransitionTime": Time(now)});
    Action::patch_status(pod, PatchKind::Strategic, json!({"status": {"conditions": [condition]}})).lenient()
}

fn delete(pod: &Pod) -> Action {
    Action::delete(pod).on_success(
        reference(pod),
        "TaintManagerEviction",
        format!("Marking for deletion Pod {}", Key::of(&pod.metadata)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_leave_when_their_toleration_ends() {
        let node: Node = coracle_api::json::from_value(json!({"metadata": {"name": "a"}, "spec": {"taints": [
            {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z"},
            {"key": "other", "effect": "NoSchedule"}]}}))
        .unwrap();
        let pod = |name: &str, tolerations: coracle_api::json::Value| -> Pod {
            coracle_api::json::from_value(json!({"metadata": {"name": name, "namespace": "d", "uid": name},
                "spec": {"nodeName": "a", "containers": [], "tolerations": tolerations}}))
            .unwrap()
        };
        let unreachable = |more: coracle_api::json::Value| {
            let mut toleration =
                json!({"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"});
            toleration.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!([toleration])
        };
        let pods = vec![
            pod("daemon", unreachable(json!({}))),
            pod("default", unreachable(json!({"tolerationSeconds": 300}))),
            pod("short", unreachable(json!({"tolerationSeconds": 60}))),
            pod("none", json!([{"key": "else", "operator": "Exists"}])),
        ];
        let state = State {
            nodes: Arc::new(Snapshot::of([node], &[])),
            pods: Arc::new(Snapshot::of(pods, &[(BY_NODE, by_node)])),
        };
        let at = |time: &str| plan(&state, &Key::cluster("a"), &Context::at(time.parse().unwrap()));
        let early = at("2026-01-01T00:00:30Z");
        assert_eq!(early.describe(), ["patch pods/status d/none", "delete pods d/none"]);
        assert_eq!(early.requeue_after, Some(Duration::from_secs(30)));
        let late = at("2026-01-01T00:05:00Z");
        let deleted: Vec<_> = late.describe().into_iter().filter(|line| line.starts_with("delete")).collect();
        assert_eq!(deleted, ["delete pods d/default", "delete pods d/none", "delete pods d/short"]);
    }
}
