//! Port forwarding: connections into a pod (k8s.io/client-go portforward; `v4.channel.k8s.io` of the kubelet's WebSocket).

use std::{collections::HashMap, io};

use bytes::{Buf, Bytes};
use futures::{SinkExt, StreamExt, future::BoxFuture};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
    time::Instant,
};

use crate::{
    activity::{Activity, Watched},
    command::OPEN_WITHIN,
    server::Duplex,
    spdy::{Session, Stream},
    upgrade::{Agreed, Framing},
    websocket::{self, Codec, Tunnel},
};

/// SPDY by itself, in a WebSocket, and channels (k8s.io/kubelet `pkg/cri/streaming/portforward`).
pub const SPDY: &[&str] = &["portforward.k8s.io"];
pub const WEBSOCKET: &[&str] = &[TUNNEL, "v4.channel.k8s.io", "v4.base64.channel.k8s.io", ""];
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
/// Streams of which only one half has come: data without errors, or the other way round. They wait as long as a command's.
const HALVES: usize = 128;
const WAITING: usize = 16;
const PIECE: usize = 32 << 10;

/// Connects to a port of the pod; an error is told to the client as it is.
pub type Connect = std::sync::Arc<dyn Fn(u16) -> BoxFuture<'static, io::Result<Box<dyn Duplex>>> + Send + Sync>;

/// Serves until the client is gone.
pub async fn serve<S>(agreed: Agreed, connection: S, activity: &Activity, ports: &[u16], connect: Connect)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    match (agreed.framing, agreed.protocol) {
        (Framing::Spdy, _) => {
            over_spdy(Session::serve(Watched { connection, activity: activity.clone() }), connect).await;
        }
        (Framing::WebSocket, TUNNEL) => {
            let connection = Tunnel::new(websocket::accept(connection).await);
            over_spdy(Session::serve(Watched { connection, activity: activity.clone() }), connect).await;
        }
        (Framing::WebSocket, protocol) => {
            let socket = websocket::accept(connection).await;
            over_channels(socket, Codec::of(protocol), activity, ports, connect).await;
        }
    }
}

/// One stream of a connection that waits for the other.
struct Half {
    is_data: bool,
    stream: Stream,
    until: Instant,
}

impl Half {
    /// The other does not come (`monitorStreamPair`).
    async fn give_up(self, request: &str) {
        if self.is_data {
            return self.stream.output.reset().await;
        }
        // A client that is gone does not want to know.
        let _ = self.stream.output.write(format!("(request={request}) timed out waiting for streams").into()).await;
        let _ = self.stream.output.finish().await;
    }
}

/// Each connection is a pair of streams of one `requestid`: one for data, one for what went wrong.
async fn over_spdy(mut session: Session, connect: Connect) {
    let mut halves: HashMap<String, Half> = HashMap::new();
    loop {
        let expiry = halves.values().map(|half| half.until).min();
        let stream = tokio::select! {
            stream = session.next() => stream,
            () = tokio::time::sleep_until(expiry.unwrap_or_else(Instant::now)), if expiry.is_some() => {
                for (request, half) in halves.extract_if(|_, half| half.until <= Instant::now()) {
                    half.give_up(&request).await;
                }
                continue;
            }
        };
        let Some(stream) = stream else { return };
        let port: Option<u16> = stream.header("port").and_then(|port| port.parse().ok()).filter(|port| *port != 0);
        let (Some(port), Some(kind @ ("data" | "error"))) = (port, stream.header("streamtype")) else {
            stream.output.reset().await;
            continue;
        };
        // Old clients number nothing; their streams come in pairs, errors first.
        let paired = if kind == "error" { stream.id } else { stream.id.saturating_sub(2) };
        let request = stream.header("requestid").map_or_else(|| paired.to_string(), str::to_owned);
        match halves.remove(&request) {
            None if halves.len() < HALVES => {
                let until = Instant::now() + OPEN_WITHIN;
                halves.insert(request, Half { is_data: kind == "data", stream, until });
            }
            None => stream.output.reset().await,
            Some(half) if half.is_data == (kind == "data") => {
                if !half.is_data {
                    let why = format!("error processing stream for request {request}: error stream already assigned");
                    // A client that is gone does not want to know.
                    let _ = half.stream.output.write(why.into()).await;
                }
                stream.output.reset().await;
                halves.insert(request, half);
            }
            Some(half) => {
                let (data, error) = if half.is_data { (half.stream, stream) } else { (stream, half.stream) };
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
async fn over_channels<S>(
    mut socket: tokio_tungstenite::WebSocketStream<S>,
    codec: Codec,
    activity: &Activity,
    ports: &[u16],
    connect: Connect,
) where
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
                Some((channel, data)) => {
                    activity.used();
                    socket.send(codec.message(channel, &data)).await
                }
                // Every connection has ended.
                None => break,
            },
            received = socket.next() => match received {
                Some(Ok(message)) => {
                    if message.is_binary() || message.is_text() {
                        activity.used();
                    }
                    let Some((channel, data)) = codec.content(message) else { continue };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spdy::client::Client;
    use std::sync::Arc;
    use tokio_tungstenite::tungstenite::{Message, protocol::Role};

    /// A pod whose every port says what it is told.
    fn echo() -> Connect {
        Arc::new(|_| {
            let (ours, mut theirs) = tokio::io::duplex(1 << 10);
            tokio::spawn(async move {
                let (mut reader, mut writer) = tokio::io::split(&mut theirs);
                tokio::io::copy(&mut reader, &mut writer).await
            });
            Box::pin(async { Ok(Box::new(ours) as Box<dyn Duplex>) })
        })
    }

    #[tokio::test(start_paused = true)]
    async fn halves_wait_for_one_another_and_not_for_ever() {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let served = tokio::spawn(over_spdy(Session::serve(theirs), echo()));
        let mut client = Client::new(ours);
        let headers = |kind, request| [("streamtype", kind), ("port", "80"), ("requestid", request)];
        client.open(1, &headers("error", "0")).await;
        client.open(3, &headers("error", "0")).await;
        client.open(5, &headers("data", "1")).await;
        client.open(7, &headers("data", "0")).await;
        client.write(7, b"hi").await;
        client.open(9, &headers("error", "2")).await;
        tokio::time::sleep(OPEN_WITHIN * 2).await;
        served.abort();
        let said = client.all(&[1, 3, 5, 7, 9]).await;
        let text = |index: usize| String::from_utf8_lossy(&said[index].0).into_owned();
        assert_eq!(text(0), "error processing stream for request 0: error stream already assigned");
        assert_eq!((said[1].2, said[2].2), (1, 1), "{said:?}");
        assert_eq!(text(3), "hi");
        assert_eq!(text(4), "(request=2) timed out waiting for streams");
    }

    #[tokio::test]
    async fn ports_are_told_in_base64_to_who_asks() {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let agreed = Agreed { framing: Framing::WebSocket, protocol: "v4.base64.channel.k8s.io" };
        tokio::spawn(async move { serve(agreed, theirs, &Activity::new(), &[80], echo()).await });
        let mut socket = tokio_tungstenite::WebSocketStream::from_raw_socket(ours, Role::Client, None).await;
        socket.send(Message::Text("0aGk=".into())).await.unwrap();
        let mut heard = Vec::new();
        for _ in 0..3 {
            heard.push(socket.next().await.unwrap().unwrap());
        }
        assert_eq!(heard, ["0UAA=", "1UAA=", "0aGk="].map(|text| Message::Text(text.into())));
    }
}
