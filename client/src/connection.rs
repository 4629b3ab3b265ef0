//! Opening a connection: over TLS from a kubeconfig, over a connector of the caller's, or straight into a service of this process.

use std::{path::Path, time::Duration};

use http::{Request, Response, Uri};
use hyper_util::{client::legacy::connect::Connection, rt::TokioExecutor};
use kube::{
    Client, Config,
    client::{Body, ConfigExt},
    config::{KubeConfigOptions, Kubeconfig},
};
use thiserror::Error;
use tower::{BoxError, Service, ServiceBuilder};

/// Why no connection could be made ready. Nothing is dialled before the first request.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The kubeconfig cannot be read, or names something that is not in it.
    #[error("kubeconfig: {0}")]
    Kubeconfig(#[source] Box<kube::config::KubeconfigError>),
    /// The certificates or credentials in the kubeconfig are not usable.
    #[error("connection: {0}")]
    Client(#[source] Box<kube::Error>),
}

impl From<kube::config::KubeconfigError> for ConnectError {
    fn from(error: kube::config::KubeconfigError) -> Self {
        Self::Kubeconfig(Box::new(error))
    }
}

impl From<kube::Error> for ConnectError {
    fn from(error: kube::Error) -> Self {
        Self::Client(Box::new(error))
    }
}

/// Makes aws-lc-rs the process's cryptography. May be called any number of times, from anywhere.
pub fn install_crypto() {
    // The only error is that a provider stands already, which is what we want.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// Reads a kubeconfig file; `context` selects another than the current one.
pub async fn load(path: &Path, context: Option<&str>) -> Result<Config, ConnectError> {
    config(Kubeconfig::read_from(path)?, context).await
}

/// Turns a kubeconfig into a configuration with our timeouts.
pub async fn config(kubeconfig: Kubeconfig, context: Option<&str>) -> Result<Config, ConnectError> {
    let options = KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &options).await?;
    config.connect_timeout = Some(Duration::from_secs(10));
    // No read timeout: a quiet watch or log stream is not a dead one. Requests that are not streams carry
    // their own deadline, and the watcher notices a dead connection by its idle timeout.
    config.read_timeout = None;
    config.write_timeout = Some(Duration::from_secs(30));
    // Retrying is the work queue's task; a client that repeats in silence hides an overloaded server.
    config.default_retry = false;
    Ok(config)
}

/// A client from the kubeconfig at `path`.
pub async fn connect(path: impl AsRef<Path>) -> Result<Client, ConnectError> {
    install_crypto();
    Ok(Client::try_from(load(path.as_ref(), None).await?)?)
}

/// A client from a kubeconfig that is at hand.
pub async fn connect_kubeconfig(kubeconfig: Kubeconfig) -> Result<Client, ConnectError> {
    install_crypto();
    Ok(Client::try_from(config(kubeconfig, None).await?)?)
}

/// A client whose TCP (or other) connections are opened by `connector`, for instance from another network
/// namespace; TLS, authentication and the base URL come from `config`.
pub fn connect_with<C>(config: Config, connector: C) -> Result<Client, ConnectError>
where
    C: Service<Uri> + Clone + Send + Sync + 'static,
    C::Response: Connection + hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static,
    C::Future: Send + 'static,
    C::Error: std::error::Error + Send + Sync + 'static,
{
    install_crypto();
    let https = config.rustls_https_connector_with_connector(connector)?;
    let transport = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build::<_, Body>(https);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(transport);
    Ok(Client::new(service, config.default_namespace))
}

/// A client whose transport is a service of this process: the API server's router carrying an identity.
/// No socket is opened and nothing is encrypted, and yet every request goes through all stages.
pub fn in_process<S, B>(service: S) -> Client
where
    S: Service<Request<Body>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    Client::new(service, "default")
}
