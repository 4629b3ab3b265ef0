//! `coracle agent`: one node: kubelet, container runtime and network in one process.
//!
//! ```text
//! join (bootstrap token → certificates) ─▶ runtime (CRI socket) ─▶ kubelet ─▶ pods
//!                                          network: plugin's configuration once the node has its range, routes
//! ```

mod hello;
mod join;
mod network;
mod socket;

use std::{net::IpAddr, os::fd::RawFd, path::PathBuf, sync::Arc};

use anyhow::{Context, Result};
use clap::Args;
use coracle_client::{Informers, Scope};
use coracle_kubelet::{Progress, Reserved, SysctlPattern};
use coracle_link::Place;
use coracle_network::cni::Paths;
use coracle_runtime::Runtime;
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{images, readiness, run_dir::RunDir, server::inherited_netns, shutdown};

#[derive(Debug, Args)]
pub struct Options {
    /// The API server
    #[arg(long, value_name = "URL")]
    server: String,
    /// What the node joins with (the server's DIR/join-token)
    #[arg(long, value_name = "FILE")]
    token_file: PathBuf,
    /// Where images, containers and keys are kept
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Where sockets and other things of what runs are [default: DATA_DIR/run, which leads to a directory in /run where that is in memory]
    #[arg(long, value_name = "DIR")]
    run_dir: Option<PathBuf>,
    /// The node's name [default: the host's]
    #[arg(long)]
    node_name: Option<String>,
    /// The node's address [default: the one that leads to the server]
    #[arg(long)]
    node_ip: Option<IpAddr>,
    /// The cgroup that pods are put under
    #[arg(long, default_value = "/kubepods-coracle")]
    cgroup_parent: String,
    /// What of the machine is kept for the system, as cpu=500m,memory=1Gi,ephemeral-storage=1Gi,pid=1000
    #[arg(long, value_name = "RESOURCES", default_value = "")]
    system_reserved: Reserved,
    /// What is kept for the cluster's programs beside that
    #[arg(long, value_name = "RESOURCES", default_value = "")]
    kube_reserved: Reserved,
    /// Kernel parameters of namespaces of their own that pods may set beside those that are safe, as net.core.somaxconn,kernel.msg*
    #[arg(long, value_name = "SYSCTLS", value_delimiter = ',')]
    allowed_unsafe_sysctls: Vec<SysctlPattern>,
    /// Pull images from this network namespace instead of the node's own
    #[arg(long, value_name = "FD", hide = true)]
    host_netns: Option<RawFd>,
    /// Have the test images coracle/hello:v1 and :v2
    #[arg(long)]
    hello_images: bool,
    #[command(flatten)]
    images: images::ImageOptions,
}

/// Runs the node until it is told to stop. Its containers go on without it.
pub async fn run(options: Options) -> Result<()> {
    let stop = shutdown::on_signal()?;
    // It is this node's until the end.
    let held = options.run_dir.clone().map_or_else(|| RunDir::of(&options.data_dir), |path| Ok(RunDir::at(path)))?;
    let run_dir = held.path.clone();
    let node = Node::of(&options)?;
    let pull_place = match options.host_netns {
        Some(fd) => Place::Netns(inherited_netns(fd)?),
        None => Place::Current,
    };
    let cni = Paths {
        conf_dir: options.data_dir.join("cni/net.d"),
        bin_dir: options.data_dir.join("cni/bin"),
        data_dir: options.data_dir.join("cni/addresses"),
    };
    let cri_socket = run_dir.join("cri.sock");
    let runtime = Runtime::start(coracle_runtime::Config {
        data_dir: options.data_dir.join("runtime"),
        run_dir: run_dir.join("runtime"),
        cri_socket: cri_socket.clone(),
        cgroup_parent: options.cgroup_parent.clone(),
        cni_conf_dir: cni.conf_dir.clone(),
        cni_bin_dir: cni.bin_dir.clone(),
        cni_own: Some(crate::cni::own()),
        cdi_dirs: coracle_runtime::Config::default_cdi_dirs(),
        selinux: true,
        pull_place,
        layer_limits: options.images.limits(),
        registries: options.images.registries(),
        docker: vec![coracle_runtime::docker::Listener::Unix(run_dir.join("docker.sock"))],
    });
    let runtime = Arc::new(runtime.await.context("start the container runtime")?);
    let images = async { if options.hello_images { hello::pack(runtime.images()).await } else { Ok(()) } };
    let (joined, ()) = tokio::try_join!(join::join(&options, &node, stop.clone()), images)?;
    let informers = Informers::with_shutdown(joined.client.clone(), Scope::all(), stop.clone());
    let (kubelet, progress) = join::kubelet(&options, &node, &joined, cri_socket);

    let mut parts = Parts::default();
    let agent = Arc::new(Agent { node, runtime, informers, cni, stop: stop.clone() });
    let shared = agent.clone();
    parts.spawn(async move { shared.runtime.serve(shared.stop.clone()).await.context("serve CRI") });
    let shared = agent.clone();
    parts.spawn(async move { shared.install_plugin().await });
    let shared = agent.clone();
    parts.spawn(async move { shared.keep_routes().await });
    let (shared, socket) = (agent.clone(), run_dir.join("agent.sock"));
    parts.spawn(async move {
        socket::serve(&socket, shared.runtime.clone(), shared.stop.clone()).await.context("serve the agent's socket")
    });
    let shared = agent.clone();
    parts.spawn(async move { coracle_kubelet::run(kubelet, shared.stop.clone()).await.context("run the kubelet") });
    parts.spawn(async move { agent.tell_ready(progress).await });
    parts.finish(&stop).await
}

/// What the parts of the agent share.
struct Agent {
    node: Node,
    runtime: Arc<Runtime>,
    informers: Informers,
    cni: Paths,
    stop: CancellationToken,
}

impl Agent {
    async fn install_plugin(&self) -> Result<()> {
        network::install_plugin(&self.informers, &self.node.name, &self.cni, self.stop.clone()).await
    }

    async fn keep_routes(&self) -> Result<()> {
        let routes = coracle_network::routes::run(&self.informers, &self.node.name, &Place::Current, self.stop.clone());
        routes.await.context("keep the routes to the other nodes")
    }

    async fn tell_ready(&self, mut progress: watch::Receiver<Progress>) -> Result<()> {
        tokio::select! {
            () = self.stop.cancelled() => {}
            ready = progress.wait_for(|progress| *progress == Progress::Ready) => {
                // A kubelet that ended before has its own error.
                if ready.is_ok() {
                    readiness::ready(&format!("ready {}", self.node.name));
                }
            }
        }
        Ok(())
    }
}

/// The parts of the agent: the first that fails ends the others.
#[derive(Default)]
struct Parts(JoinSet<Result<()>>);

impl Parts {
    fn spawn(&mut self, part: impl Future<Output = Result<()>> + Send + 'static) {
        self.0.spawn(part);
    }

    async fn finish(mut self, stop: &CancellationToken) -> Result<()> {
        let mut first = Ok(());
        while let Some(ended) = self.0.join_next().await {
            let ended = ended.context("a part of the agent panicked").and_then(|outcome| outcome);
            if let Err(error) = ended {
                stop.cancel();
                match first {
                    Ok(()) => first = Err(error),
                    Err(_) => tracing::error!("{error:#}"),
                }
            }
        }
        first
    }
}

/// Who the node is.
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
}

impl Node {
    fn of(options: &Options) -> Result<Self> {
        let name = match &options.node_name {
            Some(name) => name.clone(),
            None => nix::unistd::gethostname().context("read the host's name")?.to_string_lossy().to_lowercase(),
        };
        let address = match options.node_ip {
            Some(address) => address,
            None => address_towards(&options.server)?,
        };
        Ok(Self { name, address })
    }
}

/// The address this machine would speak to `server` from. Connecting a UDP socket sends nothing.
fn address_towards(server: &str) -> Result<IpAddr> {
    let authority = server.trim_start_matches("https://").split('/').next().unwrap_or_default();
    let authority = if authority.contains(':') { authority.to_owned() } else { format!("{authority}:443") };
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").context("open a socket")?;
    socket
        .connect(&authority)
        .with_context(|| format!("find the way to {authority}; say the node's address with --node-ip"))?;
    Ok(socket.local_addr()?.ip())
}
