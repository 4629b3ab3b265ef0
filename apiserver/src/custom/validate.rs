//! Measuring an object of a custom resource against its schema (kube-openapi `validation/validate`, in its words, turned
//! into causes as apiextensions `apiserver/validation` does).
//!
//! On updates, what did not change is not measured again (KEP-4008, ratcheting), so that a schema that became stricter
//! does not stand in the way of a change elsewhere in the object.

use super::formats;
use super::structural::{Additional, Items, Node, Type};
use coracle_api::status::{CauseReason, FieldPath};
use coracle_api::{Cause, validation};
use serde_json::{Map, Value};
use std::collections::HashSet;

/// No more causes than this are collected for one object.
pub const MAX_CAUSES: usize = 200;

/// The causes that a value gives; `old` is the value it had before, where it had one.
pub fn validate(node: &Node, value: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    Measure { causes }.value(node, value, old, &FieldPath::default());
}

/// Lists whose items must differ, and embedded resources (apiextensions `schema/listtype`, `schema/objectmeta`).
pub fn validate_lists(node: &Node, value: &Value, old: Option<&Value>, path: &FieldPath, causes: &mut Vec<Cause>) {
    if old == Some(value) || causes.len() > MAX_CAUSES {
        return;
    }
    match value {
        Value::Object(map) => {
            if node.embedded {
                embedded(map, path, causes);
            }
            for (name, value) in map {
                if let Some(child) = node.field(name) {
                    let path = step(node, name, path);
                    validate_lists(child, value, old.and_then(|old| old.get(name)), &path, causes);
                }
            }
        }
        Value::Array(items) => {
            duplicates(node, items, path, causes);
            if let Some(child) = &node.items {
                for (nth, item) in items.iter().enumerate() {
                    validate_lists(child, item, correlated(node, item, old), &path.index(nth), causes);
                }
            }
        }
        _ => {}
    }
}

/// The path of a field; keys of maps stand in brackets.
fn step(node: &Node, name: &str, path: &FieldPath) -> FieldPath {
    if node.properties.contains_key(name) { path.child(name) } else { path.key(name) }
}

/// The item before that is the same one as this (apiextensions `CorrelatedObject`): only lists that are maps tell.
pub fn correlated<'a>(node: &Node, item: &Value, old: Option<&'a Value>) -> Option<&'a Value> {
    let Items::Map(keys) = &node.list else { return None };
    let same = |other: &&Value| keys.iter().all(|key| other.get(key) == item.get(key));
    old?.as_array()?.iter().find(same)
}

fn embedded(map: &Map<String, Value>, path: &FieldPath, causes: &mut Vec<Cause>) {
    let text = |name: &str| map.get(name).and_then(Value::as_str).unwrap_or_default();
    for name in ["apiVersion", "kind"] {
        if text(name).is_empty() {
            causes.push(Cause::required(&path.child(name), "must not be empty"));
        }
    }
    let name = map.get("metadata").and_then(|metadata| metadata.get("name")).and_then(Value::as_str);
    if let Some(name) = name.filter(|name| !name.is_empty()) {
        let messages = validation::path_segment(name);
        let path = path.child("metadata").child("name");
        causes.extend(messages.into_iter().map(|message| Cause::invalid(&path, name, message)));
    }
}

fn duplicates(node: &Node, items: &[Value], path: &FieldPath, causes: &mut Vec<Cause>) {
    let mut seen = HashSet::new();
    for (nth, item) in items.iter().enumerate() {
        let key = match &node.list {
            Items::Atomic => return,
            Items::Set => item.clone(),
            Items::Map(keys) => {
                let defaults = node.items.as_deref();
                let part = |key: &String| {
                    let default = || defaults.and_then(|node| node.properties.get(key)?.default.clone());
                    Some((key.clone(), item.get(key).cloned().or_else(default)?))
                };
                Value::Object(keys.iter().filter_map(part).collect())
            }
        };
        // Two causes for the same value say no more than one.
        if !seen.insert(key.to_string()) {
            causes.push(Cause::duplicate(&path.index(nth), key));
        }
    }
}

struct Measure<'c> {
    causes: &'c mut Vec<Cause>,
}

impl Measure<'_> {
    fn invalid(&mut self, path: &FieldPath, value: &Value, message: &str) {
        self.causes.push(Cause::invalid(path, value.clone(), format!("{path} in body {message}")));
    }

    fn value(&mut self, node: &Node, value: &Value, old: Option<&Value>, path: &FieldPath) {
        if old == Some(value) || self.causes.len() > MAX_CAUSES || value.is_null() && node.nullable {
            return;
        }
        if !self.has_type(node, value, path) {
            return;
        }
        self.combinations(node, value, path);
        match value {
            Value::String(text) => self.text(node, text, value, path),
            Value::Number(number) => self.number(node, number.as_f64().unwrap_or(f64::NAN), value, path),
            Value::Array(items) => self.list(node, items, old, path),
            Value::Object(map) => self.object(node, map, old, path),
            _ => {}
        }
        let allowed = &node.checks.allowed;
        if !allowed.is_empty() && !allowed.iter().any(|known| same(known, value)) {
            let texts: Vec<String> =
                allowed.iter().map(|known| known.as_str().map_or_else(|| known.to_string(), str::to_owned)).collect();
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            self.causes.push(Cause::not_supported(path, value.clone(), &texts));
        }
    }

    fn has_type(&mut self, node: &Node, value: &Value, path: &FieldPath) -> bool {
        let found = type_name(value);
        let integral = matches!(value, Value::Number(number) if number.as_f64().is_some_and(|n| n.fract() == 0.0));
        let (fits, wanted) = match node.ty {
            _ if node.int_or_string => (value.is_string() || integral, "integer,string"),
            Type::Any => (true, ""),
            Type::Integer => (integral, "integer"),
            Type::Number => (value.is_number(), "number"),
            other => (other.as_str() == found, other.as_str()),
        };
        if !fits {
            let message = format!("Invalid value: {found:?}: {path} in body must be of type {wanted}: {found:?}");
            self.causes.push(Cause::new(CauseReason::TypeInvalid, path, message));
        }
        fits
    }

    fn text(&mut self, node: &Node, text: &str, value: &Value, path: &FieldPath) {
        let checks = &node.checks;
        if checks.max_length.is_some() || checks.min_length.is_some() {
            let length = text.chars().count() as u64;
            if let Some(most) = checks.max_length.filter(|most| length > *most) {
                self.causes.push(Cause::too_long(path, usize::try_from(most).unwrap_or(usize::MAX)));
            }
            if let Some(least) = checks.min_length.filter(|least| length < *least) {
                self.invalid(path, value, &format!("should be at least {least} chars long"));
            }
        }
        if let Some((pattern, regex)) = &checks.pattern
            && !regex.is_match(text)
        {
            self.invalid(path, value, &format!("should match '{pattern}'"));
        }
        if !checks.format.is_empty() && !formats::matches(&checks.format, text) {
            let format = &checks.format;
            let message = format!("Invalid value: {value}: {path} in body must be of type {format}: {value}");
            self.causes.push(Cause::new(CauseReason::TypeInvalid, path, message));
        }
    }

    fn number(&mut self, node: &Node, number: f64, value: &Value, path: &FieldPath) {
        let checks = &node.checks;
        if let Some((factor, shown)) = &checks.multiple_of
            && *factor != 0.0
            && (number / factor).fract() != 0.0
        {
            self.invalid(path, value, &format!("should be a multiple of {shown}"));
        }
        if let Some((most, shown)) = &checks.maximum {
            match checks.exclusive_maximum {
                true if number >= *most => self.invalid(path, value, &format!("should be less than {shown}")),
                false if number > *most => {
                    self.invalid(path, value, &format!("should be less than or equal to {shown}"));
                }
                _ => {}
            }
        }
        if let Some((least, shown)) = &checks.minimum {
            match checks.exclusive_minimum {
                true if number <= *least => self.invalid(path, value, &format!("should be greater than {shown}")),
                false if number < *least => {
                    self.invalid(path, value, &format!("should be greater than or equal to {shown}"));
                }
                _ => {}
            }
        }
    }

    fn list(&mut self, node: &Node, items: &[Value], old: Option<&Value>, path: &FieldPath) {
        let count = items.len() as u64;
        if let Some(least) = node.checks.min_items.filter(|least| count < *least) {
            self.invalid(path, &count.into(), &format!("should have at least {least} items"));
        }
        if let Some(most) = node.checks.max_items.filter(|most| count > *most) {
            self.causes.push(Cause::too_many(path, items.len(), usize::try_from(most).unwrap_or(usize::MAX)));
        }
        if let Some(child) = &node.items {
            for (nth, item) in items.iter().enumerate() {
                self.value(child, item, correlated(node, item, old), &path.index(nth));
            }
        }
    }

    fn object(&mut self, node: &Node, map: &Map<String, Value>, old: Option<&Value>, path: &FieldPath) {
        let count = map.len() as u64;
        if let Some(least) = node.checks.min_properties.filter(|least| count < *least) {
            self.invalid(path, &count.into(), &format!("should have at least {least} properties"));
        }
        if let Some(most) = node.checks.max_properties.filter(|most| count > *most) {
            self.causes.push(Cause::too_many(path, map.len(), usize::try_from(most).unwrap_or(usize::MAX)));
        }
        for name in node.checks.required.iter().filter(|name| !map.contains_key(*name)) {
            self.causes.push(Cause::required(&path.child(name), ""));
        }
        for (name, value) in map {
            let child = node.properties.get(name).or(match &node.additional {
                Additional::Schema(child) => Some(child),
                _ => None,
            });
            if let Some(child) = child {
                self.value(child, value, old.and_then(|old| old.get(name)), &path.child(name));
            }
        }
    }

    /// An error that has no field upstream, where the path is printed so.
    fn nowhere(&mut self, message: &str) {
        self.causes.push(Cause::new(CauseReason::Invalid, "<nil>", format!("Invalid value: \"\": {message}")));
    }

    fn combinations(&mut self, node: &Node, value: &Value, path: &FieldPath) {
        let checks = &node.checks;
        if !checks.any_of.is_empty() {
            let tries: Vec<_> = checks.any_of.iter().map(|node| alone(node, value, path)).collect();
            if tries.iter().all(|causes| !causes.is_empty()) {
                self.nowhere(&format!("\"{path}\" must validate at least one schema (anyOf)"));
                self.causes.extend(tries.into_iter().min_by_key(Vec::len).unwrap_or_default());
            }
        }
        if !checks.one_of.is_empty() {
            let tries: Vec<_> = checks.one_of.iter().map(|node| alone(node, value, path)).collect();
            match tries.iter().filter(|causes| causes.is_empty()).count() {
                1 => {}
                0 => {
                    self.nowhere(&format!(
                        "\"{path}\" must validate one and only one schema (oneOf). Found none valid"
                    ));
                    self.causes.extend(tries.into_iter().min_by_key(Vec::len).unwrap_or_default());
                }
                many => self.nowhere(&format!(
                    "\"{path}\" must validate one and only one schema (oneOf). Found {many} valid alternatives"
                )),
            }
        }
        for node in &checks.all_of {
            let causes = alone(node, value, path);
            if !causes.is_empty() {
                self.nowhere(&format!("\"{path}\" must validate all the schemas (allOf)"));
                self.causes.extend(causes);
            }
        }
        if let Some(not) = &checks.not
            && alone(not, value, path).is_empty()
        {
            self.nowhere(&format!("\"{path}\" must not validate the schema (not)"));
        }
    }
}

/// What one alternative finds wrong.
fn alone(node: &Node, value: &Value, path: &FieldPath) -> Vec<Cause> {
    let mut causes = Vec::new();
    Measure { causes: &mut causes }.value(node, value, None, path);
    causes
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Equal, where numbers are compared by value.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn causes(schema: &Value, object: &Value, old: Option<&Value>) -> Vec<String> {
        let node = Node::parse(schema);
        let mut causes = Vec::new();
        validate(&node, object, old, &mut causes);
        validate_lists(&node, object, old, &FieldPath::default(), &mut causes);
        causes.iter().map(Cause::to_string).collect()
    }

    #[test]
    fn each_check_in_upstreams_words() {
        let rows = [
            (
                json!({"type": "integer"}),
                json!("x"),
                r#"spec: Invalid value: "string": spec in body must be of type integer: "string""#,
            ),
            (
                json!({"type": "string"}),
                json!(null),
                r#"spec: Invalid value: "null": spec in body must be of type string: "null""#,
            ),
            (
                json!({"type": "integer"}),
                json!(1.5),
                r#"spec: Invalid value: "number": spec in body must be of type integer: "number""#,
            ),
            (
                json!({"x-kubernetes-int-or-string": true}),
                json!(true),
                r#"spec: Invalid value: "boolean": spec in body must be of type integer,string: "boolean""#,
            ),
            (
                json!({"type": "integer", "maximum": 3}),
                json!(4),
                "spec: Invalid value: 4: spec in body should be less than or equal to 3",
            ),
            (
                json!({"type": "integer", "minimum": 3, "exclusiveMinimum": true}),
                json!(3),
                "spec: Invalid value: 3: spec in body should be greater than 3",
            ),
            (
                json!({"type": "integer", "multipleOf": 2}),
                json!(3),
                "spec: Invalid value: 3: spec in body should be a multiple of 2",
            ),
            (
                json!({"type": "string", "pattern": "^a+$"}),
                json!("b"),
                r#"spec: Invalid value: "b": spec in body should match '^a+$'"#,
            ),
            (json!({"type": "string", "maxLength": 2}), json!("abc"), "spec: Too long: may not be more than 2 bytes"),
            (
                json!({"type": "string", "minLength": 2}),
                json!("a"),
                r#"spec: Invalid value: "a": spec in body should be at least 2 chars long"#,
            ),
            (
                json!({"type": "string", "format": "date"}),
                json!("x"),
                r#"spec: Invalid value: "x": spec in body must be of type date: "x""#,
            ),
            (
                json!({"type": "string", "enum": ["a", "b"]}),
                json!("c"),
                r#"spec: Unsupported value: "c": supported values: "a", "b""#,
            ),
            (
                json!({"type": "array", "items": {"type": "string"}, "maxItems": 1}),
                json!(["a", "b"]),
                "spec: Too many: 2: must have at most 1 item",
            ),
            (
                json!({"type": "array", "items": {"type": "string"}, "minItems": 1}),
                json!([]),
                "spec: Invalid value: 0: spec in body should have at least 1 items",
            ),
            (
                json!({"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"}),
                json!(["a", "a"]),
                r#"spec[1]: Duplicate value: "a""#,
            ),
            (
                json!({"type": "array", "items": {"type": "object", "properties": {"n": {"type": "string"}}}, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"]}),
                json!([{"n": "a"}, {"n": "a"}]),
                r#"spec[1]: Duplicate value: {"n":"a"}"#,
            ),
            (json!({"type": "object", "required": ["a"]}), json!({}), "spec.a: Required value"),
            (
                json!({"type": "object", "minProperties": 1}),
                json!({}),
                "spec: Invalid value: 0: spec in body should have at least 1 properties",
            ),
            (
                json!({"type": "object", "additionalProperties": {"type": "integer"}}),
                json!({"k": "x"}),
                r#"spec.k: Invalid value: "string": spec.k in body must be of type integer: "string""#,
            ),
            (
                json!({"type": "integer", "not": {"enum": [1]}}),
                json!(1),
                r#"<nil>: Invalid value: "": "spec" must not validate the schema (not)"#,
            ),
            (
                json!({"type": "object", "x-kubernetes-embedded-resource": true}),
                json!({"apiVersion": "v1"}),
                "spec.kind: Required value: must not be empty",
            ),
        ];
        for (schema, value, expected) in rows {
            let found =
                causes(&json!({"type": "object", "properties": {"spec": schema}}), &json!({"spec": value}), None);
            assert_eq!(found, [expected], "{schema} {value}");
        }
    }

    #[test]
    fn alternatives() {
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "oneOf": [{"required": ["a"]}, {"required": ["b"]}]}}});
        assert!(causes(&schema, &json!({"spec": {"a": 1}}), None).is_empty());
        assert_eq!(
            causes(&schema, &json!({"spec": {"a": 1, "b": 1}}), None),
            [
                r#"<nil>: Invalid value: "": "spec" must validate one and only one schema (oneOf). Found 2 valid alternatives"#
            ]
        );
        assert_eq!(causes(&schema, &json!({"spec": {}}), None).len(), 2);
    }

    #[test]
    fn what_did_not_change_is_not_measured_again() {
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "a": {"type": "string", "maxLength": 2}, "b": {"type": "integer"},
            "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"],
                "items": {"type": "object", "properties": {"n": {"type": "string"}, "v": {"type": "integer", "maximum": 5}}}}}}}});
        let old = json!({"spec": {"a": "long", "b": 1, "list": [{"n": "x", "v": 9}]}});
        let new = json!({"spec": {"a": "long", "b": 2, "list": [{"n": "y", "v": 1}, {"n": "x", "v": 9}]}});
        assert!(causes(&schema, &new, Some(&old)).is_empty());
        let worse = json!({"spec": {"a": "longer", "b": 2, "list": [{"n": "x", "v": 8}]}});
        assert_eq!(causes(&schema, &worse, Some(&old)).len(), 2);
    }
}
