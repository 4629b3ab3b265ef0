//! HorizontalPodAutoscalers: stored as autoscaling/v2, also served as v1, which knows one metric.

use super::fields::{is_set, non_negative, object_mut, remove, set, set_default, text};
use super::scaling;
use super::strategy::{Strategy, Traits};
use coracle_api::Cause;
use coracle_api::status::FieldPath;
use serde_json::{Value, json};

/// autoscaling/v2 and v1 HorizontalPodAutoscaler
#[derive(Debug)]
pub struct AutoscalerStrategy;

/// Where v1 keeps metrics that it has no fields for (autoscaling/v1 `conversion.go`).
const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
/// The target when none is given, in percent.
const DEFAULT_UTILIZATION: i64 = 80;

impl Strategy for AutoscalerStrategy {
    fn traits(&self) -> Traits {
        Traits { generation: true, labels_through_status: true, ..Traits::DEFAULT }
    }

    fn default(&self, object: &mut Value) {
        let spec = object_mut(object, "spec");
        set_default(spec, "minReplicas", 1);
        if !is_set(spec, "metrics") {
            set(spec, "metrics", json!([cpu(DEFAULT_UTILIZATION)]));
        }
        scaling::default_behavior(spec);
    }

    fn validate(&self, object: &Value, causes: &mut Vec<Cause>) {
        let (spec, path) = (&object["spec"], FieldPath::new("spec"));
        let number = |field: &str| spec.get(field).and_then(Value::as_i64);
        let (least, most) = (number("minReplicas").unwrap_or(1), number("maxReplicas").unwrap_or(0));
        if least < 1 {
            causes.push(Cause::invalid(&path.child("minReplicas"), least, "must be greater than or equal to 1"));
        }
        if most < 1 {
            causes.push(Cause::invalid(&path.child("maxReplicas"), most, "must be greater than 0"));
        }
        if most < least {
            causes.push(Cause::invalid(
                &path.child("maxReplicas"),
                most,
                "must be greater than or equal to `minReplicas`",
            ));
        }
        scaling::reference(&spec["scaleTargetRef"], &path.child("scaleTargetRef"), causes);
        scaling::validate(spec, &path, causes);
    }

    fn validate_status(&self, object: &Value, _old: &Value, causes: &mut Vec<Cause>) {
        for field in ["currentReplicas", "desiredReplicas"] {
            non_negative(&object["status"], field, &FieldPath::new("status"), causes);
        }
    }

    fn to_served(&self, object: &mut Value, served: usize) {
        if served != 1 {
            return;
        }
        let spec = object_mut(object, "spec");
        let mut others = Vec::new();
        for metric in remove(spec, "metrics").and_then(|metrics| metrics.as_array().cloned()).unwrap_or_default() {
            match utilization(&metric, "target", "averageUtilization") {
                Some(percent) if !is_set(spec, "targetCPUUtilizationPercentage") => {
                    set(spec, "targetCPUUtilizationPercentage", percent)
                }
                _ => others.push(metric),
            }
        }
        let Some(status) = object.get_mut("status").filter(|status| status.is_object()) else {
            return annotate(object, METRICS, others);
        };
        let current = remove(status, "currentMetrics").unwrap_or(Value::Null);
        let percent = current
            .as_array()
            .into_iter()
            .flatten()
            .find_map(|metric| utilization(metric, "current", "averageUtilization"));
        if let Some(percent) = percent {
            set(status, "currentCPUUtilizationPercentage", percent);
        }
        let conditions =
            remove(status, "conditions").and_then(|conditions| conditions.as_array().cloned()).unwrap_or_default();
        annotate(object, METRICS, others);
        annotate(object, CONDITIONS, conditions);
    }

    fn to_stored(&self, object: &mut Value, served: usize) {
        if served != 1 {
            return;
        }
        set(object, "apiVersion", "autoscaling/v2");
        let mut metrics = take_annotation(object, METRICS);
        let conditions = take_annotation(object, CONDITIONS);
        let spec = object_mut(object, "spec");
        if let Some(percent) = remove(spec, "targetCPUUtilizationPercentage").and_then(|percent| percent.as_i64()) {
            metrics.insert(0, cpu(percent));
        }
        if !metrics.is_empty() {
            set(spec, "metrics", metrics);
        }
        if let Some(status) = object.get_mut("status").filter(|status| status.is_object()) {
            if let Some(percent) = remove(status, "currentCPUUtilizationPercentage") {
                let metric = json!({"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": percent}}});
                set(status, "currentMetrics", json!([metric]));
            }
            if !conditions.is_empty() {
                set(status, "conditions", conditions);
            }
        }
    }
}

fn cpu(percent: i64) -> Value {
    json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent}}})
}

/// The utilization that a metric of CPU is about.
fn utilization(metric: &Value, part: &str, field: &str) -> Option<i64> {
    let resource = metric
        .get("resource")
        .filter(|resource| text(metric, "type") == "Resource" && text(resource, "name") == "cpu")?;
    resource.get(part)?.get(field)?.as_i64()
}

fn annotate(object: &mut Value, name: &str, list: Vec<Value>) {
    if !list.is_empty() {
        object_mut(object_mut(object, "metadata"), "annotations")[name] = Value::Array(list).to_string().into();
    }
}

/// Takes a list out of an annotation; what is no list stays where it is.
fn take_annotation(object: &mut Value, name: &str) -> Vec<Value> {
    let Some(annotations) = object.pointer_mut("/metadata/annotations") else { return Vec::new() };
    let list = annotations.get(name).and_then(Value::as_str).and_then(|text| serde_json::from_str(text).ok());
    if list.is_some() {
        remove(annotations, name);
    }
    if annotations.as_object().is_some_and(serde_json::Map::is_empty) {
        remove(&mut object["metadata"], "annotations");
    }
    list.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_go_round() {
        let memory = json!({"type": "Resource", "resource": {"name": "memory", "target": {"type": "Utilization", "averageUtilization": 5}}});
        let stored = json!({"apiVersion": "autoscaling/v2", "metadata": {"name": "a"}, "spec": {"maxReplicas": 3, "metrics": [cpu(50), memory]},
            "status": {"conditions": [{"type": "x"}]}});
        let mut object = stored.clone();
        AutoscalerStrategy.to_served(&mut object, 1);
        assert_eq!(object["spec"], json!({"maxReplicas": 3, "targetCPUUtilizationPercentage": 50}));
        AutoscalerStrategy.to_stored(&mut object, 1);
        assert_eq!(object, stored);
    }
}
