//! What every cluster has from the start: namespaces, priority classes, and the `kubernetes` Service with its endpoints.

mod flow_control;

use crate::auth::UserInfo;
use crate::http::negotiate::Accept;
use crate::options::Options;
use crate::server::Server;
use crate::verbs::{Call, Managing, create_object};
use coracle_api::json::{Value, json};
use coracle_api::{Status, decode};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

const NAMESPACES: [&str; 4] = ["kube-system", "kube-public", "kube-node-lease", "default"];

/// Creates what is missing.
///
/// # Errors
/// When the store cannot be written.
pub async fn run(server: &Arc<Server>) -> Result<(), Status> {
    for name in NAMESPACES {
        let namespace = json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": name}});
        ensure(server, ("", "namespaces"), "", namespace).await?;
    }
    server.hooks.done("poststarthook/start-system-namespaces-controller");
    authentication(server).await?;
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
    for (resource, object) in flow_control::objects() {
        ensure(server, (flow_control::GROUP, resource), "", object).await?;
    }
    server.hooks.done("poststarthook/priority-and-fairness-config-producer");
    api_services(server).await?;
    server.hooks.done("poststarthook/kube-apiserver-autoregistration");
    server.hooks.done("autoregister-completion");
    let service_ip = first_address(server);
    let labels = json!({"component": "apiserver", "provider": "kubernetes"});
    let service = json!({"kind": "Service", "apiVersion": "v1", "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
        "spec": {"clusterIP": service_ip.to_string(), "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": server.config.advertise.port()}]}});
    ensure(server, ("", "services"), "default", service).await?;
    let (address, port) = (server.config.advertise.ip().to_string(), server.config.advertise.port());
    let family = if server.config.advertise.is_ipv4() { "IPv4" } else { "IPv6" };
    let endpoints = json!({"kind": "Endpoints", "apiVersion": "v1",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{"addresses": [{"ip": address}], "ports": [{"name": "https", "port": port, "protocol": "TCP"}]}]});
    put(server, ("", "endpoints"), "default", endpoints).await?;
    let slice = json!({"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": family, "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}]});
    put(server, ("discovery.k8s.io", "endpointslices"), "default", slice).await?;
    server.hooks.done("poststarthook/bootstrap-controller");
    Ok(())
}

/// How often a write that lost a race with another server is tried again. Each that loses saw another one win, and no more
/// servers than this begin on one store at the same moment.
const ATTEMPTS: usize = 64;

/// Tells servers beside this one whose client certificates to trust (controlplane `clusterauthenticationtrust`): upstream's
/// controller manager, scheduler and extension servers read it. What other servers of the cluster wrote stays, also when
/// they write it at the same moment.
async fn authentication(server: &Arc<Server>) -> Result<(), Status> {
    const RESOURCE: (&str, &str) = ("", "configmaps");
    const NAME: &str = "extension-apiserver-authentication";
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

/// Says which APIServices are kept by the server, and that it answers for them itself.
const MANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";

/// An APIService for each group and version that is served, and none for those that are not any more.
pub(crate) async fn api_services(server: &Arc<Server>) -> Result<(), Status> {
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
            let call = call(server, RESOURCE, "", name)?;
            match crate::verbs::delete_object(&call, &crate::verbs::DeleteOptions::default()).await {
                Err(status) if status.code != 404 => return Err(status),
                _ => {}
            }
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
        options: Options::parse(&http::Method::GET, None)?,
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
