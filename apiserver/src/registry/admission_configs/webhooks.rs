//! Webhooks (admissionregistration `validation.go`).

use super::expressions::{self, Wanted};
use super::rules;
use crate::custom::cel::{Given, Scope, Type};
use crate::registry::fields::{alike, invalid_all, items, label_selector, one_of, text};
use crate::registry::webhook_url;
use coracle_api::json::Value;
use coracle_api::status::FieldPath;
use coracle_api::{Cause, validation};
use std::collections::HashSet;

const TIMEOUT_MAX: i64 = 30;
const NO_SIDE_EFFECTS: [&str; 2] = ["None", "NoneOnDryRun"];
const SIDE_EFFECTS: [&str; 4] = ["None", "NoneOnDryRun", "Some", "Unknown"];

/// What an update is not asked for, since what it replaces does not hold to it (`validationOptions`).
#[derive(Clone, Copy, Default)]
struct Spared {
    /// Nobody touched them.
    conditions: bool,
    side_effects: bool,
    versions: bool,
    names: bool,
    label_values: bool,
}

impl Spared {
    fn by(old: &[Value], new: &[Value]) -> Self {
        let untouched = |(new, old): (&Value, &Value)| alike(&new["matchConditions"], &old["matchConditions"]);
        let mut names = HashSet::new();
        Self {
            conditions: old.len() == new.len() && new.iter().zip(old).all(untouched),
            side_effects: !old.iter().all(|webhook| NO_SIDE_EFFECTS.contains(&text(webhook, "sideEffects"))),
            versions: !old.iter().all(|webhook| {
                let versions = items(webhook, "admissionReviewVersions");
                versions.is_empty() || versions.iter().any(is_known)
            }),
            names: !old.iter().all(|webhook| names.insert(text(webhook, "name"))),
            label_values: old.iter().any(has_wrong_selector),
        }
    }
}

const SELECTORS: [&str; 2] = ["namespaceSelector", "objectSelector"];

fn has_wrong_selector(webhook: &Value) -> bool {
    let mut causes = Vec::new();
    for name in SELECTORS {
        label_selector(&webhook[name], &FieldPath::default(), &mut causes);
    }
    !causes.is_empty()
}

/// Checks a configuration; `old` is what it replaces (`validateValidatingWebhookConfiguration`,
/// `validateMutatingWebhookConfiguration`).
pub(super) fn check_all(object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let webhooks = items(object, "webhooks");
    let scope = Scope::of_request(Given { authorizer: true, ..Given::default() });
    let before = old.map_or(&[][..], |old| items(old, "webhooks")).iter();
    let known = before.flat_map(|webhook| items(webhook, "matchConditions")).map(|known| text(known, "expression"));
    let conditions = (scope, Wanted::new([Type::Bool], known));
    let spared = old.map_or_else(Spared::default, |old| Spared::by(items(old, "webhooks"), webhooks));
    let mut names = HashSet::new();
    for (nth, webhook) in webhooks.iter().enumerate() {
        let path = FieldPath::new("webhooks").index(nth);
        check(webhook, spared, &conditions, &path, causes);
        let name = text(webhook, "name");
        if !spared.names && !name.is_empty() && !names.insert(name) {
            causes.push(Cause::duplicate(&path.child("name"), name));
        }
    }
}

fn check(
    webhook: &Value,
    spared: Spared,
    (scope, wanted): &(Scope<'_>, Wanted<'_>),
    path: &FieldPath,
    causes: &mut Vec<Cause>,
) {
    check_name(text(webhook, "name"), &path.child("name"), causes);
    rules::check_all(items(webhook, "rules"), &path.child("rules"), causes);
    one_of(webhook, "failurePolicy", &["Fail", "Ignore"], path, causes);
    one_of(webhook, "matchPolicy", &["Equivalent", "Exact"], path, causes);
    let effects: &[&str] = if spared.side_effects { &SIDE_EFFECTS } else { &NO_SIDE_EFFECTS };
    if webhook.get("sideEffects").is_none_or(Value::is_null) {
        let why = format!("must specify one of {}", effects.join(", "));
        causes.push(Cause::required(&path.child("sideEffects"), &why));
    }
    one_of(webhook, "sideEffects", effects, path, causes);
    if let Some(seconds) = webhook.get("timeoutSeconds").and_then(Value::as_i64)
        && !(1..=TIMEOUT_MAX).contains(&seconds)
    {
        let why = "the timeout value must be between 1 and 30 seconds";
        causes.push(Cause::invalid(&path.child("timeoutSeconds"), seconds, why));
    }
    for name in SELECTORS {
        selector(&webhook[name], spared.label_values, &path.child(name), causes);
    }
    one_of(webhook, "reinvocationPolicy", &["IfNeeded", "Never"], path, causes);
    client(&webhook["clientConfig"], &path.child("clientConfig"), causes);
    if !spared.conditions {
        let path = path.child("matchConditions");
        expressions::match_conditions(items(webhook, "matchConditions"), scope, wanted, &path, causes);
    }
    let path = path.child("admissionReviewVersions");
    versions(items(webhook, "admissionReviewVersions"), spared.versions, &path, causes);
}

/// A domain of at least three labels (apimachinery `IsFullyQualifiedName`).
fn check_name(name: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    let messages = validation::dns1123_subdomain(name);
    if name.is_empty() {
        causes.push(Cause::required(path, ""));
    } else if !messages.is_empty() {
        causes.push(Cause::invalid(path, name, messages.join(",")));
    } else if name.split('.').count() < 3 {
        let why = "should be a domain with at least three segments separated by dots";
        causes.push(Cause::invalid(path, name, why));
    }
}

/// A selector, perhaps with values that no label has (metav1 `LabelSelectorValidationOptions`).
fn selector(selector: &Value, any_value: bool, path: &FieldPath, causes: &mut Vec<Cause>) {
    let mut told = Vec::new();
    label_selector(selector, path, &mut told);
    let expressions = format!("{path}.matchExpressions[");
    let of_value = |cause: &Cause| {
        cause.field.strip_prefix(&expressions).is_some_and(|below| below.contains("].values[") && below.ends_with(']'))
    };
    causes.extend(told.into_iter().filter(|cause| !any_value || !of_value(cause)));
}

fn is_known(version: &Value) -> bool {
    matches!(version.as_str(), Some("v1" | "v1beta1"))
}

/// Versions of reviews that a webhook understands, of which the server must know one
/// (`validateAdmissionReviewVersions`).
fn versions(versions: &[Value], any: bool, path: &FieldPath, causes: &mut Vec<Cause>) {
    if versions.is_empty() {
        causes.push(Cause::required(path, "must specify one of v1, v1beta1"));
        return;
    }
    let mut seen = HashSet::new();
    for (nth, version) in versions.iter().filter_map(Value::as_str).enumerate() {
        let path = path.index(nth);
        if seen.insert(version) {
            invalid_all(&path, version, validation::dns1035_label(version), causes);
        } else {
            causes.push(Cause::invalid(&path, version, "duplicate version"));
        }
    }
    if !any && !versions.iter().any(is_known) {
        causes.push(Cause::invalid(path, versions.to_vec(), "must include at least one of v1, v1beta1"));
    }
}

/// Where a webhook is (apiserver `util/webhook/validation.go`).
fn client(client: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let given = |field: &str| client.get(field).filter(|value| !value.is_null());
    match (given("url"), given("service")) {
        (Some(url), None) => webhook_url::check(url.as_str().unwrap_or_default(), &path.child("url"), causes),
        (None, Some(service)) => check_service(service, &path.child("service"), causes),
        _ => causes.push(Cause::required(path, "exactly one of url or service is required")),
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

#[cfg(test)]
mod tests {
    use super::super::{AdmissionConfig, told};
    use super::*;
    use coracle_api::json::json;
    use coracle_api::patch;

    fn hooks(changes: &[Value]) -> Value {
        let hook = |change: &Value| {
            let mut hook = json!({"name": "a.b.c", "sideEffects": "None", "admissionReviewVersions": ["v1"],
                "clientConfig": {"url": "https://a/b"}});
            patch::merge(&mut hook, change.clone());
            hook
        };
        json!({"webhooks": changes.iter().map(hook).collect::<Vec<_>>()})
    }

    fn check(change: Value) -> Vec<String> {
        told(AdmissionConfig::Webhooks, hooks(&[change]), None)
    }

    /// A change of the time that is waited, of what says this already.
    fn again(changes: &[Value]) -> Vec<String> {
        let old = hooks(changes);
        let mut new = old.clone();
        new["webhooks"][0]["timeoutSeconds"] = 5.into();
        told(AdmissionConfig::MutatingWebhooks, new, Some(&old))
    }

    #[test]
    fn a_webhook_is_in_one_place() {
        assert_eq!(check(json!({})), [""; 0]);
        let why = "webhooks[0].clientConfig: Required value: exactly one of url or service is required";
        assert_eq!(check(json!({"clientConfig": {"url": null}})), [why]);
        assert_eq!(check(json!({"clientConfig": {"url": "x", "service": {}}})), [why]);
    }

    #[test]
    fn webhooks_are_asked_under_conditions() {
        let told = check(json!({"matchConditions": [{"expression": " ", "name": "a"}]}));
        assert_eq!(told, ["webhooks[0].matchConditions[0].expression: Required value"]);
        let of = |expression: &str| json!({"matchConditions": [{"expression": expression, "name": "a"}]});
        assert_eq!(check(of("request.name != '' && authorizer.path('/a').check('get').allowed()")), [""; 0]);
        let at = "webhooks[0].matchConditions[0].expression: Invalid value";
        assert_eq!(check(of(" object.a")), [format!("{at}: \"object.a\": must evaluate to bool but got dyn")]);
        assert!(check(of("params.a == 1"))[0].contains("undeclared reference to 'params'"));
        // Another condition that comes does not make what was there wrong.
        let (old, mut new) = (hooks(&[of("object.a")]), hooks(&[of("object.a")]));
        new["webhooks"][0]["matchConditions"] =
            json!([{"expression": "object.a", "name": "a"}, {"expression": "true", "name": "b"}]);
        assert_eq!(super::super::told(AdmissionConfig::Webhooks, new, Some(&old)), [""; 0]);
    }

    #[test]
    fn what_was_wrong_before_may_stay() {
        let selector = json!({"matchExpressions": [{"key": "a", "operator": "In", "values": ["b c"]}]});
        for (wrong, times) in [
            (json!({"sideEffects": "Some"}), 1),
            (json!({"admissionReviewVersions": ["v2"]}), 1),
            (json!({"matchConditions": [{"expression": "true"}]}), 1),
            (json!({"objectSelector": selector}), 1),
            (json!({}), 2),
        ] {
            let wrong = vec![wrong; times];
            let new = told(AdmissionConfig::MutatingWebhooks, hooks(&wrong), None);
            assert_eq!(new.len(), 1, "{new:?}");
            assert_eq!(again(&wrong), [""; 0]);
            let right = hooks(&[json!({})]);
            assert_eq!(told(AdmissionConfig::MutatingWebhooks, hooks(&wrong), Some(&right)), new);
        }
        let unknown = "webhooks[0].sideEffects: Unsupported value: \"X\": supported values: \"None\", \"NoneOnDryRun\", \"Some\", \"Unknown\"";
        assert_eq!(again(&[json!({"sideEffects": "X"})]), [unknown]);
        let key = json!({"matchExpressions": [{"key": "", "operator": "In", "values": ["b c"]}]});
        let told = again(&[json!({"objectSelector": key})]);
        assert!(!told.is_empty() && told.iter().all(|told| told.contains("matchExpressions[0].key: ")), "{told:?}");
    }
}
