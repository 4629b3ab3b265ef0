//! ReplicaSets.

use super::workload;
use crate::cache::Field;
use crate::registry::fields::{non_negative, object_mut, set_default};
use crate::registry::strategy::{ScalePaths, Strategy, Traits};
use coracle_api::Cause;
use coracle_api::json::{Value, json};
use coracle_api::status::FieldPath;

/// apps/v1 ReplicaSet
#[derive(Debug)]
pub struct ReplicaSetStrategy;

const COUNTS: [&str; 6] = [
    "replicas",
    "fullyLabeledReplicas",
    "readyReplicas",
    "availableReplicas",
    "observedGeneration",
    "terminatingReplicas",
];

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
        workload::default_template(spec);
        set_default(spec, "replicas", 1);
    }

    fn blank_status(&self) -> Value {
        json!({"replicas": 0})
    }

    fn validate(&self, object: &Value, causes: &mut Vec<Cause>) {
        let (spec, path) = (&object["spec"], FieldPath::new("spec"));
        non_negative(spec, "replicas", &path, causes);
        non_negative(spec, "minReadySeconds", &path, causes);
        // Upstream's words are those of a Deployment.
        workload::selector(spec, "deployment", &path, causes);
        workload::replicated(spec, &path, causes);
    }

    fn validate_update(&self, object: &Value, old: &Value, causes: &mut Vec<Cause>) {
        workload::same_selector(object, old, causes);
    }

    fn validate_status(&self, object: &Value, _old: &Value, causes: &mut Vec<Cause>) {
        let status = &object["status"];
        let within = ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];
        workload::counts(status, &COUNTS, &within, causes);
        workload::available(status, "cannot be greater than readyReplicas", causes);
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        workload::warnings(object, old)
    }

    fn scale(&self) -> Option<ScalePaths<'_>> {
        Some(ScalePaths { structured_selector: true, custom: None })
    }
}
