//! `logs`.

use std::io::Write;

use clap::Args;
use coracle_api::json::Value;
use coracle_api::meta;
use futures::StreamExt;
use http_body_util::BodyExt;

use super::get::{encode, select};
use crate::{
    error::{Error, Result},
    pods,
    session::Session,
    targets::Target,
};

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  kubectl-lite logs web-5d9c7b-abcde\n  kubectl-lite logs -f deployment/web\n  kubectl-lite logs -p web-5d9c7b-abcde -c hello"
)]
pub struct Options {
    /// POD or TYPE/NAME
    resource: Option<String>,
    /// The container
    #[arg(short, long)]
    container: Option<String>,
    /// The container, after the pod
    #[arg(conflicts_with = "container")]
    container_name: Option<String>,
    /// Go on with what comes
    #[arg(short, long)]
    follow: bool,
    /// Of the container's run before this one
    #[arg(short, long)]
    previous: bool,
    /// Every container of the pod
    #[arg(long)]
    all_containers: bool,
    /// Put the pod and container before each line
    #[arg(long)]
    prefix: bool,
    #[arg(short = 'l', long)]
    selector: Option<String>,
    /// Only the last lines; -1 for all
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    tail: i64,
    /// Only what is newer, as 5s, 2m or 3h
    #[arg(long)]
    since: Option<String>,
    /// Only what is newer than this moment (RFC 3339)
    #[arg(long)]
    since_time: Option<String>,
    /// Put the time before each line
    #[arg(long)]
    timestamps: bool,
    /// At most this many bytes
    #[arg(long)]
    limit_bytes: Option<u64>,
}

pub async fn run(session: &Session, options: &Options) -> Result<()> {
    let pods = pods(session, options).await?;
    for pod in &pods {
        for container in containers(pod, options)? {
            let prefix = options.prefix.then(|| format!("[pod/{}/{container}] ", meta::name(pod)));
            print(session, pod, &container, prefix.as_deref(), options).await?;
        }
    }
    Ok(())
}

async fn pods(session: &Session, options: &Options) -> Result<Vec<Value>> {
    let discovery = session.discovery().await?;
    let pods = discovery.find("pods")?.clone();
    if let Some(selector) = &options.selector {
        let all = Target { resource: pods, name: None };
        let found = select(session, &[all], Some(selector), false).await?;
        if found.is_empty() {
            eprintln!("No resources found in {} namespace.", session.namespace());
        }
        return Ok(found.into_iter().map(|(_, pod)| pod).collect());
    }
    let Some(resource) = &options.resource else {
        return Err(Error::usage(
            "expected 'logs [-f] [-p] (POD | TYPE/NAME) [-c CONTAINER]'.\nPOD or TYPE/NAME is a required argument for the logs command",
        ));
    };
    Ok(vec![pods::of(session, resource, "get the logs from").await?])
}

fn containers(pod: &Value, options: &Options) -> Result<Vec<String>> {
    let names = |list: &str| -> Vec<String> {
        let containers = pod["spec"][list].as_array().into_iter().flatten();
        containers.filter_map(|container| container["name"].as_str()).map(str::to_owned).collect()
    };
    let (main, init) = (names("containers"), names("initContainers"));
    if options.all_containers {
        return Ok(init.into_iter().chain(main).collect());
    }
    let named = options.container.as_deref().or(options.container_name.as_deref());
    Ok(vec![pods::container(pod, named, false)?])
}

async fn print(session: &Session, pod: &Value, container: &str, prefix: Option<&str>, options: &Options) -> Result<()> {
    let mut query = vec![format!("container={}", encode(container))];
    for (flag, name) in [(options.follow, "follow"), (options.previous, "previous"), (options.timestamps, "timestamps")]
    {
        if flag {
            query.push(format!("{name}=true"));
        }
    }
    let tail = if options.tail < 0 && options.selector.is_some() { 10 } else { options.tail };
    if tail >= 0 {
        query.push(format!("tailLines={tail}"));
    }
    if let Some(since) = &options.since {
        query.push(format!("sinceSeconds={}", super::wait::duration(since)?.as_secs().max(1)));
    }
    if let Some(since) = &options.since_time {
        query.push(format!("sinceTime={}", encode(since)));
    }
    if let Some(limit) = options.limit_bytes {
        query.push(format!("limitBytes={limit}"));
    }
    let namespace = meta::namespace(pod);
    let path = format!("/api/v1/namespaces/{namespace}/pods/{}/log?{}", meta::name(pod), query.join("&"));
    let mut stream = session.stream(&path, "*/*").await?.into_data_stream();
    let mut out = std::io::stdout().lock();
    let mut at_start = true;
    while let Some(piece) = stream.next().await {
        let piece = piece.map_err(|error| Error::Unreachable(format!("the log ended: {error}")))?;
        match prefix {
            None => out.write_all(&piece)?,
            Some(prefix) => {
                for line in piece.split_inclusive(|byte| *byte == b'\n') {
                    if at_start {
                        out.write_all(prefix.as_bytes())?;
                    }
                    out.write_all(line)?;
                    at_start = line.ends_with(b"\n");
                }
            }
        }
        out.flush()?;
    }
    Ok(())
}
