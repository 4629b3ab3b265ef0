//! What configures admission: webhooks, policies in CEL, and their bindings (admissionregistration/v1 `defaults.go`,
//! `validation.go`).

use super::fields::{invalid_all, items, items_mut, label_selector, object_mut, one_of, require, set_default, text};
use super::strategy::{Strategy, ThroughStatus, Traits};
use super::webhook_url;
use crate::custom::cel;
use coracle_api::json::{Map, Value};
use coracle_api::status::FieldPath;
use coracle_api::{Cause, validation};
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
        Traits {
            generation: true,
            unconditional_update: false,
            through_status: ThroughStatus::Nothing,
            ..Traits::DEFAULT
        }
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
    rules_of(items(webhook, "rules"), &path.child("rules"), causes);
    one_of(webhook, "failurePolicy", &["Fail", "Ignore"], path, causes);
    one_of(webhook, "matchPolicy", &["Equivalent", "Exact"], path, causes);
    match webhook.get("sideEffects").and_then(Value::as_str) {
        None => causes.push(Cause::required(&path.child("sideEffects"), "must specify one of None, NoneOnDryRun")),
        Some("None" | "NoneOnDryRun") => {}
        Some(other) => causes.push(Cause::not_supported(&path.child("sideEffects"), other, &["None", "NoneOnDryRun"])),
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
    one_of(webhook, "reinvocationPolicy", &["IfNeeded", "Never"], path, causes);
    client(&webhook["clientConfig"], &path.child("clientConfig"), causes);
    expressions(items(webhook, "matchConditions"), "expression", &path.child("matchConditions"), causes);
    versions(items(webhook, "admissionReviewVersions"), &path.child("admissionReviewVersions"), causes);
}

/// Versions of reviews that a webhook understands, of which the server must know one.
fn versions(versions: &[Value], path: &FieldPath, causes: &mut Vec<Cause>) {
    if versions.is_empty() {
        causes.push(Cause::required(path, "must specify one of v1, v1beta1"));
        return;
    }
    for (nth, version) in versions.iter().enumerate() {
        let (path, text) = (path.index(nth), version.as_str().unwrap_or_default());
        if versions[..nth].contains(version) {
            causes.push(Cause::invalid(&path, text, "duplicate version"));
        } else {
            invalid_all(&path, text, validation::dns1035_label(text), causes);
        }
    }
    if !versions.iter().any(|version| matches!(version.as_str(), Some("v1" | "v1beta1"))) {
        causes.push(Cause::invalid(path, versions.to_vec(), "must include at least one of v1, v1beta1"));
    }
}

/// Where a webhook is (apiserver `util/webhook/validation.go`).
fn client(client: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let given = |field: &str| client.get(field).filter(|value| !value.is_null());
    if given("url").is_some() == given("service").is_some() {
        causes.push(Cause::required(path, "exactly one of url or service is required"));
    }
    if let Some(url) = given("url").and_then(Value::as_str) {
        webhook_url::check(url, &path.child("url"), causes);
    }
    if let Some(service) = given("service") {
        check_service(service, &path.child("service"), causes);
    }
}

fn check_service(service: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    for field in ["name", "namespace"].into_iter().filter(|field| text(service, field).is_empty()) {
        causes.push(Cause::required(&path.child(field), &format!("service {field} is required")));
    }
    if let Some(port) = service.get("port").and_then(Value::as_i64) {
        for why in validation::port_number(port) {
            causes.push(Cause::invalid(&path.child("port"), port, format!("port is not valid: {why}")));
        }
    }
    let (given, path) = (text(service, "path"), path.child("path"));
    if matches!(given, "" | "/") {
        return;
    }
    if given == "//" {
        causes.push(Cause::invalid(&path, given, "segment[0] may not be empty"));
        return;
    }
    if !given.starts_with('/') {
        causes.push(Cause::invalid(&path, given, "must start with a '/'"));
    }
    // Upstream drops the first character whatever it is.
    let below = given.chars().skip(1).collect::<String>();
    for (nth, segment) in below.strip_suffix('/').unwrap_or(&below).split('/').enumerate() {
        if segment.is_empty() {
            causes.push(Cause::invalid(&path, given, format!("segment[{nth}] may not be empty")));
            continue;
        }
        for why in validation::dns1123_subdomain(segment) {
            causes.push(Cause::invalid(&path, given, format!("segment[{nth}]: {why}")));
        }
    }
}

fn rules_of(rules: &[Value], path: &FieldPath, causes: &mut Vec<Cause>) {
    for (nth, rule) in rules.iter().enumerate() {
        let path = path.index(nth);
        let lists = [("operations", "operations"), ("apiGroups", "API groups"), ("apiVersions", "API versions")];
        for (field, what) in lists {
            require(rule, field, &path, causes);
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
        require(rule, "resources", &path, causes);
        resources(items(rule, "resources"), &path.child("resources"), causes);
        one_of(rule, "scope", &["*", "Cluster", "Namespaced"], &path, causes);
    }
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
        } else if let Err(why) = cel::Program::parse(expression) {
            causes.push(Cause::invalid(&path, expression, format!("compilation failed: {why}")));
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
