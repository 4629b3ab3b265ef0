//! What is wrong with the schema of a version: it must be structural, its defaults must fit, its rules must compile and be
//! cheap (apiextensions `validation.go`). Each of these is looked at only where those before it found nothing.

use super::check_relaxed::Broken;
use super::check_rules::{self, Costs};
use super::check_structural::{self, children, is_set};
use super::structural::{Additional, MAX_DEPTH, Node, Type};
use super::{prune, rules, validate};
use crate::registry::fields::{items, text};
use coracle_api::Cause;
use coracle_api::json::Value;
use coracle_api::status::FieldPath;

pub const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];

/// What may stand at the root where the status is written apart: the status' own schema must lose nothing by it. Under the
/// names that upstream's messages give.
const AT_ROOT: &str = "[Description Type Format Title Maximum ExclusiveMaximum Minimum ExclusiveMinimum MaxLength MinLength Pattern MaxItems MinItems UniqueItems MultipleOf Required Items Properties ExternalDocs Example XPreserveUnknownFields XValidations]";
const NOT_AT_ROOT: [&str; 20] = [
    "id",
    "$schema",
    "$ref",
    "nullable",
    "default",
    "maxProperties",
    "minProperties",
    "enum",
    "allOf",
    "oneOf",
    "anyOf",
    "not",
    "additionalProperties",
    "patternProperties",
    "dependencies",
    "additionalItems",
    "definitions",
    "x-kubernetes-embedded-resource",
    "x-kubernetes-int-or-string",
    "x-kubernetes-map-type",
];

/// Checks the schema of a version; `status`: whether its status is written apart; `broken`: what is not asked for.
pub fn check(schema: &Value, path: &FieldPath, status: bool, broken: Broken, causes: &mut Vec<Cause>) {
    if is_deeper(schema, MAX_DEPTH) {
        causes.push(Cause::forbidden(path, format!("must not be nested deeper than {MAX_DEPTH}")));
        return;
    }
    let before = causes.len();
    if status {
        if text(schema, "type") != "object" && is_set(schema, "type") {
            let why =
                "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
            causes.push(Cause::invalid(&path.child("type"), text(schema, "type"), why));
        } else if NOT_AT_ROOT.iter().any(|name| is_set(schema, name)) {
            let why = format!(
                "only {AT_ROOT} fields are allowed at the root of the schema if the status subresource is enabled"
            );
            causes.push(Cause::invalid(path, schema.clone(), why));
        }
    }
    if is_set(schema, "nullable") {
        causes.push(Cause::forbidden(&path.child("nullable"), "nullable cannot be true at the root"));
    }
    let unreadable = check_structural::unreadable(schema);
    let mut found = Vec::new();
    if unreadable.is_none() {
        found = check_structural::check(schema, path);
        if found.is_empty() {
            defaults(schema, path, Some(true), broken, &mut found);
        }
    }
    let sound = unreadable.is_none() && found.is_empty();
    causes.extend(found);
    let node = sound.then(|| Node::parse(schema));
    let mut checker = Checker { broken, rules: Vec::new(), costs: Costs::default() };
    let scope = Scope { forbidden: None, metadata: false, apart: None, root: true };
    let rules = node.as_ref().map(|node| Place { node, count: Some(1), resource: true });
    let mut wrong = Vec::new();
    checker.schema(schema, path, &scope, rules, &mut wrong);
    causes.extend(wrong);
    causes.append(&mut checker.rules);
    if causes.len() == before
        && let Some(why) = unreadable
    {
        causes.push(Cause::invalid(path, "", why));
    }
    checker.costs.tell(path, causes);
}

fn is_deeper(schema: &Value, depth: usize) -> bool {
    depth == 0 || children(schema).any(|child| is_deeper(child, depth - 1))
}

/// Checks that defaults are what their schemas allow. `embedded`: whether the value is a resource, where that is not what the
/// schema says. Below `additionalProperties` there are none.
fn defaults(schema: &Value, path: &FieldPath, embedded: Option<bool>, broken: Broken, causes: &mut Vec<Cause>) {
    if let Some(default) = schema.get("default").filter(|default| !default.is_null()) {
        let path = path.child("default");
        let mut node = Node::parse(schema);
        node.embedded = embedded.unwrap_or(node.embedded);
        node.embeds |= node.embedded;
        default_value(&node, default, &path, broken, causes);
    }
    if let Some(item) = schema.get("items") {
        defaults(item, &path.child("items"), None, broken, causes);
    }
    for (name, child) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        defaults(child, &path.child("properties").key(name), None, broken, causes);
    }
}

fn default_value(node: &Node, default: &Value, path: &FieldPath, broken: Broken, causes: &mut Vec<Cause>) {
    let mut pruned = default.clone();
    if !broken.defaults && !prune::prune_default(node, &mut pruned).is_empty() {
        causes.push(Cause::invalid(path, default.clone(), "must not have unknown fields"));
    }
    let mut found = Vec::new();
    validate::validate_embedded(node, default, path, &mut found);
    // A default of either kind is not measured upstream: only the whole schema says what such a value is.
    if found.is_empty() && !node.int_or_string {
        let mut measured = Vec::new();
        validate::validate(node, default, None, &mut measured);
        found.extend(measured.into_iter().map(|cause| {
            let field = match cause.field.as_str() {
                "" | "<nil>" => path.to_string(),
                field => format!("{path}.{field}"),
            };
            Cause { field, ..cause }
        }));
    }
    if found.is_empty() {
        // As a value that stays, and as one that comes.
        rules::validate_default(node, default, Some(default), path, &mut found);
        if found.is_empty() {
            rules::validate_default(node, default, None, path, &mut found);
        }
    }
    causes.extend(found);
}

/// What is known of the place that a schema stands at.
#[derive(Clone)]
struct Scope {
    /// Why there can be no default.
    forbidden: Option<String>,
    /// Inside of `metadata`, `kind` or `apiVersion` of a resource.
    metadata: bool,
    /// The highest schema of whose values it is not known what each was before.
    apart: Option<FieldPath>,
    root: bool,
}

/// What rules are measured by: not there where they are not looked at.
#[derive(Clone, Copy)]
pub struct Place<'n> {
    pub node: &'n Node,
    /// How many values of it there can be in one object, where the schema limits that.
    pub count: Option<u64>,
    /// The value is a resource, whatever the node says.
    pub resource: bool,
}

impl Place<'_> {
    /// How many values there can be right below it.
    fn inner(&self) -> Option<u64> {
        let checks = &self.node.checks;
        let each = match (self.node.ty, &self.node.additional) {
            (Type::Object, Additional::None) => Some(1),
            (Type::Object, _) => checks.max_properties,
            (Type::Array, _) => checks.max_items,
            _ => Some(1),
        };
        Some(self.count?.saturating_mul(each?))
    }
}

struct Checker {
    broken: Broken,
    /// What is wrong with rules, which is told behind all else.
    rules: Vec<Cause>,
    costs: Costs,
}

impl Checker {
    fn schema(
        &mut self,
        schema: &Value,
        path: &FieldPath,
        scope: &Scope,
        place: Option<Place<'_>>,
        causes: &mut Vec<Cause>,
    ) {
        if !schema.is_object() {
            return;
        }
        let before = causes.len();
        keywords(schema, path, scope, self.broken, causes);
        if is_set(schema, "uniqueItems") {
            let why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
            causes.push(Cause::forbidden(&path.child("uniqueItems"), why));
        }
        let inner = Scope { root: false, ..scope.clone() };
        self.values(schema, path, scope, place, causes);
        let nested = ["not"].into_iter().filter_map(|name| Some((path.child(name), schema.get(name)?)));
        let lists = ["allOf", "oneOf", "anyOf"].into_iter().flat_map(|name| {
            let path = path.child(name);
            items(schema, name).iter().enumerate().map(move |(nth, nested)| (path.index(nth), nested))
        });
        for (path, nested) in nested.chain(lists) {
            self.schema(nested, &path, &inner, None, causes);
        }
        self.items(schema, path, &inner, place, causes);
        if schema.get("x-kubernetes-preserve-unknown-fields").and_then(Value::as_bool) == Some(false) {
            let path = path.child("x-kubernetes-preserve-unknown-fields");
            causes.push(Cause::invalid(&path, false, "must be true or undefined"));
        }
        collections(schema, path, self.broken, causes);
        check_rules::form(schema, path, causes);
        // Rules are measured by a schema that is sound.
        if let Some(place) = place.filter(|_| causes.len() == before) {
            check_rules::rules(schema, place, path, scope.apart.as_ref(), &mut self.costs, &mut self.rules);
        }
    }

    /// Fields of objects and values of maps.
    fn values(
        &mut self,
        schema: &Value,
        path: &FieldPath,
        scope: &Scope,
        place: Option<Place<'_>>,
        causes: &mut Vec<Cause>,
    ) {
        let properties =
            schema.get("properties").and_then(Value::as_object).filter(|properties| !properties.is_empty());
        let inner = Scope { root: false, ..scope.clone() };
        let additional = schema.get("additionalProperties").filter(|value| !value.is_null());
        if let Some(values) = additional {
            let path = path.child("additionalProperties");
            if properties.is_some() && *values != Value::Bool(true) {
                let why = "additionalProperties and properties are mutual exclusive";
                causes.push(Cause::forbidden(&path, why));
            }
            let mut inner = inner.clone();
            if scope.metadata {
                inner.forbidden = Some(" inside additionalProperties applying to object metadata".to_owned());
            }
            let place = place.and_then(|place| {
                let Additional::Schema(node) = &place.node.additional else { return None };
                let count = place.inner();
                Some(Place { node, count, resource: false })
            });
            self.schema(values, &path, &inner, place, causes);
        }
        for (name, child) in properties.into_iter().flatten() {
            let mut inner = inner.clone();
            if text(schema, "x-kubernetes-map-type") == "atomic" {
                inner.apart.get_or_insert_with(|| path.clone());
            }
            let is_meta = matches!(name.as_str(), "metadata" | "kind" | "apiVersion");
            if is_meta && (scope.root || is_set(schema, "x-kubernetes-embedded-resource")) {
                inner.metadata = true;
                if scope.root {
                    inner.forbidden = Some(format!(" in top-level {name}"));
                }
            }
            let place = place.and_then(|place| {
                Some(Place { node: place.node.properties.get(name.as_str())?, count: place.inner(), resource: false })
            });
            self.schema(child, &path.child("properties").key(name), &inner, place, causes);
        }
    }

    fn items(
        &mut self,
        schema: &Value,
        path: &FieldPath,
        inner: &Scope,
        place: Option<Place<'_>>,
        causes: &mut Vec<Cause>,
    ) {
        let Some(item) = schema.get("items") else { return };
        let mut inner = inner.clone();
        // Only items of maps can be told apart.
        if text(schema, "x-kubernetes-list-type") != "map" {
            inner.apart.get_or_insert_with(|| path.clone());
        }
        let path = path.child("items");
        match item {
            Value::Array(list) => {
                for (nth, item) in list.iter().enumerate() {
                    self.schema(item, &path.index(nth), &inner, None, causes);
                }
            }
            item => {
                let place = place.and_then(|place| {
                    let count = place.inner();
                    Some(Place { node: place.node.items.as_deref()?, count, resource: false })
                });
                self.schema(item, &path, &inner, place, causes);
            }
        }
    }
}

/// Keywords that a schema may not have.
fn keywords(schema: &Value, path: &FieldPath, scope: &Scope, broken: Broken, causes: &mut Vec<Cause>) {
    let kind = text(schema, "type");
    if !broken.types && !kind.is_empty() && !TYPES.contains(&kind) {
        causes.push(Cause::not_supported(&path.child("type"), kind, &TYPES));
    }
    if let Some(why) = &scope.forbidden
        && schema.get("default").is_some_and(|default| !default.is_null())
    {
        causes.push(Cause::forbidden(&path.child("default"), format!("must not be set{why}")));
    }
    for name in ["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"] {
        let given = match name {
            "additionalItems" => schema.get(name).is_some_and(|value| !value.is_null()),
            _ => is_set(schema, name),
        };
        if given {
            causes.push(Cause::forbidden(&path.child(name), format!("{name} is not supported")));
        }
    }
    if kind == "null" {
        let why = "type cannot be set to null, use nullable as an alternative";
        causes.push(Cause::forbidden(&path.child("type"), why));
    }
    if schema.get("items").and_then(Value::as_array).is_some_and(|items| !items.is_empty()) {
        causes.push(Cause::forbidden(&path.child("items"), "items must be a schema object and not an array"));
    }
    if scope.metadata && is_set(schema, "x-kubernetes-embedded-resource") {
        let why = "must not be used inside of resource meta";
        causes.push(Cause::forbidden(&path.child("x-kubernetes-embedded-resource"), why));
    }
}

/// How maps and lists are merged.
fn collections(schema: &Value, path: &FieldPath, broken: Broken, causes: &mut Vec<Cause>) {
    let kind = text(schema, "type");
    let given = |name: &str| schema.get(name).and_then(Value::as_str);
    let mut must_be = |name: &str, wanted: &str| {
        let why = format!("must be {wanted} if {name} is specified");
        causes.push(match kind {
            "" => Cause::required(&path.child("type"), &why),
            kind => Cause::invalid(&path.child("type"), kind, why),
        });
    };
    let (map, list) = (given("x-kubernetes-map-type"), given("x-kubernetes-list-type"));
    if map.is_some() && kind != "object" {
        must_be("x-kubernetes-map-type", "object");
    }
    if list.is_some() && kind != "array" {
        must_be("x-kubernetes-list-type", "array");
    }
    if let Some(map) = map.filter(|map| !matches!(*map, "atomic" | "granular")) {
        causes.push(Cause::not_supported(&path.child("x-kubernetes-map-type"), map, &["atomic", "granular"]));
    }
    if list == Some("set") && kind == "array" && !broken.sets {
        set_items(schema, path, causes);
    }
    if let Some(list) = list.filter(|list| !matches!(*list, "atomic" | "set" | "map")) {
        causes.push(Cause::not_supported(&path.child("x-kubernetes-list-type"), list, &["atomic", "set", "map"]));
    }
    if is_set(schema, "x-kubernetes-list-map-keys") {
        let path = path.child("x-kubernetes-list-type");
        let why = "must be map if x-kubernetes-list-map-keys is non-empty";
        match list {
            None => causes.push(Cause::required(&path, why)),
            Some("map") => {}
            Some(list) => causes.push(Cause::invalid(&path, list, why)),
        }
    }
    if list == Some("map") {
        map_keys(schema, path, causes);
    }
    if let Some(list) = list.filter(|list| matches!(*list, "set" | "map") && !broken.items) {
        items_are_there(schema, list, path, causes);
    }
}

/// What is in a set is one value.
pub fn set_items(schema: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let Some(item) = schema.get("items").filter(|item| item.is_object()) else { return };
    let path = path.child("items");
    let why = "must be atomic as item of a list with x-kubernetes-list-type=set";
    let list = item.get("x-kubernetes-list-type").filter(|list| !list.is_null());
    match text(item, "type") {
        "array" if list.is_some_and(|list| list != "atomic") => {
            causes.push(Cause::invalid(&path.child("x-kubernetes-list-type"), list.cloned().unwrap_or_default(), why));
        }
        "object" if text(item, "x-kubernetes-map-type") != "atomic" => {
            // Upstream shows the list type here.
            causes.push(Cause::invalid(&path.child("x-kubernetes-map-type"), list.cloned().unwrap_or_default(), why));
        }
        _ => {}
    }
}

/// The fields that tell items of a list that is a map apart.
fn map_keys(schema: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let (keys, item) = (items(schema, "x-kubernetes-list-map-keys"), schema.get("items"));
    let (keys_path, items_path) = (path.child("x-kubernetes-list-map-keys"), path.child("items"));
    if keys.is_empty() {
        causes.push(Cause::required(&keys_path, "must not be empty if x-kubernetes-list-type is map"));
    }
    let Some(item) = item.filter(|item| item.is_object()) else {
        if item.is_none_or(Value::is_null) {
            causes.push(Cause::required(&items_path, "must have a schema if x-kubernetes-list-type is map"));
        }
        return;
    };
    if text(item, "type") != "object" {
        let why = "must be object if parent array's x-kubernetes-list-type is map";
        causes.push(Cause::invalid(&items_path.child("type"), text(item, "type"), why));
        return;
    }
    for (nth, key) in keys.iter().enumerate() {
        let name = key.as_str().unwrap_or_default();
        match item.get("properties").and_then(|properties| properties.get(name)) {
            Some(property) if matches!(text(property, "type"), "array" | "object") => {
                let path = items_path.child("properties").key(name).child("type");
                let why = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                // Upstream shows the item's type.
                causes.push(Cause::invalid(&path, "object", why));
            }
            Some(_) => {}
            None => {
                causes.push(Cause::invalid(&keys_path, keys.to_vec(), "entries must all be names of item properties"));
            }
        }
        if keys[..nth].contains(key) {
            causes.push(Cause::invalid(&keys_path, keys.to_vec(), "must not contain duplicate entries"));
        }
    }
}

/// Items of sets and maps, and what tells them apart, are always there.
pub fn items_are_there(schema: &Value, list: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    let Some(item) = schema.get("items").filter(|item| item.is_object()) else { return };
    let path = path.child("items");
    if is_set(item, "nullable") {
        let why = format!("cannot be nullable when x-kubernetes-list-type is {list}");
        causes.push(Cause::forbidden(&path.child("nullable"), why));
    }
    if list != "map" {
        return;
    }
    for key in items(schema, "x-kubernetes-list-map-keys").iter().filter_map(Value::as_str) {
        let Some(property) = item.get("properties").and_then(|properties| properties.get(key)) else { continue };
        let path = path.child("properties").key(key);
        let needed = items(item, "required").iter().any(|name| name == key);
        if !needed && property.get("default").is_none_or(Value::is_null) {
            let why =
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            causes.push(Cause::required(&path.child("default"), why));
        }
        if is_set(property, "nullable") {
            let why = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
            causes.push(Cause::forbidden(&path.child("nullable"), why));
        }
    }
}
