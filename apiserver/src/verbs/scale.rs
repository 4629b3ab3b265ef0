//! The scale subresource: replicas and selector of any kind that has them.

use super::manage::Managing;
use super::{Call, Current, Response, apply, patch, update};
use crate::http::render;
use crate::http::request::Body;
use crate::registry::meta;
use coracle_api::decode::FieldValidation;
use coracle_api::json::{Value, json};
use coracle_api::selector::LabelSelector;
use coracle_api::status::FieldPath;
use coracle_api::{Cause, Gvk, Gvr, Status, meta as object_meta, schema};
use http::StatusCode;

pub(super) const SCALE: Gvk = Gvk::of("autoscaling", "v1", "Scale");

pub(super) async fn get(call: Call) -> Result<Response, Status> {
    let current = call.current().await.map_err(|status| absent(&call, status))?;
    if let Some((wanted, ..)) = call.row().strategy.scale().and_then(|paths| paths.custom)
        && current.value.pointer(wanted).is_none_or(Value::is_null)
    {
        // What has no replicas has no scale (apiextensions `registry/customresource/etcd.go`).
        let path = wanted.replace('/', ".");
        return Err(Status::internal(format!("the spec replicas field {path:?} does not exist")));
    }
    answer(&call, &current.value, &current.revision.to_string())
}

/// Upstream's 404 names the scale; of a core kind, in the group of scales.
fn absent(call: &Call, status: Status) -> Status {
    // StatefulSets and custom resources tell it of the object.
    if status.code != 404 || call.row().strategy.custom().is_some() || &*call.row().kind == "StatefulSet" {
        return status;
    }
    let Gvr { group, version, resource } = call.gvr();
    let group = if group.is_empty() { SCALE.group.clone() } else { group };
    Status::not_found(&Gvr { group, version, resource: format!("{resource}/scale").into() }, &call.name)
}

pub(super) async fn update(call: Call, body: Body) -> Result<Response, Status> {
    let (scale, warnings) = body.of_kind(&SCALE, call.options.field_validation)?;
    meta::check_name(&call, &scale)?;
    call.warn(warnings);
    match write(&call, |_| Ok(scale.clone())).await {
        Err(status) if status.code == 404 => update::check_absent(&call, &scale).and(Err(status)),
        answer => answer,
    }
}

pub(super) async fn patch(call: Call, body: Body) -> Result<Response, Status> {
    if body.content_type == apply::MEDIA_TYPE {
        return apply::apply_scale(call, body).await;
    }
    let kind = patch::patch_type(&call, &body.content_type)?;
    let type_ref = schema::of(&SCALE).ok_or_else(|| Status::internal("no schema for Scale"))?;
    write(&call, |shown| {
        let validation = call.options.field_validation;
        let collect = validation != FieldValidation::Ignore;
        let mut patched = coracle_api::patch::apply(kind, shown, &body.bytes, type_ref, collect)?;
        let scale = patched.read(type_ref, validation)?;
        call.warn(patched.settle(&scale, validation)?);
        Ok(scale)
    })
    .await
}

/// Takes the replicas from what `make` makes of the current scale.
async fn write(call: &Call, make: impl Fn(&Value) -> Result<Value, Status>) -> Result<Response, Status> {
    for _ in 0..update::ATTEMPTS {
        let current = call.current().await?;
        let shown = scale_of(call, &current.value, &current.revision.to_string());
        let wanted = make(&shown)?;
        meta::check_name(call, &wanted)?;
        update::check_uid(call, &current, &wanted)?;
        let replicas = wanted.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(0);
        if replicas < 0 {
            let cause =
                Cause::invalid(&FieldPath::new("spec.replicas"), replicas, "must be greater than or equal to 0");
            return Err(Status::invalid(&SCALE, &call.name, vec![cause]));
        }
        let version = object_meta::resource_version(&wanted);
        if !version.is_empty() && version != "0" && version != current.revision.to_string() {
            return Err(Status::modified(&call.gvr(), &call.name));
        }
        let mut object = current.value.clone();
        set_replicas(call, &mut object, replicas);
        if let Some(written) = update_spec(call, &current, object).await? {
            let revision = serde_json::from_slice::<Value>(&written.json).map_err(Status::internal)?;
            return answer(call, &revision, object_meta::resource_version(&revision));
        }
    }
    Err(Status::modified(&call.gvr(), &call.name))
}

/// Sets the replicas that are wanted, wherever the kind has them.
fn set_replicas(call: &Call, object: &mut Value, replicas: i64) {
    let custom = call.row().strategy.scale().and_then(|paths| paths.custom);
    let (wanted, ..) = custom.unwrap_or(("/spec/replicas", "", None));
    let mut at = object;
    for name in wanted.split('/').skip(1) {
        // Only objects stand on the way: the schema of a definition says so.
        if !at.is_object() {
            *at = json!({});
        }
        at = &mut at[name];
    }
    *at = replicas.into();
}

/// Writes the object as an update of its spec, which is what a change of its scale is.
async fn update_spec(call: &Call, current: &Current, object: Value) -> Result<Option<super::Written>, Status> {
    update::write(&call.of_spec(), current, object, false, Managing::Tracked).await
}

fn scale_of(call: &Call, object: &Value, revision: &str) -> Value {
    let paths = call.row().strategy.scale();
    let selector = object.pointer("/spec/selector");
    let text = match (paths.is_some_and(|paths| paths.structured_selector), selector) {
        (true, Some(selector)) => {
            LabelSelector::from_json(selector).map(|selector| selector.to_string()).unwrap_or_default()
        }
        (false, Some(Value::Object(labels))) => {
            let mut pairs: Vec<_> =
                labels.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
            pairs.sort_unstable();
            pairs.join(",")
        }
        _ => String::new(),
    };
    let (wanted, there, text) = match paths.and_then(|paths| paths.custom) {
        None => ("/spec/replicas", "/status/replicas", text),
        Some((wanted, there, selector)) => {
            let text = selector.and_then(|selector| object.pointer(selector)).and_then(Value::as_str);
            (wanted, there, text.unwrap_or_default().to_owned())
        }
    };
    let mut scale = json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": object_meta::name(object), "namespace": object_meta::namespace(object), "uid": object_meta::uid(object),
            "resourceVersion": revision, "creationTimestamp": object_meta::creation_timestamp(object),
        },
        "spec": {}, "status": { "replicas": object.pointer(there).filter(|replicas| replicas.is_i64()).cloned().unwrap_or_else(|| 0.into()) },
    });
    if let Some(replicas) = object.pointer(wanted).filter(|replicas| replicas.as_i64() != Some(0)) {
        scale["spec"]["replicas"] = replicas.clone();
    }
    if !text.is_empty() {
        scale["status"]["selector"] = text.into();
    }
    scale
}

pub(super) fn answer(call: &Call, object: &Value, revision: &str) -> Result<Response, Status> {
    let scale = scale_of(call, object, revision);
    render::value(call, StatusCode::OK, &SCALE, &scale)
}
