//! To a document, and from anything that can be written to a value.

use serde::ser::{
    Error as _, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};
use serde_json::Error;

use super::{Map, Value};
use crate::gvk::Symbol;

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Number(number) => number.serialize(serializer),
            Self::String(text) => serializer.serialize_str(text),
            Self::Array(items) => serializer.collect_seq(items),
            Self::Object(fields) => fields.serialize(serializer),
        }
    }
}

impl Serialize for Map {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter().map(|(name, value)| (name.as_str(), value)))
    }
}

/// The value of anything that can be written.
///
/// # Errors
/// For a map whose names are no text, and what cannot be written.
pub fn to_value<T: Serialize + ?Sized>(from: &T) -> serde_json::Result<Value> {
    from.serialize(Maker)
}

/// Makes values.
struct Maker;

type Made = Result<Value, Error>;

fn variant(name: &'static str, content: Value) -> Value {
    let mut fields = Map::with_capacity(1);
    fields.insert(Symbol::new(name), content);
    Value::Object(fields)
}

impl Serializer for Maker {
    type Ok = Value;
    type Error = Error;
    type SerializeSeq = Items;
    type SerializeTuple = Items;
    type SerializeTupleStruct = Items;
    type SerializeTupleVariant = Items;
    type SerializeMap = Fields;
    type SerializeStruct = Fields;
    type SerializeStructVariant = Fields;

    fn serialize_bool(self, v: bool) -> Made {
        Ok(v.into())
    }
    fn serialize_i8(self, v: i8) -> Made {
        Ok(v.into())
    }
    fn serialize_i16(self, v: i16) -> Made {
        Ok(v.into())
    }
    fn serialize_i32(self, v: i32) -> Made {
        Ok(v.into())
    }
    fn serialize_i64(self, v: i64) -> Made {
        Ok(v.into())
    }
    fn serialize_u8(self, v: u8) -> Made {
        Ok(v.into())
    }
    fn serialize_u16(self, v: u16) -> Made {
        Ok(v.into())
    }
    fn serialize_u32(self, v: u32) -> Made {
        Ok(v.into())
    }
    fn serialize_u64(self, v: u64) -> Made {
        Ok(v.into())
    }
    fn serialize_f32(self, v: f32) -> Made {
        Ok(f64::from(v).into())
    }
    fn serialize_f64(self, v: f64) -> Made {
        Ok(v.into())
    }
    fn serialize_char(self, v: char) -> Made {
        Ok(Value::String(v.into()))
    }
    fn serialize_str(self, v: &str) -> Made {
        Ok(v.into())
    }
    fn serialize_bytes(self, v: &[u8]) -> Made {
        Ok(v.into())
    }
    fn serialize_none(self) -> Made {
        Ok(Value::Null)
    }
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Made {
        value.serialize(self)
    }
    fn serialize_unit(self) -> Made {
        Ok(Value::Null)
    }
    fn serialize_unit_struct(self, _: &'static str) -> Made {
        Ok(Value::Null)
    }
    fn serialize_unit_variant(self, _: &'static str, _: u32, name: &'static str) -> Made {
        Ok(name.into())
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Made {
        value.serialize(self)
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        name: &'static str,
        value: &T,
    ) -> Made {
        Ok(variant(name, to_value(value)?))
    }
    fn serialize_seq(self, len: Option<usize>) -> Result<Items, Error> {
        Ok(Items { variant: None, items: Vec::with_capacity(len.unwrap_or_default()) })
    }
    fn serialize_tuple(self, len: usize) -> Result<Items, Error> {
        self.serialize_seq(Some(len))
    }
    fn serialize_tuple_struct(self, _: &'static str, len: usize) -> Result<Items, Error> {
        self.serialize_seq(Some(len))
    }
    fn serialize_tuple_variant(self, _: &'static str, _: u32, name: &'static str, len: usize) -> Result<Items, Error> {
        Ok(Items { variant: Some(name), items: Vec::with_capacity(len) })
    }
    fn serialize_map(self, _: Option<usize>) -> Result<Fields, Error> {
        Ok(Fields { variant: None, name: Symbol::EMPTY, fields: Map::new() })
    }
    fn serialize_struct(self, _: &'static str, len: usize) -> Result<Fields, Error> {
        Ok(Fields { variant: None, name: Symbol::EMPTY, fields: Map::with_capacity(len) })
    }
    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        name: &'static str,
        len: usize,
    ) -> Result<Fields, Error> {
        Ok(Fields { variant: Some(name), name: Symbol::EMPTY, fields: Map::with_capacity(len) })
    }
}

struct Items {
    variant: Option<&'static str>,
    items: Vec<Value>,
}

impl Items {
    fn push<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.items.push(to_value(value)?);
        Ok(())
    }

    fn made(self) -> Value {
        let items = Value::Array(self.items);
        match self.variant {
            Some(name) => variant(name, items),
            None => items,
        }
    }
}

macro_rules! items {
    ($($kind:ident $push:ident)*) => {$(
        impl $kind for Items {
            type Ok = Value;
            type Error = Error;
            fn $push<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
                self.push(value)
            }
            fn end(self) -> Made {
                Ok(self.made())
            }
        }
    )*};
}

items! {
    SerializeSeq serialize_element
    SerializeTuple serialize_element
    SerializeTupleStruct serialize_field
    SerializeTupleVariant serialize_field
}

struct Fields {
    variant: Option<&'static str>,
    /// The field whose value comes next.
    name: Symbol,
    fields: Map,
}

impl Fields {
    fn made(self) -> Value {
        let fields = Value::Object(self.fields);
        match self.variant {
            Some(name) => variant(name, fields),
            None => fields,
        }
    }
}

impl SerializeMap for Fields {
    type Ok = Value;
    type Error = Error;
    fn serialize_key<T: Serialize + ?Sized>(&mut self, name: &T) -> Result<(), Error> {
        self.name = match to_value(name)? {
            Value::String(name) => name.into(),
            Value::Number(number) => number.to_string().into(),
            Value::Bool(value) => value.to_string().into(),
            _ => return Err(Error::custom("key must be a string")),
        };
        Ok(())
    }
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.fields.insert(std::mem::replace(&mut self.name, Symbol::EMPTY), to_value(value)?);
        Ok(())
    }
    fn end(self) -> Made {
        Ok(self.made())
    }
}

macro_rules! fields {
    ($($kind:ident)*) => {$(
        impl $kind for Fields {
            type Ok = Value;
            type Error = Error;
            fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), Error> {
                self.fields.insert(Symbol::new(name), to_value(value)?);
                Ok(())
            }
            fn end(self) -> Made {
                Ok(self.made())
            }
        }
    )*};
}

fields!(SerializeStruct SerializeStructVariant);

/// A value as it is written in the program, in JSON: `json!({"a": [1, name]})`. Names and values are expressions; anything
/// that can be written is a value.
#[macro_export]
macro_rules! json {
    (null) => { $crate::json::Value::Null };
    (true) => { $crate::json::Value::Bool(true) };
    (false) => { $crate::json::Value::Bool(false) };
    ([$($items:tt)*]) => { $crate::json_items!([] $($items)*) };
    ({$($fields:tt)*}) => {{
        #[allow(unused_mut)]
        let mut fields = $crate::json::Map::new();
        $crate::json_fields!(fields () $($fields)*);
        $crate::json::Value::Object(fields)
    }};
    ($value:expr) => { $crate::json::to_value(&$value).expect("what is given to json! can be written") };
}

/// The items of a list: what is done stands in brackets.
#[doc(hidden)]
#[macro_export]
macro_rules! json_items {
    ([$($done:expr,)*]) => { $crate::json::Value::Array(::std::vec![$($done,)*]) };
    ([$($done:expr,)*] null $(, $($rest:tt)*)?) => {
        $crate::json_items!([$($done,)* $crate::json!(null),] $($($rest)*)?)
    };
    ([$($done:expr,)*] [$($items:tt)*] $(, $($rest:tt)*)?) => {
        $crate::json_items!([$($done,)* $crate::json!([$($items)*]),] $($($rest)*)?)
    };
    ([$($done:expr,)*] {$($fields:tt)*} $(, $($rest:tt)*)?) => {
        $crate::json_items!([$($done,)* $crate::json!({$($fields)*}),] $($($rest)*)?)
    };
    ([$($done:expr,)*] $value:expr $(, $($rest:tt)*)?) => {
        $crate::json_items!([$($done,)* $crate::json!($value),] $($($rest)*)?)
    };
}

/// The fields of an object; what was read of a name stands in parentheses.
#[doc(hidden)]
#[macro_export]
macro_rules! json_fields {
    ($object:ident ()) => {};
    ($object:ident ($($name:tt)+) : null $(, $($rest:tt)*)?) => {
        $object.insert($($name)+, $crate::json!(null));
        $crate::json_fields!($object () $($($rest)*)?);
    };
    ($object:ident ($($name:tt)+) : [$($items:tt)*] $(, $($rest:tt)*)?) => {
        $object.insert($($name)+, $crate::json!([$($items)*]));
        $crate::json_fields!($object () $($($rest)*)?);
    };
    ($object:ident ($($name:tt)+) : {$($fields:tt)*} $(, $($rest:tt)*)?) => {
        $object.insert($($name)+, $crate::json!({$($fields)*}));
        $crate::json_fields!($object () $($($rest)*)?);
    };
    ($object:ident ($($name:tt)+) : $value:expr $(, $($rest:tt)*)?) => {
        $object.insert($($name)+, $crate::json!($value));
        $crate::json_fields!($object () $($($rest)*)?);
    };
    // A name is text of the program, or an expression.
    ($object:ident () $name:literal : $($rest:tt)*) => {
        $crate::json_fields!($object ($crate::gvk::Symbol::new($name)) : $($rest)*);
    };
    ($object:ident ($($name:tt)*) $next:tt $($rest:tt)*) => {
        $crate::json_fields!($object ($($name)* $next) $($rest)*);
    };
}
