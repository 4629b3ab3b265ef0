//! What may change in a pod that is there (core `ValidatePodUpdate`, `ValidatePodEphemeralContainersUpdate`).

use super::pod_annotations::{self, MIRROR};
use super::{amounts, container, scheduling};
use crate::registry::fields::{self, alike, copy, is_set, items, text};
use coracle_api::json::{Value, json};
use coracle_api::status::FieldPath;
use coracle_api::{Cause, meta};
use std::collections::{HashMap, HashSet};

/// Why most of a pod's spec does not change.
const FIXED: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,\
                     `spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),\
                     `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

const DEADLINE: &str = "activeDeadlineSeconds";
const REQUIRED_TERMS: &str = "/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";

/// A change of the pod itself.
pub fn spec(pod: &Value, old: &Value, causes: &mut Vec<Cause>) {
    let path = FieldPath::new("spec");
    let (new, known) = (&pod["spec"], &old["spec"]);
    if coracle_api::json::same(new, known) {
        return;
    }
    let mut expected = new.clone();
    for list in ["containers", "initContainers"] {
        if items(new, list).len() != items(known, list).len() {
            causes.push(Cause::forbidden(&path.child(list), "pod updates may not add or remove containers"));
            return;
        }
        images(items(new, list), &path.child(list), causes);
        for (container, before) in fields::items_mut(&mut expected, list).zip(items(known, list)) {
            copy(container, before, "image");
        }
    }
    if !deadline(new, known, &path, causes) {
        return;
    }
    tolerations(new, known, &path.child("tolerations"), causes);
    gates(new, known, &path.child("schedulingGates"), causes);
    for field in [DEADLINE, "tolerations", "schedulingGates"] {
        copy(&mut expected, known, field);
    }
    let seconds = |spec: &Value| spec.get("terminationGracePeriodSeconds").and_then(Value::as_i64);
    if seconds(known).is_some_and(|seconds| seconds < 0) && seconds(new) == Some(1) {
        copy(&mut expected, known, "terminationGracePeriodSeconds");
    }
    if !items(known, "schedulingGates").is_empty() {
        gated(new, known, &path, causes);
        copy(&mut expected, known, "nodeSelector");
        keep_node_affinity(&mut expected, known);
    }
    if !amounts::alike(&expected, known, amounts::POD_SPEC) {
        causes.push(Cause::forbidden(&path, FIXED));
    }
}

/// Images, which are told once more of a pod that changes (core `ValidateContainerUpdates`).
fn images(containers: &[Value], path: &FieldPath, causes: &mut Vec<Cause>) {
    for (nth, container) in containers.iter().enumerate() {
        if text(container, "image").is_empty() {
            causes.push(Cause::required(&path.index(nth).child("image"), ""));
        }
        container::trimmed_image(container, &path.index(nth), causes);
    }
}

/// The deadline may be set, and shortened. False when it is none that could be compared with what was there.
fn deadline(new: &Value, known: &Value, path: &FieldPath, causes: &mut Vec<Cause>) -> bool {
    let path = path.child(DEADLINE);
    let of = |spec: &Value| spec.get(DEADLINE).and_then(Value::as_i64);
    let why = match (of(new), of(known)) {
        (Some(after), _) if !(0..=i64::from(i32::MAX)).contains(&after) => {
            (after, "must be between 0 and 2147483647, inclusive")
        }
        (Some(after), Some(before)) if after > before => (after, "must be less than or equal to previous value"),
        (None, Some(_)) => {
            // A pointer to nothing is shown as this text.
            causes.push(Cause::invalid(&path, "null", "must not update from a positive integer to nil value"));
            return true;
        }
        _ => return true,
    };
    causes.push(Cause::invalid(&path, why.0, why.1));
    false
}

/// Tolerations may be added, and last longer or shorter (core `validateOnlyAddedTolerations`).
fn tolerations(new: &Value, known: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let strip = |toleration: &Value| {
        let mut toleration = toleration.clone();
        fields::remove(&mut toleration, "tolerationSeconds");
        toleration
    };
    let now: Vec<Value> = items(new, "tolerations").iter().map(strip).collect();
    if items(known, "tolerations").iter().any(|toleration| !now.contains(&strip(toleration))) {
        causes.push(Cause::forbidden(path, "existing toleration can not be modified except its tolerationSeconds"));
        return;
    }
    // They are told once more.
    scheduling::tolerations(items(new, "tolerations"), path, causes);
}

/// Gates may only go (core `validateOnlyDeletedSchedulingGates`).
fn gates(new: &Value, known: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let gates = items(new, "schedulingGates");
    let before: HashSet<&str> = items(known, "schedulingGates").iter().map(|gate| text(gate, "name")).collect();
    let places: HashMap<&str, usize> = gates.iter().enumerate().map(|(nth, gate)| (text(gate, "name"), nth)).collect();
    for (nth, name) in gates.iter().map(|gate| text(gate, "name")).enumerate() {
        // One that is there twice is told in its last place.
        if !before.contains(name) && places.get(name) == Some(&nth) {
            let why = format!("only deletion is allowed, but found new scheduling gate '{name}'");
            causes.push(Cause::forbidden(&path.index(nth).child("name"), why));
        }
    }
}

/// While a pod waits at a gate, where it may run can be narrowed down (KEP-3838).
fn gated(new: &Value, known: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let selector = |spec: &Value| spec.get("nodeSelector").and_then(Value::as_object).cloned();
    let (now, before) = (selector(new), selector(known).unwrap_or_default());
    let get = |key: &str| now.as_ref().and_then(|now| now.get(key));
    if before.iter().any(|(key, value)| get(key) != Some(value)) {
        let why = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        // In Go's order.
        let shown = now.map_or(Value::Null, |mut now| {
            now.sort_keys();
            Value::Object(now)
        });
        causes.push(Cause::invalid(&path.child("nodeSelector"), shown, why));
    }
    let terms = |spec: &Value| {
        let affinity = spec.pointer("/affinity/nodeAffinity").unwrap_or(&Value::Null);
        affinity.pointer(REQUIRED_TERMS).and_then(Value::as_array).cloned().unwrap_or_default()
    };
    let (now, before) = (terms(new), terms(known));
    if before.is_empty() {
        return;
    }
    let path = path
        .child("affinity")
        .child("nodeAffinity")
        .child("requiredDuringSchedulingIgnoredDuringExecution")
        .child("nodeSelectorTerms");
    if now.len() != before.len() {
        let why = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        let shown = if now.is_empty() { Value::Null } else { now.iter().map(internal).collect() };
        causes.push(Cause::invalid(&path, shown, why));
        return;
    }
    for (nth, (term, before)) in now.into_iter().zip(&before).enumerate() {
        let only_added = |list: &str| {
            // A term without a requirement matches nothing, and one more would make it match something.
            let (now, before) = (items(&term, list), items(before, list));
            now.len() >= before.len() && now.iter().zip(before).all(|(now, before)| now == before)
        };
        let empty = !is_set(before, "matchExpressions") && !is_set(before, "matchFields");
        if !only_added("matchExpressions") || !only_added("matchFields") || empty && term != *before {
            let why = "only additions are allowed (no mutations or deletions)";
            causes.push(Cause::invalid(&path.index(nth), internal(&term), why));
        }
    }
}

/// A term as upstream shows it: all fields, by their names in Go.
fn internal(term: &Value) -> Value {
    let requirement = |one: &Value| json!({"Key": text(one, "key"), "Operator": text(one, "operator"), "Values": fields::field(one, "values").cloned()});
    let list = |name: &str| {
        let list = fields::field(term, name).and_then(Value::as_array).filter(|list| !list.is_empty());
        list.map(|list| list.iter().map(requirement).collect::<Value>())
    };
    json!({"MatchExpressions": list("matchExpressions"), "MatchFields": list("matchFields")})
}

/// Where a pod may run has been compared already; the other affinities are as fixed as ever.
fn keep_node_affinity(expected: &mut Value, known: &Value) {
    let of = |spec: &Value| spec.pointer("/affinity/nodeAffinity").filter(|affinity| !affinity.is_null()).cloned();
    if of(expected) == of(known) {
        return;
    }
    let mut affinity = expected.get("affinity").cloned().filter(Value::is_object).unwrap_or_else(|| json!({}));
    copy(&mut affinity, known.get("affinity").unwrap_or(&Value::Null), "nodeAffinity");
    let empty = affinity.as_object().is_some_and(coracle_api::json::Map::is_empty);
    if empty && known.get("affinity").is_none() {
        fields::remove(expected, "affinity");
    } else {
        fields::set(expected, "affinity", affinity);
    }
}

/// A change of the ephemeral containers: there are only ever more.
pub fn ephemeral_containers(pod: &Value, old: &Value, causes: &mut Vec<Cause>) {
    pod_annotations::changed(pod, old, causes);
    if meta::annotation(old, MIRROR).is_some() {
        // What the path of nothing is printed as.
        *causes = vec![Cause::forbidden(&FieldPath::new("[]"), "static pods do not support ephemeral containers")];
        return;
    }
    let path = FieldPath::new("spec").child("ephemeralContainers");
    let now = items(&pod["spec"], "ephemeralContainers");
    for known in items(&old["spec"], "ephemeralContainers") {
        let name = text(known, "name");
        let what = match now.iter().find(|other| text(other, "name") == name) {
            None => "removed",
            Some(other) if !alike(other, known) => "changed",
            Some(_) => continue,
        };
        causes.push(Cause::forbidden(&path, format!("existing ephemeral containers {name:?} may not be {what}\n")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(new: Value, known: Value) -> Vec<String> {
        let mut causes = Vec::new();
        spec(&json!({"spec": new}), &json!({"spec": known}), &mut causes);
        causes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_deadline_that_goes_does_not_hide_what_else_changes() {
        assert_eq!(
            told(json!({"hostname": "b"}), json!({"activeDeadlineSeconds": 5, "hostname": "a"})),
            [
                "spec.activeDeadlineSeconds: Invalid value: \"null\": must not update from a positive integer to nil value"
                    .to_owned(),
                format!("spec: Forbidden: {FIXED}"),
            ]
        );
        assert_eq!(
            told(
                json!({"activeDeadlineSeconds": 6, "hostname": "b"}),
                json!({"activeDeadlineSeconds": 5, "hostname": "a"})
            ),
            ["spec.activeDeadlineSeconds: Invalid value: 6: must be less than or equal to previous value"]
        );
    }

    #[test]
    fn gates_only_go() {
        let gates = |names: &[&str]| -> Value { names.iter().map(|name| json!({"name": name})).collect() };
        let spec = |names: &[&str]| json!({"schedulingGates": gates(names)});
        assert!(told(spec(&["a"]), spec(&["a", "b"])).is_empty());
        assert_eq!(
            told(spec(&["c", "a", "c"]), spec(&["a"])),
            ["spec.schedulingGates[2].name: Forbidden: only deletion is allowed, but found new scheduling gate 'c'"]
        );
    }

    #[test]
    fn pods_at_a_gate_are_narrowed_down() {
        let gated = |more: Value| {
            let mut spec = json!({"schedulingGates": [{"name": "a"}]});
            for (name, value) in more.as_object().unwrap() {
                spec[name.as_str()] = value.clone();
            }
            spec
        };
        let terms = |terms: Value| {
            let required = json!({"nodeSelectorTerms": terms});
            gated(json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}}))
        };
        let one = |values: Value| json!([{"matchExpressions": [{"key": "a", "operator": "In", "values": values}]}]);
        let path = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";
        let shown = r#"{"MatchExpressions":[{"Key":"a","Operator":"In","Values":["c"]}],"MatchFields":null}"#;
        let why = "only additions are allowed (no mutations or deletions)";
        assert_eq!(
            told(terms(one(json!(["c"]))), terms(one(json!(["b"])))),
            [format!("{path}[0]: Invalid value: {shown}: {why}")]
        );
        let why = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        assert_eq!(told(gated(json!({})), terms(one(json!(["b"])))), [format!("{path}: Invalid value: null: {why}")]);
        let why = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        assert_eq!(
            told(gated(json!({})), gated(json!({"nodeSelector": {"a": "b"}}))),
            [format!("spec.nodeSelector: Invalid value: null: {why}")]
        );
        assert!(told(terms(one(json!(["b"]))), gated(json!({}))).is_empty());
        assert_eq!(told(gated(json!({"affinity": {}})), gated(json!({}))), [format!("spec: Forbidden: {FIXED}")]);
    }
}
