//! Pods.

use super::{pod_defaults, pod_spec, resources};
use crate::cache::Field;
use crate::registry::fields::{copy, is_set, items, object_mut, same, text};
use crate::registry::strategy::{Strategy, Traits, WriteContext};
use coracle_api::Cause;
use coracle_api::status::FieldPath;
use serde_json::{Value, json};

/// core/v1 Pod
#[derive(Debug)]
pub struct PodStrategy;

static FIELDS: [Field; 7] = [
    Field::of("spec.nodeName", &["spec", "nodeName"], ""),
    Field::of("spec.restartPolicy", &["spec", "restartPolicy"], ""),
    Field::of("spec.schedulerName", &["spec", "schedulerName"], ""),
    Field::of("spec.serviceAccountName", &["spec", "serviceAccountName"], ""),
    Field::of("spec.hostNetwork", &["spec", "hostNetwork"], "false"),
    Field::of("status.phase", &["status", "phase"], ""),
    Field::of("status.nominatedNodeName", &["status", "nominatedNodeName"], ""),
];

/// Why most of a pod's spec does not change (core `ValidatePodUpdate`).
const FIXED: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,\
                     `spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),\
                     `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

impl Strategy for PodStrategy {
    fn traits(&self) -> Traits {
        Traits { generation: true, labels_through_status: true, ..Traits::DEFAULT }
    }

    fn fields(&self) -> &[Field] {
        &FIELDS
    }

    fn default(&self, pod: &mut Value) {
        pod_defaults::pod(pod);
    }

    fn prepare_create(&self, pod: &mut Value, _context: &WriteContext) {
        let class = resources::qos_class(&pod["spec"]);
        let mut status = json!({"phase": "Pending", "qosClass": class});
        if !items(&pod["spec"], "schedulingGates").is_empty() {
            status["conditions"] = json!([{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates", "lastProbeTime": null, "lastTransitionTime": null}]);
        }
        pod["status"] = status;
    }

    fn prepare_status(&self, pod: &mut Value, old: &Value, _context: &WriteContext) {
        // The class follows from the spec and cannot be written.
        if let Some(class) = old.pointer("/status/qosClass") {
            object_mut(pod, "status")["qosClass"] = class.clone();
        }
    }

    fn validate(&self, pod: &Value, causes: &mut Vec<Cause>) {
        pod_spec::validate(&pod["spec"], &FieldPath::new("spec"), causes);
    }

    fn validate_update(&self, pod: &Value, old: &Value, causes: &mut Vec<Cause>) {
        let path = FieldPath::new("spec");
        let mut expected = pod["spec"].clone();
        for list in ["containers", "initContainers"] {
            let before = items(&old["spec"], list);
            let containers = expected.get_mut(list).and_then(Value::as_array_mut);
            if let Some(containers) = containers.filter(|containers| containers.len() == before.len()) {
                for (container, before) in containers.iter_mut().zip(before) {
                    copy(container, before, "image");
                }
            }
        }
        let after = pod["spec"].get("activeDeadlineSeconds").and_then(Value::as_i64);
        let before = old["spec"].get("activeDeadlineSeconds").and_then(Value::as_i64);
        match (after, before) {
            (None, Some(before)) => causes.push(Cause::invalid(
                &path.child("activeDeadlineSeconds"),
                before,
                "must not update from a positive integer to nil value",
            )),
            (Some(after), Some(before)) if after > before => {
                causes.push(Cause::invalid(
                    &path.child("activeDeadlineSeconds"),
                    after,
                    "must be less than or equal to previous value",
                ));
            }
            _ => {}
        }
        copy(&mut expected, &old["spec"], "activeDeadlineSeconds");
        let (now, known) = (items(&pod["spec"], "tolerations"), items(&old["spec"], "tolerations"));
        let strip = |toleration: &Value| {
            let mut toleration = toleration.clone();
            crate::registry::fields::remove(&mut toleration, "tolerationSeconds");
            toleration
        };
        if known.iter().any(|toleration| !now.iter().any(|other| strip(other) == strip(toleration))) {
            causes.push(Cause::forbidden(
                &path.child("tolerations"),
                "existing toleration can not be modified except its tolerationSeconds",
            ));
        }
        copy(&mut expected, &old["spec"], "tolerations");
        if old["spec"].get("terminationGracePeriodSeconds").and_then(Value::as_i64).is_some_and(|seconds| seconds < 0) {
            copy(&mut expected, &old["spec"], "terminationGracePeriodSeconds");
        }
        let gates_gone = items(&pod["spec"], "schedulingGates")
            .iter()
            .all(|gate| items(&old["spec"], "schedulingGates").contains(gate));
        if gates_gone {
            copy(&mut expected, &old["spec"], "schedulingGates");
        }
        if expected != old["spec"] {
            causes.push(Cause::forbidden(&path, FIXED));
        }
    }

    fn validate_status(&self, pod: &Value, old: &Value, causes: &mut Vec<Cause>) {
        if !same(&pod["spec"], &old["spec"], "nodeName") {
            causes.push(Cause::forbidden(&FieldPath::new("spec.nodeName"), "may not be changed directly"));
        }
        for (nth, address) in items(&pod["status"], "podIPs").iter().enumerate() {
            let ip = text(address, "ip");
            if ip.parse::<std::net::IpAddr>().is_err() {
                let path = FieldPath::new("status").child("podIPs").index(nth);
                causes.push(Cause::invalid(&path, ip, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"));
            }
        }
    }

    fn grace_period(&self, pod: &Value, requested: Option<i64>) -> Option<i64> {
        // core/pod `CheckGracefulDelete`
        let period = requested.or_else(|| pod["spec"].get("terminationGracePeriodSeconds")?.as_i64()).unwrap_or(30);
        let done = matches!(pod.pointer("/status/phase").and_then(Value::as_str), Some("Failed" | "Succeeded"));
        let placed = is_set(&pod["spec"], "nodeName");
        if !placed || done {
            return Some(0);
        }
        // A negative period means the shortest there is.
        Some(if period < 0 { 1 } else { period })
    }
}
