//! JSON merge patches (RFC 7396), and how they are made from documents, for types without a schema.

use crate::json::{Map, Value};

/// Applies a patch: null removes, objects are merged, anything else replaces.
pub fn merge(to: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *to = patch;
        return;
    };
    if !to.is_object() {
        *to = Map::with_capacity(patch.len()).into();
    }
    let Value::Object(to) = to else { return };
    for (name, change) in patch {
        match change {
            Value::Null => drop(to.remove(&name)),
            // What is new is merged into nothing, for it may hold nulls.
            change => merge(to.entry(name).or_insert(Value::Null), change),
        }
    }
}

/// The merge patch that makes `modified` of `original`; null when nothing differs but for types that are no objects.
pub fn merge_diff(original: &Value, modified: &Value) -> Value {
    let (Value::Object(original), Value::Object(modified)) = (original, modified) else { return modified.clone() };
    let mut patch = Map::new();
    for key in original.keys().filter(|key| !modified.contains_key(key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, value) in modified {
        match original.get(key) {
            Some(old) if old == value => {}
            Some(old @ Value::Object(_)) if value.is_object() => {
                patch.insert(key.clone(), merge_diff(old, value));
            }
            _ => {
                patch.insert(key.clone(), value.clone());
            }
        }
    }
    Value::Object(patch)
}

/// The merge patch that brings `current` to `modified`, and removes what `original` had and `modified` has no more. What
/// others added to `current` stays (client-go `jsonmergepatch`).
pub fn three_way_merge(original: &Value, modified: &Value, current: &Value) -> Value {
    let mut patch = merge_diff(current, modified);
    retain(&mut patch, false);
    let mut deletions = merge_diff(original, modified);
    retain(&mut deletions, true);
    join(&mut patch, deletions);
    patch
}

/// Keeps only the nulls, or everything but the nulls; empty objects that come of it go.
fn retain(patch: &mut Value, nulls: bool) {
    let Value::Object(map) = patch else { return };
    map.retain(|_, value| match value {
        Value::Object(inner) if !inner.is_empty() => {
            retain(value, nulls);
            value.as_object().is_some_and(|inner| !inner.is_empty())
        }
        Value::Null => nulls,
        _ => !nulls,
    });
}

/// Adds the nulls of `deletions` where `patch` says nothing else.
fn join(patch: &mut Value, deletions: Value) {
    let (Value::Object(patch), Value::Object(deletions)) = (patch, deletions) else { return };
    for (key, value) in deletions {
        match patch.get_mut(&key) {
            Some(inner) => join(inner, value),
            None => drop(patch.insert(key, value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::json;

    #[test]
    fn deletes_what_was_ours_and_keeps_what_was_not() {
        let original = json!({"spec": {"a": 1, "b": {"x": 1, "y": 2}, "gone": true}});
        let modified = json!({"spec": {"a": 2, "b": {"x": 1}}});
        let current =
            json!({"spec": {"a": 1, "b": {"x": 1, "y": 2, "theirs": 3}, "gone": true, "server": 1}, "status": {}});
        let patch = three_way_merge(&original, &modified, &current);
        assert_eq!(patch, json!({"spec": {"a": 2, "b": {"y": null}, "gone": null}}));
        let mut result = current;
        merge(&mut result, patch);
        assert_eq!(result, json!({"spec": {"a": 2, "b": {"x": 1, "theirs": 3}, "server": 1}, "status": {}}));
        assert_eq!(three_way_merge(&modified, &modified, &modified), json!({}));
    }
}
