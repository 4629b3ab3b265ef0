//! What the server answers when it gives a request up: in text, as upstream's filters before all handlers do.

use crate::harness::{Client, Harness, LIMIT};
use axum::body::Body;
use coracle_api::clock::SystemClock;
use coracle_api::names::{Names, RandomNames};
use coracle_apiserver::UserInfo;
use coracle_apiserver::store::embedded::Embedded;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::sync::Arc;
use tower::ServiceExt;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const FLOWS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";
const PLAIN: &str = "text/plain; charset=utf-8";

async fn ask(client: &Client, request: Request<Body>) -> (StatusCode, HeaderMap, String) {
    let (head, body) = client.0.clone().oneshot(request).await.unwrap().into_parts();
    let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
    (head.status, head.headers, text)
}

fn get(path: &str) -> Request<Body> {
    Request::get(path).header("accept", "application/vnd.kubernetes.protobuf").body(Body::empty()).unwrap()
}

/// Has requests of a controller manager for lists of config maps go to a level without seats, which answers as `response` says.
/// Gives the client whose requests these are.
async fn without_seats(harness: &Harness, response: Value) -> Client {
    let admin = harness.admin();
    let level = json!({"metadata": {"name": "closed"}, "spec": {"type": "Limited",
        "limited": {"nominalConcurrencyShares": 0, "limitResponse": response}}});
    assert_eq!(admin.post(&format!("{FLOWS}/prioritylevelconfigurations"), &level).await.0, StatusCode::CREATED);
    let schema = json!({"metadata": {"name": "maps"}, "spec": {"priorityLevelConfiguration": {"name": "closed"},
        "matchingPrecedence": 50, "rules": [{"subjects": [{"kind": "User", "user": {"name": "system:kube-controller-manager"}}],
            "resourceRules": [{"verbs": ["list"], "apiGroups": [""], "resources": ["configmaps"], "namespaces": ["default"]}]}]}});
    assert_eq!(admin.post(&format!("{FLOWS}/flowschemas"), &schema).await.0, StatusCode::CREATED);
    let manager = harness.user(UserInfo::new("system:kube-controller-manager", &[]));
    let takes_effect = async {
        while manager.get(&format!("{MAPS}?timeout=100ms")).await.0 == StatusCode::OK {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, takes_effect).await.expect("the schema has an effect");
    manager
}

/// apiserver `server/filters/maxinflight.go`, tooManyRequests.
#[tokio::test]
async fn who_gets_no_seat_is_told_so_in_text() {
    let harness = Harness::start().await;
    let manager = without_seats(&harness, json!({"type": "Reject"})).await;
    let (code, headers, text) = ask(&manager, get(MAPS)).await;
    assert_eq!(code, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(text, "Too many requests, please try again later.\n");
    assert_eq!(
        (&headers["content-type"], &headers["x-content-type-options"]),
        (&PLAIN.parse().unwrap(), &"nosniff".parse().unwrap())
    );
    assert!(
        headers.contains_key("retry-after") && headers.contains_key("x-kubernetes-pf-flowschema-uid"),
        "{headers:?}"
    );
}

/// apiserver `server/filters/timeout.go`: whoever notices that the time is over has no codec.
#[tokio::test]
async fn who_waits_too_long_is_told_a_status_without_a_kind() {
    let harness = Harness::start().await;
    let queue = json!({"type": "Queue", "queuing": {"queues": 1, "handSize": 1, "queueLengthLimit": 9}});
    let manager = without_seats(&harness, queue).await;
    let (code, headers, text) = ask(&manager, get(&format!("{MAPS}?timeout=50ms"))).await;
    assert_eq!(code, StatusCode::GATEWAY_TIMEOUT);
    let expected = "{\"metadata\":{},\"status\":\"Failure\",\"message\":\"Timeout: request did not complete within the allotted timeout\",\
        \"reason\":\"Timeout\",\"details\":{},\"code\":504}\n";
    assert_eq!(text, expected);
    assert_eq!(headers["content-type"], PLAIN);
    assert!(!headers.contains_key("x-kubernetes-pf-flowschema-uid"), "{headers:?}");
}

/// Names that cannot be generated.
struct NoNames;

impl Names for NoNames {
    fn suffix(&self) -> String {
        panic!("there are no names")
    }

    fn uid(&self) -> String {
        RandomNames.uid()
    }
}

/// apiserver `server/filters/wrap.go`.
#[tokio::test]
async fn a_panic_is_told_in_text_and_is_one_requests_alone() {
    let store = Arc::new(Embedded::in_memory(Arc::new(SystemClock::new())).unwrap());
    let harness = Harness::with(store, |config, _| config.names = Arc::new(NoNames)).await;
    let client = harness.admin();
    let body = json!({"metadata": {"generateName": "m-"}}).to_string();
    let request = Request::post(MAPS).header("content-type", "application/json").body(Body::from(body)).unwrap();
    let (code, headers, text) = ask(&client, request).await;
    assert_eq!(code, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(text, "This request caused apiserver to panic. Look in the logs for details.\n");
    assert_eq!(
        (&headers["content-type"], &headers["x-content-type-options"]),
        (&PLAIN.parse().unwrap(), &"nosniff".parse().unwrap())
    );
    assert_eq!(client.post(MAPS, &json!({"metadata": {"name": "m"}})).await.0, StatusCode::CREATED);
}
