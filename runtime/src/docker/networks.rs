//! Endpoints of networks.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Docker,
    containers::Container,
    http::{Answer, Call, Problem, created, empty, no_content, ok},
    types::{Endpoint, Map},
};
use crate::networks::{
    Network, Wanted,
    model::{Pool as KeptPool, WantedPool},
    nft, vlan,
};

/// Between attempts to write rules that the kernel refuses.
const RETRY: std::time::Duration = std::time::Duration::from_secs(1);

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct CreateBody {
    name: String,
    driver: String,
    scope: String,
    internal: bool,
    attachable: bool,
    ingress: bool,
    config_only: bool,
    config_from: Option<Value>,
    #[serde(rename = "EnableIPv6")]
    enable_ipv6: bool,
    #[serde(rename = "EnableIPv4")]
    enable_ipv4: Option<bool>,
    #[serde(rename = "IPAM")]
    ipam: Ipam,
    options: Map<String>,
    labels: Map<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Ipam {
    driver: String,
    options: Map<String>,
    config: Vec<Pool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Pool {
    subnet: String,
    #[serde(rename = "IPRange")]
    ip_range: String,
    gateway: String,
    #[serde(rename = "AuxiliaryAddresses")]
    auxiliary: Map<String>,
}

/// Options of the bridge driver.
const OPTIONS: [&str; 8] = [
    "com.docker.network.bridge.name",
    "com.docker.network.bridge.enable_icc",
    "com.docker.network.bridge.enable_ip_masquerade",
    "com.docker.network.bridge.host_binding_ipv4",
    "com.docker.network.bridge.default_bridge",
    "com.docker.network.bridge.inhibit_ipv4",
    "com.docker.network.container_iface_prefix",
    "com.docker.network.driver.mtu",
];

pub async fn create(mut call: Call) -> Answer {
    let body: CreateBody = call.json().await?;
    let wanted = judge(body)?;
    let docker = call.docker.clone();
    let made = tokio::spawn(async move {
        let network = docker.networks.create(wanted)?;
        if let Err(error) = docker.networks.set_up(&network).await {
            docker.networks.remove(&network.id)?;
            return Err(Problem::from(error));
        }
        docker.tell_of_network(&network, "create");
        Ok(network)
    });
    let network = made.await.map_err(crate::Error::from)??;
    created(&json!({ "Id": network.id, "Warning": "" }))
}

fn judge(body: CreateBody) -> Result<Wanted, Problem> {
    let name = body.name.trim();
    if name.is_empty() {
        return Err(Problem::bad("invalid network name: name is empty"));
    }
    if matches!(name, "bridge" | "host" | "none" | "default") || name.starts_with("container:") {
        return Err(Problem::denied(format!("operation is not permitted on predefined {name} network")));
    }
    if name.contains(['/', ' ', ':']) {
        return Err(Problem::bad(format!("invalid network name: {name}")));
    }
    let driver = match body.driver.as_str() {
        "" | "bridge" | "default" => "bridge",
        "macvlan" => "macvlan",
        "ipvlan" => "ipvlan",
        "host" | "null" => {
            return Err(Problem::denied(format!("only one instance of \"{}\" network is allowed", body.driver)));
        }
        "overlay" => {
            return Err(Problem::new(
                http::StatusCode::SERVICE_UNAVAILABLE,
                "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.",
            ));
        }
        driver => {
            return Err(Problem::not_found(format!(
                "could not find plugin {driver} in v1 plugin registry: plugin \"{driver}\" not found"
            )));
        }
    };
    let unsupported = [
        ("Ingress", body.ingress),
        ("ConfigOnly", body.config_only),
        (
            "ConfigFrom",
            body.config_from.as_ref().is_some_and(|from| from["Network"].as_str().is_some_and(|name| !name.is_empty())),
        ),
        ("Scope", !matches!(body.scope.as_str(), "" | "local")),
        ("IPAM driver", !matches!(body.ipam.driver.as_str(), "" | "default")),
    ];
    if let Some((what, _)) = unsupported.iter().find(|(_, given)| *given) {
        return Err(Problem::bad(format!("{what} is not supported by this engine")));
    }
    let ipv4 = body.enable_ipv4.unwrap_or(true);
    if !ipv4 && !body.enable_ipv6 {
        return Err(Problem::bad("IPv4 or IPv6 must be enabled"));
    }
    check_options(driver, &body.options)?;
    let mut pools = Vec::new();
    for pool in &body.ipam.config {
        pools.extend(judge_pool(pool)?);
    }
    for ipv6 in [false, true] {
        if pools.iter().filter(|pool| pool.subnet.addr().is_ipv6() == ipv6).count() > 1 {
            return Err(Problem::bad(format!("{driver} driver doesn't support multiple subnets")));
        }
    }
    // A subnet of a family that is off is as if it were not there (libnetwork `ipamAllocate`).
    pools.retain(|pool| if pool.subnet.addr().is_ipv6() { body.enable_ipv6 } else { ipv4 });
    Ok(Wanted {
        name: name.to_owned(),
        driver: driver.into(),
        internal: body.internal,
        attachable: body.attachable,
        ipv4,
        ipv6: body.enable_ipv6,
        pools,
        options: body.options,
        ipam_options: body.ipam.options,
        labels: body.labels,
    })
}

fn check_options(driver: &str, options: &Map<String>) -> Result<(), Problem> {
    let known: &[&str] = if driver == "bridge" { &OPTIONS } else { vlan::options(driver) };
    if let Some(option) = options.keys().find(|option| !known.contains(&option.as_str())) {
        return Err(Problem::bad(format!("network option {option} is not supported by this engine")));
    }
    let bad_name =
        |name: &str, longest: usize| name.is_empty() || name.len() > longest || name.contains(['/', ' ', ':']);
    if let Some(bridge) = options.get("com.docker.network.bridge.name").filter(|name| bad_name(name, 15)) {
        return Err(Problem::bad(format!("invalid bridge name {bridge:?}")));
    }
    // Room for a number.
    if let Some(prefix) = options.get("com.docker.network.container_iface_prefix").filter(|name| bad_name(name, 11)) {
        return Err(Problem::bad(format!("invalid interface prefix {prefix:?}")));
    }
    let boolean = ["enable_icc", "enable_ip_masquerade", "default_bridge", "inhibit_ipv4"];
    for key in boolean.map(|key| format!("com.docker.network.bridge.{key}")) {
        if let Some(value) = options.get(&key).filter(|value| !["true", "false", "1", "0"].contains(&value.as_str())) {
            return Err(Problem::bad(format!(
                "failed to parse {key} value: \"{value}\": strconv.ParseBool: parsing \"{value}\": invalid syntax"
            )));
        }
    }
    if let Some(mtu) = options.get("com.docker.network.driver.mtu")
        && !mtu.parse::<u32>().is_ok_and(|mtu| (68..=65535).contains(&mtu))
    {
        return Err(Problem::bad(format!("invalid value for com.docker.network.driver.mtu: {mtu}")));
    }
    if let Some(address) = options.get("com.docker.network.bridge.host_binding_ipv4")
        && address.parse::<IpAddr>().is_err()
    {
        return Err(Problem::bad(format!("invalid host binding address: {address}")));
    }
    Ok(())
}

fn judge_pool(pool: &Pool) -> Result<Option<WantedPool>, Problem> {
    let net = |what: &str, text: &str| -> Result<Option<IpNet>, Problem> {
        let bad =
            || Problem::bad(format!("invalid network config:\ninvalid {what} {text}: invalid CIDR block notation"));
        if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(|_| bad()) }
    };
    let address = |what: &str, text: &str| -> Result<Option<IpAddr>, Problem> {
        let bad = || Problem::bad(format!("invalid network config:\ninvalid {what} {text}: invalid address"));
        if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(|_| bad()) }
    };
    let (range, gateway) = (net("ip-range", &pool.ip_range)?, address("gateway", &pool.gateway)?);
    let Some(subnet) = net("subnet", &pool.subnet)? else {
        if range.is_some() || gateway.is_some() || !pool.auxiliary.is_empty() {
            return Err(Problem::bad("invalid network config:\na subnet is needed with an ip-range or a gateway"));
        }
        return Ok(None);
    };
    if subnet.max_prefix_len() - subnet.prefix_len() < 2 {
        return Err(Problem::bad(format!("invalid network config:\nsubnet {} is too small", pool.subnet)));
    }
    if subnet.trunc() != subnet {
        return Err(Problem::bad(format!(
            "invalid network config:\ninvalid subnet {subnet}: it should be {}",
            subnet.trunc()
        )));
    }
    let mut wanted = WantedPool { subnet, range, gateway, auxiliary: Map::new() };
    for (name, text) in &pool.auxiliary {
        if let Some(address) = address("auxiliary address", text)? {
            wanted.auxiliary.insert(name.clone(), address);
        }
    }
    Ok(Some(wanted))
}

const FILTERS: [&str; 8] = ["dangling", "driver", "id", "label", "label!", "name", "scope", "type"];

pub async fn list(call: Call) -> Answer {
    let filters = call.query.filters(&FILTERS)?;
    let dangling = filters.truth("dangling")?;
    let kind = filters.get("type").first().cloned();
    if let Some(kind) = kind.as_deref().filter(|kind| !matches!(*kind, "custom" | "builtin")) {
        return Err(Problem::bad(format!("invalid filter: 'type'='{kind}'")));
    }
    let networks: Vec<Value> = call
        .docker
        .networks
        .list()
        .iter()
        .filter(|network| {
            filters.any("name", |part| network.name.contains(part))
                && filters.any("id", |id| network.id.starts_with(id))
                && filters.any("driver", |driver| network.driver == driver)
                && filters.any("scope", |scope| scope == "local")
                && filters.labels(&network.labels)
                && kind.as_deref().is_none_or(|kind| network.is_predefined() == (kind == "builtin"))
                && dangling.is_none_or(|dangling| {
                    !network.is_predefined() && call.docker.containers_on(network).is_empty() == dangling
                })
        })
        .map(|network| call.docker.network_json(network, false))
        .collect();
    ok(&networks)
}

pub async fn inspect(call: Call) -> Answer {
    let network = find(&call)?;
    ok(&call.docker.network_json(&network, true))
}

fn find(call: &Call) -> Result<Arc<Network>, Problem> {
    let name = call.name();
    if call.docker.networks.find(name).is_none() && call.docker.networks.beginning_with(name) > 1 {
        return Err(Problem::bad(format!(
            "network {name} is ambiguous ({} matches found based on ID prefix)",
            call.docker.networks.beginning_with(name)
        )));
    }
    call.docker.find_network(name)
}

pub async fn remove(call: Call) -> Answer {
    let network = find(&call)?;
    if network.is_predefined() {
        return Err(Problem::denied(format!("{} is a pre-defined network and cannot be removed", network.name)));
    }
    let active = call.docker.running_on(&network);
    if !active.is_empty() {
        let names: Vec<String> = active
            .iter()
            .map(|container| format!("name:{:?} id:{:?}", container.name(), &container.id[..12]))
            .collect();
        return Err(Problem::denied(format!(
            "error while removing network: network {} has active endpoints ({})",
            network.name,
            names.join(", ")
        )));
    }
    let docker = call.docker.clone();
    tokio::spawn(async move { docker.remove_network(&network).await }).await.map_err(crate::Error::from)??;
    no_content()
}

pub async fn prune(call: Call) -> Answer {
    let filters = call.query.filters(&["until", "label", "label!"])?;
    let until = super::system::until(&filters)?;
    let mut deleted = Vec::new();
    for network in call.docker.networks.list() {
        let created = super::containers::logs::moment(&network.created)?.unwrap_or_default();
        let wanted = !network.is_predefined()
            && filters.labels(&network.labels)
            && until.is_none_or(|until| created < until)
            && call.docker.containers_on(&network).is_empty();
        if wanted && call.docker.remove_network(&network).await.is_ok() {
            deleted.push(network.name.clone());
        }
    }
    call.docker.events.tell("network", "prune", "", [("reclaimed".to_owned(), "0".to_owned())].into());
    ok(&json!({ "NetworksDeleted": if deleted.is_empty() { Value::Null } else { json!(deleted) } }))
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ConnectBody {
    container: String,
    endpoint_config: Endpoint,
}

pub async fn connect(mut call: Call) -> Answer {
    let body: ConnectBody = call.json().await?;
    let network = find(&call)?;
    let container = call.docker.own_container(&body.container)?;
    let docker = call.docker.clone();
    let work = async move { docker.connect(&container, &network, body.endpoint_config).await };
    tokio::spawn(work).await.map_err(crate::Error::from)??;
    empty(http::StatusCode::OK)
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct DisconnectBody {
    container: String,
    force: bool,
}

pub async fn disconnect(mut call: Call) -> Answer {
    let body: DisconnectBody = call.json().await?;
    let network = find(&call)?;
    let container = call.docker.own_container(&body.container)?;
    let docker = call.docker.clone();
    let work = async move { docker.disconnect(&container, &network, body.force).await };
    tokio::spawn(work).await.map_err(crate::Error::from)??;
    empty(http::StatusCode::OK)
}

impl Docker {
    /// Writes the rules of the networks again whenever somebody has flushed them.
    pub fn keep_rules(self: &Arc<Docker>) {
        let changes = match nft::Changes::open() {
            Ok(changes) => changes,
            Err(error) => return tracing::warn!(%error, "changes of rules are not seen"),
        };
        let (docker, stopping) = (Arc::downgrade(self), self.stopping.clone());
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = stopping.cancelled() => return,
                    change = changes.next() => if let Err(error) = change {
                        return tracing::warn!(%error, "changes of rules are not seen any more");
                    },
                }
                let Some(docker) = docker.upgrade() else { return };
                if let Err(error) = docker.networks.keep_rules().await {
                    tracing::warn!(%error, "the rules of the container networks could not be written again");
                    tokio::time::sleep(RETRY).await;
                }
            }
        });
    }

    fn tell_of_network(&self, network: &Network, action: &str) {
        let attributes = [("name".to_owned(), network.name.clone()), ("type".to_owned(), network.driver.clone())];
        self.events.tell("network", action, &network.id, attributes.into());
    }

    async fn remove_network(&self, network: &Network) -> Result<(), Problem> {
        self.networks.remove(&network.id)?;
        self.networks.tear_down(network).await?;
        self.tell_of_network(network, "destroy");
        Ok(())
    }

    /// Containers that are or will be on a network.
    fn containers_on(&self, network: &Network) -> Vec<Arc<Container>> {
        let on = |container: &Arc<Container>| container.with(|record| record.networks.contains_key(&network.name));
        self.store.all().into_iter().filter(on).collect()
    }

    fn running_on(&self, network: &Network) -> Vec<Arc<Container>> {
        self.containers_on(network).into_iter().filter(|container| container.runs()).collect()
    }

    fn network_json(&self, network: &Network, whole: bool) -> Value {
        let pools: Vec<Value> = network.pools.iter().map(pool_json).collect();
        let ipam_options = if network.ipam_options.is_empty() && network.is_predefined() {
            Value::Null
        } else {
            json!(network.ipam_options)
        };
        let mut out = json!({
            "Name": network.name,
            "Id": network.id,
            "Created": network.created,
            "Scope": "local",
            "Driver": network.driver,
            "EnableIPv4": network.ipv4,
            "EnableIPv6": network.ipv6,
            "IPAM": {
                "Driver": "default",
                "Options": ipam_options,
                "Config": if matches!(network.driver.as_str(), "host" | "null") { Value::Null } else { json!(pools) },
            },
            "Internal": network.internal,
            "Attachable": network.attachable,
            "Ingress": false,
            "ConfigFrom": { "Network": "" },
            "ConfigOnly": false,
            "Options": network.options,
            "Labels": network.labels,
            "Containers": {},
        });
        if whole {
            for container in self.running_on(network) {
                let endpoint = container.with(|record| record.networks.get(&network.name).cloned()).unwrap_or_default();
                let with_length = |address: &str, length: u8| {
                    if address.is_empty() { String::new() } else { format!("{address}/{length}") }
                };
                out["Containers"][&container.id] = json!({
                    "Name": container.name(),
                    "EndpointID": endpoint.endpoint_id,
                    "MacAddress": endpoint.mac_address,
                    "IPv4Address": with_length(&endpoint.ip_address, endpoint.ip_prefix_len),
                    "IPv6Address": with_length(&endpoint.global_ipv6_address, endpoint.global_ipv6_prefix_len),
                });
            }
        }
        out
    }
}

fn pool_json(pool: &KeptPool) -> Value {
    let mut out = json!({ "Subnet": pool.subnet });
    if let Some(range) = pool.range {
        out["IPRange"] = json!(range);
    }
    // One that follows from the subnet is not part of the configuration.
    if let Some(gateway) = pool.gateway.filter(|_| !pool.given || pool.gateway_given) {
        out["Gateway"] = json!(gateway);
    }
    if !pool.auxiliary.is_empty() {
        out["AuxiliaryAddresses"] = json!(pool.auxiliary);
    }
    out
}
