//! Watches and logs over WebSockets, as browsers follow them, and tokens in the names of protocols, because browsers can set
//! no header (apiserver `endpoints/handlers/watch.go`, `util/wsstream`, `authentication/request/websocket`).

use crate::verbs::Response;
use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::{Buf, Bytes, BytesMut};
use coracle_api::Status;
use coracle_api::status::Reason;
use coracle_streaming::messages::{self, Told};
use futures::{Stream, StreamExt, stream};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use hyper::upgrade::OnUpgrade;

const TOKEN: &str = "base64url.bearer.authorization.k8s.io.";

/// How bytes that come in pieces become messages.
#[derive(Clone, Copy)]
enum Cut {
    /// One a line, which is one event.
    Lines,
    /// One for what stands behind its length in four bytes.
    Lengths,
    /// As they come.
    Pieces,
    /// The same, as text.
    Base64,
}

impl Cut {
    fn next(self, buffer: &mut BytesMut) -> Option<Told> {
        match self {
            Cut::Lines => {
                let end = memchr::memchr(b'\n', buffer)?;
                Some(Told::Text(buffer.split_to(end + 1).freeze()))
            }
            Cut::Lengths => {
                let length = u32::from_be_bytes(*buffer.first_chunk::<4>()?) as usize;
                if buffer.len() - 4 < length {
                    return None;
                }
                buffer.advance(4);
                Some(Told::Binary(buffer.split_to(length).freeze()))
            }
            _ if buffer.is_empty() => None,
            Cut::Pieces => Some(Told::Binary(buffer.split().freeze())),
            Cut::Base64 => Some(Told::Text(STANDARD.encode(buffer.split()).into())),
        }
    }
}

/// Answers with 101, and with the response's body in messages after that. What has no such body stays as it is.
///
/// # Errors
/// 400 and 403 for a handshake that is wrong.
pub fn carry(head: &Parts, response: Response) -> Result<Response, Status> {
    if response.status() != StatusCode::OK {
        return Ok(response);
    }
    let wrong = || Status::bad_request("unable to upgrade: there is no Sec-WebSocket-Key");
    let accept = messages::accept_key(&head.headers).ok_or_else(wrong)?;
    let connection = head.extensions.get::<OnUpgrade>().cloned().ok_or_else(wrong)?;
    let asked = protocols(&head.headers);
    let kind = response.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    // Watches are told to pages, which say where they are from (golang.org/x/net/websocket, `checkOrigin`).
    if kind.starts_with(b"application/") && !has_origin(&head.headers) {
        return Err(Status::new(403, Reason::Forbidden, "a watch over a WebSocket needs an Origin"));
    }
    // An event is told under whatever name; the bytes of a log have two.
    let (cut, protocol, opening) = if kind.starts_with(b"application/json") {
        (Cut::Lines, asked.first().cloned(), None)
    } else if kind.starts_with(b"application/vnd.kubernetes.protobuf") {
        (Cut::Lengths, asked.first().cloned(), None)
    } else {
        let known = asked.iter().find_map(|name| match name.as_str() {
            "" | "binary.k8s.io" => Some((Cut::Pieces, name.clone())),
            "base64.binary.k8s.io" => Some((Cut::Base64, name.clone())),
            _ => None,
        });
        let (cut, protocol) = match known {
            Some((cut, name)) => (cut, Some(name)),
            None if asked.is_empty() => (Cut::Pieces, None),
            None => {
                let why = format!(
                    "requested protocol(s) are not supported: {asked:?}; config supports [\"\" \"base64.binary.k8s.io\" \"binary.k8s.io\"]"
                );
                return Err(Status::new(403, Reason::Forbidden, why));
            }
        };
        // That the connection stands, before there is anything to tell.
        (cut, protocol, Some(Told::Binary(Bytes::new())))
    };
    let told = stream::iter(opening).chain(cut_up(cut, response.into_body()));
    tokio::spawn(messages::tell(connection, told));
    let mut response = http::Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    if let Some(protocol) = protocol.filter(|name| !name.is_empty()).and_then(|name| name.parse().ok()) {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    Ok(response)
}

fn has_origin(headers: &HeaderMap) -> bool {
    let origin = headers.get(header::ORIGIN).and_then(|origin| origin.to_str().ok()).unwrap_or_default();
    origin.starts_with('/') || origin.parse::<Uri>().is_ok_and(|uri| uri.scheme().is_some())
}

fn cut_up(cut: Cut, body: Body) -> impl Stream<Item = Told> {
    let pieces = body.into_data_stream();
    stream::unfold((pieces, BytesMut::new()), move |(mut pieces, mut buffer)| async move {
        loop {
            if let Some(told) = cut.next(&mut buffer) {
                return Some((told, (pieces, buffer)));
            }
            // What is left of a stream that broke off is no message.
            buffer.extend_from_slice(&pieces.next().await?.ok()?);
        }
    })
}

/// The names of protocols that a client can speak.
fn protocols(headers: &HeaderMap) -> Vec<String> {
    let values = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(|name| name.trim().to_owned()).collect()
}

/// Takes the bearer token out of the protocols' names, for nobody further on is to see it; None when there is none.
///
/// # Errors
/// 401 for what cannot be read, and when no protocol is left.
pub fn take_token(headers: &mut HeaderMap) -> Result<Option<String>, Status> {
    if !headers.contains_key(header::SEC_WEBSOCKET_PROTOCOL) || !messages::is_asked(headers) {
        return Ok(None);
    }
    let (mut tokens, others): (Vec<_>, Vec<_>) =
        protocols(headers).into_iter().partition(|name| name.starts_with(TOKEN));
    let Some(token) = tokens.pop() else { return Ok(None) };
    let encoded = token.strip_prefix(TOKEN).unwrap_or_default();
    let token = URL_SAFE_NO_PAD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let left = HeaderValue::try_from(others.join(",")).ok();
    match (token, left) {
        (Some(token), Some(left)) if tokens.is_empty() && !others.is_empty() => {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, left);
            Ok(Some(token))
        }
        _ => Err(Status::unauthorized()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_taken_out() {
        let take = |protocols: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocols.parse().unwrap());
            let token = take_token(&mut headers).map_err(|status| status.code);
            (token, headers[header::SEC_WEBSOCKET_PROTOCOL].to_str().unwrap().to_owned())
        };
        let named = |text: &str| format!("{TOKEN}{}", URL_SAFE_NO_PAD.encode(text));
        assert_eq!(take(&format!("{}, a, b", named("secret"))), (Ok(Some("secret".to_owned())), "a,b".to_owned()));
        assert_eq!(take("a, b"), (Ok(None), "a, b".to_owned()));
        for wrong in [named("alone"), format!("{TOKEN}%, a"), format!("{}, {}, a", named("x"), named("y"))] {
            assert_eq!(take(&wrong).0, Err(401), "{wrong}");
        }
    }

    #[test]
    fn messages_are_cut_out_of_what_comes() {
        let cut = |cut: Cut, bytes: &[u8]| {
            let mut buffer = BytesMut::from(bytes);
            let told: Vec<Told> = std::iter::from_fn(|| cut.next(&mut buffer)).collect();
            (told, buffer.len())
        };
        let text = |text: &'static str| Told::Text(Bytes::from_static(text.as_bytes()));
        assert_eq!(cut(Cut::Lines, b"{}\n[]\n{"), (vec![text("{}\n"), text("[]\n")], 1));
        let binary = Told::Binary(Bytes::from_static(b"ab"));
        assert_eq!(cut(Cut::Lengths, b"\0\0\0\x02ab\0\0\0\x02a"), (vec![binary.clone()], 5));
        assert_eq!(cut(Cut::Pieces, b"ab"), (vec![binary], 0));
        assert_eq!(cut(Cut::Base64, b"ab"), (vec![text("YWI=")], 0));
    }
}
