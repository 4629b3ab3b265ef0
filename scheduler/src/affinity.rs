//! Affinity and anti-affinity to other pods, compiled once per pod.

use coracle_client::outline::Pod;
use k8s_openapi::api::core::v1::PodAffinityTerm;

use crate::{spread::selector, terms::Term};

/// "Where such pods are": a term and the node label whose values are the places.
#[derive(Clone, Debug)]
pub struct AffinityTerm {
    pub term: Term,
    pub topology_key: String,
}

/// What a pod demands of the pods around it.
#[derive(Clone, Debug, Default)]
pub struct PodAffinities {
    pub with: Vec<AffinityTerm>,
    pub without: Vec<AffinityTerm>,
    /// Weights; those of anti-affinity are negative.
    pub preferred: Vec<(i64, AffinityTerm)>,
}

impl PodAffinities {
    /// The demands of a pod.
    pub fn of(pod: &Pod) -> Self {
        let Some(affinity) = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref()) else { return Self::default() };
        let with = affinity.pod_affinity.as_ref();
        let without = affinity.pod_anti_affinity.as_ref();
        let compile = |terms: Option<&Vec<PodAffinityTerm>>| {
            terms.into_iter().flatten().map(|term| AffinityTerm::of(term, pod)).collect()
        };
        let liked = with.and_then(|with| with.preferred_during_scheduling_ignored_during_execution.as_ref());
        let disliked =
            without.and_then(|without| without.preferred_during_scheduling_ignored_during_execution.as_ref());
        let weigh = |sign: i64, term: &k8s_openapi::api::core::v1::WeightedPodAffinityTerm| {
            (sign * i64::from(term.weight), AffinityTerm::of(&term.pod_affinity_term, pod))
        };
        Self {
            with: compile(with.and_then(|with| with.required_during_scheduling_ignored_during_execution.as_ref())),
            without: compile(
                without.and_then(|without| without.required_during_scheduling_ignored_during_execution.as_ref()),
            ),
            preferred: (liked.into_iter().flatten().map(|term| weigh(1, term)))
                .chain(disliked.into_iter().flatten().map(|term| weigh(-1, term)))
                .collect(),
        }
    }

    /// Whether the pod keeps others away from its place.
    pub fn refuses_company(&self) -> bool {
        !self.without.is_empty()
    }

    /// All terms.
    pub fn terms(&self) -> impl Iterator<Item = &AffinityTerm> {
        self.with.iter().chain(&self.without).chain(self.preferred.iter().map(|(_, term)| term))
    }
}

impl AffinityTerm {
    fn of(term: &PodAffinityTerm, pod: &Pod) -> Self {
        let own = pod.metadata.namespace.clone().unwrap_or_default();
        let listed = term.namespaces.clone().unwrap_or_default();
        let namespaces = match &term.namespace_selector {
            None if listed.is_empty() => Some(vec![own]),
            None => Some(listed),
            // An empty selector is every namespace; one with conditions is not resolved here and adds none to the list.
            Some(all)
                if all.match_labels.as_ref().is_none_or(|labels| labels.is_empty())
                    && all.match_expressions.as_ref().is_none_or(|expressions| expressions.is_empty()) =>
            {
                None
            }
            Some(_) => Some(listed),
        };
        let selector = selector(term.label_selector.as_ref(), term.match_label_keys.as_deref(), pod);
        Self { term: Term::new(namespaces, selector), topology_key: term.topology_key.clone() }
    }
}
