//! `rollout status|history|undo|pause|resume|restart`.

mod history;
mod revisions;
mod status;
mod undo;

use clap::{Args, Subcommand};
use coracle_api::json::{Value, json};
use coracle_api::meta;
use jiff::Timestamp;

use super::get::select;
use crate::{
    discovery::Resource,
    error::{Error, Result},
    session::Session,
    targets,
};

const STRATEGIC: &str = "application/strategic-merge-patch+json";
/// The revision of a deployment or replica set.
const REVISION: &str = "deployment.kubernetes.io/revision";
const CHANGE_CAUSE: &str = "kubernetes.io/change-cause";

#[derive(Debug, Subcommand)]
pub enum Action {
    /// Show how the rollout goes, until it is done
    Status {
        #[command(flatten)]
        which: Which,
        /// Follow it until it is done
        #[arg(short, long, default_value = "true", num_args = 0..=1, default_missing_value = "true", require_equals = true, value_parser = ["true", "false"])]
        watch: String,
        /// How long to follow, in seconds or as 5m; 0 for ever
        #[arg(long, default_value = "0")]
        timeout: String,
        /// Only this revision
        #[arg(long, default_value_t = 0)]
        revision: i64,
    },
    /// Show the revisions
    History {
        #[command(flatten)]
        which: Which,
        /// Show the pod template of this one
        #[arg(long, default_value_t = 0)]
        revision: i64,
    },
    /// Go back to an earlier revision
    Undo {
        #[command(flatten)]
        which: Which,
        /// The revision; 0 for the one before
        #[arg(long, default_value_t = 0)]
        to_revision: i64,
    },
    /// Keep changes from being rolled out
    Pause(Which),
    /// Let changes be rolled out again
    Resume(Which),
    /// Replace every pod
    Restart(Which),
}

#[derive(Debug, Args)]
pub struct Which {
    /// TYPE NAME… or TYPE/NAME…
    #[arg(required = true)]
    resources: Vec<String>,
    #[arg(short = 'l', long)]
    selector: Option<String>,
}

pub async fn run(session: &Session, action: &Action) -> Result<()> {
    match action {
        Action::Status { which, watch, timeout, revision } => {
            let timeout = super::wait::duration(timeout)?;
            for (resource, object) in chosen(session, which).await? {
                require_workload(&resource, "")?;
                let follow = status::follow(session, &resource, &object, watch == "true", *revision);
                if timeout.is_zero() {
                    follow.await?;
                } else {
                    let timed = tokio::time::timeout(timeout, follow).await;
                    timed.map_err(|_| Error::usage("timed out waiting for the condition"))??;
                }
            }
            Ok(())
        }
        Action::History { which, revision } => {
            for (resource, object) in chosen(session, which).await? {
                require_workload(&resource, "history viewer")?;
                history::show(session, &resource, &object, *revision).await?;
            }
            Ok(())
        }
        Action::Undo { which, to_revision } => {
            for (resource, object) in chosen(session, which).await? {
                require_workload(&resource, "rollbacker")?;
                undo::undo(session, &resource, &object, *to_revision).await?;
            }
            Ok(())
        }
        Action::Pause(which) => pause(session, which, true).await,
        Action::Resume(which) => pause(session, which, false).await,
        Action::Restart(which) => restart(session, which).await,
    }
}

async fn chosen(session: &Session, which: &Which) -> Result<Vec<(Resource, Value)>> {
    let targets = targets::parse(session, &which.resources).await?;
    select(session, &targets, which.selector.as_deref(), false).await
}

/// The kinds that have rollouts.
const WORKLOADS: [&str; 3] = ["Deployment", "DaemonSet", "StatefulSet"];

fn require_workload(resource: &Resource, what: &str) -> Result<()> {
    if WORKLOADS.contains(&resource.kind.as_str()) {
        return Ok(());
    }
    Err(Error::usage(match what {
        "" => format!("no status viewer has been implemented for {}", resource.kind),
        what => format!("no {what} has been implemented for \"{}\"", resource.kind),
    }))
}

async fn pause(session: &Session, which: &Which, paused: bool) -> Result<()> {
    for (resource, object) in chosen(session, which).await? {
        let doing = if paused { "pausing" } else { "resuming" };
        let display = display(&resource, &object);
        if resource.kind != "Deployment" {
            return Err(Error::usage(format!("{} {display} {doing} is not supported", resource.qualified_plural())));
        }
        if (object["spec"]["paused"] == true) == paused {
            let state = if paused { "already paused" } else { "not paused" };
            return Err(Error::usage(format!(
                "{} \"{}\" is {state}",
                resource.qualified_plural(),
                meta::name(&object)
            )));
        }
        let value = if paused { json!(true) } else { Value::Null };
        patch(session, &resource, &object, &json!({"spec": {"paused": value}})).await?;
        println!("{display} {}", if paused { "paused" } else { "resumed" });
    }
    Ok(())
}

async fn restart(session: &Session, which: &Which) -> Result<()> {
    for (resource, object) in chosen(session, which).await? {
        let display = display(&resource, &object);
        if !WORKLOADS.contains(&resource.kind.as_str()) {
            return Err(Error::usage(format!("{display} restarting is not supported")));
        }
        if object["spec"]["paused"] == true {
            return Err(Error::usage(format!("can't restart paused {} (run rollout resume first)", resource.singular)));
        }
        let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let annotations = json!({"kubectl.kubernetes.io/restartedAt": now});
        let change = json!({"spec": {"template": {"metadata": {"annotations": annotations}}}});
        patch(session, &resource, &object, &change).await?;
        println!("{display} restarted");
    }
    Ok(())
}

async fn patch(session: &Session, resource: &Resource, object: &Value, patch: &Value) -> Result<Value> {
    let path = resource.object_path(session.namespace(), meta::name(object));
    session.patch(&path, STRATEGIC, patch).await
}

fn display(resource: &Resource, object: &Value) -> String {
    format!("{}/{}", resource.qualified_singular(), meta::name(object))
}
