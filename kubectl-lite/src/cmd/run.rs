//! `run`: an image in a pod.

use clap::Args;
use serde_json::{Value, json};

use super::create::{self, Common};
use crate::{
    error::{Error, Result},
    manifests::Manifest,
    session::Session,
};

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  kubectl-lite run hello --image=coracle/hello:v1\n  kubectl-lite run once --image=coracle/hello:v1 --restart=Never -- print hello"
)]
pub struct Options {
    name: String,
    #[arg(long)]
    image: String,
    /// Always, OnFailure or Never
    #[arg(long, default_value = "Always", value_parser = ["Always", "OnFailure", "Never"])]
    restart: String,
    /// NAME=VALUE
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// KEY=VALUE,…
    #[arg(short = 'l', long)]
    labels: Option<String>,
    /// The port that the container opens
    #[arg(long)]
    port: Option<u16>,
    /// Always, IfNotPresent or Never
    #[arg(long, value_parser = ["Always", "IfNotPresent", "Never"])]
    image_pull_policy: Option<String>,
    /// What follows -- is the command, not its arguments
    #[arg(long)]
    command: bool,
    #[command(flatten)]
    common: Common,
    #[arg(last = true)]
    arguments: Vec<String>,
}

pub async fn run(session: &Session, options: &Options) -> Result<()> {
    let object = pod(options)?;
    create::create(session, None, &Manifest { source: "flags".into(), object }, &options.common).await
}

fn pod(options: &Options) -> Result<Value> {
    let pair = |text: &str, what: &str| {
        let pair = text.split_once('=').filter(|(key, _)| !key.is_empty());
        pair.map(|(key, value)| (key.to_owned(), value.to_owned()))
            .ok_or_else(|| Error::usage(format!("invalid {what}: {text}")))
    };
    let labels = match &options.labels {
        Some(labels) => labels
            .split(',')
            .map(|label| Ok((pair(label, "label")?.0, pair(label, "label")?.1.into())))
            .collect::<Result<_>>()?,
        None => serde_json::Map::from_iter([("run".to_owned(), options.name.as_str().into())]),
    };
    let mut container = json!({"name": options.name, "image": options.image});
    let env = options.env.iter().map(|env| pair(env, "env")).collect::<Result<Vec<_>>>()?;
    if !env.is_empty() {
        container["env"] = env.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
    }
    if let Some(port) = options.port {
        container["ports"] = json!([{"containerPort": port}]);
    }
    if let Some(policy) = &options.image_pull_policy {
        container["imagePullPolicy"] = policy.as_str().into();
    }
    if !options.arguments.is_empty() {
        container[if options.command { "command" } else { "args" }] = json!(options.arguments);
    }
    Ok(json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": options.name, "labels": labels},
        "spec": {"containers": [container], "restartPolicy": options.restart},
    }))
}
