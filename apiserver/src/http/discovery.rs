//! Discovery: which groups, versions and resources there are, in the classic and the aggregated form.

use super::negotiate::{self, Accept, Format};
use super::{protobuf, render};
use crate::registry::{Row, Rows};
use crate::verbs::Response;
use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use coracle_api::json::{Value, json};
use coracle_api::{Gvk, meta};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use sha2::{Digest, Sha256};

/// Aggregated discovery (KEP-3352), in each form.
const AGGREGATED: [(Format, &str); 3] = [
    (Format::Json, "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"),
    (Format::Yaml, "application/yaml;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"),
    (Format::Protobuf, "application/vnd.kubernetes.protobuf;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"),
];

/// Whether a path is one of those that tell what there is.
pub fn is_path(path: &str) -> bool {
    let path = path.trim_matches('/');
    ["api", "apis"].contains(&path.split('/').next().unwrap_or(path))
}

/// Answers `/api` or `/apis` with all that there is below; None when that was not asked for.
pub fn aggregated(registry: &Rows, path: &str, headers: &HeaderMap) -> Option<Response> {
    let core = match path.trim_matches('/') {
        "api" => true,
        "apis" => false,
        _ => return None,
    };
    let (format, kind) = wants_aggregated(headers)?;
    let document = all_below(registry, core);
    let text = document.to_string();
    // Clients keep the document, and ask whether it is still that one (apiserver `discovery/aggregated/etag.go`).
    let etag = format!("\"{}\"", hex::encode_upper(Sha256::digest(&text)));
    let fresh = headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == etag.as_bytes());
    let body = match format {
        _ if fresh => Body::empty(),
        Format::Json => Body::from(text),
        Format::Yaml => Body::from(render::yaml(&text.into())),
        Format::Protobuf => Body::from(protobuf::aggregated(&document)),
    };
    let mut response = http::Response::new(body);
    if fresh {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let answer = response.headers_mut();
    answer.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer.insert(header::VARY, HeaderValue::from_static("Accept"));
    answer.insert(header::CACHE_CONTROL, HeaderValue::from_static("public"));
    answer.extend(HeaderValue::from_str(&etag).ok().map(|etag| (header::ETAG, etag)));
    Some(response)
}

/// Answers a discovery path; None when it is none, or names nothing that is served.
pub fn answer(registry: &Rows, path: &str, accept: &Accept, address: &str) -> Option<Response> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let document = match parts.as_slice() {
        ["api"] => json!({"kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}]}),
        ["apis"] => {
            let groups: Vec<Value> = named_groups(registry).map(|(name, versions)| group(&name, &versions)).collect();
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
        }
        ["apis", name] => {
            let (name, versions) = named_groups(registry).find(|(known, _)| known == name)?;
            let mut document = group(&name, &versions);
            document["kind"] = "APIGroup".into();
            document["apiVersion"] = "v1".into();
            document
        }
        ["api", version] => resources(registry, "", version)?,
        ["apis", name, version] => resources(registry, name, version)?,
        _ => return None,
    };
    Some(match accept.format {
        Format::Protobuf => {
            // Some say no version, and are of this one all the same.
            let gvk = Gvk::parse("v1", meta::kind(&document))?;
            render::encoded(StatusCode::OK, protobuf::encode_as(&gvk, &document)?)
        }
        _ => render::plain(accept, StatusCode::OK, &document),
    })
}

/// The form of the aggregated document, when that comes before the others that a client takes.
fn wants_aggregated(headers: &HeaderMap) -> Option<(Format, &'static str)> {
    negotiate::first(headers, |clause| {
        let format = match clause.range {
            "application/json" | "application/*" | "*/*" => Format::Json,
            "application/yaml" => Format::Yaml,
            protobuf::MEDIA_TYPE => Format::Protobuf,
            _ => return None,
        };
        let form = AGGREGATED.into_iter().find(|(known, _)| *known == format);
        match (clause.kind, clause.group, clause.version) {
            ("", ..) => Some(None),
            ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2") => Some(form),
            _ => None,
        }
    })
    .flatten()
}

fn named_groups(registry: &Rows) -> impl Iterator<Item = (String, Vec<String>)> {
    let groups = registry.groups().into_iter().filter(|(name, _)| !name.is_empty());
    groups.map(|(name, versions)| (name.to_string(), versions.iter().map(|version| version.to_string()).collect()))
}

fn group(name: &str, versions: &[String]) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(|version| json!({"groupVersion": format!("{name}/{version}"), "version": version}))
        .collect();
    json!({"name": name, "versions": versions, "preferredVersion": versions[0]})
}

/// The rows served in a group and version, with the index of that version.
fn rows<'a>(registry: &'a Rows, group: &'a str, version: &'a str) -> impl Iterator<Item = (&'a Row, usize)> {
    registry.rows().filter_map(move |row| {
        let served = row.served.iter().position(|(g, v)| *g == group && *v == version)?;
        Some((&**row, served))
    })
}

fn resources(registry: &Rows, group: &str, version: &str) -> Option<Value> {
    if !registry.serves(group, version) {
        return None;
    }
    let mut list = Vec::new();
    for (row, _) in rows(registry, group, version) {
        let mut entry = json!({"name": &*row.plural, "singularName": &*row.singular, "namespaced": row.namespaced, "kind": &*row.kind, "verbs": row.verbs});
        if !row.short_names.is_empty() {
            entry["shortNames"] = row.short_names.iter().map(|name| name.to_string()).collect();
        }
        if !row.categories.is_empty() {
            entry["categories"] = row.categories.iter().map(|name| name.to_string()).collect();
        }
        if let Some(hash) = storage_hash(row) {
            entry["storageVersionHash"] = hash.into();
        }
        list.push(entry);
        for subresource in &row.subresources {
            let mut entry = json!({"name": format!("{}/{}", row.plural, subresource.path()), "singularName": "", "namespaced": row.namespaced,
                "kind": &*row.kind, "verbs": subresource.verbs()});
            if let Some(kind) = subresource.kind(&row.kind) {
                entry["kind"] = kind.kind.to_string().into();
                // Which is not told of those of core (apiserver `endpoints/installer.go`: no GroupVersionKindProvider).
                if !kind.group.is_empty() {
                    entry["group"] = kind.group.to_string().into();
                    entry["version"] = kind.version.to_string().into();
                }
            }
            list.push(entry);
        }
    }
    if group.is_empty() {
        list.push(json!({"name": "bindings", "singularName": "binding", "namespaced": true, "kind": "Binding", "verbs": ["create"]}));
    }
    list.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let mut document = json!({"kind": "APIResourceList"});
    if !group.is_empty() {
        // That of core never told it (apiserver `endpoints/discovery/version.go`, keepUnversioned).
        document["apiVersion"] = "v1".into();
    }
    document["groupVersion"] = group_version.into();
    document["resources"] = list.into();
    Some(document)
}

/// Tells storage versions apart, and says nothing else (apiserver `discovery/storageversionhash.go`).
fn storage_hash(row: &Row) -> Option<String> {
    let own = row.gvk(0);
    let version = row.strategy.custom().map_or(&*own.version, |custom| custom.stored_version());
    let kind = format!("{}/{version}/{}", own.group, own.kind);
    let digest = Sha256::digest(kind.as_bytes());
    (!row.storage.is_empty()).then(|| STANDARD.encode(digest.get(..8).unwrap_or_default()))
}

fn all_below(registry: &Rows, core: bool) -> Value {
    let groups = registry.groups().into_iter().filter(|(name, _)| name.is_empty() == core);
    let items: Vec<Value> = groups
        .map(|(name, versions)| {
            let versions: Vec<Value> =
                versions.iter().map(|version| aggregated_version(registry, &name, version)).collect();
            json!({"metadata": {"name": &*name}, "versions": versions})
        })
        .collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

fn aggregated_version(registry: &Rows, group: &str, version: &str) -> Value {
    let kind_of = |gvk: &Gvk| json!({"group": &*gvk.group, "version": &*gvk.version, "kind": &*gvk.kind});
    let mut resources: Vec<Value> = rows(registry, group, version)
        .map(|(row, served)| {
            let own = row.gvk(served);
            let mut entry = json!({"resource": &*row.plural, "responseKind": kind_of(&own),
                "scope": if row.namespaced { "Namespaced" } else { "Cluster" }, "singularResource": &*row.singular, "verbs": row.verbs});
            if !row.short_names.is_empty() {
                entry["shortNames"] = row.short_names.iter().map(|name| name.to_string()).collect();
            }
            if !row.categories.is_empty() {
                entry["categories"] = row.categories.iter().map(|name| name.to_string()).collect();
            }
            if !row.subresources.is_empty() {
                let each = row.subresources.iter().map(|subresource| {
                    let kind = subresource.kind(&row.kind).unwrap_or_else(|| own.clone());
                    json!({"subresource": subresource.path(), "responseKind": kind_of(&kind), "verbs": subresource.verbs()})
                });
                entry["subresources"] = each.collect();
            }
            entry
        })
        .collect();
    if group.is_empty() {
        resources.push(json!({"resource": "bindings", "responseKind": {"group": "", "version": "v1", "kind": "Binding"}, "scope": "Namespaced",
            "singularResource": "binding", "verbs": ["create"]}));
    }
    resources.sort_by(|a, b| a["resource"].as_str().cmp(&b["resource"].as_str()));
    json!({"version": version, "resources": resources, "freshness": "Current"})
}
