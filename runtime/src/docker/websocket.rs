//! A container's streams over a WebSocket (`GET /containers/{id}/attach/ws`): bytes as they are in binary messages, both
//! ways, without a mark of which stream they are of (moby `api/server/router/container`, `wsContainersAttach`).

use axum::body::Body;
use futures::{FutureExt, SinkExt, StreamExt};
use http::{HeaderValue, Response, StatusCode, header};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        handshake::derive_accept_key,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};
use tokio_util::sync::CancellationToken;

use super::{
    http::{Call, Problem},
    streams::{Duplex, Hijack},
};
use crate::error::Result;

const BUFFER: usize = 32 << 10;
/// No message of a client's is larger.
const LARGEST: usize = 1 << 20;

/// The answer to a client's handshake, and the connection that follows it (RFC 6455, 4.2.2).
pub fn hijack(call: &mut Call) -> Result<(Response<Body>, Hijack), Problem> {
    let headers = call.request.headers();
    let wants = headers.get(header::UPGRADE).is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket"));
    let key = headers.get(header::SEC_WEBSOCKET_KEY).filter(|_| wants);
    let key = key.ok_or_else(|| Problem::bad("the request is not a WebSocket handshake"))?;
    let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes()))
        .map_err(|error| Problem::bad(format!("Sec-WebSocket-Key: {error}")))?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    Ok((response, Hijack::WebSocket(hyper::upgrade::on(&mut call.request))))
}

/// The connection as two streams of bytes; they end with it, and it with them.
pub async fn open(upgrade: OnUpgrade) -> Result<Duplex> {
    let upgraded = upgrade
        .await
        .map_err(|error| crate::Error::unavailable(format!("the connection was not upgraded: {error}")))?;
    let config = WebSocketConfig::default().max_message_size(Some(LARGEST)).max_frame_size(Some(LARGEST));
    let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
    let (input, from_client) = tokio::io::duplex(BUFFER);
    let (output, to_client) = tokio::io::duplex(BUFFER);
    let gone = CancellationToken::new();
    let ended = gone.clone().drop_guard();
    tokio::spawn(async move {
        carry(socket, from_client, to_client).await;
        drop(ended);
    });
    Ok(Duplex { read: Box::new(input), write: Box::new(output), gone: gone.cancelled_owned().boxed() })
}

async fn carry(socket: WebSocketStream<TokioIo<Upgraded>>, mut input: DuplexStream, mut output: DuplexStream) {
    let (mut sink, mut stream) = socket.split();
    let receive = async {
        while let Some(Ok(message)) = stream.next().await {
            let data = match message {
                Message::Binary(data) => data,
                Message::Text(text) => text.into(),
                Message::Close(_) => return,
                _ => continue,
            };
            if input.write_all(&data).await.is_err() {
                return;
            }
        }
    };
    let send = async {
        let mut buffer = vec![0; BUFFER];
        loop {
            match output.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(count) => {
                    let data = Message::binary(buffer[..count].to_vec());
                    if sink.send(data).await.is_err() {
                        return;
                    }
                }
            }
        }
        // Some clients take a close without a code for an error.
        let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        let _ = sink.send(Message::Close(Some(frame))).await;
    };
    tokio::select! {
        () = receive => {}
        () = send => {}
    }
}
