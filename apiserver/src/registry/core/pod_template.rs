//! PodTemplates.

use super::{pod_defaults, pod_spec, pod_warnings};
use crate::registry::strategy::{Strategy, Traits};
use coracle_api::Cause;
use coracle_api::json::Value;
use coracle_api::status::FieldPath;

/// core/v1 PodTemplate
#[derive(Debug)]
pub struct PodTemplateStrategy;

impl Strategy for PodTemplateStrategy {
    fn traits(&self) -> Traits {
        Traits { generation: true, ..Traits::DEFAULT }
    }

    fn default(&self, object: &mut Value) {
        pod_defaults::template(object);
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        pod_warnings::of_template(object, old, "/template")
    }

    fn validate(&self, object: &Value, causes: &mut Vec<Cause>) {
        if let Some(template) = object.get("template") {
            pod_spec::template(template, &FieldPath::new("template"), causes);
        }
    }
}
