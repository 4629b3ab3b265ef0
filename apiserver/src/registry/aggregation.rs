//! APIServices: which server answers for a group and version (apiregistration `validation.go`). All of them are answered
//! here; another server can not be put in the place of this one.

use super::fields::{invalid_all, is_set, items, text};
use super::strategy::{NameRule, Strategy, ThroughStatus, Traits};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use coracle_api::json::Value;
use coracle_api::status::FieldPath;
use coracle_api::{Cause, validation};

#[derive(Debug)]
pub struct ApiServiceStrategy;

impl Strategy for ApiServiceStrategy {
    fn traits(&self) -> Traits {
        Traits { through_status: ThroughStatus::Nothing, unconditional_update: false, ..Traits::DEFAULT }
    }

    fn name_rule(&self) -> NameRule {
        // Of the core group it is `v1.`
        validation::path_segment
    }

    fn wrong_prefix(&self, prefix: &str) -> Vec<String> {
        validation::path_prefix(prefix)
    }

    fn validate(&self, object: &Value, causes: &mut Vec<Cause>) {
        let (spec, path) = (&object["spec"], FieldPath::new("spec"));
        let (group, version) = (text(spec, "group"), text(spec, "version"));
        let name = coracle_api::meta::name(object);
        if name != format!("{version}.{group}") {
            let why = format!("must be `spec.version+\".\"+spec.group`: {:?}", format!("{version}.{group}"));
            causes.push(Cause::invalid(&FieldPath::new("metadata.name"), name, why));
        }
        if group.is_empty() && version != "v1" {
            let why = "only v1 may have an empty group and it better be legacy kube";
            causes.push(Cause::required(&path.child("group"), why));
        }
        if !group.is_empty() {
            invalid_all(&path.child("group"), group, validation::dns1123_subdomain(group), causes);
        }
        invalid_all(&path.child("version"), version, validation::dns1035_label(version), causes);
        for (field, most) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1000)] {
            let number = spec.get(field).and_then(Value::as_i64).unwrap_or(0);
            if !(1..=most).contains(&number) {
                let why = format!("must be positive and less than {most}");
                causes.push(Cause::invalid(&path.child(field), number, why));
            }
        }
        if is_set(spec, "service") {
            let why = "this server does not pass requests on to other API servers";
            causes.push(Cause::forbidden(&path.child("service"), why));
            return;
        }
        // Upstream tells how long it is, not what it is.
        if let Some(bundle) = spec.get("caBundle").and_then(Value::as_str).filter(|bundle| !bundle.is_empty()) {
            let length = STANDARD.decode(bundle).map_or(0, |bundle| bundle.len());
            let why = "local APIServices may not have a caBundle";
            causes.push(Cause::invalid(&path.child("caBundle"), format!("{length} bytes"), why));
        }
        if spec.get("insecureSkipTLSVerify").and_then(Value::as_bool) == Some(true) {
            let why = "local APIServices may not have insecureSkipTLSVerify";
            causes.push(Cause::invalid(&path.child("insecureSkipTLSVerify"), true, why));
        }
    }

    fn validate_status(&self, object: &Value, _old: &Value, causes: &mut Vec<Cause>) {
        const KNOWN: [&str; 3] = ["True", "False", "Unknown"];
        let path = FieldPath::new("status").child("conditions");
        for (nth, condition) in items(&object["status"], "conditions").iter().enumerate() {
            let status = text(condition, "status");
            if !KNOWN.contains(&status) {
                causes.push(Cause::not_supported(&path.index(nth).child("status"), status, &KNOWN));
            }
        }
    }
}
