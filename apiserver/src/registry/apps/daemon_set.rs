//! DaemonSets.

use super::{rolling, workload};
use crate::registry::core::{pod_spec, pod_warnings};
use crate::registry::fields::{alike, label_selector, non_negative, object_mut, set, set_default, text};
use crate::registry::strategy::{Strategy, Traits, WriteContext};
use coracle_api::json::{Value, json};
use coracle_api::status::FieldPath;
use coracle_api::{Cause, go, meta};

/// Counts the changes of the template: a field in extensions/v1beta1, an annotation since (apps/v1 `conversion.go`).
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

const COUNTS: [&str; 9] = [
    "currentNumberScheduled",
    "numberMisscheduled",
    "desiredNumberScheduled",
    "numberReady",
    "observedGeneration",
    "updatedNumberScheduled",
    "numberAvailable",
    "numberUnavailable",
    "collisionCount",
];

/// apps/v1 DaemonSet
#[derive(Debug)]
pub struct DaemonSetStrategy;

impl Strategy for DaemonSetStrategy {
    fn traits(&self) -> Traits {
        Traits { generation: true, ..Traits::DEFAULT }
    }

    fn default(&self, object: &mut Value) {
        let spec = object_mut(object, "spec");
        workload::default_template(spec);
        let strategy = object_mut(spec, "updateStrategy");
        set_default(strategy, "type", "RollingUpdate");
        if text(strategy, "type") == "RollingUpdate" {
            let rolling = object_mut(strategy, "rollingUpdate");
            set_default(rolling, "maxUnavailable", 1);
            set_default(rolling, "maxSurge", 0);
        }
        set_default(spec, "revisionHistoryLimit", 10);
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        pod_warnings::of_template(object, old, "/spec/template")
    }

    fn blank_status(&self) -> Value {
        json!({"currentNumberScheduled": 0, "numberMisscheduled": 0, "desiredNumberScheduled": 0, "numberReady": 0})
    }

    fn prepare_create(&self, object: &mut Value, _context: &WriteContext) {
        let generation = template_generation(object).max(1);
        count_template(object, generation);
    }

    fn prepare_update(&self, object: &mut Value, old: &Value, _context: &WriteContext) {
        let known = template_generation(old).max(1);
        let changed = !alike(&object["spec"]["template"], &old["spec"]["template"]);
        count_template(object, known + i64::from(changed));
    }

    fn prepare_status(&self, object: &mut Value, old: &Value, _context: &WriteContext) {
        // It is part of the spec.
        count_template(object, template_generation(old).max(1));
    }

    fn misfit(&self, object: &Value) -> Option<String> {
        go::parse_int(meta::annotation(object, TEMPLATE_GENERATION)?).err()
    }

    fn validate(&self, object: &Value, causes: &mut Vec<Cause>) {
        let (spec, path) = (&object["spec"], FieldPath::new("spec"));
        let selector = workload::given(spec);
        if let Some(selector) = selector {
            label_selector(selector, &path.child("selector"), causes);
        }
        if workload::selects(selector, workload::template_labels(spec)) == Some(false) {
            causes.push(workload::mismatch(spec, &path));
        }
        if let Some(selector) = selector {
            workload::not_empty(selector, "daemonset", &path.child("selector"), causes);
        }
        pod_spec::template(&spec["template"], &path.child("template"), causes);
        workload::lasting(spec, "DaemonSet", &path, causes);
        non_negative(spec, "minReadySeconds", &path, causes);
        strategy(&spec["updateStrategy"], &path.child("updateStrategy"), causes);
        non_negative(spec, "revisionHistoryLimit", &path, causes);
    }

    fn validate_update(&self, object: &Value, old: &Value, causes: &mut Vec<Cause>) {
        workload::same_selector(object, old, causes);
    }

    fn validate_status(&self, object: &Value, old: &Value, causes: &mut Vec<Cause>) {
        workload::counts(&object["status"], &COUNTS, &[], causes);
        workload::collisions(&object["status"], &old["status"], causes);
    }
}

fn template_generation(object: &Value) -> i64 {
    meta::annotation(object, TEMPLATE_GENERATION).and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn count_template(object: &mut Value, generation: i64) {
    let annotations = object_mut(object_mut(object, "metadata"), "annotations");
    set(annotations, TEMPLATE_GENERATION, generation.to_string());
}

fn strategy(strategy: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let update = strategy.get("rollingUpdate").filter(|update| !update.is_null());
    match (text(strategy, "type"), update) {
        ("OnDelete", _) => {}
        ("RollingUpdate", None) => causes.push(Cause::required(&path.child("rollingUpdate"), "")),
        ("RollingUpdate", Some(update)) => {
            let path = path.child("rollingUpdate");
            let (unavailable, surge) = (update.get("maxUnavailable"), update.get("maxSurge"));
            let (at_unavailable, at_surge) = (path.child("maxUnavailable"), path.child("maxSurge"));
            rolling::number(unavailable, &at_unavailable, causes);
            rolling::number(surge, &at_surge, causes);
            rolling::at_most_all(unavailable, &at_unavailable, causes);
            rolling::at_most_all(surge, &at_surge, causes);
            match (rolling::is_zero(unavailable), rolling::is_zero(surge)) {
                (true, true) => causes.push(Cause::required(&at_unavailable, "cannot be 0 when maxSurge is 0")),
                (false, false) => causes.push(Cause::invalid(
                    &at_surge,
                    surge.cloned().unwrap_or(Value::Null),
                    "may not be set when maxUnavailable is non-zero",
                )),
                _ => {}
            }
        }
        _ => {
            let fields = [("maxUnavailable", "MaxUnavailable", 0.into()), ("maxSurge", "MaxSurge", 0.into())];
            let value = workload::strategy_value(strategy, &fields);
            causes.push(Cause::not_supported(path, value, &["RollingUpdate", "OnDelete"]));
        }
    }
}
