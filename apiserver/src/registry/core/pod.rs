//! Pods.

use super::pod_spec::Holder;
use super::{
    label_keys, pod_annotations, pod_containers, pod_defaults, pod_resize, pod_spec, pod_status, pod_update,
    pod_warnings, profiles, resources, volume_source,
};
use crate::cache::Field;
use crate::registry::Subresource;
use crate::registry::fields::{is_set, items, items_mut, object_mut, set, set_default, text};
use crate::registry::strategy::{Strategy, ThroughStatus, Traits, WriteContext};
use coracle_api::clock::rfc3339;
use coracle_api::fields::Set;
use coracle_api::json::{Value, json};
use coracle_api::status::FieldPath;
use coracle_api::{Cause, meta};
use jiff::Timestamp;
use std::sync::LazyLock;

/// core/v1 Pod
#[derive(Debug)]
pub struct PodStrategy;

static FIELDS: [Field; 9] = [
    Field::of("spec.nodeName", &["spec", "nodeName"], ""),
    Field::of("spec.restartPolicy", &["spec", "restartPolicy"], ""),
    Field::of("spec.schedulerName", &["spec", "schedulerName"], ""),
    Field::of("spec.serviceAccountName", &["spec", "serviceAccountName"], ""),
    Field::of("spec.hostNetwork", &["spec", "hostNetwork"], "false"),
    // The first of `podIPs`, as it is kept.
    Field::of("status.podIP", &["status", "podIP"], ""),
    // Upstream takes the selector and gives the field no value: a list has none here, either.
    Field::of("status.podIPs", &["status", "podIPs"], ""),
    Field::of("status.phase", &["status", "phase"], ""),
    Field::of("status.nominatedNodeName", &["status", "nominatedNodeName"], ""),
];

/// What an update of the status cannot set.
static NOT_STATUS: LazyLock<Set<'static>> =
    LazyLock::new(|| Set::of(&[&["spec"], &["metadata", "deletionTimestamp"], &["metadata", "ownerReferences"]]));

/// Whether the pod is ready.
pub fn is_ready(pod: &Value) -> bool {
    let ready = |condition: &Value| text(condition, "type") == "Ready" && text(condition, "status") == "True";
    items(&pod["status"], "conditions").iter().any(ready)
}

/// Sets a condition; since when it holds stays what it was while it holds (core/pod `UpdatePodCondition`).
pub fn set_condition(pod: &mut Value, mut condition: Value, now: Timestamp) {
    let status = object_mut(pod, "status");
    if !status["conditions"].is_array() {
        status["conditions"] = json!([]);
    }
    set(&mut condition, "lastProbeTime", Value::Null);
    let known = items_mut(status, "conditions").find(|known| text(known, "type") == text(&condition, "type"));
    let since = known.as_ref().filter(|known| text(known, "status") == text(&condition, "status"));
    let since = since.map_or_else(|| rfc3339(now).into(), |known| known["lastTransitionTime"].clone());
    set(&mut condition, "lastTransitionTime", since);
    match known {
        Some(known) => *known = condition,
        None => {
            if let Some(all) = status["conditions"].as_array_mut() {
                all.push(condition);
            }
        }
    }
}

/// A pod's first address stands in two fields; the older one counts where they differ (core/v1 `conversion.go`).
fn addresses(status: &mut Value) {
    let first = items(status, "podIPs").first().map(|first| text(first, "ip").to_owned());
    let own = text(status, "podIP").to_owned();
    match first {
        Some(first) if own.is_empty() => set(status, "podIP", first),
        Some(first) if first == own => {}
        None if own.is_empty() => {}
        _ => set(status, "podIPs", json!([{"ip": own}])),
    }
}

/// What was observed is not forgotten by those who know nothing of it (core/pod `preserveOldObservedGeneration`).
fn keep_observed(status: &mut Value, old: &Value) {
    const FIELD: &str = "observedGeneration";
    let of = |from: &Value| from.get(FIELD).and_then(Value::as_i64).filter(|generation| *generation != 0);
    if let Some(known) = of(old).filter(|_| of(&*status).is_none()) {
        set(status, FIELD, known);
    }
    // A type may stand several times.
    let mut rest: Vec<&Value> = items(old, "conditions").iter().collect();
    for condition in items_mut(status, "conditions") {
        let known = rest.iter().position(|known| text(known, "type") == text(condition, "type"));
        let known = known.and_then(|at| of(rest.remove(at)));
        if let Some(known) = known.filter(|_| of(&*condition).is_none()) {
            set(condition, FIELD, known);
        }
    }
}

/// The pod itself, as it is without what it was before but for what others let in (core `validatePodMetadataAndSpec`).
fn whole(pod: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let (spec, path) = (&pod["spec"], FieldPath::new("spec"));
    if let Some(annotations) = meta::annotations(pod) {
        let at = FieldPath::new("metadata").child("annotations");
        pod_annotations::validate(annotations, old.and_then(meta::annotations), spec, &at, causes);
    }
    volume_source::claims_made(pod, causes);
    pod_spec::validate(spec, Holder { pod: Some(pod), old: old.map(|old| &old["spec"]) }, &path, causes);
    volume_source::tokens_of_nobody(spec, causes);
    pod_containers::of_pod(spec, &path, causes);
}

impl Strategy for PodStrategy {
    fn traits(&self) -> Traits {
        Traits { generation: true, through_status: ThroughStatus::NotOwners, ..Traits::DEFAULT }
    }

    fn fields(&self) -> &[Field] {
        &FIELDS
    }

    fn selected<'f>(&self, name: &'f str, _served: usize) -> Option<&'f str> {
        // What it was called before v1 (core/v1 `AddFieldLabelConversionsForPod`).
        Some(if name == "spec.host" { "spec.nodeName" } else { name })
    }

    fn reset_fields(&self, through: Option<Subresource>) -> Option<&'static Set<'static>> {
        (through == Some(Subresource::Status)).then_some(&NOT_STATUS)
    }

    fn repeats(&self, pod: &Value) -> bool {
        // Those claims are called after the pod.
        items(&pod["spec"], "volumes").iter().all(|volume| volume.get("ephemeral").is_none())
    }

    fn default(&self, pod: &mut Value) {
        pod_defaults::pod(pod);
    }

    fn early_warnings(&self, pod: &Value) -> Vec<String> {
        profiles::warnings(pod)
    }

    fn warnings(&self, pod: &Value, old: Option<&Value>) -> Vec<String> {
        if old.is_none() { pod_warnings::of_pod(pod) } else { Vec::new() }
    }

    fn status_warnings(&self, pod: &Value) -> Vec<String> {
        pod_warnings::of_status(pod)
    }

    fn prepare_create(&self, pod: &mut Value, _context: &WriteContext) {
        label_keys::merge(pod);
        profiles::take_over(pod);
        let class = resources::qos_class(&pod["spec"]);
        let mut status = json!({"phase": "Pending", "qosClass": class});
        if !items(&pod["spec"], "schedulingGates").is_empty() {
            status["conditions"] = json!([{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates", "lastProbeTime": null, "lastTransitionTime": null}]);
        }
        pod["status"] = status;
    }

    fn prepare_status(&self, pod: &mut Value, old: &Value, _context: &WriteContext) {
        let status = object_mut(pod, "status");
        addresses(status);
        // Older kubelets drop the class, which follows from the spec.
        if let Some(class) = old.pointer("/status/qosClass") {
            set_default(status, "qosClass", class.clone());
        }
        keep_observed(status, &old["status"]);
    }

    fn validate(&self, pod: &Value, causes: &mut Vec<Cause>) {
        whole(pod, None, causes);
    }

    fn validate_create(&self, pod: &Value, causes: &mut Vec<Cause>) {
        self.validate(pod, causes);
        let (spec, path) = (&pod["spec"], FieldPath::new("spec"));
        if !items(spec, "ephemeralContainers").is_empty() {
            causes.push(Cause::forbidden(&path.child("ephemeralContainers"), "cannot be set on create"));
        }
        if is_set(spec, "nodeName") && !items(spec, "schedulingGates").is_empty() {
            let why = "cannot be set until all schedulingGates have been cleared";
            causes.push(Cause::forbidden(&path.child("nodeName"), why));
        }
        if let Some(annotations) = meta::annotations(pod) {
            profiles::agree(annotations, spec, &path, causes);
        }
    }

    fn validate_changed(&self, pod: &Value, old: &Value, causes: &mut Vec<Cause>) {
        whole(pod, Some(old), causes);
        pod_annotations::changed(pod, old, causes);
        pod_update::spec(pod, old, causes);
    }

    fn validate_subresource(&self, which: Subresource, pod: &Value, old: &Value, causes: &mut Vec<Cause>) {
        whole(pod, Some(old), causes);
        match which {
            Subresource::EphemeralContainers => pod_update::ephemeral_containers(pod, old, causes),
            Subresource::Resize => pod_resize::resize(pod, old, causes),
            _ => self.validate_status(pod, old, causes),
        }
    }

    fn validate_status(&self, pod: &Value, old: &Value, causes: &mut Vec<Cause>) {
        pod_status::validate(pod, old, causes);
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
