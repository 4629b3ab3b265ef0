//! When a container is restarted, and how it is resized (core `validateContainerRestartPolicy`, `validateResizePolicy`).

use crate::registry::fields::{items, text};
use coracle_api::Cause;
use coracle_api::json::Value;
use coracle_api::status::FieldPath;

const POLICIES: [&str; 3] = ["Always", "Never", "OnFailure"];
const MOST_RULES: usize = 20;
const MOST_CODES: usize = 255;

/// What a rule can have done: the container run again, or all of the pod's (KEP-5532).
const ACTIONS: [&str; 2] = ["Restart", "RestartAllContainers"];

/// A container's own policy and its rules by exit code (KEP-5307).
pub fn rules(container: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let rules = items(container, "restartPolicyRules");
    match container.get("restartPolicy").and_then(Value::as_str) {
        None if !rules.is_empty() => {
            let why = "must specify restartPolicy when restart rules are used";
            causes.push(Cause::required(&path.child("restartPolicy"), why));
        }
        Some(policy) if !POLICIES.contains(&policy) => {
            causes.push(Cause::not_supported(&path.child("restartPolicy"), policy, &POLICIES));
        }
        _ => {}
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
pub fn resize(container: &Value, init: bool, restarts: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    let policies = items(container, "resizePolicy");
    let path = path.child("resizePolicy");
    // It is resized while it runs, and is not run again for that (kubernetes #137352, #137458).
    let once = init && text(container, "restartPolicy") != "Always";
    let mut seen = Vec::new();
    for (nth, policy) in policies.iter().enumerate() {
        let (resource, restart) = (text(policy, "resourceName"), text(policy, "restartPolicy"));
        if seen.contains(&resource) {
            causes.push(Cause::duplicate(&path.index(nth), resource));
        }
        seen.push(resource);
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
        if once && restart == "RestartContainer" {
            let why = "must not be set to 'RestartContainer' for non-sidecar initContainers";
            causes.push(Cause::invalid(&path.index(nth).child("restartPolicy"), restart, why));
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
    }

    #[test]
    fn what_never_restarts_is_not_restarted_to_be_resized() {
        let check = |policies: Value, init: bool, restarts: &str| {
            let mut causes = Vec::new();
            resize(&json!({"resizePolicy": policies}), init, restarts, &FieldPath::new("c"), &mut causes);
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
