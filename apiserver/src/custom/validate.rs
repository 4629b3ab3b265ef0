//! Measuring an object of a custom resource against its schema (kube-openapi `validation/validate`, in its words, turned
//! into causes as apiextensions `apiserver/validation` does).
//!
//! On updates, what did not change is not measured again (KEP-4008, ratcheting), so that a schema that became stricter
//! does not stand in the way of a change elsewhere in the object.

use super::formats;
use super::structural::{Additional, Items, Node, Type};
use coracle_api::json::{Map, Value};
use coracle_api::status::{CauseReason, FieldPath};
use coracle_api::{Cause, validation};
use std::collections::HashSet;

/// The largest whole number up to which JSON's numbers are exact.
const EXACT_MAX: f64 = 9_007_199_254_740_991.0;

/// No more causes than this are collected for one object.
pub const MAX_CAUSES: usize = 200;

/// The causes that a value gives; `old` is the value it had before, where it had one.
pub fn validate(node: &Node, value: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    Measure { causes }.value(node, value, old, &FieldPath::default());
}

/// Lists whose items must differ (apiextensions `schema/listtype`). Where they did not before, anywhere in the object, they need
/// not now (`registry/customresource/strategy.go`).
pub fn validate_lists(node: &Node, value: &Value, old: Option<&Value>, path: &FieldPath, causes: &mut Vec<Cause>) {
    if !node.listed {
        return;
    }
    let mut found = Vec::new();
    // What did not change is no worse than it was.
    walk(node, value, old, path, &mut found, &|node, value, path, causes| {
        if let Value::Array(items) = value {
            duplicates(node, items, path, causes);
        }
    });
    let mut before = Vec::new();
    if let Some(old) = old.filter(|_| !found.is_empty()) {
        validate_lists(node, old, None, path, &mut before);
    }
    if before.is_empty() {
        causes.append(&mut found);
    }
}

/// Embedded resources (apiextensions `schema/objectmeta`).
pub fn validate_embedded(node: &Node, value: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    if node.embeds {
        walk(node, value, None, path, causes, &|node, value, path, causes| match value {
            Value::Object(map) if node.embedded => embedded(map, path, causes),
            _ => {}
        });
    }
}

type Look<'l> = &'l dyn Fn(&Node, &Value, &FieldPath, &mut Vec<Cause>);

fn walk(node: &Node, value: &Value, old: Option<&Value>, path: &FieldPath, causes: &mut Vec<Cause>, look: Look<'_>) {
    if old == Some(value) || causes.len() > MAX_CAUSES {
        return;
    }
    look(node, value, path, causes);
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                if let Some(child) = node.field(name) {
                    walk(child, value, old.and_then(|old| old.get(name)), &step(node, name, path), causes, look);
                }
            }
        }
        Value::Array(items) => {
            if let Some(child) = &node.items {
                for (nth, item) in items.iter().enumerate() {
                    walk(child, item, correlated(node, item, old), &path.index(nth), causes, look);
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

fn embedded(map: &Map, path: &FieldPath, causes: &mut Vec<Cause>) {
    for name in ["apiVersion", "kind"] {
        let path = path.child(name);
        match map.get(name) {
            None => causes.push(Cause::required(&path, "")),
            Some(Value::String(text)) if text.is_empty() => causes.push(Cause::invalid(&path, "", "must not be empty")),
            Some(Value::String(text)) if name == "kind" => {
                let messages = validation::dns1035_label(&text.to_ascii_lowercase());
                if !messages.is_empty() {
                    let why = format!("may have mixed case, but should otherwise match: {}", messages.join(","));
                    causes.push(Cause::invalid(&path, text.as_str(), why));
                }
            }
            Some(Value::String(text)) if text.matches('/').count() > 1 => {
                causes.push(Cause::invalid(&path, text.as_str(), format!("unexpected GroupVersion string: {text}")));
            }
            Some(Value::String(_)) => {}
            Some(other) => causes.push(Cause::invalid(&path, other.clone(), "must be a string")),
        }
    }
    if let Some(metadata) = map.get("metadata") {
        embedded_metadata(metadata, &path.child("metadata"), causes);
    }
}

fn embedded_metadata(metadata: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let text = |name: &str| metadata.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    if let Some(name) = text("name") {
        let path = path.child("name");
        let messages = validation::path_segment(name);
        causes.extend(messages.into_iter().map(|message| Cause::invalid(&path, name, message)));
    }
    if let Some(namespace) = text("namespace") {
        let messages = validation::dns1123_label(namespace);
        let path = path.child("namespace");
        causes.extend(messages.into_iter().map(|message| Cause::invalid(&path, namespace, message)));
    }
    let path = path.child("labels");
    for (key, value) in metadata.get("labels").and_then(Value::as_object).into_iter().flatten() {
        let messages = validation::qualified_name(key);
        causes.extend(messages.into_iter().map(|message| Cause::invalid(&path, key.as_str(), message)));
        let value = value.as_str().unwrap_or_default();
        let messages = validation::label_value(value);
        causes.extend(messages.into_iter().map(|message| Cause::invalid(&path, value, message)));
    }
}

fn duplicates(node: &Node, items: &[Value], path: &FieldPath, causes: &mut Vec<Cause>) {
    let mut seen = HashSet::new();
    for (nth, item) in items.iter().enumerate() {
        let key = match &node.list {
            Items::Atomic => return,
            Items::Set => item.clone(),
            Items::Map(_) if !item.is_object() => {
                let why = "must be an object for an array of list-type map";
                causes.push(Cause::invalid(&path.index(nth), item.clone(), why));
                continue;
            }
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
        let fits = self.has_type(node, value, path);
        if !fits && !value.is_number() {
            self.listed(node, value, path);
            return;
        }
        if fits {
            self.combinations(node, value, path);
        }
        match value {
            Value::String(text) => self.text(node, text, value, path),
            Value::Number(number) => self.number(node, number.as_f64().unwrap_or(f64::NAN), value, path),
            Value::Array(items) => self.list(node, items, old, path),
            Value::Object(map) => self.object(node, map, old, path),
            _ => {}
        }
        self.listed(node, value, path);
    }

    /// One of the values that there are.
    fn listed(&mut self, node: &Node, value: &Value, path: &FieldPath) {
        let allowed = &node.checks.allowed;
        if !allowed.is_empty() && !allowed.iter().any(|known| same(known, value)) {
            let texts: Vec<String> =
                allowed.iter().map(|known| known.as_str().map_or_else(|| known.to_string(), str::to_owned)).collect();
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            self.causes.push(Cause::not_supported(path, value.clone(), &texts));
        }
    }

    fn has_type(&mut self, node: &Node, value: &Value, path: &FieldPath) -> bool {
        let integral = value.is_i64() || value.as_f64().is_some_and(|n| n.fract() == 0.0 && n.abs() <= EXACT_MAX);
        let found = if value.is_u64() && !value.is_i64() { "number" } else { type_name(value) };
        let (fits, wanted) = match node.ty {
            _ if node.int_or_string => (value.is_string() || integral, "integer,string"),
            Type::Any => (true, ""),
            Type::Integer => (integral, "integer"),
            Type::Number => (value.is_number(), "number"),
            other => (other.as_str() == found, other.as_str()),
        };
        if !fits {
            let format = node.checks.format.as_str();
            // With a format a number is named by what Go holds it as.
            let (found, wanted) = match found {
                "number" if !format.is_empty() => ("float64", format),
                "integer" if !format.is_empty() => ("int64", format),
                found => (found, wanted),
            };
            let message = format!("Invalid value: {found:?}: {path} in body must be of type {wanted}: {found:?}");
            self.causes.push(Cause::new(CauseReason::TypeInvalid, path, message));
        }
        fits
    }

    fn text(&mut self, node: &Node, text: &str, value: &Value, path: &FieldPath) {
        let checks = &node.checks;
        if checks.max_length.is_some() || checks.min_length.is_some() {
            let length = text.chars().count() as u64;
            // Of what is wrong with a text the first is told.
            if let Some(most) = checks.max_length.filter(|most| length > *most) {
                self.causes.push(Cause::too_long(path, usize::try_from(most).unwrap_or(usize::MAX)));
                return;
            }
            if let Some(least) = checks.min_length.filter(|least| length < *least) {
                self.invalid(path, value, &format!("should be at least {least} chars long"));
                return;
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
        if node.ty == Type::Integer && !node.int_or_string && !in_range(&checks.format, number, value) {
            let format = match checks.format.as_str() {
                "" => "(default format)".to_owned(),
                format => format!("with format {format}"),
            };
            self.nowhere(&format!("Checked value must be of type integer {format} in {path}"));
        }
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

    fn object(&mut self, node: &Node, map: &Map, old: Option<&Value>, path: &FieldPath) {
        let count = map.len() as u64;
        if let Some(least) = node.checks.min_properties.filter(|least| count < *least) {
            self.invalid(path, &count.into(), &format!("should have at least {least} properties"));
        }
        if let Some(most) = node.checks.max_properties.filter(|most| count > *most) {
            self.causes.push(Cause::too_many(path, map.len(), usize::try_from(most).unwrap_or(usize::MAX)));
        }
        for name in node.checks.required.iter().filter(|name| !map.contains_key(name)) {
            self.causes.push(Cause::required(&path.child(name), ""));
        }
        for (name, value) in map {
            let child = node.properties.get(name.as_str()).or(match &node.additional {
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
        let wrong: Vec<_> = checks.all_of.iter().map(|node| alone(node, value, path)).collect();
        if wrong.iter().any(|causes| !causes.is_empty()) {
            let none = if wrong.iter().any(Vec::is_empty) { "" } else { ". None validated" };
            self.causes.extend(wrong.into_iter().flatten());
            self.nowhere(&format!("\"{path}\" must validate all the schemas (allOf){none}"));
        }
        if let Some(not) = &checks.not
            && alone(not, value, path).is_empty()
        {
            self.nowhere(&format!("\"{path}\" must not validate the schema (not)"));
        }
    }
}

/// Whether an integer is one that its format can hold.
fn in_range(format: &str, number: f64, value: &Value) -> bool {
    let whole = value.is_i64() || number.fract() == 0.0 && number.abs() < 9.2e18;
    whole && (format != "int32" || (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&number))
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
    use coracle_api::json::json;

    fn causes(schema: &Value, object: &Value, old: Option<&Value>) -> Vec<String> {
        let node = Node::parse(schema);
        let mut causes = Vec::new();
        validate(&node, object, old, &mut causes);
        validate_embedded(&node, object, &FieldPath::default(), &mut causes);
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
                "spec.kind: Required value",
            ),
        ];
        for (schema, value, expected) in rows {
            let found =
                causes(&json!({"type": "object", "properties": {"spec": schema}}), &json!({"spec": value}), None);
            assert_eq!(found, [expected], "{schema} {value}");
        }
    }

    #[test]
    fn several_causes_of_one_value() {
        let rows = [
            (
                json!({"type": "integer"}),
                json!(1.5),
                &[
                    r#"spec: Invalid value: "number": spec in body must be of type integer: "number""#,
                    r#"<nil>: Invalid value: "": Checked value must be of type integer (default format) in spec"#,
                ][..],
            ),
            (
                json!({"type": "integer", "format": "int32"}),
                json!(2_147_483_648_i64),
                &[r#"<nil>: Invalid value: "": Checked value must be of type integer with format int32 in spec"#],
            ),
            (
                json!({"type": "integer", "format": "int64"}),
                json!(1e18),
                &[r#"spec: Invalid value: "float64": spec in body must be of type int64: "float64""#],
            ),
            (
                json!({"type": "string", "enum": ["a"]}),
                json!(1),
                &[
                    r#"spec: Invalid value: "integer": spec in body must be of type string: "integer""#,
                    r#"spec: Unsupported value: 1: supported values: "a""#,
                ],
            ),
            (
                json!({"type": "string", "minLength": 2, "pattern": "^[a-z]+$"}),
                json!("A"),
                &[r#"spec: Invalid value: "A": spec in body should be at least 2 chars long"#],
            ),
            (
                json!({"type": "string", "allOf": [{"pattern": "^a"}, {"pattern": "b$"}]}),
                json!("ac"),
                &[
                    r#"spec: Invalid value: "ac": spec in body should match 'b$'"#,
                    r#"<nil>: Invalid value: "": "spec" must validate all the schemas (allOf)"#,
                ],
            ),
            (
                json!({"type": "string", "allOf": [{"pattern": "^a"}]}),
                json!("c"),
                &[
                    r#"spec: Invalid value: "c": spec in body should match '^a'"#,
                    r#"<nil>: Invalid value: "": "spec" must validate all the schemas (allOf). None validated"#,
                ],
            ),
            (
                json!({"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}),
                json!({"apiVersion": "a/b/c", "kind": "", "metadata": {"labels": {"a": "-"}, "namespace": "x"}}),
                &[
                    r#"spec.apiVersion: Invalid value: "a/b/c": unexpected GroupVersion string: a/b/c"#,
                    r#"spec.kind: Invalid value: "": must not be empty"#,
                    r#"spec.metadata.labels: Invalid value: "-": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"#,
                ],
            ),
            (
                json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": {"type": "object"}}),
                json!(["x"]),
                &[
                    r#"spec[0]: Invalid value: "string": spec[0] in body must be of type object: "string""#,
                    r#"spec[0]: Invalid value: "x": must be an object for an array of list-type map"#,
                ],
            ),
        ];
        for (schema, value, expected) in rows {
            let found =
                causes(&json!({"type": "object", "properties": {"spec": schema}}), &json!({"spec": value}), None);
            assert_eq!(found, expected, "{schema} {value}");
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
