//! From a document, and from a value to what is made of it.

use std::fmt;

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{
    Deserialize, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer, MapAccess,
    SeqAccess, Unexpected, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;
use serde_json::value::RawValue;
use serde_json::{Error, Number};

use super::{Map, Value};
use crate::gvk::Symbol;
use crate::schema;

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
    let mut open = Open { fields: Vec::with_capacity(OPEN), items: Vec::with_capacity(OPEN), apart: None };
    let value = Read { open: &mut open, path }.deserialize(&mut *reader)?;
    reader.end().map(|()| (value, open.apart))
}

/// Fields and items that are open at a time in most objects.
const OPEN: usize = 32;

/// What is in the lists and objects that are open, the innermost last: each is made in one piece when it ends.
#[derive(Default)]
struct Open<'de> {
    fields: Vec<(Symbol, Value)>,
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
    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let start = self.open.items.len();
        while let Some(item) = access.next_element_seed(Read { open: self.open, path: &[] })? {
            self.open.items.push(item);
        }
        Ok(Value::Array(self.open.items.split_off(start)))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let start = self.open.fields.len();
        while let Some(name) = access.next_key_seed(Name)? {
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
        Ok(Value::Object(Map::of(self.open.fields.drain(start..))))
    }
}

/// A field's name: the program's own text where some kind has such a field.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Symbol;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Symbol, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name {
    type Value = Symbol;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string key")
    }
    fn visit_str<E>(self, v: &str) -> Result<Symbol, E> {
        Ok(schema::symbol(v))
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Read { open: &mut Open::default(), path: &[] }.deserialize(deserializer)
    }
}

impl<'de> Deserialize<'de> for Map {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Object(fields) => Ok(fields),
            other => Err(D::Error::invalid_type(unexpected(&other), &"a map")),
        }
    }
}

fn unexpected(value: &Value) -> Unexpected<'_> {
    match value {
        Value::Null => Unexpected::Unit,
        Value::Bool(value) => Unexpected::Bool(*value),
        Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
            (Some(number), ..) => Unexpected::Unsigned(number),
            (_, Some(number), _) => Unexpected::Signed(number),
            (.., number) => Unexpected::Float(number.unwrap_or_default()),
        },
        Value::String(text) => Unexpected::Str(text),
        Value::Array(_) => Unexpected::Seq,
        Value::Object(_) => Unexpected::Map,
    }
}

/// Makes something of a value.
///
/// # Errors
/// When the value is not made as it would be.
pub fn from_value<T: DeserializeOwned>(value: Value) -> serde_json::Result<T> {
    T::deserialize(value)
}

fn number<'de, V: Visitor<'de>>(number: &Number, visitor: V) -> Result<V::Value, Error> {
    match (number.as_u64(), number.as_i64(), number.as_f64()) {
        (Some(number), ..) => visitor.visit_u64(number),
        (_, Some(number), _) => visitor.visit_i64(number),
        (.., number) => visitor.visit_f64(number.unwrap_or_default()),
    }
}

impl<'de> Deserializer<'de> for Value {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self {
            Self::Null => visitor.visit_unit(),
            Self::Bool(value) => visitor.visit_bool(value),
            Self::Number(found) => number(&found, visitor),
            Self::String(text) => visitor.visit_string(text),
            Self::Array(items) => {
                let mut access = SeqDeserializer::new(items.into_iter());
                let made = visitor.visit_seq(&mut access)?;
                access.end().map(|()| made)
            }
            Self::Object(fields) => {
                let mut access =
                    MapDeserializer::new(fields.into_iter().map(|(name, value)| (String::from(name), value)));
                let made = visitor.visit_map(&mut access)?;
                access.end().map(|()| made)
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        (&self).deserialize_enum(name, variants, visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}

impl<'de> Deserializer<'de> for &Value {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Number(found) => number(found, visitor),
            Value::String(text) => visitor.visit_str(text),
            Value::Array(items) => {
                let mut access = SeqDeserializer::new(items.iter());
                let made = visitor.visit_seq(&mut access)?;
                access.end().map(|()| made)
            }
            Value::Object(fields) => {
                let mut access = MapDeserializer::new(fields.iter().map(|(name, value)| (name.as_str(), value)));
                let made = visitor.visit_map(&mut access)?;
                access.end().map(|()| made)
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    /// A variant without content is its name; another is an object of one field.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let (name, content) = match self {
            Value::String(name) => (name.as_str(), None),
            Value::Object(fields) if fields.len() == 1 => {
                let field = fields.iter().next().map(|(name, content)| (name.as_str(), Some(content)));
                field.unwrap_or_default()
            }
            other => {
                return Err(Error::invalid_type(unexpected(other), &"a variant's name, or an object of one field"));
            }
        };
        visitor.visit_enum(Variant { name, content })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}

struct Variant<'v> {
    name: &'v str,
    content: Option<&'v Value>,
}

impl<'de, 'v> EnumAccess<'de> for Variant<'v> {
    type Error = Error;
    type Variant = Content<'v>;
    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Content<'v>), Error> {
        let name: serde::de::value::StrDeserializer<'_, Error> = self.name.into_deserializer();
        Ok((seed.deserialize(name)?, Content(self.content)))
    }
}

struct Content<'v>(Option<&'v Value>);

impl<'v> Content<'v> {
    fn given(self) -> Result<&'v Value, Error> {
        self.0.ok_or_else(|| Error::invalid_type(Unexpected::UnitVariant, &"a variant with content"))
    }
}

impl<'de> VariantAccess<'de> for Content<'_> {
    type Error = Error;
    fn unit_variant(self) -> Result<(), Error> {
        match self.0 {
            None | Some(Value::Null) => Ok(()),
            Some(other) => Err(Error::invalid_type(unexpected(other), &"a variant without content")),
        }
    }
    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Error> {
        seed.deserialize(self.given()?)
    }
    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        self.given()?.deserialize_any(visitor)
    }
    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, Error> {
        self.given()?.deserialize_any(visitor)
    }
}

impl IntoDeserializer<'_, Error> for Value {
    type Deserializer = Self;
    fn into_deserializer(self) -> Self {
        self
    }
}

impl IntoDeserializer<'_, Error> for &Value {
    type Deserializer = Self;
    fn into_deserializer(self) -> Self {
        self
    }
}
