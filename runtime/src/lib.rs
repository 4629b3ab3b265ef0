//! The container runtime: content, snapshots, launcher and shim, engine, CRI.
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

pub mod cni;
pub mod content;
pub mod cri;
pub mod digest;
pub mod engine;
pub mod error;
pub mod images;
pub mod snapshots;

use std::{path::PathBuf, sync::Arc};

use coracle_link::Place;
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
    /// In whose network pulls are dialled.
    pub pull_place: Place,
    pub registries: images::registry::Registries,
}

/// A runtime that is up: its state read, its shims found.
pub struct Runtime {
    config: Config,
    engine: Arc<engine::Engine>,
}

impl Runtime {
    /// Opens the directories and finds what ran before.
    pub async fn start(config: Config) -> Result<Runtime> {
        let engine = engine::Engine::open(&config).await?;
        Ok(Runtime { config, engine })
    }

    pub fn images(&self) -> &images::Images {
        self.engine.images()
    }

    pub fn engine(&self) -> &Arc<engine::Engine> {
        &self.engine
    }

    /// Serves CRI until cancelled. Containers go on without it.
    pub async fn serve(&self, shutdown: CancellationToken) -> Result<()> {
        cri::serve(self.engine.clone(), &self.config.cri_socket, shutdown).await
    }
}

/// Starts a runtime and serves it.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<()> {
    Runtime::start(config).await?.serve(shutdown).await
}
