//! Logs come through from a kubelet.

use crate::harness::{Harness, Served, identity, pod};
use crate::websockets::{next, open};
use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use coracle_api::clock::SystemClock;
use coracle_apiserver::store::embedded::Embedded;
use coracle_pki::{Subject, Usage};
use http::{Request, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::Message;
use tower::ServiceExt;

/// Answers one connection after the other with the path that was asked for, and the client's name.
async fn kubelet(listener: TcpListener, tls: Arc<rustls::ServerConfig>) {
    let acceptor = tokio_rustls::TlsAcceptor::from(tls);
    while let Ok((stream, _)) = listener.accept().await {
        let Ok(mut stream) = acceptor.accept(stream).await else { continue };
        let client = stream
            .get_ref()
            .1
            .peer_certificates()
            .and_then(|chain| coracle_apiserver::auth::from_certificate(&chain[0]));
        let mut head = vec![0; 4096];
        let read = stream.read(&mut head).await.unwrap();
        let line = String::from_utf8_lossy(&head[..read]).lines().next().unwrap().to_owned();
        let body = format!("{} said {line}\n", client.map_or("nobody".to_owned(), |user| user.name));
        let status = if line.contains("previous=true") { "400 Bad Request" } else { "200 OK" };
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.shutdown().await.ok();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_is_passed_on() {
    let store = Arc::new(Embedded::in_memory(Arc::new(SystemClock::new())).unwrap());
    let harness = Harness::with(store, |config, authority| {
        let subject = Subject::member("kube-apiserver-kubelet-client", "system:masters");
        let client = identity(authority, &subject, Usage::Client);
        config.kubelet_client = Some((client.cert_pem, client.key_pem));
    })
    .await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = identity(&harness.authority, &Subject::member("system:node:n1", "system:nodes"), Usage::Server);
    let tls = harness.server.tls(&serving.cert_pem, &serving.key_pem).unwrap();
    let kubelet = tokio::spawn(kubelet(listener, tls));

    let served = Served::of(harness).await;
    let client = served.harness.admin();
    let node = json!({"metadata": {"name": "n1"}, "status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}], "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}});
    client.post("/api/v1/nodes", &node).await;
    let (code, status) = client.merge("/api/v1/nodes/n1/status", &json!({"status": node["status"]})).await;
    assert_eq!(code, StatusCode::OK, "{status}");
    let pods = "/api/v1/namespaces/default/pods";
    client.post(pods, &pod("a")).await;
    assert_eq!(
        client.get(&format!("{pods}/a/log")).await,
        (StatusCode::NO_CONTENT, Value::String(String::new())),
        "not placed yet"
    );
    client.post(&format!("{pods}/a/binding"), &json!({"metadata": {"name": "a"}, "target": {"name": "n1"}})).await;
    let (code, log) = client.get(&format!("{pods}/a/log?tailLines=5&container=c&color=red")).await;
    assert_eq!(code, StatusCode::OK);
    assert_eq!(log, "kube-apiserver-kubelet-client said GET /containerLogs/default/a/c?tailLines=5 HTTP/1.1\n");
    let (code, status) = client.get(&format!("{pods}/a/log?previous=true")).await;
    assert_eq!(code, StatusCode::BAD_REQUEST);
    assert!(status["message"].as_str().unwrap().contains("said"), "{status}");
    let (code, status) = client.get(&format!("{pods}/a/log?container=x")).await;
    assert_eq!(
        (code, status["message"].as_str()),
        (StatusCode::BAD_REQUEST, Some("container x is not valid for pod a"))
    );
    // It is counted for as long as somebody has it.
    let lasting = async |count: u32| {
        let line = format!(
            "apiserver_longrunning_requests{{verb=\"CONNECT\",group=\"\",version=\"v1\",resource=\"pods\",subresource=\"log\",scope=\"resource\",component=\"apiserver\"}} {count}"
        );
        let (_, text) = client.get("/metrics").await;
        assert!(text.as_str().unwrap().lines().any(|found| found == line), "{line} in {text}");
    };
    let request = Request::get(format!("{pods}/a/log")).body(Body::empty()).unwrap();
    let held = client.0.clone().oneshot(request).await.unwrap();
    lasting(1).await;
    drop(held);
    lasting(0).await;
    // Over a WebSocket, as bytes or as text; the first message only says that it stands.
    let path = format!("{pods}/a/log?tailLines=5");
    let expected = "kube-apiserver-kubelet-client said GET /containerLogs/default/a/c?tailLines=5 HTTP/1.1\n";
    for protocol in ["", "binary.k8s.io", "base64.binary.k8s.io"] {
        let (mut socket, headers) = open(&served, &path, protocol, true).await.unwrap();
        let agreed = headers.get("sec-websocket-protocol").map(|name| name.to_str().unwrap()).unwrap_or_default();
        assert_eq!(agreed, protocol);
        assert_eq!(next(&mut socket).await, Message::Binary(Vec::new().into()));
        let mut log = Vec::new();
        loop {
            match next(&mut socket).await {
                Message::Binary(bytes) if protocol != "base64.binary.k8s.io" => log.extend_from_slice(&bytes),
                Message::Text(text) if protocol == "base64.binary.k8s.io" => {
                    log.extend(STANDARD.decode(text.as_bytes()).unwrap());
                }
                Message::Close(_) => break,
                other => panic!("{other}"),
            }
        }
        assert_eq!(String::from_utf8(log).unwrap(), expected);
    }
    assert_eq!(open(&served, &path, "unknown", true).await.err(), Some(StatusCode::FORBIDDEN));
    kubelet.abort();
}

#[tokio::test]
async fn what_cannot_be_asked_of_a_log() {
    let harness = Harness::start().await;
    let client = harness.admin();
    for (query, causes) in [
        (
            "tailLines=-1&limitBytes=0",
            &[
                ("tailLines", "Invalid value: -1: must be greater than or equal to 0"),
                ("limitBytes", "Invalid value: 0: must be greater than 0"),
            ][..],
        ),
        ("sinceSeconds=0", &[("sinceSeconds", "Invalid value: 0: must be greater than 0")]),
        (
            "sinceSeconds=0&sinceTime=2026-01-01T00:00:00Z",
            &[("[]", "Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified")],
        ),
        ("stream=Stdout", &[("stream", "Forbidden: may not be specified")]),
    ] {
        let (code, status) = client.get(&format!("/api/v1/namespaces/default/pods/p/log?{query}")).await;
        assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{query}: {status}");
        assert_eq!((&status["details"]["kind"], &status["details"]["name"]), (&json!("PodLogOptions"), &json!("p")));
        let found = status["details"]["causes"].as_array().unwrap().iter();
        let found: Vec<_> =
            found.map(|cause| (cause["field"].as_str().unwrap(), cause["message"].as_str().unwrap())).collect();
        assert_eq!(found, causes, "{query}");
    }
    for (query, why) in [
        ("tailLines=x", "strconv.ParseInt: parsing \"x\": invalid syntax"),
        ("limitBytes=", "strconv.ParseInt: parsing \"\": invalid syntax"),
        ("sinceSeconds=1.5&tailLines=x", "strconv.ParseInt: parsing \"1.5\": invalid syntax"),
        ("limitBytes=99999999999999999999", "strconv.ParseInt: parsing \"99999999999999999999\": value out of range"),
        ("sinceTime=now", "parsing time \"now\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"now\" as \"2006\""),
    ] {
        let (code, status) = client.get(&format!("/api/v1/namespaces/default/pods/p/log?{query}")).await;
        assert_eq!((code, status["message"].as_str()), (StatusCode::BAD_REQUEST, Some(why)), "{query}: {status}");
    }
}
