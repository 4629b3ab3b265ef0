//! Checks of what decides where a pod runs: affinity, tolerations, spreading.

use crate::registry::fields::{self, invalid_all, items, one_of, text};
use coracle_api::status::FieldPath;
use coracle_api::{Cause, validation};
use serde_json::Value;

const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// Everything about scheduling in a pod's spec.
pub fn validate(spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    tolerations(items(spec, "tolerations"), &path.child("tolerations"), causes);
    if let Some(affinity) = spec.get("affinity").filter(|affinity| !affinity.is_null()) {
        self::affinity(affinity, &path.child("affinity"), causes);
    }
    for (nth, constraint) in items(spec, "topologySpreadConstraints").iter().enumerate() {
        let path = path.child("topologySpreadConstraints").index(nth);
        let skew = constraint.get("maxSkew").and_then(Value::as_i64).unwrap_or(0);
        if skew <= 0 {
            causes.push(Cause::invalid(&path.child("maxSkew"), skew, "must be greater than zero"));
        }
        if text(constraint, "topologyKey").is_empty() {
            causes.push(Cause::required(&path.child("topologyKey"), "can not be empty"));
        }
        match text(constraint, "whenUnsatisfiable") {
            "DoNotSchedule" | "ScheduleAnyway" => {}
            other => causes.push(Cause::not_supported(
                &path.child("whenUnsatisfiable"),
                other,
                &["DoNotSchedule", "ScheduleAnyway"],
            )),
        }
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
                invalid_all(&path.child("operator"), value, validation::label_value(value), causes);
            }
            "Exists" if !text(toleration, "value").is_empty() => {
                causes.push(Cause::invalid(
                    &path.child("operator"),
                    operator,
                    "value must be empty when `operator` is 'Exists'",
                ));
            }
            "Exists" => {}
            // Lt and Gt too: TaintTolerationComparisonOperators is alpha, and off.
            other => causes.push(Cause::not_supported(&path.child("operator"), other, &["Equal", "Exists"])),
        }
        one_of(toleration, "effect", &EFFECTS, &path, causes);
    }
}

fn affinity(affinity: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
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
            node_term(&preferred["preference"], &path.child("preference"), causes);
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
        node_term(term, &path.index(nth), causes);
    }
}

fn weight(preferred: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let weight = preferred.get("weight").and_then(Value::as_i64).unwrap_or(0);
    if !(1..=100).contains(&weight) {
        causes.push(Cause::invalid(&path.child("weight"), weight, "must be in the range 1-100"));
    }
}

fn node_term(term: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    for list in ["matchExpressions", "matchFields"] {
        for (nth, expression) in items(term, list).iter().enumerate() {
            let path = path.child(list).index(nth);
            let values = items(expression, "values").len();
            match text(expression, "operator") {
                "In" | "NotIn" if values == 0 => {
                    causes.push(Cause::required(
                        &path.child("values"),
                        "must be specified when `operator` is 'In' or 'NotIn'",
                    ));
                }
                "Exists" | "DoesNotExist" if values > 0 => {
                    causes.push(Cause::forbidden(
                        &path.child("values"),
                        "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                    ));
                }
                "Gt" | "Lt" if values != 1 => {
                    causes.push(Cause::required(
                        &path.child("values"),
                        "must be specified single value when `operator` is 'Lt' or 'Gt'",
                    ));
                }
                "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
                other => causes.push(Cause::invalid(&path.child("operator"), other, "not a valid selector operator")),
            }
            let key = text(expression, "key");
            if list == "matchExpressions" {
                invalid_all(&path.child("key"), key, validation::qualified_name(key), causes);
            } else if key != "metadata.name" {
                causes.push(Cause::not_supported(&path.child("key"), key, &["metadata.name"]));
            }
        }
    }
}

fn pod_term(term: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    match text(term, "topologyKey") {
        "" => causes.push(Cause::required(&path.child("topologyKey"), "can not be empty")),
        key => invalid_all(&path.child("topologyKey"), key, validation::qualified_name(key), causes),
    }
    for field in ["labelSelector", "namespaceSelector"] {
        if let Some(selector) = term.get(field).filter(|selector| !selector.is_null()) {
            fields::label_selector(selector, &path.child(field), causes);
        }
    }
    for (nth, namespace) in items(term, "namespaces").iter().filter_map(Value::as_str).enumerate() {
        invalid_all(&path.child("namespaces").index(nth), namespace, validation::dns1123_label(namespace), causes);
    }
}
