//! Metadata of every object: what the server fills in, keeps and checks (apiserver `registry/rest`, apimachinery
//! `api/validation`).

use super::fields::{self, invalid_all, items, text};
use super::strategy::WriteContext;
use super::{Row, Subresource};
use crate::verbs::Call;
use coracle_api::clock::rfc3339;
use coracle_api::json::Value;
use coracle_api::status::FieldPath;
use coracle_api::{Cause, Status, meta, validation};
use std::collections::HashSet;

/// The most bytes that all annotations may take together.
const ANNOTATIONS_MAX: usize = 256 << 10;

/// Fields of metadata that a create may not bring along.
const SERVER_OWNED: [&str; 8] = [
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "selfLink",
    "managedFields",
];

/// The namespace must be the one of the path; it is set when absent.
pub fn check_location(call: &Call, object: &mut Value) -> Result<(), Status> {
    let given = meta::namespace(object);
    if call.row().namespaced {
        if !given.is_empty() && given != call.namespace {
            return Err(Status::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        meta::set(object, "namespace", call.namespace.as_str());
    } else {
        meta::set(object, "namespace", Value::Null);
    }
    Ok(())
}

/// Name and namespace must be those of the path; the namespace can be left out (apiserver `checkName`).
pub fn check_name(call: &Call, object: &Value) -> Result<(), Status> {
    match meta::name(object) {
        "" => {
            let why = "was undeterminable: name must be provided";
            return Err(Status::bad_request(format!("the name of the object ({} based on URL) {why}", call.name)));
        }
        name if name != call.name => {
            return Err(Status::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({})",
                call.name
            )));
        }
        _ => {}
    }
    let (given, asked) = (meta::namespace(object), call.namespace.as_str());
    if !given.is_empty() && !asked.is_empty() && given != asked {
        return Err(Status::bad_request(format!(
            "the namespace of the object ({given}) does not match the namespace on the request ({asked})"
        )));
    }
    Ok(())
}

/// Leaves out owners that are told of already, and gives the warning about them; `when` is what it says besides
/// (apiserver `handlers/rest.go`, `dedupOwnerReferences`).
pub fn merge_owners(object: &mut Value, when: &str) -> Option<String> {
    let owners = object.get_mut("metadata")?.get_mut("ownerReferences")?.as_array_mut()?;
    const FIELDS: [&str; 6] = ["uid", "name", "kind", "apiVersion", "controller", "blockOwnerDeletion"];
    if owners.len() < 2 {
        return None;
    }
    let (mut seen, mut twice) = (HashSet::new(), Vec::new());
    owners.retain(|owner| {
        let new = seen.insert(FIELDS.map(|field| owner.get(field).map(Value::to_string)));
        if !new {
            twice.push(text(owner, "uid").to_owned());
        }
        new
    });
    let uids = twice.join(", ");
    (!twice.is_empty()).then(|| {
        format!(
            ".metadata.ownerReferences contains duplicate entries{when}; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {uids}"
        )
    })
}

/// Fills in what the server decides.
pub fn prepare_create(row: &Row, object: &mut Value, context: &WriteContext) {
    for field in SERVER_OWNED {
        meta::set(object, field, Value::Null);
    }
    if meta::name(object).is_empty() && !meta::generate_name(object).is_empty() {
        let name = context.names.generate(meta::generate_name(object));
        meta::set(object, "name", name);
    }
    meta::set(object, "uid", context.names.uid());
    meta::set(object, "creationTimestamp", rfc3339(context.now));
    if row.strategy.traits().generation {
        meta::set(object, "generation", 1);
    }
    if row.has(Subresource::Status) && !row.strategy.traits().status_on_create {
        match row.strategy.custom() {
            // In upstream's own types it is no pointer, and so it is written even when it says nothing.
            None => {
                let status = row.type_ref(0).ok().and_then(|ty| ty.field("status"));
                fields::set(
                    object,
                    "status",
                    status.map_or_else(|| coracle_api::json::Map::new().into(), |field| field.zero()),
                );
            }
            Some(_) => drop(fields::remove(object, "status")),
        }
    }
    fill_status(row, object);
}

/// Carries over what an update cannot change, so that leaving it out is no change.
pub fn prepare_update(object: &mut Value, old: &Value) {
    let known = old.get("metadata").unwrap_or(&Value::Null);
    // When the object goes is nothing that an update says: giving another time is an error, giving none is not.
    let ends = meta::deletion_timestamp(object).is_some_and(|time| known["deletionTimestamp"] != time);
    let kept = ["generation", "selfLink", "deletionGracePeriodSeconds", "deletionTimestamp"];
    for field in kept.into_iter().filter(|field| !(ends && *field == "deletionTimestamp")) {
        meta::set(object, field, known.get(field).cloned().unwrap_or(Value::Null));
    }
    for field in ["uid", "creationTimestamp"] {
        let given = object["metadata"].get(field).and_then(Value::as_str).unwrap_or_default();
        // The creation time cannot be changed, and an update that tries is no error (upstream keeps the old one).
        if given.is_empty() || field == "creationTimestamp" {
            meta::set(object, field, known.get(field).cloned().unwrap_or(Value::Null));
        }
    }
    meta::set(object, "generateName", known.get("generateName").cloned().unwrap_or(Value::Null));
}

/// Raises the generation when the spec changed.
pub fn count_generation(row: &Row, object: &mut Value, old: &Value) {
    if !row.strategy.traits().generation {
        return;
    }
    // Without the subresource, status is a field like any other (only custom resources have such a one).
    let apart = row.strategy.custom().is_none() || row.has(Subresource::Status);
    let meta_fields = ["metadata", "apiVersion", "kind", if apart { "status" } else { "kind" }];
    let names =
        |value: &Value| -> Vec<_> { value.as_object().into_iter().flat_map(|map| map.keys().cloned()).collect() };
    let desired = names(object).into_iter().chain(names(old)).filter(|name| !meta_fields.contains(&name.as_str()));
    let annotated = row.strategy.traits().annotations_count && meta::annotations(object) != meta::annotations(old);
    if annotated || desired.into_iter().any(|name| !fields::same(object, old, &name)) {
        meta::set(object, "generation", meta::generation(old) + 1);
    }
}

/// An update of the status: everything but status and metadata is as before.
pub fn keep_but_status(row: &Row, object: &mut Value, old: &Value) {
    let status = fields::remove(object, "status");
    let metadata = fields::remove(object, "metadata");
    *object = old.clone();
    if let Some(metadata) = metadata {
        fields::set(object, "metadata", metadata);
    }
    match status {
        Some(status) => fields::set(object, "status", status),
        // In upstream's own types it is no pointer.
        None if row.strategy.custom().is_none() => fields::set(object, "status", coracle_api::json::Map::new()),
        None => drop(fields::remove(object, "status")),
    }
    fill_status(row, object);
    let old_meta = old.get("metadata").unwrap_or(&Value::Null);
    for field in row.strategy.traits().through_status.kept() {
        meta::set(object, field, old_meta.get(field).cloned().unwrap_or(Value::Null));
    }
}

/// Adds what the status says though it is nothing.
fn fill_status(row: &Row, object: &mut Value) {
    let blank = row.strategy.blank_status();
    if !blank.is_null() {
        fill(fields::object_mut(object, "status"), &blank);
    }
}

fn fill(value: &mut Value, blank: &Value) {
    for (name, blank) in blank.as_object().into_iter().flatten() {
        if blank.is_object() {
            fill(fields::object_mut(value, name), blank);
        } else if value.get(name).is_none_or(Value::is_null) {
            fields::set(value, name, blank.clone());
        }
    }
}

/// Another subresource: only its own part of the object is taken.
pub fn keep_but(subresource: Subresource, object: &mut Value, old: &Value) {
    let new = std::mem::replace(object, old.clone());
    // The revision it is meant for has been compared already; the rest of the metadata stays.
    match subresource {
        Subresource::EphemeralContainers => fields::copy(&mut object["spec"], &new["spec"], "ephemeralContainers"),
        Subresource::Finalize => {
            fields::copy(&mut object["spec"], &new["spec"], "finalizers");
            // Upstream's strategy keeps nothing but the status.
            fields::copy(object, &new, "metadata");
        }
        Subresource::Approval => match new.pointer("/status/conditions").filter(|conditions| !conditions.is_null()) {
            Some(conditions) => fields::set(fields::object_mut(object, "status"), "conditions", conditions.clone()),
            None => {
                if let Some(status) = object.get_mut("status") {
                    fields::remove(status, "conditions");
                }
            }
        },
        Subresource::Resize => {
            fields::copy(&mut object["spec"], &new["spec"], "resources");
            for list in ["containers", "initContainers"] {
                let (wanted, known) = (items(&new["spec"], list), items(&object["spec"], list));
                let same = wanted.len() == known.len()
                    && wanted.iter().zip(known).all(|(new, known)| text(new, "name") == text(known, "name"));
                if !same {
                    // Others, or in another order: that is refused, and so it must be seen (core/pod `dropNonResizeUpdates`).
                    fields::copy(&mut object["spec"], &new["spec"], list);
                    continue;
                }
                for (container, wanted) in fields::items_mut(&mut object["spec"], list).zip(wanted) {
                    fields::copy(container, wanted, "resources");
                    fields::copy(container, wanted, "resizePolicy");
                }
            }
        }
        _ => {}
    }
}

/// An object that is being deleted and waits for nothing any more.
pub fn is_finished(object: &Value, old: &Value) -> bool {
    let own = meta::kind(object) == "Namespace" && !items(&object["spec"], "finalizers").is_empty();
    meta::deletion_timestamp(old).is_some()
        && meta::deletion_grace_period(old).unwrap_or(0) == 0
        && meta::finalizers(object).next().is_none()
        && !own
}

/// Checks metadata of a new object.
pub fn validate(row: &Row, object: &Value, causes: &mut Vec<Cause>) {
    let path = FieldPath::new("metadata");
    let generate = meta::generate_name(object);
    if !generate.is_empty() {
        // The last character may be a dash here, because a suffix follows.
        let prefix = generate.trim_end_matches('-');
        invalid_all(&path.child("generateName"), generate, (row.strategy.name_rule())(prefix), causes);
    }
    match meta::name(object) {
        "" => causes.push(Cause::required(&path.child("name"), "name or generateName is required")),
        name => invalid_all(&path.child("name"), name, (row.strategy.name_rule())(name), causes),
    }
    if row.namespaced {
        let namespace = meta::namespace(object);
        if namespace.is_empty() {
            causes.push(Cause::required(&path.child("namespace"), ""));
        } else {
            invalid_all(&path.child("namespace"), namespace, validation::dns1123_label(namespace), causes);
        }
    }
    validate_common(row, object, &path, causes);
}

/// What to tell whoever gives a custom resource a finalizer that others may take for theirs (apiextensions
/// `registry/customresource/strategy.go`).
pub fn finalizer_warnings(row: &Row, object: &Value, old: Option<&Value>) -> Vec<String> {
    if row.strategy.custom().is_none() {
        return Vec::new();
    }
    let known = |name: &str| old.is_some_and(|old| meta::finalizers(old).any(|old| old == name));
    let plain = meta::finalizers(object).filter(|name| !name.contains('/') && !known(name));
    plain
        .map(|name| {
            format!(
                "metadata.finalizers: {name:?}: prefer a domain-qualified finalizer name to avoid accidental conflicts with other finalizer writers"
            )
        })
        .collect()
}

fn validate_common(row: &Row, object: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let metadata = object.get("metadata").unwrap_or(&Value::Null);
    fields::labels(metadata.get("labels"), &path.child("labels"), causes);
    let mut size = 0;
    for (key, value) in meta::annotations(object).into_iter().flatten() {
        size += key.len() + value.as_str().map_or(0, str::len);
        invalid_all(&path.child("annotations"), key, validation::qualified_name(&key.to_ascii_lowercase()), causes);
    }
    if size > ANNOTATIONS_MAX {
        causes.push(Cause::too_long(&path.child("annotations"), ANNOTATIONS_MAX));
    }
    owners(metadata, &path.child("ownerReferences"), causes);
    finalizers(row, object, &path.child("finalizers"), causes);
}

/// The owners, which upstream reports without their place in the list (apimachinery `ValidateOwnerReferences`).
fn owners(metadata: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let mut controller = None;
    for owner in items(metadata, "ownerReferences") {
        let version = text(owner, "apiVersion");
        if version.is_empty() || version.matches('/').count() > 1 {
            causes.push(Cause::invalid(&path.child("apiVersion"), version, "version must not be empty"));
        }
        for field in ["kind", "name", "uid"] {
            if text(owner, field).is_empty() {
                causes.push(Cause::invalid(&path.child(field), "", "must not be empty"));
            }
        }
        if version == "v1" && text(owner, "kind") == "Event" {
            let why = "/v1, Kind=Event is disallowed from being an owner";
            causes.push(Cause::invalid(path, owner.clone(), why));
        }
        if owner.get("controller").and_then(Value::as_bool) == Some(true) {
            let this = format!("{}/{}", text(owner, "kind"), text(owner, "name"));
            let Some(first) = &controller else {
                controller = Some(this);
                continue;
            };
            let why = format!(
                "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"
            );
            causes.push(Cause::invalid(path, metadata["ownerReferences"].clone(), why));
        }
    }
}

/// Names of finalizers.
fn finalizers(row: &Row, object: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    for finalizer in meta::finalizers(object) {
        invalid_all(path, finalizer, validation::qualified_name(finalizer), causes);
    }
    let has = |name: &str| meta::finalizers(object).any(|finalizer| finalizer == name);
    if has("orphan") && has("foregroundDeletion") {
        let all = object["metadata"]["finalizers"].clone();
        let why = "finalizer orphan and foregroundDeletion cannot be both set";
        causes.push(Cause::invalid(path, all, why));
    }
    // Servers of their own, which know no core kinds, define these two groups upstream.
    let apart = row.schema.is_some()
        || row.served.iter().any(|(group, _)| ["apiextensions.k8s.io", "apiregistration.k8s.io"].contains(&&**group));
    for (nth, finalizer) in meta::finalizers(object).enumerate().filter(|_| !apart) {
        standard_finalizer(finalizer, &path.index(nth), causes);
    }
}

/// A finalizer of a kind that comes with Kubernetes has a domain, but for a few (core `validateKubeFinalizerName`).
pub fn standard_finalizer(finalizer: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    const STANDARD: [&str; 3] = ["kubernetes", "orphan", "foregroundDeletion"];
    if !finalizer.contains('/') && !STANDARD.contains(&finalizer) {
        let why = "name is neither a standard finalizer name nor is it fully qualified";
        causes.push(Cause::invalid(path, finalizer, why));
    }
}

/// Checks metadata of a changed object.
pub fn validate_update(row: &Row, object: &Value, old: &Value, causes: &mut Vec<Cause>) {
    let path = FieldPath::new("metadata");
    for (field, new, known) in [
        ("name", meta::name(object), meta::name(old)),
        ("namespace", meta::namespace(object), meta::namespace(old)),
        ("uid", meta::uid(object), meta::uid(old)),
    ] {
        if new != known {
            causes.push(Cause::immutable(&path.child(field), new));
        }
    }
    if object["metadata"]["deletionTimestamp"] != old["metadata"]["deletionTimestamp"] {
        let new = object["metadata"]["deletionTimestamp"].clone();
        causes.push(Cause::immutable(&path.child("deletionTimestamp"), new));
    }
    if meta::deletion_timestamp(old).is_some() {
        let known: HashSet<&str> = meta::finalizers(old).collect();
        let added: Vec<&str> = meta::finalizers(object).filter(|finalizer| !known.contains(finalizer)).collect();
        if !added.is_empty() {
            let quoted: Vec<String> = added.iter().map(|finalizer| format!("{finalizer:?}")).collect();
            let why = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                quoted.join(", ")
            );
            causes.push(Cause::forbidden(&path.child("finalizers"), why));
        }
    }
    validate_common(row, object, &path, causes);
}
