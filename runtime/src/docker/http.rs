//! What handlers receive and answer: the request with its version and query, JSON, errors in dockerd's shape.

use std::{collections::BTreeMap, sync::Arc};

use axum::body::Body;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::Docker;
use crate::error::{Error, Kind};

/// Largest JSON body; a container's configuration has a few kilobytes.
const MAX_JSON: usize = 4 << 20;

/// An answer of the API.
pub type Answer = Result<Response<Body>, Problem>;

/// An answer that is an error: a status and the message that clients show.
#[derive(Debug)]
pub struct Problem {
    pub status: StatusCode,
    pub message: String,
}

impl Problem {
    pub fn new(status: StatusCode, message: impl Into<String>) -> Problem {
        Problem { status, message: go_words(message.into()) }
    }

    pub fn bad(message: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, message)
    }

    pub fn not_found(message: impl Into<String>) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, message)
    }

    pub fn conflict(message: impl Into<String>) -> Problem {
        Problem::new(StatusCode::CONFLICT, message)
    }

    pub fn denied(message: impl Into<String>) -> Problem {
        Problem::new(StatusCode::FORBIDDEN, message)
    }

    pub fn internal(message: impl Into<String>) -> Problem {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// The error as a response.
    pub fn response(&self) -> Response<Body> {
        json_response(self.status, &json!({ "message": self.message }))
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Problem {
        let status = match error.kind() {
            Kind::NotFound => StatusCode::NOT_FOUND,
            Kind::AlreadyExists | Kind::FailedPrecondition => StatusCode::CONFLICT,
            Kind::InvalidArgument => StatusCode::BAD_REQUEST,
            Kind::PermissionDenied => StatusCode::FORBIDDEN,
            Kind::Unimplemented => StatusCode::NOT_IMPLEMENTED,
            Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Kind::DeadlineExceeded | Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Problem::new(status, error.to_string())
    }
}

/// The kernel's errors as Go writes them: `Connection refused (os error 111)` becomes `connection refused`.
fn go_words(mut out: String) -> String {
    const MARK: &str = " (os error ";
    while let Some(at) = out.find(MARK) {
        let Some(length) = out[at..].find(')') else { break };
        let number = out[at + MARK.len()..at + length].parse().unwrap_or(0);
        let words = coracle_launcher::sys::strerror(number);
        let start = at
            .checked_sub(words.len())
            .filter(|&start| out.get(start..at).is_some_and(|before| before.eq_ignore_ascii_case(&words)));
        out.replace_range(at..=at + length, "");
        if let Some(start) = start {
            out.replace_range(start..at, &words);
        }
    }
    out
}

/// One request on its way to a handler.
pub struct Call {
    pub docker: Arc<Docker>,
    /// The minor number of the API version the client speaks.
    pub version: u16,
    /// What the braces of the route's template stand for.
    pub parameters: Vec<String>,
    pub query: Query,
    pub request: Request<Incoming>,
}

impl Call {
    /// The first name in the path.
    pub fn name(&self) -> &str {
        self.parameters.first().map(String::as_str).unwrap_or_default()
    }

    /// The body as JSON; nulls count as absent, as Go decodes them.
    pub async fn json<T: DeserializeOwned>(&mut self) -> Result<T, Problem> {
        self.json_or(None).await
    }

    /// The body as JSON, or a default when there is none.
    pub async fn json_or<T: DeserializeOwned>(&mut self, otherwise: Option<T>) -> Result<T, Problem> {
        let bytes = self.bytes(MAX_JSON).await?;
        if bytes.is_empty()
            && let Some(otherwise) = otherwise
        {
            return Ok(otherwise);
        }
        let kind = self.request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        match kind.map(|kind| kind.split(';').next().unwrap_or_default().trim()) {
            Some("application/json") | None => {}
            Some(other) => {
                return Err(Problem::new(
                    StatusCode::BAD_REQUEST,
                    format!("unsupported Content-Type header ({other}): must be 'application/json'"),
                ));
            }
        }
        if bytes.is_empty() {
            return Err(Problem::bad("invalid JSON: got EOF while reading request body"));
        }
        parse(&bytes)
    }

    /// The whole body, up to a limit.
    pub async fn bytes(&mut self, limit: usize) -> Result<Bytes, Problem> {
        let body = http_body_util::Limited::new(self.request.body_mut(), limit);
        let collected = body.collect().await;
        collected
            .map(|collected| collected.to_bytes())
            .map_err(|error| Problem::bad(format!("error reading request body: {error}")))
    }

    /// The body as a blocking reader, for work on another thread.
    pub fn reader(self) -> impl std::io::Read + Send + 'static {
        let stream = futures::TryStreamExt::map_err(self.request.into_body().into_data_stream(), std::io::Error::other);
        tokio_util::io::SyncIoBridge::new(tokio_util::io::StreamReader::new(stream))
    }
}

/// Decodes JSON as Go does: null leaves a field as it was.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut value: Value = serde_json::from_slice(bytes).map_err(|error| {
        if error.is_eof() {
            Problem::bad("invalid JSON: unexpected EOF")
        } else {
            Problem::bad(format!("invalid JSON: {error}"))
        }
    })?;
    strip_nulls(&mut value);
    if value.is_null() {
        value = json!({});
    }
    serde_json::from_value(value).map_err(|error| Problem::bad(format!("invalid JSON: {error}")))
}

/// Removes null members of objects, however deep.
pub fn strip_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(strip_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(strip_nulls),
        _ => {}
    }
}

/// The query of a request.
#[derive(Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    pub fn parse(text: &str) -> Query {
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        Query(
            pairs
                .map(|pair| {
                    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decode(key), decode(value))
                })
                .collect(),
        )
    }

    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// The value, empty if it is not given.
    pub fn text(&self, key: &str) -> &str {
        self.get(key).unwrap_or_default()
    }

    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// dockerd's `httputils.BoolValue`: everything but a few words is true.
    pub fn flag(&self, key: &str) -> bool {
        !matches!(self.text(key).trim().to_lowercase().as_str(), "" | "0" | "no" | "false" | "none")
    }

    pub fn flag_or(&self, key: &str, otherwise: bool) -> bool {
        if self.get(key).is_some() { self.flag(key) } else { otherwise }
    }

    /// A number; not one is an error in Go's words.
    pub fn number(&self, key: &str) -> Result<Option<i64>, Problem> {
        match self.text(key) {
            "" => Ok(None),
            text => text
                .parse()
                .map(Some)
                .map_err(|_| Problem::bad(format!("strconv.Atoi: parsing \"{text}\": invalid syntax"))),
        }
    }

    /// `filters`: key → values, in both forms that clients send; keys that `known` has not are refused.
    pub fn filters(&self, known: &[&str]) -> Result<Filters, Problem> {
        let text = self.text("filters");
        let mut out = BTreeMap::new();
        if !text.is_empty() {
            let value: Value =
                serde_json::from_str(text).map_err(|_| Problem::bad(format!("invalid character in filter: {text}")))?;
            let Value::Object(members) = value else { return Err(Problem::bad("invalid filter")) };
            for (key, values) in members {
                if !known.contains(&key.as_str()) {
                    return Err(Problem::bad(format!("invalid filter '{key}'")));
                }
                let values: Vec<String> = match values {
                    Value::Array(items) => items.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
                    Value::Object(map) => {
                        map.into_iter().filter(|(_, on)| on.as_bool() != Some(false)).map(|(key, _)| key).collect()
                    }
                    Value::Null => Vec::new(),
                    _ => return Err(Problem::bad("invalid filter")),
                };
                out.insert(key, values);
            }
        }
        Ok(Filters(out))
    }
}

/// What a list is narrowed by.
#[derive(Debug, Default)]
pub struct Filters(BTreeMap<String, Vec<String>>);

impl Filters {
    pub fn get(&self, key: &str) -> &[String] {
        self.0.get(key).map(Vec::as_slice).unwrap_or_default()
    }

    pub fn has(&self, key: &str) -> bool {
        !self.get(key).is_empty()
    }

    /// Whether one of the key's values fits; true where the key is not given.
    pub fn any(&self, key: &str, fits: impl Fn(&str) -> bool) -> bool {
        !self.has(key) || self.get(key).iter().any(|value| fits(value))
    }

    /// Whether all of the key's values fit.
    pub fn all(&self, key: &str, fits: impl Fn(&str) -> bool) -> bool {
        self.get(key).iter().all(|value| fits(value))
    }

    /// The `label` filter: `key` or `key=value`, all of them; and `label!`, none of them.
    pub fn labels(&self, labels: &BTreeMap<String, String>) -> bool {
        let has = |wanted: &str| match wanted.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|own| own == value),
            None => labels.contains_key(wanted),
        };
        self.all("label", has) && self.get("label!").iter().all(|wanted| !has(wanted))
    }

    /// A filter that is a truth value.
    pub fn truth(&self, key: &str) -> Result<Option<bool>, Problem> {
        match self.get(key) {
            [] => Ok(None),
            [value] => match value.as_str() {
                "1" | "true" | "True" | "t" => Ok(Some(true)),
                "0" | "false" | "False" | "f" => Ok(Some(false)),
                other => Err(Problem::bad(format!("invalid filter '{key}=[{other}]'"))),
            },
            _ => Err(Problem::bad(format!("invalid filter '{key}'"))),
        }
    }
}

/// Percent-decoding of a query, plus signs as spaces.
pub fn decode(text: &str) -> String {
    percent(&text.replace('+', " "))
}

/// Percent-decoding of a path.
pub fn percent(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while index < bytes.len() {
        let pair = (bytes[index] == b'%').then(|| text.get(index + 1..index + 3)).flatten();
        match pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                index += 3;
            }
            None => {
                out.push(bytes[index]);
                index += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn json_response<T: Serialize>(status: StatusCode, value: &T) -> Response<Body> {
    let mut bytes = serde_json::to_vec(value).unwrap_or_else(|_| b"{}".to_vec());
    bytes.push(b'\n');
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

/// 200 with JSON.
pub fn ok<T: Serialize>(value: &T) -> Answer {
    Ok(json_response(StatusCode::OK, value))
}

/// 201 with JSON.
pub fn created<T: Serialize>(value: &T) -> Answer {
    Ok(json_response(StatusCode::CREATED, value))
}

/// An answer without a body.
pub fn empty(status: StatusCode) -> Answer {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    Ok(response)
}

pub fn no_content() -> Answer {
    empty(StatusCode::NO_CONTENT)
}

/// 200 with bytes as they come; dropping the receiver ends the sender.
pub fn stream(content_type: &'static str, receiver: tokio::sync::mpsc::Receiver<Bytes>) -> Response<Body> {
    use futures::StreamExt;
    let stream = tokio_stream::wrappers::ReceiverStream::new(receiver).map(Ok::<_, std::convert::Infallible>);
    let mut response = Response::new(Body::from_stream(stream));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}

/// The same; the connection is broken off behind the last byte unless `outcome` says that it is the last.
pub fn stream_or_break(
    content_type: &'static str,
    receiver: tokio::sync::mpsc::Receiver<Bytes>,
    outcome: tokio::sync::oneshot::Receiver<bool>,
) -> Response<Body> {
    use futures::StreamExt;
    let end = async move {
        let whole = outcome.await.unwrap_or(false);
        (!whole).then(|| Err(std::io::Error::other("what is sent ends early")))
    };
    let end = futures::stream::once(end).filter_map(std::future::ready);
    let stream = tokio_stream::wrappers::ReceiverStream::new(receiver).map(Ok).chain(end);
    let mut response = Response::new(Body::from_stream(stream));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}

/// A value as one line of a JSON stream.
pub fn line<T: Serialize>(value: &T) -> Bytes {
    let mut bytes = serde_json::to_vec(value).unwrap_or_default();
    bytes.extend_from_slice(b"\r\n");
    bytes.into()
}

/// Whether a method carries no body worth reading.
pub fn is_head(method: &Method) -> bool {
    method == Method::HEAD
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_decode_and_filters_come_in_two_forms() {
        let query = Query::parse(
            "a=%2Fx+y&b=1&c=0&filters=%7B%22label%22%3A%5B%22k%3Dv%22%5D%2C%22status%22%3A%7B%22up%22%3Atrue%7D%7D",
        );
        assert_eq!(query.text("a"), "/x y");
        assert!(query.flag("b") && !query.flag("c") && !query.flag("d"));
        let filters = query.filters(&["label", "status"]).unwrap();
        assert_eq!(filters.get("status"), ["up"]);
        assert!(filters.labels(&[("k".to_owned(), "v".to_owned())].into()));
        assert!(!filters.labels(&[("k".to_owned(), "w".to_owned())].into()));
        assert_eq!(query.filters(&["label"]).unwrap_err().message, "invalid filter 'status'");
        assert!(Query::parse("n=x").number("n").is_err());
    }

    #[test]
    fn errors_of_the_kernel_are_in_gos_words() {
        let text = format!("dial tcp: connect: {}", std::io::Error::from_raw_os_error(libc::ECONNREFUSED));
        assert_eq!(go_words(text), "dial tcp: connect: connection refused");
        assert_eq!(go_words("odd (os error x) end".into()), "odd end");
    }

    #[test]
    fn nulls_are_absent() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(default)]
        struct Thing {
            list: Vec<String>,
        }
        impl Default for Thing {
            fn default() -> Thing {
                Thing { list: vec!["kept".into()] }
            }
        }
        assert_eq!(parse::<Thing>(br#"{"list":null}"#).unwrap().list, ["kept"]);
        assert!(parse::<Thing>(b"{").unwrap_err().message.contains("unexpected EOF"));
    }
}
