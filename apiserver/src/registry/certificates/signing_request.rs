//! CertificateSigningRequests.

use super::certificate;
use crate::cache::Field;
use crate::registry::Subresource;
use crate::registry::fields::{is_set, items, items_mut, object_mut, remove, same, set, set_default, text};
use crate::registry::strategy::{NameRule, Strategy, WriteContext};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use coracle_api::clock::rfc3339;
use coracle_api::json::{Value, json};
use coracle_api::status::FieldPath;
use coracle_api::{Cause, validation};
use x509_parser::prelude::FromDer;

/// certificates.k8s.io/v1 CertificateSigningRequest
#[derive(Debug)]
pub struct SigningRequestStrategy;

static FIELDS: [Field; 1] = [Field::of("spec.signerName", &["spec", "signerName"], "")];

/// What only the server says about who asks.
const REQUESTER: [&str; 4] = ["username", "uid", "groups", "extra"];
/// The shortest certificate that can be asked for, in seconds.
const SHORTEST: i64 = 600;

impl Strategy for SigningRequestStrategy {
    fn fields(&self) -> &[Field] {
        &FIELDS
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
        match STANDARD.decode(text(spec, "request")) {
            Ok(pem) if is_request(&pem) => {}
            Ok(pem) => {
                let shown = String::from_utf8_lossy(&pem).into_owned();
                causes.push(Cause::invalid(
                    &path.child("request"),
                    shown,
                    "PEM block type must be CERTIFICATE REQUEST",
                ));
            }
            Err(error) => causes.push(Cause::invalid(&path.child("request"), text(spec, "request"), error.to_string())),
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
    let nameless = |all: &[Value]| all.iter().any(|condition| text(condition, "type").is_empty());
    let has = |all: &[Value], kind: &str| all.iter().any(|condition| text(condition, "type") == kind);
    let twice = |all: &[Value]| all.iter().enumerate().any(|(nth, this)| has(&all[..nth], text(this, "type")));
    let both = |all: &[Value]| has(all, "Approved") && has(all, "Denied");
    let (was_nameless, was_twice, were_both) = (nameless(old), twice(old), both(old));
    for (nth, condition) in new.iter().enumerate() {
        let (path, kind, status) = (path.index(nth), text(condition, "type"), text(condition, "status"));
        if kind.is_empty() && !was_nameless {
            causes.push(Cause::required(&path.child("type"), ""));
        }
        let allowed: &[&str] = if DECISIONS.contains(&kind) { &["True"] } else { &["False", "True", "Unknown"] };
        if status.is_empty() {
            causes.push(Cause::required(&path.child("status"), ""));
        } else if !allowed.contains(&status) {
            causes.push(Cause::not_supported(&path.child("status"), status, allowed));
        }
        let before = &new[..nth];
        let excluded = (kind == "Approved" && has(before, "Denied")) || (kind == "Denied" && has(before, "Approved"));
        if excluded && !were_both {
            let why = "Approved and Denied conditions are mutually exclusive";
            causes.push(Cause::invalid(&path.child("type"), kind, why));
        }
        if has(before, kind) && !was_twice {
            causes.push(Cause::duplicate(&path.child("type"), kind));
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
        causes.push(Cause::required(path, "usages must be provided"));
    }
    for (nth, usage) in usages.iter().enumerate() {
        if !usage.as_str().is_some_and(|usage| USAGES.contains(&usage)) {
            causes.push(Cause::not_supported(&path.index(nth), usage.clone(), &USAGES));
        }
        if usages[..nth].contains(usage) {
            causes.push(Cause::duplicate(&path.index(nth), usage.clone()));
        }
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

/// Whether these bytes are a PEM certificate request.
fn is_request(pem: &[u8]) -> bool {
    x509_parser::pem::Pem::iter_from_buffer(pem).next().and_then(Result::ok).is_some_and(|pem| {
        matches!(pem.label.as_str(), "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST")
            && x509_parser::certification_request::X509CertificationRequest::from_der(&pem.contents).is_ok()
    })
}
