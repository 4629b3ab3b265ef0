//! Nothing is created in a namespace that is not there or is ending (upstream's NamespaceLifecycle).

use crate::cache::store_key;
use crate::store::Compare;
use crate::verbs::Call;
use coracle_api::status::CauseReason;
use coracle_api::{Cause, Gvr, Status};

const NAMESPACES: Gvr = Gvr::of("", "v1", "namespaces");

/// Namespaces that are always there.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// The namespace must be as it was seen when the object is written, so that it cannot end in between.
pub fn check(call: &Call, name: &str) -> Result<Option<Compare>, Status> {
    if !call.row().namespaced {
        return Ok(None);
    }
    let namespaces = call.server.cache_of("", "namespaces")?;
    let snapshot = namespaces.snapshot();
    let Some(namespace) = snapshot.get(&call.namespace) else {
        return Err(Status::not_found(&NAMESPACES, &call.namespace));
    };
    if namespace.field(crate::registry::core::namespace::PHASE) == "Terminating" {
        let why =
            format!("unable to create new content in namespace {} because it is being terminated", call.namespace);
        let cause = Cause::new(
            CauseReason::NamespaceTerminating,
            "metadata.namespace",
            format!("namespace {} is being terminated", call.namespace),
        );
        return Err(Status::forbidden(&call.gvr(), name, &why).with_causes(vec![cause]));
    }
    Ok(Some(Compare::modified(store_key(&namespaces.row, "", &call.namespace), namespace.revision)))
}

/// 403 for the namespaces that the cluster cannot be without.
pub fn check_delete(name: &str) -> Result<(), Status> {
    if IMMORTAL.contains(&name) {
        return Err(Status::forbidden(&NAMESPACES, name, "this namespace may not be deleted"));
    }
    Ok(())
}
