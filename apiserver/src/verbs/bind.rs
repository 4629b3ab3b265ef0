//! Binding a pod to a node.

use super::{Call, Response, update};
use crate::admission;
use crate::http::render;
use crate::http::request::Body;
use crate::registry::core::pod::set_condition;
use crate::registry::meta;
use coracle_api::json::{Map, Value, json};
use coracle_api::status::FieldPath;
use coracle_api::{Cause, Gvk, Reason, Status, meta as object_meta};

const BINDING: Gvk = Gvk::of("", "v1", "Binding");

pub(super) async fn bind(mut call: Call, body: Body) -> Result<Response, Status> {
    let (mut binding, _) = body.of_kind(&BINDING, call.options.field_validation)?;
    meta::check_location(&call, &mut binding)?;
    let name = object_meta::name(&binding);
    if call.name.is_empty() {
        // The older path does not tell it.
        name.clone_into(&mut call.name);
    } else if name != call.name {
        return Err(Status::bad_request("name in URL does not match name in Binding object"));
    }
    let node = check(&binding)?.to_owned();
    if call.name.is_empty() {
        return Err(Status::bad_request("Name parameter required."));
    }
    admission::namespace_of_part(&call).await?;
    admission::mutate_binding(&call, &mut binding, &node)?;
    for _ in 0..update::ATTEMPTS {
        let current = call.current().await?;
        let mut pod = current.value.clone();
        assign(&call, &mut pod, &binding, &node)?;
        // The namespace must not end between the check and the write.
        let namespace = admission::namespace_of_part(&call).await?.into_iter().collect();
        if call.replace_if(&current, &current.with(&pod), namespace, Vec::new()).await?.is_some() {
            return Ok(render::created(&call.accept));
        }
    }
    Err(Status::conflict(&call.gvr(), &call.name, "the pod is being written by others"))
}

/// The node's name. What is wrong is told as upstream does: by an error that is no `Invalid`.
fn check(binding: &Value) -> Result<&str, Status> {
    let target = binding.get("target").unwrap_or(&Value::Null);
    let text = |name: &str| target.get(name).and_then(Value::as_str).unwrap_or_default();
    let mut causes = Vec::new();
    let path = FieldPath::new("target");
    if !matches!(text("kind"), "" | "Node") {
        causes.push(Cause::not_supported(&path.child("kind"), text("kind"), &["Node", "<empty>"]));
    }
    if text("name").is_empty() {
        causes.push(Cause::required(&path.child("name"), ""));
    }
    let told: Vec<String> = causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
    match told.as_slice() {
        [] => Ok(target["name"].as_str().unwrap_or_default()),
        [one] => Err(Status::new(500, Reason::Unknown, one)),
        all => Err(Status::new(500, Reason::Unknown, format!("[{}]", all.join(", ")))),
    }
}

/// The binding is meant for the pod that it names so.
fn check_preconditions(call: &Call, pod: &Value, binding: &Value) -> Result<(), Status> {
    let (uid, version) = (object_meta::uid(binding), object_meta::resource_version(binding));
    let (has_uid, has_version) = (object_meta::uid(pod), object_meta::resource_version(pod));
    if !uid.is_empty() && uid != has_uid {
        return Err(update::precondition_failed(call, "UID", uid, has_uid));
    }
    if !version.is_empty() && version != has_version {
        return Err(update::precondition_failed(call, "ResourceVersion", version, has_version));
    }
    Ok(())
}

/// Sets the node and the condition that says so (core/pod/storage `setPodNodeAndMetadata`).
fn assign(call: &Call, pod: &mut Value, binding: &Value, node: &str) -> Result<(), Status> {
    check_preconditions(call, pod, binding)?;
    let conflict = |why: &str| Status::conflict(&coracle_api::Gvr::of("", "v1", "pods/binding"), &call.name, why);
    if object_meta::deletion_timestamp(pod).is_some() {
        return Err(conflict(&format!("pod {} is being deleted, cannot be assigned to a host", call.name)));
    }
    let bound = pod.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or_default();
    if !bound.is_empty() {
        return Err(conflict(&format!("pod {} is already assigned to node {bound:?}", call.name)));
    }
    if pod.pointer("/spec/schedulingGates").and_then(Value::as_array).is_some_and(|gates| !gates.is_empty()) {
        return Err(conflict(&format!("pod {} has non-empty .spec.schedulingGates", call.name)));
    }
    pod["spec"]["nodeName"] = node.into();
    for field in ["annotations", "labels"] {
        let given = binding["metadata"].get(field).and_then(Value::as_object).filter(|given| !given.is_empty());
        if let Some(given) = given {
            let mut merged: Map = pod["metadata"].get(field).and_then(Value::as_object).cloned().unwrap_or_default();
            merged.extend(given.clone());
            object_meta::set(pod, field, Value::Object(merged));
        }
    }
    if let Some(status) = pod.get_mut("status") {
        // The pod has its place, and needs none to be kept (ClearingNominatedNodeNameAfterBinding).
        crate::registry::fields::remove(status, "nominatedNodeName");
    }
    let scheduled =
        json!({"type": "PodScheduled", "status": "True", "observedGeneration": object_meta::generation(pod)});
    set_condition(pod, scheduled, call.server.config.clock.now());
    Ok(())
}
