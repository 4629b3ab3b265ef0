//! Merging an applied configuration into an object, and removing paths from it.

use std::collections::HashMap;

use crate::json::{Map, Value};

use super::place::{Form, Place};
use super::set::{Element, Set};
use crate::schema::TypeRef;

/// `live` with everything that `applied` sets (structured-merge-diff `Merge`).
pub fn merge(live: &Value, applied: &Value, ty: TypeRef<'_>) -> Value {
    both(live, applied, Place::root(ty))
}

fn both(live: &Value, applied: &Value, place: Place<'_>) -> Value {
    match (place.form(live), place.form(applied)) {
        (Form::Fields(live), Form::Fields(applied)) => {
            let mut merged = live.clone();
            for (name, value) in applied {
                let value = match (live.get(name), place.field(name)) {
                    (Some(live), Some(inner)) => both(live, value, inner),
                    _ => value.clone(),
                };
                merged.insert(name.clone(), value);
            }
            Value::Object(merged)
        }
        (Form::Items(live), Form::Items(applied)) => Value::Array(items(live, applied, place)),
        // Null says nothing of what is owned apart: it stays as it is.
        (Form::Fields(fields), _) if applied.is_null() && !fields.is_empty() => live.clone(),
        (Form::Items(items), _) if applied.is_null() && !items.is_empty() => live.clone(),
        _ => applied.clone(),
    }
}

/// Items in the applied order; those that only the live list has stay in front of what followed them.
fn items(live: &[Value], applied: &[Value], place: Place<'_>) -> Vec<Value> {
    let element = |item| place.element(item).ok();
    let wanted: Vec<(Option<Element<'_>>, &Value)> = applied.iter().map(|item| (element(item), item)).collect();
    let known: Vec<(Option<Element<'_>>, &Value)> = live.iter().map(|item| (element(item), item)).collect();
    let positions: HashMap<&Element<'_>, usize> =
        wanted.iter().enumerate().filter_map(|(at, (element, _))| Some((element.as_ref()?, at))).collect();
    let mut live_of: HashMap<&Element<'_>, Option<&Value>> = HashMap::new();
    for (element, item) in &known {
        if let Some(element) = element {
            // What stands there more than once is replaced, not merged.
            live_of.entry(element).and_modify(|live| *live = None).or_insert(Some(item));
        }
    }
    let live_of = |element: &Element<'_>| live_of.get(element).copied().flatten();
    let merged = |element: &Option<Element<'_>>, item: &Value| match element.as_ref().and_then(live_of) {
        Some(live) => both(live, item, place.item()),
        None => item.clone(),
    };
    let mut out = Vec::with_capacity(wanted.len().max(known.len()));
    let mut next = 0;
    for (element, item) in &known {
        let position = element.as_ref().and_then(|element| positions.get(element).copied());
        match position {
            None => out.push((*item).clone()),
            // All that is wanted up to here, unless it went out already.
            Some(position) => {
                while next <= position {
                    let (element, item) = &wanted[next];
                    out.push(merged(element, item));
                    next += 1;
                }
            }
        }
    }
    for (element, item) in &wanted[next..] {
        out.push(merged(element, item));
    }
    out
}

/// The object without the paths, and without what they leave empty.
pub fn remove(object: &Value, paths: &Set<'_>, ty: TypeRef<'_>) -> Value {
    without(object, paths, Place::root(ty)).unwrap_or_else(|| Value::Object(Map::new()))
}

fn without(value: &Value, paths: &Set<'_>, place: Place<'_>) -> Option<Value> {
    match place.form(value) {
        Form::Leaf => Some(value.clone()),
        Form::Fields(map) => {
            let mut left = Map::with_capacity(map.len());
            for (name, value) in map {
                let element = Element::field(name);
                if paths.has(&element) {
                    continue;
                }
                let kept = match (paths.below(&element), place.field(name)) {
                    (Some(below), Some(inner)) => without(value, below, inner),
                    _ => Some(value.clone()),
                };
                if let Some(kept) = kept {
                    left.insert(name.clone(), kept);
                }
            }
            (!left.is_empty()).then_some(Value::Object(left))
        }
        Form::Items(items) => {
            let mut left = Vec::with_capacity(items.len());
            for item in items {
                match place.element(item) {
                    Ok(element) if paths.has(&element) => {}
                    Ok(element) => left.extend(match paths.below(&element) {
                        Some(below) => without(item, below, place.item()),
                        None => Some(item.clone()),
                    }),
                    Err(_) => left.push(item.clone()),
                }
            }
            (!left.is_empty()).then_some(Value::Array(left))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gvk::Gvk;
    use crate::json::json;
    use crate::schema;

    fn pod() -> TypeRef<'static> {
        schema::of(&Gvk::of("", "v1", "Pod")).unwrap()
    }

    #[test]
    fn lists_merge_by_key_in_the_applied_order() {
        let order = |live: &[&str], applied: &[&str]| -> Vec<String> {
            let object = |names: &[&str]| {
                let items: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
                json!({"spec": {"containers": items}})
            };
            let merged = merge(&object(live), &object(applied), pod());
            let items = merged["spec"]["containers"].as_array().unwrap();
            items.iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(order(&["a", "b"], &["b", "a"]), ["b", "a"]);
        assert_eq!(order(&["x", "a", "y", "b", "z"], &["a", "c", "b"]), ["x", "a", "y", "c", "b", "z"]);
        assert_eq!(order(&["a"], &["b", "c"]), ["a", "b", "c"]);
        assert_eq!(order(&[], &["b"]), ["b"]);
    }

    #[test]
    fn atomic_values_are_replaced() {
        let live = json!({"metadata": {"labels": {"a": "1"}}, "spec": {"nodeSelector": {"a": "b"}, "containers": [{"name": "c", "args": ["x"], "image": "i"}]}});
        let applied = json!({"metadata": {"labels": {"b": "2"}}, "spec": {"nodeSelector": {"c": "d"}, "containers": [{"name": "c", "args": ["y"]}]}});
        assert_eq!(
            merge(&live, &applied, pod()),
            json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"nodeSelector": {"c": "d"}, "containers": [{"name": "c", "args": ["y"], "image": "i"}]}})
        );
    }

    #[test]
    fn what_is_left_empty_goes() {
        let object = json!({"metadata": {"name": "a", "labels": {"x": "1"}, "finalizers": ["a/b", "c/d"]}});
        let paths = json!({"f:metadata": {"f:labels": {"f:x": {}}, "f:finalizers": {"v:\"a/b\"": {}}}});
        assert_eq!(
            remove(&object, &Set::decode(&paths).unwrap(), pod()),
            json!({"metadata": {"name": "a", "finalizers": ["c/d"]}})
        );
    }
}
