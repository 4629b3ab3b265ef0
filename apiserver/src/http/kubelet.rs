//! Speaking to kubelets: which one, and as whom; and to what runs on their nodes.

use crate::registry::fields::{items, text};
use crate::verbs::Call;
use coracle_api::json::Value;
use coracle_api::{Gvr, Status};
use coracle_link::Place;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// Speaks to kubelets as the API server.
#[derive(Clone)]
pub struct KubeletClient {
    tls: TlsConnector,
    /// Takes any certificate, and shows none.
    unchecked: TlsConnector,
    place: Place,
}

impl KubeletClient {
    /// A client that trusts these authorities, each as PEM, and shows its own certificate.
    ///
    /// # Errors
    /// When a PEM holds no certificate or key.
    pub fn new<'a>(
        authorities: impl Iterator<Item = &'a str>,
        identity: Option<(&str, &str)>,
        place: Place,
    ) -> Result<Self, String> {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in authorities.flat_map(|pem| CertificateDer::pem_slice_iter(pem.as_bytes())) {
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
        let unchecked = coracle_pki::unchecked::client().map_err(|error| error.to_string())?;
        Ok(Self {
            tls: TlsConnector::from(Arc::new(config)),
            unchecked: TlsConnector::from(Arc::new(unchecked)),
            place,
        })
    }

    /// A connection to the kubelet at `address`.
    ///
    /// # Errors
    /// What went wrong, in words.
    pub async fn connect(&self, address: SocketAddr) -> Result<TlsStream<TcpStream>, String> {
        self.shake(&self.tls, address).await
    }

    /// A TLS connection to something else in the kubelets' network, whoever it is.
    ///
    /// # Errors
    /// What went wrong, in words.
    pub async fn connect_unchecked(&self, address: SocketAddr) -> Result<TlsStream<TcpStream>, String> {
        self.shake(&self.unchecked, address).await
    }

    /// A connection to something else in the kubelets' network.
    ///
    /// # Errors
    /// What went wrong, in words.
    pub async fn connect_plain(&self, address: SocketAddr) -> Result<TcpStream, String> {
        let stream = self.place.connect_tcp(address, CONNECT_WITHIN).await;
        stream.map_err(|error| format!("dial tcp {address}: {error}"))
    }

    async fn shake(&self, tls: &TlsConnector, address: SocketAddr) -> Result<TlsStream<TcpStream>, String> {
        let stream = self.place.connect_tcp(address, CONNECT_WITHIN).await.map_err(|error| error.to_string())?;
        let name = ServerName::IpAddress(address.ip().into());
        let tls = tokio::time::timeout(CONNECT_WITHIN, tls.connect(name, stream)).await;
        tls.map_err(|_| "the TLS handshake took too long".to_owned())?.map_err(|error| error.to_string())
    }
}

/// The container that is meant (core/pod `validateContainer`).
///
/// # Errors
/// When the pod has no such container, or several and none is named.
pub fn container(call: &Call, pod: &Value) -> Result<String, Status> {
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
        // Whatever runs beside it, or ran before it.
        None if main.len() == 1 => Ok(main[0].clone()),
        None => {
            let names: Vec<&str> = init.iter().chain(&main).chain(&ephemeral).map(String::as_str).collect();
            Err(Status::bad_request(format!(
                "a container name must be specified for pod {}, choose one of: [{}]",
                call.name,
                names.join(" ")
            )))
        }
    }
}

/// Where the kubelet of a node listens.
///
/// # Errors
/// When the node is not there or has no address.
pub fn address(call: &Call, node: &str) -> Result<SocketAddr, Status> {
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

/// Text as a part of a query.
pub fn escape(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}
