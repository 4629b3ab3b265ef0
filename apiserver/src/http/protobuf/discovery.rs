//! The aggregated discovery document, whose types no schema holds (k8s.io/api/apidiscovery/v2, `generated.proto`).

use super::encode::{bytes, envelope};
use coracle_api::json::Value;
use coracle_api::meta;

/// What stands in a field, once or in a list: text, or a message.
#[derive(Clone, Copy)]
enum Part {
    Text,
    Of(&'static [Field]),
}

/// Name, number and what there is.
type Field = (&'static str, u64, Part);

const LIST: &[Field] = &[("metadata", 1, Part::Of(&[])), ("items", 2, Part::Of(GROUP))];
/// Of a group's metadata there is the name.
const GROUP: &[Field] = &[("metadata", 1, Part::Of(&[("name", 1, Part::Text)])), ("versions", 2, Part::Of(VERSION))];
const VERSION: &[Field] =
    &[("version", 1, Part::Text), ("resources", 2, Part::Of(RESOURCE)), ("freshness", 3, Part::Text)];
const RESOURCE: &[Field] = &[
    ("resource", 1, Part::Text),
    ("responseKind", 2, Part::Of(KIND)),
    ("scope", 3, Part::Text),
    ("singularResource", 4, Part::Text),
    ("verbs", 5, Part::Text),
    ("shortNames", 6, Part::Text),
    ("categories", 7, Part::Text),
    ("subresources", 8, Part::Of(SUBRESOURCE)),
];
const SUBRESOURCE: &[Field] =
    &[("subresource", 1, Part::Text), ("responseKind", 2, Part::Of(KIND)), ("verbs", 4, Part::Text)];
const KIND: &[Field] = &[("group", 1, Part::Text), ("version", 2, Part::Text), ("kind", 3, Part::Text)];

/// An APIGroupDiscoveryList with its envelope.
pub fn aggregated(document: &Value) -> Vec<u8> {
    envelope(meta::api_version(document), meta::kind(document), &message(document, LIST))
}

fn message(document: &Value, fields: &[Field]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, number, part) in fields {
        let Some(value) = document.get(*name) else { continue };
        let items = value.as_array().map_or(std::slice::from_ref(value), |items| items);
        for item in items {
            match part {
                Part::Text => bytes(&mut out, *number, item.as_str().unwrap_or_default().as_bytes()),
                Part::Of(fields) => bytes(&mut out, *number, &message(item, fields)),
            }
        }
    }
    out
}
