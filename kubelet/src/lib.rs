//! The node agent: pod workers over CRI, probes, volumes, node status and the node's HTTP server.
//!
//! ```text
//!  pods of this node (informer) ─► manager ─► worker per pod ─► plan() ─► work over CRI ─► runtime
//!                                     ▲            │
//!  CRI events ────────────────────────┘            └─► status, events ─► API
//!  node keeper ─► node object, lease          server ─► logs, pods
//! ```
//!
//! [`plan`] decides without I/O; [`work`] carries out; [`worker`] brings the two together. Containers outlive the kubelet:
//! everything it knows of them is in their labels and annotations.

mod allocation;
pub mod bootstrap;
mod cgroups;
mod cri;
mod images;
mod log_rotation;
mod logs;
mod manager;
mod node;
mod objects;
mod observed;
mod plan;
mod pod;
mod probes;
mod server;
mod volumes;
mod work;
mod worker;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use coracle_api::clock::Clock;
use coracle_client::informers::Scope;
use coracle_client::{Informers, Recorder};
use coracle_link::Place;
use coracle_pki::Identity;
use futures::{FutureExt, future::BoxFuture};
use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use kube::Client;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::allocation::Allocations;
use crate::cri::Cri;
use crate::manager::Manager;
pub use crate::node::Reserved;
use crate::pod::dns::{ClusterDns, HostDns};
use crate::pod::requests::Amounts;
pub use crate::pod::sysctls::SysctlPattern;
use crate::server::Credentials;
use crate::volumes::Paths;
use crate::work::Shared;

/// Pulls at a time: more would share one line.
const PULLS: usize = 3;

/// What a kubelet is told.
pub struct Config {
    /// The node's name in the API.
    pub node_name: String,
    /// The address by which the node is reached.
    pub node_ip: IpAddr,
    /// Where the kubelet listens, and from where it probes.
    pub place: Place,
    /// The port of its HTTPS server, 10250 by custom. 0 takes a free one.
    pub port: u16,
    /// Where pods' volumes, files and logs are.
    pub root_dir: PathBuf,
    /// The container runtime's CRI socket.
    pub cri_socket: PathBuf,
    /// The API, with the node's identity.
    pub client: Client,
    /// The server's certificate and key.
    pub serving: watch::Receiver<Identity>,
    /// Whose client certificates open the server's door (PEM).
    pub client_ca: String,
    /// Labels of the node beside the usual ones.
    pub labels: BTreeMap<String, String>,
    /// Taints the node is registered with.
    pub taints: Vec<Taint>,
    /// Most pods on the node, 110 by custom.
    pub max_pods: u32,
    pub clock: Arc<dyn Clock>,
    /// The cgroup that pods' cgroups are made in.
    pub cgroup_parent: String,
    /// What of the machine is not for pods.
    pub reserved: Reserved,
    /// Kernel parameters that pods may set beside those that are safe; none by custom.
    pub allowed_unsafe_sysctls: Vec<SysctlPattern>,
    /// The cluster's DNS servers; empty: pods resolve as the node does.
    pub cluster_dns: Vec<IpAddr>,
    /// `cluster.local`
    pub cluster_domain: String,
    /// Told how far the node is.
    pub progress: watch::Sender<Progress>,
}

/// How far a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Progress {
    /// Not in the API yet.
    #[default]
    Starting,
    /// Its object is in the API.
    Registered,
    /// Its object said Ready for the first time.
    Ready,
}

/// Why a kubelet cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server's port cannot be listened on.
    #[error("listen on {address}: {source}")]
    Listen {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    /// The certificates are not usable.
    #[error("TLS of the kubelet's server: {0}")]
    Tls(String),
    /// A directory cannot be made.
    #[error("make {}: {source}", path.display())]
    Directory {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// Runs the kubelet until `shutdown`. Containers go on running after it, and are taken over by the next.
///
/// # Errors
/// Only for what cannot get better by itself: everything else is tried again.
///
/// Boxed, so that it is compiled once, here, and not in every program that awaits it.
pub fn run(config: Config, shutdown: CancellationToken) -> BoxFuture<'static, Result<(), Error>> {
    work_on(config, shutdown).boxed()
}

async fn work_on(config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    // Whatever ends this ends everything that was begun here.
    let shutdown = shutdown.child_token();
    let _end = shutdown.clone().drop_guard();
    let paths = Paths::new(&config.root_dir);
    for path in [paths.pods(), paths.logs()] {
        std::fs::create_dir_all(&path).map_err(|source| Error::Directory { path: path.clone(), source })?;
    }
    let address = SocketAddr::new(config.node_ip, config.port);
    let listener = config.place.listen_tcp(address).map_err(|source| Error::Listen { address, source })?;
    let port = listener.local_addr().map_or(config.port, |address| address.port());
    let mut serving = config.serving.clone();
    let credentials = Credentials::new(&serving.borrow_and_update())?;
    let acceptor = server::acceptor(credentials.clone(), &config.client_ca)?;
    let facts = node::Facts::read(&config.root_dir);
    let share = node::Share::of(&facts, config.reserved);
    let shared = Arc::new(shared(&config, paths, &facts, &share));

    let informers = Informers::with_shutdown(config.client.clone(), Scope::all(), shutdown.clone());
    let pods = informers.scoped::<Pod>(Scope::field("spec.nodeName", &config.node_name));
    let manager = Manager::new(shared.clone(), pods.clone());
    let app = server::App { shared: shared.clone(), pods, changes: manager.changes() };
    let description = node::Description {
        labels: config.labels,
        taints: config.taints,
        max_pods: config.max_pods,
        reserved: config.reserved,
        addresses: Vec::new(),
        port,
    };
    let own = informers.scoped::<Node>(Scope::field("metadata.name", &config.node_name));
    let keeper =
        node::Keeper { shared: shared.clone(), description, facts, progress: config.progress, own: own.clone() };
    tokio::join!(
        server::serve(listener, acceptor, app, shutdown.clone()),
        keeper.run(shutdown.clone()),
        manager.run(shutdown.clone()),
        node::tell_pod_range(&shared, own, shutdown.clone()),
        log_rotation::run(&shared, shutdown.clone()),
        async {
            tokio::select! {
                () = node::limit_pods(&shared, share) => {}
                () = shutdown.cancelled() => {}
            }
        },
        replace_credentials(serving, &credentials, shutdown.clone()),
    );
    Ok(())
}

fn shared(config: &Config, paths: Paths, facts: &node::Facts, share: &node::Share) -> Shared {
    let cpu_millis = i64::try_from(share.cpu_millis).unwrap_or(i64::MAX);
    let memory = i64::try_from(node::allocatable_memory(share)).unwrap_or(i64::MAX);
    Shared {
        node_name: config.node_name.clone(),
        node_ip: config.node_ip,
        place: config.place.clone(),
        paths: paths.clone(),
        cri: Cri::new(&config.cri_socket),
        client: config.client.clone(),
        recorder: Recorder::new(config.client.clone(), config.clock.clone(), "kubelet", Some(&config.node_name)),
        clock: config.clock.clone(),
        cgroup_parent: config.cgroup_parent.clone(),
        cgroups: cgroups::Cgroups::new(&config.cgroup_parent, &share.huge_pages),
        cluster_dns: ClusterDns { servers: config.cluster_dns.clone(), domain: config.cluster_domain.clone() },
        host_dns: HostDns::parse(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default()),
        memory_capacity: facts.memory,
        apparmor: facts.apparmor,
        sysctls: config.allowed_unsafe_sysctls.clone(),
        cpu_millis,
        allocations: Allocations::new(paths, Amounts { cpu_millis, memory }),
        storage_capacity: facts.storage,
        runtime_name: OnceLock::new(),
        pulls: Semaphore::new(PULLS),
    }
}

/// Serves with a new certificate as soon as there is one.
async fn replace_credentials(
    mut serving: watch::Receiver<Identity>,
    credentials: &Credentials,
    shutdown: CancellationToken,
) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            changed = serving.changed() => if changed.is_err() {
                // Nobody will bring another.
                return shutdown.cancelled().await;
            },
        }
        let replaced = credentials.replace(&serving.borrow_and_update());
        if let Err(error) = replaced {
            tracing::error!(error = %error, "the new serving certificate is not usable");
        }
    }
}
