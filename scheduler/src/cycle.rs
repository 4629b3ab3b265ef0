//! One scheduling cycle: from a pod and a snapshot to a node, or to the reasons why there is none.

use std::{borrow::Cow, collections::BTreeMap};

use crate::{
    framework::{Filter, Filtering, Score, Unfit},
    node_info::NodeInfo,
    pod_info::PodInfo,
    profile::Profile,
    snapshot::Snapshot,
};

/// Up to this many nodes all are looked at (upstream's `minFeasibleNodesToFind`).
const LOOK_AT_ALL: usize = 100;

/// Why no node was found.
#[derive(Debug, Default)]
pub struct Refusal {
    /// How often each reason was given.
    pub reasons: BTreeMap<Cow<'static, str>, usize>,
    /// The plugins that refused.
    pub plugins: Vec<&'static str>,
    /// The nodes by position, with whether removing pods could help there.
    pub unfit: Vec<(usize, bool)>,
    /// What a plugin said about the pod as a whole, before any node.
    pub message: Option<String>,
    pub nodes: usize,
}

impl Refusal {
    /// As users know it: `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable.`
    pub fn message(&self) -> String {
        if self.nodes == 0 {
            return "no nodes available to schedule pods".to_owned();
        }
        let mut text = format!("0/{} nodes are available", self.nodes);
        let mut counted: Vec<String> = self.reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        counted.sort();
        if let Some(message) = &self.message {
            counted.insert(0, message.clone());
        }
        if !counted.is_empty() {
            text.push_str(": ");
            text.push_str(&counted.join(", "));
        }
        text.push('.');
        text
    }

    fn add(&mut self, at: usize, plugin: &'static str, unfit: Unfit) {
        self.unfit.push((at, unfit.resolvable));
        self.add_plugin(plugin);
        for reason in unfit.reasons {
            *self.reasons.entry(reason).or_default() += 1;
        }
    }

    fn add_plugin(&mut self, plugin: &'static str) {
        if !self.plugins.contains(&plugin) {
            self.plugins.push(plugin);
        }
    }
}

/// What is carried from cycle to cycle: where the search begins, and the random numbers that break ties.
#[derive(Debug)]
pub struct Search {
    start: usize,
    random: fastrand::Rng,
}

impl Search {
    /// The same seed breaks the same ties.
    pub fn new(seed: u64) -> Self {
        Self { start: 0, random: fastrand::Rng::with_seed(seed) }
    }

    /// The position of the best node for the pod.
    pub fn place(&mut self, profile: &Profile, pod: &PodInfo, snapshot: &Snapshot) -> Result<usize, Refusal> {
        let mut refusal = Refusal { nodes: snapshot.real_nodes(), ..Refusal::default() };
        let Some(prepared) = Prepared::new(profile, pod, snapshot, &mut refusal) else { return Err(refusal) };
        let fitting = self.fitting(&prepared, pod, snapshot, &mut refusal);
        match fitting.as_slice() {
            [] => Err(refusal),
            [one] => Ok(*one),
            _ => Ok(self.best(profile, pod, snapshot, &fitting)),
        }
    }

    fn fitting(
        &mut self,
        prepared: &Prepared<'_>,
        pod: &PodInfo,
        snapshot: &Snapshot,
        refusal: &mut Refusal,
    ) -> Vec<usize> {
        let mut fitting = Vec::new();
        if let Some(only) = &prepared.only {
            for at in only {
                if prepared.admits(*at, pod, snapshot, refusal) {
                    fitting.push(*at);
                }
            }
            return fitting;
        }
        let count = snapshot.nodes.len();
        let enough = enough(snapshot.real_nodes());
        let start = if count == 0 { 0 } else { self.start % count };
        let mut looked_at = 0;
        for at in (start..count).chain(0..start) {
            looked_at += 1;
            let node = &snapshot.nodes[at];
            if node.node.is_some() && prepared.admits(at, pod, snapshot, refusal) {
                fitting.push(at);
                if fitting.len() >= enough {
                    break;
                }
            }
        }
        // The next pod begins where this one stopped, so that all nodes get their turn.
        self.start = start + looked_at;
        fitting
    }

    fn best(&mut self, profile: &Profile, pod: &PodInfo, snapshot: &Snapshot, fitting: &[usize]) -> usize {
        let mut totals = vec![0i64; fitting.len()];
        let mut scores = vec![0i64; fitting.len()];
        for (plugin, weight) in profile.scoring() {
            let Some(score) = plugin.pre_score().and_then(|point| point.prepare(pod, snapshot, fitting)) else {
                continue;
            };
            add_scores(score.as_ref(), *weight, snapshot, fitting, &mut scores, &mut totals);
        }
        let (mut best, mut ties) = (0, 1);
        for at in 1..totals.len() {
            if totals[at] > totals[best] {
                (best, ties) = (at, 1);
            } else if totals[at] == totals[best] {
                ties += 1;
                // Each of the ties is the one with the same probability.
                if self.random.usize(0..ties) == 0 {
                    best = at;
                }
            }
        }
        fitting[best]
    }
}

fn add_scores(
    score: &dyn Score,
    weight: i64,
    snapshot: &Snapshot,
    fitting: &[usize],
    scores: &mut [i64],
    totals: &mut [i64],
) {
    for (slot, at) in scores.iter_mut().zip(fitting) {
        *slot = score.score(&snapshot.nodes[*at]);
    }
    score.normalize(scores);
    for (total, score) in totals.iter_mut().zip(scores) {
        *total += *score * weight;
    }
}

/// The filters that have something to say about a pod, and the nodes that are left to ask.
pub(crate) struct Prepared<'a> {
    filters: Vec<(&'static str, Box<dyn Filter + 'a>)>,
    only: Option<Vec<usize>>,
}

impl<'a> Prepared<'a> {
    /// Asks what depends on the pod alone. None where that refuses it.
    pub(crate) fn new(
        profile: &Profile,
        pod: &'a PodInfo,
        snapshot: &'a Snapshot,
        refusal: &mut Refusal,
    ) -> Option<Self> {
        let mut prepared = Self { filters: Vec::new(), only: None };
        for plugin in profile.plugins() {
            let Some(point) = plugin.pre_filter() else { continue };
            let (names, filter) = match point.prepare(pod, snapshot) {
                Ok(Filtering::Skip) => continue,
                Ok(Filtering::Each(filter)) => (None, Some(filter)),
                Ok(Filtering::Only(names, filter)) => (Some(names), filter),
                Err(unfit) => {
                    refusal.add_plugin(plugin.name());
                    refusal.message = Some(unfit.reasons.join(", "));
                    return None;
                }
            };
            if let Some(names) = names {
                let mut positions: Vec<usize> = names.iter().filter_map(|name| snapshot.position(name)).collect();
                if let Some(before) = &prepared.only {
                    positions.retain(|at| before.contains(at));
                }
                if positions.is_empty() {
                    refusal.add_plugin(plugin.name());
                }
                prepared.only = Some(positions);
            }
            prepared.filters.extend(filter.map(|filter| (plugin.name(), filter)));
        }
        Some(prepared)
    }

    /// Whether the node fits now, and still does with the more important pods that wait for it.
    pub(crate) fn admits(&self, at: usize, pod: &PodInfo, snapshot: &Snapshot, refusal: &mut Refusal) -> bool {
        let node = &snapshot.nodes[at];
        if !self.check(at, node, refusal) {
            return false;
        }
        if snapshot.nominated.is_empty() {
            return true;
        }
        let mut waiting = snapshot.nominated.ahead_of(pod, &node.name).peekable();
        if waiting.peek().is_none() {
            return true;
        }
        let mut later = node.as_ref().clone();
        waiting.for_each(|waiting| later.add(waiting.clone()));
        self.check(at, &later, refusal)
    }

    fn check(&self, at: usize, node: &NodeInfo, refusal: &mut Refusal) -> bool {
        for (plugin, filter) in &self.filters {
            if let Err(unfit) = filter.check(node) {
                refusal.add(at, plugin, unfit);
                return false;
            }
        }
        true
    }
}

/// How many fitting nodes are enough: all of a small cluster, a falling share of a large one
/// (upstream's `numFeasibleNodesToFind` with percentageOfNodesToScore unset).
fn enough(nodes: usize) -> usize {
    if nodes <= LOOK_AT_ALL {
        return nodes;
    }
    let percent = 50usize.saturating_sub(nodes / 125).max(5);
    (nodes * percent / 100).max(LOOK_AT_ALL)
}

#[cfg(test)]
mod tests;
