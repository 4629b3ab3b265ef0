//! Claims and volumes do not go while they are used (upstream's StorageObjectInUseProtection): each is made with a finalizer,
//! which a controller takes off when it is to go and nobody uses it.

use coracle_api::json::Value;
use coracle_api::meta;

/// What upstream calls it.
pub const NAME: &str = "StorageObjectInUseProtection";
/// The finalizer of PersistentVolumeClaims.
pub const CLAIM: &str = "kubernetes.io/pvc-protection";
/// The finalizer of PersistentVolumes.
pub const VOLUME: &str = "kubernetes.io/pv-protection";

/// Adds the finalizer, after those that are there, unless it is one of them.
pub fn protect(object: &mut Value, finalizer: &str) {
    let mut finalizers: Vec<&str> = meta::finalizers(object).collect();
    if !finalizers.contains(&finalizer) {
        finalizers.push(finalizer);
        let all = Value::from(finalizers);
        meta::set(object, "finalizers", all);
    }
}
