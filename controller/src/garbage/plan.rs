//! What is to be done about one object.

use std::time::Duration;

use coracle_api::json::{Value, json};
use coracle_client::{
    Action, Key, Plan, Step, Verb,
    action::{PatchKind, Propagation},
    recorder::EventType,
};
use jiff::Timestamp;
use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::OwnerReference};

use super::{
    Graph, Named, Node, Owner, State, Uid, Verdict,
    graph::{FOREGROUND, ORPHAN, is_of},
};
use crate::catalog::{Catalog, Entry};

/// An owner of a kind that nobody serves: look again when resources may have been added.
const UNKNOWN_KIND: Duration = Duration::from_secs(30);
/// Dependents freed in one plan.
const ORPHANS: usize = 500;

/// The state of one owner of an object.
enum Standing {
    /// It is there and stays.
    Solid,
    /// It is being deleted and waits for its dependents.
    Waiting,
    /// It is not there.
    Dangling,
    /// The server has to be asked.
    Unknown(Box<Action>),
}

pub(super) fn plan(state: &State, uid: &Uid, now: Timestamp) -> Plan {
    let Some(node) = state.graph.get(uid) else { return Plan::nothing() };
    if node.orphans_dependents() {
        return orphan(state, node);
    }
    if node.waits_for_dependents() {
        return release(state, node);
    }
    if node.deleting || node.owners.is_empty() {
        return Plan::nothing();
    }
    let mut plan = Plan::default();
    let (mut kept, mut waiting, mut dropped) = (Vec::new(), 0, 0);
    let mut probes = Vec::new();
    for owner in &node.owners {
        match standing(state, node, owner, now, &mut plan) {
            Standing::Solid => kept.push(&owner.reference),
            Standing::Waiting => waiting += 1,
            Standing::Dangling => dropped += 1,
            Standing::Unknown(probe) => probes.push(*probe),
        }
    }
    if !probes.is_empty() {
        plan.actions.push(Step::Parallel(probes));
        plan.requeue(Duration::ZERO);
        return plan;
    }
    if !kept.is_empty() {
        if waiting + dropped > 0 {
            plan.push(set_owners(node, &kept));
        }
        return plan;
    }
    let has_dependents = state.graph.dependents(uid).next().is_some();
    let circle = waiting > 0 && state.graph.dependents(uid).any(|dependent| dependent.waits_for_dependents());
    if circle && node.owners.iter().any(|owner| owner.reference.block_owner_deletion == Some(true)) {
        // Who waits below this one may wait for this one's owner; upstream lets the owners go first, too
        // (pkg/controller/garbagecollector `unblockOwnerReferencesStrategicMergePatch`).
        let freed: Vec<OwnerReference> = node
            .owners
            .iter()
            .map(|owner| OwnerReference { block_owner_deletion: Some(false), ..owner.reference.clone() })
            .collect();
        plan.push(set_owners(node, &freed.iter().collect::<Vec<_>>()));
        return plan;
    }
    let propagation = if (waiting > 0 && has_dependents) || node.has(FOREGROUND) {
        // The owner waits for all below it, so what is below this one has to go first.
        Propagation::Foreground
    } else if node.has(ORPHAN) {
        Propagation::Orphan
    } else {
        Propagation::Background
    };
    plan.push(delete(node, propagation));
    plan
}

/// Whether an owner is in a namespace, and not in its dependent's. An object of no namespace can own any other
/// (pkg/controller/garbagecollector `addDependentToOwners`).
pub(super) fn is_elsewhere(owner: &Node, dependent: &Node) -> bool {
    !owner.key.namespace().is_empty() && owner.key.namespace() != dependent.key.namespace()
}

fn standing(state: &State, node: &Node, owner: &Owner, now: Timestamp, plan: &mut Plan) -> Standing {
    let reference = &owner.reference;
    let entry = Catalog::find(&state.entries, &reference.api_version, &reference.kind);
    let namespace = node.key.namespace();
    let found = state.graph.get(&owner.uid);
    let is_elsewhere = found.is_some_and(|found| is_elsewhere(found, node));
    if is_elsewhere {
        let message = format!(
            "ownerRef [{}/{}, namespace: {namespace}, name: {}, uid: {}] does not exist in namespace {namespace:?}",
            reference.api_version, reference.kind, reference.name, reference.uid
        );
        plan.note(about(node), EventType::Warning, "OwnerRefInvalidNamespace", message);
    }
    let Some(entry) = entry else {
        plan.requeue(UNKNOWN_KIND);
        return Standing::Solid;
    };
    if namespace.is_empty() && entry.namespaced {
        // There is nowhere to look for it, so nothing is concluded (`namespacedOwnerOfClusterScopedErr`).
        return Standing::Solid;
    }
    if is_elsewhere {
        // The reference means an object of this namespace, which is not there.
        return Standing::Dangling;
    }
    // The owner is who is found by all that the reference says, and not by the uid alone (`isDangling`). What goes by two names, as
    // what is in two groups does, is found by either.
    let there = |found: &Node| if found.waits_for_dependents() { Standing::Waiting } else { Standing::Solid };
    if let Some(found) = found.filter(|found| found.is_called(reference)) {
        return there(found);
    }
    let verdict = state.verdicts.get(&owner.uid, &Named::of(owner, namespace));
    match (verdict, found) {
        (Some(Verdict::Absent), _) => return Standing::Dangling,
        (Some(Verdict::Present { .. }), Some(found)) => return there(found),
        _ => {}
    }
    match verdict.and_then(|verdict| verdict.present_for(now)) {
        Some(left) => {
            plan.requeue(left);
            Standing::Solid
        }
        None => Standing::Unknown(Box::new(probe(entry, node, reference))),
    }
}

fn probe(entry: &Entry, node: &Node, owner: &OwnerReference) -> Action {
    let namespace = if entry.namespaced { node.key.namespace() } else { "" };
    Action::at((*entry.resource).clone(), &Key::new(namespace, &owner.name), Verb::Probe)
}

/// The owners that a probe asked for: the same name may be said with several uids.
pub(super) fn probed(graph: &Graph, dependent: &Uid, action: &Action) -> Vec<(Uid, Named)> {
    let Some(node) = graph.get(dependent).filter(|_| matches!(action.verb, Verb::Probe)) else { return Vec::new() };
    let asked = |owner: &&Owner| {
        let reference = &owner.reference;
        is_of(reference, &action.resource) && reference.name == action.name
    };
    let named = |owner: &Owner| (owner.uid.clone(), Named::of(owner, node.key.namespace()));
    node.owners.iter().filter(asked).map(named).collect()
}

/// Lets an owner go once no dependent blocks it any more.
fn release(state: &State, node: &Node) -> Plan {
    if state.graph.dependents(&node.uid).any(|dependent| dependent.blocks(&node.uid)) {
        return Plan::nothing();
    }
    Plan::one(drop_finalizer(node, FOREGROUND))
}

/// Cuts the dependents' references, then lets the owner go.
fn orphan(state: &State, node: &Node) -> Plan {
    let dependents: Vec<_> = state.graph.dependents(&node.uid).collect();
    let free = |dependent: &&std::sync::Arc<Node>| {
        let kept: Vec<_> =
            dependent.owners.iter().filter(|owner| owner.uid != node.uid).map(|owner| &owner.reference).collect();
        set_owners(dependent, &kept)
    };
    let mut plan = Plan::default();
    if !dependents.is_empty() {
        plan.actions.push(Step::Parallel(dependents.iter().take(ORPHANS).map(free).collect()));
    }
    if dependents.len() > ORPHANS {
        plan.requeue(Duration::ZERO);
    } else {
        plan.push(drop_finalizer(node, ORPHAN));
    }
    plan
}

fn action(node: &Node, verb: Verb) -> Action {
    Action::at((*node.resource).clone(), &node.key, verb)
}

fn patch(node: &Node, field: &str, value: Value) -> Action {
    let body = json!({"metadata": {"uid": &*node.uid.0, "resourceVersion": node.version, field: value}});
    action(node, Verb::Patch { kind: PatchKind::Merge, body, subresource: None }).lenient()
}

fn set_owners(node: &Node, owners: &[&OwnerReference]) -> Action {
    patch(node, "ownerReferences", list(owners))
}

fn drop_finalizer(node: &Node, finalizer: &str) -> Action {
    let kept: Vec<_> = node.finalizers.iter().filter(|have| *have != finalizer).collect();
    patch(node, "finalizers", list(&kept))
}

/// A list that is left empty is taken out of the object, as upstream's objects never have empty ones.
fn list<T: serde::Serialize>(items: &[T]) -> Value {
    if items.is_empty() { Value::Null } else { json!(items) }
}

fn delete(node: &Node, propagation: Propagation) -> Action {
    let verb = Verb::Delete {
        uid: Some(node.uid.to_string()),
        version: node.version.clone(),
        propagation: Some(propagation),
        grace: None,
    };
    action(node, verb)
}

fn about(node: &Node) -> ObjectReference {
    let resource = &node.resource;
    ObjectReference {
        api_version: Some(resource.api_version()),
        kind: Some(resource.kind.to_string()),
        name: Some(node.key.name().to_owned()),
        namespace: Some(node.key.namespace().to_owned()).filter(|namespace| !namespace.is_empty()),
        uid: Some(node.uid.to_string()),
        ..ObjectReference::default()
    }
}
