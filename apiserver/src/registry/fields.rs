//! Reading, filling in and checking fields of an object, as strategies do.

use coracle_api::json;
use coracle_api::json::{Map, Value};
use coracle_api::quantity::Quantity;
use coracle_api::status::FieldPath;
use coracle_api::{Cause, validation};

/// A field.
pub fn field<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    value.as_object()?.get(name)
}

/// A field, for writing.
pub fn field_mut<'a>(value: &'a mut Value, name: &str) -> Option<&'a mut Value> {
    value.as_object_mut()?.get_mut(name)
}

/// A value below others, for writing.
pub fn below_mut<'a>(value: &'a mut Value, names: &[&str]) -> Option<&'a mut Value> {
    names.iter().try_fold(value, |value, name| field_mut(value, name))
}

/// The text of a field; empty when absent or something else.
pub fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    field(value, name).and_then(Value::as_str).unwrap_or_default()
}

/// The items of a list field.
pub fn items<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    field(value, name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The items of a list field, for writing.
pub fn items_mut<'a>(value: &'a mut Value, name: &str) -> impl Iterator<Item = &'a mut Value> {
    field_mut(value, name).and_then(Value::as_array_mut).into_iter().flatten()
}

/// Whether a field is there and holds something.
pub fn is_set(value: &Value, name: &str) -> bool {
    match field(value, name) {
        None | Some(Value::Null) => false,
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Array(items)) => !items.is_empty(),
        Some(_) => true,
    }
}

/// Puts a value where there is none, or null. An empty string is left out when an object is read, unless upstream's field is a
/// pointer: then it is given, and mostly wrong.
pub fn set_default(value: &mut Value, name: &str, default: impl Into<Value>) {
    match field_mut(value, name) {
        Some(absent @ Value::Null) => *absent = default.into(),
        Some(_) => {}
        None => set(value, name, default),
    }
}

/// Puts a text where there is none, or an empty one: for fields that are always there.
pub fn set_default_text(value: &mut Value, name: &str, default: &str) {
    if text(value, name).is_empty() {
        set(value, name, default);
    }
}

/// Sets a field.
pub fn set(value: &mut Value, name: &str, to: impl Into<Value>) {
    if let Some(map) = value.as_object_mut() {
        map.insert(name, to.into());
    }
}

/// Removes a field.
pub fn remove(value: &mut Value, name: &str) -> Option<Value> {
    value.as_object_mut()?.remove(name)
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
    if !field(value, name).is_some_and(Value::is_object) {
        set(value, name, Map::new());
    }
    &mut value[name]
}

/// Both have the field alike; null counts as absent.
pub fn same<'v>(a: &'v Value, b: &'v Value, name: &str) -> bool {
    let of = |value: &'v Value| field(value, name).filter(|field| !field.is_null());
    match (of(a), of(b)) {
        (Some(a), Some(b)) => json::same(a, b),
        (a, b) => a.is_none() && b.is_none(),
    }
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

/// A path that a domain stands before, as `acme.io/foo` (validation `IsDomainPrefixedPath`).
pub fn domain_prefixed_path(value: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    match value.split_once('/') {
        _ if value.is_empty() => causes.push(Cause::required(path, "")),
        Some((domain, rest)) if !domain.is_empty() && !rest.is_empty() => {
            invalid_all(path, domain, validation::dns1123_subdomain(domain), causes);
            if !rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&byte)) {
                let why = "Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')";
                causes.push(Cause::invalid(path, rest, why));
            }
        }
        _ => causes.push(Cause::invalid(path, value, "must be a domain-prefixed path (such as \"acme.io/foo\")")),
    }
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
    if let Some(found) = field(value, name).and_then(Value::as_str)
        && !allowed.contains(&found)
    {
        causes.push(Cause::not_supported(&path.child(name), found, allowed));
    }
}

/// The message of upstream's check for numbers that must not be negative.
pub const NON_NEGATIVE: &str = "must be greater than or equal to 0";

/// A number that must not be negative, when it is there.
pub fn non_negative(value: &Value, name: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    if let Some(number) = field(value, name).and_then(Value::as_i64)
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
        // The key is not told with the value.
        invalid_all(path, value, validation::label_value(value), causes);
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
