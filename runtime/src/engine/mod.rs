//! The engine: sandboxes and containers, on disk and alive.
//!
//! ```text
//! data_dir/sandboxes/ID/{sandbox.json, hosts, hostname, resolv.conf}    run_dir/sandboxes/ID/{ns/, shm, shim/}
//! data_dir/containers/ID/{container.json, volumes/}                    run_dir/containers/ID/{config.json, rootfs}
//! data_dir/removed/ID.{snapshot, record}
//! ```
//!
//! A container is created (recorded, its snapshot made), started (the sandbox's shim runs the launcher), exited, removed.
//! What is on disk is written before and corrected after each step, so that a daemon killed at any point finds its way:
//! shims that are alive say what runs, records of exit say what ended, and the rest ended with an unknown status.

pub mod apparmor;
pub mod cdi;
mod container;
pub mod counters;
pub mod exec;
mod image_volumes;
pub mod model;
pub(crate) mod namespaces;
mod propagation;
pub(crate) mod record_file;
pub(crate) mod recovery;
mod removal;
mod resource_classes;
mod sandbox;
pub mod seccomp;
pub mod selinux;
pub mod shim;
pub mod spec;
pub mod standalone;
pub mod stats;
pub(crate) mod user;

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock, Weak, atomic::AtomicBool},
};

use coracle_launcher::cgroup::Hierarchy;
use parking_lot::{Mutex, RwLock};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, broadcast, watch};

use self::{
    model::{
        ContainerConfig, ContainerImage, ContainerState, Event, EventKind, SandboxConfig, SandboxState, User, now,
    },
    namespaces::Pins,
    removal::Removals,
    selinux::{Labels, Selinux},
    shim::{Programs, Shim},
};
use crate::{
    Config,
    cni::Cni,
    digest::Digest,
    error::{Context, Error, Result},
    images::Images,
    placement,
    snapshots::{Snapshotter, overlay::Overlay},
};

/// Events that a slow listener may be behind before it is told to list again.
const EVENT_BACKLOG: usize = 4096;

/// Everything that runs under one data directory.
pub struct Engine {
    this: Weak<Engine>,
    paths: Paths,
    images: Images,
    snapshots: Arc<dyn Snapshotter>,
    hierarchy: Hierarchy,
    programs: Programs,
    cgroup_parent: String,
    cni: Cni,
    cdi_dirs: Vec<PathBuf>,
    sandboxes: RwLock<HashMap<String, Arc<Sandbox>>>,
    containers: RwLock<HashMap<String, Arc<Container>>>,
    /// Held while a name is looked up and taken.
    naming: Mutex<()>,
    /// What waits for the disk or the kernel at a time.
    waiting: Semaphore,
    removals: Removals,
    selinux: Selinux,
    events: broadcast::Sender<Event>,
}

/// A sandbox: the namespaces of a pod and its shim.
pub struct Sandbox {
    pub id: String,
    pub config: SandboxConfig,
    state: Mutex<SandboxState>,
    /// One change at a time.
    changing: tokio::sync::Mutex<()>,
    /// Started with the first container.
    shim: tokio::sync::Mutex<Option<Arc<Shim>>>,
    cpu: stats::CpuMeter,
}

/// A container.
pub struct Container {
    pub id: String,
    pub sandbox: String,
    pub config: ContainerConfig,
    pub image: ContainerImage,
    /// Found in its image while it is made.
    user: OnceLock<User>,
    /// SELinux's names for its processes and files; of a privileged one's processes only their level is its own.
    pub labels: Labels,
    /// Where its log is written; empty for none.
    pub log_path: String,
    pub cgroups_path: String,
    state: watch::Sender<ContainerState>,
    changing: tokio::sync::Mutex<()>,
    /// Held while the record is written: an end may be reported while its start still is.
    recording: Mutex<()>,
    /// It was sent its stop signal.
    stop_asked: AtomicBool,
    cpu: stats::CpuMeter,
}

impl Sandbox {
    pub fn state(&self) -> SandboxState {
        self.state.lock().clone()
    }
}

impl Container {
    pub fn state(&self) -> ContainerState {
        self.state.borrow().clone()
    }

    /// Follows the container's state.
    pub fn watch(&self) -> watch::Receiver<ContainerState> {
        self.state.subscribe()
    }
}

/// Where things lie.
#[derive(Clone, Debug)]
struct Paths {
    data: PathBuf,
    run: PathBuf,
}

impl Paths {
    fn sandbox(&self, id: &str) -> PathBuf {
        self.data.join("sandboxes").join(id)
    }

    fn container(&self, id: &str) -> PathBuf {
        self.data.join("containers").join(id)
    }

    /// What is removed already and still on the disk.
    fn removed(&self) -> PathBuf {
        self.data.join("removed")
    }

    fn run_sandbox(&self, id: &str) -> PathBuf {
        self.run.join("sandboxes").join(id)
    }

    fn bundle(&self, id: &str) -> PathBuf {
        self.run.join("containers").join(id)
    }

    fn pins(&self, id: &str) -> Pins {
        Pins::new(self.run_sandbox(id).join("ns"))
    }

    fn shim(&self, id: &str) -> PathBuf {
        self.run_sandbox(id).join("shim")
    }

    /// What a sandbox's containers share as `/dev/shm`.
    fn shm(&self, id: &str) -> PathBuf {
        self.run_sandbox(id).join("shm")
    }

    /// Where earlier daemons put it, whose sandboxes may still run.
    fn former_shm(&self, id: &str) -> PathBuf {
        self.sandbox(id).join("shm")
    }

    /// Where the launcher keeps its state.
    fn oci(&self) -> PathBuf {
        self.run.join("oci")
    }

    /// Shuts everybody else on the machine out: programs in images may be setuid, and records tell what containers are told
    /// (dockerd's data root is closed to others, too, since CVE-2021-41091). Sockets in the directory of what runs may be for a
    /// group: others pass through that one and see nothing.
    fn close_to_others(&self) -> Result<()> {
        let (sandboxes, containers) = (self.run.join("sandboxes"), self.run.join("containers"));
        let modes =
            [(&self.data, 0o710), (&self.run, 0o711), (&sandboxes, 0o700), (&containers, 0o700), (&self.oci(), 0o700)];
        for (dir, mode) in modes {
            let permissions = fs::Permissions::from_mode(mode);
            fs::set_permissions(dir, permissions).context(format!("close {} to others", dir.display()))?;
        }
        Ok(())
    }
}

impl Engine {
    /// Opens the directories, finds what ran before, removes what belongs to nothing.
    pub async fn open(config: &Config) -> Result<Arc<Engine>> {
        let paths = Paths { data: config.data_dir.clone(), run: config.run_dir.clone() };
        for path in [
            paths.data.join("sandboxes"),
            paths.data.join("containers"),
            paths.run.join("sandboxes"),
            paths.run.join("containers"),
            paths.oci(),
        ] {
            placement::create_unrelated(&path)?;
        }
        paths.close_to_others()?;
        let snapshots: Arc<dyn Snapshotter> = Arc::new(Overlay::open(&paths.data.join("snapshots"))?);
        let selinux = Selinux::open(config.selinux);
        selinux.label_read_only(&paths.data.join("snapshots")).context("label the layers of images")?;
        let (place, registries) = (config.pull_place.clone(), config.registries.clone());
        let images = Images::open(&paths.data, snapshots.clone(), place, registries, config.layer_limits)?;
        let hierarchy = Hierarchy::discover().context("find the cgroup hierarchies")?;
        let programs = Programs::embedded()?;
        let cni = Cni::open(&config.cni_conf_dir, &config.cni_bin_dir, &paths.data.join("cni"), config.cni_own);
        let removals = Removals::open(paths.removed())?;
        let engine = Arc::new_cyclic(|this| Engine {
            this: this.clone(),
            paths,
            removals,
            selinux,
            images,
            snapshots,
            hierarchy,
            programs,
            cgroup_parent: config.cgroup_parent.clone(),
            cni,
            cdi_dirs: config.cdi_dirs.clone(),
            sandboxes: RwLock::new(HashMap::new()),
            containers: RwLock::new(HashMap::new()),
            naming: Mutex::new(()),
            waiting: Semaphore::new(8 + 4 * std::thread::available_parallelism().map_or(1, usize::from)),
            events: broadcast::channel(EVENT_BACKLOG).0,
        });
        engine.recover().await?;
        engine.removals.go_on();
        Ok(engine)
    }

    pub fn images(&self) -> &Images {
        &self.images
    }

    pub fn selinux(&self) -> &Selinux {
        &self.selinux
    }

    pub fn snapshots(&self) -> &Arc<dyn Snapshotter> {
        &self.snapshots
    }

    pub fn data_dir(&self) -> &Path {
        &self.paths.data
    }

    /// How it was set up, by the names that containerd has for the same (its CRI plugin's configuration), so that what reads
    /// the one understands the other.
    pub fn settings(&self) -> Value {
        json!({
            "rootDir": self.paths.data,
            "stateDir": self.paths.run,
            "containerd": { "snapshotter": self.snapshots.name() },
            "cgroupParent": self.cgroup_parent,
            "cdiSpecDirs": self.cdi_dirs,
            "cni": { "confDir": self.cni.conf_dir(), "binDirs": [self.cni.bin_dir()] },
        })
    }

    /// The network that pods get; none without a configuration.
    pub fn network_settings(&self) -> Option<Value> {
        self.cni.settings()
    }

    /// Why pods cannot get a network now; none if they can.
    pub async fn network_problem(&self) -> Option<String> {
        self.cni.problem().await
    }

    /// What happens from now on.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    fn announce(&self, kind: EventKind, id: &str, sandbox: &str) {
        let sandbox = self.sandboxes.read().get(sandbox).cloned();
        self.announce_of(kind, id, sandbox);
    }

    /// The same of what belongs to a sandbox that may be gone.
    fn announce_of(&self, kind: EventKind, id: &str, sandbox: Option<Arc<Sandbox>>) {
        if sandbox.as_ref().is_some_and(|sandbox| sandbox.config.standalone && sandbox.id == id) {
            return;
        }
        // Nobody listening is fine.
        let _ = self.events.send(Event { kind, id: id.to_owned(), sandbox, at: now() });
    }

    pub fn sandboxes(&self) -> Vec<Arc<Sandbox>> {
        self.sandboxes.read().values().cloned().collect()
    }

    pub fn containers(&self) -> Vec<Arc<Container>> {
        self.containers.read().values().cloned().collect()
    }

    /// Where the network namespace of a sandbox is pinned.
    pub fn network_namespace(&self, sandbox: &str) -> PathBuf {
        self.paths.pins(sandbox).path("net")
    }

    /// The namespaces that a sandbox's containers share, by their names in the OCI configuration, and where they are pinned.
    pub fn namespaces_of(&self, sandbox: &str) -> Vec<(&'static str, PathBuf)> {
        let pins = self.paths.pins(sandbox);
        [("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("pid", "pid"), ("user", "user")]
            .into_iter()
            .filter(|(_, kind)| pins.holds(kind))
            .map(|(name, kind)| (name, pins.path(kind)))
            .collect()
    }

    /// What a sandbox got of the network (CNI specification, section 5 "Success"); none once that was given back.
    pub fn network_result(&self, sandbox: &str) -> Option<Value> {
        self.cni.result(sandbox)
    }

    /// Finds a sandbox by its id or a unique beginning of it.
    pub fn sandbox(&self, id: &str) -> Result<Arc<Sandbox>> {
        find(&self.sandboxes.read(), id)
            .ok_or_else(|| Error::not_found(format!("an error occurred when try to find sandbox {id:?}: not found")))
    }

    /// Finds a container by its id or a unique beginning of it.
    pub fn container(&self, id: &str) -> Result<Arc<Container>> {
        find(&self.containers.read(), id)
            .ok_or_else(|| Error::not_found(format!("an error occurred when try to find container {id:?}: not found")))
    }

    /// The sandboxes that CRI made.
    pub fn pod_sandboxes(&self) -> Vec<Arc<Sandbox>> {
        let mut sandboxes = self.sandboxes();
        sandboxes.retain(|sandbox| !sandbox.config.standalone);
        sandboxes
    }

    /// The containers that CRI made.
    pub fn pod_containers(&self) -> Vec<Arc<Container>> {
        let mut containers = self.containers();
        // A standalone container has the id of its sandbox; no other can.
        containers.retain(|container| container.id != container.sandbox);
        containers
    }

    pub fn containers_of(&self, sandbox: &str) -> Vec<Arc<Container>> {
        self.containers.read().values().filter(|container| container.sandbox == sandbox).cloned().collect()
    }

    /// Layers that containers are made over.
    pub fn chains_in_use(&self) -> Vec<Digest> {
        let of = |container: &Arc<Container>| {
            container.image.chains.iter().chain(container.config.mounted_chains()).cloned().collect::<Vec<_>>()
        };
        self.containers.read().values().flat_map(of).collect()
    }

    /// Does work that waits for the disk or the kernel where it holds up nobody else. Only so much at a time: fifty containers
    /// removed at once are not done sooner by fifty threads, each with a stack and a heap. The work must not wait for other
    /// work of this kind.
    pub(crate) async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let _turn = self.waiting.acquire().await.map_err(|_| Error::unavailable("the runtime is stopping"))?;
        Ok(tokio::task::spawn_blocking(work).await?)
    }

    fn arc(&self) -> Result<Arc<Engine>> {
        self.this.upgrade().ok_or_else(|| Error::unavailable("the runtime is stopping"))
    }
}

fn find<T>(map: &HashMap<String, Arc<T>>, id: &str) -> Option<Arc<T>> {
    if let Some(found) = map.get(id) {
        return Some(found.clone());
    }
    let mut beginning = map.iter().filter(|(key, _)| !id.is_empty() && key.starts_with(id));
    let found = beginning.next()?;
    beginning.next().is_none().then(|| found.1.clone())
}

/// Writes a record so that a reader sees all of it or the one before, also after a power loss.
fn save<T: Serialize>(dir: &Path, name: &str, record: &T) -> Result<()> {
    write_record(dir, name, record, true)
}

/// The same for what a power loss takes anyway, with the process that it is for.
fn save_volatile<T: Serialize>(dir: &Path, name: &str, record: &T) -> Result<()> {
    write_record(dir, name, record, false)
}

fn write_record<T: Serialize>(dir: &Path, name: &str, record: &T, lasting: bool) -> Result<()> {
    let fresh = !dir.exists();
    fs::create_dir_all(dir).context(format!("create {}", dir.display()))?;
    let bytes = serde_json::to_vec(record).map_err(|error| Error::internal(format!("encode {name}: {error}")))?;
    let write = || -> std::io::Result<()> {
        if !lasting {
            return record_file::replace(dir, name, &bytes);
        }
        record_file::exchange(dir, name, &bytes)?;
        match dir.parent() {
            Some(parent) if fresh => fs::File::open(parent)?.sync_all(),
            _ => Ok(()),
        }
    };
    write().context(format!("write {}", dir.join(name).display()))
}

fn load<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = fs::read(path).context(format!("read {}", path.display()))?;
    serde_json::from_slice(&bytes).map_err(|error| Error::internal(format!("read {}: {error}", path.display())))
}

fn remove_dir(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).context(format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
