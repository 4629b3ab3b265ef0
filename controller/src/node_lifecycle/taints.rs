//! The taints that follow from a node's conditions.

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Node, Taint},
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::conditions;

pub const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Condition, the status that taints, and the key of the taint (upstream's `nodeConditionToTaintKeyStatusMap`).
const FROM_CONDITIONS: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
];

/// The node's taints as they should be, or None where they are. Taints that are not ours stay.
/// With `evict` false no pod is driven away: too much of the cluster is silent for it to be the nodes' fault.
pub fn wanted(node: &Node, evict: bool, now: Timestamp) -> Option<Vec<Taint>> {
    let current = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    let mut ours: Vec<(&str, &str)> = Vec::new();
    for (kind, status, key) in FROM_CONDITIONS {
        let holds = match conditions::find(node, kind) {
            Some(condition) => condition.status == status,
            None => false,
        };
        if holds {
            ours.push((key, "NoSchedule"));
            if kind == "Ready" && evict {
                ours.push((key, "NoExecute"));
            }
        }
    }
    if conditions::find(node, "Ready").is_none() {
        // Not reported yet: what registered it tainted it, and that stays until it is ready.
        ours.extend(current.iter().filter(|taint| taint.key == NOT_READY).map(|_| (NOT_READY, "NoSchedule")).take(1));
    }
    if node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true)) {
        ours.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let mut wanted: Vec<Taint> = current
        .iter()
        .filter(|taint| !is_managed(taint) || ours.contains(&(taint.key.as_str(), taint.effect.as_str())))
        .cloned()
        .collect();
    for (key, effect) in ours {
        if !wanted.iter().any(|taint| taint.key == key && taint.effect == effect) {
            let time_added = Some(Time(now)).filter(|_| effect == "NoExecute");
            wanted.push(Taint { key: key.to_owned(), effect: effect.to_owned(), value: None, time_added });
        }
    }
    if wanted == current { None } else { Some(wanted) }
}

fn is_managed(taint: &Taint) -> bool {
    let key = taint.key.as_str();
    match taint.effect.as_str() {
        "NoSchedule" => key == UNSCHEDULABLE || FROM_CONDITIONS.iter().any(|(_, _, managed)| *managed == key),
        "NoExecute" => key == NOT_READY || key == UNREACHABLE,
        _ => false,
    }
}
