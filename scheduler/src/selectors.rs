//! Node selectors and affinity, compiled once per pod (component-helpers, scheduling/corev1/nodeaffinity).

use std::collections::BTreeMap;

use coracle_api::selector::LabelSelector;
use coracle_client::outline::Pod;
use k8s_openapi::api::core::v1::{Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Taint, Toleration};

/// A condition on one label or field.
#[derive(Clone, Debug)]
struct Requirement {
    key: String,
    operator: Operator,
    values: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    Gt,
    Lt,
    /// Not known here: matches nothing, so that no rule is dropped in silence.
    Unknown,
}

/// Conditions that must all hold. An empty term matches nothing.
#[derive(Clone, Debug)]
pub struct Term {
    labels: Vec<Requirement>,
    fields: Vec<Requirement>,
}

/// What a pod demands of a node.
#[derive(Clone, Debug, Default)]
pub struct NodeRequirements {
    selector: BTreeMap<String, String>,
    /// One of them has to match, where there are any.
    required: Option<Vec<Term>>,
    /// The weights of those that match add up.
    pub preferred: Vec<(i64, Term)>,
}

impl NodeRequirements {
    /// The demands of a pod.
    pub fn of(pod: &Pod) -> Self {
        let Some(spec) = &pod.spec else { return Self::default() };
        let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
        let required =
            affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
        let preferred =
            affinity.and_then(|affinity| affinity.preferred_during_scheduling_ignored_during_execution.as_ref());
        Self {
            selector: spec.node_selector.clone().unwrap_or_default(),
            required: required.map(terms),
            preferred: preferred
                .into_iter()
                .flatten()
                .map(|term| (i64::from(term.weight), Term::of(&term.preference)))
                .collect(),
        }
    }

    /// Whether the pod demands anything.
    pub fn is_empty(&self) -> bool {
        self.selector.is_empty() && self.required.is_none()
    }

    /// Whether the node meets the demands.
    pub fn matches(&self, node: &Node) -> bool {
        let labels = node.metadata.labels.as_ref();
        let label = |name: &str| labels.and_then(|labels| labels.get(name));
        self.selector.iter().all(|(name, value)| label(name) == Some(value))
            && self.required.as_ref().is_none_or(|terms| terms.iter().any(|term| term.matches(node)))
    }

    /// The one node that can match, where the demands name it (as DaemonSet pods do).
    pub fn only_node(&self) -> Option<&str> {
        let [term] = self.required.as_deref()? else { return None };
        let field = term.fields.iter().find(|field| field.key == "metadata.name" && field.operator == Operator::In)?;
        match field.values.as_slice() {
            [name] => Some(name),
            _ => None,
        }
    }
}

/// The terms of a node selector.
pub fn terms(selector: &NodeSelector) -> Vec<Term> {
    selector.node_selector_terms.iter().map(Term::of).collect()
}

impl Term {
    /// Compiles a term.
    pub fn of(term: &NodeSelectorTerm) -> Self {
        let compile =
            |list: &Option<Vec<NodeSelectorRequirement>>| list.iter().flatten().map(Requirement::of).collect();
        Self { labels: compile(&term.match_expressions), fields: compile(&term.match_fields) }
    }

    /// Whether all conditions hold.
    pub fn matches(&self, node: &Node) -> bool {
        if self.labels.is_empty() && self.fields.is_empty() {
            return false;
        }
        let labels = node.metadata.labels.as_ref();
        let name = node.metadata.name.as_deref();
        self.labels.iter().all(|requirement| {
            requirement.holds(labels.and_then(|labels| labels.get(&requirement.key)).map(String::as_str))
        }) && self
            .fields
            .iter()
            .all(|requirement| requirement.holds(name.filter(|_| requirement.key == "metadata.name")))
    }
}

impl Requirement {
    fn of(requirement: &NodeSelectorRequirement) -> Self {
        let operator = match requirement.operator.as_str() {
            "In" => Operator::In,
            "NotIn" => Operator::NotIn,
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            "Gt" => Operator::Gt,
            "Lt" => Operator::Lt,
            _ => Operator::Unknown,
        };
        Self { key: requirement.key.clone(), operator, values: requirement.values.clone().unwrap_or_default() }
    }

    fn holds(&self, value: Option<&str>) -> bool {
        let listed = |value: &str| self.values.iter().any(|have| have == value);
        let number = |text: &str| text.parse::<i64>().ok();
        let limit = || self.values.first().and_then(|value| number(value));
        match (self.operator, value) {
            (Operator::In, Some(value)) => listed(value),
            (Operator::NotIn, value) => !value.is_some_and(listed),
            (Operator::Exists, value) => value.is_some(),
            (Operator::DoesNotExist, value) => value.is_none(),
            (Operator::Gt, Some(value)) => {
                matches!((number(value), limit()), (Some(value), Some(limit)) if value > limit)
            }
            (Operator::Lt, Some(value)) => {
                matches!((number(value), limit()), (Some(value), Some(limit)) if value < limit)
            }
            _ => false,
        }
    }
}

/// Whether a toleration covers a taint (upstream's `Toleration.ToleratesTaint`).
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let given = |field: &Option<String>| field.as_deref().filter(|text| !text.is_empty()).map(str::to_owned);
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    if (!effect.is_empty() && effect != taint.effect) || (!key.is_empty() && key != taint.key) {
        return false;
    }
    match toleration.operator.as_deref() {
        Some("Exists") => true,
        None | Some("" | "Equal") => given(&toleration.value) == given(&taint.value),
        Some(_) => false,
    }
}

/// Whether a selector matches a pod's labels.
pub fn selects(selector: &LabelSelector, labels: Option<&BTreeMap<String, String>>) -> bool {
    match labels {
        Some(labels) => selector.matches(labels),
        None => selector.matches(&BTreeMap::<String, String>::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::json::json;

    #[test]
    fn demands_on_labels_and_names() {
        let node: Node =
            coracle_api::json::from_value(json!({"metadata": {"name": "a", "labels": {"disk": "ssd", "cores": "8"}}}))
                .unwrap();
        let expression = |key: &str, operator: &str, values: coracle_api::json::Value| {
            json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": key, "operator": operator, "values": values}]}]}}}})
        };
        let cases = [
            (json!({"nodeSelector": {"disk": "ssd"}}), true),
            (json!({"nodeSelector": {"disk": "hdd"}}), false),
            (expression("disk", "In", json!(["hdd", "ssd"])), true),
            (expression("disk", "NotIn", json!(["ssd"])), false),
            (expression("none", "NotIn", json!(["ssd"])), true),
            (expression("none", "Exists", json!([])), false),
            (expression("none", "DoesNotExist", json!([])), true),
            (expression("cores", "Gt", json!(["7"])), true),
            (expression("cores", "Lt", json!(["8"])), false),
            (expression("disk", "Gt", json!(["7"])), false),
            (expression("disk", "Near", json!(["7"])), false),
            (
                json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{}]}}}}),
                false,
            ),
        ];
        for (mut spec, expected) in cases {
            spec["containers"] = json!([]);
            let pod: Pod = coracle_api::json::from_value(json!({"spec": spec})).unwrap();
            assert_eq!(NodeRequirements::of(&pod).matches(&node), expected, "{spec}");
        }
    }
}
