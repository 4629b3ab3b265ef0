//! ReplicationControllers.

use super::{pod_defaults, pod_spec};
use crate::cache::Field;
use crate::registry::apps::workload;
use crate::registry::fields::{is_set, non_negative, object_mut, set, set_default, text};
use crate::registry::strategy::{Dependents, ScalePaths, Strategy, Traits};
use coracle_api::Cause;
use coracle_api::json::{Value, json};
use coracle_api::status::FieldPath;

/// core/v1 ReplicationController
#[derive(Debug)]
pub struct ReplicationControllerStrategy;

const COUNTS: [&str; 5] =
    ["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "observedGeneration"];

static FIELDS: [Field; 1] = [Field::of("status.replicas", &["status", "replicas"], "0")];

impl Strategy for ReplicationControllerStrategy {
    fn traits(&self) -> Traits {
        Traits { generation: true, dependents: Dependents::Orphaned, ..Traits::DEFAULT }
    }

    fn fields(&self) -> &[Field] {
        &FIELDS
    }

    fn wrong_prefix(&self, _prefix: &str) -> Vec<String> {
        // Upstream's declared rules, which took over the name's, know of no beginnings.
        Vec::new()
    }

    fn default(&self, object: &mut Value) {
        pod_defaults::template(object_mut(object, "spec"));
        // Labels and selector come from the template where they are left out.
        let from = object.pointer("/spec/template/metadata/labels").filter(|labels| labels.is_object()).cloned();
        if let Some(from) = from {
            if !is_set(&object["spec"], "selector") {
                set(&mut object["spec"], "selector", from.clone());
            }
            if object
                .pointer("/metadata/labels")
                .is_none_or(|labels| labels.as_object().is_none_or(coracle_api::json::Map::is_empty))
            {
                coracle_api::meta::set(object, "labels", from);
            }
        }
        set_default(&mut object["spec"], "replicas", 1);
    }

    fn blank_status(&self) -> Value {
        json!({"replicas": 0})
    }

    fn validate(&self, object: &Value, causes: &mut Vec<Cause>) {
        let (spec, path) = (&object["spec"], FieldPath::new("spec"));
        non_negative(spec, "minReadySeconds", &path, causes);
        let selector = spec.get("selector").and_then(Value::as_object).filter(|selector| !selector.is_empty());
        if selector.is_none() {
            causes.push(Cause::required(&path.child("selector"), ""));
        }
        non_negative(spec, "replicas", &path, causes);
        let Some(template) = spec.get("template") else {
            causes.push(Cause::required(&path.child("template"), ""));
            return;
        };
        let path = path.child("template");
        let found = template.pointer("/metadata/labels").cloned().unwrap_or(Value::Null);
        if selector.is_some_and(|selector| selector.iter().any(|(key, value)| found.get(key) != Some(value))) {
            causes.push(Cause::invalid(
                &path.child("metadata").child("labels"),
                found,
                "`selector` does not match template `labels`",
            ));
        }
        pod_spec::template(template, &path, causes);
        let restart = text(&template["spec"], "restartPolicy");
        let path = path.child("spec");
        if restart != "Always" {
            causes.push(Cause::not_supported(&path.child("restartPolicy"), restart, &["Always"]));
        }
        if template["spec"].get("activeDeadlineSeconds").is_some_and(|seconds| !seconds.is_null()) {
            let why = "activeDeadlineSeconds in ReplicationController is not Supported";
            causes.push(Cause::forbidden(&path.child("activeDeadlineSeconds"), why));
        }
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        workload::warnings(object, old)
    }

    fn validate_status(&self, object: &Value, _old: &Value, causes: &mut Vec<Cause>) {
        let within = ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];
        workload::counts(&object["status"], &COUNTS, &within, causes);
        workload::available(&object["status"], "cannot be greater than readyReplicas", causes);
    }

    fn scale(&self) -> Option<ScalePaths<'_>> {
        Some(ScalePaths { structured_selector: false, custom: None })
    }
}
