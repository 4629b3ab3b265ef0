//! `lab node`: adding, removing, stopping, starting and killing nodes of a lab that runs.

use std::{fs, time::Duration};

use anyhow::{Context, Result, bail};

use super::{
    cgroups::Cgroups,
    cluster::Cluster,
    down,
    lock::Lock,
    paths::Paths,
    process::Process,
    progress::Step,
    spec::{Node, Spec},
    up,
};

/// How long a node gets to end its containers: the init's own graces and a little.
const STOP_GRACE: Duration = Duration::from_secs(25);

/// Adds `count` nodes and waits until they are Ready.
pub async fn add(paths: &Paths, count: u32) -> Result<()> {
    let (_lock, mut spec) = open(paths)?;
    let added = spec.add_nodes(count)?;
    spec.save(paths)?;
    start_all(paths, &spec, &added).await?;
    println!("Added {}.", names(&added));
    Ok(())
}

/// Takes a node out of the cluster and removes all it has.
pub async fn remove(paths: &Paths, name: &str) -> Result<()> {
    let (_lock, mut spec) = open(paths)?;
    spec.node(name)?;
    let step = Step::begin(format!("removing node {name}"));
    // In this order: a kubelet that runs registers its node again.
    if let Some(process) = Process::find(paths, name)? {
        process.kill().await?;
    }
    Cluster::connect(paths).await?.forget(name).await?;
    down::remove_cgroups(&Cgroups::find()?, &format!("{}/{name}", paths.cgroup()))?;
    spec.nodes.retain(|node| node.name != name);
    spec.save(paths)?;
    for path in [paths.node(name), paths.node_run(name)] {
        if path.exists() {
            fs::remove_dir_all(&path).with_context(|| format!("remove {}", path.display()))?;
        }
    }
    for path in [paths.process(name), paths.log(name), paths.log(name).with_extension("log.1")] {
        // Gone already if the node never ran.
        let _ = fs::remove_file(path);
    }
    step.done(&format!("node {name} removed"));
    Ok(())
}

/// Stops a node in order: its containers get to end by themselves.
pub async fn stop(paths: &Paths, name: &str) -> Result<()> {
    let Some((_lock, process)) = stopping(paths, name)? else { return Ok(()) };
    let step = Step::begin(format!("stopping node {name}"));
    process.stop(STOP_GRACE).await?;
    step.done(&format!("node {name} stopped"));
    Ok(())
}

/// Kills everything in the node at once, as a power cut does.
pub async fn kill(paths: &Paths, name: &str) -> Result<()> {
    let Some((_lock, process)) = stopping(paths, name)? else { return Ok(()) };
    process.kill().await?;
    println!("Node {name} killed.");
    Ok(())
}

/// Notes that the node is not to run, and finds what runs of it.
fn stopping(paths: &Paths, name: &str) -> Result<Option<(Lock, Process)>> {
    let (lock, mut spec) = open(paths)?;
    mark(&mut spec, name, true)?;
    spec.save(paths)?;
    let process = Process::find(paths, name)?;
    if process.is_none() {
        println!("Node {name} does not run.");
    }
    Ok(process.map(|process| (lock, process)))
}

/// Starts a node that was stopped or killed.
pub async fn start(paths: &Paths, name: &str) -> Result<()> {
    let (_lock, mut spec) = open(paths)?;
    let node = mark(&mut spec, name, false)?;
    spec.save(paths)?;
    if Process::find(paths, name)?.is_some() {
        println!("Node {name} runs already.");
        return Ok(());
    }
    start_all(paths, &spec, &[node]).await
}

fn mark(spec: &mut Spec, name: &str, stopped: bool) -> Result<Node> {
    spec.node(name)?;
    let node = spec.nodes.iter_mut().find(|node| node.name == name).context("the node was found a moment ago")?;
    node.stopped = stopped;
    Ok(node.clone())
}

async fn start_all(paths: &Paths, spec: &Spec, nodes: &[Node]) -> Result<()> {
    let cgroups = Cgroups::find()?;
    let segment = up::segment(paths, spec).await?;
    let step = Step::begin(format!("starting {}", names(nodes)));
    for node in nodes {
        up::start_node(paths, spec, &cgroups, &segment, node).await?;
    }
    step.done(&format!("started {}", names(nodes)));
    up::wait_ready(paths, &nodes.iter().collect::<Vec<_>>()).await
}

fn open(paths: &Paths) -> Result<(Lock, Spec)> {
    let lock = Lock::open(paths)?;
    let spec = Spec::require(paths)?;
    let lock = lock.context("the lab went away")?;
    if Process::find(paths, "server")?.is_none() {
        bail!("lab {:?} does not run; start it with: coracle lab up --name {}", spec.name, spec.name);
    }
    Ok((lock, spec))
}

fn names(nodes: &[Node]) -> String {
    nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>().join(", ")
}
