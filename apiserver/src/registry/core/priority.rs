//! PriorityClasses.

use crate::cache::Cacher;
use crate::registry::fields::{one_of, set_default, text};
use crate::registry::strategy::{Strategy, WriteContext};
use coracle_api::status::FieldPath;
use coracle_api::{Cause, Gvr, Status, meta};
use serde_json::Value;

/// scheduling.k8s.io/v1 PriorityClass
#[derive(Debug)]
pub struct PriorityClassStrategy;

/// The highest value that users may give out.
const HIGHEST: i64 = 1_000_000_000;
const SYSTEM: &str = "system-";

impl Strategy for PriorityClassStrategy {
    fn default(&self, class: &mut Value) {
        set_default(class, "preemptionPolicy", "PreemptLowerPriority");
    }

    fn prepare_create(&self, class: &mut Value, _context: &WriteContext) {
        // Nothing but its description can change, so that the first generation is the last.
        meta::set(class, "generation", 1);
    }

    fn validate(&self, class: &Value, causes: &mut Vec<Cause>) {
        let name = meta::name(class);
        let value = class.get("value").and_then(Value::as_i64).unwrap_or(0);
        let known = matches!(
            (name, value),
            ("system-cluster-critical", 2_000_000_000) | ("system-node-critical", 2_000_001_000)
        );
        if name.starts_with(SYSTEM) && !known {
            let why = "priority class names with 'system-' prefix are reserved for system use only. error: only system priority classes are allowed";
            causes.push(Cause::forbidden(&FieldPath::new("metadata.name"), why));
        } else if value > HIGHEST && !known {
            causes.push(Cause::forbidden(
                &FieldPath::new("value"),
                format!("maximum allowed value of a user defined priority is {HIGHEST}"),
            ));
        }
        one_of(class, "preemptionPolicy", &["Never", "PreemptLowerPriority"], &FieldPath::default(), causes);
    }

    fn validate_update(&self, class: &Value, old: &Value, causes: &mut Vec<Cause>) {
        if class.get("value") != old.get("value") {
            causes.push(Cause::forbidden(&FieldPath::new("value"), "may not be changed in an update."));
        }
        if text(class, "preemptionPolicy") != text(old, "preemptionPolicy") {
            causes.push(Cause::immutable(&FieldPath::new("preemptionPolicy"), text(class, "preemptionPolicy")));
        }
    }

    fn check_delete(&self, class: &Value, _cacher: &Cacher) -> Result<(), Status> {
        if meta::name(class).starts_with(SYSTEM) {
            let why = "this is a system priority class and cannot be deleted";
            return Err(Status::forbidden(
                &Gvr::of("scheduling.k8s.io", "v1", "priorityclasses"),
                meta::name(class),
                why,
            ));
        }
        Ok(())
    }
}
