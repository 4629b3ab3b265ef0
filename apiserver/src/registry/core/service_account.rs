//! ServiceAccounts.

use crate::registry::fields::{items, items_mut, set, text};
use crate::registry::strategy::{Strategy, WriteContext};
use coracle_api::json::{Value, json};

/// core/v1 ServiceAccount
#[derive(Debug)]
pub struct ServiceAccountStrategy;

impl Strategy for ServiceAccountStrategy {
    fn prepare_create(&self, account: &mut Value, _context: &WriteContext) {
        names_alone(account);
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
