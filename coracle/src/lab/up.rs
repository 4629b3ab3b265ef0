//! `lab up`: makes what is missing, starts what does not run, waits until every node is Ready.

use std::{
    collections::{HashMap, HashSet},
    fs,
    os::unix::fs::DirBuilderExt,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use coracle_link::Netns;
use tokio::signal::unix::{SignalKind, signal};

use super::{
    cgroups::Cgroups,
    cluster::Cluster,
    down, inspect,
    lock::Lock,
    network::{self, Segment},
    notify::Notify,
    paths::Paths,
    port::Claim,
    process::{HOST_FD, LAB_FD, Process, Start},
    progress::{Step, seconds},
    spec::{Node, Publish, Spec},
};

/// How long the server may take to be ready, and then the nodes.
const SERVER_LIMIT: Duration = Duration::from_secs(30);
const NODES_LIMIT: Duration = Duration::from_secs(60);

/// What `lab up` was asked for.
#[derive(Debug, Clone)]
pub struct Wish {
    /// How many nodes a new lab has.
    pub nodes: u32,
    /// How many API servers; more than one need an etcd.
    pub servers: u32,
    /// The etcd behind the API server; empty for the embedded store.
    pub etcd: Vec<String>,
    /// Ports to publish.
    pub publish: Vec<Publish>,
    /// Further options of the nodes' agents.
    pub agent: Vec<String>,
}

/// Brings the lab up.
pub async fn up(paths: &Paths, wish: &Wish) -> Result<()> {
    let start = Instant::now();
    let lock = Lock::create(paths)?;
    let existing = Spec::load(paths)?;
    if let Some(spec) = &existing
        && inspect::runs(paths, spec)?
    {
        println!("Lab {:?} runs already: {} nodes.", spec.name, spec.nodes.len());
        if spec.nodes.len() != wish.nodes as usize {
            println!("To change the number of nodes: coracle lab node add, coracle lab node rm NODE");
        }
        print_kubeconfig(paths);
        return Ok(());
    }
    let created = existing.is_none();
    let work = async {
        let (spec, _claim) = match existing {
            Some(spec) => (spec, None),
            None => {
                let claim = Claim::choose(&ports_of_others(paths)?)?;
                (create(paths, wish, claim.port())?, Some(claim))
            }
        };
        bring_up(paths, &spec).await.map(|()| spec)
    };
    let spec = match until_interrupted(work).await {
        Ok(spec) => spec,
        Err(error) => {
            // A lab that never was leaves nothing; one that was keeps its data and only ends what runs.
            let cleaned = if created { down::remove(paths).await } else { down::halt(paths).await };
            drop(lock);
            return Err(match cleaned {
                Ok(()) => error,
                Err(cleaning) => error.context(format!("cleaning up failed too: {cleaning:#}")),
            });
        }
    };
    println!("Lab {:?} is up: {} nodes Ready in {}.", spec.name, spec.nodes.len(), seconds(start.elapsed()));
    print_kubeconfig(paths);
    Ok(())
}

/// Says how to reach the lab with any client.
fn print_kubeconfig(paths: &Paths) {
    println!("export KUBECONFIG={}", paths.kubeconfig().display());
}

/// Runs `work` unless the user or the system wants an end; then the work is dropped where it stands.
async fn until_interrupted<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        outcome = work => outcome,
        _ = interrupt.recv() => bail!("interrupted"),
        _ = terminate.recv() => bail!("terminated"),
    }
}

fn create(paths: &Paths, wish: &Wish, api_port: u16) -> Result<Spec> {
    let mut spec = Spec::new(paths.name(), api_port, wish.etcd.clone(), wish.servers);
    spec.add_nodes(wish.nodes)?;
    spec.publish.clone_from(&wish.publish);
    spec.agent.clone_from(&wish.agent);
    spec.save(paths)?;
    Ok(spec)
}

/// The API ports of the other labs: also those that do not run just now keep theirs.
fn ports_of_others(paths: &Paths) -> Result<HashSet<u16>> {
    let specs = paths.others()?.into_iter().filter_map(|paths| Spec::load(&paths).transpose());
    // A lab whose file is damaged is no reason to refuse this one.
    Ok(specs.flatten().map(|spec| spec.api_port).collect())
}

async fn bring_up(paths: &Paths, spec: &Spec) -> Result<()> {
    forget_before_reboot(paths)?;
    for dir in [paths.run(), paths.state().join("log"), paths.server()] {
        make_dir(&dir)?;
    }
    let cgroups = Cgroups::find()?;
    let segment = segment(paths, spec).await?;
    start_servers(paths, spec, &cgroups, segment.netns()).await?;
    let nodes: Vec<_> = spec.nodes.iter().filter(|node| !node.stopped).collect();
    let step = Step::begin(format!("starting {} nodes", nodes.len()));
    for node in &nodes {
        start_node(paths, spec, &cgroups, &segment, node).await?;
    }
    step.done(&format!("{} nodes started", nodes.len()));
    wait_ready(paths, &nodes).await
}

/// Waits until the nodes are Ready, with progress.
pub async fn wait_ready(paths: &Paths, nodes: &[&Node]) -> Result<()> {
    let names: Vec<_> = nodes.iter().map(|node| node.name.clone()).collect();
    let step = Step::begin("waiting for the nodes");
    let cluster = Cluster::connect(paths).await?;
    let total = names.len();
    let told = |ready| step.at(format!("waiting for the nodes: {ready} of {total} Ready"));
    let ready = cluster.wait_ready(&names, NODES_LIMIT, told).await;
    ready.with_context(|| {
        format!("nodes are not Ready; see: coracle lab logs {}", names.first().map_or("NODE", |name| name))
    })?;
    step.done(&format!("{total} nodes Ready"));
    Ok(())
}

/// After a reboot nothing of `run` is true any more.
fn forget_before_reboot(paths: &Paths) -> Result<()> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").context("read the boot identifier")?;
    let (run, mark) = (paths.run(), paths.run().join("boot"));
    if run.exists() && fs::read_to_string(&mark).ok().as_deref() != Some(boot.as_str()) {
        fs::remove_dir_all(&run).with_context(|| format!("remove {}", run.display()))?;
    }
    make_dir(&run)?;
    fs::write(&mark, boot).with_context(|| format!("write {}", mark.display()))
}

/// The lab's segment: any process of the lab holds it; without one it is made.
pub async fn segment(paths: &Paths, spec: &Spec) -> Result<Segment> {
    for name in inspect::process_names(spec) {
        if let Some(process) = Process::find(paths, &name)? {
            return Segment::open(process.lab_netns()?);
        }
    }
    Segment::create().await
}

async fn start_servers(paths: &Paths, spec: &Spec, cgroups: &Cgroups, lab: &Netns) -> Result<()> {
    let step = Step::begin("starting the server");
    let mut started = false;
    // One after the other: the first makes the keys that all of them use.
    for name in spec.server_names() {
        if Process::find(paths, &name)?.is_none() {
            start_server(paths, spec, cgroups, lab, &name).await?;
            started = true;
        }
    }
    match spec.servers {
        _ if !started => {}
        1 => step.done(&format!("server ready at https://{}", spec.api_address())),
        servers => step.done(&format!("{servers} servers ready at https://{}", spec.api_address())),
    }
    Ok(())
}

async fn start_server(paths: &Paths, spec: &Spec, cgroups: &Cgroups, lab: &Netns, name: &str) -> Result<()> {
    let notify = Notify::listen(paths.run().join("notify"))?;
    let mut command = vec![program()?, "server".into(), "--data-dir".into(), text(&paths.server())];
    command.extend(["--log-file".into(), text(&paths.log(name))]);
    command.extend(["--bind".into(), spec.api_address().to_string()]);
    command.extend(["--lab-bind".into(), format!("{LAB_FD}={}", spec.lab_api_address())]);
    if name == "server" {
        command.extend(["--publish-file".into(), text(&paths.spec())]);
    }
    for name in network::server_names(spec) {
        command.extend(["--certificate-name".into(), name]);
    }
    if !spec.etcd.is_empty() {
        command.extend(["--etcd-servers".into(), spec.etcd.join(",")]);
    }
    if spec.servers > 1 {
        command.extend(["--reuse-port".into(), "--leader-elect".into(), name.into()]);
    }
    let start = Start {
        name,
        node: None,
        lab,
        cgroups: &cgroups.create(&format!("{}/{name}", paths.cgroup()))?,
        command,
        environment: vec![("NOTIFY_SOCKET", notify.address())],
    };
    Process::start(paths, &start)?;
    let ready = notify.ready(SERVER_LIMIT).await;
    ready.with_context(|| format!("the server did not start; see {}", paths.log(name).display()))
}

/// Starts a node's first process, which runs its agent.
pub async fn start_node(paths: &Paths, spec: &Spec, cgroups: &Cgroups, segment: &Segment, node: &Node) -> Result<()> {
    if Process::find(paths, &node.name)?.is_some() {
        return Ok(());
    }
    let cgroup = format!("{}/{}", paths.cgroup(), node.name);
    clean_after(paths, cgroups, &cgroup, node)?;
    make_dir(&paths.node(&node.name))?;
    make_dir(&paths.node_run(&node.name))?;
    let netns = segment.plug(node).await?;
    let options = HashMap::from([
        ("--server", format!("https://{}", spec.lab_api_address())),
        ("--token-file", text(&paths.server().join("join-token"))),
        ("--data-dir", text(&paths.node(&node.name))),
        ("--log-file", text(&paths.log(&node.name))),
        ("--run-dir", text(&paths.node_run(&node.name))),
        ("--node-name", node.name.clone()),
        ("--node-ip", node.address().to_string()),
        ("--cgroup-parent", format!("/{cgroup}")),
        ("--host-netns", HOST_FD.to_string()),
    ]);
    let mut command = vec![program()?, "agent".into(), "--hello-images".into()];
    command.extend(options.into_iter().flat_map(|(option, value)| [option.to_owned(), value]));
    command.extend(spec.agent.iter().cloned());
    let start = Start {
        name: &node.name,
        node: Some(&netns),
        lab: segment.netns(),
        cgroups: &cgroups.create(&format!("{cgroup}/init"))?,
        command,
        environment: Vec::new(),
    };
    Process::start(paths, &start)?;
    Ok(())
}

/// Removes what a node that was killed left behind: its cgroups and its sockets. Its mounts and processes went with it.
fn clean_after(paths: &Paths, cgroups: &Cgroups, cgroup: &str, node: &Node) -> Result<()> {
    down::remove_cgroups(cgroups, cgroup)?;
    let run = paths.node_run(&node.name);
    match fs::remove_dir_all(&run) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", run.display()))
        }
        _ => Ok(()),
    }
}

/// This program, for the processes of the lab.
fn program() -> Result<String> {
    let path = std::env::current_exe().context("find this program")?;
    path.into_os_string()
        .into_string()
        .map_err(|path| anyhow::anyhow!("this program's path is not UTF-8: {}", path.display()))
}

pub(super) fn make_dir(path: &Path) -> Result<()> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.with_context(|| format!("make {}", path.display()))
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
