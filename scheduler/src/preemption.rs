//! What would come of removing pods of lower priority.

use std::collections::BTreeMap;

use crate::{cycle::Refusal, pod_info::PodInfo, snapshot::Snapshot};

/// What users read after the reasons: why removing other pods does not help. None where it might.
pub fn prospects(pod: &PodInfo, snapshot: &Snapshot, refusal: &Refusal) -> Option<String> {
    if refusal.unfit.is_empty() {
        return None;
    }
    let mut counted: BTreeMap<&str, usize> = BTreeMap::new();
    for (at, resolvable) in &refusal.unfit {
        let reason = if *resolvable {
            if snapshot.nodes[*at].pods.iter().any(|there| there.priority < pod.priority) {
                return None;
            }
            "No preemption victims found for incoming pod"
        } else {
            "Preemption is not helpful for scheduling"
        };
        *counted.entry(reason).or_default() += 1;
    }
    let mut reasons: Vec<String> = counted.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    reasons.sort();
    Some(format!(" preemption: 0/{} nodes are available: {}.", refusal.nodes, reasons.join(", ")))
}
