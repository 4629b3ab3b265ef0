//! Checks of what decides where a pod runs: affinity, tolerations, spreading.

use super::label_keys;
use crate::registry::fields::{self, invalid_all, is_set, items, one_of, text};
use coracle_api::json::Value;
use coracle_api::status::FieldPath;
use coracle_api::{Cause, validation};

const ACTIONS: [&str; 2] = ["DoNotSchedule", "ScheduleAnyway"];
const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// How a pod is spread with others (core `validateTopologySpreadConstraints`); `old` is the spec that it replaces.
pub fn spread(spec: &Value, old: Option<&Value>, path: &FieldPath, causes: &mut Vec<Cause>) {
    let constraints = items(spec, "topologySpreadConstraints");
    if constraints.is_empty() {
        return;
    }
    let path = path.child("topologySpreadConstraints");
    let as_before = old.is_some_and(label_keys::spreads_as_before);
    for (nth, constraint) in constraints.iter().enumerate() {
        let path = path.index(nth);
        let skew = constraint.get("maxSkew").and_then(Value::as_i64).unwrap_or(0);
        if skew <= 0 {
            causes.push(Cause::invalid(&path.child("maxSkew"), skew, "must be greater than zero"));
        }
        let (key, action) = (text(constraint, "topologyKey"), text(constraint, "whenUnsatisfiable"));
        if key.is_empty() {
            causes.push(Cause::required(&path.child("topologyKey"), "can not be empty"));
        }
        if !ACTIONS.contains(&action) {
            causes.push(Cause::not_supported(&path.child("whenUnsatisfiable"), action, &ACTIONS));
        }
        let pair = |other: &Value| (text(other, "topologyKey"), text(other, "whenUnsatisfiable")) == (key, action);
        if constraints[nth + 1..].iter().any(pair) {
            let at = path.child("{topologyKey, whenUnsatisfiable}");
            causes.push(Cause::duplicate(&at, format!("{{{key}, {action}}}")));
        }
        if let Some(least) = constraint.get("minDomains").and_then(Value::as_i64) {
            let at = path.child("minDomains");
            if least <= 0 {
                causes.push(Cause::invalid(&at, least, "must be greater than zero"));
            }
            if action != "DoNotSchedule" {
                let why = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
                causes.push(Cause::invalid(&at, least, why));
            }
        }
        for policy in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            one_of(constraint, policy, &["Honor", "Ignore"], &path, causes);
        }
        label_keys::of_spread(constraint, as_before, &path, causes);
        if let Some(selector) = constraint.get("labelSelector").filter(|selector| !selector.is_null()) {
            fields::label_selector(selector, &path.child("labelSelector"), causes);
        }
    }
}

/// Tolerations, of a pod or of all pods of a class.
pub fn tolerations(tolerations: &[Value], path: &FieldPath, causes: &mut Vec<Cause>) {
    for (nth, toleration) in tolerations.iter().enumerate() {
        let path = path.index(nth);
        let (key, operator) = (text(toleration, "key"), text(toleration, "operator"));
        if !key.is_empty() {
            invalid_all(&path.child("key"), key, validation::qualified_name(key), causes);
        } else if operator != "Exists" {
            causes.push(Cause::invalid(
                &path.child("operator"),
                operator,
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
            ));
        }
        if toleration.get("tolerationSeconds").and_then(Value::as_i64).is_some()
            && text(toleration, "effect") != "NoExecute"
        {
            causes.push(Cause::invalid(
                &path.child("effect"),
                text(toleration, "effect"),
                "effect must be 'NoExecute' when `tolerationSeconds` is set",
            ));
        }
        match operator {
            "Equal" | "" => {
                let value = text(toleration, "value");
                let wrong = validation::label_value(value);
                if !wrong.is_empty() {
                    causes.push(Cause::invalid(&path.child("operator"), value, wrong.join(";")));
                }
            }
            "Exists" if !text(toleration, "value").is_empty() => {
                causes.push(Cause::invalid(
                    &path.child("operator"),
                    text(toleration, "value"),
                    "value must be empty when `operator` is 'Exists'",
                ));
            }
            "Exists" => {}
            // TaintTolerationComparisonOperators is alpha, and off.
            other @ ("Lt" | "Gt") => {
                let known = ["Equal", "Exists", "Lt", "Gt"];
                causes.push(Cause::not_supported(&path.child("operator"), other, &known));
            }
            other => causes.push(Cause::not_supported(&path.child("operator"), other, &["Equal", "Exists"])),
        }
        if is_set(toleration, "effect") {
            one_of(toleration, "effect", &EFFECTS, &path, causes);
        }
    }
}

/// Beside which pods, and on which nodes, a pod runs (core `validateAffinity`).
pub fn affinity(spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let Some(affinity) = spec.get("affinity").filter(|affinity| !affinity.is_null()) else { return };
    let path = path.child("affinity");
    if let Some(node) = affinity.get("nodeAffinity") {
        let path = path.child("nodeAffinity");
        if let Some(required) =
            node.get("requiredDuringSchedulingIgnoredDuringExecution").filter(|value| !value.is_null())
        {
            node_selector(required, &path.child("requiredDuringSchedulingIgnoredDuringExecution"), causes);
        }
        for (nth, preferred) in items(node, "preferredDuringSchedulingIgnoredDuringExecution").iter().enumerate() {
            let path = path.child("preferredDuringSchedulingIgnoredDuringExecution").index(nth);
            weight(preferred, &path, causes);
            node_term(&preferred["preference"], false, &path.child("preference"), causes);
        }
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(pods) = affinity.get(kind) else { continue };
        let path = path.child(kind);
        for (nth, term) in items(pods, "requiredDuringSchedulingIgnoredDuringExecution").iter().enumerate() {
            pod_term(term, &path.child("requiredDuringSchedulingIgnoredDuringExecution").index(nth), causes);
        }
        for (nth, preferred) in items(pods, "preferredDuringSchedulingIgnoredDuringExecution").iter().enumerate() {
            let path = path.child("preferredDuringSchedulingIgnoredDuringExecution").index(nth);
            weight(preferred, &path, causes);
            pod_term(&preferred["podAffinityTerm"], &path.child("podAffinityTerm"), causes);
        }
    }
}

/// A selector of nodes: by a pod's affinity or by a volume's.
pub fn node_selector(selector: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let path = path.child("nodeSelectorTerms");
    let terms = items(selector, "nodeSelectorTerms");
    if terms.is_empty() {
        causes.push(Cause::required(&path, "must have at least one node selector term"));
    }
    for (nth, term) in terms.iter().enumerate() {
        node_term(term, true, &path.index(nth), causes);
    }
}

fn weight(preferred: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let weight = preferred.get("weight").and_then(Value::as_i64).unwrap_or(0);
    if !(1..=100).contains(&weight) {
        causes.push(Cause::invalid(&path.child("weight"), weight, "must be in the range 1-100"));
    }
}

/// A term; values that no label can have are let through where a node is only preferred.
fn node_term(term: &Value, strict: bool, path: &FieldPath, causes: &mut Vec<Cause>) {
    for (nth, expression) in items(term, "matchExpressions").iter().enumerate() {
        let path = path.child("matchExpressions").index(nth);
        let (values, at) = (items(expression, "values"), path.child("values"));
        match text(expression, "operator") {
            "In" | "NotIn" if values.is_empty() => {
                causes.push(Cause::required(&at, "must be specified when `operator` is 'In' or 'NotIn'"));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                causes.push(Cause::forbidden(&at, why));
            }
            "Gt" | "Lt" if values.len() != 1 => {
                causes.push(Cause::required(&at, "must be specified single value when `operator` is 'Lt' or 'Gt'"));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            other => causes.push(Cause::invalid(&path.child("operator"), other, "not a valid selector operator")),
        }
        let key = text(expression, "key");
        invalid_all(&path.child("key"), key, validation::qualified_name(key), causes);
        for (nth, value) in values.iter().filter_map(Value::as_str).enumerate().filter(|_| strict) {
            invalid_all(&at.index(nth), value, validation::label_value(value), causes);
        }
    }
    for (nth, expression) in items(term, "matchFields").iter().enumerate() {
        node_field(expression, &path.child("matchFields").index(nth), causes);
    }
}

/// The one field that nodes are selected by, their name (core `ValidateNodeFieldSelectorRequirement`).
fn node_field(expression: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let (values, at) = (items(expression, "values"), path.child("values"));
    match text(expression, "operator") {
        "In" | "NotIn" if values.len() == 1 => {}
        "In" | "NotIn" => {
            let why = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
            causes.push(Cause::required(&at, why));
        }
        other => causes.push(Cause::invalid(&path.child("operator"), other, "not a valid selector operator")),
    }
    match text(expression, "key") {
        "metadata.name" => {
            for (nth, value) in values.iter().filter_map(Value::as_str).enumerate() {
                invalid_all(&at.index(nth), value, validation::dns1123_subdomain(value), causes);
            }
        }
        key => causes.push(Cause::invalid(&path.child("key"), key, "not a valid field selector key")),
    }
}

fn pod_term(term: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    for field in ["labelSelector", "namespaceSelector"] {
        if let Some(selector) = term.get(field).filter(|selector| !selector.is_null()) {
            fields::label_selector(selector, &path.child(field), causes);
        }
    }
    // Upstream reports a namespace as this, without its place in the list.
    for namespace in items(term, "namespaces").iter().filter_map(Value::as_str) {
        invalid_all(&path.child("namespace"), namespace, validation::dns1123_label(namespace), causes);
    }
    label_keys::validate(term, path, causes);
    let (key, path) = (text(term, "topologyKey"), path.child("topologyKey"));
    if key.is_empty() {
        causes.push(Cause::required(&path, "can not be empty"));
    }
    invalid_all(&path, key, validation::qualified_name(key), causes);
}
