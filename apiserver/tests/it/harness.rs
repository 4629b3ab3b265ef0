//! A server on an embedded store in memory, and a client for it.

use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use coracle_api::clock::SystemClock;
use coracle_apiserver::store::Store;
use coracle_apiserver::store::embedded::Embedded;
use coracle_apiserver::{ApiServer, Config, InProcess, UserInfo};
use coracle_pki::{Authority, Identity, Subject, Usage};
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// Nothing in these tests takes longer.
pub const LIMIT: Duration = Duration::from_secs(30);

pub struct Harness {
    pub server: Arc<ApiServer>,
    pub authority: Authority,
}

pub fn authority() -> Authority {
    Authority::create("test", Timestamp::now()).unwrap()
}

pub fn identity(authority: &Authority, subject: &Subject, usage: Usage) -> Identity {
    let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
    authority.issue(subject, &names, usage, Timestamp::now(), Duration::from_secs(3600)).unwrap()
}

impl Harness {
    pub async fn start() -> Self {
        Self::on(Arc::new(Embedded::in_memory(Arc::new(SystemClock::new())).unwrap())).await
    }

    pub async fn on(store: Arc<dyn Store>) -> Self {
        Self::with(store, |_, _| {}).await
    }

    /// With a configuration changed by `change`.
    pub async fn with(store: Arc<dyn Store>, change: impl FnOnce(&mut Config, &Authority)) -> Self {
        let authority = authority();
        let mut config = Config::new(store, authority.cert_pem(), "127.0.0.1:6443".parse().unwrap());
        change(&mut config, &authority);
        Self { server: ApiServer::start(config).await.unwrap(), authority }
    }

    pub fn admin(&self) -> Client {
        self.user(UserInfo::admin())
    }

    pub fn user(&self, user: UserInfo) -> Client {
        Client(self.server.service(user))
    }
}

#[derive(Clone)]
pub struct Client(pub InProcess);

impl Client {
    /// Sends a request and gives status and body.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: impl Into<Body>,
    ) -> (StatusCode, Value) {
        let request =
            Request::builder().method(method).uri(path).header("content-type", content_type).body(body.into()).unwrap();
        let response = self.0.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let bytes = tokio::time::timeout(LIMIT, response.into_body().collect()).await.unwrap().unwrap().to_bytes();
        (
            status,
            serde_json::from_slice(&bytes)
                .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned())),
        )
    }

    /// The same, for the warnings that come with the answer.
    pub async fn send_for_warnings(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: impl Into<Body>,
    ) -> (StatusCode, Vec<String>) {
        let request =
            Request::builder().method(method).uri(path).header("content-type", content_type).body(body.into()).unwrap();
        let response = self.0.clone().oneshot(request).await.unwrap();
        let warnings = response.headers().get_all("warning").iter();
        (response.status(), warnings.map(|warning| warning.to_str().unwrap().to_owned()).collect())
    }

    /// The table of what a path names.
    pub async fn table(&self, path: &str) -> Value {
        let accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
        let request = Request::get(path).header("accept", accept).body(Body::empty()).unwrap();
        let response = self.0.clone().oneshot(request).await.unwrap();
        serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap()
    }

    pub async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.send(Method::GET, path, "application/json", Body::empty()).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        self.send(Method::POST, path, "application/json", body.to_string()).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        self.send(Method::PUT, path, "application/json", body.to_string()).await
    }

    pub async fn merge(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        self.send(Method::PATCH, path, "application/merge-patch+json", body.to_string()).await
    }

    pub async fn delete(&self, path: &str) -> (StatusCode, Value) {
        self.send(Method::DELETE, path, "application/json", Body::empty()).await
    }

    /// Begins a watch.
    pub async fn watch(&self, path: &str) -> Frames {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = self.0.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        Frames { body: response.into_body(), buffer: Vec::new() }
    }
}

/// The frames of a watch.
pub struct Frames {
    body: Body,
    buffer: Vec<u8>,
}

impl Frames {
    /// The next frame; None when the watch is over.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = tokio::time::timeout(LIMIT, self.body.frame()).await.expect("a frame in time")?;
            if let Ok(data) = frame.unwrap().into_data() {
                self.buffer.extend_from_slice(&data);
            }
        }
    }

    /// The next frame's type and the name of its object.
    pub async fn seen(&mut self) -> (String, String) {
        let frame = self.next().await.expect("the watch goes on");
        let name = frame.pointer("/object/metadata/name").and_then(Value::as_str).unwrap_or_default();
        (frame["type"].as_str().unwrap().to_owned(), name.to_owned())
    }
}

pub fn pod(name: &str) -> Value {
    serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [{"name": "c", "image": "busybox:1"}]}})
}

/// A server that listens on 127.0.0.1, and a directory with a kubeconfig for it.
pub struct Served {
    pub directory: tempfile::TempDir,
    pub address: SocketAddr,
    pub admin: Identity,
    pub harness: Arc<Harness>,
    stop: CancellationToken,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Served {
    pub async fn start() -> Self {
        Self::of(Harness::start().await).await
    }

    /// A connection to it: as the administrator, or as nobody yet.
    pub async fn dial(&self, protocol: &[u8], as_admin: bool) -> TlsStream<TcpStream> {
        let mut roots = rustls::RootCertStore::empty();
        let authority = self.harness.authority.cert_pem();
        roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config =
            rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(roots);
        let mut config = if as_admin {
            let chain = CertificateDer::pem_slice_iter(self.admin.cert_pem.as_bytes()).map(Result::unwrap).collect();
            let key = PrivateKeyDer::from_pem_slice(self.admin.key_pem.as_bytes()).unwrap();
            config.with_client_auth_cert(chain, key).unwrap()
        } else {
            config.with_no_client_auth()
        };
        config.alpn_protocols = vec![protocol.to_vec()];
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
    }

    pub async fn of(harness: Harness) -> Self {
        let harness = Arc::new(harness);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = identity(&harness.authority, &Subject::user("apiserver"), Usage::Server);
        let tls = harness.server.tls(&serving.cert_pem, &serving.key_pem).unwrap();
        let stop = CancellationToken::new();
        let (server, token) = (harness.clone(), stop.clone());
        tokio::spawn(async move { server.server.serve(listener, tls, token).await });
        let directory = tempfile::tempdir().unwrap();
        let admin = identity(&harness.authority, &Subject::member("kubernetes-admin", "system:masters"), Usage::Client);
        let config = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "a",
            "clusters": [{"name": "a", "cluster": {"server": format!("https://{address}"), "certificate-authority-data": STANDARD.encode(harness.authority.cert_pem())}}],
            "users": [{"name": "a", "user": {"client-certificate-data": STANDARD.encode(&admin.cert_pem), "client-key-data": STANDARD.encode(&admin.key_pem)}}],
            "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
        });
        std::fs::write(directory.path().join("config"), config.to_string()).unwrap();
        Self { directory, address, admin, harness, stop }
    }
}
