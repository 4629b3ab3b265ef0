//! Conditions of a status (apimachinery `meta/v1/validation`, ValidateConditions).

use crate::registry::fields::{invalid_all, is_set, text};
use coracle_api::json::Value;
use coracle_api::status::FieldPath;
use coracle_api::{Cause, validation};
use std::collections::HashSet;

const REASON_MAX: usize = 1 << 10;
const MESSAGE_MAX: usize = 32 << 10;

/// Checks conditions, of which each type has one.
pub(super) fn check(conditions: &[Value], path: &FieldPath, causes: &mut Vec<Cause>) {
    let mut seen = HashSet::new();
    for (nth, condition) in conditions.iter().enumerate() {
        let (path, kind) = (path.index(nth), text(condition, "type"));
        if !seen.insert(kind) {
            causes.push(Cause::duplicate(&path.child("type"), kind));
        }
        check_one(condition, &path, causes);
    }
}

fn check_one(condition: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    const STATUSES: [&str; 3] = ["False", "True", "Unknown"];
    let kind = text(condition, "type");
    invalid_all(&path.child("type"), kind, validation::qualified_name(kind), causes);
    let status = text(condition, "status");
    if !STATUSES.contains(&status) {
        causes.push(Cause::not_supported(&path.child("status"), status, &STATUSES));
    }
    if let Some(generation) = condition.get("observedGeneration").and_then(Value::as_i64).filter(|nth| *nth < 0) {
        let why = "must be greater than or equal to zero";
        causes.push(Cause::invalid(&path.child("observedGeneration"), generation, why));
    }
    if !is_set(condition, "lastTransitionTime") {
        causes.push(Cause::required(&path.child("lastTransitionTime"), "must be set"));
    }
    check_reason(text(condition, "reason"), &path.child("reason"), causes);
    if text(condition, "message").len() > MESSAGE_MAX {
        causes.push(Cause::too_long(&path.child("message"), MESSAGE_MAX));
    }
}

fn check_reason(reason: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    if reason.is_empty() {
        causes.push(Cause::required(path, "must be set"));
        return;
    }
    if !is_reason(reason) {
        let why = "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')";
        causes.push(Cause::invalid(path, reason, why));
    }
    if reason.len() > REASON_MAX {
        causes.push(Cause::too_long(path, REASON_MAX));
    }
}

fn is_reason(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_,:".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::json::json;

    fn told(conditions: &Value) -> Vec<String> {
        let mut causes = Vec::new();
        check(conditions.as_array().unwrap(), &FieldPath::new("c"), &mut causes);
        causes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_condition_says_what_since_when_and_why() {
        let good = json!({"type": "a.b/T", "status": "True", "observedGeneration": 1, "reason": "A_1",
            "lastTransitionTime": "2026-01-01T00:00:00Z", "message": "m"});
        assert_eq!(told(&json!([good])), [""; 0]);
        let none = told(&json!([{"type": "T"}]));
        assert_eq!(
            none,
            [
                "c[0].status: Unsupported value: \"\": supported values: \"False\", \"True\", \"Unknown\"",
                "c[0].lastTransitionTime: Required value: must be set",
                "c[0].reason: Required value: must be set",
            ]
        );
        let mut other = good.clone();
        other["observedGeneration"] = (-1).into();
        other["message"] = "m".repeat(MESSAGE_MAX + 1).into();
        assert_eq!(
            told(&json!([good, other])),
            [
                "c[1].type: Duplicate value: \"a.b/T\"",
                "c[1].observedGeneration: Invalid value: -1: must be greater than or equal to zero",
                "c[1].message: Too long: may not be more than 32768 bytes",
            ]
        );
    }

    #[test]
    fn reasons_are_words() {
        for good in ["A", "A_", "ReasonA,ReasonB", "a:b1"] {
            assert!(is_reason(good), "{good}");
        }
        for bad in ["", "1", "_a", "a,", "a:", "a b", "ä"] {
            assert!(!is_reason(bad), "{bad}");
        }
    }
}
