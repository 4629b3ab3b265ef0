//! Conditions of a status (apimachinery `metav1/validation`).

use super::fields::{invalid_all, text};
use coracle_api::json::Value;
use coracle_api::status::FieldPath;
use coracle_api::{Cause, validation};
use std::collections::HashSet;

const STATUSES: [&str; 3] = ["False", "True", "Unknown"];
const REASON_MAX: usize = 1 << 10;
const MESSAGE_MAX: usize = 32 << 10;
const REASON_WRONG: &str = "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')";

/// The times that stand for none: what is not given, and Go's zero.
const NO_TIME: [&str; 2] = ["", "0001-01-01T00:00:00Z"];

/// Conditions, of which each type stands once (`ValidateConditions`).
pub fn conditions(list: &[Value], path: &FieldPath, causes: &mut Vec<Cause>) {
    let mut seen = HashSet::new();
    for (nth, condition) in list.iter().enumerate() {
        let path = path.index(nth);
        let kind = text(condition, "type");
        if !seen.insert(kind) {
            causes.push(Cause::duplicate(&path.child("type"), kind));
        }
        self::condition(condition, &path, causes);
    }
}

/// One condition (`ValidateCondition`).
fn condition(condition: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let (kind, status) = (text(condition, "type"), text(condition, "status"));
    invalid_all(&path.child("type"), kind, validation::qualified_name(kind), causes);
    if !STATUSES.contains(&status) {
        causes.push(Cause::not_supported(&path.child("status"), status, &STATUSES));
    }
    let generation = condition.get("observedGeneration").and_then(Value::as_i64).unwrap_or(0);
    if generation < 0 {
        let why = "must be greater than or equal to zero";
        causes.push(Cause::invalid(&path.child("observedGeneration"), generation, why));
    }
    if NO_TIME.contains(&text(condition, "lastTransitionTime")) {
        causes.push(Cause::required(&path.child("lastTransitionTime"), "must be set"));
    }
    reason(text(condition, "reason"), &path.child("reason"), causes);
    if text(condition, "message").len() > MESSAGE_MAX {
        causes.push(Cause::too_long(&path.child("message"), MESSAGE_MAX));
    }
}

fn reason(reason: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    if reason.is_empty() {
        causes.push(Cause::required(path, "must be set"));
        return;
    }
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let formed = reason.starts_with(|first: char| first.is_ascii_alphabetic())
        && reason.bytes().all(|byte| word(byte) || b",:".contains(&byte))
        && reason.bytes().last().is_some_and(word);
    if !formed {
        causes.push(Cause::invalid(path, reason, REASON_WRONG));
    }
    if reason.len() > REASON_MAX {
        causes.push(Cause::too_long(path, REASON_MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::json::json;

    fn told(list: Value) -> Vec<String> {
        let mut causes = Vec::new();
        conditions(list.as_array().unwrap(), &FieldPath::new("c"), &mut causes);
        causes.iter().map(ToString::to_string).collect()
    }

    fn one(reason: &str) -> Value {
        json!({"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z", "reason": reason})
    }

    #[test]
    fn a_condition_says_all_that_it_must() {
        assert!(
            told(json!([one("A"), {"type": "a.b/C", "status": "Unknown", "reason": "A_b:c,1", "observedGeneration": 0,
            "lastTransitionTime": "2026-01-01T00:00:00Z", "message": "m".repeat(32 << 10)}]))
            .is_empty()
        );
        let wrong =
            told(json!([{"type": "R", "status": "true", "observedGeneration": -1, "message": "m".repeat(32_769)}]));
        assert_eq!(
            wrong,
            [
                "c[0].status: Unsupported value: \"true\": supported values: \"False\", \"True\", \"Unknown\"",
                "c[0].observedGeneration: Invalid value: -1: must be greater than or equal to zero",
                "c[0].lastTransitionTime: Required value: must be set",
                "c[0].reason: Required value: must be set",
                "c[0].message: Too long: may not be more than 32768 bytes",
            ]
        );
    }

    #[test]
    fn each_type_stands_once_and_is_a_qualified_name() {
        assert_eq!(told(json!([one("A"), one("B")])), ["c[1].type: Duplicate value: \"Ready\""]);
        let mut nameless = one("A");
        nameless["type"] = json!("");
        let wrong = told(json!([nameless]));
        assert_eq!(wrong.len(), 2, "{wrong:?}");
        assert_eq!(wrong[0], "c[0].type: Invalid value: \"\": name part must be non-empty");
    }

    #[test]
    fn reasons_are_words() {
        for reason in ["1a", "a,", "_a", "a b", "ä"] {
            assert_eq!(
                told(json!([one(reason)])),
                [format!("c[0].reason: Invalid value: \"{reason}\": {REASON_WRONG}")]
            );
        }
        let long = "a".repeat(1025);
        assert_eq!(told(json!([one(&long)])), ["c[0].reason: Too long: may not be more than 1024 bytes"]);
    }
}
