//! What configures admission: webhooks, policies in CEL, and their bindings (admissionregistration/v1 `defaults.go`,
//! `validation.go`).

use super::fields::{is_set, items, items_mut, label_selector, object_mut, one_of, require, set_default, text};
use super::strategy::{Strategy, Traits};
use crate::custom::rules;
use coracle_api::status::FieldPath;
use coracle_api::{Cause, validation};
use serde_json::{Map, Value};
use std::collections::HashSet;

/// admissionregistration.k8s.io/v1: one strategy for its kinds, which share most of their rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdmissionConfig {
    Webhooks,
    MutatingWebhooks,
    ValidatingPolicy,
    Policy,
    ValidatingBinding,
    MutatingBinding,
}

/// Seconds that a webhook is waited for.
const TIMEOUT: i64 = 10;
const TIMEOUT_MAX: i64 = 30;

impl Strategy for AdmissionConfig {
    fn traits(&self) -> Traits {
        Traits { generation: true, ..Traits::DEFAULT }
    }

    fn default(&self, object: &mut Value) {
        match self {
            Self::Webhooks | Self::MutatingWebhooks => {
                for webhook in items_mut(object, "webhooks") {
                    default_webhook(webhook, *self == Self::MutatingWebhooks);
                }
            }
            Self::ValidatingPolicy | Self::Policy => {
                let spec = object_mut(object, "spec");
                set_default(spec, "failurePolicy", "Fail");
                if spec.get("matchConstraints").is_some() {
                    default_match(object_mut(spec, "matchConstraints"));
                }
            }
            Self::ValidatingBinding | Self::MutatingBinding => {
                let spec = object_mut(object, "spec");
                if spec.get("matchResources").is_some() {
                    default_match(object_mut(spec, "matchResources"));
                }
            }
        }
    }

    fn validate(&self, object: &Value, causes: &mut Vec<Cause>) {
        let path = FieldPath::new("spec");
        let spec = &object["spec"];
        match self {
            Self::Webhooks | Self::MutatingWebhooks => webhooks(items(object, "webhooks"), causes),
            Self::ValidatingPolicy => {
                policy(spec, &path, causes);
                let (checks, notes) = (items(spec, "validations"), items(spec, "auditAnnotations"));
                if checks.is_empty() && notes.is_empty() {
                    let why = "validations or auditAnnotations must contain at least one item";
                    causes.push(Cause::required(&path.child("validations"), why));
                    causes.push(Cause::required(&path.child("auditAnnotations"), why));
                }
                expressions(checks, "expression", &path.child("validations"), causes);
                expressions(notes, "valueExpression", &path.child("auditAnnotations"), causes);
            }
            Self::Policy => {
                policy(spec, &path, causes);
                if items(spec, "mutations").is_empty() {
                    causes.push(Cause::required(&path.child("mutations"), "mutations must contain at least one item"));
                }
                one_of(spec, "reinvocationPolicy", &["Never", "IfNeeded"], &path, causes);
            }
            Self::ValidatingBinding | Self::MutatingBinding => {
                require(spec, "policyName", &path, causes);
                if *self == Self::ValidatingBinding {
                    actions(spec, &path.child("validationActions"), causes);
                }
            }
        }
    }
}

fn default_match(constraints: &mut Value) {
    set_default(constraints, "matchPolicy", "Equivalent");
    set_default(constraints, "namespaceSelector", Map::new());
    set_default(constraints, "objectSelector", Map::new());
    for list in ["resourceRules", "excludeResourceRules"] {
        for rule in items_mut(constraints, list) {
            set_default(rule, "scope", "*");
        }
    }
}

fn default_webhook(webhook: &mut Value, mutating: bool) {
    set_default(webhook, "failurePolicy", "Fail");
    set_default(webhook, "matchPolicy", "Equivalent");
    set_default(webhook, "namespaceSelector", Map::new());
    set_default(webhook, "objectSelector", Map::new());
    set_default(webhook, "timeoutSeconds", TIMEOUT);
    if mutating {
        set_default(webhook, "reinvocationPolicy", "Never");
    }
    for rule in items_mut(webhook, "rules") {
        set_default(rule, "scope", "*");
    }
    if let Some(service) = webhook.pointer_mut("/clientConfig/service").filter(|service| service.is_object()) {
        set_default(service, "port", 443);
    }
}

fn webhooks(webhooks: &[Value], causes: &mut Vec<Cause>) {
    let mut names = HashSet::new();
    for (nth, webhook) in webhooks.iter().enumerate() {
        let path = FieldPath::new("webhooks").index(nth);
        check_webhook(webhook, &path, causes);
        let name = text(webhook, "name");
        if !name.is_empty() && !names.insert(name) {
            causes.push(Cause::duplicate(&path.child("name"), name));
        }
    }
}

fn check_webhook(webhook: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let name = text(webhook, "name");
    let name_path = path.child("name");
    let messages = validation::dns1123_subdomain(name);
    if name.is_empty() {
        causes.push(Cause::required(&name_path, ""));
    } else if !messages.is_empty() {
        causes.push(Cause::invalid(&name_path, name, messages.join(",")));
    } else if name.split('.').count() < 3 {
        causes.push(Cause::invalid(
            &name_path,
            name,
            "should be a domain with at least three segments separated by dots",
        ));
    }
    let versions = items(webhook, "admissionReviewVersions");
    let versions_path = path.child("admissionReviewVersions");
    if versions.is_empty() {
        causes.push(Cause::required(&versions_path, "must specify one of v1, v1beta1"));
    } else if !versions.iter().any(|version| matches!(version.as_str(), Some("v1" | "v1beta1"))) {
        let why = "must include at least one of v1, v1beta1";
        causes.push(Cause::invalid(&versions_path, versions.to_vec(), why));
    }
    rules_of(items(webhook, "rules"), &path.child("rules"), causes);
    one_of(webhook, "failurePolicy", &["Fail", "Ignore"], path, causes);
    one_of(webhook, "matchPolicy", &["Equivalent", "Exact"], path, causes);
    one_of(webhook, "reinvocationPolicy", &["IfNeeded", "Never"], path, causes);
    match text(webhook, "sideEffects") {
        "" => causes.push(Cause::required(&path.child("sideEffects"), "must specify one of None, NoneOnDryRun")),
        "None" | "NoneOnDryRun" => {}
        other => causes.push(Cause::not_supported(&path.child("sideEffects"), other, &["None", "NoneOnDryRun"])),
    }
    if let Some(seconds) = webhook.get("timeoutSeconds").and_then(Value::as_i64)
        && !(1..=TIMEOUT_MAX).contains(&seconds)
    {
        let why = "the timeout value must be between 1 and 30 seconds";
        causes.push(Cause::invalid(&path.child("timeoutSeconds"), seconds, why));
    }
    for name in ["namespaceSelector", "objectSelector"] {
        label_selector(&webhook[name], &path.child(name), causes);
    }
    expressions(items(webhook, "matchConditions"), "expression", &path.child("matchConditions"), causes);
    let (client, path) = (&webhook["clientConfig"], path.child("clientConfig"));
    match (is_set(client, "url"), is_set(client, "service")) {
        (true, true) | (false, false) => {
            causes.push(Cause::required(&path, "exactly one of url or service is required"))
        }
        (true, false) if !text(client, "url").starts_with("https://") => {
            let why = "'https' is the only allowed URL scheme";
            causes.push(Cause::invalid(&path.child("url"), text(client, "url"), why));
        }
        (true, false) => {}
        (false, true) => {
            for field in ["namespace", "name"] {
                require(&client["service"], field, &path.child("service"), causes);
            }
        }
    }
}

fn rules_of(rules: &[Value], path: &FieldPath, causes: &mut Vec<Cause>) {
    for (nth, rule) in rules.iter().enumerate() {
        let path = path.index(nth);
        for field in ["operations", "apiGroups", "apiVersions", "resources"] {
            require(rule, field, &path, causes);
        }
        for (at, operation) in items(rule, "operations").iter().filter_map(Value::as_str).enumerate() {
            let known = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
            if !known.contains(&operation) {
                causes.push(Cause::not_supported(&path.child("operations").index(at), operation, &known));
            }
        }
        one_of(rule, "scope", &["*", "Cluster", "Namespaced"], &path, causes);
    }
}

fn policy(spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    one_of(spec, "failurePolicy", &["Fail", "Ignore"], path, causes);
    let constraints = &spec["matchConstraints"];
    let constraints_path = path.child("matchConstraints");
    if constraints.is_null() {
        causes.push(Cause::required(&constraints_path, ""));
    } else {
        if items(constraints, "resourceRules").is_empty() {
            causes.push(Cause::required(&constraints_path.child("resourceRules"), ""));
        }
        rules_of(items(constraints, "resourceRules"), &constraints_path.child("resourceRules"), causes);
    }
    expressions(items(spec, "variables"), "expression", &path.child("variables"), causes);
    expressions(items(spec, "matchConditions"), "expression", &path.child("matchConditions"), causes);
}

/// Expressions must be there and compile.
fn expressions(list: &[Value], field: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    for (nth, item) in list.iter().enumerate() {
        let path = path.index(nth).child(field);
        let expression = text(item, field);
        if expression.trim().is_empty() {
            causes.push(Cause::required(&path, &format!("{field} is not specified")));
        } else if let Err(why) = rules::compile(expression) {
            causes.push(Cause::invalid(&path, expression, why));
        }
    }
}

fn actions(spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let actions: Vec<&str> = items(spec, "validationActions").iter().filter_map(Value::as_str).collect();
    if actions.is_empty() {
        causes.push(Cause::required(path, "at least one validation action is required"));
    }
    let mut seen = HashSet::new();
    for action in &actions {
        if !["Audit", "Deny", "Warn"].contains(action) {
            causes.push(Cause::not_supported(path, *action, &["Audit", "Deny", "Warn"]));
        }
        if !seen.insert(action) {
            causes.push(Cause::duplicate(path, *action));
        }
    }
    if actions.contains(&"Deny") && actions.contains(&"Warn") {
        let why = "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)";
        causes.push(Cause::invalid(path, actions.into_iter().map(Value::from).collect::<Vec<_>>(), why));
    }
}
