//! Kinds of rbac.authorization.k8s.io/v1.

use super::fields::{
    invalid_all, is_set, items, items_mut, label_selector, object_mut, set_default, set_default_text, text,
};
use super::strategy::{NameRule, Strategy, Traits};
use coracle_api::json::{Value, json};
use coracle_api::status::FieldPath;
use coracle_api::{Cause, validation};

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

    fn wrong_prefix(&self, prefix: &str) -> Vec<String> {
        validation::path_prefix(prefix)
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
        if let Some(aggregation) = role.get("aggregationRule").filter(|rule| !rule.is_null()) {
            let path = FieldPath::new("aggregationRule").child("clusterRoleSelectors");
            let selectors = items(aggregation, "clusterRoleSelectors");
            if selectors.is_empty() {
                let why = "at least one clusterRoleSelector required if aggregationRule is non-nil";
                causes.push(Cause::required(&path, why));
            }
            for (nth, selector) in selectors.iter().enumerate() {
                let (path, before) = (path.index(nth), causes.len());
                label_selector(selector, &path, causes);
                if causes.len() > before {
                    causes.push(Cause::invalid(&path, "null", "invalid label selector."));
                }
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

    fn wrong_prefix(&self, prefix: &str) -> Vec<String> {
        validation::path_prefix(prefix)
    }

    fn default(&self, binding: &mut Value) {
        set_default_text(object_mut(binding, "roleRef"), "apiGroup", GROUP);
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
        let name = text(role, "name");
        if name.is_empty() {
            causes.push(Cause::required(&path.child("name"), ""));
        } else {
            invalid_all(&path.child("name"), name, validation::path_segment(name), causes);
        }
        for (nth, one) in items(binding, "subjects").iter().enumerate() {
            subject(one, namespaced, &FieldPath::new("subjects").index(nth), causes);
        }
    }

    fn validate_update(&self, binding: &Value, old: &Value, causes: &mut Vec<Cause>) {
        let role = &binding["roleRef"];
        if *role != old["roleRef"] {
            causes.push(Cause::invalid(
                &FieldPath::new("roleRef"),
                // In the field names of upstream's internal type.
                json!({"APIGroup": text(role, "apiGroup"), "Kind": text(role, "kind"), "Name": text(role, "name")}),
                "cannot change roleRef",
            ));
        }
    }
}

/// Who a role is bound to (rbac `ValidateRoleBindingSubject`).
fn subject(subject: &Value, namespaced: bool, path: &FieldPath, causes: &mut Vec<Cause>) {
    let (name, group) = (text(subject, "name"), text(subject, "apiGroup"));
    if name.is_empty() {
        causes.push(Cause::required(&path.child("name"), ""));
    }
    let wanted = match text(subject, "kind") {
        "ServiceAccount" => {
            if !name.is_empty() {
                invalid_all(&path.child("name"), name, validation::dns1123_subdomain(name), causes);
            }
            ""
        }
        "User" | "Group" => GROUP,
        other => {
            let kinds = ["ServiceAccount", "User", "Group"];
            causes.push(Cause::not_supported(&path.child("kind"), other, &kinds));
            return;
        }
    };
    if group != wanted {
        causes.push(Cause::not_supported(&path.child("apiGroup"), group, &[wanted]));
    }
    if text(subject, "kind") == "ServiceAccount" && !namespaced && text(subject, "namespace").is_empty() {
        causes.push(Cause::required(&path.child("namespace"), ""));
    }
}
