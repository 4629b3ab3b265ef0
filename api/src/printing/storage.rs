//! Volumes, claims and storage classes.

use crate::json::Value;

use super::access::{joined, list_at, or_none, shown, str_at};
use super::{AGE, Cell, Column, NAME, Printer, age, boolean, number, text, wide};
use crate::meta;

pub(super) fn find(group: &str, kind: &str) -> Option<&'static Printer> {
    Some(match (group, kind) {
        ("", "PersistentVolume") => &VOLUME,
        ("", "PersistentVolumeClaim") => &CLAIM,
        ("storage.k8s.io", "StorageClass") => &CLASS,
        ("storage.k8s.io", "VolumeAttributesClass") => &ATTRIBUTES_CLASS,
        ("storage.k8s.io", "VolumeAttachment") => &ATTACHMENT,
        ("storage.k8s.io", "CSINode") => &CSI_NODE,
        ("storage.k8s.io", "CSIDriver") => &CSI_DRIVER,
        ("storage.k8s.io", "CSIStorageCapacity") => &CSI_CAPACITY,
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

static ATTRIBUTES_CLASS: Printer = Printer {
    columns: &[NAME, text("DriverName"), AGE],
    cells: |o, now| vec![meta::name(o).into(), str_at(o, "/driverName").into(), age(o, now).into()],
};

static ATTACHMENT: Printer = Printer {
    columns: &[NAME, Column { format: "name", ..text("Attacher") }, text("PV"), text("Node"), boolean("Attached"), AGE],
    cells: |o, now| {
        vec![
            meta::name(o).into(),
            str_at(o, "/spec/attacher").into(),
            str_at(o, "/spec/source/persistentVolumeName").into(),
            str_at(o, "/spec/nodeName").into(),
            flag(o, "/status/attached", false),
            age(o, now).into(),
        ]
    },
};

static CSI_NODE: Printer = Printer {
    columns: &[NAME, number("Drivers"), AGE],
    cells: |o, now| vec![meta::name(o).into(), list_at(o, "/spec/drivers").len().into(), age(o, now).into()],
};

static CSI_DRIVER: Printer = Printer {
    columns: &[
        NAME,
        boolean("AttachRequired"),
        boolean("PodInfoOnMount"),
        boolean("StorageCapacity"),
        text("TokenRequests"),
        boolean("RequiresRepublish"),
        text("Modes"),
        AGE,
    ],
    cells: |o, now| {
        let audiences = o
            .pointer("/spec/tokenRequests")
            .and_then(Value::as_array)
            .map(|requests| joined(requests.iter().map(|request| str_at(request, "/audience"))));
        vec![
            meta::name(o).into(),
            flag(o, "/spec/attachRequired", true),
            flag(o, "/spec/podInfoOnMount", false),
            flag(o, "/spec/storageCapacity", false),
            audiences.unwrap_or_else(|| "<unset>".into()).into(),
            flag(o, "/spec/requiresRepublish", false),
            or_none(&joined(list_at(o, "/spec/volumeLifecycleModes").iter().map(shown))).into(),
            age(o, now).into(),
        ]
    },
};

static CSI_CAPACITY: Printer = Printer {
    columns: &[NAME, text("StorageClassName"), text("Capacity")],
    cells: |o, _| {
        let capacity = o.get("capacity").map(shown).unwrap_or_default();
        vec![meta::name(o).into(), str_at(o, "/storageClassName").into(), or_unset(&capacity).into()]
    },
};

/// true or false at a JSON pointer, or what counts when neither is said.
fn flag(object: &Value, pointer: &str, absent: bool) -> Cell {
    object.pointer(pointer).and_then(Value::as_bool).unwrap_or(absent).into()
}

static CLASS: Printer = Printer {
    columns: &[
        NAME,
        text("Provisioner"),
        text("ReclaimPolicy"),
        text("VolumeBindingMode"),
        boolean("AllowVolumeExpansion"),
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
    fn what_drivers_are_and_do() {
        let at = Timestamp::UNIX_EPOCH;
        let driver = json!({"metadata": {"name": "d"}, "spec": {"attachRequired": false, "storageCapacity": true,
            "tokenRequests": [{"audience": "a"}, {"audience": "b"}], "volumeLifecycleModes": ["Persistent", "Ephemeral"]}});
        let expected = json!(["d", false, false, true, "a,b", false, "Persistent,Ephemeral", "<unknown>"]);
        assert_eq!(Value::from(CSI_DRIVER.row(&driver, at)), expected);
        let plain = json!(["d", true, false, false, "<unset>", false, "<none>", "<unknown>"]);
        assert_eq!(Value::from(CSI_DRIVER.row(&json!({"metadata": {"name": "d"}}), at)), plain);
        let attachment = json!({"metadata": {"name": "a"}, "status": {"attached": true},
            "spec": {"attacher": "d", "nodeName": "n", "source": {"persistentVolumeName": "v"}}});
        assert_eq!(Value::from(ATTACHMENT.row(&attachment, at)), json!(["a", "d", "v", "n", true, "<unknown>"]));
        let node = json!({"metadata": {"name": "n"}, "spec": {"drivers": [{"name": "d"}, {"name": "e"}]}});
        assert_eq!(Value::from(CSI_NODE.row(&node, at)), json!(["n", 2, "<unknown>"]));
        let capacity = json!({"metadata": {"name": "c"}, "storageClassName": "fast"});
        assert_eq!(CSI_CAPACITY.row(&capacity, at), ["c", "fast", "<unset>"]);
        let class = json!({"metadata": {"name": "gold"}, "driverName": "d"});
        assert_eq!(ATTRIBUTES_CLASS.row(&class, at), ["gold", "d", "<unknown>"]);
    }

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
