//! `patch`.

use clap::Args;
use coracle_api::json::Value;
use coracle_api::{meta, yaml};

use crate::{
    cli::Output,
    error::{Error, Result},
    output::{self, Format},
    session::Session,
    targets,
};

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  kubectl-lite patch deployment web -p '{\"spec\":{\"replicas\":2}}'")]
pub struct Options {
    /// TYPE NAME or TYPE/NAME
    #[arg(required = true)]
    resources: Vec<String>,
    /// The patch, as JSON or YAML
    #[arg(short, long)]
    patch: Option<String>,
    /// A file with the patch
    #[arg(long, conflicts_with = "patch")]
    patch_file: Option<String>,
    /// strategic, merge or json
    #[arg(long = "type", default_value = "strategic", value_parser = ["strategic", "merge", "json"])]
    kind: String,
    /// status, scale
    #[arg(long)]
    subresource: Option<String>,
    #[command(flatten)]
    output: Output,
}

pub async fn run(session: &Session, options: &Options) -> Result<()> {
    let text = match (&options.patch, &options.patch_file) {
        (Some(patch), _) => patch.clone(),
        (None, Some(file)) => {
            std::fs::read_to_string(file).map_err(|error| Error::usage(format!("{file}: {error}")))?
        }
        (None, None) => {
            return Err(Error::usage("must specify --patch or --patch-file containing the contents of the patch"));
        }
    };
    let patch: Value =
        yaml::parse(&text).map_err(|error| Error::usage(format!("unable to parse \"{text}\": {error}")))?;
    let media_type = match options.kind.as_str() {
        "merge" => "application/merge-patch+json",
        "json" => "application/json-patch+json",
        _ => "application/strategic-merge-patch+json",
    };
    for target in targets::parse(session, &options.resources).await? {
        let mut path = target.resource.object_path(session.namespace(), target.require_name()?);
        let before = session.get(&path).await?;
        if let Some(subresource) = &options.subresource {
            path = format!("{path}/{subresource}");
        }
        let mut after = session.patch(&path, media_type, &patch).await?;
        if options.output.output.is_some() {
            output::hide_managed_fields(&mut after);
            Format::parse(&options.output)?.print(&after, &target.resource, &mut std::io::stdout().lock())?;
            continue;
        }
        let changed = meta::resource_version(&before) != meta::resource_version(&after);
        println!("{} patched{}", target.display(), if changed { "" } else { " (no change)" });
    }
    Ok(())
}
