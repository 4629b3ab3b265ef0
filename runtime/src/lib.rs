//! The container runtime: content, snapshots, launcher and shim, engine, CRI, Docker API.
//!
//! ```text
//! CRI (tonic) ─┐
//! Docker API ──┴─ engine ─┬─ images ── content store, catalogue, registry client
//!                         ├─ snapshots (overlayfs, copy)
//!                         ├─ cni ── plugins
//!                         └─ shim ── launcher ── container
//! ```
//!
//! The engine knows pods' sandboxes and containers, and neither Kubernetes nor Docker; the edges translate.

// An answer of the Docker API is one large JSON literal.
#![recursion_limit = "256"]

pub mod builder;
pub mod check;
pub mod cni;
pub mod content;
pub mod cri;
pub mod digest;
pub mod docker;
pub mod engine;
pub mod error;
pub mod images;
pub mod networks;
mod placement;
pub mod snapshots;
mod socket;
mod tar_headers;
pub mod volumes;

use std::{path::PathBuf, sync::Arc};

use coracle_link::Place;
use futures::{FutureExt, future::BoxFuture};
use tokio_util::sync::CancellationToken;

pub use error::{Error, Kind, Result};

/// Where a runtime keeps things and how it reaches the world.
#[derive(Clone, Debug)]
pub struct Config {
    /// Images, layers, containers: survives a reboot.
    pub data_dir: PathBuf,
    /// Sockets, namespaces, bundles: need not survive a reboot.
    pub run_dir: PathBuf,
    /// Where CRI is served; mode 0660.
    pub cri_socket: PathBuf,
    /// The group of sandboxes whose caller names none, e.g. `/coracle/lab/node`.
    pub cgroup_parent: String,
    /// Network configurations (`*.conflist`, `*.conf`).
    pub cni_conf_dir: PathBuf,
    /// Network plugins.
    pub cni_bin_dir: PathBuf,
    /// The network plugin that this program is itself, if it is one.
    pub cni_own: Option<cni::OwnPlugin>,
    /// Descriptions of devices; what is in a later directory goes before what is in an earlier one.
    pub cdi_dirs: Vec<PathBuf>,
    /// Whether containers get SELinux labels where the kernel has SELinux.
    pub selinux: bool,
    /// In whose network pulls are dialled.
    pub pull_place: Place,
    pub registries: images::registry::Registries,
    /// What a layer may hold at most.
    pub layer_limits: snapshots::apply::Limits,
    /// Where the Docker API is served; nowhere for none.
    pub docker: Vec<docker::Listener>,
}

/// A runtime that is up: its state read, its shims found.
pub struct Runtime {
    config: Config,
    engine: Arc<engine::Engine>,
}

impl Config {
    /// Where devices are described by default.
    pub fn default_cdi_dirs() -> Vec<PathBuf> {
        engine::cdi::DIRECTORIES.map(PathBuf::from).into()
    }
}

// What is awaited from other crates is boxed: so it is compiled once, here, and not in every program that awaits it.

impl Runtime {
    /// Opens the directories and finds what ran before.
    pub fn start(config: Config) -> BoxFuture<'static, Result<Runtime>> {
        async {
            // Directories of layers and containers are made with modes that containers see, whatever whoever starts this has
            // set (dockerd's `setDefaultUmask`).
            coracle_launcher::sys::umask(0o022);
            let engine = engine::Engine::open(&config).await?;
            let known = Arc::downgrade(&engine);
            engine.images().know_use(move || known.upgrade().map(|engine| engine.chains_in_use()));
            Ok(Runtime { config, engine })
        }
        .boxed()
    }

    pub fn images(&self) -> &images::Images {
        self.engine.images()
    }

    pub fn engine(&self) -> &Arc<engine::Engine> {
        &self.engine
    }

    /// Serves CRI, and the Docker API where it was asked for, until cancelled. Containers go on without it.
    pub fn serve(&self, shutdown: CancellationToken) -> BoxFuture<'_, Result<()>> {
        self.serve_then(shutdown, Box::new(|| ()))
    }

    /// The same; `ready` is called once every socket is there.
    pub fn serve_then(
        &self,
        shutdown: CancellationToken,
        ready: Box<dyn FnOnce() + Send>,
    ) -> BoxFuture<'_, Result<()>> {
        self.serve_parts(shutdown, ready).boxed()
    }

    async fn serve_parts(&self, shutdown: CancellationToken, ready: Box<dyn FnOnce() + Send>) -> Result<()> {
        let mut listeners = Vec::new();
        for listener in &self.config.docker {
            listeners.push(listener.bind().await?);
        }
        let mut parts = tokio::task::JoinSet::new();
        if !listeners.is_empty() {
            let docker = docker::Docker::open(self.engine.clone(), shutdown.clone()).await?;
            for bound in listeners {
                parts.spawn(docker::server::serve(docker.clone(), bound, shutdown.clone()));
            }
        }
        let served = cri::serve(self.engine.clone(), &self.config.cri_socket, shutdown.clone(), ready).await;
        // Whatever ended the one ends the others.
        shutdown.cancel();
        let mut first = served;
        while let Some(part) = parts.join_next().await {
            first = first.and(part.unwrap_or_else(|error| Err(error.into())));
        }
        first
    }
}

/// Starts a runtime and serves it.
pub fn run(config: Config, shutdown: CancellationToken) -> BoxFuture<'static, Result<()>> {
    async { Runtime::start(config).await?.serve(shutdown).await }.boxed()
}
