//! Going back (k8s.io/kubectl/pkg/polymorphichelpers/rollback.go): the old pod template is put in place of the new one.

use coracle_api::json::{Map, Value, json};
use coracle_api::meta;

use super::{display, revisions};
use crate::{
    discovery::Resource,
    error::{Error, Result},
    session::Session,
};

/// The label that tells a deployment's replica sets apart.
const TEMPLATE_HASH: &str = "pod-template-hash";
/// Annotations that belong to the replica set or to the rollout, not to what is rolled back (upstream's list).
const SKIPPED: [&str; 5] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    "deployment.kubernetes.io/revision",
    "deployment.kubernetes.io/revision-history",
    "deployment.kubernetes.io/desired-replicas",
    "deployment.kubernetes.io/max-replicas",
];
const DEPRECATED_ROLLBACK: &str = "deprecated.deployment.rollback.to";

/// Rolls back to `revision`, or to the one before the current.
pub async fn undo(session: &Session, resource: &Resource, object: &Value, revision: i64) -> Result<()> {
    let display = display(resource, object);
    if object["spec"]["paused"] == true {
        return Err(Error::usage(
            "you cannot rollback a paused deployment; resume it first with 'kubectl rollout resume' and try again",
        ));
    }
    let revisions = revisions::of(session, resource, object).await?;
    let found = if revision > 0 {
        let found = revisions.iter().find(|known| known.number == revision);
        found.ok_or_else(|| Error::usage(format!("unable to find specified revision {revision} in history")))?
    } else {
        let before = revisions.len().checked_sub(2).and_then(|at| revisions.get(at));
        before.ok_or_else(|| {
            Error::usage(match resource.kind.as_str() {
                "Deployment" => format!("no rollout history found for deployment \"{}\"", meta::name(object)),
                _ => "no last revision to roll back to".to_owned(),
            })
        })?
    };
    let mut template = found.template.clone();
    if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
        labels.remove(TEMPLATE_HASH);
    }
    if template == object["spec"]["template"] {
        println!("{display} skipped rollback (current template already matches revision {})", found.number);
        return Ok(());
    }
    let mut patch = vec![json!({"op": "replace", "path": "/spec/template", "value": template})];
    if resource.kind == "Deployment" {
        let operation = if meta::annotations(object).is_some() { "replace" } else { "add" };
        let value = restored_annotations(object, &found.object);
        patch.push(json!({"op": operation, "path": "/metadata/annotations", "value": value}));
    }
    let path = resource.object_path(session.namespace(), meta::name(object));
    session.patch(&path, "application/json-patch+json", &Value::Array(patch)).await?;
    println!("{display} rolled back");
    Ok(())
}

/// The annotations that a deployment had at a revision, but for those of the rollout itself.
fn restored_annotations(deployment: &Value, set: &Value) -> Map {
    let skipped = |key: &str| SKIPPED.contains(&key) || key == DEPRECATED_ROLLBACK;
    let kept = meta::annotations(deployment).into_iter().flatten().filter(|(key, _)| skipped(key));
    let restored = meta::annotations(set).into_iter().flatten().filter(|(key, _)| !skipped(key));
    kept.chain(restored).map(|(key, value)| (key.clone(), value.clone())).collect()
}
