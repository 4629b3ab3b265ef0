//! JSON values; reading, writing and comparing them, as serde_json does it, but faster: names are mostly the schema's and cost
//! nothing, an object is a list of its fields, and where nothing has to be escaped, which is nearly everywhere, text is copied.

mod map;
mod read;
mod value;
mod write;

pub use map::{Entry, Iter, IterMut, Map};
pub use read::{from_value, read, read_apart};
pub use serde_json::Number;
pub use value::{Index, Value};
pub use write::to_value;

pub use crate::json;

/// Appends a value.
pub fn put(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        // Writing to memory does not fail.
        Value::Number(number) => drop(serde_json::to_writer(out, number)),
        Value::String(text) => put_text(out, text),
        Value::Array(items) => {
            out.push(b'[');
            for (nth, item) in items.iter().enumerate() {
                if nth > 0 {
                    out.push(b',');
                }
                put(out, item);
            }
            out.push(b']');
        }
        Value::Object(fields) => {
            out.push(b'{');
            for (nth, (name, value)) in fields.iter().enumerate() {
                if nth > 0 {
                    out.push(b',');
                }
                put_field(out, name, value);
            }
            out.push(b'}');
        }
    }
}

/// Appends a field of an object.
pub fn put_field(out: &mut Vec<u8>, name: &str, value: &Value) {
    put_text(out, name);
    out.push(b':');
    put(out, value);
}

/// Appends a string.
pub fn put_text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    put_inside(out, text);
    out.push(b'"');
}

/// Appends the inside of a string.
pub fn put_inside(out: &mut Vec<u8>, text: &str) {
    if is_plain(text) {
        return out.extend_from_slice(text.as_bytes());
    }
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|byte| must_be_escaped(*byte)) {
        let (before, from) = rest.split_at(at);
        out.extend_from_slice(before);
        match from[0] {
            byte @ (b'"' | b'\\') => out.extend_from_slice(&[b'\\', byte]),
            byte => put_control(out, byte),
        }
        rest = &from[1..];
    }
    out.extend_from_slice(rest);
}

/// As serde_json and Go have it.
fn put_control(out: &mut Vec<u8>, byte: u8) {
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    let short = match byte {
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        8 => b'b',
        12 => b'f',
        _ => {
            out.extend_from_slice(b"\\u00");
            return out.extend([DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

fn must_be_escaped(byte: u8) -> bool {
    (byte < b' ') | (byte == b'"') | (byte == b'\\')
}

/// How many bytes precede the first quote or backslash. Most texts are short: eight bytes at a time are faster than what has to look
/// first at how it could be faster.
#[inline]
pub fn plain(text: &[u8]) -> usize {
    /// Has the highest bit of the first byte that is nothing, and of none before it.
    const fn nothing(bytes: u64) -> u64 {
        bytes.wrapping_sub(u64::MAX / 255) & !bytes & (u64::MAX / 255 * 128)
    }
    const QUOTES: u64 = u64::from_ne_bytes([b'"'; 8]);
    const BACKSLASHES: u64 = u64::from_ne_bytes([b'\\'; 8]);
    let mut at = 0;
    while let Some(bytes) = text.get(at..).and_then(|rest| rest.first_chunk()) {
        let bytes = u64::from_le_bytes(*bytes);
        let found = nothing(bytes ^ QUOTES) | nothing(bytes ^ BACKSLASHES);
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    at + text[at..].iter().take_while(|byte| !matches!(byte, b'"' | b'\\')).count()
}

/// Whether two values are equal; the order of fields does not count.
pub fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter().zip(b).all(|((name, value), (other, beside))| {
                    if is_name(name, other) {
                        same(value, beside)
                    } else {
                        b.get(name).is_some_and(|other| same(value, other))
                    }
                })
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (a, b) => a == b,
    }
}

/// Whether two names are the same: those of the program mostly lie at the same place.
fn is_name(a: &str, b: &str) -> bool {
    std::ptr::eq(a, b) || a == b
}

/// Whether nothing has to be escaped. Without a way out of the loop, so that it looks at many bytes at a time.
fn is_plain(text: &str) -> bool {
    !text.bytes().fold(false, |found, byte| found | must_be_escaped(byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn values() -> impl Strategy<Value = Value> {
        let scalar = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            "[a-z\"\\\\\n\u{1}é/]{0,40}".prop_map(Value::from),
        ];
        scalar.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                prop::collection::vec((any::<String>(), inner), 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    #[test]
    fn what_is_no_json_is_not_read() {
        assert_eq!(read(br#" {"a":1,"b":[{}],"a":2} "#).unwrap().to_string(), r#"{"a":2,"b":[{}]}"#);
        for wrong in ["", "{", "{} x", "[1,]", "nul", &"[".repeat(200)] {
            assert!(read(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_field_is_kept_apart() {
        let text = br#"{"a": {"b": [ 1, {"b": 2} ], "c": {"b": 3}}, "b": 4}"#;
        let (value, apart) = read_apart(text, &["a", "b"]).unwrap();
        assert_eq!(value.to_string(), r#"{"a":{"c":{"b":3}},"b":4}"#);
        assert_eq!(apart, Some(r#"[ 1, {"b": 2} ]"#));
        for path in [&["b", "a"][..], &["x"], &["a", "x"], &[]] {
            assert_eq!(read_apart(text, path).unwrap(), (read(text).unwrap(), None), "{path:?}");
        }
        assert!(read_apart(br#"{"a":{"b":[1,]}}"#, &["a", "b"]).is_err());
    }

    #[test]
    fn values_are_written_as_in_a_document() {
        let (name, list) = ("b".to_owned(), vec![1, 2]);
        let value = json!({"a": [null, true, {"x": -1.5}, [], list], name.as_str(): {}, format!("{name}c"): Some(name.len()), "d": false,});
        assert_eq!(value.to_string(), r#"{"a":[null,true,{"x":-1.5},[],[1,2]],"b":{},"bc":1,"d":false}"#);
        assert_eq!(json!([1, "two"])[1], "two");
        assert_eq!((json!(null), json!(list.len())), (Value::Null, 2.into()));
    }

    #[test]
    fn values_become_what_they_say_and_back() {
        #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        enum Choice {
            Plain,
            One(u8),
            Two(u8, String),
            Fields { a: Option<bool> },
        }
        #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        struct Whole {
            choices: Vec<Choice>,
            map: std::collections::BTreeMap<String, f64>,
            nothing: Option<String>,
            pair: (i64, char),
        }
        let whole = Whole {
            choices: vec![Choice::Plain, Choice::One(1), Choice::Two(2, "b".into()), Choice::Fields { a: Some(true) }],
            map: [("three".to_owned(), 0.5)].into(),
            nothing: None,
            pair: (i64::MIN, 'ü'),
        };
        let value = to_value(&whole).unwrap();
        let text = serde_json::to_string(&whole).unwrap();
        assert_eq!(value.to_string(), text);
        assert_eq!(read(text.as_bytes()).unwrap(), value);
        assert_eq!(from_value::<Whole>(value).unwrap(), whole);
        for wrong in [json!({}), json!([]), json!({"choices": ["One"]}), json!({"choices": [{"Plain": 1}]}), json!(3)] {
            assert!(from_value::<Whole>(wrong).is_err());
        }
        assert!(from_value::<Vec<u8>>(json!([1, 300])).is_err());
        assert_eq!(Value::from(serde_json::Value::from(to_value(&whole).unwrap())), to_value(&whole).unwrap());
    }

    #[test]
    fn pointers_lead_to_members() {
        let mut value = json!({"a": [{"b/c": 1, "d~e": 2}], "": 3});
        for (pointer, found) in [
            ("/a/0/b~1c", Some(1)),
            ("/a/0/d~0e", Some(2)),
            ("/", Some(3)),
            ("/a/00", None),
            ("/a/+0", None),
            ("a", None),
        ] {
            assert_eq!(value.pointer(pointer).and_then(Value::as_i64), found, "{pointer}");
        }
        assert_eq!(value.pointer(""), Some(&value));
        *value.pointer_mut("/a/0/b~1c").unwrap() = 4.into();
        assert_eq!(value["a"][0]["b/c"], 4);
        assert_eq!((&value["no"]["such"], &value["a"][7]), (&Value::Null, &Value::Null));
        value["new"]["below"] = true.into();
        assert_eq!(value.pointer("/new/below"), Some(&true.into()));
    }

    /// The same with its fields in another order.
    fn reversed(value: &Value) -> Value {
        match value {
            Value::Object(fields) => {
                fields.iter().rev().map(|(name, value)| (name.clone(), reversed(value))).collect::<Map>().into()
            }
            Value::Array(items) => items.iter().map(reversed).collect(),
            other => other.clone(),
        }
    }

    proptest! {
        #[test]
        fn it_is_what_serde_json_writes(value in values()) {
            let mut out = Vec::new();
            put(&mut out, &value);
            assert_eq!(String::from_utf8(out).unwrap(), serde_json::to_string(&value).unwrap());
        }

        #[test]
        fn it_is_what_serde_json_reads(value in values()) {
            let text = value.to_string();
            assert_eq!(read(text.as_bytes()).unwrap(), serde_json::from_str::<Value>(&text).unwrap());
        }

        #[test]
        fn it_is_what_serde_json_finds_equal(a in values(), b in values()) {
            assert_eq!(same(&a, &b), a == b);
            assert!(same(&a, &reversed(&a)) && same(&reversed(&b), &b));
        }
    }
}
