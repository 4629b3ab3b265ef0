//! `delete`.

use std::time::Duration;

use clap::Args;
use coracle_api::json::{Value, json};
use coracle_api::meta;
use futures::StreamExt;
use http_body_util::BodyExt;

use super::get::{encode, select};
use crate::{
    cli::Files,
    discovery::Resource,
    error::{Error, Result},
    manifests,
    session::{JSON, Session},
    targets,
};

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  kubectl-lite delete deployment web\n  kubectl-lite delete -f manifests/\n  kubectl-lite delete pods --all"
)]
pub struct Options {
    /// TYPE NAME… or TYPE/NAME…
    resources: Vec<String>,
    #[command(flatten)]
    files: Files,
    #[arg(short = 'l', long)]
    selector: Option<String>,
    /// Every object of the type
    #[arg(long)]
    all: bool,
    /// Seconds to end by itself; -1 for the object's own
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    grace_period: i64,
    /// Do not wait for the end of what runs (grace period 0)
    #[arg(long)]
    force: bool,
    /// Same as a grace period of 1
    #[arg(long)]
    now: bool,
    /// Wait until the objects are gone
    #[arg(long, default_value = "true", num_args = 0..=1, default_missing_value = "true", require_equals = true, value_parser = ["true", "false"])]
    wait: String,
    /// background, foreground or orphan
    #[arg(long, default_value = "background", value_parser = ["background", "foreground", "orphan"])]
    cascade: String,
    /// How long to wait; 0 for ever
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    timeout: u64,
    #[arg(long)]
    ignore_not_found: bool,
}

pub async fn run(session: &Session, said: Option<&str>, options: &Options) -> Result<()> {
    let mut errors = Vec::new();
    let mut chosen: Vec<(Resource, String, String)> = Vec::new();
    if !options.files.filename.is_empty() {
        for manifest in manifests::read(&options.files.filename, options.files.recursive)? {
            let resource = manifest.resource(session).await?.clone();
            let namespace = manifest.namespace(session, said)?.to_owned();
            chosen.push((resource, namespace, meta::name(&manifest.object).to_owned()));
        }
    } else {
        let targets = targets::parse(session, &options.resources).await?;
        let named = targets.iter().all(|target| target.name.is_some());
        if named {
            for target in targets {
                let name = target.require_name()?.to_owned();
                chosen.push((target.resource, session.namespace().to_owned(), name));
            }
        } else {
            let found = select(session, &targets, options.selector.as_deref(), options.all).await?;
            let key = |(resource, object): (Resource, Value)| {
                (resource, session.namespace().to_owned(), meta::name(&object).to_owned())
            };
            chosen.extend(found.into_iter().map(key));
            if chosen.is_empty() {
                println!("No resources found");
            }
        }
    }
    let mut deleted = Vec::new();
    for (resource, namespace, name) in chosen {
        match delete(session, &resource, &namespace, &name, options).await {
            Ok(object) => deleted.push((resource, namespace, name, object)),
            Err(error) if options.ignore_not_found && error.is_not_found() => {}
            Err(error) => errors.push(error),
        }
    }
    if options.wait == "true" && !options.force {
        let waiting = async {
            for (resource, namespace, name, object) in &deleted {
                gone(session, resource, namespace, name, uid(object)).await?;
            }
            Ok(())
        };
        let outcome = match options.timeout {
            0 => waiting.await,
            seconds => tokio::time::timeout(Duration::from_secs(seconds), waiting)
                .await
                .unwrap_or_else(|_| Err(Error::usage("timed out waiting for the condition"))),
        };
        errors.extend(outcome.err());
    }
    Error::all(errors)
}

async fn delete(
    session: &Session,
    resource: &Resource,
    namespace: &str,
    name: &str,
    options: &Options,
) -> Result<Value> {
    let policy = match options.cascade.as_str() {
        "foreground" => "Foreground",
        "orphan" => "Orphan",
        _ => "Background",
    };
    let mut body = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": policy});
    let grace = if options.force {
        0
    } else if options.now {
        1
    } else {
        options.grace_period
    };
    if options.force && options.grace_period > 0 {
        return Err(Error::usage("--force and --grace-period greater than 0 cannot be specified together"));
    }
    if grace >= 0 {
        body["gracePeriodSeconds"] = grace.into();
    }
    let deleted = session.delete(&resource.object_path(namespace, name), &body).await?;
    let how = if options.force { "force deleted" } else { "deleted" };
    println!("{} \"{name}\" {how}", resource.qualified_singular());
    Ok(deleted)
}

/// A deletion answers with the object where something is left to do, else with a Status that names it.
fn uid(answer: &Value) -> String {
    let details = answer["details"]["uid"].as_str();
    details.unwrap_or_else(|| meta::uid(answer)).to_owned()
}

/// Waits until the object with this uid is gone.
async fn gone(session: &Session, resource: &Resource, namespace: &str, name: &str, uid: String) -> Result<()> {
    loop {
        let object = match session.get(&resource.object_path(namespace, name)).await {
            Err(error) if error.is_not_found() => return Ok(()),
            object => object?,
        };
        if !uid.is_empty() && meta::uid(&object) != uid {
            return Ok(());
        }
        let selector = encode(&format!("metadata.name={name}"));
        let version = encode(meta::resource_version(&object));
        let path = resource.path(Some(namespace));
        let watch = session
            .stream(&format!("{path}?watch=true&fieldSelector={selector}&resourceVersion={version}"), JSON)
            .await?;
        let mut stream = watch.into_data_stream();
        let mut buffer = Vec::new();
        // Any end of the watch is followed by another look.
        while let Some(Ok(piece)) = stream.next().await {
            buffer.extend_from_slice(&piece);
            let deleted = buffer
                .split(|byte| *byte == b'\n')
                .any(|line| serde_json::from_slice::<Value>(line).is_ok_and(|event| event["type"] == "DELETED"));
            if deleted {
                return Ok(());
            }
            match buffer.iter().rposition(|byte| *byte == b'\n') {
                Some(end) => drop(buffer.drain(..=end)),
                None if buffer.len() > 16 << 20 => break,
                None => {}
            }
        }
    }
}
