//! `set image`, `set env`.

use clap::{Args, Subcommand};
use coracle_api::json::{Value, json};
use coracle_api::meta;

use super::get::select;
use crate::{
    error::{Error, Result},
    session::Session,
    targets,
};

#[derive(Debug, Subcommand)]
pub enum Action {
    /// Change the image of containers
    #[command(
        visible_alias = "images",
        after_help = "Example:\n  kubectl-lite set image deployment/web hello=coracle/hello:v2"
    )]
    Image(Options),
    /// Change the environment of containers (NAME- removes one)
    #[command(after_help = "Example:\n  kubectl-lite set env deployment/web GREETING=hello OLD-")]
    Env(Options),
}

#[derive(Debug, Args)]
pub struct Options {
    /// TYPE/NAME… or TYPE NAME…, then CONTAINER=IMAGE… or NAME=VALUE…
    #[arg(required = true)]
    arguments: Vec<String>,
    #[arg(short = 'l', long)]
    selector: Option<String>,
    #[arg(long)]
    all: bool,
    /// Only containers of this name, for env
    #[arg(short, long, default_value = "*")]
    containers: String,
}

pub async fn run(session: &Session, action: &Action) -> Result<()> {
    let options = match action {
        Action::Image(options) | Action::Env(options) => options,
    };
    let is_change = |argument: &&String| argument.contains('=') || argument.ends_with('-');
    let changes: Vec<&String> = options.arguments.iter().filter(is_change).collect();
    let resources: Vec<String> = options.arguments.iter().filter(|argument| !is_change(argument)).cloned().collect();
    if changes.is_empty() {
        return Err(Error::usage(match action {
            Action::Image(_) => "at least one image update is required",
            Action::Env(_) => "at least one environment variable must be provided",
        }));
    }
    let targets = targets::parse(session, &resources).await?;
    for (resource, object) in select(session, &targets, options.selector.as_deref(), options.all).await? {
        let (containers, done) = match action {
            Action::Image(_) => (images(&object, &changes)?, "image updated"),
            Action::Env(_) => (environment(&object, &changes, &options.containers)?, "env updated"),
        };
        let Some(containers) = containers else { continue };
        let spec = if object["spec"]["template"].is_object() {
            json!({"spec": {"template": {"spec": containers}}})
        } else {
            json!({"spec": containers})
        };
        let path = resource.object_path(session.namespace(), meta::name(&object));
        let changed = session.patch(&path, "application/strategic-merge-patch+json", &spec).await?;
        if meta::resource_version(&changed) != meta::resource_version(&object) {
            println!("{}/{} {done}", resource.qualified_singular(), meta::name(&object));
        }
    }
    Ok(())
}

fn pod_spec(object: &Value) -> &Value {
    let template = &object["spec"]["template"]["spec"];
    if template.is_object() { template } else { &object["spec"] }
}

fn containers<'v>(object: &'v Value, list: &str) -> impl Iterator<Item = &'v Value> {
    pod_spec(object)[list].as_array().into_iter().flatten()
}

/// The containers with their new images, as a strategic merge patch.
fn images(object: &Value, changes: &[&String]) -> Result<Option<Value>> {
    let mut patch = json!({});
    for change in changes {
        let Some((name, image)) = change.split_once('=').filter(|(name, image)| !name.is_empty() && !image.is_empty())
        else {
            return Err(Error::usage(format!("invalid image update {change}, expected CONTAINER=IMAGE")));
        };
        let mut found = false;
        for list in ["containers", "initContainers"] {
            for container in containers(object, list) {
                if name != "*" && container["name"] != name {
                    continue;
                }
                found = true;
                if !patch[list].is_array() {
                    patch[list] = json!([]);
                }
                if let Some(list) = patch[list].as_array_mut() {
                    list.push(json!({"name": container["name"], "image": image}));
                }
            }
        }
        if !found {
            return Err(Error::usage(format!("unable to find container named \"{name}\"")));
        }
    }
    Ok(Some(patch))
}

fn environment(object: &Value, changes: &[&String], which: &str) -> Result<Option<Value>> {
    let mut list = Vec::new();
    for container in containers(object, "containers").filter(|container| which == "*" || container["name"] == which) {
        let env: Vec<Value> = changes
            .iter()
            .map(|change| match change.split_once('=') {
                Some((name, value)) => json!({"name": name, "value": value, "valueFrom": null}),
                None => json!({"name": change.trim_end_matches('-'), "$patch": "delete"}),
            })
            .collect();
        list.push(json!({"name": container["name"], "env": env}));
    }
    if list.is_empty() {
        return Err(Error::usage(format!("{} does not have any containers matching \"{which}\"", meta::name(object))));
    }
    Ok(Some(json!({"containers": list})))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_change_by_container() {
        let object = json!({"spec": {"template": {"spec": {"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "c"}]}}}});
        let text = |change: &str| images(&object, &[&change.to_owned()]).map(|patch| patch.unwrap().to_string());
        assert_eq!(text("b=x:1").unwrap(), r#"{"containers":[{"name":"b","image":"x:1"}]}"#);
        assert_eq!(text("c=x").unwrap(), r#"{"initContainers":[{"name":"c","image":"x"}]}"#);
        assert_eq!(text("d=x").unwrap_err().to_string(), "error: unable to find container named \"d\"");
        assert_eq!(images(&object, &[&"*=y".to_owned()]).unwrap().unwrap()["containers"].as_array().unwrap().len(), 2);
    }
}
