//! What is the same for every kind: paths, methods, options, headers.

use crate::harness::{Client, Harness, LIMIT, Served, pod};
use axum::body::Body;
use coracle_apiserver::UserInfo;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tower::ServiceExt;

const PODS: &str = "/api/v1/namespaces/default/pods";
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

async fn ask(client: &Client, method: &str, path: &str, headers: &[(&str, &str)]) -> (StatusCode, HeaderMap, String) {
    let request = Request::builder().method(method).uri(path);
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let (head, body) = client.0.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap().into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    (head.status, head.headers, String::from_utf8_lossy(&bytes).into_owned())
}

fn message(status: &Value) -> &str {
    status["message"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn the_only_container_is_meant() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let mut object = pod("a");
    object["spec"]["initContainers"] =
        json!([{"name": "i", "image": "busybox"}, {"name": "s", "image": "busybox", "restartPolicy": "Always"}]);
    client.post(PODS, &object).await;
    // It has no node yet, which is found out after its container.
    assert_eq!(ask(&client, "GET", &format!("{PODS}/a/log"), &[]).await.0, StatusCode::NO_CONTENT);
    object["metadata"]["name"] = "b".into();
    object["spec"]["containers"] = json!([{"name": "x", "image": "busybox"}, {"name": "y", "image": "busybox"}]);
    client.post(PODS, &object).await;
    let (code, status) = client.get(&format!("{PODS}/b/log")).await;
    let expected = "a container name must be specified for pod b, choose one of: [i s x y]";
    assert_eq!((code, message(&status)), (StatusCode::BAD_REQUEST, expected));
}

#[tokio::test]
async fn what_is_put_for_something_gone() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let put = json!({"metadata": {"name": "a", "uid": "1234"}});
    let mut scale = put.clone();
    scale["spec"] = json!({"replicas": 1});
    let mut deployment = put.clone();
    deployment["spec"] = json!({"selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": pod("a")["spec"]}});
    let gone = |kind: &str, key: &str| {
        format!(
            "Operation cannot be fulfilled on {kind} \"a\": StorageError: invalid object, Code: 4, Key: /registry/{key}/default/a, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: 1234, UID in object meta: "
        )
    };
    for (path, body, expected) in [
        (format!("{CONFIG_MAPS}/a"), &put, gone("configmaps", "configmaps")),
        (format!("{DEPLOYMENTS}/a/status"), &deployment, gone("deployments.apps", "deployments")),
        (format!("{DEPLOYMENTS}/a/scale"), &scale, gone("deployments.apps", "deployments")),
        (format!("{LEASES}/a"), &put, gone("leases.coordination.k8s.io", "leases")),
    ] {
        let (code, status) = client.put(&path, body).await;
        assert_eq!((code, message(&status)), (StatusCode::CONFLICT, expected.as_str()), "{path}");
        assert_eq!(status["reason"], "Conflict");
    }
    assert_eq!(client.merge(&format!("{CONFIG_MAPS}/a"), &put).await.0, StatusCode::NOT_FOUND);
    let unknown = json!({"metadata": {"name": "a", "resourceVersion": "5"}});
    assert_eq!(client.put(&format!("{CONFIG_MAPS}/a"), &unknown).await.0, StatusCode::NOT_FOUND);
    // Where a put makes what is not there, no version hinders it.
    let (code, lease) = client.put(&format!("{LEASES}/a"), &unknown).await;
    assert_eq!(code, StatusCode::CREATED, "{lease}");
    // But who may not create cannot do so by another verb.
    let node = harness.user(UserInfo::new("system:node:n1", &["system:nodes"]));
    let events = "/api/v1/namespaces/default/events/e";
    let event = json!({"metadata": {"name": "e"}, "involvedObject": {"namespace": "default"}});
    assert_eq!(node.put(events, &event).await.0, StatusCode::CREATED);
}

#[tokio::test]
async fn an_object_that_was_read_is_not_created() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let (_, made) = client.post(CONFIG_MAPS, &json!({"metadata": {"name": "a"}})).await;
    let mut copy = made.clone();
    copy["metadata"]["name"] = "b".into();
    for path in [CONFIG_MAPS.to_owned(), format!("{CONFIG_MAPS}?dryRun=All")] {
        let (code, status) = client.post(&path, &copy).await;
        let expected = "resourceVersion should not be set on objects to be created";
        assert_eq!((code, message(&status)), (StatusCode::INTERNAL_SERVER_ERROR, expected));
        assert_eq!(status.get("reason"), None);
    }
    // Nor one of which more was said than is stored.
    let mut said = copy.clone();
    said["metadata"]["finalizers"] = json!([]);
    assert_eq!(client.post(CONFIG_MAPS, &said).await.0, StatusCode::INTERNAL_SERVER_ERROR);
    for version in ["", "0"] {
        copy["metadata"]["resourceVersion"] = version.into();
        assert_eq!(client.post(&format!("{CONFIG_MAPS}?dryRun=All"), &copy).await.0, StatusCode::CREATED);
    }
}

#[tokio::test]
async fn a_page_of_a_collection_is_deleted() {
    let harness = Harness::start().await;
    let client = harness.admin();
    for name in ["a", "b", "c", "d"] {
        client.post(CONFIG_MAPS, &json!({"metadata": {"name": name, "labels": {"x": "y"}}})).await;
    }
    let selected = format!("{CONFIG_MAPS}?labelSelector=x%3Dy");
    let names = |list: &Value| -> Vec<String> {
        let items = list["items"].as_array().unwrap().iter();
        items.map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    let (code, page) = client.delete(&format!("{selected}&limit=2")).await;
    assert_eq!((code, names(&page)), (StatusCode::OK, vec!["a".to_owned(), "b".to_owned()]));
    let token = page["metadata"]["continue"].as_str().unwrap();
    assert_eq!(names(&client.get(&selected).await.1), ["c", "d"]);
    let (code, _) = client.delete(&format!("{selected}&continue=abc")).await;
    assert_eq!((code, names(&client.get(&selected).await.1).len()), (StatusCode::BAD_REQUEST, 2));
    let (_, page) = client.delete(&format!("{selected}&limit=1&continue={token}")).await;
    assert_eq!(names(&page), ["c"]);
    let (code, page) = client.delete(&selected).await;
    assert_eq!((code, names(&page)), (StatusCode::OK, vec!["d".to_owned()]));
    assert_eq!(names(&client.get(&selected).await.1).len(), 0);
}

#[tokio::test]
async fn namespaces_go_one_by_one() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let (code, status) = client.delete("/api/v1/namespaces").await;
    let expected = "the server does not allow this method on the requested resource";
    assert_eq!((code, message(&status)), (StatusCode::METHOD_NOT_ALLOWED, expected));
    let (_, list) = client.get("/api/v1").await;
    let namespaces = list["resources"].as_array().unwrap().iter().find(|one| one["name"] == "namespaces").unwrap();
    assert_eq!(namespaces["verbs"], json!(["create", "delete", "get", "list", "patch", "update", "watch"]));
}

#[tokio::test]
async fn methods_that_a_path_does_not_take() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
    for (method, path) in
        [("GET", reviews), ("DELETE", reviews), ("HEAD", PODS), ("HEAD", "/apis"), ("HEAD", "/api/v1")]
    {
        let (code, _, text) = ask(&client, method, path, &[]).await;
        let status: Value = serde_json::from_str(&text).unwrap();
        let expected = "the server does not allow this method on the requested resource";
        assert_eq!((code, message(&status)), (StatusCode::METHOD_NOT_ALLOWED, expected), "{method} {path}");
        assert_eq!(status["details"], json!({}), "{method} {path}");
    }
    assert_eq!(ask(&client, "HEAD", &format!("{PODS}?watch=1"), &[]).await.0, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(ask(&client, "HEAD", "/healthz", &[]).await.0, StatusCode::OK);
}

#[tokio::test]
async fn what_has_a_name_is_watched_by_the_path_of_old_alone() {
    let harness = Harness::start().await;
    let client = harness.admin();
    client.post(PODS, &pod("a")).await;
    let (code, object) = client.get(&format!("{PODS}/a?watch=true")).await;
    assert_eq!((code, &object["kind"]), (StatusCode::OK, &json!("Pod")));
    let mut frames = client.watch("/api/v1/watch/namespaces/default/pods/a").await;
    assert_eq!(frames.seen().await, ("ADDED".to_owned(), "a".to_owned()));
    let mut frames = client.watch(&format!("{PODS}?a=b&watch=1")).await;
    assert_eq!(frames.seen().await, ("ADDED".to_owned(), "a".to_owned()));
}

#[tokio::test]
async fn options_count_where_the_verb_has_them() {
    let harness = Harness::start().await;
    let client = harness.admin();
    client.post(CONFIG_MAPS, &json!({"metadata": {"name": "a"}})).await;
    let one = format!("{CONFIG_MAPS}/a");
    for query in
        ["dryRun=x", "fieldValidation=x", "propagationPolicy=x", "limit=x", "labelSelector=)(", "includeObject=x"]
    {
        assert_eq!(client.get(&format!("{one}?{query}")).await.0, StatusCode::OK, "{query}");
    }
    let (code, _) = client.put(&format!("{one}?resourceVersionMatch=Exact"), &json!({"metadata": {"name": "a"}})).await;
    assert_eq!(code, StatusCode::OK);
    let (code, _) = client.post(&format!("{CONFIG_MAPS}?labelSelector=)("), &json!({"metadata": {"name": "b"}})).await;
    assert_eq!(code, StatusCode::CREATED);
    // Who may not is not told what else is wrong, nor is who asks for nothing.
    let wrong = format!("{CONFIG_MAPS}?labelSelector=)(");
    assert_eq!(client.get(&wrong).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(harness.user(UserInfo::anonymous()).get(&wrong).await.0, StatusCode::FORBIDDEN);
    assert_eq!(client.get("/api/v1/nones?labelSelector=)(").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn answers_in_the_time_that_the_client_has() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let (code, status) = client.get(&format!("{PODS}?timeout=x")).await;
    let expected = "invalid timeout specified in the request URL - time: invalid duration \"x\"";
    assert_eq!((code, message(&status)), (StatusCode::BAD_REQUEST, expected));
    for none in ["0s", "-5s", "10h", ""] {
        assert_eq!(client.get(&format!("{PODS}?timeout={none}")).await.0, StatusCode::OK, "{none}");
    }
    // A revision that does not come is waited for longer than that.
    let (code, status) = client.get(&format!("{PODS}?resourceVersion=1000000&timeout=50ms")).await;
    let expected = "Timeout: request did not complete within the allotted timeout";
    assert_eq!((code, message(&status)), (StatusCode::GATEWAY_TIMEOUT, expected));
}

#[tokio::test]
async fn dependents_that_are_to_go_make_it_an_accepted_delete() {
    let harness = Harness::start().await;
    let client = harness.admin();
    for name in ["a", "b"] {
        client.post(CONFIG_MAPS, &json!({"metadata": {"name": name, "finalizers": ["example.com/x"]}})).await;
    }
    let old = json!({"orphanDependents": false}).to_string();
    let send = |name: &str, body: String| {
        let path = format!("{CONFIG_MAPS}/{name}");
        let client = client.clone();
        async move { client.send(Method::DELETE, &path, "application/json", body).await.0 }
    };
    assert_eq!(send("a", old).await, StatusCode::ACCEPTED);
    assert_eq!(send("b", String::new()).await, StatusCode::OK);
}

#[tokio::test]
async fn evictions_are_taken_in_the_older_version() {
    let harness = Harness::start().await;
    let client = harness.admin();
    client.post(PODS, &pod("a")).await;
    let eviction = |version: &str| json!({"apiVersion": version, "kind": "Eviction", "metadata": {"name": "a"}});
    let path = format!("{PODS}/a/eviction");
    assert_eq!(client.post(&path, &eviction("policy/v1alpha1")).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(client.post(&path, &eviction("policy/v1beta1")).await.0, StatusCode::CREATED);
}

#[tokio::test]
async fn a_request_has_the_name_that_it_was_given() {
    let harness = Harness::start().await;
    let (_, headers, _) = ask(&harness.admin(), "GET", "/nope", &[("audit-id", "mine")]).await;
    assert_eq!(headers["audit-id"], "mine");
}

#[tokio::test]
async fn keys_of_tokens_are_for_everybody() {
    let harness = Harness::start().await;
    for (path, kind) in
        [("/openid/v1/jwks", "application/jwk-set+json"), ("/.well-known/openid-configuration", "application/json")]
    {
        let (code, headers, _) = ask(&harness.admin(), "GET", path, &[]).await;
        assert_eq!((code, headers["content-type"].to_str().unwrap()), (StatusCode::OK, kind));
        assert_eq!(headers["cache-control"], "public, max-age=3600");
    }
}

#[tokio::test]
async fn headers_may_be_long() {
    let served = Served::start().await;
    let tls = served.dial(b"h2", true).await;
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await;
    let (mut sender, connection) = handshake.unwrap();
    tokio::spawn(connection);
    let names: Vec<String> = (0..3000).map(|nth| format!("name-{nth}")).collect();
    let uri = format!("https://{}{PODS}?labelSelector=id%20in%20({})", served.address, names.join("%2C"));
    let request = Request::get(uri).header("x-token", "x".repeat(100_000)).body(Body::empty()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let id = response.headers()["audit-id"].to_str().unwrap();
    assert!(uuid::Uuid::parse_str(id).is_ok(), "{id}");
}

/// net/http: of HTTP/1 a head of 1 MiB and a buffer's slack, however many headers it has; of HTTP/2 a list of 1 MiB and ten
/// headers' overhead.
#[tokio::test]
async fn as_many_and_as_long_headers_as_go_takes() {
    const HEAD: usize = (1 << 20) + 4096;
    const LIST: usize = (1 << 20) + 320;
    let served = Served::start().await;
    let answer = async |head: String| {
        let mut stream = served.dial(b"http/1.1", true).await;
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut line = String::new();
        let mut reader = BufReader::new(stream);
        tokio::time::timeout(LIMIT, reader.read_line(&mut line)).await.unwrap().unwrap();
        line
    };
    let start = "GET /version HTTP/1.1\r\nHost: a\r\n".to_owned();
    let many: String = (0..4000).map(|nth| format!("x-{nth}: {nth}\r\n")).collect();
    assert_eq!(answer(format!("{start}{many}\r\n")).await, "HTTP/1.1 200 OK\r\n");
    let long = |length: usize| format!("{start}x: {}", "y".repeat(length - start.len() - 3));
    assert_eq!(answer(long(HEAD - 4) + "\r\n\r\n").await, "HTTP/1.1 200 OK\r\n");
    // All of it is read before it is refused, so that the answer is not lost with what is not.
    assert_eq!(answer(long(HEAD)).await, "HTTP/1.1 431 Request Header Fields Too Large\r\n");

    let tls = served.dial(b"h2", true).await;
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await;
    let (mut sender, connection) = handshake.unwrap();
    tokio::spawn(connection);
    let uri = format!("https://{}/version", served.address);
    let size = |name: &str, value: &str| name.len() + value.len() + 32;
    let path =
        [(":method", "GET"), (":scheme", "https"), (":authority", &served.address.to_string()), (":path", "/version")]
            .map(|(name, value)| size(name, value))
            .iter()
            .sum::<usize>();
    for (left, code) in [(1, StatusCode::OK), (0, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)] {
        let mut request = Request::get(&uri).body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap();
        let mut rest = LIST - path - left;
        let headers = (0..4000).map(|nth| format!("x-{nth}")).chain(["y".to_owned()]);
        for name in headers {
            let length = if name == "y" { rest - size(&name, "") } else { 200 };
            rest -= size(&name, "") + length;
            request
                .headers_mut()
                .insert(name.parse::<http::HeaderName>().unwrap(), "v".repeat(length).parse().unwrap());
        }
        let response = tokio::time::timeout(LIMIT, sender.send_request(request)).await.unwrap().unwrap();
        assert_eq!(response.status(), code, "{left}");
    }
}
