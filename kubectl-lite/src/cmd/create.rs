//! `create`: from files, or the usual kinds from flags.

use std::fs;

use base64::{Engine, engine::general_purpose::STANDARD};
use clap::{Args, Subcommand};
use coracle_api::json::{Map, Value, json};
use coracle_api::meta;

use crate::{
    cli::{DryRun, Files, Output},
    error::{Error, Result},
    manifests::{self, Manifest},
    output::{self, Format},
    session::Session,
};

#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  kubectl-lite create -f pod.yaml\n  kubectl-lite create deployment web --image=coracle/hello:v1 --replicas=3"
)]
pub struct Options {
    #[command(subcommand)]
    kind: Option<Kind>,
    #[command(flatten)]
    files: FilesToCreate,
}

#[derive(Debug, Args)]
struct FilesToCreate {
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub struct Common {
    #[command(flatten)]
    pub dry_run: DryRun,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Subcommand)]
enum Kind {
    /// A deployment
    #[command(visible_alias = "deploy")]
    Deployment(Deployment),
    /// A namespace
    #[command(visible_alias = "ns")]
    Namespace {
        name: String,
        #[command(flatten)]
        common: Common,
    },
    /// A config map
    #[command(visible_alias = "cm")]
    Configmap(Data),
    /// A secret
    #[command(subcommand)]
    Secret(Secret),
    /// A service account
    #[command(visible_alias = "sa")]
    Serviceaccount {
        name: String,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, Subcommand)]
enum Secret {
    /// From files, directories or literal values
    Generic(Data),
}

#[derive(Debug, Args)]
struct Deployment {
    name: String,
    /// The image; several make several containers
    #[arg(long, required = true)]
    image: Vec<String>,
    /// How many pods
    #[arg(short, long, default_value_t = 1)]
    replicas: i32,
    /// The port that the container opens
    #[arg(long)]
    port: Option<u16>,
    #[command(flatten)]
    common: Common,
    /// The command to run instead of the image's, behind --
    #[arg(last = true)]
    command: Vec<String>,
}

#[derive(Debug, Args)]
struct Data {
    name: String,
    /// KEY=VALUE
    #[arg(long, value_name = "KEY=VALUE")]
    from_literal: Vec<String>,
    /// A file or directory, or KEY=FILE
    #[arg(long, value_name = "[KEY=]FILE")]
    from_file: Vec<String>,
    #[command(flatten)]
    common: Common,
}

pub async fn run(session: &Session, said: Option<&str>, options: &Options) -> Result<()> {
    let Some(kind) = &options.kind else {
        let manifests = manifests::read(&options.files.files.filename, options.files.files.recursive)?;
        let mut errors = Vec::new();
        for manifest in manifests {
            if let Err(error) = create(session, said, &manifest, &options.files.common).await {
                errors.push(match error {
                    Error::Server(_) => {
                        Error::While(format!("error when creating \"{}\"", manifest.source), error.into())
                    }
                    error => error,
                });
            }
        }
        return Error::all(errors);
    };
    let (object, common) = match kind {
        Kind::Deployment(deployment) => (self::deployment(deployment)?, &deployment.common),
        Kind::Namespace { name, common } => {
            (json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}), common)
        }
        Kind::Serviceaccount { name, common } => {
            (json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}), common)
        }
        Kind::Configmap(data) => (config_map(data)?, &data.common),
        Kind::Secret(Secret::Generic(data)) => (secret(data)?, &data.common),
    };
    create(session, said, &Manifest { source: "flags".into(), object }, common).await
}

/// Creates one object and says so.
pub async fn create(session: &Session, said: Option<&str>, manifest: &Manifest, common: &Common) -> Result<()> {
    let resource = manifest.resource(session).await?;
    let created = if common.dry_run.client() {
        manifest.object.clone()
    } else {
        let path = resource.path(Some(manifest.namespace(session, said)?));
        session.create(&format!("{path}{}", common.dry_run.query()), &manifest.object).await?
    };
    if common.output.output.is_some() {
        let mut created = created;
        output::hide_managed_fields(&mut created);
        return Format::parse(&common.output)?.print(&created, resource, &mut std::io::stdout().lock());
    }
    println!("{}/{} created{}", resource.qualified_singular(), meta::name(&created), common.dry_run.suffix());
    Ok(())
}

fn deployment(options: &Deployment) -> Result<Value> {
    if options.image.len() > 1 && !options.command.is_empty() {
        return Err(Error::usage("cannot specify multiple --image options and command"));
    }
    let labels = json!({"app": options.name});
    let mut containers = Vec::new();
    for image in &options.image {
        let mut container = json!({"name": container_name(image), "image": image});
        if let Some(port) = options.port {
            container["ports"] = json!([{"containerPort": port}]);
        }
        if !options.command.is_empty() {
            container["command"] = json!(options.command);
        }
        containers.push(container);
    }
    Ok(json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": options.name, "labels": labels},
        "spec": {
            "replicas": options.replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}},
        },
    }))
}

/// The last part of the image's name without tag and digest, made a DNS label as upstream's `create deployment` does.
fn container_name(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    let last = last.split(['@', ':']).next().unwrap_or(last);
    let name: String =
        last.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
    name.trim_matches('-').to_owned()
}

fn config_map(options: &Data) -> Result<Value> {
    let (mut data, mut binary) = (Map::new(), Map::new());
    for (key, value) in entries(options)? {
        match String::from_utf8(value) {
            Ok(text) => data.insert(key, text.into()),
            Err(error) => binary.insert(key, STANDARD.encode(error.into_bytes()).into()),
        };
    }
    let mut object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": options.name}});
    if !data.is_empty() {
        object["data"] = data.into();
    }
    if !binary.is_empty() {
        object["binaryData"] = binary.into();
    }
    Ok(object)
}

fn secret(options: &Data) -> Result<Value> {
    let data: Map = entries(options)?.into_iter().map(|(key, value)| (key, STANDARD.encode(value))).collect();
    Ok(
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": options.name}, "type": "Opaque", "data": data}),
    )
}

fn entries(options: &Data) -> Result<Vec<(String, Vec<u8>)>> {
    let mut entries: Vec<(String, Vec<u8>)> = Vec::new();
    for literal in &options.from_literal {
        let pair = literal.split_once('=').filter(|(key, _)| !key.is_empty());
        let (key, value) =
            pair.ok_or_else(|| Error::usage(format!("invalid literal source {literal}, expected key=value")))?;
        entries.push((key.to_owned(), value.as_bytes().to_vec()));
    }
    for source in &options.from_file {
        let (key, path) = source.split_once('=').map_or((None, source.as_str()), |(key, path)| (Some(key), path));
        let path = std::path::Path::new(path);
        let failed = |error: std::io::Error| Error::usage(format!("error reading {}: {error}", path.display()));
        let file_name = |path: &std::path::Path| {
            path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
        };
        if fs::metadata(path).map_err(failed)?.is_dir() {
            let mut files: Vec<_> = fs::read_dir(path).map_err(failed)?.flatten().map(|entry| entry.path()).collect();
            files.sort();
            for file in files.into_iter().filter(|file| file.is_file()) {
                entries.push((file_name(&file), fs::read(&file).map_err(failed)?));
            }
        } else {
            entries.push((key.map_or_else(|| file_name(path), str::to_owned), fs::read(path).map_err(failed)?));
        }
    }
    let mut seen = std::collections::HashSet::new();
    match entries.iter().find(|(key, _)| !seen.insert(key.clone())) {
        Some((key, _)) => Err(Error::usage(format!("cannot add key {key}, another key by that name already exists"))),
        None => Ok(entries),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_named_after_their_image() {
        for (image, name) in
            [("coracle/hello:v1", "hello"), ("localhost:5000/a/My_App@sha256:00", "my-app"), ("nginx", "nginx")]
        {
            assert_eq!(container_name(image), name, "{image}");
        }
    }
}
