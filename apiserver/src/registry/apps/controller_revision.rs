//! ControllerRevisions.

use crate::registry::fields::same;
use crate::registry::strategy::Strategy;
use coracle_api::Cause;
use coracle_api::json::Value;
use coracle_api::status::FieldPath;

/// apps/v1 ControllerRevision
#[derive(Debug)]
pub struct ControllerRevisionStrategy;

impl Strategy for ControllerRevisionStrategy {
    fn validate(&self, object: &Value, causes: &mut Vec<Cause>) {
        if object.get("revision").and_then(Value::as_i64).unwrap_or(0) < 0 {
            causes.push(Cause::invalid(
                &FieldPath::new("revision"),
                object["revision"].clone(),
                "must be greater than or equal to 0",
            ));
        }
    }

    fn validate_create(&self, object: &Value, causes: &mut Vec<Cause>) {
        self.validate(object, causes);
        if object.get("data").is_none_or(Value::is_null) {
            causes.push(Cause::required(&FieldPath::new("data"), "data is mandatory"));
        }
    }

    fn validate_update(&self, object: &Value, old: &Value, causes: &mut Vec<Cause>) {
        if !same(object, old, "data") {
            causes.push(Cause::immutable(&FieldPath::new("data"), object["data"].clone()));
        }
    }
}
