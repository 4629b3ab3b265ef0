//! Each cluster IP of a Service has an IPAddress that says so, whatever is done to it.

use crate::harness::{Client, Harness, LIMIT};
use coracle_api::clock::SystemClock;
use coracle_apiserver::store::embedded::Embedded;
use coracle_apiserver::store::{Op, Store, Txn};
use http::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Instant;

const SERVICES: &str = "/api/v1/namespaces/default/services";
const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";
const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/default/events";

async fn until(client: &Client, path: &str, is: impl Fn(StatusCode, &Value) -> bool) -> Value {
    let deadline = Instant::now() + LIMIT;
    loop {
        let (code, found) = client.get(path).await;
        if is(code, &found) {
            return found;
        }
        assert!(Instant::now() < deadline, "{path}: {code} {found}");
        tokio::task::yield_now().await;
    }
}

/// Waits until somebody is told this of an object.
async fn told(client: &Client, name: &str, reason: &str, note: &str) {
    let is_it = |event: &Value| {
        event["regarding"]["name"] == name
            && event["reason"] == reason
            && event["note"] == note
            && event["reportingController"] == "ipallocator-repair-controller"
    };
    until(client, EVENTS, |_, found| found["items"].as_array().is_some_and(|all| all.iter().any(is_it))).await;
}

/// Writes a record behind the server's back, as a server before it may have.
async fn put(store: &dyn Store, key: &str, object: &Value) {
    let txn = Txn { compare: Vec::new(), ops: vec![Op::put(key, object.to_string())] };
    store.txn(txn).await.unwrap();
}

fn address(ip: &str, service: &str) -> Value {
    json!({"kind": "IPAddress", "apiVersion": "networking.k8s.io/v1",
        "metadata": {"name": ip, "uid": format!("u-{service}"), "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io", "ipaddress.kubernetes.io/ip-family": "IPv4"}},
        "spec": {"parentRef": {"resource": "services", "namespace": "default", "name": service}}})
}

#[tokio::test]
async fn addresses_are_made_again_and_told_of() {
    let store: Arc<dyn Store> = Arc::new(Embedded::in_memory(Arc::new(SystemClock::new())).unwrap());
    let harness = Harness::on(store.clone()).await;
    let client = harness.admin();
    let service = json!({"metadata": {"name": "a"}, "spec": {"clusterIP": "10.96.7.7", "ports": [{"port": 80}]}});
    let (code, made) = client.post(SERVICES, &service).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    let own = format!("{ADDRESSES}/10.96.7.7");
    let is_of = |name: &'static str| move |_, found: &Value| found["spec"]["parentRef"]["name"] == name;

    let (_, before) = client.get(&own).await;
    assert_eq!(client.delete(&own).await.0, StatusCode::OK);
    let after = until(&client, &own, is_of("a")).await;
    assert_ne!(after["metadata"]["uid"], before["metadata"]["uid"]);
    assert_eq!(after["metadata"]["labels"], before["metadata"]["labels"]);
    told(&client, "a", "ClusterIPNotAllocated", "Cluster IP [IPv4]: 10.96.7.7 is not allocated; repairing").await;

    // One that names a Service which is not there.
    put(&*store, "/registry/ipaddresses/10.96.7.7", &address("10.96.7.7", "none")).await;
    let why = "the ClusterIP [IPv4]: 10.96.7.7 for Service default/a has a wrong reference; repairing";
    told(&client, "a", "ClusterIPNotAllocated", why).await;
    until(&client, &own, is_of("a")).await;

    // A second Service with the address: it is told, and does not take the address with it.
    let second = |name: &str, ip: &str| {
        let mut second = made.clone();
        second["metadata"]["name"] = name.into();
        second["metadata"]["uid"] = format!("u-{name}").into();
        (second["spec"]["clusterIP"], second["spec"]["clusterIPs"]) = (ip.into(), json!([ip]));
        second
    };
    put(&*store, "/registry/services/default/b", &second("b", "10.96.7.7")).await;
    let why = "Cluster IP [IPv4]:10.96.7.7 was assigned to multiple services; please recreate service";
    told(&client, "b", "ClusterIPAlreadyAllocated", why).await;
    let (_, before) = client.get(&own).await;
    let (code, answer) = client.delete(&format!("{SERVICES}/b")).await;
    assert_eq!(code, StatusCode::OK, "{answer}");
    assert_eq!(client.get(&own).await.1, before);

    put(&*store, "/registry/services/default/c", &second("c", "10.200.0.1")).await;
    let why = "Cluster IP [IPv4]: 10.200.0.1 is not within any configured Service CIDR; please recreate service";
    told(&client, "c", "ClusterIPOutOfRange", why).await;

    // What a Service does not have, and what nobody is there for, goes.
    put(&*store, "/registry/ipaddresses/10.96.7.8", &address("10.96.7.8", "a")).await;
    let why = "IPAddress: 10.96.7.8 for Service default/a has a wrong reference; cleaning up";
    told(&client, "10.96.7.8", "IPAddressWrongReference", why).await;
    until(&client, &format!("{ADDRESSES}/10.96.7.8"), |code, _| code == StatusCode::NOT_FOUND).await;
    put(&*store, "/registry/ipaddresses/10.96.7.9", &address("10.96.7.9", "none")).await;
    let why = "IPAddress: 10.96.7.9 for Service default/none appears to have leaked: cleaning up";
    told(&client, "10.96.7.9", "IPAddressNotAllocated", why).await;
    until(&client, &format!("{ADDRESSES}/10.96.7.9"), |code, _| code == StatusCode::NOT_FOUND).await;

    // The Service takes its own with it, and it stays gone.
    assert_eq!(client.delete(&format!("{SERVICES}/a")).await.0, StatusCode::OK);
    assert_eq!(client.get(&own).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_first_node_ports_are_kept_for_who_asks() {
    let store: Arc<dyn Store> = Arc::new(Embedded::in_memory(Arc::new(SystemClock::new())).unwrap());
    let harness = Harness::with(store, |config, _| config.node_port_range = 30000..=30031).await;
    let client = harness.admin();
    for nth in 0..32 {
        let service =
            json!({"metadata": {"name": format!("s{nth}")}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}});
        let (code, made) = client.post(SERVICES, &service).await;
        assert_eq!(code, StatusCode::CREATED, "{made}");
        let port = made["spec"]["ports"][0]["nodePort"].as_i64().unwrap();
        assert_eq!(port >= 30016, nth < 16, "the {nth}th is {port}");
    }
}
