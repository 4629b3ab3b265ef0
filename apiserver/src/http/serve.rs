//! Listening: TLS, HTTP/1.1 and HTTP/2, one task a connection.

use super::gather::gather;
use super::{Identity, handle};
use crate::auth::from_certificate;
use crate::server::Server;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use rustls::server::WebPkiClientVerifier;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// A request's head, and the pause before the next request on a connection (upstream's idle timeout).
const HEADERS_WITHIN: Duration = Duration::from_secs(90);
/// A connection that answers no ping for this long is given up (HTTP/2).
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(30);
const KEEP_ALIVE_WITHIN: Duration = Duration::from_secs(20);
/// How long open requests may take to end when the server stops.
const DRAIN: Duration = Duration::from_secs(5);
/// Streams on one HTTP/2 connection: a client holds a watch per resource on one (upstream: 250, raised for watches).
const STREAMS: u32 = 1000;
/// All headers of a request together: tokens and selectors can be long. Upstream's server leaves Go's bounds as they are
/// (net/http `DefaultMaxHeaderBytes`): of HTTP/1 the head with its first line and a buffer's slack (`initialReadLimitSize`), of
/// HTTP/2 as the frames count it, with ten headers' overhead on top (`maxHeaderListSize`).
const HEADERS_MAX: u32 = 1 << 20;
pub(super) const HEAD_MAX: usize = HEADERS_MAX as usize + (4 << 10);
const HEADER_LIST_MAX: u32 = HEADERS_MAX + 10 * 32;
/// Headers of a request of HTTP/1, which Go does not count. Room for that many is made anew for each request (64 bytes each).
pub(super) const HEADER_COUNT: usize = 4096;
/// The largest TLS record. Each is made in a buffer of its own, and those of 16 KiB of text are a little larger than that: the
/// allocator then takes fresh memory for nearly every one, which costs as much as encrypting it.
const RECORD: usize = 12 << 10;
/// Connections on one listener.
const CONNECTIONS: usize = 16_384;

/// Makes a TLS configuration that asks clients for a certificate of the authority but does not insist.
///
/// # Errors
/// When a PEM holds no certificate or key.
pub fn tls(certificate_pem: &str, key_pem: &str, ca_pem: &str) -> Result<Arc<rustls::ServerConfig>, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        roots.add(certificate.map_err(|error| error.to_string())?).map_err(|error| error.to_string())?;
    }
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).allow_unauthenticated().build();
    let chain = CertificateDer::pem_slice_iter(certificate_pem.as_bytes()).collect::<Result<Vec<_>, _>>();
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|error| error.to_string())?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_client_cert_verifier(verifier.map_err(|error| error.to_string())?)
        .with_single_cert(chain.map_err(|error| error.to_string())?, key)
        .map_err(|error| error.to_string())?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.max_fragment_size = Some(RECORD);
    Ok(Arc::new(config))
}

/// Accepts connections until told to stop, then lets open requests end.
pub async fn serve(
    server: Arc<Server>,
    listener: TcpListener,
    config: Arc<rustls::ServerConfig>,
    stop: CancellationToken,
) {
    let acceptor = TlsAcceptor::from(config);
    let tracker = TaskTracker::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let place = tokio::select! {
            () = stop.cancelled() => break,
            place = places.clone().acquire_owned() => match place {
                Ok(place) => place,
                Err(_) => break,
            },
        };
        let stream = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of files or memory: the next accept would fail at once too.
                    tracing::warn!(%error, "accepting a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let (server, acceptor, stop) = (server.clone(), acceptor.clone(), stop.clone());
        tracker.spawn(async move {
            connection(server, acceptor, stream, stop).await;
            drop(place);
        });
    }
    tracker.close();
    let _ = tokio::time::timeout(DRAIN, tracker.wait()).await;
}

async fn connection(server: Arc<Server>, acceptor: TlsAcceptor, stream: TcpStream, stop: CancellationToken) {
    let peer = stream.peer_addr().ok();
    let _ = stream.set_nodelay(true);
    // Who has not said who it is has nothing to lose when the server stops.
    let shaken = tokio::select! {
        () = stop.cancelled() => return,
        shaken = tokio::time::timeout(HANDSHAKE_WITHIN, acceptor.accept(stream)) => shaken,
    };
    let tls = match shaken {
        Ok(Ok(tls)) => tls,
        Ok(Err(error)) => {
            server.metrics.handshake_error();
            return tracing::debug!(%error, "TLS handshake");
        }
        Err(_) => {
            server.metrics.handshake_error();
            return tracing::debug!("TLS handshake took too long");
        }
    };
    let certificate =
        tls.get_ref().1.peer_certificates().and_then(|chain| chain.first()).and_then(|leaf| from_certificate(leaf));
    let identity = Identity::Connection(certificate.map(Arc::new), peer);
    let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let (server, identity) = (server.clone(), identity.clone());
        async move { Ok::<_, Infallible>(handle(server, request.map(axum::body::Body::new), identity).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_WITHIN)
        .max_headers(HEADER_COUNT)
        .max_buf_size(HEAD_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEADER_LIST_MAX)
        .keep_alive_interval(KEEP_ALIVE_EVERY)
        .keep_alive_timeout(KEEP_ALIVE_WITHIN)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20);
    let result = if tls.get_ref().1.alpn_protocol() == Some(b"h2") {
        let (end, sender) = gather(tls);
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(end), service);
        tokio::pin!(connection);
        let result = tokio::select! {
            result = sender.drive(connection.as_mut()) => result,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                tokio::time::timeout(DRAIN, sender.drive(connection)).await.unwrap_or(Ok(()))
            }
        };
        result
    } else {
        // One request at a time: there is nothing to gather, and the stream may be handed on.
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(tls), service);
        tokio::pin!(connection);
        tokio::select! {
            result = connection.as_mut() => result,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                tokio::time::timeout(DRAIN, connection).await.unwrap_or(Ok(()))
            }
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection ended");
    }
}
