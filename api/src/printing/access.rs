//! Short ways to read a document by path.

use std::fmt::Display;

use crate::json::{Map, Value};

/// Text at a JSON pointer, empty when there is none.
pub(super) fn str_at<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// A whole number at a JSON pointer, 0 when there is none.
pub(super) fn int_at(value: &Value, pointer: &str) -> i64 {
    value.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

/// The items of a list at a JSON pointer.
pub(super) fn list_at<'v>(value: &'v Value, pointer: &str) -> &'v [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The entries of a map at a JSON pointer.
pub(super) fn map_at<'v>(value: &'v Value, pointer: &str) -> Option<&'v Map> {
    value.pointer(pointer)?.as_object()
}

/// `<none>` for what is empty.
pub(super) fn or_none(text: &str) -> &str {
    if text.is_empty() { "<none>" } else { text }
}

/// Text or number, as it is shown.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// The items with commas between them.
pub(super) fn joined<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    let mut out = String::new();
    for item in items {
        if !out.is_empty() {
            out.push(',');
        }
        out.push_str(&item.to_string());
    }
    out
}

/// Labels as `a=1,b=2`, sorted; `<none>` when there are none.
pub(super) fn labels(map: Option<&Map>) -> String {
    let mut pairs: Vec<String> =
        map.into_iter().flatten().map(|(key, value)| format!("{key}={}", shown(value))).collect();
    pairs.sort_unstable();
    if pairs.is_empty() { "<none>".into() } else { pairs.join(",") }
}

/// A metav1.LabelSelector as text.
pub(super) fn selector(value: Option<&Value>) -> String {
    let Some(value) = value else { return "<none>".into() };
    match crate::selector::LabelSelector::from_json(value) {
        Ok(selector) => or_none(&selector.to_string()).to_owned(),
        Err(_) => "<error>".into(),
    }
}

/// Names and images of a pod template's containers.
pub(super) fn containers(value: &Value, pointer: &str) -> (String, String) {
    let list = list_at(value, pointer);
    (joined(list.iter().map(|c| str_at(c, "/name"))), joined(list.iter().map(|c| str_at(c, "/image"))))
}
