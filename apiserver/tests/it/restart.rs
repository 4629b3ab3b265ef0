//! A server that goes and comes back on the same file, and watchers that read too slowly.

use crate::harness::{Harness, pod};
use coracle_api::clock::SystemClock;
use coracle_apiserver::store::embedded::Embedded;
use http::StatusCode;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

const PODS: &str = "/api/v1/namespaces/default/pods";

/// What it has just begun is brought to its end, and does not wait for what no longer comes.
#[tokio::test]
async fn a_server_stops_that_has_just_started() {
    let harness = Harness::start().await;
    tokio::time::timeout(Duration::from_secs(4), harness.server.stop()).await.expect("less than one read may wait");
}

#[tokio::test]
async fn a_watch_goes_on_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let clock = Arc::new(SystemClock::new());
    let harness = Harness::on(Arc::new(Embedded::open(&path, clock.clone()).unwrap())).await;
    let client = harness.admin();
    client.post(PODS, &pod("a")).await;
    let (_, list) = client.get(PODS).await;
    let revision = list["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    client.merge(&format!("{PODS}/a"), &json!({"metadata": {"labels": {"color": "red"}}})).await;
    client.delete(&format!("{PODS}/a")).await;
    client.post(PODS, &pod("b")).await;
    let mut before = client.watch(&format!("{PODS}?watch=1&resourceVersion={revision}")).await;
    let mut expected = Vec::new();
    for _ in 0..4 {
        expected.push(before.next().await.unwrap());
    }
    harness.server.stop().await;
    assert_eq!(before.next().await, None, "a watch ends with the server");
    drop((client, before, harness));

    let harness = Harness::on(Arc::new(Embedded::open(&path, clock).unwrap())).await;
    let client = harness.admin();
    let mut after = client.watch(&format!("{PODS}?watch=1&resourceVersion={revision}")).await;
    for event in expected {
        assert_eq!(after.next().await.unwrap(), event);
    }
    let mut selected =
        client.watch(&format!("{PODS}?watch=1&resourceVersion={revision}&labelSelector=color%3Dred")).await;
    for kind in ["ADDED", "MODIFIED", "DELETED"] {
        assert_eq!(selected.seen().await, (kind.into(), "a".into()));
    }
    assert_eq!(client.post(PODS, &pod("c")).await.0, StatusCode::CREATED);
    assert_eq!(after.seen().await, ("ADDED".into(), "c".into()));
}

#[tokio::test]
async fn a_slow_watcher_is_told_and_slows_nobody() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let maps = "/api/v1/namespaces/default/configmaps";
    client.post(maps, &json!({"metadata": {"name": "a"}, "data": {"n": "0"}})).await;
    let mut slow = client.watch(&format!("{maps}?watch=1")).await;
    assert_eq!(slow.seen().await, ("ADDED".into(), "a".into()));
    let big = "x".repeat(512 << 10);
    for number in 1..=40 {
        let (code, _) =
            client.merge(&format!("{maps}/a"), &json!({"data": {"n": number.to_string(), "big": big}})).await;
        assert_eq!(code, StatusCode::OK);
    }
    // 20 MiB went by, more than the history holds.
    let mut last = slow.next().await.unwrap();
    while let Some(frame) = slow.next().await {
        last = frame;
    }
    assert_eq!(
        (&last["type"], &last["object"]["reason"], &last["object"]["code"]),
        (&json!("ERROR"), &json!("Expired"), &json!(410)),
        "{last}"
    );
    let mut old = client.watch(&format!("{maps}?watch=1&resourceVersion=2")).await;
    assert_eq!(old.next().await.unwrap()["object"]["reason"], "Expired");
    assert_eq!(old.next().await, None);
}

#[tokio::test]
async fn nothing_is_lost_or_doubled_under_load() {
    const WRITERS: usize = 8;
    const EACH: usize = 40;
    let harness = Harness::start().await;
    let client = harness.admin();
    let mut watch = client.watch(&format!("{PODS}?watch=1")).await;
    let tasks: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let client = client.clone();
            tokio::spawn(async move {
                for nth in 0..EACH {
                    let name = format!("p-{writer}-{nth}");
                    assert_eq!(client.post(PODS, &pod(&name)).await.0, StatusCode::CREATED);
                    assert_eq!(
                        client.get(&format!("{PODS}/{name}")).await.0,
                        StatusCode::OK,
                        "a read sees the write before it"
                    );
                    assert_eq!(client.delete(&format!("{PODS}/{name}")).await.0, StatusCode::OK);
                }
            })
        })
        .collect();
    let mut revision = 0;
    let mut alive = std::collections::HashSet::new();
    for _ in 0..WRITERS * EACH * 3 {
        let frame = watch.next().await.unwrap();
        let next: u64 = frame["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
        assert!(next > revision, "in order");
        revision = next;
        let name = frame["object"]["metadata"]["name"].as_str().unwrap().to_owned();
        match frame["type"].as_str().unwrap() {
            "ADDED" => assert!(alive.insert(name)),
            // It is shown to go before it is gone.
            "MODIFIED" => assert!(alive.contains(&name)),
            "DELETED" => assert!(alive.remove(&name)),
            other => panic!("{other}"),
        }
    }
    assert!(alive.is_empty());
    for task in tasks {
        task.await.unwrap();
    }
}
