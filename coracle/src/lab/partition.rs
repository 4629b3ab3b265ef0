//! `lab partition` and `lab heal`: nodes that do not hear each other, as when a switch fails.

use anyhow::{Context, Result, bail};

use super::{lock::Lock, network::Member, paths::Paths, process::Process, spec::Spec};

/// Cuts every member of each group off from the members of the others. `server` is the server.
pub async fn partition(paths: &Paths, groups: &[Vec<String>]) -> Result<()> {
    let (_lock, spec) = open(paths)?;
    let mut seen = Vec::new();
    for name in groups.iter().flatten() {
        if seen.contains(&name) {
            bail!("{name:?} is in two groups");
        }
        seen.push(name);
    }
    let groups: Vec<Vec<Member>> = groups
        .iter()
        .map(|group| group.iter().map(|name| member(paths, &spec, name)).collect())
        .collect::<Result<_>>()?;
    for (number, group) in groups.iter().enumerate() {
        let others = groups.iter().enumerate().filter(|(other, _)| *other != number).flat_map(|(_, other)| other);
        for other in others {
            for own in group {
                own.cut(other).await?;
            }
        }
    }
    println!("Cut. Undo it with: coracle lab heal --name {}", spec.name);
    Ok(())
}

/// Undoes every partition.
pub async fn heal(paths: &Paths) -> Result<()> {
    let (_lock, spec) = open(paths)?;
    let nodes = spec.nodes.iter().map(|node| node.name.as_str());
    for name in nodes.chain(["server"]) {
        if Process::find(paths, name)?.is_some() {
            member(paths, &spec, name)?.heal().await?;
        }
    }
    println!("Every node hears every other again.");
    Ok(())
}

fn open(paths: &Paths) -> Result<(Lock, Spec)> {
    let lock = Lock::open(paths)?;
    let spec = Spec::require(paths)?;
    Ok((lock.context("the lab went away")?, spec))
}

fn member(paths: &Paths, spec: &Spec, name: &str) -> Result<Member> {
    let process = Process::find(paths, name)?;
    if name == "server" {
        let process = process.context("the server does not run")?;
        return Member::server(&process.lab_netns()?);
    }
    let node = spec.node(name)?;
    let process = process.with_context(|| format!("node {name:?} does not run"))?;
    Member::node(node, process.pid())
}
