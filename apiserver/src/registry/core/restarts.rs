//! When a container is restarted, and how it is resized (core `validateContainerRestartPolicy`, `validateResizePolicy`).

use crate::registry::fields::{items, text};
use coracle_api::Cause;
use coracle_api::json::Value;
use coracle_api::status::FieldPath;
use std::collections::HashSet;

const POLICIES: [&str; 3] = ["Always", "Never", "OnFailure"];
const MOST_RULES: usize = 20;
const MOST_CODES: usize = 255;

/// What a rule can have done: the container run again, or all of the pod's (KEP-5532).
const ACTIONS: [&str; 2] = ["Restart", "RestartAllContainers"];

/// A container's own policy and its rules by exit code (KEP-5307).
pub fn rules(container: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    policy(container, path, causes);
    by_exit_code(items(container, "restartPolicyRules"), path, causes);
}

/// An init container's: its rules are not looked at without a policy.
pub fn init_rules(container: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    policy(container, path, causes);
    if container.get("restartPolicy").is_some_and(Value::is_string) {
        by_exit_code(items(container, "restartPolicyRules"), path, causes);
    }
}

fn policy(container: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    match container.get("restartPolicy").and_then(Value::as_str) {
        None if !items(container, "restartPolicyRules").is_empty() => {
            let why = "must specify restartPolicy when restart rules are used";
            causes.push(Cause::required(&path.child("restartPolicy"), why));
        }
        Some(policy) if !POLICIES.contains(&policy) => {
            causes.push(Cause::not_supported(&path.child("restartPolicy"), policy, &POLICIES));
        }
        _ => {}
    }
}

fn by_exit_code(rules: &[Value], path: &FieldPath, causes: &mut Vec<Cause>) {
    if rules.is_empty() {
        return;
    }
    let path = path.child("restartPolicyRules");
    if rules.len() > MOST_RULES {
        causes.push(Cause::too_many(&path, rules.len(), MOST_RULES));
    }
    for (nth, rule) in rules.iter().enumerate() {
        let path = path.index(nth);
        let action = text(rule, "action");
        if !ACTIONS.contains(&action) {
            causes.push(Cause::not_supported(&path.child("action"), action, &ACTIONS));
        }
        let (codes, path) = (&rule["exitCodes"], path.child("exitCodes"));
        if codes.is_null() {
            causes.push(Cause::required(&path, "must be specified"));
            continue;
        }
        let operator = text(codes, "operator");
        if !["In", "NotIn"].contains(&operator) {
            causes.push(Cause::not_supported(&path.child("operator"), operator, &["In", "NotIn"]));
        }
        let values = items(codes, "values").len();
        if values > MOST_CODES {
            causes.push(Cause::too_many(&path.child("values"), values, MOST_CODES));
        }
    }
}

/// What a change of a resource means for a container that runs. `restarts` is the pod's policy.
pub fn resize(container: &Value, restarts: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    let policies = items(container, "resizePolicy");
    if policies.is_empty() {
        return;
    }
    let path = path.child("resizePolicy");
    let mut seen = HashSet::new();
    for (nth, policy) in policies.iter().enumerate() {
        let (resource, restart) = (text(policy, "resourceName"), text(policy, "restartPolicy"));
        if !seen.insert(resource) {
            causes.push(Cause::duplicate(&path.index(nth), resource));
        }
        match resource {
            "cpu" | "memory" => {}
            "" => causes.push(Cause::required(&path, "")),
            other => causes.push(Cause::not_supported(&path, other, &["cpu", "memory"])),
        }
        match restart {
            "NotRequired" | "RestartContainer" => {}
            "" => causes.push(Cause::required(&path, "")),
            other => causes.push(Cause::not_supported(&path, other, &["NotRequired", "RestartContainer"])),
        }
        if restarts == "Never" && restart != "NotRequired" {
            let why = "must be 'NotRequired' when `restartPolicy` is 'Never'";
            causes.push(Cause::invalid(&path, restart, why));
        }
    }
}

/// An init container that ends is resized while it runs, and is not run again for that (kubernetes #137352, #137458).
pub fn resized_at_once(container: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    for (nth, policy) in items(container, "resizePolicy").iter().enumerate() {
        let restart = text(policy, "restartPolicy");
        if restart == "RestartContainer" {
            let why = "must not be set to 'RestartContainer' for non-sidecar initContainers";
            let path = path.child("resizePolicy").index(nth).child("restartPolicy");
            causes.push(Cause::invalid(&path, restart, why));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::json::json;

    fn told(causes: &[Cause]) -> Vec<String> {
        causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
    }

    #[test]
    fn rules_need_a_policy_and_codes() {
        let check = |container: Value| {
            let mut causes = Vec::new();
            rules(&container, &FieldPath::new("c"), &mut causes);
            told(&causes)
        };
        let rule = |operator: &str| json!([{"action": "Restart", "exitCodes": {"operator": operator, "values": [42]}}]);
        assert!(check(json!({"restartPolicy": "Never", "restartPolicyRules": rule("In")})).is_empty());
        let why = "c.restartPolicy: Required value: must specify restartPolicy when restart rules are used";
        assert_eq!(check(json!({"restartPolicyRules": rule("NotIn")})), [why]);
        let why = "c.restartPolicyRules[0].exitCodes.operator: Unsupported value: \"Is\": supported values: \"In\", \"NotIn\"";
        assert_eq!(check(json!({"restartPolicy": "Never", "restartPolicyRules": rule("Is")})), [why]);
        let found = check(json!({"restartPolicy": "Sometimes", "restartPolicyRules": [{"action": "Stop"}]}));
        let wanted = [
            "c.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"Never\", \"OnFailure\"",
            "c.restartPolicyRules[0].action: Unsupported value: \"Stop\": supported values: \"Restart\", \"RestartAllContainers\"",
            "c.restartPolicyRules[0].exitCodes: Required value: must be specified",
        ];
        assert_eq!(found, wanted);
        let mut causes = Vec::new();
        init_rules(&json!({"restartPolicyRules": rule("Is")}), &FieldPath::new("c"), &mut causes);
        let why = "c.restartPolicy: Required value: must specify restartPolicy when restart rules are used";
        assert_eq!(told(&causes), [why]);
        causes.clear();
        init_rules(
            &json!({"restartPolicy": "Never", "restartPolicyRules": rule("Is")}),
            &FieldPath::new("c"),
            &mut causes,
        );
        assert_eq!(causes.len(), 1);
    }

    #[test]
    fn what_never_restarts_is_not_restarted_to_be_resized() {
        let check = |policies: Value, init: bool, restarts: &str| {
            let mut causes = Vec::new();
            let container = json!({"resizePolicy": policies});
            resize(&container, restarts, &FieldPath::new("c"), &mut causes);
            if init {
                resized_at_once(&container, &FieldPath::new("c"), &mut causes);
            }
            told(&causes)
        };
        let restart = json!([{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]);
        assert!(check(restart.clone(), false, "Always").is_empty());
        let why = "c.resizePolicy: Invalid value: \"RestartContainer\": must be 'NotRequired' when `restartPolicy` is 'Never'";
        assert_eq!(check(restart.clone(), false, "Never"), [why]);
        let why = "c.resizePolicy[0].restartPolicy: Invalid value: \"RestartContainer\": must not be set to 'RestartContainer' for non-sidecar initContainers";
        assert_eq!(check(restart, true, "Always"), [why]);
        assert!(check(json!([{"resourceName": "cpu", "restartPolicy": "NotRequired"}]), true, "Always").is_empty());
        let twice = json!([{"resourceName": "cpu", "restartPolicy": "NotRequired"}, {"resourceName": "cpu", "restartPolicy": "NotRequired"}]);
        assert_eq!(check(twice, false, "Always"), ["c.resizePolicy[1]: Duplicate value: \"cpu\""]);
    }
}
