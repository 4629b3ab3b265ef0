//! `pods/log`: streamed through from the kubelet of the pod's node.

use super::kubelet;
use crate::registry::fields::{NON_NEGATIVE, text};
use crate::verbs::{Call, Response};
use axum::body::Body;
use coracle_api::status::FieldPath;
use coracle_api::{Cause, Gvk, Status, clock, go};
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use std::time::Duration;

const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// How much of a kubelet's error is passed on.
const ERROR_MAX: usize = 16 << 10;

/// Query options of a log that are passed on to the kubelet.
const PASSED: [&str; 7] = ["follow", "previous", "sinceSeconds", "sinceTime", "timestamps", "tailLines", "limitBytes"];

/// What cannot be asked of a log: what cannot be read, in the order in which upstream reads it (api/core/v1, the generated
/// conversion of `url.Values` to `PodLogOptions`), and what is out of bounds (core `ValidatePodLogOptions`); `stream` is alpha in
/// v1.36.
fn check(call: &Call) -> Result<(), Status> {
    let option =
        |name: &str| call.options.pairs.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let number = |name: &str| option(name).map(go::parse_int).transpose().map_err(Status::bad_request);
    let since = number("sinceSeconds")?;
    // Older clients wrote it as JSON.
    if let Some(time) = option("sinceTime").filter(|time| !matches!(*time, "" | "null"))
        && clock::parse_rfc3339(time).is_none()
    {
        let layout = "2006-01-02T15:04:05Z07:00";
        return Err(Status::bad_request(format!(
            "parsing time {time:?} as {layout:?}: cannot parse {time:?} as \"2006\""
        )));
    }
    let (lines, bytes) = (number("tailLines")?, number("limitBytes")?);
    let mut causes = Vec::new();
    let mut at_least = |name: &str, given: Option<i64>, least: i64, why: &str| {
        if let Some(given) = given.filter(|given| *given < least) {
            causes.push(Cause::invalid(&FieldPath::new(name), given, why));
        }
    };
    at_least("tailLines", lines, 0, NON_NEGATIVE);
    at_least("limitBytes", bytes, 1, "must be greater than 0");
    let both = since.is_some() && option("sinceTime").is_some();
    if !both {
        at_least("sinceSeconds", since, 1, "must be greater than 0");
    }
    if both {
        // So upstream shows a path of nothing.
        let why = "at most one of `sinceTime` or `sinceSeconds` may be specified";
        causes.push(Cause::forbidden(&FieldPath::new("[]"), why));
    }
    if option("stream").is_some() {
        causes.push(Cause::forbidden(&FieldPath::new("stream"), "may not be specified"));
    }
    let options = Gvk { group: "".into(), version: "v1".into(), kind: "PodLogOptions".into() };
    if causes.is_empty() { Ok(()) } else { Err(Status::invalid(&options, &call.name, causes)) }
}

/// GET …/pods/NAME/log
pub async fn log(call: Call) -> Result<Response, Status> {
    check(&call)?;
    let pod = call.current().await?.value;
    let container = kubelet::container(&call, &pod)?;
    let node = text(&pod["spec"], "nodeName").to_owned();
    if node.is_empty() {
        // As upstream: a pod that was not placed yet has no log, and that is no error.
        let mut nothing = http::Response::new(Body::empty());
        *nothing.status_mut() = StatusCode::NO_CONTENT;
        return Ok(nothing);
    }
    let address = kubelet::address(&call, &node)?;
    let mut path = format!("/containerLogs/{}/{}/{container}", call.namespace, call.name);
    for (name, value) in call.options.pairs.iter().filter(|(name, _)| PASSED.contains(&name.as_str())) {
        path.push(if path.contains('?') { '&' } else { '?' });
        path.push_str(&format!("{name}={}", kubelet::escape(value)));
    }
    let failed = |why: String| Status::internal(format!("Get \"https://{address}{path}\": {why}"));
    let response = get(&call.server.kubelet, address, &path).await.map_err(failed)?;
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

/// Sends a GET and gives the answer's head with its body still to come.
async fn get(
    kubelet: &kubelet::KubeletClient,
    address: SocketAddr,
    path: &str,
) -> Result<http::Response<hyper::body::Incoming>, String> {
    let tls = kubelet.connect(address).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Body>(TokioIo::new(tls)).await.map_err(|error| error.to_string())?;
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
