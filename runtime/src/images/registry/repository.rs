//! One repository of one registry (or its mirrors): reading, and being let in.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use http::{
    HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, LINK, LOCATION, RANGE, RETRY_AFTER, WWW_AUTHENTICATE},
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::time::timeout;
use tracing::warn;

use super::{
    ANSWER_LIMIT, Body, Credentials, RegistryClient, SLOW_ANSWER_LIMIT, challenge,
    connect::{Http, Transport},
    hosts::Host,
    is_loopback, nothing, resolve, shown,
};
use crate::{
    digest::Digest,
    error::{Error, Result},
    images::{
        manifest::{DOCKER_LIST, DOCKER_MANIFEST, MAX_DOCUMENT, OCI_INDEX, OCI_MANIFEST},
        reference::Reference,
    },
};

pub(super) const MAX_REDIRECTS: usize = 5;
/// Of a list of tags.
const MAX_PAGES: usize = 1000;
/// A registry that wants to be left alone for longer is not asked again.
const MAX_RETRY_AFTER: u64 = 10;

/// One repository, with what is needed to be let in.
pub struct Repository {
    pub(super) client: RegistryClient,
    endpoints: Vec<Endpoint>,
    /// The one that answered last.
    preferred: AtomicUsize,
    /// What is asked of a token server.
    pub(super) scopes: Vec<String>,
    /// Nothing is to be done but to see whether the credentials are right.
    pub(super) login: bool,
}

/// Where a repository is served.
pub(super) struct Endpoint {
    way: Mutex<Way>,
    pub credentials: Credentials,
    /// The header that worked last.
    authorization: Mutex<Option<String>>,
    /// Sent along with everything.
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Whether it says what tags stand for, and gives out what is known by its digest.
    resolve: bool,
    pull: bool,
    /// Whose content is wanted, for one that has that of several registries.
    namespace: Option<String>,
    /// Said to speak no TLS, and it may: whether it does is not known yet.
    untried: AtomicBool,
    /// How it is connected to then.
    transport: Transport,
}

/// How an endpoint is reached.
#[derive(Clone)]
struct Way {
    /// `SCHEME://HOST/v2/NAME`
    base: String,
    http: Http,
}

/// One request, which may have to be made anew.
pub(super) struct Call<'a> {
    pub method: Method,
    pub uri: String,
    pub headers: Vec<(HeaderName, String)>,
    pub body: Option<&'a (dyn Fn() -> Body + Send + Sync)>,
}

/// A manifest as served.
#[derive(Debug)]
pub struct Served {
    pub bytes: Vec<u8>,
    pub media_type: String,
    pub digest: Digest,
}

impl Repository {
    pub(super) fn new(
        client: RegistryClient,
        reference: &Reference,
        hosts: Vec<Host>,
        credentials: Credentials,
        actions: &str,
    ) -> Result<Repository> {
        let mut endpoints = Vec::new();
        for host in hosts {
            let mut endpoint = Endpoint::new(&client, &host, &reference.repository)?;
            // Credentials are the registry's; a mirror is somebody else.
            if endpoint.authority().as_deref() == Some(reference.host()) {
                endpoint.credentials = credentials.clone();
            } else {
                endpoint.namespace = Some(reference.registry.clone());
            }
            endpoints.push(endpoint);
        }
        // Whatever address the registry itself has in the files.
        if let Some(last) = endpoints.last_mut() {
            last.credentials = credentials;
        }
        let scopes = vec![format!("repository:{}:{actions}", reference.repository)];
        Ok(Repository { client, endpoints, preferred: AtomicUsize::new(0), scopes, login: false })
    }

    /// No repository, but the registry itself.
    pub(super) fn root(client: RegistryClient, hosts: Vec<Host>, credentials: Credentials) -> Result<Repository> {
        let host = hosts.last().ok_or_else(|| Error::internal("a registry without an address"))?;
        let endpoint = Endpoint { credentials, ..Endpoint::new(&client, host, "")? };
        Ok(Repository {
            client,
            endpoints: vec![endpoint],
            preferred: AtomicUsize::new(0),
            scopes: Vec::new(),
            login: true,
        })
    }

    /// Whether the registry lets these credentials in; a token that stands for them, if its token server gives one (moby's
    /// `loginV2`).
    pub(super) async fn login(&self) -> Result<Option<String>> {
        let endpoint = self.origin()?;
        let call = Call { method: Method::GET, uri: endpoint.base(), headers: vec![], body: None };
        let response = self.call_once(endpoint, &call).await?;
        let mut refresh = None;
        let response = if response.status() == StatusCode::UNAUTHORIZED {
            refresh = self.let_in(endpoint, &response).await?;
            self.call_once(endpoint, &call).await?
        } else {
            response
        };
        match response.status() {
            StatusCode::OK => Ok(refresh),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Err(Error::denied(said(response).await.unwrap_or_else(|| "unauthorized: authorization failed".into())))
            }
            _ => Err(Error::unavailable(unexpected(&call.method, &call.uri, response).await)),
        }
    }

    /// Asks for leave to read another repository too, for mounts from there.
    pub fn with_source(mut self, repository: &str) -> Repository {
        self.scopes.push(format!("repository:{repository}:pull"));
        self
    }

    /// The registry itself, where things are written.
    pub(super) fn origin(&self) -> Result<&Endpoint> {
        self.endpoints.last().ok_or_else(|| Error::internal("a repository without an address"))
    }

    /// Reads a manifest or index by tag or digest; by digest it is that or an error.
    pub async fn manifest(&self, reference: &str) -> Result<Served> {
        let response = self.get(Method::GET, &format!("/manifests/{reference}"), &[(ACCEPT, accept())]).await?;
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

    /// What a tag stands for, without reading it; none if the registry does not say.
    pub async fn digest(&self, reference: &str) -> Result<Option<Digest>> {
        let response = self.get(Method::HEAD, &format!("/manifests/{reference}"), &[(ACCEPT, accept())]).await?;
        let digest = response.headers().get("Docker-Content-Digest").and_then(|value| value.to_str().ok());
        Ok(digest.and_then(|digest| digest.parse().ok()))
    }

    /// The tags of the repository, page by page (distribution specification, "Listing Tags").
    pub async fn tags(&self) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Page {
            #[serde(default)]
            tags: Option<Vec<String>>,
        }
        let endpoint = self.origin()?;
        let mut path = "/tags/list".to_owned();
        let mut out = Vec::new();
        for _ in 0..MAX_PAGES {
            let response = self.get_from(endpoint, Method::GET, &path, &[]).await?;
            let next = response.headers().get(LINK).and_then(|value| value.to_str().ok()).and_then(next_page);
            let page: Page = serde_json::from_slice(&body(response, MAX_DOCUMENT).await?)
                .map_err(|error| Error::invalid(format!("malformed list of tags: {error}")))?;
            out.extend(page.tags.unwrap_or_default());
            match next {
                // The query alone: the rest is where we are.
                Some(query) => path = format!("/tags/list?{query}"),
                None => return Ok(out),
            }
        }
        Err(Error::invalid(format!("the list of tags has more than {MAX_PAGES} pages")))
    }

    /// Reads a blob from an offset on; whether the registry began there is for the caller to see (206 or 200).
    pub async fn blob(&self, digest: &Digest, offset: u64) -> Result<Response<Incoming>> {
        let mut headers = vec![(ACCEPT, "*/*".to_owned())];
        if offset > 0 {
            headers.push((RANGE, format!("bytes={offset}-")));
        }
        self.get(Method::GET, &format!("/blobs/{digest}"), &headers).await
    }

    /// Asks the endpoint that answered last, then those after it.
    async fn get(&self, method: Method, path: &str, headers: &[(HeaderName, String)]) -> Result<Response<Incoming>> {
        // What a tag stands for not everybody may say; what is known by its digest anybody may give out.
        let resolving = path.strip_prefix("/manifests/").is_some_and(|name| name.parse::<Digest>().is_err());
        let able = |endpoint: &&Endpoint| if resolving { endpoint.resolve } else { endpoint.pull };
        let first = self.preferred.load(Ordering::Relaxed);
        let mut last = None;
        for (index, endpoint) in self.endpoints.iter().enumerate().skip(first).filter(|(_, endpoint)| able(endpoint)) {
            match self.get_from(endpoint, method.clone(), path, headers).await {
                Ok(response) => {
                    // One that says nothing of tags has not been asked yet for what it has.
                    if !resolving || self.endpoints[first..index].iter().all(|before| before.resolve) {
                        self.preferred.store(index, Ordering::Relaxed);
                    }
                    return Ok(response);
                }
                Err(error) => {
                    if index + 1 < self.endpoints.len() {
                        warn!(mirror = endpoint.base(), %error, "a mirror does not help; trying the next");
                    }
                    last = Some(error);
                }
            }
        }
        Err(last.unwrap_or_else(|| Error::internal("a repository without an address")))
    }

    async fn get_from(
        &self,
        endpoint: &Endpoint,
        method: Method,
        path: &str,
        headers: &[(HeaderName, String)],
    ) -> Result<Response<Incoming>> {
        let mut uri = format!("{}{path}", endpoint.base());
        if let Some(namespace) = &endpoint.namespace {
            uri.push_str(if uri.contains('?') { "&ns=" } else { "?ns=" });
            uri.push_str(namespace);
        }
        let call = Call { method, uri, headers: headers.to_vec(), body: None };
        let response = self.call(endpoint, &call).await?;
        match response.status() {
            status if status.is_success() => Ok(response),
            StatusCode::NOT_FOUND => Err(Error::not_found("not found")),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let words = said(response).await.unwrap_or_else(|| "insufficient_scope: authorization failed".into());
                Err(Error::denied(format!(
                    "pull access denied, repository does not exist or may require authorization: server message: {words}"
                )))
            }
            // Too many requests and the server's own failures pass; what it does not understand it never will.
            status if is_passing(status) => {
                let wait = retry_after(&response);
                let text = unexpected(&call.method, &call.uri, response).await;
                if wait > MAX_RETRY_AFTER {
                    return Err(Error::precondition(text));
                }
                tokio::time::sleep(Duration::from_secs(wait)).await;
                Err(Error::unavailable(text))
            }
            _ => Err(Error::invalid(unexpected(&call.method, &call.uri, response).await)),
        }
    }

    /// One request with its redirects; made again once if the registry wants to know who asks.
    pub(super) async fn call(&self, endpoint: &Endpoint, call: &Call<'_>) -> Result<Response<Incoming>> {
        let response = self.call_once(endpoint, call).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        self.let_in(endpoint, &response).await?;
        self.call_once(endpoint, call).await
    }

    /// Only the registry's own host sees the authorization.
    async fn call_once(&self, endpoint: &Endpoint, call: &Call<'_>) -> Result<Response<Incoming>> {
        let mut uri = endpoint.current(&call.uri);
        for _ in 0..=MAX_REDIRECTS {
            let address: Uri =
                uri.parse().map_err(|_| Error::invalid(format!("malformed address {:?}", shown(&uri))))?;
            let mut request = Request::new(call.body.map_or_else(nothing, |body| body()));
            *request.uri_mut() = address;
            *request.method_mut() = call.method.clone();
            for (name, value) in &call.headers {
                if let Ok(value) = HeaderValue::from_str(value) {
                    request.headers_mut().insert(name, value);
                }
            }
            let authorization = endpoint.authorization.lock().clone();
            let own = same_host(&uri, &endpoint.base());
            if own {
                request.headers_mut().extend(endpoint.headers.iter().cloned());
            }
            if let Some(header) = authorization.filter(|_| own)
                && let Ok(mut value) = HeaderValue::from_str(&header)
            {
                value.set_sensitive(true);
                request.headers_mut().insert(AUTHORIZATION, value);
            }
            let answer = self.client.send(&endpoint.http(), request, call.patience()).await;
            // What a server that waits for TLS says to plain HTTP: nothing, or that.
            let odd = answer.as_ref().map_or(true, |answer| answer.status() == StatusCode::BAD_REQUEST);
            if odd && own && self.begin_tls(endpoint).await {
                uri = endpoint.current(&uri);
                continue;
            }
            let response = answer?;
            if !response.status().is_redirection() {
                return Ok(response);
            }
            let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
            uri = endpoint.absolute(&uri, location, call.is_verified())?;
        }
        Err(Error::unavailable(format!("stopped after {MAX_REDIRECTS} redirects")))
    }

    /// Finds out whether an endpoint speaks TLS that is not said to, once; from then on it is spoken to by TLS. One on this
    /// machine may prove what it likes (containerd's and dockerd's rule for loopback addresses).
    async fn begin_tls(&self, endpoint: &Endpoint) -> bool {
        if !endpoint.untried.swap(false, Ordering::Relaxed) {
            return false;
        }
        let Some(rest) = endpoint.base().strip_prefix("http://").map(str::to_owned) else { return false };
        let host = rest.split('/').next().unwrap_or_default().to_owned();
        let here = is_loopback(&host);
        let unverified = here || endpoint.transport.unverified;
        let Ok(http) = self.client.client_for(&Transport { unverified, ..endpoint.transport.clone() }) else {
            return false;
        };
        let Ok(address) = format!("https://{host}/v2/").parse() else { return false };
        let mut request = Request::new(nothing());
        *request.uri_mut() = address;
        if self.client.send(&http, request, Some(ANSWER_LIMIT)).await.is_err() {
            return false;
        }
        if here {
            self.client.tls_here.lock().insert(host);
        }
        *endpoint.way.lock() = Way { base: format!("https://{rest}"), http };
        true
    }

    /// Answers a challenge; what of it can stand for the credentials later on.
    async fn let_in(&self, endpoint: &Endpoint, response: &Response<Incoming>) -> Result<Option<String>> {
        let headers = response.headers().get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let challenges = challenge::parse(headers);
        let (header, refresh) = self.authorize(endpoint, &challenges).await?;
        *endpoint.authorization.lock() = Some(header);
        Ok(refresh)
    }

    async fn authorize(
        &self,
        endpoint: &Endpoint,
        challenges: &[challenge::Challenge],
    ) -> Result<(String, Option<String>)> {
        if let Credentials::Bearer(token) = &endpoint.credentials {
            return Ok((format!("Bearer {token}"), None));
        }
        for challenge in challenges {
            if challenge.scheme == "bearer" {
                let token = self.token(endpoint, challenge).await?;
                return Ok((format!("Bearer {}", token.access), token.refresh));
            }
            if challenge.scheme == "basic"
                && let Some(header) = endpoint.credentials.basic()
            {
                return Ok((header, None));
            }
        }
        Err(Error::denied(
            "pull access denied, repository does not exist or may require authorization: authorization failed: no basic auth credentials",
        ))
    }
}

impl Call<'_> {
    /// How long an answer may take to begin. An upload is watched by who sends it; its end, and the first byte of a blob,
    /// can take a registry as long as copying the whole of it does.
    fn patience(&self) -> Option<Duration> {
        match self.method {
            Method::PATCH => None,
            Method::PUT => Some(SLOW_ANSWER_LIMIT),
            Method::GET if self.is_verified() => Some(SLOW_ANSWER_LIMIT),
            _ => Some(ANSWER_LIMIT),
        }
    }

    /// Whether what is read is known by its digest, so that whoever is on the way can change nothing.
    fn is_verified(&self) -> bool {
        self.method == Method::GET && self.uri.contains("/blobs/sha")
    }
}

impl Endpoint {
    /// Where a host has a repository; an empty one stands for all.
    fn new(client: &RegistryClient, host: &Host, repository: &str) -> Result<Endpoint> {
        let way = Way { base: format!("{}/{repository}", host.base), http: client.client_for(&host.transport)? };
        let authority = way.base.strip_prefix("http://").and_then(|rest| rest.split('/').next());
        // One of which something is said of TLS may speak it, too, but not at the port that is plain HTTP's own
        // (containerd's `config/hosts.go`, "HTTP endpoints should attempt to use the TLS configuration").
        let untried = authority.is_some_and(|authority| {
            (is_loopback(authority) || host.transport.says_tls()) && !authority.ends_with(":80")
        });
        Ok(Endpoint {
            way: Mutex::new(way),
            credentials: Credentials::Anonymous,
            authorization: Mutex::new(None),
            headers: host.headers.clone(),
            resolve: host.resolve,
            pull: host.pull,
            namespace: None,
            untried: AtomicBool::new(untried),
            transport: host.transport.clone(),
        })
    }

    /// `SCHEME://HOST/v2/NAME`
    pub fn base(&self) -> String {
        self.way.lock().base.clone()
    }

    pub fn http(&self) -> Http {
        self.way.lock().http.clone()
    }

    fn authority(&self) -> Option<String> {
        self.base().parse::<Uri>().ok()?.authority().map(|authority| authority.as_str().to_owned())
    }

    /// An address that was made before it turned out that the endpoint speaks TLS.
    fn current(&self, uri: &str) -> String {
        match (uri.strip_prefix("http://"), self.base().strip_prefix("https://")) {
            (Some(rest), Some(own)) if rest.split('/').next() == own.split('/').next() => format!("https://{rest}"),
            _ => uri.to_owned(),
        }
    }

    pub fn is_plain(&self) -> bool {
        self.base().starts_with("http://")
    }

    /// Where a `Location` leads. From TLS there is no way back to plain HTTP but for content that is verified: a registry
    /// that takes itself for plain, behind somebody who speaks TLS for it, is asked by TLS again.
    pub fn absolute(&self, from: &str, location: &str, verified: bool) -> Result<String> {
        let from: Uri = from.parse().map_err(|_| Error::invalid(format!("malformed address {:?}", shown(from))))?;
        let to = resolve(&from, location);
        if to.starts_with("https://") || (self.is_plain() || verified) && to.starts_with("http://") {
            return Ok(to);
        }
        let address: Option<Uri> = to.strip_prefix("http://").and_then(|_| to.parse().ok());
        match (address.as_ref().and_then(Uri::host), from.authority()) {
            (Some(host), Some(authority)) if Some(host) == from.host() => {
                let path = address.as_ref().and_then(Uri::path_and_query).map_or("/", |path| path.as_str());
                Ok(format!("https://{authority}{path}"))
            }
            _ => Err(Error::unavailable(format!("refused to follow a redirect from TLS to {:?}", shown(&to)))),
        }
    }
}

/// Whether the same request may be answered differently later.
pub(super) fn is_passing(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::REQUEST_TIMEOUT
}

/// What a registry says when it refuses a write.
pub(super) async fn refusal(what: &str, response: Response<Incoming>) -> Error {
    let status = response.status();
    let words = said(response).await.unwrap_or_else(|| format!("unexpected status: {status}"));
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Error::denied(words),
        StatusCode::NOT_FOUND => Error::not_found(format!("{what}: {words}")),
        status if is_passing(status) => Error::unavailable(format!("{what}: {words}")),
        _ => Error::invalid(format!("{what}: {words}")),
    }
}

/// A status that nobody waited for, with what the registry says of it.
pub(super) async fn unexpected(method: &Method, uri: &str, response: Response<Incoming>) -> String {
    let status = response.status();
    let words = said(response).await.map(|words| format!(": {words}")).unwrap_or_default();
    format!("unexpected status from {method} request to {}: {status}{words}", shown(uri))
}

/// A registry's own words (distribution specification, "Error codes"; token servers say `details`).
async fn said(response: Response<Incoming>) -> Option<String> {
    #[derive(Deserialize)]
    struct Said {
        #[serde(default)]
        errors: Vec<Entry>,
        #[serde(default)]
        details: String,
    }
    #[derive(Deserialize)]
    struct Entry {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let said: Said = serde_json::from_slice(&body(response, 64 << 10).await.ok()?).ok()?;
    let entries = said.errors.iter().map(|entry| format!("{}: {}", entry.code.to_lowercase(), entry.message));
    let words = entries.chain(Some(said.details).filter(|details| !details.is_empty())).collect::<Vec<_>>();
    (!words.is_empty()).then(|| words.join(", "))
}

/// Seconds that the registry wants to be left alone.
fn retry_after(response: &Response<Incoming>) -> u64 {
    let value = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    value.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

fn accept() -> String {
    [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST, "*/*"].join(", ")
}

/// The query of the next page (RFC 8288, `<…?n=…&last=…>; rel="next"`).
fn next_page(link: &str) -> Option<String> {
    let (address, rest) = link.trim().strip_prefix('<')?.split_once('>')?;
    let query = address.split_once('?')?.1;
    (rest.contains("next") && !query.is_empty()).then(|| query.to_owned())
}

pub(super) fn same_host(a: &str, b: &str) -> bool {
    let origin = |text: &str| text.parse::<Uri>().ok().map(|uri| (uri.scheme().cloned(), uri.authority().cloned()));
    origin(a).is_some_and(|a| Some(a) == origin(b))
}

/// Reads a small body.
pub(super) async fn body(response: Response<Incoming>, limit: u64) -> Result<Vec<u8>> {
    let limited = Limited::new(response.into_body(), limit as usize);
    let collected = timeout(ANSWER_LIMIT, limited.collect())
        .await
        .map_err(|_| Error::deadline("the registry's answer does not end"))?;
    collected.map(|collected| collected.to_bytes().to_vec()).map_err(|error| {
        match error.downcast_ref::<LengthLimitError>() {
            // It will be as long the next time.
            Some(_) => Error::invalid(format!("the registry's answer is larger than {limit} bytes")),
            None => Error::unavailable(format!("read the registry's answer: {error}")),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_lead_where_they_may() {
        let client = RegistryClient::new(Default::default(), Default::default()).unwrap();
        let endpoint = |base: &str| {
            let (base, transport) = (base.to_owned(), Transport::default());
            let host = Host { base, transport, headers: vec![], resolve: true, pull: true, push: true };
            Endpoint::new(&client, &host, "a").unwrap()
        };
        let (tls, plain) = (endpoint("https://r.example:5000/v2"), endpoint("http://r.example/v2"));
        let from = "https://r.example:5000/v2/a/blobs/uploads/";
        for (location, expected) in [
            ("/v2/a/x?y=z", "https://r.example:5000/v2/a/x?y=z"),
            ("next?y=z", "https://r.example:5000/v2/a/blobs/uploads/next?y=z"),
            ("?y=z", "https://r.example:5000/v2/a/blobs/uploads/?y=z"),
            ("../up", "https://r.example:5000/v2/a/blobs/up"),
            ("//cdn.example/b", "https://cdn.example/b"),
            ("https://cdn.example/b", "https://cdn.example/b"),
            ("http://r.example/v2/a/x?y", "https://r.example:5000/v2/a/x?y"),
        ] {
            assert_eq!(tls.absolute(from, location, false).unwrap(), expected, "{location}");
        }
        let refused = tls.absolute(from, "http://cdn.example/b?X-Signature=s", false).unwrap_err().to_string();
        assert!(refused.contains("from TLS to \"http://cdn.example/b?[REDACTED]\""), "{refused}");
        assert_eq!(tls.absolute(from, "http://cdn.example/b", true).unwrap(), "http://cdn.example/b");
        assert_eq!(plain.absolute("http://r.example/", "http://cdn.example/b", false).unwrap(), "http://cdn.example/b");
        assert!(tls.absolute(from, "file:///etc/passwd", true).is_err());
    }

    #[test]
    fn pages_follow_each_other() {
        let link = r#"</v2/a/tags/list?last=b&n=100>; rel="next""#;
        assert_eq!(next_page(link).as_deref(), Some("last=b&n=100"));
        assert_eq!(next_page("<x>; rel=\"next\""), None);
    }
}
