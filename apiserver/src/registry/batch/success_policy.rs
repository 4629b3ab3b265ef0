//! When an indexed job counts as done though not all of its pods succeeded (batch `validateSuccessPolicy`).

use super::{has, indexes, number};
use crate::registry::fields::{items, non_negative, text};
use coracle_api::Cause;
use coracle_api::json::Value;
use coracle_api::status::FieldPath;

const RULES_MAX: usize = 20;
const INDEXES_MAX: usize = 64 * 1024;

/// The policy of an indexed job that has one; `path` is the policy's.
pub fn validate(spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let (rules, path) = (items(&spec["successPolicy"], "rules"), path.child("rules"));
    if rules.is_empty() {
        let why = "at least one rules must be specified when the successPolicy is specified";
        causes.push(Cause::required(&path, why));
    }
    if rules.len() > RULES_MAX {
        causes.push(Cause::too_many(&path, rules.len(), RULES_MAX));
    }
    for (nth, rule) in rules.iter().enumerate() {
        self::rule(rule, number(spec, "completions"), &path.index(nth), causes);
    }
}

/// `validateSuccessPolicyRule`. A job that does not say how many completions it has is told so elsewhere.
fn rule(rule: &Value, completions: Option<i64>, path: &FieldPath, causes: &mut Vec<Cause>) {
    if !has(rule, "succeededCount") && !has(rule, "succeededIndexes") {
        let why = "at least one of succeededCount or succeededIndexes must be specified";
        causes.push(Cause::required(path, why));
    }
    let mut named = None;
    if has(rule, "succeededIndexes") {
        let (path, given) = (path.child("succeededIndexes"), text(rule, "succeededIndexes"));
        if given.len() > INDEXES_MAX {
            causes.push(Cause::too_long(&path, INDEXES_MAX));
        }
        named = completions.map(|completions| {
            indexes::count(given, completions).unwrap_or_else(|why| {
                causes.push(Cause::invalid(&path, given, format!("error parsing succeededIndexes: {why}")));
                0
            })
        });
    }
    let Some(count) = number(rule, "succeededCount") else { return };
    non_negative(rule, "succeededCount", path, causes);
    for (most, what) in [
        (completions, "the number of specified completions"),
        (named, "the number of indexes in the specified succeededIndexes field"),
    ] {
        if let Some(most) = most.filter(|most| count > *most) {
            let why = format!("must be less than or equal to {most} ({what})");
            causes.push(Cause::invalid(&path.child("succeededCount"), count, why));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::json::json;

    fn told(rules: Value) -> Vec<String> {
        let mut causes = Vec::new();
        let spec = json!({"completions": 5, "successPolicy": {"rules": rules}});
        validate(&spec, &FieldPath::new("spec.successPolicy"), &mut causes);
        causes.iter().map(|cause| cause.to_string().replace("spec.successPolicy.rules", "R")).collect()
    }

    #[test]
    fn rules_name_indexes_or_how_many_of_them() {
        let fine = json!([{"succeededCount": 5}, {"succeededIndexes": "0,2-3"}, {"succeededIndexes": "1-4", "succeededCount": 4}]);
        assert!(told(fine).is_empty());
        assert_eq!(
            told(json!([{}, {"succeededCount": -1}, {"succeededCount": 6}, {"succeededIndexes": "5"}])),
            [
                "R[0]: Required value: at least one of succeededCount or succeededIndexes must be specified",
                "R[1].succeededCount: Invalid value: -1: must be greater than or equal to 0",
                "R[2].succeededCount: Invalid value: 6: must be less than or equal to 5 (the number of specified completions)",
                "R[3].succeededIndexes: Invalid value: \"5\": error parsing succeededIndexes: too large index: \"5\"",
            ]
        );
        let more = "must be less than or equal to 2 (the number of indexes in the specified succeededIndexes field)";
        assert_eq!(
            told(json!([{"succeededIndexes": "1-2", "succeededCount": 3}])),
            [format!("R[0].succeededCount: Invalid value: 3: {more}")]
        );
    }

    #[test]
    fn there_are_rules_and_not_too_many_and_not_too_long() {
        let why = "at least one rules must be specified when the successPolicy is specified";
        assert_eq!(told(json!([])), [format!("R: Required value: {why}")]);
        let many = vec![json!({"succeededCount": 1}); 21];
        assert_eq!(told(many.into()), ["R: Too many: 21: must have at most 20 items"]);
        let long = format!("{}1", "0".repeat(INDEXES_MAX));
        assert_eq!(
            told(json!([{"succeededIndexes": long}])),
            ["R[0].succeededIndexes: Too long: may not be more than 65536 bytes"]
        );
    }

    #[test]
    fn a_job_without_completions_is_no_error_here() {
        let spec = json!({"successPolicy": {"rules": [{"succeededIndexes": "9", "succeededCount": 9}]}});
        let mut causes = Vec::new();
        validate(&spec, &FieldPath::new("spec.successPolicy"), &mut causes);
        assert_eq!(causes, []);
    }
}
