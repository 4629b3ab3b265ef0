//! Admission: what the server adds to, and refuses of, objects of any kind. Mutating first, then validating.

mod certificates;
mod device_admin;
mod namespace_lifecycle;
mod node_features;
mod pods;
mod storage_in_use;

use crate::store::Compare;
use crate::verbs::Call;
use coracle_api::json::Value;
use coracle_api::{Status, meta};

/// Changes a new object.
pub fn mutate_create(call: &Call, object: &mut Value) -> Result<(), Status> {
    // Nothing is told of an object that has no place to be.
    namespace_of(call, object)?;
    match (&*call.row().served[0].0, &*call.row().plural) {
        ("", "pods") => {
            pods::service_account(object);
            pods::default_tolerations(object);
            let node = crate::registry::fields::text(&object["spec"], "nodeName").to_owned();
            pods::topology_labels(call, object, &node)?;
            pods::priority(call, object)
        }
        ("", "persistentvolumeclaims") => {
            storage_in_use::protect(object, storage_in_use::CLAIM);
            Ok(())
        }
        ("", "persistentvolumes") => {
            storage_in_use::protect(object, storage_in_use::VOLUME);
            Ok(())
        }
        ("", "nodes") => {
            pods::taint_new_node(object);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Changes the binding of a pod to a node.
pub fn mutate_binding(call: &Call, binding: &mut Value, node: &str) -> Result<(), Status> {
    if crate::registry::fields::text(&binding["target"], "kind") == "Node" {
        pods::topology_labels(call, binding, node)?;
    }
    Ok(())
}

/// Changes a changed object.
pub fn mutate_update(call: &Call, object: &mut Value, old: &Value) -> Result<(), Status> {
    if let (("", "pods"), None) = ((&*call.row().served[0].0, &*call.row().plural), call.subresource) {
        pods::default_tolerations(object);
        pods::keep_priority(object, old);
    }
    Ok(())
}

/// Refuses a new object.
pub fn validate_create(call: &Call, object: &Value) -> Result<(), Status> {
    match (&*call.row().served[0].0, &*call.row().plural) {
        ("resource.k8s.io", "resourceclaims" | "resourceclaimtemplates") => device_admin::check_create(call, object),
        (certificates::GROUP, certificates::REQUESTS) => certificates::check_subject(call, object),
        _ => Ok(()),
    }
}

/// Refuses a changed object.
pub fn validate_update(call: &Call, object: &Value, old: &Value) -> Result<(), Status> {
    match (&*call.row().served[0].0, &*call.row().plural) {
        ("", "pods") => node_features::check(call, object, old),
        ("resource.k8s.io", "resourceclaims") => device_admin::check_status(call, object, old),
        (certificates::GROUP, certificates::REQUESTS) => certificates::check_signer(call, object, old),
        _ => Ok(()),
    }
}

/// What must hold of the object's namespace while it is written.
pub fn namespace_of(call: &Call, object: &Value) -> Result<Option<Compare>, Status> {
    namespace_lifecycle::check(call, meta::name(object))
}

/// The same for what is created below an object: of a namespace that ends, upstream's NamespaceLifecycle refuses every
/// CREATE.
pub async fn namespace_of_part(call: &Call) -> Result<Option<Compare>, Status> {
    if namespace_lifecycle::check(call, &call.name).is_err() {
        // It may have come or gone since.
        call.server.fresh().await?;
    }
    namespace_lifecycle::check(call, &call.name)
}

pub use namespace_lifecycle::check_delete as check_namespace_delete;
