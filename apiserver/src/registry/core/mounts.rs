//! Checks of what a container mounts, and of its raw devices (core `ValidateVolumeMounts`, `ValidateVolumeDevices`).

use super::volume_kinds::{descending, steps_back};
use crate::registry::fields::{field, is_set, items, one_of, text};
use coracle_api::Cause;
use coracle_api::json::Value;
use coracle_api::status::FieldPath;
use std::collections::{HashMap, HashSet};

/// A pod's volumes that are in order, by name.
pub type Volumes<'a> = HashMap<&'a str, &'a Value>;

const PROPAGATION: [&str; 3] = ["Bidirectional", "HostToContainer", "None"];

/// The devices that a mount may not meet, or the mounts that a device may not: of several with one name, the last (core
/// `GetVolumeMountMap`, `GetVolumeDeviceMap`).
struct Others<'a> {
    by_name: HashMap<&'a str, &'a str>,
    paths: HashSet<&'a str>,
}

impl<'a> Others<'a> {
    fn of(list: &'a [Value], path: &str) -> Self {
        let by_name: HashMap<&str, &str> = list.iter().map(|one| (text(one, "name"), text(one, path))).collect();
        Self { paths: by_name.values().copied().collect(), by_name }
    }
}

/// What is mounted. Some causes are reported without the place in the list, as upstream does.
pub fn mounts(container: &Value, volumes: &Volumes<'_>, path: &FieldPath, causes: &mut Vec<Cause>) {
    let (mut paths, devices) = (HashSet::new(), Others::of(items(container, "volumeDevices"), "devicePath"));
    let privileged = container.pointer("/securityContext/privileged").and_then(Value::as_bool) == Some(true);
    for (nth, mount) in items(container, "volumeMounts").iter().enumerate() {
        let at = path.index(nth);
        let (name, target) = (text(mount, "name"), text(mount, "mountPath"));
        if name.is_empty() {
            causes.push(Cause::required(&at.child("name"), ""));
        }
        if !volumes.contains_key(name) {
            causes.push(Cause::not_found(&at.child("name"), name));
        }
        if target.is_empty() {
            causes.push(Cause::required(&at.child("mountPath"), ""));
        }
        if !paths.insert(target) {
            causes.push(Cause::invalid(&at.child("mountPath"), target, "must be unique"));
        }
        if devices.by_name.contains_key(name) {
            causes.push(Cause::invalid(&at.child("name"), name, "must not already exist in volumeDevices"));
        }
        if devices.paths.contains(target) {
            let why = "must not already exist as a path in volumeDevices";
            causes.push(Cause::invalid(&at.child("mountPath"), target, why));
        }
        for part in ["subPath", "subPathExpr"].into_iter().filter(|part| is_set(mount, part)) {
            let value = text(mount, part);
            if part == "subPathExpr" && is_set(mount, "subPath") {
                causes.push(Cause::invalid(&at.child(part), value, "subPathExpr and subPath are mutually exclusive"));
            }
            descending(value, &path.child(part), causes);
        }
        one_of(mount, "mountPropagation", &PROPAGATION, path, causes);
        if text(mount, "mountPropagation") == "Bidirectional" && !privileged {
            let why = "Bidirectional mount propagation is available only to privileged containers";
            causes.push(Cause::forbidden(&path.child("mountPropagation"), why));
        }
        recursive(mount, &path.child("recursiveReadOnly"), causes);
    }
}

/// Whether mounts below are read-only too (core `validateMountRecursiveReadOnly`).
fn recursive(mount: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    match field(mount, "recursiveReadOnly").and_then(Value::as_str) {
        None | Some("Disabled") => {}
        Some("Enabled" | "IfPossible") => {
            if mount["readOnly"] != true {
                causes.push(Cause::forbidden(path, "may only be specified when readOnly is true"));
            }
            if !matches!(text(mount, "mountPropagation"), "" | "None") {
                let why = "may only be specified when mountPropagation is None or not specified";
                causes.push(Cause::forbidden(path, why));
            }
        }
        Some(other) => causes.push(Cause::not_supported(path, other, &["Disabled", "Enabled", "IfPossible"])),
    }
}

/// Raw devices, which claims alone give.
pub fn devices(container: &Value, volumes: &Volumes<'_>, path: &FieldPath, causes: &mut Vec<Cause>) {
    let (mut names, mut paths) = (HashSet::new(), HashSet::new());
    let mounts = Others::of(items(container, "volumeMounts"), "mountPath");
    for (nth, device) in items(container, "volumeDevices").iter().enumerate() {
        let path = path.index(nth);
        let (name, target) = (text(device, "name"), text(device, "devicePath"));
        let (at, path) = (path.child("name"), path.child("devicePath"));
        if name.is_empty() {
            causes.push(Cause::required(&at, ""));
        } else if !names.insert(name) {
            causes.push(Cause::invalid(&at, name, "must be unique"));
        }
        match volumes.get(name) {
            None => causes.push(Cause::not_found(&at, name)),
            Some(volume) if ["persistentVolumeClaim", "ephemeral"].iter().any(|kind| is_set(volume, kind)) => {}
            Some(_) => {
                let why = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                causes.push(Cause::invalid(&at, name, why));
            }
        }
        if target.is_empty() {
            causes.push(Cause::required(&path, ""));
        }
        if paths.contains(target) {
            causes.push(Cause::invalid(&path, target, "must be unique"));
        }
        if steps_back(target) {
            causes.push(Cause::invalid(&path, target, "can not contain backsteps ('..')"));
        } else {
            paths.insert(target);
        }
        if mounts.by_name.contains_key(name) {
            causes.push(Cause::invalid(&at, name, "must not already exist in volumeMounts"));
        }
        if mounts.paths.contains(target) {
            causes.push(Cause::invalid(&path, target, "must not already exist as a path in volumeMounts"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::json::json;

    #[test]
    fn a_part_of_an_image_may_be_mounted() {
        let volume = json!({"name": "i", "image": {"reference": "a"}});
        let volumes = Volumes::from([("i", &volume)]);
        let mut causes = Vec::new();
        for part in ["subPath", "subPathExpr"] {
            let container = json!({"volumeMounts": [{"name": "i", "mountPath": "/i", part: "a/b"}]});
            mounts(&container, &volumes, &FieldPath::new("m"), &mut causes);
        }
        assert_eq!(causes, []);
    }

    #[test]
    fn mounts_and_devices_do_not_meet() {
        let volume = json!({"name": "c", "persistentVolumeClaim": {"claimName": "c"}});
        let volumes = Volumes::from([("c", &volume)]);
        let container = json!({"volumeMounts": [{"name": "c", "mountPath": "/c"}],
            "volumeDevices": [{"name": "c", "devicePath": "/c"}]});
        let mut causes = Vec::new();
        mounts(&container, &volumes, &FieldPath::new("m"), &mut causes);
        devices(&container, &volumes, &FieldPath::new("d"), &mut causes);
        let told: Vec<String> = causes.iter().map(Cause::to_string).collect();
        assert_eq!(
            told,
            [
                "m[0].name: Invalid value: \"c\": must not already exist in volumeDevices",
                "m[0].mountPath: Invalid value: \"/c\": must not already exist as a path in volumeDevices",
                "d[0].name: Invalid value: \"c\": must not already exist in volumeMounts",
                "d[0].devicePath: Invalid value: \"/c\": must not already exist as a path in volumeMounts",
            ]
        );
    }
}
