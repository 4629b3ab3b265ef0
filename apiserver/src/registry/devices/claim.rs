//! ResourceClaims, and templates of them.

use super::{claim_status, config, internal, request};
use crate::registry::fields::{alike, items_mut, object_mut, set_default, set_default_text, text};
use crate::registry::meta::of_template;
use crate::registry::strategy::{Strategy, ThroughStatus, Traits, WriteContext};
use coracle_api::Cause;
use coracle_api::json::Value;
use coracle_api::status::FieldPath;

#[derive(Debug)]
pub struct ClaimStrategy;

impl Strategy for ClaimStrategy {
    fn traits(&self) -> Traits {
        Traits { through_status: ThroughStatus::Nothing, ..Traits::DEFAULT }
    }

    fn default(&self, object: &mut Value) {
        default_claim(object_mut(object, "spec"));
        claim_status::default(object);
    }

    fn prepare_status(&self, object: &mut Value, old: &Value, _context: &WriteContext) {
        claim_status::forget_devices(object, old);
    }

    fn validate(&self, object: &Value, causes: &mut Vec<Cause>) {
        request::devices(&object["spec"]["devices"], &FieldPath::new("spec").child("devices"), causes);
    }

    /// A spec cannot change, so it is not judged again.
    fn validate_changed(&self, object: &Value, old: &Value, causes: &mut Vec<Cause>) {
        let mut before = old["spec"].clone();
        default_claim(&mut before);
        if !same_claim(&object["spec"], &before) {
            let shown = internal::claim_spec(&object["spec"]);
            causes.push(Cause::immutable(&FieldPath::new("spec"), shown));
        }
    }

    fn validate_status(&self, object: &Value, old: &Value, causes: &mut Vec<Cause>) {
        claim_status::validate(object, old, causes);
    }
}

#[derive(Debug)]
pub struct TemplateStrategy;

impl Strategy for TemplateStrategy {
    fn default(&self, object: &mut Value) {
        default_claim(object_mut(object_mut(object, "spec"), "spec"));
    }

    fn validate(&self, object: &Value, causes: &mut Vec<Cause>) {
        let (spec, path) = (&object["spec"], FieldPath::new("spec"));
        of_template(&spec["metadata"], &path.child("metadata"), causes);
        request::devices(&spec["spec"]["devices"], &path.child("spec").child("devices"), causes);
    }

    /// A spec cannot change, so it is not judged again.
    fn validate_changed(&self, object: &Value, old: &Value, causes: &mut Vec<Cause>) {
        let mut before = old["spec"].clone();
        default_claim(object_mut(&mut before, "spec"));
        if !alike(&object["spec"], &before) || !same_claim(&object["spec"]["spec"], &before["spec"]) {
            let shown = internal::template_spec(&object["spec"]);
            causes.push(Cause::immutable(&FieldPath::new("spec"), shown));
        }
    }
}

fn same_claim(spec: &Value, before: &Value) -> bool {
    alike(spec, before) && config::tell_the_same(&spec["devices"], &before["devices"])
}

fn default_claim(spec: &mut Value) {
    let Some(devices) = spec.get_mut("devices") else { return };
    for request in items_mut(devices, "requests") {
        if let Some(exactly) = request.get_mut("exactly").filter(|exactly| exactly.is_object()) {
            default_request(exactly);
        }
        for one in items_mut(request, "firstAvailable") {
            default_request(one);
        }
    }
}

fn default_request(request: &mut Value) {
    set_default_text(request, "allocationMode", "ExactCount");
    if text(request, "allocationMode") == "ExactCount" {
        set_default(request, "count", 1);
    }
    default_tolerations(request);
}

/// Tolerations are of equal values when they do not say otherwise.
pub fn default_tolerations(of: &mut Value) {
    for toleration in items_mut(of, "tolerations") {
        set_default_text(toleration, "operator", "Equal");
    }
}

#[cfg(test)]
mod tests {
    use super::super::told;
    use super::*;
    use coracle_api::json::json;

    fn claim() -> Value {
        let request = json!({"name": "a", "exactly": {"deviceClassName": "c", "tolerations": [{"key": "k"}]}});
        let mut claim = json!({"spec": {"devices": {"requests": [request]}}});
        ClaimStrategy.default(&mut claim);
        claim
    }

    #[test]
    fn requests_are_for_one_device_and_tolerate_equal_values() {
        let exactly = &claim()["spec"]["devices"]["requests"][0]["exactly"];
        assert_eq!((&exactly["allocationMode"], &exactly["count"]), (&json!("ExactCount"), &json!(1)));
        assert_eq!(exactly["tolerations"][0]["operator"], "Equal");
        assert!(told(|causes| ClaimStrategy.validate(&claim(), causes)).is_empty());
    }

    #[test]
    fn a_spec_that_changes_is_only_told_to_be_fixed() {
        let (mut changed, old) = (claim(), json!({"spec": {"devices": {"requests": []}}}));
        changed["spec"]["devices"]["requests"] = json!([{"name": "_"}]);
        let why = r#"spec: Invalid value: {"Devices":{"Requests":[{"Name":"_","Exactly":null,"FirstAvailable":null}],"Constraints":null,"Config":null}}: field is immutable"#;
        assert_eq!(told(|causes| ClaimStrategy.validate_changed(&changed, &old, causes)), [why]);
        let template = |claim: &Value| json!({"spec": {"spec": claim["spec"]}});
        let told = told(|causes| TemplateStrategy.validate_changed(&template(&changed), &template(&old), causes));
        assert!(told.len() == 1 && told[0].starts_with(r#"spec: Invalid value: {"Spec":{"Devices":"#), "{told:?}");
    }

    #[test]
    fn what_drivers_are_told_does_not_change_either() {
        let of = |parameters: Value| {
            let config = json!([{"opaque": {"driver": "a.b", "parameters": parameters}}]);
            json!({"spec": {"devices": {"requests": [], "config": config}}})
        };
        let update = |now: &Value| told(|causes| ClaimStrategy.validate_changed(now, &of(json!({"a": []})), causes));
        assert!(update(&of(json!({"a": []}))).is_empty());
        assert_eq!(update(&of(json!({}))).len(), 1);
    }

    #[test]
    fn a_claim_that_was_stored_without_defaults_can_be_updated() {
        let mut old = claim();
        old["spec"]["devices"]["requests"][0]["exactly"]["tolerations"] = json!([{"key": "k"}]);
        assert!(told(|causes| ClaimStrategy.validate_changed(&claim(), &old, causes)).is_empty());
    }

    #[test]
    fn a_template_gives_labels_and_annotations_and_nothing_else() {
        let check = |metadata: Value| {
            told(|causes| TemplateStrategy.validate(&json!({"spec": {"metadata": metadata, "spec": {}}}), causes))
        };
        assert!(check(json!({"labels": {"a": "b"}, "annotations": {"C/d": "any thing"}, "generation": 0})).is_empty());
        assert_eq!(
            check(json!({"name": "n", "uid": "u", "labels": {"a": "_"}, "annotations": {"/": ""}}))
                .iter()
                .map(|told| told.split(": ").next().unwrap())
                .collect::<Vec<_>>(),
            [
                "spec.metadata.annotations",
                "spec.metadata.annotations",
                "spec.metadata.annotations",
                "spec.metadata.labels",
                "spec.metadata.name",
                "spec.metadata.uID"
            ]
        );
    }
}
