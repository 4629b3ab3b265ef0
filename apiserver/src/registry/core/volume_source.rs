//! Checks of a pod's volumes.

use super::downward;
use super::volume_kinds::{self as kinds, Owner, not_reserved};
use crate::registry::fields::{field, invalid_all, is_set, items, quantity, text};
use crate::registry::meta::of_template;
use coracle_api::json::Value;
use coracle_api::status::FieldPath;
use coracle_api::{Cause, meta, validation};
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
        sources(volume, name, &path, causes);
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

/// What a volume can be, in the order in which upstream looks.
const KINDS: [&str; 30] = [
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "flocker",
    "persistentVolumeClaim",
    "rbd",
    "cinder",
    "cephfs",
    "quobyte",
    "downwardAPI",
    "fc",
    "flexVolume",
    "configMap",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "storageos",
    "projected",
    "scaleIO",
    "csi",
    "ephemeral",
    "image",
];

/// What the volume is made from: one thing. The first that is found is judged, and any other is one too many (core
/// `validateVolumeSource`).
fn sources(volume: &Value, volume_name: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    let mut counted = false;
    for kind in KINDS {
        let Some(source) = field(volume, kind).filter(|source| !source.is_null()) else { continue };
        if counted {
            causes.push(kinds::surplus(kind, path));
        } else {
            self::source(kind, source, path, causes);
        }
        counted = true;
        if kind == "iscsi" && kinds::is_long_target(source, volume_name) {
            causes.push(Cause::invalid(&path.child("name"), volume_name, kinds::LONG_TARGET));
        }
    }
    if !counted {
        causes.push(Cause::required(path, "must specify a volume type"));
    }
}

fn source(kind: &str, source: &Value, parent: &FieldPath, causes: &mut Vec<Cause>) {
    let path = parent.child(kind);
    match kind {
        "configMap" | "secret" => {
            let name = if kind == "secret" { "secretName" } else { "name" };
            if text(source, name).is_empty() {
                causes.push(Cause::required(&path.child(name), ""));
            }
            mode(source, "defaultMode", &path, causes);
            files(source, &path, causes, |_, _| {});
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
                    of_template(&template["metadata"], &path.child("metadata"), causes);
                    super::claim::claim_spec(&template["spec"], &path.child("spec"), causes);
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
        _ => kinds::validate(kind, source, Owner::Pod, parent, causes),
    }
}

/// The claims that are made for a pod have names that claims can have, and nobody else mounts them (core `ValidateVolumes`). Templates
/// have no name that theirs could begin with.
pub fn claims_made(pod: &Value, causes: &mut Vec<Cause>) {
    let (pod_name, volumes) = (meta::name(pod), items(&pod["spec"], "volumes"));
    if pod_name.is_empty() {
        return;
    }
    let is_made = |volume: &Value| field(volume, "ephemeral").is_some_and(|source| !source.is_null());
    let name_of = |volume: &Value| format!("{pod_name}-{}", text(volume, "name"));
    let made: HashSet<String> = volumes.iter().filter(|volume| is_made(volume)).map(name_of).collect();
    for (nth, volume) in volumes.iter().enumerate() {
        let path = FieldPath::new("spec").child("volumes").index(nth);
        // A second source is not judged, and this is always one of the last.
        let first = KINDS.iter().find(|kind| field(volume, kind).is_some_and(|source| !source.is_null()));
        let name = text(volume, "name");
        if first == Some(&"ephemeral") && !name.is_empty() {
            let claim = name_of(volume);
            for why in validation::dns1123_subdomain(&claim) {
                causes.push(Cause::invalid(&path.child("name"), name, format!("PVC name {claim:?}: {why}")));
            }
        }
        let claim = volume.pointer("/persistentVolumeClaim/claimName").and_then(Value::as_str).unwrap_or_default();
        if made.contains(claim) {
            let why = "must not reference a PVC that gets created for an ephemeral volume";
            causes.push(Cause::invalid(&path.child("persistentVolumeClaim").child("claimName"), claim, why));
        }
    }
}

/// Tokens are of the pod's service account, which a template may leave to who makes the pod (core `validatePodMetadataAndSpec`).
pub fn tokens_of_nobody(spec: &Value, causes: &mut Vec<Cause>) {
    if is_set(spec, "serviceAccountName") {
        return;
    }
    for (nth, volume) in items(spec, "volumes").iter().enumerate() {
        let path = FieldPath::new("spec").child("volumes").index(nth).child("projected").child("sources");
        let parts = field(volume, "projected").map_or(&[][..], |source| items(source, "sources"));
        for (nth, part) in parts.iter().enumerate() {
            if field(part, "serviceAccountToken").is_some_and(|token| !token.is_null()) {
                let path = path.index(nth).child("serviceAccountToken");
                causes.push(Cause::forbidden(&path, "must not be specified when serviceAccountName is not set"));
            }
        }
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
            files(part, &at, causes, |item, causes| take(text(item, "path"), name, causes));
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

/// The items that become files: a key and a path that stays inside (core `validateKeyToPath`). More is asked of each by the caller.
fn files(source: &Value, path: &FieldPath, causes: &mut Vec<Cause>, mut more: impl FnMut(&Value, &mut Vec<Cause>)) {
    for (nth, item) in items(source, "items").iter().enumerate() {
        let path = path.child("items").index(nth);
        for field in ["key", "path"].into_iter().filter(|field| text(item, field).is_empty()) {
            causes.push(Cause::required(&path.child(field), ""));
        }
        not_reserved(text(item, "path"), &path.child("path"), causes);
        mode(item, "mode", &path, causes);
        more(item, causes);
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

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::json::json;

    fn told(causes: &[Cause]) -> Vec<String> {
        causes.iter().map(Cause::to_string).collect()
    }

    fn judged(volumes: Value) -> Vec<String> {
        let mut causes = Vec::new();
        validate_all(volumes.as_array().unwrap(), &FieldPath::new("v"), &mut causes);
        told(&causes)
    }

    #[test]
    fn a_second_source_is_told_in_upstreams_order() {
        let long = "p".repeat(64);
        assert_eq!(
            judged(json!([{"name": "a", "image": {}, "downwardAPI": {}, "cephfs": {}, "hostPath": {},
                "iscsi": {"initiatorName": "x", "targetPortal": long}}])),
            [
                "v[0].hostPath.path: Required value".to_owned(),
                "v[0].iscsi: Forbidden: may not specify more than 1 volume type".to_owned(),
                format!("v[0].name: Invalid value: \"a\": {}", kinds::LONG_TARGET),
                "v[0].cephFS: Forbidden: may not specify more than 1 volume type".to_owned(),
                "v[0].downwarAPI: Forbidden: may not specify more than 1 volume type".to_owned(),
                "v[0].image: Forbidden: may not specify more than 1 volume type".to_owned(),
            ]
        );
        assert_eq!(judged(json!([{"name": "a"}])), ["v[0]: Required value: must specify a volume type"]);
    }

    #[test]
    fn a_claim_made_for_a_pod_has_labels_and_annotations_of_its_own_alone() {
        let with = |metadata: Value| {
            let spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1"}}});
            let template = json!({"metadata": metadata, "spec": spec});
            judged(json!([{"name": "a", "ephemeral": {"volumeClaimTemplate": template}}]))
        };
        let unset = json!({"labels": {"a": "b"}, "annotations": {"a/B": "c"}, "creationTimestamp": null, "generation": 0,
            "name": "", "finalizers": []});
        assert!(with(unset).is_empty());
        let path = "v[0].ephemeral.volumeClaimTemplate.metadata";
        let found =
            with(json!({"finalizers": ["x"], "uid": "u", "name": "n", "labels": {"a": "-"}, "annotations": {"-": ""}}));
        assert!(found[0].starts_with(&format!("{path}.annotations: Invalid value: \"-\"")), "{found:?}");
        assert!(found[1].starts_with(&format!("{path}.labels: Invalid value: \"-\"")), "{found:?}");
        assert_eq!(
            found[2..],
            ["name", "uID", "finalizers"].map(|field| format!("{path}.{field}: Forbidden: cannot be set"))
        );
        let much = with(json!({"annotations": {"a": "x".repeat(256 << 10)}}));
        assert_eq!(much, [format!("{path}.annotations: Too long: may not be more than 262144 bytes")]);
    }

    #[test]
    fn claims_made_for_a_pod_have_names_and_are_its_own() {
        let check = |pod: Value| {
            let mut causes = Vec::new();
            claims_made(&pod, &mut causes);
            told(&causes)
        };
        let volumes = json!([{"name": "b", "ephemeral": {}}, {"name": "c", "persistentVolumeClaim": {"claimName": "a-b"}},
            {"name": "d", "persistentVolumeClaim": {"claimName": "a-c"}}]);
        assert_eq!(
            check(json!({"metadata": {"name": "a"}, "spec": {"volumes": volumes}})),
            [
                "spec.volumes[1].persistentVolumeClaim.claimName: Invalid value: \"a-b\": must not reference a PVC that gets created for an ephemeral volume"
            ]
        );
        assert!(check(json!({"spec": {"volumes": volumes}})).is_empty());
        let long = "a".repeat(253);
        assert_eq!(
            check(json!({"metadata": {"name": long}, "spec": {"volumes": volumes}})),
            [format!(
                "spec.volumes[0].name: Invalid value: \"b\": PVC name \"{long}-b\": must be no more than 253 characters"
            )]
        );
    }

    #[test]
    fn nobodys_token_is_no_file() {
        let check = |account: Value| {
            let (part, mut causes) = (json!({"serviceAccountToken": {"path": "token"}}), Vec::new());
            let volumes = json!([{"name": "a", "projected": {"sources": [{"secret": {"name": "s"}}, part]}}]);
            tokens_of_nobody(&json!({"serviceAccountName": account, "volumes": volumes}), &mut causes);
            told(&causes)
        };
        assert!(check("default".into()).is_empty());
        assert_eq!(
            check(Value::Null),
            [
                "spec.volumes[0].projected.sources[1].serviceAccountToken: Forbidden: must not be specified when serviceAccountName is not set"
            ]
        );
    }

    #[test]
    fn a_path_that_is_taken_is_told_with_its_item() {
        let found = judged(json!([{"name": "a", "projected": {"sources": [{"secret": {"name": "s", "items":
            [{"key": "a", "path": "x"}, {"key": "b", "path": "x"}, {"key": "", "path": "y"}]}}]}}]));
        assert_eq!(
            found,
            [
                "v[0].projected: Invalid value: \"s\": conflicting duplicate paths",
                "v[0].projected.sources[0].secret.items[2].key: Required value",
            ]
        );
    }
}
