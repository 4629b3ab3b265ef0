//! PersistentVolumes (core `ValidatePersistentVolumeSpec`, `ValidatePersistentVolumeUpdate`).

use super::amounts;
use super::volume_kinds::{self, Owner, surplus};
use super::{claim, node_labels};
use crate::registry::fields::{
    self, alike, below_mut, field, invalid_all, is_set, items, items_mut, object_mut, one_of, quantity, same, set,
    set_default, text,
};
use crate::registry::strategy::{Strategy, WriteContext};
use crate::registry::warnings::Warnings;
use coracle_api::json::{Map, Value, json};
use coracle_api::quantity::Quantity;
use coracle_api::status::FieldPath;
use coracle_api::{Cause, meta, validation};
use std::collections::BTreeMap;

pub use super::claim::claim_spec;

const MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
/// A volume for one pod.
const ALONE: &str = "ReadWriteOncePod";
pub const VOLUME_MODES: [&str; 2] = ["Block", "Filesystem"];
const RECLAIM: [&str; 3] = ["Delete", "Recycle", "Retain"];
const NOT_POSITIVE: &str = "must be greater than zero";

/// What a volume can be, in the order in which upstream looks.
const SOURCES: [&str; 22] = [
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "flocker",
    "nfs",
    "rbd",
    "quobyte",
    "cephfs",
    "iscsi",
    "cinder",
    "fc",
    "flexVolume",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "scaleIO",
    "local",
    "storageos",
    "csi",
];

/// Those that are gone: the field, its name upstream, and what is told (persistentvolume `warningsForPersistentVolumeSpecAndMeta`).
const DEPRECATED: [(&str, &str, &str); 6] = [
    ("cephfs", "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("photonPersistentDisk", "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("scaleIO", "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("storageos", "storageOS", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
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

    /// Since when it is in its phase, unless that is said with it (core/persistentvolume `PrepareForUpdate` of its status).
    fn prepare_status(&self, volume: &mut Value, old: &Value, context: &WriteContext) {
        const SINCE: &str = "lastPhaseTransitionTime";
        let (status, before) = (object_mut(volume, "status"), &old["status"]);
        let given = is_set(status, SINCE);
        if text(status, "phase") == text(before, "phase") {
            if !given {
                fields::copy(status, before, SINCE);
            }
        } else if !given || same(status, before, SINCE) {
            set(status, SINCE, coracle_api::clock::rfc3339(context.now));
        }
    }

    fn validate(&self, volume: &Value, causes: &mut Vec<Cause>) {
        let (spec, path) = (&volume["spec"], FieldPath::new("spec"));
        some_mode(spec, "", &path, causes);
        access_modes(spec, &path, causes);
        capacity(spec, &path.child("capacity"), causes);
        one_of(spec, "persistentVolumeReclaimPolicy", &RECLAIM, &path, causes);
        let affinity = field(spec, "nodeAffinity").filter(|affinity| !affinity.is_null());
        if let Some(affinity) = affinity {
            let path = path.child("nodeAffinity").child("required");
            match affinity.get("required").filter(|required| !required.is_null()) {
                None => causes.push(Cause::required(&path, "must specify required node constraints")),
                Some(required) => super::scheduling::node_selector(required, &path, causes),
            }
        }
        sources(spec, meta::name(volume), affinity.is_some(), &path, causes);
        storage_class(spec, &path, causes);
        one_of(spec, "volumeMode", &VOLUME_MODES, &path, causes);
        attributes_class(spec, &path, causes);
    }

    fn warnings(&self, volume: &Value, _old: Option<&Value>) -> Vec<String> {
        let (mut told, spec, path) = (Warnings::default(), &volume["spec"], FieldPath::new("spec"));
        claim::class_annotation(volume, &mut told);
        if text(spec, "persistentVolumeReclaimPolicy") == "Recycle" {
            let why = "The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.";
            told.at(&path.child("persistentVolumeReclaimPolicy"), why);
        }
        if let Some(required) = spec.pointer("/nodeAffinity/required") {
            let path = path.child("nodeAffinity").child("required").child("nodeSelectorTerms");
            for (nth, term) in items(required, "nodeSelectorTerms").iter().enumerate() {
                node_labels::term(term, false, &path.index(nth), &mut told);
            }
        }
        for (source, shown, why) in DEPRECATED {
            if is_given(spec, source) {
                told.at(&path.child(shown), why);
            }
        }
        told.into()
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
        if !same(now, before, "volumeMode") {
            let mode = now.get("volumeMode").cloned().unwrap_or(Value::Null);
            causes.push(Cause::immutable(&FieldPath::new("volumeMode"), mode));
        }
        affinity_stays(now, before, causes);
        if is_given(before, "volumeAttributesClassName") && !is_given(now, "volumeAttributesClassName") {
            let path = FieldPath::new("spec.volumeAttributesClassName");
            causes.push(Cause::forbidden(&path, "update from non-nil value to nil is forbidden"));
        }
    }
}

/// Whether a field is there, though it may hold nothing.
pub fn is_given(value: &Value, name: &str) -> bool {
    field(value, name).is_some_and(|field| !field.is_null())
}

/// Where a volume can be used stays as it is, when it was said; labels go by their new names (core `validatePvNodeAffinity`).
fn affinity_stays(now: &Value, before: &Value, causes: &mut Vec<Cause>) {
    const TERMS: &str = "/nodeAffinity/required/nodeSelectorTerms";
    if !is_given(before, "nodeAffinity") {
        return;
    }
    let mut known = before["nodeAffinity"].clone();
    let wanted = now.pointer(TERMS).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let terms = below_mut(&mut known, &["required"]).map(|required| items_mut(required, "nodeSelectorTerms"));
    for (term, wanted) in terms.into_iter().flatten().zip(wanted) {
        for (known, wanted) in items_mut(term, "matchExpressions").zip(items(wanted, "matchExpressions")) {
            let (before, now) = (text(known, "key"), text(wanted, "key"));
            if node_labels::RENAMED.iter().any(|(old, _, new)| (*old, *new) == (before, now)) {
                fields::copy(known, wanted, "key");
            }
        }
    }
    let affinity = field(now, "nodeAffinity").unwrap_or(&Value::Null);
    if !alike(affinity, &known) {
        // Upstream writes a type of its own, whose fields have their names in Go, and a text for none.
        let shown = if affinity.is_null() { "null".into() } else { affinity_in_go(affinity) };
        let why = "field is immutable, except for updating from beta label to GA";
        causes.push(Cause::invalid(&FieldPath::new("nodeAffinity"), shown, why));
    }
}

fn affinity_in_go(affinity: &Value) -> Value {
    let list = |value: &Value, name: &str, show: &dyn Fn(&Value) -> Value| match value.get(name) {
        Some(Value::Array(all)) => all.iter().map(show).collect::<Vec<_>>().into(),
        _ => Value::Null,
    };
    let requirement = |one: &Value| {
        let values = list(one, "values", &Value::clone);
        json!({"Key": text(one, "key"), "Operator": text(one, "operator"), "Values": values})
    };
    let term = |one: &Value| {
        let expressions = list(one, "matchExpressions", &requirement);
        let fields = list(one, "matchFields", &requirement);
        json!({"MatchExpressions": expressions, "MatchFields": fields})
    };
    match affinity.get("required").filter(|required| !required.is_null()) {
        None => json!({"Required": null}),
        Some(required) => json!({"Required": {"NodeSelectorTerms": list(required, "nodeSelectorTerms", &term)}}),
    }
}

pub fn volume_mode(spec: &mut Value) {
    set_default(spec, "volumeMode", "Filesystem");
}

/// What a volume's source may leave out.
pub fn default_source(spec: &mut Value) {
    if let Some(path) = spec.get_mut("hostPath").filter(|path| path.is_object()) {
        set_default(path, "type", "");
    }
    super::pod_defaults::volume_systems(spec);
    amounts::round(spec, amounts::VOLUME_SPEC);
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
    some_mode(spec, "", path, causes);
    access_modes(spec, path, causes);
    if !matches!(text(spec, "persistentVolumeReclaimPolicy"), "" | "Retain") {
        let why = format!("may only be Retain {CONTEXT}");
        causes.push(Cause::forbidden(&path.child("persistentVolumeReclaimPolicy"), why));
    }
    never("nodeAffinity", causes);
    // Where a local volume is cannot be said here, and so there is none.
    sources(spec, "", false, path, causes);
    never("storageClassName", causes);
    if spec.get("volumeMode").and_then(Value::as_str).is_some_and(|mode| mode != "Filesystem") {
        let why = format!("may not specify volumeMode other than Filesystem {CONTEXT}");
        causes.push(Cause::forbidden(&path.child("volumeMode"), why));
    }
    attributes_class(spec, path, causes);
}

fn capacity(spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let given = spec.get("capacity").and_then(Value::as_object);
    let count = given.map_or(0, coracle_api::json::Map::len);
    if count == 0 {
        causes.push(Cause::required(path, ""));
    }
    if count > 1 || given.is_none_or(|given| !given.contains_key("storage")) {
        // Go writes maps by the order of their keys.
        let sorted: Option<BTreeMap<_, _>> = given.map(|given| given.iter().collect());
        let shown = sorted.map_or(Value::Null, |sorted| {
            sorted.into_iter().map(|(name, size)| (name.clone(), size.clone())).collect::<Map>().into()
        });
        causes.push(Cause::not_supported(path, shown, &["storage"]));
    }
    for (name, size) in given.into_iter().flatten() {
        let (size, path) = (quantity(size), path.key(name));
        not_negative(size, &path, causes);
        positive(size, &path, causes);
    }
}

/// A quantity that is none, whose value upstream shows rounded up (core `validateBasicResource`).
pub fn not_negative(size: Option<Quantity>, path: &FieldPath, causes: &mut Vec<Cause>) {
    if let Some(size) = size.filter(|size| size.is_negative()) {
        causes.push(Cause::invalid(path, size.units(), "must be a valid resource quantity"));
    }
}

pub fn positive(size: Option<Quantity>, path: &FieldPath, causes: &mut Vec<Cause>) {
    if let Some(size) = size
        && (size.is_zero() || size.is_negative())
    {
        causes.push(Cause::invalid(path, size.to_string(), NOT_POSITIVE));
    }
}

/// What the volume is: one thing. The first that is found is judged, and any other is one too many.
fn sources(spec: &Value, volume: &str, affinity: bool, path: &FieldPath, causes: &mut Vec<Cause>) {
    let mut counted = false;
    for name in SOURCES.into_iter().filter(|name| is_given(spec, name)) {
        // Upstream counts a flexVolume, but does not ask whether it is alone.
        if counted && name != "flexVolume" {
            causes.push(surplus(name, path));
            continue;
        }
        counted = true;
        volume_kinds::validate(name, &spec[name], Owner::Persistent { name: volume }, path, causes);
        if name == "local" && !affinity {
            causes.push(Cause::required(&path.child("nodeAffinity"), "Local volume requires node affinity"));
        }
    }
    if !counted {
        causes.push(Cause::required(path, "must specify a volume type"));
    }
    let root = spec.pointer("/hostPath/path").and_then(Value::as_str).is_some_and(is_root);
    if root && text(spec, "persistentVolumeReclaimPolicy") == "Recycle" {
        let path = path.child("persistentVolumeReclaimPolicy");
        causes.push(Cause::forbidden(&path, "may not be 'recycle' for a hostPath mount of '/'"));
    }
}

/// Whether a path leads to `/`, whatever way it takes (Go's `path.Clean`).
fn is_root(path: &str) -> bool {
    let depth = path.split('/').fold(0usize, |depth, part| match part {
        "" | "." => depth,
        ".." => depth.saturating_sub(1),
        _ => depth + 1,
    });
    path.starts_with('/') && depth == 0
}

/// The name of a storage class, which may be left out.
pub fn storage_class(spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let class = text(spec, "storageClassName");
    if !class.is_empty() {
        invalid_all(&path.child("storageClassName"), class, validation::dns1123_subdomain(class), causes);
    }
}

/// The class of a volume's attributes, which only CSI has.
fn attributes_class(spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let Some(class) = field(spec, "volumeAttributesClassName").and_then(Value::as_str) else { return };
    let at = path.child("volumeAttributesClassName");
    match class {
        "" => causes.push(Cause::required(&at, "an empty string is disallowed")),
        class => invalid_all(&at, class, validation::dns1123_subdomain(class), causes),
    }
    if !is_given(spec, "csi") {
        let why = "has to be specified when using volumeAttributesClassName";
        causes.push(Cause::required(&path.child("csi"), why));
    }
}

/// There are ways to use it.
pub fn some_mode(spec: &Value, why: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    if items(spec, "accessModes").is_empty() {
        causes.push(Cause::required(&path.child("accessModes"), why));
    }
}

/// The ways to use it are known ones, and one pod alone is not together with others.
pub fn access_modes(spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let (modes, path) = (items(spec, "accessModes"), path.child("accessModes"));
    for mode in modes.iter().filter_map(Value::as_str).filter(|mode| !MODES.contains(mode)) {
        causes.push(Cause::not_supported(&path, mode, &MODES));
    }
    let has = |wanted: &dyn Fn(&str) -> bool| modes.iter().filter_map(Value::as_str).any(wanted);
    if has(&|mode| mode == ALONE) && has(&|mode| mode != ALONE && MODES.contains(&mode)) {
        causes.push(Cause::forbidden(&path, "may not use ReadWriteOncePod with other access modes"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(causes: &[Cause]) -> Vec<String> {
        causes.iter().map(Cause::to_string).collect()
    }

    fn with(more: Value) -> Value {
        let mut spec = json!({"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}});
        for (name, value) in more.as_object().into_iter().flatten() {
            fields::set(&mut spec, name, value.clone());
        }
        spec
    }

    fn new(more: Value) -> Vec<String> {
        let mut causes = Vec::new();
        VolumeStrategy.validate(&json!({"metadata": {"name": "v"}, "spec": with(more)}), &mut causes);
        told(&causes)
    }

    fn changed(new: Value, old: Value) -> Vec<String> {
        let mut causes = Vec::new();
        VolumeStrategy.validate_update(&json!({"spec": with(new)}), &json!({"spec": with(old)}), &mut causes);
        told(&causes)
    }

    #[test]
    fn an_unknown_mode_is_told_as_that_alone() {
        let modes = |modes: Value| new(json!({"nfs": {"server": "s", "path": "/"}, "accessModes": modes}));
        assert_eq!(modes(json!(["ReadWriteOncePod", "Foo"])).len(), 1);
        assert!(modes(json!(["ReadWriteOncePod", "ReadWriteOncePod"])).is_empty());
        assert_eq!(
            modes(json!(["ReadWriteOncePod", "ReadOnlyMany"])),
            ["spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes"]
        );
    }

    #[test]
    fn a_second_source_is_told_after_what_is_wrong_with_the_first() {
        assert_eq!(
            new(json!({"cephfs": {}, "hostPath": {}, "flexVolume": {}, "local": {}})),
            [
                "spec.hostPath.path: Required value",
                "spec.cephFS: Forbidden: may not specify more than 1 volume type",
                "spec.flexVolume.driver: Required value",
                "spec.local: Forbidden: may not specify more than 1 volume type",
            ]
        );
        assert_eq!(
            new(json!({"flexVolume": {"driver": "a/b"}, "csi": {}})),
            ["spec.csi: Forbidden: may not specify more than 1 volume type"]
        );
    }

    #[test]
    fn causes_come_in_upstreams_order() {
        let found = new(json!({"accessModes": [], "capacity": null, "persistentVolumeReclaimPolicy": "Recycle",
            "nodeAffinity": {}, "hostPath": {"path": "/a/.."}, "storageClassName": "A", "volumeMode": "Tape",
            "volumeAttributesClassName": ""}));
        assert_eq!(found[2], "spec.capacity: Unsupported value: null: supported values: \"storage\"");
        let fields: Vec<&str> = found.iter().filter_map(|cause| cause.split(": ").next()).collect();
        assert_eq!(
            fields,
            [
                "spec.accessModes",
                "spec.capacity",
                "spec.capacity",
                "spec.nodeAffinity.required",
                "spec.hostPath.path",
                "spec.persistentVolumeReclaimPolicy",
                "spec.storageClassName",
                "spec.volumeMode",
                "spec.volumeAttributesClassName",
                "spec.csi"
            ]
        );
        assert_eq!(
            new(json!({"local": {"path": ".."}, "volumeMode": "Tape"}))[..2],
            [
                "spec.local.path: Invalid value: \"..\": must not contain '..'",
                "spec.nodeAffinity: Required value: Local volume requires node affinity"
            ]
        );
    }

    #[test]
    fn roots_are_roots_whatever_way_leads_there() {
        for (path, root) in [
            ("/", true),
            ("//", true),
            ("/.", true),
            ("/./", true),
            ("/a/..", true),
            ("/../..", true),
            ("", false),
            (".", false),
            ("a/..", false),
            ("/a", false),
            ("/../a", false),
        ] {
            assert_eq!(is_root(path), root, "{path}");
        }
    }

    #[test]
    fn labels_of_nodes_may_go_by_their_new_names() {
        let on = |key: &str, value: &str| {
            json!({"nodeAffinity": {"required": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": key, "operator": "In", "values": [value]}]}]}}})
        };
        for (old, _, new) in node_labels::RENAMED {
            assert!(changed(on(new, "a"), on(old, "a")).is_empty(), "{old}");
            assert_eq!(changed(on(old, "a"), on(new, "a")).len(), 1, "the old name of {new} does not come back");
        }
        const WHY: &str = "field is immutable, except for updating from beta label to GA";
        let shown = r#"{"Required":{"NodeSelectorTerms":[{"MatchExpressions":[{"Key":"kubernetes.io/os","Operator":"In","Values":["b"]}],"MatchFields":null}]}}"#;
        assert_eq!(
            changed(on("kubernetes.io/os", "b"), on("beta.kubernetes.io/os", "a")),
            [format!("nodeAffinity: Invalid value: {shown}: {WHY}")]
        );
        assert_eq!(changed(json!({}), on("a", "b")), [format!("nodeAffinity: Invalid value: \"null\": {WHY}")]);
        assert!(changed(on("a", "b"), json!({})).is_empty(), "where there was none there may be one");
    }

    #[test]
    fn an_inline_volume_is_never_local() {
        let mut causes = Vec::new();
        inline_spec(
            &json!({"accessModes": ["ReadWriteOnce"], "local": {"path": "/x"}, "nodeAffinity": {}}),
            &FieldPath::new("spec"),
            &mut causes,
        );
        assert_eq!(
            told(&causes),
            [
                "spec.csi: Required value: has to be specified in the context of inline volumes",
                "spec.nodeAffinity: Forbidden: may not be specified in the context of inline volumes",
                "spec.nodeAffinity: Required value: Local volume requires node affinity",
            ]
        );
    }
}
