//! The node's own HTTPS server. Only bearers of a client certificate of the cluster's authority are let in.

mod logs;
mod streams;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use coracle_client::Informer;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

pub use tls::{Credentials, acceptor};

use crate::work::Shared;

/// Connections at a time; more wait in the kernel.
const CONNECTIONS: usize = 512;
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Headers of a request: as many as the API server takes, which passes them on.
const HEADER_COUNT: usize = 4096;

/// What the handlers know.
#[derive(Clone)]
pub struct App {
    pub shared: Arc<Shared>,
    pub pods: Arc<Informer<Pod>>,
    /// Rises with every change the runtime tells of.
    pub changes: watch::Receiver<u64>,
}

fn router(app: App) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/pods", get(pods))
        .route("/containerLogs/{namespace}/{pod}/{container}", get(logs::get))
        .route("/exec/{namespace}/{pod}/{container}", any(streams::exec))
        .route("/attach/{namespace}/{pod}/{container}", any(streams::attach))
        .route("/portForward/{namespace}/{pod}", any(streams::port_forward))
        .with_state(app)
}

async fn pods(State(app): State<App>) -> Response {
    let snapshot = app.pods.snapshot();
    let items: Vec<&Pod> = snapshot.iter().map(|pod| &**pod).collect();
    let list = json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items});
    ([(header::CONTENT_TYPE, "application/json")], list.to_string()).into_response()
}

/// A plain-text answer, as upstream's kubelet gives them.
fn text(code: StatusCode, message: impl Into<String>) -> Response {
    (code, message.into()).into_response()
}

/// Serves until `shutdown`; streams that are open then are cut.
pub async fn serve(listener: TcpListener, acceptor: TlsAcceptor, app: App, shutdown: CancellationToken) {
    let router = router(app);
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let Ok(permit) = connections.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, for instance: others may close some.
                tracing::warn!(error = %error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (acceptor, router, shutdown) = (acceptor.clone(), router.clone(), shutdown.clone());
        tokio::spawn(async move {
            let _permit = permit;
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = connection(stream, peer, acceptor, router) => {}
            }
        });
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, acceptor: TlsAcceptor, router: Router) {
    let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(peer = %peer, error = %error, "refused a connection"),
        Err(_) => return,
    };
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    if !certificate.is_some_and(|certificate| tls::may_enter(certificate)) {
        return tracing::warn!(peer = %peer, "refused a caller: nodes do not read from each other");
    }
    let mut builder = auto::Builder::new(TokioExecutor::new());
    let timer = hyper_util::rt::TokioTimer::new();
    builder.http1().timer(timer).header_read_timeout(HANDSHAKE).max_headers(HEADER_COUNT);
    if let Err(error) =
        builder.serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(router)).await
    {
        tracing::debug!(peer = %peer, error = %error, "a connection broke off");
    }
}
