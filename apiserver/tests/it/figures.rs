//! The figures of /metrics, by what they count.

use crate::harness::{Client, Harness, LIMIT, Served};
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
