//! What configures admission: webhooks, policies in CEL, and their bindings (admissionregistration/v1 `defaults.go`,
//! `validation.go`).

mod bindings;
mod expressions;
mod policies;
mod rules;
mod status;
mod webhooks;

use super::fields::{items_mut, object_mut, set_default};
use super::strategy::{Strategy, ThroughStatus, Traits};
use crate::custom::cel;
use coracle_api::Cause;
use coracle_api::json::{Map, Value};
use coracle_api::status::FieldPath;

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
                if spec["matchConstraints"].is_object() {
                    default_match(object_mut(spec, "matchConstraints"));
                }
            }
            Self::ValidatingBinding | Self::MutatingBinding => {
                let spec = object_mut(object, "spec");
                if spec["matchResources"].is_object() {
                    default_match(object_mut(spec, "matchResources"));
                }
            }
        }
    }

    fn validate(&self, object: &Value, causes: &mut Vec<Cause>) {
        self.judge(object, None, causes);
    }

    fn validate_changed(&self, object: &Value, old: &Value, causes: &mut Vec<Cause>) {
        self.judge(object, Some(old), causes);
    }

    fn validate_status(&self, object: &Value, _old: &Value, causes: &mut Vec<Cause>) {
        status::check(&object["status"], causes);
    }
}

impl AdmissionConfig {
    /// `old` is what it replaces: what was wrong there may partly stay.
    fn judge(self, object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
        let (spec, path) = (&object["spec"], FieldPath::new("spec"));
        cel::roomy(causes, |causes| match self {
            Self::Webhooks | Self::MutatingWebhooks => webhooks::check_all(object, old, causes),
            Self::ValidatingPolicy => policies::validating(object, old, causes),
            Self::Policy => policies::mutating(object, old, causes),
            Self::ValidatingBinding => bindings::check(spec, false, &path, causes),
            Self::MutatingBinding => bindings::check(spec, true, &path, causes),
        });
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

/// What is told of an object, which may replace another.
#[cfg(test)]
fn told(config: AdmissionConfig, mut object: Value, old: Option<&Value>) -> Vec<String> {
    let mut causes = Vec::new();
    config.default(&mut object);
    match old {
        None => config.validate(&object, &mut causes),
        Some(old) => config.validate_changed(&object, old, &mut causes),
    }
    causes.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::json::json;

    #[test]
    fn a_policy_is_about_everything_that_its_rules_name() {
        let mut policy = json!({"spec": {"matchConstraints": {"excludeResourceRules": [{}]}}});
        AdmissionConfig::Policy.default(&mut policy);
        let constraints = &policy["spec"]["matchConstraints"];
        assert_eq!(constraints["matchPolicy"], "Equivalent");
        assert_eq!(constraints["namespaceSelector"], json!({}));
        assert_eq!(constraints["excludeResourceRules"][0]["scope"], "*");
        let mut policy = json!({"spec": {"matchConstraints": null}});
        AdmissionConfig::Policy.default(&mut policy);
        assert_eq!(policy["spec"], json!({"matchConstraints": null, "failurePolicy": "Fail"}));
    }
}
