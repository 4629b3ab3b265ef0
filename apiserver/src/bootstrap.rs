//! What every cluster has from the start: namespaces, priority classes, and the `kubernetes` Service with its endpoints.

mod addresses;
mod authentication;
mod defaults;
pub(crate) mod flow_control;
mod identity;
mod keep;
mod kubernetes_service;
mod service_range;

pub use defaults::settle as settle_defaults;
pub use identity::hold as hold_identity;
pub use keep::run as keep;
pub use kubernetes_service::{Lease, hold as hold_lease, is_alone, leave};

use crate::auth::UserInfo;
use crate::http::negotiate::Accept;
use crate::options::Options;
use crate::server::Server;
use crate::verbs::{Call, Managing, create_object};
use coracle_api::json::{Value, json};
use coracle_api::schema::TypeRef;
use coracle_api::{Status, decode};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

const NAMESPACES: [&str; 4] = ["kube-system", "kube-public", "kube-node-lease", "default"];

/// Creates what is missing.
///
/// # Errors
/// When the store cannot be written.
pub async fn run(server: &Arc<Server>) -> Result<(), Status> {
    namespaces(server).await?;
    server.hooks.done("poststarthook/start-system-namespaces-controller");
    authentication::run(server).await?;
    server.hooks.done("poststarthook/start-cluster-authentication-info-controller");
    // core `scheduling` SystemPriorityClasses
    for (name, value, what) in [
        (
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
        (
            "system-node-critical",
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
    ] {
        let class = json!({"kind": "PriorityClass", "apiVersion": "scheduling.k8s.io/v1", "metadata": {"name": name}, "value": value, "description": what});
        ensure(server, ("scheduling.k8s.io", "priorityclasses"), "", class).await?;
    }
    server.hooks.done("poststarthook/scheduling/bootstrap-system-priority-classes");
    flow_control::make(server).await?;
    server.hooks.done("poststarthook/priority-and-fairness-config-producer");
    api_services(server, Built::In).await?;
    server.hooks.done("poststarthook/kube-apiserver-autoregistration");
    server.hooks.done("autoregister-completion");
    kubernetes_service::service(server).await?;
    kubernetes_service::announce(server).await?;
    kubernetes_service::endpoints(server).await?;
    service_range::make(server).await?;
    server.hooks.done("poststarthook/bootstrap-controller");
    Ok(())
}

async fn namespaces(server: &Arc<Server>) -> Result<(), Status> {
    for name in NAMESPACES {
        let namespace = json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": name}});
        ensure(server, ("", "namespaces"), "", namespace).await?;
    }
    Ok(())
}

/// Says which APIServices are kept by the server, and that it answers for them itself.
const MANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";

/// Which groups and versions get an APIService.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Built {
    /// All: those of the built-in kinds are made at the start, and not again (kube-aggregator `autoregister`).
    In,
    /// Those of custom resources alone.
    FromDefinitions,
}

/// An APIService for each group and version that is served, and none for those that are not any more.
pub(crate) async fn api_services(server: &Arc<Server>, built: Built) -> Result<(), Status> {
    const RESOURCE: (&str, &str) = ("apiregistration.k8s.io", "apiservices");
    let rows = server.registry.current();
    let known = server.cache_of(RESOURCE.0, RESOURCE.1)?.snapshot();
    let mut wanted = std::collections::HashSet::new();
    for (group, versions) in rows.groups() {
        for version in versions {
            let name = format!("{version}.{group}");
            wanted.insert(name.clone());
            if known.get(&name).is_some() {
                continue;
            }
            let custom = rows.rows().any(|row| {
                row.strategy.custom().is_some() && row.served.iter().any(|(g, v)| *g == group && *v == version)
            });
            if built == Built::FromDefinitions && !custom {
                continue;
            }
            let (managed, minimum) = if custom { ("true", 1000) } else { ("onstart", 17_000) };
            let now = coracle_api::clock::rfc3339(server.config.clock.now());
            let service = json!({"kind": "APIService", "apiVersion": "apiregistration.k8s.io/v1", "metadata": {"name": name, "labels": {MANAGED: managed}},
                "spec": {"group": &*group, "version": &*version, "groupPriorityMinimum": minimum, "versionPriority": if custom { 100 } else { 15 }},
                "status": {"conditions": [{"type": "Available", "status": "True", "lastTransitionTime": now, "reason": "Local", "message": "Local APIServices are always available"}]}});
            put(server, RESOURCE, "", service).await?;
        }
    }
    for (name, object) in &known.objects {
        if coracle_api::meta::label(&object.parse(), MANAGED) == Some("true") && !wanted.contains(&**name) {
            remove(server, RESOURCE, "", name).await?;
        }
    }
    Ok(())
}

/// The first address of the service range is the API server's own.
fn first_address(server: &Server) -> IpAddr {
    match server.config.service_cidr {
        ipnet::IpNet::V4(range) => Ipv4Addr::from(u32::from(range.network()).wrapping_add(1)).into(),
        ipnet::IpNet::V6(range) => std::net::Ipv6Addr::from(u128::from(range.network()).wrapping_add(1)).into(),
    }
}

pub(crate) fn call(
    server: &Arc<Server>,
    (group, plural): (&str, &str),
    namespace: &str,
    name: &str,
) -> Result<Call, Status> {
    let resolved = server.registry.find(group, "v1", plural).ok_or_else(Status::no_such_resource)?;
    Ok(Call {
        server: server.clone(),
        resolved,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        subresource: None,
        user: Arc::new(UserInfo::new("system:apiserver", &[crate::auth::MASTERS])),
        options: Options::parse(None, None)?,
        accept: Accept::default(),
        gzip: false,
        agent: "kube-apiserver".into(),
        of_scale: false,
        warnings: Arc::default(),
        begins: None,
    })
}

/// Creates an object unless there is one of that name.
async fn ensure(server: &Arc<Server>, resource: (&str, &str), namespace: &str, object: Value) -> Result<(), Status> {
    let name = coracle_api::meta::name(&object).to_owned();
    let call = call(server, resource, namespace, &name)?;
    let is_there = async || -> Result<bool, Status> {
        server.fresh().await?;
        Ok(call.cache()?.snapshot().get(&call.cache_key()).is_some())
    };
    if is_there().await? {
        return Ok(());
    }
    let object = decode::completed(object, call.row().type_ref(0)?);
    match create_object(&call, object, Managing::Tracked).await {
        // Another server on the same store was faster; with the service it has taken its address, too.
        Err(_) if is_there().await? => Ok(()),
        result => result.map(drop),
    }
}

/// Deletes an object, if it is there.
async fn remove(server: &Arc<Server>, resource: (&str, &str), namespace: &str, name: &str) -> Result<(), Status> {
    let call = call(server, resource, namespace, name)?;
    match crate::verbs::delete_object(&call, &crate::verbs::DeleteOptions::default()).await {
        Err(status) if status.code != 404 => Err(status),
        _ => Ok(()),
    }
}

/// Writes what `change` makes of an object, if that is another. One that is gone, or that somebody else has just written, is
/// left as it is: whoever wants it so comes here again.
async fn change(
    server: &Arc<Server>,
    resource: (&str, &str),
    namespace: &str,
    name: &str,
    change: impl FnOnce(&Value, TypeRef<'_>) -> Option<Value>,
) -> Result<(), Status> {
    let call = call(server, resource, namespace, name)?;
    let ty = call.row().type_ref(0)?;
    let current = match call.current().await {
        Err(status) if status.code == 404 => return Ok(()),
        current => current?,
    };
    let Some(changed) = change(&current.value, ty) else { return Ok(()) };
    match call.replace(&current, &current.with(&decode::completed(changed, ty)), Vec::new()).await {
        Err(status) if status.code == 409 => Ok(()),
        result => result.map(drop),
    }
}

/// Creates an object, or writes it over the one that is there.
async fn put(server: &Arc<Server>, resource: (&str, &str), namespace: &str, object: Value) -> Result<(), Status> {
    let name = coracle_api::meta::name(&object).to_owned();
    ensure(server, resource, namespace, object.clone()).await?;
    let call = call(server, resource, namespace, &name)?;
    let current = call.current().await?;
    let mut wanted = current.value.clone();
    for (field, value) in object.as_object().into_iter().flatten().filter(|(field, _)| *field != "metadata") {
        wanted[field.as_str()] = value.clone();
    }
    let wanted = decode::completed(wanted, call.row().type_ref(0)?);
    // Somebody else who writes it now writes the same, or knows better.
    call.replace(&current, &current.with(&wanted), Vec::new()).await.map(drop)
}
