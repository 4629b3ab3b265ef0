//! Checks of a pod's volumes.

use super::downward;
use super::volume_kinds::{self as kinds, Owner, not_reserved};
use crate::registry::fields::{field, invalid_all, items, labels, quantity, text};
use coracle_api::json::Value;
use coracle_api::status::FieldPath;
use coracle_api::{Cause, validation};
use std::collections::{HashMap, HashSet};

/// Checks all volumes and gives those that are in order, which alone can be mounted (core `ValidateVolumes`).
pub fn validate_all<'a>(
    volumes: &'a [Value],
    path: &FieldPath,
    causes: &mut Vec<Cause>,
) -> HashMap<&'a str, &'a Value> {
    let mut known = HashMap::new();
    for (nth, volume) in volumes.iter().enumerate() {
        let (path, name, before) = (path.index(nth), text(volume, "name"), causes.len());
        source(volume, name, &path, causes);
        match name {
            "" => causes.push(Cause::required(&path.child("name"), "")),
            _ => invalid_all(&path.child("name"), name, validation::dns1123_label(name), causes),
        }
        if known.contains_key(name) {
            causes.push(Cause::duplicate(&path.child("name"), name));
        }
        if causes.len() == before {
            known.insert(name, volume);
        }
    }
    known
}

fn source(volume: &Value, volume_name: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    let fields = volume.as_object();
    let mut given = fields.into_iter().flatten().filter(|(name, value)| *name != "name" && !value.is_null());
    let Some((kind, source)) = given.next() else {
        causes.push(Cause::required(path, "must specify a volume type"));
        return;
    };
    for (other, _) in given {
        causes.push(Cause::forbidden(&path.child(other), "may not specify more than 1 volume type"));
    }
    let parent = path;
    let path = path.child(kind);
    match kind.as_str() {
        "configMap" | "secret" => {
            let name = if kind == "secret" { "secretName" } else { "name" };
            if text(source, name).is_empty() {
                causes.push(Cause::required(&path.child(name), ""));
            }
            mode(source, "defaultMode", &path, causes);
            files(source, &path, causes);
        }
        "downwardAPI" => {
            mode(source, "defaultMode", &path, causes);
            for file in items(source, "items") {
                downward_file(file, &path, causes);
            }
        }
        "projected" => projected(source, &path, causes),
        "ephemeral" => {
            let path = path.child("volumeClaimTemplate");
            match field(source, "volumeClaimTemplate").filter(|template| !template.is_null()) {
                None => causes.push(Cause::required(&path, "")),
                Some(template) => {
                    labels(template.pointer("/metadata/labels"), &path.child("metadata").child("labels"), causes);
                    super::volume::claim_spec(&template["spec"], &path.child("spec"), causes);
                }
            }
        }
        "emptyDir" => {
            if let Some(limit) = field(source, "sizeLimit").and_then(quantity)
                && limit.is_negative()
            {
                causes.push(Cause::forbidden(
                    &path.child("sizeLimit"),
                    "SizeLimit field must be a valid resource quantity",
                ));
            }
        }
        _ => kinds::validate(kind, source, Owner::Pod { volume: volume_name }, parent, causes),
    }
}

/// Several sources in one folder, in which no two files have one path (core `validateProjectionSources`).
fn projected(source: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    mode(source, "defaultMode", path, causes);
    let mut taken = HashSet::new();
    let mut take = |file: &str, named: &str, causes: &mut Vec<Cause>| {
        if !file.is_empty() && !taken.insert(file.to_owned()) {
            causes.push(Cause::invalid(path, named, "conflicting duplicate paths"));
        }
    };
    for (nth, part) in items(source, "sources").iter().enumerate() {
        let at = path.child("sources").index(nth);
        let given = |kind: &str| field(part, kind).filter(|part| !part.is_null());
        for kind in ["secret", "configMap"] {
            let Some(part) = given(kind) else { continue };
            let (name, at) = (text(part, "name"), at.child(kind));
            if name.is_empty() {
                causes.push(Cause::required(&at.child("name"), ""));
            }
            files(part, &at, causes);
            items(part, "items").iter().for_each(|item| take(text(item, "path"), name, causes));
        }
        for file in given("downwardAPI").map_or(&[][..], |part| items(part, "items")) {
            downward_file(file, &at.child("downwardAPI"), causes);
            take(text(file, "path"), text(file, "path"), causes);
        }
        if let Some(part) = given("serviceAccountToken") {
            token(part, &at.child("serviceAccountToken"), path, causes);
        }
        let kinds = ["secret", "configMap", "downwardAPI", "serviceAccountToken", "clusterTrustBundle"];
        if kinds.into_iter().filter(|kind| given(kind).is_some()).count() > 1 {
            causes.push(Cause::forbidden(&at, "may not specify more than 1 volume type per source"));
        }
    }
}

/// A token that is renewed as a file, whose path upstream reports as the volume's.
fn token(token: &Value, path: &FieldPath, volume: &FieldPath, causes: &mut Vec<Cause>) {
    let seconds = token.get("expirationSeconds").and_then(Value::as_i64).unwrap_or(3600);
    let path = path.child("expirationSeconds");
    if seconds < 600 {
        causes.push(Cause::invalid(&path, seconds, "may not specify a duration less than 10 minutes"));
    }
    if seconds > 1 << 32 {
        causes.push(Cause::invalid(&path, seconds, "may not specify a duration larger than 2^32 seconds"));
    }
    match text(token, "path") {
        "" => causes.push(Cause::required(&volume.child("path"), "")),
        file => not_reserved(file, &volume.child("path"), causes),
    }
}

fn mode(value: &Value, field: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    if let Some(mode) = value.get(field).and_then(Value::as_i64)
        && !(0..=0o777).contains(&mode)
    {
        causes.push(Cause::invalid(
            &path.child(field),
            mode,
            "must be a number between 0 and 0777 (octal), both inclusive",
        ));
    }
}

/// The items that become files: a key and a path that stays inside (core `validateKeyToPath`).
fn files(source: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    for (nth, item) in items(source, "items").iter().enumerate() {
        let path = path.child("items").index(nth);
        for field in ["key", "path"].into_iter().filter(|field| text(item, field).is_empty()) {
            causes.push(Cause::required(&path.child(field), ""));
        }
        not_reserved(text(item, "path"), &path.child("path"), causes);
        mode(item, "mode", &path, causes);
    }
}

/// A file about the pod, whose place in the list upstream does not report (core `validateDownwardAPIVolumeFile`).
fn downward_file(file: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    if text(file, "path").is_empty() {
        causes.push(Cause::required(&path.child("path"), ""));
    }
    not_reserved(text(file, "path"), &path.child("path"), causes);
    let given = |name: &str| field(file, name).filter(|value| !value.is_null());
    match (given("fieldRef"), given("resourceFieldRef")) {
        (Some(source), other) => {
            downward::field_ref(source, &downward::VOLUME_FIELDS, &path.child("fieldRef"), causes);
            if other.is_some() {
                let why = "fieldRef and resourceFieldRef can not be specified simultaneously";
                causes.push(Cause::invalid(path, "resource", why));
            }
        }
        (None, Some(source)) => downward::resource_ref(source, true, &path.child("resourceFieldRef"), causes),
        (None, None) => causes.push(Cause::required(path, "one of fieldRef and resourceFieldRef is required")),
    }
    mode(file, "mode", path, causes);
}
