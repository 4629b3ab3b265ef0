//! ServiceAccounts.

use crate::registry::fields::{items, items_mut, set, text};
use crate::registry::strategy::{Strategy, WriteContext};
use coracle_api::json::{Value, json};
use coracle_api::meta;

/// Whether pods may mount the secrets of their account alone.
const ENFORCE_MOUNTABLE: &str = "kubernetes.io/enforce-mountable-secrets";

/// core/v1 ServiceAccount
#[derive(Debug)]
pub struct ServiceAccountStrategy;

impl Strategy for ServiceAccountStrategy {
    fn prepare_create(&self, account: &mut Value, _context: &WriteContext) {
        names_alone(account);
    }

    fn warnings(&self, account: &Value, old: Option<&Value>) -> Vec<String> {
        let has = |account: &Value| meta::annotation(account, ENFORCE_MOUNTABLE).is_some();
        if !has(account) || old.is_some_and(has) {
            return Vec::new();
        }
        let why = "deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets";
        vec![format!("metadata.annotations[{ENFORCE_MOUNTABLE}]: {why}")]
    }

    fn prepare_update(&self, account: &mut Value, _old: &Value, _context: &WriteContext) {
        names_alone(account);
    }
}

/// Of its secrets only the names count (core/serviceaccount `cleanSecretReferences`).
fn names_alone(account: &mut Value) {
    if items(account, "secrets").is_empty() {
        return;
    }
    let names: Vec<Value> = items_mut(account, "secrets").map(|secret| json!({"name": text(secret, "name")})).collect();
    set(account, "secrets", names);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_names() {
        let mut account = json!({"secrets": [{"name": "a", "namespace": "b", "uid": "c"}, {"kind": "Secret"}], "imagePullSecrets": [{"name": "p"}]});
        names_alone(&mut account);
        assert_eq!(account, json!({"secrets": [{"name": "a"}, {"name": ""}], "imagePullSecrets": [{"name": "p"}]}));
    }
}
