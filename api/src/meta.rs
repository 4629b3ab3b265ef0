//! Cheap readers on an object's metadata: nothing is copied.

use crate::json::{Map, Value};

use crate::gvk::Gvk;

/// An owner reference, borrowed from its object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner<'a> {
    /// `apps/v1`
    pub api_version: &'a str,
    /// `ReplicaSet`
    pub kind: &'a str,
    /// The owner's name.
    pub name: &'a str,
    /// The owner's uid.
    pub uid: &'a str,
    /// The one owner that manages the object.
    pub controller: bool,
    /// Foreground deletion of the owner waits for the object.
    pub block_owner_deletion: bool,
}

fn metadata(object: &Value) -> Option<&Map> {
    object.as_object()?.get("metadata")?.as_object()
}

fn text<'a>(object: &'a Value, name: &str) -> &'a str {
    metadata(object).and_then(|m| m.get(name)).and_then(Value::as_str).unwrap_or_default()
}

/// `metadata.name`, empty when there is none. So are the other readers of text.
pub fn name(object: &Value) -> &str {
    text(object, "name")
}
/// `metadata.namespace`
pub fn namespace(object: &Value) -> &str {
    text(object, "namespace")
}
/// `metadata.generateName`
pub fn generate_name(object: &Value) -> &str {
    text(object, "generateName")
}
/// `metadata.uid`
pub fn uid(object: &Value) -> &str {
    text(object, "uid")
}
/// `metadata.resourceVersion`
pub fn resource_version(object: &Value) -> &str {
    text(object, "resourceVersion")
}
/// `metadata.creationTimestamp`, RFC 3339
pub fn creation_timestamp(object: &Value) -> &str {
    text(object, "creationTimestamp")
}
/// `metadata.deletionTimestamp`, RFC 3339
pub fn deletion_timestamp(object: &Value) -> Option<&str> {
    metadata(object)?.get("deletionTimestamp")?.as_str()
}
/// `metadata.deletionGracePeriodSeconds`
pub fn deletion_grace_period(object: &Value) -> Option<i64> {
    metadata(object)?.get("deletionGracePeriodSeconds")?.as_i64()
}
/// `metadata.generation`, 0 when there is none.
pub fn generation(object: &Value) -> i64 {
    metadata(object).and_then(|m| m.get("generation")).and_then(Value::as_i64).unwrap_or(0)
}
/// `metadata.labels`
pub fn labels(object: &Value) -> Option<&Map> {
    metadata(object)?.get("labels")?.as_object()
}
/// One label.
pub fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    labels(object)?.get(key)?.as_str()
}
/// `metadata.annotations`
pub fn annotations(object: &Value) -> Option<&Map> {
    metadata(object)?.get("annotations")?.as_object()
}
/// One annotation.
pub fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    annotations(object)?.get(key)?.as_str()
}
/// Takes annotations away, and with the last one their map.
pub fn drop_annotations(object: &mut Value, keys: &[&str]) {
    let Some(metadata) = metadata_mut(object) else { return };
    let Some(Value::Object(annotations)) = metadata.get_mut("annotations") else { return };
    let before = annotations.len();
    keys.iter().for_each(|key| drop(annotations.remove(key)));
    if annotations.is_empty() && before > 0 {
        metadata.remove("annotations");
    }
}
/// `metadata.finalizers`
pub fn finalizers(object: &Value) -> impl Iterator<Item = &str> {
    metadata(object)
        .and_then(|m| m.get("finalizers"))
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}
/// `metadata.ownerReferences`
pub fn owners(object: &Value) -> impl Iterator<Item = Owner<'_>> {
    let references = metadata(object).and_then(|m| m.get("ownerReferences")).and_then(Value::as_array);
    references.into_iter().flatten().map(|reference| {
        let text = |field: &str| reference.get(field).and_then(Value::as_str).unwrap_or_default();
        let flag = |field: &str| reference.get(field).and_then(Value::as_bool).unwrap_or(false);
        Owner {
            api_version: text("apiVersion"),
            kind: text("kind"),
            name: text("name"),
            uid: text("uid"),
            controller: flag("controller"),
            block_owner_deletion: flag("blockOwnerDeletion"),
        }
    })
}
/// The owner that manages the object.
pub fn controller(object: &Value) -> Option<Owner<'_>> {
    owners(object).find(|owner| owner.controller)
}
/// `apiVersion`
pub fn api_version(object: &Value) -> &str {
    object.get("apiVersion").and_then(Value::as_str).unwrap_or_default()
}
/// `kind`
pub fn kind(object: &Value) -> &str {
    object.get("kind").and_then(Value::as_str).unwrap_or_default()
}
/// `apiVersion` and `kind` together, when both are there.
pub fn gvk(object: &Value) -> Option<Gvk> {
    let (version, kind) = (api_version(object), kind(object));
    if version.is_empty() || kind.is_empty() { None } else { Gvk::parse(version, kind) }
}
/// `namespace/name`, or the name alone for what has no namespace: a key of queues and caches.
pub fn key(object: &Value) -> String {
    match namespace(object) {
        "" => name(object).to_owned(),
        namespace => format!("{namespace}/{}", name(object)),
    }
}

/// `metadata` for writing, made when it is missing or is not an object. `None` when `object` itself is not one.
pub fn metadata_mut(object: &mut Value) -> Option<&mut Map> {
    let metadata = object.as_object_mut()?.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
    if !metadata.is_object() {
        *metadata = Value::Object(Map::new());
    }
    metadata.as_object_mut()
}
/// Sets `metadata.<field>`, or removes it when `value` is null.
pub fn set(object: &mut Value, field: &str, value: impl Into<Value>) {
    let Some(metadata) = metadata_mut(object) else { return };
    match value.into() {
        Value::Null => drop(metadata.remove(field)),
        value => drop(metadata.insert(field, value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::json;

    #[test]
    fn readers_answer_for_any_document() {
        for odd in [
            json!(null),
            json!({}),
            json!({"metadata": 3}),
            json!({"metadata": {"name": 7, "labels": [], "ownerReferences": {}}}),
        ] {
            assert_eq!((name(&odd), uid(&odd), generation(&odd)), ("", "", 0));
            assert!(labels(&odd).is_none() && controller(&odd).is_none() && gvk(&odd).is_none());
        }
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "n", "labels": {"k": "v"}, "finalizers": ["x"],
            "ownerReferences": [{"kind": "A", "uid": "1"}, {"kind": "B", "uid": "2", "controller": true}]}});
        assert_eq!((key(&pod).as_str(), label(&pod, "k"), controller(&pod).unwrap().kind), ("n/a", Some("v"), "B"));
        assert_eq!(finalizers(&pod).collect::<Vec<_>>(), ["x"]);
        assert_eq!(gvk(&pod), Some(Gvk::of("", "v1", "Pod")));
    }

    #[test]
    fn set_writes_and_removes() {
        let mut object = json!({"metadata": null});
        set(&mut object, "uid", "1");
        set(&mut object, "generation", 2);
        set(&mut object, "uid", Value::Null);
        assert_eq!(object, json!({"metadata": {"generation": 2}}));
    }
}
