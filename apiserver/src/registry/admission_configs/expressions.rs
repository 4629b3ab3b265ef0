//! Expressions in CEL, which must compile (admissionregistration `validation.go`).

use crate::custom::cel;
use crate::custom::rules::RESERVED;
use crate::registry::fields::{invalid_all, text};
use coracle_api::json::Value;
use coracle_api::status::FieldPath;
use coracle_api::{Cause, validation};
use std::collections::HashSet;

const CONDITIONS_MAX: usize = 64;

/// What must hold for a webhook or a policy to be asked (`validateMatchConditions`).
pub(super) fn match_conditions(conditions: &[Value], path: &FieldPath, causes: &mut Vec<Cause>) {
    if conditions.len() > CONDITIONS_MAX {
        causes.push(Cause::too_many(path, conditions.len(), CONDITIONS_MAX));
    }
    let mut names = HashSet::new();
    for (nth, condition) in conditions.iter().enumerate() {
        let path = path.index(nth);
        required(text(condition, "expression").trim(), "", &path.child("expression"), causes);
        let (name, path) = (text(condition, "name"), path.child("name"));
        if name.is_empty() {
            causes.push(Cause::required(&path, ""));
            continue;
        }
        invalid_all(&path, name, validation::qualified_name(name), causes);
        if !names.insert(name) {
            causes.push(Cause::duplicate(&path, name));
        }
    }
}

/// An expression that must be there: `none` is told of one that is blank.
pub(super) fn required(expression: &str, none: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    if expression.trim().is_empty() {
        causes.push(Cause::required(path, none));
    } else {
        compiles(expression, path, causes);
    }
}

/// An expression that is there.
pub(super) fn compiles(expression: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    if let Err(why) = cel::Program::parse(expression) {
        causes.push(Cause::invalid(path, expression, format!("compilation failed: {why}")));
    }
}

/// Whether a variable can be named so (`isCELIdentifier`).
pub(super) fn is_identifier(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !RESERVED.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::json::json;

    fn told(conditions: &Value) -> Vec<String> {
        let mut causes = Vec::new();
        match_conditions(conditions.as_array().unwrap(), &FieldPath::new("m"), &mut causes);
        causes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn match_conditions_have_names_of_their_own() {
        assert_eq!(told(&json!([{"name": "a.b/c", "expression": "true"}])), [""; 0]);
        let none = json!([{"expression": " "}]);
        assert_eq!(told(&none), ["m[0].expression: Required value", "m[0].name: Required value"]);
        let twice = json!([{"name": "a", "expression": "true"}, {"name": "a", "expression": "true"}]);
        assert_eq!(told(&twice), ["m[1].name: Duplicate value: \"a\""]);
        let odd = told(&json!([{"name": "a b", "expression": " 1 + "}]));
        assert_eq!(odd.len(), 2);
        assert!(odd[0].starts_with("m[0].expression: Invalid value: \"1 +\": compilation failed: ERROR: "), "{odd:?}");
        assert!(odd[1].starts_with("m[0].name: Invalid value: \"a b\": name part must consist of"), "{odd:?}");
    }

    #[test]
    fn match_conditions_are_64_at_most() {
        let many = |count: usize| (0..count).map(|nth| json!({"name": format!("a{nth}"), "expression": "true"}));
        assert_eq!(told(&many(64).collect()), [""; 0]);
        assert_eq!(told(&many(65).collect()), ["m: Too many: 65: must have at most 64 items"]);
    }

    #[test]
    fn identifiers_are_words_that_nothing_else_is_meant_by() {
        for good in ["a", "_", "A1_b"] {
            assert!(is_identifier(good), "{good}");
        }
        for bad in ["", "1a", "a-b", "a.b", "in", "void", "ä"] {
            assert!(!is_identifier(bad), "{bad}");
        }
    }
}
