//! `pods/log`: streamed through from the kubelet of the pod's node.

use crate::registry::fields::{items, text};
use crate::verbs::{Call, Response};
use axum::body::Body;
use coracle_api::{Gvr, Status};
use coracle_link::Place;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use serde_json::Value;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio_rustls::TlsConnector;

const CONNECT_WITHIN: Duration = Duration::from_secs(10);
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// How much of a kubelet's error is passed on.
const ERROR_MAX: usize = 16 << 10;

/// Query options of a log that are passed on to the kubelet.
const PASSED: [&str; 8] =
    ["follow", "previous", "sinceSeconds", "sinceTime", "timestamps", "tailLines", "limitBytes", "stream"];

/// Speaks to kubelets as the API server.
#[derive(Clone)]
pub struct KubeletClient {
    tls: TlsConnector,
    place: Place,
}

impl KubeletClient {
    /// A client that trusts the cluster's authority and shows its own certificate.
    ///
    /// # Errors
    /// When a PEM holds no certificate or key.
    pub fn new(ca_pem: &str, identity: Option<(&str, &str)>, place: Place) -> Result<Self, String> {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
            roots.add(certificate.map_err(|error| error.to_string())?).map_err(|error| error.to_string())?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots);
        let config = match identity {
            Some((certificate, key)) => {
                let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<Vec<_>, _>>();
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| error.to_string())?;
                config
                    .with_client_auth_cert(chain.map_err(|error| error.to_string())?, key)
                    .map_err(|error| error.to_string())?
            }
            None => config.with_no_client_auth(),
        };
        Ok(Self { tls: TlsConnector::from(Arc::new(config)), place })
    }

    /// Sends a GET and gives the answer's head with its body still to come.
    async fn get(&self, address: SocketAddr, path: &str) -> Result<http::Response<hyper::body::Incoming>, String> {
        let stream = self.place.connect_tcp(address, CONNECT_WITHIN).await.map_err(|error| error.to_string())?;
        let name = ServerName::IpAddress(address.ip().into());
        let tls = tokio::time::timeout(CONNECT_WITHIN, self.tls.connect(name, stream)).await;
        let tls = tls.map_err(|_| "the TLS handshake took too long".to_owned())?.map_err(|error| error.to_string())?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake::<_, Body>(TokioIo::new(tls))
            .await
            .map_err(|error| error.to_string())?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the connection to a kubelet ended");
            }
        });
        let request = Request::get(path).header(header::HOST, address.to_string()).body(Body::empty());
        let request = request.map_err(|error| error.to_string())?;
        let response = tokio::time::timeout(ANSWER_WITHIN, sender.send_request(request)).await;
        response.map_err(|_| "the kubelet did not answer in time".to_owned())?.map_err(|error| error.to_string())
    }
}

/// GET …/pods/NAME/log
pub async fn log(call: Call) -> Result<Response, Status> {
    let pod = call.current().await?.value;
    let container = container(&call, &pod)?;
    let node = text(&pod["spec"], "nodeName").to_owned();
    if node.is_empty() {
        // As upstream: a pod that was not placed yet has no log, and that is no error.
        return Ok(stream(Body::empty()));
    }
    let address = kubelet_address(&call, &node)?;
    let mut path = format!("/containerLogs/{}/{}/{container}", call.namespace, call.name);
    for (name, value) in call.options.pairs.iter().filter(|(name, _)| PASSED.contains(&name.as_str())) {
        path.push(if path.contains('?') { '&' } else { '?' });
        path.push_str(&format!("{name}={}", escape(value)));
    }
    let failed = |why: String| Status::internal(format!("Get \"https://{address}{path}\": {why}"));
    let response = call.server.kubelet.get(address, &path).await.map_err(failed)?;
    let (head, body) = response.into_parts();
    if head.status.is_success() {
        return Ok(stream(Body::new(body)));
    }
    let body =
        http_body_util::Limited::new(body, ERROR_MAX).collect().await.map(|all| all.to_bytes()).unwrap_or_default();
    let message = String::from_utf8_lossy(&body).trim().to_owned();
    let message = if message.is_empty() { format!("the kubelet answered {}", head.status) } else { message };
    Err(match head.status {
        StatusCode::NOT_FOUND => Status { message, ..call.not_found() },
        StatusCode::BAD_REQUEST => Status::bad_request(message),
        _ => Status::internal(message),
    })
}

fn stream(body: Body) -> Response {
    let mut response = http::Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// The container that is meant (core/pod `LogLocation`).
fn container(call: &Call, pod: &Value) -> Result<String, Status> {
    let names = |list: &str| {
        items(&pod["spec"], list).iter().map(|container| text(container, "name").to_owned()).collect::<Vec<_>>()
    };
    let (init, main, ephemeral) = (names("initContainers"), names("containers"), names("ephemeralContainers"));
    let asked = call
        .options
        .pairs
        .iter()
        .find(|(name, value)| name == "container" && !value.is_empty())
        .map(|(_, value)| value.clone());
    match asked {
        Some(asked) if init.iter().chain(&main).chain(&ephemeral).any(|name| *name == asked) => Ok(asked),
        Some(asked) => Err(Status::bad_request(format!("container {asked} is not valid for pod {}", call.name))),
        None if main.len() == 1 && init.is_empty() => Ok(main[0].clone()),
        None => {
            let mut message = format!(
                "a container name must be specified for pod {}, choose one of: [{}]",
                call.name,
                main.join(" ")
            );
            if !init.is_empty() {
                message.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
            }
            if !ephemeral.is_empty() {
                message.push_str(&format!(" or one of the ephemeral containers: [{}]", ephemeral.join(" ")));
            }
            Err(Status::bad_request(message))
        }
    }
}

fn kubelet_address(call: &Call, node: &str) -> Result<SocketAddr, Status> {
    let snapshot = call.server.cache_of("", "nodes")?.snapshot();
    let object = snapshot.get(node).ok_or_else(|| Status::not_found(&Gvr::of("", "v1", "nodes"), node))?.parse();
    let addresses = items(&object["status"], "addresses");
    let ip =
        addresses.iter().find(|address| text(address, "type") == "InternalIP").map(|address| text(address, "address"));
    let ip: IpAddr = ip
        .and_then(|ip| ip.parse().ok())
        .ok_or_else(|| Status::internal(format!("no preferred addresses found; known addresses: [] of node {node}")))?;
    let port = object.pointer("/status/daemonEndpoints/kubeletEndpoint/Port").and_then(Value::as_u64);
    let port = port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0).unwrap_or(10250);
    Ok(SocketAddr::new(ip, port))
}

fn escape(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}
