//! The strategic merge patch, applied (apimachinery `util/strategicpatch`).
//!
//! Directives: `$patch: replace|delete` in a map or an item of a list; `$retainKeys`; `$deleteFromPrimitiveList/FIELD`;
//! `$setElementOrder/FIELD`.

use crate::json::Value;

use super::{Inside, Object};
use crate::go;
use crate::gvk::Symbol;
use crate::schema::ValueRef;

pub(super) const PATCH: &str = "$patch";
pub(super) const RETAIN_KEYS: &str = "$retainKeys";
pub(super) const DELETE_FROM_LIST: &str = "$deleteFromPrimitiveList/";
pub(super) const SET_ORDER: &str = "$setElementOrder/";

/// Merges `patch` into `original`.
pub(super) fn merge_map(
    mut original: Object,
    mut patch: Object,
    value: Option<ValueRef<'_>>,
) -> Result<Object, String> {
    if let Some(directive) = patch.remove(PATCH) {
        return match directive.as_str() {
            Some("replace") => Ok(without_directives(patch)),
            Some("delete") => Ok(Object::new()),
            _ => {
                let mut map = patch;
                map.insert(PATCH.to_owned(), directive.clone());
                Err(unknown_directive(&directive, &Value::Object(map)))
            }
        };
    }
    retain_keys(&mut original, &mut patch)?;
    let orders = take_orders(&mut patch)?;
    for (key, change) in patch {
        if let Some(field) = key.strip_prefix(DELETE_FROM_LIST) {
            // Where there is no list, nobody asks what is to go from it.
            if let Some(Value::Array(items)) = original.get_mut(field) {
                let Value::Array(gone) = change else { return Err(no_list(&change)) };
                items.retain(|item| !gone.contains(item));
            }
            continue;
        }
        let inside = Inside::of(value, &key);
        let before = original.get(&key).and_then(Value::as_array).cloned();
        merge_entry(&mut original, key.clone(), change, inside)?;
        if let (Some((_, order)), Some(Value::Array(items))) =
            (orders.iter().find(|(field, _)| key == *field), original.get_mut(&key))
        {
            reorder(items, order, &before.unwrap_or_default(), inside.merge_key);
        }
    }
    // Lists that only their order changes.
    for (field, order) in orders {
        let merge_key = Inside::of(value, &field).merge_key;
        if let Some(Value::Array(items)) = original.get_mut(&field) {
            let before = items.clone();
            reorder(items, &order, &before, merge_key);
        }
    }
    Ok(original)
}

fn merge_entry(original: &mut Object, key: Symbol, change: Value, inside: Inside<'_>) -> Result<(), String> {
    let merged = match (original.get_mut(&key), change) {
        (_, Value::Null) => {
            original.remove(&key);
            return Ok(());
        }
        (Some(Value::Object(old)), Value::Object(change)) if !inside.strategy.replace => {
            Value::Object(merge_map(std::mem::take(old), change, inside.value)?)
        }
        (Some(Value::Array(old)), Value::Array(change)) if inside.strategy.merge => {
            Value::Array(merge_list(std::mem::take(old), change, inside)?)
        }
        (None, Value::Array(change)) if inside.strategy.merge => Value::Array(merge_list(Vec::new(), change, inside)?),
        (_, change) => plain(change),
    };
    original.insert(key, merged);
    Ok(())
}

/// The one problem of these that is the client's (apimachinery `util/mergepatch`); of the others upstream says 500.
pub(super) const BAD_RETAIN_KEYS: &str = "invalid patch format of retainKeys";

fn unknown_directive(directive: &Value, map: &Value) -> String {
    format!("unknown patch type: {} in map: {}", go::print(directive), go::print(map))
}

fn no_list(found: &Value) -> String {
    format!("expected a []interface {{}}, but received a {}", go::type_name(found))
}

/// Of a map that `$retainKeys` stands in, only the keys it names are kept.
fn retain_keys(original: &mut Object, patch: &mut Object) -> Result<(), String> {
    let Some(keys) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let Value::Array(keys) = keys else { return Err(BAD_RETAIN_KEYS.into()) };
    let kept = |key: &str| keys.iter().any(|kept| kept == key);
    if patch.iter().any(|(key, change)| !key.starts_with('$') && !change.is_null() && !kept(key)) {
        return Err(BAD_RETAIN_KEYS.into());
    }
    original.retain(|key, _| kept(key));
    Ok(())
}

fn take_orders(patch: &mut Object) -> Result<Vec<(String, Vec<Value>)>, String> {
    let names: Vec<Symbol> = patch.keys().filter(|key| key.starts_with(SET_ORDER)).cloned().collect();
    let mut orders = Vec::with_capacity(names.len());
    for name in names {
        match patch.remove(&name) {
            Some(Value::Array(order)) => orders.push((name[SET_ORDER.len()..].to_owned(), order)),
            other => return Err(no_list(&other.unwrap_or_default())),
        }
    }
    Ok(orders)
}

fn merge_list(original: Vec<Value>, patch: Vec<Value>, inside: Inside<'_>) -> Result<Vec<Value>, String> {
    let maps = patch.iter().chain(&original).filter(|item| item.is_object()).count();
    if maps == 0 {
        let mut merged: Vec<Value> = Vec::with_capacity(original.len() + patch.len());
        for item in original.into_iter().chain(patch) {
            if !merged.contains(&item) {
                merged.push(item);
            }
        }
        return Ok(merged);
    }
    if maps != patch.len() + original.len() {
        let lists = [original, patch].map(Value::Array).to_vec();
        return Err(format!("list element types are not identical: {}", go::print(&Value::Array(lists))));
    }
    let Some(key) = inside.merge_key else { return Err("cannot merge lists without merge key".into()) };
    let (original, patch) = list_directives(original, patch, key)?;
    merge_items(original, patch, key, inside.item())
}

/// Carries out `$patch` in items: `delete` removes the item with the same key, `replace` makes the rest the whole list.
fn list_directives(mut original: Vec<Value>, patch: Vec<Value>, key: &str) -> Result<(Vec<Value>, Vec<Value>), String> {
    let mut rest = Vec::with_capacity(patch.len());
    let mut replace = false;
    for item in patch {
        match item.get(PATCH) {
            None => rest.push(item),
            Some(directive) => match directive.as_str() {
                Some("delete") => {
                    let gone = item.get(key).ok_or_else(|| no_merge_key(&item, key))?;
                    original.retain(|old| old.get(key) != Some(gone));
                }
                Some("replace") => replace = true,
                Some("merge") => return Err("merging lists cannot yet be specified in the patch".into()),
                _ => return Err(unknown_directive(directive, &item)),
            },
        }
    }
    Ok(if replace { (Vec::new(), rest) } else { (original, rest) })
}

fn no_merge_key(item: &Value, key: &str) -> String {
    format!("map: {} does not contain declared merge key: {key}", go::print(item))
}

fn merge_items(
    mut original: Vec<Value>,
    patch: Vec<Value>,
    key: &str,
    item: Option<ValueRef<'_>>,
) -> Result<Vec<Value>, String> {
    for change in patch {
        let id = change.get(key).ok_or_else(|| no_merge_key(&change, key))?;
        let same = original.iter_mut().find(|old| old.get(key) == Some(id));
        match (same, change) {
            (Some(Value::Object(old)), Value::Object(change)) => *old = merge_map(std::mem::take(old), change, item)?,
            (_, change) => original.push(plain(change)),
        }
    }
    Ok(original)
}

/// Puts the items that `order` names into that order, and the others where they stood in `before` relative to them.
fn reorder(items: &mut Vec<Value>, order: &[Value], before: &[Value], merge_key: Option<&str>) {
    fn id<'v>(item: &'v Value, merge_key: Option<&str>) -> &'v Value {
        merge_key.and_then(|key| item.get(key)).unwrap_or(item)
    }
    let place =
        |list: &[Value], item: &Value| list.iter().position(|other| id(other, merge_key) == id(item, merge_key));
    let (mut named, mut others): (Vec<Value>, Vec<Value>) =
        std::mem::take(items).into_iter().partition(|item| place(order, item).is_some());
    named.sort_by_key(|item| place(order, item));
    others.sort_by_key(|item| place(before, item).unwrap_or(usize::MAX));
    let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
    loop {
        let other_first = match (named.peek(), others.peek()) {
            (Some(named), Some(other)) => {
                matches!((place(before, other), place(before, named)), (Some(o), Some(n)) if o < n)
            }
            (None, Some(_)) => true,
            (Some(_), None) => false,
            (None, None) => return,
        };
        items.extend(if other_first { others.next() } else { named.next() });
    }
}

/// The value without nulls and directives: what a patch adds where nothing was.
fn plain(value: Value) -> Value {
    match value {
        Value::Object(map) if map.get(PATCH).and_then(Value::as_str) == Some("delete") => Value::Object(Object::new()),
        Value::Object(map) => Value::Object(without_directives(map)),
        Value::Array(items) => {
            let deleted = |item: &Value| item.get(PATCH).and_then(Value::as_str) == Some("delete");
            let marker = |item: &Value| item.get(PATCH).is_some() && item.as_object().is_some_and(|map| map.len() == 1);
            Value::Array(items.into_iter().filter(|item| !deleted(item) && !marker(item)).map(plain).collect())
        }
        scalar => scalar,
    }
}

fn without_directives(map: Object) -> Object {
    let directive = |key: &str| {
        key == PATCH || key == RETAIN_KEYS || key.starts_with(DELETE_FROM_LIST) || key.starts_with(SET_ORDER)
    };
    map.into_iter()
        .filter(|(key, value)| !value.is_null() && !directive(key))
        .map(|(key, value)| (key, plain(value)))
        .collect()
}

#[cfg(test)]
mod tests {
    use crate::gvk::Gvk;
    use crate::json::{Value, json};
    use crate::patch::strategic;
    use crate::schema;

    fn apply(kind: Gvk, current: Value, patch: Value) -> Result<Value, String> {
        strategic(&current, patch, schema::of(&kind).unwrap()).map_err(|status| status.message)
    }

    const POD: Gvk = Gvk::of("", "v1", "Pod");

    fn containers(current: Value, patch: Value) -> Value {
        apply(POD, json!({"spec": {"containers": current}}), json!({"spec": patch})).unwrap()["spec"]["containers"]
            .clone()
    }

    #[test]
    fn lists_merge_by_key() {
        let current = json!([{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}], "args": ["x"]}, {"name": "b", "image": "1"}]);
        assert_eq!(
            containers(
                current.clone(),
                json!({"containers": [{"name": "a", "image": "2", "env": [{"name": "Y", "value": null}], "args": ["y"]}, {"name": "c"}]})
            ),
            json!([{"name": "a", "image": "2", "env": [{"name": "X", "value": "1"}, {"name": "Y"}], "args": ["y"]}, {"name": "b", "image": "1"}, {"name": "c"}])
        );
        assert_eq!(
            containers(current.clone(), json!({"containers": [{"name": "a", "$patch": "delete"}]})),
            json!([{"name": "b", "image": "1"}])
        );
        assert_eq!(
            containers(current.clone(), json!({"containers": [{"name": "z"}, {"$patch": "replace"}]})),
            json!([{"name": "z"}])
        );
        assert_eq!(
            containers(current.clone(), json!({"$setElementOrder/containers": [{"name": "c"}, {"name": "b"}, {"name": "a"}], "containers": [{"name": "c"}]}))
                .as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect::<Vec<_>>(),
            ["c", "b", "a"]
        );
        assert_eq!(
            containers(current, json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}))[0]["name"],
            "b"
        );
    }

    #[test]
    fn items_of_others_keep_their_place() {
        let current = json!([{"name": "theirs"}, {"name": "a"}, {"name": "b"}, {"name": "last"}]);
        let merged = containers(
            current,
            json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}, {"name": "n"}], "containers": [{"name": "n"}]}),
        );
        let names: Vec<_> = merged.as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["theirs", "b", "a", "n", "last"]);
    }

    #[test]
    fn primitive_lists() {
        let current = json!({"metadata": {"finalizers": ["a", "b"]}});
        let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "$setElementOrder/finalizers": ["c", "b"], "finalizers": ["c"]}});
        assert_eq!(apply(POD, current, patch).unwrap(), json!({"metadata": {"finalizers": ["c", "b"]}}));
    }

    #[test]
    fn map_directives() {
        let deployment = Gvk::of("apps", "v1", "Deployment");
        let current = json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}, "metadata": {"labels": {"a": "1"}}});
        let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}, "metadata": {"labels": {"$patch": "replace", "b": "2"}}});
        assert_eq!(
            apply(deployment.clone(), current.clone(), patch).unwrap(),
            json!({"spec": {"strategy": {"type": "Recreate"}}, "metadata": {"labels": {"b": "2"}}})
        );
        assert!(apply(deployment, current, json!({"spec": {"strategy": {"$retainKeys": [], "type": "x"}}})).is_err());
    }

    #[test]
    fn bad_patches_are_refused() {
        let current = json!({"spec": {"containers": [{"name": "a"}]}});
        for patch in [
            json!({"spec": {"containers": [{"image": "x"}]}}),
            json!({"spec": {"containers": [{"name": "a", "$patch": "merge"}]}}),
            json!({"spec": {"$patch": "explode"}}),
            json!({"spec": {"containers": ["x"]}}),
            json!({"spec": {"$setElementOrder/containers": 3}}),
        ] {
            assert!(apply(POD, current.clone(), patch.clone()).is_err(), "{patch}");
        }
    }
}
