//! What an autoscaler measures, and how fast it scales (autoscaling/v2 `defaults.go`, `validation.go`).

use super::core::limits;
use super::fields::{invalid_all, is_set, items, one_of, quantity, require, set_default, text};
use coracle_api::json::{Value, json};
use coracle_api::status::FieldPath;
use coracle_api::{Cause, validation};

/// Sources of metrics: the type, and the field that it is in; the first that is there is looked at.
const SOURCES: [(&str, &str); 5] = [
    ("Object", "object"),
    ("External", "external"),
    ("Pods", "pods"),
    ("Resource", "resource"),
    ("ContainerResource", "containerResource"),
];
const KINDS: [&str; 5] = ["ContainerResource", "External", "Object", "Pods", "Resource"];
const WINDOW_MAX: i64 = 3600;
const PERIOD_MAX: i64 = 1800;

/// Fills in the rules of a behaviour that is there.
pub fn default_behavior(spec: &mut Value) {
    let Some(behavior) = spec.get_mut("behavior").filter(|behavior| behavior.is_object()) else { return };
    let percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
    let pods = json!({"type": "Pods", "value": 4, "periodSeconds": 15});
    for (way, policies) in [("scaleUp", json!([pods, percent])), ("scaleDown", json!([percent]))] {
        let rules = super::fields::object_mut(behavior, way);
        if way == "scaleUp" {
            set_default(rules, "stabilizationWindowSeconds", 0);
        }
        set_default(rules, "selectPolicy", "Max");
        set_default(rules, "policies", policies);
    }
}

/// The object that is scaled (`ValidateCrossVersionObjectReference`). `old` is what was there: its API version may stay as it was.
pub fn target_reference(target: &Value, old: Option<&Value>, path: &FieldPath, causes: &mut Vec<Cause>) {
    let version = text(target, "apiVersion");
    let is_old =
        old.is_some_and(|old| ["apiVersion", "kind"].iter().all(|field| text(old, field) == text(target, field)));
    reference(target, is_old, path, causes);
    if !is_old && !version.contains('/') && text(target, "kind") != "ReplicationController" {
        causes.push(Cause::invalid(&path.child("apiVersion"), version, "apiVersion must specify API group"));
    }
}

/// An object. What was wrong about its API version before may stay so.
fn reference(target: &Value, may_be_malformed: bool, path: &FieldPath, causes: &mut Vec<Cause>) {
    for field in ["kind", "name"] {
        if require(target, field, path, causes) {
            let value = text(target, field);
            invalid_all(&path.child(field), value, validation::path_segment(value), causes);
        }
    }
    let version = text(target, "apiVersion");
    if !may_be_malformed && is_malformed(target) {
        let why = format!("unexpected GroupVersion string: {version}");
        causes.push(Cause::invalid(&path.child("apiVersion"), version, why));
    }
}

fn is_malformed(target: &Value) -> bool {
    text(target, "apiVersion").matches('/').count() > 1
}

pub fn validate(spec: &Value, old: Option<&Value>, path: &FieldPath, causes: &mut Vec<Cause>) {
    let metrics = items(spec, "metrics");
    let before = old.map_or(&[][..], |old| items(old, "metrics"));
    let may_be_malformed = before.iter().any(|metric| is_malformed(&metric["object"]["describedObject"]));
    for (nth, one) in metrics.iter().enumerate() {
        metric(one, may_be_malformed, &path.child("metrics").index(nth), causes);
    }
    let from_zero = spec.get("minReplicas").and_then(Value::as_i64) == Some(0);
    if from_zero && !metrics.iter().any(|metric| matches!(text(metric, "type"), "Object" | "External")) {
        let why = "must specify at least one Object or External metric to support scaling to zero replicas";
        causes.push(Cause::forbidden(&path.child("metrics"), why));
    }
    for way in ["scaleUp", "scaleDown"] {
        if let Some(rules) = spec.pointer(&format!("/behavior/{way}")).filter(|rules| rules.is_object()) {
            self::rules(rules, &path.child("behavior").child(way), causes);
        }
    }
}

fn metric(metric: &Value, may_be_malformed: bool, path: &FieldPath, causes: &mut Vec<Cause>) {
    let kind = text(metric, "type");
    let known = SOURCES.iter().find(|(known, _)| *known == kind);
    if kind.is_empty() {
        causes.push(Cause::required(&path.child("type"), "must specify a metric source type"));
    }
    if known.is_none() {
        causes.push(Cause::not_supported(&path.child("type"), kind, &KINDS));
    }
    let present = || SOURCES.iter().filter(|(_, field)| is_set(metric, field));
    if let Some((_, field)) = known
        && !is_set(metric, field)
    {
        let why = "must populate information for the given metric source";
        causes.push(Cause::required(&path.child(field), why));
    }
    if let Some((kind, field)) = present().next() {
        source(kind, &metric[*field], may_be_malformed, &path.child(field), causes);
    }
    for (_, field) in present().filter(|found| Some(*found) != known) {
        causes.push(Cause::forbidden(&path.child(field), "must populate the given metric source only"));
    }
}

fn source(kind: &str, source: &Value, may_be_malformed: bool, path: &FieldPath, causes: &mut Vec<Cause>) {
    let target = &source["target"];
    let has = |field: &str| is_set(target, field);
    let at = |field: &str| path.child("target").child(field);
    if kind == "Object" {
        reference(&source["describedObject"], may_be_malformed, &path.child("describedObject"), causes);
    }
    match kind {
        "Resource" | "ContainerResource" => {
            let (name, container) = (text(source, "name"), text(source, "container"));
            if name.is_empty() {
                causes.push(Cause::required(&path.child("name"), "must specify a resource name"));
            } else if kind == "ContainerResource" {
                limits::container_resource(name, &path.child("name"), causes);
            }
            if kind == "ContainerResource" && container.is_empty() {
                causes.push(Cause::required(&path.child("container"), "must specify a container"));
            } else if kind == "ContainerResource" {
                invalid_all(&path.child("container"), container, validation::dns1123_label(container), causes);
            }
        }
        _ => match text(&source["metric"], "name") {
            "" => causes.push(Cause::required(&path.child("metric").child("name"), "must specify a metric name")),
            name => {
                let path = path.child("metric").child("name");
                invalid_all(&path, name, validation::path_segment(name), causes);
            }
        },
    }
    self::target(target, &path.child("target"), causes);
    match kind {
        "Resource" | "ContainerResource" => match (has("averageUtilization"), has("averageValue")) {
            (false, false) => {
                let why = "must set either a target raw value or a target utilization";
                causes.push(Cause::required(&at("averageUtilization"), why));
            }
            (true, true) => {
                let why = "may not set both a target raw value and a target utilization";
                causes.push(Cause::forbidden(&at("averageValue"), why));
            }
            _ => {}
        },
        "Pods" => {
            if !has("averageValue") {
                causes.push(Cause::required(&at("averageValue"), "must specify a positive target averageValue"));
            }
        }
        _ => {
            if !has("value") && !has("averageValue") {
                let why = match kind {
                    "Object" => "must set either a target value or averageValue",
                    _ => "must set either a target value for metric or a per-pod target",
                };
                causes.push(Cause::required(&at("averageValue"), why));
            }
            if kind == "External" && has("value") && has("averageValue") {
                let why = "may not set both a target value for metric and a per-pod target";
                causes.push(Cause::forbidden(&at("value"), why));
            }
        }
    }
}

fn target(target: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let kind = text(target, "type");
    if kind.is_empty() {
        causes.push(Cause::required(&path.child("type"), "must specify a metric target type"));
    }
    if !matches!(kind, "Utilization" | "Value" | "AverageValue") {
        let why = "must be either Utilization, Value, or AverageValue";
        causes.push(Cause::invalid(&path.child("type"), kind, why));
    }
    for field in ["value", "averageValue"] {
        if let Some(value) = target.get(field).and_then(quantity)
            && (value.is_zero() || value.is_negative())
        {
            causes.push(Cause::invalid(&path.child(field), value.to_string(), "must be positive"));
        }
    }
    if let Some(percent) = target.get("averageUtilization").and_then(Value::as_i64)
        && percent < 1
    {
        causes.push(Cause::invalid(&path.child("averageUtilization"), percent, "must be greater than 0"));
    }
}

fn rules(rules: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    if let Some(seconds) = rules.get("stabilizationWindowSeconds").and_then(Value::as_i64) {
        let path = path.child("stabilizationWindowSeconds");
        if seconds < 0 {
            causes.push(Cause::invalid(&path, seconds, "must be greater than or equal to zero"));
        } else if seconds > WINDOW_MAX {
            causes.push(Cause::invalid(&path, seconds, format!("must be less than or equal to {WINDOW_MAX}")));
        }
    }
    one_of(rules, "selectPolicy", &["Disabled", "Max", "Min"], path, causes);
    if items(rules, "policies").is_empty() {
        causes.push(Cause::required(&path.child("policies"), "must specify at least one Policy"));
    }
    for (nth, policy) in items(rules, "policies").iter().enumerate() {
        let path = path.child("policies").index(nth);
        let number = |field: &str| policy.get(field).and_then(Value::as_i64).unwrap_or(0);
        if !matches!(text(policy, "type"), "Percent" | "Pods") {
            causes.push(Cause::not_supported(&path.child("type"), text(policy, "type"), &["Percent", "Pods"]));
        }
        for field in ["value", "periodSeconds"].into_iter().filter(|field| number(field) <= 0) {
            causes.push(Cause::invalid(&path.child(field), number(field), "must be greater than zero"));
        }
        if number("periodSeconds") > PERIOD_MAX {
            let why = format!("must be less than or equal to {PERIOD_MAX}");
            causes.push(Cause::invalid(&path.child("periodSeconds"), number("periodSeconds"), why));
        }
    }
    if let Some(tolerance) = rules.get("tolerance").and_then(quantity)
        && tolerance.is_negative()
    {
        causes.push(Cause::invalid(&path.child("tolerance"), tolerance.to_string(), super::fields::NON_NEGATIVE));
    }
}
