//! Filling in what a schema gives a default for (apiextensions `schema/defaulting`).

use super::structural::Node;
use coracle_api::json::Value;

/// Puts defaults where there is nothing or null is no value, and drops such nulls where there is no default.
pub fn apply(node: &Node, value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|name, value| match node.field(name).filter(|node| node.refuses_null(value)) {
                None => true,
                Some(node) => node.default.as_ref().is_some_and(|default| {
                    default.clone_into(value);
                    true
                }),
            });
            for (name, property) in &node.properties {
                if let Some(default) = &property.default
                    && !map.contains_key(name)
                {
                    map.insert(name.clone(), default.clone());
                }
            }
            for (name, value) in map.iter_mut() {
                if let Some(node) = node.field(name) {
                    apply(node, value);
                }
            }
        }
        Value::Array(items) => {
            if let Some(node) = &node.items {
                for item in items {
                    if node.refuses_null(item)
                        && let Some(default) = &node.default
                    {
                        *item = default.clone();
                    }
                    apply(node, item);
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::json::json;

    #[test]
    fn defaults_fill_in() {
        let node = Node::parse(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "default": {}, "properties": {
                "size": {"type": "integer", "default": 3},
                "maybe": {"type": "string", "nullable": true, "default": "x"},
                "plain": {"type": "string"},
                "list": {"type": "array", "items": {"type": "object", "properties": {"port": {"type": "integer", "default": 80}}}},
                "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"on": {"type": "boolean", "default": true}}}},
                "named": {"type": "object", "additionalProperties": {"type": "string", "default": "d"}},
            }},
        }}));
        let rows = [
            (json!({}), json!({"spec": {"maybe": "x", "size": 3}})),
            (
                json!({"spec": {"size": null, "maybe": null, "plain": null}}),
                json!({"spec": {"maybe": null, "size": 3}}),
            ),
            (
                json!({"spec": {"size": 1, "maybe": "x", "named": {"a": null, "b": "c"}, "map": {"a": null}}}),
                json!({"spec": {"size": 1, "maybe": "x", "named": {"a": "d", "b": "c"}, "map": {}}}),
            ),
            (
                json!({"spec": {"size": 1, "maybe": "y", "list": [{}, {"port": 1}], "map": {"a": {}}}}),
                json!({"spec": {"size": 1, "maybe": "y", "list": [{"port": 80}, {"port": 1}], "map": {"a": {"on": true}}}}),
            ),
        ];
        for (mut object, expected) in rows {
            apply(&node, &mut object);
            assert_eq!(object, expected);
        }
    }
}
