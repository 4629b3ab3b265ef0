//! Topology spread constraints, compiled once per pod.

use coracle_api::selector::LabelSelector;
use coracle_client::outline::Pod;
use k8s_openapi::{
    api::core::v1::TopologySpreadConstraint, apimachinery::pkg::apis::meta::v1::LabelSelector as Selector,
};

use crate::terms::Term;

/// One rule on how far the numbers of pods may differ between places.
#[derive(Clone, Debug)]
pub struct Constraint {
    pub max_skew: i64,
    /// The node label whose values are the places.
    pub topology_key: String,
    /// Whether a violation excludes the node, or only costs points.
    pub hard: bool,
    /// Fewer places than this count as one that is empty.
    pub min_domains: usize,
    /// Count only nodes that the pod's own node selector and affinity admit (`nodeAffinityPolicy`, by default so).
    pub honor_affinity: bool,
    /// Count only nodes whose taints the pod tolerates (`nodeTaintsPolicy`, by default not).
    pub honor_taints: bool,
    /// The pods that are counted.
    pub term: Term,
    /// Whether the pod itself is one of them.
    pub selects_self: bool,
}

impl Constraint {
    /// The constraints of a pod.
    pub fn of(pod: &Pod) -> Vec<Self> {
        let constraints = pod.spec.as_ref().and_then(|spec| spec.topology_spread_constraints.as_ref());
        constraints.into_iter().flatten().map(|constraint| Self::compile(constraint, pod)).collect()
    }

    fn compile(constraint: &TopologySpreadConstraint, pod: &Pod) -> Self {
        let labels = pod.metadata.labels.as_ref();
        let selector = selector(constraint.label_selector.as_ref(), constraint.match_label_keys.as_deref(), pod);
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        Self {
            max_skew: i64::from(constraint.max_skew),
            topology_key: constraint.topology_key.clone(),
            hard: constraint.when_unsatisfiable == "DoNotSchedule",
            min_domains: constraint.min_domains.and_then(|number| usize::try_from(number).ok()).unwrap_or(1),
            honor_affinity: constraint.node_affinity_policy.as_deref() != Some("Ignore"),
            honor_taints: constraint.node_taints_policy.as_deref() == Some("Honor"),
            selects_self: crate::selectors::selects(&selector, labels),
            term: Term::new(Some(vec![namespace]), selector),
        }
    }
}

/// The selector with the pod's own values for the keys that have to match (KEP-3243, KEP-3633).
pub(crate) fn selector(selector: Option<&Selector>, keys: Option<&[String]>, pod: &Pod) -> LabelSelector {
    let Some(selector) = selector else { return LabelSelector::NOTHING };
    let mut selector = selector.clone();
    for key in keys.unwrap_or_default() {
        if let Some(value) = pod.metadata.labels.as_ref().and_then(|labels| labels.get(key)) {
            selector.match_labels.get_or_insert_default().insert(key.clone(), value.clone());
        }
    }
    LabelSelector::from_metav1(&selector).unwrap_or(LabelSelector::NOTHING)
}
