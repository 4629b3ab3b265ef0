//! The client of registries (OCI distribution specification 1.1; Docker's token authentication).
//!
//! What a registry answers is hostile: sizes are bounded, digests are checked by the caller, redirects are few, and
//! credentials go to the registry and its token server only.

use std::{
    future::Future,
    net::{SocketAddr, ToSocketAddrs},
    pin::Pin,
    sync::Arc,
    task::{self, Poll},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use coracle_link::Place;
use http::{
    HeaderMap, HeaderValue, Request, Response, StatusCode, Uri,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, LOCATION, RANGE, USER_AGENT, WWW_AUTHENTICATE},
};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
};
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::{net::TcpStream, task::spawn_blocking, time::timeout};

use super::{
    manifest::{DOCKER_LIST, DOCKER_MANIFEST, MAX_DOCUMENT, OCI_INDEX, OCI_MANIFEST},
    reference::Reference,
};
use crate::{
    digest::Digest,
    error::{Error, Result},
};

const CONNECT_LIMIT: Duration = Duration::from_secs(20);
/// Until the answer begins; its body has limits of its own.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
const MAX_REDIRECTS: usize = 5;

/// How registries are reached.
#[derive(Clone, Debug, Default)]
pub struct Registries {
    /// Hosts (with port) spoken to without TLS. Loopback addresses always are.
    pub plain_http: Vec<String>,
    /// Further certificate authorities, PEM.
    pub extra_roots: Vec<String>,
}

/// Who pulls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Credentials {
    #[default]
    Anonymous,
    Basic {
        username: String,
        password: String,
    },
    /// A token for the registry itself.
    Bearer(String),
    /// A refresh token for its token server.
    Refresh(String),
}

impl Credentials {
    /// The `auth` field of a Docker configuration: base64 of `user:password`.
    pub fn from_docker_auth(auth: &str) -> Result<Credentials> {
        let malformed = || Error::invalid("malformed registry credentials");
        let bytes = STANDARD.decode(auth.trim()).map_err(|_| malformed())?;
        let text = String::from_utf8(bytes).map_err(|_| malformed())?;
        let (username, password) = text.split_once(':').ok_or_else(malformed)?;
        Ok(Credentials::Basic { username: username.into(), password: password.trim_end_matches('\0').into() })
    }

    fn basic(&self) -> Option<String> {
        match self {
            Credentials::Basic { username, password } => {
                Some(format!("Basic {}", STANDARD.encode(format!("{username}:{password}"))))
            }
            _ => None,
        }
    }
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
    http: Client<HttpsConnector<Dialler>, Empty<Bytes>>,
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

    /// Begins to work on one repository.
    pub fn repository(&self, reference: &Reference, credentials: Credentials) -> Repository {
        let host = reference.host().to_owned();
        let plain = is_loopback(&host) || self.registries.plain_http.contains(&host);
        let scheme = if plain { "http" } else { "https" };
        let scope = format!("repository:{}:pull", reference.repository);
        Repository {
            client: self.clone(),
            base: format!("{scheme}://{host}/v2/{}", reference.repository),
            plain,
            scope,
            credentials,
            authorization: Mutex::new(None),
        }
    }

    async fn send(&self, uri: &str, headers: &HeaderMap) -> Result<Response<Incoming>> {
        let uri: Uri = uri.parse().map_err(|_| Error::invalid(format!("malformed address {uri:?}")))?;
        let mut request =
            Request::get(uri.clone()).body(Empty::new()).map_err(|error| Error::invalid(format!("{uri}: {error}")))?;
        *request.headers_mut() = headers.clone();
        request
            .headers_mut()
            .insert(USER_AGENT, HeaderValue::from_static(concat!("coracle/", env!("CARGO_PKG_VERSION"))));
        let failed = |why: String| Error::unavailable(format!("failed to do request: Get \"{uri}\": {why}"));
        match timeout(ANSWER_LIMIT, self.http.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(failed(innermost(&error))),
            Err(_) => Err(failed("timeout awaiting response headers".into())),
        }
    }
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

/// One repository of one registry, with what is needed to be let in.
pub struct Repository {
    client: RegistryClient,
    base: String,
    plain: bool,
    scope: String,
    credentials: Credentials,
    /// The header that worked last.
    authorization: Mutex<Option<String>>,
}

/// A manifest as served.
#[derive(Debug)]
pub struct Served {
    pub bytes: Vec<u8>,
    pub media_type: String,
    pub digest: Digest,
}

impl Repository {
    /// Reads a manifest or index by tag or digest; by digest it is that or an error.
    pub async fn manifest(&self, reference: &str) -> Result<Served> {
        let accept = [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST, "*/*"].join(", ");
        let response = self.get(&format!("{}/manifests/{reference}", self.base), &accept, None).await?;
        let media_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let media_type = media_type.split(';').next().unwrap_or_default().trim().to_owned();
        let bytes = body(response, MAX_DOCUMENT).await?;
        let digest = match reference.parse::<Digest>() {
            Ok(expected) => {
                let mut hasher = expected.hasher();
                hasher.update(&bytes);
                let digest = hasher.finish();
                if digest != expected {
                    return Err(Error::invalid(format!("unexpected digest: expected {expected}, got {digest}")));
                }
                digest
            }
            Err(_) => Digest::of(&bytes),
        };
        Ok(Served { bytes, media_type, digest })
    }

    /// Reads a blob from an offset on; whether the registry began there is for the caller to see (206 or 200).
    pub async fn blob(&self, digest: &Digest, offset: u64) -> Result<Response<Incoming>> {
        self.get(&format!("{}/blobs/{digest}", self.base), "*/*", (offset > 0).then(|| format!("bytes={offset}-")))
            .await
    }

    async fn get(&self, uri: &str, accept: &str, range: Option<String>) -> Result<Response<Incoming>> {
        let mut response = self.get_once(uri, accept, range.as_deref()).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            let challenges: Vec<String> = response
                .headers()
                .get_all(WWW_AUTHENTICATE)
                .iter()
                .filter_map(|value| value.to_str().ok().map(str::to_owned))
                .collect();
            let header = self.authorize(&challenges).await?;
            *self.authorization.lock() = Some(header);
            response = self.get_once(uri, accept, range.as_deref()).await?;
        }
        match response.status() {
            status if status.is_success() => Ok(response),
            StatusCode::NOT_FOUND => Err(Error::not_found("not found")),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(Error::denied(
                "pull access denied, repository does not exist or may require authorization: server message: insufficient_scope: authorization failed",
            )),
            status => Err(Error::unavailable(format!("unexpected status from GET request to {uri}: {status}"))),
        }
    }

    /// One request with its redirects. Only the registry's own host sees the authorization.
    async fn get_once(&self, uri: &str, accept: &str, range: Option<&str>) -> Result<Response<Incoming>> {
        let mut uri = uri.to_owned();
        for hop in 0..=MAX_REDIRECTS {
            let mut headers = HeaderMap::new();
            let mut insert = |name, value: &str| {
                if let Ok(value) = HeaderValue::from_str(value) {
                    headers.insert(name, value);
                }
            };
            insert(ACCEPT, accept);
            if let Some(range) = range {
                insert(RANGE, range);
            }
            let authorization = self.authorization.lock().clone();
            if let Some(header) = authorization.filter(|_| hop == 0 || same_host(&uri, &self.base)) {
                insert(AUTHORIZATION, &header);
            }
            let response = self.client.send(&uri, &headers).await?;
            if !response.status().is_redirection() {
                return Ok(response);
            }
            let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
            uri = self.redirect(&uri, location)?;
        }
        Err(Error::unavailable(format!("stopped after {MAX_REDIRECTS} redirects")))
    }

    fn redirect(&self, from: &str, location: &str) -> Result<String> {
        let from: Uri = from.parse().map_err(|_| Error::invalid(format!("malformed address {from:?}")))?;
        let to = match location {
            path if path.starts_with('/') && !path.starts_with("//") => {
                format!(
                    "{}://{}{path}",
                    from.scheme_str().unwrap_or("https"),
                    from.authority().map(http::uri::Authority::as_str).unwrap_or_default()
                )
            }
            absolute => absolute.to_owned(),
        };
        // From TLS there is no way back to plain HTTP.
        let allowed = to.starts_with("https://") || self.plain && to.starts_with("http://");
        if allowed { Ok(to) } else { Err(Error::unavailable(format!("refused to follow a redirect to {location:?}"))) }
    }

    /// Answers a challenge (RFC 7235; Docker "Token Authentication Specification").
    async fn authorize(&self, challenges: &[String]) -> Result<String> {
        if let Credentials::Bearer(token) = &self.credentials {
            return Ok(format!("Bearer {token}"));
        }
        for challenge in challenges {
            let (scheme, parameters) = challenge.split_once(' ').unwrap_or((challenge, ""));
            if scheme.eq_ignore_ascii_case("bearer") {
                return self.token(parameters).await;
            }
            if scheme.eq_ignore_ascii_case("basic")
                && let Some(header) = self.credentials.basic()
            {
                return Ok(header);
            }
        }
        Err(Error::denied(
            "pull access denied, repository does not exist or may require authorization: authorization failed: no basic auth credentials",
        ))
    }

    async fn token(&self, parameters: &str) -> Result<String> {
        #[derive(Deserialize)]
        struct Token {
            #[serde(default)]
            token: String,
            #[serde(default)]
            access_token: String,
        }
        let parameters = challenge_parameters(parameters);
        let get = |name: &str| parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let realm = get("realm").ok_or_else(|| Error::invalid("the registry's challenge has no realm"))?;
        if !(realm.starts_with("https://") || self.plain && realm.starts_with("http://")) {
            return Err(Error::denied(format!("refused to send credentials to {realm:?}")));
        }
        let mut uri = format!(
            "{realm}{}scope={}",
            if realm.contains('?') { '&' } else { '?' },
            encode(get("scope").unwrap_or(&self.scope))
        );
        if let Some(service) = get("service") {
            uri.push_str(&format!("&service={}", encode(service)));
        }
        let mut headers = HeaderMap::new();
        let header = match &self.credentials {
            Credentials::Refresh(token) => Some(format!("Bearer {token}")),
            credentials => credentials.basic(),
        };
        if let Some(header) = header.and_then(|header| HeaderValue::from_str(&header).ok()) {
            headers.insert(AUTHORIZATION, header);
        }
        let response = self.client.send(&uri, &headers).await?;
        let status = response.status();
        if !status.is_success() {
            return Err(Error::denied(format!(
                "failed to authorize: failed to fetch oauth token: unexpected status from GET request to {uri}: {status}"
            )));
        }
        let token: Token = serde_json::from_slice(&body(response, MAX_DOCUMENT).await?)
            .map_err(|error| Error::invalid(format!("malformed token: {error}")))?;
        let token = if token.token.is_empty() { token.access_token } else { token.token };
        if token.is_empty() {
            Err(Error::denied("the token server gave no token"))
        } else {
            Ok(format!("Bearer {token}"))
        }
    }
}

fn same_host(a: &str, b: &str) -> bool {
    let authority = |text: &str| text.parse::<Uri>().ok().and_then(|uri| uri.authority().cloned());
    authority(a).is_some_and(|a| Some(a) == authority(b))
}

/// Reads a small body.
async fn body(response: Response<Incoming>, limit: u64) -> Result<Vec<u8>> {
    let limited = Limited::new(response.into_body(), limit as usize);
    let collected = timeout(ANSWER_LIMIT, limited.collect())
        .await
        .map_err(|_| Error::deadline("the registry's answer does not end"))?;
    collected
        .map(|collected| collected.to_bytes().to_vec())
        .map_err(|error| Error::unavailable(format!("read the registry's answer: {error}")))
}

/// `key="value",key=value`.
fn challenge_parameters(text: &str) -> Vec<(String, String)> {
    let mut out = Vec::new();
    let mut rest = text.trim();
    while let Some((key, after)) = rest.split_once('=') {
        let (value, tail) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_once(',').unwrap_or((after, "")),
        };
        out.push((key.trim().to_lowercase(), value.trim().to_owned()));
        rest = tail.trim_start_matches([',', ' ']);
    }
    out
}

/// Percent-encodes a query's value.
fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b':' | b'/');
    text.bytes().map(|byte| if plain(byte) { (byte as char).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_taken_apart() {
        let parameters = challenge_parameters(r#"realm="https://auth.x/token",service="reg,istry",scope=a:b:pull"#);
        let expected = [("realm", "https://auth.x/token"), ("service", "reg,istry"), ("scope", "a:b:pull")];
        assert_eq!(parameters, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
    }

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

    #[test]
    fn docker_credentials_are_read() {
        let basic = Credentials::from_docker_auth("dXNlcjpwYTpzcw==").unwrap();
        assert_eq!(basic, Credentials::Basic { username: "user".into(), password: "pa:ss".into() });
        assert!(Credentials::from_docker_auth("%").is_err());
    }
}
