//! Binding a pod to a node.

use super::{Call, Response, update};
use crate::http::render;
use crate::http::request::Body;
use coracle_api::clock::rfc3339;
use coracle_api::status::FieldPath;
use coracle_api::{Cause, Gvk, Status, meta as object_meta};
use http::StatusCode;
use serde_json::{Value, json};

const BINDING: Gvk = Gvk::of("", "v1", "Binding");

pub(super) async fn bind(mut call: Call, body: Body) -> Result<Response, Status> {
    let (binding, _) = body.of_kind(&BINDING, call.options.field_validation)?;
    let name = object_meta::name(&binding);
    if call.name.is_empty() {
        name.clone_into(&mut call.name);
    } else if !name.is_empty() && name != call.name {
        return Err(Status::bad_request("name in URL does not match name in Binding object"));
    }
    let node = check(&binding, &call.name)?;
    for _ in 0..update::ATTEMPTS {
        let current = call.current().await?;
        let mut pod = current.value.clone();
        assign(&call, &mut pod, &binding, node)?;
        if call.replace(&current, &current.with(&pod), Vec::new()).await?.is_some() {
            let mut done = Status::success();
            done.code = StatusCode::CREATED.as_u16();
            return Ok(render::status(&call.accept, &done));
        }
    }
    Err(Status::conflict(&call.gvr(), &call.name, "the pod is being written by others"))
}

fn check<'a>(binding: &'a Value, pod: &str) -> Result<&'a str, Status> {
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
    if causes.is_empty() {
        Ok(target["name"].as_str().unwrap_or_default())
    } else {
        Err(Status::invalid(&BINDING, pod, causes))
    }
}

/// Sets the node and the condition that says so (core/pod/storage `setPodHostAndAnnotations`).
fn assign(call: &Call, pod: &mut Value, binding: &Value, node: &str) -> Result<(), Status> {
    let conflict = |why: &str| Status::conflict(&coracle_api::Gvr::of("", "v1", "pods/binding"), &call.name, why);
    let uid = object_meta::uid(binding);
    if !uid.is_empty() && uid != object_meta::uid(pod) {
        let why =
            format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", object_meta::uid(pod));
        return Err(conflict(&why));
    }
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
    if let Some(annotations) = object_meta::annotations(binding).filter(|annotations| !annotations.is_empty()) {
        let mut merged = object_meta::annotations(pod).cloned().unwrap_or_default();
        merged.extend(annotations.clone());
        object_meta::set(pod, "annotations", Value::Object(merged));
    }
    let condition = json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": rfc3339(call.server.config.clock.now())});
    let status = crate::registry::fields::object_mut(pod, "status");
    let conditions = status.as_object_mut().map(|status| status.entry("conditions").or_insert_with(|| json!([])));
    if let Some(Value::Array(conditions)) = conditions {
        conditions.retain(|known| known.get("type").and_then(Value::as_str) != Some("PodScheduled"));
        conditions.push(condition);
    }
    Ok(())
}
