//! Reading, filling in and checking fields of an object, as strategies do.

use coracle_api::quantity::Quantity;
use coracle_api::status::FieldPath;
use coracle_api::{Cause, validation};
use serde_json::{Map, Value};

/// The text of a field; empty when absent or something else.
pub fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// The items of a list field.
pub fn items<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The items of a list field, for writing.
pub fn items_mut<'a>(value: &'a mut Value, name: &str) -> impl Iterator<Item = &'a mut Value> {
    value.get_mut(name).and_then(Value::as_array_mut).into_iter().flatten()
}

/// Whether a field is there and holds something.
pub fn is_set(value: &Value, name: &str) -> bool {
    match value.get(name) {
        None | Some(Value::Null) => false,
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Array(items)) => !items.is_empty(),
        Some(_) => true,
    }
}

/// Puts a value where there is none, null or an empty string.
pub fn set_default(value: &mut Value, name: &str, default: impl Into<Value>) {
    let Some(map) = value.as_object_mut() else { return };
    match map.get(name) {
        None | Some(Value::Null) => drop(map.insert(name.to_owned(), default.into())),
        Some(Value::String(text)) if text.is_empty() => drop(map.insert(name.to_owned(), default.into())),
        Some(_) => {}
    }
}

/// Sets a field.
pub fn set(value: &mut Value, name: &str, to: impl Into<Value>) {
    if let Some(map) = value.as_object_mut() {
        map.insert(name.to_owned(), to.into());
    }
}

/// Removes a field.
pub fn remove(value: &mut Value, name: &str) -> Option<Value> {
    value.as_object_mut()?.shift_remove(name)
}

/// Carries a field over from another object, absent where it is absent there.
pub fn copy(value: &mut Value, from: &Value, name: &str) {
    match from.get(name) {
        Some(field) => set(value, name, field.clone()),
        None => drop(remove(value, name)),
    }
}

/// The field as an object, made when absent.
pub fn object_mut<'a>(value: &'a mut Value, name: &str) -> &'a mut Value {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    let field = &mut value[name];
    if !field.is_object() {
        *field = Value::Object(Map::new());
    }
    field
}

/// Both have the field alike; null counts as absent.
pub fn same(a: &Value, b: &Value, name: &str) -> bool {
    let of = |value: &Value| value.get(name).filter(|field| !field.is_null()).cloned();
    of(a) == of(b)
}

/// Both say the same: null and an empty list are as good as absent (apimachinery `equality.Semantic`).
pub fn alike(a: &Value, b: &Value) -> bool {
    let nothing = |value: &Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let in_b =
                a.iter().all(|(name, value)| b.get(name).map_or_else(|| nothing(value), |other| alike(value, other)));
            in_b && b.iter().all(|(name, value)| a.contains_key(name) || nothing(value))
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| alike(a, b)),
        _ => a == b || nothing(a) && nothing(b),
    }
}

/// Adds a cause for every message.
pub fn invalid_all(path: &FieldPath, value: &str, messages: Vec<String>, causes: &mut Vec<Cause>) {
    causes.extend(messages.into_iter().map(|message| Cause::invalid(path, value, message)));
}

/// A field that must be there; true when it is.
pub fn require(value: &Value, name: &str, path: &FieldPath, causes: &mut Vec<Cause>) -> bool {
    let there = is_set(value, name);
    if !there {
        causes.push(Cause::required(&path.child(name), ""));
    }
    there
}

/// A field that must be one of a few, when it is there.
pub fn one_of(value: &Value, name: &str, allowed: &[&str], path: &FieldPath, causes: &mut Vec<Cause>) {
    if let Some(found) = value.get(name).and_then(Value::as_str)
        && !allowed.contains(&found)
    {
        causes.push(Cause::not_supported(&path.child(name), found, allowed));
    }
}

/// The message of upstream's check for numbers that must not be negative.
pub const NON_NEGATIVE: &str = "must be greater than or equal to 0";

/// A number that must not be negative, when it is there.
pub fn non_negative(value: &Value, name: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    if let Some(number) = value.get(name).and_then(Value::as_i64)
        && number < 0
    {
        causes.push(Cause::invalid(&path.child(name), number, NON_NEGATIVE));
    }
}

/// A quantity, when the field holds one.
pub fn quantity(value: &Value) -> Option<Quantity> {
    match value {
        Value::String(text) => Quantity::parse(text).ok(),
        Value::Number(number) => Quantity::parse(&number.to_string()).ok(),
        _ => None,
    }
}

/// A map of labels (validation `ValidateLabels`).
pub fn labels(map: Option<&Value>, path: &FieldPath, causes: &mut Vec<Cause>) {
    for (key, value) in map.and_then(Value::as_object).into_iter().flatten() {
        invalid_all(path, key, validation::qualified_name(key), causes);
        let value = value.as_str().unwrap_or_default();
        invalid_all(&path.key(key), value, validation::label_value(value), causes);
    }
}

/// A metav1.LabelSelector (validation `ValidateLabelSelector`).
pub fn label_selector(selector: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    labels(selector.get("matchLabels"), &path.child("matchLabels"), causes);
    for (nth, expression) in items(selector, "matchExpressions").iter().enumerate() {
        let path = path.child("matchExpressions").index(nth);
        let values = items(expression, "values");
        match text(expression, "operator") {
            "In" | "NotIn" if values.is_empty() => {
                causes.push(Cause::required(
                    &path.child("values"),
                    "must be specified when `operator` is 'In' or 'NotIn'",
                ));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                causes.push(Cause::forbidden(
                    &path.child("values"),
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                ));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => causes.push(Cause::invalid(&path.child("operator"), other, "not a valid selector operator")),
        }
        let key = text(expression, "key");
        invalid_all(&path.child("key"), key, validation::qualified_name(key), causes);
        for (at, value) in values.iter().enumerate() {
            let value = value.as_str().unwrap_or_default();
            invalid_all(&path.child("values").index(at), value, validation::label_value(value), causes);
        }
    }
}

/// Whether a selector has no requirement.
pub fn selects_everything(selector: &Value) -> bool {
    selector.get("matchLabels").and_then(Value::as_object).is_none_or(Map::is_empty)
        && items(selector, "matchExpressions").is_empty()
}
