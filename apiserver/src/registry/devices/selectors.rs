//! Expressions in CEL that select devices.

use super::lists;
use crate::custom::cel::Program;
use crate::registry::fields::{is_set, text};
use coracle_api::Cause;
use coracle_api::json::Value;
use coracle_api::status::FieldPath;

pub const SELECTORS_MAX: usize = 32;
const EXPRESSION_MAX: usize = 10 << 10;

/// Selectors, which must all hold (`validateSelectorSlice`).
pub fn check(list: &[Value], path: &FieldPath, causes: &mut Vec<Cause>) {
    lists::slice(list, SELECTORS_MAX, path, causes, |selector, path, causes| {
        let path = path.child("cel");
        if is_set(selector, "cel") {
            expression(text(&selector["cel"], "expression"), &path.child("expression"), causes);
        } else {
            causes.push(Cause::required(&path, ""));
        }
    });
}

/// An expression must be one (`validateCELSelector`). What it is of is not known here: names, types and costs are not
/// judged, so upstream refuses some that are taken.
fn expression(text: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    if text.len() > EXPRESSION_MAX {
        causes.push(Cause::too_long(path, EXPRESSION_MAX));
    } else if let Err(why) = Program::parse(text) {
        causes.push(Cause::invalid(path, text, format!("compilation failed: {why}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::json::json;

    fn told(list: Value) -> Vec<String> {
        let mut causes = Vec::new();
        check(list.as_array().unwrap(), &FieldPath::new("s"), &mut causes);
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
