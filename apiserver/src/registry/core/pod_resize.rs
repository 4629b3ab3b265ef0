//! What a resize may change in a pod (core `ValidatePodResize`).

use super::pod_annotations::MIRROR;
use super::resources::qos_class;
use crate::registry::fields::{self, alike, copy, field, is_set, items, text};
use coracle_api::json::{Map, Value};
use coracle_api::status::FieldPath;
use coracle_api::{Cause, meta};

/// What resources may change in.
const RESIZED: [&str; 2] = ["cpu", "memory"];

/// A change of the resources of containers, and of the pod as a whole.
pub fn resize(pod: &Value, old: &Value, causes: &mut Vec<Cause>) {
    if meta::annotation(old, MIRROR).is_some() {
        // What the path of nothing is printed as.
        *causes = vec![Cause::forbidden(&FieldPath::new("[]"), "static pods cannot be resized")];
        return;
    }
    if old.pointer("/spec/os/name").and_then(Value::as_str) == Some("windows") {
        *causes = vec![Cause::forbidden(&FieldPath::new("[]"), "windows pods cannot be resized")];
        return;
    }
    let path = FieldPath::new("spec");
    let (new, known) = (&pod["spec"], &old["spec"]);
    let class = match text(&old["status"], "qosClass") {
        "" => qos_class(known),
        class => class,
    };
    if class != qos_class(new) {
        let shown = text(&pod["status"], "qosClass");
        causes.push(Cause::invalid(&path, shown, "Pod QOS Class may not change as a result of resizing"));
    }
    if !node_resizes(&old["status"]) {
        causes.push(Cause::forbidden(&path, "Pod running on node without support for resize"));
    }
    let mut expected = new.clone();
    if has_own(new) || has_own(known) {
        whole(&mut expected, known, &path, causes);
    }
    if !same_containers(new, known, &path, causes) {
        return;
    }
    for list in ["initContainers", "containers"] {
        for (nth, (new, known)) in items(new, list).iter().zip(items(known, list)).enumerate() {
            keeps(&new["resources"], &known["resources"], "", &path.child(list).index(nth).child("resources"), causes);
        }
    }
    for (container, before) in fields::items_mut(&mut expected, "containers").zip(items(known, "containers")) {
        undo(container, before);
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
    undo(container, before);
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

/// Puts back what a resize may change in a container. Claims are lost on the way, so that containers that have some are not resized.
fn undo(container: &mut Value, before: &Value) {
    undo_resize(container, before);
    if let Some(resources) = fields::field_mut(container, "resources") {
        fields::remove(resources, "claims");
    }
}

/// Whether there are requests or limits of the pod as a whole.
fn has_own(spec: &Value) -> bool {
    let own = field(spec, "resources");
    let amounts = |kind: &str| own.and_then(|own| field(own, kind)).and_then(Value::as_object);
    ["requests", "limits"].into_iter().any(|kind| amounts(kind).is_some_and(|amounts| !amounts.is_empty()))
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
            let empty = resources.get(kind).and_then(Value::as_object).is_some_and(Map::is_empty);
            if empty && before.pointer(&format!("/resources/{kind}")).is_none() {
                fields::remove(resources, kind);
            }
        }
    }
    if before.get("resources").is_none() && container["resources"].as_object().is_some_and(Map::is_empty) {
        fields::remove(container, "resources");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::json::json;

    fn told(pod: &Value, old: &Value) -> Vec<String> {
        let mut causes = Vec::new();
        resize(pod, old, &mut causes);
        causes.iter().map(ToString::to_string).collect()
    }

    fn pod(resources: &Value) -> Value {
        json!({"spec": {"containers": [{"name": "a", "resources": resources}]}, "status": {"qosClass": "Burstable"}})
    }

    #[test]
    fn containers_with_claims_are_not_resized() {
        let of = |cpu: &str| json!({"requests": {"cpu": cpu}});
        assert!(told(&pod(&of("2")), &pod(&of("1"))).is_empty());
        let claims = |cpu: &str| json!({"requests": {"cpu": cpu}, "claims": [{"name": "x"}]});
        let why = "spec: Forbidden: only cpu and memory resources are mutable";
        assert_eq!(told(&pod(&claims("2")), &pod(&claims("1"))), [why]);
    }

    #[test]
    fn the_class_is_what_the_status_says() {
        let (mut now, old) = (pod(&json!({"requests": {"cpu": "2"}})), pod(&json!({"requests": {"cpu": "1"}})));
        now["spec"]["containers"][0]["resources"] =
            json!({"requests": {"cpu": "2", "memory": "1Gi"}, "limits": {"cpu": "2", "memory": "1Gi"}});
        let why = "spec: Invalid value: \"Burstable\": Pod QOS Class may not change as a result of resizing";
        assert_eq!(told(&now, &old), [why]);
    }

    #[test]
    fn pods_of_files_are_not_resized() {
        let mut old = pod(&json!({}));
        old["metadata"] = json!({"annotations": {MIRROR: "x"}});
        assert_eq!(told(&old, &old), ["[]: Forbidden: static pods cannot be resized"]);
        let mut old = pod(&json!({}));
        old["spec"]["os"] = json!({"name": "windows"});
        assert_eq!(told(&old, &old), ["[]: Forbidden: windows pods cannot be resized"]);
    }
}
