//! Which requests are asked about: the rules of webhooks and policies, and what narrows them (admissionregistration
//! `validation.go`).

use crate::registry::fields::{invalid_all, items, label_selector, one_of, require};
use coracle_api::json::Value;
use coracle_api::status::FieldPath;
use coracle_api::{Cause, validation};
use std::collections::HashSet;

/// What requests a policy, or a binding of one, is about (`validateMatchResources`). Selectors and the match policy are
/// filled in before.
pub(super) fn match_resources(constraints: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    one_of(constraints, "matchPolicy", &["Equivalent", "Exact"], path, causes);
    for name in ["namespaceSelector", "objectSelector"] {
        label_selector(&constraints[name], &path.child(name), causes);
    }
    for list in ["resourceRules", "excludeResourceRules"] {
        for (nth, rule) in items(constraints, list).iter().enumerate() {
            let path = path.child(list).index(nth);
            names(items(rule, "resourceNames"), &path.child("resourceNames"), causes);
            check(rule, &path, causes);
        }
    }
}

/// Only what is written can be changed on its way (`supportedMutatingOperations`). Told beside what is wrong with an
/// operation anyway, and at all rules together.
pub(super) fn mutable(constraints: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    const KNOWN: [&str; 4] = ["*", "CONNECT", "CREATE", "UPDATE"];
    let path = path.child("resourceRules").child("operations");
    let operations = items(constraints, "resourceRules").iter().flat_map(|rule| items(rule, "operations"));
    for operation in operations.filter_map(Value::as_str).filter(|operation| !KNOWN.contains(operation)) {
        causes.push(Cause::not_supported(&path, operation, &KNOWN));
    }
}

/// Names of objects (`validateNamedRuleWithOperations`).
fn names(names: &[Value], path: &FieldPath, causes: &mut Vec<Cause>) {
    let mut seen = HashSet::new();
    for (nth, name) in names.iter().filter_map(Value::as_str).enumerate() {
        let path = path.index(nth);
        invalid_all(&path, name, validation::path_segment(name), causes);
        if !seen.insert(name) {
            causes.push(Cause::duplicate(&path, name));
        }
    }
}

/// The rules of a webhook.
pub(super) fn check_all(rules: &[Value], path: &FieldPath, causes: &mut Vec<Cause>) {
    for (nth, rule) in rules.iter().enumerate() {
        check(rule, &path.index(nth), causes);
    }
}

/// One rule (`validateRuleWithOperations`).
fn check(rule: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let lists = [("operations", "operations"), ("apiGroups", "API groups"), ("apiVersions", "API versions")];
    for (field, what) in lists {
        require(rule, field, path, causes);
        let (list, path) = (items(rule, field), path.child(field));
        if list.len() > 1 && list.iter().any(|item| item == "*") {
            let why = format!("if '*' is present, must not specify other {what}");
            causes.push(Cause::invalid(&path, list.to_vec(), why));
        }
        for (at, item) in list.iter().filter_map(Value::as_str).enumerate() {
            let known = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
            match field {
                "operations" if !known.contains(&item) => {
                    causes.push(Cause::not_supported(&path.index(at), item, &known));
                }
                "apiVersions" if item.is_empty() => causes.push(Cause::required(&path.index(at), "")),
                _ => {}
            }
        }
    }
    require(rule, "resources", path, causes);
    resources(items(rule, "resources"), &path.child("resources"), causes);
    one_of(rule, "scope", &["*", "Cluster", "Namespaced"], path, causes);
}

/// Resources, of which none may be named beside a pattern that has it (`validateResources`).
fn resources(resources: &[Value], path: &FieldPath, causes: &mut Vec<Cause>) {
    let (mut wildcards, mut anywhere) = (HashSet::new(), HashSet::new());
    let mut plain = false;
    for (nth, whole) in resources.iter().filter_map(Value::as_str).enumerate() {
        let path = path.index(nth);
        if whole.is_empty() {
            causes.push(Cause::required(&path, ""));
            continue;
        }
        let Some((resource, below)) = whole.split_once('/') else {
            // The last one counts, as upstream has it.
            plain = whole != "*";
            continue;
        };
        if wildcards.contains(resource) {
            let why = format!("if '{resource}/*' is present, must not specify {whole}");
            causes.push(Cause::invalid(&path, whole, why));
        }
        if anywhere.contains(below) {
            let why = format!("if '*/{below}' is present, must not specify {whole}");
            causes.push(Cause::invalid(&path, whole, why));
        }
        if below == "*" {
            wildcards.insert(resource);
        }
        if resource == "*" {
            anywhere.insert(below);
        }
    }
    let has = |pattern: &str| resources.iter().any(|resource| resource == pattern);
    if resources.len() > 1 && has("*/*") {
        let why = "if '*/*' is present, must not specify other resources";
        causes.push(Cause::invalid(path, resources.to_vec(), why));
    }
    if has("*") && plain {
        let why = "if '*' is present, must not specify other resources without subresources";
        causes.push(Cause::invalid(path, resources.to_vec(), why));
    }
}
