//! Makes room for a pod by removing pods of lower priority (upstream's pkg/scheduler/framework/preemption).

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

use crate::{
    cycle::{Prepared, Refusal},
    node_info::NodeInfo,
    pod_info::PodInfo,
    profile::Profile,
    snapshot::Snapshot,
};

/// Nodes that are tried (upstream's `minCandidateNodesAbsolute`).
const CANDIDATES: usize = 100;

/// The node that will fit once these pods have gone.
#[derive(Debug)]
pub struct Room {
    pub node: Arc<str>,
    pub victims: Vec<Arc<PodInfo>>,
}

/// What came of looking for room.
#[derive(Debug, Default)]
pub struct Prospects {
    pub room: Option<Room>,
    /// What users read after the reasons, where there is no room to make.
    pub message: String,
}

/// Looks for the node where the least harm makes enough room.
pub fn look(profile: &Profile, pod: &PodInfo, snapshot: &Snapshot, refusal: &Refusal) -> Prospects {
    let no = |message: String| Prospects { room: None, message };
    if refusal.unfit.is_empty() {
        return Prospects::default();
    }
    let policy = pod.pod.spec.as_ref().and_then(|spec| spec.preemption_policy.as_deref());
    if policy == Some("Never") {
        return no(" preemption: not eligible due to preemptionPolicy=Never.".to_owned());
    }
    if waits_for_victims(pod, snapshot) {
        return no(" preemption: not eligible due to a terminating pod on the nominated node.".to_owned());
    }
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    let mut best: Option<(Harm, Room)> = None;
    let mut candidates = 0;
    for (at, resolvable) in &refusal.unfit {
        if !resolvable {
            *reasons.entry("Preemption is not helpful for scheduling").or_default() += 1;
            continue;
        }
        if candidates >= CANDIDATES {
            break;
        }
        let Some(victims) = victims(profile, pod, snapshot, *at) else {
            *reasons.entry("No preemption victims found for incoming pod").or_default() += 1;
            continue;
        };
        candidates += 1;
        let harm = Harm::of(&victims);
        if best.as_ref().is_none_or(|(least, _)| harm < *least) {
            best = Some((harm, Room { node: snapshot.nodes[*at].name.clone(), victims }));
        }
    }
    if let Some((_, room)) = best {
        return Prospects { room: Some(room), message: String::new() };
    }
    let mut counted: Vec<String> = reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    counted.sort();
    no(format!(" preemption: 0/{} nodes are available: {}.", refusal.nodes, counted.join(", ")))
}

/// Room was made for the pod already, and is not there yet: nobody else has to go.
fn waits_for_victims(pod: &PodInfo, snapshot: &Snapshot) -> bool {
    let Some(node) = snapshot.nominated.node_of(&pod.uid).and_then(|name| snapshot.node(name)) else { return false };
    node.pods.iter().any(|there| there.priority < pod.priority && there.pod.metadata.deletion_timestamp.is_some())
}

/// The pods of a node that would have to go: all of lower priority, less those that may stay after all,
/// the most important first. None where that is none, or not enough.
fn victims(profile: &Profile, pod: &PodInfo, snapshot: &Snapshot, at: usize) -> Option<Vec<Arc<PodInfo>>> {
    let mut lower: Vec<Arc<PodInfo>> =
        snapshot.nodes[at].pods.iter().filter(|there| there.priority < pod.priority).cloned().collect();
    if lower.is_empty() {
        return None;
    }
    let mut node = snapshot.nodes[at].as_ref().clone();
    for there in &lower {
        remove(&mut node, snapshot, there);
    }
    if !fits(profile, pod, snapshot, at, &node) {
        return None;
    }
    lower.sort_by_key(|there| (Reverse(there.priority), started(there)));
    let mut victims = Vec::new();
    for there in lower {
        let mut with = node.clone();
        add(&mut with, snapshot, there.clone());
        if fits(profile, pod, snapshot, at, &with) {
            node = with;
        } else {
            victims.push(there);
        }
    }
    (!victims.is_empty()).then_some(victims)
}

fn remove(node: &mut NodeInfo, snapshot: &Snapshot, pod: &PodInfo) {
    for term in snapshot.terms.of(pod) {
        let count = node.count_mut(term);
        *count = count.saturating_sub(1);
    }
    node.remove(&pod.uid);
}

fn add(node: &mut NodeInfo, snapshot: &Snapshot, pod: Arc<PodInfo>) {
    for term in snapshot.terms.of(&pod) {
        *node.count_mut(term) += 1;
    }
    node.add(pod);
}

/// Whether the pod fits the node as it would be.
fn fits(profile: &Profile, pod: &PodInfo, snapshot: &Snapshot, at: usize, node: &NodeInfo) -> bool {
    let altered = snapshot.with(at, Arc::new(node.clone()));
    let mut refusal = Refusal::default();
    Prepared::new(profile, pod, &altered, &mut refusal)
        .is_some_and(|prepared| prepared.admits(at, pod, &altered, &mut refusal))
}

fn started(pod: &PodInfo) -> Option<jiff::Timestamp> {
    let status = pod.pod.status.as_ref();
    status
        .and_then(|status| status.start_time.as_ref())
        .or(pod.pod.metadata.creation_timestamp.as_ref())
        .map(|time| time.0)
}

/// How bad it is to remove pods: the highest priority among them, their sum, their number, and then how long the
/// most important one has been running (`pickOneNodeForPreemption`, without disruption budgets).
#[derive(Debug, PartialEq, PartialOrd)]
struct Harm(i32, i64, usize, Reverse<Option<jiff::Timestamp>>);

impl Harm {
    fn of(victims: &[Arc<PodInfo>]) -> Self {
        let highest = victims.iter().map(|victim| victim.priority).max().unwrap_or(i32::MIN);
        // Shifted so that more victims are never better, whatever their sign.
        let sum = victims.iter().map(|victim| i64::from(victim.priority) - i64::from(i32::MIN)).sum();
        let earliest = victims.iter().filter(|victim| victim.priority == highest).map(|victim| started(victim)).min();
        Self(highest, sum, victims.len(), Reverse(earliest.flatten()))
    }
}
