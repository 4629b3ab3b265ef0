//! Node selectors, and required and preferred node affinity.

use crate::{
    framework::{Filter, Filtering, Happened, Plugin, PreFilter, PreScore, Score, Unfit, normalize},
    node_info::NodeInfo,
    pod_info::PodInfo,
    selectors::{NodeRequirements, Term},
    snapshot::Snapshot,
};

pub struct NodeAffinity;

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn may_help(&self, pod: &PodInfo, happened: &Happened) -> bool {
        happened.node().is_some_and(|node| pod.requirements.matches(node))
    }

    fn pre_filter(&self) -> Option<&dyn PreFilter> {
        Some(self)
    }

    fn pre_score(&self) -> Option<&dyn PreScore> {
        Some(self)
    }
}

impl PreFilter for NodeAffinity {
    fn prepare<'a>(&self, pod: &'a PodInfo, _: &'a Snapshot) -> Result<Filtering<'a>, Unfit> {
        if pod.requirements.is_empty() {
            return Ok(Filtering::Skip);
        }
        let filter: Box<dyn Filter + 'a> = Box::new(Matching(&pod.requirements));
        Ok(match pod.requirements.only_node() {
            Some(name) => Filtering::Only(vec![name.to_owned()], Some(filter)),
            None => Filtering::Each(filter),
        })
    }
}

struct Matching<'a>(&'a NodeRequirements);

impl Filter for Matching<'_> {
    fn check(&self, node: &NodeInfo) -> Result<(), Unfit> {
        match &node.node {
            Some(node) if self.0.matches(node) => Ok(()),
            _ => Err(Unfit::unresolvable("node(s) didn't match Pod's node affinity/selector")),
        }
    }
}

impl PreScore for NodeAffinity {
    fn prepare<'a>(&self, pod: &'a PodInfo, _: &'a Snapshot, _: &'a [usize]) -> Option<Box<dyn Score + 'a>> {
        let preferred = &pod.requirements.preferred;
        (!preferred.is_empty()).then(|| Box::new(Preferred(preferred)) as Box<dyn Score>)
    }
}

struct Preferred<'a>(&'a [(i64, Term)]);

impl Score for Preferred<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        let Some(node) = &node.node else { return 0 };
        self.0.iter().filter(|(_, term)| term.matches(node)).map(|(weight, _)| weight).sum()
    }

    fn normalize(&self, scores: &mut [i64]) {
        normalize(scores, false);
    }
}
