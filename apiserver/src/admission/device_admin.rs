//! Access to devices past their claims is for namespaces that are labelled for it (resource `AuthorizedForAdmin`).
//!
//! Upstream's validation tells of it beside everything else that is wrong; here it is told when nothing else is.

use crate::registry::fields::items;
use crate::verbs::Call;
use coracle_api::json::Value;
use coracle_api::status::FieldPath;
use coracle_api::{Cause, Status, meta};

const LABEL: &str = "resource.kubernetes.io/admin-access";

/// 422 for a new claim, or a template of claims, that asks for it elsewhere.
pub fn check_create(call: &Call, object: &Value) -> Result<(), Status> {
    let spec = &object["spec"];
    let claim = if call.row().kind == "ResourceClaimTemplate" { &spec["spec"] } else { spec };
    let asks = |request: &Value| request["exactly"]["adminAccess"] == true;
    let asked = items(&claim["devices"], "requests").iter().position(asks);
    // The place is upstream's, for templates as well.
    let path = FieldPath::new("spec").child("devices").child("requests");
    asked.map_or(Ok(()), |nth| labelled(call, object, &path.index(nth)))
}

/// 422 for a claim that gets it elsewhere (`AuthorizedForAdminStatus`).
pub fn check_status(call: &Call, claim: &Value, old: &Value) -> Result<(), Status> {
    let got = |claim: &Value| {
        let results = items(&claim["status"]["allocation"]["devices"], "results");
        results.iter().position(|result| result["adminAccess"] == true)
    };
    match (got(old), got(claim)) {
        (None, Some(nth)) => {
            let path = FieldPath::new("status").child("allocation").child("devices").child("results");
            labelled(call, claim, &path.index(nth))
        }
        _ => Ok(()),
    }
}

fn labelled(call: &Call, object: &Value, path: &FieldPath) -> Result<(), Status> {
    let snapshot = call.server.cache_of("", "namespaces")?.snapshot();
    let namespace = snapshot.get(&call.namespace).map(|namespace| namespace.parse());
    if namespace.is_some_and(|namespace| meta::label(&namespace, LABEL) == Some("true")) {
        return Ok(());
    }
    let why = format!("admin access to devices requires the `{LABEL}: true` label on the containing namespace");
    let cause = Cause::forbidden(&path.child("adminAccess"), why);
    Err(Status::invalid(&call.gvk(), meta::name(object), vec![cause]))
}
