//! Volumes, claims and storage classes.

use crate::json::Value;

use super::access::{list_at, or_none, shown, str_at};
use super::{AGE, Column, NAME, Printer, age, text, wide};
use crate::meta;

pub(super) fn find(group: &str, kind: &str) -> Option<&'static Printer> {
    Some(match (group, kind) {
        ("", "PersistentVolume") => &VOLUME,
        ("", "PersistentVolumeClaim") => &CLAIM,
        ("storage.k8s.io", "StorageClass") => &CLASS,
        _ => return None,
    })
}

/// `RWO,ROX`
fn access_modes(object: &Value, pointer: &str) -> String {
    let short = |mode: &Value| match mode.as_str().unwrap_or_default() {
        "ReadWriteOnce" => "RWO",
        "ReadOnlyMany" => "ROX",
        "ReadWriteMany" => "RWX",
        "ReadWriteOncePod" => "RWOP",
        _ => "",
    };
    let mut modes: Vec<&str> = Vec::new();
    for mode in list_at(object, pointer).iter().map(short).filter(|mode| !mode.is_empty()) {
        if !modes.contains(&mode) {
            modes.push(mode);
        }
    }
    modes.join(",")
}

fn storage_class<'v>(object: &'v Value, annotation: &str) -> &'v str {
    meta::annotation(object, annotation).unwrap_or_else(|| str_at(object, "/spec/storageClassName"))
}

const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

static VOLUME: Printer = Printer {
    columns: &[
        NAME,
        text("Capacity"),
        text("Access Modes"),
        text("Reclaim Policy"),
        text("Status"),
        text("Claim"),
        text("StorageClass"),
        text("VolumeAttributesClass"),
        text("Reason"),
        AGE,
        wide("VolumeMode"),
    ],
    cells: |o, now| {
        let claim = match str_at(o, "/spec/claimRef/name") {
            "" => String::new(),
            name => format!("{}/{name}", str_at(o, "/spec/claimRef/namespace")),
        };
        let phase = if meta::deletion_timestamp(o).is_some() { "Terminating" } else { str_at(o, "/status/phase") };
        vec![
            meta::name(o).into(),
            o.pointer("/spec/capacity/storage").map(shown).unwrap_or_default().into(),
            access_modes(o, "/spec/accessModes").into(),
            str_at(o, "/spec/persistentVolumeReclaimPolicy").into(),
            phase.into(),
            claim.into(),
            storage_class(o, CLASS_ANNOTATION).into(),
            or_unset(str_at(o, "/spec/volumeAttributesClassName")).into(),
            str_at(o, "/status/reason").into(),
            age(o, now).into(),
            or_unset(str_at(o, "/spec/volumeMode")).into(),
        ]
    },
};

fn or_unset(text: &str) -> &str {
    if text.is_empty() { "<unset>" } else { text }
}

static CLAIM: Printer = Printer {
    columns: &[
        NAME,
        text("Status"),
        text("Volume"),
        text("Capacity"),
        text("Access Modes"),
        text("StorageClass"),
        text("VolumeAttributesClass"),
        AGE,
        wide("VolumeMode"),
    ],
    cells: |o, now| {
        let phase = if meta::deletion_timestamp(o).is_some() { "Terminating" } else { str_at(o, "/status/phase") };
        let volume = str_at(o, "/spec/volumeName");
        let (capacity, modes) = if volume.is_empty() {
            (String::new(), String::new())
        } else {
            (
                o.pointer("/status/capacity/storage").map(shown).unwrap_or_default(),
                access_modes(o, "/status/accessModes"),
            )
        };
        vec![
            meta::name(o).into(),
            phase.into(),
            volume.into(),
            capacity.into(),
            modes.into(),
            storage_class(o, CLASS_ANNOTATION).into(),
            or_unset(str_at(o, "/spec/volumeAttributesClassName")).into(),
            age(o, now).into(),
            or_unset(str_at(o, "/spec/volumeMode")).into(),
        ]
    },
};

static CLASS: Printer = Printer {
    columns: &[
        NAME,
        text("Provisioner"),
        text("ReclaimPolicy"),
        text("VolumeBindingMode"),
        Column { kind: "boolean", ..text("AllowVolumeExpansion") },
        AGE,
    ],
    cells: |o, now| {
        let default = meta::annotation(o, "storageclass.kubernetes.io/is-default-class") == Some("true");
        let name = if default { format!("{} (default)", meta::name(o)) } else { meta::name(o).to_owned() };
        let reclaim = match str_at(o, "/reclaimPolicy") {
            "" => "Delete",
            policy => policy,
        };
        vec![
            name.into(),
            str_at(o, "/provisioner").into(),
            reclaim.into(),
            or_none(str_at(o, "/volumeBindingMode")).into(),
            o.get("allowVolumeExpansion").and_then(Value::as_bool).unwrap_or(false).into(),
            age(o, now).into(),
        ]
    },
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::json;
    use jiff::Timestamp;

    #[test]
    fn a_claim() {
        let claim = json!({"metadata": {"name": "c"}, "spec": {"volumeName": "v", "storageClassName": "fast", "volumeMode": "Filesystem"},
            "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce", "ReadOnlyMany"]}});
        assert_eq!(
            CLAIM.row(&claim, Timestamp::UNIX_EPOCH),
            ["c", "Bound", "v", "1Gi", "RWO,ROX", "fast", "<unset>", "<unknown>", "Filesystem"]
        );
    }
}
