//! The walk over a document, driven by its deserializer and guided by the schema.

use std::borrow::Cow;
use std::fmt;

use crate::json::{Map, Value};
use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::named;
use super::problem::{Problems, Step, Trail};
use super::refusal::META;
use super::scalar::{self, Misfit, Raw};
use crate::gvk::Symbol;
use crate::schema::{Field, Kind, Nothing, Scalar, TypeRef, ValueRef};

/// Deepest nesting of arrays and objects; Go's decoder allows 10,000 and none of the built-in kinds needs 50.
pub(super) const MAX_DEPTH: usize = 120;

/// Room that a structure has for fields that are filled in later.
const DEFAULTS: usize = 4;

/// What the walk finds out beside the object.
pub(super) struct Context<'s> {
    pub problems: Problems,
    /// The first thing that made the document unreadable as this kind.
    pub wrong: Option<String>,
    /// What is wrong is where the document says of what kind it is.
    pub of_no_kind: bool,
    /// The same in other words, those of [`super::restore`].
    pub restoring: Option<String>,
    trail: Trail<'s>,
    /// The structures the reader is in.
    owners: Vec<TypeRef<'s>>,
    /// Fields of the structures the reader is in, the innermost last: a structure is built when all are known, in one piece.
    fields: Vec<(Symbol, Value)>,
    collect: bool,
    /// What [`super::Decoded::empty`] tells.
    pub empty: Vec<Vec<String>>,
    /// Whether the object is to be as it is when Go's structures have held it.
    complete: bool,
}

impl Context<'_> {
    pub fn new(collect: bool, complete: bool) -> Self {
        Self {
            problems: Problems::default(),
            wrong: None,
            of_no_kind: false,
            restoring: None,
            trail: Trail::default(),
            owners: Vec::new(),
            fields: Vec::new(),
            collect,
            empty: Vec::new(),
            complete,
        }
    }

    fn leaves_out(&self, value: &Value, field: Field<'_>) -> bool {
        // Whoever gives an object no managers resets them, which is more than not to give any.
        let resets = || matches!((&self.trail.0[..], field.name()), ([Step::Field("metadata")], "managedFields"));
        self.complete && is_left_out(value, field) && (value.is_null() || !resets())
    }

    fn tell_empty(&mut self, field: Field<'_>) {
        let steps = self.trail.0.iter().map(|step| if let Step::Field(name) = step { Some(*name) } else { None });
        let path: Option<Vec<String>> = steps.chain([Some(field.name())]).map(|name| name.map(str::to_owned)).collect();
        self.empty.extend(path);
    }

    fn fail<E: Error>(&mut self, message: String) -> E {
        self.wrong.get_or_insert(message);
        // Never shown: `wrong` is.
        E::custom("")
    }

    /// The name that Go has for the type of the field that the reader is at.
    fn named(&self, expected: &str) -> Option<String> {
        let owner = self.owners.last()?;
        let field =
            self.trail.0.iter().rev().find_map(|step| if let Step::Field(name) = step { Some(*name) } else { None })?;
        named::of(expected, owner.package(), owner.name(), field)
    }

    fn misfit<E: Error>(&mut self, found: &str, expected: &str) -> E {
        self.restoring.get_or_insert_with(|| restoring(found, expected));
        let named = self.named(expected);
        let expected = named.as_deref().unwrap_or(expected);
        let message = match self.owners.last() {
            Some(_) if self.owners.len() == 1 && matches!(self.trail.0[..], [Step::Field("kind" | "apiVersion")]) => {
                self.of_no_kind = true;
                format!(
                    "json: cannot unmarshal {found} into Go struct field .{} of type {expected}",
                    self.trail.text(false)
                )
            }
            Some(owner) if !self.trail.0.is_empty() => {
                format!(
                    "json: cannot unmarshal {found} into Go struct field {}.{} of type {expected}",
                    owner.name(),
                    self.trail.text(false)
                )
            }
            _ => {
                self.of_no_kind = true;
                format!("json: cannot unmarshal {found} into Go value of type {META}")
            }
        };
        self.fail(message)
    }
}

/// Why one Go value cannot be made of another.
fn restoring(found: &str, expected: &str) -> String {
    let is_float = found.contains('.');
    let from = match found.split(' ').next() {
        Some("number") => {
            if is_float {
                "float64"
            } else {
                "int64"
            }
        }
        Some("object") => "map",
        Some("array") => "slice",
        _ => found,
    };
    if expected.starts_with("[]") {
        format!("cannot restore slice from {from}")
    } else if expected.starts_with("map[") {
        format!("cannot restore map from {from}")
    } else if expected.starts_with("v1.") || expected.starts_with("runtime.") {
        format!("cannot restore struct from: {from}")
    } else if matches!((expected, from), ("string", "int64") | ("int32" | "int64", "float64" | "int64")) {
        // Go converts between these, but not without loss.
        format!("cannot convert {from} to {expected}")
    } else {
        format!("unrecognized type: {expected}")
    }
}

/// Reads one value.
pub(super) struct Walk<'s, 'c> {
    value: ValueRef<'s>,
    context: &'c mut Context<'s>,
}

impl<'s, 'c> Walk<'s, 'c> {
    pub fn new(ty: TypeRef<'s>, context: &'c mut Context<'s>) -> Self {
        Self { value: ty.value(), context }
    }

    fn scalar<E: Error>(self, raw: Raw<'_>) -> Result<Value, E> {
        let expected = match self.value.kind() {
            Kind::Scalar(Scalar::RawObject) => go_type(self.value),
            Kind::Scalar(scalar) => match scalar::accept(raw, scalar) {
                Ok(value) => return Ok(value),
                Err(Misfit::Own(message)) => {
                    if scalar == Scalar::Bytes {
                        self.context.restoring.get_or_insert_with(|| format!("error decoding from json: {message}"));
                    }
                    return Err(self.context.fail(message));
                }
                Err(Misfit::Type(found)) => return Err(self.context.misfit(&found, scalar::go_type(scalar))),
            },
            _ => go_type(self.value),
        };
        Err(self.context.misfit(&raw.described(), &expected))
    }

    fn inner(&mut self, value: ValueRef<'s>) -> Walk<'s, '_> {
        Walk { value, context: self.context }
    }

    fn deeper<E: Error>(&mut self) -> Result<(), E> {
        if self.context.trail.0.len() < MAX_DEPTH {
            Ok(())
        } else {
            Err(self.context.fail("exceeded max depth".into()))
        }
    }

    /// A structure: its fields by name, others left out.
    fn object<'de, A: MapAccess<'de>>(mut self, ty: TypeRef<'s>, mut access: A) -> Result<Value, A::Error> {
        self.context.owners.push(ty);
        let start = self.context.fields.len();
        // Bits of the schema's fields that were met, and of those that are there. No kind has 128 fields; the rest is looked for by name.
        let (mut met, mut there): (u128, u128) = (0, 0);
        while let Some(key) = access.next_key_seed(Name(ty))? {
            let (name, bit) = match &key {
                Key::Known(field) => (field.name(), field.bit(ty)),
                Key::Other(name) => (name.as_str(), 0),
            };
            let again = if bit == 0 { self.has_field(start, name) } else { met & bit != 0 };
            met |= bit;
            if again && self.context.collect {
                let path = self.context.trail.with(name);
                self.context.problems.duplicate(path);
            }
            match key {
                Key::Known(field) => {
                    self.context.trail.0.push(Step::Field(field.name()));
                    let value = access.next_value_seed(self.inner(field.value()))?;
                    self.context.trail.0.pop();
                    if field.gated_off() {
                        continue;
                    }
                    if self.context.leaves_out(&value, field) {
                        if field.nothing() == Nothing::Null && !value.is_null() {
                            self.context.tell_empty(field);
                        }
                        there &= !bit;
                        // The last one counts, as in Go: null after a value undoes it only where Go's null does, for pointers,
                        // maps and lists; every optional field is one of these on the wire.
                        if again {
                            self.drop_field(start, field.name());
                        }
                    } else if again {
                        there |= bit;
                        self.replace_field(start, field.symbol(), value);
                    } else {
                        there |= bit;
                        self.context.fields.push((field.symbol(), value));
                    }
                }
                Key::Other(name) if ty.keeps_unknown() => {
                    self.context.trail.0.push(Step::Key(name.clone()));
                    let value = access.next_value_seed(AnyValue { context: self.context })?;
                    self.context.trail.0.pop();
                    self.replace_field(start, name, value);
                }
                Key::Other(name) => {
                    if self.context.collect {
                        let path = self.context.trail.with(&name);
                        self.context.problems.unknown(path);
                    }
                    access.next_value::<IgnoredAny>()?;
                }
            }
        }
        self.context.owners.pop();
        let mut missing = if self.context.complete { ty.shown() & !there } else { 0 };
        while missing != 0 {
            let field = ty.nth(missing.trailing_zeros());
            self.context.fields.extend(field.map(|field| (field.symbol(), field.zero())));
            missing &= missing - 1;
        }
        // Defaults will be added to it.
        let mut fields = Vec::with_capacity(self.context.fields.len() - start + DEFAULTS);
        fields.extend(self.context.fields.drain(start..));
        Ok(Value::Object(Map::of_distinct(fields)))
    }

    fn has_field(&self, start: usize, name: &str) -> bool {
        self.context.fields[start..].iter().any(|(known, _)| known == name)
    }

    fn drop_field(&mut self, start: usize, name: &str) {
        if let Some(at) = self.context.fields[start..].iter().position(|(known, _)| known == name) {
            self.context.fields.remove(start + at);
        }
    }

    fn replace_field(&mut self, start: usize, name: Symbol, value: Value) {
        match self.context.fields[start..].iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => self.context.fields.push((name, value)),
        }
    }

    fn map<'de, A: MapAccess<'de>>(mut self, value: ValueRef<'s>, mut access: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = access.next_key_seed(AnyKey)? {
            if self.context.collect && object.contains_key(&key) {
                let path = self.context.trail.with(&key);
                self.context.problems.duplicate(path);
            }
            self.context.trail.0.push(Step::Key(key));
            let found = access.next_value_seed(self.inner(value))?;
            let Some(Step::Key(key)) = self.context.trail.0.pop() else { continue };
            object.insert(key, or_zero(found, value));
        }
        Ok(Value::Object(object))
    }
}

/// What stands for a null among the items of a list or the values of a map.
fn or_zero(found: Value, value: ValueRef<'_>) -> Value {
    match (found, value.kind()) {
        (Value::Null, Kind::Scalar(scalar)) => scalar.zero(),
        (Value::Null, Kind::Object(ty)) => ty.zero(),
        (found, _) => found,
    }
}

fn keeps_null(value: ValueRef<'_>) -> bool {
    matches!(value.kind(), Kind::Scalar(Scalar::Any))
}

/// Whether a field that holds this is left out, or written as if it had not been given.
pub(super) fn is_left_out(value: &Value, field: Field<'_>) -> bool {
    match value {
        Value::Null => !keeps_null(field.value()),
        Value::Array(items) => items.is_empty() && matches!(field.nothing(), Nothing::Dropped | Nothing::Null),
        Value::Object(fields) => {
            // A structure that is pointed to is there, though it says nothing.
            fields.is_empty()
                && matches!(field.nothing(), Nothing::Dropped | Nothing::Null)
                && matches!(field.value().kind(), Kind::Map(_))
        }
        Value::String(text) => text.is_empty() && field.nothing() == Nothing::Dropped,
        Value::Bool(true) => false,
        Value::Bool(false) => field.nothing() == Nothing::Dropped,
        Value::Number(number) => field.nothing() == Nothing::Dropped && number.as_f64() == Some(0.0),
    }
}

/// The Go type of a value, for messages.
fn go_type(value: ValueRef<'_>) -> String {
    match value.kind() {
        Kind::Scalar(scalar) => scalar::go_type(scalar).into(),
        Kind::Object(ty) => format!("{}.{}", ty.package(), ty.name()),
        Kind::List(item) => format!("[]{}", go_type(item)),
        Kind::Map(value) => format!("map[string]{}", go_type(value)),
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_, '_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(mut self, deserializer: D) -> Result<Value, D::Error> {
        self.deeper()?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_, '_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&go_type(self.value))
    }
    fn visit_bool<E: Error>(self, v: bool) -> Result<Value, E> {
        self.scalar(Raw::Bool(v))
    }
    fn visit_i64<E: Error>(self, v: i64) -> Result<Value, E> {
        self.scalar(Raw::Int(v))
    }
    fn visit_u64<E: Error>(self, v: u64) -> Result<Value, E> {
        self.scalar(Raw::Uint(v))
    }
    fn visit_f64<E: Error>(self, v: f64) -> Result<Value, E> {
        self.scalar(Raw::Float(v))
    }
    fn visit_str<E: Error>(self, v: &str) -> Result<Value, E> {
        self.scalar(Raw::Text(Cow::Borrowed(v)))
    }
    fn visit_string<E: Error>(self, v: String) -> Result<Value, E> {
        self.scalar(Raw::Text(Cow::Owned(v)))
    }
    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_none<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut access: A) -> Result<Value, A::Error> {
        match self.value.kind() {
            Kind::List(item) => {
                let mut items = Vec::new();
                loop {
                    self.context.trail.0.push(Step::Index(items.len()));
                    let found = access.next_element_seed(self.inner(item))?;
                    self.context.trail.0.pop();
                    match found {
                        Some(found) => items.push(or_zero(found, item)),
                        None => return Ok(Value::Array(items)),
                    }
                }
            }
            Kind::Scalar(Scalar::Any) => any_list(self.context, access),
            _ => {
                let expected = go_type(self.value);
                Err(self.context.misfit("array", &expected))
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<Value, A::Error> {
        match self.value.kind() {
            Kind::Object(ty) => self.object(ty, access),
            Kind::Map(value) => self.map(value, access),
            Kind::Scalar(Scalar::Any | Scalar::RawObject) => any_map(self.context, access),
            _ => {
                let expected = go_type(self.value);
                Err(self.context.misfit("object", &expected))
            }
        }
    }
}

/// A field's name: looked up before anything is allocated.
struct Name<'s>(TypeRef<'s>);

enum Key<'s> {
    Known(Field<'s>),
    Other(Symbol),
}

impl<'de, 's> DeserializeSeed<'de> for Name<'s> {
    type Value = Key<'s>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Key<'s>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'s> Visitor<'_> for Name<'s> {
    type Value = Key<'s>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }
    fn visit_str<E>(self, v: &str) -> Result<Key<'s>, E> {
        Ok(self.0.field(v).map_or_else(|| Key::Other(v.into()), Key::Known))
    }
    // YAML has keys that are not text; JSON made of it has their text.
    fn visit_bool<E>(self, v: bool) -> Result<Key<'s>, E> {
        Ok(Key::Other(v.to_string().into()))
    }
    fn visit_i64<E>(self, v: i64) -> Result<Key<'s>, E> {
        Ok(Key::Other(v.to_string().into()))
    }
    fn visit_u64<E>(self, v: u64) -> Result<Key<'s>, E> {
        Ok(Key::Other(v.to_string().into()))
    }
    fn visit_f64<E>(self, v: f64) -> Result<Key<'s>, E> {
        Ok(Key::Other(v.to_string().into()))
    }
}

/// A map's key.
pub(crate) struct AnyKey;

impl<'de> DeserializeSeed<'de> for AnyKey {
    type Value = Symbol;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Symbol, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for AnyKey {
    type Value = Symbol;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }
    fn visit_str<E>(self, v: &str) -> Result<Symbol, E> {
        Ok(v.into())
    }
    fn visit_string<E>(self, v: String) -> Result<Symbol, E> {
        Ok(v.into())
    }
    fn visit_bool<E>(self, v: bool) -> Result<Symbol, E> {
        Ok(v.to_string().into())
    }
    fn visit_i64<E>(self, v: i64) -> Result<Symbol, E> {
        Ok(v.to_string().into())
    }
    fn visit_u64<E>(self, v: u64) -> Result<Symbol, E> {
        Ok(v.to_string().into())
    }
    fn visit_f64<E>(self, v: f64) -> Result<Symbol, E> {
        Ok(v.to_string().into())
    }
}

/// A value of which nothing is known: taken as it is, but not deeper than anything else.
pub(super) struct AnyValue<'s, 'c> {
    context: &'c mut Context<'s>,
}

impl<'s, 'c> AnyValue<'s, 'c> {
    pub fn new(context: &'c mut Context<'s>) -> Self {
        Self { context }
    }
}

impl<'de> DeserializeSeed<'de> for AnyValue<'_, '_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        if self.context.trail.0.len() >= MAX_DEPTH {
            return Err(self.context.fail("exceeded max depth".into()));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for AnyValue<'_, '_> {
    type Value = Value;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
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
        Ok(Raw::Float(v).into_value())
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
    fn visit_seq<A: SeqAccess<'de>>(self, access: A) -> Result<Value, A::Error> {
        any_list(self.context, access)
    }
    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<Value, A::Error> {
        any_map(self.context, access)
    }
}

fn any_list<'de, A: SeqAccess<'de>>(context: &mut Context<'_>, mut access: A) -> Result<Value, A::Error> {
    let mut items = Vec::new();
    loop {
        context.trail.0.push(Step::Index(items.len()));
        let found = access.next_element_seed(AnyValue { context })?;
        context.trail.0.pop();
        match found {
            Some(found) => items.push(found),
            None => return Ok(Value::Array(items)),
        }
    }
}

fn any_map<'de, A: MapAccess<'de>>(context: &mut Context<'_>, mut access: A) -> Result<Value, A::Error> {
    let mut object = Map::new();
    while let Some(key) = access.next_key_seed(AnyKey)? {
        if context.collect && object.contains_key(&key) {
            let path = context.trail.with(&key);
            context.problems.duplicate(path);
        }
        context.trail.0.push(Step::Key(key));
        let found = access.next_value_seed(AnyValue { context })?;
        if let Some(Step::Key(key)) = context.trail.0.pop() {
            object.insert(key, found);
        }
    }
    Ok(Value::Object(object))
}
