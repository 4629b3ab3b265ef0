//! One repository of one registry (or its mirrors): reading, and being let in.

use std::sync::atomic::{AtomicUsize, Ordering};

use http::{
    HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, LOCATION, RANGE, WWW_AUTHENTICATE},
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::time::timeout;
use tracing::warn;

use super::{ANSWER_LIMIT, Body, Credentials, RegistryClient, nothing};
use crate::{
    digest::Digest,
    error::{Error, Result},
    images::{
        manifest::{DOCKER_LIST, DOCKER_MANIFEST, MAX_DOCUMENT, OCI_INDEX, OCI_MANIFEST},
        reference::Reference,
    },
};

const MAX_REDIRECTS: usize = 5;

/// One repository, with what is needed to be let in.
pub struct Repository {
    pub(super) client: RegistryClient,
    endpoints: Vec<Endpoint>,
    /// The one that answered last.
    preferred: AtomicUsize,
    /// What is asked of a token server.
    scopes: Vec<String>,
}

/// Where a repository is served.
pub(super) struct Endpoint {
    /// `SCHEME://HOST/v2/NAME`
    pub base: String,
    credentials: Credentials,
    /// The header that worked last.
    authorization: Mutex<Option<String>>,
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
        mirrors: Vec<String>,
        credentials: Credentials,
        actions: &str,
    ) -> Repository {
        // Credentials are the registry's; a mirror is somebody else.
        let endpoint = |address: String, credentials| Endpoint {
            base: format!("{address}/v2/{}", reference.repository),
            credentials,
            authorization: Mutex::new(None),
        };
        let mut endpoints: Vec<Endpoint> =
            mirrors.into_iter().map(|address| endpoint(address, Credentials::Anonymous)).collect();
        endpoints.push(endpoint(client.address(reference), credentials));
        let scopes = vec![format!("repository:{}:{actions}", reference.repository)];
        Repository { client, endpoints, preferred: AtomicUsize::new(0), scopes }
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
        let accept = [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST, "*/*"].join(", ");
        let response = self.get(&format!("/manifests/{reference}"), &[(ACCEPT, accept)]).await?;
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
        let mut headers = vec![(ACCEPT, "*/*".to_owned())];
        if offset > 0 {
            headers.push((RANGE, format!("bytes={offset}-")));
        }
        self.get(&format!("/blobs/{digest}"), &headers).await
    }

    /// Asks the endpoint that answered last, then those after it.
    async fn get(&self, path: &str, headers: &[(HeaderName, String)]) -> Result<Response<Incoming>> {
        let first = self.preferred.load(Ordering::Relaxed);
        let mut last = None;
        for (index, endpoint) in self.endpoints.iter().enumerate().skip(first) {
            match self.get_from(endpoint, path, headers).await {
                Ok(response) => {
                    self.preferred.store(index, Ordering::Relaxed);
                    return Ok(response);
                }
                Err(error) => {
                    if index + 1 < self.endpoints.len() {
                        warn!(mirror = endpoint.base, %error, "a mirror does not help; trying the next");
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
        path: &str,
        headers: &[(HeaderName, String)],
    ) -> Result<Response<Incoming>> {
        let uri = format!("{}{path}", endpoint.base);
        let call = Call { method: Method::GET, uri, headers: headers.to_vec(), body: None };
        let response = self.call(endpoint, &call).await?;
        let unexpected = |status| format!("unexpected status from GET request to {}: {status}", call.uri);
        match response.status() {
            status if status.is_success() => Ok(response),
            StatusCode::NOT_FOUND => Err(Error::not_found("not found")),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(Error::denied(
                "pull access denied, repository does not exist or may require authorization: server message: insufficient_scope: authorization failed",
            )),
            // Too many requests and the server's own failures pass; what it does not understand it never will.
            status if is_passing(status) => Err(Error::unavailable(unexpected(status))),
            status => Err(Error::invalid(unexpected(status))),
        }
    }

    /// One request with its redirects; made again once if the registry wants to know who asks.
    pub(super) async fn call(&self, endpoint: &Endpoint, call: &Call<'_>) -> Result<Response<Incoming>> {
        let response = self.call_once(endpoint, call).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let challenges: Vec<String> = response
            .headers()
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok().map(str::to_owned))
            .collect();
        let header = self.authorize(endpoint, &challenges).await?;
        *endpoint.authorization.lock() = Some(header);
        self.call_once(endpoint, call).await
    }

    /// Only the registry's own host sees the authorization.
    async fn call_once(&self, endpoint: &Endpoint, call: &Call<'_>) -> Result<Response<Incoming>> {
        let mut uri = call.uri.clone();
        for _ in 0..=MAX_REDIRECTS {
            let address: Uri = uri.parse().map_err(|_| Error::invalid(format!("malformed address {uri:?}")))?;
            let mut request = Request::new(call.body.map_or_else(nothing, |body| body()));
            *request.uri_mut() = address;
            *request.method_mut() = call.method.clone();
            for (name, value) in &call.headers {
                if let Ok(value) = HeaderValue::from_str(value) {
                    request.headers_mut().insert(name, value);
                }
            }
            let authorization = endpoint.authorization.lock().clone();
            if let Some(header) = authorization.filter(|_| same_host(&uri, &endpoint.base))
                && let Ok(mut value) = HeaderValue::from_str(&header)
            {
                value.set_sensitive(true);
                request.headers_mut().insert(AUTHORIZATION, value);
            }
            let response = self.client.send(request).await?;
            if !response.status().is_redirection() {
                return Ok(response);
            }
            let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
            uri = endpoint.absolute(&uri, location)?;
        }
        Err(Error::unavailable(format!("stopped after {MAX_REDIRECTS} redirects")))
    }

    /// Answers a challenge (RFC 7235; Docker "Token Authentication Specification").
    async fn authorize(&self, endpoint: &Endpoint, challenges: &[String]) -> Result<String> {
        if let Credentials::Bearer(token) = &endpoint.credentials {
            return Ok(format!("Bearer {token}"));
        }
        for challenge in challenges {
            let (scheme, parameters) = challenge.split_once(' ').unwrap_or((challenge, ""));
            if scheme.eq_ignore_ascii_case("bearer") {
                return self.token(endpoint, parameters).await;
            }
            if scheme.eq_ignore_ascii_case("basic")
                && let Some(header) = endpoint.credentials.basic()
            {
                return Ok(header);
            }
        }
        Err(Error::denied(
            "pull access denied, repository does not exist or may require authorization: authorization failed: no basic auth credentials",
        ))
    }

    async fn token(&self, endpoint: &Endpoint, parameters: &str) -> Result<String> {
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
        if !(realm.starts_with("https://") || endpoint.is_plain() && realm.starts_with("http://")) {
            return Err(Error::denied(format!("refused to send credentials to {realm:?}")));
        }
        let mut uri = realm.to_owned();
        for (index, scope) in self.scopes.iter().enumerate() {
            uri.push(if index > 0 || realm.contains('?') { '&' } else { '?' });
            uri.push_str(&format!("scope={}", encode(scope)));
        }
        if let Some(service) = get("service") {
            uri.push_str(&format!("&service={}", encode(service)));
        }
        let mut request = Request::new(nothing());
        *request.uri_mut() = uri.parse().map_err(|_| Error::invalid(format!("malformed address {uri:?}")))?;
        let header = match &endpoint.credentials {
            Credentials::Refresh(token) => Some(format!("Bearer {token}")),
            credentials => credentials.basic(),
        };
        if let Some(header) = header.and_then(|header| HeaderValue::from_str(&header).ok()) {
            request.headers_mut().insert(AUTHORIZATION, header);
        }
        let response = self.client.send(request).await?;
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

impl Endpoint {
    fn is_plain(&self) -> bool {
        self.base.starts_with("http://")
    }

    /// Where a `Location` leads.
    pub fn absolute(&self, from: &str, location: &str) -> Result<String> {
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
        let allowed = to.starts_with("https://") || self.is_plain() && to.starts_with("http://");
        if allowed { Ok(to) } else { Err(Error::unavailable(format!("refused to follow a redirect to {location:?}"))) }
    }
}

/// Whether the same request may be answered differently later.
fn is_passing(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::REQUEST_TIMEOUT
}

/// What a registry says when it refuses (distribution specification, "Error codes").
pub(super) async fn refusal(what: &str, response: Response<Incoming>) -> Error {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let status = response.status();
    let said = body(response, 64 << 10).await.unwrap_or_default();
    let entries = serde_json::from_slice::<Errors>(&said).map(|errors| errors.errors).unwrap_or_default();
    let words: Vec<String> =
        entries.iter().map(|entry| format!("{}: {}", entry.code.to_lowercase(), entry.message)).collect();
    let words = if words.is_empty() { format!("unexpected status: {status}") } else { words.join(", ") };
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Error::denied(words),
        StatusCode::NOT_FOUND => Error::not_found(format!("{what}: {words}")),
        status if is_passing(status) => Error::unavailable(format!("{what}: {words}")),
        _ => Error::invalid(format!("{what}: {words}")),
    }
}

fn same_host(a: &str, b: &str) -> bool {
    let origin = |text: &str| text.parse::<Uri>().ok().map(|uri| (uri.scheme().cloned(), uri.authority().cloned()));
    origin(a).is_some_and(|a| Some(a) == origin(b))
}

/// Reads a small body.
async fn body(response: Response<Incoming>, limit: u64) -> Result<Vec<u8>> {
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
}
