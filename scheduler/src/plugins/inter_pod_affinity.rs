//! Pods that want to be near others, or away from them.

use std::collections::{HashMap, HashSet};

use crate::{
    affinity::AffinityTerm,
    framework::{Filter, Filtering, Happened, MAX_SCORE, Plugin, PreFilter, PreScore, Score, Unfit},
    node_info::NodeInfo,
    pod_info::PodInfo,
    snapshot::Snapshot,
};

pub struct InterPodAffinity;

impl Plugin for InterPodAffinity {
    fn name(&self) -> &'static str {
        "InterPodAffinity"
    }

    fn may_help(&self, pod: &PodInfo, happened: &Happened) -> bool {
        match happened {
            Happened::PodPlaced(other) => pod.affinities.with.iter().any(|affinity| affinity.term.selects(other)),
            Happened::PodGone(other) => {
                let refused = |pod: &PodInfo, other: &PodInfo| {
                    pod.affinities.without.iter().any(|affinity| affinity.term.selects(other))
                };
                refused(pod, other) || refused(other, pod)
            }
            Happened::PodShrunk => false,
            Happened::NodeAdded(_) => true,
            Happened::NodeUpdated { old, new } => old.metadata.labels != new.metadata.labels,
        }
    }

    fn pre_filter(&self) -> Option<&dyn PreFilter> {
        Some(self)
    }

    fn pre_score(&self) -> Option<&dyn PreScore> {
        Some(self)
    }
}

/// A rule of the pod with the pods that are counted in each place.
struct Places<'a> {
    key: &'a str,
    counts: HashMap<&'a str, i64>,
}

impl<'a> Places<'a> {
    fn of(affinity: &'a AffinityTerm, snapshot: &'a Snapshot) -> Self {
        let mut counts = HashMap::new();
        if let Some(term) = snapshot.term(&affinity.term) {
            for info in &snapshot.nodes {
                let count = info.count(term);
                if count > 0
                    && let Some(place) = info.label(&affinity.topology_key)
                {
                    *counts.entry(place).or_default() += i64::from(count);
                }
            }
        }
        Self { key: &affinity.topology_key, counts }
    }

    fn at(&self, node: &NodeInfo) -> i64 {
        node.label(self.key).and_then(|place| self.counts.get(place)).copied().unwrap_or(0)
    }
}

impl PreFilter for InterPodAffinity {
    fn prepare<'a>(&self, pod: &'a PodInfo, snapshot: &'a Snapshot) -> Result<Filtering<'a>, Unfit> {
        let with: Vec<Places<'a>> = pod.affinities.with.iter().map(|affinity| Places::of(affinity, snapshot)).collect();
        let without: Vec<Places<'a>> =
            pod.affinities.without.iter().map(|affinity| Places::of(affinity, snapshot)).collect();
        let refused_at = refusing_places(pod, snapshot);
        if with.is_empty() && without.is_empty() && refused_at.is_empty() {
            return Ok(Filtering::Skip);
        }
        // The first of a group that wants to be together: nobody is there yet, and it would be company for itself.
        let first = with.iter().all(|places| places.counts.is_empty())
            && pod.affinities.with.iter().all(|affinity| affinity.term.selects(pod));
        Ok(Filtering::Each(Box::new(Company { with, without, refused_at, first })))
    }
}

/// The places, as label and value, from which pods that are there keep this one away.
fn refusing_places<'a>(pod: &PodInfo, snapshot: &'a Snapshot) -> HashSet<(&'a str, &'a str)> {
    let mut refused = HashSet::new();
    for at in &snapshot.anti_affine {
        let info = &snapshot.nodes[*at];
        for there in info.pods.iter().filter(|there| there.affinities.refuses_company()) {
            for affinity in there.affinities.without.iter().filter(|affinity| affinity.term.selects(pod)) {
                if let Some(place) = info.label(&affinity.topology_key) {
                    refused.insert((affinity.topology_key.as_str(), place));
                }
            }
        }
    }
    refused
}

struct Company<'a> {
    with: Vec<Places<'a>>,
    without: Vec<Places<'a>>,
    refused_at: HashSet<(&'a str, &'a str)>,
    first: bool,
}

impl Filter for Company<'_> {
    fn check(&self, node: &NodeInfo) -> Result<(), Unfit> {
        let has_labels = self.with.iter().all(|places| node.label(places.key).is_some());
        let met = has_labels && (self.first || self.with.iter().all(|places| places.at(node) > 0));
        if !met {
            return Err(Unfit::unresolvable("node(s) didn't match pod affinity rules"));
        }
        if self.without.iter().any(|places| places.at(node) > 0) {
            return Err(Unfit::because("node(s) didn't match pod anti-affinity rules"));
        }
        if self.refused_at.iter().any(|(key, place)| node.label(key) == Some(*place)) {
            return Err(Unfit::because("node(s) didn't satisfy existing pods anti-affinity rules"));
        }
        Ok(())
    }
}

impl PreScore for InterPodAffinity {
    fn prepare<'a>(&self, pod: &'a PodInfo, snapshot: &'a Snapshot, _: &'a [usize]) -> Option<Box<dyn Score + 'a>> {
        let preferred = &pod.affinities.preferred;
        let places = preferred.iter().map(|(weight, affinity)| (*weight, Places::of(affinity, snapshot)));
        (!preferred.is_empty()).then(|| Box::new(Preferred(places.collect())) as Box<dyn Score>)
    }
}

struct Preferred<'a>(Vec<(i64, Places<'a>)>);

impl Score for Preferred<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        self.0.iter().map(|(weight, places)| weight * places.at(node)).sum()
    }

    /// From the least to the most, as dislikes count below zero.
    fn normalize(&self, scores: &mut [i64]) {
        let (least, most) = (scores.iter().copied().min().unwrap_or(0), scores.iter().copied().max().unwrap_or(0));
        for score in scores {
            *score = if most > least { MAX_SCORE * (*score - least) / (most - least) } else { 0 };
        }
    }
}
