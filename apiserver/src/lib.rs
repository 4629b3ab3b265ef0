//! The Kubernetes API server.
//!
//! ```text
//!  HTTPS ─┐                                                            ┌─► GET, LIST, watches
//!         ├─► authenticate ─► authorize ─► admit ─► registry ─► store ─┴► watch cache
//!  in-process clients ─┘     (one way for everybody)   (one row a resource)
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`store`] | the key space with revisions: trait, embedded, etcd |
//! | [`cache`] | everything in the store, encoded and ready to be sent |
//! | [`custom`] | custom resources: rows that come and go with their definitions |
//! | [`registry`] | the rows: which resources there are, and what is particular about each |
//! | [`verbs`] | get, list, watch, create, update, patch, delete: each once |
//! | [`admission`] | what the server adds to and refuses of objects |
//! | [`auth`] | who asks, and whether they may |
//! | [`http`] | paths, negotiation, discovery, health, listening |

pub mod admission;
pub mod auth;
mod bootstrap;
pub mod cache;
pub mod custom;
pub mod http;
pub mod options;
pub mod registry;
mod server;
pub mod store;
pub mod verbs;

pub use auth::UserInfo;
pub use server::Server;

use ::http::{Request, Response};
use axum::body::Body;
use bytes::Bytes;
use cache::measured;
use coracle_api::clock::{Clock, SystemClock};
use coracle_api::names::{Names, RandomNames};
use coracle_link::Place;
use futures::FutureExt;
use futures::future::BoxFuture;
use ipnet::IpNet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::task::{Context, Poll};
use store::Store;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What an API server needs to run.
#[derive(Clone)]
pub struct Config {
    pub store: Arc<dyn Store>,
    pub clock: Arc<dyn Clock>,
    pub names: Arc<dyn Names>,
    /// Cluster IPs come from here; IPv4.
    pub service_cidr: IpNet,
    pub node_port_range: RangeInclusive<u16>,
    /// The cluster's certificate authority: clients' certificates are checked against it, and /cacerts shows it.
    pub ca_pem: String,
    /// Another authority by which kubelets are known, beside the cluster's.
    pub kubelet_ca_pem: Option<String>,
    /// Certificate and key that the server shows to kubelets.
    pub kubelet_client: Option<(String, String)>,
    /// The P-256 key, PKCS #8 in PEM, that service accounts' tokens are signed with; one that ends with the process when
    /// there is none.
    pub service_account_key: Option<String>,
    /// Where kubelets are dialled from.
    pub node_place: Place,
    /// Where the server is reached: the endpoint of the `kubernetes` Service.
    pub advertise: SocketAddr,
}

impl Config {
    /// A configuration with the usual ranges, clock and names, without a kubelet client.
    pub fn new(store: Arc<dyn Store>, ca_pem: impl Into<String>, advertise: SocketAddr) -> Self {
        Self {
            store,
            clock: Arc::new(SystemClock::new()),
            names: Arc::new(RandomNames),
            service_cidr: IpNet::V4(ipnet::Ipv4Net::new_assert(std::net::Ipv4Addr::new(10, 96, 0, 0), 16)),
            node_port_range: 30000..=32767,
            ca_pem: ca_pem.into(),
            kubelet_ca_pem: None,
            kubelet_client: None,
            service_account_key: None,
            node_place: Place::default(),
            advertise,
        }
    }
}

/// Why a server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("reading the store: {0}")]
    Store(#[from] store::StoreError),
    #[error("setting up TLS: {0}")]
    Tls(String),
    #[error("making the cluster's first objects: {0}")]
    Bootstrap(#[from] coracle_api::Status),
}

// What is awaited from other crates is boxed: so it is compiled once, here, and not in every program that awaits it.

/// A running API server, without a listener until [`serve`](ApiServer::serve) is called.
pub struct ApiServer {
    server: Arc<Server>,
    tasks: TaskTracker,
    /// Feeds the caches until nobody reads them: what the others have begun waits for what it has just written.
    feeding: TaskTracker,
    fed: CancellationToken,
}

impl ApiServer {
    /// Loads the cache, makes what every cluster has, and starts the background work.
    ///
    /// # Errors
    /// When the store cannot be read or written, or a PEM cannot be read.
    pub fn start(config: Config) -> BoxFuture<'static, Result<Arc<Self>, StartError>> {
        Self::begin(config).boxed()
    }

    async fn begin(mut config: Config) -> Result<Arc<Self>, StartError> {
        let registry = registry::Registry::builtin();
        let asked = measured::Meters::default();
        config.store = Arc::new(measured::Measured::new(config.store, asked.clone(), &registry.current()));
        let definitions = custom::Definitions::load(&*config.store).await?;
        registry.set_custom(definitions.rows());
        let cacher = cache::Cacher::load(config.store.clone(), &registry).await?;
        let identity = config.kubelet_client.as_ref().map(|(certificate, key)| (certificate.as_str(), key.as_str()));
        let authorities = [Some(config.ca_pem.as_str()), config.kubelet_ca_pem.as_deref()];
        let kubelet =
            http::kubelet::KubeletClient::new(authorities.into_iter().flatten(), identity, config.node_place.clone())
                .map_err(StartError::Tls)?;
        let signer = auth::tokens::Signer::new(config.service_account_key.as_deref()).map_err(StartError::Tls)?;
        let limits = http::fairness::Limits::default();
        let server = Arc::new(Server {
            signer,
            config,
            registry,
            cacher,
            metrics: http::metrics::Metrics::new(limits.meters(), &asked),
            limits,
            hooks: http::health::Hooks::default(),
            log: http::health::Log::default(),
            openapi: http::openapi::Documents::default(),
            kubelet,
            twins: verbs::Twins::default(),
            lease: tokio::sync::Mutex::default(),
            stop: CancellationToken::new(),
        });
        let tasks = TaskTracker::new();
        let (feeding, fed) = (TaskTracker::new(), CancellationToken::new());
        feeding.spawn(server.cacher.clone().run(fed.clone()));
        tasks.spawn(server.clone().maintain());
        server.hooks.done("poststarthook/crd-informer-synced");
        bootstrap::run(&server).await?;
        // Before the first request, so that none is taken for another's.
        http::fairness::configure(&server)?;
        server.hooks.done("poststarthook/priority-and-fairness-config-consumer");
        tasks.spawn(http::fairness::follow(server.clone()));
        tasks.spawn(custom::run(server.clone(), definitions));
        tasks.spawn(bootstrap::keep(server.clone()));
        tasks.spawn(bootstrap::hold_lease(server.clone()));
        tasks.spawn(bootstrap::hold_identity(server.clone()));
        tasks.spawn(bootstrap::settle_defaults(server.clone()));
        server.hooks.done("poststarthook/start-apiextensions-controllers");
        Ok(Arc::new(Self { server, tasks, feeding, fed }))
    }

    /// The server as a tower service for a client in this process, under an identity. Its requests go the same way as
    /// any other.
    pub fn service(&self, user: UserInfo) -> InProcess {
        InProcess { server: self.server.clone(), user: Arc::new(user) }
    }

    /// Serves HTTPS on a listener until told to stop. Can be called for several listeners.
    pub fn serve(
        &self,
        listener: TcpListener,
        tls: Arc<rustls::ServerConfig>,
        stop: CancellationToken,
    ) -> BoxFuture<'static, ()> {
        let either = stop.child_token();
        let own = self.server.stop.clone();
        let serving = http::serve::serve(self.server.clone(), listener, tls, either.clone());
        async move {
            tokio::pin!(serving);
            tokio::select! {
                () = &mut serving => {}
                () = own.cancelled() => {
                    either.cancel();
                    serving.await;
                }
            }
        }
        .boxed()
    }

    /// A TLS configuration for [`serve`](ApiServer::serve): asks clients for a certificate of the cluster's authority.
    ///
    /// # Errors
    /// When a PEM cannot be read.
    pub fn tls(&self, certificate_pem: &str, key_pem: &str) -> Result<Arc<rustls::ServerConfig>, StartError> {
        http::serve::tls(certificate_pem, key_pem, &self.server.config.ca_pem).map_err(StartError::Tls)
    }

    /// Ends watches, listeners and background work, and waits for the latter.
    pub fn stop(&self) -> BoxFuture<'_, ()> {
        async {
            bootstrap::leave(&self.server).await;
            self.server.stop.cancel();
            self.tasks.close();
            self.tasks.wait().await;
            self.fed.cancel();
            self.feeding.close();
            self.feeding.wait().await;
        }
        .boxed()
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.server.stop.cancel();
        self.fed.cancel();
    }
}

/// The API server for a client in this process; cheap to clone.
#[derive(Clone)]
pub struct InProcess {
    server: Arc<Server>,
    user: Arc<UserInfo>,
}

impl<B> tower::Service<Request<B>> for InProcess
where
    B: ::http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (server, identity) = (self.server.clone(), http::Identity::User(self.user.clone()));
        answer(server, request.map(Body::new), identity)
    }
}

fn answer(
    server: Arc<Server>,
    request: Request<Body>,
    identity: http::Identity,
) -> BoxFuture<'static, Result<Response<Body>, Infallible>> {
    http::handle(server, request, identity).map(Ok).boxed()
}
