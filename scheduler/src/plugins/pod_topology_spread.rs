//! Spreads pods over places: by their own constraints, else those of one controller over hosts and zones
//! (upstream's system defaults: hosts with skew 3, zones with skew 5, both soft).

use std::collections::HashMap;

use crate::{
    framework::{Filter, Filtering, Happened, MAX_SCORE, Plugin, PreFilter, PreScore, Score, Unfit},
    node_info::{NodeInfo, ZoneId},
    pod_info::{ControllerId, PodInfo},
    selectors::tolerates,
    snapshot::Snapshot,
    spread::Constraint,
    terms::TermId,
};

const HOST: &str = "kubernetes.io/hostname";
const MISMATCH: &str = "node(s) didn't match pod topology spread constraints";
const NO_LABEL: &str = "node(s) didn't match pod topology spread constraints (missing required label)";

pub struct PodTopologySpread;

impl Plugin for PodTopologySpread {
    fn name(&self) -> &'static str {
        "PodTopologySpread"
    }

    fn may_help(&self, pod: &PodInfo, happened: &Happened) -> bool {
        match happened {
            Happened::PodPlaced(other) | Happened::PodGone(other) => {
                pod.spread.iter().any(|constraint| constraint.term.selects(other))
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

/// Whether a node is counted for a constraint of the pod.
fn counts(constraint: &Constraint, pod: &PodInfo, info: &NodeInfo) -> bool {
    let Some(node) = &info.node else { return false };
    let tolerated = || {
        let mut hard = info.taints().iter().filter(|taint| taint.effect != "PreferNoSchedule");
        hard.all(|taint| pod.tolerations().iter().any(|toleration| tolerates(toleration, taint)))
    };
    (!constraint.honor_affinity || pod.requirements.matches(node)) && (!constraint.honor_taints || tolerated())
}

/// Pods per place over all nodes that are counted.
fn per_place<'a>(
    constraint: &Constraint,
    term: Option<TermId>,
    pod: &PodInfo,
    snapshot: &'a Snapshot,
) -> HashMap<&'a str, i64> {
    let mut places = HashMap::new();
    for info in snapshot.nodes.iter().filter(|info| counts(constraint, pod, info)) {
        if let Some(place) = info.label(&constraint.topology_key) {
            *places.entry(place).or_default() += i64::from(term.map_or(0, |term| info.count(term)));
        }
    }
    places
}

impl PreFilter for PodTopologySpread {
    fn prepare<'a>(&self, pod: &'a PodInfo, snapshot: &'a Snapshot) -> Result<Filtering<'a>, Unfit> {
        let hard = pod.spread.iter().filter(|constraint| constraint.hard);
        let bounds: Vec<Bound<'a>> = hard
            .map(|constraint| {
                let places = per_place(constraint, snapshot.term(&constraint.term), pod, snapshot);
                let least =
                    if places.len() < constraint.min_domains { 0 } else { places.values().copied().min().unwrap_or(0) };
                Bound { constraint, places, least }
            })
            .collect();
        Ok(if bounds.is_empty() { Filtering::Skip } else { Filtering::Each(Box::new(Bounds(bounds))) })
    }
}

struct Bound<'a> {
    constraint: &'a Constraint,
    places: HashMap<&'a str, i64>,
    least: i64,
}

struct Bounds<'a>(Vec<Bound<'a>>);

impl Filter for Bounds<'_> {
    fn check(&self, node: &NodeInfo) -> Result<(), Unfit> {
        for bound in &self.0 {
            let Some(place) = node.label(&bound.constraint.topology_key) else {
                return Err(Unfit::unresolvable(NO_LABEL));
            };
            let there = bound.places.get(place).copied().unwrap_or(0) + i64::from(bound.constraint.selects_self);
            if there - bound.least > bound.constraint.max_skew {
                return Err(Unfit::because(MISMATCH));
            }
        }
        Ok(())
    }
}

/// How the pods of one soft rule are counted.
enum Counted<'a> {
    /// On the node itself.
    Here(Source),
    /// In the node's place.
    There(&'a str, HashMap<&'a str, i64>),
    /// In the node's zone; None where none has any.
    InZone(Option<&'a [i64]>),
}

enum Source {
    Term(Option<TermId>),
    Controller(ControllerId),
}

impl Source {
    fn count(&self, node: &NodeInfo) -> i64 {
        i64::from(match self {
            Self::Term(term) => term.map_or(0, |term| node.count(term)),
            Self::Controller(controller) => node.of_controller(*controller),
        })
    }
}

struct Rule<'a> {
    counted: Counted<'a>,
    /// Rarer places weigh less: logarithm of their number.
    weight: f64,
    max_skew: i64,
}

struct Rules<'a> {
    rules: Vec<Rule<'a>>,
    /// Nodes without one of the labels get the worst score; by default rules they are simply not counted.
    strict: bool,
}

/// The score of a node that lacks a label, before normalisation.
const IGNORED: i64 = -1;

impl PreScore for PodTopologySpread {
    fn prepare<'a>(
        &self,
        pod: &'a PodInfo,
        snapshot: &'a Snapshot,
        fitting: &'a [usize],
    ) -> Option<Box<dyn Score + 'a>> {
        let own = !pod.spread.is_empty();
        let rules = if own { own_rules(pod, snapshot, fitting) } else { default_rules(pod, snapshot, fitting) };
        (!rules.is_empty()).then(|| Box::new(Rules { rules, strict: own }) as Box<dyn Score>)
    }
}

fn weight(places: usize) -> f64 {
    (places as f64 + 2.0).ln()
}

fn own_rules<'a>(pod: &'a PodInfo, snapshot: &'a Snapshot, fitting: &[usize]) -> Vec<Rule<'a>> {
    let soft = pod.spread.iter().filter(|constraint| !constraint.hard);
    soft.map(|constraint| {
        let term = snapshot.term(&constraint.term);
        let max_skew = constraint.max_skew;
        if constraint.topology_key == HOST {
            return Rule { counted: Counted::Here(Source::Term(term)), weight: weight(fitting.len()), max_skew };
        }
        let places = per_place(constraint, term, pod, snapshot);
        Rule { weight: weight(places.len()), counted: Counted::There(&constraint.topology_key, places), max_skew }
    })
    .collect()
}

fn default_rules<'a>(pod: &'a PodInfo, snapshot: &'a Snapshot, fitting: &[usize]) -> Vec<Rule<'a>> {
    let Some(controller) = pod.controller else { return Vec::new() };
    let by_host =
        Rule { counted: Counted::Here(Source::Controller(controller)), weight: weight(fitting.len()), max_skew: 3 };
    if snapshot.zones == 0 {
        return vec![by_host];
    }
    let counts = snapshot.in_zones.get(&controller).map(|counts| counts.as_slice());
    vec![by_host, Rule { counted: Counted::InZone(counts), weight: weight(snapshot.zones), max_skew: 5 }]
}

impl Score for Rules<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        let mut total = 0.0;
        for rule in &self.rules {
            let count = match &rule.counted {
                Counted::Here(source) => source.count(node),
                Counted::InZone(counts) => match node.zone {
                    Some(ZoneId(zone)) => counts.and_then(|counts| counts.get(zone)).copied().unwrap_or(0),
                    None => continue,
                },
                Counted::There(key, places) => match node.label(key) {
                    Some(place) => places.get(place).copied().unwrap_or(0),
                    None if self.strict => return IGNORED,
                    None => continue,
                },
            };
            total += count as f64 * rule.weight + (rule.max_skew - 1) as f64;
        }
        total.round() as i64
    }

    /// Fewer is better.
    fn normalize(&self, scores: &mut [i64]) {
        let counted = || scores.iter().copied().filter(|score| *score != IGNORED);
        let (least, most) = (counted().min().unwrap_or(0), counted().max().unwrap_or(0));
        for score in scores {
            *score = match *score {
                IGNORED => 0,
                _ if most == 0 => MAX_SCORE,
                score => MAX_SCORE * (most + least - score) / most,
            };
        }
    }
}
