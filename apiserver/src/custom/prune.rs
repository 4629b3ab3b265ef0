//! Dropping what a schema does not name (apiextensions `schema/pruning`).

use super::structural::{Additional, Node};
use coracle_api::json::{Map, Value};
use coracle_api::schema;

/// Paths of what was dropped are told up to this many.
const MAX_TOLD: usize = 100;

/// Drops unknown fields from an object of a custom resource and gives their paths.
pub fn prune(node: &Node, object: &mut Value) -> Vec<String> {
    let mut dropped = Dropped::default();
    dropped.value(node, object, true, false);
    dropped.paths
}

/// The same for a default, which is a resource only where its schema says so.
pub fn prune_default(node: &Node, value: &mut Value) -> Vec<String> {
    let mut dropped = Dropped::default();
    dropped.value(node, value, false, false);
    dropped.paths
}

#[derive(Default)]
struct Dropped {
    paths: Vec<String>,
    trail: Vec<String>,
}

impl Dropped {
    fn tell(&mut self, name: &str) {
        if self.paths.len() < MAX_TOLD {
            let mut path = String::new();
            for step in self.trail.iter().map(String::as_str).chain([name]) {
                if !path.is_empty() && !step.starts_with('[') {
                    path.push('.');
                }
                path.push_str(step);
            }
            self.paths.push(path);
        }
    }

    /// `kept`: the value is in a list that keeps what is unknown in its items.
    fn value(&mut self, node: &Node, value: &mut Value, resource: bool, kept: bool) {
        let keeps = kept || node.preserves;
        match value {
            Value::Object(map) => self.object(node, map, resource || node.embedded, keeps),
            Value::Array(items) => {
                let nothing = Node::default();
                let inner = match &node.items {
                    Some(inner) => inner,
                    None if keeps => return,
                    // Items of which nothing is said: objects among them are emptied.
                    None => &nothing,
                };
                for (nth, item) in items.iter_mut().enumerate() {
                    self.trail.push(format!("[{nth}]"));
                    self.value(inner, item, false, keeps);
                    self.trail.pop();
                }
            }
            _ => {}
        }
    }

    fn object(&mut self, node: &Node, map: &mut Map, resource: bool, keeps: bool) {
        let nothing = Node::default();
        let names: Vec<_> = map.keys().cloned().collect();
        for name in names {
            if resource && matches!(name.as_str(), "apiVersion" | "kind") {
                continue;
            }
            if resource && name == "metadata" {
                // The object's own metadata was read by its type; that of an embedded one is measured here.
                if node.embedded && !self.trail.is_empty() {
                    self.metadata(map);
                }
                continue;
            }
            // Any value may be in a map of which no more is said, but objects among them have no fields.
            let inner = node.field(&name).or(matches!(node.additional, Additional::Any).then_some(&nothing));
            match (inner, map.get_mut(&name)) {
                (Some(node), Some(value)) => {
                    self.trail.push(name.into());
                    self.value(node, value, false, false);
                    self.trail.pop();
                }
                (None, Some(_)) if !keeps => {
                    map.remove(&name);
                    self.tell(&name);
                }
                _ => {}
            }
        }
    }

    fn metadata(&mut self, map: &mut Map) {
        let Some(ty) = schema::named("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta") else { return };
        let Some(metadata) = map.get_mut("metadata").and_then(Value::as_object_mut) else { return };
        let unknown: Vec<_> = metadata.keys().filter(|name| ty.field(name).is_none()).cloned().collect();
        self.trail.push("metadata".to_owned());
        for name in unknown {
            metadata.remove(&name);
            self.tell(&name);
        }
        self.trail.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::json::json;

    #[test]
    fn unknown_fields_go() {
        let node = Node::parse(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {
                "known": {"type": "string"},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"in": {"type": "object"}}},
                "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"a": {"type": "integer"}}}},
                "list": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "integer"}}}},
                "kept": {"type": "array", "x-kubernetes-preserve-unknown-fields": true, "items": {"type": "object",
                    "properties": {"in": {"type": "object"}}}},
                "any": {"type": "object", "additionalProperties": true},
                "pod": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true},
            }},
        }}));
        let mut object = json!({"apiVersion": "e/v1", "kind": "W", "metadata": {"name": "a"}, "extra": 1, "spec": {
            "known": "x", "unknown": 1, "free": {"any": {"thing": 1}, "in": {"x": 1}}, "map": {"k": {"a": 1, "b": 2}},
            "list": [{"a": 1, "b": 2}], "kept": [{"x": {"y": 1}, "in": {"z": 1}}], "any": {"n": 1, "o": {"x": 1}, "l": [{"x": 1}]},
            "pod": {"kind": "Pod", "metadata": {"name": "p", "odd": 1}, "spec": {"x": 1}}}});
        let dropped = prune(&node, &mut object);
        assert_eq!(
            dropped,
            [
                "extra",
                "spec.unknown",
                "spec.free.in.x",
                "spec.map.k.b",
                "spec.list[0].b",
                "spec.kept[0].in.z",
                "spec.any.o.x",
                "spec.any.l[0].x",
                "spec.pod.metadata.odd"
            ]
        );
        assert_eq!(
            object,
            json!({"apiVersion": "e/v1", "kind": "W", "metadata": {"name": "a"}, "spec": {
                "known": "x", "free": {"any": {"thing": 1}, "in": {}}, "map": {"k": {"a": 1}},
                "list": [{"a": 1}], "kept": [{"x": {"y": 1}, "in": {}}], "any": {"n": 1, "o": {}, "l": [{}]},
                "pod": {"kind": "Pod", "metadata": {"name": "p"}, "spec": {"x": 1}}}})
        );
    }
}
