//! PersistentVolumes, their claims, and storage classes.

use crate::registry::fields::{
    invalid_all, is_set, items, object_mut, one_of, quantity, require, same, set_default, text,
};
use crate::registry::strategy::{Strategy, Traits, WriteContext};
use coracle_api::status::FieldPath;
use coracle_api::{Cause, validation};
use serde_json::{Value, json};

const MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

/// core/v1 PersistentVolume
#[derive(Debug)]
pub struct VolumeStrategy;

impl Strategy for VolumeStrategy {
    fn default(&self, volume: &mut Value) {
        let spec = object_mut(volume, "spec");
        set_default(spec, "persistentVolumeReclaimPolicy", "Retain");
        set_default(spec, "volumeMode", "Filesystem");
        if let Some(path) = spec.get_mut("hostPath").filter(|path| path.is_object())
            && path.get("type").is_none()
        {
            crate::registry::fields::set(path, "type", "");
        }
    }

    fn prepare_create(&self, volume: &mut Value, context: &WriteContext) {
        let now = coracle_api::clock::rfc3339(context.now);
        volume["status"] = json!({"phase": "Pending", "lastPhaseTransitionTime": now});
    }

    fn validate(&self, volume: &Value, causes: &mut Vec<Cause>) {
        let (spec, path) = (&volume["spec"], FieldPath::new("spec"));
        access_modes(spec, &path, causes);
        match spec.pointer("/capacity/storage").and_then(quantity) {
            None => causes.push(Cause::required(&path.child("capacity"), "")),
            Some(size) if size.is_zero() || size.is_negative() => {
                causes.push(Cause::invalid(
                    &path.child("capacity").key("storage"),
                    size.to_string(),
                    "must be greater than zero",
                ));
            }
            Some(_) => {}
        }
        one_of(spec, "persistentVolumeReclaimPolicy", &["Delete", "Recycle", "Retain"], &path, causes);
        one_of(spec, "volumeMode", &["Block", "Filesystem"], &path, causes);
        const SOURCES: [&str; 8] = ["hostPath", "local", "nfs", "csi", "iscsi", "fc", "rbd", "cephfs"];
        let sources = SOURCES.iter().filter(|source| is_set(spec, source)).count();
        if sources == 0 {
            causes.push(Cause::required(&path, "must specify a volume type"));
        } else if sources > 1 {
            causes.push(Cause::forbidden(&path, "may not specify more than 1 volume type"));
        }
    }
}

/// core/v1 PersistentVolumeClaim
#[derive(Debug)]
pub struct ClaimStrategy;

impl Strategy for ClaimStrategy {
    fn default(&self, claim: &mut Value) {
        set_default(object_mut(claim, "spec"), "volumeMode", "Filesystem");
    }

    fn prepare_create(&self, claim: &mut Value, _context: &WriteContext) {
        claim["status"] = json!({"phase": "Pending"});
    }

    fn validate(&self, claim: &Value, causes: &mut Vec<Cause>) {
        let (spec, path) = (&claim["spec"], FieldPath::new("spec"));
        access_modes(spec, &path, causes);
        let storage = path.child("resources").key("storage");
        match spec.pointer("/resources/requests/storage").and_then(quantity) {
            None => causes.push(Cause::required(&storage, "")),
            Some(size) if size.is_zero() || size.is_negative() => {
                causes.push(Cause::invalid(&storage, size.to_string(), "must be greater than zero"));
            }
            Some(_) => {}
        }
        let class = text(spec, "storageClassName");
        if !class.is_empty() {
            invalid_all(&path.child("storageClassName"), class, validation::dns1123_subdomain(class), causes);
        }
    }

    fn validate_update(&self, claim: &Value, old: &Value, causes: &mut Vec<Cause>) {
        const FIXED: &str =
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        let bound_now = !is_set(&old["spec"], "volumeName");
        let changed = ["accessModes", "selector", "storageClassName", "volumeMode", "dataSource", "dataSourceRef"]
            .iter()
            .any(|field| {
                !same(&claim["spec"], &old["spec"], field)
                    && (*field != "storageClassName" || is_set(&old["spec"], field))
            });
        let moved = !bound_now && !same(&claim["spec"], &old["spec"], "volumeName");
        if changed || moved {
            causes.push(Cause::forbidden(&FieldPath::new("spec"), FIXED));
        }
        let size = |value: &Value| value.pointer("/spec/resources/requests/storage").and_then(quantity);
        if let (Some(now), Some(before)) = (size(claim), size(old))
            && now < before
        {
            let path = FieldPath::new("spec").child("resources").child("requests").child("storage");
            causes.push(Cause::forbidden(&path, "field can not be less than status.capacity"));
        }
    }
}

fn access_modes(spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let modes = items(spec, "accessModes");
    if modes.is_empty() {
        causes.push(Cause::required(&path.child("accessModes"), "at least 1 access mode is required"));
    }
    for mode in modes.iter().filter_map(Value::as_str).filter(|mode| !MODES.contains(mode)) {
        causes.push(Cause::not_supported(&path.child("accessModes"), mode, &MODES));
    }
}

/// storage.k8s.io/v1 StorageClass
#[derive(Debug)]
pub struct StorageClassStrategy;

impl Strategy for StorageClassStrategy {
    fn traits(&self) -> Traits {
        Traits::DEFAULT
    }

    fn default(&self, class: &mut Value) {
        set_default(class, "reclaimPolicy", "Delete");
        set_default(class, "volumeBindingMode", "Immediate");
    }

    fn validate(&self, class: &Value, causes: &mut Vec<Cause>) {
        let root = FieldPath::default();
        require(class, "provisioner", &root, causes);
        one_of(class, "reclaimPolicy", &["Delete", "Retain"], &root, causes);
        one_of(class, "volumeBindingMode", &["Immediate", "WaitForFirstConsumer"], &root, causes);
    }

    fn validate_update(&self, class: &Value, old: &Value, causes: &mut Vec<Cause>) {
        for field in ["provisioner", "parameters", "reclaimPolicy", "volumeBindingMode"] {
            if !same(class, old, field) {
                causes.push(Cause::forbidden(&FieldPath::new(field), "updates to this field are forbidden."));
            }
        }
    }
}
