//! Whether a document is already what reading it against its schema would make of it.

use std::borrow::Cow;

use crate::json::Value;

use super::scalar::{self, Raw};
use super::walk::{MAX_DEPTH, is_left_out};
use crate::schema::{Field, Kind, Nothing, Scalar, ValueRef};

/// True only if reading would change nothing and complain about nothing. What is patched mostly is so.
pub(super) fn conforms(value: &Value, to: ValueRef<'_>, depth: usize) -> bool {
    if depth >= MAX_DEPTH {
        return false;
    }
    match (to.kind(), value) {
        (Kind::Object(ty), Value::Object(fields)) => {
            let mut there = 0;
            let fit = fields.iter().all(|(name, value)| {
                ty.field(name).is_some_and(|field| {
                    there |= field.bit(ty);
                    may_stand(field, value, depth)
                })
            });
            fit && ty.shown() & !there == 0
        }
        (Kind::Map(inner), Value::Object(entries)) => entries.values().all(|value| conforms(value, inner, depth + 1)),
        (Kind::List(inner), Value::Array(items)) => items.iter().all(|value| conforms(value, inner, depth + 1)),
        (Kind::Scalar(Scalar::RawObject), Value::Object(_)) | (Kind::Scalar(Scalar::Any), _) => {
            is_shallow(value, depth)
        }
        (Kind::Scalar(scalar), value) => fits(value, scalar),
        _ => false,
    }
}

fn may_stand(field: Field<'_>, value: &Value, depth: usize) -> bool {
    may_be_told(field, value).unwrap_or_else(|| conforms(value, field.value(), depth + 1))
}

/// Whether a field may hold a value, as far as that is decided by the field.
fn may_be_told(field: Field<'_>, value: &Value) -> Option<bool> {
    if value.is_null() && field.nothing() == Nothing::Null {
        return Some(true);
    }
    (field.gated_off() || is_left_out(value, field)).then_some(false)
}

/// The same of a value that was `old`, which conformed, before a patch that names fields by `named`: values that are no objects
/// are there anew. The patch may be a strategic one; what directives do is not foreseen.
pub(super) fn conforms_still(value: &Value, old: &Value, named: &Value, to: ValueRef<'_>, depth: usize) -> bool {
    let (Value::Object(fields), Value::Object(before), Value::Object(named)) = (value, old, named) else {
        return conforms(value, to, depth);
    };
    if depth >= MAX_DEPTH || named.keys().any(|name| name.starts_with('$')) {
        return conforms(value, to, depth);
    }
    let still = |name: &str, value: &Value, named: &Value, to: ValueRef<'_>| match before.get(name) {
        Some(old) => conforms_still(value, old, named, to, depth + 1),
        None => conforms(value, to, depth + 1),
    };
    match to.kind() {
        Kind::Object(ty) => named.iter().all(|(name, named)| match (ty.field(name), fields.get(name)) {
            (None, value) => value.is_none(),
            (Some(field), None) => ty.shown() & field.bit(ty) == 0,
            (Some(field), Some(value)) if field.strategy().replace => may_stand(field, value, depth),
            (Some(field), Some(value)) => {
                may_be_told(field, value).unwrap_or_else(|| still(name, value, named, field.value()))
            }
        }),
        Kind::Map(inner) => {
            named.iter().all(|(name, named)| fields.get(name).is_none_or(|value| still(name, value, named, inner)))
        }
        Kind::List(_) | Kind::Scalar(_) => conforms(value, to, depth),
    }
}

/// What is taken as it is must not nest too deeply, either.
pub(super) fn is_shallow(value: &Value, depth: usize) -> bool {
    let below = |value: &Value| is_shallow(value, depth + 1);
    depth < MAX_DEPTH
        && match value {
            Value::Object(fields) => fields.values().all(below),
            Value::Array(items) => items.iter().all(below),
            _ => true,
        }
}

fn fits(value: &Value, scalar: Scalar) -> bool {
    let is_int32 = |value: &Value| value.as_i64().is_some_and(|number| i32::try_from(number).is_ok());
    match (scalar, value) {
        (Scalar::String | Scalar::IntOrString, Value::String(_)) | (Scalar::Bool, Value::Bool(_)) => true,
        (Scalar::Int32 | Scalar::IntOrString, Value::Number(_)) => is_int32(value),
        (Scalar::Int64, Value::Number(_)) => value.is_i64(),
        (Scalar::Quantity | Scalar::Time | Scalar::MicroTime | Scalar::Bytes, Value::String(text)) => {
            scalar::accept(Raw::Text(Cow::Borrowed(text)), scalar).is_ok_and(|canonical| canonical == *value)
        }
        // The rest is wrong, or rare enough to be read.
        _ => false,
    }
}
