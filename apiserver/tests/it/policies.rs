//! Expressions of policies, webhooks and selectors, as a server judges them.

use crate::harness::Harness;
use http::StatusCode;
use serde_json::{Value, json};

const ADMISSION: &str = "/apis/admissionregistration.k8s.io/v1";

fn message(answer: &Value) -> &str {
    answer["message"].as_str().unwrap_or_default()
}

fn about_everything(mut spec: Value) -> Value {
    let rule = json!({"operations": ["CREATE"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]});
    spec["matchConstraints"] = json!({"resourceRules": [rule]});
    spec["reinvocationPolicy"] = json!("Never");
    spec
}

#[tokio::test]
async fn policies_fit_what_they_are_given() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let path = format!("{ADMISSION}/validatingadmissionpolicies");
    let policy = |expression: &str| {
        let variables = json!([{"name": "few", "expression": "object.spec.replicas <= 5"}]);
        let spec = json!({"variables": variables, "validations": [{"expression": expression}]});
        json!({"metadata": {"name": "p"}, "spec": about_everything(spec)})
    };
    let start = "ValidatingAdmissionPolicy.admissionregistration.k8s.io \"p\" is invalid: spec.validations[0].expression: Invalid value: ";
    for (expression, why) in [
        ("variables.many", "\"variables.many\": compilation failed: ERROR: <input>:1:10: undefined field 'many'"),
        ("objekt.a == 1", "undeclared reference to 'objekt' (in container '')"),
        ("object.spec.paused", "\"object.spec.paused\": must evaluate to bool but got dyn"),
        ("params.a == 1", "undeclared reference to 'params' (in container '')"),
    ] {
        let (code, answer) = client.post(&path, &policy(expression)).await;
        assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
        assert!(message(&answer).starts_with(start) && message(&answer).contains(why), "{answer}");
    }
    let good = policy("variables.few || authorizer.requestResource.check('scale').allowed()");
    let (code, made) = client.post(&path, &good).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    let (code, answer) =
        client.merge(&format!("{path}/p"), &json!({"spec": {"validations": [{"expression": "1"}]}})).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
    assert_eq!(message(&answer), format!("{start}\"1\": must evaluate to bool but got int"));
}

#[tokio::test]
async fn changes_are_objects_or_patches() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let path = format!("{ADMISSION}/mutatingadmissionpolicies");
    let policy = |expression: &str| {
        let mutation = json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}});
        json!({"metadata": {"name": "p"}, "spec": about_everything(json!({"mutations": [mutation]}))})
    };
    let (code, answer) = client.post(&path, &policy("{'spec': {}}")).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
    assert!(message(&answer).ends_with("must evaluate to Object but got map(string, map(dyn, dyn))"), "{answer}");
    let (code, made) = client.post(&path, &policy("Object{spec: Object.spec{replicas: 1}}")).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
}

#[tokio::test]
async fn webhooks_are_asked_on_conditions_that_are_true_or_false() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let path = format!("{ADMISSION}/validatingwebhookconfigurations");
    let hook = |expression: &str| {
        let hook = json!({"name": "a.b.c", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"url": "https://a/b"}, "matchConditions": [{"name": "m", "expression": expression}]});
        json!({"metadata": {"name": "w"}, "webhooks": [hook]})
    };
    let (code, answer) = client.post(&path, &hook("request.name")).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
    let why = "ValidatingWebhookConfiguration.admissionregistration.k8s.io \"w\" is invalid: webhooks[0].matchConditions[0].expression: Invalid value: \"request.name\": must evaluate to bool but got string";
    assert_eq!(message(&answer), why);
    let (code, made) = client.post(&path, &hook("request.name != 'a' && has(object.metadata)")).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
}

#[tokio::test]
async fn selectors_fit_devices() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let path = "/apis/resource.k8s.io/v1/deviceclasses";
    let class = |expression: &str| json!({"metadata": {"name": "c"}, "spec": {"selectors": [{"cel": {"expression": expression}}]}});
    let at = "DeviceClass.resource.k8s.io \"c\" is invalid: spec.selectors[0].cel.expression: ";
    let deep = "device.attributes.all(a, device.attributes.all(b, device.attributes.all(c, device.attributes.all(d, a == b))))";
    for (expression, why) in [
        ("device.driver", "Invalid value: \"device.driver\": must evaluate to bool or the unknown type, not string"),
        (deep, "Forbidden: too complex, exceeds cost limit"),
    ] {
        let (code, answer) = client.post(path, &class(expression)).await;
        assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
        assert_eq!(message(&answer), format!("{at}{why}"));
    }
    let good = class("device.driver == 'd.e' && device.attributes['d.e'].model == 'm'");
    let (code, made) = client.post(path, &good).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
}

/// What many broken expressions cost is told of in time, and of each of them.
#[tokio::test]
async fn many_broken_expressions_are_told_of() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let validations: Vec<Value> = (0..1000).map(|nth| json!({"expression": format!("(a{nth}")})).collect();
    let policy = json!({"metadata": {"name": "p"}, "spec": about_everything(json!({"validations": validations}))});
    let (code, answer) = client.post(&format!("{ADMISSION}/validatingadmissionpolicies"), &policy).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
    let causes = answer["details"]["causes"].as_array().unwrap();
    assert_eq!(causes.len(), 1000);
    assert!(causes.iter().all(|cause| cause["message"].as_str().unwrap().contains("Syntax error: ")));
}
