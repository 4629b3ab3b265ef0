//! What clients should not send: each gets a Status with upstream's code.

use crate::harness::{Client, Harness, pod};
use axum::body::Body;
use coracle_api::clock::SystemClock;
use coracle_apiserver::store::Store;
use coracle_apiserver::store::embedded::Embedded;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::sync::Arc;
use tower::ServiceExt;

const PODS: &str = "/api/v1/namespaces/default/pods";
const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// Sends bytes, and gives code and Status.
async fn send(client: &Client, method: Method, path: &str, kind: &str, body: Vec<u8>) -> (u16, Value) {
    let (code, status) = client.send(method, path, kind, body).await;
    assert_eq!(status["kind"], "Status", "{path}: {status}");
    (code.as_u16(), status)
}

#[tokio::test]
async fn bodies() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let bomb = {
        let mut text = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for nth in 1..12 {
            let before = format!("*a{}", nth - 1);
            text += &format!("a{nth}: &a{nth} [{}]\n", [before.as_str(); 10].join(","));
        }
        text
    };
    let mut huge = b"{\"a\":\"".to_vec();
    huge.resize((3 << 20) + 1, b'x');
    let rows: Vec<(&str, Vec<u8>, u16)> = vec![
        (JSON, Vec::new(), 400),
        (JSON, b"null".to_vec(), 422),
        (JSON, b"[]".to_vec(), 400),
        (JSON, b"\xff\xfe{}".to_vec(), 400),
        (JSON, b"{\"metadata\":{\"name\":\"\xff\"}}".to_vec(), 422),
        (JSON, huge, 413),
        (JSON, format!("{{\"spec\":{}1{}}}", "[".repeat(9999), "]".repeat(9999)).into_bytes(), 400),
        (JSON, format!("{{\"a\":{}1{}}}", "{\"a\":".repeat(9999), "}".repeat(9999)).into_bytes(), 422),
        (YAML, bomb.into_bytes(), 400),
        (YAML, b"a: [".to_vec(), 400),
        (YAML, b"\xff".to_vec(), 400),
        (YAML, "- ".repeat(20_000).into_bytes(), 400),
        (PROTOBUF, b"k8s\0\xff\xff".to_vec(), 400),
        (PROTOBUF, b"{}".to_vec(), 400),
        (PROTOBUF, b"k8s\0\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01".to_vec(), 400),
        ("application/cbor", b"{}".to_vec(), 415),
        ("text/html; charset=x", b"{}".to_vec(), 415),
        (JSON, b"{\"apiVersion\":\"apps/v1\",\"kind\":\"Pod\"}".to_vec(), 400),
        (JSON, b"{\"apiVersion\":\"v1\",\"kind\":\"Secret\"}".to_vec(), 400),
        (JSON, b"{\"apiVersion\":1,\"kind\":\"Pod\"}".to_vec(), 400),
    ];
    for (nth, (kind, body, code)) in rows.into_iter().enumerate() {
        let (found, status) = send(&client, Method::POST, PODS, kind, body.clone()).await;
        assert_eq!(found, code, "row {nth}: {status}");
        assert!(status["message"].as_str().is_some_and(|message| message.len() < 4096), "row {nth}: {status}");
    }
    // The server goes on.
    assert_eq!(client.post(PODS, &pod("a")).await.0, StatusCode::CREATED);
    for (kind, body, code) in [
        ("application/json-patch+json", "{}", 400),
        ("application/json-patch+json", "[{\"op\":\"remove\",\"path\":\"/nothing\"}]", 422),
        ("application/json-patch+json", "[{\"op\":\"explode\",\"path\":\"/a\"}]", 422),
        ("application/merge-patch+json", "[]", 400),
        ("application/strategic-merge-patch+json", "{\"spec\":{\"containers\":[{\"$patch\":\"explode\"}]}}", 500),
        ("application/strategic-merge-patch+json", "{\"spec\":{\"containers\":[{\"image\":\"x\"}]}}", 500),
        ("application/merge-patch+json", "{\"metadata\":{\"name\":\"b\"}}", 400),
        ("application/merge-patch+json", "{\"metadata\":{\"uid\":\"b\"}}", 422),
        ("application/json", "{}", 415),
    ] {
        let (found, status) = send(&client, Method::PATCH, &format!("{PODS}/a"), kind, body.into()).await;
        assert_eq!(found, code, "{kind} {body}: {status}");
    }
}

#[tokio::test]
async fn queries() {
    let harness = Harness::start().await;
    let client = harness.admin();
    client.post(PODS, &pod("a")).await;
    let rows = [
        ("labelSelector=a%20in%20(", 400, ""),
        ("labelSelector=!!a", 400, ""),
        ("labelSelector=-a%3Db", 400, ""),
        ("fieldSelector=a%3D%3D%3Db", 400, ""),
        ("fieldSelector=spec.colour%3Dred&labelSelector=a%3Db", 400, "field label not supported: spec.colour"),
        ("continue=x", 400, ""),
        (
            "continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MCwic3RhcnQiOiJhIn0",
            400,
            "invalid continue token: continue key is not valid: incorrect encoded start resourceVersion (version meta.k8s.io/v1)",
        ),
        (
            "continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiJhIn0&resourceVersion=5",
            400,
            "specifying resource version is not allowed when using continue",
        ),
        ("limit=many", 400, ""),
        ("resourceVersion=-1", 400, ""),
        ("resourceVersion=99999999999999999999999", 400, ""),
        ("resourceVersionMatch=Exact", 422, ""),
        ("resourceVersionMatch=Newest&resourceVersion=1", 422, ""),
        ("resourceVersionMatch=NotOlderThan&resourceVersion=1&continue=x", 422, ""),
        (
            "sendInitialEvents=true",
            422,
            "ListOptions.meta.k8s.io \"\" is invalid: sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list",
        ),
        ("watch=1&resourceVersionMatch=NotOlderThan", 422, ""),
        ("watch=1&sendInitialEvents=true", 422, ""),
        ("watch=1&sendInitialEvents=true&resourceVersionMatch=Exact&resourceVersion=1", 422, ""),
        ("watch=1&fieldSelector=spec.colour%3Dred", 400, ""),
    ];
    for (query, code, message) in rows {
        let (found, status) = send(&client, Method::GET, &format!("{PODS}?{query}"), JSON, Vec::new()).await;
        assert_eq!(found, code, "{query}: {status}");
        assert!(message.is_empty() || status["message"] == message, "{query}: {status}");
    }
    let maps = "/api/v1/configmaps?fieldSelector=data.a%3Db";
    let (_, status) = send(&client, Method::GET, maps, JSON, Vec::new()).await;
    assert!(
        status["message"]
            .as_str()
            .unwrap()
            .ends_with("\"data.a\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""),
        "{status}"
    );
    assert_eq!(client.get(&format!("{PODS}?limit=-1")).await.1["items"].as_array().unwrap().len(), 1);
}

/// A harness on a store that the test can reach.
async fn on_store() -> (Harness, Arc<dyn Store>) {
    let store: Arc<dyn Store> = Arc::new(Embedded::in_memory(Arc::new(SystemClock::new())).unwrap());
    (Harness::on(store.clone()).await, store)
}

#[tokio::test]
async fn the_past_and_the_future() {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let (harness, store) = on_store().await;
    let client = harness.admin();
    for name in ["a", "b", "c"] {
        client.post(PODS, &pod(name)).await;
    }
    let (_, list) = client.get(PODS).await;
    let now: u64 = list["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    store.compact(now).await.unwrap();
    client.post(PODS, &pod("d")).await;
    let token = URL_SAFE_NO_PAD.encode(json!({"v": "meta.k8s.io/v1", "rv": 2, "start": "default/a\u{0}"}).to_string());
    let (code, status) =
        send(&client, Method::GET, &format!("{PODS}?limit=2&continue={token}"), JSON, Vec::new()).await;
    assert_eq!((code, &status["reason"]), (410, &json!("Expired")));
    assert!(status["message"].as_str().unwrap().starts_with("The provided continue parameter is too old"), "{status}");
    let next = status["metadata"]["continue"].as_str().unwrap();
    let (_, rest) = client.get(&format!("{PODS}?limit=2&continue={next}")).await;
    let names: Vec<_> = rest["items"].as_array().unwrap().iter().map(|pod| pod["metadata"]["name"].clone()).collect();
    assert_eq!((names, &rest["metadata"]["remainingItemCount"]), (vec![json!("b"), json!("c")], &json!(1)));
    let old = format!("{PODS}?resourceVersion=2&resourceVersionMatch=Exact");
    let (code, status) = send(&client, Method::GET, &old, JSON, Vec::new()).await;
    assert_eq!((code, &status["message"]), (410, &json!("The resourceVersion for the provided list is too old.")));
    let future = format!("{PODS}?resourceVersion={}", now + 1000);
    let (code, status) = send(&client, Method::GET, &future, JSON, Vec::new()).await;
    assert_eq!(
        (code, &status["reason"], &status["details"]["causes"][0]["reason"]),
        (504, &json!("Timeout"), &json!("ResourceVersionTooLarge"))
    );
    assert!(status["message"].as_str().unwrap().starts_with("Timeout: Too large resource version"), "{status}");
    // A server that starts now does not know what was before: a watch from there says so in its first event.
    let later = Harness::on(store.clone()).await;
    let mut watch = later.admin().watch(&format!("{PODS}?watch=1&resourceVersion=1")).await;
    let frame = watch.next().await.unwrap();
    assert_eq!(
        (&frame["type"], &frame["object"]["code"], &frame["object"]["reason"]),
        (&json!("ERROR"), &json!(410), &json!("Expired")),
        "{frame}"
    );
    // A watch from the future waits for it, and sees nothing before.
    let mut watch = client.watch(&format!("{PODS}?watch=1&resourceVersion={}&timeoutSeconds=1", now + 1000)).await;
    client.post(PODS, &pod("e")).await;
    assert_eq!(watch.next().await, None);
}

#[tokio::test]
async fn a_watch_by_the_old_path() {
    let harness = Harness::start().await;
    let client = harness.admin();
    client.post(PODS, &pod("a")).await;
    let mut watch = client.watch("/api/v1/watch/namespaces/default/pods").await;
    assert_eq!(watch.seen().await, ("ADDED".into(), "a".into()));
}

#[tokio::test]
async fn an_unfinished_body_is_answered() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let broken = futures::stream::iter([Ok::<_, std::io::Error>("{"), Err(std::io::Error::other("gone"))]);
    let request = Request::post(PODS).header("content-type", JSON).body(Body::from_stream(broken)).unwrap();
    let response = client.0.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["kind"], "Status");
}
