//! Bindings, which put a policy to work (admissionregistration `validation.go`).

use super::rules;
use crate::registry::fields::{invalid_all, is_set, items, label_selector, text};
use coracle_api::json::Value;
use coracle_api::status::FieldPath;
use coracle_api::{Cause, validation};
use std::collections::HashSet;

/// Checks what both kinds of bindings say (`validateValidatingAdmissionPolicyBindingSpec`,
/// `validateMutatingAdmissionPolicyBindingSpec`).
pub(super) fn check(spec: &Value, mutating: bool, path: &FieldPath, causes: &mut Vec<Cause>) {
    let (policy, at) = (text(spec, "policyName"), path.child("policyName"));
    match policy {
        "" => causes.push(Cause::required(&at, "")),
        policy => invalid_all(&at, policy, validation::dns1123_subdomain(policy), causes),
    }
    param_ref(&spec["paramRef"], &path.child("paramRef"), causes);
    let (resources, at) = (&spec["matchResources"], path.child("matchResources"));
    if !resources.is_null() {
        rules::match_resources(resources, &at, causes);
    }
    if mutating {
        rules::mutable(resources, &at, causes);
    } else {
        actions(items(spec, "validationActions"), &path.child("validationActions"), causes);
    }
}

/// Which objects a policy is asked with (`validateParamRef`).
fn param_ref(reference: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    const EXCLUSIVE: &str = "name and selector are mutually exclusive";
    const ACTIONS: [&str; 2] = ["Deny", "Allow"];
    if reference.is_null() {
        return;
    }
    let (name, selector) = (text(reference, "name"), &reference["selector"]);
    let both = !name.is_empty() && !selector.is_null();
    if !name.is_empty() {
        invalid_all(&path.child("name"), name, validation::path_segment(name), causes);
    }
    if both {
        causes.push(Cause::forbidden(&path.child("name"), EXCLUSIVE));
    }
    label_selector(selector, &path.child("selector"), causes);
    if both {
        causes.push(Cause::forbidden(&path.child("selector"), EXCLUSIVE));
    }
    if name.is_empty() && selector.is_null() {
        causes.push(Cause::required(path, "one of name or selector must be specified"));
    }
    let (action, at) = (text(reference, "parameterNotFoundAction"), path.child("parameterNotFoundAction"));
    if !is_set(reference, "parameterNotFoundAction") {
        causes.push(Cause::required(&at, ""));
    } else if !ACTIONS.contains(&action) {
        causes.push(Cause::not_supported(&at, action, &ACTIONS));
    }
}

/// What becomes of a request that does not pass (`validateValidationActions`).
fn actions(actions: &[Value], path: &FieldPath, causes: &mut Vec<Cause>) {
    const KNOWN: [&str; 3] = ["Audit", "Deny", "Warn"];
    let mut seen = HashSet::new();
    for (nth, action) in actions.iter().filter_map(Value::as_str).enumerate() {
        if !KNOWN.contains(&action) {
            causes.push(Cause::not_supported(&path.index(nth), action, &KNOWN));
        }
        if !seen.insert(action) {
            causes.push(Cause::duplicate(&path.index(nth), action));
        }
    }
    if seen.contains("Deny") && seen.contains("Warn") {
        let why = "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)";
        causes.push(Cause::invalid(path, actions.to_vec(), why));
    }
    if seen.is_empty() {
        causes.push(Cause::required(path, "at least one validation action is required"));
    }
}

#[cfg(test)]
mod tests {
    use super::super::{AdmissionConfig, told};
    use super::*;
    use coracle_api::json::json;
    use coracle_api::patch;

    fn binding(change: &Value) -> Vec<String> {
        let mut spec = json!({"policyName": "p", "validationActions": ["Deny"]});
        patch::merge(&mut spec, change.clone());
        told(AdmissionConfig::ValidatingBinding, json!({"spec": spec}), None)
    }

    #[test]
    fn bindings_name_a_policy() {
        assert_eq!(binding(&json!({})), [""; 0]);
        assert_eq!(binding(&json!({"policyName": null})), ["spec.policyName: Required value"]);
        let odd = binding(&json!({"policyName": "P"}));
        assert!(odd[0].starts_with("spec.policyName: Invalid value: \"P\": a lowercase RFC 1123 subdomain"), "{odd:?}");
    }

    #[test]
    fn what_a_policy_is_asked_with_has_a_name_or_is_selected() {
        let asked = |reference: Value| binding(&json!({"paramRef": reference}));
        assert_eq!(asked(json!({"name": "a", "parameterNotFoundAction": "Allow"})), [""; 0]);
        assert_eq!(asked(json!({"selector": {}, "parameterNotFoundAction": "Deny"})), [""; 0]);
        assert_eq!(
            asked(json!({})),
            [
                "spec.paramRef: Required value: one of name or selector must be specified",
                "spec.paramRef.parameterNotFoundAction: Required value",
            ]
        );
        let selector = json!({"matchExpressions": [{"key": "a", "operator": "X"}]});
        let both = json!({"name": "a/b", "selector": selector, "parameterNotFoundAction": "Warn"});
        assert_eq!(
            asked(both),
            [
                "spec.paramRef.name: Invalid value: \"a/b\": may not contain '/'",
                "spec.paramRef.name: Forbidden: name and selector are mutually exclusive",
                "spec.paramRef.selector.matchExpressions[0].operator: Invalid value: \"X\": not a valid selector operator",
                "spec.paramRef.selector: Forbidden: name and selector are mutually exclusive",
                "spec.paramRef.parameterNotFoundAction: Unsupported value: \"Warn\": supported values: \"Deny\", \"Allow\"",
            ]
        );
    }

    #[test]
    fn actions_are_told_of_one_by_one() {
        assert_eq!(binding(&json!({"validationActions": ["Warn", "Audit"]})), [""; 0]);
        let none = "spec.validationActions: Required value: at least one validation action is required";
        assert_eq!(binding(&json!({"validationActions": []})), [none]);
        let both = "spec.validationActions: Invalid value: [\"Deny\",\"X\",\"Deny\",\"Warn\"]: must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)";
        assert_eq!(
            binding(&json!({"validationActions": ["Deny", "X", "Deny", "Warn"]})),
            [
                "spec.validationActions[1]: Unsupported value: \"X\": supported values: \"Audit\", \"Deny\", \"Warn\"",
                "spec.validationActions[2]: Duplicate value: \"Deny\"",
                both,
            ]
        );
    }

    #[test]
    fn bindings_narrow_what_a_policy_is_about() {
        let rule = json!({"operations": ["DELETE"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]});
        let narrow = json!({"matchPolicy": "Roughly", "namespaceSelector": {"matchLabels": {"a": "b c"}},
            "resourceRules": [rule], "excludeResourceRules": [{}]});
        let common = |actions: Value| json!({"spec": {"policyName": "p", "matchResources": narrow, "validationActions": actions}});
        let mut expected = vec![
            "spec.matchResources.matchPolicy: Unsupported value: \"Roughly\": supported values: \"Equivalent\", \"Exact\"",
            "spec.matchResources.namespaceSelector.matchLabels: Invalid value: \"b c\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
            "spec.matchResources.excludeResourceRules[0].operations: Required value",
            "spec.matchResources.excludeResourceRules[0].apiGroups: Required value",
            "spec.matchResources.excludeResourceRules[0].apiVersions: Required value",
            "spec.matchResources.excludeResourceRules[0].resources: Required value",
        ];
        assert_eq!(told(AdmissionConfig::ValidatingBinding, common(json!(["Deny"])), None), expected);
        expected.push("spec.matchResources.resourceRules.operations: Unsupported value: \"DELETE\": supported values: \"*\", \"CONNECT\", \"CREATE\", \"UPDATE\"");
        assert_eq!(told(AdmissionConfig::MutatingBinding, common(Value::Null), None), expected);
    }
}
