//! Watches over WebSockets, as a browser follows them.

use crate::harness::{LIMIT, Served, pod};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::StreamExt;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

pub type Socket = WebSocketStream<tokio_rustls::client::TlsStream<tokio::net::TcpStream>>;

const PODS: &str = "/api/v1/namespaces/default/pods";

pub async fn open(
    served: &Served,
    path: &str,
    protocols: &str,
    as_admin: bool,
) -> Result<(Socket, HeaderMap), StatusCode> {
    let mut request = format!("wss://localhost{path}").into_client_request().unwrap();
    // A page's; a log has none.
    if path.contains("watch") && !path.contains("from=nowhere") {
        request.headers_mut().insert("origin", "https://headlamp.example".parse().unwrap());
    }
    if !protocols.is_empty() {
        request.headers_mut().insert("sec-websocket-protocol", protocols.parse().unwrap());
    }
    match client_async(request, served.dial(b"http/1.1", as_admin).await).await {
        Ok((socket, response)) => Ok((socket, response.headers().clone())),
        Err(Error::Http(response)) => Err(response.status()),
        Err(error) => panic!("{path}: {error}"),
    }
}

pub async fn next(socket: &mut Socket) -> Message {
    tokio::time::timeout(LIMIT, socket.next()).await.unwrap().unwrap().unwrap()
}

async fn event(socket: &mut Socket) -> (String, String) {
    let Message::Text(text) = next(socket).await else { panic!("no text") };
    let event: Value = serde_json::from_str(&text).unwrap();
    let name = event["object"]["metadata"]["name"].as_str().unwrap_or_default();
    (event["type"].as_str().unwrap().to_owned(), name.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_is_a_message() {
    let served = Served::start().await;
    let client = served.harness.admin();
    for name in ["a", "b"] {
        client.post(PODS, &pod(name)).await;
    }
    let (mut socket, headers) = open(&served, &format!("{PODS}?watch=true"), "", true).await.unwrap();
    assert!(!headers.contains_key("sec-websocket-protocol"));
    for name in ["a", "b"] {
        assert_eq!(event(&mut socket).await, ("ADDED".to_owned(), name.to_owned()));
    }
    client.merge(&format!("{PODS}/a"), &json!({"metadata": {"labels": {"x": "y"}}})).await;
    assert_eq!(event(&mut socket).await, ("MODIFIED".to_owned(), "a".to_owned()));
    // It ends as a watch does, with a close that says that all is well.
    let (mut socket, _) = open(&served, &format!("{PODS}?watch=true&timeoutSeconds=1"), "", true).await.unwrap();
    loop {
        if let Message::Close(frame) = next(&mut socket).await {
            assert_eq!(u16::from(frame.unwrap().code), 1000);
            break;
        }
    }
    // What is refused is refused before.
    let nowhere = format!("{PODS}?watch=true&from=nowhere");
    assert_eq!(open(&served, &nowhere, "", true).await.err(), Some(StatusCode::FORBIDDEN), "it says no origin");
    assert_eq!(open(&served, "/api/v1/nones?watch=1", "", true).await.err(), Some(StatusCode::NOT_FOUND));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_the_name_of_a_protocol() {
    let served = Served::start().await;
    let client = served.harness.admin();
    client.post("/api/v1/namespaces/default/serviceaccounts", &json!({"metadata": {"name": "robot"}})).await;
    let made = client.post("/api/v1/namespaces/default/serviceaccounts/robot/token", &json!({})).await.1;
    let token = URL_SAFE_NO_PAD.encode(made["status"]["token"].as_str().unwrap());
    let named = |token: &str| format!("base64url.bearer.authorization.k8s.io.{token}, base64.binary.k8s.io");
    let watch = format!("{PODS}?watch=true");
    // Known, and not allowed; unknown.
    assert_eq!(open(&served, &watch, &named(&token), false).await.err(), Some(StatusCode::FORBIDDEN));
    assert_eq!(open(&served, &watch, &named("YQ"), false).await.err(), Some(StatusCode::UNAUTHORIZED));
    let alone = format!("base64url.bearer.authorization.k8s.io.{token}");
    assert_eq!(open(&served, &watch, &alone, false).await.err(), Some(StatusCode::UNAUTHORIZED));
    let (_, headers) = open(&served, &watch, "mine", true).await.unwrap();
    assert_eq!(headers["sec-websocket-protocol"], "mine");
}
