//! ReplicaSets.

use crate::cache::Field;
use crate::registry::core::{pod_defaults, pod_spec};
use crate::registry::fields::{non_negative, object_mut, same, set_default};
use crate::registry::strategy::{ScalePaths, Strategy, Traits, WriteContext};
use coracle_api::Cause;
use coracle_api::status::FieldPath;
use serde_json::{Value, json};

/// apps/v1 ReplicaSet
#[derive(Debug)]
pub struct ReplicaSetStrategy;

static FIELDS: [Field; 1] = [Field::of("status.replicas", &["status", "replicas"], "0")];

impl Strategy for ReplicaSetStrategy {
    fn traits(&self) -> Traits {
        Traits { generation: true, ..Traits::DEFAULT }
    }

    fn fields(&self) -> &[Field] {
        &FIELDS
    }

    fn default(&self, object: &mut Value) {
        let spec = object_mut(object, "spec");
        pod_defaults::template(spec);
        set_default(spec, "replicas", 1);
    }

    fn prepare_create(&self, object: &mut Value, _context: &WriteContext) {
        object["status"] = json!({"replicas": 0});
    }

    fn validate(&self, object: &Value, causes: &mut Vec<Cause>) {
        pod_spec::workload(&object["spec"], "ReplicaSet", &FieldPath::new("spec"), causes);
    }

    fn validate_update(&self, object: &Value, old: &Value, causes: &mut Vec<Cause>) {
        if !same(&object["spec"], &old["spec"], "selector") {
            causes.push(Cause::immutable(&FieldPath::new("spec.selector"), object["spec"]["selector"].clone()));
        }
    }

    fn validate_status(&self, object: &Value, _old: &Value, causes: &mut Vec<Cause>) {
        status(&object["status"], causes);
    }

    fn scale(&self) -> Option<ScalePaths<'_>> {
        Some(ScalePaths { structured_selector: true, custom: None })
    }
}

/// Counts of replicas, none of which can be more than all.
pub(super) fn status(status: &Value, causes: &mut Vec<Cause>) {
    let path = FieldPath::new("status");
    let number = |field: &str| status.get(field).and_then(Value::as_i64).unwrap_or(0);
    for field in [
        "replicas",
        "readyReplicas",
        "availableReplicas",
        "fullyLabeledReplicas",
        "updatedReplicas",
        "observedGeneration",
    ] {
        non_negative(status, field, &path, causes);
    }
    for field in ["fullyLabeledReplicas", "readyReplicas", "availableReplicas", "updatedReplicas"] {
        if number(field) > number("replicas") {
            causes.push(Cause::invalid(&path.child(field), number(field), "cannot be greater than status.replicas"));
        }
    }
    if number("availableReplicas") > number("readyReplicas") {
        causes.push(Cause::invalid(
            &path.child("availableReplicas"),
            number("availableReplicas"),
            "cannot be greater than readyReplicas",
        ));
    }
}
