//! What workloads have in common: a selector, a template whose pods it selects, and counts of them (apps
//! `validation.go`).

use crate::registry::core::{pod_defaults, pod_spec, pod_warnings};
use crate::registry::fields::{self, is_set, non_negative, object_mut, same, text};
use coracle_api::json::{Map, Value};
use coracle_api::status::FieldPath;
use coracle_api::{Cause, meta, validation};

/// Defaults of the template, which is there even when a client says nothing of it: upstream's is no pointer.
pub fn default_template(spec: &mut Value) {
    object_mut(object_mut(spec, "template"), "spec");
    pod_defaults::template(spec);
}

/// A selector that must be there and select something.
pub fn selector(spec: &Value, kind: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    let path = path.child("selector");
    match given(spec) {
        None => causes.push(Cause::required(&path, "")),
        Some(selector) => {
            fields::label_selector(selector, &path, causes);
            not_empty(selector, kind, &path, causes);
        }
    }
}

/// A selector without a requirement would take every pod there is.
pub fn not_empty(selector: &Value, kind: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    if fields::selects_everything(selector) {
        let why = format!("empty selector is invalid for {kind}");
        causes.push(Cause::invalid(path, selector.clone(), why));
    }
}

/// The selector, when there is one.
pub fn given(spec: &Value) -> Option<&Value> {
    spec.get("selector").filter(|selector| !selector.is_null())
}

/// Whether the selector takes pods with these labels; no selector takes none. None when it cannot be read.
pub fn selects(selector: Option<&Value>, labels: Option<&Map>) -> Option<bool> {
    let Some(selector) = selector else { return Some(false) };
    let mut wrong = Vec::new();
    fields::label_selector(selector, &FieldPath::default(), &mut wrong);
    if !wrong.is_empty() {
        return None;
    }
    let read = coracle_api::selector::LabelSelector::from_json(selector).ok()?;
    Some(read.matches(&labels))
}

/// The labels that a template's pods get.
pub fn template_labels(spec: &Value) -> Option<&Map> {
    spec.pointer("/template/metadata/labels").and_then(Value::as_object)
}

/// The template's labels are not what the selector takes.
pub fn mismatch(spec: &Value, path: &FieldPath) -> Cause {
    let found = template_labels(spec).map_or(Value::Null, |labels| Value::Object(labels.clone()));
    let path = path.child("template").child("metadata").child("labels");
    Cause::invalid(&path, found, "`selector` does not match template `labels`")
}

/// A selector that can be read, and pods that it takes; `check` looks at the template itself.
pub fn selected(
    spec: &Value,
    unreadable: &str,
    path: &FieldPath,
    causes: &mut Vec<Cause>,
    check: impl FnOnce(&mut Vec<Cause>),
) {
    match selects(given(spec), template_labels(spec)) {
        None => causes.push(Cause::invalid(&path.child("selector"), spec["selector"].clone(), unreadable)),
        Some(matches) => {
            if !matches {
                causes.push(mismatch(spec, path));
            }
            check(causes);
        }
    }
}

/// The template of a Deployment or ReplicaSet (`ValidatePodTemplateSpecForReplicaSet`).
pub fn replicated(spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    selected(spec, "invalid label selector", path, causes, |causes| {
        pod_spec::template(&spec["template"], &path.child("template"), causes);
        lasting(spec, "ReplicaSet", path, causes);
    });
}

/// Pods of workloads run until they are deleted.
pub fn lasting(spec: &Value, kind: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    let pod = &spec["template"]["spec"];
    let path = path.child("template").child("spec");
    let restart = text(pod, "restartPolicy");
    if restart != "Always" {
        causes.push(Cause::not_supported(&path.child("restartPolicy"), restart, &["Always"]));
    }
    if is_set(pod, "activeDeadlineSeconds") {
        let why = format!("activeDeadlineSeconds in {kind} is not Supported");
        causes.push(Cause::forbidden(&path.child("activeDeadlineSeconds"), why));
    }
}

/// The selector stays what it was. A missing one is told as upstream tells a nil pointer.
pub fn same_selector(object: &Value, old: &Value, causes: &mut Vec<Cause>) {
    if !same(&object["spec"], &old["spec"], "selector") {
        let value = given(&object["spec"]).cloned().unwrap_or_else(|| "null".into());
        causes.push(Cause::immutable(&FieldPath::new("spec.selector"), value));
    }
}

/// A strategy of updates as upstream's messages show it: in the field names of its internal type.
pub fn strategy_value(strategy: &Value, rolling: &[(&str, &str, Value)]) -> Value {
    let update = strategy.get("rollingUpdate").filter(|update| !update.is_null()).map(|update| {
        let field = |(name, go, absent): &(&str, &str, Value)| {
            ((*go).to_owned(), update.get(*name).filter(|value| !value.is_null()).unwrap_or(absent).clone())
        };
        Value::Object(rolling.iter().map(field).collect())
    });
    coracle_api::json::json!({"Type": text(strategy, "type"), "RollingUpdate": update})
}

fn number(status: &Value, field: &str) -> i64 {
    status.get(field).and_then(Value::as_i64).unwrap_or(0)
}

/// Counts of a status, none of which can be negative; some of them can be no more than all replicas.
pub fn counts(status: &Value, all: &[&str], within: &[&str], causes: &mut Vec<Cause>) {
    let path = FieldPath::new("status");
    for field in all {
        non_negative(status, field, &path, causes);
    }
    for field in within.iter().filter(|field| number(status, field) > number(status, "replicas")) {
        let why = "cannot be greater than status.replicas";
        causes.push(Cause::invalid(&path.child(field), number(status, field), why));
    }
}

/// Available pods are ready ones.
pub fn available(status: &Value, why: &str, causes: &mut Vec<Cause>) {
    let available = number(status, "availableReplicas");
    if available > number(status, "readyReplicas") {
        causes.push(Cause::invalid(&FieldPath::new("status.availableReplicas"), available, why));
    }
}

/// Collisions of names are only counted up.
pub fn collisions(status: &Value, old: &Value, causes: &mut Vec<Cause>) {
    let of = |status: &Value| status.get("collisionCount").and_then(Value::as_i64);
    if let Some(known) = of(old)
        && of(status).is_none_or(|count| count < known)
    {
        let path = FieldPath::new("status.collisionCount");
        causes.push(Cause::invalid(&path, of(status).unwrap_or(0), "cannot be decremented"));
    }
}

/// What is told of a workload (`WarningsOnCreate`, `WarningsOnUpdate` of the strategies): of its name, and of its pods.
pub fn warnings(object: &Value, old: Option<&Value>) -> Vec<String> {
    let mut told = name_warnings(object, old);
    told.extend(pod_warnings::of_template(object, old, "/spec/template"));
    told
}

/// What pods and hosts that are named after a new object are told (`WarningsOnCreate` of the strategies).
pub fn name_warnings(object: &Value, old: Option<&Value>) -> Vec<String> {
    let told = validation::dns1123_label(meta::name(object));
    if old.is_some() || told.is_empty() {
        return Vec::new();
    }
    vec![format!(
        "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: [{}]",
        told.join(" ")
    )]
}
