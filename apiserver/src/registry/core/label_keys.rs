//! Keys of labels that pods have in common or apart, beside a selector of pods (core
//! `validateMatchLabelKeysAndMismatchLabelKeys`).

use crate::registry::fields::{below_mut, field, field_mut, invalid_all, items, items_mut, set, text};
use coracle_api::json::{Value, json};
use coracle_api::status::FieldPath;
use coracle_api::{Cause, validation};
use std::collections::{HashMap, HashSet};

const MATCH: &str = "matchLabelKeys";
const MISMATCH: &str = "mismatchLabelKeys";
const TWICE: &str = "exists in both matchLabelKeys and labelSelector";

fn selector(term: &Value) -> Option<&Value> {
    field(term, "labelSelector").filter(|selector| !selector.is_null())
}

/// The keys of a term of a pod's affinity, or of a constraint of its spread.
pub fn validate(term: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let (wanted, unwanted) = (items(term, MATCH), items(term, MISMATCH));
    if wanted.is_empty() && unwanted.is_empty() {
        return;
    }
    names(wanted, selector(term), &path.child(MATCH), causes);
    names(unwanted, selector(term), &path.child(MISMATCH), causes);
    for (nth, key) in repeated(term) {
        // The place is upstream's.
        causes.push(Cause::invalid(&path.index(nth), key, TWICE));
    }
    let unwanted: HashSet<&str> = unwanted.iter().filter_map(Value::as_str).collect();
    for (nth, key) in wanted.iter().filter_map(Value::as_str).enumerate().filter(|(_, key)| unwanted.contains(key)) {
        let why = "exists in both matchLabelKeys and mismatchLabelKeys";
        causes.push(Cause::invalid(&path.child(MATCH).index(nth), key, why));
    }
}

fn names(keys: &[Value], selector: Option<&Value>, path: &FieldPath, causes: &mut Vec<Cause>) {
    if keys.is_empty() {
        return;
    }
    if selector.is_none() {
        causes.push(Cause::forbidden(path, "must not be specified when labelSelector is not set"));
        return;
    }
    for (nth, key) in keys.iter().filter_map(Value::as_str).enumerate() {
        invalid_all(&path.index(nth), key, validation::qualified_name(key), causes);
    }
}

/// Keys that the selector asks for, with their place, and asks for again: once is what was made of the key itself (see `merge`).
fn repeated(term: &Value) -> Vec<(usize, &str)> {
    let Some(selector) = selector(term).filter(|_| !items(term, MATCH).is_empty()) else { return Vec::new() };
    // Of a key that is there twice, the last place counts.
    let places: HashMap<&str, usize> =
        items(term, MATCH).iter().filter_map(Value::as_str).enumerate().map(|(nth, key)| (key, nth)).collect();
    let labels = field(selector, "matchLabels").and_then(Value::as_object);
    let mut asked: HashSet<&str> = labels.into_iter().flatten().map(|(key, _)| key.as_str()).collect();
    let again = items(selector, "matchExpressions").iter().map(|expression| text(expression, "key"));
    again.filter(|key| !asked.insert(key)).filter_map(|key| Some((*places.get(key)?, key))).collect()
}

/// The keys of a constraint of a pod's spread. What a pod had before v1.34 is judged as it was then.
pub fn of_spread(constraint: &Value, as_before: bool, path: &FieldPath, causes: &mut Vec<Cause>) {
    if !as_before {
        validate(constraint, path, causes);
        return;
    }
    let (path, keys) = (path.child(MATCH), items(constraint, MATCH));
    let Some(selector) = selector(constraint) else {
        names(keys, None, &path, causes);
        return;
    };
    let labels = field(selector, "matchLabels");
    let asked: HashSet<&str> =
        items(selector, "matchExpressions").iter().map(|expression| text(expression, "key")).collect();
    for (nth, key) in keys.iter().filter_map(Value::as_str).enumerate() {
        invalid_all(&path.index(nth), key, validation::qualified_name(key), causes);
        if asked.contains(key) || labels.is_some_and(|labels| field(labels, key).is_some()) {
            causes.push(Cause::invalid(&path.index(nth), key, TWICE));
        }
    }
}

/// Whether a spec spreads its pods by keys that would be refused today.
pub fn spreads_as_before(spec: &Value) -> bool {
    let mut causes = Vec::new();
    for constraint in items(spec, "topologySpreadConstraints") {
        validate(constraint, &FieldPath::default(), &mut causes);
    }
    !causes.is_empty()
}

/// Makes requirements of a new pod's keys, with the values that the pod's own labels have (core/pod `mutatePodAffinity`,
/// `mutateTopologySpreadConstraints`): a label that changes later changes nothing.
pub fn merge(pod: &mut Value) {
    let Some(spec) = field(pod, "spec") else { return };
    let affinity = field(spec, "affinity").is_some_and(Value::is_object);
    if !affinity && items(spec, "topologySpreadConstraints").is_empty() {
        return;
    }
    let labels = pod.pointer("/metadata/labels").cloned().unwrap_or_default();
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(pods) = below_mut(pod, &["spec", "affinity", kind]) else { continue };
        for term in items_mut(pods, "preferredDuringSchedulingIgnoredDuringExecution") {
            if let Some(term) = field_mut(term, "podAffinityTerm") {
                ask(term, &labels);
            }
        }
        items_mut(pods, "requiredDuringSchedulingIgnoredDuringExecution").for_each(|term| ask(term, &labels));
    }
    if let Some(spec) = field_mut(pod, "spec") {
        for constraint in items_mut(spec, "topologySpreadConstraints") {
            ask(constraint, &labels);
        }
    }
}

fn ask(term: &mut Value, labels: &Value) {
    let mut more = Vec::new();
    for (list, operator) in [(MATCH, "In"), (MISMATCH, "NotIn")] {
        for key in items(term, list).iter().filter_map(Value::as_str) {
            if let Some(value) = field(labels, key) {
                more.push(json!({"key": key, "operator": operator, "values": [value]}));
            }
        }
    }
    let Some(selector) = field_mut(term, "labelSelector").filter(|selector| selector.is_object()) else { return };
    if more.is_empty() {
        return;
    }
    match field_mut(selector, "matchExpressions").and_then(Value::as_array_mut) {
        Some(known) => known.extend(more),
        None => set(selector, "matchExpressions", more),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(term: Value, check: impl Fn(&Value, &FieldPath, &mut Vec<Cause>)) -> Vec<String> {
        let mut causes = Vec::new();
        check(&term, &FieldPath::new("t"), &mut causes);
        causes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn keys_stand_beside_a_selector_and_not_in_it_too() {
        let unset = "must not be specified when labelSelector is not set";
        assert_eq!(
            told(json!({"matchLabelKeys": ["a b"], "mismatchLabelKeys": ["c"]}), validate),
            [format!("t.matchLabelKeys: Forbidden: {unset}"), format!("t.mismatchLabelKeys: Forbidden: {unset}")]
        );
        let selector = json!({"matchLabels": {"a": "1"}, "matchExpressions": [{"key": "b", "operator": "Exists"}]});
        let of = |wanted: Value, unwanted: Value| json!({"matchLabelKeys": wanted, "mismatchLabelKeys": unwanted, "labelSelector": selector});
        assert!(told(of(json!(["a", "b"]), json!(["c"])), validate).is_empty(), "asked for once");
        assert_eq!(
            told(of(json!(["c", "d"]), json!(["d"])), validate),
            ["t.matchLabelKeys[1]: Invalid value: \"d\": exists in both matchLabelKeys and mismatchLabelKeys"]
        );
        let twice = json!({"matchLabels": {"a": "1"}, "matchExpressions": [{"key": "a"}, {"key": "b"}, {"key": "b"}, {"key": "c"}, {"key": "c"}]});
        assert_eq!(
            told(json!({"matchLabelKeys": ["b", "a"], "labelSelector": twice}), validate),
            [format!("t[1]: Invalid value: \"a\": {TWICE}"), format!("t[0]: Invalid value: \"b\": {TWICE}")]
        );
        let wrong = told(of(json!(["-"]), json!(["/"])), validate);
        assert!(wrong[0].starts_with("t.matchLabelKeys[0]: Invalid value: \"-\""), "{wrong:?}");
        assert!(wrong[1].starts_with("t.mismatchLabelKeys[0]: Invalid value: \"/\""), "{wrong:?}");
    }

    #[test]
    fn pods_that_were_let_in_before_stay_so() {
        let spread = json!({"matchLabelKeys": ["a"], "labelSelector": {"matchLabels": {"a": "1"}}});
        assert!(told(spread.clone(), |term, path, causes| of_spread(term, false, path, causes)).is_empty());
        assert_eq!(
            told(spread, |term, path, causes| of_spread(term, true, path, causes)),
            [format!("t.matchLabelKeys[0]: Invalid value: \"a\": {TWICE}")]
        );
        let repeats =
            json!({"matchLabelKeys": ["a"], "labelSelector": {"matchExpressions": [{"key": "a"}, {"key": "a"}]}});
        assert!(spreads_as_before(&json!({"topologySpreadConstraints": [repeats]})));
        assert!(!spreads_as_before(&json!({"topologySpreadConstraints": [{}]})));
    }

    #[test]
    fn a_new_pod_asks_for_the_values_that_it_has_itself() {
        let keys = |selector: Value| json!({"matchLabelKeys": ["a", "none"], "mismatchLabelKeys": ["b"], "labelSelector": selector});
        let required = "requiredDuringSchedulingIgnoredDuringExecution";
        let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
        let mut pod = json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {
            "affinity": {"podAffinity": {required: [keys(json!({}))], preferred: [{"podAffinityTerm": keys(json!({"matchExpressions": [{"key": "x"}]}))}]},
                "podAntiAffinity": {required: [keys(Value::Null)]}},
            "topologySpreadConstraints": [{"matchLabelKeys": ["a"], "labelSelector": {"matchLabels": {"c": "3"}}}, {"matchLabelKeys": ["a"]}]}});
        merge(&mut pod);
        let is = json!({"key": "a", "operator": "In", "values": ["1"]});
        let is_not = json!({"key": "b", "operator": "NotIn", "values": ["2"]});
        let affinity = &pod["spec"]["affinity"];
        assert_eq!(affinity["podAffinity"][required][0]["labelSelector"]["matchExpressions"], json!([is, is_not]));
        let term = &affinity["podAffinity"][preferred][0]["podAffinityTerm"];
        assert_eq!(term["labelSelector"]["matchExpressions"], json!([{"key": "x"}, is, is_not]));
        assert!(affinity["podAntiAffinity"][required][0]["labelSelector"].is_null());
        let spread = &pod["spec"]["topologySpreadConstraints"];
        assert_eq!(spread[0]["labelSelector"], json!({"matchLabels": {"c": "3"}, "matchExpressions": [is]}));
        assert_eq!(spread[1], json!({"matchLabelKeys": ["a"]}));
    }
}
