//! After a restart: what still runs is adopted, what ended is recorded, what belongs to nothing is removed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::Arc,
};

use tracing::{info, warn};

use super::{
    Container, Engine, Sandbox,
    container::ContainerRecord,
    load,
    model::{SandboxState, Status},
    remove_dir,
    sandbox::{SandboxRecord, release_files},
    shim::Shim,
    stats::CpuMeter,
};
use crate::{
    check::{self, Dirs},
    cni::Attachment,
    digest::Digest,
    error::{Context, Result},
};

/// What the records below a data directory say.
#[derive(Default)]
pub(crate) struct Known {
    pub sandboxes: BTreeMap<String, KnownSandbox>,
    /// Whether each runs.
    pub containers: BTreeMap<String, bool>,
    /// The groups that containers' groups are in.
    pub groups: BTreeSet<String>,
    /// The layers that containers are made over.
    pub chains: BTreeSet<Digest>,
    /// What could not be read or belongs to nothing, and why.
    pub bad_sandboxes: Vec<(String, String)>,
    pub bad_containers: Vec<(String, String)>,
}

#[derive(Clone, Copy)]
pub(crate) struct KnownSandbox {
    pub ready: bool,
    pub standalone: bool,
}

impl Known {
    /// Reads the records from the disk.
    pub fn read(data_dir: &Path) -> Result<Known> {
        let mut known = Known::default();
        for id in entries(&data_dir.join("sandboxes"))? {
            match load::<SandboxRecord>(&data_dir.join("sandboxes").join(&id).join("sandbox.json")) {
                Ok(record) => known.add_sandbox(record.id, record.state.ready, record.config.standalone),
                Err(error) => known.bad_sandboxes.push((id, error.to_string())),
            }
        }
        for id in entries(&data_dir.join("containers"))? {
            let record = load::<ContainerRecord>(&data_dir.join("containers").join(&id).join("container.json"));
            if record.as_ref().is_ok_and(ContainerRecord::is_standalone) {
                known.add_sandbox(id.clone(), true, true);
            }
            match record {
                Ok(record) if known.sandboxes.contains_key(&record.sandbox) => known.add_container(
                    id,
                    record.state.status == Status::Running,
                    &record.cgroups_path,
                    record.image.chains.iter().chain(record.config.mounted_chains()),
                ),
                Ok(record) => known.bad_containers.push((id, format!("its sandbox {} is not there", record.sandbox))),
                Err(error) => known.bad_containers.push((id, error.to_string())),
            }
        }
        Ok(known)
    }

    fn add_sandbox(&mut self, id: String, ready: bool, standalone: bool) {
        self.sandboxes.insert(id, KnownSandbox { ready, standalone });
    }

    fn add_container<'a>(
        &mut self,
        id: String,
        running: bool,
        cgroups_path: &str,
        chains: impl Iterator<Item = &'a Digest>,
    ) {
        self.containers.insert(id, running);
        self.groups.extend(cgroups_path.rsplit_once('/').map(|(parent, _)| parent.to_owned()));
        self.chains.extend(chains.cloned());
    }
}

impl Engine {
    fn known(&self) -> Known {
        let mut known = Known::default();
        for sandbox in self.sandboxes() {
            known.add_sandbox(sandbox.id.clone(), sandbox.state().ready, sandbox.config.standalone);
        }
        for container in self.containers() {
            let running = container.state().status == Status::Running;
            let chains = container.image.chains.iter().chain(container.config.mounted_chains());
            known.add_container(container.id.clone(), running, &container.cgroups_path, chains);
        }
        known
    }

    pub(super) async fn recover(&self) -> Result<()> {
        self.load_sandboxes()?;
        self.load_containers()?;
        self.images.mend().await?;
        for sandbox in self.sandboxes() {
            self.adopt(&sandbox).await?;
        }
        self.remove_orphans().await
    }

    fn load_sandboxes(&self) -> Result<()> {
        for name in entries(&self.paths.data.join("sandboxes"))? {
            let record: SandboxRecord = match load(&self.paths.sandbox(&name).join("sandbox.json")) {
                Ok(record) => record,
                Err(error) => {
                    warn!(sandbox = name, %error, "a sandbox cannot be read and is removed");
                    continue;
                }
            };
            self.selinux.reserve(&record.state.labels);
            let sandbox = Sandbox {
                id: record.id,
                config: record.config,
                state: parking_lot::Mutex::new(record.state),
                changing: tokio::sync::Mutex::new(()),
                shim: tokio::sync::Mutex::new(None),
                cpu: CpuMeter::default(),
            };
            self.sandboxes.write().insert(sandbox.id.clone(), Arc::new(sandbox));
        }
        Ok(())
    }

    fn load_containers(&self) -> Result<()> {
        for name in entries(&self.paths.data.join("containers"))? {
            let path = self.paths.container(&name).join("container.json");
            if !path.exists() {
                info!(container = name, "a container that was not made yet is removed");
                continue;
            }
            let record = load::<ContainerRecord>(&path);
            if let Some(record) = record.as_ref().ok().filter(|record| record.is_standalone()) {
                // One of an earlier version has a record of its sandbox too.
                let sandbox = Arc::new(Sandbox::standalone(record));
                self.sandboxes.write().entry(record.id.clone()).or_insert(sandbox);
            }
            match record {
                Ok(record) if self.sandboxes.read().contains_key(&record.sandbox) => {
                    self.selinux.reserve(&record.labels);
                    let container = Container::restore(record);
                    self.containers.write().insert(container.id.clone(), Arc::new(container));
                }
                Ok(record) => warn!(container = record.id, "a container without its sandbox is removed"),
                Err(error) => warn!(container = name, %error, "a container cannot be read and is removed"),
            }
        }
        Ok(())
    }

    /// Believes the shim if there is one; else the records of exit; else nobody knows.
    async fn adopt(&self, sandbox: &Arc<Sandbox>) -> Result<()> {
        let dir = self.paths.shim(&sandbox.id);
        let found = Shim::find(&dir).await;
        let states = match &found {
            Some((shim, _)) => shim.state().await.unwrap_or_default(),
            None => Vec::new(),
        };
        let mut running = 0;
        for container in self.containers_of(&sandbox.id) {
            let known = states.iter().find(|state| state.id == container.id);
            match known {
                Some(state) if state.pid != 0 && state.exit.is_none() => {
                    running += 1;
                    self.change(&container, |own| {
                        own.status = Status::Running;
                        own.pid = state.pid;
                        own.started_at = i64::try_from(state.started_at).unwrap_or_default();
                    })
                    .await?;
                }
                Some(state) if state.exit.is_some() => self.exited(&container.id, state.exit.clone()).await,
                _ if container.state().status == Status::Running => {
                    let record = coracle_shim::exit_file::read(&dir, &container.id);
                    self.exited(&container.id, record.map(|record| record.exit)).await;
                }
                _ => {}
            }
        }
        for container in self.containers_of(&sandbox.id) {
            self.finish_end(&container).await;
        }
        // A sandbox half made, or one whose namespaces went with the machine, is not ready any more.
        let pins = self.paths.pins(&sandbox.id);
        let standalone = sandbox.config.standalone;
        let whole =
            |state: &SandboxState| state.ready && (standalone || sandbox.config.host_network || pins.holds("net"));
        let ready = whole(&sandbox.state());
        if sandbox.state().ready != ready {
            sandbox.state.lock().ready = ready;
            self.record_sandbox(sandbox).await?;
        }
        if let Some((shim, events)) = found {
            info!(sandbox = sandbox.id, running, "sandbox adopted");
            *sandbox.shim.lock().await = Some(shim.clone());
            self.follow(sandbox.clone(), &shim, events)?;
        } else {
            self.paths.pins(&sandbox.id).release_kind("pid")?;
        }
        Ok(())
    }

    /// A kill between a container's recorded end and the removal of its group, or in the middle of its start, leaves that.
    async fn finish_end(&self, container: &Container) {
        let rests = container.state().status != Status::Running;
        let left = self.hierarchy.group(&container.cgroups_path).is_ok_and(|group| group.exists());
        if rests
            && left
            && let Err(error) = self.remove_runtime_state(container, true).await
        {
            warn!(container = container.id, %error, "what is left of the container's run cannot be removed");
        }
    }

    /// Directories, namespaces, mounts and snapshots that no record names.
    async fn remove_orphans(&self) -> Result<()> {
        let sandboxes: Vec<String> = self.sandboxes.read().keys().cloned().collect();
        let containers: Vec<String> = self.containers.read().keys().cloned().collect();
        for parent in [self.paths.data.join("sandboxes"), self.paths.run.join("sandboxes")] {
            for id in entries(&parent)?.into_iter().filter(|id| !sandboxes.contains(id)) {
                if let Some((shim, _)) = Shim::find(&self.paths.shim(&id)).await {
                    // Its containers have no record, so nobody will ever ask for them.
                    for process in shim.state().await.unwrap_or_default() {
                        let _ = shim
                            .call(&coracle_shim::protocol::Request::Signal {
                                id: process.id,
                                signal: libc::SIGKILL as u32,
                            })
                            .await;
                    }
                    let _ = shim.call(&coracle_shim::protocol::Request::Shutdown).await;
                }
                release_files(&self.paths, &id)?;
                remove_dir(&parent.join(&id))?;
            }
        }
        // What is mounted below a directory would keep it from being removed.
        let dirs = Dirs { data: &self.paths.data, run: &self.paths.run, cgroup_parent: &self.cgroup_parent };
        for finding in check::mounts(&dirs, &self.known())? {
            warn!(%finding, "it is taken away");
            finding.repair()?;
        }
        for parent in [self.paths.data.join("containers"), self.paths.run.join("containers"), self.paths.oci()] {
            for id in entries(&parent)?.into_iter().filter(|id| !containers.contains(id)) {
                remove_dir(&parent.join(&id))?;
            }
        }
        for id in self.cni.attached().into_iter().filter(|id| !sandboxes.contains(id)) {
            let attachment = Attachment { container_id: id.clone(), ..Attachment::default() };
            // The plugin may be gone for good; the rest must come up all the same.
            if let Err(error) = self.cni.del(&attachment).await {
                warn!(sandbox = id, %error, "the network of a sandbox that is gone cannot be given back");
            }
        }
        for key in self.snapshots.keys().into_iter().filter(|key| !containers.contains(key)) {
            self.snapshots.remove(&key)?;
        }
        let engine = self.arc()?;
        self.images.collect(move || engine.chains_in_use()).await.map(drop)
    }
}

fn entries(dir: &std::path::Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(dir).context(format!("read {}", dir.display()))?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
}
