//! The paths that an object sets: what its applier owns.

use crate::json::Value;

use super::place::{Form, Place};
use super::set::{Element, Set};
use crate::schema::TypeRef;

/// The paths of an object. Fields of structures are members only where they end; entries of maps and items of lists always
/// are (structured-merge-diff `ToFieldSet`). What the schema does not name, and items that cannot be told apart, are left
/// out.
pub fn paths<'v>(object: &'v Value, ty: TypeRef<'_>) -> Set<'v> {
    below(object, Place::root(ty))
}

/// What stands at a place sets so much.
pub(super) fn below<'v>(value: &'v Value, place: Place<'_>) -> Set<'v> {
    let mut set = Set::default();
    match place.form(value) {
        Form::Leaf => {}
        Form::Fields(map) => {
            for (name, value) in map {
                let Some(inner) = place.field(name) else { continue };
                let ends =
                    matches!(inner.form(value), Form::Leaf) || matches!(value, Value::Object(map) if map.is_empty());
                set.push(Element::field(name), ends || !place.is_named(name), below(value, inner));
            }
        }
        Form::Items(items) => {
            let items = elements(items, place);
            for same in items.chunk_by(|(a, _), (b, _)| a == b) {
                // What stands there more than once is one value.
                let inner = if let [(_, item)] = same { below(item, place.item()) } else { Set::default() };
                set.push(same[0].0.clone(), true, inner);
            }
        }
    }
    set.sort();
    set
}

/// The items of a list by what tells them apart, sorted; those that nothing does are left out.
pub(super) fn elements<'v>(items: &'v [Value], place: Place<'_>) -> Vec<(Element<'v>, &'v Value)> {
    let mut all: Vec<_> = items.iter().filter_map(|item| Some((place.element(item).ok()?, item))).collect();
    all.sort_by(|(a, _), (b, _)| a.cmp(b));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gvk::Gvk;
    use crate::json::json;
    use crate::schema;

    #[test]
    fn what_a_deployment_sets() {
        let object = json!({"metadata": {"name": "web", "labels": {"app": "web"}, "finalizers": ["a.b/c"]},
            "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": {"spec": {
                "containers": [{"name": "c", "command": ["sh"], "ports": [{"containerPort": 80}], "resources": {}}], "nodeSelector": {"a": "b"}}}}});
        let set = paths(&object, schema::of(&Gvk::of("apps", "v1", "Deployment")).unwrap());
        assert_eq!(
            set.encode(),
            json!({"f:metadata": {"f:finalizers": {"v:\"a.b/c\"": {}}, "f:labels": {"f:app": {}}, "f:name": {}},
                "f:spec": {"f:selector": {}, "f:template": {"f:spec": {
                    "f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:command": {}, "f:name": {}, "f:ports": {
                        "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}, "f:resources": {}}},
                    "f:nodeSelector": {}}}}})
        );
    }
}
