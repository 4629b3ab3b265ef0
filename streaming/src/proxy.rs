//! Passing an upgrade on: two connections become one, whatever is spoken on them.

use std::{io, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};

/// How long the other side may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// How much of its refusal is passed on.
const REFUSAL_MAX: usize = 16 << 10;
/// Bytes on their way, each direction.
const BUFFER: usize = 32 << 10;

/// Headers of the client's that decide about the protocol.
const PASSED: [HeaderName; 7] = [
    header::CONNECTION,
    header::UPGRADE,
    header::SEC_WEBSOCKET_KEY,
    header::SEC_WEBSOCKET_PROTOCOL,
    header::SEC_WEBSOCKET_VERSION,
    HeaderName::from_static("x-stream-protocol-version"),
    header::SEC_WEBSOCKET_EXTENSIONS,
];
/// And those of the answer.
const ANSWERED: [HeaderName; 6] = [
    header::CONNECTION,
    header::UPGRADE,
    header::SEC_WEBSOCKET_ACCEPT,
    header::SEC_WEBSOCKET_PROTOCOL,
    HeaderName::from_static("x-stream-protocol-version"),
    HeaderName::from_static("x-accepted-stream-protocol-versions"),
];

/// Why nothing was passed on.
#[derive(Debug, Error)]
pub enum Error {
    #[error("the other side does not answer within {} s", ANSWER_WITHIN.as_secs())]
    Late,
    #[error(transparent)]
    Http(#[from] hyper::Error),
    #[error("build the request: {0}")]
    Request(#[from] http::Error),
}

/// Whether a request asks for another protocol.
pub fn is_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(header::UPGRADE)
}

/// Sends the client's `request` on as one for `uri` over `connection`, and answers with what comes back. After an answer
/// of 101 the two connections are joined; `joined` runs in the background until both have ended, and holds `keep`.
///
/// # Errors
/// When the other side does not answer as HTTP/1.1.
pub async fn pass<B, S, K>(
    request: &mut Request<B>,
    connection: S,
    authority: &str,
    uri: &str,
    keep: K,
) -> Result<Response<Bytes>, Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    K: Send + 'static,
{
    let mut onward = Request::builder().method(request.method()).uri(uri).header(header::HOST, authority);
    for name in PASSED {
        for value in request.headers().get_all(&name) {
            onward = onward.header(&name, value);
        }
    }
    let onward = onward.body(Full::<Bytes>::default())?;
    let (mut sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(connection)).await?;
    let driver = tokio::spawn(async move {
        if let Err(error) = driver.with_upgrades().await {
            tracing::debug!(%error, "a connection that is passed on broke off");
        }
    });
    let answer = tokio::time::timeout(ANSWER_WITHIN, sender.send_request(onward)).await.map_err(|_| Error::Late)??;
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = answer.status();
    for name in ANSWERED {
        for value in answer.headers().get_all(&name) {
            response.headers_mut().append(&name, value.clone());
        }
    }
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let body = tokio::time::timeout(ANSWER_WITHIN, Limited::new(answer.into_body(), REFUSAL_MAX).collect()).await;
        // What cannot be read of a refusal is not worth another error.
        *response.body_mut() = body.ok().and_then(Result::ok).map(|body| body.to_bytes()).unwrap_or_default();
        driver.abort();
        return Ok(response);
    }
    join_when_upgraded(hyper::upgrade::on(request), hyper::upgrade::on(answer), keep);
    Ok(response)
}

/// Joins two connections once both are upgraded, in the background, and holds `keep` until both have ended.
pub fn join_when_upgraded<K: Send + 'static>(client: OnUpgrade, server: OnUpgrade, keep: K) {
    tokio::spawn(async move {
        if let Err(error) = join(client, server).await {
            tracing::debug!(%error, "a joined connection ended");
        }
        drop(keep);
    });
}

async fn join(client: OnUpgrade, server: OnUpgrade) -> io::Result<()> {
    let (client, server) = tokio::try_join!(client, server).map_err(io::Error::other)?;
    let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
    tokio::io::copy_bidirectional_with_sizes(&mut client, &mut server, BUFFER, BUFFER).await.map(drop)
}
