//! The client of registries (OCI distribution specification 1.1; Docker's token authentication).
//!
//! What a registry answers is hostile: sizes are bounded, digests are checked by the caller, redirects are few, and
//! credentials go to the registry and its token server only.

mod challenge;
mod credentials;
mod repository;
mod token;
mod upload;

use std::{
    collections::BTreeMap,
    future::Future,
    net::{SocketAddr, ToSocketAddrs},
    pin::Pin,
    sync::Arc,
    task::{self, Poll},
    time::Duration,
};

use bytes::Bytes;
use coracle_link::Place;
pub use credentials::{Credentials, address_host};
use http::{HeaderValue, Request, Response, Uri, header::USER_AGENT};
use http_body_util::{BodyExt, Empty, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
};
pub use repository::{Repository, Served};
use tokio::{net::TcpStream, task::spawn_blocking, time::timeout};

pub use upload::{Source, Uploaded};

use super::reference::Reference;
use crate::error::{Error, Result};

const CONNECT_LIMIT: Duration = Duration::from_secs(20);
/// Until the answer begins; its body has limits of its own.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// The same where the registry may have to copy or to fetch a whole blob first. Others wait for ever.
const SLOW_ANSWER_LIMIT: Duration = Duration::from_secs(15 * 60);

/// What is sent.
type Body = UnsyncBoxBody<Bytes, std::io::Error>;

fn nothing() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// How registries are reached.
#[derive(Clone, Debug, Default)]
pub struct Registries {
    /// Hosts (with port) spoken to without TLS. Loopback addresses always are.
    pub plain_http: Vec<String>,
    /// Further certificate authorities, PEM.
    pub extra_roots: Vec<String>,
    /// Registry (`docker.io`, `host:port`) → addresses (`https://mirror.example[:port]`) that are asked before it, in order.
    pub mirrors: BTreeMap<String, Vec<String>>,
}

/// Opens connections in a place.
#[derive(Clone)]
struct Dialler {
    place: Place,
}

impl tower::Service<Uri> for Dialler {
    type Response = TokioIo<TcpStream>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = std::io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let place = self.place.clone();
        Box::pin(async move {
            let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
            let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 });
            let resolver = place.clone();
            let resolve = move || {
                resolver.run(|| (host.as_str(), port).to_socket_addrs().map(Iterator::collect::<Vec<SocketAddr>>))
            };
            let addresses = spawn_blocking(resolve).await.map_err(std::io::Error::other)??;
            let mut last = std::io::Error::new(std::io::ErrorKind::NotFound, "no such host");
            for address in addresses {
                match place.connect_tcp(address, CONNECT_LIMIT).await {
                    Ok(stream) => return Ok(TokioIo::new(stream)),
                    Err(error) => last = std::io::Error::new(error.kind(), format!("dial tcp {address}: {error}")),
                }
            }
            Err(last)
        })
    }
}

/// A client for all registries; connections are kept and used again.
#[derive(Clone)]
pub struct RegistryClient {
    http: Client<HttpsConnector<Dialler>, Body>,
    registries: Arc<Registries>,
}

impl RegistryClient {
    pub fn new(place: Place, registries: Registries) -> Result<RegistryClient> {
        let mut roots = rustls::RootCertStore::empty();
        // A host without certificates can still pull from loopback.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        for pem in &registries.extra_roots {
            use rustls::pki_types::{CertificateDer, pem::PemObject};
            for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                let certificate = certificate
                    .map_err(|error| Error::invalid(format!("registry certificate authority: {error:?}")))?;
                roots
                    .add(certificate)
                    .map_err(|error| Error::invalid(format!("registry certificate authority: {error}")))?;
            }
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::internal(format!("TLS: {error}")))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(Dialler { place });
        let http = Client::builder(TokioExecutor::new()).pool_idle_timeout(Duration::from_secs(30)).build(connector);
        Ok(RegistryClient { http, registries: Arc::new(registries) })
    }

    /// Begins to work on one repository, to read it: from the registry's mirrors, then from itself.
    pub fn repository(&self, reference: &Reference, credentials: Credentials) -> Repository {
        let mirrors = self.registries.mirrors.get(&reference.registry).into_iter().flatten();
        let mirrors = mirrors.map(|address| address.trim_end_matches('/').to_owned()).collect();
        Repository::new(self.clone(), reference, mirrors, credentials, "pull")
    }

    /// Begins to work on one repository, to write it.
    pub fn writable_repository(&self, reference: &Reference, credentials: Credentials) -> Repository {
        Repository::new(self.clone(), reference, Vec::new(), credentials, "pull,push")
    }

    /// Whether a registry lets somebody in; a token that stands for the credentials, if there is one.
    pub async fn login(&self, host: &str, credentials: Credentials) -> Result<Option<String>> {
        let reference: Reference = format!("{host}/login").parse()?;
        Repository::root(self.clone(), &reference, credentials).login().await
    }

    /// The address of a registry: TLS, but for loopback and where the settings say so.
    fn address(&self, reference: &Reference) -> String {
        let host = reference.host();
        let plain = is_loopback(host)
            || self.registries.plain_http.iter().any(|plain| plain == host || *plain == reference.registry);
        format!("{}://{host}", if plain { "http" } else { "https" })
    }

    /// Gets something from any web server, without credentials; redirects are followed, a refusal is an error.
    pub async fn fetch(&self, url: &str) -> Result<Response<Incoming>> {
        const MAX_REDIRECTS: usize = 10;
        let mut url = url.to_owned();
        for _ in 0..MAX_REDIRECTS {
            let shown = shown(&url);
            let uri: Uri = url.parse().map_err(|_| Error::invalid(format!("{shown:?} is not an address")))?;
            if !matches!(uri.scheme_str(), Some("http" | "https")) {
                return Err(Error::invalid(format!("{shown:?}: only http and https are supported")));
            }
            let request = Request::get(uri.clone()).body(nothing());
            let request = request.map_err(|error| Error::invalid(format!("{shown:?}: {error}")))?;
            let response = self.send(request, Some(ANSWER_LIMIT)).await?;
            let status = response.status();
            if status.is_redirection() {
                let location = response.headers().get(http::header::LOCATION).and_then(|value| value.to_str().ok());
                let location = location.ok_or_else(|| Error::invalid(format!("{shown:?}: a redirect to nowhere")))?;
                url = resolve(&uri, location);
                continue;
            }
            if !status.is_success() {
                return Err(Error::invalid(format!("failed to GET {shown} with status {status}")));
            }
            return Ok(response);
        }
        Err(Error::invalid(format!("{:?}: too many redirects", shown(&url))))
    }

    /// Sends one request; the answer's body is yet to come. `limit` is until the answer begins.
    async fn send(&self, mut request: Request<Body>, limit: Option<Duration>) -> Result<Response<Incoming>> {
        request
            .headers_mut()
            .insert(USER_AGENT, HeaderValue::from_static(concat!("coracle/", env!("CARGO_PKG_VERSION"))));
        let verb = match *request.method() {
            http::Method::GET => "Get",
            http::Method::HEAD => "Head",
            http::Method::POST => "Post",
            http::Method::PATCH => "Patch",
            _ => "Put",
        };
        let what = format!("failed to do request: {verb} \"{}\"", shown(&request.uri().to_string()));
        let answer = self.http.request(request);
        let answer = match limit {
            Some(limit) => timeout(limit, answer).await,
            None => Ok(answer.await),
        };
        match answer {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(Error::unavailable(format!("{what}: {}", innermost(&error)))),
            Err(_) => Err(Error::unavailable(format!("{what}: timeout awaiting response headers"))),
        }
    }
}

/// An address for logs and errors: what a registry puts into a query lets whoever has it in (containerd's `sanitize.go`).
fn shown(address: &str) -> String {
    address.split_once('?').map_or_else(|| address.to_owned(), |(plain, _)| format!("{plain}?[REDACTED]"))
}

/// Where a redirect leads (RFC 3986, section 5.2).
fn resolve(from: &Uri, location: &str) -> String {
    let scheme = from.scheme_str().unwrap_or("https");
    let authority = from.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    let named = location.split_once(':').is_some_and(|(scheme, _)| {
        scheme.starts_with(|letter: char| letter.is_ascii_alphabetic())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
    });
    if named {
        return location.to_owned();
    }
    if location.starts_with("//") {
        return format!("{scheme}:{location}");
    }
    let location = location.split('#').next().unwrap_or_default();
    let (path, query) = location.split_once('?').map_or((location, None), |(path, query)| (path, Some(query)));
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    let path = match path {
        "" => from.path().to_owned(),
        path if path.starts_with('/') => path.to_owned(),
        path => {
            let dir = from.path().rsplit_once('/').map_or("", |(dir, _)| dir);
            let mut parts: Vec<&str> = dir.split('/').collect();
            for part in path.split('/') {
                match part {
                    "." => {}
                    ".." => drop((parts.len() > 1).then(|| parts.pop())),
                    part => parts.push(part),
                }
            }
            parts.join("/")
        }
    };
    format!("{scheme}://{authority}{path}{query}")
}

/// The cause that says something: connectors wrap it in "client error (Connect)" and the like.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_matches(['[', ']']);
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_plain_by_itself() {
        for (host, plain) in [
            ("127.0.0.1:5000", true),
            ("localhost", true),
            ("[::1]:80", true),
            ("127.0.0.1.evil.org", false),
            ("quay.io", false),
        ] {
            assert_eq!(is_loopback(host), plain, "{host}");
        }
    }
}
