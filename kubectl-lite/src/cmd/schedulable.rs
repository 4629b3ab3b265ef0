//! `cordon` and `uncordon`.

use clap::Args;
use coracle_api::json::json;
use coracle_api::meta;

use super::get::select;
use crate::{error::Result, session::Session, targets::Target};

#[derive(Debug, Args)]
pub struct Options {
    /// The nodes
    nodes: Vec<String>,
    #[arg(short = 'l', long)]
    selector: Option<String>,
}

pub async fn run(session: &Session, options: &Options, schedulable: bool) -> Result<()> {
    let resource = session.discovery().await?.find("nodes")?.clone();
    let mut targets: Vec<Target> = options
        .nodes
        .iter()
        .map(|name| Target { resource: resource.clone(), name: Some(name.trim_start_matches("node/").to_owned()) })
        .collect();
    if targets.is_empty() {
        targets.push(Target { resource, name: None });
    }
    let (now, already) =
        if schedulable { ("uncordoned", "already uncordoned") } else { ("cordoned", "already cordoned") };
    for (resource, node) in select(session, &targets, options.selector.as_deref(), false).await? {
        let name = meta::name(&node);
        if (node["spec"]["unschedulable"] == true) != schedulable {
            println!("node/{name} {already}");
            continue;
        }
        let value = if schedulable { coracle_api::json::Value::Null } else { json!(true) };
        let path = resource.object_path("", name);
        session.patch(&path, "application/merge-patch+json", &json!({"spec": {"unschedulable": value}})).await?;
        println!("node/{name} {now}");
    }
    Ok(())
}
