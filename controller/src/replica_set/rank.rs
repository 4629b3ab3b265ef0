//! Which pods go first when there are too many (upstream's `ActivePodsWithRanks`, pkg/controller/controller_utils.go).

use std::{cmp::Ordering, collections::HashMap, sync::Arc};

use coracle_client::{
    Snapshot,
    outline::{DELETION_COST, Pod},
};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;

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
        .then_with(|| age(pods::ready_since(a), now).cmp(&age(pods::ready_since(b), now)))
        .then_with(|| pods::restarts(b).cmp(&pods::restarts(a)))
        .then_with(|| age(created(a), now).cmp(&age(created(b), now)))
        .then_with(|| a.metadata.uid.cmp(&b.metadata.uid))
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
    annotations.and_then(|all| all.get(DELETION_COST)).and_then(|cost| cost.parse().ok()).unwrap_or(0)
}

fn created(pod: &Pod) -> Option<Timestamp> {
    pod.metadata.creation_timestamp.as_ref().map(|time| time.0)
}

/// The power of two of an age in nanoseconds (feature LogarithmicScaleDown): pods of about the same age go by their uids,
/// so that scaling down does not always empty the node that came last. Upstream compares the uids in the middle, of pods
/// whose times differ, and of others the rest: that is no order (a before b, b before c, c before a), so here uids come last.
fn age(since: Option<Timestamp>, now: Timestamp) -> Option<i64> {
    let nanoseconds = now.duration_since(since?).as_nanos();
    Some(if nanoseconds > 0 { i64::from(nanoseconds.ilog2()) } else { -1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every mixture of what is compared, in two values each and three of the times.
    fn pods() -> Vec<Pod> {
        let times = ["00:00:00", "00:00:01", "00:59:59"];
        let mut all = Vec::new();
        for number in 0..times.len() * times.len() * 8 {
            let (ready, made) = (times[number % 3], times[number / 3 % 3]);
            let bit = |at: usize| (number / 9) >> at & 1;
            let text = coracle_api::json::json!({
                "metadata": {
                    "name": format!("p{number}"), "uid": format!("{:02}", number * 41 % 72),
                    "creationTimestamp": format!("2026-01-01T{made}Z"),
                },
                "spec": {"nodeName": format!("n{}", bit(0)), "containers": []},
                "status": {
                    "phase": "Running",
                    "conditions": [{"type": "Ready", "status": if bit(1) == 0 { "True" } else { "False" },
                        "lastTransitionTime": format!("2026-01-01T{ready}Z")}],
                    "containerStatuses": [{"name": "c", "image": "i", "imageID": "", "ready": true, "restartCount": bit(2)}],
                },
            });
            all.push(coracle_api::json::from_value(text).unwrap());
        }
        all
    }

    #[test]
    fn the_order_is_total() {
        let pods = pods();
        let crowd = HashMap::from([("n0".to_owned(), 1), ("n1".to_owned(), 2)]);
        let now = "2026-01-01T01:00:00Z".parse().unwrap();
        let before = |a: usize, b: usize| compare(&pods[a], &pods[b], &crowd, now).is_lt();
        for a in 0..pods.len() {
            for b in 0..pods.len() {
                assert_eq!(a != b, before(a, b) != before(b, a), "{a} {b}");
                for c in 0..pods.len() {
                    assert!(!before(a, b) || !before(b, c) || before(a, c), "{a} before {b} before {c}");
                }
            }
        }
    }
}
