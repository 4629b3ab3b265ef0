//! OpenAPI v3 in the protobuf form that Go clients ask for (gnostic `openapiv3/OpenAPIv3.proto`).
//!
//! Each message is a list of its fields: the JSON name, the number, and what the field holds.

use super::wire::{self, any, bytes, flag, map, named, texts, varint, wrap};
use coracle_api::json::Value;

/// Where a message may be a reference instead: the message under 1, the reference under 2.
const REFERENCE: &str = "$ref";

/// What a field holds.
#[derive(Clone, Copy)]
enum Holds {
    Text,
    Texts,
    Flag,
    Whole,
    Number,
    /// Any value, as YAML in a message of its own.
    Any,
    /// Several of them.
    Anys,
    Message(&'static Message),
    /// A message or a reference to one.
    Either(&'static Message),
    /// Several of them.
    Eithers(&'static Message),
    /// One of them, in a list inside a message of its own.
    Listed(&'static Message),
    /// A map of messages: named ones inside a message of its own.
    Map(&'static Message),
    /// A map of messages or references.
    MapOfEither(&'static Message),
    /// `default`: a number, a flag or a text.
    Default,
    /// `additionalProperties`: a schema or a flag.
    Additional,
    /// `responses`: the one for all codes, and those by code.
    Responses,
}

type Message = wire::Message<Holds>;

static SCHEMA: Message = Message {
    fields: &[
        ("nullable", 1, Holds::Flag),
        ("readOnly", 3, Holds::Flag),
        ("writeOnly", 4, Holds::Flag),
        ("externalDocs", 6, Holds::Message(&DOCS)),
        ("example", 7, Holds::Any),
        ("deprecated", 8, Holds::Flag),
        ("title", 9, Holds::Text),
        ("multipleOf", 10, Holds::Number),
        ("maximum", 11, Holds::Number),
        ("exclusiveMaximum", 12, Holds::Flag),
        ("minimum", 13, Holds::Number),
        ("exclusiveMinimum", 14, Holds::Flag),
        ("maxLength", 15, Holds::Whole),
        ("minLength", 16, Holds::Whole),
        ("pattern", 17, Holds::Text),
        ("maxItems", 18, Holds::Whole),
        ("minItems", 19, Holds::Whole),
        ("uniqueItems", 20, Holds::Flag),
        ("maxProperties", 21, Holds::Whole),
        ("minProperties", 22, Holds::Whole),
        ("required", 23, Holds::Texts),
        ("enum", 24, Holds::Anys),
        ("type", 25, Holds::Text),
        ("allOf", 26, Holds::Eithers(&SCHEMA)),
        ("oneOf", 27, Holds::Eithers(&SCHEMA)),
        ("anyOf", 28, Holds::Eithers(&SCHEMA)),
        ("not", 29, Holds::Message(&SCHEMA)),
        ("items", 30, Holds::Listed(&SCHEMA)),
        ("properties", 31, Holds::MapOfEither(&SCHEMA)),
        ("additionalProperties", 32, Holds::Additional),
        ("default", 33, Holds::Default),
        ("description", 34, Holds::Text),
        ("format", 35, Holds::Text),
    ],
    extensions: 36,
};
static DOCS: Message = Message { fields: &[("description", 1, Holds::Text), ("url", 2, Holds::Text)], extensions: 3 };
static MEDIA_TYPE: Message = Message { fields: &[("schema", 1, Holds::Either(&SCHEMA))], extensions: 5 };
static RESPONSE: Message =
    Message { fields: &[("description", 1, Holds::Text), ("content", 3, Holds::Map(&MEDIA_TYPE))], extensions: 5 };
static BODY: Message = Message {
    fields: &[("description", 1, Holds::Text), ("content", 2, Holds::Map(&MEDIA_TYPE)), ("required", 3, Holds::Flag)],
    extensions: 4,
};
static PARAMETER: Message = Message {
    fields: &[
        ("name", 1, Holds::Text),
        ("in", 2, Holds::Text),
        ("description", 3, Holds::Text),
        ("required", 4, Holds::Flag),
        ("schema", 10, Holds::Either(&SCHEMA)),
    ],
    extensions: 14,
};
static OPERATION: Message = Message {
    fields: &[
        ("tags", 1, Holds::Texts),
        ("description", 3, Holds::Text),
        ("operationId", 5, Holds::Text),
        ("parameters", 6, Holds::Eithers(&PARAMETER)),
        ("requestBody", 7, Holds::Either(&BODY)),
        ("responses", 8, Holds::Responses),
    ],
    extensions: 13,
};
static PATH_ITEM: Message = Message {
    fields: &[
        ("get", 4, Holds::Message(&OPERATION)),
        ("put", 5, Holds::Message(&OPERATION)),
        ("post", 6, Holds::Message(&OPERATION)),
        ("delete", 7, Holds::Message(&OPERATION)),
        ("options", 8, Holds::Message(&OPERATION)),
        ("head", 9, Holds::Message(&OPERATION)),
        ("patch", 10, Holds::Message(&OPERATION)),
        ("parameters", 13, Holds::Eithers(&PARAMETER)),
    ],
    extensions: 14,
};
static INFO: Message = Message { fields: &[("title", 1, Holds::Text), ("version", 6, Holds::Text)], extensions: 7 };
static SECURITY: Message = Message {
    fields: &[
        ("type", 1, Holds::Text),
        ("description", 2, Holds::Text),
        ("name", 3, Holds::Text),
        ("in", 4, Holds::Text),
    ],
    extensions: 9,
};
static COMPONENTS: Message = Message {
    fields: &[("schemas", 1, Holds::MapOfEither(&SCHEMA)), ("securitySchemes", 7, Holds::MapOfEither(&SECURITY))],
    extensions: 10,
};
static DOCUMENT: Message = Message {
    fields: &[
        ("openapi", 1, Holds::Text),
        ("info", 2, Holds::Message(&INFO)),
        ("paths", 4, Holds::Map(&PATH_ITEM)),
        ("components", 5, Holds::Message(&COMPONENTS)),
    ],
    extensions: 9,
};

/// The whole document.
pub(super) fn encode(document: &Value) -> Vec<u8> {
    DOCUMENT.encode(document)
}

fn either(value: &Value, of: &Message) -> Vec<u8> {
    match value.get(REFERENCE).and_then(Value::as_str) {
        Some(reference) => wrap(2, &wrap(1, reference.as_bytes())),
        None => wrap(1, &of.encode(value)),
    }
}

fn number_field(out: &mut Vec<u8>, number: u32, value: f64) {
    varint(out, u64::from(number) << 3 | 1);
    out.extend_from_slice(&value.to_le_bytes());
}

impl wire::Holds for Holds {
    fn put(self, out: &mut Vec<u8>, number: u32, value: &Value) {
        let items = || value.as_array().into_iter().flatten();
        match self {
            Holds::Text => bytes(out, number, value.as_str().unwrap_or_default().as_bytes()),
            Holds::Texts => texts(out, number, value),
            Holds::Flag if value == &Value::Bool(true) => flag(out, number, true),
            Holds::Flag => {}
            Holds::Whole => {
                if let Some(whole) = value.as_u64() {
                    varint(out, u64::from(number) << 3);
                    varint(out, whole);
                }
            }
            Holds::Number => value.as_f64().into_iter().for_each(|value| number_field(out, number, value)),
            Holds::Any => bytes(out, number, &any(value)),
            Holds::Anys => items().for_each(|item| bytes(out, number, &any(item))),
            Holds::Message(of) => bytes(out, number, &of.encode(value)),
            Holds::Either(of) => bytes(out, number, &either(value, of)),
            Holds::Eithers(of) => items().for_each(|item| bytes(out, number, &either(item, of))),
            Holds::Listed(of) => bytes(out, number, &wrap(1, &either(value, of))),
            Holds::Map(of) => bytes(out, number, &map(1, value, |value| of.encode(value))),
            Holds::MapOfEither(of) => bytes(out, number, &map(1, value, |value| either(value, of))),
            Holds::Default => default(out, number, value),
            Holds::Additional => {
                let mut inner = Vec::new();
                match value.as_bool() {
                    Some(value) => flag(&mut inner, 2, value),
                    None => bytes(&mut inner, 1, &either(value, &SCHEMA)),
                }
                bytes(out, number, &inner);
            }
            Holds::Responses => {
                let mut inner = Vec::new();
                for (code, value) in value.as_object().into_iter().flatten() {
                    match code.as_str() {
                        "default" => bytes(&mut inner, 1, &either(value, &RESPONSE)),
                        _ => bytes(&mut inner, 2, &named(code, &either(value, &RESPONSE))),
                    }
                }
                bytes(out, number, &inner);
            }
        }
    }
}

/// A default that is an object or a list is an empty message, as upstream sends it: gnostic's `DefaultType` has a number, a flag
/// and a text, and its reader leaves out what is neither.
fn default(out: &mut Vec<u8>, number: u32, value: &Value) {
    let mut inner = Vec::new();
    match value {
        Value::Number(value) => number_field(&mut inner, 1, value.as_f64().unwrap_or_default()),
        Value::Bool(value) => flag(&mut inner, 2, *value),
        Value::String(text) => bytes(&mut inner, 3, text.as_bytes()),
        _ => {}
    }
    bytes(out, number, &inner);
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::json::json;

    #[test]
    fn what_a_schema_says_besides() {
        let of = |schema: Value| SCHEMA.encode(&schema);
        assert_eq!(of(json!({"default": {}})), [0x8a, 0x02, 0]);
        assert_eq!(of(json!({"default": {"a": 1}})), [0x8a, 0x02, 0]);
        assert_eq!(of(json!({"externalDocs": {"url": "u"}})), [0x32, 3, 0x12, 1, b'u']);
        assert_eq!(of(json!({"example": 1})), [0x3a, 4, 0x12, 2, b'1', b'\n']);
    }

    #[test]
    fn a_small_document() {
        let schema = json!({"type": "string", "default": true, "x-b": 1});
        let document = json!({"openapi": "3.0.0", "components": {"schemas": {"a": schema, "b": {"$ref": "#/a"}}}});
        let schema =
            [&[0xca, 0x01, 6][..], b"string", &[0x8a, 0x02, 2, 0x10, 1], &[0xa2, 0x02, 11, 0x0a, 3], b"x-b"].concat();
        let schema = [&schema[..], &[0x12, 4, 0x12, 2], b"1\n"].concat();
        let first = [&[0x0a, 1][..], b"a", &[0x12, schema.len() as u8 + 2, 0x0a, schema.len() as u8], &schema].concat();
        let second = [&[0x0a, 1][..], b"b", &[0x12, 7, 0x12, 5, 0x0a, 3], b"#/a"].concat();
        let schemas = [&[0x0a, first.len() as u8][..], &first, &[0x0a, second.len() as u8], &second].concat();
        let components = [&[0x0a, schemas.len() as u8][..], &schemas].concat();
        let expected = [&[0x0a, 5][..], b"3.0.0", &[0x2a, components.len() as u8], &components].concat();
        assert_eq!(encode(&document), expected);
    }
}
