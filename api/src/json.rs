//! Reading, writing and comparing JSON: as serde_json does it, but faster where nothing has to be escaped, which is nearly
//! everywhere, and where fields have the same order, which they have in two states of one object.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Number, Value};

/// Reads a value.
///
/// # Errors
/// For what is no JSON.
pub fn read(bytes: &[u8]) -> serde_json::Result<Value> {
    read_apart(bytes, &[]).map(|(value, _)| value)
}

/// Reads a value, but for the field at `path`: that is left out, and given as the JSON it is.
///
/// # Errors
/// As [`read`].
pub fn read_apart<'b>(bytes: &'b [u8], path: &[&str]) -> serde_json::Result<(Value, Option<&'b str>)> {
    // Looked at whole, text is checked faster than string by string; what is no text fails where it stops being so.
    match std::str::from_utf8(bytes) {
        Ok(text) => read_from(&mut serde_json::Deserializer::from_str(text), path),
        Err(_) => read_from(&mut serde_json::Deserializer::from_slice(bytes), path),
    }
}

fn read_from<'b, R: serde_json::de::Read<'b>>(
    reader: &mut serde_json::Deserializer<R>,
    path: &[&str],
) -> serde_json::Result<(Value, Option<&'b str>)> {
    let mut open = Open::default();
    let value = Read { open: &mut open, path }.deserialize(&mut *reader)?;
    reader.end().map(|()| (value, open.apart))
}

/// What is in the lists and objects that are open, the innermost last: each is made in one piece when it ends.
#[derive(Default)]
struct Open<'de> {
    fields: Vec<(String, Value)>,
    items: Vec<Value>,
    /// The field that is not read.
    apart: Option<&'de str>,
}

struct Read<'o, 'de> {
    open: &'o mut Open<'de>,
    /// The way to the field that is not read; empty where it does not lie below.
    path: &'o [&'o str],
}

impl<'de> DeserializeSeed<'de> for Read<'_, 'de> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Read<'_, 'de> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any valid JSON value")
    }
    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }
    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_f64<E: Error>(self, v: f64) -> Result<Value, E> {
        Ok(Number::from_f64(v).map_or(Value::Null, Value::Number))
    }
    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let start = self.open.items.len();
        while let Some(item) = access.next_element_seed(Read { open: self.open, path: &[] })? {
            self.open.items.push(item);
        }
        Ok(Value::Array(self.open.items.drain(start..).collect()))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let start = self.open.fields.len();
        while let Some(name) = access.next_key::<String>()? {
            let below = match self.path {
                [first, rest @ ..] if name == *first => Some(rest),
                _ => None,
            };
            if below == Some(&[]) {
                self.open.apart = Some(access.next_value::<&RawValue>()?.get());
                continue;
            }
            let value = access.next_value_seed(Read { open: self.open, path: below.unwrap_or_default() })?;
            self.open.fields.push((name, value));
        }
        Ok(Value::Object(self.open.fields.drain(start..).collect()))
    }
}

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
    let start = out.len();
    // As above.
    let _ = serde_json::to_writer(&mut *out, text);
    out.remove(start);
    out.pop();
}

/// Whether two values are equal; the order of fields does not count.
pub fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter().zip(b).all(|((name, value), (other, beside))| {
                    if name == other {
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

/// Whether nothing has to be escaped. Without a way out of the loop, so that it looks at many bytes at a time.
fn is_plain(text: &str) -> bool {
    !text.bytes().fold(false, |found, byte| found | (byte < b' ') | (byte == b'"') | (byte == b'\\'))
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

    /// The same with its fields in another order.
    fn reversed(value: &Value) -> Value {
        match value {
            Value::Object(fields) => fields
                .iter()
                .rev()
                .map(|(name, value)| (name.clone(), reversed(value)))
                .collect::<serde_json::Map<_, _>>()
                .into(),
            Value::Array(items) => items.iter().map(reversed).collect(),
            other => other.clone(),
        }
    }

    proptest! {
        #[test]
        fn it_is_what_serde_json_writes(value in values()) {
            let mut out = Vec::new();
            put(&mut out, &value);
            assert_eq!(String::from_utf8(out).unwrap(), value.to_string());
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
