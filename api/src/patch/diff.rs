//! Strategic merge patches made from documents (apimachinery `util/strategicpatch`, `CreateThreeWayMergePatch`).

use crate::json::{Value, json};

use super::strategic::{DELETE_FROM_LIST, PATCH, RETAIN_KEYS, SET_ORDER};
use super::{Inside, Object};
use crate::schema::{TypeRef, ValueRef};

/// Which differences are told.
#[derive(Clone, Copy)]
struct Tell {
    deletions: bool,
    changes: bool,
}

/// The patch that makes `modified` of `original`.
pub fn strategic_diff(original: &Value, modified: &Value, ty: TypeRef<'_>) -> Value {
    diff(original, modified, ty, Tell { deletions: true, changes: true })
}

/// The patch that brings `current` to `modified`, and removes what `original` had and `modified` has no more. What others
/// added to `current` stays.
pub fn three_way_strategic(original: &Value, modified: &Value, current: &Value, ty: TypeRef<'_>) -> Value {
    let changes = diff(current, modified, ty, Tell { deletions: false, changes: true });
    let deletions = diff(original, modified, ty, Tell { deletions: true, changes: false });
    match (deletions, changes) {
        (Value::Object(mut patch), Value::Object(changes)) => {
            join_maps(&mut patch, changes, Some(ty.value()));
            Value::Object(patch)
        }
        (_, changes) => changes,
    }
}

fn diff(original: &Value, modified: &Value, ty: TypeRef<'_>, tell: Tell) -> Value {
    let empty = Object::new();
    let object = |value: &'_ Value| value.as_object().cloned();
    let (original, modified) = (object(original).unwrap_or_else(|| empty.clone()), object(modified).unwrap_or(empty));
    Value::Object(diff_maps(&original, &modified, Some(ty.value()), tell, false))
}

fn diff_maps(
    original: &Object,
    modified: &Object,
    value: Option<ValueRef<'_>>,
    tell: Tell,
    retain_keys: bool,
) -> Object {
    let mut patch = Object::new();
    for (key, old) in original {
        let Some(new) = modified.get(key) else {
            if tell.deletions {
                patch.insert(key.clone(), Value::Null);
            }
            continue;
        };
        let inside = Inside::of(value, key);
        match (old, new) {
            (Value::Object(old), Value::Object(new)) if !inside.strategy.replace => {
                let inner = diff_maps(old, new, inside.value, tell, inside.strategy.retain_keys);
                if !inner.is_empty() {
                    patch.insert(key.clone(), Value::Object(inner));
                }
            }
            (Value::Array(old), Value::Array(new)) if inside.strategy.merge => {
                diff_lists(&mut patch, key, old, new, inside, tell)
            }
            _ => {
                if tell.changes && old != new {
                    patch.insert(key.clone(), new.clone());
                }
            }
        }
    }
    if tell.changes {
        for (key, new) in modified.iter().filter(|(key, _)| !original.contains_key(key)) {
            patch.insert(key.clone(), new.clone());
        }
    }
    if retain_keys && !patch.is_empty() {
        let mut keys: Vec<&str> = modified.keys().map(|key| key.as_str()).collect();
        keys.sort_unstable();
        patch.insert(RETAIN_KEYS.to_owned(), json!(keys));
    }
    patch
}

fn diff_lists(patch: &mut Object, key: &str, original: &[Value], modified: &[Value], inside: Inside<'_>, tell: Tell) {
    let maps = original.iter().chain(modified).all(Value::is_object);
    let keyed = |item: &Value| inside.merge_key.is_none_or(|key| item.get(key).is_some());
    if maps && (inside.merge_key.is_none() || !original.iter().chain(modified).all(keyed)) {
        // Without keys nothing can be told apart: the list is sent whole.
        if tell.changes && original != modified {
            patch.insert(key.to_owned(), Value::Array(modified.to_vec()));
        }
        return;
    }
    let id = |item: &'_ Value| -> Value {
        inside.merge_key.filter(|_| maps).and_then(|key| item.get(key)).unwrap_or(item).clone()
    };
    let (old_ids, new_ids): (Vec<Value>, Vec<Value>) =
        (original.iter().map(id).collect(), modified.iter().map(id).collect());
    let mut list = Vec::new();
    for (new, new_id) in modified.iter().zip(&new_ids) {
        match (old_ids.iter().position(|old| old == new_id).map(|at| &original[at]), new) {
            (Some(Value::Object(old)), Value::Object(new)) => {
                let mut inner = diff_maps(old, new, inside.item(), tell, inside.strategy.retain_keys);
                if let (false, Some(merge_key)) = (inner.is_empty(), inside.merge_key) {
                    inner.insert(merge_key.to_owned(), new_id.clone());
                    list.push(Value::Object(inner));
                }
            }
            (None, new) if tell.changes => list.push(new.clone()),
            _ => {}
        }
    }
    let gone: Vec<Value> =
        if tell.deletions { old_ids.iter().filter(|id| !new_ids.contains(id)).cloned().collect() } else { Vec::new() };
    let common = old_ids.iter().filter(|id| new_ids.contains(id));
    let moved = tell.changes && !common.eq(new_ids.iter().filter(|id| old_ids.contains(id)));
    let changed = !list.is_empty() || !gone.is_empty() || moved;
    match inside.merge_key.filter(|_| maps) {
        Some(merge_key) => {
            list.extend(gone.into_iter().map(|id| json!({PATCH: "delete", merge_key: id})));
            if changed && !original.is_empty() {
                let order: Vec<Value> = new_ids.iter().map(|id| json!({merge_key: id})).collect();
                patch.insert(format!("{SET_ORDER}{key}"), Value::Array(order));
            }
        }
        None => {
            if !gone.is_empty() {
                patch.insert(format!("{DELETE_FROM_LIST}{key}"), Value::Array(gone));
            }
            if changed && !original.is_empty() {
                patch.insert(format!("{SET_ORDER}{key}"), Value::Array(new_ids));
            }
        }
    }
    if !list.is_empty() {
        patch.insert(key.to_owned(), Value::Array(list));
    }
}

/// One patch of two: what `changes` says counts where both say something.
fn join_maps(patch: &mut Object, changes: Object, value: Option<ValueRef<'_>>) {
    for (key, change) in changes {
        let inside = Inside::of(value, &key);
        match (patch.get_mut(&key), change) {
            (Some(Value::Object(old)), Value::Object(change)) => join_maps(old, change, inside.value),
            (Some(Value::Array(old)), Value::Array(change)) if inside.strategy.merge => {
                let merge_key = inside.merge_key.unwrap_or_default();
                for item in change {
                    let same = old
                        .iter_mut()
                        .find(|other| item.get(merge_key).is_some() && other.get(merge_key) == item.get(merge_key));
                    match (same, item) {
                        (Some(Value::Object(old)), Value::Object(item)) => join_maps(old, item, inside.item()),
                        (_, item) => old.push(item),
                    }
                }
            }
            (_, change) => drop(patch.insert(key, change)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gvk::Gvk;
    use crate::patch::strategic;
    use crate::schema;

    fn deployment() -> TypeRef<'static> {
        schema::of(&Gvk::of("apps", "v1", "Deployment")).unwrap()
    }

    fn with_containers(containers: Value) -> Value {
        json!({"spec": {"template": {"spec": {"containers": containers}}}})
    }

    #[test]
    fn a_diff_applied_gives_the_other() {
        let rows = [
            (json!([{"name": "a", "image": "1"}]), json!([{"name": "a", "image": "2"}])),
            (
                json!([{"name": "a"}, {"name": "b", "env": [{"name": "X", "value": "1"}]}]),
                json!([{"name": "b", "env": [{"name": "Y"}]}, {"name": "c"}]),
            ),
            (json!([{"name": "a"}, {"name": "b"}]), json!([{"name": "b"}, {"name": "a"}])),
            (json!([]), json!([{"name": "a"}])),
            (json!([{"name": "a", "args": ["x"]}]), json!([{"name": "a", "args": ["y", "x"]}])),
        ];
        for (a, b) in rows {
            for (from, to) in [(&a, &b), (&b, &a)] {
                let (from, to) = (with_containers(from.clone()), with_containers(to.clone()));
                let patch = strategic_diff(&from, &to, deployment());
                assert_eq!(strategic(&from, patch.clone(), deployment()).unwrap(), to, "{patch}");
            }
        }
        let same = with_containers(json!([{"name": "a"}]));
        assert_eq!(strategic_diff(&same, &same, deployment()), json!({}));
    }

    #[test]
    fn apply_keeps_what_others_added() {
        let original = with_containers(
            json!([{"name": "web", "image": "1", "env": [{"name": "OLD", "value": "1"}]}, {"name": "gone"}]),
        );
        let modified = with_containers(json!([{"name": "web", "image": "2"}]));
        let current = with_containers(json!([
            {"name": "web", "image": "1", "env": [{"name": "OLD", "value": "1"}, {"name": "THEIRS", "value": "2"}], "imagePullPolicy": "Always"},
            {"name": "gone"}, {"name": "injected"}]));
        let patch = three_way_strategic(&original, &modified, &current, deployment());
        let result = strategic(&current, patch.clone(), deployment()).unwrap();
        // The whole env was ours by name and is no longer given, so the field goes, as with kubectl.
        assert_eq!(
            result,
            with_containers(json!([{"name": "web", "image": "2", "imagePullPolicy": "Always"}, {"name": "injected"}])),
            "{patch}"
        );
        assert_eq!(three_way_strategic(&modified, &modified, &result, deployment()), json!({}));
    }

    #[test]
    fn retain_keys_and_labels() {
        let original = json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
        let modified = json!({"metadata": {"labels": {"a": "1"}}, "spec": {"strategy": {"type": "Recreate"}}});
        let mut current = original.clone();
        current["metadata"]["labels"]["c"] = json!("3");
        let patch = three_way_strategic(&original, &modified, &current, deployment());
        let result = strategic(&current, patch, deployment()).unwrap();
        assert_eq!(
            result,
            json!({"metadata": {"labels": {"a": "1", "c": "3"}}, "spec": {"strategy": {"type": "Recreate"}}})
        );
    }
}
