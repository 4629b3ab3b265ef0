//! The node's streaming server: one address on the loopback, a path that is valid once (CRI's Exec, Attach, PortForward).

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{FutureExt, TryFutureExt, future::BoxFuture};
use http::{Method, Response, StatusCode};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::sync::CancellationToken;

use crate::{
    activity::Activity,
    command::{self, Outcome, Streams, Wanted},
    forward,
    upgrade::{self, Refused},
};

/// A connection that can be read and written.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// What streams lead to.
pub trait Backend: Send + Sync + 'static {
    /// Runs a command in a container. Dropped when the client goes: the command is to end then.
    fn exec(&self, container: &str, command: &[String], wanted: Wanted, streams: Streams) -> BoxFuture<'_, Outcome>;
    /// Attaches to a container's first process. Dropped when the client goes.
    fn attach(&self, container: &str, wanted: Wanted, streams: Streams) -> BoxFuture<'_, Outcome>;
    /// Connects to a port on the loopback of a pod.
    fn connect(&self, sandbox: &str, port: u16) -> BoxFuture<'static, io::Result<Box<dyn Duplex>>>;
}

/// What a path stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    Exec {
        container: String,
        command: Vec<String>,
        wanted: Wanted,
    },
    Attach {
        container: String,
        wanted: Wanted,
    },
    /// Ports matter to clients that name them in the request; others name one for each stream.
    PortForward {
        sandbox: String,
        ports: Vec<u16>,
    },
}

/// How long a path is valid, and how many there may be (upstream's request cache).
const VALID: Duration = Duration::from_secs(60);
const PENDING: usize = 1000;
const CONNECTIONS: usize = 1024;
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// How long a connection may be there unused (k8s.io/kubelet `pkg/cri/streaming/server.go`, StreamIdleTimeout).
const UNUSED: Duration = Duration::from_secs(4 * 60 * 60);

/// The server. Paths are handed out by [`Server::url`].
pub struct Server<B> {
    backend: Arc<B>,
    address: SocketAddr,
    pending: Mutex<HashMap<String, (Request, Instant)>>,
}

impl<B: Backend> Server<B> {
    /// Serves on `listener` until `stop`.
    ///
    /// # Errors
    /// When the listener's address cannot be had.
    pub fn start(backend: Arc<B>, listener: TcpListener, stop: CancellationToken) -> io::Result<Arc<Self>> {
        let server = Arc::new(Self { backend, address: listener.local_addr()?, pending: Mutex::default() });
        tokio::spawn(server.clone().accept(listener, stop));
        Ok(server)
    }

    /// A URL under which the request is served once, within a minute. None while too many wait.
    pub fn url(&self, request: Request) -> Option<String> {
        let kind = match request {
            Request::Exec { .. } => "exec",
            Request::Attach { .. } => "attach",
            Request::PortForward { .. } => "portforward",
        };
        let mut pending = self.pending.lock();
        pending.retain(|_, (_, since)| since.elapsed() < VALID);
        if pending.len() >= PENDING {
            return None;
        }
        let token = token()?;
        pending.insert(token.clone(), (request, Instant::now()));
        Some(format!("http://{}/{kind}/{token}", self.address))
    }

    async fn accept(self: Arc<Self>, listener: TcpListener, stop: CancellationToken) {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            // The semaphore is never closed.
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let stream = tokio::select! {
                () = stop.cancelled() => return,
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::warn!(%error, "a streaming connection could not be accepted");
                        continue;
                    }
                },
            };
            let (server, stop) = (self.clone(), stop.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = server.connection(stream) => {}
                }
                drop(place);
            });
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream) {
        // A keystroke is not to wait for the next.
        let _ = stream.set_nodelay(true);
        let service = service_fn(move |request| {
            let server = self.clone();
            async move { Ok::<_, std::convert::Infallible>(server.answer(request)) }
        });
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN);
        if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).with_upgrades().await {
            tracing::debug!(%error, "a streaming connection broke off");
        }
    }

    fn answer(self: Arc<Self>, request: http::Request<Incoming>) -> Response<Full<bytes::Bytes>> {
        self.upgrade(request).unwrap_or_else(|refused| refused.response::<String>().map(Full::from))
    }

    fn upgrade(self: Arc<Self>, mut request: http::Request<Incoming>) -> Result<Response<Full<bytes::Bytes>>, Refused> {
        if request.method() != Method::GET && request.method() != Method::POST {
            return Err(Refused::new(StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed"));
        }
        let not_found = || Refused::new(StatusCode::NOT_FOUND, "404: Page Not Found");
        let token = request.uri().path().rsplit('/').next().unwrap_or_default();
        let asked = self.pending.lock().remove(token).filter(|(_, since)| since.elapsed() < VALID);
        let (asked, _) = asked.ok_or_else(not_found)?;
        let (websocket, spdy) = match asked {
            Request::PortForward { .. } => (forward::WEBSOCKET, forward::SPDY),
            _ => (command::WEBSOCKET, command::SPDY),
        };
        let agreed = upgrade::agree(request.headers(), websocket, spdy)?;
        let response = upgrade::switching(request.headers(), agreed)?;
        let upgraded = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            match upgraded.await {
                Ok(connection) => self.serve_while_used(agreed, TokioIo::new(connection), asked).await,
                Err(error) => tracing::debug!(%error, "a connection was not upgraded"),
            }
        });
        Ok(response)
    }

    async fn serve_while_used<S>(&self, agreed: upgrade::Agreed, connection: S, asked: Request)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let activity = Activity::new();
        tokio::select! {
            () = self.serve(agreed, connection, &activity, asked) => {}
            () = activity.unused_for(UNUSED) => tracing::debug!("a streaming connection is not used"),
        }
    }

    async fn serve<S>(&self, agreed: upgrade::Agreed, connection: S, activity: &Activity, asked: Request)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let backend = &self.backend;
        match asked {
            Request::Exec { container, command, wanted } => {
                command::serve(agreed, connection, activity, wanted, |streams| {
                    backend.exec(&container, &command, wanted, streams)
                })
                .await;
            }
            Request::Attach { container, wanted } => {
                command::serve(agreed, connection, activity, wanted, |streams| {
                    backend.attach(&container, wanted, streams)
                })
                .await;
            }
            Request::PortForward { sandbox, ports } => {
                let backend = self.backend.clone();
                let connect: forward::Connect = Arc::new(move |port| {
                    let (connection, pod) = (backend.connect(&sandbox, port), sandbox.clone());
                    // Upstream's server tells a pod's uid as well, which CRI does not know.
                    let told = move |error| {
                        io::Error::other(format!("error forwarding port {port} to pod {pod}, uid : {error}"))
                    };
                    connection.map_err(told).boxed()
                });
                forward::serve(agreed, connection, activity, &ports, connect).await;
            }
        }
    }
}

/// 128 bits from the kernel's generator: whoever may run on the node's loopback must not guess it.
fn token() -> Option<String> {
    let mut bytes = [0; 16];
    let mut source = std::fs::File::open("/dev/urandom").ok()?;
    io::Read::read_exact(&mut source, &mut bytes).ok()?;
    Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        spdy::client::Client,
        upgrade::{Agreed, Framing},
    };
    use futures::{SinkExt, StreamExt};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio_tungstenite::{
        WebSocketStream,
        tungstenite::{Message, protocol::Role},
    };

    /// Commands that never end and say nothing.
    #[derive(Default)]
    struct Silent {
        running: Arc<AtomicUsize>,
    }

    struct Run(Arc<AtomicUsize>);

    impl Drop for Run {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    impl Backend for Silent {
        fn exec(&self, _: &str, _: &[String], wanted: Wanted, streams: Streams) -> BoxFuture<'_, Outcome> {
            self.attach("", wanted, streams)
        }

        fn attach(&self, _: &str, _: Wanted, streams: Streams) -> BoxFuture<'_, Outcome> {
            self.running.fetch_add(1, Ordering::SeqCst);
            let run = Run(self.running.clone());
            async move {
                std::future::pending::<()>().await;
                drop((run, streams));
                Outcome::Exited(0)
            }
            .boxed()
        }

        fn connect(&self, _: &str, _: u16) -> BoxFuture<'static, io::Result<Box<dyn Duplex>>> {
            std::future::pending().boxed()
        }
    }

    /// A connection, and what has the number of its commands.
    fn start(framing: Framing) -> (tokio::io::DuplexStream, Arc<AtomicUsize>) {
        let backend = Arc::new(Silent::default());
        let running = backend.running.clone();
        let server = Server { backend, address: ([127, 0, 0, 1], 0).into(), pending: Mutex::default() };
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let asked = Request::Attach { container: String::new(), wanted: Wanted { stdin: true, ..Wanted::default() } };
        let agreed = Agreed { framing, protocol: "v4.channel.k8s.io" };
        tokio::spawn(async move { server.serve_while_used(agreed, theirs, asked).await });
        (ours, running)
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_for_hours_is_left() {
        let begin = tokio::time::Instant::now();
        let (connection, running) = start(Framing::Spdy);
        let mut client = Client::new(connection);
        client.open(1, &[("streamtype", "error")]).await;
        client.open(3, &[("streamtype", "stdin")]).await;
        tokio::time::sleep(UNUSED - Duration::from_secs(1)).await;
        assert_eq!(running.load(Ordering::SeqCst), 1);
        client.write(3, b"still here").await;
        client.all(&[1, 3]).await;
        assert!((UNUSED * 2 - Duration::from_secs(1)..UNUSED * 2).contains(&begin.elapsed()), "{:?}", begin.elapsed());
        assert_eq!(running.load(Ordering::SeqCst), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn pings_of_a_web_socket_are_no_use_of_it() {
        let (connection, running) = start(Framing::WebSocket);
        let mut socket = WebSocketStream::from_raw_socket(connection, Role::Client, None).await;
        let begin = tokio::time::Instant::now();
        loop {
            let ping = async { socket.send(Message::Ping(bytes::Bytes::new())).await };
            if ping.await.is_err() || matches!(socket.next().await, None | Some(Err(_))) {
                break;
            }
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        assert!(begin.elapsed() < UNUSED + Duration::from_secs(180), "{:?}", begin.elapsed());
        assert_eq!(running.load(Ordering::SeqCst), 0);
    }
}
