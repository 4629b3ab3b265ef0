//! `scale`.

use clap::Args;
use coracle_api::json::json;
use coracle_api::meta;

use super::get::select;
use crate::{
    error::{Error, Result},
    session::Session,
    targets,
};

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  kubectl-lite scale deployment web --replicas=9")]
pub struct Options {
    /// TYPE NAME… or TYPE/NAME…
    #[arg(required = true)]
    resources: Vec<String>,
    /// The new size
    #[arg(long)]
    replicas: i32,
    /// Only if this is the size now
    #[arg(long)]
    current_replicas: Option<i32>,
    #[arg(short = 'l', long)]
    selector: Option<String>,
    #[arg(long)]
    all: bool,
}

pub async fn run(session: &Session, options: &Options) -> Result<()> {
    if options.replicas < 0 {
        return Err(Error::usage(
            "The --replicas=COUNT flag is required, and COUNT must be greater than or equal to 0",
        ));
    }
    let targets = targets::parse(session, &options.resources).await?;
    let found = select(session, &targets, options.selector.as_deref(), options.all).await?;
    if found.is_empty() {
        return Err(Error::usage("no objects passed to scale"));
    }
    for (resource, object) in found {
        let path = format!("{}/scale", resource.object_path(session.namespace(), meta::name(&object)));
        if let Some(expected) = options.current_replicas {
            let scale = session.get(&path).await?;
            let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
            if replicas != i64::from(expected) {
                return Err(Error::usage(format!("Expected replicas to be {expected}, was {replicas}")));
            }
        }
        let patch = json!({"spec": {"replicas": options.replicas}});
        session.patch(&path, "application/merge-patch+json", &patch).await?;
        println!("{}/{} scaled", resource.qualified_singular(), meta::name(&object));
    }
    Ok(())
}
