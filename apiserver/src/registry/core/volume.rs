//! PersistentVolumes and their claims (core/validation).

use super::volume_kinds::{self, Owner};
use crate::registry::fields::{
    self, alike, invalid_all, is_set, items, label_selector, object_mut, one_of, quantity, same, set, set_default, text,
};
use crate::registry::strategy::{Strategy, Traits, WriteContext};
use coracle_api::json::{Value, json};
use coracle_api::quantity::Quantity;
use coracle_api::status::FieldPath;
use coracle_api::{Cause, meta, validation};

const MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
const VOLUME_MODES: [&str; 2] = ["Block", "Filesystem"];
const RECLAIM: [&str; 3] = ["Delete", "Recycle", "Retain"];
const NOT_POSITIVE: &str = "must be greater than zero";
const CLAIM_FIXED: &str =
    "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";

/// What a volume can be.
const SOURCES: [&str; 22] = [
    "awsElasticBlockStore",
    "azureDisk",
    "azureFile",
    "cephfs",
    "cinder",
    "csi",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "glusterfs",
    "hostPath",
    "iscsi",
    "local",
    "nfs",
    "photonPersistentDisk",
    "portworxVolume",
    "quobyte",
    "rbd",
    "scaleIO",
    "storageos",
    "vsphereVolume",
];

/// core/v1 PersistentVolume
#[derive(Debug)]
pub struct VolumeStrategy;

impl Strategy for VolumeStrategy {
    fn blank_status(&self) -> Value {
        json!({"phase": "Pending"})
    }

    fn default(&self, volume: &mut Value) {
        let spec = object_mut(volume, "spec");
        set_default(spec, "persistentVolumeReclaimPolicy", "Retain");
        volume_mode(spec);
        default_source(spec);
    }

    fn prepare_create(&self, volume: &mut Value, context: &WriteContext) {
        let now = coracle_api::clock::rfc3339(context.now);
        volume["status"] = json!({"phase": "Pending", "lastPhaseTransitionTime": now});
    }

    fn validate(&self, volume: &Value, causes: &mut Vec<Cause>) {
        let (spec, path) = (&volume["spec"], FieldPath::new("spec"));
        access_modes(spec, "", &path, causes);
        capacity(spec, &path.child("capacity"), causes);
        one_of(spec, "persistentVolumeReclaimPolicy", &RECLAIM, &path, causes);
        one_of(spec, "volumeMode", &VOLUME_MODES, &path, causes);
        sources(spec, meta::name(volume), &path, causes);
        classes(spec, &path, causes);
        if is_set(spec, "volumeAttributesClassName") && !is_set(spec, "csi") {
            let why = "has to be specified when using volumeAttributesClassName";
            causes.push(Cause::required(&path.child("csi"), why));
        }
        let affinity = spec.get("nodeAffinity").filter(|affinity| !affinity.is_null());
        if let Some(affinity) = affinity {
            let path = path.child("nodeAffinity").child("required");
            match affinity.get("required").filter(|required| !required.is_null()) {
                None => causes.push(Cause::required(&path, "must specify required node constraints")),
                Some(required) => super::scheduling::node_selector(required, &path, causes),
            }
        } else if is_set(spec, "local") {
            causes.push(Cause::required(&path.child("nodeAffinity"), "Local volume requires node affinity"));
        }
    }

    fn validate_update(&self, volume: &Value, old: &Value, causes: &mut Vec<Cause>) {
        let (now, before) = (&volume["spec"], &old["spec"]);
        let source = |spec: &Value, name: &str| {
            let mut source = spec.get(name).cloned().unwrap_or(Value::Null);
            // Who expands it may be named later.
            if before.pointer(&format!("/{name}/controllerExpandSecretRef")).is_none() {
                fields::remove(&mut source, "controllerExpandSecretRef");
            }
            source
        };
        if SOURCES.iter().any(|name| !alike(&source(now, name), &source(before, name))) {
            let path = FieldPath::new("spec.persistentvolumesource");
            causes.push(Cause::forbidden(&path, "spec.persistentvolumesource is immutable after creation"));
        }
        let immutable = |field: &str, causes: &mut Vec<Cause>| {
            if !same(now, before, field) {
                causes.push(Cause::immutable(&FieldPath::new(field), now.get(field).cloned().unwrap_or(Value::Null)));
            }
        };
        immutable("volumeMode", causes);
        if is_set(before, "nodeAffinity") {
            immutable("nodeAffinity", causes);
        }
        attributes_class_stays(now, before, causes);
    }
}

fn volume_mode(spec: &mut Value) {
    set_default(spec, "volumeMode", "Filesystem");
}

/// What a volume's source may leave out.
pub fn default_source(spec: &mut Value) {
    if let Some(path) = spec.get_mut("hostPath").filter(|path| path.is_object()) {
        set_default(path, "type", "");
    }
    super::pod_defaults::volume_systems(spec);
}

/// The specification of a volume that stands in another object, in place of a volume's name (core `ValidatePersistentVolumeSpec`).
pub fn inline_spec(spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    const CONTEXT: &str = "in the context of inline volumes";
    let never = |field: &str, causes: &mut Vec<Cause>| {
        if is_set(spec, field) && spec[field].as_object().is_none_or(|map| !map.is_empty() || field != "capacity") {
            causes.push(Cause::forbidden(&path.child(field), format!("may not be specified {CONTEXT}")));
        }
    };
    never("claimRef", causes);
    never("capacity", causes);
    if !is_set(spec, "csi") {
        causes.push(Cause::required(&path.child("csi"), &format!("has to be specified {CONTEXT}")));
    }
    access_modes(spec, "", path, causes);
    if !matches!(text(spec, "persistentVolumeReclaimPolicy"), "" | "Retain") {
        let why = format!("may only be Retain {CONTEXT}");
        causes.push(Cause::forbidden(&path.child("persistentVolumeReclaimPolicy"), why));
    }
    never("nodeAffinity", causes);
    sources(spec, "", path, causes);
    never("storageClassName", causes);
    if spec.get("volumeMode").and_then(Value::as_str).is_some_and(|mode| mode != "Filesystem") {
        let why = format!("may not specify volumeMode other than Filesystem {CONTEXT}");
        causes.push(Cause::forbidden(&path.child("volumeMode"), why));
    }
}

fn capacity(spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let given = spec.get("capacity").and_then(Value::as_object);
    let count = given.map_or(0, coracle_api::json::Map::len);
    if count == 0 {
        causes.push(Cause::required(path, ""));
    }
    if count > 1 || given.is_none_or(|given| !given.contains_key("storage")) {
        let found = spec.get("capacity").cloned().unwrap_or_else(|| json!({}));
        causes.push(Cause::not_supported(path, found, &["storage"]));
    }
    for (name, size) in given.into_iter().flatten() {
        let (size, path) = (quantity(size), path.key(name));
        // Upstream asks for a valid quantity first, whose value it shows rounded up.
        if let Some(size) = size.filter(|size| size.is_negative()) {
            causes.push(Cause::invalid(&path, size.units(), "must be a valid resource quantity"));
        }
        positive(size, &path, causes);
    }
}

fn positive(size: Option<Quantity>, path: &FieldPath, causes: &mut Vec<Cause>) {
    if let Some(size) = size
        && (size.is_zero() || size.is_negative())
    {
        causes.push(Cause::invalid(path, size.to_string(), NOT_POSITIVE));
    }
}

fn sources(spec: &Value, volume: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    let given = SOURCES.iter().filter(|name| spec.get(*name).is_some_and(|source| !source.is_null()));
    let mut count = 0;
    for name in given {
        count += 1;
        if count > 1 {
            causes.push(Cause::forbidden(&path.child(name), "may not specify more than 1 volume type"));
            continue;
        }
        volume_kinds::validate(name, &spec[*name], Owner::Persistent { name: volume }, path, causes);
    }
    if count == 0 {
        causes.push(Cause::required(path, "must specify a volume type"));
    }
    let root = spec
        .pointer("/hostPath/path")
        .and_then(Value::as_str)
        .is_some_and(|path| path.trim_matches('/').is_empty() && !path.is_empty());
    if root && text(spec, "persistentVolumeReclaimPolicy") == "Recycle" {
        let path = path.child("persistentVolumeReclaimPolicy");
        causes.push(Cause::forbidden(&path, "may not be 'recycle' for a hostPath mount of '/'"));
    }
}

/// Names of classes, which may be left out but not be anything.
fn classes(spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let class = text(spec, "storageClassName");
    if !class.is_empty() {
        invalid_all(&path.child("storageClassName"), class, validation::dns1123_subdomain(class), causes);
    }
    let path = path.child("volumeAttributesClassName");
    match spec.get("volumeAttributesClassName").and_then(Value::as_str) {
        None => {}
        Some("") => causes.push(Cause::required(&path, "an empty string is disallowed")),
        Some(class) => invalid_all(&path, class, validation::dns1123_subdomain(class), causes),
    }
}

fn attributes_class_stays(now: &Value, before: &Value, causes: &mut Vec<Cause>) {
    if is_set(before, "volumeAttributesClassName") && !is_set(now, "volumeAttributesClassName") {
        let path = FieldPath::new("spec.volumeAttributesClassName");
        causes.push(Cause::forbidden(&path, "update from non-nil value to nil is forbidden"));
    }
}

/// core/v1 PersistentVolumeClaim
#[derive(Debug)]
pub struct ClaimStrategy;

impl Strategy for ClaimStrategy {
    fn blank_status(&self) -> Value {
        json!({"phase": "Pending"})
    }

    fn traits(&self) -> Traits {
        Traits::DEFAULT
    }

    fn default(&self, claim: &mut Value) {
        volume_mode(object_mut(claim, "spec"));
    }

    fn prepare_create(&self, claim: &mut Value, _context: &WriteContext) {
        let spec = object_mut(claim, "spec");
        drop_sources(spec, &Value::Null);
        data_source(spec);
        claim["status"] = json!({"phase": "Pending"});
    }

    fn prepare_update(&self, claim: &mut Value, old: &Value, _context: &WriteContext) {
        drop_sources(object_mut(claim, "spec"), &old["spec"]);
    }

    fn validate(&self, claim: &Value, causes: &mut Vec<Cause>) {
        claim_spec(&claim["spec"], &FieldPath::new("spec"), causes);
    }

    fn validate_update(&self, claim: &Value, old: &Value, causes: &mut Vec<Cause>) {
        let (mut now, mut before) = (claim["spec"].clone(), old["spec"].clone());
        // A claim is bound once, and gets the default class once.
        for field in ["volumeName", "storageClassName"] {
            if before.get(field).is_none_or(Value::is_null) || field == "volumeName" && !is_set(&before, field) {
                fields::copy(&mut before, &now, field);
            }
        }
        let bound = text(&old["status"], "phase") == "Bound";
        if bound {
            fields::copy(&mut now, &before, "volumeAttributesClassName");
            if let Some(size) = before.pointer("/resources/requests/storage").cloned()
                && now.pointer("/resources/requests").is_some()
            {
                set(object_mut(object_mut(&mut now, "resources"), "requests"), "storage", size);
            }
        }
        if !alike(&now, &before) {
            causes.push(Cause::forbidden(&FieldPath::new("spec"), CLAIM_FIXED));
        }
        // What is not said counts as nothing.
        let none = Quantity::from_units(0);
        let size = |value: &Value, path: &str| value.pointer(path).and_then(quantity).unwrap_or(none);
        let asked = |value: &Value| size(value, "/spec/resources/requests/storage");
        if asked(claim) < asked(old) && asked(claim) <= size(old, "/status/capacity/storage") {
            let path = FieldPath::new("spec").child("resources").child("requests").child("storage");
            causes.push(Cause::forbidden(&path, "field can not be less than status.capacity"));
        }
        if !same(&claim["spec"], &old["spec"], "volumeMode") {
            let mode = claim["spec"].get("volumeMode").cloned().unwrap_or(Value::Null);
            causes.push(Cause::immutable(&FieldPath::new("volumeMode"), mode));
        }
        attributes_class_stays(&claim["spec"], &old["spec"], causes);
    }
}

/// Leaves out what a claim cannot be filled from: something in another namespace, for the gate CrossNamespaceVolumeDataSource is
/// alpha, and off; and in the older field, for that is how servers did before the newer one, all but claims and snapshots
/// (core/persistentvolumeclaim `DropDisabledFields`, `EnforceDataSourceBackwardsCompatibility`). What the claim has, it keeps.
fn drop_sources(spec: &mut Value, old: &Value) {
    let elsewhere = fields::field(spec, "dataSourceRef").is_some_and(|source| is_set(source, "namespace"));
    if elsewhere && !is_set(old, "dataSourceRef") {
        fields::remove(spec, "dataSourceRef");
    }
    let has_source = [&*spec, old].into_iter().any(|spec| is_set(spec, "dataSourceRef")) || is_set(old, "dataSource");
    let known = fields::field(spec, "dataSource").is_some_and(|source| {
        let of = (text(source, "apiGroup"), text(source, "kind"));
        [("", "PersistentVolumeClaim"), ("snapshot.storage.k8s.io", "VolumeSnapshot")].contains(&of)
    });
    if !has_source && !known {
        fields::remove(spec, "dataSource");
    }
}

/// What a claim is filled from stands in two fields, the older of which follows the newer (core/persistentvolumeclaim
/// `NormalizeDataSources`).
fn data_source(spec: &mut Value) {
    let elsewhere = spec.pointer("/dataSourceRef/namespace").is_some_and(|namespace| namespace.as_str() != Some(""));
    for (from, to) in [("dataSource", "dataSourceRef"), ("dataSourceRef", "dataSource")] {
        if is_set(spec, from) && !is_set(spec, to) && !(elsewhere && to == "dataSource") {
            let source = spec[from].clone();
            set(spec, to, source);
        }
    }
}

/// A claim, alone or in a template.
pub fn claim_spec(spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    access_modes(spec, "at least 1 access mode is required", path, causes);
    if let Some(selector) = spec.get("selector").filter(|selector| !selector.is_null()) {
        label_selector(selector, &path.child("selector"), causes);
    }
    let storage = path.child("resources").key("storage");
    match spec.pointer("/resources/requests/storage").and_then(quantity) {
        None => causes.push(Cause::required(&storage, "")),
        size => positive(size, &storage, causes),
    }
    one_of(spec, "volumeMode", &VOLUME_MODES, path, causes);
    classes(spec, path, causes);
    let core = |source: &Value| text(source, "apiGroup").is_empty();
    for field in ["dataSource", "dataSourceRef"] {
        let Some(source) = spec.get(field).filter(|source| !source.is_null()) else { continue };
        let path = path.child(field);
        for part in ["name", "kind"].into_iter().filter(|part| text(source, part).is_empty()) {
            causes.push(Cause::required(&path.child(part), ""));
        }
        let kind = text(source, "kind");
        if core(source) && !kind.is_empty() && kind != "PersistentVolumeClaim" {
            let why = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
            causes.push(Cause::invalid(&path, kind, why));
        }
    }
    let (source, by_ref) = (&spec["dataSource"], &spec["dataSourceRef"]);
    let path = path.child("dataSource");
    if !text(by_ref, "namespace").is_empty() {
        if !source.is_null() {
            let why = "may not be specified when dataSourceRef.namespace is specified";
            causes.push(Cause::invalid(&path, source.clone(), why));
        }
    } else if !source.is_null() && !by_ref.is_null() {
        let different = ["kind", "name", "apiGroup"].iter().any(|part| text(source, part) != text(by_ref, part));
        if different {
            causes.push(Cause::invalid(&path, source.clone(), "must match dataSourceRef"));
        }
    }
}

fn access_modes(spec: &Value, why: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    let (modes, path) = (items(spec, "accessModes"), path.child("accessModes"));
    if modes.is_empty() {
        causes.push(Cause::required(&path, why));
    }
    for mode in modes.iter().filter_map(Value::as_str).filter(|mode| !MODES.contains(mode)) {
        causes.push(Cause::not_supported(&path, mode, &MODES));
    }
    let single = modes.iter().any(|mode| mode == "ReadWriteOncePod");
    if single && modes.iter().any(|mode| mode != "ReadWriteOncePod") {
        causes.push(Cause::forbidden(&path, "may not use ReadWriteOncePod with other access modes"));
    }
}
