//! A node has what a pod asks for, and the emptier it stays, the better (strategy LeastAllocated).

use std::borrow::Cow;

use crate::{
    framework::{Filter, Filtering, Happened, MAX_SCORE, Plugin, PreFilter, PreScore, Score, Unfit},
    node_info::NodeInfo,
    pod_info::PodInfo,
    resources::Resources,
    snapshot::Snapshot,
};

pub struct NodeResourcesFit;

impl Plugin for NodeResourcesFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn may_help(&self, pod: &PodInfo, happened: &Happened) -> bool {
        match happened {
            // Any pod makes room for one at least.
            Happened::PodGone(_) | Happened::PodShrunk => true,
            Happened::PodPlaced(_) => false,
            Happened::NodeAdded(node) | Happened::NodeUpdated { new: node, .. } => {
                let mut empty = NodeInfo::default();
                empty.set_node(node.clone());
                lacking(pod, &empty).is_empty()
            }
        }
    }

    fn pre_filter(&self) -> Option<&dyn PreFilter> {
        Some(self)
    }

    fn pre_score(&self) -> Option<&dyn PreScore> {
        Some(self)
    }
}

impl PreFilter for NodeResourcesFit {
    fn prepare<'a>(&self, pod: &'a PodInfo, _: &'a Snapshot) -> Result<Filtering<'a>, Unfit> {
        Ok(Filtering::Each(Box::new(Room(pod))))
    }
}

struct Room<'a>(&'a PodInfo);

impl Filter for Room<'_> {
    fn check(&self, node: &NodeInfo) -> Result<(), Unfit> {
        let reasons = lacking(self.0, node);
        if reasons.is_empty() {
            return Ok(());
        }
        // Where even an empty node is too small, nobody's going helps.
        let resolvable = holds(&self.0.requests, &node.allocatable);
        Err(Unfit { reasons, resolvable })
    }
}

fn lacking(pod: &PodInfo, node: &NodeInfo) -> Vec<Cow<'static, str>> {
    let mut reasons = Vec::new();
    if node.pods.len() + 1 > node.allowed_pods {
        reasons.push(Cow::Borrowed("Too many pods"));
    }
    let (asked, have, used) = (&pod.requests, &node.allocatable, &node.requested);
    let short = |asked: i64, have: i64, used: i64| asked > 0 && asked > have - used;
    if short(asked.milli_cpu, have.milli_cpu, used.milli_cpu) {
        reasons.push(Cow::Borrowed("Insufficient cpu"));
    }
    if short(asked.memory, have.memory, used.memory) {
        reasons.push(Cow::Borrowed("Insufficient memory"));
    }
    if short(asked.ephemeral, have.ephemeral, used.ephemeral) {
        reasons.push(Cow::Borrowed("Insufficient ephemeral-storage"));
    }
    for (name, amount) in &asked.others {
        if short(*amount, have.other(name), used.other(name)) {
            reasons.push(Cow::Owned(format!("Insufficient {name}")));
        }
    }
    reasons
}

fn holds(asked: &Resources, have: &Resources) -> bool {
    asked.milli_cpu <= have.milli_cpu
        && asked.memory <= have.memory
        && asked.ephemeral <= have.ephemeral
        && asked.others.iter().all(|(name, amount)| *amount <= have.other(name))
}

impl PreScore for NodeResourcesFit {
    fn prepare<'a>(&self, pod: &'a PodInfo, _: &'a Snapshot, _: &'a [usize]) -> Option<Box<dyn Score + 'a>> {
        Some(Box::new(LeastAllocated(pod.counted)))
    }
}

struct LeastAllocated((i64, i64));

impl Score for LeastAllocated {
    fn score(&self, node: &NodeInfo) -> i64 {
        let free = |asked: i64, used: i64, have: i64| {
            let wanted = asked + used;
            if have == 0 || wanted > have { 0 } else { (have - wanted) * MAX_SCORE / have }
        };
        let cpu = free(self.0.0, node.counted.0, node.allocatable.milli_cpu);
        let memory = free(self.0.1, node.counted.1, node.allocatable.memory);
        (cpu + memory) / 2
    }
}
