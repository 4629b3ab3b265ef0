//! The revisions of a workload: the replica sets of a deployment, the controller revisions of the other kinds.

use coracle_api::json::Value;
use coracle_api::meta;

use super::REVISION;
use crate::{discovery::Resource, error::Result, session::Session};

/// One revision.
pub struct Revision {
    /// Newer ones have higher numbers.
    pub number: i64,
    /// The pod template.
    pub template: Value,
    /// The replica set or the controller revision.
    pub object: Value,
}

/// The revisions that the workload controls, oldest first.
pub async fn of(session: &Session, resource: &Resource, workload: &Value) -> Result<Vec<Revision>> {
    let deployment = resource.kind == "Deployment";
    let kind = if deployment { "replicasets.apps" } else { "controllerrevisions.apps" };
    let kind = session.discovery().await?.find(kind)?;
    let list = session.get(&kind.path(Some(session.namespace()))).await?;
    let uid = meta::uid(workload);
    let objects = list["items"].as_array().into_iter().flatten();
    let owned = objects.filter(|object| meta::controller(object).is_some_and(|owner| owner.uid == uid));
    let read = |object: &Value| if deployment { replica_set(object) } else { controller_revision(object) };
    let mut revisions: Vec<_> = owned.filter_map(read).collect();
    revisions.sort_by_key(|revision| revision.number);
    Ok(revisions)
}

fn replica_set(object: &Value) -> Option<Revision> {
    let number = meta::annotation(object, REVISION)?.parse().ok()?;
    Some(Revision { number, template: object["spec"]["template"].clone(), object: object.clone() })
}

/// Its data is a strategic merge patch that replaces the template.
fn controller_revision(object: &Value) -> Option<Revision> {
    let mut template = object.pointer("/data/spec/template")?.clone();
    template.as_object_mut()?.remove("$patch");
    Some(Revision { number: object["revision"].as_i64()?, template, object: object.clone() })
}
