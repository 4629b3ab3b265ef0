//! Events: one stored resource, served by core/v1 and by events.k8s.io/v1 with other names for the same fields.

use super::fields::{invalid_all, is_set, object_mut, remove, require, same, set, text};
use super::strategy::{Dependents, NameRule, Strategy, Traits};
use crate::cache::Field;
use coracle_api::json::Value;
use coracle_api::status::FieldPath;
use coracle_api::{Cause, meta, validation};

/// core/v1 and events.k8s.io/v1 Event
#[derive(Debug)]
pub struct EventStrategy;

/// An hour (upstream `--event-ttl`).
const TTL: u64 = 3600;

static FIELDS: [Field; 11] = [
    Field::of("involvedObject.kind", &["involvedObject", "kind"], ""),
    Field::of("involvedObject.namespace", &["involvedObject", "namespace"], ""),
    Field::of("involvedObject.name", &["involvedObject", "name"], ""),
    Field::of("involvedObject.uid", &["involvedObject", "uid"], ""),
    Field::of("involvedObject.apiVersion", &["involvedObject", "apiVersion"], ""),
    Field::of("involvedObject.resourceVersion", &["involvedObject", "resourceVersion"], ""),
    Field::of("involvedObject.fieldPath", &["involvedObject", "fieldPath"], ""),
    Field::of("reason", &["reason"], ""),
    Field::of("reportingComponent", &["reportingComponent"], ""),
    Field::either("source", &["source", "component"], "reportingComponent"),
    Field::of("type", &["type"], ""),
];

/// What fields are called in selectors of events.k8s.io, and in the table (events/v1 `AddFieldLabelConversionsForEvent`).
const SELECTED: [(&str, &str); 10] = [
    ("regarding.kind", "involvedObject.kind"),
    ("regarding.namespace", "involvedObject.namespace"),
    ("regarding.name", "involvedObject.name"),
    ("regarding.uid", "involvedObject.uid"),
    ("regarding.apiVersion", "involvedObject.apiVersion"),
    ("regarding.resourceVersion", "involvedObject.resourceVersion"),
    ("regarding.fieldPath", "involvedObject.fieldPath"),
    ("reason", "reason"),
    ("reportingController", "reportingComponent"),
    ("type", "type"),
];

/// (core name, name in events.k8s.io)
const RENAMED: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

impl Strategy for EventStrategy {
    fn traits(&self) -> Traits {
        Traits { create_on_update: true, dependents: Dependents::None, ttl: Some(TTL), ..Traits::DEFAULT }
    }

    fn fields(&self) -> &[Field] {
        &FIELDS
    }

    fn selected<'f>(&self, name: &'f str, served: usize) -> Option<&'f str> {
        if served == 0 {
            return Some(name);
        }
        SELECTED.iter().find(|(new, _)| *new == name).map(|(_, core)| *core)
    }

    fn name_rule(&self) -> NameRule {
        // What can stand in a path: names of events hold what they are about.
        validation::path_segment
    }

    fn wrong_prefix(&self, prefix: &str) -> Vec<String> {
        validation::path_prefix(prefix)
    }

    fn default(&self, event: &mut Value) {
        object_mut(event, "involvedObject");
        object_mut(event, "metadata");
    }

    fn validate(&self, event: &Value, causes: &mut Vec<Cause>) {
        let about = text(&event["involvedObject"], "namespace");
        let namespace = meta::namespace(event);
        let timed = is_set(event, "eventTime");
        // Events about what is in no namespace live in default, those with a time perhaps among the system's.
        let fits = match about {
            "" => namespace == "default" || timed && namespace == "kube-system",
            about => timed || about == namespace,
        };
        if !fits {
            causes.push(Cause::invalid(
                &FieldPath::new("involvedObject.namespace"),
                about,
                "does not match event.namespace",
            ));
        }
    }

    fn validate_served(&self, event: &Value, old: Option<&Value>, served: usize, causes: &mut Vec<Cause>) {
        if is_set(event, "eventTime") {
            reported(event, served, causes);
        }
        match old {
            _ if served == 0 => {}
            None => created(event, causes),
            Some(old) => changed(event, old, causes),
        }
    }

    fn to_served(&self, event: &mut Value, served: usize) {
        if served == 1 {
            rename(event, |(core, new)| (core, new));
        }
    }

    fn to_stored(&self, event: &mut Value, served: usize) {
        if served == 1 {
            rename(event, |(core, new)| (new, core));
            set(event, "apiVersion", "v1");
        }
    }
}

/// The most bytes of what an event with a time says (core `validation/events.go`).
const LONGEST: [(&str, usize); 4] = [("reportingInstance", 128), ("action", 128), ("reason", 128), ("message", 1024)];

/// What an event with a time must say; names are those of the stored version, but for the reporter's.
fn reported(event: &Value, served: usize, causes: &mut Vec<Cause>) {
    let root = FieldPath::default();
    let reporter = text(event, "reportingComponent");
    let path = root.child(if served == 0 { "reportingComponent" } else { "reportingController" });
    if reporter.is_empty() {
        causes.push(Cause::required(&path, ""));
    }
    invalid_all(&path, reporter, validation::qualified_name(reporter), causes);
    for (field, longest) in LONGEST {
        if field != "message" {
            require(event, field, &root, causes);
        }
        if text(event, field).len() > longest {
            let why = format!("can have at most {longest} characters");
            causes.push(Cause::invalid(&root.child(field), "", why));
        }
    }
}

/// What a new event of events.k8s.io must be, and must not say any longer.
fn created(event: &Value, causes: &mut Vec<Cause>) {
    let path = FieldPath::new;
    let name = meta::name(event);
    if !name.is_empty() {
        invalid_all(&path("metadata.name"), name, validation::dns1123_subdomain(name), causes);
    }
    series(event, causes);
    if !is_set(event, "eventTime") {
        causes.push(Cause::required(&path("eventTime"), ""));
    }
    let kind = text(event, "type");
    if !matches!(kind, "Normal" | "Warning") {
        causes.push(Cause::invalid(&path("type"), "", format!("has invalid value: {kind}")));
    }
    let counts = event.get("count").and_then(Value::as_i64).is_some_and(|count| count != 0);
    let source = ["component", "host"].into_iter().any(|field| is_set(&event["source"], field));
    let given = [
        ("firstTimestamp", is_set(event, "firstTimestamp")),
        ("lastTimestamp", is_set(event, "lastTimestamp")),
        ("count", counts),
        ("source", source),
    ];
    for (field, _) in given.into_iter().filter(|(_, given)| *given) {
        causes.push(Cause::invalid(&path(field), "", "needs to be unset"));
    }
}

/// Of an event of events.k8s.io only the series changes.
fn changed(event: &Value, old: &Value, causes: &mut Vec<Cause>) {
    const FIXED: [(&str, &str); 14] = [
        ("involvedObject", "involvedObject"),
        ("reason", "reason"),
        ("message", "message"),
        ("source", "source"),
        ("firstTimestamp", "firstTimestamp"),
        ("lastTimestamp", "lastTimestamp"),
        ("count", "count"),
        ("reason", "reason"),
        ("type", "type"),
        ("eventTime", "eventTime"),
        ("action", "action"),
        ("related", "related"),
        ("reportingComponent", "reportingController"),
        ("reportingInstance", "reportingInstance"),
    ];
    if !same(event, old, "series") {
        series(event, causes);
    }
    for (field, shown) in FIXED.into_iter().filter(|(field, _)| !same(event, old, field)) {
        causes.push(Cause::immutable(&FieldPath::new(shown), internal(event, field)));
    }
}

/// A field as upstream's internal type has it.
fn internal(event: &Value, field: &str) -> Value {
    let value = &event[field];
    let texts = |names: &[(&str, &str)]| -> Value {
        names.iter().map(|(shown, field)| ((*shown).to_owned(), Value::from(text(value, field)))).collect()
    };
    match field {
        "related" if value.is_null() => Value::Null,
        "involvedObject" | "related" => texts(&[
            ("Kind", "kind"),
            ("Namespace", "namespace"),
            ("Name", "name"),
            ("UID", "uid"),
            ("APIVersion", "apiVersion"),
            ("ResourceVersion", "resourceVersion"),
            ("FieldPath", "fieldPath"),
        ]),
        "source" => texts(&[("Component", "component"), ("Host", "host")]),
        "count" if value.is_null() => 0.into(),
        "firstTimestamp" | "lastTimestamp" | "eventTime" => value.clone(),
        _ if value.is_null() => "".into(),
        _ => value.clone(),
    }
}

fn series(event: &Value, causes: &mut Vec<Cause>) {
    let Some(series) = event.get("series").filter(|series| !series.is_null()) else { return };
    if series.get("count").and_then(Value::as_i64).unwrap_or(0) < 2 {
        causes.push(Cause::invalid(&FieldPath::new("series.count"), "", "should be at least 2"));
    }
    if !is_set(series, "lastObservedTime") {
        causes.push(Cause::required(&FieldPath::new("series.lastObservedTime"), ""));
    }
}

fn rename(event: &mut Value, direction: impl Fn((&'static str, &'static str)) -> (&'static str, &'static str)) {
    for (from, to) in RENAMED.into_iter().map(direction) {
        if let Some(value) = remove(event, from) {
            set(event, to, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::json::json;

    #[test]
    fn versions_go_round() {
        let stored = json!({"apiVersion": "v1", "involvedObject": {"kind": "Pod"}, "message": "m", "count": 3, "series": {"count": 2}});
        let mut event = stored.clone();
        EventStrategy.to_served(&mut event, 1);
        assert_eq!(event["regarding"]["kind"], "Pod");
        assert_eq!(event["deprecatedCount"], 3);
        EventStrategy.to_stored(&mut event, 1);
        assert_eq!(event, stored);
    }
}
