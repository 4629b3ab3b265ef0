//! The ConfigMap that tells whose certificates to trust.

use super::call;
use crate::server::Server;
use crate::verbs::{Managing, create_object};
use coracle_api::Status;
use coracle_api::json::{Value, json};
use std::sync::Arc;

/// How often a write that lost a race with another server is tried again. Each that loses saw another one win, and no more
/// servers than this begin on one store at the same moment.
const ATTEMPTS: usize = 64;

pub const NAME: &str = "extension-apiserver-authentication";

/// Tells servers beside this one whose client certificates to trust (controlplane `clusterauthenticationtrust`): upstream's
/// controller manager, scheduler and extension servers read it. What other servers of the cluster wrote stays, also when
/// they write it at the same moment.
pub async fn run(server: &Arc<Server>) -> Result<(), Status> {
    const RESOURCE: (&str, &str) = ("", "configmaps");
    let own = server.config.ca_pem.trim();
    if own.is_empty() {
        return Ok(());
    }
    let call = call(server, RESOURCE, "kube-system", NAME)?;
    let map = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": NAME, "namespace": "kube-system"}});
    for _ in 0..ATTEMPTS {
        let current = match call.current().await {
            Err(status) if status.code == 404 => None,
            found => Some(found?),
        };
        let Some(wanted) = trusting(current.as_ref().map_or(&map, |current| &current.value), own) else {
            return Ok(());
        };
        let written = match &current {
            None => match create_object(&call, wanted, Managing::Tracked).await {
                Err(status) if status.code == 409 => None,
                result => Some(result?),
            },
            Some(current) => call.replace(current, &current.with(&wanted), Vec::new()).await?,
        };
        if written.is_some() {
            return Ok(());
        }
    }
    Err(Status::modified(&call.gvr(), NAME))
}

/// The map with an authority added to those that it names; None where it is among them.
fn trusting(map: &Value, own: &str) -> Option<Value> {
    const KEY: &str = "client-ca-file";
    let bundle = map["data"][KEY].as_str().unwrap_or_default();
    if bundle.contains(own) {
        return None;
    }
    let parts = [bundle.trim(), own].into_iter().filter(|part| !part.is_empty());
    let bundle: String = parts.map(|part| format!("{part}\n")).collect();
    let mut wanted = map.clone();
    crate::registry::fields::object_mut(&mut wanted, "data")[KEY] = bundle.into();
    Some(wanted)
}
