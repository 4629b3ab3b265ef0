//! Checks of what a pod tells its containers about itself (core `validateObjectFieldSelector`,
//! `validateContainerResourceFieldSelector`), and of what they read from files for their environment.

use super::volume_kinds::no_backsteps;
use crate::registry::fields::{field, invalid_all, is_set, items, quantity, text};
use coracle_api::json::Value;
use coracle_api::resources::HUGE_PAGES;
use coracle_api::status::FieldPath;
use coracle_api::{Cause, validation};
use std::collections::HashMap;

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
    let of = ["limits.", "requests."].iter().find_map(|kind| name.strip_prefix(kind));
    let (allowed, what): (&[&str], _) = match of.unwrap_or_default() {
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

/// A variable of a file that another container wrote (core `validateFileKeySelector`).
pub fn file_key_ref(source: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    for (part, rule) in [
        ("key", validation::env_var_name as fn(&str) -> Vec<String>),
        ("volumeName", validation::dns1123_label),
        ("path", |_| Vec::new()),
    ] {
        match text(source, part) {
            "" => causes.push(Cause::required(&path.child(part), "")),
            value => invalid_all(&path.child(part), value, rule(value), causes),
        }
    }
    no_backsteps(text(source, "path"), &path.child("path"), causes);
}

/// The volumes that such files are in are empty when the pod begins.
pub fn files_in_volumes(spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let volumes: HashMap<&str, &Value> =
        items(spec, "volumes").iter().rev().map(|volume| (text(volume, "name"), volume)).collect();
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for (nth, container) in items(spec, list).iter().enumerate() {
            let path = path.child(list).index(nth).child("env");
            for (nth, env) in items(container, "env").iter().enumerate() {
                let Some(source) = env.pointer("/valueFrom/fileKeyRef").filter(|source| !source.is_null()) else {
                    continue;
                };
                let name = text(source, "volumeName");
                let path = path.index(nth).child("valueFrom").child("fileKeyRef").child("volumeName");
                match volumes.get(name) {
                    None => causes.push(Cause::not_found(&path, name)),
                    Some(volume) if is_set(volume, "emptyDir") => {}
                    Some(_) => {
                        causes.push(Cause::invalid(&path, name, "referenced volume must be of type emptyDir"));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::json::json;

    fn told(causes: &[Cause]) -> Vec<String> {
        causes.iter().map(Cause::to_string).collect()
    }

    #[test]
    fn a_variable_of_a_file_is_named_and_stays_in_its_volume() {
        let check = |source: Value| {
            let mut causes = Vec::new();
            file_key_ref(&source, &FieldPath::new("f"), &mut causes);
            told(&causes)
        };
        assert!(check(json!({"key": "A b", "volumeName": "v", "path": "/a/b"})).is_empty());
        let needed = ["f.key: Required value", "f.volumeName: Required value", "f.path: Required value"];
        assert_eq!(check(json!({})), needed);
        let found = check(json!({"key": "A=", "volumeName": "V", "path": "a/.."}));
        assert!(found[0].starts_with("f.key: Invalid value: \"A=\": a valid environment variable name"), "{found:?}");
        assert!(found[1].starts_with("f.volumeName: Invalid value: \"V\": a lowercase RFC 1123 label"), "{found:?}");
        assert_eq!(found[2], "f.path: Invalid value: \"a/..\": must not contain '..'");
    }

    #[test]
    fn files_of_variables_are_in_empty_volumes() {
        let from = |volume: &str| json!({"name": "a", "env": [{"name": "A", "valueFrom": {"fileKeyRef": {"volumeName": volume}}}]});
        let spec = json!({"volumes": [{"name": "e", "emptyDir": {}}, {"name": "s", "secret": {}}],
            "initContainers": [from("e")], "containers": [from("x"), from("s")], "ephemeralContainers": [from("")]});
        let mut causes = Vec::new();
        files_in_volumes(&spec, &FieldPath::new("spec"), &mut causes);
        const AT: &str = "env[0].valueFrom.fileKeyRef.volumeName";
        assert_eq!(
            told(&causes),
            [
                format!("spec.containers[0].{AT}: Not found: \"x\""),
                format!("spec.containers[1].{AT}: Invalid value: \"s\": referenced volume must be of type emptyDir"),
                format!("spec.ephemeralContainers[0].{AT}: Not found: \"\""),
            ]
        );
    }

    #[test]
    fn what_is_no_resource_has_no_divisor() {
        let check = |resource: &str| {
            let mut causes = Vec::new();
            resource_ref(&json!({"resource": resource, "divisor": "2"}), false, &FieldPath::new("r"), &mut causes);
            causes.iter().map(|cause| cause.field.clone()).collect::<Vec<_>>()
        };
        assert_eq!(check("x.cpu"), ["r.resource"]);
        assert_eq!(check("limits.cpu"), ["r.divisor"]);
        assert_eq!(check("requests.hugepages-2Mi"), ["r.divisor"]);
    }
}
