//! Tokens of a registry's token server (Docker's "Token Authentication Specification" and its OAuth 2 form).

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, StatusCode, Uri,
    header::{AUTHORIZATION, CONTENT_TYPE, LOCATION},
};
use http_body_util::{BodyExt, Full};
use serde::Deserialize;

use super::{
    ANSWER_LIMIT, Credentials,
    challenge::Challenge,
    repository::{Endpoint, MAX_REDIRECTS, Repository, body, is_passing, same_host, unexpected},
    resolve, shown,
};
use crate::{
    error::{Error, Result},
    images::manifest::MAX_DOCUMENT,
};

const CLIENT: &str = "coracle";

/// What lets somebody in.
pub(super) struct Token {
    pub access: String,
    /// For later, in place of a password.
    pub refresh: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Answer {
    token: String,
    access_token: String,
    refresh_token: String,
}

impl Repository {
    /// Asks the server that a challenge names. A refresh token goes the way of OAuth 2, as moby and containerd have it; a
    /// password goes as the specification's first form has it, which every server takes.
    pub(super) async fn token(&self, endpoint: &Endpoint, challenge: &Challenge) -> Result<Token> {
        let realm = challenge.get("realm").ok_or_else(|| Error::invalid("the registry's challenge has no realm"))?;
        let anonymous = endpoint.credentials == Credentials::Anonymous;
        // Nothing secret goes there: what an anonymous client is told may go in the open.
        if !realm.starts_with("https://") && !((endpoint.is_plain() || anonymous) && realm.starts_with("http://")) {
            return Err(Error::denied(format!("refused to send credentials to {:?}", shown(realm))));
        }
        let scopes = self.scopes_for(challenge.get("scope"));
        let service = challenge.get("service");
        if let Credentials::Refresh(token) = &endpoint.credentials {
            let mut form = vec![("grant_type", "refresh_token"), ("refresh_token", token), ("client_id", CLIENT)];
            form.extend(service.map(|service| ("service", service)));
            let scopes = scopes.join(" ");
            form.extend(Some(("scope", scopes.as_str())).filter(|(_, scopes)| !scopes.is_empty()));
            match self.ask(endpoint, Method::POST, realm.to_owned(), Some(query(form))).await? {
                Ok(token) => return Ok(token),
                // Servers without that form, as containerd knows them.
                Err(refused)
                    if !matches!(
                        refused.0,
                        StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::NOT_FOUND
                    ) =>
                {
                    return Err(refused.1);
                }
                Err(_) => {}
            }
        }
        let mut parameters: Vec<(&str, &str)> = scopes.iter().map(|scope| ("scope", scope.as_str())).collect();
        parameters.extend(service.map(|service| ("service", service)));
        if self.login {
            parameters.extend([("client_id", CLIENT), ("offline_token", "true")]);
            if let Credentials::Basic { username, .. } = &endpoint.credentials {
                parameters.push(("account", username));
            }
        }
        let separator = if realm.contains('?') { '&' } else { '?' };
        let uri = match &query(parameters)[..] {
            "" => realm.to_owned(),
            query => format!("{realm}{separator}{query}"),
        };
        self.ask(endpoint, Method::GET, uri, None).await?.map_err(|(_, error)| error)
    }

    /// One question and its redirects; the server's own host alone sees credentials. A refusal comes with its status.
    async fn ask(
        &self,
        endpoint: &Endpoint,
        method: Method,
        first: String,
        form: Option<String>,
    ) -> Result<std::result::Result<Token, (StatusCode, Error)>> {
        let mut uri = first.clone();
        for _ in 0..=MAX_REDIRECTS {
            let address: Uri =
                uri.parse().map_err(|_| Error::invalid(format!("malformed address {:?}", shown(&uri))))?;
            let content = form.clone().unwrap_or_default();
            let mut request =
                Request::new(Full::new(Bytes::from(content)).map_err(|never| match never {}).boxed_unsync());
            *request.method_mut() = method.clone();
            *request.uri_mut() = address.clone();
            if form.is_some() {
                let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
                request.headers_mut().insert(CONTENT_TYPE, kind);
            } else if same_host(&uri, &first)
                && let Some(header) = endpoint.credentials.for_token()
                && let Ok(mut header) = HeaderValue::from_str(&header)
            {
                header.set_sensitive(true);
                request.headers_mut().insert(AUTHORIZATION, header);
            }
            let response = self.client.send(&endpoint.http(), request, Some(ANSWER_LIMIT)).await?;
            let status = response.status();
            if status.is_redirection() && form.is_none() {
                let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
                uri = resolve(&address, location.unwrap_or_default());
                continue;
            }
            if !status.is_success() {
                let text = format!(
                    "failed to authorize: failed to fetch oauth token: {}",
                    unexpected(&method, &uri, response).await
                );
                let error = if is_passing(status) { Error::unavailable(text) } else { Error::denied(text) };
                return Ok(Err((status, error)));
            }
            let answer: Answer = serde_json::from_slice(&body(response, MAX_DOCUMENT).await?)
                .map_err(|error| Error::invalid(format!("malformed token: {error}")))?;
            let access = if answer.token.is_empty() { answer.access_token } else { answer.token };
            if access.is_empty() {
                return Err(Error::denied("the token server gave no token"));
            }
            return Ok(Ok(Token { access, refresh: Some(answer.refresh_token).filter(|token| !token.is_empty()) }));
        }
        Err(Error::unavailable(format!("the token server: stopped after {MAX_REDIRECTS} redirects")))
    }

    /// What is asked for: what is to be done, and what the registry wants besides, as a mirror with names of its own does.
    fn scopes_for(&self, challenged: Option<&str>) -> Vec<String> {
        let mut out = self.scopes.clone();
        if self.login {
            return out;
        }
        for scope in challenged.unwrap_or_default().split(' ').filter(|scope| !scope.is_empty()) {
            let resource = scope.rsplit_once(':').map_or(scope, |(resource, _)| resource);
            if !out.iter().any(|own| own.rsplit_once(':').is_some_and(|(own, _)| own == resource)) {
                out.push(scope.to_owned());
            }
        }
        out
    }
}

/// `key=value&…`
fn query<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let pairs = pairs.into_iter().map(|(key, value)| format!("{key}={}", encode(value)));
    pairs.collect::<Vec<_>>().join("&")
}

/// Percent-encodes a query's value.
fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b':' | b'/');
    text.bytes().map(|byte| if plain(byte) { (byte as char).to_string() } else { format!("%{byte:02X}") }).collect()
}
