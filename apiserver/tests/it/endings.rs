//! What ends: namespaces that take nothing new, tokens of what goes, pods that are shown once more before they are gone.

use crate::harness::{Client, Harness, pod};
use coracle_api::clock::{ManualClock, SystemClock};
use coracle_apiserver::store::Store;
use coracle_apiserver::store::embedded::Embedded;
use http::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

fn in_memory() -> Arc<dyn Store> {
    Arc::new(Embedded::in_memory(Arc::new(SystemClock::new())).unwrap())
}

#[tokio::test]
async fn nothing_is_bound_evicted_or_given_a_token_in_a_namespace_that_ends() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let (code, _) = client.post("/api/v1/namespaces", &json!({"metadata": {"name": "n"}})).await;
    assert_eq!(code, StatusCode::CREATED);
    let (pods, accounts) = ("/api/v1/namespaces/n/pods", "/api/v1/namespaces/n/serviceaccounts");
    assert_eq!(client.post(pods, &pod("a")).await.0, StatusCode::CREATED);
    assert_eq!(client.post(accounts, &json!({"metadata": {"name": "a"}})).await.0, StatusCode::CREATED);
    assert_eq!(client.delete("/api/v1/namespaces/n").await.0, StatusCode::OK);
    let binding = json!({"metadata": {"name": "a"}, "target": {"kind": "Node", "name": "x"}});
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "a", "namespace": "n"}});
    for (path, resource, body) in [
        (format!("{pods}/a/binding"), "pods", &binding),
        ("/api/v1/namespaces/n/bindings".to_owned(), "pods", &binding),
        (format!("{pods}/a/eviction"), "pods", &eviction),
        (format!("{accounts}/a/token"), "serviceaccounts", &json!({})),
    ] {
        let (code, answer) = client.post(&path, body).await;
        let why = format!(
            "{resource} \"a\" is forbidden: unable to create new content in namespace n because it is being terminated"
        );
        assert_eq!((code, &answer["message"]), (StatusCode::FORBIDDEN, &json!(why)), "{path}");
        assert_eq!(answer["details"]["causes"][0]["reason"], "NamespaceTerminating", "{path}");
    }
    let (_, found) = client.get(&format!("{pods}/a")).await;
    assert_eq!((found["spec"].get("nodeName"), found["metadata"].get("deletionTimestamp")), (None, None), "{found}");
}

#[tokio::test]
async fn a_token_ends_a_minute_after_what_it_is_bound_to() {
    let clock = Arc::new(ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap()));
    let own = clock.clone();
    let harness = Harness::with(in_memory(), move |config, _| config.clock = own).await;
    let client = harness.admin();
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let held = json!({"metadata": {"name": "robot", "finalizers": ["example.com/held"]}});
    assert_eq!(client.post(accounts, &held).await.0, StatusCode::CREATED);
    let mut robots = pod("robot");
    robots["metadata"]["finalizers"] = held["metadata"]["finalizers"].clone();
    robots["spec"]["serviceAccountName"] = "robot".into();
    let pods = "/api/v1/namespaces/default/pods";
    assert_eq!(client.post(pods, &robots).await.0, StatusCode::CREATED);
    let token = async |spec: Value| {
        let (code, made) = client.post(&format!("{accounts}/robot/token"), &json!({"spec": spec})).await;
        assert_eq!(code, StatusCode::CREATED, "{made}");
        made["status"]["token"].as_str().unwrap().to_owned()
    };
    let of_pod = token(json!({"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "robot"}})).await;
    let of_account = token(json!({})).await;
    let is_good = async |token: &str| {
        let review = json!({"spec": {"token": token}});
        let (_, reviewed) = client.post("/apis/authentication.k8s.io/v1/tokenreviews", &review).await;
        reviewed["status"]["authenticated"] == true
    };
    assert!(is_good(&of_pod).await && is_good(&of_account).await);
    assert_eq!(client.delete(&format!("{pods}/robot")).await.0, StatusCode::OK);
    clock.advance(Duration::from_secs(60));
    assert!(is_good(&of_pod).await);
    clock.advance(Duration::from_secs(1));
    assert!(!is_good(&of_pod).await && is_good(&of_account).await);
    assert_eq!(client.delete(&format!("{accounts}/robot")).await.0, StatusCode::OK);
    assert!(is_good(&of_account).await);
    clock.advance(Duration::from_secs(61));
    assert!(!is_good(&of_account).await);
}

/// The next frame: what happened, the revision, when it was to go, its grace, its generation.
async fn frame(watch: &mut crate::harness::Frames) -> (String, u64, bool, Value, Value) {
    let frame = watch.next().await.expect("the watch goes on");
    let metadata = &frame["object"]["metadata"];
    let revision = metadata["resourceVersion"].as_str().unwrap().parse().unwrap();
    let marked = metadata["deletionTimestamp"].is_string();
    let what = frame["type"].as_str().unwrap().to_owned();
    (what, revision, marked, metadata["deletionGracePeriodSeconds"].clone(), metadata["generation"].clone())
}

/// Deletes a pod and says what a watch saw: each change with its deletionGracePeriodSeconds and generation.
async fn ends(client: &Client, path: &str, from: &str, options: &Value) -> Vec<(String, Value, Value)> {
    let mut watch = client.watch(&format!("/api/v1/namespaces/default/pods?watch=1&resourceVersion={from}")).await;
    let (code, answer) = client.send(http::Method::DELETE, path, "application/json", options.to_string()).await;
    assert_eq!(code, StatusCode::OK, "{answer}");
    let mut seen = Vec::new();
    let mut before = from.parse::<u64>().unwrap();
    loop {
        let (what, revision, marked, grace, generation) = frame(&mut watch).await;
        assert!(revision > before && marked, "{what} at {revision} after {before}");
        before = revision;
        let last = what == "DELETED";
        seen.push((what, grace, generation));
        if last {
            assert_eq!(answer["metadata"]["resourceVersion"], revision.to_string(), "{answer}");
            return seen;
        }
    }
}

#[tokio::test]
async fn a_pod_is_shown_to_go_before_it_is_gone() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let pods = "/api/v1/namespaces/default/pods";
    let row = |what: &str, grace: i64, generation: i64| (what.to_owned(), json!(grace), json!(generation));
    let version = |made: &Value| made["metadata"]["resourceVersion"].as_str().unwrap().to_owned();

    // Without a node it goes at once.
    let (_, made) = client.post(pods, &pod("a")).await;
    let seen = ends(&client, &format!("{pods}/a"), &version(&made), &json!({})).await;
    assert_eq!(seen, [row("MODIFIED", 0, 2), row("DELETED", 0, 2)]);

    // On a node it is given time, and the node says when it is gone.
    let mut placed = pod("b");
    placed["spec"]["nodeName"] = "x".into();
    assert_eq!(client.post(pods, &placed).await.0, StatusCode::CREATED);
    let (_, going) = client.delete(&format!("{pods}/b")).await;
    assert_eq!(going["metadata"]["deletionGracePeriodSeconds"], 30, "{going}");
    let seen = ends(&client, &format!("{pods}/b"), &version(&going), &json!({"gracePeriodSeconds": 0})).await;
    assert_eq!(seen, [row("MODIFIED", 0, 2), row("DELETED", 0, 2)]);

    // What waits for finalizers has been shown already.
    let mut held = pod("c");
    held["metadata"]["finalizers"] = json!(["example.com/held"]);
    assert_eq!(client.post(pods, &held).await.0, StatusCode::CREATED);
    let (_, going) = client.delete(&format!("{pods}/c")).await;
    assert_eq!(going["metadata"]["deletionGracePeriodSeconds"], 0, "{going}");
    let mut watch = client.watch(&format!("{pods}?watch=1&resourceVersion={}", version(&going))).await;
    let (code, _) = client.merge(&format!("{pods}/c"), &json!({"metadata": {"finalizers": null}})).await;
    assert_eq!(code, StatusCode::OK);
    let (what, _, marked, grace, _) = frame(&mut watch).await;
    assert_eq!((what.as_str(), marked, grace), ("DELETED", true, json!(0)));

    // Others go as they were.
    let maps = "/api/v1/namespaces/default/configmaps";
    let (_, made) = client.post(maps, &json!({"metadata": {"name": "m"}})).await;
    let mut watch = client.watch(&format!("{maps}?watch=1&resourceVersion={}", version(&made))).await;
    assert_eq!(client.delete(&format!("{maps}/m")).await.0, StatusCode::OK);
    let frame = watch.next().await.unwrap();
    assert_eq!((&frame["type"], frame["object"]["metadata"].get("deletionTimestamp")), (&json!("DELETED"), None));
}

#[tokio::test]
async fn a_namespace_that_ends_is_asked_to_in_vain() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let path = "/api/v1/namespaces/n";
    let (_, made) = client.post("/api/v1/namespaces", &json!({"metadata": {"name": "n"}})).await;
    let (uid, version) = (&made["metadata"]["uid"], &made["metadata"]["resourceVersion"]);
    for (preconditions, what, wanted, found) in
        [(json!({"uid": "x"}), "UID", "x", uid), (json!({"resourceVersion": "1"}), "ResourceVersion", "1", version)]
    {
        let options = json!({"preconditions": preconditions}).to_string();
        let (code, answer) = client.send(http::Method::DELETE, path, "application/json", options).await;
        let why = format!(
            "Operation cannot be fulfilled on namespaces \"n\": Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {}",
            found.as_str().unwrap()
        );
        assert_eq!((code, &answer["message"]), (StatusCode::CONFLICT, &json!(why)));
        assert_eq!(answer["details"]["kind"], "namespaces");
    }
    let (code, going) = client.delete(path).await;
    assert_eq!((code, &going["status"]["phase"]), (StatusCode::OK, &json!("Terminating")), "{going}");
    let options = json!({"propagationPolicy": "Orphan"}).to_string();
    let (code, again) = client.send(http::Method::DELETE, path, "application/json", options).await;
    assert_eq!((code, &again["metadata"]), (StatusCode::OK, &going["metadata"]));
}

#[tokio::test]
async fn the_first_of_the_collectors_finalizers_decides() {
    let store = in_memory();
    let map = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a", "namespace": "default", "uid": "u",
        "creationTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["foregroundDeletion", "orphan"]}});
    let op = coracle_apiserver::store::Op::put("/registry/configmaps/default/a", map.to_string());
    store.txn(coracle_apiserver::store::Txn { compare: Vec::new(), ops: vec![op] }).await.unwrap();
    let harness = Harness::on(store).await;
    let (code, going) = harness.admin().delete("/api/v1/namespaces/default/configmaps/a").await;
    assert_eq!((code, &going["metadata"]["finalizers"]), (StatusCode::OK, &json!(["foregroundDeletion"])), "{going}");
}

#[tokio::test]
async fn a_collection_is_deleted_up_to_what_cannot_be() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let classes = "/apis/scheduling.k8s.io/v1/priorityclasses";
    // Behind those of the system, which nobody deletes, and more than are deleted side by side.
    for nth in 0..400 {
        let class = json!({"metadata": {"name": format!("t{nth}")}, "value": 1});
        assert_eq!(client.post(classes, &class).await.0, StatusCode::CREATED);
    }
    let (code, answer) = client.delete(classes).await;
    assert_eq!(code, StatusCode::FORBIDDEN, "{answer}");
    let (_, left) = client.get(classes).await;
    assert!(left["items"].as_array().unwrap().len() > 100, "{}", left["items"].as_array().unwrap().len());
}
