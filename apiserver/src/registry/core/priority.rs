//! PriorityClasses.

use crate::cache::Cacher;
use crate::registry::fields::{one_of, set_default, text};
use crate::registry::strategy::{Strategy, WriteContext};
use coracle_api::json::Value;
use coracle_api::status::FieldPath;
use coracle_api::{Cause, Gvr, Status, meta};

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
        let known = [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];
        if name.starts_with(SYSTEM) {
            let own = known.into_iter().find(|(known, _)| *known == name);
            let global = class.get("globalDefault").and_then(Value::as_bool) == Some(true);
            let why = match own {
                Some((_, wanted)) if value != wanted => format!("value of {name} PriorityClass must be {wanted}"),
                Some(_) if global => format!("globalDefault of {name} PriorityClass must be false"),
                Some(_) => String::new(),
                None => format!("{name} is not a known system priority class"),
            };
            if !why.is_empty() {
                let whole = format!(
                    "priority class names with '{SYSTEM}' prefix are reserved for system use only. error: {why}"
                );
                causes.push(Cause::forbidden(&FieldPath::new("metadata.name"), whole));
            }
        } else if value > HIGHEST {
            causes.push(Cause::forbidden(
                &FieldPath::new("value"),
                format!("maximum allowed value of a user defined priority is {HIGHEST}"),
            ));
        }
        preemption(class, &FieldPath::default(), causes);
    }

    fn validate_update(&self, class: &Value, old: &Value, causes: &mut Vec<Cause>) {
        if class.get("value") != old.get("value") {
            causes.push(Cause::forbidden(&FieldPath::new("value"), "may not be changed in an update."));
        }
        if text(class, "preemptionPolicy") != text(old, "preemptionPolicy") {
            causes.push(Cause::immutable(&FieldPath::new("preemptionPolicy"), text(class, "preemptionPolicy")));
        }
    }

    fn validate_changed(&self, class: &Value, old: &Value, causes: &mut Vec<Cause>) {
        // What was let in stays so: only what must not change is looked at (scheduling `ValidatePriorityClassUpdate`).
        self.validate_update(class, old, causes);
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

/// Whom a pod may take the place of (core `ValidatePreemptionPolicy`).
pub fn preemption(holder: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    match holder.get("preemptionPolicy").and_then(Value::as_str) {
        Some("") => causes.push(Cause::required(&path.child("preemptionPolicy"), "")),
        _ => one_of(holder, "preemptionPolicy", &["PreemptLowerPriority", "Never"], path, causes),
    }
}
