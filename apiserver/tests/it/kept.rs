//! What every cluster has comes back when it is deleted, and is written once.

use crate::harness::{Client, Harness, LIMIT};
use coracle_api::clock::SystemClock;
use coracle_apiserver::store::Store;
use coracle_apiserver::store::embedded::Embedded;
use http::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Instant;

const SERVICE: &str = "/api/v1/namespaces/default/services/kubernetes";
const ENDPOINTS: &str = "/api/v1/namespaces/default/endpoints/kubernetes";
const SLICE: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes";
const RANGE: &str = "/apis/networking.k8s.io/v1/servicecidrs/kubernetes";

/// Reads an object until it is as it should be.
async fn until(client: &Client, path: &str, is: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + LIMIT;
    loop {
        let (code, found) = client.get(path).await;
        if code == StatusCode::OK && is(&found) {
            return found;
        }
        assert!(Instant::now() < deadline, "{path}: {code} {found}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_is_deleted_comes_back() {
    let harness = Harness::start().await;
    let client = harness.admin();
    for path in [
        SERVICE,
        ENDPOINTS,
        SLICE,
        RANGE,
        "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication",
        "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas/kube-scheduler",
        "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations/workload-high",
    ] {
        let (code, before) = client.get(path).await;
        assert_eq!(code, StatusCode::OK, "{path}: {before}");
        let (code, answer) = client.delete(path).await;
        assert_eq!(code, StatusCode::OK, "{path}: {answer}");
        let after = until(&client, path, |found| found["metadata"]["uid"] != before["metadata"]["uid"]).await;
        for field in ["spec", "subsets", "endpoints", "ports", "data"] {
            assert_eq!(after[field], before[field], "{path}");
        }
    }
    let lease = "/api/v1/namespaces/kube-node-lease";
    let (_, before) = client.get(lease).await;
    client.delete(lease).await;
    let (_, mut ending) = client.get(lease).await;
    ending["spec"]["finalizers"] = json!([]);
    let (code, answer) = client.put(&format!("{lease}/finalize"), &ending).await;
    assert_eq!(code, StatusCode::OK, "{answer}");
    until(&client, lease, |found| found["metadata"]["uid"] != before["metadata"]["uid"]).await;
}

#[tokio::test]
async fn who_serves_is_told_whatever_others_write() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let (_, before) = client.get(ENDPOINTS).await;
    let subsets = json!([{"addresses": [{"ip": "10.1.2.3"}], "ports": [{"port": 1}]}]);
    let (code, answer) = client.merge(ENDPOINTS, &json!({"subsets": subsets})).await;
    assert_eq!((code, &answer["subsets"][0]["ports"][0]["port"]), (StatusCode::OK, &json!(1)), "{answer}");
    until(&client, ENDPOINTS, |found| found["subsets"] == before["subsets"]).await;
    let (_, before) = client.get(SLICE).await;
    let (code, answer) = client.merge(SLICE, &json!({"endpoints": []})).await;
    assert_eq!(code, StatusCode::OK, "{answer}");
    until(&client, SLICE, |found| found["endpoints"] == before["endpoints"]).await;
    // The Service is its users', once it is there.
    let labels = json!({"metadata": {"labels": {"provider": "me"}}});
    assert_eq!(client.merge(SERVICE, &labels).await.0, StatusCode::OK);
    let (_, range) = client.get(RANGE).await;
    let ready = &range["status"]["conditions"][0];
    assert_eq!((&ready["type"], &ready["status"]), (&json!("Ready"), &json!("True")), "{range}");
    assert_eq!(range["spec"]["cidrs"], json!(["10.96.0.0/16"]));
}

#[tokio::test]
async fn flow_schemas_are_brought_up_to_date_unless_taken_over() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let schema = |name: &str| format!("/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas/{name}");
    let annotated = |says: Value, precedence: u32| {
        let annotations = json!({"apf.kubernetes.io/autoupdate-spec": says});
        json!({"metadata": {"annotations": annotations}, "spec": {"matchingPrecedence": precedence}})
    };
    // Somebody's, and said to be.
    let path = schema("service-accounts");
    assert_eq!(client.merge(&path, &annotated("false".into(), 8000)).await.0, StatusCode::OK);
    // Changed, and not said whose.
    let path = schema("global-default");
    assert_eq!(client.merge(&path, &annotated(Value::Null, 9800)).await.0, StatusCode::OK);
    let is = |says: &'static str, precedence: u32| {
        move |found: &Value| {
            found["metadata"]["annotations"]["apf.kubernetes.io/autoupdate-spec"] == says
                && found["spec"]["matchingPrecedence"] == precedence
        }
    };
    until(&client, &path, is("false", 9800)).await;
    // Changed, and still the server's.
    let path = schema("system-nodes");
    assert_eq!(client.merge(&path, &json!({"spec": {"matchingPrecedence": 600}})).await.0, StatusCode::OK);
    until(&client, &path, is("true", 500)).await;
    // Nobody takes over what every server needs.
    let path = schema("catch-all");
    assert_eq!(client.merge(&path, &annotated("false".into(), 10_000)).await.0, StatusCode::OK);
    until(&client, &path, is("true", 10_000)).await;
    until(&client, &schema("service-accounts"), is("false", 8000)).await;
    // One that an older server had goes, one of a user stays.
    let schemas = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas";
    let (_, mut own) = client.get(&schema("probes")).await;
    for (name, says) in [("of-a-user", "false"), ("of-an-older-server", "true")] {
        own["metadata"] = json!({"name": name, "annotations": {"apf.kubernetes.io/autoupdate-spec": says}});
        let (code, answer) = client.post(schemas, &own).await;
        assert_eq!(code, StatusCode::CREATED, "{answer}");
    }
    assert_eq!(client.delete(&schema("probes")).await.0, StatusCode::OK);
    until(&client, &schema("probes"), is("true", 2)).await;
    let deadline = Instant::now() + LIMIT;
    while client.get(&schema("of-an-older-server")).await.0 != StatusCode::NOT_FOUND {
        assert!(Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
    assert_eq!(client.get(&schema("of-a-user")).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_server_is_known_by_a_lease_and_removes_those_of_servers_that_are_gone() {
    let store: Arc<dyn Store> = Arc::new(Embedded::in_memory(Arc::new(SystemClock::new())).unwrap());
    let harness = Harness::on(store.clone()).await;
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";
    let selected = format!("{leases}?labelSelector=apiserver.kubernetes.io%2Fidentity%3Dkube-apiserver");
    let found = until(&harness.admin(), &selected, |found| found["items"][0].is_object()).await;
    let lease = &found["items"][0];
    assert!(lease["metadata"]["name"].as_str().unwrap().starts_with("apiserver-"), "{lease}");
    assert!(lease["metadata"]["labels"]["kubernetes.io/hostname"].is_string(), "{lease}");
    assert_eq!(lease["spec"]["leaseDurationSeconds"], 3600);
    let mut gone = lease.clone();
    gone["metadata"] = json!({"name": "apiserver-gone", "labels": lease["metadata"]["labels"]});
    gone["spec"]["renewTime"] = "2020-01-01T00:00:00.000000Z".into();
    let mut other = gone.clone();
    other["metadata"] = json!({"name": "of-another-component"});
    for lease in [&gone, &other] {
        let (code, answer) = harness.admin().post(leases, lease).await;
        assert_eq!(code, StatusCode::CREATED, "{answer}");
    }
    harness.server.stop().await;
    let again = Harness::with(store, |config, _| config.ca_pem = harness.authority.cert_pem().to_owned()).await;
    let client = again.admin();
    let renewed =
        until(&client, &selected, |found| found["items"].as_array().is_some_and(|items| items.len() == 1)).await;
    assert_eq!(renewed["items"][0]["metadata"]["uid"], lease["metadata"]["uid"]);
    assert_eq!(client.get(&format!("{leases}/of-another-component")).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_server_that_starts_again_writes_nothing_anew() {
    let store: Arc<dyn Store> = Arc::new(Embedded::in_memory(Arc::new(SystemClock::new())).unwrap());
    let harness = Harness::on(store.clone()).await;
    let client = harness.admin();
    let mut before = Vec::new();
    for path in [SERVICE, ENDPOINTS, SLICE, RANGE] {
        before.push(client.get(path).await.1);
    }
    harness.server.stop().await;
    let again = Harness::with(store, |config, _| config.ca_pem = harness.authority.cert_pem().to_owned()).await;
    for (path, before) in [SERVICE, ENDPOINTS, SLICE, RANGE].into_iter().zip(before) {
        assert_eq!(again.admin().get(path).await.1, before, "{path}");
    }
}
