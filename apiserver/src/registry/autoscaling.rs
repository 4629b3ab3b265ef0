//! HorizontalPodAutoscalers: stored as autoscaling/v2, also served as v1, which knows one metric.

use super::autoscaling_v1::{self, cpu};
use super::fields::{is_set, non_negative, object_mut, set, set_default};
use super::scaling;
use super::strategy::Strategy;
use coracle_api::json::{Value, json};
use coracle_api::status::FieldPath;
use coracle_api::{Cause, meta};

/// autoscaling/v2 and v1 HorizontalPodAutoscaler
#[derive(Debug)]
pub struct AutoscalerStrategy;

/// The target when none is given, in percent.
const DEFAULT_UTILIZATION: i64 = 80;

impl Strategy for AutoscalerStrategy {
    fn default(&self, object: &mut Value) {
        // What v1 has no fields for; v2 has, and does without.
        meta::drop_annotations(object, &autoscaling_v1::ANNOTATIONS);
        let spec = object_mut(object, "spec");
        set_default(spec, "minReplicas", 1);
        if !is_set(spec, "metrics") {
            set(spec, "metrics", json!([cpu(DEFAULT_UTILIZATION)]));
        }
        scaling::default_behavior(spec);
    }

    fn validate(&self, object: &Value, causes: &mut Vec<Cause>) {
        validate(object, None, causes);
    }

    fn validate_changed(&self, object: &Value, old: &Value, causes: &mut Vec<Cause>) {
        validate(object, Some(&old["spec"]), causes);
    }

    fn validate_status(&self, object: &Value, _old: &Value, causes: &mut Vec<Cause>) {
        for field in ["currentReplicas", "desiredReplicas"] {
            non_negative(&object["status"], field, &FieldPath::new("status"), causes);
        }
    }

    fn to_served(&self, object: &mut Value, served: usize) {
        if served == 1 {
            autoscaling_v1::from_v2(object);
        }
    }

    fn to_stored(&self, object: &mut Value, served: usize) {
        if served == 1 {
            autoscaling_v1::to_v2(object);
        }
    }
}

/// What a spec says; `old` is the one that it replaces.
fn validate(object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let (spec, path) = (&object["spec"], FieldPath::new("spec"));
    let number = |field: &str| spec.get(field).and_then(Value::as_i64);
    let (least, most) = (number("minReplicas").unwrap_or(1), number("maxReplicas").unwrap_or(0));
    // One that was made while scaling to zero was on may stay.
    let floor = i64::from(old.and_then(|old| old.get("minReplicas")?.as_i64()) != Some(0));
    if least < floor {
        let why = format!("must be greater than or equal to {floor}");
        causes.push(Cause::invalid(&path.child("minReplicas"), least, why));
    }
    if most < 1 {
        causes.push(Cause::invalid(&path.child("maxReplicas"), most, "must be greater than 0"));
    }
    if most < least {
        causes.push(Cause::invalid(&path.child("maxReplicas"), most, "must be greater than or equal to `minReplicas`"));
    }
    let before = old.map(|old| &old["scaleTargetRef"]);
    scaling::target_reference(&spec["scaleTargetRef"], before, &path.child("scaleTargetRef"), causes);
    scaling::validate(spec, old, &path, causes);
}
