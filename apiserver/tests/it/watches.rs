//! What watches say when they are asked for little, or for what does not fit.

use crate::harness::{Harness, pod};
use http::StatusCode;
use serde_json::json;

#[tokio::test]
async fn the_end_of_the_state_is_marked_without_being_asked_for() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let pods = "/api/v1/namespaces/default/pods";
    assert_eq!(client.post(pods, &pod("a")).await.0, StatusCode::CREATED);
    for version in ["", "&resourceVersion=0"] {
        let mut watch = client.watch(&format!("{pods}?watch=1&allowWatchBookmarks=true{version}")).await;
        assert_eq!(watch.seen().await, ("ADDED".into(), "a".into()));
        let bookmark = watch.next().await.unwrap();
        let annotations = &bookmark["object"]["metadata"]["annotations"];
        assert_eq!(
            (&bookmark["type"], &annotations["k8s.io/initial-events-end"]),
            (&json!("BOOKMARK"), &json!("true"))
        );
    }
    let mut watch = client.watch(&format!("{pods}?watch=1&timeoutSeconds=1")).await;
    assert_eq!(watch.seen().await, ("ADDED".into(), "a".into()));
    assert_eq!(watch.next().await, None, "no bookmark that nobody asked for");
}

#[tokio::test]
async fn what_does_not_fit_together() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let (_, made) = client.post("/api/v1/namespaces/default/pods", &pod("a")).await;
    let version = made["metadata"]["resourceVersion"].as_str().unwrap();
    let one = "/api/v1/watch/namespaces/default/pods/a";
    for selector in ["status.phase=Running", "metadata.name=b"] {
        let (code, answer) = client.get(&format!("{one}?fieldSelector={selector}")).await;
        let why = "fieldSelector metadata.name doesn't match requested name";
        assert_eq!((code, &answer["message"]), (StatusCode::BAD_REQUEST, &json!(why)), "{selector}");
    }
    let mut watch = client.watch(&format!("{one}?fieldSelector=metadata.name=a,status.phase=Pending")).await;
    assert_eq!(watch.seen().await, ("ADDED".into(), "a".into()));
    let mut watch =
        client.watch(&format!("{one}?fieldSelector=metadata.name=a,status.phase=Running&timeoutSeconds=1")).await;
    assert_eq!(watch.next().await, None, "what is given still selects");

    let pods = "/api/v1/namespaces/default/pods?watch=1";
    for unversioned in ["", "&resourceVersion=0"] {
        let (code, answer) = client.get(&format!("{pods}&continue=x{unversioned}")).await;
        assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
    }
    // With a version it is not looked at. And less than no time is over at once.
    let mut watch = client.watch(&format!("{pods}&continue=x&resourceVersion={version}&timeoutSeconds=-1")).await;
    assert_eq!(watch.next().await, None);
}

#[tokio::test]
async fn documents_of_the_api_are_had_in_their_forms_alone() {
    let harness = Harness::start().await;
    for path in ["/openapi/v2", "/openapi/v3/api/v1"] {
        for (accept, code) in [("text/html", 406), ("text/html, */*;q=0.8", 200), ("application/json", 200), ("", 200)]
        {
            let request = http::Request::get(path).header("accept", accept).body(axum::body::Body::empty()).unwrap();
            let response = tower::ServiceExt::oneshot(harness.admin().0, request).await.unwrap();
            assert_eq!(response.status(), code, "{path} as {accept:?}");
        }
    }
}
