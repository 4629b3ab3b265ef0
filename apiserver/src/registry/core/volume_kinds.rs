//! Checks of what a volume is made from, in pods and in PersistentVolumes (core/validation `validateVolumeSource` and
//! `ValidatePersistentVolumeSpec`): a table of what each kind must have, and what more a few of them ask.

use crate::registry::fields::{field, invalid_all, is_set, items, one_of, text};
use crate::registry::storage::driver_name;
use coracle_api::json::Value;
use coracle_api::status::FieldPath;
use coracle_api::{Cause, validation};

/// Whose volume it is.
#[derive(Clone, Copy)]
pub enum Owner<'a> {
    /// A pod that mounts it directly.
    Pod,
    /// A PersistentVolume.
    Persistent { name: &'a str },
}

impl Owner<'_> {
    fn is_persistent(self) -> bool {
        matches!(self, Owner::Persistent { .. })
    }
}

/// Fields that a kind of volume must have.
const NEEDED: [(&str, &[&str]); 20] = [
    ("awsElasticBlockStore", &["volumeID"]),
    ("azureDisk", &["diskName", "diskURI"]),
    ("azureFile", &["secretName", "shareName"]),
    ("cephfs", &["monitors"]),
    ("cinder", &["volumeID"]),
    ("flexVolume", &["driver"]),
    ("gcePersistentDisk", &["pdName"]),
    ("gitRepo", &["repository"]),
    ("glusterfs", &["endpoints", "path"]),
    ("hostPath", &["path"]),
    ("image", &["reference", "pullPolicy"]),
    ("local", &["path"]),
    ("nfs", &["server", "path"]),
    ("persistentVolumeClaim", &["claimName"]),
    ("photonPersistentDisk", &["pdID"]),
    ("portworxVolume", &["volumeID"]),
    ("rbd", &["monitors", "image"]),
    ("scaleIO", &["gateway", "system", "volumeName"]),
    ("storageos", &["volumeName"]),
    ("vsphereVolume", &["volumePath"]),
];
const HOST_PATHS: [&str; 8] =
    ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
const REGISTRY: &str = "must be a host:port pair or multiple pairs separated by commas";
const ISCSI_NAMES: &str = "must be valid format starting with iqn, eui, or naa";
pub const LONG_TARGET: &str = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.";

/// What is told of a second source, in upstream's spelling of two of them.
pub fn surplus(kind: &str, parent: &FieldPath) -> Cause {
    let spelled = match kind {
        "cephfs" => "cephFS",
        "downwardAPI" => "downwarAPI",
        kind => kind,
    };
    Cause::forbidden(&parent.child(spelled), "may not specify more than 1 volume type")
}

/// The source of a volume, at the path of what holds it.
pub fn validate(kind: &str, source: &Value, owner: Owner<'_>, parent: &FieldPath, causes: &mut Vec<Cause>) {
    // Upstream names the field of its own type here, which is not what is written.
    let path = parent.child(if kind == "gcePersistentDisk" { "persistentDisk" } else { kind });
    let needed = NEEDED.iter().find(|(name, _)| *name == kind).map_or(&[][..], |(_, needed)| *needed);
    for field in needed.iter().filter(|field| !is_set(source, field)) {
        causes.push(Cause::required(&path.child(field), ""));
    }
    match kind {
        "hostPath" | "local" if is_set(source, "path") => {
            no_backsteps(text(source, "path"), &path.child("path"), causes);
            if kind == "hostPath" {
                one_of(source, "type", &HOST_PATHS, &path, causes);
            }
        }
        "gitRepo" => descending(text(source, "directory"), &path.child("directory"), causes),
        "nfs" if !text(source, "path").starts_with('/') => {
            causes.push(Cause::invalid(&path.child("path"), text(source, "path"), "must be an absolute path"));
        }
        "awsElasticBlockStore" | "gcePersistentDisk" => {
            // Zero is a disk without partitions, though the message does not say so.
            number(source, "partition", "must be between 1 and 255, inclusive", &path, causes);
        }
        "azureDisk" => azure_disk(source, &path, causes),
        "azureFile" if owner.is_persistent() && source["secretNamespace"] == "" => {
            causes.push(Cause::required(&path.child("secretNamespace"), ""));
        }
        "cinder" => secret(source, "secretRef", owner, &path, causes),
        "csi" => csi(source, owner, &path, causes),
        "fc" => fibre_channel(source, &path, causes),
        "flexVolume" => options(source, &path, causes),
        "flocker" => flocker(source, &path, causes),
        "glusterfs" if owner.is_persistent() => {
            let path = path.child("endpointsNamespace");
            match field(source, "endpointsNamespace").and_then(Value::as_str) {
                None => {}
                Some("") => {
                    let why = "if the endpointnamespace is set, it must be a valid namespace name";
                    causes.push(Cause::invalid(&path, "", why));
                }
                Some(namespace) => invalid_all(&path, namespace, validation::dns1123_label(namespace), causes),
            }
        }
        "image" if is_set(source, "pullPolicy") => one_of(source, "pullPolicy", &super::container::PULL, &path, causes),
        "iscsi" => iscsi(source, owner, &path, causes),
        "quobyte" => quobyte(source, &path, causes),
        "storageos" => storageos(source, owner, &path, causes),
        _ => {}
    }
}

/// A path that stays below where it begins: relative, without steps back (core `validateLocalDescendingPath`).
pub fn descending(target: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    if target.starts_with('/') {
        causes.push(Cause::invalid(path, target, "must be a relative path"));
    }
    no_backsteps(target, path, causes);
}

/// A path of a file made in a volume, whose own files begin with two dots (core `ValidateLocalNonReservedPath`).
pub fn not_reserved(target: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    descending(target, path, causes);
    if target.starts_with("..") && !target.starts_with("../") {
        causes.push(Cause::invalid(path, target, "must not start with '..'"));
    }
}

/// A path without steps back (core `validatePathNoBacksteps`).
pub fn no_backsteps(target: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    if steps_back(target) {
        causes.push(Cause::invalid(path, target, "must not contain '..'"));
    }
}

/// Whether a part of a path is `..`.
pub fn steps_back(target: &str) -> bool {
    target.split('/').any(|part| part == "..")
}

/// A number that fits a byte.
fn number(source: &Value, name: &str, why: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    if let Some(number) = field(source, name).and_then(Value::as_i64)
        && !(0..=255).contains(&number)
    {
        causes.push(Cause::invalid(&path.child(name), number, why));
    }
}

/// A secret that is named: in a PersistentVolume, which has no namespace, with its namespace.
fn secret(source: &Value, name: &str, owner: Owner<'_>, path: &FieldPath, causes: &mut Vec<Cause>) {
    let Some(secret) = field(source, name).filter(|secret| !secret.is_null()) else { return };
    let parts: &[&str] = if owner.is_persistent() { &["name", "namespace"] } else { &["name"] };
    for part in parts.iter().filter(|part| text(secret, part).is_empty()) {
        causes.push(Cause::required(&path.child(name).child(part), ""));
    }
}

fn csi(source: &Value, owner: Owner<'_>, path: &FieldPath, causes: &mut Vec<Cause>) {
    driver_name(text(source, "driver"), &path.child("driver"), causes);
    if !owner.is_persistent() {
        secret(source, "nodePublishSecretRef", owner, path, causes);
        let name = source.pointer("/nodePublishSecretRef/name").and_then(Value::as_str).unwrap_or_default();
        if !name.is_empty() {
            invalid_all(&path.child("name"), name, validation::dns1123_subdomain(name), causes);
        }
        return;
    }
    if text(source, "volumeHandle").is_empty() {
        causes.push(Cause::required(&path.child("volumeHandle"), ""));
    }
    // The secret for staging is not looked at, upstream neither.
    for name in
        ["controllerPublishSecretRef", "controllerExpandSecretRef", "nodePublishSecretRef", "nodeExpandSecretRef"]
    {
        let Some(secret) = field(source, name).filter(|secret| !secret.is_null()) else { continue };
        let path = path.child(name);
        for (part, rule) in [
            ("name", validation::dns1123_subdomain as fn(&str) -> Vec<String>),
            ("namespace", validation::dns1123_label),
        ] {
            match text(secret, part) {
                "" => causes.push(Cause::required(&path.child(part), "")),
                value => invalid_all(&path.child(part), value, rule(value), causes),
            }
        }
    }
}

fn azure_disk(source: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    const MANAGED: &str =
        "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}";
    const BLOB: &str = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd";
    one_of(source, "cachingMode", &["None", "ReadOnly", "ReadWrite"], path, causes);
    one_of(source, "kind", &["Dedicated", "Managed", "Shared"], path, causes);
    let (start, form) =
        if text(source, "kind") == "Managed" { ("/subscriptions/", MANAGED) } else { ("https://", BLOB) };
    let uri = text(source, "diskURI");
    if !uri.starts_with(start) {
        causes.push(Cause::not_supported(&path.child("diskURI"), uri, &[form]));
    }
}

fn fibre_channel(source: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let (names, ids) = (items(source, "targetWWNs"), items(source, "wwids"));
    let at = path.child("targetWWNs");
    match (names.is_empty(), ids.is_empty()) {
        (true, true) => {
            causes.push(Cause::required(&at, "must specify either targetWWNs or wwids, but not both"));
        }
        (false, false) => {
            let why = "targetWWNs and wwids can not be specified simultaneously";
            causes.push(Cause::invalid(&at, names.to_vec(), why));
        }
        _ => {}
    }
    if names.is_empty() {
        return;
    }
    if field(source, "lun").and_then(Value::as_i64).is_none() {
        causes.push(Cause::required(&path.child("lun"), "lun is required if targetWWNs is specified"));
    }
    number(source, "lun", "must be between 0 and 255, inclusive", path, causes);
}

/// Options of a flex driver: none that Kubernetes keeps for itself.
fn options(source: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    for name in source["options"].as_object().into_iter().flat_map(coracle_api::json::Map::keys) {
        let domain = format!(".{}", name.split('/').next().unwrap_or(name).to_ascii_lowercase());
        if domain.ends_with(".kubernetes.io") || domain.ends_with(".k8s.io") {
            let why = "kubernetes.io and k8s.io namespaces are reserved";
            causes.push(Cause::invalid(&path.child("options").key(name), name.as_str(), why));
        }
    }
}

fn flocker(source: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let (name, uuid) = (text(source, "datasetName"), text(source, "datasetUUID"));
    if name.is_empty() && uuid.is_empty() {
        causes.push(Cause::required(path, "one of datasetName and datasetUUID is required"));
    }
    if !name.is_empty() && !uuid.is_empty() {
        causes.push(Cause::invalid(
            path,
            "resource",
            "datasetName and datasetUUID can not be specified simultaneously",
        ));
    }
    if name.contains('/') {
        causes.push(Cause::invalid(&path.child("datasetName"), name, "must not contain '/'"));
    }
}

fn iscsi(source: &Value, owner: Owner<'_>, path: &FieldPath, causes: &mut Vec<Cause>) {
    let (portal, iqn) = (text(source, "targetPortal"), text(source, "iqn"));
    if portal.is_empty() {
        causes.push(Cause::required(&path.child("targetPortal"), ""));
    }
    if let Owner::Persistent { name } = owner
        && is_long_target(source, name)
    {
        causes.push(Cause::invalid(&path.child("targetportal"), portal, LONG_TARGET));
    }
    if iqn.is_empty() {
        causes.push(Cause::required(&path.child("iqn"), ""));
    } else {
        let why = if owner.is_persistent() { "must be valid format" } else { ISCSI_NAMES };
        iscsi_name(iqn, why, &path.child("iqn"), causes);
    }
    number(source, "lun", "must be between 0 and 255, inclusive", path, causes);
    let asks = ["chapAuthDiscovery", "chapAuthSession"].iter().any(|flag| source[*flag] == true);
    match field(source, "secretRef").filter(|secret| !secret.is_null()) {
        None if asks => causes.push(Cause::required(&path.child("secretRef"), "")),
        Some(secret) if owner.is_persistent() && text(secret, "name").is_empty() => {
            causes.push(Cause::required(&path.child("secretRef").child("name"), ""));
        }
        _ => {}
    }
    if let Some(initiator) = field(source, "initiatorName").and_then(Value::as_str) {
        iscsi_name(initiator, ISCSI_NAMES, &path.child("initiatorname"), causes);
    }
}

/// Whether the volume's name and where it is are too long together to be the name of an interface.
pub fn is_long_target(source: &Value, volume: &str) -> bool {
    let named = field(source, "initiatorName").is_some_and(Value::is_string);
    named && volume.len() + 1 + text(source, "targetPortal").len() > 64
}

/// A qualified, an EUI or a network address authority name (RFC 3720, 3.2.6); `why` is told of any other.
fn iscsi_name(name: &str, why: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    let id = |rest: &str, length: usize| {
        let mut rest = rest.chars();
        rest.next().is_some() && rest.as_str().len() == length && rest.all(|c| c.is_ascii_alphanumeric())
    };
    let valid = match (name.get(..3), name.get(3..)) {
        (Some("iqn"), Some(_)) => has_iqn(name),
        (Some("eui"), Some(rest)) => id(rest, 16),
        (Some("naa"), Some(rest)) => id(rest, 32),
        _ => return causes.push(Cause::invalid(path, name, why)),
    };
    if !valid {
        causes.push(Cause::invalid(path, name, "must be valid format"));
    }
}

/// Whether a text ends with `iqn.yyyy-mm.`, a domain turned around, a colon and a name. Upstream's expression is not tied to the
/// beginning.
fn has_iqn(text: &str) -> bool {
    // All of it is behind what can stand in no part of it, and all but the name before a colon.
    let end = text.rfind(|c: char| ",;*&$|\t\n\x0c\r ".contains(c)).map_or(0, |at| at + 1);
    let mut rest = text.get(end..).unwrap_or_default();
    while let Some((before, name)) = rest.split_once(':') {
        let start = before.rfind(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '.'));
        let own = start.and_then(|at| before.get(at..)).unwrap_or(before);
        if !name.is_empty() && own.match_indices("iqn.").any(|(at, _)| is_iqn(&own.as_bytes()[at..])) {
            return true;
        }
        rest = name;
    }
    false
}

/// What comes before the colon: the year, the month and at least one character of a domain.
fn is_iqn(text: &[u8]) -> bool {
    let form = b"iqn.0000-00.";
    text.len() > form.len()
        && form.iter().zip(text).all(|(form, byte)| if *form == b'0' { byte.is_ascii_digit() } else { form == byte })
}

fn quobyte(source: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let registry = text(source, "registry");
    if registry.is_empty() {
        causes.push(Cause::required(&path.child("registry"), REGISTRY));
    } else if text(source, "tenant").len() > 64 {
        let why = "must be a UUID and may not exceed a length of 64 characters";
        causes.push(Cause::required(&path.child("tenant"), why));
    } else {
        for _ in registry.split(',').filter(|pair| !is_host_port(pair)) {
            causes.push(Cause::invalid(&path.child("registry"), registry, REGISTRY));
        }
    }
    if text(source, "volume").is_empty() {
        causes.push(Cause::required(&path.child("volume"), ""));
    }
}

/// A host and a port, an IPv6 address in brackets.
fn is_host_port(pair: &str) -> bool {
    match pair.strip_prefix('[').map(|rest| rest.split_once("]:")) {
        Some(parts) => parts.is_some_and(|(_, port)| !port.contains([':', '[', ']'])),
        None => pair.split(':').count() == 2 && !pair.contains(['[', ']']),
    }
}

fn storageos(source: &Value, owner: Owner<'_>, path: &FieldPath, causes: &mut Vec<Cause>) {
    for name in ["volumeName", "volumeNamespace"] {
        let value = text(source, name);
        if !value.is_empty() {
            invalid_all(&path.child(name), value, validation::dns1123_label(value), causes);
        }
    }
    secret(source, "secretRef", owner, path, causes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::json::json;

    fn told(kind: &str, source: Value, owner: Owner<'_>) -> Vec<String> {
        let mut causes = Vec::new();
        validate(kind, &source, owner, &FieldPath::new("v"), &mut causes);
        causes.iter().map(Cause::to_string).collect()
    }

    #[test]
    fn images_are_named_and_pulled_in_known_ways() {
        assert_eq!(
            told("image", json!({}), Owner::Pod),
            ["v.image.reference: Required value", "v.image.pullPolicy: Required value"]
        );
        assert_eq!(
            told("image", json!({"reference": "a", "pullPolicy": "Soon"}), Owner::Pod),
            [
                "v.image.pullPolicy: Unsupported value: \"Soon\": supported values: \"Always\", \"IfNotPresent\", \"Never\""
            ]
        );
        assert!(told("image", json!({"reference": "a", "pullPolicy": "Never"}), Owner::Pod).is_empty());
    }

    #[test]
    fn an_iscsi_targets_length_is_told_between_what_it_needs() {
        let found = told("iscsi", json!({"initiatorName": "x"}), Owner::Persistent { name: &"n".repeat(64) });
        assert_eq!(
            found,
            [
                "v.iscsi.targetPortal: Required value".to_owned(),
                format!("v.iscsi.targetportal: Invalid value: \"\": {LONG_TARGET}"),
                "v.iscsi.iqn: Required value".to_owned(),
                format!("v.iscsi.initiatorname: Invalid value: \"x\": {ISCSI_NAMES}"),
            ]
        );
    }

    #[test]
    fn iscsi_names_end_as_they_must() {
        for (name, valid) in [
            ("iqn.2015-02.example.com:a", true),
            ("iqn.2015-02.example.com:a:b", true),
            ("iqn, iqn.2015-02.com:a", true),
            ("iqn:iqn.2015-02.com:a", true),
            ("iqn_iqn.2015-02.com:a", true),
            ("iqn.2015-02.com:", false),
            ("iqn.2015-02.:a", false),
            ("iqn.2015-02:a", false),
            ("iqn.201-502.com:a", false),
            ("iqn.2015-02.com:a b", false),
            ("iqn.2015-02.c_m:a", false),
            ("iqn é:a", false),
        ] {
            assert_eq!(has_iqn(name), valid, "{name}");
        }
        let started = std::time::Instant::now();
        assert!(!has_iqn(&"iqn.2015-02.".repeat(100_000)) && !has_iqn(&"iqn.2015-02:".repeat(100_000)));
        assert!(started.elapsed().as_secs() < 5, "a long name is read in one go");
    }
}
