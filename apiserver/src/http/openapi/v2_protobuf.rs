//! OpenAPI v2 in the protobuf form that Go clients ask for (gnostic `openapiv2/OpenAPIv2.proto`).
//!
//! Each message is a list of its fields: the JSON name, the number, and what the field holds.

use super::wire::{self, any, bytes, flag, map, texts, wrap};
use coracle_api::json::Value;

/// What a field holds.
#[derive(Clone, Copy)]
enum Holds {
    Text,
    Flag,
    Texts,
    /// Any value, as YAML in a message of its own.
    Any,
    /// Several of them.
    Anys,
    Message(&'static Message),
    Messages(&'static Message),
    /// A map: repeated messages of a name (1) and a value (2), inside a message of its own.
    Map(&'static Message),
    /// One of several messages by what the value is, with the numbers that lead to it.
    Wrapped(&'static [u32], &'static Message),
    /// `type`: a list of texts in a message of its own.
    Type,
    /// `additionalProperties`.
    Additional,
    /// `responses`: named messages, each in a message of its own.
    Responses,
    /// `parameters` of an operation or a path.
    Parameters,
    /// `parameters` of the document.
    Shared,
    /// `securityDefinitions`.
    Security,
    /// `security`: lists of maps of names to texts.
    Required,
    /// `paths`: named messages below number 2.
    Paths,
}

type Message = wire::Message<Holds>;

static SCHEMA: Message = Message {
    fields: &[
        ("$ref", 1, Holds::Text),
        ("format", 2, Holds::Text),
        ("description", 4, Holds::Text),
        ("default", 5, Holds::Any),
        ("required", 19, Holds::Texts),
        ("enum", 20, Holds::Anys),
        ("additionalProperties", 21, Holds::Additional),
        ("type", 22, Holds::Type),
        ("items", 23, Holds::Wrapped(&[1], &SCHEMA)),
        ("allOf", 24, Holds::Messages(&SCHEMA)),
        ("properties", 25, Holds::Map(&SCHEMA)),
    ],
    extensions: 31,
};
static RESPONSE: Message =
    Message { fields: &[("description", 1, Holds::Text), ("schema", 2, Holds::Wrapped(&[1], &SCHEMA))], extensions: 5 };
static BODY: Message = Message {
    fields: &[
        ("description", 1, Holds::Text),
        ("name", 2, Holds::Text),
        ("in", 3, Holds::Text),
        ("required", 4, Holds::Flag),
        ("schema", 5, Holds::Message(&SCHEMA)),
    ],
    extensions: 6,
};
static QUERY: Message = Message {
    fields: &[
        ("required", 1, Holds::Flag),
        ("in", 2, Holds::Text),
        ("description", 3, Holds::Text),
        ("name", 4, Holds::Text),
        ("type", 6, Holds::Text),
        ("uniqueItems", 20, Holds::Flag),
    ],
    extensions: 23,
};
static PATH: Message = Message {
    fields: &[
        ("required", 1, Holds::Flag),
        ("in", 2, Holds::Text),
        ("description", 3, Holds::Text),
        ("name", 4, Holds::Text),
        ("type", 5, Holds::Text),
        ("uniqueItems", 19, Holds::Flag),
    ],
    extensions: 22,
};
static API_KEY: Message = Message {
    fields: &[
        ("type", 1, Holds::Text),
        ("name", 2, Holds::Text),
        ("in", 3, Holds::Text),
        ("description", 4, Holds::Text),
    ],
    extensions: 5,
};
static OPERATION: Message = Message {
    fields: &[
        ("tags", 1, Holds::Texts),
        ("description", 3, Holds::Text),
        ("operationId", 5, Holds::Text),
        ("produces", 6, Holds::Texts),
        ("consumes", 7, Holds::Texts),
        ("parameters", 8, Holds::Parameters),
        ("responses", 9, Holds::Responses),
    ],
    extensions: 13,
};
static PATH_ITEM: Message = Message {
    fields: &[
        ("get", 2, Holds::Message(&OPERATION)),
        ("put", 3, Holds::Message(&OPERATION)),
        ("post", 4, Holds::Message(&OPERATION)),
        ("delete", 5, Holds::Message(&OPERATION)),
        ("options", 6, Holds::Message(&OPERATION)),
        ("head", 7, Holds::Message(&OPERATION)),
        ("patch", 8, Holds::Message(&OPERATION)),
        ("parameters", 9, Holds::Parameters),
    ],
    extensions: 10,
};
static INFO: Message = Message { fields: &[("title", 1, Holds::Text), ("version", 2, Holds::Text)], extensions: 7 };
static DOCUMENT: Message = Message {
    fields: &[
        ("swagger", 1, Holds::Text),
        ("info", 2, Holds::Message(&INFO)),
        ("paths", 8, Holds::Paths),
        ("definitions", 9, Holds::Map(&SCHEMA)),
        ("parameters", 10, Holds::Shared),
        ("security", 12, Holds::Required),
        ("securityDefinitions", 13, Holds::Security),
    ],
    extensions: 16,
};

/// The whole document.
pub(super) fn encode(document: &Value) -> Vec<u8> {
    DOCUMENT.encode(document)
}

/// A parameter: in the body, in the path or in the address.
fn parameter(value: &Value) -> Vec<u8> {
    match value["in"].as_str() {
        Some("body") => wrap(1, &BODY.encode(value)),
        Some("path") => wrap(2, &wrap(4, &PATH.encode(value))),
        _ => wrap(2, &wrap(3, &QUERY.encode(value))),
    }
}

impl wire::Holds for Holds {
    fn put(self, out: &mut Vec<u8>, number: u32, value: &Value) {
        match self {
            Holds::Text => bytes(out, number, value.as_str().unwrap_or_default().as_bytes()),
            Holds::Flag if value == &Value::Bool(true) => flag(out, number, true),
            Holds::Flag => {}
            Holds::Texts => texts(out, number, value),
            Holds::Any => bytes(out, number, &any(value)),
            Holds::Anys => value.as_array().into_iter().flatten().for_each(|item| bytes(out, number, &any(item))),
            Holds::Message(of) => bytes(out, number, &of.encode(value)),
            Holds::Messages(of) => {
                value.as_array().into_iter().flatten().for_each(|item| bytes(out, number, &of.encode(item)));
            }
            Holds::Map(of) => bytes(out, number, &map(1, value, |value| of.encode(value))),
            Holds::Wrapped(way, of) => {
                let inner = way.iter().rev().fold(of.encode(value), |inner, number| wrap(*number, &inner));
                bytes(out, number, &inner);
            }
            Holds::Type => bytes(out, number, &wrap(1, value.as_str().unwrap_or_default().as_bytes())),
            Holds::Additional => bytes(out, number, &wrap(1, &SCHEMA.encode(value))),
            Holds::Responses => bytes(out, number, &map(1, value, |value| wrap(1, &RESPONSE.encode(value)))),
            Holds::Parameters => {
                for item in value.as_array().into_iter().flatten() {
                    let inner = match item["$ref"].as_str() {
                        Some(reference) => wrap(2, &wrap(1, reference.as_bytes())),
                        None => wrap(1, &parameter(item)),
                    };
                    bytes(out, number, &inner);
                }
            }
            Holds::Shared => bytes(out, number, &map(1, value, parameter)),
            Holds::Security => bytes(out, number, &map(1, value, |value| wrap(2, &API_KEY.encode(value)))),
            Holds::Required => {
                for item in value.as_array().into_iter().flatten() {
                    let each = map(1, item, |value| {
                        let mut list = Vec::new();
                        texts(&mut list, 1, value);
                        list
                    });
                    bytes(out, number, &each);
                }
            }
            Holds::Paths => bytes(out, number, &map(2, value, |value| PATH_ITEM.encode(value))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::json::json;

    #[test]
    fn a_small_document() {
        let document = json!({"swagger": "2.0", "definitions": {"a": {"type": "object", "x-b": 1}}});
        let schema =
            [&[0xb2, 0x01, 8, 0x0a, 6][..], b"object", &[0xfa, 0x01, 11, 0x0a, 3], b"x-b", &[0x12, 4, 0x12, 2], b"1\n"]
                .concat();
        let named = [&[0x0a, 1][..], b"a", &[0x12, schema.len() as u8], &schema].concat();
        let definitions = [&[0x0a, named.len() as u8][..], &named].concat();
        let expected = [&[0x0a, 3][..], b"2.0", &[0x4a, definitions.len() as u8], &definitions].concat();
        assert_eq!(encode(&document), expected);
    }

    #[test]
    fn what_is_said_once() {
        let of = |document: Value| encode(&document);
        // A parameter in the query: NonBodyParameter (2), QueryParameterSubSchema (3).
        let query = [&[0x1a, 3][..], b"abc", &[0x22, 1], b"n"].concat();
        let query = wrap(2, &wrap(3, &query));
        let named = [wrap(1, b"n-query"), wrap(2, &query)].concat();
        let parameter = json!({"name": "n", "description": "abc"});
        assert_eq!(of(json!({"parameters": {"n-query": parameter}})), wrap(10, &wrap(1, &named)));
        // A reference to it: JsonReference (2).
        let operation = wrap(8, &wrap(2, &wrap(1, b"#/parameters/n-query")));
        let operation = [wrap(1, b"core_v1"), operation].concat();
        let path = [wrap(1, b"/a"), wrap(2, &wrap(6, &operation))].concat();
        let item = json!({"options": {"tags": ["core_v1"], "parameters": [{"$ref": "#/parameters/n-query"}]}});
        assert_eq!(of(json!({"paths": {"/a": item}})), wrap(8, &wrap(2, &path)));

        let key = [&[0x0a, 6][..], b"apiKey", &[0x12, 1], b"n", &[0x1a, 1], b"h"].concat();
        let named = [wrap(1, b"B"), wrap(2, &wrap(2, &key))].concat();
        let definitions = json!({"B": {"type": "apiKey", "name": "n", "in": "h"}});
        assert_eq!(of(json!({"securityDefinitions": definitions})), wrap(13, &wrap(1, &named)));
        let named = [wrap(1, b"B"), wrap(2, &[])].concat();
        assert_eq!(of(json!({"security": [{"B": []}]})), wrap(12, &wrap(1, &named)));
    }
}
