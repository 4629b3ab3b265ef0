//! What is wrong with a schema: it must be structural, its defaults must fit, its rules must compile and be cheap
//! (apiextensions `validation.go` and `schema/{validation,defaulting,cel}`).

use super::structural::{MAX_DEPTH, Node, Type};
use super::{cost, patterns, prune, rules, validate};
use crate::registry::fields::{items, text};
use coracle_api::Cause;
use coracle_api::printing::json_path::JsonPath;
use coracle_api::status::FieldPath;
use serde_json::{Map, Value};

/// Where a schema stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Field,
    Item,
}

const FORBIDDEN: [&str; 7] =
    ["definitions", "dependencies", "id", "patternProperties", "$ref", "$schema", "additionalItems"];
const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
const REASONS: [&str; 4] = ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

/// Checks the schema of a version.
pub fn check(schema: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let before = causes.len();
    let mut checker = Checker { causes, rules_cost: 0 };
    checker.schema(schema, path, Level::Root, 0);
    // What is not structural cannot be measured further.
    if causes.len() == before {
        let mut checker = Checker { causes, rules_cost: 0 };
        checker.rules(schema, &Node::parse(schema), path, 1, true);
        if checker.rules_cost > cost::SCHEMA_MAX {
            let factor = checker.rules_cost as f64 / cost::SCHEMA_MAX as f64;
            let why = format!(
                "x-kubernetes-validations estimated cost total for entire OpenAPIv3 schema exceeds budget by factor of {} (try simplifying the rule(s), or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)",
                cost::shown(factor)
            );
            checker.causes.push(Cause::forbidden(path, why));
        }
    }
}

struct Checker<'c> {
    causes: &'c mut Vec<Cause>,
    rules_cost: u64,
}

impl Checker<'_> {
    fn schema(&mut self, schema: &Value, path: &FieldPath, level: Level, depth: usize) {
        if depth > MAX_DEPTH {
            self.causes.push(Cause::forbidden(path, format!("must not be nested deeper than {MAX_DEPTH}")));
            return;
        }
        let flag = |name: &str| schema.get(name).and_then(Value::as_bool);
        let is = |name: &str| flag(name) == Some(true);
        self.type_of(schema, path, level);
        for name in FORBIDDEN.iter().filter(|name| schema.get(**name).is_some()) {
            self.causes.push(Cause::forbidden(&path.child(name), format!("{name} is not supported")));
        }
        if is("uniqueItems") {
            let why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
            self.causes.push(Cause::forbidden(&path.child("uniqueItems"), why));
        }
        if flag("x-kubernetes-preserve-unknown-fields") == Some(false) {
            let path = path.child("x-kubernetes-preserve-unknown-fields");
            self.causes.push(Cause::invalid(&path, false, "must be true or undefined"));
        }
        self.value_checks(schema, path);
        self.list_type(schema, path);
        if let Some(default) = schema.get("default") {
            self.default(schema, default, path, level);
        }
        self.children(schema, path, level, depth);
        for name in ["allOf", "anyOf", "oneOf"] {
            for (nth, nested) in items(schema, name).iter().enumerate() {
                self.nested(nested, &path.child(name).index(nth), is("x-kubernetes-int-or-string"), depth + 1);
            }
        }
        if let Some(not) = schema.get("not") {
            self.nested(not, &path.child("not"), false, depth + 1);
        }
    }

    fn type_of(&mut self, schema: &Value, path: &FieldPath, level: Level) {
        let is = |name: &str| schema.get(name).and_then(Value::as_bool) == Some(true);
        let (kind, path_type) = (text(schema, "type"), path.child("type"));
        let either = is("x-kubernetes-int-or-string");
        match kind {
            "" if level == Level::Root => {
                self.causes.push(Cause::required(&path_type, "must not be empty at the root"));
            }
            "" if either || is("x-kubernetes-preserve-unknown-fields") => {}
            "" => {
                let what = if level == Level::Item { "array items" } else { "object fields" };
                let why = format!("must not be empty for specified {what}");
                self.causes.push(Cause::required(&path_type, &why));
            }
            "null" => {
                let why = "type cannot be set to null, use nullable as an alternative";
                self.causes.push(Cause::forbidden(&path_type, why));
            }
            _ if either => {
                let why = "must be empty if x-kubernetes-int-or-string is true";
                self.causes.push(Cause::invalid(&path_type, kind, why));
            }
            kind if !TYPES.contains(&kind) => self.causes.push(Cause::not_supported(&path_type, kind, &TYPES)),
            kind if level == Level::Root && kind != "object" => {
                self.causes.push(Cause::invalid(&path_type, kind, "must be object at the root"));
            }
            _ => {}
        }
        if is("x-kubernetes-embedded-resource") {
            if kind != "object" {
                let why = "must be object if x-kubernetes-embedded-resource is true";
                self.causes.push(Cause::invalid(&path_type, kind, why));
            }
            if schema.get("properties").is_none() && !is("x-kubernetes-preserve-unknown-fields") {
                let why = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
                self.causes.push(Cause::required(&path.child("properties"), why));
            }
        }
    }

    fn children(&mut self, schema: &Value, path: &FieldPath, level: Level, depth: usize) {
        let properties = schema.get("properties").and_then(Value::as_object);
        for (name, child) in properties.into_iter().flatten() {
            let path = path.child("properties").key(name);
            if level == Level::Root && name == "metadata" {
                self.metadata(child, &path);
            }
            self.schema(child, &path, Level::Field, depth + 1);
        }
        let additional = path.child("additionalProperties");
        match schema.get("additionalProperties") {
            None => {}
            Some(_) if properties.is_some_and(|properties| !properties.is_empty()) => {
                let why = "additionalProperties and properties are mutual exclusive";
                self.causes.push(Cause::forbidden(&additional, why));
            }
            Some(Value::Bool(false)) => {
                self.causes.push(Cause::forbidden(&additional, "additionalProperties cannot be set to false"));
            }
            Some(Value::Bool(true)) => {}
            Some(_) if level == Level::Root => {
                self.causes.push(Cause::forbidden(&additional, "must not be used at the root"));
            }
            Some(child) => self.schema(child, &additional, Level::Field, depth + 1),
        }
        match schema.get("items") {
            Some(Value::Array(_)) => {
                self.causes
                    .push(Cause::forbidden(&path.child("items"), "items must be a schema object and not an array"));
            }
            Some(child) => self.schema(child, &path.child("items"), Level::Item, depth + 1),
            None if text(schema, "type") == "array" => {
                self.causes.push(Cause::required(&path.child("items"), "must be specified"));
            }
            None => {}
        }
    }

    /// Of the metadata a schema can only say what names look like.
    fn metadata(&mut self, schema: &Value, path: &FieldPath) {
        let allowed = |name: &String| matches!(name.as_str(), "type" | "properties" | "description");
        let fields = schema.get("properties").and_then(Value::as_object);
        let named = fields.into_iter().flatten().all(|(name, _)| matches!(name.as_str(), "name" | "generateName"));
        if !named || !schema.as_object().is_some_and(|schema| schema.keys().all(allowed)) {
            let why =
                "must not specify anything other than name and generateName, but metadata is implicitly specified";
            self.causes.push(Cause::forbidden(path, why));
        }
    }

    /// Schemas inside of `allOf` and the like only check: what shapes the object stands outside of them.
    fn nested(&mut self, schema: &Value, path: &FieldPath, int_or_string: bool, depth: usize) {
        if depth > MAX_DEPTH {
            self.causes.push(Cause::forbidden(path, format!("must not be nested deeper than {MAX_DEPTH}")));
            return;
        }
        for name in [
            "default",
            "nullable",
            "additionalProperties",
            "x-kubernetes-preserve-unknown-fields",
            "x-kubernetes-embedded-resource",
            "x-kubernetes-int-or-string",
            "x-kubernetes-validations",
        ] {
            if schema.get(name).is_some_and(|value| *value != Value::Bool(false)) {
                self.causes.push(Cause::forbidden(&path.child(name), "must be undefined to be structural"));
            }
        }
        let kind = text(schema, "type");
        let repeats = kind.is_empty() || int_or_string && matches!(kind, "integer" | "string");
        if !repeats {
            self.causes.push(Cause::forbidden(&path.child("type"), "must be empty to be structural"));
        }
        self.value_checks(schema, path);
        for (name, child) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            self.nested(child, &path.child("properties").key(name), false, depth + 1);
        }
        if let Some(child) = schema.get("items") {
            self.nested(child, &path.child("items"), false, depth + 1);
        }
        for name in ["allOf", "anyOf", "oneOf"] {
            for (nth, child) in items(schema, name).iter().enumerate() {
                self.nested(child, &path.child(name).index(nth), int_or_string, depth + 1);
            }
        }
        if let Some(not) = schema.get("not") {
            self.nested(not, &path.child("not"), false, depth + 1);
        }
    }

    fn value_checks(&mut self, schema: &Value, path: &FieldPath) {
        let pattern = text(schema, "pattern");
        if let Err(why) = patterns::compile(pattern) {
            let why = format!("must be a valid regular expression, but isn't: {why}");
            self.causes.push(Cause::invalid(&path.child("pattern"), pattern, why));
        }
        for name in ["maxLength", "minLength", "maxItems", "minItems", "maxProperties", "minProperties"] {
            if let Some(number) = schema.get(name).and_then(Value::as_i64).filter(|number| *number < 0) {
                self.causes.push(Cause::invalid(&path.child(name), number, "must be greater than or equal to 0"));
            }
        }
    }

    fn list_type(&mut self, schema: &Value, path: &FieldPath) {
        let (kind, keys) = (text(schema, "x-kubernetes-list-type"), items(schema, "x-kubernetes-list-map-keys"));
        let type_path = path.child("x-kubernetes-list-type");
        let keys_path = path.child("x-kubernetes-list-map-keys");
        let child = schema.get("items").unwrap_or(&Value::Null);
        if !kind.is_empty() && text(schema, "type") != "array" {
            let why = "must be array if x-kubernetes-list-type is set";
            self.causes.push(Cause::invalid(&path.child("type"), text(schema, "type"), why));
        }
        if !matches!(kind, "" | "atomic" | "set" | "map") {
            self.causes.push(Cause::not_supported(&type_path, kind, &["atomic", "set", "map"]));
        }
        if kind != "map" && !keys.is_empty() {
            let why = "must not be specified if x-kubernetes-list-type is not map";
            self.causes.push(Cause::forbidden(&keys_path, why));
        }
        if kind == "set" && text(child, "type") == "object" && text(child, "x-kubernetes-map-type") != "atomic" {
            let why = "forbidden map type: items must be atomic as item of a list with x-kubernetes-list-type=set";
            self.causes.push(Cause::invalid(&path.child("items").child("x-kubernetes-map-type"), Value::Null, why));
        }
        if kind != "map" {
            return;
        }
        if keys.is_empty() {
            self.causes.push(Cause::required(&keys_path, "must not be empty if x-kubernetes-list-type is map"));
        }
        if text(child, "type") != "object" {
            let why = "must be object if parent array's x-kubernetes-list-type is map";
            self.causes.push(Cause::invalid(&path.child("items").child("type"), text(child, "type"), why));
        }
        for (nth, key) in keys.iter().filter_map(Value::as_str).enumerate() {
            match child.get("properties").and_then(|properties| properties.get(key)) {
                None => {
                    let why = "entries must all be names of item properties";
                    self.causes.push(Cause::invalid(&keys_path.index(nth), key, why));
                }
                Some(property) => {
                    let needed = items(child, "required").iter().any(|name| name.as_str() == Some(key));
                    if !needed && property.get("default").is_none() {
                        let path = path.child("items").child("properties").key(key).child("default");
                        let why = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
                        self.causes.push(Cause::required(&path, why));
                    }
                }
            }
        }
    }

    fn default(&mut self, schema: &Value, default: &Value, path: &FieldPath, level: Level) {
        let path = path.child("default");
        if level == Level::Root {
            self.causes.push(Cause::forbidden(&path, "must not be set at the root"));
            return;
        }
        let node = Node::parse(schema);
        let mut pruned = default.clone();
        if !prune::prune(&Node { embedded: node.embedded, ..Node::parse(schema) }, &mut pruned).is_empty() {
            self.causes.push(Cause::invalid(&path, default.clone(), "must not have unknown fields"));
        }
        let mut filled = default.clone();
        super::defaults::apply(&node, &mut filled);
        let mut found = Vec::new();
        validate::validate(&node, &filled, None, &mut found);
        for cause in found {
            let field = if cause.field.is_empty() || cause.field == "<nil>" {
                path.to_string()
            } else {
                format!("{path}.{}", cause.field)
            };
            self.causes.push(Cause { field, ..cause });
        }
    }

    /// Rules of this schema and of those below it. `count`: how many values of it there can be in one object;
    /// `correlated`: whether it is known what each of them was before.
    fn rules(&mut self, schema: &Value, node: &Node, path: &FieldPath, count: u64, correlated: bool) {
        for (nth, rule) in items(schema, "x-kubernetes-validations").iter().enumerate() {
            self.rule(rule, node, &path.child("x-kubernetes-validations").index(nth), count, correlated);
        }
        let nothing = Map::new();
        for (name, child) in schema.get("properties").and_then(Value::as_object).unwrap_or(&nothing) {
            if let Some(node) = node.properties.get(name) {
                self.rules(child, node, &path.child("properties").key(name), count, correlated);
            }
        }
        let many = count.saturating_mul(cost::items_of(node));
        if let (Some(child @ Value::Object(_)), super::structural::Additional::Schema(node)) =
            (schema.get("additionalProperties"), &node.additional)
        {
            self.rules(child, node, &path.child("additionalProperties"), many, correlated);
        }
        if let (Some(child), Some(item)) = (schema.get("items"), &node.items) {
            let told_apart = correlated && matches!(node.list, super::structural::Items::Map(_));
            self.rules(child, item, &path.child("items"), many, told_apart);
        }
    }

    fn rule(&mut self, rule: &Value, node: &Node, path: &FieldPath, count: u64, correlated: bool) {
        let expression = text(rule, "rule");
        if expression.trim().is_empty() {
            self.causes.push(Cause::required(&path.child("rule"), "rule is not specified"));
            return;
        }
        for name in ["message", "messageExpression"] {
            if rule.get(name).is_some() && text(rule, name).trim().is_empty() {
                let why = format!("{name} must be non-empty if specified");
                self.causes.push(Cause::invalid(&path.child(name), text(rule, name), why));
            }
        }
        if text(rule, "message").contains('\n') {
            let why = "message must not contain line breaks";
            self.causes.push(Cause::invalid(&path.child("message"), text(rule, "message"), why));
        }
        let reason = text(rule, "reason");
        if !reason.is_empty() && !REASONS.contains(&reason) {
            self.causes.push(Cause::not_supported(&path.child("reason"), reason, &REASONS));
        }
        self.field_path(rule, node, path);
        self.expression(expression, node, &path.child("rule"), count, correlated, true);
        let message = text(rule, "messageExpression");
        if !message.trim().is_empty() {
            self.expression(message, node, &path.child("messageExpression"), 1, correlated, false);
        }
    }

    fn field_path(&mut self, rule: &Value, node: &Node, path: &FieldPath) {
        let field = text(rule, "fieldPath");
        if field.is_empty() {
            return;
        }
        let leads = JsonPath::parse(field).is_ok_and(|path| {
            path.is_simple() && path.fields().into_iter().try_fold(node, |node, name| node.field(name)).is_some()
        });
        if !leads {
            let why = "fieldPath must be a valid path";
            self.causes.push(Cause::invalid(&path.child("fieldPath"), field, why));
        }
    }

    fn expression(&mut self, text: &str, node: &Node, path: &FieldPath, count: u64, correlated: bool, rule: bool) {
        let program = match rules::compile(text) {
            Ok(program) => program,
            Err(why) => {
                self.causes.push(Cause::invalid(path, text, why));
                return;
            }
        };
        let used = program.references();
        if used.has_variable("oldSelf") && !correlated {
            let why = "oldSelf cannot be used on the uncorrelatable portion of the schema";
            self.causes.push(Cause::invalid(path, text, why));
        }
        let estimate = cost::estimate(&program, node);
        if let Some(why) = estimate.unknown {
            self.causes.push(Cause::invalid(path, text, format!("compilation failed: ERROR: <input>: {why}")));
            return;
        }
        if rule && estimate.not_a_bool {
            self.causes.push(Cause::invalid(path, text, "cel expression must evaluate to a bool"));
        }
        let total = estimate.cost.saturating_mul(count);
        self.rules_cost = self.rules_cost.saturating_add(total);
        if total > cost::RULE_MAX {
            let factor = total as f64 / cost::RULE_MAX as f64;
            let why = format!(
                "estimated rule cost exceeds budget by factor of {} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)",
                cost::shown(factor)
            );
            self.causes.push(Cause::forbidden(path, why));
        }
    }
}

/// Whether a node can only be a bool, or can be anything.
pub(super) fn may_be_bool(node: &Node) -> bool {
    matches!(node.ty, Type::Boolean | Type::Any) && !node.int_or_string
}
