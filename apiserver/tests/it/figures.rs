//! The figures of /metrics, by what they count.

use crate::harness::{Client, Harness, LIMIT, Served, pod};
use axum::body::Body;
use coracle_apiserver::UserInfo;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower::ServiceExt;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A figure; zero where there is none.
async fn figure(client: &Client, name: &str) -> f64 {
    let (_, text) = client.get("/metrics").await;
    let mut lines = text.as_str().unwrap().lines();
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok()).unwrap_or(0.0)
}

async fn size(client: &Client, path: &str, accept: &str) -> usize {
    let request = Request::get(path).header("accept", accept).body(Body::empty()).unwrap();
    client.0.clone().oneshot(request).await.unwrap().into_body().collect().await.unwrap().to_bytes().len()
}

#[tokio::test]
async fn answers_to_who_reads_are_measured() {
    let harness = Harness::start().await;
    let client = harness.admin();
    for nth in 0..20 {
        let map = json!({"metadata": {"name": format!("m{nth}")}, "data": {"text": "x".repeat(17_000)}});
        assert_eq!(client.post(MAPS, &map).await.0, StatusCode::CREATED);
    }
    let labels = |verb: &str, scope: &str, subresource: &str, version: &str, resource: &str, component: &str| {
        format!(
            "{{verb=\"{verb}\",group=\"\",version=\"{version}\",resource=\"{resource}\",subresource=\"{subresource}\",scope=\"{scope}\",component=\"{component}\"}}"
        )
    };
    let mut sizes = size(&client, &format!("{MAPS}/m1"), "application/json").await;
    sizes += size(&client, &format!("{MAPS}/m2"), "application/vnd.kubernetes.protobuf").await;
    // Also what is not there.
    sizes += size(&client, &format!("{MAPS}/none"), "application/json").await;
    let of = labels("GET", "resource", "", "v1", "configmaps", "apiserver");
    assert_eq!(figure(&client, &format!("apiserver_response_sizes_sum{of}")).await, sizes as f64);
    assert_eq!(figure(&client, &format!("apiserver_response_sizes_count{of}")).await, 3.0);
    // More than one piece.
    let list = size(&client, MAPS, "application/json").await;
    assert!(list > 340_000);
    let of = labels("LIST", "namespace", "", "v1", "configmaps", "apiserver");
    assert_eq!(figure(&client, &format!("apiserver_response_sizes_sum{of}")).await, list as f64);
    let bucket = |bound: &str| format!("apiserver_response_sizes_bucket{{le=\"{bound}\",{}", &of[1..]);
    assert_eq!(figure(&client, &bucket("100000.0")).await, 0.0);
    assert_eq!(figure(&client, &bucket("1000000.0")).await, 1.0);
    let probe = size(&client, "/readyz", "*/*").await;
    let of = labels("GET", "", "/readyz", "", "", "");
    assert_eq!(figure(&client, &format!("apiserver_response_sizes_sum{of}")).await, probe as f64);
    let of = labels("POST", "namespace", "", "v1", "configmaps", "apiserver");
    assert_eq!(figure(&client, &format!("apiserver_response_sizes_count{of}")).await, 0.0, "who writes is not");
}

#[tokio::test]
async fn events_are_counted_for_each_watcher() {
    let harness = Harness::start().await;
    let client = harness.admin();
    client.post(MAPS, &json!({"metadata": {"name": "a"}})).await;
    client.get(MAPS).await;
    let (mut one, mut other) =
        (client.watch(&format!("{MAPS}?watch=1")).await, client.watch(&format!("{MAPS}?watch=1")).await);
    client.merge(&format!("{MAPS}/a"), &json!({"data": {"n": "1"}})).await;
    let mut sizes = 0;
    for watch in [&mut one, &mut other] {
        for change in ["ADDED", "MODIFIED"] {
            let frame = watch.next().await.unwrap();
            assert_eq!(frame["type"], change);
            sizes += frame["object"].to_string().len();
        }
    }
    let of = "{group=\"\",version=\"v1\",resource=\"configmaps\"}";
    assert_eq!(figure(&client, &format!("apiserver_watch_events_total{of}")).await, 4.0);
    assert_eq!(figure(&client, &format!("apiserver_watch_events_sizes_count{of}")).await, 4.0);
    assert_eq!(figure(&client, &format!("apiserver_watch_events_sizes_sum{of}")).await, sizes as f64);
}

/// apiserver `storage/etcd3/metrics`.
#[tokio::test]
async fn what_the_store_is_asked_is_counted_by_resource() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let definition = json!({"metadata": {"name": "boats.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
        "names": {"plural": "boats", "kind": "Boat"}, "versions": [{"name": "v1", "served": true, "storage": true,
            "schema": {"openAPIV3Schema": {"type": "object"}}}]}});
    client.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &definition).await;
    let boat = json!({"apiVersion": "example.com/v1", "kind": "Boat", "metadata": {"name": "b"}});
    let boats = "/apis/example.com/v1/namespaces/default/boats";
    for (group, resource, path, object, name) in [
        ("", "configmaps", MAPS, json!({"metadata": {"name": "a"}}), "a"),
        ("apps", "deployments", deployments, deployment, "d"),
        ("example.com", "boats", boats, boat, "b"),
    ] {
        let made = async {
            while client.post(path, &object).await.0 != StatusCode::CREATED {
                tokio::task::yield_now().await;
            }
        };
        let count = async |operation: &str| {
            let of = format!("{{operation=\"{operation}\",group=\"{group}\",resource=\"{resource}\"}}");
            let requests = figure(&client, &format!("etcd_requests_total{of}")).await;
            assert_eq!(figure(&client, &format!("etcd_request_duration_seconds_count{of}")).await, requests);
            requests
        };
        let before = count("create").await;
        tokio::time::timeout(LIMIT, made).await.expect("it is served");
        assert_eq!(count("create").await - before, 1.0, "{resource}");
        let before = count("update").await;
        let labels = json!({"metadata": {"labels": {"c": "d"}}});
        assert_eq!(client.merge(&format!("{path}/{name}"), &labels).await.0, StatusCode::OK);
        assert_eq!(count("update").await - before, 1.0, "{resource}");
        assert_eq!(client.delete(&format!("{path}/{name}")).await.0, StatusCode::OK);
        assert_eq!(count("delete").await, 1.0, "{resource}");
    }
}

/// apiserver `admission/metrics`.
#[tokio::test]
async fn steps_of_admission_are_timed_with_their_plugins() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let steps = "apiserver_admission_step_admission_duration_seconds_count";
    let plugins = "apiserver_admission_controller_admission_duration_seconds_count";
    let step = |operation: &str, kind: &str| {
        format!("{steps}{{operation=\"{operation}\",rejected=\"false\",type=\"{kind}\"}}")
    };
    let before = figure(&client, &step("CREATE", "validate")).await;
    client.post("/api/v1/namespaces/default/pods", &pod("a")).await;
    assert_eq!(figure(&client, &step("CREATE", "validate")).await - before, 1.0);
    for name in ["NamespaceLifecycle", "ServiceAccount", "DefaultTolerationSeconds", "Priority"] {
        let of = format!("{plugins}{{name=\"{name}\",operation=\"CREATE\",rejected=\"false\",type=\"admit\"}}");
        assert!(figure(&client, &of).await >= 1.0, "{name}");
    }
    let (code, _) = client.post("/api/v1/namespaces/none/pods", &pod("a")).await;
    assert_eq!(code, StatusCode::NOT_FOUND);
    let of = "{name=\"NamespaceLifecycle\",operation=\"CREATE\",rejected=\"true\",type=\"admit\"}";
    assert_eq!(figure(&client, &format!("{plugins}{of}")).await, 1.0);
    let of = "{operation=\"CREATE\",rejected=\"true\",type=\"admit\"}";
    assert_eq!(figure(&client, &format!("{steps}{of}")).await, 1.0);
}

#[tokio::test]
async fn the_servers_own_requests_are_counted_apart() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let own = harness.user(UserInfo::new("system:apiserver", &["system:masters"]));
    client.get(MAPS).await;
    own.get(MAPS).await;
    own.post(MAPS, &json!({"metadata": {"name": "a"}})).await;
    for verb in ["LIST", "POST"] {
        let name = format!(
            "apiserver_selfrequest_total{{verb=\"{verb}\",group=\"\",resource=\"configmaps\",subresource=\"\"}}"
        );
        assert_eq!(figure(&client, &name).await, 1.0, "{verb}");
    }
}

#[tokio::test]
async fn connections_that_are_not_agreed_on_are_counted() {
    let served = Served::start().await;
    let mut stream = tokio::net::TcpStream::connect(served.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // The server hangs up.
    let _ = tokio::time::timeout(LIMIT, stream.read_to_end(&mut answer)).await.unwrap();
    let client = served.harness.admin();
    let counted = async {
        while figure(&client, "apiserver_tls_handshake_errors_total").await != 1.0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, counted).await.expect("it is counted");
}
