//! The Docker Engine API over the engine.
//!
//! ```text
//! unix socket, TCP with TLS ─ HTTP/1.1 ─ routes (one table) ─ handlers ─ Docker ─┬─ engine (containers, images)
//!                                                                              ├─ volumes
//!                                                                              └─ networks
//! ```
//!
//! Errors are `{"message": …}` with dockerd's codes and words. What Docker has and this engine has not is refused by name.

pub mod archives;
pub mod build;
pub mod changes;
pub mod containers;
pub mod events;
pub mod http;
pub mod images;
pub mod metrics;
pub mod networks;
pub mod pulls;
pub mod registry;
pub mod routes;
pub mod server;
pub mod streams;
pub mod system;
pub mod types;
pub mod volumes;
pub mod websocket;

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::{Arc, OnceLock, atomic::AtomicU64},
};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::{
    engine::{Engine, model::new_id},
    error::{Context, Result},
    networks::Networks,
    volumes::Volumes,
};

pub use server::{Listener, Tls};

/// The daemon that Docker's clients speak to.
pub struct Docker {
    pub engine: Arc<Engine>,
    pub store: containers::Store,
    pub volumes: Volumes,
    pub networks: Networks,
    pub events: events::Events,
    pub metrics: metrics::Metrics,
    pub execs: Mutex<HashMap<String, Arc<containers::exec::Exec>>>,
    next_exec: AtomicU64,
    pub build_mounts: build::Mounts,
    /// Commands of builds that may run at once.
    build_slots: Arc<tokio::sync::Semaphore>,
    /// Where builds keep files that do not outlive the daemon.
    build_spool: Mutex<Option<PathBuf>>,
    /// Whether the init program could be written.
    init_program: OnceLock<std::io::Result<()>>,
    /// The daemon's own id.
    pub id: String,
    /// Cancelled when the daemon ends; containers go on.
    pub stopping: CancellationToken,
}

impl Docker {
    /// Opens volumes and networks, finds the containers there were, and takes up what runs.
    pub async fn open(engine: Arc<Engine>, stopping: CancellationToken) -> Result<Arc<Docker>> {
        let dir = engine.data_dir().join("docker");
        fs::create_dir_all(&dir).context(format!("create {}", dir.display()))?;
        let id_file = dir.join("engine-id");
        let id = match fs::read_to_string(&id_file) {
            Ok(id) => id.trim().to_owned(),
            Err(_) => {
                let id = new_id()[..32].to_owned();
                fs::write(&id_file, &id).context(format!("write {}", id_file.display()))?;
                id
            }
        };
        let docker = Arc::new(Docker {
            volumes: Volumes::open(&dir.join("volumes"))?,
            networks: Networks::open(&dir.join("networks"))?,
            engine,
            store: containers::Store::default(),
            events: events::Events::default(),
            metrics: metrics::Metrics::default(),
            execs: Mutex::default(),
            next_exec: AtomicU64::new(0),
            build_mounts: build::Mounts::default(),
            build_slots: Arc::new(tokio::sync::Semaphore::new(
                2 * std::thread::available_parallelism().map_or(1, usize::from) + 2,
            )),
            build_spool: Mutex::default(),
            init_program: OnceLock::new(),
            id,
            stopping,
        });
        for network in docker.networks.list() {
            // A host without bridges still runs containers on none and host.
            if let Err(error) = docker.networks.set_up(&network).await {
                tracing::warn!(network = network.name, %error, "a network cannot be set up");
            }
        }
        docker.keep_rules();
        docker.recover_containers().await;
        Ok(docker)
    }

    /// The program that `--init` puts before a container's own, as a file that can be mounted. It is written anew by each
    /// daemon and renamed into place, so that containers of an earlier one keep theirs.
    fn init_program(&self) -> Result<PathBuf, http::Problem> {
        let failed = |error: &std::io::Error| http::Problem::internal(format!("write the init program: {error}"));
        let path = self.engine.data_dir().join("docker").join("docker-init");
        let written = self.init_program.get_or_init(|| {
            let part = path.with_extension("part");
            fs::write(&part, coracle_programs::CONTAINER_INIT.bytes())?;
            fs::set_permissions(&part, fs::Permissions::from_mode(0o755))?;
            fs::rename(&part, &path)
        });
        written.as_ref().map(|()| path.clone()).map_err(failed)
    }
}
