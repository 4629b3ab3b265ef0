//! `proxy` of pods, services and nodes: a request goes on to what the object stands for, and its answer comes back
//! (apimachinery `util/proxy/upgradeaware.go`).
//!
//! ```text
//! …/services/http:web:80/proxy/a/b?c ─► location ─► GET /a/b?c ─► answer, its links below …/proxy
//!                                                └► an upgrade joins the two connections
//! ```

mod location;
mod rewrite;

use super::fairness::Permit;
use super::kubelet::KubeletClient;
use super::serve;
use crate::verbs::{Call, Response};
use axum::body::Body;
use bytes::Bytes;
use coracle_api::Status;
use coracle_streaming::proxy as upgrade;
use flate2::write::{DeflateDecoder, GzDecoder};
use futures::StreamExt;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use location::Location;
use rewrite::{Links, Page, clean};
use std::io::{self, Write};
use tokio::io::{AsyncRead, AsyncWrite};

/// Headers that are about one connection (RFC 9110, 7.6.1).
const HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
];

/// What the client told this server to know it by: none of the other side's business.
const CREDENTIALS: [&str; 4] = ["authorization", "impersonate-", "x-remote-", "x-forwarded-client-cert"];

/// What would let another origin's page read this server's answers.
const CORS: [HeaderName; 4] = [
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_ALLOW_HEADERS,
    header::ACCESS_CONTROL_ALLOW_METHODS,
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
];

/// Where a request that goes on comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub std::net::IpAddr);

/// A connection to the other side.
trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// Where in the request's path the proxy ends, and what is asked of the other side.
struct Paths<'p> {
    prefix: &'p str,
    rest: String,
    query: Option<&'p str>,
}

impl<'p> Paths<'p> {
    /// The third part below the resource's name is `proxy`; what comes behind it is the other side's.
    fn of(uri: &'p http::Uri, subpath: Option<&str>) -> Self {
        let rest = subpath.unwrap_or_default();
        let path = uri.path();
        let prefix = path.strip_suffix(rest).unwrap_or(path);
        Self { prefix, rest: clean(rest), query: uri.query() }
    }

    fn onward(&self) -> String {
        let path = if self.rest.is_empty() { "/" } else { &self.rest };
        self.query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"))
    }
}

/// Answers with what the other side answers; after 101 the connections are one.
///
/// # Errors
/// When the object cannot be found, stands for no address, or nobody answers there.
pub async fn pass(
    call: Call,
    head: &Parts,
    body: Body,
    subpath: Option<&str>,
    permit: Permit,
) -> Result<Response, Status> {
    let location = location::find(&call).await?;
    let paths = Paths::of(&head.uri, subpath);
    let upgrades = upgrade::is_upgrade(&head.headers);
    if !upgrades && paths.rest.is_empty() && matches!(head.method, Method::GET | Method::HEAD) {
        // So that a page's relative links lead below the proxy.
        return moved(&format!(
            "{}/{}",
            paths.prefix,
            paths.query.map(|query| format!("?{query}")).unwrap_or_default()
        ));
    }
    let failed = |why: String| Status::service_unavailable(format!("error trying to reach service: {why}"));
    let connection = connect(&call.server.kubelet, &location).await.map_err(failed)?;
    let handshake = hyper::client::conn::http1::Builder::new()
        .preserve_header_case(true)
        // As the server itself takes; Go does not count an answer's headers either (net/http `MaxResponseHeaderBytes`).
        .max_headers(serve::HEADER_COUNT)
        .max_buf_size(serve::HEAD_MAX)
        .handshake::<_, Body>(TokioIo::new(connection));
    let (mut sender, driver) = handshake.await.map_err(|error| failed(error.to_string()))?;
    tokio::spawn(async move {
        if let Err(error) = driver.with_upgrades().await {
            tracing::debug!(%error, "a proxied connection broke off");
        }
    });
    let host = head.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.or_else(|| head.uri.authority().map(|authority| authority.as_str()));
    let host = host.map_or_else(|| location.address.to_string(), str::to_owned);
    let mut onward = Request::builder()
        .method(&head.method)
        .uri(paths.onward())
        .body(body)
        .map_err(|error| failed(error.to_string()))?;
    *onward.headers_mut() = request_headers(head, &paths, &host, upgrades)?;
    let answer = sender.send_request(onward).await.map_err(|error| failed(error.to_string()))?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(switched(head, answer, permit));
    }
    let own = vec![location.address.to_string(), location.address.ip().to_string(), host];
    answered(answer, Links { prefix: paths.prefix.to_owned(), own }, permit)
}

fn moved(to: &str) -> Result<Response, Status> {
    let mut response = http::Response::new(Body::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    let to = HeaderValue::try_from(to).map_err(|error| Status::bad_request(error.to_string()))?;
    response.headers_mut().insert(header::LOCATION, to);
    Ok(response)
}

async fn connect(kubelet: &KubeletClient, to: &Location) -> Result<Box<dyn Connection>, String> {
    Ok(match (to.is_kubelet, to.secure) {
        (true, _) => Box::new(kubelet.connect(to.address).await?),
        // Nobody knows by which authority what runs in a pod is known (upstream's proxy transport checks nothing either).
        (false, true) => Box::new(kubelet.connect_unchecked(to.address).await?),
        (false, false) => Box::new(kubelet.connect_plain(to.address).await?),
    })
}

/// The client's headers, but for those between it and this server.
fn request_headers(head: &Parts, paths: &Paths<'_>, host: &str, upgrades: bool) -> Result<HeaderMap, Status> {
    let mut headers = head.headers.clone();
    strip_hop(&mut headers, upgrades);
    let secret = |name: &HeaderName| CREDENTIALS.iter().any(|known| name.as_str().starts_with(known));
    for name in headers.keys().filter(|name| secret(name)).cloned().collect::<Vec<_>>() {
        headers.remove(name);
    }
    let value = |text: &str| HeaderValue::from_str(text).map_err(|error| Status::bad_request(error.to_string()));
    headers.insert(header::HOST, value(host)?);
    headers.insert("x-forwarded-uri", value(&format!("{}{}", paths.prefix, paths.rest))?);
    // What is in front of this server may have named its client. It alone knows host and scheme: what it says of them passes.
    if let Some(Peer(peer)) = head.extensions.get::<Peer>() {
        const FOR: &str = "x-forwarded-for";
        let before = headers.get_all(FOR).iter().filter_map(|value| value.to_str().ok());
        let chain: Vec<String> = before.map(str::to_owned).chain([peer.to_canonical().to_string()]).collect();
        headers.insert(FOR, value(&chain.join(", "))?);
    }
    Ok(headers)
}

/// Removes what is about one connection, and what `Connection` says is.
fn strip_hop(headers: &mut HeaderMap, upgrades: bool) {
    let upgrade = headers.get(header::UPGRADE).cloned().filter(|_| upgrades);
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in HOP.iter().chain(&named).chain([&header::UPGRADE]) {
        headers.remove(name);
    }
    if let Some(upgrade) = upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, upgrade);
    }
}

/// Joins the connections.
fn switched(head: &Parts, answer: http::Response<Incoming>, permit: Permit) -> Response {
    let mut response = http::Response::new(Body::empty());
    *response.status_mut() = answer.status();
    *response.headers_mut() = answer.headers().clone();
    strip_hop(response.headers_mut(), true);
    // The parts hold the client's connection until it is upgraded.
    let mut request = Request::from_parts(head.clone(), ());
    upgrade::join_when_upgraded(hyper::upgrade::on(&mut request), hyper::upgrade::on(answer), permit);
    response
}

fn answered(answer: http::Response<Incoming>, links: Links, permit: Permit) -> Result<Response, Status> {
    let (mut head, body) = answer.into_parts();
    strip_hop(&mut head.headers, false);
    for name in CORS {
        head.headers.remove(name);
    }
    if let Some(to) = head.headers.get(header::LOCATION).and_then(|to| to.to_str().ok()) {
        let to = HeaderValue::from_str(&links.url(to)).map_err(Status::internal)?;
        head.headers.insert(header::LOCATION, to);
    } else if let Some(page) = Pages::of(&head.headers, links) {
        head.headers.remove(header::CONTENT_LENGTH);
        head.headers.remove(header::CONTENT_ENCODING);
        return Ok(http::Response::from_parts(head, page.body(body, permit)));
    }
    Ok(super::holding(http::Response::from_parts(head, Body::new(body)), permit))
}

/// A page on its way: unpacked, and its links rewritten.
struct Pages {
    page: Page,
    unpack: Unpack,
}

enum Unpack {
    Plain,
    Gzip(Box<GzDecoder<Vec<u8>>>),
    Deflate(Box<DeflateDecoder<Vec<u8>>>),
}

impl Unpack {
    fn push(&mut self, piece: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Unpack::Plain => Ok(piece.to_vec()),
            Unpack::Gzip(decoder) => {
                decoder.write_all(piece)?;
                decoder.flush()?;
                Ok(std::mem::take(decoder.get_mut()))
            }
            Unpack::Deflate(decoder) => {
                decoder.write_all(piece)?;
                decoder.flush()?;
                Ok(std::mem::take(decoder.get_mut()))
            }
        }
    }
}

impl Pages {
    /// None for what is no page, or is packed in a way that is not known: that passes as it is.
    fn of(headers: &HeaderMap, links: Links) -> Option<Self> {
        let text =
            |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().trim();
        let kind = text(header::CONTENT_TYPE).split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("text/html") {
            return None;
        }
        let unpack = match text(header::CONTENT_ENCODING) {
            "" | "identity" => Unpack::Plain,
            "gzip" => Unpack::Gzip(Box::new(GzDecoder::new(Vec::new()))),
            "deflate" => Unpack::Deflate(Box::new(DeflateDecoder::new(Vec::new()))),
            _ => return None,
        };
        Some(Self { page: Page::new(links), unpack })
    }

    fn body(self, body: Incoming, permit: Permit) -> Body {
        let pieces = Body::new(body).into_data_stream();
        let state = (self, pieces, permit, false);
        let stream = futures::stream::unfold(state, |(mut pages, mut pieces, permit, over)| async move {
            if over {
                return None;
            }
            let (item, over) = match pieces.next().await {
                Some(Ok(piece)) => match pages.unpack.push(&piece) {
                    Ok(plain) => (Ok(Bytes::from(pages.page.push(&plain))), false),
                    Err(error) => (Err(axum::Error::new(error)), true),
                },
                Some(Err(error)) => (Err(error), true),
                None => (Ok(Bytes::from(pages.page.finish())), true),
            };
            Some((item, (pages, pieces, permit, over)))
        });
        Body::from_stream(stream)
    }
}
