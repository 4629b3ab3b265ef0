//! What runs: `lab status`, `lab logs`, `lab shell`, `lab kubeconfig`, `lab docker-env`.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::MetadataExt,
    process::Command,
};

use anyhow::{Context, Result, bail};
use nix::{
    sched::CloneFlags,
    sys::{
        inotify::{AddWatchFlags, InitFlags, Inotify},
        signal::{SigHandler, Signal, signal},
    },
};
use serde::Serialize;

use super::{cluster::Cluster, paths::Paths, process::Process, spec::Spec};

/// The names of the lab's processes: nodes first, then the servers.
pub fn process_names(spec: &Spec) -> impl Iterator<Item = String> {
    spec.nodes.iter().map(|node| node.name.clone()).chain(spec.server_names())
}

/// Whether everything that should run does.
pub fn runs(paths: &Paths, spec: &Spec) -> Result<bool> {
    let stopped = |name: &str| spec.nodes.iter().any(|node| node.name == name && node.stopped);
    for name in process_names(spec).filter(|name| !stopped(name)) {
        if Process::find(paths, &name)?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    name: String,
    server: String,
    server_state: &'static str,
    servers: Vec<ServerStatus>,
    kubeconfig: String,
    nodes: Vec<NodeStatus>,
    publish: Vec<super::Publish>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ServerStatus {
    name: String,
    state: &'static str,
    pid: Option<i32>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeStatus {
    name: String,
    state: &'static str,
    /// What the API says; `None` when it does not know the node or does not answer.
    ready: Option<bool>,
    pods: Option<usize>,
    address: String,
    pid: Option<i32>,
}

/// Prints the lab's state as a table, or as JSON.
pub async fn status(paths: &Paths, json: bool) -> Result<()> {
    let spec = Spec::require(paths)?;
    let mut servers = Vec::new();
    for name in spec.server_names() {
        let pid = Process::find(paths, &name)?.map(|process| process.pid());
        servers.push(ServerStatus { state: if pid.is_some() { "running" } else { "dead" }, name, pid });
    }
    let alive = servers.iter().any(|server| server.pid.is_some());
    let known = match alive {
        true => match Cluster::connect(paths).await {
            Ok(cluster) => cluster.nodes().await.unwrap_or_default(),
            Err(_) => Default::default(),
        },
        false => Default::default(),
    };
    let mut nodes = Vec::new();
    for node in &spec.nodes {
        let process = Process::find(paths, &node.name)?;
        let state = match (&process, node.stopped) {
            (Some(_), _) => "running",
            (None, true) => "stopped",
            (None, false) => "dead",
        };
        let api = known.get(&node.name);
        nodes.push(NodeStatus {
            name: node.name.clone(),
            state,
            ready: api.map(|(ready, _)| *ready),
            pods: api.map(|(_, pods)| *pods),
            address: node.address().to_string(),
            pid: process.map(|process| process.pid()),
        });
    }
    let status = Status {
        name: spec.name.clone(),
        server: format!("https://{}", spec.api_address()),
        server_state: if alive { "running" } else { "dead" },
        servers,
        kubeconfig: paths.kubeconfig().display().to_string(),
        nodes,
        publish: spec.publish.clone(),
    };
    if json {
        println!("{}", serde_json::to_string_pretty(&status)?);
    } else {
        print_table(&status)?;
    }
    Ok(())
}

fn print_table(status: &Status) -> Result<()> {
    println!("Lab {:?}: server {} at {}", status.name, status.server_state, status.server);
    if status.servers.len() > 1 {
        let each: Vec<_> = status.servers.iter().map(|server| format!("{} {}", server.name, server.state)).collect();
        println!("Servers: {}", each.join(", "));
    }
    let mut out = tabwriter::TabWriter::new(io::stdout()).padding(3);
    writeln!(out, "NODE\tSTATE\tREADY\tPODS\tADDRESS")?;
    for node in &status.nodes {
        let ready = node.ready.map_or("unknown", |ready| if ready { "yes" } else { "no" });
        let pods = node.pods.map_or_else(|| "-".into(), |pods| pods.to_string());
        writeln!(out, "{}\t{}\t{ready}\t{pods}\t{}", node.name, node.state, node.address)?;
    }
    out.flush()?;
    Ok(())
}

/// Prints the administrator's kubeconfig.
pub fn kubeconfig(paths: &Paths) -> Result<()> {
    Spec::require(paths)?;
    let path = paths.kubeconfig();
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    print!("{text}");
    Ok(())
}

/// Prints the log of the server or a node, and with `follow` what comes.
pub fn logs(paths: &Paths, name: &str, follow: bool) -> Result<()> {
    let spec = Spec::require(paths)?;
    if !spec.server_names().any(|server| server == name) {
        spec.node(name)?;
    }
    let path = paths.log(name);
    let mut aside = path.clone().into_os_string();
    aside.push(".1");
    if let Ok(mut older) = File::open(aside) {
        copy(&mut older)?;
    }
    let open = || File::open(&path).with_context(|| format!("open {}", path.display()));
    let mut log = open()?;
    copy(&mut log)?;
    if !follow {
        return Ok(());
    }
    loop {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC)?;
        inotify.add_watch(&path, AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_MOVE_SELF)?;
        // It may have been put aside before it was watched.
        copy(&mut log)?;
        let mut same = open()?.metadata()?.ino() == log.metadata()?.ino();
        while same {
            let events = inotify.read_events()?;
            copy(&mut log)?;
            same = !events.iter().any(|event| event.mask.contains(AddWatchFlags::IN_MOVE_SELF));
        }
        log = open()?;
    }
}

fn copy(log: &mut impl Read) -> Result<()> {
    io::copy(log, &mut io::stdout().lock())?;
    Ok(io::stdout().flush()?)
}

/// Runs a shell, or `command`, inside the node; returns its exit code.
///
/// Must be called while the process has one thread: a mount namespace can only be entered then.
pub fn shell(paths: &Paths, name: &str, command: &[String]) -> Result<i32> {
    let spec = Spec::require(paths)?;
    spec.node(name)?;
    let Some(process) = Process::find(paths, name)? else {
        bail!("node {name:?} does not run; start it with: coracle lab node start {name}");
    };
    let shell = std::env::var("SHELL").unwrap_or_else(|_| "/bin/sh".into());
    let command = if command.is_empty() { vec![shell] } else { command.to_vec() };
    let namespaces = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWPID;
    process.join(namespaces).with_context(|| format!("enter node {name}"))?;
    // Ctrl-C is for the shell.
    // SAFETY: ignoring a signal installs no handler.
    unsafe { signal(Signal::SIGINT, SigHandler::SigIgn) }?;
    let status = Command::new(&command[0]).args(&command[1..]).status();
    let status = status.with_context(|| format!("run {} in node {name}", command[0]))?;
    use std::os::unix::process::ExitStatusExt;
    Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
}

/// Prints what makes `docker` speak to the node's runtime.
pub fn docker_env(paths: &Paths, name: &str) -> Result<()> {
    let spec = Spec::require(paths)?;
    spec.node(name)?;
    let socket = paths.node_run(name).join("docker.sock");
    if !socket.exists() {
        bail!("node {name:?} does not serve the Docker API");
    }
    println!("export DOCKER_HOST=unix://{}", socket.display());
    Ok(())
}
