//! Listening, and the way of a request: version, route, handler, headers.

use std::{
    fs, io,
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ::http::{HeaderValue, Request, Response, StatusCode, header};
use axum::body::Body;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags},
        socket::{AddressFamily, SockaddrLike, SockaddrStorage, getsockname},
    },
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use rustls::{RootCertStore, server::WebPkiClientVerifier};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, unix::AsyncFd},
    net::{TcpListener, UnixListener},
    sync::Semaphore,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Docker,
    http::{Call, Problem, Query},
    metrics,
    routes::{self, Found, MAX_VERSION},
    system::DOCKER_VERSION,
};
use crate::{
    error::{Context, Error, Result},
    socket,
};

/// More clients at once than anybody has; the rest wait in the backlog.
const MAX_CONNECTIONS: usize = 4096;
/// A client that begins a request and does not finish its head.
const HEAD_LIMIT: Duration = Duration::from_secs(30);
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// A connection is looked after when it lasts longer.
const WATCH_AFTER: Duration = Duration::from_secs(1);
/// What a client over TCP that says no more may still hear.
const HALF_LIMIT: Duration = Duration::from_secs(30);
/// A client over TCP whose machine is gone says so never: it is asked after this long, and as often (Go's `net.Listener`,
/// and so dockerd).
const ASK_AFTER: Duration = Duration::from_secs(15);
const ASK_TIMES: u32 = 9;
/// Answers under way when the daemon ends.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

/// Certificates of a TCP listener: its own, and whose clients may come.
#[derive(Clone, Debug)]
pub struct Tls {
    pub ca: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// Where the API is served.
#[derive(Clone, Debug)]
pub enum Listener {
    /// Mode 0660.
    Unix(PathBuf),
    /// Without certificates whoever reaches it owns the machine.
    Tcp(SocketAddr, Option<Tls>),
    /// Not the API but what the daemon counts, for whoever reaches it.
    Metrics(SocketAddr),
}

/// A listener that is bound.
pub enum Bound {
    Unix(UnixListener, PathBuf),
    Tcp(TcpListener, Option<TlsAcceptor>),
    Metrics(TcpListener),
}

impl Listener {
    /// Binds; from now on clients wait.
    pub async fn bind(&self) -> Result<Bound> {
        match self {
            Listener::Unix(path) => Ok(Bound::Unix(socket::listen(path)?, path.clone())),
            Listener::Metrics(address) => {
                let listener = TcpListener::bind(address).await.context(format!("listen at {address}"))?;
                Ok(Bound::Metrics(listener))
            }
            Listener::Tcp(address, tls) => {
                let acceptor = tls.as_ref().map(Tls::acceptor).transpose()?;
                if acceptor.is_none() {
                    tracing::warn!(%address, "the Docker API is served without TLS: whoever reaches it is root on this host");
                }
                let listener = TcpListener::bind(address).await.context(format!("listen at {address}"))?;
                Ok(Bound::Tcp(listener, acceptor))
            }
        }
    }
}

impl Tls {
    fn acceptor(&self) -> Result<TlsAcceptor> {
        let bad = |path: &Path| {
            let path = path.display().to_string();
            move |error: rustls::pki_types::pem::Error| Error::invalid(format!("read {path}: {error}"))
        };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(&self.ca).map_err(bad(&self.ca))? {
            let certificate = certificate.map_err(bad(&self.ca))?;
            roots.add(certificate).map_err(|error| Error::invalid(format!("read {}: {error}", self.ca.display())))?;
        }
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&self.certificate)
            .and_then(Iterator::collect)
            .map_err(bad(&self.certificate))?;
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(bad(&self.key))?;
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots))
            .build()
            .map_err(|error| Error::invalid(format!("use {}: {error}", self.ca.display())))?;
        let mut config = rustls::ServerConfig::builder()
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(|error| Error::invalid(format!("use {}: {error}", self.certificate.display())))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

/// Serves until cancelled.
pub async fn serve(docker: Arc<Docker>, bound: Bound, shutdown: CancellationToken) -> Result<()> {
    let connections = TaskTracker::new();
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { break };
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = accept(&bound) => accepted,
        };
        let client = match accepted {
            Ok(client) => client,
            Err(error) => {
                tracing::debug!(%error, "a client could not be accepted");
                continue;
            }
        };
        let (docker, shutdown) = (docker.clone(), shutdown.clone());
        connections.spawn(async move {
            let _slot = slot;
            match client {
                Client::Unix(stream) => {
                    let peer = Peer::of(&stream);
                    converse(docker, stream, peer, shutdown).await
                }
                Client::Tcp(stream) => {
                    let peer = Peer::of(&stream);
                    converse(docker, stream, peer, shutdown).await
                }
                Client::Metrics(stream) => metrics::converse(docker, stream, shutdown).await,
                Client::Tls(stream, acceptor) => {
                    let peer = Peer::of(&stream);
                    match tokio::time::timeout(HANDSHAKE_LIMIT, acceptor.accept(stream)).await {
                        Ok(Ok(stream)) => converse(docker, stream, peer, shutdown).await,
                        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
                        Err(_) => {}
                    }
                }
            }
        });
    }
    connections.close();
    let _ = tokio::time::timeout(DRAIN_LIMIT, connections.wait()).await;
    if let Bound::Unix(_, path) = &bound {
        let _ = fs::remove_file(path);
    }
    Ok(())
}

enum Client {
    Unix(tokio::net::UnixStream),
    Tcp(tokio::net::TcpStream),
    Tls(tokio::net::TcpStream, TlsAcceptor),
    Metrics(tokio::net::TcpStream),
}

async fn accept(bound: &Bound) -> io::Result<Client> {
    match bound {
        Bound::Unix(listener, _) => Ok(Client::Unix(listener.accept().await?.0)),
        Bound::Metrics(listener) => Ok(Client::Metrics(accept_tcp(listener).await?)),
        Bound::Tcp(listener, acceptor) => {
            let stream = accept_tcp(listener).await?;
            Ok(match acceptor {
                Some(acceptor) => Client::Tls(stream, acceptor.clone()),
                None => Client::Tcp(stream),
            })
        }
    }
}

async fn accept_tcp(listener: &TcpListener) -> io::Result<tokio::net::TcpStream> {
    let stream = listener.accept().await?.0;
    let asking = TcpKeepalive::new().with_time(ASK_AFTER).with_interval(ASK_AFTER).with_retries(ASK_TIMES);
    SockRef::from(&stream).set_tcp_keepalive(&asking)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The other end of a connection, for work that is for nobody once the client is gone.
#[derive(Clone)]
pub struct Peer(Arc<OwnedFd>);

impl Peer {
    fn of(stream: &impl AsFd) -> Option<Peer> {
        Some(Peer(Arc::new(stream.as_fd().try_clone_to_owned().ok()?)))
    }

    /// Returns when the client says no more: it closed the connection, or its half of it. Go's server takes that for the
    /// end of the request as well.
    pub async fn gone(&self) {
        let Ok(fd) = self.0.try_clone() else { return std::future::pending().await };
        // SAFETY: the descriptor is owned by what watches it and stays the same.
        let watched = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
        let Ok(watched) = watched else { return std::future::pending().await };
        while let Ok(mut guard) = watched.readable().await {
            if guard.ready().is_read_closed() {
                return;
            }
            guard.clear_ready();
        }
        std::future::pending().await
    }

    /// Returns when nobody is at the other end any more. A client that closed only its half still listens; over TCP the
    /// two look alike, and such a client has [`HALF_LIMIT`] to hear the rest.
    ///
    /// Nothing is watched in the first moments, in which most requests end.
    pub async fn hung_up(&self) {
        tokio::time::sleep(WATCH_AFTER).await;
        self.gone().await;
        let mut ends = [PollFd::new(self.0.as_fd(), PollFlags::empty())];
        let whole = |ends: &[PollFd<'_>]| ends[0].revents().is_some_and(|events| events.contains(PollFlags::POLLHUP));
        if poll(&mut ends, PollTimeout::ZERO).is_ok() && whole(&ends) {
            return;
        }
        let tcp = getsockname::<SockaddrStorage>(self.0.as_raw_fd())
            .is_ok_and(|address| matches!(address.family(), Some(AddressFamily::Inet | AddressFamily::Inet6)));
        if tcp {
            return tokio::time::sleep(HALF_LIMIT).await;
        }
        // Asked for no event, epoll tells of the end of both halves only (epoll_ctl(2), EPOLLHUP).
        let Ok(ends) = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC) else { return std::future::pending().await };
        if ends.add(&*self.0, EpollEvent::new(EpollFlags::empty(), 0)).is_err() {
            return std::future::pending().await;
        }
        // SAFETY: the descriptor is owned by what watches it and stays the same.
        let watched = unsafe { AsyncFd::register_with_interest(ends.0, Interest::READABLE) };
        let Ok(watched) = watched else { return std::future::pending().await };
        if watched.readable().await.is_err() {
            std::future::pending().await
        }
    }
}

/// Waits for the end of a client that may be unknown.
pub async fn hung_up(peer: Option<Peer>) {
    match peer {
        Some(peer) => peer.hung_up().await,
        None => std::future::pending().await,
    }
}

/// One client's requests.
async fn converse<S>(docker: Arc<Docker>, stream: S, peer: Option<Peer>, shutdown: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let other = peer.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        let docker = docker.clone();
        if let Some(peer) = &peer {
            request.extensions_mut().insert(peer.clone());
        }
        async move { Ok::<_, std::convert::Infallible>(respond(docker, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        // Clients close their half after their input and still want the output.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        // An answer that has nothing to say for long would find out only when it has.
        () = hung_up(other) => return tracing::debug!("a client hung up"),
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a client went away");
    }
}

async fn respond(docker: Arc<Docker>, request: Request<Incoming>) -> Response<Body> {
    let head = request.method() == ::http::Method::HEAD;
    let what = format!("{} {}", request.method(), request.uri().path());
    let mut response = match dispatch(docker, request).await {
        Ok(response) => response,
        Err(problem) => {
            tracing::debug!(request = what, status = problem.status.as_u16(), error = problem.message, "refused");
            let mut response = problem.response();
            if head {
                *response.body_mut() = Body::empty();
            }
            response
        }
    };
    let headers = response.headers_mut();
    headers.insert("Api-Version", HeaderValue::from_static(const_version()));
    headers.insert("Docker-Experimental", HeaderValue::from_static("false"));
    headers.insert("Ostype", HeaderValue::from_static("linux"));
    if let Ok(server) = HeaderValue::try_from(format!("Docker/{DOCKER_VERSION} (linux)")) {
        headers.insert(header::SERVER, server);
    }
    response
}

const fn const_version() -> &'static str {
    const { assert!(MAX_VERSION == 50) };
    "1.50"
}

async fn dispatch(docker: Arc<Docker>, request: Request<Incoming>) -> super::http::Answer {
    let uri = request.uri().clone();
    let (version, path) = routes::split_version(uri.path())?;
    match routes::find(request.method(), path) {
        Found::Route(route, parameters) => {
            let query = Query::parse(uri.query().unwrap_or_default());
            let call = Call { docker, version: version.unwrap_or(MAX_VERSION), parameters, query, request };
            routes::answer(route, call).await
        }
        Found::WrongMethod => Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method not allowed")),
        Found::Nothing => Err(Problem::not_found("page not found")),
    }
}
