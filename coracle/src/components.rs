//! Components alone, against any Kubernetes.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, sync::Arc};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use coracle_api::clock::SystemClock;
use coracle_kubelet::{Reserved, SysctlPattern};
use coracle_link::Place;
use coracle_pki::Identity;
use coracle_runtime::{
    check::{Check, Outcome},
    docker::{Listener, Tls},
};
use tokio::sync::watch;

use crate::{images, readiness, run_dir::RunDir, shutdown};

#[derive(Debug, Args)]
pub struct Scheduler {
    /// How to reach the API server
    #[arg(long, value_name = "FILE")]
    kubeconfig: PathBuf,
    /// Schedule only pods that ask for a scheduler of this name
    #[arg(long, default_value = "default-scheduler")]
    scheduler_name: String,
    /// Wait for leadership before acting
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    leader_elect: bool,
}

/// Runs the scheduler until it is told to stop.
pub async fn scheduler(options: Scheduler) -> Result<()> {
    let stop = shutdown::on_signal()?;
    let client = coracle_client::connect(&options.kubeconfig).await.context("connect to the API server")?;
    let mut config = coracle_scheduler::Config::new(client);
    config.name = options.scheduler_name;
    config.leader_elect = options.leader_elect;
    readiness::ready("ready scheduler");
    coracle_scheduler::run(config, stop).await;
    Ok(())
}

#[derive(Debug, Args)]
pub struct ControllerManager {
    /// How to reach the API server
    #[arg(long, value_name = "FILE")]
    kubeconfig: PathBuf,
    /// Where pods get their addresses; none where ranges come from elsewhere
    #[arg(long)]
    cluster_cidr: Option<ipnet::Ipv4Net>,
    /// Wait for leadership before acting
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    leader_elect: bool,
}

/// Runs the controllers until they are told to stop.
pub async fn controller_manager(options: ControllerManager) -> Result<()> {
    let stop = shutdown::on_signal()?;
    let client = coracle_client::connect(&options.kubeconfig).await.context("connect to the API server")?;
    let mut config = coracle_controller::Config::new(client);
    config.cluster_cidr = options.cluster_cidr;
    config.leader_elect = options.leader_elect;
    readiness::ready("ready controller-manager");
    coracle_controller::run(config, stop).await;
    Ok(())
}

#[derive(Debug, Args)]
pub struct Kubelet {
    /// How to reach the API server, with the node's identity
    #[arg(long, value_name = "FILE")]
    kubeconfig: PathBuf,
    /// The container runtime's CRI socket
    #[arg(long, value_name = "SOCKET")]
    cri_endpoint: String,
    #[arg(long)]
    node_name: String,
    /// The address by which the node is reached
    #[arg(long)]
    node_ip: IpAddr,
    /// Where pods' volumes, files and logs are
    #[arg(long, value_name = "DIR", default_value = "/var/lib/kubelet")]
    root_dir: PathBuf,
    /// The certificate of the kubelet's server
    #[arg(long, value_name = "FILE")]
    tls_cert_file: PathBuf,
    /// Its key
    #[arg(long, value_name = "FILE")]
    tls_private_key_file: PathBuf,
    /// Whose client certificates open the kubelet's server
    #[arg(long, value_name = "FILE")]
    client_ca_file: PathBuf,
    #[arg(long, default_value_t = 10250)]
    port: u16,
    #[arg(long, default_value_t = 110)]
    max_pods: u32,
    /// The cgroup that pods' cgroups are made in
    #[arg(long, default_value = "/kubepods")]
    cgroup_root: String,
    /// What is kept for the system, as cpu=500m,memory=1Gi,ephemeral-storage=1Gi,pid=1000
    #[arg(long, value_name = "RESOURCES", default_value = "")]
    system_reserved: Reserved,
    /// What is kept for the cluster's programs beside that
    #[arg(long, value_name = "RESOURCES", default_value = "")]
    kube_reserved: Reserved,
    /// Kernel parameters of namespaces of their own that pods may set beside those that are safe, as net.core.somaxconn,kernel.msg*
    #[arg(long, value_name = "SYSCTLS", value_delimiter = ',')]
    allowed_unsafe_sysctls: Vec<SysctlPattern>,
    #[arg(long)]
    cluster_dns: Vec<IpAddr>,
    #[arg(long, default_value = "cluster.local")]
    cluster_domain: String,
}

/// Runs the kubelet until it is told to stop.
pub async fn kubelet(options: Kubelet) -> Result<()> {
    let stop = shutdown::on_signal()?;
    let client = coracle_client::connect(&options.kubeconfig).await.context("connect to the API server")?;
    let read = |path: &PathBuf| std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()));
    let identity = Identity { cert_pem: read(&options.tls_cert_file)?, key_pem: read(&options.tls_private_key_file)? };
    let (_keep, serving) = watch::channel(identity);
    let (progress, mut told) = watch::channel(coracle_kubelet::Progress::default());
    let name = options.node_name.clone();
    tokio::spawn(async move {
        if told.wait_for(|progress| *progress == coracle_kubelet::Progress::Ready).await.is_ok() {
            readiness::ready(&format!("ready {name}"));
        }
    });
    let config = coracle_kubelet::Config {
        node_name: options.node_name,
        node_ip: options.node_ip,
        place: Place::Current,
        port: options.port,
        root_dir: options.root_dir,
        cri_socket: options.cri_endpoint.trim_start_matches("unix://").into(),
        client,
        serving,
        client_ca: read(&options.client_ca_file)?,
        labels: BTreeMap::new(),
        taints: Vec::new(),
        max_pods: options.max_pods,
        clock: Arc::new(SystemClock::new()),
        cgroup_parent: options.cgroup_root,
        reserved: options.system_reserved.plus(options.kube_reserved),
        allowed_unsafe_sysctls: options.allowed_unsafe_sysctls,
        cluster_dns: options.cluster_dns,
        cluster_domain: options.cluster_domain,
        progress,
    };
    Ok(coracle_kubelet::run(config, stop).await?)
}

#[derive(Debug, Args)]
pub struct Runtime {
    /// Where images and containers are kept
    #[arg(long, value_name = "DIR", global = true)]
    data_dir: Option<PathBuf>,
    /// Where sockets, namespaces and other things of running containers are kept [default: DATA_DIR/run, which leads to a directory in /run where that is in memory]
    #[arg(long, value_name = "DIR", global = true)]
    run_dir: Option<PathBuf>,
    /// Where CRI is served [default: RUN_DIR/cri.sock]
    #[arg(long, value_name = "PATH")]
    cri_socket: Option<PathBuf>,
    /// The cgroup of sandboxes whose caller names none
    #[arg(long, default_value = "/coracle-runtime", global = true)]
    cgroup_parent: String,
    /// Serve the Docker API at this socket
    #[arg(long, value_name = "PATH")]
    docker_socket: Option<PathBuf>,
    /// Serve the Docker API here too, as dockerd does: tcp://ADDRESS:PORT or unix://PATH
    #[arg(long, short = 'H', value_name = "URL")]
    host: Vec<String>,
    /// Whose client certificates open the tcp:// hosts
    #[arg(long, value_name = "FILE", requires_all = ["tlscert", "tlskey"])]
    tlscacert: Option<PathBuf>,
    /// The certificate of the tcp:// hosts
    #[arg(long, value_name = "FILE", requires = "tlscacert")]
    tlscert: Option<PathBuf>,
    /// Its key
    #[arg(long, value_name = "FILE", requires = "tlscacert")]
    tlskey: Option<PathBuf>,
    /// Serve what the Docker API's daemon counts there, in the format of Prometheus: ADDRESS:PORT
    #[arg(long, value_name = "ADDRESS")]
    metrics_addr: Option<std::net::SocketAddr>,
    /// Print the Docker API's endpoints as a table and end
    #[arg(long)]
    docker_routes: bool,
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
    cni_conf_dir: PathBuf,
    #[arg(long, value_name = "DIR", default_value = "/opt/cni/bin")]
    cni_bin_dir: PathBuf,
    /// Where devices are described (Container Device Interface), later ones first [default: /etc/cdi and /var/run/cdi]
    #[arg(long, value_name = "DIR")]
    cdi_spec_dir: Vec<PathBuf>,
    /// Whether containers get SELinux labels where the kernel has SELinux
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    selinux_enabled: bool,
    #[command(flatten)]
    images: images::ImageOptions,
    #[command(subcommand)]
    chore: Option<RuntimeChore>,
}

#[derive(Debug, Subcommand)]
enum RuntimeChore {
    /// Look for what does not belong together in the data directory; the runtime must not run, its containers may
    Check {
        /// Make it right
        #[arg(long)]
        repair: bool,
    },
}

/// Runs the container runtime until it is told to stop. Containers go on without it.
pub async fn runtime(options: Runtime) -> Result<()> {
    if options.docker_routes {
        print!("{}", coracle_runtime::docker::routes::table());
        return Ok(());
    }
    let docker = docker_listeners(&options)?;
    let data_dir = options.data_dir.context("--data-dir is required")?;
    let run_dir = match options.run_dir {
        Some(run_dir) => RunDir::at(run_dir),
        // A check makes and moves nothing; it finds what there is by the same path.
        None if options.chore.is_some() => RunDir::at(data_dir.join("run")),
        None => RunDir::of(&data_dir)?,
    };
    let config = coracle_runtime::Config {
        data_dir,
        run_dir: run_dir.path.clone(),
        cri_socket: options.cri_socket.unwrap_or_else(|| run_dir.path.join("cri.sock")),
        cgroup_parent: options.cgroup_parent,
        cni_conf_dir: options.cni_conf_dir,
        cni_bin_dir: options.cni_bin_dir,
        cni_own: Some(crate::cni::own()),
        cdi_dirs: match options.cdi_spec_dir.is_empty() {
            true => coracle_runtime::Config::default_cdi_dirs(),
            false => options.cdi_spec_dir,
        },
        selinux: options.selinux_enabled,
        pull_place: Place::Current,
        registries: options.images.registries(),
        layer_limits: options.images.limits(),
        docker,
    };
    if let Some(RuntimeChore::Check { repair }) = options.chore {
        return tokio::task::spawn_blocking(move || check(config, repair)).await?;
    }
    let stop = shutdown::on_signal()?;
    let runtime = coracle_runtime::Runtime::start(config).await.context("start the container runtime")?;
    Ok(runtime.serve_then(stop, Box::new(|| readiness::ready("ready"))).await?)
}

/// Prints what is wrong in a data directory, and what became of it; fails if something is left to be done.
fn check(config: coracle_runtime::Config, repair: bool) -> Result<()> {
    let check = Check::open(config)?;
    let findings = check.find()?;
    let mut left = 0;
    for finding in &findings {
        let outcome = if repair { Some(check.repair(finding)) } else { None };
        let after = match outcome {
            None => String::new(),
            Some(Outcome::Repaired) => " (repaired)".into(),
            Some(Outcome::AtStart) => " (the runtime puts it right when it starts)".into(),
            Some(Outcome::ByHand) => " (not repaired)".into(),
            Some(Outcome::Failed(ref error)) => format!(" (not repaired: {error})"),
        };
        left += usize::from(!matches!(outcome, Some(Outcome::Repaired | Outcome::AtStart)));
        println!("{finding}{after}");
    }
    match (findings.len(), left) {
        (0, _) => println!("nothing is wrong"),
        (_, 0) => {}
        (_, left) if repair => anyhow::bail!("{left} of {} problems could not be repaired", findings.len()),
        (all, _) => anyhow::bail!("{all} problems; --repair makes them right"),
    }
    Ok(())
}

/// The hosts of dockerd's options.
fn docker_listeners(options: &Runtime) -> Result<Vec<Listener>> {
    let tls = match (&options.tlscacert, &options.tlscert, &options.tlskey) {
        (Some(ca), Some(certificate), Some(key)) => {
            Some(Tls { ca: ca.clone(), certificate: certificate.clone(), key: key.clone() })
        }
        _ => None,
    };
    let mut listeners: Vec<Listener> = options.docker_socket.iter().cloned().map(Listener::Unix).collect();
    listeners.extend(options.metrics_addr.map(Listener::Metrics));
    for host in &options.host {
        if let Some(path) = host.strip_prefix("unix://") {
            listeners.push(Listener::Unix(path.into()));
        } else if let Some(address) = host.strip_prefix("tcp://") {
            let address = address.parse().with_context(|| format!("--host {host}: it must be tcp://ADDRESS:PORT"))?;
            listeners.push(Listener::Tcp(address, tls.clone()));
        } else {
            anyhow::bail!("--host {host}: it must begin with tcp:// or unix://");
        }
    }
    Ok(listeners)
}
