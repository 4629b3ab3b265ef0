//! A container's networks: which it is on, what it has there, who it finds by name, which of its ports are published.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Weak},
};

use coracle_link::{Netns, Place};

use super::{
    super::{
        Docker,
        http::Problem,
        types::{Endpoint, EndpointIpam, Map, NetworkingConfig, PortBinding},
    },
    Container, Record, files,
};
use crate::{
    engine::model::new_id,
    networks::{
        Network,
        bridge::{self, mac_of, mac_text, parse_mac},
        dns::{self, Names},
        ports::{self, Published},
    },
};

/// What a running container holds of its networks; dropping it closes ports and names.
#[derive(Default)]
pub struct Attached {
    /// The namespace, unless it is the daemon's own.
    pub netns: Option<PathBuf>,
    pub addresses: Vec<IpAddr>,
    /// Lines of `/etc/hosts` for links on the default bridge.
    pub peers: Vec<(String, String)>,
    pub embedded_dns: bool,
    /// Network id → the outer end of the pair and the name inside.
    pub links: BTreeMap<String, (String, String)>,
    pub ports: Vec<Published>,
    pub dns: Option<dns::Server>,
}

impl Docker {
    /// The networks that a new container is to be on, by name.
    pub fn wanted_networks(
        &self,
        _id: &str,
        record: &Record,
        networking: NetworkingConfig,
    ) -> Result<Map<Endpoint>, Problem> {
        let mode = record.host.network_mode.as_str();
        let mut out = Map::new();
        if mode.starts_with("container:") {
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

    /// Judges what a container wants on a network.
    pub fn check_endpoint(&self, network: &Network, mut endpoint: Endpoint) -> Result<Endpoint, Problem> {
        let ipam = endpoint.ipam_config.clone().unwrap_or_default();
        let invalid = |why: String| {
            Problem::bad(format!("invalid config for network {}: invalid endpoint settings:\n{why}", network.name))
        };
        if !ipam.ipv6_address.is_empty() || !ipam.link_local_ips.is_empty() {
            return Err(invalid("IPv6 addresses are not supported by this engine".into()));
        }
        if !ipam.ipv4_address.is_empty() {
            let address: Ipv4Addr = ipam
                .ipv4_address
                .parse()
                .map_err(|_| invalid(format!("invalid IPv4 address: {}", ipam.ipv4_address)))?;
            if network.is_predefined() {
                return Err(invalid("user specified IP address is supported on user defined networks only".into()));
            }
            if !network.subnet.is_some_and(|subnet| subnet.contains(&address)) {
                return Err(invalid(format!("no configured subnet or ip-range contain the IP address {address}")));
            }
            if !network.subnet_given {
                return Err(invalid(
                    "user specified IP address is supported only when connecting to networks with user configured subnets".into(),
                ));
            }
        }
        if network.is_predefined() && endpoint.aliases.as_ref().is_some_and(|aliases| !aliases.is_empty()) {
            return Err(invalid("network-scoped aliases are only supported for user-defined networks".into()));
        }
        if !endpoint.mac_address.is_empty() && parse_mac(&endpoint.mac_address).is_none() {
            return Err(Problem::bad(format!("invalid MAC address: {}", endpoint.mac_address)));
        }
        if network.is_predefined() && endpoint.ipam_config == Some(EndpointIpam::default()) {
            endpoint.ipam_config = None;
        }
        // What was asked for is kept where what is will be shown, under a name of its own.
        Ok(Endpoint {
            ipam_config: endpoint.ipam_config,
            links: endpoint.links,
            aliases: endpoint.aliases,
            mac_address: endpoint.mac_address,
            driver_opts: endpoint.driver_opts,
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

    /// Makes a container's network for a start.
    pub async fn attach_networks(
        self: &Arc<Docker>,
        container: &Arc<Container>,
        record: &Record,
    ) -> Result<Attached, Problem> {
        let mode = record.host.network_mode.as_str();
        if mode == "host" {
            return Ok(Attached::default());
        }
        if let Some(target) = mode.strip_prefix("container:") {
            let other = self.container(target)?;
            if !other.runs() {
                return Err(Problem::conflict(format!(
                    "cannot join network namespace of a non running container: container {} is exited",
                    other.id
                )));
            }
            if other.with(|record| record.host.network_mode == "host") {
                return Ok(Attached::default());
            }
            let netns = PathBuf::from(format!("/proc/{}/ns/net", other.engine.state().pid));
            return Ok(Attached { netns: Some(netns), ..Attached::default() });
        }
        let path = self.engine.make_netns(&container.id).await?;
        let mut attached = Attached { netns: Some(path.clone()), ..Attached::default() };
        if mode == "none" {
            container.live.lock().network = Some(Attached { netns: Some(path.clone()), ..Attached::default() });
            return Ok(attached);
        }
        let netns = Netns::open(&path)
            .map_err(|error| Problem::internal(format!("open the container's network namespace: {error}")))?;
        let mut held = Attached { netns: Some(path), ..Attached::default() };
        let made = self.join_all(container, record, &netns, &mut attached, &mut held).await;
        // Held already, so that a failed start gives back what was made.
        container.live.lock().network = Some(held);
        made?;
        Ok(attached)
    }

    async fn join_all(
        self: &Arc<Docker>,
        container: &Arc<Container>,
        record: &Record,
        netns: &Netns,
        attached: &mut Attached,
        held: &mut Attached,
    ) -> Result<(), Problem> {
        let wrap = |error: crate::Error| Problem::internal(format!("failed to set up container networking: {error}"));
        let main = self.find_network(&record.host.network_mode)?;
        let mut names: Vec<&String> = record.networks.keys().collect();
        // The network of the mode first, as eth0.
        names.sort_by_key(|name| (**name != main.name, (*name).clone()));
        for (index, name) in names.into_iter().enumerate() {
            let network = self.find_network(name).map_err(|_| {
                Problem::not_found(format!("failed to set up container networking: network {name} not found"))
            })?;
            let endpoint =
                self.join_network(container, record, &network, netns, index, index == 0).await.map_err(|problem| {
                    Problem::new(problem.status, format!("failed to set up container networking: {}", problem.message))
                })?;
            held.links.insert(network.id.clone(), (endpoint.1, format!("eth{index}")));
            let address = endpoint.0.ip_address.parse::<IpAddr>().ok();
            attached.addresses.extend(address);
            attached.embedded_dns |= !network.is_predefined();
            self.change(container, |record| drop(record.networks.insert(network.name.clone(), endpoint.0)))
                .map_err(wrap)?;
        }
        if attached.embedded_dns {
            held.embedded_dns = true;
            held.dns = Some(self.start_dns(container, record, netns)?);
        } else {
            attached.peers = self.link_lines(record)?;
        }
        if let Some(IpAddr::V4(address)) = attached.addresses.first() {
            held.ports = self.publish(container, record, &main, *address)?;
        }
        Ok(())
    }

    fn start_dns(
        self: &Arc<Docker>,
        container: &Arc<Container>,
        record: &Record,
        netns: &Netns,
    ) -> Result<dns::Server, Problem> {
        let names = Arc::new(View { docker: Arc::downgrade(self), container: Arc::downgrade(container) });
        let place = Place::Netns(netns.clone());
        Ok(dns::Server::start(&place, names, files::upstreams(record))?)
    }

    /// Joins one network; the endpoint as it is, and the outer name of the pair.
    async fn join_network(
        &self,
        container: &Container,
        record: &Record,
        network: &Network,
        netns: &Netns,
        index: usize,
        default_route: bool,
    ) -> Result<(Endpoint, String), Problem> {
        if network.driver != "bridge" {
            return Err(Problem::bad(format!(
                "container cannot be connected to network {}: its driver is {}",
                network.name, network.driver
            )));
        }
        let mut endpoint = record.networks.get(&network.name).cloned().unwrap_or_default();
        let wanted = endpoint.ipam_config.as_ref().and_then(|ipam| ipam.ipv4_address.parse().ok());
        self.networks.release_address(&network.id, &container.id);
        let address = self.networks.take_address(network, &container.id, wanted)?;
        // An address of an earlier run is not one that was asked for.
        let fresh = parse_mac(&endpoint.mac_address).filter(|_| endpoint.endpoint_id.is_empty());
        let asked = fresh.or_else(|| parse_mac(&record.config.mac_address).filter(|_| index == 0));
        let mac = asked.unwrap_or_else(|| mac_of(address));
        let endpoint_id = new_id();
        let outside = format!("veth{}", &endpoint_id[..7]);
        let interface = format!("eth{index}");
        let place = bridge::Endpoint {
            network,
            netns,
            interface: &interface,
            outside: &outside,
            address,
            mac,
            default_route: default_route && !network.internal,
        };
        if let Err(error) = self.networks.join(&place).await {
            self.networks.release_address(&network.id, &container.id);
            return Err(error.into());
        }
        endpoint.network_id = network.id.clone();
        endpoint.endpoint_id = endpoint_id;
        endpoint.ip_address = address.to_string();
        endpoint.ip_prefix_len = network.subnet.map_or(0, |subnet| subnet.prefix_len());
        endpoint.gateway = network.gateway.map(|gateway| gateway.to_string()).unwrap_or_default();
        endpoint.mac_address = mac_text(mac);
        if !network.is_predefined() {
            let short = container.id[..12].to_owned();
            let mut names = vec![record.name.clone()];
            names.extend(endpoint.aliases.iter().flatten().cloned());
            names.extend([short, record.config.hostname.clone()]);
            let mut seen = Vec::new();
            names.retain(|name| {
                !name.is_empty() && !seen.contains(name) && {
                    seen.push(name.clone());
                    true
                }
            });
            endpoint.dns_names = Some(names);
        }
        self.tell_network(network, "connect", container);
        Ok((endpoint, outside))
    }

    pub fn tell_network(&self, network: &Network, action: &str, container: &Container) {
        let attributes = [
            ("container".to_owned(), container.id.clone()),
            ("name".to_owned(), network.name.clone()),
            ("type".to_owned(), network.driver.clone()),
        ];
        self.events.tell("network", action, &network.id, attributes.into());
    }

    /// Lines of hosts for `--link` on the default bridge.
    fn link_lines(&self, record: &Record) -> Result<Vec<(String, String)>, Problem> {
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

    /// Opens the ports that are to be published.
    fn publish(
        &self,
        container: &Container,
        record: &Record,
        network: &Network,
        address: Ipv4Addr,
    ) -> Result<Vec<Published>, Problem> {
        let mut wanted: Map<Vec<PortBinding>> = record.host.port_bindings.clone().unwrap_or_default();
        if record.host.publish_all_ports {
            for port in record.config.exposed_ports.keys() {
                let whole = if port.contains('/') { port.clone() } else { format!("{port}/tcp") };
                wanted.entry(whole).or_insert_with(|| vec![PortBinding::default()]);
            }
        }
        let (mut open, mut shown) = (Vec::new(), Map::new());
        for (port, bindings) in wanted {
            let (number, protocol) = ports::parse_port(&port).map_err(Problem::bad)?;
            let target = SocketAddr::new(address.into(), number);
            let mut list: Vec<PortBinding> = Vec::new();
            for binding in bindings {
                let host = match binding.host_ip.as_str() {
                    "" => network.host_binding(),
                    text => {
                        Some(text.parse::<IpAddr>().map_err(|_| Problem::bad(format!("invalid IP address: {text}")))?)
                    }
                };
                let range = ports::parse_range(&binding.host_port).map_err(Problem::bad)?;
                let published = ports::publish(protocol, host, range, target).map_err(|error| {
                    let host = host.map_or("0.0.0.0".to_owned(), |host| host.to_string());
                    let why = match error.kind() {
                        std::io::ErrorKind::AddrInUse => "address already in use".to_owned(),
                        std::io::ErrorKind::AddrNotAvailable => "cannot assign requested address".to_owned(),
                        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
                        _ => error.to_string(),
                    };
                    Problem::internal(format!(
                        "failed to set up container networking: driver failed programming external connectivity on endpoint {} ({}): failed to bind host port for {host}:{}:{target}/{}: {why}",
                        record.name,
                        container.id,
                        binding.host_port,
                        port.split('/').nth(1).unwrap_or("tcp"),
                    ))
                })?;
                list.extend(published.iter().map(|published| PortBinding {
                    host_ip: published.address.ip().to_string(),
                    host_port: published.address.port().to_string(),
                }));
                open.extend(published);
            }
            let whole = if port.contains('/') { port } else { format!("{port}/tcp") };
            shown.insert(whole, list);
        }
        self.change(container, |record| record.ports = shown)?;
        Ok(open)
    }

    /// Gives a container's networks back; what takes long goes on in the background.
    pub async fn detach_networks(self: &Arc<Docker>, container: &Arc<Container>, attached: Attached) {
        let Attached { links, ports, dns, .. } = attached;
        drop((ports, dns));
        let cleared = self.change(container, |record| {
            record.ports.clear();
            record.networks.values_mut().for_each(clear);
        });
        if let Err(error) = cleared {
            tracing::warn!(container = container.id, %error, "a network could not be given back in the record");
        }
        for network in links.keys() {
            self.networks.release_address(network, &container.id);
            if let Some(network) = self.networks.find(network) {
                self.tell_network(&network, "disconnect", container);
            }
        }
        // The pairs go with the container's namespace, which the engine lets go of.
    }

    pub fn release_addresses(&self, container: &Container) {
        for network in self.networks.list() {
            self.networks.release_address(&network.id, &container.id);
        }
    }

    /// A container that ran through a restart of the daemon: its addresses are its own, its ports and names come back.
    pub async fn take_up_networks(self: &Arc<Docker>, container: &Arc<Container>, record: &Record) {
        let path = self.engine.netns_of(&container.id);
        if record.networks.is_empty() || matches!(record.host.network_mode.as_str(), "host" | "none") {
            return;
        }
        let mut held = Attached { netns: Some(path.clone()), ..Attached::default() };
        let main = self.networks.find(&record.host.network_mode);
        let mut names: Vec<&String> = record.networks.keys().collect();
        names.sort_by_key(|name| (main.as_ref().is_some_and(|main| **name != main.name), (*name).clone()));
        for (index, name) in names.into_iter().enumerate() {
            let (Some(endpoint), Some(network)) = (record.networks.get(name), self.networks.find(name)) else {
                continue;
            };
            if let Ok(address) = endpoint.ip_address.parse() {
                self.networks.note_address(&network, &container.id, address);
                let outside = format!("veth{}", endpoint.endpoint_id.get(..7).unwrap_or_default());
                held.links.insert(network.id.clone(), (outside, format!("eth{index}")));
                held.embedded_dns |= !network.is_predefined();
                if main.as_ref().is_some_and(|main| main.id == network.id) {
                    let wanted = fixed_ports(record);
                    match self.publish(container, &wanted, &network, address) {
                        Ok(ports) => held.ports = ports,
                        Err(problem) => tracing::warn!(
                            container = container.id,
                            error = problem.message,
                            "a port cannot be published again"
                        ),
                    }
                }
            }
        }
        if held.embedded_dns {
            let started = Netns::open(&path)
                .map_err(|error| Problem::internal(error.to_string()))
                .and_then(|netns| self.start_dns(container, record, &netns));
            match started {
                Ok(server) => held.dns = Some(server),
                Err(problem) => tracing::warn!(
                    container = container.id,
                    error = problem.message,
                    "the container's names cannot be served"
                ),
            }
        }
        container.live.lock().network = Some(held);
    }

    /// Puts a container on a further network, now if it runs.
    pub async fn connect(
        self: &Arc<Docker>,
        container: &Arc<Container>,
        network: &Network,
        endpoint: Endpoint,
    ) -> Result<(), Problem> {
        let _changing = container.changing.lock().await;
        let mode = container.with(|record| record.host.network_mode.clone());
        if mode == "host" || network.driver == "host" {
            return Err(Problem::denied(
                "container cannot be connected to host network or disconnected from it: it uses the host's own",
            ));
        }
        if mode.starts_with("container:") {
            return Err(Problem::denied(
                "container sharing network namespace with another container or host cannot be connected to any other network",
            ));
        }
        if mode == "none" || network.driver == "null" {
            return Err(Problem::denied(
                "container cannot be connected to multiple networks with one of the networks in private (none) mode",
            ));
        }
        if container.with(|record| record.networks.contains_key(&network.name)) {
            return Err(Problem::denied(format!(
                "endpoint with name {} already exists in network {}",
                container.name(),
                network.name
            )));
        }
        let endpoint = self.check_endpoint(network, endpoint)?;
        self.change(container, |record| drop(record.networks.insert(network.name.clone(), endpoint)))?;
        if !container.runs() {
            return Ok(());
        }
        let joined = self.join_running(container, network).await;
        if joined.is_err() {
            self.change(container, |record| drop(record.networks.remove(&network.name)))?;
        }
        joined
    }

    async fn join_running(self: &Arc<Docker>, container: &Arc<Container>, network: &Network) -> Result<(), Problem> {
        let record = container.record();
        let netns = Netns::open(&self.engine.netns_of(&container.id))
            .map_err(|error| Problem::internal(format!("open the container's network namespace: {error}")))?;
        let (index, first) = {
            let live = container.live.lock();
            let used: Vec<&str> =
                live.network.iter().flat_map(|network| network.links.values()).map(|(_, name)| name.as_str()).collect();
            let index = (0..).find(|index| !used.contains(&format!("eth{index}").as_str())).unwrap_or(0);
            (index, used.is_empty())
        };
        let (endpoint, outside) = self.join_network(container, &record, network, &netns, index, first).await?;
        self.change(container, |record| drop(record.networks.insert(network.name.clone(), endpoint)))?;
        let needs_dns = {
            let mut live = container.live.lock();
            let held = live.network.get_or_insert_default();
            held.links.insert(network.id.clone(), (outside, format!("eth{index}")));
            !network.is_predefined() && held.dns.is_none()
        };
        if needs_dns {
            let server = self.start_dns(container, &record, &netns)?;
            let mut live = container.live.lock();
            let held = live.network.get_or_insert_default();
            (held.dns, held.embedded_dns) = (Some(server), true);
        }
        Ok(())
    }

    /// Takes a container off a network.
    pub async fn disconnect(
        self: &Arc<Docker>,
        container: &Arc<Container>,
        network: &Network,
        force: bool,
    ) -> Result<(), Problem> {
        let _changing = container.changing.lock().await;
        if network.driver == "host" {
            return Err(Problem::denied(
                "container cannot be disconnected from host network or connected to host network",
            ));
        }
        if !container.with(|record| record.networks.contains_key(&network.name)) {
            if force {
                return Ok(());
            }
            return Err(Problem::denied(format!(
                "container {} is not connected to network {}",
                container.id, network.name
            )));
        }
        let link = {
            let mut live = container.live.lock();
            live.network.as_mut().and_then(|held| held.links.remove(&network.id))
        };
        if let Some((outside, _)) = link {
            self.networks.leave(&outside).await?;
            self.tell_network(network, "disconnect", container);
        }
        self.networks.release_address(&network.id, &container.id);
        self.change(container, |record| drop(record.networks.remove(&network.name)))?;
        self.reroute(container).await;
        Ok(())
    }

    /// The way out leads through a network that is left.
    async fn reroute(&self, container: &Container) {
        let gateway = container.with(|record| {
            record.networks.iter().find_map(|(name, endpoint)| {
                let network = self.networks.find(name).filter(|network| !network.internal)?;
                (!endpoint.ip_address.is_empty()).then_some(network.gateway).flatten()
            })
        });
        if let (Some(gateway), Ok(netns)) = (gateway, Netns::open(&self.engine.netns_of(&container.id)))
            && container.runs()
            && let Err(error) = self.networks.route_through(&netns, gateway).await
        {
            tracing::warn!(container = container.id, %error, "the container has no way out");
        }
    }
}

/// The record with the ports that were open, which must be the same again.
fn fixed_ports(record: &Record) -> Record {
    let mut out = record.clone();
    let unspecified = |binding: &PortBinding| binding.host_ip == "::";
    let fixed = record.ports.iter().map(|(port, bindings)| {
        let bindings = bindings.iter().filter(|binding| !unspecified(binding)).map(|binding| PortBinding {
            host_ip: if binding.host_ip == "0.0.0.0" { String::new() } else { binding.host_ip.clone() },
            host_port: binding.host_port.clone(),
        });
        (port.clone(), bindings.collect())
    });
    out.host.port_bindings = Some(fixed.collect());
    out.host.publish_all_ports = false;
    out
}

/// What belonged to the run only.
fn clear(endpoint: &mut Endpoint) {
    let asked = Endpoint {
        ipam_config: endpoint.ipam_config.take(),
        links: endpoint.links.take(),
        aliases: endpoint.aliases.take(),
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

/// The names of a container's networks, as it sees them.
struct View {
    docker: Weak<Docker>,
    container: Weak<Container>,
}

impl Names for View {
    fn addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
        let (docker, own) = (self.docker.upgrade()?, self.container.upgrade()?);
        let (networks, links) = own.with(|record| {
            let mut links: Vec<String> = record.host.links.clone().unwrap_or_default();
            links.extend(record.networks.values().flat_map(|endpoint| endpoint.links.iter().flatten().cloned()));
            let networks: Vec<String> =
                record.networks.keys().filter(|name| name.as_str() != "bridge").cloned().collect();
            (networks, links)
        });
        let linked = links.iter().map(|link| split_link(link)).find(|(_, alias)| alias.eq_ignore_ascii_case(name));
        let linked = linked.and_then(|(target, _)| docker.container(target).ok()).map(|container| container.id.clone());
        let mut found = Vec::new();
        let mut known = linked.is_some();
        for container in docker.store.all() {
            container.with(|record| {
                for network in &networks {
                    let Some(endpoint) =
                        record.networks.get(network).filter(|endpoint| !endpoint.ip_address.is_empty())
                    else {
                        continue;
                    };
                    let named = endpoint.dns_names.iter().flatten().any(|own| {
                        name.eq_ignore_ascii_case(own)
                            || name
                                .strip_suffix(network.as_str())
                                .and_then(|name| name.strip_suffix('.'))
                                .is_some_and(|name| name.eq_ignore_ascii_case(own))
                    });
                    if named || linked.as_deref() == Some(container.id.as_str()) {
                        known = true;
                        found.extend(endpoint.ip_address.parse::<IpAddr>().ok());
                    }
                }
            });
        }
        // Those under one name take turns.
        fastrand::shuffle(&mut found);
        known.then_some(found)
    }

    fn name(&self, address: IpAddr) -> Option<String> {
        let (docker, own) = (self.docker.upgrade()?, self.container.upgrade()?);
        let networks: Vec<String> = own.with(|record| record.networks.keys().cloned().collect());
        let text = address.to_string();
        docker.store.all().iter().find_map(|container| {
            container.with(|record| {
                let network = networks.iter().find(|network| {
                    record.networks.get(*network).is_some_and(|endpoint| endpoint.ip_address == text)
                })?;
                Some(format!("{}.{network}", record.name))
            })
        })
    }
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
