//! Checks of a pod's volumes.

use crate::registry::fields::{field, invalid_all, items, labels, quantity, text};
use crate::registry::storage::driver_name;
use coracle_api::status::FieldPath;
use coracle_api::{Cause, validation};
use serde_json::Value;
use std::collections::HashSet;

/// Checks all volumes and gives the names of those that can be mounted.
pub fn validate_all<'a>(volumes: &'a [Value], path: &FieldPath, causes: &mut Vec<Cause>) -> HashSet<&'a str> {
    let mut names = HashSet::new();
    for (nth, volume) in volumes.iter().enumerate() {
        let path = path.index(nth);
        let name = text(volume, "name");
        if name.is_empty() {
            causes.push(Cause::required(&path.child("name"), ""));
        } else {
            let wrong = validation::dns1123_label(name);
            if wrong.is_empty() && !names.insert(name) {
                causes.push(Cause::duplicate(&path.child("name"), name));
            }
            invalid_all(&path.child("name"), name, wrong, causes);
        }
        source(volume, &path, causes);
    }
    names
}

fn source(volume: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let fields = volume.as_object();
    let mut given = fields.into_iter().flatten().filter(|(name, value)| *name != "name" && !value.is_null());
    let Some((kind, source)) = given.next() else {
        causes.push(Cause::required(path, "must specify a volume type"));
        return;
    };
    for (other, _) in given {
        causes.push(Cause::forbidden(&path.child(other), "may not specify more than 1 volume type"));
    }
    let path = path.child(kind);
    let require = |field: &str, causes: &mut Vec<Cause>| {
        if text(source, field).is_empty() {
            causes.push(Cause::required(&path.child(field), ""));
        }
    };
    match kind.as_str() {
        "configMap" => {
            require("name", causes);
            files(source, &path, causes);
        }
        "secret" => {
            require("secretName", causes);
            files(source, &path, causes);
        }
        "downwardAPI" => files(source, &path, causes),
        "projected" => {
            mode(source, "defaultMode", &path, causes);
            for (nth, part) in items(source, "sources").iter().enumerate() {
                let path = path.child("sources").index(nth);
                for kind in ["configMap", "secret"] {
                    if let Some(part) = field(part, kind).filter(|part| !part.is_null()) {
                        let path = path.child(kind);
                        if text(part, "name").is_empty() {
                            causes.push(Cause::required(&path.child("name"), ""));
                        }
                        files(part, &path, causes);
                    }
                }
                files(&part["downwardAPI"], &path.child("downwardAPI"), causes);
                token(&part["serviceAccountToken"], &path.child("serviceAccountToken"), causes);
            }
        }
        "hostPath" => {
            require("path", causes);
            if text(source, "path").split('/').any(|part| part == "..") {
                causes.push(Cause::invalid(&path.child("path"), text(source, "path"), "must not contain '..'"));
            }
            const TYPES: [&str; 8] =
                ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
            crate::registry::fields::one_of(source, "type", &TYPES, &path, causes);
        }
        "persistentVolumeClaim" => require("claimName", causes),
        "nfs" => {
            require("server", causes);
            require("path", causes);
        }
        "csi" => driver_name(text(source, "driver"), &path.child("driver"), causes),
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
        _ => {}
    }
}

/// A token that is renewed as a file (core `validateProjectionSources`).
fn token(token: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    if !token.is_object() {
        return;
    }
    if text(token, "path").is_empty() {
        causes.push(Cause::required(&path.child("path"), ""));
    }
    let seconds = token.get("expirationSeconds").and_then(Value::as_i64).unwrap_or(3600);
    let path = path.child("expirationSeconds");
    if seconds < 600 {
        causes.push(Cause::invalid(&path, seconds, "may not specify a duration less than 10 minutes"));
    }
    if seconds > 1 << 32 {
        causes.push(Cause::invalid(&path, seconds, "may not specify a duration larger than 2^32 seconds"));
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

/// The items that become files: a key and a path that stays inside.
fn files(source: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    mode(source, "defaultMode", path, causes);
    for (nth, item) in items(source, "items").iter().enumerate() {
        let path = path.child("items").index(nth);
        mode(item, "mode", &path, causes);
        if item.get("fieldRef").is_none() && item.get("resourceFieldRef").is_none() && text(item, "key").is_empty() {
            causes.push(Cause::required(&path.child("key"), ""));
        }
        let target = text(item, "path");
        if target.is_empty() {
            causes.push(Cause::required(&path.child("path"), ""));
        } else if target.starts_with('/') {
            causes.push(Cause::invalid(&path.child("path"), target, "must be a relative path"));
        } else if target.split('/').any(|part| part == "..") {
            causes.push(Cause::invalid(&path.child("path"), target, "must not contain '..'"));
        } else if target.starts_with("..") {
            causes.push(Cause::invalid(&path.child("path"), target, "must not start with '..'"));
        }
    }
}
