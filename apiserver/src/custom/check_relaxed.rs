//! What a change of a definition is not held up by: rules that came after definitions broke them (apiextensions
//! `ValidateCustomResourceDefinitionUpdate`).

use super::check_schema::{TYPES, items_are_there, set_items};
use super::check_structural::{self, children};
use super::prune;
use super::structural::Node;
use crate::registry::fields::{items, text};
use coracle_api::json::Value;
use coracle_api::status::FieldPath;

/// Which rules the definition before the change breaks, in any of its versions: none of them is asked for in the change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Broken {
    /// Every version has a schema.
    pub schemas: bool,
    /// Types are those of OpenAPI.
    pub types: bool,
    /// Defaults have no unknown fields.
    pub defaults: bool,
    /// Items of sets are atomic.
    pub sets: bool,
    /// Items of sets and maps, and the keys of these, are always there.
    pub items: bool,
}

impl Broken {
    /// By the specification of the definition before; nothing where there is none. Its schemas are looked into where they are
    /// `changed` alone.
    pub fn of(old: Option<&Value>, changed: bool) -> Self {
        let mut broken = Self::default();
        for version in old.into_iter().flat_map(|old| items(old, "versions")) {
            match version.pointer("/schema/openAPIV3Schema").filter(|schema| schema.is_object()) {
                Some(schema) if changed => broken.look_at(schema),
                Some(_) => {}
                None => broken.schemas = true,
            }
        }
        broken
    }

    fn look_at(&mut self, schema: &Value) {
        let path = FieldPath::default();
        // Of what is not structural it cannot be said which fields it knows.
        if check_structural::unreadable(schema).is_none() && check_structural::check(schema, &path).is_empty() {
            self.defaults |= has_unknown_in_defaults(schema);
        }
        let mut next = vec![schema];
        while let Some(schema) = next.pop() {
            let kind = text(schema, "type");
            self.types |= !kind.is_empty() && !TYPES.contains(&kind);
            let list = text(schema, "x-kubernetes-list-type");
            let breaks = |check: &dyn Fn(&mut Vec<coracle_api::Cause>)| {
                let mut causes = Vec::new();
                check(&mut causes);
                !causes.is_empty()
            };
            self.sets |= list == "set" && breaks(&|causes| set_items(schema, &path, causes));
            self.items |=
                matches!(list, "set" | "map") && breaks(&|causes| items_are_there(schema, list, &path, causes));
            next.extend(children(schema));
        }
    }
}

fn has_unknown_in_defaults(schema: &Value) -> bool {
    let own = schema
        .get("default")
        .filter(|default| !default.is_null())
        .is_some_and(|default| !prune::prune_default(&Node::parse(schema), &mut default.clone()).is_empty());
    own || children(schema).any(has_unknown_in_defaults)
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::json::json;

    #[test]
    fn what_is_broken() {
        let of = |field: Value| {
            let schema =
                json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"f": field}}}});
            Broken::of(Some(&json!({"versions": [{"schema": {"openAPIV3Schema": schema}}]})), true)
        };
        let item = json!({"type": "object", "properties": {"k": {"type": "string"}}, "required": ["k"]});
        let list = |kind: &str, item: &Value| json!({"type": "array", "x-kubernetes-list-type": kind, "x-kubernetes-list-map-keys": ["k"], "items": item});
        let none = Broken::default();
        assert_eq!(Broken::of(None, true), none);
        assert_eq!(of(list("map", &item)), none);
        assert_eq!(of(list("set", &item)), Broken { sets: true, ..none });
        assert_eq!(of(json!({"type": "int"})), Broken { types: true, ..none });
        assert_eq!(of(json!({"type": "object", "default": {"a": 1}})), Broken { defaults: true, ..none });
        assert_eq!(
            of(list("map", &json!({"type": "object", "properties": {"k": {"type": "string"}}}))),
            Broken { items: true, ..none }
        );
        assert_eq!(Broken::of(Some(&json!({"versions": [{"name": "v1"}]})), false), Broken { schemas: true, ..none });
    }
}
