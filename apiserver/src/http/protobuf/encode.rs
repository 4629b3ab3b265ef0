//! From documents to protobuf: the other direction of [`decode`](super::decode).

use super::MAGIC;
use super::numbers::{Either, NUMBERS, Numbers};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use coracle_api::json::{Map, Value};
use coracle_api::schema::{self, Kind, Scalar, TypeRef, ValueRef};
use coracle_api::{Gvk, meta};
use jiff::Timestamp;

/// Whether objects of a kind can be answered in protobuf: it has field numbers. Custom resources have none, as upstream.
pub fn is_offered(gvk: &Gvk) -> bool {
    schema::of(gvk).is_some_and(is_numbered)
}

fn is_numbered(ty: TypeRef<'_>) -> bool {
    NUMBERS.contains_key(ty.full_name())
}

/// A document with its envelope. None for a kind without field numbers.
pub fn encode(document: &Value) -> Option<Vec<u8>> {
    Some(envelope(meta::api_version(document), meta::kind(document), &message(document)?))
}

/// A document of a kind with its envelope, which says of the kind what the document does: not always its version.
pub fn encode_as(gvk: &Gvk, document: &Value) -> Option<Vec<u8>> {
    let ty = schema::of(gvk).filter(|ty| is_numbered(*ty))?;
    Some(envelope(meta::api_version(document), meta::kind(document), &structure(document.as_object()?, ty)))
}

/// The message of a document, without its envelope. None for a kind without field numbers.
pub fn message(document: &Value) -> Option<Vec<u8>> {
    let gvk = meta::gvk(document)?;
    let object = document.as_object()?;
    if &*gvk.group == "meta.k8s.io" && &*gvk.kind == "PartialObjectMetadata" {
        let ty = schema::named("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")?;
        let mut out = Vec::new();
        if let Some(Value::Object(metadata)) = object.get("metadata") {
            bytes(&mut out, 1, &structure(metadata, ty));
        }
        return Some(out);
    }
    let ty = schema::of(&gvk).filter(|ty| is_numbered(*ty))?;
    Some(structure(object, ty))
}

/// A message in its envelope, ready to be sent.
pub fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len() + api_version.len() + kind.len() + 24);
    out.extend_from_slice(&envelope_head(api_version, kind, raw.len()));
    out.extend_from_slice(raw);
    out
}

/// What stands before a message of `length` bytes in its envelope.
pub fn envelope_head(api_version: &str, kind: &str, length: usize) -> Vec<u8> {
    let mut type_meta = Vec::new();
    bytes(&mut type_meta, 1, api_version.as_bytes());
    bytes(&mut type_meta, 2, kind.as_bytes());
    let mut out = MAGIC.to_vec();
    bytes(&mut out, 1, &type_meta);
    length_of(&mut out, 2, length);
    out
}

/// The message of a list's metadata.
pub fn list_meta(metadata: &Value) -> Vec<u8> {
    let ty = schema::named("io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta");
    match (ty, metadata.as_object()) {
        (Some(ty), Some(metadata)) => structure(metadata, ty),
        _ => Vec::new(),
    }
}

/// A frame of a watch: its length, and a WatchEvent that holds an object in its envelope (apimachinery
/// `serializer/streaming`, `LengthDelimitedFramer`).
pub fn frame(change: &str, object: &[u8]) -> Vec<u8> {
    let mut raw_extension = Vec::with_capacity(object.len() + 8);
    bytes(&mut raw_extension, 1, object);
    let mut event = Vec::with_capacity(raw_extension.len() + 24);
    bytes(&mut event, 1, change.as_bytes());
    bytes(&mut event, 2, &raw_extension);
    let mut out = Vec::with_capacity(event.len() + 4);
    out.extend_from_slice(&u32::try_from(event.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(&event);
    out
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The key and length of a field of bytes.
pub fn length_of(out: &mut Vec<u8>, number: u64, length: usize) {
    varint(out, number << 3 | 2);
    varint(out, length as u64);
}

pub(super) fn bytes(out: &mut Vec<u8>, number: u64, value: &[u8]) {
    length_of(out, number, value.len());
    out.extend_from_slice(value);
}

fn number(out: &mut Vec<u8>, at: u64, value: i64) {
    varint(out, at << 3);
    // Signed numbers are written in two's complement.
    varint(out, value.cast_unsigned());
}

fn structure(object: &Map, ty: TypeRef<'static>) -> Vec<u8> {
    let mut out = Vec::new();
    if let Some(numbers) = NUMBERS.get(ty.full_name()) {
        fields(&mut out, object, numbers, ty);
    }
    out
}

fn fields(out: &mut Vec<u8>, object: &Map, numbers: &Numbers, ty: TypeRef<'static>) {
    for (number, numbered) in &numbers.fields {
        let (Some(value), Some(field)) = (object.get(numbered.name), ty.field(numbered.name)) else { continue };
        match (numbered.either, field.value().kind(), value) {
            (None, ..) => add(out, *number, value, field.value()),
            (Some(form), Kind::Map(_), Value::Object(entries)) => {
                entries.iter().for_each(|(key, value)| entry(out, *number, key, |out| either(out, 2, value, form, ty)));
            }
            (Some(form), ..) => either(out, *number, value, form, ty),
        }
    }
    for (number, inner) in &numbers.embedded {
        let mut embedded = Vec::new();
        fields(&mut embedded, object, inner, ty);
        if !embedded.is_empty() {
            bytes(out, *number, &embedded);
        }
    }
}

/// All occurrences of a field.
fn add(out: &mut Vec<u8>, at: u64, value: &Value, kind: ValueRef<'static>) {
    match (kind.kind(), value) {
        (Kind::List(inner), Value::Array(items)) => items.iter().for_each(|item| single(out, at, item, inner)),
        (Kind::Map(inner), Value::Object(entries)) => {
            entries.iter().for_each(|(key, value)| entry(out, at, key, |out| single(out, 2, value, inner)));
        }
        _ => single(out, at, value, kind),
    }
}

/// An entry of a map, whose value `write` adds.
fn entry(out: &mut Vec<u8>, at: u64, key: &str, write: impl FnOnce(&mut Vec<u8>)) {
    let mut entry = Vec::new();
    bytes(&mut entry, 1, key.as_bytes());
    write(&mut entry);
    bytes(out, at, &entry);
}

/// A value that may be one of two things.
fn either(out: &mut Vec<u8>, at: u64, value: &Value, form: Either, schema: TypeRef<'static>) {
    let mut message = Vec::new();
    match (value, form) {
        // Upstream reads a schema as allowing something.
        (Value::Object(object), Either::Bool) => {
            number(&mut message, 1, 1);
            bytes(&mut message, 2, &structure(object, schema));
        }
        (Value::Bool(is), Either::Bool) => number(&mut message, 1, i64::from(*is)),
        (Value::Object(object), _) => bytes(&mut message, 1, &structure(object, schema)),
        (Value::Array(items), Either::Schemas) => {
            items.iter().for_each(|item| single(&mut message, 2, item, schema.value()))
        }
        (Value::Array(items), Either::Strings) => {
            items.iter().filter_map(Value::as_str).for_each(|name| bytes(&mut message, 2, name.as_bytes()));
        }
        _ => {}
    }
    bytes(out, at, &message);
}

/// One value.
fn single(out: &mut Vec<u8>, at: u64, value: &Value, kind: ValueRef<'static>) {
    match (kind.kind(), value) {
        (Kind::Object(ty), Value::Object(object)) => bytes(out, at, &structure(object, ty)),
        // A list inside a map or list is a message with one repeated field.
        (Kind::List(inner), Value::Array(items)) => {
            let mut list = Vec::new();
            items.iter().for_each(|item| single(&mut list, 1, item, inner));
            bytes(out, at, &list);
        }
        (Kind::Scalar(scalar), value) => self::scalar(out, at, value, scalar),
        _ => {}
    }
}

fn scalar(out: &mut Vec<u8>, at: u64, value: &Value, scalar: Scalar) {
    let text = value.as_str().unwrap_or_default();
    match scalar {
        Scalar::String => bytes(out, at, text.as_bytes()),
        Scalar::Bytes => bytes(out, at, &STANDARD.decode(text).unwrap_or_default()),
        Scalar::Bool => number(out, at, i64::from(value == &Value::Bool(true))),
        Scalar::Int32 | Scalar::Int64 => number(out, at, value.as_i64().unwrap_or(0)),
        Scalar::Number => {
            varint(out, at << 3 | 1);
            out.extend_from_slice(&value.as_f64().unwrap_or(0.0).to_le_bytes());
        }
        Scalar::Quantity => {
            let mut quantity = Vec::new();
            match value {
                Value::String(text) => bytes(&mut quantity, 1, text.as_bytes()),
                other => bytes(&mut quantity, 1, other.to_string().as_bytes()),
            }
            bytes(out, at, &quantity);
        }
        Scalar::IntOrString => {
            let mut either = Vec::new();
            number(&mut either, 1, i64::from(value.is_string()));
            number(&mut either, 2, value.as_i64().unwrap_or(0));
            bytes(&mut either, 3, text.as_bytes());
            bytes(out, at, &either);
        }
        Scalar::Time | Scalar::MicroTime => {
            let Ok(time) = text.parse::<Timestamp>() else { return };
            let mut message = Vec::new();
            number(&mut message, 1, time.as_second());
            number(&mut message, 2, i64::from(time.subsec_nanosecond()));
            bytes(out, at, &message);
        }
        Scalar::Any | Scalar::RawObject => {
            let mut raw = Vec::new();
            bytes(&mut raw, 1, as_go_writes(value.to_string()).as_bytes());
            bytes(out, at, &raw);
        }
    }
}

/// JSON with those characters escaped that Go escapes for HTML's sake. They stand in strings only. Upstream keeps the bytes of a
/// part that is no type of its own, and its controllers compare them: a ControllerRevision's data with what Go writes now.
fn as_go_writes(json: String) -> String {
    const ESCAPED: [(char, &str); 5] =
        [('<', "\\u003c"), ('>', "\\u003e"), ('&', "\\u0026"), ('\u{2028}', "\\u2028"), ('\u{2029}', "\\u2029")];
    if !json.contains(ESCAPED.map(|(c, _)| c)) {
        return json;
    }
    ESCAPED.iter().fold(json, |json, (c, escape)| json.replace(*c, escape))
}

#[cfg(test)]
mod tests {
    use super::super::decode;
    use super::*;
    use coracle_api::json::json;
    use std::collections::{BTreeSet, HashSet};

    fn has(numbers: &Numbers, field: &str) -> bool {
        numbers.fields.values().any(|numbered| numbered.name == field)
            || numbers.embedded.values().any(|inner| has(inner, field))
    }

    /// A value for a field that may be one of two things.
    fn sample_either(numbers: Option<&Numbers>, field: &str) -> Option<Value> {
        let numbered = numbers?.fields.values().find(|numbered| numbered.name == field)?;
        Some(match numbered.either? {
            Either::Schemas => json!([{"type": "string"}, {"maxLength": 0}]),
            Either::Bool => false.into(),
            Either::Strings => json!({"a": ["b", "c"], "d": {"not": {}}}),
        })
    }

    /// A value with every field set, as deep as it goes.
    fn sample(value: ValueRef<'static>, depth: usize) -> Option<Value> {
        Some(match value.kind() {
            Kind::Object(ty) => {
                if depth == 0 {
                    return None;
                }
                let numbers = NUMBERS.get(ty.full_name());
                let fields = ty.fields().filter_map(|field| {
                    let numbered = numbers.is_some_and(|numbers| has(numbers, field.name()));
                    let value = || sample_either(numbers, field.name()).or_else(|| sample(field.value(), depth - 1));
                    numbered.then(|| Some((field.name().to_owned(), value()?))).flatten()
                });
                Value::Object(fields.collect())
            }
            Kind::List(inner) => Value::Array(vec![sample(inner, depth)?, sample(inner, depth)?]),
            Kind::Map(inner) => json!({"a": sample(inner, depth)?, "b": sample(inner, depth)?}),
            Kind::Scalar(scalar) => match scalar {
                Scalar::String => "text".into(),
                Scalar::Int32 => (-3).into(),
                Scalar::Int64 => 5_000_000_000_i64.into(),
                Scalar::Bool => true.into(),
                Scalar::Number => 1.5.into(),
                Scalar::Quantity => "100m".into(),
                Scalar::IntOrString => "25%".into(),
                Scalar::Time => "2026-01-02T03:04:05Z".into(),
                Scalar::MicroTime => "2026-01-02T03:04:05.000006Z".into(),
                Scalar::Bytes => "AAEC".into(),
                Scalar::Any | Scalar::RawObject => json!({"f:a": {"f:b": [1, "x"]}}),
            },
        })
    }

    #[test]
    fn every_field_of_every_kind_comes_back() {
        let mut kinds = 0;
        for (gvk, ty) in schema::builtin().kinds() {
            // Lists are written from their items; DeleteOptions and others stand in every group.
            if &*gvk.group == "*" || gvk.kind.ends_with("List") || !is_offered(gvk) {
                continue;
            }
            // A JSON schema holds more of its kind in many fields.
            let depth = if &*gvk.group == "apiextensions.k8s.io" { 7 } else { 9 };
            let mut object = sample(ty.value(), depth).unwrap();
            object["apiVersion"] = gvk.api_version().into();
            object["kind"] = gvk.kind.to_string().into();
            let found = decode(&encode(&object).unwrap(), gvk).unwrap_or_else(|status| panic!("{gvk}: {status}"));
            assert_eq!(found, object, "{gvk}");
            kinds += 1;
        }
        assert!(kinds > 60, "{kinds}");
    }

    #[test]
    fn numbers_and_text_where_either_may_stand() {
        let gvk = Gvk::of("", "v1", "Service");
        let object = json!({"apiVersion": "v1", "kind": "Service", "spec": {"ports": [{"port": 80, "targetPort": 8080}, {"port": 81, "targetPort": "web"}]}});
        let mut found = decode(&encode(&object).unwrap(), &gvk).unwrap();
        found["spec"]["ports"]
            .as_array_mut()
            .unwrap()
            .iter_mut()
            .for_each(|port| port.as_object_mut().unwrap().sort_keys());
        assert_eq!(found["spec"], object["spec"]);
        assert!(!is_offered(&Gvk::of("example.com", "v1", "Widget")));
        assert!(is_offered(&Gvk::of("", "v1", "Status")));
    }

    /// Every kind that is served has numbers, with all its fields, even those that are gated off.
    #[test]
    fn nothing_that_is_served_lacks_numbers() {
        let (mut seen, mut lacking) = (HashSet::new(), BTreeSet::new());
        let registry = crate::registry::Registry::builtin().current();
        for row in registry.rows() {
            let kinds = (0..row.served.len()).filter_map(|served| schema::of(&row.gvk(served)));
            kinds.for_each(|ty| numbered(ty, &mut seen, &mut lacking));
        }
        assert!(seen.len() > 300 && lacking.is_empty(), "{lacking:?}");
    }

    /// Finds fields without numbers, in a type and in all that it holds.
    fn numbered(ty: TypeRef<'static>, seen: &mut HashSet<&'static str>, lacking: &mut BTreeSet<String>) {
        if !seen.insert(ty.full_name()) {
            return;
        }
        let numbers = NUMBERS.get(ty.full_name());
        for field in ty.fields().filter(|field| !["apiVersion", "kind"].contains(&field.name())) {
            if !numbers.is_some_and(|numbers| has(numbers, field.name())) {
                lacking.insert(format!("{} {}", ty.full_name(), field.name()));
            } else if let Some(inner) = innermost(field.value()) {
                numbered(inner, seen, lacking);
            }
        }
    }

    fn innermost(value: ValueRef<'static>) -> Option<TypeRef<'static>> {
        match value.kind() {
            Kind::Object(ty) => Some(ty),
            Kind::List(inner) | Kind::Map(inner) => innermost(inner),
            Kind::Scalar(_) => None,
        }
    }
}
