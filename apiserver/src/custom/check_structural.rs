//! Whether a schema is structural: what an object looks like stands outside of `allOf` and the like (apiextensions
//! `apiserver/schema/validation.go` and `complete.go`).

use super::patterns;
use crate::registry::fields::{items, text};
use coracle_api::Cause;
use coracle_api::json::{Value, json};
use coracle_api::status::FieldPath;

/// Where a schema stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Field,
    Item,
}

/// Keywords that no schema may have; the first that is found is told where nothing else is wrong.
const UNSUPPORTED: [(&str, &str); 7] = [
    ("id", "id"),
    ("$schema", "schema"),
    ("$ref", "$ref"),
    ("patternProperties", "patternProperties"),
    ("dependencies", "dependencies"),
    ("additionalItems", "additionalItems"),
    ("definitions", "definitions"),
];

/// Whether a field is there with more than the value that stands for nothing.
pub fn is_set(schema: &Value, name: &str) -> bool {
    match schema.get(name) {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Array(items)) => !items.is_empty(),
        Some(Value::Object(map)) => {
            !matches!(name, "properties" | "patternProperties" | "definitions") || !map.is_empty()
        }
        Some(_) => true,
    }
}

/// Why no structure can be read from a schema at all.
pub fn unreadable(schema: &Value) -> Option<String> {
    let given = |name: &str| match name {
        "additionalItems" => schema.get(name).is_some_and(|value| !value.is_null()),
        _ => is_set(schema, name),
    };
    if let Some((_, name)) = UNSUPPORTED.iter().find(|(name, _)| given(name)) {
        return Some(format!("OpenAPIV3Schema '{name}' is not supported"));
    }
    if schema.get("items").and_then(Value::as_array).is_some_and(|items| !items.is_empty()) {
        return Some("OpenAPIV3Schema 'items' must be a schema, but is an array".to_owned());
    }
    if schema.get("x-kubernetes-preserve-unknown-fields").and_then(Value::as_bool) == Some(false) {
        return Some("internal error: 'x-kubernetes-preserve-unknown-fields' must be true or undefined".to_owned());
    }
    children(schema).find_map(unreadable)
}

/// Every schema right below one.
pub fn children(schema: &Value) -> impl Iterator<Item = &Value> {
    let one = ["items", "additionalProperties", "not"].into_iter().filter_map(|name| schema.get(name));
    let lists = ["allOf", "anyOf", "oneOf"].into_iter().flat_map(|name| items(schema, name));
    let properties = schema.get("properties").and_then(Value::as_object).into_iter().flatten().map(|(_, child)| child);
    one.chain(lists).chain(properties).filter(|child| child.is_object())
}

/// What keeps a schema from being structural.
pub fn check(schema: &Value, path: &FieldPath) -> Vec<Cause> {
    let mut checker = Checker { causes: Vec::new() };
    checker.node(schema, path, Level::Root);
    for (name, nth, nested) in alternatives(schema) {
        checker.complete(nested, schema, path, &place(path, name, nth));
    }
    checker.causes.sort_by_cached_key(Cause::to_string);
    checker.causes
}

/// Schemas that only check, with where they stand.
fn alternatives(schema: &Value) -> impl Iterator<Item = (&'static str, Option<usize>, &Value)> {
    let not = schema.get("not").filter(|not| not.is_object()).map(|not| ("not", None, not));
    let lists = ["allOf", "anyOf", "oneOf"]
        .into_iter()
        .flat_map(|name| items(schema, name).iter().enumerate().map(move |(nth, nested)| (name, Some(nth), nested)));
    not.into_iter().chain(lists)
}

fn place(path: &FieldPath, name: &str, nth: Option<usize>) -> FieldPath {
    let path = path.child(name);
    nth.map_or_else(|| path.clone(), |nth| path.index(nth))
}

fn flag(schema: &Value, name: &str) -> bool {
    schema.get(name).and_then(Value::as_bool) == Some(true)
}

struct Checker {
    causes: Vec<Cause>,
}

impl Checker {
    fn node(&mut self, schema: &Value, path: &FieldPath, level: Level) {
        let (kind, path_type) = (text(schema, "type"), path.child("type"));
        let embedded = flag(schema, "x-kubernetes-embedded-resource");
        let item = schema.get("items").filter(|item| item.is_object());
        match item {
            Some(item) => self.node(item, &path.child("items"), Level::Item),
            None if kind == "array" => {
                self.causes.push(Cause::required(&path.child("items"), "must be specified"));
            }
            None => {}
        }
        for (name, child) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            self.node(child, &path.child("properties").key(name), Level::Field);
        }
        self.additional(schema, path, level, embedded);
        self.either(schema, path);
        self.checks(schema, path, schema.get("anyOf") == Some(&int_or_string()));
        let free = flag(schema, "x-kubernetes-int-or-string") || flag(schema, "x-kubernetes-preserve-unknown-fields");
        match kind {
            "object" => {}
            "" if embedded => {
                let why = "must be object if x-kubernetes-embedded-resource is true";
                self.causes.push(Cause::required(&path_type, why));
            }
            kind if embedded => {
                let why = "must be object if x-kubernetes-embedded-resource is true";
                self.causes.push(Cause::invalid(&path_type, kind, why));
            }
            "" if !free => self.causes.push(Cause::required(
                &path_type,
                match level {
                    Level::Root => "must not be empty at the root",
                    Level::Item => "must not be empty for specified array items",
                    Level::Field => "must not be empty for specified object fields",
                },
            )),
            _ => {}
        }
        if level == Level::Root && !matches!(kind, "" | "object") {
            self.causes.push(Cause::invalid(&path_type, kind, "must be object at the root"));
        }
        self.resource(schema, path, level, embedded);
    }

    fn additional(&mut self, schema: &Value, path: &FieldPath, level: Level, embedded: bool) {
        let Some(additional) = schema.get("additionalProperties").filter(|value| !value.is_null()) else { return };
        let path = path.child("additionalProperties");
        if level == Level::Root {
            self.causes.push(Cause::forbidden(&path, "must not be used at the root"));
        }
        if additional.is_object() {
            self.node(additional, &path, Level::Field);
        }
        if embedded {
            self.causes.push(Cause::forbidden(&path, "must not be used if x-kubernetes-embedded-resource is set"));
        }
    }

    fn either(&mut self, schema: &Value, path: &FieldPath) {
        if !flag(schema, "x-kubernetes-int-or-string") {
            return;
        }
        for name in ["x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource"] {
            if flag(schema, name) {
                let why = "must be false if x-kubernetes-int-or-string is true";
                self.causes.push(Cause::invalid(&path.child(name), true, why));
            }
        }
    }

    /// The fields that every object has.
    fn resource(&mut self, schema: &Value, path: &FieldPath, level: Level, embedded: bool) {
        let properties = path.child("properties");
        let checked = level == Level::Root || embedded;
        let child = |name: &str| schema.get("properties").and_then(|properties| properties.get(name));
        for name in ["kind", "apiVersion"] {
            if let Some(kind) = child(name).map(|child| text(child, "type"))
                && checked
                && kind != "string"
            {
                self.causes.push(Cause::invalid(&properties.key(name).child("type"), kind, "must be string"));
            }
        }
        if let Some(metadata) = child("metadata") {
            let path = properties.key("metadata");
            let kind = text(metadata, "type");
            if checked && kind != "object" {
                self.causes.push(Cause::invalid(&path.child("type"), kind, "must be object"));
            }
            if level == Level::Root && says_more_than_names(metadata) {
                let why =
                    "must not specify anything other than name and generateName, but metadata is implicitly specified";
                self.causes.push(Cause::forbidden(&path, why));
            }
        }
        if embedded && !flag(schema, "x-kubernetes-preserve-unknown-fields") && !is_set(schema, "properties") {
            let why = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
            self.causes.push(Cause::required(&properties, why));
        }
    }

    /// What a schema checks beside the type. `skip`: its `anyOf` is the one that goes with int-or-string.
    fn checks(&mut self, schema: &Value, path: &FieldPath, skip: bool) {
        let first = items(schema, "allOf").first();
        let skip_first = first.is_some_and(|first| first.get("anyOf") == Some(&int_or_string()));
        for (name, nth, nested) in alternatives(schema) {
            if name == "anyOf" && skip {
                continue;
            }
            let skip = name == "allOf" && nth == Some(0) && skip_first;
            self.nested(nested, &place(path, name, nth), skip);
        }
        let pattern = text(schema, "pattern");
        if let Err(why) = patterns::compile(pattern) {
            let why = format!("must be a valid regular expression, but isn't: {why}");
            self.causes.push(Cause::invalid(&path.child("pattern"), pattern, why));
        }
    }

    fn nested(&mut self, schema: &Value, path: &FieldPath, skip: bool) {
        self.checks(schema, path, skip);
        if let Some(item) = schema.get("items").filter(|item| item.is_object()) {
            self.nested(item, &path.child("items"), false);
        }
        for (name, child) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            self.nested(child, &path.child("properties").key(name), false);
        }
        for (name, must_be) in [
            ("type", "empty"),
            ("additionalProperties", "undefined"),
            ("default", "undefined"),
            ("title", "empty"),
            ("description", "empty"),
            ("nullable", "false"),
            ("x-kubernetes-preserve-unknown-fields", "false"),
            ("x-kubernetes-embedded-resource", "false"),
            ("x-kubernetes-int-or-string", "false"),
            ("x-kubernetes-list-map-keys", "empty"),
            ("x-kubernetes-list-type", "undefined"),
            ("x-kubernetes-map-type", "undefined"),
            ("x-kubernetes-validations", "empty"),
        ] {
            let given = match name {
                "default" => schema.get(name).is_some_and(|value| !value.is_null()),
                _ => is_set(schema, name),
            };
            if given {
                self.causes.push(Cause::forbidden(&path.child(name), format!("must be {must_be} to be structural")));
            }
        }
        if schema.get("properties").is_some_and(|properties| properties.get("metadata").is_some()) {
            let path = path.child("properties").key("metadata");
            self.causes.push(Cause::forbidden(&path, "must not be specified in a nested context"));
        }
    }

    /// What is checked must stand in the structure too.
    fn complete(&mut self, nested: &Value, schema: &Value, path: &FieldPath, at: &FieldPath) {
        for (name, nth, deeper) in alternatives(nested) {
            self.complete(deeper, schema, path, &place(at, name, nth));
        }
        let missing = |at: &FieldPath| format!("because it is defined in {at}");
        if let Some(item) = nested.get("items").filter(|item| item.is_object()) {
            let (path, at) = (path.child("items"), at.child("items"));
            match schema.get("items").filter(|item| item.is_object()) {
                Some(schema) => self.complete(item, schema, &path, &at),
                None => self.causes.push(Cause::required(&path, &missing(&at))),
            }
        }
        for (name, child) in nested.get("properties").and_then(Value::as_object).into_iter().flatten() {
            let (path, at) = (path.child("properties").key(name), at.child("properties").key(name));
            match schema.get("properties").and_then(|properties| properties.get(name)) {
                Some(schema) => self.complete(child, schema, &path, &at),
                None => self.causes.push(Cause::required(&path, &missing(&at))),
            }
        }
    }
}

fn int_or_string() -> Value {
    json!([{"type": "integer"}, {"type": "string"}])
}

/// Of the metadata a schema can only say what names look like.
fn says_more_than_names(schema: &Value) -> bool {
    let more = |name: &str| match name {
        "type" | "default" | "example" | "externalDocs" => false,
        "properties" => {
            let mut fields = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
            fields.any(|(name, _)| !matches!(name.as_str(), "name" | "generateName"))
        }
        _ => is_set(schema, name),
    };
    schema.as_object().is_some_and(|schema| schema.keys().any(|name| more(name)))
}
