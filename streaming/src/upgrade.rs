//! Agreeing on a protocol: the 101 answer, or why not.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

const STREAM_VERSION: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const ACCEPTED_VERSIONS: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");
const SPDY: &str = "SPDY/3.1";

/// The framing of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    WebSocket,
    Spdy,
}

/// What client and server speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    pub framing: Framing,
    /// One of those that were offered.
    pub protocol: &'static str,
}

/// Why there is no agreement.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused {
    pub code: StatusCode,
    pub message: String,
    accepted: &'static [&'static str],
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Refused {
    pub fn new(code: StatusCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), accepted: &[] }
    }

    pub fn response<B: From<String>>(self) -> Response<B> {
        let mut response = Response::new(B::from(self.message));
        *response.status_mut() = self.code;
        for protocol in self.accepted {
            response.headers_mut().append(ACCEPTED_VERSIONS, HeaderValue::from_static(protocol));
        }
        response
    }
}

/// Chooses the first protocol of the client's that is served over its framing.
pub fn agree(
    headers: &HeaderMap,
    websocket: &'static [&'static str],
    spdy: &'static [&'static str],
) -> Result<Agreed, Refused> {
    let upgrade = headers.get(header::UPGRADE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (framing, served, name) = if upgrade.eq_ignore_ascii_case("websocket") {
        (Framing::WebSocket, websocket, header::SEC_WEBSOCKET_PROTOCOL)
    } else if upgrade.eq_ignore_ascii_case(SPDY) {
        (Framing::Spdy, spdy, STREAM_VERSION)
    } else {
        let why = format!("unable to upgrade: missing upgrade headers in request: {upgrade:?}");
        return Err(Refused::new(StatusCode::BAD_REQUEST, why));
    };
    let mut asked: Vec<&str> = headers
        .get_all(&name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|value| !value.is_empty())
        .collect();
    if asked.is_empty() {
        match framing {
            // golang.org/x/net/websocket: no protocol is one, too.
            Framing::WebSocket => asked.push(""),
            // k8s.io/streaming `httpstream.go`, Handshake
            Framing::Spdy => {
                let why = "unable to upgrade: header X-Stream-Protocol-Version has no valid protocols";
                return Err(Refused::new(StatusCode::BAD_REQUEST, why));
            }
        }
    }
    let chosen = asked.iter().find_map(|asked| served.iter().find(|served| *served == asked));
    match chosen {
        Some(protocol) => Ok(Agreed { framing, protocol }),
        None => {
            let message = format!(
                "unable to upgrade: unable to negotiate protocol: client supports {asked:?}, server supports {served:?}"
            );
            Err(Refused { code: StatusCode::FORBIDDEN, message, accepted: served })
        }
    }
}

/// The answer that changes the protocol.
pub fn switching<B: Default>(headers: &HeaderMap, agreed: Agreed) -> Result<Response<B>, Refused> {
    let mut response = Response::new(B::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let out = response.headers_mut();
    out.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    let protocol = HeaderValue::from_static(agreed.protocol);
    match agreed.framing {
        Framing::WebSocket => {
            let key = headers.get(header::SEC_WEBSOCKET_KEY).ok_or_else(|| {
                Refused::new(StatusCode::BAD_REQUEST, "unable to upgrade: there is no Sec-WebSocket-Key")
            })?;
            let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes()))
                .map_err(|_| Refused::new(StatusCode::BAD_REQUEST, "unable to upgrade: bad Sec-WebSocket-Key"))?;
            out.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            out.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
            if !agreed.protocol.is_empty() {
                out.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
            }
        }
        Framing::Spdy => {
            out.insert(header::UPGRADE, HeaderValue::from_static(SPDY));
            out.insert(STREAM_VERSION, protocol);
        }
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVED: &[&str] = &["v5", "v4"];

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let pairs = pairs
            .iter()
            .map(|(name, value)| (HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap()));
        let mut headers = HeaderMap::new();
        pairs.for_each(|(name, value)| {
            headers.append(name, value);
        });
        headers
    }

    #[test]
    fn the_clients_first_served_protocol_is_taken() {
        let asked = headers(&[("upgrade", "WebSocket"), ("sec-websocket-protocol", "v9, v4,v5")]);
        assert_eq!(agree(&asked, SERVED, &[]), Ok(Agreed { framing: Framing::WebSocket, protocol: "v4" }));
        let spdy = headers(&[
            ("upgrade", "SPDY/3.1"),
            ("x-stream-protocol-version", "v9"),
            ("x-stream-protocol-version", "v5"),
        ]);
        assert_eq!(agree(&spdy, &[], SERVED), Ok(Agreed { framing: Framing::Spdy, protocol: "v5" }));
        assert_eq!(agree(&spdy, SERVED, &["v1"]).unwrap_err().code, StatusCode::FORBIDDEN);
        assert_eq!(agree(&headers(&[]), SERVED, SERVED).unwrap_err().code, StatusCode::BAD_REQUEST);
        let nothing = headers(&[("upgrade", "SPDY/3.1"), ("x-stream-protocol-version", " ,")]);
        assert_eq!(agree(&nothing, SERVED, SERVED).unwrap_err().code, StatusCode::BAD_REQUEST);
    }

    #[test]
    fn who_names_no_protocol_is_told_none() {
        let asked = headers(&[("upgrade", "websocket"), ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")]);
        let agreed = agree(&asked, &["v4", ""], &[]).unwrap();
        assert_eq!(agreed.protocol, "");
        let response = switching::<String>(&asked, agreed).unwrap();
        assert!(!response.headers().contains_key("sec-websocket-protocol"));
        assert_eq!(agree(&asked, SERVED, &[]).unwrap_err().code, StatusCode::FORBIDDEN);
    }

    #[test]
    fn a_web_socket_needs_a_key() {
        let agreed = Agreed { framing: Framing::WebSocket, protocol: "v5" };
        assert!(switching::<String>(&headers(&[]), agreed).is_err());
        // The example of RFC 6455, section 1.3.
        let keyed = headers(&[("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")]);
        let response = switching::<String>(&keyed, agreed).unwrap();
        assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
