//! Metadata of every object: what the server fills in, keeps and checks (apiserver `registry/rest`, apimachinery
//! `api/validation`).

use super::fields::{self, invalid_all, items, text};
use super::strategy::WriteContext;
use super::{Row, Subresource};
use crate::verbs::Call;
use coracle_api::clock::rfc3339;
use coracle_api::json::{Map, Value};
use coracle_api::status::FieldPath;
use coracle_api::{Cause, Status, meta, validation};
use std::collections::{BTreeSet, HashSet};

/// The most bytes that all annotations may take together.
const ANNOTATIONS_MAX: usize = 256 << 10;

/// The most controllers beside the first that are told of.
const CONTROLLERS_TOLD: usize = 8;

/// Fields of metadata that a create may not bring along.
const SERVER_OWNED: [&str; 7] = [
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
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
        let name = row.strategy.generate_name(meta::generate_name(object), context.names);
        meta::set(object, "name", name);
    }
    meta::set(object, "uid", context.names.uid());
    meta::set(object, "creationTimestamp", rfc3339(context.now));
    // Of what is not counted, the client's stays.
    if row.strategy.traits().generation && row.strategy.traits().generation_of_new {
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
    for field in ["generation", "selfLink"] {
        meta::set(object, field, known.get(field).cloned().unwrap_or(Value::Null));
    }
    // An object that goes goes when it does, whatever an update says; that one goes that does not is an error, and so is a
    // period that is given and another one (apiserver `registry/rest` `BeforeUpdate`).
    if let Some(time) = meta::deletion_timestamp(old) {
        meta::set(object, "deletionTimestamp", time);
    }
    if meta::deletion_grace_period(object).is_none()
        && let Some(seconds) = meta::deletion_grace_period(old)
    {
        meta::set(object, "deletionGracePeriodSeconds", seconds);
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
    let traits = row.strategy.traits();
    if !traits.generation {
        return;
    }
    // Without the subresource, status is a field like any other (only custom resources have such a one).
    let apart = row.strategy.custom().is_none() || row.has(Subresource::Status);
    let is_else = |name: &str| matches!(name, "metadata" | "apiVersion" | "kind") || apart && name == "status";
    let keys = |value| Value::as_object(value).into_iter().flat_map(Map::keys).filter(|name| !is_else(name));
    let changed = keys(object).any(|name| !fields::same(object, old, name))
        || keys(old).any(|name| object.get(name.as_str()).is_none() && !fields::same(object, old, name));
    let annotated = traits.annotations_count && meta::annotations(object) != meta::annotations(old);
    let labelled = traits.labels_count && meta::labels(object) != meta::labels(old);
    if annotated || labelled || changed {
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
        Subresource::Approval => {
            match new.pointer("/status/conditions").filter(|conditions| !conditions.is_null()) {
                Some(conditions) => fields::set(fields::object_mut(object, "status"), "conditions", conditions.clone()),
                None => {
                    if let Some(status) = object.get_mut("status") {
                        fields::remove(status, "conditions");
                    }
                }
            }
            // Upstream's strategy keeps the spec, and the rest of the status.
            fields::copy(object, &new, "metadata");
        }
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
        invalid_all(&path.child("generateName"), generate, row.strategy.wrong_prefix(generate), causes);
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
    fields::non_negative(object.get("metadata").unwrap_or(&Value::Null), "generation", &path, causes);
    shared(object, &path, causes);
    finalizers(object, &path.child("finalizers"), causes);
    standard_finalizers(row, object, &path.child("finalizers"), causes);
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

/// What is judged when an object is made, and twice when it is changed.
fn shared(object: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let metadata = object.get("metadata").unwrap_or(&Value::Null);
    fields::labels(metadata.get("labels"), &path.child("labels"), causes);
    annotations(metadata.get("annotations"), &path.child("annotations"), causes);
    owners(metadata, &path.child("ownerReferences"), causes);
}

/// Annotations: their keys, in which case does not matter, and how much they are together (apimachinery `ValidateAnnotations`).
pub fn annotations(map: Option<&Value>, path: &FieldPath, causes: &mut Vec<Cause>) {
    let mut size = 0;
    for (key, value) in map.and_then(Value::as_object).into_iter().flatten() {
        size += key.len() + value.as_str().map_or(0, str::len);
        invalid_all(path, key, validation::qualified_name(&key.to_ascii_lowercase()), causes);
    }
    if size > ANNOTATIONS_MAX {
        causes.push(Cause::too_long(path, ANNOTATIONS_MAX));
    }
}

/// The metadata of which claims get the labels and annotations: the rest is not to choose (core `ValidateTemplateObjectMeta`).
pub fn of_template(metadata: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    // In the order of Go's fields, whose names they are but for the first letter.
    const CHOSEN: [(&str, &str); 13] = [
        ("name", "name"),
        ("generateName", "generateName"),
        ("namespace", "namespace"),
        ("selfLink", "selfLink"),
        ("uid", "uID"),
        ("resourceVersion", "resourceVersion"),
        ("generation", "generation"),
        ("creationTimestamp", "creationTimestamp"),
        ("deletionTimestamp", "deletionTimestamp"),
        ("deletionGracePeriodSeconds", "deletionGracePeriodSeconds"),
        ("ownerReferences", "ownerReferences"),
        ("finalizers", "finalizers"),
        ("managedFields", "managedFields"),
    ];
    annotations(metadata.get("annotations"), &path.child("annotations"), causes);
    fields::labels(metadata.get("labels"), &path.child("labels"), causes);
    for (name, shown) in CHOSEN {
        let zero = name == "generation" && metadata[name] == 0;
        if fields::is_set(metadata, name) && !zero {
            causes.push(Cause::forbidden(&path.child(shown), "cannot be set"));
        }
    }
}

/// The owners, which upstream reports without their place in the list (apimachinery `ValidateOwnerReferences`).
fn owners(metadata: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let (all, mut controller, mut told) = (items(metadata, "ownerReferences"), None, 0);
    for owner in all {
        let (version, kind) = (text(owner, "apiVersion"), text(owner, "kind"));
        let (group, short) = version.split_once('/').unwrap_or(("", version));
        if short.is_empty() || short.contains('/') {
            causes.push(Cause::invalid(&path.child("apiVersion"), version, "version must not be empty"));
        }
        for field in ["kind", "name", "uid"] {
            if text(owner, field).is_empty() {
                causes.push(Cause::invalid(&path.child(field), "", "must not be empty"));
            }
        }
        if (group, short, kind) == ("", "v1", "Event") {
            let why = "/v1, Kind=Event is disallowed from being an owner";
            causes.push(Cause::invalid(path, owner_in_go(owner), why));
        }
        if owner.get("controller").and_then(Value::as_bool) == Some(true) {
            let this = format!("{kind}/{}", text(owner, "name"));
            let Some(first) = &controller else {
                controller = Some(this);
                continue;
            };
            // Each of these shows all owners: upstream tells of every one, however many there are.
            if told < CONTROLLERS_TOLD {
                told += 1;
                let why = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"
                );
                causes.push(Cause::invalid(path, all.iter().map(owner_in_go).collect::<Vec<_>>(), why));
            }
        }
    }
}

/// An owner as Go writes it, whichever way round the client did.
fn owner_in_go(owner: &Value) -> Value {
    let mut shown = Map::new();
    for field in ["apiVersion", "kind", "name", "uid"] {
        shown.insert(field, Value::from(text(owner, field)));
    }
    for field in ["controller", "blockOwnerDeletion"] {
        if let Some(flag) = owner.get(field).filter(|flag| flag.is_boolean()) {
            shown.insert(field, flag.clone());
        }
    }
    shown.into()
}

/// Names of finalizers (apimachinery `ValidateFinalizers`).
fn finalizers(object: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    for finalizer in meta::finalizers(object) {
        invalid_all(path, finalizer, validation::qualified_name(finalizer), causes);
    }
    let has = |name: &str| meta::finalizers(object).any(|finalizer| finalizer == name);
    if has("orphan") && has("foregroundDeletion") {
        let all = object["metadata"]["finalizers"].clone();
        let why = "finalizer orphan and foregroundDeletion cannot be both set";
        causes.push(Cause::invalid(path, all, why));
    }
}

/// What core asks of finalizers, and so most kinds do.
fn standard_finalizers(row: &Row, object: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    // Kinds of servers of their own, which know no core kinds, and some whose metadata is judged by apimachinery's rules alone.
    const APART: [&str; 4] =
        ["admissionregistration.k8s.io", "apiextensions.k8s.io", "apiregistration.k8s.io", "coordination.k8s.io"];
    let apart = row.schema.is_some()
        || row.kind == "PodDisruptionBudget"
        || row.served.iter().any(|(group, _)| APART.contains(&&**group));
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

/// Checks metadata of a changed object. Upstream's server judges it as that of a new one and then as a change, and most kinds judge
/// the change once more (apiserver `validateCommonFields`, core `ValidateObjectMetaUpdate`): what is wrong is told as often, though it
/// is looked at once.
pub fn validate_update(row: &Row, object: &Value, old: &Value, causes: &mut Vec<Cause>) {
    let path = FieldPath::new("metadata");
    let (mut common, mut change) = (Vec::new(), Vec::new());
    shared(object, &path, &mut common);
    no_new_finalizers(object, old, &path.child("finalizers"), &mut change);
    immutable(object, old, &path, &mut change);
    causes.extend(common.iter().cloned());
    finalizers(object, &path.child("finalizers"), causes);
    change.append(&mut common);
    causes.extend(change.iter().cloned());
    causes.append(&mut change);
    standard_finalizers(row, object, &path.child("finalizers"), causes);
}

/// What no change touches (apimachinery `ValidateObjectMetaAccessorUpdate`).
fn immutable(object: &Value, old: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    for (field, new, known) in [
        ("name", meta::name(object), meta::name(old)),
        ("namespace", meta::namespace(object), meta::namespace(old)),
        ("uid", meta::uid(object), meta::uid(old)),
    ] {
        if new != known {
            causes.push(Cause::immutable(&path.child(field), new));
        }
    }
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds"] {
        let new = object.get("metadata").unwrap_or(&Value::Null);
        if !fields::same(new, old.get("metadata").unwrap_or(&Value::Null), field) {
            causes.push(Cause::immutable(&path.child(field), new.get(field).cloned().unwrap_or(Value::Null)));
        }
    }
}

/// What waits to go waits for nothing else (apimachinery `ValidateNoNewFinalizers`).
fn no_new_finalizers(object: &Value, old: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    if meta::deletion_timestamp(old).is_none() {
        return;
    }
    let known: HashSet<&str> = meta::finalizers(old).collect();
    let added: BTreeSet<&str> = meta::finalizers(object).filter(|finalizer| !known.contains(finalizer)).collect();
    if !added.is_empty() {
        let quoted: Vec<String> = added.iter().map(|finalizer| format!("{finalizer:?}")).collect();
        let why = format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
            quoted.join(", ")
        );
        causes.push(Cause::forbidden(path, why));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::strategy::PLAIN;
    use coracle_api::json::json;

    fn told(causes: &[Cause]) -> Vec<String> {
        causes.iter().map(Cause::to_string).collect()
    }

    fn maps() -> Row {
        Row::new("", "v1", "ConfigMap", "configmaps", PLAIN)
    }

    /// What an update with this metadata of an object with that is refused for.
    fn changed(row: &Row, new: Value, old: Value) -> Vec<String> {
        let (mut new, old) = (json!({"metadata": new}), json!({"metadata": old}));
        prepare_update(&mut new, &old);
        let mut causes = Vec::new();
        validate_update(row, &new, &old, &mut causes);
        told(&causes)
    }

    #[test]
    fn when_an_object_goes_is_nothing_that_an_update_says() {
        let going = || json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 30});
        for new in [json!({}), going(), json!({"deletionTimestamp": "2027-01-01T00:00:00Z"})] {
            assert_eq!(changed(&maps(), new.clone(), going()), [""; 0], "{new}");
        }
        let period = "metadata.deletionGracePeriodSeconds: Invalid value: 5: field is immutable";
        assert_eq!(changed(&maps(), json!({"deletionGracePeriodSeconds": 5}), going()), [period; 2]);
        assert_eq!(changed(&maps(), json!({"deletionGracePeriodSeconds": 5}), json!({})), [period; 2]);
        let time = "metadata.deletionTimestamp: Invalid value: \"2027-01-01T00:00:00Z\": field is immutable";
        assert_eq!(
            changed(&maps(), json!({"deletionTimestamp": "2027-01-01T00:00:00Z"}), json!({})),
            [time; 2],
            "one that stays is not made to go"
        );
    }

    #[test]
    fn a_change_is_judged_as_often_as_upstream_does() {
        let found = changed(
            &maps(),
            json!({"uid": "b", "labels": {"a": "-"}, "finalizers": ["x", "y.io/z", "y.io/a"]}),
            json!({"uid": "a", "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["x"]}),
        );
        let fields: Vec<&str> = found.iter().filter_map(|cause| cause.split(": ").next()).collect();
        let change = ["metadata.finalizers", "metadata.uid", "metadata.labels"];
        assert_eq!(fields, [&["metadata.labels"], &change[..], &change, &["metadata.finalizers[0]"]].concat());
        assert_eq!(
            found[1],
            "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"y.io/a\", \"y.io/z\"}"
        );
    }

    #[test]
    fn some_kinds_take_finalizers_without_a_domain() {
        for (group, kind, strict) in [
            ("", "ConfigMap", true),
            ("policy", "PodDisruptionBudget", false),
            ("coordination.k8s.io", "Lease", false),
            ("admissionregistration.k8s.io", "MutatingWebhookConfiguration", false),
            ("storage.k8s.io", "StorageClass", true),
        ] {
            let (row, mut causes) = (Row::new(group, "v1", kind, "x", PLAIN).cluster(), Vec::new());
            validate(&row, &json!({"metadata": {"name": "a", "finalizers": ["x"]}}), &mut causes);
            assert_eq!(causes.is_empty(), !strict, "{kind}: {:?}", told(&causes));
        }
    }

    #[test]
    fn owners_have_a_version_and_are_shown_as_go_does() {
        let owned = |owners: Value| {
            let mut causes = Vec::new();
            owners_of(&json!({"ownerReferences": owners}), &mut causes);
            told(&causes)
        };
        let plain = |version: &str, kind: &str| json!({"uid": "u", "name": "n", "kind": kind, "apiVersion": version});
        for fine in ["v1", "/v1", "apps/v1"] {
            assert_eq!(owned(json!([plain(fine, "Node")])), [""; 0], "{fine}");
        }
        for wrong in ["", "/", "apps/", "a/b/c", "//"] {
            let told = format!("o.apiVersion: Invalid value: {wrong:?}: version must not be empty");
            assert_eq!(owned(json!([plain(wrong, "Event")])), [told]);
        }
        for version in ["v1", "/v1"] {
            let shown = format!(r#"{{"apiVersion":"{version}","kind":"Event","name":"n","uid":"u"}}"#);
            let told = format!("o: Invalid value: {shown}: /v1, Kind=Event is disallowed from being an owner");
            assert_eq!(owned(json!([plain(version, "Event")])), [told]);
        }
        assert_eq!(owned(json!([plain("apps/v1", "Event")])), [""; 0]);
        let many = vec![json!({"controller": true, "apiVersion": "v1", "kind": "A", "name": "n", "uid": "u"}); 500];
        assert_eq!(owned(many.into()).len(), CONTROLLERS_TOLD, "what is told of them does not grow with their square");
    }

    fn owners_of(metadata: &Value, causes: &mut Vec<Cause>) {
        owners(metadata, &FieldPath::new("o"), causes);
    }
}
