//! Which pods go first when there are too many (upstream's `ActivePodsWithRanks`, pkg/controller/controller_utils.go).

use std::{cmp::Ordering, collections::HashMap, sync::Arc};

use coracle_client::Snapshot;
use jiff::Timestamp;
use k8s_openapi::api::{apps::v1::ReplicaSet, core::v1::Pod};

use crate::{ownership, pods};

/// How many active pods of the set and its siblings (sets of one Deployment) are on each node.
pub fn related(set: &ReplicaSet, sets: &Snapshot<ReplicaSet>, pods: &Snapshot<Pod>) -> HashMap<String, usize> {
    let mut per_node = HashMap::new();
    let own = set.metadata.uid.as_deref().unwrap_or_default();
    let siblings: Vec<&str> = match ownership::controller(&set.metadata) {
        Some(owner) => sets
            .by_index(ownership::BY_CONTROLLER, &owner.uid)
            .filter_map(|sibling| sibling.metadata.uid.as_deref())
            .collect(),
        None => vec![own],
    };
    for sibling in siblings {
        for pod in pods.by_index(ownership::BY_CONTROLLER, sibling).filter(|pod| pods::is_active(pod)) {
            if let Some(node) = pods::node(pod) {
                *per_node.entry(node.to_owned()).or_default() += 1;
            }
        }
    }
    per_node
}

/// The `count` pods to delete.
pub fn victims(owned: &[Arc<Pod>], per_node: &HashMap<String, usize>, count: usize, now: Timestamp) -> Vec<Arc<Pod>> {
    let mut order = owned.to_vec();
    order.sort_by(|a, b| compare(a, b, per_node, now));
    order.truncate(count);
    order
}

fn compare(a: &Pod, b: &Pod, per_node: &HashMap<String, usize>, now: Timestamp) -> Ordering {
    let crowd = |pod: &Pod| pods::node(pod).and_then(|node| per_node.get(node)).copied().unwrap_or(0);
    pods::node(a)
        .is_some()
        .cmp(&pods::node(b).is_some())
        .then_with(|| phase_order(a).cmp(&phase_order(b)))
        .then_with(|| pods::is_ready(a).cmp(&pods::is_ready(b)))
        .then_with(|| deletion_cost(a).cmp(&deletion_cost(b)))
        .then_with(|| crowd(b).cmp(&crowd(a)))
        .then_with(|| younger(pods::ready_since(a), pods::ready_since(b), now, a, b))
        .then_with(|| pods::restarts(b).cmp(&pods::restarts(a)))
        .then_with(|| younger(created(a), created(b), now, a, b))
        .then_with(|| a.metadata.name.cmp(&b.metadata.name))
}

fn phase_order(pod: &Pod) -> u8 {
    match pods::phase(pod) {
        "Unknown" => 1,
        "Running" => 2,
        _ => 0,
    }
}

fn deletion_cost(pod: &Pod) -> i32 {
    let annotations = pod.metadata.annotations.as_ref();
    annotations
        .and_then(|all| all.get("controller.kubernetes.io/pod-deletion-cost"))
        .and_then(|cost| cost.parse().ok())
        .unwrap_or(0)
}

fn created(pod: &Pod) -> Option<Timestamp> {
    pod.metadata.creation_timestamp.as_ref().map(|time| time.0)
}

/// The younger first, by powers of two of the age and within one by uid (feature LogarithmicScaleDown), so that
/// scaling down does not always empty the node that came last.
fn younger(a: Option<Timestamp>, b: Option<Timestamp>, now: Timestamp, pod_a: &Pod, pod_b: &Pod) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) if a != b => {
            let magnitude = |time: Timestamp| {
                let age = now.duration_since(time).as_nanos();
                if age > 0 { i64::from(age.ilog2()) } else { -1 }
            };
            magnitude(a).cmp(&magnitude(b)).then_with(|| pod_a.metadata.uid.cmp(&pod_b.metadata.uid))
        }
        (None, Some(_)) => Ordering::Less,
        (Some(_), None) => Ordering::Greater,
        _ => Ordering::Equal,
    }
}
