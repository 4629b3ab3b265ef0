//! Port forwarding: connections into a pod (k8s.io/client-go portforward; `v4.channel.k8s.io` of the kubelet's WebSocket).

use std::{collections::HashMap, io};

use bytes::{Buf, Bytes};
use futures::{SinkExt, StreamExt, future::BoxFuture};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
};

use crate::{
    server::Duplex,
    spdy::{Session, Stream},
    upgrade::{Agreed, Framing},
    websocket::{self, Tunnel},
};

/// SPDY by itself, in a WebSocket, and channels.
pub const SPDY: &[&str] = &["portforward.k8s.io"];
pub const WEBSOCKET: &[&str] = &["SPDY/3.1+portforward.k8s.io", "v4.channel.k8s.io"];
/// Streams of which only one half has come: data without errors, or the other way round.
const HALVES: usize = 128;
const WAITING: usize = 16;
const PIECE: usize = 32 << 10;

/// Connects to a port of the pod; an error is told to the client as it is.
pub type Connect = std::sync::Arc<dyn Fn(u16) -> BoxFuture<'static, io::Result<Box<dyn Duplex>>> + Send + Sync>;

/// Serves until the client is gone.
pub async fn serve<S>(agreed: Agreed, connection: S, ports: &[u16], connect: Connect)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    match (agreed.framing, agreed.protocol) {
        (Framing::Spdy, _) => over_spdy(Session::serve(connection), connect).await,
        (Framing::WebSocket, "v4.channel.k8s.io") => {
            over_channels(websocket::accept(connection).await, ports, connect).await;
        }
        (Framing::WebSocket, _) => {
            over_spdy(Session::serve(Tunnel::new(websocket::accept(connection).await)), connect).await;
        }
    }
}

/// Each connection is a pair of streams of one `requestid`: one for data, one for what went wrong.
async fn over_spdy(mut session: Session, connect: Connect) {
    let mut halves: HashMap<String, Stream> = HashMap::new();
    while let Some(stream) = session.next().await {
        let port: Option<u16> = stream.header("port").and_then(|port| port.parse().ok()).filter(|port| *port != 0);
        let (Some(port), Some(kind @ ("data" | "error"))) = (port, stream.header("streamtype")) else {
            stream.output.reset().await;
            continue;
        };
        // Old clients number nothing; their streams come in pairs, errors first.
        let paired = if kind == "error" { stream.id } else { stream.id.saturating_sub(2) };
        let request = stream.header("requestid").map_or_else(|| paired.to_string(), str::to_owned);
        match halves.remove(&request) {
            None if halves.len() < HALVES => drop(halves.insert(request, stream)),
            None => stream.output.reset().await,
            Some(other) => {
                let (data, error) = if kind == "data" { (stream, other) } else { (other, stream) };
                tokio::spawn(forward(data, error, port, connect.clone()));
            }
        }
    }
}

async fn forward(mut data: Stream, error: Stream, port: u16, connect: Connect) {
    match connect(port).await {
        Ok(connection) => {
            let (mut reader, mut writer) = tokio::io::split(connection);
            let to_pod = async {
                while let Some(piece) = data.input.recv().await {
                    writer.write_all(&piece).await?;
                }
                writer.shutdown().await
            };
            let from_pod = async {
                let mut buffer = vec![0; PIECE];
                loop {
                    let read = reader.read(&mut buffer).await?;
                    if read == 0 {
                        return data.output.finish().await;
                    }
                    data.output.write(Bytes::copy_from_slice(&buffer[..read])).await?;
                }
            };
            if let Err(failure) = tokio::try_join!(to_pod, from_pod) {
                tracing::debug!(port, %failure, "a forwarded connection broke off");
                data.output.reset().await;
            }
        }
        Err(failure) => {
            // A client that is gone does not want to know.
            let _ = error.output.write(failure.to_string().into()).await;
            let _ = data.output.finish().await;
        }
    }
    let _ = error.output.finish().await;
}

/// One connection for each port that the request names: its data on channel 2N, what went wrong on 2N + 1. Both begin
/// with the port's number, two bytes, little end first.
async fn over_channels<S>(mut socket: tokio_tungstenite::WebSocketStream<S>, ports: &[u16], connect: Connect)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, mut outgoing) = mpsc::channel::<(u8, Bytes)>(WAITING);
    let mut inputs: Vec<Option<mpsc::Sender<Bytes>>> = Vec::new();
    // 128 pairs of channels fit into a byte; more ports than that are refused before.
    for (index, port) in (0u8..128).zip(ports.iter().copied()) {
        let (input, pieces) = mpsc::channel(WAITING);
        inputs.push(Some(input));
        tokio::spawn(channel(index * 2, port, pieces, sender.clone(), connect.clone()));
    }
    drop(sender);
    loop {
        let sent = tokio::select! {
            data = outgoing.recv() => match data {
                Some((channel, data)) => socket.send(websocket::message(channel, &data)).await,
                // Every connection has ended.
                None => break,
            },
            received = socket.next() => match received {
                Some(Ok(message)) => {
                    let Some((channel, data)) = websocket::content(message) else { continue };
                    let place = inputs.get_mut(usize::from(channel / 2)).filter(|_| channel % 2 == 0);
                    if let Some(Some(input)) = place {
                        // A connection that has ended takes no more.
                        let _ = input.send(data).await;
                    }
                    Ok(())
                }
                Some(Err(error)) => Err(error),
                None => break,
            },
        };
        if let Err(error) = sent {
            tracing::debug!(%error, "a client went away");
            return;
        }
    }
    websocket::close(&mut socket).await;
}

async fn channel(
    number: u8,
    port: u16,
    mut input: mpsc::Receiver<Bytes>,
    output: mpsc::Sender<(u8, Bytes)>,
    connect: Connect,
) {
    let name = Bytes::copy_from_slice(&port.to_le_bytes());
    for channel in [number, number + 1] {
        if output.send((channel, name.clone())).await.is_err() {
            return;
        }
    }
    let connection = match connect(port).await {
        Ok(connection) => connection,
        Err(failure) => {
            // A client that is gone does not want to know.
            let _ = output.send((number + 1, failure.to_string().into())).await;
            return;
        }
    };
    let (mut reader, mut writer) = tokio::io::split(connection);
    let to_pod = async {
        while let Some(mut piece) = input.recv().await {
            while piece.has_remaining() {
                writer.write_buf(&mut piece).await?;
            }
        }
        writer.shutdown().await
    };
    let from_pod = async {
        let mut buffer = vec![0; PIECE];
        loop {
            let read = reader.read(&mut buffer).await?;
            if read == 0 {
                return Ok(());
            }
            let piece = Bytes::copy_from_slice(&buffer[..read]);
            output.send((number, piece)).await.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        }
    };
    // There is no half-close on a channel: the pod's end ends it.
    let ended: io::Result<()> = tokio::select! { ended = from_pod => ended, Err(error) = to_pod => Err(error) };
    if let Err(failure) = ended {
        tracing::debug!(port, %failure, "a forwarded connection broke off");
    }
}
