//! Checks of what a pod tells its containers about itself (core `validateObjectFieldSelector`,
//! `validateContainerResourceFieldSelector`).

use crate::registry::fields::{field, invalid_all, quantity, text};
use coracle_api::json::Value;
use coracle_api::resources::HUGE_PAGES;
use coracle_api::status::FieldPath;
use coracle_api::{Cause, validation};

/// Fields of a pod that its environment may name (core `validEnvDownwardAPIFieldPathExpressions`).
pub const ENV_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// Fields of a pod that its volumes may name (core `validVolumeDownwardAPIFieldPathExpressions`).
pub const VOLUME_FIELDS: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
/// Fields that have a name at all (core/pods `ConvertDownwardAPIFieldLabel`).
const FIELDS: [&str; 15] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.phase",
    "status.podIP",
    "status.podIPs",
    "spec.host",
];
const RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const BYTES: [&str; 13] = ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];

/// A field of the pod.
pub fn field_ref(source: &Value, allowed: &[&str], path: &FieldPath, causes: &mut Vec<Cause>) {
    let (version, named) = (text(source, "apiVersion"), text(source, "fieldPath"));
    if let Some((name, _)) =
        [("apiVersion", version), ("fieldPath", named)].into_iter().find(|(_, text)| text.is_empty())
    {
        causes.push(Cause::required(&path.child(name), ""));
        return;
    }
    let at = path.child("fieldPath");
    let mut unknown = |why: &str, what: &str| {
        causes.push(Cause::invalid(&at, named, format!("error converting fieldPath: {why}: {what}")));
    };
    let subscript =
        named.strip_suffix("']").and_then(|named| named.split_once("['")).filter(|(field, _)| !field.is_empty());
    match subscript {
        _ if version != "v1" => unknown("unsupported pod version", version),
        Some(("metadata.annotations", key)) => {
            let key = key.to_lowercase();
            invalid_all(path, &key, validation::qualified_name(&key), causes);
        }
        Some(("metadata.labels", key)) => invalid_all(path, key, validation::qualified_name(key), causes),
        Some(_) => unknown("field label does not support subscript", named),
        None if !FIELDS.contains(&named) => unknown("field label not supported", named),
        None => {
            // The name that v1beta1 had for it.
            let named = if named == "spec.host" { "spec.nodeName" } else { named };
            if !allowed.contains(&named) {
                causes.push(Cause::not_supported(&at, named, allowed));
            }
        }
    }
}

/// A container's request or limit; a volume, which belongs to none, must say whose.
pub fn resource_ref(source: &Value, volume: bool, path: &FieldPath, causes: &mut Vec<Cause>) {
    let name = text(source, "resource");
    let huge = ["limits.", "requests."]
        .iter()
        .any(|kind| name.strip_prefix(kind).is_some_and(|resource| resource.starts_with(HUGE_PAGES)));
    if volume && text(source, "containerName").is_empty() {
        causes.push(Cause::required(&path.child("containerName"), ""));
    } else if name.is_empty() {
        causes.push(Cause::required(&path.child("resource"), ""));
    } else if !huge && !RESOURCES.contains(&name) {
        causes.push(Cause::not_supported(&path.child("resource"), name, &RESOURCES));
    }
    let Some(divisor) = field(source, "divisor").and_then(quantity).filter(|divisor| !divisor.is_zero()) else {
        return;
    };
    let (allowed, what): (&[&str], _) = match name.split_once('.').map_or("", |(_, resource)| resource) {
        "cpu" => (&["1m", "1"], "cpu"),
        "memory" => (&BYTES, "memory"),
        "ephemeral-storage" => (&BYTES, "local ephemeral storage"),
        _ if huge => (&BYTES, "hugepages"),
        _ => return,
    };
    if !allowed.contains(&divisor.to_string().as_str()) {
        let listed = if what == "cpu" { "1m and 1".to_owned() } else { allowed.join(", ") };
        let why = format!("only divisor's values {listed} are supported with the {what} resource");
        causes.push(Cause::invalid(&path.child("divisor"), name, why));
    }
}
