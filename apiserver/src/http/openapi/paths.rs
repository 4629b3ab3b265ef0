//! Paths and their operations, from the rows.

use super::definitions::Style;
use crate::registry::{Row, Subresource};
use coracle_api::Gvk;
use coracle_api::json::{Map, Value, json};

const WRITE: [&str; 4] = ["dryRun", "fieldManager", "fieldValidation", "pretty"];
const PATCH: [&str; 5] = ["dryRun", "fieldManager", "fieldValidation", "force", "pretty"];
const DELETE: [&str; 5] = ["dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy", "pretty"];
const LIST: [&str; 11] = [
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "pretty",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
    "watch",
];
const NUMBERS: [&str; 3] = ["limit", "timeoutSeconds", "gracePeriodSeconds"];
const FLAGS: [&str; 5] = ["allowWatchBookmarks", "force", "orphanDependents", "sendInitialEvents", "watch"];
const PATCHES: [&str; 4] = [
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];
/// How connections are asked for, and what goes through a proxy.
const CONNECT: [&str; 2] = ["get", "post"];
const CONNECT_ANY: [&str; 7] = ["delete", "get", "head", "options", "patch", "post", "put"];
const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";

/// Makes operations for one kind.
struct Operations<'o> {
    style: Style,
    gvk: &'o Gvk,
    /// The definition of the kind.
    definition: &'o str,
}

impl Operations<'_> {
    /// A connection, of which nothing but its end can be described.
    fn connect(&self) -> Value {
        let mut operation = json!({
            "x-kubernetes-action": "connect",
            "x-kubernetes-group-version-kind":
                {"group": &*self.gvk.group, "version": &*self.gvk.version, "kind": &*self.gvk.kind},
        });
        let schema = json!({"type": "string"});
        match self.style {
            Style::V3 => {
                operation["responses"] = json!({"200": {"description": "OK", "content": {"*/*": {"schema": schema}}}});
            }
            Style::V2 => {
                operation["responses"] = json!({"200": {"description": "OK", "schema": schema}});
                operation["produces"] = json!(["*/*"]);
                operation["consumes"] = json!(["*/*"]);
            }
        }
        operation
    }

    fn of(&self, action: &str, parameters: &[&str]) -> Value {
        let parameters: Vec<Value> = parameters.iter().map(|name| parameter(self.style, name)).collect();
        let (takes, gives) = match action {
            "post" | "put" => (Some(self.definition.to_owned()), self.definition.to_owned()),
            "patch" => (None, self.definition.to_owned()),
            "list" => (None, format!("{}List", self.definition)),
            "delete" | "deletecollection" => (Some(DELETE_OPTIONS.to_owned()), STATUS.to_owned()),
            _ => (None, self.definition.to_owned()),
        };
        let mut operation = json!({
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind":
                {"group": &*self.gvk.group, "version": &*self.gvk.version, "kind": &*self.gvk.kind},
            "parameters": parameters,
        });
        let code = if action == "post" { "201" } else { "200" };
        let schema = self.style.reference(&gives);
        match self.style {
            Style::V3 => {
                operation["responses"] =
                    json!({code: {"description": "OK", "content": {"application/json": {"schema": schema}}}});
                if let Some(takes) = takes {
                    operation["requestBody"] = json!({"content": {"*/*": {"schema": self.style.reference(&takes)}}});
                } else if action == "patch" {
                    let each = PATCHES.iter().map(|kind| ((*kind).to_owned(), json!({"schema": {"type": "object"}})));
                    operation["requestBody"] = json!({"required": true, "content": each.collect::<Map>()});
                }
            }
            Style::V2 => {
                operation["responses"] = json!({code: {"description": "OK", "schema": schema}});
                operation["produces"] =
                    json!(["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"]);
                operation["consumes"] = if action == "patch" { json!(PATCHES) } else { json!(["*/*"]) };
                let body = match takes {
                    Some(takes) => Some(self.style.reference(&takes)),
                    None if action == "patch" => Some(json!({"type": "object"})),
                    None => None,
                };
                if let (Some(schema), Some(Value::Array(parameters))) = (body, operation.get_mut("parameters")) {
                    parameters.insert(0, json!({"name": "body", "in": "body", "required": !action.starts_with("delete"), "schema": schema}));
                }
            }
        }
        operation
    }
}

fn parameter(style: Style, name: &str) -> Value {
    let kind = match name {
        _ if NUMBERS.contains(&name) => "integer",
        _ if FLAGS.contains(&name) => "boolean",
        _ => "string",
    };
    match style {
        Style::V3 => json!({"name": name, "in": "query", "schema": {"type": kind, "uniqueItems": true}}),
        Style::V2 => json!({"name": name, "in": "query", "type": kind, "uniqueItems": true}),
    }
}

/// The part of a path.
fn in_path(style: Style, name: &str) -> Value {
    match style {
        Style::V3 => {
            json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "uniqueItems": true}})
        }
        Style::V2 => json!({"name": name, "in": "path", "required": true, "type": "string", "uniqueItems": true}),
    }
}

/// Adds the paths of a row below `base`.
pub(super) fn add(paths: &mut Map, style: Style, base: &str, row: &Row, gvk: &Gvk, definition: &str) {
    let operations = Operations { style, gvk, definition };
    let can = |verb: &str| row.verbs.contains(&verb);
    let everywhere = format!("/{base}/{}", row.plural);
    let collection =
        if row.namespaced { format!("/{base}/namespaces/{{namespace}}/{}", row.plural) } else { everywhere.clone() };
    let with = |names: &[&str], pairs: Vec<(&str, Value)>| -> Value {
        let mut item: Map = pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let parameters: Vec<Value> = names.iter().map(|name| in_path(style, name)).collect();
        item.insert("parameters", Value::Array(parameters));
        Value::Object(item)
    };
    let place: &[&str] = if row.namespaced { &["namespace"] } else { &[] };
    let mut named = place.to_vec();
    named.push("name");
    let mut on_collection = Vec::new();
    if can("list") {
        on_collection.push(("get", operations.of("list", &LIST)));
    }
    if can("create") {
        on_collection.push(("post", operations.of("post", &WRITE)));
    }
    if can("deletecollection") {
        on_collection.push(("delete", operations.of("deletecollection", &DELETE)));
    }
    paths.insert(collection.clone(), with(place, on_collection));
    if row.namespaced && can("list") {
        paths.insert(everywhere, with(&[], vec![("get", operations.of("list", &LIST))]));
    }
    let item = format!("{collection}/{{name}}");
    let each = [
        ("get", "get", "get", &["pretty"][..]),
        ("update", "put", "put", &WRITE),
        ("patch", "patch", "patch", &PATCH),
        ("delete", "delete", "delete", &DELETE),
    ];
    let on_item: Vec<(&str, Value)> = each
        .iter()
        .filter(|(verb, ..)| can(verb))
        .map(|(_, method, action, parameters)| (*method, operations.of(action, parameters)))
        .collect();
    if !on_item.is_empty() {
        paths.insert(item.clone(), with(&named, on_item));
    }
    for subresource in &row.subresources {
        let own = subresource.kind(&row.kind);
        let name = own.as_ref().and_then(coracle_api::schema::of).map(|ty| ty.full_name().to_owned());
        let operations =
            Operations { style, gvk: own.as_ref().unwrap_or(gvk), definition: name.as_deref().unwrap_or(definition) };
        let path = format!("{item}/{}", subresource.path());
        paths.insert(path.clone(), with(&named, of_subresource(*subresource, &operations)));
        if *subresource == Subresource::Proxy {
            let mut below = named.clone();
            below.push("path");
            paths.insert(format!("{path}/{{path}}"), with(&below, of_subresource(*subresource, &operations)));
        }
    }
}

fn of_subresource(subresource: Subresource, operations: &Operations<'_>) -> Vec<(&'static str, Value)> {
    if subresource.connects() {
        let methods = if subresource == Subresource::Proxy { &CONNECT_ANY[..] } else { &CONNECT };
        return methods.iter().map(|method| (*method, operations.connect())).collect();
    }
    let each = subresource.verbs().iter().map(|verb| match *verb {
        "create" => ("post", operations.of("post", &WRITE)),
        "update" => ("put", operations.of("put", &WRITE)),
        "patch" => ("patch", operations.of("patch", &PATCH)),
        _ => ("get", operations.of("get", &["pretty"])),
    });
    each.collect()
}
