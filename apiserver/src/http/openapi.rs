//! OpenAPI v3 and v2, as far as clients need them to know what the server can do: which parameters a PATCH takes.

use crate::registry::{Registry, Rows, Subresource};
use arc_swap::ArcSwapOption;
use coracle_api::Gvk;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The documents, made when they are first asked for.
#[derive(Debug, Default)]
pub struct Documents {
    made: ArcSwapOption<Made>,
}

#[derive(Debug)]
struct Made {
    /// Of the rows that they describe.
    generation: u64,
    root: Value,
    /// By the path below /openapi/v3: the document.
    documents: BTreeMap<String, Value>,
}

impl Documents {
    /// The document of a path below /openapi/v3; the list of them for the path itself.
    pub fn v3(&self, registry: &Registry, path: &str) -> Option<Value> {
        let made = self.made(registry);
        match path.trim_matches('/') {
            "" => Some(made.root.clone()),
            path => made.documents.get(path).cloned(),
        }
    }

    /// The documents of what is served now.
    fn made(&self, registry: &Registry) -> Arc<Made> {
        let rows = registry.current();
        match self.made.load_full().filter(|made| made.generation == rows.generation) {
            Some(made) => made,
            None => {
                let made = Arc::new(make(&rows));
                self.made.store(Some(made.clone()));
                made
            }
        }
    }

    /// OpenAPI v2: the same paths in one document.
    pub fn v2(&self, registry: &Registry) -> Value {
        let made = self.made(registry);
        let mut paths = Map::new();
        for document in made.documents.values() {
            paths.extend(document["paths"].as_object().cloned().unwrap_or_default());
        }
        json!({"swagger": "2.0", "info": info(), "paths": paths, "definitions": {}})
    }
}

fn info() -> Value {
    json!({"title": "Kubernetes", "version": super::version::GIT_VERSION})
}

fn make(registry: &Rows) -> Made {
    let mut documents = BTreeMap::new();
    let mut list = Map::new();
    for (group, versions) in registry.groups() {
        for version in versions {
            let path = if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") };
            let document =
                json!({"openapi": "3.0.0", "info": info(), "paths": paths(registry, &path, &group, &version)});
            let hash = hex::encode_upper(Sha256::digest(document.to_string()));
            list.insert(path.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}")}));
            documents.insert(path, document);
        }
    }
    Made { generation: registry.generation, root: json!({"paths": list}), documents }
}

fn paths(registry: &Rows, base: &str, group: &str, version: &str) -> Value {
    let mut paths = Map::new();
    for row in registry.rows() {
        let Some(served) = row.served.iter().position(|(g, v)| *g == group && *v == version) else { continue };
        let collection = if row.namespaced {
            format!("/{base}/namespaces/{{namespace}}/{}", row.plural)
        } else {
            format!("/{base}/{}", row.plural)
        };
        let gvk = row.gvk(served);
        let item = format!("{collection}/{{name}}");
        paths.insert(
            collection,
            json!({"get": operation("list", &gvk, &[]), "post": operation("post", &gvk, &WRITE), "delete": operation("deletecollection", &gvk, &[])}),
        );
        for subresource in &row.subresources {
            let gvk = subresource.kind().unwrap_or_else(|| gvk.clone());
            paths.insert(format!("{item}/{}", subresource.path()), subresource_operations(*subresource, &gvk));
        }
        let operations = json!({"get": operation("get", &gvk, &[]), "put": operation("put", &gvk, &WRITE),
            "patch": operation("patch", &gvk, &PATCH), "delete": operation("delete", &gvk, &["dryRun", "gracePeriodSeconds", "propagationPolicy"])});
        paths.insert(item, operations);
    }
    Value::Object(paths)
}

const WRITE: [&str; 3] = ["dryRun", "fieldManager", "fieldValidation"];
const PATCH: [&str; 4] = ["dryRun", "fieldManager", "fieldValidation", "force"];

fn subresource_operations(subresource: Subresource, gvk: &Gvk) -> Value {
    let mut operations = Map::new();
    for verb in subresource.verbs() {
        let (method, parameters): (_, &[&str]) = match *verb {
            "create" => ("post", &WRITE),
            "update" => ("put", &WRITE),
            "patch" => ("patch", &PATCH),
            _ => ("get", &[]),
        };
        operations.insert(method.to_owned(), operation(method, gvk, parameters));
    }
    Value::Object(operations)
}

fn operation(action: &str, gvk: &Gvk, parameters: &[&str]) -> Value {
    let parameters: Vec<Value> = parameters
        .iter()
        .map(|name| json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}}))
        .collect();
    json!({
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": {"group": &*gvk.group, "version": &*gvk.version, "kind": &*gvk.kind},
        "parameters": parameters,
        "responses": {"200": {"description": "OK"}},
    })
}
