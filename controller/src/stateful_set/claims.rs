//! The claims that give a pod its own storage.

use coracle_client::{Action, Key, Snapshot, outline::Pod, recorder::reference};
use k8s_openapi::{
    api::{apps::v1::StatefulSet, core::v1::PersistentVolumeClaim},
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};

use super::identity;
use crate::ownership;

/// What happens to claims with their set, and with a pod that is scaled away
/// (`spec.persistentVolumeClaimRetentionPolicy`).
struct Retention {
    delete_with_set: bool,
    delete_when_scaled: bool,
}

impl Retention {
    fn of(set: &StatefulSet) -> Self {
        let policy = set
            .spec
            .as_ref()
            .and_then(|spec| spec.persistent_volume_claim_retention_policy.clone())
            .unwrap_or_default();
        Self {
            delete_with_set: policy.when_deleted.as_deref() == Some("Delete"),
            delete_when_scaled: policy.when_scaled.as_deref() == Some("Delete"),
        }
    }
}

/// The claims that the pod with this ordinal lacks.
pub fn missing(set: &StatefulSet, ordinal: u64, claims: &Snapshot<PersistentVolumeClaim>) -> Vec<Action> {
    let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
    let about = reference(set);
    let pod = identity::pod_name(set, ordinal);
    wanted(set, ordinal)
        .filter(|claim| claims.get(&Key::new(namespace, claim.metadata.name.as_deref().unwrap_or_default())).is_none())
        .map(|claim| {
            let name = claim.metadata.name.as_deref().unwrap_or_default().to_owned();
            let set = set.metadata.name.as_deref().unwrap_or_default();
            Action::create(&claim)
                .lenient()
                .on_success(
                    about.clone(),
                    "SuccessfulCreate",
                    format!("create Claim {name} Pod {pod} in StatefulSet {set} success"),
                )
                .on_failure(
                    about.clone(),
                    "FailedCreate",
                    format!("create Claim {name} for Pod {pod} in StatefulSet {set} failed error: {{error}}"),
                )
        })
        .collect()
}

/// Whether a claim of the pod is being deleted: a pod made now would wait for what goes away.
pub fn leaving(set: &StatefulSet, ordinal: u64, claims: &Snapshot<PersistentVolumeClaim>) -> bool {
    let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
    wanted(set, ordinal).any(|claim| {
        let key = Key::new(namespace, claim.metadata.name.as_deref().unwrap_or_default());
        claims.get(&key).is_some_and(|claim| claim.metadata.deletion_timestamp.is_some())
    })
}

/// Gives the claims of a pod the owners that the retention policy wants: the set, the pod that is scaled away, or none.
pub fn owners(
    set: &StatefulSet,
    ordinal: u64,
    scaled_away: Option<&Pod>,
    claims: &Snapshot<PersistentVolumeClaim>,
) -> Vec<Action> {
    let retention = Retention::of(set);
    let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
    let mut actions = Vec::new();
    for claim in wanted(set, ordinal) {
        let key = Key::new(namespace, claim.metadata.name.as_deref().unwrap_or_default());
        let Some(claim) = claims.get(&key).filter(|claim| claim.metadata.deletion_timestamp.is_none()) else {
            continue;
        };
        let before = claim.metadata.owner_references.clone().unwrap_or_default();
        let mut after: Vec<OwnerReference> =
            before.iter().filter(|owner| !is_of(set, owner, ordinal)).cloned().collect();
        match scaled_away {
            Some(pod) if retention.delete_when_scaled => after.push(plain(ownership::controlled_by(pod))),
            _ if retention.delete_with_set => after.push(plain(ownership::controlled_by(set))),
            _ => {}
        }
        let same = |owners: &[OwnerReference]| owners.iter().map(|owner| owner.uid.clone()).collect::<Vec<_>>();
        if same(&before) != same(&after) {
            let mut changed = claim.as_ref().clone();
            changed.metadata.owner_references = Some(after);
            actions.push(Action::update(&changed).lenient());
        }
    }
    actions
}

/// The references that this controller sets: to the set, and to the pod of the ordinal.
fn is_of(set: &StatefulSet, owner: &OwnerReference, ordinal: u64) -> bool {
    Some(&owner.uid) == set.metadata.uid.as_ref()
        || (owner.kind == "Pod" && owner.name == identity::pod_name(set, ordinal))
}

/// A claim is owned so that it goes with its owner; nobody controls it.
fn plain(owner: OwnerReference) -> OwnerReference {
    OwnerReference { controller: None, block_owner_deletion: None, ..owner }
}

fn wanted(set: &StatefulSet, ordinal: u64) -> impl Iterator<Item = PersistentVolumeClaim> {
    let spec = set.spec.as_ref();
    let selected = spec.and_then(|spec| spec.selector.match_labels.clone()).unwrap_or_default();
    let templates = spec.and_then(|spec| spec.volume_claim_templates.as_ref()).into_iter().flatten();
    templates.map(move |template| {
        let mut claim = template.clone();
        let name = template.metadata.name.as_deref().unwrap_or_default();
        claim.metadata.name = Some(identity::claim_name(set, name, ordinal));
        claim.metadata.namespace = set.metadata.namespace.clone();
        claim.metadata.labels.get_or_insert_default().extend(selected.clone());
        claim.status = None;
        claim
    })
}
