//! CRI v1 over a unix socket: translates between the kubelet's messages and the engine.

mod convert;
mod image_service;
mod info;
mod metrics;
mod runtime_service;
mod streaming;
mod usage;

use std::{fs, path::Path, sync::Arc};

use coracle_cri::{ImageServer, RuntimeServer};
use coracle_link::Place;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, transport::Server};

use crate::{
    engine::Engine,
    error::{Context, Error, Kind, Result},
    socket,
};

/// The kubelet's own limit for what it accepts.
const MAX_MESSAGE: usize = 16 << 20;

/// Runtimes that containers can be started with; there is one.
const HANDLERS: [&str; 2] = ["", "coracle"];

/// Serves both services until cancelled; `ready` is called once every socket is there.
pub async fn serve(engine: Arc<Engine>, path: &Path, shutdown: CancellationToken, ready: impl FnOnce()) -> Result<()> {
    let listener = socket::listen(path)?;
    let streams = Arc::new(streaming::Containers(engine.clone()));
    let loopback =
        Place::Current.listen_tcp(([127, 0, 0, 1], 0).into()).context("listen for streams on the loopback")?;
    let streams = coracle_streaming::Server::start(streams, loopback, shutdown.clone()).context("serve streams")?;
    let runtime = runtime_service::Service::new(engine.clone(), streams, shutdown.clone());
    let runtime = RuntimeServer::new(runtime, MAX_MESSAGE);
    let images = ImageServer::new(image_service::Service::new(engine), MAX_MESSAGE);
    let router = Server::builder().add_service(runtime).add_service(images);
    ready();
    let served = router.serve_with_incoming_shutdown(UnixListenerStream::new(listener), shutdown.cancelled()).await;
    let _ = fs::remove_file(path);
    served.map_err(|error| Error::internal(format!("serve CRI at {}: {error}", path.display())))
}

/// The gRPC code of an error; the kubelet tells `NotFound` and `DeadlineExceeded` from the rest.
fn status(error: Error) -> Status {
    let message = error.to_string();
    match error.kind() {
        Kind::NotFound => Status::not_found(message),
        Kind::AlreadyExists => Status::already_exists(message),
        Kind::InvalidArgument => Status::invalid_argument(message),
        Kind::FailedPrecondition => Status::failed_precondition(message),
        Kind::PermissionDenied => Status::permission_denied(message),
        Kind::Unavailable => Status::unavailable(message),
        Kind::DeadlineExceeded => Status::deadline_exceeded(message),
        Kind::Unimplemented => Status::unimplemented(message),
        Kind::Internal => Status::unknown(message),
    }
}

/// A request without the part that it is about.
fn missing(what: &str) -> Status {
    Status::invalid_argument(format!("{what} is missing"))
}

fn known_handler(name: &str) -> std::result::Result<(), Status> {
    if HANDLERS.contains(&name) {
        return Ok(());
    }
    Err(Status::not_found(format!("failed to get sandbox runtime: no runtime for {name:?} is configured")))
}
