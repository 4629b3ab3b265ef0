//! PersistentVolumeClaims (core `ValidatePersistentVolumeClaim` and what follows it).

use super::amounts;
use super::volume::{
    VOLUME_MODES, access_modes, is_given, not_negative, positive, some_mode, storage_class, volume_mode,
};
use crate::registry::fields::{
    self, field, invalid_all, is_set, label_selector, object_mut, one_of, quantity, same, set, text,
};
use crate::registry::strategy::{Strategy, Traits, WriteContext};
use crate::registry::warnings::Warnings;
use coracle_api::json::{Value, json};
use coracle_api::quantity::Quantity;
use coracle_api::status::FieldPath;
use coracle_api::{Cause, meta, validation};

/// Where a claim's class stood before it had a field.
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
const FIXED: &str =
    "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
/// How far a claim's volume is on its way to another size, in order.
const RESIZES: [&str; 5] = [
    "ControllerResizeInProgress",
    "ControllerResizeInfeasible",
    "NodeResizeInProgress",
    "NodeResizeInfeasible",
    "NodeResizePending",
];

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
        amounts::round(claim, amounts::CLAIM);
    }

    fn prepare_create(&self, claim: &mut Value, _context: &WriteContext) {
        let spec = object_mut(claim, "spec");
        drop_sources(spec, &Value::Null);
        data_source(spec);
        claim["status"] = json!({"phase": "Pending"});
    }

    fn prepare_update(&self, claim: &mut Value, old: &Value, _context: &WriteContext) {
        let spec = object_mut(claim, "spec");
        drop_sources(spec, &old["spec"]);
        data_source(spec);
    }

    fn validate(&self, claim: &Value, causes: &mut Vec<Cause>) {
        claim_spec(&claim["spec"], &FieldPath::new("spec"), causes);
    }

    fn validate_changed(&self, claim: &Value, old: &Value, causes: &mut Vec<Cause>) {
        // Groups were not always judged: where there was one, there may be any.
        let grouped = ["dataSource", "dataSourceRef"].iter().any(|source| is_given(&old["spec"][*source], "apiGroup"));
        check(&claim["spec"], !grouped, &FieldPath::new("spec"), causes);
        self.validate_update(claim, old, causes);
    }

    fn validate_update(&self, claim: &Value, old: &Value, causes: &mut Vec<Cause>) {
        let (mut now, mut before) = (claim["spec"].clone(), old["spec"].clone());
        // A claim is bound once.
        if !is_set(&before, "volumeName") {
            fields::copy(&mut before, &now, "volumeName");
        }
        if class_moves(claim, old, causes) {
            fields::copy(&mut now, &before, "storageClassName");
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
        if !amounts::alike(&json!({"spec": now}), &json!({"spec": before}), amounts::CLAIM) {
            causes.push(Cause::forbidden(&FieldPath::new("spec"), FIXED));
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
        attributes_class_stays(claim, old, causes);
    }

    fn warnings(&self, claim: &Value, _old: Option<&Value>) -> Vec<String> {
        let mut told = Warnings::default();
        class_annotation(claim, &mut told);
        sizes(&claim["spec"], &FieldPath::new("spec"), &mut told);
        told.into()
    }

    fn validate_status(&self, claim: &Value, _old: &Value, causes: &mut Vec<Cause>) {
        status(&claim["status"], causes);
    }
}

/// What is told of a class in an annotation, of a claim or a volume.
pub fn class_annotation(object: &Value, told: &mut Warnings) {
    if meta::annotation(object, CLASS_ANNOTATION).is_some() {
        let path = FieldPath::new("metadata.annotations").key(CLASS_ANNOTATION);
        told.at(&path, "deprecated since v1.8; use \"storageClassName\" attribute instead");
    }
}

/// What is told of how much a claim wants (persistentvolumeclaim `GetWarningsForPersistentVolumeClaimSpec`).
pub fn sizes(spec: &Value, path: &FieldPath, told: &mut Warnings) {
    let resources = field(spec, "resources").unwrap_or(&Value::Null);
    for list in ["requests", "limits"] {
        told.fraction(field(resources, list), "storage", || path.child("resources").child(list));
    }
}

/// Whether the class is as good as it was: a claim gets one once, the one of its annotation when it has one, which stays or goes into
/// the field (core `validateStorageClassUpgradeFromAnnotation`, `validateStorageClassUpgradeFromNil`).
fn class_moves(claim: &Value, old: &Value, causes: &mut Vec<Cause>) -> bool {
    let [now, before] = [claim, old].map(|claim| meta::annotation(claim, CLASS_ANNOTATION));
    let class = field(&claim["spec"], "storageClassName").and_then(Value::as_str);
    let new = class.filter(|_| !is_given(&old["spec"], "storageClassName"));
    if new.is_some() && new == before && (now.is_none() || now == before) {
        return true;
    }
    if now.unwrap_or_default() != before.unwrap_or_default() {
        let path = FieldPath::new("metadata").child("annotations").child(CLASS_ANNOTATION);
        causes.push(Cause::immutable(&path, now.unwrap_or_default()));
    }
    new.is_some_and(|new| before.is_none_or(|before| before == new))
}

/// A class of attributes that was applied is followed by another one, not by none.
fn attributes_class_stays(claim: &Value, old: &Value, causes: &mut Vec<Cause>) {
    const FIELD: &str = "volumeAttributesClassName";
    if same(&claim["spec"], &old["spec"], FIELD) || !is_given(&old["status"], "currentVolumeAttributesClassName") {
        return;
    }
    let to = match field(&claim["spec"], FIELD).and_then(Value::as_str) {
        None => "nil",
        Some("") => "empty string",
        Some(_) => return,
    };
    let why = format!("update to {to} is forbidden when status.currentVolumeAttributesClassName is not nil");
    causes.push(Cause::forbidden(&FieldPath::new("spec").child(FIELD), why));
}

/// What a claim got, and on what way it is to another size (core `ValidatePersistentVolumeClaimStatusUpdate`).
fn status(status: &Value, causes: &mut Vec<Cause>) {
    let path = FieldPath::new("status");
    let entries = |name: &str| field(status, name).and_then(Value::as_object).into_iter().flatten();
    for (name, size) in entries("capacity") {
        not_negative(quantity(size), &path.child("capacity").key(name), causes);
    }
    for (name, state) in entries("allocatedResourceStatuses") {
        let path = path.child("allocatedResourceStatuses");
        resource_name(name, &path, causes);
        if !state.as_str().is_some_and(|state| RESIZES.contains(&state)) {
            // It is the resource that upstream shows.
            causes.push(Cause::not_supported(&path, name.as_str(), &RESIZES));
        }
    }
    for (name, size) in entries("allocatedResources") {
        let path = path.child("allocatedResources");
        if resource_name(name, &path, causes) {
            not_negative(quantity(size), &path.key(name), causes);
        }
    }
}

/// What a claim can be given, whether it is: storage, and what somebody else defined (core
/// `validatePersistentVolumeClaimResourceKey`).
fn resource_name(name: &str, path: &FieldPath, causes: &mut Vec<Cause>) -> bool {
    let before = causes.len();
    invalid_all(path, name, validation::qualified_name(name), causes);
    let native = !name.contains('/') || name.contains("kubernetes.io/");
    if causes.len() == before && native && name != "storage" {
        causes.push(Cause::not_supported(path, name, &["storage"]));
    }
    causes.len() == before
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
            let mut source = spec[from].clone();
            if to == "dataSource" {
                // It has none, not even an empty one.
                fields::remove(&mut source, "namespace");
            }
            set(spec, to, source);
        }
    }
}

/// A claim, alone or in a template.
pub fn claim_spec(spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    check(spec, true, path, causes);
}

fn check(spec: &Value, groups: bool, path: &FieldPath, causes: &mut Vec<Cause>) {
    some_mode(spec, "at least 1 access mode is required", path, causes);
    if let Some(selector) = field(spec, "selector").filter(|selector| !selector.is_null()) {
        label_selector(selector, &path.child("selector"), causes);
    }
    access_modes(spec, path, causes);
    let storage = path.child("resources").key("storage");
    match spec.pointer("/resources/requests/storage").and_then(quantity) {
        None => causes.push(Cause::required(&storage, "")),
        size => positive(size, &storage, causes),
    }
    storage_class(spec, path, causes);
    one_of(spec, "volumeMode", &VOLUME_MODES, path, causes);
    sources(spec, groups, path, causes);
    // No class is a class, too: other than of a volume, it may be said of a claim.
    let class = text(spec, "volumeAttributesClassName");
    if !class.is_empty() {
        invalid_all(&path.child("volumeAttributesClassName"), class, validation::dns1123_subdomain(class), causes);
    }
}

/// What the claim is filled from, as both fields say it (core `validateDataSource`, `validateDataSourceRef`).
fn sources(spec: &Value, groups: bool, path: &FieldPath, causes: &mut Vec<Cause>) {
    let [source, by_ref] = ["dataSource", "dataSourceRef"].map(|field| &spec[field]);
    for (name, source) in [("dataSource", source), ("dataSourceRef", by_ref)] {
        if !source.is_null() {
            data_source_of(source, groups, &path.child(name), causes);
        }
    }
    let namespace = text(by_ref, "namespace");
    if !namespace.is_empty() {
        let at = path.child("dataSourceRef").child("namespace");
        invalid_all(&at, namespace, validation::dns1123_label(namespace), causes);
    }
    if source.is_null() || by_ref.is_null() {
        return;
    }
    // Upstream shows a path where the value should be, and a path shows nothing.
    if !namespace.is_empty() {
        let why = "may not be specified when dataSourceRef.namespace is specified";
        causes.push(Cause::invalid(path, json!({}), why));
    } else if ["kind", "name"].iter().any(|part| text(source, part) != text(by_ref, part))
        || !same(source, by_ref, "apiGroup")
    {
        causes.push(Cause::invalid(path, json!({}), "must match dataSourceRef"));
    }
}

fn data_source_of(source: &Value, groups: bool, path: &FieldPath, causes: &mut Vec<Cause>) {
    for part in ["name", "kind"].into_iter().filter(|part| text(source, part).is_empty()) {
        causes.push(Cause::required(&path.child(part), ""));
    }
    let (group, kind) = (text(source, "apiGroup"), text(source, "kind"));
    if group.is_empty() && kind != "PersistentVolumeClaim" {
        let why = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        causes.push(Cause::invalid(path, kind, why));
    }
    if !group.is_empty() && groups {
        invalid_all(&path.child("apiGroup"), group, validation::dns1123_subdomain(group), causes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(causes: &[Cause]) -> Vec<String> {
        causes.iter().map(Cause::to_string).collect()
    }

    fn with(more: Value) -> Value {
        let mut spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
        for (name, value) in more.as_object().into_iter().flatten() {
            set(&mut spec, name, value.clone());
        }
        spec
    }

    fn new(more: Value) -> Vec<String> {
        let mut causes = Vec::new();
        claim_spec(&with(more), &FieldPath::new("spec"), &mut causes);
        told(&causes)
    }

    fn changed(claim: Value, old: Value) -> Vec<String> {
        let mut causes = Vec::new();
        ClaimStrategy.validate_changed(&claim, &old, &mut causes);
        told(&causes)
    }

    fn fixed() -> String {
        format!("spec: Forbidden: {FIXED}")
    }

    #[test]
    fn a_claim_may_say_that_it_has_no_class_of_attributes() {
        assert!(new(json!({"volumeAttributesClassName": ""})).is_empty());
        let found = new(json!({"volumeAttributesClassName": "A"}));
        assert!(found[0].starts_with("spec.volumeAttributesClassName: Invalid value: \"A\": a lowercase RFC 1123"));
    }

    #[test]
    fn causes_come_in_upstreams_order() {
        let found = new(json!({"accessModes": ["Foo"], "selector": {"matchLabels": {"-": "x"}},
            "resources": null, "storageClassName": "A", "volumeMode": "Tape", "volumeAttributesClassName": "B",
            "dataSource": {"kind": "Pod", "name": "p"}, "dataSourceRef": {"kind": "Node", "name": "p"}}));
        let fields: Vec<&str> = found.iter().filter_map(|cause| cause.split(": ").next()).collect();
        assert_eq!(
            fields,
            [
                "spec.selector.matchLabels",
                "spec.accessModes",
                "spec.resources[storage]",
                "spec.storageClassName",
                "spec.volumeMode",
                "spec.dataSource",
                "spec.dataSourceRef",
                "spec",
                "spec.volumeAttributesClassName"
            ]
        );
    }

    #[test]
    fn sources_have_a_kind_and_a_group_and_say_the_same() {
        const DEFAULT: &str = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        assert_eq!(
            new(json!({"dataSource": {"name": "a"}})),
            [
                "spec.dataSource.kind: Required value".to_owned(),
                format!("spec.dataSource: Invalid value: \"\": {DEFAULT}")
            ]
        );
        let source = |group: Value| json!({"apiGroup": group, "kind": "PersistentVolumeClaim", "name": "a"});
        let different = ["spec: Invalid value: {}: must match dataSourceRef"];
        assert_eq!(new(json!({"dataSource": source("".into()), "dataSourceRef": source(Value::Null)})), different);
        assert!(new(json!({"dataSource": source(Value::Null), "dataSourceRef": source(Value::Null)})).is_empty());
        let mut elsewhere = source(Value::Null);
        set(&mut elsewhere, "namespace", "B");
        let found = new(json!({"dataSource": source(Value::Null), "dataSourceRef": elsewhere}));
        assert!(found[0].starts_with("spec.dataSourceRef.namespace: Invalid value: \"B\": a lowercase RFC 1123 label"));
        assert_eq!(found[1], "spec: Invalid value: {}: may not be specified when dataSourceRef.namespace is specified");
    }

    #[test]
    fn a_group_that_was_always_wrong_may_stay() {
        let claim =
            |group: Value| json!({"spec": with(json!({"dataSource": {"apiGroup": group, "kind": "S", "name": "a"}}))});
        let found = new(claim("a_b".into())["spec"].clone());
        assert!(
            found[0].starts_with("spec.dataSource.apiGroup: Invalid value: \"a_b\": a lowercase RFC 1123 subdomain")
        );
        assert!(changed(claim("a_b".into()), claim("a_b".into())).is_empty());
        assert!(
            changed(claim("a_b".into()), json!({"spec": with(json!({}))}))[0].starts_with("spec.dataSource.apiGroup")
        );
    }

    #[test]
    fn the_class_of_an_annotation_stays_or_becomes_the_fields() {
        let claim = |annotation: Option<&str>, class: Option<&str>| {
            json!({"metadata": {"annotations": annotation.map(|class| json!({CLASS_ANNOTATION: class}))},
                "spec": with(json!({"storageClassName": class}))})
        };
        let told = |value: &str| {
            format!("metadata.annotations.{CLASS_ANNOTATION}: Invalid value: {value:?}: field is immutable")
        };
        for (new, old, wanted) in [
            (claim(None, Some("a")), claim(None, None), vec![]),
            (claim(None, Some("a")), claim(Some("a"), None), vec![]),
            (claim(Some("a"), Some("a")), claim(Some("a"), None), vec![]),
            (claim(Some("b"), Some("a")), claim(Some("a"), None), vec![told("b")]),
            (claim(Some("a"), Some("b")), claim(Some("a"), None), vec![fixed()]),
            (claim(None, Some("b")), claim(Some("a"), None), vec![told(""), fixed()]),
            (claim(Some("a"), None), claim(None, None), vec![told("a")]),
            (claim(None, None), claim(Some("a"), None), vec![told("")]),
            (claim(None, Some("b")), claim(None, Some("a")), vec![fixed()]),
            (claim(None, None), claim(None, Some("a")), vec![fixed()]),
        ] {
            assert_eq!(changed(new.clone(), old.clone()), wanted, "{old} {new}");
        }
    }

    #[test]
    fn a_class_of_attributes_goes_unless_it_was_applied() {
        let claim = |class: Option<&str>, applied: Option<&str>, phase: &str| {
            json!({"spec": with(json!({"volumeAttributesClassName": class})),
                "status": {"phase": phase, "currentVolumeAttributesClassName": applied}})
        };
        let told = |to: &str| {
            format!(
                "spec.volumeAttributesClassName: Forbidden: update to {to} is forbidden when status.currentVolumeAttributesClassName is not nil"
            )
        };
        for (to, applied, phase, wanted) in [
            (None, None, "Bound", vec![]),
            (Some(""), None, "Bound", vec![]),
            (Some("b"), Some("a"), "Bound", vec![]),
            (None, Some("a"), "Bound", vec![told("nil")]),
            (Some(""), Some("a"), "Bound", vec![told("empty string")]),
            (None, None, "Pending", vec![fixed()]),
        ] {
            let (new, old) = (claim(to, applied, phase), claim(Some("a"), applied, phase));
            assert_eq!(changed(new, old), wanted, "{to:?} {applied:?} {phase}");
        }
        let unset = claim(None, Some("a"), "Bound");
        assert!(changed(unset.clone(), unset).is_empty(), "what is not said need not be");
    }

    #[test]
    fn a_status_tells_of_storage_and_its_way_to_another_size() {
        let check = |status: Value| {
            let mut causes = Vec::new();
            ClaimStrategy.validate_status(&json!({"status": status}), &Value::Null, &mut causes);
            told(&causes)
        };
        assert!(
            check(
                json!({"capacity": {"storage": "1Gi"}, "allocatedResources": {"storage": "2Gi", "example.com/x": "1"},
                "allocatedResourceStatuses": {"storage": "NodeResizePending", "example.com/x": "NodeResizeInProgress"}})
            )
            .is_empty()
        );
        const STATES: &str = "supported values: \"ControllerResizeInProgress\", \"ControllerResizeInfeasible\", \"NodeResizeInProgress\", \"NodeResizeInfeasible\", \"NodeResizePending\"";
        let statuses = "status.allocatedResourceStatuses: Unsupported value";
        assert_eq!(
            check(json!({"capacity": {"storage": "-1500m"}, "allocatedResources": {"cpu": "-1", "storage": "-1"},
                "allocatedResourceStatuses": {"x.kubernetes.io/y": "Gone"}})),
            [
                "status.capacity[storage]: Invalid value: -2: must be a valid resource quantity".to_owned(),
                format!("{statuses}: \"x.kubernetes.io/y\": supported values: \"storage\""),
                format!("{statuses}: \"x.kubernetes.io/y\": {STATES}"),
                "status.allocatedResources: Unsupported value: \"cpu\": supported values: \"storage\"".to_owned(),
                "status.allocatedResources[storage]: Invalid value: -1: must be a valid resource quantity".to_owned(),
            ]
        );
    }
}
