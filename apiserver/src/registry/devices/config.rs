//! What drivers are told, in their own words.

use super::{lists, names};
use crate::registry::fields::{is_set, items, text};
use coracle_api::Cause;
use coracle_api::json::{self, Value};
use coracle_api::status::FieldPath;

pub const CONFIG_MAX: usize = 32;
/// Most bytes of what a driver is told, and of what it says.
pub const RAW_MAX: usize = 10 << 10;

/// A configuration (`validateDeviceConfiguration`). One that was there before may be longer than new ones.
pub fn check(config: &Value, known: bool, path: &FieldPath, causes: &mut Vec<Cause>) {
    let path = path.child("opaque");
    if !is_set(config, "opaque") {
        causes.push(Cause::required(&path, ""));
        return;
    }
    let opaque = &config["opaque"];
    names::driver(text(opaque, "driver"), &path.child("driver"), causes);
    raw(&opaque["parameters"], known, &path.child("parameters"), causes);
}

/// An object of any form (`validateRawExtension`).
///
/// Its length is that of its shortest encoding; upstream counts what was sent, with its spaces.
pub fn raw(value: &Value, known: bool, path: &FieldPath, causes: &mut Vec<Cause>) {
    if value.is_null() {
        causes.push(Cause::required(path, ""));
    } else if !known && value.to_string().len() > RAW_MAX {
        causes.push(Cause::too_long(path, RAW_MAX));
    } else if !value.is_object() {
        causes.push(Cause::invalid(path, "<value omitted>", "must be a valid JSON object"));
    }
}

/// Whether configurations tell drivers the same: an empty list in their words is not as good as none.
pub fn tell_the_same(one: &Value, other: &Value) -> bool {
    let (one, other) = (items(one, "config"), items(other, "config"));
    one.len() == other.len()
        && one
            .iter()
            .zip(other)
            .all(|(one, other)| json::same(&one["opaque"]["parameters"], &other["opaque"]["parameters"]))
}

/// Configurations of a class, which are all that it says of requests (`validateDeviceClassConfiguration`).
pub fn of_class(list: &[Value], known: bool, path: &FieldPath, causes: &mut Vec<Cause>) {
    lists::slice(list, CONFIG_MAX, path, causes, |config, path, causes| check(config, known, path, causes));
}

#[cfg(test)]
mod tests {
    use super::super::told;
    use super::*;
    use coracle_api::json::json;

    #[test]
    fn drivers_are_told_objects() {
        let check = |config: Value| told(|causes| check(&config, false, &FieldPath::new("c"), causes));
        assert!(check(json!({"opaque": {"driver": "a.b", "parameters": {}}})).is_empty());
        assert_eq!(check(json!({})), ["c.opaque: Required value"]);
        assert_eq!(check(json!({"opaque": {"driver": "a.b"}})), ["c.opaque.parameters: Required value"]);
        assert_eq!(
            check(json!({"opaque": {"driver": "a.b", "parameters": [1]}})),
            ["c.opaque.parameters: Invalid value: \"<value omitted>\": must be a valid JSON object"]
        );
    }

    #[test]
    fn what_was_too_long_before_may_stay() {
        let long = json!({"a": "b".repeat(RAW_MAX)});
        assert_eq!(
            told(|causes| raw(&long, false, &FieldPath::new("r"), causes)),
            ["r: Too long: may not be more than 10240 bytes"]
        );
        assert!(told(|causes| raw(&long, true, &FieldPath::new("r"), causes)).is_empty());
    }
}
