//! Policies of a job as upstream's messages show them: in the field names of its internal types.

use super::has;
use crate::registry::fields::{field, items, text};
use coracle_api::json::{Value, json};

/// A field as it is in Go: null when it is not given.
fn given(value: &Value, name: &str) -> Value {
    field(value, name).cloned().unwrap_or_default()
}

fn list(value: &Value, name: &str, each: impl Fn(&Value) -> Value) -> Value {
    match has(value, name) {
        true => Value::Array(items(value, name).iter().map(each).collect()),
        false => Value::Null,
    }
}

/// A pod failure policy.
pub fn pod_failure_policy(policy: &Value) -> Value {
    json!({"Rules": list(policy, "rules", |rule| {
        let codes = &rule["onExitCodes"];
        let codes = has(rule, "onExitCodes").then(|| json!({
            "ContainerName": given(codes, "containerName"),
            "Operator": text(codes, "operator"),
            "Values": given(codes, "values"),
        }));
        let conditions = list(rule, "onPodConditions", |pattern| {
            json!({"Type": text(pattern, "type"), "Status": text(pattern, "status")})
        });
        json!({"Action": text(rule, "action"), "OnExitCodes": codes, "OnPodConditions": conditions})
    })})
}

/// A success policy.
pub fn success_policy(policy: &Value) -> Value {
    json!({"Rules": list(policy, "rules", |rule| json!({
        "SucceededIndexes": given(rule, "succeededIndexes"),
        "SucceededCount": given(rule, "succeededCount"),
    }))})
}

/// Pods that ended and are not counted yet.
pub fn uncounted(pods: &Value) -> Value {
    json!({"Succeeded": given(pods, "succeeded"), "Failed": given(pods, "failed")})
}
