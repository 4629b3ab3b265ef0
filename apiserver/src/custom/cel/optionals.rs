//! Values that may not be there (cel-go's optional types).

use super::eval::{NO_OVERLOAD, Outcome};
use super::values;
use kube_cel::cel::Value;
use kube_cel::cel::common::ast::operators;
use kube_cel::cel::objects::OptionalValue;
use std::sync::Arc;

/// What is in an optional value; None where it is none at all.
pub fn inner(value: &Value) -> Option<Option<&Value>> {
    let Value::Opaque(opaque) = value else { return None };
    opaque.downcast_ref::<OptionalValue>().map(OptionalValue::value)
}

pub fn of(value: Option<Value>) -> Value {
    Value::Opaque(Arc::new(value.map_or_else(OptionalValue::none, OptionalValue::of)))
}

/// What the library of functions gives where there may be nothing.
pub fn from_library(value: Value) -> Value {
    match value {
        value if inner(&value).is_some() => value,
        Value::Null => of(None),
        value => of(Some(value)),
    }
}

/// A function on optional values, if this is one.
pub fn call(name: &str, args: &[Value]) -> Option<Outcome> {
    Some(match (name, args) {
        ("optional.of", [value]) => Ok(of(Some(value.clone()))),
        ("optional.none", []) => Ok(of(None)),
        ("optional.ofNonZeroValue", [value]) => Ok(of((!values::is_zero(value)).then(|| value.clone()))),
        ("optional.unwrap" | "unwrapOpt", [Value::List(items)]) => {
            let items = items.iter().filter_map(|item| inner(item).flatten().cloned());
            Ok(Value::List(Arc::new(items.collect())))
        }
        ("hasValue", [value]) => inner(value).map(|inner| Value::Bool(inner.is_some())).ok_or(NO_OVERLOAD.to_owned()),
        ("value", [value]) => match inner(value) {
            Some(Some(inner)) => Ok(inner.clone()),
            Some(None) => Err("optional.none() dereference".to_owned()),
            None => Err(NO_OVERLOAD.to_owned()),
        },
        (operators::OPT_SELECT | operators::OPT_INDEX, [operand, key]) => index(operand, key),
        (operators::INDEX, [operand, key]) if inner(operand).is_some() => index(operand, key),
        _ => return None,
    })
}

/// What is at a key of what may not be there, or is in it.
fn index(operand: &Value, key: &Value) -> Outcome {
    let operand = match inner(operand) {
        Some(None) => return Ok(of(None)),
        Some(Some(inner)) => inner,
        None => operand,
    };
    match operand {
        Value::List(_) | Value::Map(_) => Ok(of(values::index(operand, key).ok())),
        _ => Err(NO_OVERLOAD.to_owned()),
    }
}
