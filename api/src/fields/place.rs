//! How a value is told apart by field: what the schema says of the place it stands in.

use std::borrow::Cow;

use crate::json::Value;

use super::set::{Element, key_text};
use crate::gvk::Symbol;
use crate::json;
use crate::schema::{Field, Kind, Level, ListType, Nothing, Scalar, TypeRef, ValueRef};

/// What the schema says of a place in an object.
#[derive(Clone, Copy)]
pub(super) struct Place<'s> {
    /// None where the schema says nothing: maps are then told apart by field, lists are not.
    pub value: Option<ValueRef<'s>>,
    said: Said<'s>,
}

/// Where it stands how the values of a place are applied. Most places are asked for little of it.
#[derive(Clone, Copy)]
enum Said<'s> {
    /// Nowhere: plainly.
    Nowhere,
    /// With the field that it is.
    Field(Field<'s>),
    /// In the first of these; the others are about what is inside.
    Levels(&'s [Level]),
}

/// What the values of a place are to those who own fields, as far as the schema says.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Owned {
    /// Each is one value, without anything inside.
    Scalar,
    /// Each is one value, but a list, map or structure.
    Whole,
    /// Field by field, or item by item.
    Apart,
}

/// What a value is to those who own fields.
pub(super) enum Form<'v> {
    /// One value, owned as a whole.
    Leaf,
    /// Owned field by field.
    Fields(&'v crate::json::Map),
    /// Owned item by item.
    Items(&'v [Value]),
}

impl<'s> Place<'s> {
    pub fn root(ty: TypeRef<'s>) -> Self {
        Self { value: Some(ty.value()), said: Said::Nowhere }
    }

    pub const UNKNOWN: Place<'static> = Place { value: None, said: Said::Nowhere };

    /// The place of a value inside this one.
    fn inside(self, value: ValueRef<'s>) -> Self {
        let inner = match self.said {
            Said::Nowhere => &[],
            Said::Field(field) => field.inner_levels(),
            Said::Levels(levels) => levels.get(1..).unwrap_or_default(),
        };
        Self { value: Some(value), said: if inner.is_empty() { Said::Nowhere } else { Said::Levels(inner) } }
    }

    fn of_field(field: Field<'s>) -> Self {
        Self { value: Some(field.value()), said: Said::Field(field) }
    }

    fn as_field(self) -> Option<Field<'s>> {
        match self.said {
            Said::Field(field) => Some(field),
            Said::Nowhere | Said::Levels(_) => None,
        }
    }

    fn level(self) -> Option<&'s Level> {
        match self.said {
            Said::Levels(levels) => levels.first(),
            Said::Nowhere | Said::Field(_) => None,
        }
    }

    fn atomic(self) -> bool {
        self.as_field().map_or_else(|| self.level().is_some_and(|level| level.atomic), Field::atomic)
    }

    fn list_type(self) -> ListType {
        let of_field = self.as_field().and_then(Field::list_type);
        of_field.or_else(|| self.level().map(|level| level.list_type)).unwrap_or(ListType::Atomic)
    }

    /// What tells items apart.
    fn keys(self) -> &'s [Symbol] {
        let of_level = || self.level().map_or(&[][..], |level| &level.list_keys);
        self.as_field().map_or_else(of_level, Field::list_keys)
    }

    /// Whether what stands here does so before anything is set: upstream's structure holds it by value and shows it always.
    pub fn is_by_value(self) -> bool {
        self.as_field().is_some_and(|field| matches!(field.nothing(), Nothing::Zero | Nothing::Null))
    }

    /// Whether a value that is there by value is compared as one with what was there before.
    pub fn is_one(self, value: &Value) -> bool {
        let is_null = self.as_field().is_some_and(|field| field.nothing() == Nothing::Null);
        match (value, self.value.and_then(ValueRef::object)) {
            (Value::Object(map), _) if map.is_empty() => is_null,
            (Value::Array(items), _) if items.is_empty() => is_null,
            // Where more stands than always does, something was set.
            (Value::Object(map), Some(ty)) if map.len() != ty.shown().count_ones() as usize => false,
            _ => self.is_zero(value),
        }
    }

    /// Whether a value that is there by value is what it was before anything was set.
    pub fn is_zero(self, value: &Value) -> bool {
        self.as_field().is_some_and(|field| json::same(&field.zero(), value))
    }

    /// The place of a field or map entry. None for a field that the structure does not have.
    #[inline]
    pub fn field(self, name: &str) -> Option<Place<'s>> {
        match self.value.map(ValueRef::kind) {
            Some(Kind::Object(ty)) => match ty.field(name) {
                Some(field) => Some(Self::of_field(field)),
                None => ty.keeps_unknown().then_some(Place::UNKNOWN),
            },
            Some(Kind::Map(inner)) => Some(self.inside(inner)),
            _ => Some(Place::UNKNOWN),
        }
    }

    /// Whether the name is one of a structure's fields, and not an entry of a map.
    pub fn is_named(self, name: &str) -> bool {
        matches!(self.value.map(ValueRef::kind), Some(Kind::Object(ty)) if ty.field(name).is_some())
    }

    /// The place of an item.
    pub fn item(self) -> Place<'s> {
        match self.value.map(ValueRef::kind) {
            Some(Kind::List(inner)) => self.inside(inner),
            _ => Place::UNKNOWN,
        }
    }

    pub fn is_keyed(self) -> bool {
        self.list_type() == ListType::Map
    }

    /// How a value here is owned.
    pub fn form<'v>(self, value: &'v Value) -> Form<'v> {
        match (self.value.map(ValueRef::kind), value) {
            (Some(Kind::Object(ty)), Value::Object(map)) if !self.atomic() && !ty.atomic() => Form::Fields(map),
            (Some(Kind::Map(_)), Value::Object(map)) if !self.atomic() => Form::Fields(map),
            // Of what may be anything, objects are owned field by field (structured-merge-diff `__untyped_deduced_`).
            (None | Some(Kind::Scalar(Scalar::Any)), Value::Object(map)) if !self.atomic() => Form::Fields(map),
            (Some(Kind::List(_)), Value::Array(items)) if self.list_type() != ListType::Atomic => Form::Items(items),
            _ => Form::Leaf,
        }
    }

    /// How values here are owned, whatever stands here.
    #[inline]
    pub fn owned(self) -> Owned {
        match self.value.map(ValueRef::kind) {
            Some(Kind::Object(ty)) if ty.atomic() => Owned::Whole,
            None | Some(Kind::Object(_) | Kind::Map(_) | Kind::Scalar(Scalar::Any)) if self.atomic() => Owned::Whole,
            None | Some(Kind::Object(_) | Kind::Map(_) | Kind::Scalar(Scalar::Any)) => Owned::Apart,
            Some(Kind::List(_)) if self.list_type() == ListType::Atomic => Owned::Whole,
            Some(Kind::List(_)) => Owned::Apart,
            Some(Kind::Scalar(_)) => Owned::Scalar,
        }
    }

    /// How an item of a list here is told from the others.
    ///
    /// # Errors
    /// An item that cannot be told apart, in upstream's words.
    pub fn element<'v>(self, item: &'v Value) -> Result<Element<'v>, String> {
        if !self.is_keyed() {
            return match item {
                Value::Null => Err("associative list without keys has an element that's an explicit null".to_owned()),
                Value::Array(_) => Err("associative list without keys has an element that's a list type".to_owned()),
                Value::Object(_) => Err("associative list without keys has an element that's a map type".to_owned()),
                scalar => Ok(Element::Value(Cow::Owned(scalar.to_string()))),
            };
        }
        let Value::Object(fields) = item else {
            let what = if item.is_null() { "a null element" } else { "non-map elements" };
            return Err(format!("associative list with keys may not have {what}"));
        };
        let ty = self.item().value.and_then(ValueRef::object);
        let mut found: Vec<(&str, Cow<'_, Value>)> = Vec::with_capacity(self.keys().len());
        for key in self.keys() {
            match fields.get(key) {
                Some(value) => found.push((key, Cow::Borrowed(value))),
                None => found.extend(key_default(ty, key).map(|value| (&**key, Cow::Owned(value)))),
            }
        }
        if found.is_empty() {
            let keys: Vec<String> = self.keys().iter().map(|key| format!("{:?}", key.as_str())).collect();
            return Err(format!(
                "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values for any key fields)",
                keys.join(" ")
            ));
        }
        found.sort_by(|a, b| a.0.cmp(b.0));
        Ok(Element::Key(Cow::Owned(key_text(found.iter().map(|(name, value)| (*name, &**value))))))
    }
}

/// What a key stands for that is left out: what the schema of a custom resource says, and upstream's schema gives ports a
/// protocol and references an empty name (`+default` on key fields of core/v1).
fn key_default(ty: Option<TypeRef<'_>>, key: &str) -> Option<Value> {
    if let Some(default) = ty?.field(key).and_then(Field::default) {
        return Some(default.clone());
    }
    match (ty?.full_name(), key) {
        ("io.k8s.api.core.v1.ContainerPort" | "io.k8s.api.core.v1.ServicePort", "protocol") => Some("TCP".into()),
        ("io.k8s.api.core.v1.LocalObjectReference", "name") => Some("".into()),
        _ => None,
    }
}

/// Whether a number is expected.
pub(super) fn is_number(scalar: Scalar) -> bool {
    matches!(scalar, Scalar::Int32 | Scalar::Int64 | Scalar::Number)
}
