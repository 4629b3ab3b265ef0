//! `lab load`: an image archive into every node.

use std::{
    fs,
    io::{self, Read},
};

use anyhow::{Context, Result, bail};
use tokio::task::JoinSet;

use super::{paths::Paths, process::Process, spec::Spec};
use crate::node_socket;

/// Loads the archive at `image` (`-`: standard input) into every running node.
pub async fn load(paths: &Paths, image: &str) -> Result<()> {
    let spec = Spec::require(paths)?;
    let archive = read(image)?;
    let mut loads = JoinSet::new();
    for node in &spec.nodes {
        if Process::find(paths, &node.name)?.is_none() {
            eprintln!("Node {} does not run and is left out.", node.name);
            continue;
        }
        let (socket, archive, name) =
            (paths.node_run(&node.name).join("agent.sock"), archive.clone(), node.name.clone());
        loads.spawn(async move {
            node_socket::load_image(&socket, archive).await.with_context(|| format!("load into {name}"))
        });
    }
    let mut loaded = Vec::new();
    while let Some(names) = loads.join_next().await {
        loaded = names??;
    }
    if loaded.is_empty() {
        bail!("no node of lab {:?} runs", spec.name);
    }
    for name in loaded {
        println!("Loaded {name} into every node.");
    }
    Ok(())
}

fn read(image: &str) -> Result<bytes::Bytes> {
    let mut archive = Vec::new();
    if image == "-" {
        io::stdin().lock().read_to_end(&mut archive).context("read standard input")?;
    } else {
        archive =
            fs::read(image).with_context(|| format!("read {image}; save an image with: docker save -o FILE IMAGE"))?;
    }
    Ok(archive.into())
}
