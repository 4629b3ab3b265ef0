//! UPDATE, and what updates and patches share.

use super::manage::{self, Managing};
use super::{Call, Current, Replacement, Response, Written, allocate, create};
use crate::admission;
use crate::cache::with_revision;
use crate::http::request::Body;
use crate::registry::{Subresource, meta};
use crate::store::Op;
use coracle_api::json::Value;
use coracle_api::{Gvk, Status, meta as object_meta};
use http::StatusCode;

/// How often a write that lost a race is tried again.
pub(super) const ATTEMPTS: usize = 16;

pub(super) async fn update(call: Call, body: Body) -> Result<Response, Status> {
    for attempt in 0..ATTEMPTS {
        // What a try does not write it has changed: few are tried again, and those are read again.
        let (mut object, empty) = body.object_and_empty(&call)?;
        call.warn(meta::merge_owners(&mut object, ""));
        meta::check_name(&call, &object)?;
        let managing = if empty.is_empty() { Managing::Tracked } else { Managing::With(empty) };
        let current = match call.current().await {
            Ok(current) => current,
            Err(status) if status.code == 404 => return create_instead(&call, object, managing, status).await,
            Err(status) => return Err(status),
        };
        if attempt > 0 && !object_meta::resource_version(&object).is_empty() {
            return Err(Status::modified(&call.gvr(), &call.name));
        }
        check_uid(&call, &current, &object)?;
        if let Some(written) = write(&call, &current, object, true, managing).await? {
            return call.answer(StatusCode::OK, written.json);
        }
    }
    Err(Status::modified(&call.gvr(), &call.name))
}

/// PUT to a name that is not there.
async fn create_instead(
    call: &Call,
    mut object: Value,
    managing: Managing,
    absent: Status,
) -> Result<Response, Status> {
    check_absent(call, &object)?;
    if call.subresource.is_some() || !call.row().strategy.traits().create_on_update {
        return Err(absent);
    }
    may_create(call)?;
    // Nothing is there that it could be the version of (registry/generic/registry `Store.Update`).
    object_meta::set(&mut object, "resourceVersion", Value::Null);
    let written = create::create_object(call, object, managing).await?;
    call.answer(StatusCode::CREATED, written.json)
}

/// Refuses who may change what is there, but not make it (apiserver `endpoints/handlers/update.go`, `withAuthorization`).
pub(super) fn may_create(call: &Call) -> Result<(), Status> {
    call.check_right("create")
}

/// One try to write `object` over `current`. None when somebody else was faster.
pub(super) async fn write(
    call: &Call,
    current: &Current,
    mut object: Value,
    converted: bool,
    managing: Managing,
) -> Result<Option<Written>, Status> {
    let row = call.row().clone();
    let strategy = &*row.strategy;
    meta::check_location(call, &mut object)?;
    if converted {
        row.to_stored(&mut object, call.resolved.served);
    }
    call.check_fit(&object, Some(&current.value))?;
    check_preconditions(call, current, &object)?;
    strategy.default(&mut object);
    let given = object_meta::metadata_mut(&mut object).and_then(|metadata| metadata.remove("managedFields"));
    let manage = |object: &Value| match managing {
        Managing::Tracked => manage::updated(call, object, current, given, &[]),
        Managing::With(empty) => manage::updated(call, object, current, given, &empty),
        Managing::Applied(managed_fields) => managed_fields,
    };
    // They follow what was asked for, not what becomes of it (apiserver `endpoints/handlers/update.go`); of a part that is
    // written apart, nothing else was asked for.
    let (managed_fields, manage) =
        if call.subresource.is_none() { (manage(&object), None) } else { (None, Some(manage)) };
    {
        let context = call.context();
        let old = &current.value;
        match call.subresource {
            Some(Subresource::Status) => {
                meta::keep_but_status(&row, &mut object, old);
                meta::prepare_update(&mut object, old);
                strategy.prepare_subresource(Subresource::Status, &mut object, old, &context);
            }
            Some(subresource) => {
                meta::keep_but(subresource, &mut object, old);
                meta::prepare_update(&mut object, old);
                strategy.prepare_subresource(subresource, &mut object, old, &context);
                if matches!(subresource, Subresource::EphemeralContainers | Subresource::Resize) {
                    meta::count_generation(&row, &mut object, old);
                }
            }
            None => {
                if row.has(Subresource::Status) && !strategy.traits().status_on_update {
                    crate::registry::fields::copy(&mut object, old, "status");
                }
                meta::prepare_update(&mut object, old);
                strategy.prepare_update(&mut object, old, &context);
                meta::count_generation(&row, &mut object, old);
            }
        }
    }
    let managed_fields = manage.map_or(managed_fields, |manage| manage(&object));
    admission::mutate_update(call, &mut object, &current.value)?;
    validate(call, &object, &current.value)?;
    match call.subresource {
        None => {
            call.warn(strategy.warnings(&object, Some(&current.value)));
            call.warn(meta::finalizer_warnings(&row, &object, Some(&current.value)));
        }
        Some(Subresource::Status) => call.warn(strategy.status_warnings(&object)),
        Some(_) => {}
    }
    admission::validate_update(call, &object, &current.value)?;
    let allocated = if call.subresource.is_none() {
        allocate::for_update(call, &mut object, &current.value)?
    } else {
        allocate::Allocated::default()
    };
    let whole = call.subresource.is_some() || !same_beside_metadata(&object, &current.value);
    let new = Replacement { managed_fields: managed_fields.as_ref(), ..current.with_parts(&object, whole) };
    if meta::is_finished(&object, &current.value) {
        // The last finalizer went: the object goes with it.
        let mut given = allocate::release(call, &current.value)?;
        given.ops.extend(allocated.ops.into_iter().filter(|op| matches!(op, Op::Delete { .. })));
        let removed = call.remove_if(current, None, given.compare, dedup(given.ops)).await?;
        return Ok(removed.map(|_| Written { json: with_revision(&new.encode(), current.revision) }));
    }
    replace_allocated(call, current, &new, allocated).await
}

/// Whether nothing but metadata is another than before.
fn same_beside_metadata(object: &Value, old: &Value) -> bool {
    let (Some(object), Some(old)) = (object.as_object(), old.as_object()) else { return false };
    object.len() == old.len()
        && object.iter().all(|(name, value)| {
            name == "metadata" || old.get(name).is_some_and(|old| coracle_api::json::same(value, old))
        })
}

fn dedup(mut ops: Vec<Op>) -> Vec<Op> {
    let mut seen = std::collections::HashSet::new();
    ops.retain(|op| seen.insert(op.key().clone()));
    ops
}

/// Writes the object together with what it was allocated.
async fn replace_allocated(
    call: &Call,
    current: &Current,
    new: &Replacement<'_>,
    allocated: allocate::Allocated,
) -> Result<Option<Written>, Status> {
    if allocated.compare.is_empty() {
        return call.replace(current, new, allocated.ops).await;
    }
    call.replace_if(current, new, allocated.compare, allocated.ops).await
}

/// A whole object that is put is meant for the one that it was read from; what a patch changes is judged as a change.
pub(super) fn check_uid(call: &Call, current: &Current, object: &Value) -> Result<(), Status> {
    let uid = object_meta::uid(object);
    let known = object_meta::uid(&current.value);
    if !uid.is_empty() && uid != known {
        return Err(precondition_failed(call, "UID", uid, known));
    }
    Ok(())
}

/// Nothing at all is not what a put object was read from, either: the uid is looked at before it is found missing (apiserver
/// `storage/etcd3`, GuaranteedUpdate).
pub(super) fn check_absent(call: &Call, object: &Value) -> Result<(), Status> {
    match object_meta::uid(object) {
        "" => Ok(()),
        uid => Err(precondition_failed(call, "UID", uid, "")),
    }
}

/// 409: the object is another one than what is written was meant for (apiserver `storage`, `Preconditions.Check`).
pub(super) fn precondition_failed(call: &Call, what: &str, wanted: &str, found: &str) -> Status {
    let why = format!(
        "StorageError: invalid object, Code: 4, Key: {}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}",
        call.store_key(&call.name)
    );
    Status::conflict(&call.gvr(), &call.name, &why)
}

fn check_preconditions(call: &Call, current: &Current, object: &Value) -> Result<(), Status> {
    match object_meta::resource_version(object) {
        "" | "0" if call.row().strategy.traits().unconditional_update => Ok(()),
        "" | "0" => {
            let path = coracle_api::status::FieldPath::new("metadata.resourceVersion");
            let cause = coracle_api::Cause::invalid(&path, 0, "must be specified for an update");
            // Upstream's store knows the resource's name alone, and gives it for the kind.
            let gvk = Gvk { kind: call.gvr().resource, ..call.gvk() };
            Err(Status::invalid(&gvk, &call.name, vec![cause]))
        }
        version => match version.parse::<u64>() {
            Ok(version) if version == current.revision => Ok(()),
            Ok(_) => Err(Status::modified(&call.gvr(), &call.name)),
            Err(_) => {
                let path = coracle_api::status::FieldPath::new("metadata.resourceVersion");
                let cause = coracle_api::Cause::invalid(&path, version, "must be an unsigned integer");
                Err(Status::invalid(&call.gvk(), &call.name, vec![cause]))
            }
        },
    }
}

fn validate(call: &Call, object: &Value, old: &Value) -> Result<(), Status> {
    let row = call.row();
    let strategy = &*row.strategy;
    let mut causes = Vec::new();
    meta::validate_update(call.row(), object, old, &mut causes);
    match call.subresource {
        None => {
            strategy.validate_changed(object, old, &mut causes);
            strategy.validate_served(object, Some(old), call.resolved.served, &mut causes);
        }
        Some(Subresource::Status) => strategy.validate_status(object, old, &mut causes),
        Some(other) => strategy.validate_subresource(other, object, old, &mut causes),
    }
    if causes.is_empty() { Ok(()) } else { Err(Status::invalid(&call.gvk(), &call.name, causes)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::embedded::Embedded;
    use crate::{ApiServer, Config, UserInfo};
    use coracle_api::clock::SystemClock;
    use http_body_util::BodyExt;
    use std::sync::Arc;
    use tower::ServiceExt;

    /// Of writers that put at the same time, those who name no version all succeed, with what each of them put; of those who name
    /// the version that they read, one does.
    #[tokio::test]
    async fn who_loses_a_race_tries_again_with_what_was_put() {
        let store = Arc::new(Embedded::in_memory(Arc::new(SystemClock::new())).unwrap());
        let authority = coracle_pki::Authority::create("test", jiff::Timestamp::now()).unwrap();
        let config = Config::new(store, authority.cert_pem(), "127.0.0.1:6443".parse().unwrap());
        let server = ApiServer::start(config).await.unwrap();
        let service = server.service(UserInfo::admin());
        let send = async |method: &str, path: &str, body: Value| {
            let request = http::Request::builder().method(method).uri(path).header("content-type", "application/json");
            let request = request.body(axum::body::Body::from(body.to_string())).unwrap();
            let response = service.clone().oneshot(request).await.unwrap();
            let status = response.status();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            (status, coracle_api::json::read(&body).unwrap())
        };
        let map = |number: usize, version: &str| {
            coracle_api::json!({"apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": "a", "namespace": "default", "resourceVersion": version, "labels": {"n": number.to_string()}},
                "data": {"number": number.to_string()}})
        };
        let (made, _) = send("POST", "/api/v1/namespaces/default/configmaps", map(0, "")).await;
        assert_eq!(made, StatusCode::CREATED);
        let path = "/api/v1/namespaces/default/configmaps/a";
        let put = |version: &str, first: usize| {
            futures::future::join_all((first..first + 8).map(|number| send("PUT", path, map(number, version))))
        };
        for (nth, (status, object)) in put("", 1).await.into_iter().enumerate() {
            let number = Value::from((nth + 1).to_string());
            assert_eq!(status, StatusCode::OK, "{object}");
            assert_eq!((&object["data"]["number"], &object["metadata"]["labels"]["n"]), (&number, &number));
        }
        let (_, last) = send("GET", path, Value::Null).await;
        let answers = put(object_meta::resource_version(&last), 9).await;
        let refused = answers.iter().filter(|(status, _)| *status == StatusCode::CONFLICT).count();
        assert_eq!((refused, answers.iter().filter(|(status, _)| *status == StatusCode::OK).count()), (7, 1));
        server.stop().await;
    }
}
