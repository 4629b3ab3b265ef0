//! Server-side apply: PATCH with `application/apply-patch+yaml` (KEP-555).

use super::manage::{self, Managing};
use super::{Call, Current, Response, create, scale, update};
use crate::http::request::Body;
use bytes::Bytes;
use coracle_api::decode::{self, FieldValidation};
use coracle_api::fields::{self, Applied, ApplyError, Conflict, How, Managers, Set};
use coracle_api::json::{Value, json};
use coracle_api::schema::TypeRef;
use coracle_api::status::{CauseReason, FieldPath, Reason};
use coracle_api::{Cause, Gvk, Status, go, meta as object_meta, schema, yaml};
use http::StatusCode;
use std::collections::BTreeMap;

/// The media type of an applied configuration.
pub(super) const MEDIA_TYPE: &str = "application/apply-patch+yaml";

pub(super) const PATCH_OPTIONS: Gvk = Gvk::of("meta.k8s.io", "v1", "PatchOptions");

/// What kubectl apply keeps of the last configuration, for its own merge.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// The manager whose applies take over from client-side apply.
const KUBECTL: &str = "kubectl";
/// Who owns what stood there before anybody kept account.
const BEFORE: &str = "before-first-apply";
/// The most bytes of annotations (apimachinery `TotalAnnotationSizeLimitB`).
const ANNOTATIONS_MAX: usize = 256 << 10;

pub(super) async fn apply(call: Call, body: Body) -> Result<Response, Status> {
    let gvk = call.gvk();
    let row = call.row().clone();
    let served = call.resolved.served;
    let config = read(&call, &body, &gvk, row.type_ref(served)?, row.reading_type(served)?)?;
    let (code, json) = write(&call, &config).await?;
    call.answer(code, json)
}

/// An apply of a Scale sets the replicas of the object that it is the scale of, under the subresource's name.
pub(super) async fn apply_scale(call: Call, body: Body) -> Result<Response, Status> {
    let ty = schema::of(&scale::SCALE).ok_or_else(|| Status::internal("no schema for Scale"))?;
    let config = read(&call, &body, &scale::SCALE, ty, ty)?;
    let gvk = call.gvk();
    let mut object =
        json!({"apiVersion": gvk.api_version(), "kind": &*gvk.kind, "metadata": config["metadata"].clone()});
    if let Some(replicas) = config.pointer("/spec/replicas") {
        object["spec"] = json!({"replicas": replicas});
    }
    let (_, json) = write(&call.of_spec(), &object).await?;
    let written: Value = serde_json::from_slice(&json).map_err(Status::internal)?;
    scale::answer(&call, &written, object_meta::resource_version(&written))
}

/// The configuration in a body: checked against its type, and read as any object of `reading` is.
fn read(call: &Call, body: &Body, gvk: &Gvk, ty: TypeRef<'_>, reading: TypeRef<'_>) -> Result<Value, Status> {
    if call.options.field_manager.as_deref().is_none_or(str::is_empty) {
        let cause = Cause::required(&FieldPath::new("fieldManager"), "is required for apply patch");
        return Err(Status::invalid(&PATCH_OPTIONS, "", vec![cause]));
    }
    let unreadable = |why: String| Status::bad_request(format!("error decoding YAML: {why}"));
    let no_json = |why: &str| unreadable(format!("error converting YAML to JSON: {why}"));
    let (raw, twice) = loosely(&body.bytes).map_err(|error| no_json(&error.to_string()))?;
    if !raw.is_object() && !raw.is_null() {
        let found = go::kind(&raw);
        return Err(unreadable(format!(
            "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {found} into Go value of type map[string]interface {{}}"
        )));
    }
    let (version, kind) = (object_meta::api_version(&raw), object_meta::kind(&raw));
    if version != gvk.api_version() || kind != &*gvk.kind {
        return Err(Status::bad_request(format!("invalid object type: {}, Kind={kind}", group_version(version))));
    }
    if raw.pointer("/metadata/managedFields").is_some_and(|fields| !fields.is_null()) {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    fields::check(&raw, ty).map_err(|why| {
        let (namespace, name) = (object_meta::namespace(&raw), object_meta::name(&raw));
        let kind = format!("{}, Kind={kind}", group_version(version));
        let message = format!("failed to create typed patch object ({namespace}/{name}; {kind}): {why}");
        Status::new(500, Reason::Unknown, message)
    })?;
    let validation = call.options.field_validation;
    if validation == FieldValidation::Strict && !twice.is_empty() {
        let why = yaml::unmarshal_errors(&twice);
        return Err(Status::bad_request(format!("error strict decoding YAML: error converting YAML to JSON: {why}")));
    }
    // What is applied is owned also where it holds nothing.
    let decoded = decode::partial(raw, reading, validation)?;
    if validation == FieldValidation::Warn {
        call.warn(twice);
        call.warn(decoded.warnings);
    }
    Ok(decoded.object)
}

/// What a configuration says, and what it says twice. Most are JSON, which is read faster as that.
fn loosely(bytes: &[u8]) -> Result<(Value, Vec<String>), yaml::Error> {
    if bytes.trim_ascii_start().starts_with(b"{")
        && let Ok((value, twice)) = decode::any(bytes, true)
        && twice.is_empty()
    {
        return Ok((value, twice));
    }
    yaml::parse_loosely(bytes)
}

/// As Go prints a group and version: the core group leaves its slash.
fn group_version(api_version: &str) -> String {
    if api_version.contains('/') { api_version.to_owned() } else { format!("/{api_version}") }
}

/// Applies a configuration of the call's own kind, and creates the object when it is not there.
async fn write(call: &Call, config: &Value) -> Result<(StatusCode, bytes::Bytes), Status> {
    let name = object_meta::name(config);
    if !name.is_empty() && name != call.name {
        return Err(Status::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            call.name
        )));
    }
    let ty = call.row().type_ref(call.resolved.served)?;
    for _ in 0..update::ATTEMPTS {
        let current = match call.current().await {
            Ok(current) => current,
            Err(status) if status.code == 404 && call.subresource.is_none() && !call.of_scale => {
                match create(call, config, ty).await {
                    // Somebody else made it meanwhile: then it is an update.
                    Err(status) if status.reason == Reason::AlreadyExists => continue,
                    created => return created.map(|json| (StatusCode::CREATED, json)),
                }
            }
            Err(status) => return Err(status),
        };
        let (object, managed_fields) = merged(call, &current, config, ty)?;
        let written = update::write(call, &current, object, true, Managing::Applied(managed_fields)).await?;
        if let Some(written) = written {
            return Ok((StatusCode::OK, written.json));
        }
        if !object_meta::resource_version(config).is_empty() {
            return Err(Status::modified(&call.gvr(), &call.name));
        }
    }
    Err(Status::modified(&call.gvr(), &call.name))
}

async fn create(call: &Call, config: &Value, ty: TypeRef<'_>) -> Result<bytes::Bytes, Status> {
    let uid = object_meta::uid(config);
    if !uid.is_empty() {
        let why = format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
        return Err(Status::conflict(&call.gvr(), &call.name, &why));
    }
    if !object_meta::resource_version(config).is_empty() {
        return Err(call.not_found());
    }
    update::may_create(call)?;
    let applied = run(call, &Managers::default(), &json!({}), config, ty)?;
    let mut object = complete(call, applied.object)?;
    object_meta::set(&mut object, "name", call.name.as_str());
    let managed_fields = applied.managed_fields.map(Bytes::from);
    Ok(create::create_object(call, object, Managing::Applied(managed_fields)).await?.json)
}

/// The object as it is to be, in the version of the call, with its owners.
fn merged(call: &Call, current: &Current, config: &Value, ty: TypeRef<'_>) -> Result<(Value, Option<Bytes>), Status> {
    let mut live = current.value.clone();
    call.row().to_served(&mut live, call.resolved.served);
    let known = current.managed_fields.as_deref().map(Managers::decode).transpose();
    let known =
        known.map_err(|why| Status::new(500, Reason::Unknown, format!("failed to decode managed fields: {why}")))?;
    let applied = match known.filter(|managers| !managers.is_empty()) {
        Some(managers) => run(call, &managers, &live, config, ty)?,
        None => {
            // Nobody kept account: what stands there belongs to whoever wrote it before.
            let before = call.as_writer(|writer| {
                let writer = fields::Writer { manager: BEFORE, subresource: "", ..*writer };
                fields::encode_created(&live, ty, &writer, &Set::default())
            });
            let before = before.as_deref().and_then(|before| Managers::decode(before).ok()).unwrap_or_default();
            run(call, &before, &live, config, ty)?
        }
    };
    let mut object = complete(call, applied.object)?;
    let gvk = call.gvk();
    object["apiVersion"] = gvk.api_version().into();
    object["kind"] = gvk.kind.to_string().into();
    if object_meta::resource_version(config).is_empty() {
        object_meta::set(&mut object, "resourceVersion", current.revision.to_string());
    }
    if call.manager() == KUBECTL {
        keep_last_applied(&mut object, config);
    }
    Ok((object, applied.managed_fields.map(Bytes::from)))
}

/// A merged object as reading it would make it.
fn complete(call: &Call, object: Value) -> Result<Value, Status> {
    let reading = call.row().reading_type(call.resolved.served)?;
    let mut object = decode::check(object, reading, FieldValidation::Ignore)?.object;
    // What is kept below a field that keeps unknown ones may yet be unknown itself.
    if let Some(custom) = call.row().strategy.custom() {
        custom.prune(&mut object);
    }
    Ok(object)
}

/// One apply on a live object in the call's version.
fn run(call: &Call, managers: &Managers<'_>, live: &Value, config: &Value, ty: TypeRef<'_>) -> Result<Applied, Status> {
    let filter = manage::filter(call);
    let siblings = call.siblings(managers.versions());
    let convert = |from: &str, to: &str, object: &Value| {
        let mut stored = object.clone();
        // What differs between the rows of a custom resource is how objects are shown, not how they are stored.
        let served = call.served_as(from).or((!siblings.is_empty()).then_some(0))?;
        call.row().to_stored(&mut stored, served);
        call.in_version(&siblings, &stored, to)
    };
    let none = Set::default();
    let force = call.options.force.unwrap_or(false);
    let try_to = |allowed: &Set<'_>| {
        let how = How { force, filter: &filter, allowed, convert: &convert };
        call.as_writer(|writer| managers.apply(live, config, ty, writer, &how))
    };
    let applied = match try_to(&none) {
        Err(ApplyError::Conflicts(conflicts)) if call.manager() == KUBECTL => {
            let last = object_meta::annotation(live, LAST_APPLIED).and_then(|text| serde_json::from_str(text).ok());
            match last.as_ref().and_then(|last| still_applied(last, live, ty)) {
                Some(allowed) => try_to(&allowed),
                None => Err(ApplyError::Conflicts(conflicts)),
            }
        }
        applied => applied,
    };
    applied.map_err(|ApplyError::Conflicts(conflicts)| conflict(&conflicts))
}

/// kubectl's own client-side apply does not stand in the way of its server-side apply: what it applied last, and what is so
/// still, is kubectl's to take. None where it applied in another version, or what does not fit (fieldmanager
/// `lastappliedmanager.go`).
fn still_applied<'v>(last: &'v Value, live: &Value, ty: TypeRef<'_>) -> Option<Set<'v>> {
    if object_meta::api_version(last) != object_meta::api_version(live) || fields::check(last, ty).is_err() {
        return None;
    }
    let since = fields::compare(last, live, ty);
    Some(fields::paths(last, ty).difference(&since.changed).difference(&since.removed))
}

/// kubectl's annotation follows, where it is there, so that client-side apply goes on to work (`lastappliedupdater.go`).
fn keep_last_applied(object: &mut Value, config: &Value) {
    if object_meta::annotation(object, LAST_APPLIED).is_none() {
        return;
    }
    let mut config = config.clone();
    if let Some(annotations) = config.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove(LAST_APPLIED);
    }
    let text = format!("{}\n", go::sorted_json(&config));
    let others: usize = object_meta::annotations(object)
        .into_iter()
        .flatten()
        .filter(|(key, _)| *key != LAST_APPLIED)
        .map(|(key, value)| key.len() + value.as_str().map_or(0, str::len))
        .sum();
    let Some(Value::Object(annotations)) = object.pointer_mut("/metadata/annotations") else { return };
    if others + LAST_APPLIED.len() + text.len() > ANNOTATIONS_MAX {
        annotations.remove(LAST_APPLIED);
    } else {
        annotations.insert(LAST_APPLIED.to_owned(), text.into());
    }
}

/// 409, naming each field and its owner (fieldmanager `conflict.go`).
fn conflict(conflicts: &[Conflict]) -> Status {
    let message = match conflicts {
        [one] => format!("Apply failed with 1 conflict: conflict with {}: {}", one.owner, one.path),
        many => {
            let mut by_owner: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
            for conflict in many {
                by_owner.entry(&conflict.owner).or_default().push(&conflict.path);
            }
            let lines = by_owner.into_iter().flat_map(|(owner, paths)| {
                let paths = paths.into_iter().map(|path| format!("- {path}"));
                std::iter::once(format!("conflicts with {owner}:")).chain(paths)
            });
            format!("Apply failed with {} conflicts: {}", many.len(), lines.collect::<Vec<_>>().join("\n"))
        }
    };
    let causes = conflicts.iter().map(|conflict| {
        let message = format!("conflict with {}", conflict.owner);
        Cause::new(CauseReason::FieldManagerConflict, &conflict.path, message)
    });
    Status::new(409, Reason::Conflict, message).with_causes(causes.collect())
}
