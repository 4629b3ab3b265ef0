//! CertificateSigningRequests.

use crate::cache::Field;
use crate::registry::fields::{is_set, items, items_mut, object_mut, remove, same, set, set_default, text};
use crate::registry::strategy::{NameRule, Strategy, WriteContext};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use coracle_api::clock::rfc3339;
use coracle_api::status::FieldPath;
use coracle_api::{Cause, validation};
use serde_json::{Value, json};
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

    fn default(&self, request: &mut Value) {
        if let Some(status) = request.get_mut("status") {
            for condition in items_mut(status, "conditions") {
                set_default(condition, "status", "True");
            }
        }
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
                let before = known.iter().find(|other| text(other, "type") == text(condition, "type"));
                set_default(condition, "lastUpdateTime", now.as_str());
                if before.is_none_or(|before| text(before, "status") != text(condition, "status")) {
                    set_default(condition, "lastTransitionTime", now.as_str());
                } else if let Some(before) = before {
                    crate::registry::fields::copy(condition, before, "lastTransitionTime");
                }
            }
        }
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
        if items(spec, "usages").is_empty() {
            causes.push(Cause::required(&path.child("usages"), "usages must be specified"));
        }
        let signer = text(spec, "signerName");
        match signer.split_once('/') {
            _ if signer.is_empty() => causes.push(Cause::required(&path.child("signerName"), "")),
            Some((domain, name)) if domain.contains('.') && !name.is_empty() => {}
            _ => causes.push(Cause::invalid(
                &path.child("signerName"),
                signer,
                "must be a fully qualified domain and path of the form 'example.com/signer-name'",
            )),
        }
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
        let has = |value: &Value, kind: &str| {
            items(&value["status"], "conditions").iter().any(|condition| text(condition, "type") == kind)
        };
        if has(request, "Approved") && has(request, "Denied") {
            causes.push(Cause::invalid(&path, "Denied", "Approved and Denied conditions are mutually exclusive"));
        }
        for kind in ["Approved", "Denied", "Failed"] {
            if has(old, kind) && !has(request, kind) {
                causes.push(Cause::forbidden(&path, format!("updates may not remove a condition of type {kind:?}")));
            }
        }
        if is_set(&old["status"], "certificate") && !same(&request["status"], &old["status"], "certificate") {
            causes.push(Cause::forbidden(
                &FieldPath::new("status.certificate"),
                "updates may not set certificate content",
            ));
        }
    }
}

/// Whether these bytes are a PEM certificate request.
fn is_request(pem: &[u8]) -> bool {
    x509_parser::pem::Pem::iter_from_buffer(pem).next().and_then(Result::ok).is_some_and(|pem| {
        matches!(pem.label.as_str(), "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST")
            && x509_parser::certification_request::X509CertificationRequest::from_der(&pem.contents).is_ok()
    })
}
