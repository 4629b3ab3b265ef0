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
    if value.is_null() && field.nothing() == Nothing::Null {
        return true;
    }
    !field.gated_off() && !is_left_out(value, field) && conforms(value, field.value(), depth + 1)
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
