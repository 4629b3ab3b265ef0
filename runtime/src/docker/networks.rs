//! Endpoints of networks.

use std::{net::Ipv4Addr, sync::Arc};

use ipnet::Ipv4Net;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Docker,
    containers::Container,
    http::{Answer, Call, Problem, created, empty, no_content, ok},
    types::{Endpoint, Map},
};
use crate::networks::{Network, Wanted};

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

const OPTIONS: [&str; 7] = [
    "com.docker.network.bridge.name",
    "com.docker.network.bridge.enable_icc",
    "com.docker.network.bridge.enable_ip_masquerade",
    "com.docker.network.bridge.host_binding_ipv4",
    "com.docker.network.bridge.default_bridge",
    "com.docker.network.bridge.inhibit_ipv4",
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
    match body.driver.as_str() {
        "" | "bridge" | "default" => {}
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
    }
    let unsupported = [
        ("EnableIPv6", body.enable_ipv6),
        ("EnableIPv4=false", body.enable_ipv4 == Some(false)),
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
    if let Some(option) = body.options.keys().find(|option| !OPTIONS.contains(&option.as_str())) {
        return Err(Problem::bad(format!("network option {option} is not supported by this engine")));
    }
    if let Some(bridge) = body.options.get("com.docker.network.bridge.name")
        && (bridge.is_empty() || bridge.len() > 15 || bridge.contains(['/', ' ']))
    {
        return Err(Problem::bad(format!("invalid bridge name {bridge:?}")));
    }
    let mut wanted = Wanted {
        name: name.to_owned(),
        driver: "bridge".into(),
        internal: body.internal,
        attachable: body.attachable,
        options: body.options,
        ipam_options: body.ipam.options,
        labels: body.labels,
        ..Wanted::default()
    };
    if body.ipam.config.len() > 1 {
        return Err(Problem::bad("more than one subnet in a network is not supported by this engine"));
    }
    if let Some(pool) = body.ipam.config.into_iter().next() {
        pools(&mut wanted, &pool)?;
    }
    Ok(wanted)
}

fn pools(wanted: &mut Wanted, pool: &Pool) -> Result<(), Problem> {
    let bad = |what: &str, text: &str| {
        Problem::bad(format!("invalid network config:\ninvalid {what} {text}: invalid CIDR block notation"))
    };
    let net = |what: &str, text: &str| -> Result<Option<Ipv4Net>, Problem> {
        if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(|_| bad(what, text)) }
    };
    let address = |what: &str, text: &str| -> Result<Option<Ipv4Addr>, Problem> {
        if text.is_empty() {
            Ok(None)
        } else {
            text.parse()
                .map(Some)
                .map_err(|_| Problem::bad(format!("invalid network config:\ninvalid {what} {text}: invalid address")))
        }
    };
    wanted.subnet = net("subnet", &pool.subnet)?;
    if wanted.subnet.is_some_and(|subnet| subnet.prefix_len() > 30) {
        return Err(Problem::bad(format!("invalid network config:\nsubnet {} is too small", pool.subnet)));
    }
    wanted.range = net("ip-range", &pool.ip_range)?;
    wanted.gateway = address("gateway", &pool.gateway)?;
    if wanted.subnet.is_none() && (wanted.range.is_some() || wanted.gateway.is_some()) {
        return Err(Problem::bad("invalid network config:\na subnet is needed with an ip-range or a gateway"));
    }
    for (name, text) in &pool.auxiliary {
        if let Some(address) = address("auxiliary address", text)? {
            wanted.auxiliary.insert(name.clone(), address);
        }
    }
    Ok(())
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
        let mut pools = Vec::new();
        if let Some(subnet) = network.subnet {
            let mut pool = json!({ "Subnet": subnet });
            if let Some(range) = network.range {
                pool["IPRange"] = json!(range);
            }
            if let Some(gateway) = network.gateway {
                pool["Gateway"] = json!(gateway);
            }
            if !network.auxiliary.is_empty() {
                pool["AuxiliaryAddresses"] = json!(network.auxiliary);
            }
            pools.push(pool);
        }
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
            "EnableIPv4": true,
            "EnableIPv6": false,
            "IPAM": {
                "Driver": "default",
                "Options": ipam_options,
                "Config": if network.driver == "bridge" { json!(pools) } else { Value::Null },
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
                let address = if endpoint.ip_address.is_empty() {
                    String::new()
                } else {
                    format!("{}/{}", endpoint.ip_address, endpoint.ip_prefix_len)
                };
                out["Containers"][&container.id] = json!({
                    "Name": container.name(),
                    "EndpointID": endpoint.endpoint_id,
                    "MacAddress": endpoint.mac_address,
                    "IPv4Address": address,
                    "IPv6Address": "",
                });
            }
        }
        out
    }
}
