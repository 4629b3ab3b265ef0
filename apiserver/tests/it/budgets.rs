//! Rules in CEL that cost too much, in the words of an apiextensions-apiserver of v1.36.4.

use crate::custom::{DEFINITIONS, define};
use crate::harness::Harness;
use http::StatusCode;
use serde_json::{Value, json};

const OBJECTS: &str = "/apis/example.com/v1/namespaces/default/costs";
/// Costs about seven for each pair of items.
const PAIRS: &str = "self.l.all(x, self.l.all(y, x != y + 100000))";

fn definition(rules: &Value) -> Value {
    let spec = json!({"type": "object", "x-kubernetes-validations": rules,
        "properties": {"l": {"type": "array", "maxItems": 1000, "items": {"type": "integer"}}}});
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "costs.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"plural": "costs", "singular": "cost", "kind": "Cost", "listKind": "CostList"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}}}]}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_that_costs_too_much_ends_them_all() {
    let object = "spec: Invalid value: \"object\":";
    let stopped = "'operation cancelled: actual cost limit exceeded': no further validation rules will be run due to call cost exceeds limit for rule:";
    let of_message = format!("{PAIRS} ? 'a' : 'b'");
    let message = format!(
        "{object} no further validation rules will be run due to call cost exceeds limit for messageExpression: {of_message:?}"
    );
    for (rules, wanted) in [
        (json!([{"rule": PAIRS}, {"rule": "self.l.size() < 3"}]), format!("{object} {stopped} {PAIRS}")),
        (
            json!([{"rule": "self.l.size() < 3", "message": "m"}, {"rule": PAIRS, "message": "slow", "fieldPath": ".l"}, {"rule": "false"}]),
            format!("[spec: Invalid value: m, {object} {stopped} slow]"),
        ),
        (json!([{"rule": "self.l.size() < 3", "messageExpression": of_message}, {"rule": "false"}]), message),
        // One side would have decided, but not any more.
        (json!([{"rule": format!("{PAIRS} || true")}]), format!("{object} {stopped} {PAIRS} || true")),
    ] {
        let harness = Harness::start().await;
        let client = harness.admin();
        define(&client, &definition(&rules)).await;
        let list: Vec<i64> = (0..600).collect();
        let cost =
            json!({"apiVersion": "example.com/v1", "kind": "Cost", "metadata": {"name": "a"}, "spec": {"l": list}});
        let (code, answer) = client.post(OBJECTS, &cost).await;
        let told = answer["message"].as_str().unwrap_or_default();
        assert_eq!(
            (code, told),
            (StatusCode::UNPROCESSABLE_ENTITY, &*format!("Cost.example.com \"a\" is invalid: {wanted}"))
        );
        client.delete(&format!("{DEFINITIONS}/costs.example.com")).await;
    }
}
