//! CertificateSigningRequests.

use super::{certificate, request};
use crate::cache::Field;
use crate::registry::Subresource;
use crate::registry::fields::{is_set, items, items_mut, object_mut, remove, same, set, set_default, text};
use crate::registry::strategy::{NameRule, Strategy, WriteContext};
use coracle_api::clock::rfc3339;
use coracle_api::fields::Set;
use coracle_api::json::{Value, json};
use coracle_api::status::FieldPath;
use coracle_api::{Cause, validation};
use std::collections::HashSet;
use std::sync::LazyLock;

/// certificates.k8s.io/v1 CertificateSigningRequest
#[derive(Debug)]
pub struct SigningRequestStrategy;

static FIELDS: [Field; 1] = [Field::of("spec.signerName", &["spec", "signerName"], "")];

/// What cannot be set: with the whole request, through its status, through its approval.
static RESET: LazyLock<[Set<'static>; 3]> = LazyLock::new(|| {
    let all: [&[&str]; 3] = [&["status"], &["status", "conditions"], &["status", "certificate"]];
    all.map(|of_status| Set::of(&[&["spec"], of_status]))
});

/// What only the server says about who asks.
const REQUESTER: [&str; 4] = ["username", "uid", "groups", "extra"];
/// The shortest certificate that can be asked for, in seconds.
const SHORTEST: i64 = 600;

impl Strategy for SigningRequestStrategy {
    fn fields(&self) -> &[Field] {
        &FIELDS
    }

    fn reset_fields(&self, through: Option<Subresource>) -> Option<&'static Set<'static>> {
        let [whole, status, approval] = &*RESET;
        match through {
            None => Some(whole),
            Some(Subresource::Status) => Some(status),
            Some(Subresource::Approval) => Some(approval),
            _ => None,
        }
    }

    fn name_rule(&self) -> NameRule {
        validation::path_segment
    }

    fn wrong_prefix(&self, prefix: &str) -> Vec<String> {
        validation::path_prefix(prefix)
    }

    fn prepare_create(&self, request: &mut Value, context: &WriteContext) {
        let spec = object_mut(request, "spec");
        for field in REQUESTER {
            remove(spec, field);
        }
        set(spec, "username", context.user.name.as_str());
        if !context.user.uid.is_empty() {
            set(spec, "uid", context.user.uid.as_str());
        }
        set(spec, "groups", context.user.groups.clone());
        if !context.user.extra.is_empty() {
            set(spec, "extra", json!(context.user.extra));
        }
        request["status"] = json!({});
    }

    fn prepare_update(&self, request: &mut Value, old: &Value, _context: &WriteContext) {
        crate::registry::fields::copy(request, old, "spec");
    }

    fn prepare_status(&self, request: &mut Value, old: &Value, context: &WriteContext) {
        let known = items(&old["status"], "conditions").to_vec();
        let now = rfc3339(context.now);
        if let Some(status) = request.get_mut("status") {
            for condition in items_mut(status, "conditions") {
                let is_known =
                    |other: &&Value| ["type", "status"].iter().all(|name| text(other, name) == text(condition, name));
                let before = known.iter().filter(is_known).find(|other| is_set(other, "lastTransitionTime"));
                let since = before.map_or(now.as_str(), |before| text(before, "lastTransitionTime"));
                set_default(condition, "lastUpdateTime", now.as_str());
                set_default(condition, "lastTransitionTime", since);
            }
        }
    }

    fn prepare_subresource(&self, which: Subresource, request: &mut Value, old: &Value, context: &WriteContext) {
        if which == Subresource::Status {
            APPROVALS.iter().for_each(|kind| keep_conditions(request, old, kind));
        }
        self.prepare_status(request, old, context);
    }

    fn validate(&self, request: &Value, causes: &mut Vec<Cause>) {
        let (spec, path) = (&request["spec"], FieldPath::new("spec"));
        if let Err(why) = request::check(text(spec, "request")) {
            causes.push(Cause::invalid(&path.child("request"), spec["request"].clone(), why));
        }
        usages(items(spec, "usages"), &path.child("usages"), causes);
        signer(text(spec, "signerName"), &path.child("signerName"), causes);
        if let Some(seconds) = spec.get("expirationSeconds").and_then(Value::as_i64)
            && seconds < SHORTEST
        {
            causes.push(Cause::invalid(
                &path.child("expirationSeconds"),
                seconds,
                "may not specify a duration less than 600 seconds (10 minutes)",
            ));
        }
    }

    fn validate_status(&self, request: &Value, old: &Value, causes: &mut Vec<Cause>) {
        let path = FieldPath::new("status").child("conditions");
        each_condition(items(&request["status"], "conditions"), items(&old["status"], "conditions"), &path, causes);
        let changes = !same(&request["status"], &old["status"], "certificate");
        if changes && certificate::check(text(&old["status"], "certificate")).is_ok() {
            let shown = "<certificate data>";
            let told = certificate::check(text(&request["status"], "certificate"));
            let path = FieldPath::new("status.certificate");
            causes.extend(told.err().map(|why| Cause::invalid(&path, shown, why)));
        }
        none_removed(request, old, &path, causes);
        // That is said through `approval`.
        for kind in APPROVALS {
            if count(request, kind) > count(old, kind) {
                causes.push(Cause::forbidden(&path, format!("updates may not add a condition of type {kind:?}")));
            }
        }
        if changes && is_set(&old["status"], "certificate") {
            causes.push(Cause::forbidden(
                &FieldPath::new("status.certificate"),
                "updates may not modify existing certificate content",
            ));
        }
    }

    fn validate_subresource(&self, _which: Subresource, request: &Value, old: &Value, causes: &mut Vec<Cause>) {
        self.validate(request, causes);
        let path = FieldPath::new("status").child("conditions");
        each_condition(items(&request["status"], "conditions"), items(&old["status"], "conditions"), &path, causes);
        none_removed(request, old, &path, causes);
    }
}

fn count(request: &Value, kind: &str) -> usize {
    items(&request["status"], "conditions").iter().filter(|condition| text(condition, "type") == kind).count()
}

/// Conditions that are set through `approval` alone.
const APPROVALS: [&str; 2] = ["Approved", "Denied"];

/// Conditions that end what becomes of a request: they hold, or they are not there.
const DECISIONS: [&str; 3] = ["Approved", "Denied", "Failed"];

/// Conditions of a kind stay what they were, if there are as many (certificates `preserveConditionInstances`).
fn keep_conditions(request: &mut Value, old: &Value, kind: &str) {
    if count(request, kind) != count(old, kind) {
        return;
    }
    let mut known = items(&old["status"], "conditions").iter().filter(|condition| text(condition, "type") == kind);
    let Some(status) = request.get_mut("status") else { return };
    for condition in items_mut(status, "conditions").filter(|condition| text(condition, "type") == kind) {
        if let Some(known) = known.next() {
            condition.clone_from(known);
        }
    }
}

fn none_removed(request: &Value, old: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    for kind in DECISIONS {
        if count(request, kind) < count(old, kind) {
            causes.push(Cause::forbidden(path, format!("updates may not remove a condition of type {kind:?}")));
        }
    }
}

/// The conditions of a request; what was wrong with them before may stay so (certificates `validateConditions`).
fn each_condition(new: &[Value], old: &[Value], path: &FieldPath, causes: &mut Vec<Cause>) {
    let before: HashSet<&str> = old.iter().map(|condition| text(condition, "type")).collect();
    let excluded = |kinds: &HashSet<&str>, kind: &str| match kind {
        "Approved" => kinds.contains("Denied"),
        "Denied" => kinds.contains("Approved"),
        _ => false,
    };
    let (was_nameless, was_twice, were_both) =
        (before.contains(""), before.len() < old.len(), excluded(&before, "Denied") && excluded(&before, "Approved"));
    let mut seen = HashSet::new();
    for (nth, condition) in new.iter().enumerate() {
        let (at, kind, status) = (path.index(nth), text(condition, "type"), text(condition, "status"));
        if kind.is_empty() && !was_nameless {
            causes.push(Cause::required(&at.child("type"), ""));
        }
        let allowed: &[&str] = if DECISIONS.contains(&kind) { &["True"] } else { &["False", "True", "Unknown"] };
        if status.is_empty() {
            causes.push(Cause::required(&at.child("status"), ""));
        } else if !allowed.contains(&status) {
            causes.push(Cause::not_supported(&at.child("status"), status, allowed));
        }
        if excluded(&seen, kind) && !were_both {
            causes.push(Cause::invalid(path, kind, "Approved and Denied conditions are mutually exclusive"));
        }
        if !seen.insert(kind) && !was_twice {
            causes.push(Cause::duplicate(&at.child("type"), kind));
        }
    }
}

/// What a certificate can be for, in the order of upstream's messages.
const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

fn usages(usages: &[Value], path: &FieldPath, causes: &mut Vec<Cause>) {
    if usages.is_empty() {
        causes.push(Cause::required(path, ""));
    }
    let named = || usages.iter().filter_map(Value::as_str).enumerate();
    for (nth, usage) in named().filter(|(_, usage)| !USAGES.contains(usage)) {
        causes.push(Cause::not_supported(&path.index(nth), usage, &USAGES));
    }
    let mut seen = HashSet::new();
    for (nth, usage) in named().filter(|(_, usage)| !seen.insert(*usage)) {
        causes.push(Cause::duplicate(&path.index(nth), usage));
    }
}

/// A domain of at least two labels, and a path in it (core `ValidateSignerName`).
fn signer(name: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    /// A subdomain, a slash and a path.
    const LONGEST: usize = 253 + 1 + 253 + 1 + 63;
    if name.is_empty() {
        causes.push(Cause::required(path, "signerName must be provided"));
        return;
    }
    let segments: Vec<&str> = name.split('/').collect();
    let [domain, rest] = segments.as_slice() else {
        let why = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        causes.push(Cause::invalid(path, name, why));
        return;
    };
    for label in domain.split('.') {
        let told = validation::dns1123_label(label);
        causes.extend(
            told.into_iter().map(|why| Cause::invalid(path, *domain, format!("validating label {label:?}: {why}"))),
        );
    }
    if !domain.contains('.') {
        causes.push(Cause::invalid(path, *domain, "should be a domain with at least two segments separated by dots"));
    }
    for label in rest.split('.') {
        let told = validation::dns1123_subdomain(label);
        causes.extend(
            told.into_iter().map(|why| Cause::invalid(path, *rest, format!("validating label {label:?}: {why}"))),
        );
    }
    if name.len() > LONGEST {
        causes.push(Cause::too_long(path, LONGEST));
    }
    if name == "kubernetes.io/legacy-unknown" {
        causes.push(Cause::invalid(path, name, "the legacy signerName is not allowed via this API version"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(check: impl FnOnce(&FieldPath, &mut Vec<Cause>)) -> Vec<String> {
        let mut causes = Vec::new();
        check(&FieldPath::new("a"), &mut causes);
        causes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn unknown_usages_are_told_before_those_that_stand_twice() {
        let of = |list: Value| told(|path, causes| usages(list.as_array().unwrap(), path, causes));
        assert_eq!(of(json!(["any", "signing"])), [""; 0]);
        assert_eq!(of(json!([])), ["a: Required value"]);
        let told = of(json!(["any", "any", "x", "x"]));
        assert!(
            told[0].starts_with("a[2]: Unsupported value: \"x\": supported values: \"any\", \"cert sign\""),
            "{told:?}"
        );
        assert!(told[1].starts_with("a[3]: Unsupported value"), "{told:?}");
        assert_eq!(told[2..], ["a[1]: Duplicate value: \"any\"", "a[3]: Duplicate value: \"x\""]);
    }

    #[test]
    fn nobody_approves_and_denies() {
        let of = |new: &[&str], old: &[&str]| {
            let all =
                |kinds: &[&str]| kinds.iter().map(|kind| json!({"type": kind, "status": "True"})).collect::<Vec<_>>();
            told(|path, causes| each_condition(&all(new), &all(old), path, causes))
        };
        assert_eq!(of(&["Approved", "x"], &[]), [""; 0]);
        let both = "Approved and Denied conditions are mutually exclusive";
        assert_eq!(of(&["Approved", "Denied"], &["Approved"]), [format!("a: Invalid value: \"Denied\": {both}")]);
        assert_eq!(of(&["Denied", "Approved"], &["Denied"]), [format!("a: Invalid value: \"Approved\": {both}")]);
        assert_eq!(of(&["Approved", "Denied"], &["Approved", "Denied"]), [""; 0]);
        assert_eq!(of(&["x", "x", ""], &[]), ["a[1].type: Duplicate value: \"x\"", "a[2].type: Required value"]);
        assert_eq!(of(&["x", "x", ""], &["x", "x", ""]), [""; 0]);
    }
}
