//! Definitions of custom resources (apiextensions `controller/openapi/builder`, `controller/openapi/v2`).

use super::definitions::{Definitions, Style};
use coracle_api::json::{Map, Value, json};
use coracle_api::schema;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// Adds the definition of a custom resource and of its list, with the metadata that all objects have.
pub(super) fn add(definitions: &mut Definitions<'_>, style: Style, name: &str, openapi: &Value) {
    let meta = |name: &str| schema::named(&format!("{META}.{name}"));
    let (Some(object_meta), Some(list_meta)) = (meta("ObjectMeta"), meta("ListMeta")) else { return };
    definitions.add(object_meta);
    definitions.add(list_meta);
    let every = Every::of(definitions, style);
    let mut definition = if openapi.is_object() { openapi.clone() } else { json!({"type": "object"}) };
    if style == Style::V2 {
        keep_what_v2_has(&mut definition);
    }
    add_to_embedded(&mut definition, &every, style);
    every.put(&mut definition);
    definitions.insert(name, definition);
    let mut list = json!({"type": "object", "required": ["items"], "description": format!("A list of {name}."),
        "properties": {"items": {"type": "array", "items": style.reference(name)}}});
    every.put(&mut list);
    list["properties"]["metadata"] = style.reference(list_meta.full_name());
    definitions.insert(&format!("{name}List"), list);
}

/// What every object has, described as it is for those of built-in kinds.
struct Every {
    api_version: Value,
    kind: Value,
    metadata: Value,
}

impl Every {
    fn of(definitions: &Definitions<'_>, style: Style) -> Self {
        let text = |field: &str| {
            let mut text = json!({"type": "string"});
            if let Some(described) = definitions.described(&format!("{META}.DeleteOptions"), field) {
                text["description"] = described.into();
            }
            text
        };
        let reference = style.reference(&format!("{META}.ObjectMeta"));
        let mut metadata = if style == Style::V3 { json!({"allOf": [reference]}) } else { reference };
        let described = definitions.described("io.k8s.api.core.v1.ConfigMap", "metadata");
        metadata["description"] = described.unwrap_or("Standard object's metadata.").into();
        Self { api_version: text("apiVersion"), kind: text("kind"), metadata }
    }

    fn put(&self, schema: &mut Value) {
        if !schema["properties"].is_object() {
            schema["properties"] = json!({});
        }
        let properties = &mut schema["properties"];
        properties["apiVersion"] = self.api_version.clone();
        properties["kind"] = self.kind.clone();
        properties["metadata"] = self.metadata.clone();
    }
}

/// Resources inside of others have these fields, too, and must say what they are.
fn add_to_embedded(schema: &mut Value, every: &Every, style: Style) {
    let Some(map) = schema.as_object_mut() else { return };
    for (name, value) in map.iter_mut() {
        inside(name, value, &mut |schema| add_to_embedded(schema, every, style));
    }
    let is = |name: &str| map.get(name) == Some(&Value::Bool(true));
    // What keeps unknown fields names none in v2: kubectl would refuse the others.
    let is_free = style == Style::V2 && is("x-kubernetes-preserve-unknown-fields");
    if !is("x-kubernetes-embedded-resource") || is_free {
        return;
    }
    let required = map.entry("required").or_insert_with(|| json!([]));
    if let Value::Array(required) = required {
        for name in ["kind", "apiVersion"] {
            if !required.iter().any(|known| known == name) {
                required.push(name.into());
            }
        }
    }
    every.put(schema);
}

/// Runs on the schemas that stand in a field of a schema.
fn inside(name: &str, value: &mut Value, run: &mut dyn FnMut(&mut Value)) {
    match name {
        "properties" => value.as_object_mut().into_iter().flat_map(Map::values_mut).for_each(run),
        "items" | "additionalProperties" => run(value),
        _ => {}
    }
}

/// OpenAPI v2 knows fewer words than v3, and kubectl reads it strictly: of what may be null or anything else, nothing is said.
fn keep_what_v2_has(schema: &mut Value) {
    let Some(map) = schema.as_object_mut() else { return };
    for unknown in ["allOf", "oneOf", "anyOf", "not", "x-kubernetes-validations"] {
        map.remove(unknown);
    }
    let is_nullable = |schema: Option<&Value>| schema.and_then(|schema| schema.get("nullable")) == Some(&true.into());
    let nullable = map.remove("nullable") == Some(true.into());
    if nullable {
        map.remove("type");
    }
    if nullable || map.get("x-kubernetes-preserve-unknown-fields") == Some(&true.into()) {
        map.remove("items");
        map.remove("properties");
    }
    if !map.contains_key("items") && map.get("type") == Some(&"array".into()) {
        map.remove("type");
    }
    if let Some(Value::Array(mut required)) = map.remove("required") {
        let field = |name: &Value| map.get("properties")?.get(name.as_str()?);
        required.retain(|name| !is_nullable(field(name)));
        if !required.is_empty() && !is_nullable(map.get("additionalProperties")) {
            map.insert("required", required.into());
        }
    }
    for (name, value) in map.iter_mut() {
        inside(name, value, &mut keep_what_v2_has);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v2_says_nothing_of_what_may_be_null_or_anything() {
        let mut schema = json!({"type": "object", "required": ["a", "b"], "allOf": [{"required": ["c"]}], "properties": {
            "a": {"type": "object", "nullable": true, "properties": {"x": {"type": "string"}}},
            "b": {"type": "array", "x-kubernetes-preserve-unknown-fields": true, "items": {"type": "string"}},
            "c": {"type": "object", "required": ["d"], "additionalProperties": {"type": "string", "nullable": true}},
            "e": {"type": "object", "additionalProperties": {"type": "string", "anyOf": [{"minLength": 1}]}}}});
        keep_what_v2_has(&mut schema);
        assert_eq!(
            schema,
            json!({"type": "object", "required": ["b"], "properties": {"a": {}, "b": {"x-kubernetes-preserve-unknown-fields": true},
                "c": {"type": "object", "additionalProperties": {}}, "e": {"type": "object", "additionalProperties": {"type": "string"}}}})
        );
    }

    #[test]
    fn embedded_resources_say_what_they_are() {
        let every = Every { api_version: json!({"type": "string"}), kind: json!({}), metadata: json!({"$ref": "m"}) };
        let pod = |free: bool| {
            let mut pod = json!({"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"spec": {}}});
            if free {
                pod["x-kubernetes-preserve-unknown-fields"] = true.into();
            }
            pod
        };
        let mut schema = json!({"properties": {"pods": {"type": "array", "items": pod(true)}}});
        add_to_embedded(&mut schema, &every, Style::V2);
        assert_eq!(schema["properties"]["pods"]["items"], pod(true));
        add_to_embedded(&mut schema, &every, Style::V3);
        let found = &schema["properties"]["pods"]["items"];
        assert_eq!(found["required"], json!(["kind", "apiVersion"]));
        assert_eq!(
            found["properties"],
            json!({"spec": {}, "apiVersion": {"type": "string"}, "kind": {}, "metadata": {"$ref": "m"}})
        );
    }
}
