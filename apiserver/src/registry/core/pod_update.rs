//! What may change in a pod that is there (core `ValidatePodUpdate`, `ValidatePodEphemeralContainersUpdate`,
//! `ValidatePodResize`).

use super::resources::qos_class;
use crate::registry::fields::{self, alike, copy, is_set, items, text};
use coracle_api::json::Value;
use coracle_api::status::FieldPath;
use coracle_api::{Cause, json, meta};

/// Why most of a pod's spec does not change.
const FIXED: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,\
                     `spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),\
                     `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

const DEADLINE: &str = "activeDeadlineSeconds";
const REQUIRED_TERMS: &str = "/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";

/// What resources may change in.
const RESIZED: [&str; 2] = ["cpu", "memory"];

/// A pod of a file on its node's disk: what the API says of it is a mirror.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// A change of the pod itself.
pub fn spec(pod: &Value, old: &Value, causes: &mut Vec<Cause>) {
    let path = FieldPath::new("spec");
    let (new, known) = (&pod["spec"], &old["spec"]);
    if json::same(new, known) {
        return;
    }
    let mut expected = new.clone();
    for list in ["containers", "initContainers"] {
        if items(new, list).len() != items(known, list).len() {
            causes.push(Cause::forbidden(&path.child(list), "pod updates may not add or remove containers"));
            return;
        }
        for (container, before) in fields::items_mut(&mut expected, list).zip(items(known, list)) {
            copy(container, before, "image");
        }
    }
    if !deadline(new, known, &path, causes) {
        return;
    }
    tolerations(new, known, &path.child("tolerations"), causes);
    gates(new, known, &path.child("schedulingGates"), causes);
    for field in [DEADLINE, "tolerations", "schedulingGates"] {
        copy(&mut expected, known, field);
    }
    let seconds = |spec: &Value| spec.get("terminationGracePeriodSeconds").and_then(Value::as_i64);
    if seconds(known).is_some_and(|seconds| seconds < 0) && seconds(new) == Some(1) {
        copy(&mut expected, known, "terminationGracePeriodSeconds");
    }
    if !items(known, "schedulingGates").is_empty() {
        gated(new, known, &path, causes);
        copy(&mut expected, known, "nodeSelector");
        keep_node_affinity(&mut expected, known);
    }
    if !alike(&expected, known) {
        causes.push(Cause::forbidden(&path, FIXED));
    }
}

/// The deadline may be set, and shortened. False when it was not.
fn deadline(new: &Value, known: &Value, path: &FieldPath, causes: &mut Vec<Cause>) -> bool {
    let path = path.child(DEADLINE);
    let of = |spec: &Value| spec.get(DEADLINE).and_then(Value::as_i64);
    let why = match (of(new), of(known)) {
        (Some(after), _) if !(0..=i64::from(i32::MAX)).contains(&after) => {
            (after.into(), "must be between 0 and 2147483647, inclusive")
        }
        (Some(after), Some(before)) if after > before => (after.into(), "must be less than or equal to previous value"),
        (None, Some(_)) => (Value::Null, "must not update from a positive integer to nil value"),
        _ => return true,
    };
    causes.push(Cause::invalid(&path, why.0, why.1));
    false
}

/// Tolerations may be added, and last longer or shorter (core `validateOnlyAddedTolerations`).
fn tolerations(new: &Value, known: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let strip = |toleration: &Value| {
        let mut toleration = toleration.clone();
        fields::remove(&mut toleration, "tolerationSeconds");
        toleration
    };
    let now: Vec<Value> = items(new, "tolerations").iter().map(strip).collect();
    if items(known, "tolerations").iter().any(|toleration| !now.contains(&strip(toleration))) {
        causes.push(Cause::forbidden(path, "existing toleration can not be modified except its tolerationSeconds"));
    }
}

/// Gates may only go (core `validateOnlyDeletedSchedulingGates`).
fn gates(new: &Value, known: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    for (nth, gate) in items(new, "schedulingGates").iter().enumerate() {
        if !items(known, "schedulingGates").contains(gate) {
            let name = text(gate, "name");
            let why = format!("only deletion is allowed, but found new scheduling gate '{name}'");
            causes.push(Cause::forbidden(&path.index(nth).child("name"), why));
        }
    }
}

/// While a pod waits at a gate, where it may run can be narrowed down (KEP-3838).
fn gated(new: &Value, known: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let selector = |spec: &Value| spec.get("nodeSelector").and_then(Value::as_object).cloned().unwrap_or_default();
    let (now, before) = (selector(new), selector(known));
    if before.iter().any(|(key, value)| now.get(key) != Some(value)) {
        let why = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        // In Go's order.
        let mut shown = now;
        shown.sort_keys();
        causes.push(Cause::invalid(&path.child("nodeSelector"), Value::Object(shown), why));
    }
    let terms = |spec: &Value| {
        let affinity = spec.pointer("/affinity/nodeAffinity").unwrap_or(&Value::Null);
        affinity.pointer(REQUIRED_TERMS).and_then(Value::as_array).cloned().unwrap_or_default()
    };
    let (now, before) = (terms(new), terms(known));
    if before.is_empty() {
        return;
    }
    let path = path
        .child("affinity")
        .child("nodeAffinity")
        .child("requiredDuringSchedulingIgnoredDuringExecution")
        .child("nodeSelectorTerms");
    if now.len() != before.len() {
        let why = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        causes.push(Cause::invalid(&path, Value::Array(now), why));
        return;
    }
    for (nth, (term, before)) in now.into_iter().zip(&before).enumerate() {
        let only_added = |list: &str| {
            // A term without a requirement matches nothing, and one more would make it match something.
            let (now, before) = (items(&term, list), items(before, list));
            now.len() >= before.len() && now.iter().zip(before).all(|(now, before)| now == before)
        };
        let empty = !is_set(before, "matchExpressions") && !is_set(before, "matchFields");
        if !only_added("matchExpressions") || !only_added("matchFields") || empty && term != *before {
            let why = "only additions are allowed (no mutations or deletions)";
            causes.push(Cause::invalid(&path.index(nth), term, why));
        }
    }
}

/// Where a pod may run has been compared already; the other affinities are as fixed as ever.
fn keep_node_affinity(expected: &mut Value, known: &Value) {
    let mut affinity =
        expected.get("affinity").cloned().filter(Value::is_object).unwrap_or_else(|| coracle_api::json::json!({}));
    copy(&mut affinity, known.get("affinity").unwrap_or(&Value::Null), "nodeAffinity");
    let empty = affinity.as_object().is_some_and(coracle_api::json::Map::is_empty);
    if empty && known.get("affinity").is_none() {
        fields::remove(expected, "affinity");
    } else {
        fields::set(expected, "affinity", affinity);
    }
}

/// A change of the ephemeral containers: there are only ever more.
pub fn ephemeral_containers(pod: &Value, old: &Value, causes: &mut Vec<Cause>) {
    if meta::annotation(old, MIRROR).is_some() {
        *causes = vec![Cause::forbidden(&FieldPath::new(""), "static pods do not support ephemeral containers")];
        return;
    }
    let path = FieldPath::new("spec").child("ephemeralContainers");
    let now = items(&pod["spec"], "ephemeralContainers");
    for known in items(&old["spec"], "ephemeralContainers") {
        let name = text(known, "name");
        let what = match now.iter().find(|other| text(other, "name") == name) {
            None => "removed",
            Some(other) if !alike(other, known) => "changed",
            Some(_) => continue,
        };
        causes.push(Cause::forbidden(&path, format!("existing ephemeral containers {name:?} may not be {what}\n")));
    }
}

/// A change of the resources of containers, and of the pod as a whole.
pub fn resize(pod: &Value, old: &Value, causes: &mut Vec<Cause>) {
    if meta::annotation(old, MIRROR).is_some() {
        *causes = vec![Cause::forbidden(&FieldPath::new(""), "static pods cannot be resized")];
        return;
    }
    if old.pointer("/spec/os/name").and_then(Value::as_str) == Some("windows") {
        *causes = vec![Cause::forbidden(&FieldPath::new(""), "windows pods cannot be resized")];
        return;
    }
    let path = FieldPath::new("spec");
    let (new, known) = (&pod["spec"], &old["spec"]);
    let class = qos_class(known);
    if class != qos_class(new) {
        causes.push(Cause::invalid(&path, class, "Pod QOS Class may not change as a result of resizing"));
    }
    if !node_resizes(&old["status"]) {
        causes.push(Cause::forbidden(&path, "Pod running on node without support for resize"));
    }
    let mut expected = new.clone();
    whole(&mut expected, known, &path, causes);
    if !same_containers(new, known, &path, causes) {
        return;
    }
    for list in ["initContainers", "containers"] {
        for (nth, (new, known)) in items(new, list).iter().zip(items(known, list)).enumerate() {
            keeps(&new["resources"], &known["resources"], "", &path.child(list).index(nth).child("resources"), causes);
        }
    }
    for (container, before) in fields::items_mut(&mut expected, "containers").zip(items(known, "containers")) {
        undo_resize(container, before);
        if !alike(container, before) {
            causes.push(Cause::forbidden(&path, "only cpu and memory resources are mutable"));
        }
    }
    let inits = fields::items_mut(&mut expected, "initContainers").zip(items(known, "initContainers"));
    for (nth, (container, before)) in inits.enumerate() {
        init_container(container, before, &path.child("initContainers").index(nth), causes);
    }
    if causes.is_empty() && !alike(&expected, known) {
        causes.push(Cause::forbidden(&path, "only cpu and memory resources are mutable"));
    }
}

/// What changes in an init container, which may be put back. One that does not stay is not run again to be changed.
fn init_container(container: &mut Value, before: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let changed = !alike(container, before);
    undo_resize(container, before);
    if !alike(container, before) {
        let why = "only cpu and memory resources for init or sidecar containers are mutable";
        causes.push(Cause::forbidden(path, why));
    }
    let restarts = |policy: &Value| text(policy, "restartPolicy") == "RestartContainer";
    if changed && text(container, "restartPolicy") != "Always" && items(container, "resizePolicy").iter().any(restarts)
    {
        let why = "non-sidecar init containers with a resize policy of RestartContainer cannot be resized";
        causes.push(Cause::forbidden(path, why));
    }
}

/// What changes in the resources of the pod as a whole, which are put back. That what its containers ask for and may have
/// fits in them is a rule of the specification besides (KEP-5419).
fn whole(expected: &mut Value, known: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let own = path.child("resources");
    if is_set(known, "resources") && !is_set(expected, "resources") {
        causes.push(Cause::forbidden(&own, "pod-level resources cannot be removed"));
        copy(expected, known, "resources");
        return;
    }
    keeps(&expected["resources"], &known["resources"], "pod-level ", &own, causes);
    undo_resize(expected, known);
    let of = |spec: &Value| spec.get("resources").cloned().unwrap_or_default();
    if !alike(&of(expected), &of(known)) {
        causes.push(Cause::forbidden(path, "only cpu and memory resources are mutable at pod-level"));
        copy(expected, known, "resources");
    }
}

/// Whether the containers are the same in the same order, so that they can be compared one by one.
fn same_containers(new: &Value, known: &Value, path: &FieldPath, causes: &mut Vec<Cause>) -> bool {
    let before = causes.len();
    for list in ["containers", "initContainers"] {
        let (path, new, known) = (path.child(list), items(new, list), items(known, list));
        if new.len() != known.len() {
            causes.push(Cause::forbidden(&path, format!("{list} may not be added or removed on resize")));
            continue;
        }
        for (nth, _) in
            new.iter().zip(known).enumerate().filter(|(_, (new, known))| text(new, "name") != text(known, "name"))
        {
            let why = format!("{list} may not be renamed or reordered on resize");
            causes.push(Cause::forbidden(&path.index(nth).child("name"), why));
        }
    }
    causes.len() == before
}

/// A kubelet that resizes says of a running container what it has (core `isPodResizeRequestSupported`).
fn node_resizes(status: &Value) -> bool {
    let running = items(status, "containerStatuses").iter().find(|status| status.pointer("/state/running").is_some());
    running.is_none_or(|status| status.get("resources").is_some_and(|resources| !resources.is_null()))
}

/// What is limited or requested stays so (core `resourcesRemoved`). `whose` names the pod's own.
fn keeps(new: &Value, known: &Value, whose: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    for kind in ["requests", "limits"] {
        let of = |resources: &Value| resources.get(kind).and_then(Value::as_object).cloned().unwrap_or_default();
        let new = of(new);
        if of(known).iter().any(|(name, amount)| !amount.is_null() && new.get(name).is_none_or(Value::is_null)) {
            causes.push(Cause::forbidden(&path.child(kind), format!("{whose}resource {kind} cannot be removed")));
        }
    }
}

/// Puts CPU and memory of a container or of a pod's specification back to what they were, so that every other difference shows.
fn undo_resize(container: &mut Value, before: &Value) {
    for kind in ["limits", "requests"] {
        for name in RESIZED {
            let known = before.pointer(&format!("/resources/{kind}/{name}")).cloned();
            let resources = fields::object_mut(container, "resources");
            match known {
                Some(known) => fields::set(fields::object_mut(resources, kind), name, known),
                None => {
                    if let Some(amounts) = resources.get_mut(kind) {
                        fields::remove(amounts, name);
                    }
                }
            }
            let empty = resources.get(kind).and_then(Value::as_object).is_some_and(coracle_api::json::Map::is_empty);
            if empty && before.pointer(&format!("/resources/{kind}")).is_none() {
                fields::remove(resources, kind);
            }
        }
    }
    if before.get("resources").is_none()
        && container["resources"].as_object().is_some_and(coracle_api::json::Map::is_empty)
    {
        fields::remove(container, "resources");
    }
}
