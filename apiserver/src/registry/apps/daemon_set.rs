//! DaemonSets.

use super::rolling;
use crate::registry::core::{pod_defaults, pod_spec};
use crate::registry::fields::{non_negative, object_mut, one_of, same, set_default, text};
use crate::registry::strategy::{Strategy, Traits, WriteContext};
use coracle_api::Cause;
use coracle_api::status::FieldPath;
use serde_json::{Value, json};

/// apps/v1 DaemonSet
#[derive(Debug)]
pub struct DaemonSetStrategy;

impl Strategy for DaemonSetStrategy {
    fn traits(&self) -> Traits {
        Traits { generation: true, ..Traits::DEFAULT }
    }

    fn default(&self, object: &mut Value) {
        let spec = object_mut(object, "spec");
        pod_defaults::template(spec);
        let strategy = object_mut(spec, "updateStrategy");
        set_default(strategy, "type", "RollingUpdate");
        if text(strategy, "type") == "RollingUpdate" {
            let rolling = object_mut(strategy, "rollingUpdate");
            set_default(rolling, "maxUnavailable", 1);
            set_default(rolling, "maxSurge", 0);
        }
        set_default(spec, "revisionHistoryLimit", 10);
    }

    fn prepare_create(&self, object: &mut Value, _context: &WriteContext) {
        object["status"] = json!({"currentNumberScheduled": 0, "numberMisscheduled": 0, "desiredNumberScheduled": 0, "numberReady": 0});
    }

    fn validate(&self, object: &Value, causes: &mut Vec<Cause>) {
        let (spec, path) = (&object["spec"], FieldPath::new("spec"));
        pod_spec::workload(spec, "daemon set", &path, causes);
        non_negative(spec, "revisionHistoryLimit", &path, causes);
        let (strategy, path) = (&spec["updateStrategy"], path.child("updateStrategy"));
        one_of(strategy, "type", &["OnDelete", "RollingUpdate"], &path, causes);
        if let Some(update) = strategy.get("rollingUpdate").filter(|update| !update.is_null()) {
            let path = path.child("rollingUpdate");
            let (unavailable, surge) = (update.get("maxUnavailable"), update.get("maxSurge"));
            rolling::validate(unavailable, true, &path.child("maxUnavailable"), causes);
            rolling::validate(surge, true, &path.child("maxSurge"), causes);
            match (rolling::is_zero(unavailable), rolling::is_zero(surge)) {
                (true, true) => {
                    causes.push(Cause::required(&path.child("maxUnavailable"), "cannot be 0 when maxSurge is 0"))
                }
                (false, false) => causes.push(Cause::invalid(
                    &path.child("maxSurge"),
                    surge.cloned().unwrap_or(Value::Null),
                    "may not be set when maxUnavailable is non-zero",
                )),
                _ => {}
            }
        }
    }

    fn validate_update(&self, object: &Value, old: &Value, causes: &mut Vec<Cause>) {
        if !same(&object["spec"], &old["spec"], "selector") {
            causes.push(Cause::immutable(&FieldPath::new("spec.selector"), object["spec"]["selector"].clone()));
        }
    }
}
