//! ResourceQuotas and LimitRanges (core/v1 `defaults.go`, `validation.go`).

use crate::registry::fields::{invalid_all, is_set, items, items_mut, object_mut, quantity, text};
use crate::registry::strategy::Strategy;
use coracle_api::status::FieldPath;
use coracle_api::{Cause, validation};
use serde_json::{Map, Value};
use std::collections::HashSet;

/// v1 ResourceQuota
#[derive(Debug)]
pub struct QuotaStrategy;

const SCOPES: [&str; 7] = [
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];

impl Strategy for QuotaStrategy {
    fn validate(&self, object: &Value, causes: &mut Vec<Cause>) {
        let (spec, path) = (&object["spec"], FieldPath::new("spec"));
        for (name, value) in spec.get("hard").and_then(Value::as_object).into_iter().flatten() {
            let path = path.child("hard").key(name);
            resource_name(name, &path, causes);
            not_negative(value, &path, causes);
        }
        let scopes: Vec<&str> = items(spec, "scopes").iter().filter_map(Value::as_str).collect();
        for scope in scopes.iter().filter(|scope| !SCOPES.contains(*scope)) {
            causes.push(Cause::invalid(&path.child("scopes"), *scope, "unsupported scope"));
        }
        for pair in [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]] {
            if pair.iter().all(|scope| scopes.contains(scope)) {
                let shown: Vec<Value> = scopes.iter().map(|scope| Value::from(*scope)).collect();
                causes.push(Cause::invalid(&path.child("scopes"), shown, "conflicting scopes"));
            }
        }
    }
}

fn resource_name(name: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    invalid_all(path, name, validation::qualified_name(name), causes);
}

fn not_negative(value: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    if value.as_str().is_some_and(|text| text.starts_with('-')) {
        causes.push(Cause::invalid(path, value.clone(), crate::registry::fields::NON_NEGATIVE));
    }
}

/// v1 LimitRange
#[derive(Debug)]
pub struct LimitRangeStrategy;

impl Strategy for LimitRangeStrategy {
    fn default(&self, object: &mut Value) {
        for limit in items_mut(object_mut(object, "spec"), "limits") {
            if text(limit, "type") == "Container" {
                default_container(limit);
            }
        }
    }

    fn validate(&self, object: &Value, causes: &mut Vec<Cause>) {
        let path = FieldPath::new("spec").child("limits");
        let mut types = HashSet::new();
        for (nth, limit) in items(&object["spec"], "limits").iter().enumerate() {
            let (kind, path) = (text(limit, "type"), path.index(nth));
            if !types.insert(kind) {
                causes.push(Cause::duplicate(&path.child("type"), kind));
            }
            invalid_all(&path.child("type"), kind, validation::qualified_name(kind), causes);
            check(limit, &path, causes);
        }
    }
}

/// What a limit says for containers that say nothing: defaults follow from the most and the least.
fn default_container(limit: &mut Value) {
    let of = |limit: &Value, name: &str| limit.get(name).and_then(Value::as_object).cloned().unwrap_or_default();
    let fill = |limit: &mut Value, name: &str, from: Map<String, Value>| {
        for (resource, value) in from {
            let map = object_mut(limit, name);
            if map.get(&resource).is_none() {
                map[resource.as_str()] = value;
            }
        }
    };
    let most = of(limit, "max");
    fill(limit, "default", most);
    let default = of(limit, "default");
    fill(limit, "defaultRequest", default);
    let least = of(limit, "min");
    fill(limit, "defaultRequest", least);
}

fn check(limit: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let kind = text(limit, "type");
    if kind == "Pod" {
        for field in ["default", "defaultRequest"].into_iter().filter(|field| is_set(limit, field)) {
            causes.push(Cause::forbidden(&path.child(field), "may not be specified when `type` is 'Pod'"));
        }
    }
    if kind == "PersistentVolumeClaim" {
        let bounded = ["min", "max"].iter().any(|field| limit.pointer(&format!("/{field}/storage")).is_some());
        if !bounded {
            let why = "either minimum or maximum storage value is required, but neither was provided";
            causes.push(Cause::required(&path.child("limits"), why));
        }
    }
    let mut names: Vec<&String> = ["min", "max", "default", "defaultRequest", "maxLimitRequestRatio"]
        .iter()
        .filter_map(|field| limit.get(*field)?.as_object())
        .flat_map(|map| map.keys())
        .collect();
    names.sort();
    names.dedup();
    for name in names {
        for (below, above) in [
            ("min", "max"),
            ("min", "defaultRequest"),
            ("defaultRequest", "max"),
            ("defaultRequest", "default"),
            ("min", "default"),
            ("default", "max"),
        ] {
            let value = |field: &str| limit.get(field)?.get(name.as_str());
            let (Some(low), Some(high)) = (value(below), value(above)) else { continue };
            if let (Some(a), Some(b)) = (quantity(low), quantity(high))
                && a > b
            {
                let shown = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                let words = |field: &str| match field {
                    "defaultRequest" => "default request".to_owned(),
                    other => other.to_owned(),
                };
                let why = format!(
                    "{} value {} is greater than {} value {}",
                    words(below),
                    shown(low),
                    words(above),
                    shown(high)
                );
                causes.push(Cause::invalid(&path.child(below).key(name), low.clone(), why));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn limits_default_and_contradict() {
        let mut range =
            json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "2"}, "min": {"memory": "1Mi"}}]}});
        LimitRangeStrategy.default(&mut range);
        let limit = &range["spec"]["limits"][0];
        assert_eq!(
            (&limit["default"], &limit["defaultRequest"]),
            (&json!({"cpu": "2"}), &json!({"cpu": "2", "memory": "1Mi"}))
        );
        let mut causes = Vec::new();
        LimitRangeStrategy.validate(&range, &mut causes);
        assert_eq!(causes, []);
        let wrong = json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "1"}, "min": {"cpu": "2"}}]}});
        LimitRangeStrategy.validate(&wrong, &mut causes);
        assert_eq!(
            causes[0].to_string(),
            "spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1"
        );
        causes.clear();
        QuotaStrategy.validate(
            &json!({"spec": {"hard": {"pods": "-1"}, "scopes": ["Terminating", "NotTerminating"]}}),
            &mut causes,
        );
        assert_eq!(causes.len(), 2);
    }
}
