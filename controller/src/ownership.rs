//! Owning by controller reference: who owns what, and the adoption and release that keep it in line with selectors
//! (upstream's pkg/controller/controller_ref_manager.go).

use coracle_api::json::json;
use coracle_api::selector::LabelSelector;
use coracle_client::{Action, Key, Snapshot, action::PatchKind, informer::Event, store::IndexFn};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector as Selector, ObjectMeta, OwnerReference};
use kube::Resource;
use std::sync::Arc;

/// The index of objects by their controller's uid; those without a controller are under [`orphans_of`].
pub const BY_CONTROLLER: &str = "controller";

/// Values of the index [`BY_CONTROLLER`].
pub fn by_controller<K: Resource>(object: &K, emit: &mut dyn FnMut(&str)) {
    match controller(object.meta()) {
        Some(owner) => emit(&owner.uid),
        None => emit(&orphans_of(object.meta().namespace.as_deref().unwrap_or_default())),
    }
}

/// The index with its name, as informers and tests take it.
pub fn controller_index<K: Resource>() -> (&'static str, IndexFn<K>) {
    (BY_CONTROLLER, by_controller::<K>)
}

/// The value under which the objects of a namespace that nobody controls are found. No uid has a slash.
pub fn orphans_of(namespace: &str) -> String {
    format!("/{namespace}")
}

/// The owner reference that controls the object.
pub fn controller(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// A reference that makes `owner` the controller of what carries it.
pub fn controlled_by<K: Resource>(owner: &K) -> OwnerReference
where
    K::DynamicType: Default,
{
    let kind = K::DynamicType::default();
    OwnerReference {
        api_version: K::api_version(&kind).into_owned(),
        kind: K::kind(&kind).into_owned(),
        name: owner.meta().name.clone().unwrap_or_default(),
        uid: owner.meta().uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The selector of a workload; one that cannot be read selects nothing.
pub fn selector(selector: &Selector) -> LabelSelector {
    LabelSelector::from_metav1(selector).unwrap_or(LabelSelector::NOTHING)
}

/// Whether the selector matches the object's labels.
pub fn selects(selector: &LabelSelector, meta: &ObjectMeta) -> bool {
    match &meta.labels {
        Some(labels) => selector.matches(labels),
        None => selector.matches(&std::collections::BTreeMap::<String, String>::new()),
    }
}

/// What a workload owns, and what has to be done so that it is so.
pub struct Claim<K> {
    /// Owned, counting those that are adopted by `actions`.
    pub owned: Vec<Arc<K>>,
    /// Adoptions and releases.
    pub actions: Vec<Action>,
}

/// Finds the dependents of `owner` among `candidates`: owned and selected ones stay, owned ones that are no longer
/// selected are released, selected ones that nobody controls are adopted. An owner that is being deleted neither adopts nor releases.
pub fn claim<O, K>(
    owner: &O,
    selector: &LabelSelector,
    candidates: &Snapshot<K>,
    eligible: impl Fn(&K) -> bool,
) -> Claim<K>
where
    O: Resource,
    O::DynamicType: Default,
    K: Resource,
    K::DynamicType: Default,
{
    let uid = owner.meta().uid.as_deref().unwrap_or_default();
    let namespace = owner.meta().namespace.as_deref().unwrap_or_default();
    let deleting = owner.meta().deletion_timestamp.is_some();
    let mut claim = Claim { owned: Vec::new(), actions: Vec::new() };
    for object in candidates.by_index(BY_CONTROLLER, uid).filter(|object| eligible(object)) {
        if selects(selector, object.meta()) {
            claim.owned.push(object.clone());
        } else if !deleting {
            let patch = json!({"metadata": {"ownerReferences": [{"$patch": "delete", "uid": uid}]}});
            claim.actions.push(Action::patch(object.as_ref(), PatchKind::Strategic, patch).lenient());
        }
    }
    if deleting {
        return claim;
    }
    for object in candidates.by_index(BY_CONTROLLER, &orphans_of(namespace)).filter(|object| eligible(object)) {
        if object.meta().deletion_timestamp.is_none() && selects(selector, object.meta()) {
            let patch = json!({"metadata": {"ownerReferences": [controlled_by(owner)]}});
            claim.actions.push(Action::patch(object.as_ref(), PatchKind::Strategic, patch).lenient());
            claim.owned.push(object.clone());
        }
    }
    claim
}

/// Emits the keys of the workloads of kind `W` that a change of a dependent concerns: its controllers before and after,
/// or, where it has none, all workloads of the namespace that select it.
pub fn owners_of<K, W>(
    event: &Event<K>,
    kind: &str,
    workloads: &Snapshot<W>,
    selects: impl Fn(&W, &ObjectMeta) -> bool,
    emit: &mut dyn FnMut(Key),
) where
    K: Resource,
    W: Resource,
{
    let meta = event.object().meta();
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let now = controller(meta);
    if let Some(before) = event.old().and_then(|old| controller(old.meta()))
        && before.kind == kind
        && Some(&before.uid) != now.map(|owner| &owner.uid)
    {
        emit(Key::new(namespace, &before.name));
    }
    match now {
        Some(owner) if owner.kind == kind => emit(Key::new(namespace, &owner.name)),
        Some(_) => {}
        None if event.is_deleted() => {}
        None => {
            for workload in workloads.namespace(namespace).filter(|workload| selects(workload, meta)) {
                emit(Key::of(workload.meta()));
            }
        }
    }
}
