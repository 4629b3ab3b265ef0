//! Events: one stored resource, served by core/v1 and by events.k8s.io/v1 with other names for the same fields.

use super::fields::{object_mut, remove, require, set, text};
use super::strategy::{NameRule, Strategy, Traits};
use crate::cache::Field;
use coracle_api::status::FieldPath;
use coracle_api::{Cause, meta, validation};
use serde_json::Value;

/// core/v1 and events.k8s.io/v1 Event
#[derive(Debug)]
pub struct EventStrategy;

/// An hour (upstream `--event-ttl`).
const TTL: u64 = 3600;

static FIELDS: [Field; 10] = [
    Field::of("involvedObject.kind", &["involvedObject", "kind"], ""),
    Field::of("involvedObject.namespace", &["involvedObject", "namespace"], ""),
    Field::of("involvedObject.name", &["involvedObject", "name"], ""),
    Field::of("involvedObject.uid", &["involvedObject", "uid"], ""),
    Field::of("involvedObject.apiVersion", &["involvedObject", "apiVersion"], ""),
    Field::of("involvedObject.resourceVersion", &["involvedObject", "resourceVersion"], ""),
    Field::of("involvedObject.fieldPath", &["involvedObject", "fieldPath"], ""),
    Field::of("reason", &["reason"], ""),
    Field::of("reportingComponent", &["reportingComponent"], ""),
    Field::of("type", &["type"], ""),
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
        Traits { create_on_update: true, ttl: Some(TTL), ..Traits::DEFAULT }
    }

    fn fields(&self) -> &[Field] {
        &FIELDS
    }

    fn name_rule(&self) -> NameRule {
        // What can stand in a path: names of events hold what they are about.
        validation::path_segment
    }

    fn default(&self, event: &mut Value) {
        object_mut(event, "involvedObject");
        object_mut(event, "metadata");
    }

    fn validate(&self, event: &Value, causes: &mut Vec<Cause>) {
        let about = text(&event["involvedObject"], "namespace");
        let namespace = meta::namespace(event);
        // Events about what is in no namespace live in default.
        let fits = if about.is_empty() { matches!(namespace, "default" | "kube-system") } else { about == namespace };
        if !fits {
            causes.push(Cause::invalid(
                &FieldPath::new("involvedObject.namespace"),
                about,
                "does not match event.namespace",
            ));
        }
        if event.get("eventTime").is_some_and(|time| !time.is_null()) {
            let root = FieldPath::default();
            for field in ["reportingInstance", "action", "reason"] {
                require(event, field, &root, causes);
            }
            if text(event, "reportingComponent").is_empty() {
                causes.push(Cause::required(&FieldPath::new("reportingController"), ""));
            }
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
    use serde_json::json;

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
