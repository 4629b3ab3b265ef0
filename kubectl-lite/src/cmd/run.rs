//! `run`: an image in a pod.

use std::io::Write;

use clap::Args;
use coracle_api::json::{Value, json};
use coracle_api::meta;
use futures::StreamExt;
use http_body_util::BodyExt;

use super::{
    create::{self, Common},
    exec,
};
use crate::{
    error::{Error, Result},
    manifests::Manifest,
    session::{JSON, Session},
    terminal::Wanted,
};

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  kubectl-lite run hello --image=coracle/hello:v1\n  kubectl-lite run once --image=coracle/hello:v1 --restart=Never -- print hello\n  kubectl-lite run shell --rm -it --image=busybox --restart=Never -- sh"
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
    /// Attach, and pass standard input on
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Give the container a terminal
    #[arg(short, long)]
    tty: bool,
    /// Attach to the container and wait for its end [default: with -i]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    attach: Option<bool>,
    /// Delete the pod at the end of the attachment
    #[arg(long)]
    rm: bool,
    /// Print only what the container prints
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    common: Common,
    #[arg(last = true)]
    arguments: Vec<String>,
}

pub async fn run(session: &Session, options: &Options) -> Result<()> {
    let attach = options.attach.unwrap_or(options.stdin);
    if options.rm && !attach {
        return Err(Error::usage("--rm should only be used for attached containers"));
    }
    let object = pod(options)?;
    if !attach {
        return create::create(session, None, &Manifest { source: "flags".into(), object }, &options.common).await;
    }
    let pods = session.discovery().await?.find("pods")?.clone();
    let path = pods.object_path(session.namespace(), &options.name);
    session.create(&pods.path(Some(session.namespace())), &object).await?;
    let attached = attached(session, options, &path).await;
    if options.rm {
        session.delete(&path, &json!({"gracePeriodSeconds": 0})).await?;
        if !options.quiet {
            println!("pod \"{}\" deleted from {} namespace", options.name, session.namespace());
        }
    }
    attached
}

/// Joins the user's streams to the container once it runs, and ends as it ends.
async fn attached(session: &Session, options: &Options, path: &str) -> Result<()> {
    let wanted = Wanted { stdin: options.stdin, tty: options.tty }.checked();
    let pod = until(session, path, |pod| pod["status"]["phase"] != "Pending").await?;
    if pod["status"]["phase"] == "Running" {
        match exec::join(session, &options.name, &options.name, wanted, options.quiet).await {
            Ok(()) => {}
            // It ended before anybody was attached; what it said is in its log.
            Err(Error::Usage(_)) => log(session, path).await?,
            Err(error) => return Err(error),
        }
    } else {
        log(session, path).await?;
    }
    if options.restart == "Always" {
        return Ok(());
    }
    let terminated = "/status/containerStatuses/0/state/terminated/exitCode";
    let pod = until(session, path, |pod| pod.pointer(terminated).is_some()).await?;
    let code = pod.pointer(terminated).and_then(Value::as_u64).unwrap_or(0);
    match u8::try_from(code).unwrap_or(1) {
        0 => Ok(()),
        code => {
            if !options.quiet {
                eprintln!("pod {}/{} terminated (Error)", session.namespace(), options.name);
            }
            Err(Error::Quiet(code))
        }
    }
}

async fn log(session: &Session, path: &str) -> Result<()> {
    let mut stream = session.stream(&format!("{path}/log"), "*/*").await?.into_data_stream();
    let mut out = std::io::stdout().lock();
    while let Some(Ok(piece)) = stream.next().await {
        out.write_all(&piece)?;
    }
    Ok(())
}

/// Watches one pod until it is as wanted.
async fn until(session: &Session, path: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    let (collection, name) = path.rsplit_once('/').unwrap_or((path, ""));
    loop {
        let pod = session.get(path).await?;
        if wanted(&pod) {
            return Ok(pod);
        }
        let query = format!(
            "{collection}?watch=true&fieldSelector=metadata.name%3D{name}&resourceVersion={}",
            meta::resource_version(&pod)
        );
        let mut stream = session.stream(&query, JSON).await?.into_data_stream();
        // Whatever is told, the pod is looked at again.
        let _ = stream.next().await;
    }
}

fn pod(options: &Options) -> Result<Value> {
    let pair = |text: &str, what: &str| {
        let pair = text.split_once('=').filter(|(key, _)| !key.is_empty());
        pair.map(|(key, value)| (key.to_owned(), value.to_owned()))
            .ok_or_else(|| Error::usage(format!("invalid {what}: {text}")))
    };
    let labels = match &options.labels {
        Some(labels) => labels.split(',').map(|label| pair(label, "label")).collect::<Result<_>>()?,
        None => coracle_api::json::Map::from_iter([("run", options.name.as_str())]),
    };
    let mut container = json!({"name": options.name, "image": options.image});
    if options.stdin {
        container["stdin"] = true.into();
        container["stdinOnce"] = true.into();
    }
    if options.tty {
        container["tty"] = true.into();
    }
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
