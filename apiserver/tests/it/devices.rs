//! Claims of devices, as a server has them.

use crate::harness::Harness;
use http::StatusCode;
use serde_json::{Value, json};

const GROUP: &str = "/apis/resource.k8s.io/v1";

fn asking(name: &str, admin: bool) -> Value {
    let other = json!({"name": "a", "firstAvailable": [{"name": "b", "deviceClassName": "c"}]});
    let exactly = json!({"deviceClassName": "c", "adminAccess": admin, "tolerations": [{"key": "k"}]});
    let spec = json!({"devices": {"requests": [other, {"name": "r", "exactly": exactly}]}});
    json!({"metadata": {"name": name}, "spec": spec})
}

fn message(answer: &Value) -> &str {
    answer["message"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn access_past_claims_is_for_labelled_namespaces() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let labelled = json!({"metadata": {"name": "admins", "labels": {"resource.kubernetes.io/admin-access": "true"}}});
    let (code, made) = client.post("/api/v1/namespaces", &labelled).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    let why = "adminAccess: Forbidden: admin access to devices requires the `resource.kubernetes.io/admin-access: true` label on the containing namespace";
    let template = json!({"metadata": {"name": "t"}, "spec": {"spec": asking("", true)["spec"]}});
    for (kind, plural, object) in [
        ("ResourceClaim", "resourceclaims", asking("t", true)),
        ("ResourceClaimTemplate", "resourceclaimtemplates", template),
    ] {
        let (code, answer) = client.post(&format!("{GROUP}/namespaces/default/{plural}"), &object).await;
        assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
        let told = format!("{kind}.resource.k8s.io \"t\" is invalid: spec.devices.requests[1].{why}");
        assert_eq!(message(&answer), told);
        let (code, made) = client.post(&format!("{GROUP}/namespaces/admins/{plural}"), &object).await;
        assert_eq!(code, StatusCode::CREATED, "{made}");
    }
    let got = |admin: bool| {
        let result = json!({"request": "r", "driver": "d.e", "pool": "p", "device": "x", "adminAccess": admin});
        json!({"status": {"allocation": {"devices": {"results": [result]}}}})
    };
    let (code, made) = client.post(&format!("{GROUP}/namespaces/default/resourceclaims"), &asking("c", false)).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    let status = |namespace: &str, name: &str| format!("{GROUP}/namespaces/{namespace}/resourceclaims/{name}/status");
    let (code, answer) = client.merge(&status("default", "c"), &got(true)).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
    assert!(message(&answer).ends_with(&format!("status.allocation.devices.results[0].{why}")), "{answer}");
    for (namespace, name, admin) in [("default", "c", false), ("admins", "t", true)] {
        let (code, answer) = client.merge(&status(namespace, name), &got(admin)).await;
        assert_eq!(code, StatusCode::OK, "{answer}");
    }
}

#[tokio::test]
async fn a_claim_gets_devices_and_gives_them_back() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let claims = format!("{GROUP}/namespaces/default/resourceclaims");
    let (code, made) = client.post(&claims, &asking("c", false)).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    let requests = &made["spec"]["devices"]["requests"];
    assert_eq!(requests[1]["exactly"]["tolerations"][0]["operator"], "Equal");
    assert_eq!(requests[0]["firstAvailable"][0]["count"], 1);
    let one = format!("{claims}/c");
    let (code, answer) = client.merge(&one, &json!({"metadata": {"labels": {"a": "b"}}})).await;
    assert_eq!(code, StatusCode::OK, "{answer}");
    let (_, answer) = client.merge(&one, &json!({"spec": {"devices": {"requests": null}}})).await;
    let fixed = r#"ResourceClaim.resource.k8s.io "c" is invalid: spec: Invalid value: {"Devices":{"Requests":null,"Constraints":null,"Config":null}}: field is immutable"#;
    assert_eq!(message(&answer), fixed);
    let device = json!({"driver": "d.e", "pool": "p", "device": "x"});
    let mut result = device.clone();
    result["request"] = json!("a/b");
    result["tolerations"] = json!([{"key": "k"}]);
    let pod = json!({"resource": "pods", "name": "p", "uid": "u"});
    let status = json!({"status": {"allocation": {"devices": {"results": [result]}}, "devices": [device], "reservedFor": [pod]}});
    let path = format!("{one}/status");
    let (code, answer) = client.merge(&path, &status).await;
    assert_eq!(code, StatusCode::OK, "{answer}");
    // The same again is no change, though it does not say what is defaulted.
    let (code, answer) = client.merge(&path, &status).await;
    assert_eq!(code, StatusCode::OK, "{answer}");
    let (code, answer) = client.merge(&path, &json!({"status": {"allocation": null, "reservedFor": null}})).await;
    assert_eq!(code, StatusCode::OK, "{answer}");
    assert_eq!(answer["status"], json!({}), "nothing is said of devices that are given back");
}

#[tokio::test]
async fn taints_of_devices_say_since_when_they_are_there() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let slices = format!("{GROUP}/resourceslices");
    let taint = json!({"key": "broken", "effect": "NoSchedule"});
    let spec = json!({"driver": "d.e", "nodeName": "n", "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1},
        "devices": [{"name": "x", "taints": [taint], "attributes": {"model": {"string": "m"}}, "capacity": {"memory": {"value": "1Gi"}}}]});
    let (code, made) = client.post(&slices, &json!({"metadata": {"name": "s"}, "spec": spec})).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    let since = |slice: &Value| slice.pointer("/spec/devices/0/taints/0/timeAdded").cloned();
    assert!(since(&made).is_some_and(|time| time.is_string()), "{made}");
    let (code, patched) = client.merge(&format!("{slices}/s"), &json!({"metadata": {"labels": {"a": "b"}}})).await;
    assert_eq!((code, since(&patched)), (StatusCode::OK, since(&made)), "{patched}");
    let (_, answer) =
        client.merge(&format!("{slices}/s"), &json!({"spec": {"nodeName": null, "allNodes": true}})).await;
    let fixed =
        "ResourceSlice.resource.k8s.io \"s\" is invalid: spec.nodeName: Invalid value: \"null\": field is immutable";
    assert_eq!(message(&answer), fixed);
}
