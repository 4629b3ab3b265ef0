//! The `lab` command line.

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};

use super::{
    demo, down, inspect, load, nodes, partition,
    paths::{self, Paths},
    publish,
    spec::Publish,
    up::{self, Wish},
};
use crate::images;

/// `coracle lab …`
#[derive(Debug, Args)]
pub struct Command {
    /// The lab's name
    #[arg(long, global = true, default_value = "default")]
    name: String,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Bring a lab up, or continue one that was stopped
    #[command(
        after_help = "Examples:\n  coracle lab up\n  coracle lab up --nodes 5 --name big\n  coracle lab up --etcd http://127.0.0.1:2379"
    )]
    Up {
        /// How many nodes a new lab has
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=250))]
        nodes: u32,
        /// How many API servers; more than one need an etcd
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=9))]
        servers: u32,
        /// Keep the cluster's state in this etcd instead of the embedded store
        #[arg(long, value_delimiter = ',', value_name = "URL,…")]
        etcd: Vec<String>,
        /// Publish a node port on the host's 127.0.0.1
        #[arg(long, value_name = "HOSTPORT:NODEPORT")]
        publish: Vec<Publish>,
        #[command(flatten)]
        images: images::ImageOptions,
    },
    /// End a lab and remove every trace of it
    Down,
    /// Show what runs
    Status {
        /// table or json
        #[arg(short, long, default_value = "table", value_parser = ["table", "json"])]
        output: String,
    },
    /// List the labs of this machine
    List,
    /// Print a kubeconfig that works from the host
    Kubeconfig,
    /// Print what makes docker speak to a node's runtime
    DockerEnv { node: String },
    /// Load an image archive (docker save or OCI layout) into every node
    Load {
        /// A tar file, or - for standard input
        image: String,
    },
    /// Publish node ports on the host's 127.0.0.1
    Publish {
        #[arg(required = true, value_name = "HOSTPORT:NODEPORT")]
        ports: Vec<Publish>,
        /// Take them back instead
        #[arg(long)]
        remove: bool,
    },
    /// Open a shell, or run a command, inside a node
    Shell {
        node: String,
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Print the log of a node, or of the server
    Logs {
        /// A node's name, or server
        node: String,
        /// Go on with what comes
        #[arg(short, long)]
        follow: bool,
    },
    /// Add, remove, stop, start and kill nodes
    #[command(subcommand)]
    Node(NodeAction),
    /// Cut groups of nodes off from each other (server counts as `server`)
    #[command(after_help = "Example:\n  coracle lab partition default-1 default-2,server")]
    Partition {
        #[arg(required = true, num_args = 2.., value_name = "NODE[,NODE…]")]
        groups: Vec<String>,
    },
    /// Undo every partition
    Heal,
    /// Show the main job: a Deployment created, scaled, updated and rolled back on three nodes
    Demo {
        /// Leave the lab running at the end
        #[arg(long)]
        keep: bool,
    },
}

#[derive(Debug, Subcommand)]
enum NodeAction {
    /// Add nodes
    Add {
        #[arg(default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=250))]
        count: u32,
    },
    /// Take a node out of the cluster and remove all it has
    Rm { node: String },
    /// Stop a node in order
    Stop { node: String },
    /// Start a node that was stopped or killed
    Start { node: String },
    /// Kill everything in a node at once
    Kill { node: String },
}

/// Runs a `lab` command.
pub fn run(command: Command) -> Result<ExitCode> {
    if !nix::unistd::geteuid().is_root() {
        bail!("coracle lab makes namespaces and cgroups and needs root; run it with: sudo");
    }
    let paths = Paths::of(&command.name)?;
    // Entering a node's mount namespace needs a process with one thread, so this one comes before the runtime.
    if let Action::Shell { node, command } = &command.action {
        let code = inspect::shell(&paths, node, command)?;
        return Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(act(&paths, command.action))
}

async fn act(paths: &Paths, action: Action) -> Result<ExitCode> {
    match action {
        Action::Up { nodes, servers, etcd, publish, images } => {
            if servers > 1 && etcd.is_empty() {
                bail!("--servers {servers} needs an etcd that the servers share; say where it is: --etcd URL,…");
            }
            up::up(paths, &Wish { nodes, servers, etcd, publish, agent: images.words() }).await?;
        }
        Action::Down => down::down(paths).await?,
        Action::Status { output } => inspect::status(paths, output == "json").await?,
        Action::List => paths::labs()?.iter().for_each(|name| println!("{name}")),
        Action::Kubeconfig => inspect::kubeconfig(paths)?,
        Action::DockerEnv { node } => inspect::docker_env(paths, &node)?,
        Action::Load { image } => load::load(paths, &image).await?,
        Action::Publish { ports, remove } => publish::publish(paths, &ports, remove)?,
        Action::Logs { node, follow } => inspect::logs(paths, &node, follow)?,
        Action::Node(NodeAction::Add { count }) => nodes::add(paths, count).await?,
        Action::Node(NodeAction::Rm { node }) => nodes::remove(paths, &node).await?,
        Action::Node(NodeAction::Stop { node }) => nodes::stop(paths, &node).await?,
        Action::Node(NodeAction::Start { node }) => nodes::start(paths, &node).await?,
        Action::Node(NodeAction::Kill { node }) => nodes::kill(paths, &node).await?,
        Action::Partition { groups } => {
            let groups: Vec<Vec<String>> =
                groups.iter().map(|group| group.split(',').map(str::to_owned).collect()).collect();
            partition::partition(paths, &groups).await?;
        }
        Action::Heal => partition::heal(paths).await?,
        Action::Demo { keep } => return demo::demo(paths, keep).await,
        Action::Shell { .. } => bail!("a shell is opened before the runtime starts"),
    }
    Ok(ExitCode::SUCCESS)
}
