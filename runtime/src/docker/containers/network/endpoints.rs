//! What a container wants on a network, and whether it can have it.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use super::super::{
    super::{
        Docker,
        http::Problem,
        types::{Endpoint, EndpointIpam, Map, NetworkingConfig},
    },
    Record,
};
use crate::networks::{Network, bridge::parse_mac, pools::Addresses};

/// Driver options of an endpoint that there are.
const OPTIONS: [&str; 1] = [INTERFACE_NAME];
/// The name of the interface inside.
pub const INTERFACE_NAME: &str = "com.docker.network.endpoint.ifname";

impl Docker {
    /// The networks that a new container is to be on, by name.
    pub fn wanted_networks(&self, record: &Record, networking: NetworkingConfig) -> Result<Map<Endpoint>, Problem> {
        let mode = record.host.network_mode.as_str();
        let mut out = Map::new();
        if mode.starts_with("container:") || record.config.network_disabled {
            return Ok(out);
        }
        let mut asked = networking.endpoints_config;
        if let Some(endpoint) = asked.remove("default") {
            asked.insert("bridge".into(), endpoint);
        }
        let main = self.find_network(mode)?;
        let own = asked.remove(mode).or_else(|| asked.remove(&main.name)).or_else(|| asked.remove(&main.id));
        let mut endpoint = own.unwrap_or_default();
        if endpoint.mac_address.is_empty() {
            endpoint.mac_address = record.config.mac_address.clone();
        }
        out.insert(main.name.clone(), self.check_endpoint(&main, endpoint)?);
        for (name, endpoint) in asked {
            let network = self.find_network(&name)?;
            if matches!(main.driver.as_str(), "host" | "null") || matches!(network.driver.as_str(), "host" | "null") {
                return Err(Problem::bad(
                    "conflicting options: cannot attach both user-defined and non-user-defined network-modes",
                ));
            }
            out.insert(network.name.clone(), self.check_endpoint(&network, endpoint)?);
        }
        Ok(out)
    }

    pub fn find_network(&self, name: &str) -> Result<Arc<Network>, Problem> {
        self.networks.find(name).ok_or_else(|| Problem::not_found(format!("network {name} not found")))
    }

    /// Judges what a container wants on a network (moby `daemon/container_operations.go`, `validateEndpointSettings`).
    pub fn check_endpoint(&self, network: &Network, mut endpoint: Endpoint) -> Result<Endpoint, Problem> {
        let mut errors = Vec::new();
        let ipam = endpoint.ipam_config.clone().unwrap_or_default();
        let wrong = |text: &&String| text.parse::<IpAddr>().map_or(true, |address| address.is_unspecified());
        for text in ipam.link_local_ips.iter().filter(wrong) {
            errors.push(format!("invalid link-local IP address: {text}"));
        }
        for (text, ipv6) in [(&ipam.ipv4_address, false), (&ipam.ipv6_address, true)] {
            if !text.is_empty() {
                errors.extend(address_error(network, text, ipv6));
            }
        }
        if network.is_predefined() && endpoint.aliases.as_ref().is_some_and(|aliases| !aliases.is_empty()) {
            errors.push("network-scoped aliases are only supported for user-defined networks".into());
        }
        for option in endpoint.driver_opts.iter().flatten().map(|(option, _)| option) {
            if !OPTIONS.contains(&option.as_str()) {
                errors.push(format!("endpoint option {option} is not supported by this engine"));
            }
        }
        if let Some(name) = endpoint.driver_opts.as_ref().and_then(|options| options.get(INTERFACE_NAME))
            && (name.is_empty() || name.len() > 15 || name == "lo" || name.contains(['/', ' ', ':']))
        {
            errors.push(format!("invalid interface name {name:?}"));
        }
        if !endpoint.mac_address.is_empty() && parse_mac(&endpoint.mac_address).is_none() {
            errors.push(format!("invalid MAC address: {}", endpoint.mac_address));
        }
        if !errors.is_empty() {
            return Err(Problem::bad(format!(
                "invalid config for network {}: invalid endpoint settings:\n{}",
                network.name,
                errors.join("\n")
            )));
        }
        if network.is_predefined() && endpoint.ipam_config == Some(EndpointIpam::default()) {
            endpoint.ipam_config = None;
        }
        Ok(Endpoint {
            ipam_config: endpoint.ipam_config,
            links: endpoint.links,
            aliases: endpoint.aliases,
            wanted_mac: endpoint.mac_address,
            driver_opts: endpoint.driver_opts.filter(|options| !options.is_empty()),
            gw_priority: endpoint.gw_priority,
            network_id: network.id.clone(),
            ..Endpoint::default()
        })
    }

    /// Links of `--link` must lead to containers that are there.
    pub fn check_links(&self, record: &Record) -> Result<(), Problem> {
        for link in record.host.links.iter().flatten() {
            let (name, _) = split_link(link);
            self.container(name)
                .map_err(|_| Problem::bad(format!("could not get container for {name}: No such container: {name}")))?;
        }
        Ok(())
    }

    /// Lines of hosts for `--link` on the default bridge.
    pub(super) fn link_lines(&self, record: &Record) -> Result<Vec<(String, String)>, Problem> {
        let mut out = Vec::new();
        for link in record.host.links.iter().flatten() {
            let (name, alias) = split_link(link);
            let other = self.container(name)?;
            if !other.runs() {
                return Err(Problem::internal(format!(
                    "Cannot link to a non running container: /{} AS /{}/{alias}",
                    other.name(),
                    record.name
                )));
            }
            let (address, names) = other.with(|theirs| {
                let address = theirs.networks.get("bridge").map(|endpoint| endpoint.ip_address.clone());
                (address.unwrap_or_default(), format!("{alias} {} {}", theirs.config.hostname, theirs.name))
            });
            if !address.is_empty() {
                out.push((address, names));
            }
        }
        Ok(out)
    }
}

/// Why a network cannot give an address that is asked for.
fn address_error(network: &Network, text: &str, ipv6: bool) -> Option<String> {
    let Some(address) = text.parse::<IpAddr>().ok().filter(|address| address.is_ipv6() == ipv6) else {
        return Some(format!("invalid IPv{} address: {text}", if ipv6 { 6 } else { 4 }));
    };
    if network.is_predefined() {
        return Some("user specified IP address is supported on user defined networks only".into());
    }
    let Some(pool) = network.pool(ipv6).filter(|pool| pool.subnet.contains(&address)) else {
        return Some(format!("no configured subnet or ip-range contain the IP address {address}"));
    };
    let only = "user specified IP address is supported only when connecting to networks with user configured subnets";
    (!pool.given).then(|| only.into())
}

/// The addresses that an endpoint asks for.
pub fn asked_addresses(endpoint: &Endpoint) -> Addresses {
    let ipam = endpoint.ipam_config.clone().unwrap_or_default();
    Addresses { v4: ipam.ipv4_address.parse::<Ipv4Addr>().ok(), v6: ipam.ipv6_address.parse::<Ipv6Addr>().ok() }
}

/// The addresses for the wire alone that an endpoint asks for; whether they are such is judged when it joins (libnetwork
/// `network.go`, `createEndpoint`). An interface on a network without IPv6 takes none of its addresses
/// (`osl/interface_linux.go`, `setInterfaceIPv6`).
pub fn asked_link_locals(network: &Network, endpoint: &Endpoint) -> Result<Vec<IpAddr>, Problem> {
    let texts = endpoint.ipam_config.iter().flat_map(|ipam| &ipam.link_local_ips);
    let is_one = |address: &IpAddr| match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    let judge = |text: &String| {
        let address = text.parse::<IpAddr>().map(|address| address.to_canonical()).ok().filter(is_one);
        match address {
            None => Err(Problem::bad(format!("invalid link local IP address: {text}"))),
            Some(address) if address.is_ipv6() && !network.ipv6 => Err(Problem::internal(format!(
                "error setting interface link local IPs to [{address}/64]: permission denied: network {} has no IPv6",
                network.name
            ))),
            Some(address) => Ok(address),
        }
    };
    texts.map(judge).collect()
}

/// Forgets what belonged to one run only.
pub fn clear(endpoint: &mut Endpoint) {
    let asked = Endpoint {
        ipam_config: endpoint.ipam_config.take(),
        links: endpoint.links.take(),
        aliases: endpoint.aliases.take(),
        wanted_mac: std::mem::take(&mut endpoint.wanted_mac),
        driver_opts: endpoint.driver_opts.take(),
        gw_priority: endpoint.gw_priority,
        network_id: std::mem::take(&mut endpoint.network_id),
        dns_names: endpoint.dns_names.take(),
        ..Endpoint::default()
    };
    *endpoint = asked;
}

/// `NAME[:ALIAS]`
pub fn split_link(link: &str) -> (&str, &str) {
    let (name, alias) = link.split_once(':').unwrap_or((link, link));
    (name.trim_start_matches('/'), alias.rsplit('/').next().unwrap_or(alias))
}

#[cfg(test)]
mod tests {
    use super::split_link;

    #[test]
    fn links_have_an_alias() {
        assert_eq!(split_link("db:database"), ("db", "database"));
        assert_eq!(split_link("db"), ("db", "db"));
        assert_eq!(split_link("/db:/web/database"), ("db", "database"));
    }
}
