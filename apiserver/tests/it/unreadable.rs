//! Records that are no objects: who asks for them is told what is wrong, and all else goes on.

use crate::harness::{Client, Harness};
use coracle_api::clock::SystemClock;
use coracle_apiserver::store::embedded::Embedded;
use coracle_apiserver::store::{Op, Store, Txn};
use http::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn put(store: &dyn Store, name: &str, record: &[u8]) {
    let key: Arc<str> = format!("/registry/configmaps/default/{name}").into();
    store.txn(Txn { compare: Vec::new(), ops: vec![Op::put(key, record.to_vec())] }).await.unwrap();
}

async fn told(client: &Client, method: http::Method, path: &str, body: Value) -> String {
    let kind = if method == http::Method::PATCH { "application/merge-patch+json" } else { "application/json" };
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let (code, status) = client.send(method.clone(), path, kind, body).await;
    assert_eq!(
        (code, &status["kind"]),
        (StatusCode::INTERNAL_SERVER_ERROR, &json!("Status")),
        "{method} {path}: {status}"
    );
    status["message"].as_str().unwrap().to_owned()
}

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}})
}

#[tokio::test]
async fn records_that_are_broken_at_the_start() {
    let store: Arc<dyn Store> = Arc::new(Embedded::in_memory(Arc::new(SystemClock::new())).unwrap());
    let head = "{\"kind\":\"ConfigMap\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"";
    let rest = "\",\"namespace\":\"default\"},\"data\":";
    put(&*store, "number", format!("{head}number{rest}{{\"n\":1.2.3}}}}").as_bytes()).await;
    put(&*store, "short", format!("{head}short{rest}{{\"n\":").as_bytes()).await;
    put(&*store, "text", &[format!("{head}text{rest}{{\"n\":\"").as_bytes(), b"\xff\"}}"].concat()).await;
    put(&*store, "junk", b"\0\x01").await;
    let harness = Harness::on(store).await;
    let client = harness.admin();
    for name in ["number", "short", "text", "junk"] {
        let path = format!("{MAPS}/{name}");
        let about = format!("Internal error occurred: the stored object \"default/{name}\" cannot be read: ");
        for (method, body) in [
            (http::Method::GET, Value::Null),
            (http::Method::PUT, map(name)),
            (http::Method::PATCH, json!({"data": {"a": "b"}})),
            (http::Method::DELETE, Value::Null),
        ] {
            let message = told(&client, method, &path, body).await;
            assert!(message.starts_with(&about), "{message}");
        }
        assert_eq!(client.post(MAPS, &map(name)).await.0, StatusCode::CONFLICT);
    }
    for path in [MAPS, "/api/v1/configmaps", "/api/v1/configmaps?limit=1"] {
        told(&client, http::Method::GET, path, Value::Null).await;
    }
    told(&client, http::Method::DELETE, MAPS, Value::Null).await;
    // What they are not in goes on.
    assert_eq!(client.get("/api/v1/namespaces/kube-system/configmaps").await.0, StatusCode::OK);
    assert_eq!(client.post(MAPS, &map("whole")).await.0, StatusCode::CREATED);
    assert_eq!(client.get(&format!("{MAPS}/whole")).await.0, StatusCode::OK);
    // They can be removed, when that is what is asked for.
    let options =
        json!({"apiVersion": "v1", "kind": "DeleteOptions", "ignoreStoreReadErrorWithClusterBreakingPotential": true});
    for name in ["number", "short", "text", "junk"] {
        let path = format!("{MAPS}/{name}");
        let (code, status) = client.send(http::Method::DELETE, &path, "application/json", options.to_string()).await;
        assert_eq!((code, &status["status"]), (StatusCode::OK, &json!("Success")));
        assert_eq!(client.get(&path).await.0, StatusCode::NOT_FOUND);
    }
    assert_eq!(client.get(MAPS).await.0, StatusCode::OK);
    assert_eq!(client.post(MAPS, &map("number")).await.0, StatusCode::CREATED);
}

#[tokio::test]
async fn a_record_that_breaks_is_not_a_deletion() {
    let store: Arc<dyn Store> = Arc::new(Embedded::in_memory(Arc::new(SystemClock::new())).unwrap());
    let harness = Harness::on(store.clone()).await;
    let client = harness.admin();
    client.post(MAPS, &map("a")).await;
    let mut watch = client.watch(&format!("{MAPS}?watch=1")).await;
    assert_eq!(watch.next().await.unwrap()["type"], "ADDED");
    put(&*store, "a", b"[]").await;
    let next = watch.next().await.unwrap();
    assert_eq!((&next["type"], &next["object"]["code"]), (&json!("ERROR"), &json!(410)), "{next}");
    told(&client, http::Method::GET, MAPS, Value::Null).await;
    // And whoever mends it has it back.
    put(&*store, "a", map("a").to_string().as_bytes()).await;
    assert_eq!(client.get(&format!("{MAPS}/a")).await.0, StatusCode::OK);
    assert_eq!(client.get(MAPS).await.0, StatusCode::OK);
}

#[tokio::test]
async fn what_cannot_be_read_goes_by_those_who_may_alone() {
    let store: Arc<dyn Store> = Arc::new(Embedded::in_memory(Arc::new(SystemClock::new())).unwrap());
    put(&*store, "junk", b"\0\x01").await;
    let harness = Harness::on(store).await;
    let client = harness.admin();
    assert_eq!(client.post(MAPS, &map("whole")).await.0, StatusCode::CREATED);
    let junk = format!("{MAPS}/junk");
    const OPTION: &str = "ignoreStoreReadErrorWithClusterBreakingPotential";
    let option = |more: Value| {
        let mut options = json!({"apiVersion": "v1", "kind": "DeleteOptions", OPTION: true});
        json_patch::merge(&mut options, &more);
        options.to_string()
    };
    let delete = async |client: &Client, path: &str, options: String| {
        let (code, answer) = client.send(http::Method::DELETE, path, "application/json", options).await;
        (code.as_u16(), answer["message"].as_str().unwrap_or_default().to_owned())
    };
    for (more, with) in [
        (json!({"dryRun": ["All"]}), "dryRun"),
        (json!({"propagationPolicy": "Orphan"}), "propagationPolicy"),
        (json!({"orphanDependents": false}), "orphanDependents"),
        (json!({"gracePeriodSeconds": 0}), "gracePeriodSeconds"),
        (json!({"preconditions": {"uid": "x"}}), "preconditions"),
    ] {
        let why = format!(
            "DeleteOptions.meta.k8s.io \"\" is invalid: {OPTION}: Invalid value: true: cannot be set together with .{with}"
        );
        assert_eq!(delete(&client, &junk, option(more)).await, (422, why));
    }
    let why = format!(
        "DeleteOptions.meta.k8s.io \"\" is invalid: {OPTION}: Invalid value: true: is not allowed with DELETECOLLECTION, try again after removing the option"
    );
    assert_eq!(delete(&client, MAPS, option(json!({}))).await, (422, why));
    let why = format!(
        "configmaps \"whole\" is invalid: {OPTION}: Invalid value: true: is exclusively used to delete corrupt object(s), try again by removing this option"
    );
    assert_eq!(delete(&client, &format!("{MAPS}/whole"), option(json!({}))).await, (422, why.clone()));
    // The address says it as well.
    let asked = format!("{MAPS}/whole?{OPTION}=true");
    assert_eq!(delete(&client, &asked, String::new()).await, (422, why));
    assert_eq!(delete(&client, &format!("{asked}&gracePeriodSeconds=0"), String::new()).await.0, 422);
    // Whoever may delete may not do this, too.
    let manager = harness.user(coracle_apiserver::UserInfo::new("system:kube-controller-manager", &[]));
    let (code, why) = delete(&manager, &junk, option(json!({}))).await;
    assert_eq!(code, 403, "{why}");
    assert!(why.contains("not permitted to do \"unsafe-delete-ignore-read-errors\", reason: "), "{why}");
    assert_eq!(delete(&client, &junk, option(json!({}))).await.0, 200);
}
