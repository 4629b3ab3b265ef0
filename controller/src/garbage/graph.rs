//! Who depends on whom.

use std::sync::Arc;

use coracle_client::{Key, ResourceId};
use imbl::{HashMap, OrdSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::{Uid, plan::is_elsewhere};
use crate::catalog::Change;

/// Waits for the dependents of an object before it goes.
pub const FOREGROUND: &str = "foregroundDeletion";
/// Frees the dependents of an object before it goes.
pub const ORPHAN: &str = "orphan";

/// A reference to an owner.
#[derive(Clone, Debug, PartialEq)]
pub struct Owner {
    pub uid: Uid,
    pub reference: OwnerReference,
}

/// An object, as far as owning goes.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub resource: Arc<ResourceId>,
    pub key: Key,
    pub uid: Uid,
    pub version: Option<String>,
    pub owners: Vec<Owner>,
    pub finalizers: Vec<String>,
    pub deleting: bool,
}

/// Whether a reference is to an object of this resource, in whichever version.
pub fn is_of(reference: &OwnerReference, resource: &ResourceId) -> bool {
    let group = reference.api_version.rsplit_once('/').map_or("", |(group, _)| group);
    reference.kind == resource.kind && group == resource.group
}

impl Node {
    fn of(resource: &Arc<ResourceId>, meta: &ObjectMeta) -> Self {
        let owners = meta.owner_references.iter().flatten();
        Self {
            resource: resource.clone(),
            key: Key::of(meta),
            uid: Uid::new(meta.uid.as_deref().unwrap_or_default()),
            version: meta.resource_version.clone(),
            owners: owners
                .map(|reference| Owner { uid: Uid::new(&reference.uid), reference: reference.clone() })
                .collect(),
            finalizers: meta.finalizers.clone().unwrap_or_default(),
            deleting: meta.deletion_timestamp.is_some(),
        }
    }

    /// Whether the object carries a finalizer.
    pub fn has(&self, finalizer: &str) -> bool {
        self.finalizers.iter().any(|have| have == finalizer)
    }

    /// Being deleted, but not before its dependents.
    pub fn waits_for_dependents(&self) -> bool {
        self.deleting && self.has(FOREGROUND)
    }

    /// Being deleted, but not before its dependents are freed.
    pub fn orphans_dependents(&self) -> bool {
        self.deleting && self.has(ORPHAN)
    }

    /// Whether a reference names the object as the graph does.
    pub fn is_called(&self, reference: &OwnerReference) -> bool {
        is_of(reference, &self.resource) && reference.name == self.key.name()
    }

    /// Whether this object names an owner as the graph does not (pkg/controller/garbagecollector `partitionDependents`).
    fn misnames(&self, owner: &Self) -> bool {
        self.owners.iter().any(|have| have.uid == owner.uid && !owner.is_called(&have.reference))
    }

    /// Whether this object keeps an owner from going.
    pub fn blocks(&self, owner: &Uid) -> bool {
        self.owners.iter().any(|have| have.uid == *owner && have.reference.block_owner_deletion == Some(true))
    }
}

/// All objects by uid, and the dependents of each. Cloning is cheap: a plan reads a clone.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    nodes: HashMap<Uid, Arc<Node>>,
    dependents: HashMap<Uid, OrdSet<Uid>>,
}

impl Graph {
    /// The object.
    pub fn get(&self, uid: &Uid) -> Option<&Arc<Node>> {
        self.nodes.get(uid)
    }

    /// The objects that name this one as an owner.
    pub fn dependents<'a>(&'a self, uid: &Uid) -> impl Iterator<Item = &'a Arc<Node>> {
        self.dependents.get(uid).into_iter().flatten().filter_map(|dependent| self.nodes.get(dependent))
    }

    /// Takes a change in, and gives the objects that have to be looked at again.
    pub fn observe(&mut self, resource: &Arc<ResourceId>, change: &Change<'_>, look_at: &mut dyn FnMut(Uid)) {
        let node = Node::of(resource, change.meta);
        let uid = node.uid.clone();
        if change.deleted {
            self.remove(&uid, look_at);
            return;
        }
        let node = Arc::new(node);
        let old = self.nodes.insert(uid.clone(), node.clone());
        let unchanged = old.as_ref().is_some_and(|old| old.owners == node.owners);
        if !unchanged {
            for owner in old.iter().flat_map(|old| &old.owners) {
                self.unlink(&owner.uid, &uid);
            }
            for owner in &node.owners {
                self.dependents.entry(owner.uid.clone()).or_default().insert(uid.clone());
            }
        }
        let waiting = node.waits_for_dependents() || node.orphans_dependents();
        let was_waiting = old.as_ref().is_some_and(|old| old.waits_for_dependents() || old.orphans_dependents());
        if waiting || (!unchanged && !node.owners.is_empty()) {
            look_at(uid.clone());
        }
        if old.is_none() {
            // Who named it before it was seen may have meant another one.
            let is_stranger = |dependent: &&Arc<Node>| is_elsewhere(&node, dependent) || dependent.misnames(&node);
            let strangers = self.dependents(&uid).filter(is_stranger);
            strangers.for_each(|dependent| look_at(dependent.uid.clone()));
        }
        if node.waits_for_dependents() && !was_waiting {
            self.dependents(&uid).for_each(|dependent| look_at(dependent.uid.clone()));
        }
        // A dependent that no longer blocks may have been the last to do so.
        for owner in old.iter().filter(|_| !unchanged).flat_map(|old| &old.owners) {
            look_at(owner.uid.clone());
        }
    }

    fn remove(&mut self, uid: &Uid, look_at: &mut dyn FnMut(Uid)) {
        self.dependents(uid).for_each(|dependent| look_at(dependent.uid.clone()));
        let Some(old) = self.nodes.remove(uid) else { return };
        for owner in &old.owners {
            self.unlink(&owner.uid, uid);
            look_at(owner.uid.clone());
        }
    }

    /// Takes the objects of resources out that nobody follows any more.
    pub fn forget(&mut self, is_gone: &dyn Fn(&Arc<ResourceId>) -> bool, look_at: &mut dyn FnMut(Uid)) {
        let gone: Vec<Uid> =
            self.nodes.iter().filter(|(_, node)| is_gone(&node.resource)).map(|(uid, _)| uid.clone()).collect();
        gone.iter().for_each(|uid| self.remove(uid, look_at));
    }

    fn unlink(&mut self, owner: &Uid, dependent: &Uid) {
        if let Some(dependents) = self.dependents.get_mut(owner) {
            dependents.remove(dependent);
            if dependents.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }
}
