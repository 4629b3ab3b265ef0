//! Leases.

use crate::registry::strategy::{Strategy, Traits};
use coracle_api::Cause;
use coracle_api::json::Value;
use coracle_api::status::FieldPath;

/// coordination.k8s.io/v1 Lease
#[derive(Debug)]
pub struct LeaseStrategy;

impl Strategy for LeaseStrategy {
    fn traits(&self) -> Traits {
        Traits { create_on_update: true, unconditional_update: false, ..Traits::DEFAULT }
    }

    fn validate(&self, lease: &Value, causes: &mut Vec<Cause>) {
        let (spec, path) = (&lease["spec"], FieldPath::new("spec"));
        if let Some(seconds) = spec.get("leaseDurationSeconds").and_then(Value::as_i64)
            && seconds <= 0
        {
            causes.push(Cause::invalid(&path.child("leaseDurationSeconds"), seconds, "must be greater than 0"));
        }
        if let Some(count) = spec.get("leaseTransitions").and_then(Value::as_i64)
            && count < 0
        {
            causes.push(Cause::invalid(&path.child("leaseTransitions"), count, "must be greater than or equal to 0"));
        }
    }
}
