//! PersistentVolumes that are bound do not go (upstream's pkg/controller/volume/pvprotection).

use std::sync::Arc;

use coracle_client::{Context, Informer, Informers, Key, Plan, Reconciler, Snapshot, Wires};
use k8s_openapi::api::core::v1::PersistentVolume;

use crate::protection;

const FINALIZER: &str = "kubernetes.io/pv-protection";

/// Lets volumes go that nobody is bound to.
pub struct VolumeProtection {
    volumes: Arc<Informer<PersistentVolume>>,
}

impl VolumeProtection {
    /// The controller over the process's informers.
    pub fn new(informers: &Informers) -> Self {
        Self { volumes: informers.get() }
    }
}

impl Reconciler for VolumeProtection {
    type Key = Key;
    type Snapshot = Arc<Snapshot<PersistentVolume>>;

    fn name(&self) -> &'static str {
        "pv-protection"
    }

    fn wire(&self, wires: &mut Wires<Key>) {
        wires.on(&self.volumes, |event, emit| emit(Key::of(&event.object().metadata)));
    }

    fn snapshot(&self) -> Self::Snapshot {
        self.volumes.snapshot()
    }

    fn plan(&self, volumes: &Self::Snapshot, key: &Key, _: &Context<'_>) -> Plan {
        plan(volumes, key)
    }
}

/// What has to be done for one volume. Whether it is used is what its phase says, which the binder of volumes writes.
pub fn plan(volumes: &Snapshot<PersistentVolume>, key: &Key) -> Plan {
    let Some(volume) = volumes.get(key) else { return Plan::nothing() };
    let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
    if protection::is_leaving(&volume.metadata, FINALIZER) && phase != Some("Bound") {
        return Plan::one(protection::release(volume.as_ref(), FINALIZER));
    }
    if protection::is_unprotected(&volume.metadata, FINALIZER) {
        return Plan::one(protection::protect(volume.as_ref(), FINALIZER));
    }
    Plan::nothing()
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::json::json;
    use coracle_client::Verb;

    /// The finalizers that the plan leaves; None where it changes nothing.
    fn left(finalizers: &[&str], going: bool, phase: &str) -> Option<Vec<String>> {
        let volume: PersistentVolume = coracle_api::json::from_value(json!({
            "metadata": {"name": "v", "uid": "u", "resourceVersion": "7", "finalizers": finalizers, "deletionTimestamp": going.then_some("2026-01-01T00:00:00Z")},
            "status": {"phase": phase}}))
        .unwrap();
        let plan = plan(&Snapshot::of([volume], &[]), &Key::cluster("v"));
        let action = plan.actions.first()?.actions()[0].clone();
        assert_eq!(plan.describe(), ["patch persistentvolumes v"]);
        let Verb::Patch { body, .. } = action.verb else { panic!() };
        assert_eq!(body["metadata"]["resourceVersion"], "7");
        Some(coracle_api::json::from_value(body["metadata"]["finalizers"].clone()).unwrap())
    }

    #[test]
    fn a_volume_stays_while_it_is_bound() {
        let own = |more: &[&'static str]| [&[FINALIZER], more].concat();
        assert_eq!(left(&own(&[]), true, "Bound"), None);
        for phase in ["Available", "Released", "Failed", "Pending", ""] {
            assert_eq!(left(&own(&["other.example/f"]), true, phase).unwrap(), ["other.example/f"], "{phase}");
        }
        assert_eq!(left(&own(&[]), false, "Released"), None, "it is not to go");
        assert_eq!(left(&["other.example/f"], true, "Available"), None, "it is not held by us");
    }

    #[test]
    fn a_volume_from_before_is_protected() {
        assert_eq!(left(&["other.example/f"], false, "Bound").unwrap(), ["other.example/f", FINALIZER]);
    }
}
