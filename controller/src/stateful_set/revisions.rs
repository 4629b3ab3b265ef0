//! What the pod template was and is, as ControllerRevisions (upstream's pkg/controller/history).

use std::sync::Arc;

use coracle_client::{Action, Key, Snapshot, Step, action::PatchKind, outline::Pod};
use k8s_openapi::{
    api::{
        apps::v1::{ControllerRevision, StatefulSet},
        core::v1::PodTemplateSpec,
    },
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, runtime::RawExtension},
};
use serde_json::{Value, json};

use super::identity;
use crate::{ownership, pod_template};

/// How many revisions that nobody uses are kept where the set does not say.
const HISTORY_LIMIT: i32 = 10;
const HASH_LABEL: &str = "controller.kubernetes.io/hash";

/// The revisions of a set, oldest first.
pub struct History<'a> {
    set: &'a StatefulSet,
    all: &'a Snapshot<ControllerRevision>,
    own: Vec<Arc<ControllerRevision>>,
}

/// A revision by its name, with the pods' template.
#[derive(Clone, Debug)]
pub struct Revision {
    pub name: String,
    pub template: PodTemplateSpec,
}

/// Where the set stands and where it goes.
pub struct Settled {
    /// What the pods were before the rollout; the same as `update` when there is none.
    pub current: Revision,
    /// What the pods are to be.
    pub update: Revision,
    /// How often a name was taken by another template.
    pub collisions: i32,
    /// What makes the history so.
    pub actions: Vec<Action>,
}

impl<'a> History<'a> {
    /// The revisions that the set controls.
    pub fn of(set: &'a StatefulSet, all: &'a Snapshot<ControllerRevision>) -> Self {
        let uid = set.metadata.uid.as_deref().unwrap_or_default();
        let mut own: Vec<_> = all.by_index(ownership::BY_CONTROLLER, uid).cloned().collect();
        // One number may be there twice for a moment: then the older goes first, then the name decides.
        own.sort_by_key(|it| (it.revision, it.metadata.creation_timestamp.clone(), it.metadata.name.clone()));
        Self { set, all, own }
    }

    /// Finds or plans the revision of today's template, and finds the one that the pods come from.
    pub fn settle(&self) -> Settled {
        let data = data_of(self.set);
        let next = self.own.last().map_or(0, |last| last.revision) + 1;
        let mut collisions = self.set.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0);
        let mut actions = Vec::new();
        let template = template_of(self.set);
        let is_of_today = |known: &&Arc<ControllerRevision>| {
            known.data.as_ref().map(|data| &data.0) == Some(&data)
                || restore(known).is_some_and(|known| pod_template::same(&known.template, &template))
        };
        let update = match self.own.iter().rev().find(is_of_today) {
            Some(known) => {
                // Back to an older template: its revision becomes the newest.
                if known.revision + 1 != next {
                    let patch = coracle_api::json!({"revision": next});
                    actions.push(Action::patch(known.as_ref(), PatchKind::Merge, patch).lenient());
                }
                name_of(known)
            }
            None => {
                let (name, hash) = self.free_name(&mut collisions);
                actions.push(Action::create(&self.revision(&name, &hash, next, data)));
                name
            }
        };
        let update = Revision { name: update, template: template.clone() };
        let before = self.set.status.as_ref().and_then(|status| status.current_revision.as_deref()).unwrap_or_default();
        let current = self.own.iter().find(|known| name_of(known) == before).and_then(|known| restore(known));
        Settled { current: current.unwrap_or_else(|| update.clone()), update, collisions, actions }
    }

    /// Deletes the oldest of those that nobody uses, beyond the limit.
    pub fn surplus(&self, settled: &Settled, pods: &[Arc<Pod>]) -> Option<Step> {
        let used = |name: &str| {
            name == settled.current.name
                || name == settled.update.name
                || pods.iter().any(|pod| identity::revision(pod) == name)
        };
        let limit = self.set.spec.as_ref().and_then(|spec| spec.revision_history_limit).unwrap_or(HISTORY_LIMIT);
        let unused: Vec<_> = self.own.iter().filter(|known| !used(&name_of(known))).collect();
        let surplus = unused.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        let deletions: Vec<_> = unused[..surplus].iter().map(|known| Action::delete(known.as_ref())).collect();
        (!deletions.is_empty()).then_some(Step::Parallel(deletions))
    }

    /// A name that no other template has taken.
    fn free_name(&self, collisions: &mut i32) -> (String, String) {
        let set = self.set.metadata.name.as_deref().unwrap_or_default();
        let namespace = self.set.metadata.namespace.as_deref().unwrap_or_default();
        loop {
            let hash = pod_template::hash(&template_of(self.set), Some(*collisions));
            // 223 characters of the set's name and 10 of the hash, as upstream bounds it.
            let name = format!("{}-{hash}", set.get(..223).unwrap_or(set));
            if self.all.get(&Key::new(namespace, &name)).is_none() {
                return (name, hash);
            }
            *collisions += 1;
        }
    }

    fn revision(&self, name: &str, hash: &str, number: i64, data: Value) -> ControllerRevision {
        let template = template_of(self.set).metadata.unwrap_or_default();
        let mut labels = template.labels.unwrap_or_default();
        labels.insert(HASH_LABEL.to_owned(), hash.to_owned());
        ControllerRevision {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: self.set.metadata.namespace.clone(),
                labels: Some(labels),
                annotations: self.set.metadata.annotations.clone(),
                owner_references: Some(vec![ownership::controlled_by(self.set)]),
                ..ObjectMeta::default()
            },
            data: Some(RawExtension(data)),
            revision: number,
        }
    }
}

fn name_of(revision: &ControllerRevision) -> String {
    revision.metadata.name.clone().unwrap_or_default()
}

fn template_of(set: &StatefulSet) -> PodTemplateSpec {
    set.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default()
}

/// What a revision holds: a patch that puts the template back (upstream's `getPatch`).
fn data_of(set: &StatefulSet) -> Value {
    // A pod template is made of strings, numbers, lists and maps with string keys: it always serialises.
    let mut template = serde_json::to_value(template_of(set)).unwrap_or_default();
    template["$patch"] = "replace".into();
    json!({"spec": {"template": template}})
}

fn restore(revision: &ControllerRevision) -> Option<Revision> {
    let mut template = revision.data.as_ref()?.0.pointer("/spec/template")?.clone();
    template.as_object_mut()?.remove("$patch");
    Some(Revision { name: name_of(revision), template: serde_json::from_value(template).ok()? })
}
