//! What a job does about pods that fail in a way that it knows (batch `validatePodFailurePolicy`).

use super::has;
use crate::registry::fields::{invalid_all, items, text};
use coracle_api::json::Value;
use coracle_api::status::FieldPath;
use coracle_api::{Cause, validation};
use std::collections::HashSet;

const RULES_MAX: usize = 20;
const CODES_MAX: usize = 255;
const CONDITIONS_MAX: usize = 20;

const ACTIONS: [&str; 4] = ["Count", "FailIndex", "FailJob", "Ignore"];
const OPERATORS: [&str; 2] = ["In", "NotIn"];
const STATUSES: [&str; 3] = ["False", "True", "Unknown"];

/// The policy of a job that has one; `path` is the policy's.
pub fn validate(spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let (rules, path) = (items(&spec["podFailurePolicy"], "rules"), path.child("rules"));
    if rules.len() > RULES_MAX {
        causes.push(Cause::too_many(&path, rules.len(), RULES_MAX));
    }
    let pod = &spec["template"]["spec"];
    let containers = items(pod, "containers").iter().chain(items(pod, "initContainers"));
    let containers: HashSet<&str> = containers.map(|container| text(container, "name")).collect();
    for (nth, rule) in rules.iter().enumerate() {
        self::rule(rule, has(spec, "backoffLimitPerIndex"), &containers, &path.index(nth), causes);
    }
}

/// `validatePodFailurePolicyRule`
fn rule(rule: &Value, per_index: bool, containers: &HashSet<&str>, path: &FieldPath, causes: &mut Vec<Cause>) {
    if text(rule, "action") == "FailIndex" {
        if !per_index {
            let why = "requires the backoffLimitPerIndex to be set";
            causes.push(Cause::invalid(&path.child("action"), "FailIndex", why));
        }
    } else {
        required_one_of(rule, "action", &ACTIONS, path, causes);
    }
    let (codes, conditions) = (has(rule, "onExitCodes"), items(rule, "onPodConditions"));
    if codes {
        exit_codes(&rule["onExitCodes"], containers, &path.child("onExitCodes"), causes);
    }
    pod_conditions(conditions, &path.child("onPodConditions"), causes);
    match (codes, !conditions.is_empty()) {
        (true, true) => {
            let why = "specifying both OnExitCodes and OnPodConditions is not supported";
            causes.push(Cause::invalid_omitted(path, why));
        }
        (false, false) => {
            let why = "specifying one of OnExitCodes and OnPodConditions is required";
            causes.push(Cause::invalid_omitted(path, why));
        }
        _ => {}
    }
}

/// `validatePodFailurePolicyRuleOnExitCodes`
fn exit_codes(codes: &Value, containers: &HashSet<&str>, path: &FieldPath, causes: &mut Vec<Cause>) {
    required_one_of(codes, "operator", &OPERATORS, path, causes);
    let name = text(codes, "containerName");
    if has(codes, "containerName") && !containers.contains(name) {
        let why = "must be one of the container or initContainer names in the pod template";
        causes.push(Cause::invalid(&path.child("containerName"), name, why));
    }
    let (values, path) = (items(codes, "values"), path.child("values"));
    if values.is_empty() {
        causes.push(Cause::invalid(&path, codes["values"].clone(), "at least one value is required"));
    } else if values.len() > CODES_MAX {
        causes.push(Cause::too_many(&path, values.len(), CODES_MAX));
    }
    let values: Vec<i64> = values.iter().map(|value| value.as_i64().unwrap_or(0)).collect();
    let mut seen = HashSet::new();
    for (nth, value) in values.iter().enumerate() {
        if *value == 0 && text(codes, "operator") == "In" {
            causes.push(Cause::invalid(&path.index(nth), 0, "must not be 0 for the In operator"));
        }
        if !seen.insert(value) {
            causes.push(Cause::duplicate(&path.index(nth), *value));
        }
    }
    if !values.is_sorted() {
        causes.push(Cause::invalid(&path, values, "must be ordered"));
    }
}

/// `validatePodFailurePolicyRuleOnPodConditions`
fn pod_conditions(patterns: &[Value], path: &FieldPath, causes: &mut Vec<Cause>) {
    if patterns.len() > CONDITIONS_MAX {
        causes.push(Cause::too_many(path, patterns.len(), CONDITIONS_MAX));
    }
    for (nth, pattern) in patterns.iter().enumerate() {
        let (path, kind) = (path.index(nth), text(pattern, "type"));
        invalid_all(&path.child("type"), kind, validation::qualified_name(kind), causes);
        required_one_of(pattern, "status", &STATUSES, &path, causes);
    }
}

fn required_one_of(value: &Value, name: &str, allowed: &[&str], path: &FieldPath, causes: &mut Vec<Cause>) {
    let (path, found) = (path.child(name), text(value, name));
    if found.is_empty() {
        let quoted: Vec<String> = allowed.iter().map(|value| format!("{value:?}")).collect();
        causes.push(Cause::required(&path, &format!("valid values: [{}]", quoted.join(" "))));
    } else if !allowed.contains(&found) {
        causes.push(Cause::not_supported(&path, found, allowed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::json::json;

    const RULES: &str = "spec.podFailurePolicy.rules";

    fn told(spec: &Value) -> Vec<String> {
        let mut causes = Vec::new();
        validate(spec, &FieldPath::new("spec.podFailurePolicy"), &mut causes);
        causes.iter().map(|cause| cause.to_string().replace(RULES, "R")).collect()
    }

    fn with(rules: Value) -> Value {
        json!({"podFailurePolicy": {"rules": rules}, "template": {"spec":
            {"containers": [{"name": "a"}], "initContainers": [{"name": "i"}]}}})
    }

    #[test]
    fn rules_that_say_what_to_do_and_when_are_fine() {
        let mut spec = with(json!([
            {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [1, 2], "containerName": "a"}},
            {"action": "Count", "onExitCodes": {"operator": "NotIn", "values": [0], "containerName": "i"}},
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        ]));
        assert!(told(&spec).is_empty());
        spec["podFailurePolicy"]["rules"][0]["action"] = "FailIndex".into();
        let why = "requires the backoffLimitPerIndex to be set";
        assert_eq!(told(&spec), [format!("R[0].action: Invalid value: \"FailIndex\": {why}")]);
        spec["backoffLimitPerIndex"] = 1.into();
        assert!(told(&spec).is_empty());
    }

    #[test]
    fn a_rule_needs_one_thing_to_go_by() {
        let rules = json!([
            {"action": "Count"},
            {"action": "Some", "onExitCodes": {"operator": "In", "values": [1]},
                "onPodConditions": [{"type": "a", "status": "True"}]},
        ]);
        assert_eq!(
            told(&with(rules)),
            [
                "R[0]: Invalid value: specifying one of OnExitCodes and OnPodConditions is required",
                "R[1].action: Unsupported value: \"Some\": supported values: \"Count\", \"FailIndex\", \"FailJob\", \"Ignore\"",
                "R[1]: Invalid value: specifying both OnExitCodes and OnPodConditions is not supported",
            ]
        );
    }

    #[test]
    fn exit_codes_stand_once_and_in_order() {
        let rules = json!([
            {"action": "Count", "onExitCodes": {"operator": "In", "containerName": "other", "values": [0, 2, 2, 1]}},
            {"action": "Count", "onExitCodes": {"operator": "Near"}},
            {"onExitCodes": {"values": []}},
            {"action": "Count", "onExitCodes": {"operator": "NotIn", "values": (0..256).collect::<Vec<i64>>()}},
        ]);
        assert_eq!(
            told(&with(rules)),
            [
                "R[0].onExitCodes.containerName: Invalid value: \"other\": must be one of the container or initContainer names in the pod template",
                "R[0].onExitCodes.values[0]: Invalid value: 0: must not be 0 for the In operator",
                "R[0].onExitCodes.values[2]: Duplicate value: 2",
                "R[0].onExitCodes.values: Invalid value: [0,2,2,1]: must be ordered",
                "R[1].onExitCodes.operator: Unsupported value: \"Near\": supported values: \"In\", \"NotIn\"",
                "R[1].onExitCodes.values: Invalid value: null: at least one value is required",
                "R[2].action: Required value: valid values: [\"Count\" \"FailIndex\" \"FailJob\" \"Ignore\"]",
                "R[2].onExitCodes.operator: Required value: valid values: [\"In\" \"NotIn\"]",
                "R[2].onExitCodes.values: Invalid value: []: at least one value is required",
                "R[3].onExitCodes.values: Too many: 256: must have at most 255 items",
            ]
        );
    }

    #[test]
    fn conditions_of_pods_have_a_name_and_a_status() {
        let rules = json!([{"action": "Count", "onPodConditions": [
            {"type": "-", "status": "Perhaps"}, {"type": "a.io/Ready"}]}]);
        let found = told(&with(rules));
        assert!(found[0].starts_with("R[0].onPodConditions[0].type: Invalid value: \"-\": name part must consist of"));
        assert_eq!(
            found[1..],
            [
                "R[0].onPodConditions[0].status: Unsupported value: \"Perhaps\": supported values: \"False\", \"True\", \"Unknown\"",
                "R[0].onPodConditions[1].status: Required value: valid values: [\"False\" \"True\" \"Unknown\"]",
            ]
        );
    }

    #[test]
    fn there_are_not_too_many_rules_and_conditions() {
        let condition = json!({"type": "a", "status": "True"});
        let mut rules = vec![json!({"action": "Ignore", "onPodConditions": [condition]}); 21];
        rules[0]["onPodConditions"] = vec![condition; 21].into();
        assert_eq!(
            told(&with(rules.into())),
            [
                "R: Too many: 21: must have at most 20 items",
                "R[0].onPodConditions: Too many: 21: must have at most 20 items"
            ]
        );
    }
}
