//! Expressions in CEL that select devices.

use super::lists;
use crate::custom::cel::{Scope, Type};
use crate::registry::fields::{is_set, text};
use coracle_api::Cause;
use coracle_api::json::Value;
use coracle_api::status::FieldPath;
use std::sync::LazyLock;

pub const SELECTORS_MAX: usize = 32;
const EXPRESSION_MAX: usize = 10 << 10;
/// What looking at one device may cost.
const COST_MAX: u64 = 1_000_000;

/// Selectors, which must all hold (`validateSelectorSlice`). Those that were there before may stay.
pub fn check(list: &[Value], before: &[Value], path: &FieldPath, causes: &mut Vec<Cause>) {
    lists::slice(list, SELECTORS_MAX, path, causes, |selector, path, causes| {
        let path = path.child("cel");
        if is_set(selector, "cel") {
            let (text, is_known) = (text(&selector["cel"], "expression"), before.contains(selector));
            expression(text, is_known, &path.child("expression"), causes);
        } else {
            causes.push(Cause::required(&path, ""));
        }
    });
}

/// An expression must fit a device, and be cheap (`validateCELSelector`). What an attribute is, nobody knows: it may be a
/// bool.
fn expression(text: &str, is_known: bool, path: &FieldPath, causes: &mut Vec<Cause>) {
    static DEVICE: LazyLock<Scope<'static>> = LazyLock::new(Scope::of_device);
    if text.len() > EXPRESSION_MAX {
        causes.push(Cause::too_long(path, EXPRESSION_MAX));
        return;
    }
    if is_known {
        return;
    }
    match DEVICE.compile(text) {
        Err(wrong) if wrong.internal => causes.push(Cause::internal(path, &wrong.why)),
        Err(wrong) => causes.push(Cause::invalid(path, text, wrong.why)),
        Ok(compiled) if !matches!(compiled.ty, Type::Bool | Type::Dyn) => {
            let why = format!("must evaluate to bool or the unknown type, not {}", compiled.ty.declared());
            causes.push(Cause::invalid(path, text, why));
        }
        Ok(compiled) if compiled.cost > COST_MAX => {
            causes.push(Cause::forbidden(path, "too complex, exceeds cost limit"));
        }
        Ok(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::json::json;

    fn told(list: Value) -> Vec<String> {
        let mut causes = Vec::new();
        check(list.as_array().unwrap(), &[], &FieldPath::new("s"), &mut causes);
        causes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn selectors_are_expressions() {
        for text in [
            "true",
            "device.driver == \"gpu.example.com\"",
            "device.attributes[\"gpu.example.com\"].model == 'a100' && device.allowMultipleAllocations",
            "device.capacity[\"gpu.example.com\"].memory.compareTo(quantity(\"40Gi\")) >= 0",
            "cel.bind(dra, device.attributes[\"dra.example.com\"], dra.someBool && dra.anotherBool)",
            "device.attributes[\"a.b\"].version.isGreaterThan(semver(\"1.0.0\"))",
            "device.attributes[\"a.b\"].?index.orValue(0) in [0, 1]",
            "has(device.attributes[\"a.b\"].x)",
        ] {
            assert!(told(json!([{"cel": {"expression": text}}])).is_empty(), "{text}");
        }
    }

    #[test]
    fn selectors_fit_devices_and_are_cheap() {
        let of = |text: &str| told(json!([{"cel": {"expression": text}}]));
        let at = "s[0].cel.expression";
        let why = "must evaluate to bool or the unknown type, not int";
        assert_eq!(of("1"), [format!("{at}: Invalid value: \"1\": {why}")]);
        for (text, why) in [
            ("device.drivers == ''", "undefined field 'drivers'"),
            ("object.a == 1", "undeclared reference to 'object' (in container '')"),
            ("device.driver > 1", "found no matching overload for '_>_' applied to '(string, int)'"),
            (
                "device.capacity['a'].b > 1",
                "found no matching overload for '_>_' applied to '(kubernetes.Quantity, int)'",
            ),
        ] {
            let told = of(text);
            assert!(told.len() == 1 && told[0].contains(why), "{told:?}");
        }
        let all = |inner: String| format!("device.attributes.all(a, {inner})");
        let costly = all(all(all(all("a == a".to_owned()))));
        assert_eq!(of(&costly), [format!("{at}: Forbidden: too complex, exceeds cost limit")]);
        // What was there before may stay where it can.
        let before = [json!({"cel": {"expression": costly}})];
        let mut causes = Vec::new();
        check(&before, &before, &FieldPath::new("s"), &mut causes);
        assert_eq!(causes, []);
        check(&[json!({"cel": {"expression": "1"}})], &before, &FieldPath::new("s"), &mut causes);
        assert_eq!(causes.len(), 1);
    }

    #[test]
    fn what_is_none_is_told() {
        assert_eq!(told(json!([{}])), ["s[0].cel: Required value"]);
        let wrong = told(json!([{"cel": {"expression": "device.driver =="}}]));
        let start =
            "s[0].cel.expression: Invalid value: \"device.driver ==\": compilation failed: ERROR: <input>:1:17: ";
        assert!(wrong.len() == 1 && wrong[0].starts_with(start), "{wrong:?}");
        assert!(
            told(json!([{"cel": {"expression": ""}}]))[0].starts_with("s[0].cel.expression: Invalid value: \"\": ")
        );
        let long = format!("true{}", " ".repeat(10 << 10));
        assert_eq!(
            told(json!([{"cel": {"expression": long}}])),
            ["s[0].cel.expression: Too long: may not be more than 10240 bytes"]
        );
        assert_eq!(told(vec![json!({}); 33].into()), ["s: Too many: 33: must have at most 32 items"]);
    }
}
