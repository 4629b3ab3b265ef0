//! A stream that is told in WebSocket messages. Nothing is expected from the client but that it goes.

use bytes::Bytes;
use futures::{SinkExt, Stream, StreamExt};
use http::{HeaderMap, HeaderValue, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes, handshake::derive_accept_key};

use crate::websocket::{accept, close};

/// What is told in one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// Text; what is none is sent as bytes.
    Text(Bytes),
    Binary(Bytes),
}

/// Whether a request asks for a WebSocket.
pub fn is_asked(headers: &HeaderMap) -> bool {
    let asked = headers.get(header::UPGRADE).and_then(|value| value.to_str().ok());
    asked.is_some_and(|asked| asked.eq_ignore_ascii_case("websocket"))
}

/// What a server answers to a client's key (RFC 6455, section 4.2.2); None when the client sent none.
pub fn accept_key(headers: &HeaderMap) -> Option<HeaderValue> {
    let key = headers.get(header::SEC_WEBSOCKET_KEY)?;
    HeaderValue::try_from(derive_accept_key(key.as_bytes())).ok()
}

/// Sends all messages once the connection is upgraded, then closes it; ends when the client does.
pub async fn tell(connection: OnUpgrade, messages: impl Stream<Item = Told>) {
    let Ok(connection) = connection.await else { return };
    let mut socket = accept(TokioIo::new(connection)).await;
    tokio::pin!(messages);
    loop {
        tokio::select! {
            received = socket.next() => match received {
                // A ping is answered by reading it.
                Some(Ok(message)) if !message.is_close() => {}
                _ => return,
            },
            told = messages.next() => match told {
                Some(told) => {
                    if socket.send(message(told)).await.is_err() {
                        return;
                    }
                }
                None => break,
            },
        }
    }
    close(&mut socket).await;
}

fn message(told: Told) -> Message {
    match told {
        Told::Text(bytes) => match Utf8Bytes::try_from(bytes.clone()) {
            Ok(text) => Message::Text(text),
            Err(_) => Message::Binary(bytes),
        },
        Told::Binary(bytes) => Message::Binary(bytes),
    }
}
