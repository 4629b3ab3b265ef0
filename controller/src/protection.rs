//! Finalizers that keep an object while it is used (upstream's pkg/controller/volume/protectionutil).

use coracle_api::json::json;
use coracle_client::{Action, action::PatchKind};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;

/// Whether the object is to go and waits for the finalizer.
pub fn is_leaving(meta: &ObjectMeta, finalizer: &str) -> bool {
    meta.deletion_timestamp.is_some() && has(meta, finalizer)
}

/// Whether the object is to stay and lacks the finalizer: it is older than the admission that gives it.
pub fn is_unprotected(meta: &ObjectMeta, finalizer: &str) -> bool {
    meta.deletion_timestamp.is_none() && !has(meta, finalizer)
}

fn has(meta: &ObjectMeta, finalizer: &str) -> bool {
    meta.finalizers.iter().flatten().any(|have| have == finalizer)
}

/// Adds the finalizer.
pub fn protect<K: Resource<DynamicType = ()>>(object: &K, finalizer: &str) -> Action {
    let mut wanted = finalizers(object);
    wanted.push(finalizer);
    write(object, &wanted)
}

/// Takes the finalizer off.
pub fn release<K: Resource<DynamicType = ()>>(object: &K, finalizer: &str) -> Action {
    let mut wanted = finalizers(object);
    wanted.retain(|have| *have != finalizer);
    write(object, &wanted)
}

fn finalizers<K: Resource>(object: &K) -> Vec<&str> {
    object.meta().finalizers.iter().flatten().map(String::as_str).collect()
}

/// A patch of nothing else, for the object as it was seen.
fn write<K: Resource<DynamicType = ()>>(object: &K, finalizers: &[&str]) -> Action {
    let meta = json!({"finalizers": finalizers, "resourceVersion": object.meta().resource_version});
    Action::patch(object, PatchKind::Merge, json!({"metadata": meta})).lenient()
}
