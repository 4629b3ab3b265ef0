//! `apply`: client-side, a three-way merge against what was applied last; or server-side, where the server keeps account of
//! who sets which field.
//!
//! https://kubernetes.io/docs/tasks/manage-kubernetes-objects/declarative-config/

use clap::Args;
use coracle_api::json::{Value, json};
use coracle_api::status::CauseReason;
use coracle_api::{meta, patch, schema};

use crate::{
    cli::{DryRun, Files, Output},
    discovery::Resource,
    error::{Error, Result},
    manifests::{self, Manifest},
    output::{self, Format},
    session::Session,
};

/// Where the last applied configuration is kept.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// kubectl's name for server-side apply: under it the server takes over what client-side apply managed.
const FIELD_MANAGER: &str = "kubectl";
/// What kubectl says below a conflict.
const CONFLICT_HELP: &str = "Please review the fields above--they currently have other managers. Here
are the ways you can resolve this warning:
* If you intend to manage all of these fields, please re-run the apply
  command with the `--force-conflicts` flag.
* If you do not intend to manage all of the fields, please edit your
  manifest to remove references to the fields that should keep their
  current managers.
* You may co-own fields by updating your manifest to match the existing
  value; in this case, you'll become the manager if the other manager(s)
  stop managing the field (remove it from their configuration).
See https://kubernetes.io/docs/reference/using-api/server-side-apply/#conflicts";
/// How often a patch is made again when somebody else changed the object in between.
const TRIES: usize = 5;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  kubectl-lite apply -f manifests/guestbook/\n  cat pod.yaml | kubectl-lite apply -f -"
)]
pub struct Options {
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    dry_run: DryRun,
    #[command(flatten)]
    output: Output,
    /// Let the server merge, and keep account of who manages which field
    #[arg(long)]
    server_side: bool,
    /// With --server-side, take over fields that others manage
    #[arg(long, requires = "server_side")]
    force_conflicts: bool,
    /// With --server-side, the name to manage fields under
    #[arg(long, default_value = FIELD_MANAGER, value_name = "NAME")]
    field_manager: String,
}

pub async fn run(session: &Session, said: Option<&str>, options: &Options) -> Result<()> {
    if options.server_side && options.dry_run.client() {
        return Err(Error::usage(
            "--dry-run=client doesn't work with --server-side (did you mean --dry-run=server instead?)",
        ));
    }
    let mut errors = Vec::new();
    for manifest in manifests::read(&options.files.filename, options.files.recursive)? {
        if let Err(error) = apply(session, said, &manifest, options).await {
            errors.push(match error {
                Error::Server(_) => Error::While(format!("error when applying \"{}\"", manifest.source), error.into()),
                error => error,
            });
        }
    }
    Error::all(errors)
}

async fn apply(session: &Session, said: Option<&str>, manifest: &Manifest, options: &Options) -> Result<()> {
    let resource = manifest.resource(session).await?;
    let namespace = manifest.namespace(session, said)?;
    let modified = annotated(&manifest.object, resource.namespaced.then_some(namespace))?;
    if meta::name(&modified).is_empty() {
        return Err(Error::usage(format!(
            "error when retrieving current configuration of: \"{}\": resource name may not be empty",
            manifest.source
        )));
    }
    let path = resource.object_path(namespace, meta::name(&modified));
    let query = options.dry_run.query();
    if options.server_side {
        let mut object = manifest.object.clone();
        if resource.namespaced {
            meta::set(&mut object, "namespace", namespace);
        }
        let applied = on_server(session, &format!("{path}{query}"), &object, options).await?;
        return tell(&applied, resource, options, "serverside-applied");
    }
    let (object, done) = match session.get(&path).await {
        Err(error) if error.is_not_found() => {
            if options.dry_run.client() {
                (modified, "created")
            } else {
                let path = resource.path(Some(namespace));
                (session.create(&format!("{path}{query}"), &modified).await?, "created")
            }
        }
        Err(error) => return Err(error),
        Ok(current) => change(session, &path, query, &modified, current, options.dry_run.client()).await?,
    };
    tell(&object, resource, options, done)
}

/// Says what was done.
fn tell(object: &Value, resource: &Resource, options: &Options, done: &str) -> Result<()> {
    if options.output.output.is_some() {
        let mut object = object.clone();
        output::hide_managed_fields(&mut object);
        return Format::parse(&options.output)?.print(&object, resource, &mut std::io::stdout().lock());
    }
    println!("{}/{} {done}{}", resource.qualified_singular(), meta::name(object), options.dry_run.suffix());
    Ok(())
}

/// A server-side apply.
async fn on_server(session: &Session, path: &str, object: &Value, options: &Options) -> Result<Value> {
    let applied = session.apply(path, object, &options.field_manager, options.force_conflicts).await;
    applied.map_err(|error| match error {
        Error::Server(status)
            if status.causes().iter().any(|cause| cause.reason == CauseReason::FieldManagerConflict) =>
        {
            Error::usage(format!("{}\n{CONFLICT_HELP}", status.message))
        }
        error => error,
    })
}

async fn change(
    session: &Session,
    path: &str,
    query: &str,
    modified: &Value,
    mut current: Value,
    dry: bool,
) -> Result<(Value, &'static str)> {
    for attempt in 1.. {
        let (media_type, patch) = three_way(modified, &current)?;
        if patch.as_object().is_none_or(coracle_api::json::Map::is_empty) {
            return Ok((current, "unchanged"));
        }
        if dry {
            return Ok((current, "configured"));
        }
        match session.patch(&format!("{path}{query}"), media_type, &patch).await {
            Err(Error::Server(status)) if status.code == 409 && attempt < TRIES => current = session.get(path).await?,
            Err(error) => return Err(error),
            // A patch that says what is there already changes nothing (defaults, for instance).
            Ok(object) if meta::resource_version(&object) == meta::resource_version(&current) => {
                return Ok((object, "unchanged"));
            }
            Ok(object) => return Ok((object, "configured")),
        }
    }
    Err(Error::usage("the object kept changing"))
}

/// The patch from what is there to what is wanted, and its kind.
fn three_way(modified: &Value, current: &Value) -> Result<(&'static str, Value)> {
    let original = match meta::annotation(current, LAST_APPLIED) {
        Some(text) => serde_json::from_str(text)?,
        None => {
            eprintln!(
                "Warning: resource {} is missing the {LAST_APPLIED} annotation which is required by kubectl apply. kubectl apply should only be used on resources created declaratively by either kubectl create --save-config or kubectl apply. The missing annotation will be patched automatically.",
                meta::key(current)
            );
            json!({})
        }
    };
    let gvk = meta::gvk(modified);
    Ok(match gvk.as_ref().and_then(schema::of) {
        Some(schema) => {
            ("application/strategic-merge-patch+json", patch::three_way_strategic(&original, modified, current, schema))
        }
        None => ("application/merge-patch+json", patch::three_way_merge(&original, modified, current)),
    })
}

/// The object as it is sent: with its namespace, and with itself as what was applied last.
fn annotated(object: &Value, namespace: Option<&str>) -> Result<Value> {
    let mut object = object.clone();
    if let Some(namespace) = namespace {
        meta::set(&mut object, "namespace", namespace);
    }
    if let Some(annotations) = object["metadata"].get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.remove(LAST_APPLIED);
    }
    if !object["metadata"]["annotations"].is_object() {
        object["metadata"]["annotations"] = json!({});
    }
    let text = format!("{}\n", serde_json::to_string(&sorted(&object))?);
    object["metadata"]["annotations"][LAST_APPLIED] = text.into();
    Ok(object)
}

/// Keys in order, as Go writes them.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut pairs: Vec<_> = fields.iter().map(|(key, value)| (key.clone(), sorted(value))).collect();
            pairs.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(pairs.into_iter().collect())
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_applied_remembers_itself_without_its_memory() {
        let object =
            json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a"}, "data": {"z": "1", "a": "2"}});
        let once = annotated(&object, Some("ns")).unwrap();
        let twice = annotated(&once, Some("ns")).unwrap();
        assert_eq!(once, twice);
        assert_eq!(
            once["metadata"]["annotations"][LAST_APPLIED],
            "{\"apiVersion\":\"v1\",\"data\":{\"a\":\"2\",\"z\":\"1\"},\"kind\":\"ConfigMap\",\"metadata\":{\"annotations\":{},\"name\":\"a\",\"namespace\":\"ns\"}}\n"
        );
    }

    #[test]
    fn fields_that_were_dropped_are_removed_and_foreign_ones_stay() {
        let v1 = annotated(
            &json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a"}, "data": {"old": "1"}}),
            None,
        )
        .unwrap();
        let mut current = v1.clone();
        current["data"]["foreign"] = "x".into();
        let v2 = annotated(
            &json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a"}, "data": {"new": "2"}}),
            None,
        )
        .unwrap();
        let (media_type, patch) = three_way(&v2, &current).unwrap();
        assert_eq!(media_type, "application/strategic-merge-patch+json");
        assert_eq!(patch["data"], json!({"new": "2", "old": null}));
    }
}
