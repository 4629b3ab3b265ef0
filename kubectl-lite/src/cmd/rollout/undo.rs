//! Going back (k8s.io/kubectl/pkg/polymorphichelpers/rollback.go): the old pod template is put in place of the new one.

use coracle_api::meta;
use serde_json::{Value, json};

use super::{display, replica_sets};
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
    let sets = replica_sets(session, object).await?;
    let set = if revision > 0 {
        let found = sets.iter().find(|(number, _)| *number == revision);
        found.ok_or_else(|| Error::usage(format!("unable to find specified revision {revision} in history")))?
    } else {
        let before = sets.len().checked_sub(2).and_then(|at| sets.get(at));
        before.ok_or_else(|| {
            Error::usage(format!("no rollout history found for deployment \"{}\"", meta::name(object)))
        })?
    };
    let mut template = set.1["spec"]["template"].clone();
    if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
        labels.shift_remove(TEMPLATE_HASH);
    }
    if template == object["spec"]["template"] {
        println!("{display} skipped rollback (current template already matches revision {})", set.0);
        return Ok(());
    }
    let mut annotations = serde_json::Map::new();
    let skipped = |key: &str| SKIPPED.contains(&key) || key == DEPRECATED_ROLLBACK;
    let kept = meta::annotations(object).into_iter().flatten().filter(|(key, _)| skipped(key));
    annotations.extend(kept.map(|(key, value)| (key.clone(), value.clone())));
    let restored = meta::annotations(&set.1).into_iter().flatten().filter(|(key, _)| !skipped(key));
    annotations.extend(restored.map(|(key, value)| (key.clone(), value.clone())));
    let patch = json!([
        {"op": "replace", "path": "/spec/template", "value": template},
        {"op": if meta::annotations(object).is_some() { "replace" } else { "add" }, "path": "/metadata/annotations", "value": annotations},
    ]);
    let path = resource.object_path(session.namespace(), meta::name(object));
    session.patch(&path, "application/json-patch+json", &patch).await?;
    println!("{display} rolled back");
    Ok(())
}
