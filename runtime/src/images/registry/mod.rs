//! The client of registries (OCI distribution specification 1.1; Docker's token authentication).
//!
//! What a registry answers is hostile: sizes are bounded, digests are checked by the caller, redirects are few, and
//! credentials go to the registry and its token server only.

mod challenge;
mod connect;
mod credentials;
mod hosts;
mod identities;
mod proxies;
mod repository;
mod token;
mod upload;

use std::{collections::HashSet, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use coracle_link::Place;
pub use credentials::{Credentials, address_host};
use http::{
    HeaderValue, Request, Response, Uri,
    header::{PROXY_AUTHORIZATION, USER_AGENT},
};
use http_body_util::{BodyExt, Empty, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use parking_lot::Mutex;
pub use proxies::Proxies;
use proxies::Proxy;
pub use repository::{Repository, Served};
use tokio::time::timeout;

pub use upload::{Source, Uploaded};

use self::{
    connect::{Http, Pem, Transport},
    hosts::Host,
};
use super::reference::Reference;
use crate::error::{Error, Result};

/// Until the answer begins; its body has limits of its own.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// The same where the registry may have to copy or to fetch a whole blob first. Others wait for ever.
const SLOW_ANSWER_LIMIT: Duration = Duration::from_secs(15 * 60);

/// Ways to connect that are remembered.
const MAX_CLIENTS: usize = 64;

/// What is sent.
type Body = UnsyncBoxBody<Bytes, std::io::Error>;

fn nothing() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// How registries are reached.
#[derive(Clone, Debug)]
pub struct Registries {
    /// Hosts (with port) spoken to without TLS. Loopback addresses are where they speak none.
    pub plain_http: Vec<String>,
    /// Further certificate authorities, PEM.
    pub extra_roots: Vec<String>,
    /// Directories of files that say how a registry is reached: mirrors, certificate authorities, no TLS. The first that
    /// says something of a registry counts.
    pub config_dirs: Vec<PathBuf>,
    /// Those of the environment, if none are given.
    pub proxies: Option<Proxies>,
}

impl Default for Registries {
    fn default() -> Registries {
        Registries {
            plain_http: Vec::new(),
            extra_roots: Vec::new(),
            config_dirs: ["/etc/coracle/certs.d", "/etc/containerd/certs.d", "/etc/docker/certs.d"]
                .map(PathBuf::from)
                .into(),
            proxies: None,
        }
    }
}

/// A client for all registries; connections are kept and used again.
#[derive(Clone)]
pub struct RegistryClient {
    place: Place,
    proxies: Arc<Proxies>,
    /// The system's certificate authorities, and those that were given.
    roots: Arc<rustls::RootCertStore>,
    /// Where nothing is said of it.
    http: Http,
    /// Where something is.
    clients: Arc<Mutex<Vec<(Transport, Http)>>>,
    /// Hosts on this machine that were found to speak TLS.
    tls_here: Arc<Mutex<HashSet<String>>>,
    registries: Arc<Registries>,
}

impl RegistryClient {
    pub fn new(place: Place, registries: Registries) -> Result<RegistryClient> {
        let mut roots = rustls::RootCertStore::empty();
        // A host without certificates can still pull from loopback.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let proxies = Arc::new(registries.proxies.clone().unwrap_or_else(Proxies::from_environment));
        let given = registries
            .extra_roots
            .iter()
            .map(|pem| Pem { from: "the authorities that are given".to_owned(), text: pem.clone().into_bytes() });
        let given = Transport { roots: given.collect(), ..Transport::default() };
        let roots = given.with_roots(&roots)?;
        let http = Transport::default().client(place.clone(), proxies.clone(), &roots)?;
        Ok(RegistryClient {
            place,
            proxies,
            roots: Arc::new(roots),
            http,
            clients: Arc::default(),
            tls_here: Arc::default(),
            registries: Arc::new(registries),
        })
    }

    /// The client for hosts that are connected to so.
    fn client_for(&self, transport: &Transport) -> Result<Http> {
        if *transport == Transport::default() {
            return Ok(self.http.clone());
        }
        let mut clients = self.clients.lock();
        if let Some((_, client)) = clients.iter().find(|(own, _)| own == transport) {
            return Ok(client.clone());
        }
        let client = transport.client(self.place.clone(), self.proxies.clone(), &self.roots)?;
        // Files that are changed again and again leave nothing behind for ever.
        if clients.len() >= MAX_CLIENTS {
            clients.remove(0);
        }
        clients.push((transport.clone(), client.clone()));
        Ok(client)
    }

    /// Begins to work on one repository, to read it: from the registry's mirrors, then from itself.
    pub fn repository(&self, reference: &Reference, credentials: Credentials) -> Result<Repository> {
        let hosts = self.hosts(reference)?;
        Repository::new(self.clone(), reference, hosts, credentials, "pull")
    }

    /// Begins to work on one repository, to write it.
    pub fn writable_repository(&self, reference: &Reference, credentials: Credentials) -> Result<Repository> {
        // To one of them, the first that takes it, as containerd.
        let taking = self.hosts(reference)?.into_iter().find(|host| host.push);
        let taking = taking.ok_or_else(|| Error::precondition(format!("{} takes no pushes", reference.registry)))?;
        Repository::new(self.clone(), reference, vec![taking], credentials, "pull,push")
    }

    /// Who is asked for a registry's content.
    fn hosts(&self, reference: &Reference) -> Result<Vec<Host>> {
        let host = reference.host();
        let here = self.tls_here.lock().contains(host);
        let transport = Transport { unverified: here, ..Transport::default() };
        let named = self.registries.plain_http.iter().any(|plain| plain == host || *plain == reference.registry);
        let plain = is_loopback(host) && !here || named;
        let base = format!("{}://{host}/v2", if plain { "http" } else { "https" });
        let own = Host { base, transport, headers: Vec::new(), resolve: true, pull: true, push: true };
        if !self.registries.plain_http.contains(&reference.registry)
            && let Some(hosts) = hosts::find(&self.registries.config_dirs, reference, &own)?
        {
            return Ok(hosts);
        }
        Ok(vec![own])
    }

    /// Whether a registry lets somebody in; a token that stands for the credentials, if there is one.
    pub async fn login(&self, host: &str, credentials: Credentials) -> Result<Option<String>> {
        let reference: Reference = format!("{host}/login").parse()?;
        let hosts = self.hosts(&reference)?;
        Repository::root(self.clone(), hosts, credentials)?.login().await
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
            let response = self.send(&self.http, request, Some(ANSWER_LIMIT)).await?;
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
    async fn send(
        &self,
        http: &Http,
        mut request: Request<Body>,
        limit: Option<Duration>,
    ) -> Result<Response<Incoming>> {
        // To one that reads requests; one that leads a connection on was told.
        if request.uri().scheme_str() == Some("http")
            && let Some(header) = self.proxies.of(request.uri()).and_then(Proxy::authorization)
            && let Ok(header) = HeaderValue::from_str(&header)
        {
            request.headers_mut().insert(PROXY_AUTHORIZATION, header);
        }
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
        let answer = http.request(request);
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
