//! Sandboxes: made, stopped, removed.

use std::{fs, net::Ipv4Addr, path::Path, sync::Arc};

use coracle_launcher::sys;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::{
    Engine, Paths, Sandbox,
    model::{EventKind, Resources, SandboxConfig, SandboxState, Status, new_id, now},
    namespaces::{Wanted, open_to_everybody},
    remove_dir, save, save_volatile,
    shim::{Shim, ShimEvent},
    spec::LauncherAge,
    stats::CpuMeter,
};
use crate::{
    cni,
    error::{Context, Error, Result},
};

/// The sandbox's file in its data directory.
#[derive(Serialize, Deserialize)]
pub(super) struct SandboxRecord {
    pub id: String,
    pub config: SandboxConfig,
    pub state: SandboxState,
}

impl SandboxConfig {
    /// The name that its processes are told they run at: without one of its own the node's (containerd `internal/cri/server`,
    /// `buildLinuxSpec`, `setupSandboxFiles`).
    pub fn hostname(&self) -> String {
        let of_node = || nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if self.hostname.is_empty() { of_node() } else { self.hostname.clone() }
    }
}

impl Sandbox {
    fn record(&self) -> SandboxRecord {
        SandboxRecord { id: self.id.clone(), config: self.config.clone(), state: self.state() }
    }
}

/// Size of a sandbox's `/dev/shm`, as everywhere.
const SHM_OPTIONS: &str = "mode=1777,size=65536k";

impl Engine {
    /// Makes a sandbox: namespaces, files, network.
    pub async fn run_sandbox(
        &self,
        config: SandboxConfig,
        overhead: Option<Resources>,
        resources: Option<Resources>,
    ) -> Result<String> {
        let id = new_id();
        let state = SandboxState { created_at: now(), overhead, resources, ..SandboxState::default() };
        let sandbox = {
            let _naming = self.naming.lock();
            if let Some(other) = self.sandboxes().into_iter().find(|other| same_name(&other.config, &config)) {
                let name = format!("{}_{}_{}_{}", config.name, config.namespace, config.uid, config.attempt);
                return Err(Error::already_exists(format!(
                    "failed to reserve sandbox name {name:?}: name {name:?} is reserved for {:?}",
                    other.id
                )));
            }
            let labels = self.selinux.init(&config.selinux)?;
            let sandbox = Sandbox {
                id: id.clone(),
                config,
                state: parking_lot::Mutex::new(SandboxState { labels, ..state }),
                changing: tokio::sync::Mutex::new(()),
                shim: tokio::sync::Mutex::new(None),
                cpu: CpuMeter::default(),
            };
            let sandbox = Arc::new(sandbox);
            self.sandboxes.write().insert(id.clone(), sandbox.clone());
            sandbox
        };
        let changing = sandbox.changing.lock().await;
        if let Err(error) = self.make_sandbox(&sandbox).await {
            self.sandboxes.write().remove(&id);
            self.selinux.release(&sandbox.state().labels);
            if let Err(error) = self.unmake_sandbox(&sandbox).await {
                warn!(sandbox = id, %error, "cannot clean up after a sandbox that could not be made");
            }
            return Err(error);
        }
        drop(changing);
        info!(sandbox = id, pod = sandbox.config.name, namespace = sandbox.config.namespace, "sandbox runs");
        self.announce(EventKind::Created, &id, &id);
        self.announce(EventKind::Started, &id, &id);
        Ok(id)
    }

    async fn make_sandbox(&self, sandbox: &Arc<Sandbox>) -> Result<()> {
        let (paths, this) = (self.paths.clone(), sandbox.clone());
        let made = self.blocking(move || {
            // The record comes first: whatever is left behind by a kill from here on is found by it.
            save_volatile(&paths.sandbox(&this.id), "sandbox.json", &this.record())?;
            make_files(&paths, &this)
        });
        made.await??;
        if !sandbox.config.host_network {
            let attachment = self.attachment(sandbox);
            // Its first container comes soon, and with it the need for the shim: that comes up while the network is made.
            let (ips, shim) = tokio::join!(self.cni.add(&attachment), self.shim(sandbox));
            let ips =
                ips.map_err(|error| error.context(format!("failed to setup network for sandbox {:?}", sandbox.id)))?;
            sandbox.state.lock().ips = in_order(ips);
            shim?;
        }
        sandbox.state.lock().ready = true;
        self.record_sandbox(sandbox).await
    }

    /// Writes its record, waiting for the disk elsewhere.
    pub(super) async fn record_sandbox(&self, sandbox: &Sandbox) -> Result<()> {
        let (dir, record) = (self.paths.sandbox(&sandbox.id), sandbox.record());
        self.blocking(move || save(&dir, "sandbox.json", &record)).await?
    }

    /// What ends must be able to end on a full disk: that is how it gets room again. A start finds out by itself what was
    /// not written, for the namespaces are gone.
    async fn try_record(&self, sandbox: &Sandbox) {
        if let Err(error) = self.record_sandbox(sandbox).await {
            warn!(sandbox = sandbox.id, %error, "the sandbox's end could not be recorded");
        }
    }

    fn attachment(&self, sandbox: &Sandbox) -> cni::Attachment {
        let config = &sandbox.config;
        cni::Attachment {
            container_id: sandbox.id.clone(),
            netns: self.paths.pins(&sandbox.id).path("net"),
            args: [
                ("IgnoreUnknown", "1"),
                ("K8S_POD_NAMESPACE", config.namespace.as_str()),
                ("K8S_POD_NAME", config.name.as_str()),
                ("K8S_POD_INFRA_CONTAINER_ID", sandbox.id.as_str()),
                ("K8S_POD_UID", config.uid.as_str()),
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
            settings: cni::Settings {
                port_mappings: config.port_mappings.iter().filter(|mapping| mapping.host_port > 0).cloned().collect(),
                bandwidth: config.bandwidth,
                dns: config.dns.clone(),
                cgroup_path: config.cgroup_parent.clone(),
                annotations: config.annotations.clone(),
            },
        }
    }

    /// Records what the pod's group was given.
    pub async fn update_sandbox(
        &self,
        id: &str,
        overhead: Option<Resources>,
        resources: Option<Resources>,
    ) -> Result<()> {
        let sandbox = self.sandbox(id)?;
        let _changing = sandbox.changing.lock().await;
        {
            let mut state = sandbox.state.lock();
            state.overhead = overhead.or(state.overhead.take());
            state.resources = resources.or(state.resources.take());
        }
        self.record_sandbox(&sandbox).await
    }

    /// Stops every container, gives the network and the namespaces back. Stopping again is fine.
    pub async fn stop_sandbox(&self, id: &str) -> Result<()> {
        let sandbox = self.sandbox(id)?;
        let _changing = sandbox.changing.lock().await;
        let running: Vec<_> = self
            .containers_of(&sandbox.id)
            .into_iter()
            .filter(|container| container.state().status == Status::Running)
            .collect();
        let stops = running.iter().map(|container| self.kill_container(container));
        for result in futures::future::join_all(stops).await {
            result?;
        }
        let was_ready = std::mem::replace(&mut sandbox.state.lock().ready, false);
        self.try_record(&sandbox).await;
        self.release_network(&sandbox).await?;
        self.stop_shim(&sandbox).await;
        let paths = self.paths.clone();
        let sandbox_id = sandbox.id.clone();
        self.blocking(move || release_files(&paths, &sandbox_id)).await??;
        if was_ready {
            self.announce(EventKind::Stopped, &sandbox.id, &sandbox.id);
        }
        Ok(())
    }

    async fn release_network(&self, sandbox: &Sandbox) -> Result<()> {
        if sandbox.config.host_network || sandbox.state.lock().network_released {
            return Ok(());
        }
        let released = self.cni.del(&self.attachment(sandbox)).await;
        released.map_err(|error| error.context(format!("failed to destroy network for sandbox {:?}", sandbox.id)))?;
        sandbox.state.lock().network_released = true;
        self.try_record(sandbox).await;
        Ok(())
    }

    pub(super) async fn stop_shim(&self, sandbox: &Sandbox) {
        if let Some(shim) = sandbox.shim.lock().await.take() {
            // It refuses only while something runs; then the kill of its group ends that first.
            if let Err(error) = shim.call(&coracle_shim::protocol::Request::Shutdown).await {
                warn!(sandbox = sandbox.id, %error, "the shim does not end");
            }
        }
    }

    /// Removes a sandbox with its containers; removing what is not there is fine.
    pub async fn remove_sandbox(&self, id: &str) -> Result<()> {
        let Ok(sandbox) = self.sandbox(id) else { return Ok(()) };
        self.stop_sandbox(&sandbox.id).await?;
        for container in self.containers_of(&sandbox.id) {
            self.remove_container(&container.id).await?;
        }
        let _changing = sandbox.changing.lock().await;
        self.unmake_sandbox(&sandbox).await?;
        if self.sandboxes.write().remove(&sandbox.id).is_some() {
            self.selinux.release(&sandbox.state().labels);
            // With its last state, without which the kubelet takes no notice (pkg/kubelet/pleg/evented.go).
            self.announce_of(EventKind::Deleted, &sandbox.id, Some(sandbox.clone()));
        }
        Ok(())
    }

    async fn unmake_sandbox(&self, sandbox: &Sandbox) -> Result<()> {
        if self.paths.pins(&sandbox.id).holds("net") {
            self.release_network(sandbox).await?;
        }
        self.stop_shim(sandbox).await;
        let paths = self.paths.clone();
        let hierarchy = self.hierarchy.clone();
        // A group of our own choice is ours to remove; the kubelet removes its own.
        let own_group = sandbox.config.cgroup_parent.is_empty().then(|| self.sandbox_group(sandbox));
        let id = sandbox.id.clone();
        self.blocking(move || {
            release_files(&paths, &id)?;
            if let Some(path) = own_group {
                hierarchy.group(&path).and_then(|group| group.remove()).context("remove the sandbox's cgroup")?;
            }
            remove_dir(&paths.run_sandbox(&id))?;
            remove_dir(&paths.sandbox(&id))
        })
        .await?
    }

    /// The group that the sandbox's containers are in.
    pub fn sandbox_group(&self, sandbox: &Sandbox) -> String {
        match sandbox.config.cgroup_parent.as_str() {
            "" => format!("{}/{}", self.cgroup_parent.trim_end_matches('/'), sandbox.id),
            parent => parent.to_owned(),
        }
    }

    /// The sandbox's shim, started if there is none.
    pub(crate) async fn shim(&self, sandbox: &Arc<Sandbox>) -> Result<Arc<Shim>> {
        let mut slot = sandbox.shim.lock().await;
        if let Some(shim) = slot.as_ref() {
            return Ok(shim.clone());
        }
        let (shim, events) = Shim::spawn(&self.programs, &self.paths.shim(&sandbox.id), &self.paths.oci()).await?;
        *slot = Some(shim.clone());
        self.follow(sandbox.clone(), &shim, events)?;
        Ok(shim)
    }

    /// Whose launcher will start the sandbox's next container. A shim that is not there yet will be ours.
    pub(crate) async fn launcher_of(&self, sandbox: &Sandbox) -> LauncherAge {
        let slot = sandbox.shim.lock().await;
        if slot.as_ref().is_none_or(|shim| shim.is_ours()) { LauncherAge::Ours } else { LauncherAge::Unknown }
    }

    /// Takes the shim's events until it is gone.
    pub(super) fn follow(
        &self,
        sandbox: Arc<Sandbox>,
        shim: &Arc<Shim>,
        mut events: tokio::sync::mpsc::Receiver<ShimEvent>,
    ) -> Result<()> {
        let engine = self.arc()?;
        let shim = Arc::downgrade(shim);
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                match event {
                    ShimEvent::Exited { id, exit } => engine.exited(&id, Some(exit)).await,
                    ShimEvent::Gone => {
                        let mut slot = sandbox.shim.lock().await;
                        // One that was dismissed may have a successor already.
                        if !slot.as_ref().is_some_and(|current| std::ptr::eq(Arc::as_ptr(current), shim.as_ptr())) {
                            continue;
                        }
                        *slot = None;
                        drop(slot);
                        // The shared pid namespace ended with the shim's init; nothing can enter it again.
                        if let Err(error) = engine.paths.pins(&sandbox.id).release_kind("pid") {
                            warn!(sandbox = sandbox.id, %error, "cannot release the pid namespace");
                        }
                        engine.shim_lost(&sandbox).await;
                    }
                }
            }
        });
        Ok(())
    }

    /// A shim that ends takes its containers along; nobody knows how they ended.
    pub(super) async fn shim_lost(&self, sandbox: &Sandbox) {
        for container in self.containers_of(&sandbox.id) {
            if container.state().status == Status::Running {
                warn!(sandbox = sandbox.id, container = container.id, "the shim was lost, and with it the container");
                let record = coracle_shim::exit_file::read(&self.paths.shim(&sandbox.id), &container.id);
                self.exited(&container.id, record.map(|record| record.exit)).await;
            }
        }
    }
}

fn same_name(a: &SandboxConfig, b: &SandboxConfig) -> bool {
    !b.name.is_empty() && (&a.name, &a.namespace, &a.uid, a.attempt) == (&b.name, &b.namespace, &b.uid, b.attempt)
}

fn make_files(paths: &Paths, sandbox: &Sandbox) -> Result<()> {
    let config = &sandbox.config;
    let (data, run) = (paths.sandbox(&sandbox.id), paths.run_sandbox(&sandbox.id));
    fs::create_dir_all(&run).context(format!("create {}", run.display()))?;
    if !config.log_directory.is_empty() {
        fs::create_dir_all(&config.log_directory).context(format!("create log directory {}", config.log_directory))?;
    }
    let mut sysctls = config.sysctls.clone();
    if !config.host_network {
        open_to_everybody(&mut sysctls, config.users.is_empty());
    }
    let wanted = Wanted {
        net: !config.host_network,
        ipc: !config.host_ipc,
        // A pod in the host's network has the host's name, as everywhere.
        uts: !config.host_network,
        hostname: config.hostname.clone(),
        users: (!config.users.is_empty()).then(|| config.users.mappings()),
        sysctls: sysctls.into_iter().collect(),
    };
    let owner = wanted
        .users
        .as_ref()
        .map(|users| users.outside(0, 0).ok_or_else(|| Error::invalid("the user namespace has no root")));
    let owner = owner.transpose()?;
    paths.pins(&sandbox.id).create(&wanted)?;
    let shm = paths.shm(&sandbox.id);
    if wanted.ipc {
        let owned = owner.map(|(uid, gid)| format!(",uid={uid},gid={gid}")).unwrap_or_default();
        mount_shm(&shm, &format!("{SHM_OPTIONS}{owned}"))?;
    }
    let write = |name: &str, text: String| {
        let path = data.join(name);
        let written = fs::write(&path, text).and_then(|()| match owner {
            Some((uid, gid)) => std::os::unix::fs::chown(&path, Some(uid), Some(gid)),
            None => Ok(()),
        });
        written.context(format!("write {name} of the sandbox"))
    };
    write("hostname", format!("{}\n", config.hostname()))?;
    write("hosts", fs::read_to_string("/etc/hosts").unwrap_or_else(|_| "127.0.0.1\tlocalhost\n".into()))?;
    write("resolv.conf", resolv_conf(config))
}

/// Mounts what several containers see as `/dev/shm`.
pub(super) fn mount_shm(shm: &Path, options: &str) -> Result<()> {
    fs::create_dir_all(shm).context(format!("create {}", shm.display()))?;
    sys::mount("shm", shm, "tmpfs", libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC, options)
        .context(format!("mount {}", shm.display()))
}

/// The first IPv4 address before the others: clients that know one address of a pod take the first (containerd
/// `internal/cri/server/sandbox_run.go`, `selectPodIPs`).
fn in_order(mut ips: Vec<String>) -> Vec<String> {
    if let Some(place) = ips.iter().position(|ip| ip.parse::<Ipv4Addr>().is_ok()) {
        ips[..=place].rotate_right(1);
    }
    ips
}

/// What the caller wants in `/etc/resolv.conf`, which may be nothing; a copy of the host's for one who does not say (containerd
/// `internal/cri/server/podsandbox/sandbox_run_linux.go`, `setupSandboxFiles`).
fn resolv_conf(config: &SandboxConfig) -> String {
    let Some(dns) = &config.dns else { return fs::read_to_string("/etc/resolv.conf").unwrap_or_default() };
    let mut out = String::new();
    if !dns.searches.is_empty() {
        out.push_str(&format!("search {}\n", dns.searches.join(" ")));
    }
    dns.servers.iter().for_each(|server| out.push_str(&format!("nameserver {server}\n")));
    if !dns.options.is_empty() {
        out.push_str(&format!("options {}\n", dns.options.join(" ")));
    }
    out
}

/// Lets go of the namespaces and the shm; what is gone already is fine.
pub(super) fn release_files(paths: &Paths, id: &str) -> Result<()> {
    paths.pins(id).release()?;
    unmount(&paths.shm(id))?;
    unmount(&paths.former_shm(id))
}

pub(super) fn unmount(path: &Path) -> Result<()> {
    loop {
        match sys::umount(path, libc::MNT_DETACH) {
            Ok(()) => {}
            // Not a mount point (any more), or not there.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOENT)) => return Ok(()),
            Err(error) => return Err(error).context(format!("unmount {}", path.display())),
        }
    }
}
