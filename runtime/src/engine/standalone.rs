//! Containers that are their own sandbox: made by an edge that decides itself how they run, started as often as it likes.
//!
//! The sandbox has the container's id and no record of its own. Its shim is started with the container and dismissed when the container rests, so
//! a container that does not run costs no memory.

use std::{fs, path::PathBuf, sync::Arc};

use coracle_launcher::cgroup::{Cgroup, freezer, memory};
use coracle_shim::protocol::{Create, Kind, LogDriver, Reply, Request};
use serde_json::Value;
use tokio::sync::oneshot;

use super::{
    Container, Engine, Sandbox,
    container::ContainerRecord,
    model::{ContainerConfig, ContainerImage, ContainerState, SandboxConfig, SandboxState, Status, User, now},
    namespaces::Wanted,
    remove_dir,
    sandbox::{mount_shm, release_files, unmount},
    save, save_volatile,
    shim::Session,
    spec::LauncherAge,
    stats::CpuMeter,
};
use crate::{
    error::{Context, Error, Result},
    snapshots::Root,
};

/// How a container runs this time.
pub struct Launch {
    /// The OCI configuration.
    pub config: Value,
    pub log: LogDriver,
    /// Clients that want its streams from the first byte.
    pub attach: Vec<PendingAttach>,
}

/// A client that waits for a container to start.
pub struct PendingAttach {
    pub stdin: bool,
    pub output: bool,
    pub ready: oneshot::Sender<Result<Session>>,
}

impl Sandbox {
    /// The sandbox that a container is itself.
    pub(super) fn standalone(record: &ContainerRecord) -> Sandbox {
        let parent = record.cgroups_path.rsplit_once('/').map_or("", |(parent, _)| parent);
        let created_at = record.state.created_at;
        Sandbox {
            id: record.id.clone(),
            config: SandboxConfig { standalone: true, cgroup_parent: parent.to_owned(), ..Default::default() },
            state: parking_lot::Mutex::new(SandboxState { ready: true, created_at, ..Default::default() }),
            changing: tokio::sync::Mutex::new(()),
            shim: tokio::sync::Mutex::new(None),
            cpu: CpuMeter::default(),
        }
    }
}

impl Engine {
    /// Records a container over an image's layers (or over nothing) under an id that the caller chose.
    pub async fn create_standalone(
        &self,
        id: &str,
        config: ContainerConfig,
        image: ContainerImage,
        cgroup_parent: &str,
    ) -> Result<Arc<Container>> {
        let parent = if cgroup_parent.is_empty() { self.cgroup_parent.as_str() } else { cgroup_parent };
        let record = ContainerRecord {
            id: id.to_owned(),
            sandbox: id.to_owned(),
            state: ContainerState { created_at: now(), resources: config.resources.clone(), ..Default::default() },
            labels: self.selinux.init(&config.security.selinux)?,
            config,
            image,
            user: User::default(),
            log_path: String::new(),
            cgroups_path: format!("{}/{id}", parent.trim_end_matches('/')),
        };
        let top = record.image.chains.last().cloned();
        let sandbox = Arc::new(Sandbox::standalone(&record));
        let container = Arc::new(Container::restore(record));
        {
            let mut containers = self.containers.write();
            if containers.contains_key(id) {
                self.selinux.release(&container.labels);
                return Err(Error::already_exists(format!("container {id} exists already")));
            }
            containers.insert(id.to_owned(), container.clone());
        }
        self.sandboxes.write().insert(id.to_owned(), sandbox);
        let (engine, made) = (self.arc()?, container.clone());
        let done = self.blocking(move || {
            save(&engine.paths.container(&made.id), "container.json", &made.record())?;
            engine.snapshots.prepare(&made.id, top.as_ref()).context("prepare the snapshot").map(drop)
        });
        if let Err(error) = done.await? {
            // The first error is the one to tell; what is left is found by the next start.
            let _ = self.remove_standalone(&container).await;
            return Err(error);
        }
        Ok(container)
    }

    /// How the container's root comes to be.
    pub fn root_of(&self, container: &Container) -> Result<Root> {
        self.snapshots.prepare(&container.id, container.image.chains.last())
    }

    /// The container's bundle directory.
    pub fn bundle_of(&self, id: &str) -> PathBuf {
        self.paths.bundle(id)
    }

    /// Where the caller may keep files of a container; they go with it.
    pub fn files_of(&self, id: &str) -> PathBuf {
        self.paths.container(id)
    }

    /// Where the network namespace of a container is pinned while there is one.
    pub fn netns_of(&self, id: &str) -> PathBuf {
        self.paths.pins(id).path("net")
    }

    /// Makes and pins a fresh network namespace with its loopback up; `inside` is done in it.
    pub fn make_netns<T>(&self, id: &str, inside: impl FnOnce() -> Result<T>) -> Result<(PathBuf, T)> {
        let pins = self.paths.pins(id);
        pins.release_kind("net")?;
        let done = pins.create_with(&Wanted { net: true, ..Wanted::default() }, inside)?;
        Ok((pins.path("net"), done))
    }

    /// Where the `/dev/shm` is that a container shares with others, if it does.
    pub fn shm_of(&self, container: &Container) -> PathBuf {
        self.paths.shm(&container.sandbox)
    }

    /// Mounts the `/dev/shm` of a container that shares it, until it rests. Where only the container sees it nobody else could:
    /// what is mounted in another mount namespace cannot be bound by older kernels (Linux 6.1 refuses it, 6.18 does not).
    pub fn make_shm(&self, container: &Container, options: &str) -> Result<PathBuf> {
        let shm = self.shm_of(container);
        unmount(&shm)?;
        mount_shm(&shm, options)?;
        Ok(shm)
    }

    /// Starts the container's shim, which is needed soon: it comes up while other things are done. Whose launcher it has.
    pub async fn prepare_shim(&self, container: &Container) -> Result<LauncherAge> {
        let sandbox = self.sandbox(&container.id)?;
        self.shim(&sandbox).await?;
        Ok(self.launcher_of(&sandbox).await)
    }

    /// Runs a container that does not run.
    pub async fn start_standalone(&self, container: &Arc<Container>, launch: Launch) -> Result<()> {
        let _changing = container.changing.lock().await;
        let before = container.state();
        if before.status == Status::Running {
            return Err(Error::precondition(format!("container {:?} runs already", container.id)));
        }
        let bundle = self.paths.bundle(&container.id);
        fs::create_dir_all(bundle.join("rootfs")).context(format!("create {}", bundle.display()))?;
        save_volatile(&bundle, "config.json", &launch.config)?;
        let sandbox = self.sandbox(&container.id)?;
        if before.status == Status::Exited {
            self.change(container, |state| {
                state.status = Status::Created;
                state.exit_code = 0;
                state.reason.clear();
                state.message.clear();
            })
            .await?;
        }
        match self.launch_standalone(&sandbox, container, launch).await {
            Ok((pid, at)) => self.change(container, |state| state.started(pid, at)).await,
            Err(error) => {
                let set = |state: &mut ContainerState| *state = ContainerState { message: error.to_string(), ..before };
                self.change(container, set).await?;
                if let Err(error) = self.remove_runtime_state(container, true).await {
                    tracing::warn!(container = container.id, %error, "cannot clean up after a failed start");
                }
                Err(error)
            }
        }
    }

    async fn launch_standalone(
        &self,
        sandbox: &Arc<Sandbox>,
        container: &Container,
        launch: Launch,
    ) -> Result<(u32, u64)> {
        let shim = self.shim(sandbox).await?;
        let group = self.hierarchy.group(&container.cgroups_path).context("find the cgroup")?;
        let oom_file = group.dir("memory").map(|dir| dir.join(memory::oom_file(group.is_v2())));
        let create = Create {
            id: container.id.clone(),
            kind: Kind::Container { bundle: self.paths.bundle(&container.id).to_string_lossy().into_owned() },
            terminal: container.config.tty,
            stdin: container.config.stdin,
            stdin_once: container.config.stdin_once,
            log: launch.log,
            oom_file: oom_file.map(|path| path.to_string_lossy().into_owned()).unwrap_or_default(),
        };
        let started = if launch.attach.is_empty() {
            shim.run_process(create).await
        } else {
            shim.create_process(create).await?;
            for pending in launch.attach {
                let session = attach(&shim, &container.id, pending.stdin, pending.output).await;
                // Who went away meanwhile is not waited for.
                let _ = pending.ready.send(session);
            }
            shim.start_process(&container.id).await
        };
        if started.is_err() {
            let _ = shim.call(&Request::Delete { id: container.id.clone() }).await;
        }
        started
    }

    /// Streams of a container that runs.
    pub async fn attach(&self, container: &Container, stdin: bool, output: bool) -> Result<Session> {
        let sandbox = self.sandbox(&container.sandbox)?;
        let shim = sandbox.shim.lock().await.clone();
        let shim = shim.ok_or_else(|| Error::precondition(format!("container {} does not run", container.id)))?;
        attach(&shim, &container.id, stdin, output).await
    }

    /// A connection to the shim of a container that runs, for an executed process.
    pub async fn session(&self, container: &Container) -> Result<Session> {
        let sandbox = self.sandbox(&container.sandbox)?;
        let shim = sandbox.shim.lock().await.clone();
        shim.ok_or_else(|| Error::precondition(format!("container {} does not run", container.id)))?.session().await
    }

    /// One request to the shim of a container that runs.
    pub async fn ask_shim(&self, container: &Container, request: &Request) -> Result<()> {
        let sandbox = self.sandbox(&container.sandbox)?;
        let shim = sandbox.shim.lock().await.clone();
        shim.ok_or_else(|| Error::precondition(format!("container {} does not run", container.id)))?.call(request).await
    }

    /// The OCI configuration a container runs with.
    pub fn oci_config(&self, container: &Container) -> Result<Value> {
        super::load(&self.paths.bundle(&container.id).join("config.json"))
    }

    /// The groups of a container.
    pub fn group_of(&self, container: &Container) -> Result<Cgroup> {
        self.hierarchy.group(&container.cgroups_path).context("find the cgroup")
    }

    pub fn cgroup_is_v2(&self) -> bool {
        self.hierarchy.is_v2()
    }

    /// Stops or continues all processes of a container.
    pub async fn freeze(&self, container: &Container, frozen: bool) -> Result<()> {
        let group = self.group_of(container)?;
        self.blocking(move || freezer::set(&group, frozen).context("freeze")).await?
    }

    pub fn is_frozen(&self, container: &Container) -> bool {
        self.group_of(container).is_ok_and(|group| freezer::is_frozen(&group))
    }

    /// Lets go of what only a running container needs: shim and namespaces. One that runs (again) is left alone.
    pub async fn rest_standalone(&self, container: &Container) -> Result<()> {
        let _changing = container.changing.lock().await;
        if container.state().status == Status::Running {
            return Ok(());
        }
        self.release_standalone(container).await
    }

    async fn release_standalone(&self, container: &Container) -> Result<()> {
        let sandbox = self.sandbox(&container.sandbox)?;
        self.stop_shim(&sandbox).await;
        let (paths, id) = (self.paths.clone(), container.id.clone());
        self.blocking(move || release_files(&paths, &id)).await?
    }

    /// Removes a container that does not run, or kills it first. When this returns nobody finds it any more, nor would a
    /// daemon started anew; the disk may have its files for a moment longer.
    pub async fn remove_standalone(&self, container: &Arc<Container>) -> Result<()> {
        let _changing = container.changing.lock().await;
        if container.state().status == Status::Running {
            self.kill_container(container).await?;
        }
        self.stop_shim(&*self.sandbox(&container.sandbox)?).await;
        let (paths, snapshots, id) = (self.paths.clone(), self.snapshots.clone(), container.id.clone());
        let run = self.run_of(container);
        let mut removal = self.removals.begin();
        let removed = self.blocking(move || {
            let mut remove = || -> Result<()> {
                release_files(&paths, &id)?;
                run.remove(true)?;
                if !removal.take(&format!("{id}.snapshot"), |to| snapshots.take_away(&id, to)) {
                    snapshots.remove(&id)?;
                }
                remove_dir(&paths.bundle(&id))?;
                remove_dir(&paths.run_sandbox(&id))?;
                // Of an earlier version.
                remove_dir(&paths.sandbox(&id))?;
                // The record goes last: by it a daemon that is killed here finds the rest again.
                let record = paths.container(&id);
                if !removal.take(&format!("{id}.record"), |to| fs::rename(&record, to).context("move the record")) {
                    remove_dir(&record)?;
                }
                Ok(())
            };
            let done = remove();
            (done, removal)
        });
        let (done, removal) = removed.await?;
        removal.finish();
        done?;
        if self.containers.write().remove(&container.id).is_some() {
            self.selinux.release(&container.labels);
        }
        self.sandboxes.write().remove(&container.id);
        self.collect_after(container).await;
        Ok(())
    }
}

async fn attach(shim: &super::shim::Shim, id: &str, stdin: bool, output: bool) -> Result<Session> {
    let mut session = shim.session().await?;
    session.send(&[Request::Attach { id: id.to_owned(), stdin, output }]).await?;
    // The greeting's answer, then the attachment's.
    for _ in 0..2 {
        match session.next().await? {
            Reply::Hello { .. } | Reply::Done => {}
            _ => return Err(Error::internal("the shim answered something else")),
        }
    }
    Ok(session)
}
