//! A container's networks: which it is on, what it has there, who it finds by name, which of its ports are published.

mod connect;
mod endpoints;
mod names;
mod publish;

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, sync::Arc, time::Instant};

use coracle_link::{Netns, Place};

pub use self::endpoints::split_link;
use self::{
    endpoints::{INTERFACE_NAME, asked_addresses, asked_link_locals, clear},
    names::View,
    publish::fixed_ports,
};
use super::{
    super::{Docker, http::Problem, metrics::Action, types::Endpoint},
    Container, Record, files,
};
use crate::{
    engine::model::new_id,
    networks::{
        Network,
        bridge::{self, Inside, mac_text, parse_mac},
        dns,
        pools::Addresses,
        ports::Published,
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
    /// Network id → its place there.
    pub links: BTreeMap<String, Link>,
    /// The networks that the ways out lead through: IPv4, IPv6.
    pub ways_out: [Option<String>; 2],
    pub ports: Vec<Published>,
    pub dns: Option<dns::Server>,
}

/// One interface of a running container.
#[derive(Clone, Debug)]
pub struct Link {
    /// The end on the host; none where there is no pair.
    pub outside: Option<String>,
    pub inside: String,
}

fn open(path: &std::path::Path) -> Result<Netns, Problem> {
    Netns::open(path).map_err(|error| Problem::internal(format!("open the container's network namespace: {error}")))
}

impl Docker {
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
        // Changes to the kernel's network are waited for: elsewhere.
        let (docker, container, record) = (self.clone(), container.clone(), record.clone());
        let runtime = tokio::runtime::Handle::current();
        let made = self.engine.blocking(move || -> Result<Attached, Problem> {
            let began = Instant::now();
            let joins = record.host.network_mode != "none" && !record.config.network_disabled;
            let open = || joins.then(Inside::here).transpose();
            let (path, inside) = docker.engine.make_netns(&container.id, open)?;
            let mut attached = Attached { netns: Some(path.clone()), ..Attached::default() };
            let mut held = Attached { netns: Some(path), ..Attached::default() };
            let made = match inside {
                Some(inside) => runtime
                    .block_on(docker.join_all(&container, &record, &inside, &mut attached, &mut held))
                    .map(|()| docker.metrics.did(Action::AllocateNetworks, began)),
                None => Ok(()),
            };
            // Held already, so that a failed start gives back what was made.
            container.live.lock().network = Some(held);
            made.map(|()| attached)
        });
        made.await?
    }

    async fn join_all(
        self: &Arc<Docker>,
        container: &Arc<Container>,
        record: &Record,
        inside: &Inside,
        attached: &mut Attached,
        held: &mut Attached,
    ) -> Result<(), Problem> {
        let wrap = |problem: Problem| {
            Problem::new(problem.status, format!("failed to set up container networking: {}", problem.message))
        };
        let networks = self.networks_of(record).map_err(wrap)?;
        held.ways_out = ways_out(record, &networks);
        for (index, network) in networks.iter().enumerate() {
            let (endpoint, link) =
                self.join_network(container, record, network, inside, index, &held.ways_out).await.map_err(wrap)?;
            held.links.insert(network.id.clone(), link);
            attached.addresses.extend(endpoint.addresses());
            attached.embedded_dns |= !network.is_predefined();
            self.change(container, |record| drop(record.networks.insert(network.name.clone(), endpoint)))
                .map_err(|error| wrap(error.into()))?;
        }
        if attached.embedded_dns {
            held.embedded_dns = true;
            held.dns = Some(self.start_dns(container, record, &inside.netns)?);
        } else {
            attached.peers = self.link_lines(record)?;
        }
        let way_out = published_on(&held.ways_out, &networks);
        held.ports = self.publish(container, record, way_out)?;
        Ok(())
    }

    /// The networks of a container, the one of its mode first, as eth0.
    fn networks_of(&self, record: &Record) -> Result<Vec<Arc<Network>>, Problem> {
        let main = self.find_network(&record.host.network_mode)?;
        let mut out = record.networks.keys().map(|name| self.find_network(name)).collect::<Result<Vec<_>, _>>()?;
        out.sort_by_key(|network| (network.id != main.id, network.name.clone()));
        Ok(out)
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

    /// Joins one network; the endpoint as it is, and its interface.
    async fn join_network(
        &self,
        container: &Container,
        record: &Record,
        network: &Network,
        inside: &Inside,
        index: usize,
        ways_out: &[Option<String>; 2],
    ) -> Result<(Endpoint, Link), Problem> {
        if matches!(network.driver.as_str(), "host" | "null") {
            return Err(Problem::bad(format!(
                "container cannot be connected to network {}: its driver is {}",
                network.name, network.driver
            )));
        }
        let began = Instant::now();
        let mut endpoint = record.networks.get(&network.name).cloned().unwrap_or_default();
        let link_locals = asked_link_locals(network, &endpoint)?;
        self.networks.release_address(&network.id, &container.id);
        let addresses = self.networks.take_addresses(network, &container.id, asked_addresses(&endpoint))?;
        let mac = parse_mac(&endpoint.wanted_mac).unwrap_or_else(|| bridge::mac_for(addresses));
        let endpoint_id = new_id();
        let link = Link {
            outside: (network.driver == "bridge").then(|| outside_name(&endpoint_id)),
            inside: match endpoint.driver_opts.as_ref().and_then(|options| options.get(INTERFACE_NAME)) {
                Some(name) => name.clone(),
                None => format!("{}{index}", network.interface_prefix()),
            },
        };
        let place = bridge::Endpoint {
            network,
            inside,
            interface: &link.inside,
            outside: link.outside.as_deref().unwrap_or_default(),
            addresses,
            link_locals: &link_locals,
            mac,
            default_routes: ways_out.each_ref().map(|way| way.as_ref() == Some(&network.id)),
        };
        if let Err(error) = self.networks.join(&place).await {
            self.networks.release_address(&network.id, &container.id);
            return Err(error.into());
        }
        endpoint.network_id = network.id.clone();
        endpoint.endpoint_id = endpoint_id;
        endpoint.mac_address = mac_text(mac);
        fill_addresses(&mut endpoint, network, addresses);
        if !network.is_predefined() {
            let names = [record.name.clone()]
                .into_iter()
                .chain(endpoint.aliases.iter().flatten().cloned())
                .chain([container.id[..12].to_owned(), record.config.hostname.clone()]);
            let mut seen = Vec::new();
            for name in names.filter(|name| !name.is_empty()) {
                if !seen.contains(&name) {
                    seen.push(name);
                }
            }
            endpoint.dns_names = Some(seen);
        }
        self.tell_network(network, "connect", container);
        self.metrics.did(Action::ConnectNetwork, began);
        Ok((endpoint, link))
    }

    pub fn tell_network(&self, network: &Network, action: &str, container: &Container) {
        let attributes = [
            ("container".to_owned(), container.id.clone()),
            ("name".to_owned(), network.name.clone()),
            ("type".to_owned(), network.driver.clone()),
        ];
        self.events.tell("network", action, &network.id, attributes.into());
    }

    /// Gives a container's networks back; what takes long goes on in the background.
    pub async fn detach_networks(self: &Arc<Docker>, container: &Arc<Container>, attached: Attached) {
        let began = Instant::now();
        let Attached { netns, links, ports, dns, .. } = attached;
        drop((ports, dns));
        for link in links.values().filter(|link| link.outside.is_none()) {
            // At once: while it is there its Ethernet address is taken on the parent, and the next start wants it.
            let Some(Ok(netns)) = netns.as_deref().map(Netns::open) else { continue };
            if let Err(error) = self.networks.leave_inside(&netns, &link.inside).await {
                tracing::debug!(container = container.id, %error, "an interface is left to its namespace");
            }
        }
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
        if !links.is_empty() {
            self.metrics.did(Action::ReleaseNetworks, began);
        }
        // The interfaces go with the container's namespace, which the engine lets go of.
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
        let networks = self.networks_of(record).unwrap_or_default();
        held.ways_out = ways_out(record, &networks);
        for (index, network) in networks.iter().enumerate() {
            let Some(endpoint) = record.networks.get(&network.name).filter(|endpoint| endpoint.is_joined()) else {
                continue;
            };
            for address in endpoint.addresses() {
                self.networks.note_address(network, &container.id, address);
            }
            let inside = endpoint.driver_opts.as_ref().and_then(|options| options.get(INTERFACE_NAME));
            let link = Link {
                outside: (network.driver == "bridge").then(|| outside_name(&endpoint.endpoint_id)),
                inside: inside.cloned().unwrap_or_else(|| format!("{}{index}", network.interface_prefix())),
            };
            held.links.insert(network.id.clone(), link);
            held.embedded_dns |= !network.is_predefined();
        }
        match self.publish(container, &fixed_ports(record), published_on(&held.ways_out, &networks)) {
            Ok(ports) => held.ports = ports,
            Err(problem) => {
                tracing::warn!(container = container.id, error = problem.message, "a port cannot be published again");
            }
        }
        if held.embedded_dns {
            match open(&path).and_then(|netns| self.start_dns(container, record, &netns)) {
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
}

/// The name of a pair's end on the host.
fn outside_name(endpoint: &str) -> String {
    format!("veth{}", endpoint.get(..7).unwrap_or_default())
}

fn fill_addresses(endpoint: &mut Endpoint, network: &Network, addresses: Addresses) {
    let text = |address: Option<IpAddr>| address.map(|address| address.to_string()).unwrap_or_default();
    if let Some(address) = addresses.v4 {
        endpoint.ip_address = address.to_string();
        endpoint.ip_prefix_len = network.prefix_length(false);
        endpoint.gateway = text(network.gateway4().filter(|_| !network.internal).map(IpAddr::V4));
    }
    if let Some(address) = addresses.v6 {
        endpoint.global_ipv6_address = address.to_string();
        endpoint.global_ipv6_prefix_len = network.prefix_length(true);
        endpoint.ipv6_gateway = text(network.gateway6().filter(|_| !network.internal).map(IpAddr::V6));
    }
}

/// The networks through which a container's packets leave, one of each family: the highest priority, and the first by
/// name of those (libnetwork `sandbox.go`, `Endpoint.Less`).
pub fn ways_out(record: &Record, networks: &[Arc<Network>]) -> [Option<String>; 2] {
    [false, true].map(|ipv6| {
        let gates = networks
            .iter()
            .filter(|network| !network.internal && network.pool(ipv6).is_some_and(|pool| pool.gateway.is_some()));
        let priority =
            |network: &Network| record.networks.get(&network.name).map_or(0, |endpoint| endpoint.gw_priority);
        gates
            .min_by_key(|network| (std::cmp::Reverse(priority(network)), network.name.clone()))
            .map(|network| network.id.clone())
    })
}

/// The network on which ports are published: the way out of IPv4, or of IPv6 where there is no other.
fn published_on<'a>(ways_out: &[Option<String>; 2], networks: &'a [Arc<Network>]) -> Option<&'a Network> {
    let id = ways_out.iter().flatten().next()?;
    networks.iter().find(|network| network.id == *id).map(Arc::as_ref)
}
