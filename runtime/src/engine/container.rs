//! Containers: created, started, stopped, removed; processes executed in them.

use std::{
    fs,
    path::{Component, Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use coracle_launcher::{
    cgroup::{Cgroup, Hierarchy, memory},
    cli::signal_number,
    json::Json,
    state::State,
};
use coracle_shim::protocol::{Create, Exit, Kind, LogDriver, Request};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::{sync::watch, time::timeout};
use tracing::{info, warn};

use super::{
    Container, Engine, Sandbox, apparmor, cdi,
    model::{
        ContainerConfig, ContainerImage, ContainerState, EventKind, Mount, Resources, SandboxConfig, Security, Status,
        User, new_id, now,
    },
    remove_dir, resource_classes, save, save_volatile,
    selinux::{Labels, Selinux},
    spec::{self, Inputs, LauncherAge},
    stats::CpuMeter,
    user,
};
use crate::{
    error::{Context, Error, Result},
    images::{catalogue::ImageRecord, manifest::RunConfig},
    snapshots::Root,
};

/// A process in uninterruptible sleep does not die; the caller is told after this long.
pub(super) const KILL_LIMIT: Duration = Duration::from_secs(30);
/// Exit code of a container whose end nobody saw, as containerd has it.
const UNKNOWN_EXIT: i32 = 255;

/// The container's file in its data directory.
#[derive(Serialize, Deserialize)]
pub(super) struct ContainerRecord {
    pub id: String,
    pub sandbox: String,
    pub config: ContainerConfig,
    pub image: ContainerImage,
    pub user: User,
    #[serde(default)]
    pub labels: Labels,
    pub log_path: String,
    pub cgroups_path: String,
    pub state: ContainerState,
}

impl ContainerRecord {
    /// Whether the container is its own sandbox.
    pub fn is_standalone(&self) -> bool {
        self.id == self.sandbox
    }
}

impl Container {
    pub(super) fn restore(record: ContainerRecord) -> Container {
        let ContainerRecord { id, sandbox, config, image, user, labels, log_path, cgroups_path, state } = record;
        let (state, _) = watch::channel(state);
        let user = if user == User::default() { OnceLock::new() } else { OnceLock::from(user) };
        Container {
            id,
            sandbox,
            config,
            image,
            user,
            labels,
            log_path,
            cgroups_path,
            state,
            changing: tokio::sync::Mutex::new(()),
            recording: parking_lot::Mutex::new(()),
            stop_asked: AtomicBool::new(false),
            cpu: CpuMeter::default(),
        }
    }

    pub(super) fn record(&self) -> ContainerRecord {
        ContainerRecord {
            id: self.id.clone(),
            sandbox: self.sandbox.clone(),
            config: self.config.clone(),
            image: self.image.clone(),
            user: self.user(),
            labels: self.labels.clone(),
            log_path: self.log_path.clone(),
            cgroups_path: self.cgroups_path.clone(),
            state: self.state(),
        }
    }
}

impl Container {
    /// Who it runs as; nobody yet while it is made.
    pub fn user(&self) -> User {
        self.user.get().cloned().unwrap_or_default()
    }

    /// What it is asked to end with: its own signal, its image's, or SIGTERM.
    pub fn stop_signal(&self) -> i32 {
        let of_image = || signal_number(&self.image.stop_signal).ok();
        self.config.stop_signal.or_else(of_image).unwrap_or(libc::SIGTERM)
    }
}

/// The namespaces of a pod's containers are their sandbox's, whatever each says, but for the processes of one that wants its
/// own or another's (containerd `internal/cri/opts/spec_linux_opts.go`, `WithPodNamespaces`).
fn join(security: &mut Security, sandbox: &SandboxConfig) {
    security.host_network = sandbox.host_network;
    security.host_ipc = sandbox.host_ipc;
    if security.host_pid || security.shared_pid {
        security.host_pid = sandbox.host_pid;
        security.shared_pid = !sandbox.host_pid;
    }
}

/// Where a container's log is; empty for none. Its own path is one from the sandbox's directory, also with a slash before it
/// (`ContainerConfig.log_path`; Go's `filepath.Join`).
fn log_path(directory: &str, path: &str) -> Result<String> {
    if directory.is_empty() || path.is_empty() {
        return Ok(String::new());
    }
    let parts = || Path::new(path).components();
    if parts().any(|part| part == Component::ParentDir) {
        return Err(Error::invalid(format!("log path {path:?} leads out of the sandbox's log directory")));
    }
    let below: PathBuf = parts().filter(|part| matches!(part, Component::Normal(_))).collect();
    Ok(Path::new(directory).join(below).to_string_lossy().into_owned())
}

/// The name of an image that does not change.
fn reference(image: &ImageRecord) -> String {
    image.repo_digests.first().cloned().unwrap_or_else(|| image.id.to_string())
}

impl Engine {
    /// Records a container and makes its file system; nothing runs yet.
    pub async fn create_container(&self, sandbox_id: &str, mut config: ContainerConfig) -> Result<String> {
        let sandbox = self.sandbox(sandbox_id)?;
        if !sandbox.state().ready {
            return Err(Error::precondition(format!("sandbox container {:?} is not running", sandbox.id)));
        }
        // `LinuxSandboxSecurityContext.privileged`: "MUST be true" for a sandbox with such containers.
        if config.security.privileged && !sandbox.config.privileged {
            return Err(Error::precondition("no privileged container allowed in sandbox"));
        }
        if config.security.users.as_ref().is_some_and(|users| *users != sandbox.config.users) {
            return Err(Error::invalid("user namespace config for sandbox is different from container"));
        }
        resource_classes::refuse(&config.name, &config.annotations, &sandbox.config.annotations)?;
        join(&mut config.security, &sandbox.config);
        // Until it is known that the container uses them, no layer is collected.
        let _hold = self.images.hold().await;
        let image = self
            .images
            .find(&config.image)
            .ok_or_else(|| Error::not_found(format!("failed to resolve image {:?}: not found", config.image)))?;
        let run = self.images.config(&image)?.config;
        for mounted in config.mounts.iter_mut().filter_map(|mount| mount.image.as_mut()) {
            let image = self.images.find(&mounted.name).ok_or_else(|| {
                Error::not_found(format!("failed to resolve image volume {:?}: not found", mounted.name))
            })?;
            mounted.chains = image.chains.clone();
            mounted.reference = reference(&image);
        }
        let id = new_id();
        let log_path = log_path(&sandbox.config.log_directory, &config.log_path)?;
        let container_image = ContainerImage {
            id: image.id.clone(),
            reference: reference(&image),
            chains: image.chains.clone(),
            stop_signal: run.stop_signal.clone(),
        };
        let cgroups_path = format!("{}/{id}", self.sandbox_group(&sandbox).trim_end_matches('/'));
        let state =
            ContainerState { created_at: now(), resources: config.resources.clone(), ..ContainerState::default() };
        let mut record = ContainerRecord {
            id: id.clone(),
            sandbox: sandbox.id.clone(),
            config,
            image: container_image,
            user: User::default(),
            labels: Labels::default(),
            log_path,
            cgroups_path,
            state,
        };
        let container = {
            let _naming = self.naming.lock();
            let taken = self
                .containers_of(&sandbox.id)
                .into_iter()
                .find(|other| other.config.name == record.config.name && other.config.attempt == record.config.attempt);
            if let Some(other) = taken.filter(|_| !record.config.name.is_empty()) {
                let name = format!(
                    "{}_{}_{}_{}_{}",
                    record.config.name,
                    sandbox.config.name,
                    sandbox.config.namespace,
                    sandbox.config.uid,
                    record.config.attempt
                );
                return Err(Error::already_exists(format!(
                    "failed to reserve container name {name:?}: name {name:?} is reserved for {:?}",
                    other.id
                )));
            }
            // A container that says nothing is called as its pod.
            record.labels = match record.config.security.selinux.as_slice() {
                [] => self.selinux.init(&Selinux::same(&sandbox.state().labels))?,
                own => self.selinux.init(own)?,
            };
            let container = Arc::new(Container::restore(record));
            // Also keeps the image's layers from being collected.
            self.containers.write().insert(id.clone(), container.clone());
            container
        };
        // Who starts or removes it meanwhile waits until it is whole.
        let _changing = container.changing.lock().await;
        if !self.containers.read().contains_key(&id) {
            return Err(Error::not_found(format!("container {id:?} was removed before it was made")));
        }
        match self.make_container(&sandbox, &container, &run).await {
            Ok(()) => {
                self.announce(EventKind::Created, &id, &sandbox.id);
                Ok(id)
            }
            Err(error) => {
                self.containers.write().remove(&id);
                self.selinux.release(&container.labels);
                if let Err(error) = self.remove_files(&id).await {
                    warn!(container = id, %error, "cannot clean up after a container that could not be made");
                }
                Err(error)
            }
        }
    }

    async fn make_container(&self, sandbox: &Arc<Sandbox>, container: &Arc<Container>, run: &RunConfig) -> Result<()> {
        let (engine, run, sandbox, id) = (self.arc()?, run.clone(), sandbox.clone(), container.id.clone());
        let (launcher, container) = (self.launcher_of(&sandbox).await, container.clone());
        self.blocking(move || -> Result<()> {
            let mut record = container.record();
            // By this directory a start after a kill finds what has been made: nobody was told of it yet.
            let dir = engine.paths.container(&id);
            fs::create_dir_all(&dir).context(format!("create {}", dir.display()))?;
            let top = record.image.chains.last().cloned();
            let root = engine
                .snapshots
                .prepare(&id, top.as_ref())
                .context("failed to create containerd container: prepare the snapshot")?;
            let user = user::resolve(&record.config.security, &run.user, |path| {
                engine.snapshots.open_file(&id, top.as_ref(), Path::new(path))
            })?;
            record.user = container.user.get_or_init(|| user).clone();
            let (given, owners) = (&record.config.mounts, &sandbox.config.users);
            let volumes = engine.make_image_volumes(&id, &root, &run.volumes, given, owners)?;
            engine.write_bundle(&sandbox, &record, &run, &volumes, &root, launcher)?;
            // Not waiting for the disk: a power loss ends its sandbox, in which it could be started, and what is left of it is
            // removed. From its start on there is something to be told of it then.
            save_volatile(&dir, "container.json", &record)
        })
        .await?
    }

    fn write_bundle(
        &self,
        sandbox: &Sandbox,
        record: &ContainerRecord,
        run: &RunConfig,
        volumes: &[Mount],
        root: &Root,
        launcher: LauncherAge,
    ) -> Result<()> {
        let security = &record.config.security;
        apparmor::check_loaded(security)?;
        let pins = self.paths.pins(&sandbox.id);
        let pin = |kind: &str, host: bool| (!host && pins.holds(kind)).then(|| pins.path(kind));
        let (net, ipc, uts) =
            (pin("net", security.host_network), pin("ipc", security.host_ipc), pin("uts", sandbox.config.host_network));
        let users = pin("user", false);
        let pid = match &security.pid_of {
            Some(target) => {
                let target = self.container(target)?;
                // `NamespaceOption.target_id`: "previously created in the same pod".
                if target.sandbox != sandbox.id {
                    return Err(Error::invalid(format!(
                        "container {:?} (sandbox {}) does not belong to sandbox {}",
                        target.id, target.sandbox, sandbox.id
                    )));
                }
                let (target, state) = (&target.id, target.state());
                if state.status != Status::Running {
                    return Err(Error::precondition(format!(
                        "container {target:?}, whose processes are to be shared, does not run"
                    )));
                }
                Some(format!("/proc/{}/ns/pid", state.pid))
            }
            None if record.config.security.shared_pid && sandbox.config.shared_pid => {
                Some(pins.path("pid").to_string_lossy().into_owned())
            }
            None => None,
        };
        let shm = Some(self.paths.shm(&sandbox.id)).filter(|shm| shm.exists());
        let shm = shm.unwrap_or_else(|| self.paths.former_shm(&sandbox.id));
        let mut config = spec::build(&Inputs {
            sandbox: &sandbox.config,
            config: &record.config,
            volumes,
            image: run,
            user: &record.user,
            root,
            labels: &record.labels,
            cgroups_path: &record.cgroups_path,
            net: net.as_deref(),
            ipc: ipc.as_deref(),
            uts: uts.as_deref(),
            users: users.as_deref(),
            pid: pid.as_deref().map(Path::new),
            snapshots: &*self.snapshots,
            files: &self.paths.sandbox(&sandbox.id),
            shm: &shm,
            cgroup_v2: self.hierarchy.is_v2(),
            huge_pages: self.counts_huge_pages(&record.cgroups_path)?,
            seccomp: spec::seccomp(security, launcher)?,
        })?;
        let (files, shm) = (self.paths.sandbox(&sandbox.id), ipc.is_some().then_some(shm.as_path()));
        self.selinux.label_mounts(&record.labels, &record.config, volumes, &files, shm)?;
        cdi::inject(&mut config, &record.config.cdi_devices, &self.cdi_dirs)?;
        let bundle = self.paths.bundle(&record.id);
        fs::create_dir_all(bundle.join("rootfs")).context(format!("create {}", bundle.display()))?;
        save_volatile(&bundle, "config.json", &config)
    }

    fn counts_huge_pages(&self, group: &str) -> Result<bool> {
        Ok(self.hierarchy.group(group).context("find the container's group")?.counts("hugetlb"))
    }

    /// Runs a created container.
    pub async fn start_container(&self, id: &str) -> Result<()> {
        let container = self.container(id)?;
        let _changing = container.changing.lock().await;
        if container.state().status != Status::Created {
            return Err(Error::precondition(format!(
                "container {:?} is in {} state",
                container.id,
                container.state().status
            )));
        }
        let sandbox = self.sandbox(&container.sandbox)?;
        if !sandbox.state().ready {
            return Err(Error::precondition(format!("sandbox container {:?} is not running", sandbox.id)));
        }
        match self.launch(&sandbox, &container).await {
            Ok((pid, at)) => {
                self.change(&container, |state| state.started(pid, at)).await?;
                info!(container = container.id, name = container.config.name, pid, "container runs");
                self.announce(EventKind::Started, &container.id, &container.sandbox);
                Ok(())
            }
            Err(error) => {
                let message = format!(
                    "failed to create containerd task: failed to create shim task: OCI runtime create failed: {error}"
                );
                self.change(&container, |state| {
                    state.status = Status::Exited;
                    state.finished_at = now();
                    state.exit_code = 128;
                    state.reason = "StartError".into();
                    state.message = message.clone();
                })
                .await?;
                self.announce(EventKind::Stopped, &container.id, &container.sandbox);
                Err(Error::internal(message))
            }
        }
    }

    async fn launch(&self, sandbox: &Arc<Sandbox>, container: &Container) -> Result<(u32, u64)> {
        let shim = self.shim(sandbox).await?;
        let pins = self.paths.pins(&sandbox.id);
        if sandbox.config.shared_pid && container.config.security.shared_pid && !pins.holds("pid") {
            let users =
                if pins.holds("user") { pins.path("user").to_string_lossy().into_owned() } else { String::new() };
            let pid = shim.share_processes(users).await?;
            pins.pin("pid", pid)?;
        }
        let group = self.hierarchy.group(&container.cgroups_path).context("find the cgroup")?;
        let oom_file =
            group.dir("memory").map(|dir| dir.join(memory::oom_file(group.is_v2())).to_string_lossy().into_owned());
        let log = if container.log_path.is_empty() {
            LogDriver::None
        } else {
            LogDriver::Cri { path: container.log_path.clone() }
        };
        make_log_directory(container)?;
        let create = Create {
            id: container.id.clone(),
            kind: Kind::Container { bundle: self.paths.bundle(&container.id).to_string_lossy().into_owned() },
            terminal: container.config.tty,
            stdin: container.config.stdin,
            stdin_once: container.config.stdin_once,
            log,
            oom_file: oom_file.unwrap_or_default(),
        };
        match shim.run_process(create).await {
            Ok(started) => Ok(started),
            Err(error) => {
                // Nothing runs; the shim need not remember it.
                let _ = shim.call(&Request::Delete { id: container.id.clone() }).await;
                Err(error)
            }
        }
    }

    /// Changes a container's state, in memory and on disk. The disk may take its time, so it is waited for elsewhere.
    pub(super) async fn change(&self, container: &Container, change: impl FnOnce(&mut ContainerState)) -> Result<()> {
        container.state.send_modify(change);
        let (engine, id) = (self.arc()?, container.id.clone());
        self.blocking(move || {
            // One that was removed meanwhile has nothing to be written.
            let Ok(container) = engine.container(&id) else { return Ok(()) };
            let _recording = container.recording.lock();
            let dir = engine.paths.container(&id);
            if dir.exists() { save(&dir, "container.json", &container.record()) } else { Ok(()) }
        })
        .await?
    }

    /// A container ended; without an exit nobody knows how.
    pub(super) async fn exited(&self, id: &str, exit: Option<Exit>) {
        // Executed processes are their callers' concern.
        let Ok(container) = self.container(id) else { return };
        if container.state().status == Status::Exited {
            return;
        }
        let ended = self.change(&container, |state| {
            state.status = Status::Exited;
            state.pid = 0;
            match &exit {
                Some(exit) => {
                    state.finished_at = i64::try_from(exit.at).unwrap_or_default();
                    state.exit_code = exit.code as i32;
                    state.reason = if exit.oom_killed {
                        "OOMKilled"
                    } else if exit.code == 0 {
                        "Completed"
                    } else {
                        "Error"
                    }
                    .into();
                }
                None => {
                    state.finished_at = now();
                    state.exit_code = UNKNOWN_EXIT;
                    state.reason = "Unknown".into();
                }
            }
        });
        if let Err(error) = ended.await {
            warn!(container = id, %error, "the container's end could not be recorded");
        }
        info!(
            container = container.id,
            name = container.config.name,
            code = container.state().exit_code,
            reason = container.state().reason,
            "container ended"
        );
        if let Err(error) = self.remove_runtime_state(&container, exit.is_none()).await {
            warn!(container = id, %error, "the container's runtime state could not be removed");
        }
        self.announce(EventKind::Stopped, &container.id, &container.sandbox);
    }

    /// What belongs to the container's run.
    pub(super) fn run_of(&self, container: &Container) -> Run {
        Run {
            hierarchy: self.hierarchy.clone(),
            launcher: self.paths.oci().join(&container.id),
            group: container.cgroups_path.clone(),
        }
    }

    /// Removes what belongs to the run: launcher state and group. With `kill`, whatever is left in the group first.
    pub(super) async fn remove_runtime_state(&self, container: &Container, kill: bool) -> Result<()> {
        let run = self.run_of(container);
        self.blocking(move || run.remove(kill)).await?
    }

    /// Asks a container to end, and kills it when it has not after `grace`. One that does not run is stopped already.
    pub async fn stop_container(&self, id: &str, grace: Duration) -> Result<()> {
        let container = self.container(id)?;
        if container.state().status != Status::Running {
            return Ok(());
        }
        if !grace.is_zero() {
            // Once: many programs take a second one for "at once", and callers that gave up or were restarted ask again
            // (containerd `internal/cri/server/container_stop.go`).
            if !container.stop_asked.swap(true, Ordering::Relaxed)
                && let Err(error) = self.signal(&container, container.stop_signal()).await
            {
                container.stop_asked.store(false, Ordering::Relaxed);
                return Err(error);
            }
            if timeout(grace, wait_exited(&container)).await.is_ok() {
                return Ok(());
            }
        }
        self.kill_container(&container).await
    }

    /// Kills a container and waits for its end.
    pub async fn kill_container(&self, container: &Container) -> Result<()> {
        self.signal(container, libc::SIGKILL).await?;
        let waited = timeout(KILL_LIMIT, wait_exited(container)).await;
        waited.map_err(|_| {
            Error::deadline(format!("container {:?} did not end within {KILL_LIMIT:?} after SIGKILL", container.id))
        })
    }

    /// Sends a signal to a container's first process; one that has ended is left alone.
    pub async fn signal(&self, container: &Container, signal: i32) -> Result<()> {
        let sandbox = self.sandbox(&container.sandbox)?;
        let shim = sandbox.shim.lock().await.clone();
        let Some(shim) = shim else { return Ok(()) };
        match shim.call(&Request::Signal { id: container.id.clone(), signal: signal as u32 }).await {
            // It ended meanwhile.
            Err(_) if container.state().status != Status::Running => Ok(()),
            Err(error) if error.to_string().contains("does not run") => Ok(()),
            result => result,
        }
    }

    /// Removes a container, killing it if it runs; removing what is not there is fine.
    pub async fn remove_container(&self, id: &str) -> Result<()> {
        let Ok(container) = self.container(id) else { return Ok(()) };
        let _changing = container.changing.lock().await;
        if container.state().status == Status::Running {
            self.kill_container(&container).await?;
        }
        if let Ok(sandbox) = self.sandbox(&container.sandbox) {
            let shim = sandbox.shim.lock().await.clone();
            if let Some(shim) = shim {
                // Forgets it and its exit record; that it knows nothing of it is fine.
                let _ = shim.call(&Request::Delete { id: container.id.clone() }).await;
            }
        }
        self.remove_runtime_state(&container, true).await?;
        self.remove_files(&container.id).await?;
        if self.containers.write().remove(&container.id).is_some() {
            self.selinux.release(&container.labels);
            self.announce(EventKind::Deleted, &container.id, &container.sandbox);
        }
        self.collect_after(&container).await;
        Ok(())
    }

    /// Drops layers that a container was the last to use, of images that went by name while it used them.
    pub(super) async fn collect_after(&self, container: &Container) {
        let images = self.images.list();
        let mut used = container.image.chains.iter().chain(container.config.mounted_chains());
        if used.all(|chain| images.iter().any(|image| image.chains.contains(chain))) {
            return;
        }
        let Ok(engine) = self.arc() else { return };
        if let Err(error) = self.images.collect(move || engine.chains_in_use()).await {
            warn!(container = container.id, %error, "what the container was the last to use is not collected");
        }
    }

    pub(super) async fn remove_files(&self, id: &str) -> Result<()> {
        let (paths, snapshots, id) = (self.paths.clone(), self.snapshots.clone(), id.to_owned());
        self.blocking(move || {
            snapshots.remove(&id)?;
            remove_dir(&paths.bundle(&id))?;
            // The record goes last: by it a daemon that is killed here finds the rest again.
            remove_dir(&paths.container(&id))
        })
        .await?
    }

    /// Changes a container's limits; of one that has ended only what is told of it (containerd
    /// `internal/cri/server/container_update_resources.go`).
    pub async fn update_container(&self, id: &str, resources: Resources) -> Result<()> {
        let container = self.container(id)?;
        let _changing = container.changing.lock().await;
        let before = container.state().resources;
        let merged = merge(&before, &resources);
        let score = Some(merged.oom_score_adj).filter(|score| *score != before.oom_score_adj);
        let json = spec::resources(&merged, self.counts_huge_pages(&container.cgroups_path)?);
        let status = container.state().status;
        if status == Status::Running {
            let (hierarchy, path, text) = (self.hierarchy.clone(), container.cgroups_path.clone(), json.to_string());
            self.blocking(move || -> Result<()> {
                let json = Json::parse(text.as_bytes()).map_err(|error| Error::internal(error.to_string()))?;
                let group = hierarchy.group(&path).context("find the container's group")?;
                group.apply(&json).context("update the container's limits")?;
                score.map_or(Ok(()), |score| set_oom_score(&group, score))
            })
            .await??;
        } else if status == Status::Created {
            let bundle = self.paths.bundle(&container.id);
            let mut config: Value = super::load(&bundle.join("config.json"))?;
            let devices = config["linux"]["resources"]["devices"].take();
            config["linux"]["resources"] = json;
            config["linux"]["resources"]["devices"] = devices;
            if let Some(score) = score {
                config["process"]["oomScoreAdj"] = score.into();
            }
            save_volatile(&bundle, "config.json", &config)?;
        }
        self.change(&container, |state| state.resources = merged).await
    }

    /// Changes limits of a container that runs; `json` is `linux.resources` without devices.
    pub async fn apply_limits(&self, container: &Container, limits: &Resources, json: Value) -> Result<()> {
        let _changing = container.changing.lock().await;
        let (hierarchy, path, text) = (self.hierarchy.clone(), container.cgroups_path.clone(), json.to_string());
        self.blocking(move || -> Result<()> {
            let json = Json::parse(text.as_bytes()).map_err(|error| Error::internal(error.to_string()))?;
            hierarchy.group(&path).and_then(|group| group.apply(&json)).context("update the container's limits")
        })
        .await??;
        self.change(container, |state| state.resources = limits.clone()).await
    }

    /// Goes on in a new log file after the old one was moved away.
    pub async fn reopen_log(&self, id: &str) -> Result<()> {
        let container = self.container(id)?;
        if container.state().status != Status::Running {
            return Err(Error::precondition("container is not running"));
        }
        make_log_directory(&container)?;
        let sandbox = self.sandbox(&container.sandbox)?;
        self.shim(&sandbox).await?.call(&Request::ReopenLog { id: container.id.clone() }).await
    }

    /// The state the launcher keeps of a container that runs.
    pub fn launcher_state(&self, id: &str) -> Result<State> {
        State::load(&self.paths.oci(), id).context("read the launcher's state")
    }
}

/// What a run leaves outside of the container's directories.
pub(super) struct Run {
    hierarchy: Hierarchy,
    /// The launcher's state.
    launcher: PathBuf,
    group: String,
}

impl Run {
    /// Removes it; what is gone is removed already.
    pub fn remove(&self, kill: bool) -> Result<()> {
        let group = self.hierarchy.group(&self.group).context("find the cgroup")?;
        // Most often nothing is in it any more, and who waited for the end removes it at the same time.
        if group.remove_empty().is_err() {
            // Processes that left the pid namespace's init behind (shared namespaces) must not stay.
            if kill || !group.processes().is_empty() {
                group.kill().context("kill what is left")?;
            }
            group.remove().context("remove the cgroup")?;
        }
        remove_dir(&self.launcher)
    }
}

/// Makes the directory of a container's log, also where somebody removed it.
fn make_log_directory(container: &Container) -> Result<()> {
    let Some(dir) = Path::new(&container.log_path).parent() else { return Ok(()) };
    fs::create_dir_all(dir).context(format!("create log directory {}", dir.display()))
}

pub(super) async fn wait_exited(container: &Container) {
    let mut state = container.state.subscribe();
    // The sender lives in the container that is borrowed here.
    let _ = state.wait_for(|state| state.status == Status::Exited).await;
}

/// How readily the kernel takes each process of a group when memory is short.
fn set_oom_score(group: &Cgroup, score: i64) -> Result<()> {
    for pid in group.processes() {
        match std::fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string()) {
            // Ended meanwhile.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => {}
            // Without CAP_SYS_RESOURCE it cannot go lower than it was: as at the start, the rest is done all the same.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM)) => {
                warn!(pid, score, "the process's oom_score_adj cannot be lowered");
            }
            result => result.context(format!("set oom_score_adj of process {pid}"))?,
        }
    }
    Ok(())
}

/// Zero and empty leave what there is.
fn merge(old: &Resources, new: &Resources) -> Resources {
    let number = |new: i64, old: i64| if new == 0 { old } else { new };
    let text = |new: &str, old: &str| if new.is_empty() { old.to_owned() } else { new.to_owned() };
    Resources {
        cpu_period: number(new.cpu_period, old.cpu_period),
        cpu_quota: number(new.cpu_quota, old.cpu_quota),
        cpu_shares: number(new.cpu_shares, old.cpu_shares),
        memory_limit: number(new.memory_limit, old.memory_limit),
        // A limit that comes without one for swap brings the usual one.
        memory_swap_limit: match new.memory_limit {
            0 => number(new.memory_swap_limit, old.memory_swap_limit),
            _ => new.memory_swap_limit,
        },
        oom_score_adj: number(new.oom_score_adj, old.oom_score_adj),
        cpuset_cpus: text(&new.cpuset_cpus, &old.cpuset_cpus),
        cpuset_mems: text(&new.cpuset_mems, &old.cpuset_mems),
        pids_limit: number(new.pids_limit, old.pids_limit),
        hugepages: if new.hugepages.is_empty() { old.hugepages.clone() } else { new.hugepages.clone() },
        unified: old.unified.iter().chain(&new.unified).map(|(key, value)| (key.clone(), value.clone())).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_in_its_sandboxs_directory() {
        let of = |directory, path| log_path(directory, path).map_err(|error| error.to_string());
        assert_eq!((of("", "a"), of("/logs", "")), (Ok(String::new()), Ok(String::new())));
        assert_eq!(of("/logs/pod", "web/0.log"), Ok("/logs/pod/web/0.log".into()));
        assert_eq!(of("/logs/pod", "/etc/./cron.d//x"), Ok("/logs/pod/etc/cron.d/x".into()));
        assert!(of("/logs/pod", "web/../../x").unwrap_err().contains("leads out"));
    }

    #[test]
    fn a_new_limit_takes_the_one_of_swap_along() {
        let of =
            |memory_limit, memory_swap_limit| Resources { memory_limit, memory_swap_limit, ..Resources::default() };
        let swap = |old: &Resources, new: &Resources| merge(old, new).memory_swap_limit;
        assert_eq!(swap(&of(1, 2), &of(3, 0)), 0);
        assert_eq!(swap(&of(1, 2), &of(3, 4)), 4);
        assert_eq!((swap(&of(1, 2), &of(0, 0)), swap(&of(1, 2), &of(0, 4))), (2, 4));
    }
}
