//! Containers as Docker knows them: a record of what was asked for beside the engine's container.

pub mod archive;
pub mod attach;
pub mod create;
pub mod exec;
pub mod files;
pub mod filesystem;
pub mod health;
pub mod inspect;
pub mod lifecycle;
pub mod list;
pub mod log_options;
mod log_tag;
pub mod logs;
pub mod mounts;
pub mod names;
pub mod network;
pub mod options;
pub mod process;
pub mod remove;
pub mod spec;
pub mod stats;
pub mod update;

use std::{collections::HashMap, sync::Arc};

use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    Docker,
    http::Problem,
    types::{Config, Endpoint, HostConfig, Map, MountPoint},
};
use crate::{
    engine::{self, model::Status, record_file, standalone::PendingAttach},
    error::{Context, Error, Result},
};

/// The file in a container's directory.
const RECORD: &str = "docker.json";

/// What was asked for and what became of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// Without the slash.
    pub name: String,
    /// Nanoseconds since 1970.
    pub created: i64,
    pub config: Config,
    pub host: HostConfig,
    pub networks: Map<Endpoint>,
    pub mounts: Vec<MountPoint>,
    /// `sha256:…`
    pub image_id: String,
    pub restart_count: u32,
    /// Stopped by somebody: `unless-stopped` leaves it so.
    pub manually_stopped: bool,
    /// Ports that were taken at the last start, by `80/tcp`.
    pub ports: Map<Vec<super::types::PortBinding>>,
    pub error: String,
    /// It runs a step of a build: when the daemon that builds is gone, nobody needs it.
    pub step: bool,
}

/// What a container's waiters wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moments {
    /// How often it ended, whether or not its policy starts it again.
    pub ends: u64,
    pub code: i32,
    pub removed: bool,
    /// How many of its runs are over and dealt with.
    pub settled: u64,
}

/// A container while the daemon runs.
#[derive(Default)]
pub struct Live {
    /// Attached before the start.
    pub pending: Vec<PendingAttach>,
    pub paused: bool,
    pub restarting: bool,
    pub removing: bool,
    /// Stopped or killed by a request since its start: policies leave it so.
    pub stop_requested: bool,
    /// Ends the wait before a restart by policy.
    pub waiting: Option<CancellationToken>,
    /// The delay before the next restart, in milliseconds.
    pub backoff: u64,
    pub health: Option<health::Health>,
    pub health_stop: Option<CancellationToken>,
    pub network: Option<network::Attached>,
    /// Its volumes are counted as used.
    pub holds_volumes: bool,
    /// How often it was started in the life of this daemon.
    pub runs: u64,
}

/// A container.
pub struct Container {
    pub id: String,
    pub engine: Arc<engine::Container>,
    /// A container of CRI: its record is made up from the engine's.
    pub pod: bool,
    record: RwLock<Record>,
    /// Held while the record is written: whether the file holds what `record` does.
    recording: Mutex<bool>,
    /// One change at a time: start, end, remove, rename.
    pub changing: tokio::sync::Mutex<()>,
    pub live: Mutex<Live>,
    pub moments: watch::Sender<Moments>,
}

impl Container {
    pub fn new(engine: Arc<engine::Container>, record: Record, pod: bool) -> Container {
        Container {
            id: engine.id.clone(),
            engine,
            pod,
            record: RwLock::new(record),
            recording: Mutex::default(),
            changing: tokio::sync::Mutex::new(()),
            live: Mutex::default(),
            moments: watch::channel(Moments::default()).0,
        }
    }

    pub fn record(&self) -> Record {
        self.record.read().clone()
    }

    /// Looks at the record without copying it.
    pub fn with<T>(&self, look: impl FnOnce(&Record) -> T) -> T {
        look(&self.record.read())
    }

    pub fn name(&self) -> String {
        self.with(|record| record.name.clone())
    }

    /// Whether its first process runs.
    pub fn runs(&self) -> bool {
        self.engine.state().status == Status::Running
    }

    /// Docker's word for the state.
    pub fn status(&self) -> &'static str {
        let state = self.engine.state();
        let live = self.live.lock();
        match state.status {
            _ if live.removing => "removing",
            Status::Running if live.paused => "paused",
            _ if live.restarting => "restarting",
            Status::Running => "running",
            // A start that failed leaves a container as it was.
            Status::Exited if state.started_at == 0 => "created",
            Status::Exited => "exited",
            Status::Created => "created",
        }
    }
}

/// All containers, by id and name.
#[derive(Default)]
pub struct Store {
    containers: RwLock<HashMap<String, Arc<Container>>>,
    /// Name → id; a name is taken before its container exists.
    names: Mutex<HashMap<String, String>>,
}

impl Store {
    pub fn all(&self) -> Vec<Arc<Container>> {
        self.containers.read().values().cloned().collect()
    }

    pub fn get(&self, id: &str) -> Option<Arc<Container>> {
        self.containers.read().get(id).cloned()
    }

    /// Takes a name, or says who has it.
    pub fn reserve(&self, name: &str, id: &str) -> Result<(), String> {
        match self.names.lock().entry(name.to_owned()) {
            std::collections::hash_map::Entry::Occupied(taken) => Err(taken.get().clone()),
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert(id.to_owned());
                Ok(())
            }
        }
    }

    pub fn release(&self, name: &str, id: &str) {
        let mut names = self.names.lock();
        if names.get(name).is_some_and(|owner| owner == id) {
            names.remove(name);
        }
    }

    pub fn insert(&self, container: Arc<Container>) {
        self.containers.write().insert(container.id.clone(), container);
    }

    pub fn remove(&self, container: &Container) {
        self.release(&container.name(), &container.id);
        self.containers.write().remove(&container.id);
    }

    fn by_name(&self, name: &str) -> Option<Arc<Container>> {
        let id = self.names.lock().get(name).cloned()?;
        self.get(&id)
    }
}

/// The name a pod's container has for Docker's clients (dockershim's naming, `k8s_CONTAINER_POD_NAMESPACE_UID_ATTEMPT`).
fn pod_name(container: &engine::Container, sandbox: Option<&engine::Sandbox>) -> String {
    let part =
        |pick: fn(&engine::model::SandboxConfig) -> &str| sandbox.map(|sandbox| pick(&sandbox.config)).unwrap_or("");
    format!(
        "k8s_{}_{}_{}_{}_{}",
        container.config.name,
        part(|config| &config.name),
        part(|config| &config.namespace),
        part(|config| &config.uid),
        container.config.attempt
    )
}

impl Docker {
    /// Containers of both edges, newest first.
    pub fn containers(&self) -> Vec<Arc<Container>> {
        let mut all = self.store.all();
        all.extend(self.engine.pod_containers().into_iter().map(|container| self.pod_container(container)));
        all.sort_by_key(|container| std::cmp::Reverse(container.with(|record| record.created)));
        all
    }

    fn pod_container(&self, container: Arc<engine::Container>) -> Arc<Container> {
        let sandbox = self.engine.sandbox(&container.sandbox).ok();
        let config = &container.config;
        let image = if config.user_image.is_empty() { &config.image } else { &config.user_image };
        let mounts = config.mounts.iter().map(|mount| MountPoint {
            kind: if mount.image.is_some() { "image" } else { "bind" }.into(),
            name: mount.image.as_ref().map(|image| image.name.clone()).unwrap_or_default(),
            source: mount.host_path.clone(),
            destination: mount.container_path.clone(),
            rw: !mount.readonly,
            propagation: "rprivate".into(),
            ..MountPoint::default()
        });
        let mut labels = config.labels.clone();
        labels.insert("io.kubernetes.docker.type".into(), "container".into());
        let mut command = config.command.clone();
        command.extend(config.args.iter().cloned());
        let record = Record {
            name: pod_name(&container, sandbox.as_deref()),
            created: container.state().created_at,
            config: Config {
                image: image.clone(),
                labels,
                env: Some(config.env.iter().map(|(key, value)| format!("{key}={value}")).collect()),
                cmd: Some(config.args.clone()).filter(|args| !args.is_empty()),
                entrypoint: Some(config.command.clone()).filter(|command| !command.is_empty()),
                working_dir: config.working_dir.clone(),
                tty: config.tty,
                open_stdin: config.stdin,
                stdin_once: config.stdin_once,
                hostname: sandbox.as_ref().map(|sandbox| sandbox.config.hostname.clone()).unwrap_or_default(),
                ..Config::default()
            },
            host: HostConfig {
                network_mode: format!("container:{}", container.sandbox),
                privileged: config.security.privileged,
                restart_policy: super::types::RestartPolicy { name: "no".into(), maximum_retry_count: 0 },
                memory: config.resources.memory_limit,
                ..HostConfig::default()
            },
            mounts: mounts.collect(),
            image_id: container.image.id.to_string(),
            ..Record::default()
        };
        Arc::new(Container::new(container, record, true))
    }

    /// Finds a container by id, by name, or by a unique beginning of its id.
    pub fn container(&self, wanted: &str) -> Result<Arc<Container>, Problem> {
        let missing = || Problem::not_found(format!("No such container: {wanted}"));
        let name = wanted.strip_prefix('/').unwrap_or(wanted);
        if name.is_empty() {
            return Err(missing());
        }
        if let Some(found) = self.store.get(name).or_else(|| self.store.by_name(name)) {
            return Ok(found);
        }
        let mut found: Vec<Arc<Container>> =
            self.store.all().into_iter().filter(|container| container.id.starts_with(name)).collect();
        for container in self.engine.pod_containers() {
            let pod = || pod_name(&container, self.engine.sandbox(&container.sandbox).ok().as_deref()) == name;
            if container.id.starts_with(name) || name.starts_with("k8s_") && pod() {
                found.push(self.pod_container(container));
            }
        }
        match found.len() {
            0 => Err(missing()),
            1 => Ok(found.remove(0)),
            _ => Err(Problem::bad(format!("multiple IDs found with provided prefix: {wanted}"))),
        }
    }

    /// A container whose life is Docker's; one of a pod belongs to the kubelet.
    pub fn own_container(&self, wanted: &str) -> Result<Arc<Container>, Problem> {
        let container = self.container(wanted)?;
        if container.pod {
            return Err(Problem::conflict(format!(
                "container {wanted} belongs to a pod: change the pod through Kubernetes"
            )));
        }
        Ok(container)
    }

    /// Changes a record, in memory and on disk.
    pub fn change(&self, container: &Container, change: impl FnOnce(&mut Record)) -> Result<()> {
        let mut written = container.recording.lock();
        let record = {
            let mut record = container.record.write();
            let before = record.clone();
            change(&mut record);
            if container.pod || *written && *record == before {
                return Ok(());
            }
            record.clone()
        };
        *written = false;
        let dir = self.engine.files_of(&container.id);
        let bytes = serde_json::to_vec(&record)
            .map_err(|error| Error::internal(format!("encode {RECORD} of {}: {error}", container.id)))?;
        // Nobody but the next daemon reads it, and a container without one is removed with its files: a power loss must not take it.
        record_file::exchange(&dir, RECORD, &bytes).context(format!("write {RECORD} of {}", container.id))?;
        *written = true;
        Ok(())
    }

    /// Finds what an earlier daemon made, takes up what runs, and starts what policies want running.
    pub async fn recover_containers(self: &Arc<Docker>) {
        for engine in self.engine.containers().into_iter().filter(|container| container.id == container.sandbox) {
            let path = self.engine.files_of(&engine.id).join(RECORD);
            let record = std::fs::read(&path)
                .map_err(|error| error.to_string())
                .and_then(|bytes| serde_json::from_slice::<Record>(&bytes).map_err(|error| error.to_string()));
            let record = match record {
                Ok(record) => record,
                Err(error) => {
                    tracing::warn!(container = engine.id, error, "a container cannot be read and is removed");
                    let _ = self.engine.remove_standalone(&engine).await;
                    continue;
                }
            };
            if self.store.reserve(&record.name, &engine.id).is_err() {
                tracing::warn!(container = engine.id, name = record.name, "a name is taken twice");
            }
            self.store.insert(Arc::new(Container::new(engine, record, false)));
        }
        for container in self.store.all() {
            self.take_up(&container).await;
        }
    }

    /// What `docker events` says of a container beside its labels.
    pub fn attributes(&self, container: &Container) -> Map<String> {
        container.with(|record| {
            let mut out = record.config.labels.clone();
            out.insert("image".into(), record.config.image.clone());
            out.insert("name".into(), record.name.clone());
            out
        })
    }

    pub fn tell(&self, container: &Container, action: impl Into<String>) {
        self.events.tell("container", action, &container.id, self.attributes(container));
    }

    pub fn tell_with(&self, container: &Container, action: impl Into<String>, more: &[(&str, String)]) {
        let mut attributes = self.attributes(container);
        attributes.extend(more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        self.events.tell("container", action, &container.id, attributes);
    }
}
