//! What is counted of changes, and when an object goes: upstream's sources of v1.36 (`registry/rest`, each kind's strategy).

use crate::harness::{Client, Harness, pod};
use http::StatusCode;
use serde_json::{Value, json};

const PODS: &str = "/api/v1/namespaces/default/pods";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
const DRIVERS: &str = "/apis/storage.k8s.io/v1/csidrivers";
const EVENTS: &str = "/api/v1/namespaces/default/events";
const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";

async fn made(client: &Client, path: &str, object: &Value) -> Value {
    let (code, made) = client.post(path, object).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    made["metadata"]["generation"].clone()
}

async fn changed(client: &Client, path: &str, patch: Value) -> Value {
    let (code, now) = client.merge(path, &patch).await;
    assert_eq!(code, StatusCode::OK, "{now}");
    now["metadata"]["generation"].clone()
}

#[tokio::test]
async fn generations_that_nobody_counts_are_the_clients() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let map = |name: &str, generation: i64| json!({"metadata": {"name": name, "generation": generation}});
    assert_eq!(made(&client, MAPS, &map("a", 7)).await, 7);
    assert_eq!(made(&client, MAPS, &map("b", 0)).await, Value::Null);
    assert_eq!(
        changed(&client, &format!("{MAPS}/a"), json!({"data": {"a": "b"}, "metadata": {"generation": 9}})).await,
        7
    );
    let (code, told) = client.post(MAPS, &map("c", -1)).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
    let why = "ConfigMap \"c\" is invalid: metadata.generation: Invalid value: -1: must be greater than or equal to 0";
    assert_eq!(told["message"], why);
    let mut counted = pod("a");
    counted["metadata"]["generation"] = 7.into();
    assert_eq!(made(&client, PODS, &counted).await, 1);
}

#[tokio::test]
async fn some_kinds_count_otherwise() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let slice = json!({"metadata": {"name": "a"}, "addressType": "IPv4", "endpoints": [], "ports": []});
    assert_eq!(made(&client, SLICES, &slice).await, 1);
    let path = format!("{SLICES}/a");
    assert_eq!(changed(&client, &path, json!({"metadata": {"annotations": {"a": "b"}}})).await, 1);
    assert_eq!(changed(&client, &path, json!({"metadata": {"labels": {"a": "b"}}})).await, 2);
    assert_eq!(changed(&client, &path, json!({"ports": [{"port": 1}]})).await, 3);
    assert_eq!(made(&client, DRIVERS, &json!({"metadata": {"name": "a"}, "spec": {}})).await, Value::Null);
    let path = format!("{DRIVERS}/a");
    assert_eq!(changed(&client, &path, json!({"metadata": {"labels": {"a": "b"}}})).await, Value::Null);
    assert_eq!(changed(&client, &path, json!({"spec": {"podInfoOnMount": true}})).await, 1);
    assert_eq!(changed(&client, &path, json!({"spec": {"podInfoOnMount": false}})).await, 2);
}

#[tokio::test]
async fn a_further_delete_only_brings_the_end_forward() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let mut placed = pod("a");
    placed["spec"]["nodeName"] = "n1".into();
    placed["spec"]["terminationGracePeriodSeconds"] = 20.into();
    placed["metadata"]["finalizers"] = json!(["example.com/x"]);
    made(&client, PODS, &placed).await;
    let path = format!("{PODS}/a");
    let (_, going) = client.delete(&format!("{path}?gracePeriodSeconds=90")).await;
    let meta = |object: &Value| {
        let metadata = &object["metadata"];
        let end: jiff::Timestamp = metadata["deletionTimestamp"].as_str().unwrap().parse().unwrap();
        (end.as_second(), metadata["deletionGracePeriodSeconds"].as_i64().unwrap(), metadata["generation"].clone())
    };
    let (end, period, generation) = meta(&going);
    assert_eq!((period, &generation), (90, &json!(2)));
    // Who says nothing changes nothing, though the pod's own period is shorter; nor do finalizers change any more.
    for query in ["", "?gracePeriodSeconds=90", "?gracePeriodSeconds=100", "?propagationPolicy=Foreground"] {
        let (code, same) = client.delete(&format!("{path}{query}")).await;
        assert_eq!((code, &same["metadata"]), (StatusCode::OK, &going["metadata"]), "{query}");
    }
    let (_, sooner) = client.delete(&format!("{path}?gracePeriodSeconds=60")).await;
    assert_eq!(meta(&sooner), (end - 30, 60, json!(2)));
    // One that is done waits, too, until somebody says that it need not.
    client.merge(&format!("{path}/status"), &json!({"status": {"phase": "Succeeded"}})).await;
    let (_, same) = client.delete(&path).await;
    assert_eq!(meta(&same), (end - 30, 60, json!(2)));
    let (_, now) = client.delete(&format!("{path}?gracePeriodSeconds=0")).await;
    assert_eq!(meta(&now), (end - 90, 0, json!(2)));
    client.merge(&path, &json!({"metadata": {"finalizers": null}})).await;
    assert_eq!(client.get(&path).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn events_have_no_dependents() {
    let harness = Harness::start().await;
    let client = harness.admin();
    for (policy, finalizers) in [("Foreground", json!([])), ("Orphan", json!([])), ("Background", json!(["orphan"]))] {
        let event =
            json!({"metadata": {"name": "a", "finalizers": finalizers}, "involvedObject": {"namespace": "default"}});
        made(&client, EVENTS, &event).await;
        let path = format!("{EVENTS}/a");
        assert_eq!(client.delete(&format!("{path}?propagationPolicy={policy}")).await.0, StatusCode::OK);
        assert_eq!(client.get(&path).await.0, StatusCode::NOT_FOUND, "{policy}");
    }
}

#[tokio::test]
async fn an_address_is_not_made_up() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let parent = json!({"parentRef": {"resource": "services", "namespace": "default", "name": "a"}});
    let named = |prefix: &str| json!({"metadata": {"generateName": prefix}, "spec": parent});
    let (code, made) = client.post(ADDRESSES, &named("10.99.0.9")).await;
    assert_eq!((code, &made["metadata"]["name"]), (StatusCode::CREATED, &json!("10.99.0.9")));
    assert_eq!(client.post(ADDRESSES, &named("10.99.0.9")).await.0, StatusCode::CONFLICT);
    assert_eq!(client.post(ADDRESSES, &named("10.99.0.")).await.0, StatusCode::UNPROCESSABLE_ENTITY);
}
