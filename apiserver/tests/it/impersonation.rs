//! Acting as somebody else, as `kubectl --as` does.

use crate::harness::{Client, Harness, pod};
use axum::body::Body;
use coracle_apiserver::UserInfo;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

const PODS: &str = "/api/v1/namespaces/default/pods";
const REVIEWS: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

async fn ask(client: &Client, method: &str, path: &str, headers: &[(&str, &str)], body: &Value) -> (StatusCode, Value) {
    let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
    let (head, body) = client.0.clone().oneshot(request.body(body).unwrap()).await.unwrap().into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let text = || Value::String(String::from_utf8_lossy(&bytes).into_owned());
    (head.status, serde_json::from_slice(&bytes).unwrap_or_else(|_| text()))
}

#[tokio::test]
async fn the_request_is_the_others() {
    let harness = Harness::start().await;
    let admin = harness.admin();
    admin.post(PODS, &pod("a")).await;
    let jane = [("Impersonate-User", "jane")];
    for (method, path) in [("GET", PODS.to_owned()), ("DELETE", format!("{PODS}/a")), ("GET", "/metrics".to_owned())] {
        let (code, status) = ask(&admin, method, &path, &jane, &Value::Null).await;
        assert_eq!(code, StatusCode::FORBIDDEN, "{method} {path}");
        assert!(status["message"].as_str().unwrap().contains("User \"jane\" cannot"), "{status}");
    }
    assert_eq!(admin.get(&format!("{PODS}/a")).await.0, StatusCode::OK);
    // As a node's kubelet, whose groups follow from its name.
    let node = [("Impersonate-User", "system:node:n1")];
    assert_eq!(ask(&admin, "GET", PODS, &node, &Value::Null).await.0, StatusCode::OK);

    let whole = [
        ("Impersonate-User", "jane"),
        ("Impersonate-Uid", "u1"),
        ("Impersonate-Group", "a"),
        ("Impersonate-Group", "b"),
        ("Impersonate-Extra-Acme.com%2fScopes", "view"),
        ("Impersonate-Extra-Acme.com%2fScopes", "edit"),
    ];
    let (code, review) = ask(&admin, "POST", REVIEWS, &whole, &json!({})).await;
    assert_eq!(code, StatusCode::CREATED, "{review}");
    let expected = json!({"username": "jane", "uid": "u1", "groups": ["a", "b", "system:authenticated"],
        "extra": {"acme.com/scopes": ["view", "edit"]}});
    assert_eq!(review["status"]["userInfo"], expected);
}

#[tokio::test]
async fn not_everybody_may() {
    let harness = Harness::start().await;
    for user in ["system:kube-controller-manager", "john"] {
        let client = harness.user(UserInfo::new(user, &[]));
        let (code, status) = ask(&client, "POST", REVIEWS, &[("Impersonate-User", "jane")], &json!({})).await;
        let message = format!(
            "selfsubjectreviews.authentication.k8s.io is forbidden: User \"{user}\" cannot impersonate-on:user-info:create resource \"selfsubjectreviews\" in API group \"authentication.k8s.io\" at the cluster scope"
        );
        assert_eq!((code, &status["message"]), (StatusCode::FORBIDDEN, &message.into()));
    }
    let admin = harness.admin();
    let (code, status) = ask(&admin, "GET", PODS, &[("Impersonate-Group", "g")], &Value::Null).await;
    let message = "requested &user.DefaultInfo{Name:\"\", UID:\"\", Groups:[]string{\"g\"}, Extra:map[string][]string(nil)} without impersonating a user name";
    assert_eq!((code, status["message"].as_str()), (StatusCode::BAD_REQUEST, Some(message)));
}

/// The node agent of a DaemonSet: its token is bound to its pod, and so to the node (KEP-5284, associated-node).
#[tokio::test]
async fn whoever_runs_on_a_node_may_have_the_right_to_be_that_node() {
    let harness = Harness::start().await;
    let agent = |groups: &[&str]| {
        let mut user = UserInfo::new("system:serviceaccount:default:agent", groups);
        user.extra.insert("authentication.kubernetes.io/node-name".to_owned(), vec!["n1".to_owned()]);
        harness.user(user)
    };
    let refused = async |name: &str| {
        let node = [("Impersonate-User", name)];
        let (code, status) = ask(&agent(&[]), "GET", PODS, &node, &Value::Null).await;
        assert_eq!(code, StatusCode::FORBIDDEN);
        let message = status["message"].as_str().unwrap().to_owned();
        message.split(" resource ").next().unwrap().rsplit(' ').next().unwrap().to_owned()
    };
    assert_eq!(refused("system:node:n1").await, "impersonate-on:associated-node:list");
    assert_eq!(refused("system:node:n2").await, "impersonate-on:arbitrary-node:list");
    // Who has all rights is the node, and has the groups of one.
    let node = [("Impersonate-User", "system:node:n1")];
    let (code, review) = ask(&agent(&["system:masters"]), "POST", REVIEWS, &node, &json!({})).await;
    let expected = json!({"username": "system:node:n1", "groups": ["system:nodes", "system:authenticated"]});
    assert_eq!((code, &review["status"]["userInfo"]), (StatusCode::CREATED, &expected));
}
