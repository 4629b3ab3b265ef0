//! After a restart: what still runs is adopted, what ended is recorded, what belongs to nothing is removed.

use std::{fs, path::PathBuf, sync::Arc};

use tracing::{info, warn};

use super::{
    Container, Engine, Sandbox,
    container::ContainerRecord,
    load,
    model::{SandboxState, Status},
    remove_dir,
    sandbox::{SandboxRecord, release_files},
    shim::Shim,
};
use crate::{
    cni::Attachment,
    error::{Context, Result},
};

impl Engine {
    pub(super) async fn recover(&self) -> Result<()> {
        self.load_sandboxes()?;
        self.load_containers()?;
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
            let sandbox = Sandbox {
                id: record.id,
                config: record.config,
                state: parking_lot::Mutex::new(record.state),
                changing: tokio::sync::Mutex::new(()),
                shim: tokio::sync::Mutex::new(None),
            };
            self.sandboxes.write().insert(sandbox.id.clone(), Arc::new(sandbox));
        }
        Ok(())
    }

    fn load_containers(&self) -> Result<()> {
        for name in entries(&self.paths.data.join("containers"))? {
            match load::<ContainerRecord>(&self.paths.container(&name).join("container.json")) {
                Ok(record) if self.sandboxes.read().contains_key(&record.sandbox) => {
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
                    })?;
                }
                Some(state) if state.exit.is_some() => self.exited(&container.id, state.exit.clone()).await,
                _ if container.state().status == Status::Running => {
                    let record = coracle_shim::exit_file::read(&dir, &container.id);
                    self.exited(&container.id, record.map(|record| record.exit)).await;
                }
                _ => {}
            }
        }
        // A sandbox half made, or one whose namespaces went with the machine, is not ready any more.
        let pins = self.paths.pins(&sandbox.id);
        let standalone = sandbox.config.standalone;
        let whole =
            |state: &SandboxState| state.ready && (standalone || sandbox.config.host_network || pins.holds("net"));
        let ready = whole(&sandbox.state());
        if sandbox.state().ready != ready {
            sandbox.state.lock().ready = ready;
            self.save_sandbox(sandbox)?;
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
        for parent in [self.paths.data.join("containers"), self.paths.run.join("containers"), self.paths.oci()] {
            for id in entries(&parent)?.into_iter().filter(|id| !containers.contains(id)) {
                remove_dir(&parent.join(&id))?;
            }
        }
        for id in self.cni.attached().into_iter().filter(|id| !sandboxes.contains(id)) {
            let attachment = Attachment {
                container_id: id.clone(),
                netns: PathBuf::new(),
                args: Vec::new(),
                port_mappings: Vec::new(),
            };
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
