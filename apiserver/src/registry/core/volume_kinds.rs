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
    Pod { volume: &'a str },
    /// A PersistentVolume.
    Persistent { name: &'a str },
}

impl Owner<'_> {
    fn is_persistent(self) -> bool {
        matches!(self, Owner::Persistent { .. })
    }

    fn name(&self) -> &str {
        match self {
            Owner::Pod { volume } => volume,
            Owner::Persistent { name } => name,
        }
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
    ("iscsi", &["targetPortal", "iqn"]),
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
const LONG_TARGET: &str = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.";

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
        "iscsi" => iscsi(source, owner, parent, causes),
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

fn no_backsteps(target: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
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

fn iscsi(source: &Value, owner: Owner<'_>, parent: &FieldPath, causes: &mut Vec<Cause>) {
    let path = parent.child("iscsi");
    let (portal, iqn) = (text(source, "targetPortal"), text(source, "iqn"));
    let initiator = field(source, "initiatorName").and_then(Value::as_str);
    if initiator.is_some() && owner.name().len() + 1 + portal.len() > 64 {
        match owner {
            Owner::Pod { volume } => causes.push(Cause::invalid(&parent.child("name"), volume, LONG_TARGET)),
            Owner::Persistent { .. } => {
                causes.push(Cause::invalid(&path.child("targetportal"), portal, LONG_TARGET));
            }
        }
    }
    if !iqn.is_empty() {
        iscsi_name(iqn, owner, &path.child("iqn"), causes);
    }
    number(source, "lun", "must be between 0 and 255, inclusive", &path, causes);
    let asks = ["chapAuthDiscovery", "chapAuthSession"].iter().any(|flag| source[*flag] == true);
    match field(source, "secretRef").filter(|secret| !secret.is_null()) {
        None if asks => causes.push(Cause::required(&path.child("secretRef"), "")),
        Some(secret) if owner.is_persistent() && text(secret, "name").is_empty() => {
            causes.push(Cause::required(&path.child("secretRef").child("name"), ""));
        }
        _ => {}
    }
    if let Some(initiator) = initiator {
        iscsi_name(initiator, owner, &path.child("initiatorname"), causes);
    }
}

/// A qualified, an EUI or a network address authority name (RFC 3720, 3.2.6).
fn iscsi_name(name: &str, owner: Owner<'_>, path: &FieldPath, causes: &mut Vec<Cause>) {
    let id = |rest: &str, length: usize| {
        let mut rest = rest.chars();
        rest.next().is_some() && rest.as_str().len() == length && rest.all(|c| c.is_ascii_alphanumeric())
    };
    let valid = match (name.get(..3), name.get(3..)) {
        (Some("iqn"), Some(rest)) => is_iqn(rest),
        (Some("eui"), Some(rest)) => id(rest, 16),
        (Some("naa"), Some(rest)) => id(rest, 32),
        _ => {
            let why = if owner.is_persistent() {
                "must be valid format"
            } else {
                "must be valid format starting with iqn, eui, or naa"
            };
            causes.push(Cause::invalid(path, name, why));
            return;
        }
    };
    if !valid {
        causes.push(Cause::invalid(path, name, "must be valid format"));
    }
}

/// What follows `iqn`: `.yyyy-mm.`, a domain turned around, a colon and a name.
fn is_iqn(rest: &str) -> bool {
    let digits = |text: Option<&str>| text.is_some_and(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let Some((domain, name)) = rest.get(9..).and_then(|rest| rest.split_once(':')) else { return false };
    rest.starts_with('.')
        && digits(rest.get(1..5))
        && rest.get(5..6) == Some("-")
        && digits(rest.get(6..8))
        && rest.get(8..9) == Some(".")
        && !domain.is_empty()
        && domain.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
        && !name.is_empty()
        && !name.contains(|c: char| ",;*&$|".contains(c) || c.is_ascii_whitespace())
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
