//! Kinds of rbac.authorization.k8s.io/v1.

use super::fields::{is_set, items, items_mut, set_default, text};
use super::strategy::{NameRule, Strategy, Traits};
use coracle_api::status::FieldPath;
use coracle_api::{Cause, validation};
use serde_json::Value;

const GROUP: &str = "rbac.authorization.k8s.io";

/// Role and ClusterRole
#[derive(Debug)]
pub struct RoleStrategy;

impl Strategy for RoleStrategy {
    fn traits(&self) -> Traits {
        Traits { create_on_update: true, ..Traits::DEFAULT }
    }

    fn name_rule(&self) -> NameRule {
        validation::path_segment
    }

    fn validate(&self, role: &Value, causes: &mut Vec<Cause>) {
        let namespaced = !coracle_api::meta::namespace(role).is_empty();
        for (nth, rule) in items(role, "rules").iter().enumerate() {
            let path = FieldPath::new("rules").index(nth);
            if items(rule, "verbs").is_empty() {
                causes.push(Cause::required(&path.child("verbs"), "verbs must contain at least one value"));
            }
            if is_set(rule, "nonResourceURLs") {
                if namespaced {
                    causes.push(Cause::invalid(
                        &path.child("nonResourceURLs"),
                        rule["nonResourceURLs"].clone(),
                        "namespaced rules cannot apply to non-resource URLs",
                    ));
                }
                if is_set(rule, "apiGroups") || is_set(rule, "resources") || is_set(rule, "resourceNames") {
                    let why = "rules cannot apply to both regular resources and non-resource URLs";
                    causes.push(Cause::invalid(&path.child("nonResourceURLs"), rule["nonResourceURLs"].clone(), why));
                }
                continue;
            }
            if items(rule, "apiGroups").is_empty() {
                causes.push(Cause::required(
                    &path.child("apiGroups"),
                    "resource rules must supply at least one api group",
                ));
            }
            if items(rule, "resources").is_empty() {
                causes.push(Cause::required(
                    &path.child("resources"),
                    "resource rules must supply at least one resource",
                ));
            }
        }
    }
}

/// RoleBinding and ClusterRoleBinding
#[derive(Debug)]
pub struct BindingStrategy;

impl Strategy for BindingStrategy {
    fn traits(&self) -> Traits {
        Traits { create_on_update: true, ..Traits::DEFAULT }
    }

    fn name_rule(&self) -> NameRule {
        validation::path_segment
    }

    fn default(&self, binding: &mut Value) {
        if let Some(role) = binding.get_mut("roleRef").filter(|role| role.is_object()) {
            set_default(role, "apiGroup", GROUP);
        }
        for subject in items_mut(binding, "subjects") {
            if matches!(text(subject, "kind"), "User" | "Group") {
                set_default(subject, "apiGroup", GROUP);
            }
        }
    }

    fn validate(&self, binding: &Value, causes: &mut Vec<Cause>) {
        let namespaced = !coracle_api::meta::namespace(binding).is_empty();
        let (role, path) = (&binding["roleRef"], FieldPath::new("roleRef"));
        if text(role, "apiGroup") != GROUP {
            causes.push(Cause::not_supported(&path.child("apiGroup"), text(role, "apiGroup"), &[GROUP]));
        }
        let kinds: &[&str] = if namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
        if !kinds.contains(&text(role, "kind")) {
            causes.push(Cause::not_supported(&path.child("kind"), text(role, "kind"), kinds));
        }
        if text(role, "name").is_empty() {
            causes.push(Cause::required(&path.child("name"), ""));
        }
        for (nth, subject) in items(binding, "subjects").iter().enumerate() {
            let path = FieldPath::new("subjects").index(nth);
            if text(subject, "name").is_empty() {
                causes.push(Cause::required(&path.child("name"), ""));
            }
            match text(subject, "kind") {
                "ServiceAccount" if !namespaced && text(subject, "namespace").is_empty() => {
                    causes.push(Cause::required(&path.child("namespace"), ""));
                }
                "ServiceAccount" | "User" | "Group" => {}
                other => {
                    causes.push(Cause::not_supported(&path.child("kind"), other, &["ServiceAccount", "User", "Group"]))
                }
            }
        }
    }

    fn validate_update(&self, binding: &Value, old: &Value, causes: &mut Vec<Cause>) {
        if binding["roleRef"] != old["roleRef"] {
            causes.push(Cause::invalid(
                &FieldPath::new("roleRef"),
                binding["roleRef"].clone(),
                "cannot change roleRef",
            ));
        }
    }
}
