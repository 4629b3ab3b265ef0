//! `label` and `annotate`.

use clap::Args;
use coracle_api::json::{Map, Value, json};
use coracle_api::meta;

use super::get::select;
use crate::{
    error::{Error, Result},
    session::Session,
    targets,
};

/// Which of the two maps.
#[derive(Debug, Clone, Copy)]
pub enum What {
    Labels,
    Annotations,
}

#[derive(Debug, Args)]
pub struct Options {
    /// TYPE NAME… or TYPE/NAME…, then KEY=VALUE… or KEY-…
    #[arg(required = true)]
    arguments: Vec<String>,
    #[arg(short = 'l', long)]
    selector: Option<String>,
    #[arg(long)]
    all: bool,
    /// Change values that are there
    #[arg(long)]
    overwrite: bool,
}

pub async fn run(session: &Session, options: &Options, what: What) -> Result<()> {
    let (field, done, removed) = match what {
        What::Labels => ("labels", "labeled", "unlabeled"),
        What::Annotations => ("annotations", "annotated", "annotated"),
    };
    let is_change = |argument: &&String| argument.contains('=') || (argument.ends_with('-') && argument.len() > 1);
    let resources: Vec<String> = options.arguments.iter().filter(|argument| !is_change(argument)).cloned().collect();
    let changes: Vec<(&str, Option<&str>)> = options
        .arguments
        .iter()
        .filter(is_change)
        .map(|change| {
            change.split_once('=').map_or((change.trim_end_matches('-'), None), |(key, value)| (key, Some(value)))
        })
        .collect();
    if changes.is_empty() {
        return Err(Error::usage(format!("at least one {} update is required", field.trim_end_matches('s'))));
    }
    let targets = targets::parse(session, &resources).await?;
    for (resource, object) in select(session, &targets, options.selector.as_deref(), options.all).await? {
        let current = object["metadata"][field].as_object().cloned().unwrap_or_default();
        let patch = changed(&current, &changes, options.overwrite, field)?;
        let name = meta::name(&object);
        let display = format!("{}/{name}", resource.qualified_singular());
        if patch.is_empty() {
            println!("{display} not {done}");
            continue;
        }
        let only_removed = patch.values().all(Value::is_null);
        let path = resource.object_path(session.namespace(), name);
        session.patch(&path, "application/merge-patch+json", &json!({"metadata": {field: patch}})).await?;
        println!("{display} {}", if only_removed { removed } else { done });
    }
    Ok(())
}

fn changed(current: &Map, changes: &[(&str, Option<&str>)], overwrite: bool, field: &str) -> Result<Map> {
    let mut patch = Map::new();
    for (key, value) in changes {
        match (current.get(key), value) {
            (None, None) => println!("{} \"{key}\" not found.", field.trim_end_matches('s')),
            (Some(_), None) => drop(patch.insert((*key).to_owned(), Value::Null)),
            (Some(old), Some(new)) if old == new => {}
            (Some(old), Some(_)) if !overwrite => {
                let old = old.as_str().unwrap_or_default();
                return Err(Error::usage(format!("'{key}' already has a value ({old}), and --overwrite is false")));
            }
            (_, Some(new)) => drop(patch.insert((*key).to_owned(), (*new).into())),
        }
    }
    Ok(patch)
}
