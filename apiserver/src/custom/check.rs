//! What is wrong with a definition (apiextensions `apis/apiextensions/validation`).

use super::check_schema;
use super::definition::{has_condition, storage_version};
use crate::registry::fields::{items, text};
use coracle_api::printing::json_path::JsonPath;
use coracle_api::status::FieldPath;
use coracle_api::{Cause, meta, validation};
use serde_json::Value;
use std::collections::HashSet;

/// Says that a group that belongs to the project may be used (KEP-1111).
pub const APPROVAL: &str = "api-approved.kubernetes.io";

/// Most selectable fields of a version.
const SELECTABLE_MAX: usize = 8;

/// Whether a group belongs to the Kubernetes project.
pub fn is_protected(group: &str) -> bool {
    ["k8s.io", "kubernetes.io"]
        .iter()
        .any(|suffix| group.strip_suffix(suffix).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')))
}

/// Checks a definition as it is.
pub fn definition(object: &Value, causes: &mut Vec<Cause>) {
    let path = FieldPath::new("spec");
    let spec = &object["spec"];
    let (group, plural) = (text(spec, "group"), text(&spec["names"], "plural"));
    if meta::name(object) != format!("{plural}.{group}") {
        let why = "must be spec.names.plural+\".\"+spec.group";
        causes.push(Cause::invalid(&FieldPath::new("metadata.name"), meta::name(object), why));
    }
    if is_protected(group) && meta::annotation(object, APPROVAL).is_none_or(str::is_empty) {
        let why = format!(
            "protected groups must have approval annotation {APPROVAL:?}, see https://github.com/kubernetes/enhancements/pull/1111"
        );
        causes.push(Cause::required(&FieldPath::new("metadata").child("annotations").key(APPROVAL), &why));
    }
    check_group(group, &path.child("group"), causes);
    match text(spec, "scope") {
        "" => causes.push(Cause::required(&path.child("scope"), "")),
        "Cluster" | "Namespaced" => {}
        other => causes.push(Cause::not_supported(&path.child("scope"), other, &["Cluster", "Namespaced"])),
    }
    if spec.get("preserveUnknownFields").and_then(Value::as_bool) == Some(true) {
        let why =
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        causes.push(Cause::invalid(&path.child("preserveUnknownFields"), true, why));
    }
    names(&spec["names"], &path.child("names"), causes);
    versions(spec, &path.child("versions"), causes);
    conversion(spec, &path.child("conversion"), causes);
}

fn check_group(group: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    if group.is_empty() {
        causes.push(Cause::required(path, ""));
        return;
    }
    let messages = validation::dns1123_subdomain(group);
    if !messages.is_empty() {
        causes.push(Cause::invalid(path, group, messages.join(",")));
    } else if !group.contains('.') {
        causes.push(Cause::invalid(path, group, "should be a domain with at least one dot"));
    }
}

fn names(names: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    for name in ["plural", "singular", "kind", "listKind"] {
        let value = text(names, name);
        let path = path.child(name);
        if value.is_empty() {
            causes.push(Cause::required(&path, ""));
            continue;
        }
        let mixed = matches!(name, "kind" | "listKind");
        let messages = validation::dns1035_label(&if mixed { value.to_ascii_lowercase() } else { value.to_owned() });
        if !messages.is_empty() {
            let why = messages.join(",");
            let why = if mixed { format!("may have mixed case, but should otherwise match: {why}") } else { why };
            causes.push(Cause::invalid(&path, value, why));
        }
    }
    for list in ["shortNames", "categories"] {
        for (nth, name) in items(names, list).iter().enumerate() {
            let name = name.as_str().unwrap_or_default();
            let messages = validation::dns1035_label(name);
            if !messages.is_empty() {
                causes.push(Cause::invalid(&path.child(list).index(nth), name, messages.join(",")));
            }
        }
    }
    let (kind, list_kind) = (text(names, "kind"), text(names, "listKind"));
    if !kind.is_empty() && kind == list_kind {
        causes.push(Cause::invalid(&path.child("listKind"), list_kind, "kind and listKind may not be the same"));
    }
}

fn versions(spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let versions = items(spec, "versions");
    let named: HashSet<&str> = versions.iter().map(|version| text(version, "name")).collect();
    let all = Value::from(versions.iter().map(|version| text(version, "name")).collect::<Vec<_>>());
    if versions.is_empty() {
        causes.push(Cause::required(path, ""));
    }
    if named.len() != versions.len() {
        causes.push(Cause::invalid(path, all.clone(), "must contain unique version names"));
    }
    let stored = versions.iter().filter(|version| version.get("storage").and_then(Value::as_bool) == Some(true));
    if stored.count() != 1 {
        causes.push(Cause::invalid(path, all, "must have exactly one version marked as storage version"));
    }
    for (nth, version) in versions.iter().enumerate() {
        check_version(version, &path.index(nth), causes);
    }
}

fn check_version(version: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let name = text(version, "name");
    let messages = validation::dns1035_label(name);
    if !messages.is_empty() {
        causes.push(Cause::invalid(&path.child("name"), name, messages.join(",")));
    }
    if version.get("deprecationWarning").is_some() && version.get("deprecated").and_then(Value::as_bool) != Some(true) {
        let why = "can only be set for deprecated versions";
        causes.push(Cause::invalid(&path.child("deprecationWarning"), version["deprecationWarning"].clone(), why));
    }
    let schema_path = path.child("schema").child("openAPIV3Schema");
    match version.pointer("/schema/openAPIV3Schema") {
        Some(schema) => check_schema::check(schema, &schema_path, causes),
        None => causes.push(Cause::required(&schema_path, "schemas are required")),
    }
    if let Some(scale) = version.pointer("/subresources/scale") {
        check_scale(scale, &path.child("subresources").child("scale"), causes);
    }
    for (nth, column) in items(version, "additionalPrinterColumns").iter().enumerate() {
        check_column(column, &path.child("additionalPrinterColumns").index(nth), causes);
    }
    selectable(version, &path.child("selectableFields"), causes);
}

fn check_scale(scale: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    for (name, roots, needed) in [
        ("specReplicasPath", &["spec"][..], true),
        ("statusReplicasPath", &["status"][..], true),
        ("labelSelectorPath", &["spec", "status"][..], false),
    ] {
        let value = text(scale, name);
        let path = path.child(name);
        if value.is_empty() {
            if needed {
                causes.push(Cause::required(&path, ""));
            }
            continue;
        }
        let under = |parsed: &JsonPath| {
            parsed.is_simple()
                && parsed.fields().len() > 1
                && parsed.fields().first().is_some_and(|root| roots.contains(root))
        };
        match JsonPath::parse(value) {
            Err(why) => causes.push(Cause::invalid(&path, value, why)),
            Ok(parsed) if !under(&parsed) => {
                let either = if roots.len() > 1 { "either " } else { "" };
                let roots: Vec<String> = roots.iter().map(|root| format!(".{root}")).collect();
                let why = format!("should be a json path under {either}{}", roots.join(" or "));
                causes.push(Cause::invalid(&path, value, why));
            }
            Ok(_) => {}
        }
    }
}

fn check_column(column: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    if text(column, "name").is_empty() {
        causes.push(Cause::required(&path.child("name"), ""));
    }
    let kinds = ["boolean", "date", "integer", "number", "string"];
    match text(column, "type") {
        "" => causes.push(Cause::required(&path.child("type"), &format!("must be one of {}", kinds.join(",")))),
        kind if !kinds.contains(&kind) => {
            causes.push(Cause::invalid(&path.child("type"), kind, format!("must be one of {}", kinds.join(","))));
        }
        _ => {}
    }
    let formats = ["binary", "bool", "byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
    let format = text(column, "format");
    if !format.is_empty() && !formats.contains(&format) {
        causes.push(Cause::invalid(&path.child("format"), format, format!("must be one of {}", formats.join(","))));
    }
    let json_path = text(column, "jsonPath");
    let path = path.child("jsonPath");
    if json_path.is_empty() {
        causes.push(Cause::required(&path, ""));
    } else if let Err(why) = JsonPath::parse(json_path) {
        causes.push(Cause::invalid(&path, json_path, why));
    }
}

fn selectable(version: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let fields = items(version, "selectableFields");
    if fields.len() > SELECTABLE_MAX {
        causes.push(Cause::too_many(path, fields.len(), SELECTABLE_MAX));
    }
    let mut seen = HashSet::new();
    for (nth, field) in fields.iter().enumerate() {
        let json_path = text(field, "jsonPath");
        let path = path.index(nth).child("jsonPath");
        let invalid = |why: &str| Cause::invalid(&path, json_path, why);
        let Ok(parsed) = JsonPath::parse(json_path) else {
            causes.push(if json_path.is_empty() { Cause::required(&path, "") } else { invalid("is an invalid path") });
            continue;
        };
        let schema = version.pointer("/schema/openAPIV3Schema").unwrap_or(&Value::Null);
        let found = parsed.fields().into_iter().try_fold(schema, |schema, name| schema.get("properties")?.get(name));
        let kind = found.map(|schema| text(schema, "type"));
        if !parsed.is_simple() || matches!(parsed.fields().first(), Some(&"metadata")) {
            causes.push(invalid("is an invalid path: must be a simple path that does not select from metadata"));
        } else if found.is_none() {
            causes.push(invalid("is an invalid path: does not refer to a valid field"));
        } else if !matches!(kind, Some("string" | "integer" | "boolean")) {
            causes.push(invalid("is an invalid path: must point to a field of type string, boolean or integer"));
        }
        if !seen.insert(json_path) {
            causes.push(Cause::duplicate(&path, json_path));
        }
    }
}

fn conversion(spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let conversion = &spec["conversion"];
    match text(conversion, "strategy") {
        "" => causes.push(Cause::required(&path.child("strategy"), "")),
        "None" if conversion.get("webhook").is_some_and(|webhook| !webhook.is_null()) => {
            let why = "should not be set when strategy is not set to Webhook";
            causes.push(Cause::forbidden(&path.child("webhook"), why));
        }
        "None" => {}
        "Webhook" => {
            let why = "this server does not call conversion webhooks; only the strategy None is supported";
            causes.push(Cause::forbidden(&path.child("strategy"), why));
        }
        other => causes.push(Cause::not_supported(&path.child("strategy"), other, &["None", "Webhook"])),
    }
}

/// Checks what may not change.
pub fn change(object: &Value, old: &Value, causes: &mut Vec<Cause>) {
    let path = FieldPath::new("spec");
    let mut fixed = |pointer: &str, path: FieldPath| {
        let (new, known) = (object.pointer(pointer), old.pointer(pointer));
        if new != known {
            causes.push(Cause::immutable(&path, new.cloned().unwrap_or(Value::Null)));
        }
    };
    fixed("/spec/group", path.child("group"));
    fixed("/spec/names/plural", path.child("names").child("plural"));
    if has_condition(old, "Established") {
        fixed("/spec/scope", path.child("scope"));
        fixed("/spec/names/kind", path.child("names").child("kind"));
    }
    stored_versions(object, causes);
}

/// Versions that objects may still be stored in cannot go.
pub fn stored_versions(object: &Value, causes: &mut Vec<Cause>) {
    let path = FieldPath::new("status.storedVersions");
    let stored = items(&object["status"], "storedVersions");
    let versions = items(&object["spec"], "versions");
    for (nth, version) in stored.iter().filter_map(Value::as_str).enumerate() {
        if !versions.iter().any(|known| text(known, "name") == version) {
            let why = format!(
                "missing from spec.versions; {version} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {version} and removes {version} from status.storedVersions"
            );
            causes.push(Cause::invalid(&path.index(nth), version, why));
        }
    }
    if let Some(version) = storage_version(object)
        && !stored.iter().any(|known| known.as_str() == Some(version))
    {
        causes.push(Cause::invalid(&path, stored.to_vec(), format!("must have the storage version {version}")));
    }
}
