//! OpenAPI v3 and v2: what the server serves, for clients that look before they ask (`kubectl explain`, `kubectl apply`).
//!
//! Documents are made from the rows, the schema table and the descriptions when they are first asked for, and kept
//! compressed: uncompressed they take twenty times as much. Their hashes do not need them: a document follows from the rows.

mod custom;
mod definitions;
mod descriptions;
mod enums;
mod names;
mod pages;
mod parameters;
mod paths;
mod v2_protobuf;
mod v3_protobuf;
mod wire;

use super::negotiate;
use crate::registry::{Registry, Row, Rows};
use crate::verbs::Response;
use axum::body::Body;
use bytes::Bytes;
use coracle_api::json::{Map, Value, json};
use coracle_api::schema;
use definitions::{Definitions, Style};
use descriptions::Descriptions;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use names::Names;
use pages::Page;
use parking_lot::Mutex;
use paths::Paths;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{Read, Write};

/// What Go clients ask for.
const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// What they are answered with: no `@` may stand in a Content-Type (kube-openapi `handler.go`).
const V2_PROTOBUF_ANSWERED: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// The same of v3 (kube-openapi `handler3`).
const V3_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v3@v1.0+protobuf";
const V3_PROTOBUF_ANSWERED: &str = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf";

/// The documents, made when they are first asked for.
#[derive(Debug, Default)]
pub struct Documents {
    made: Mutex<Made>,
}

/// Documents of one generation of rows, compressed.
#[derive(Debug, Default)]
struct Made {
    generation: u64,
    documents: BTreeMap<String, Bytes>,
}

impl Documents {
    /// Answers a path below /openapi. None when there is nothing at it.
    pub fn answer(
        &self,
        registry: &Registry,
        path: &str,
        query: Option<&str>,
        headers: &HeaderMap,
    ) -> Option<Response> {
        let rows = registry.current();
        let path = path.trim_matches('/');
        if path == "v2" {
            let Some(protobuf) = wants(headers, [V2_PROTOBUF, V2_PROTOBUF_ANSWERED]) else {
                return Some(not_acceptable());
            };
            let (name, kind) = if protobuf { ("v2.pb", V2_PROTOBUF_ANSWERED) } else { ("v2", "application/json") };
            let document = self.document(&rows, name, || {
                let document = v2(&rows);
                if protobuf { v2_protobuf::encode(&document) } else { document.to_string().into_bytes() }
            });
            return Some(respond(headers, document, kind, &hash_of_all(&rows)));
        }
        let path = path.strip_prefix("v3")?.trim_matches('/');
        if path.is_empty() {
            let list = contents(&rows).into_iter().map(|(path, of)| {
                let url = format!("/openapi/v3/{path}?hash={}", of.hash(&rows));
                (path, json!({"serverRelativeURL": url}))
            });
            let root = json!({"paths": list.collect::<Map>()}).to_string();
            return Some(respond(headers, compress(root.as_bytes()), "application/json", &hash_of_all(&rows)));
        }
        let (_, of) = contents(&rows).into_iter().find(|(known, _)| known == path)?;
        let hash = of.hash(&rows);
        let asked = crate::options::pairs(query.unwrap_or_default()).into_iter().find(|(name, _)| name == "hash");
        if asked.as_ref().is_some_and(|(_, asked)| *asked != hash) {
            // A document of before: the one of now is elsewhere (kube-openapi `handler3`).
            let mut response = http::Response::new(Body::empty());
            *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
            let location = HeaderValue::from_str(&format!("/openapi/v3/{path}?hash={hash}")).ok()?;
            response.headers_mut().insert(header::LOCATION, location);
            return Some(response);
        }
        let Some(protobuf) = wants(headers, [V3_PROTOBUF, V3_PROTOBUF_ANSWERED]) else { return Some(not_acceptable()) };
        let (name, kind) = match protobuf {
            true => (format!("{path}.pb"), V3_PROTOBUF_ANSWERED),
            false => (path.to_owned(), "application/json"),
        };
        let document = self.document(&rows, &name, || {
            let document = of.v3(&rows, path);
            if protobuf { v3_protobuf::encode(&document) } else { document.to_string().into_bytes() }
        });
        let mut response = respond(headers, document, kind, &hash);
        if asked.is_some() {
            // What a hash leads to never changes.
            let forever = HeaderValue::from_static("public, max-age=31536000, immutable");
            response.headers_mut().insert(header::CACHE_CONTROL, forever);
        }
        Some(response)
    }

    /// A document of the rows as they are, made outside the lock.
    fn document(&self, rows: &Rows, name: &str, make: impl FnOnce() -> Vec<u8>) -> Bytes {
        {
            let mut made = self.made.lock();
            if made.generation != rows.generation {
                *made = Made { generation: rows.generation, documents: BTreeMap::new() };
            }
            if let Some(document) = made.documents.get(name) {
                return document.clone();
            }
        }
        let document = compress(&make());
        let mut made = self.made.lock();
        if made.generation == rows.generation {
            made.documents.insert(name.to_owned(), document.clone());
        }
        document
    }
}

/// Whether protobuf, under either name, is wanted rather than JSON; None when neither is (kube-openapi `handler`, `handler3`).
fn wants(headers: &HeaderMap, protobuf: [&str; 2]) -> Option<bool> {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut asked = values
        .flat_map(|value| value.split(','))
        .map(|clause| clause.split(';').next().unwrap_or_default().trim())
        .filter(|kind| !kind.is_empty())
        .peekable();
    if asked.peek().is_none() {
        return Some(false);
    }
    asked.find_map(|kind| match kind {
        kind if protobuf.contains(&kind) => Some(true),
        "application/json" | "*/*" | "application/*" => Some(false),
        _ => None,
    })
}

fn not_acceptable() -> Response {
    let mut response = http::Response::new(Body::empty());
    *response.status_mut() = StatusCode::NOT_ACCEPTABLE;
    response
}

fn compress(document: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    // Writing to a Vec does not fail.
    let written = encoder.write_all(document).and_then(|()| encoder.finish());
    written.map(Bytes::from).unwrap_or_default()
}

fn respond(headers: &HeaderMap, compressed: Bytes, kind: &'static str, hash: &str) -> Response {
    let tag = HeaderValue::from_str(&format!("\"{hash}\"")).ok();
    if tag.is_some() && headers.get(header::IF_NONE_MATCH) == tag.as_ref() {
        let mut response = http::Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return response;
    }
    let gzip = negotiate::accepts_gzip(headers);
    let body = if gzip {
        compressed
    } else {
        let mut plain = Vec::new();
        // What was compressed here can be read here.
        let _ = GzDecoder::new(&compressed[..]).read_to_end(&mut plain);
        plain.into()
    };
    let mut response = http::Response::new(Body::from(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    if gzip {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    if let Some(tag) = tag {
        headers.insert(header::ETAG, tag);
    }
    response
}

/// Path, group and version of each document.
fn group_versions(rows: &Rows) -> impl Iterator<Item = (String, String, String)> {
    let groups = rows.groups().into_iter();
    groups.flat_map(|(group, versions)| {
        versions.into_iter().map(move |version| {
            let path = if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") };
            (path, group.to_string(), version.to_string())
        })
    })
}

/// What a document of OpenAPI v3 tells of.
enum Content {
    Version { group: String, version: String },
    Page(Page),
}

/// The documents of OpenAPI v3, in order of their paths.
fn contents(rows: &Rows) -> Vec<(String, Content)> {
    let versions = group_versions(rows).map(|(path, group, version)| (path, Content::Version { group, version }));
    let pages = pages(rows).into_iter().map(|page| (page.path.trim_matches('/').to_owned(), Content::Page(page)));
    let mut all: Vec<_> = versions.chain(pages).collect();
    all.sort_by(|(one, _), (other, _)| one.cmp(other));
    all
}

fn pages(rows: &Rows) -> Vec<Page> {
    let groups: Vec<String> = rows.groups().into_iter().map(|(group, _)| group.to_string()).collect();
    Page::all(groups.iter().map(String::as_str))
}

impl Content {
    fn hash(&self, rows: &Rows) -> String {
        match self {
            Self::Version { group, version } => hash(rows, group, version),
            Self::Page(page) => hex::encode_upper(of_the_server().chain_update(page.path.as_bytes()).finalize()),
        }
    }

    fn v3(&self, rows: &Rows, path: &str) -> Value {
        match self {
            Self::Version { group, version } => v3(rows, path, group, version),
            Self::Page(page) => {
                let none = Descriptions::default();
                let mut definitions = Definitions::new(Style::V3, &none);
                let mut paths = Map::new();
                page.add(Style::V3, &mut paths, &mut definitions);
                whole_v3(paths, definitions)
            }
        }
    }
}

/// The rows served in a group and version, with the index of that version.
fn rows_of<'r>(rows: &'r Rows, group: &'r str, version: &'r str) -> impl Iterator<Item = (&'r Row, usize)> {
    rows.rows().filter_map(move |row| {
        let served = row.served.iter().position(|(g, v)| *g == group && *v == version)?;
        Some((&**row, served))
    })
}

/// Every document follows from what the server is.
fn of_the_server() -> Sha256 {
    let digest = Sha256::new_with_prefix(super::version::GIT_VERSION).chain_update(env!("CARGO_PKG_VERSION"));
    digest.chain_update(*enums::DIGEST).chain_update(*parameters::DIGEST)
}

/// What a document follows from.
fn hash(rows: &Rows, group: &str, version: &str) -> String {
    let mut digest = of_the_server();
    for (row, served) in rows_of(rows, group, version) {
        let what = (row.gvk(served), &row.plural, row.namespaced, row.verbs, &row.subresources);
        digest.update(format!("{what:?}"));
        if let Some(custom) = row.strategy.custom() {
            digest.update(custom.openapi().to_string());
        }
    }
    hex::encode_upper(digest.finalize())
}

fn hash_of_all(rows: &Rows) -> String {
    let mut digest = Sha256::new();
    for (_, group, version) in group_versions(rows) {
        digest.update(hash(rows, &group, &version));
    }
    hex::encode_upper(digest.finalize())
}

fn info() -> Value {
    json!({"title": "Kubernetes", "version": super::version::GIT_VERSION})
}

/// The definition that a kind goes by.
fn definition_name(row: &Row, served: usize) -> String {
    let gvk = row.gvk(served);
    match schema::of(&gvk) {
        Some(ty) if row.schema.is_none() => ty.full_name().to_owned(),
        _ => {
            let group: Vec<&str> = gvk.group.rsplit('.').collect();
            format!("{}.{}.{}", group.join("."), gvk.version, gvk.kind)
        }
    }
}

/// Adds paths and definitions of a group and version.
fn collect(
    rows: &Rows,
    base: &str,
    (group, version): (&str, &str),
    style: Style,
    found: &mut Map,
    definitions: &mut Definitions<'_>,
) {
    Page::of_resources(base).add(style, found, definitions);
    let mut paths = Paths { style, base, names: Names::of(base), found };
    for name in ["DeleteOptions", "Status", "WatchEvent"] {
        let ty = schema::named(&format!("io.k8s.apimachinery.pkg.apis.meta.v1.{name}"));
        ty.into_iter().for_each(|ty| definitions.add(ty));
    }
    for (row, served) in rows_of(rows, group, version) {
        let gvk = row.gvk(served);
        let name = definition_name(row, served);
        let kind = json!({"group": group, "version": version, "kind": &*gvk.kind});
        let list_kind = json!({"group": group, "version": version, "kind": format!("{}List", gvk.kind)});
        let list = format!("{name}List");
        match (row.strategy.custom(), schema::of(&gvk)) {
            (Some(custom), _) => custom::add(definitions, style, &name, custom.openapi()),
            (None, Some(ty)) => {
                definitions.add(ty);
                schema::named(&list).into_iter().for_each(|ty| definitions.add(ty));
            }
            (None, None) => {}
        }
        definitions.kinds(&name, &[kind]);
        definitions.kinds(&list, &[list_kind]);
        for subresource in row.subresources.iter().filter_map(|subresource| subresource.kind(&row.kind)) {
            if let Some(ty) = schema::of(&subresource) {
                let kind =
                    json!({"group": &*subresource.group, "version": &*subresource.version, "kind": &*subresource.kind});
                definitions.add(ty);
                definitions.kinds(ty.full_name(), &[kind]);
            }
        }
        paths.add(row, &gvk, &name);
    }
}

fn v3(rows: &Rows, path: &str, group: &str, version: &str) -> Value {
    let descriptions = Descriptions::of(group, version);
    let mut definitions = Definitions::new(Style::V3, &descriptions);
    let mut paths = Map::new();
    collect(rows, path, (group, version), Style::V3, &mut paths, &mut definitions);
    whole_v3(paths, definitions)
}

fn whole_v3(mut paths: Map, definitions: Definitions<'_>) -> Value {
    paths.sort_keys();
    let components = json!({"schemas": definitions.finish(), "securitySchemes": security()});
    json!({"openapi": "3.0.0", "info": info(), "paths": paths, "components": components})
}

/// How clients say who they are, for those that are generated.
fn security() -> Value {
    json!({"BearerToken": {
        "description": "A token, after the word Bearer.", "type": "apiKey", "name": "authorization", "in": "header",
    }})
}

fn v2(rows: &Rows) -> Value {
    let all: Vec<_> = group_versions(rows).collect();
    let descriptions: Vec<Descriptions> =
        all.iter().map(|(_, group, version)| Descriptions::of(group, version)).collect();
    let none = Descriptions::default();
    let mut definitions = Definitions::new(Style::V2, &none);
    let mut paths = Map::new();
    for ((path, group, version), descriptions) in all.iter().zip(&descriptions) {
        definitions = definitions.describe(descriptions);
        collect(rows, path, (group, version), Style::V2, &mut paths, &mut definitions);
    }
    pages(rows).iter().for_each(|page| page.add(Style::V2, &mut paths, &mut definitions));
    paths.sort_keys();
    json!({"swagger": "2.0", "info": info(), "paths": paths, "definitions": definitions.finish(),
        "parameters": parameters::shared(), "securityDefinitions": security(), "security": [{"BearerToken": []}]})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_leads_somewhere() {
        let registry = Registry::builtin();
        let rows = registry.current();
        fn references<'v>(value: &'v Value, out: &mut Vec<&'v str>) {
            match value {
                Value::Object(map) => {
                    out.extend(map.get("$ref").and_then(Value::as_str));
                    map.values().for_each(|value| references(value, out));
                }
                Value::Array(items) => items.iter().for_each(|value| references(value, out)),
                _ => {}
            }
        }
        let mut documents: Vec<Value> =
            group_versions(&rows).map(|(path, group, version)| v3(&rows, &path, &group, &version)).collect();
        documents.push(v2(&rows));
        for document in &documents {
            let mut found = Vec::new();
            references(document, &mut found);
            for reference in found {
                let target = document.pointer(&reference[1..]);
                assert!(target.is_some_and(Value::is_object), "{reference}");
            }
        }
        let core = &documents[0]["components"]["schemas"];
        let containers = &core["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
        assert_eq!(
            (&containers["x-kubernetes-list-map-keys"], &containers["x-kubernetes-patch-merge-key"]),
            (&json!(["name"]), &json!("name"))
        );
        assert!(containers["description"].as_str().unwrap().contains("containers"));
        let undescribed =
            core.as_object().unwrap().values().filter(|schema| schema.get("description").is_none()).count();
        assert!(undescribed <= 2, "{undescribed}");
    }
}
