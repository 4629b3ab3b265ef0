//! Container networks: bridges in the daemon's network namespace, addresses, names, published ports.
//!
//! ```text
//! Networks ─ one record a network (networks.json), its addresses in use
//!   ├─ bridge  the link, the veth pairs of containers
//!   ├─ nft     one table: masquerade, and what may pass between bridges
//!   ├─ dns     the server that each container on a user-made network has at 127.0.0.11
//!   └─ ports   published ports
//! ```

pub mod bridge;
pub mod dns;
pub mod nft;
pub mod ports;

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    sync::Arc,
};

use ipnet::Ipv4Net;
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};

use crate::{
    engine::model::new_id,
    error::{Context, Error, Result},
};

/// The network that containers are on unless told otherwise.
pub const DEFAULT: &str = "bridge";

/// A network.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Network {
    pub id: String,
    pub name: String,
    /// `bridge`, `host` or `null`
    pub driver: String,
    /// RFC 3339 with nanoseconds.
    pub created: String,
    pub internal: bool,
    pub attachable: bool,
    pub subnet: Option<Ipv4Net>,
    /// Where addresses are given from, within the subnet.
    pub range: Option<Ipv4Net>,
    pub gateway: Option<Ipv4Addr>,
    /// Addresses that are somebody else's.
    pub auxiliary: BTreeMap<String, Ipv4Addr>,
    /// The subnet was asked for, not chosen here.
    pub subnet_given: bool,
    pub options: BTreeMap<String, String>,
    pub ipam_options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
}

impl Network {
    /// Networks that are always there.
    pub fn is_predefined(&self) -> bool {
        matches!(self.name.as_str(), "bridge" | "host" | "none")
    }

    /// The name of the bridge.
    pub fn bridge(&self) -> String {
        match self.options.get("com.docker.network.bridge.name") {
            Some(name) => name.clone(),
            None => format!("br-{}", &self.id[..12]),
        }
    }

    fn option(&self, key: &str, otherwise: bool) -> bool {
        self.options.get(key).map_or(otherwise, |value| value == "true" || value == "1")
    }

    /// Containers may speak to each other.
    pub fn inter_container(&self) -> bool {
        self.option("com.docker.network.bridge.enable_icc", true)
    }

    pub fn masquerades(&self) -> bool {
        !self.internal && self.option("com.docker.network.bridge.enable_ip_masquerade", true)
    }

    pub fn mtu(&self) -> Option<u32> {
        self.options.get("com.docker.network.driver.mtu").and_then(|mtu| mtu.parse().ok())
    }

    /// Where ports are published unless told otherwise.
    pub fn host_binding(&self) -> Option<IpAddr> {
        let address = self.options.get("com.docker.network.bridge.host_binding_ipv4")?;
        address.parse().ok().filter(|address: &IpAddr| !address.is_unspecified())
    }
}

/// What a network is asked to be.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    pub name: String,
    pub driver: String,
    pub internal: bool,
    pub attachable: bool,
    pub subnet: Option<Ipv4Net>,
    pub range: Option<Ipv4Net>,
    pub gateway: Option<Ipv4Addr>,
    pub auxiliary: BTreeMap<String, Ipv4Addr>,
    pub options: BTreeMap<String, String>,
    pub ipam_options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
}

/// All networks of a data directory.
pub struct Networks {
    path: PathBuf,
    networks: RwLock<BTreeMap<String, Arc<Network>>>,
    /// Network id → address → owner.
    addresses: Mutex<HashMap<String, Allocations>>,
    /// One change of links and rules at a time.
    pub(crate) changing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Allocations {
    owners: BTreeMap<Ipv4Addr, String>,
    last: Option<Ipv4Addr>,
}

impl Networks {
    /// Finds the networks of an earlier daemon; the three that are always there are made on the first start.
    pub fn open(dir: &Path) -> Result<Networks> {
        fs::create_dir_all(dir).context(format!("create {}", dir.display()))?;
        let path = dir.join("networks.json");
        let mut networks: BTreeMap<String, Arc<Network>> = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice::<Vec<Network>>(&bytes)
                .map_err(|error| Error::internal(format!("read {}: {error}", path.display())))?
                .into_iter()
                .map(|network| (network.id.clone(), Arc::new(network)))
                .collect(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(error).context(format!("read {}", path.display())),
        };
        for (name, driver) in [("bridge", "bridge"), ("host", "host"), ("none", "null")] {
            if !networks.values().any(|network| network.name == name) {
                let mut network = Network {
                    id: new_id(),
                    name: name.into(),
                    driver: driver.into(),
                    created: jiff::Timestamp::now().to_string(),
                    ..Network::default()
                };
                if driver == "bridge" {
                    let taken: Vec<Ipv4Net> = networks.values().filter_map(|network| network.subnet).collect();
                    let subnet = free_subnet(&taken)?;
                    network.subnet = Some(subnet);
                    network.gateway = subnet.hosts().next();
                    for (key, value) in [
                        ("com.docker.network.bridge.default_bridge", "true"),
                        ("com.docker.network.bridge.enable_icc", "true"),
                        ("com.docker.network.bridge.enable_ip_masquerade", "true"),
                        ("com.docker.network.bridge.host_binding_ipv4", "0.0.0.0"),
                        ("com.docker.network.bridge.name", "docker0"),
                        ("com.docker.network.driver.mtu", "1500"),
                    ] {
                        network.options.insert(key.into(), value.into());
                    }
                }
                networks.insert(network.id.clone(), Arc::new(network));
            }
        }
        let out = Networks {
            path,
            networks: RwLock::new(networks),
            addresses: Mutex::default(),
            changing: tokio::sync::Mutex::new(()),
        };
        out.save()?;
        Ok(out)
    }

    fn save(&self) -> Result<()> {
        let all: Vec<Network> = self.networks.read().values().map(|network| (**network).clone()).collect();
        let bytes =
            serde_json::to_vec(&all).map_err(|error| Error::internal(format!("encode the networks: {error}")))?;
        let part = self.path.with_extension("part");
        fs::write(&part, bytes)
            .and_then(|()| fs::rename(&part, &self.path))
            .context(format!("write {}", self.path.display()))
    }

    pub fn list(&self) -> Vec<Arc<Network>> {
        self.networks.read().values().cloned().collect()
    }

    /// By id, by name, or by a unique beginning of an id.
    pub fn find(&self, wanted: &str) -> Option<Arc<Network>> {
        let networks = self.networks.read();
        if let Some(found) = networks.get(wanted).or_else(|| networks.values().find(|network| network.name == wanted)) {
            return Some(found.clone());
        }
        let mut beginning = networks.values().filter(|network| !wanted.is_empty() && network.id.starts_with(wanted));
        beginning.next().filter(|_| beginning.next().is_none()).cloned()
    }

    /// How many ids begin so; for telling an ambiguous name from a wrong one.
    pub fn beginning_with(&self, wanted: &str) -> usize {
        self.networks.read().keys().filter(|id| id.starts_with(wanted)).count()
    }

    /// The host as containers on the default bridge reach it.
    pub fn host_gateway(&self) -> String {
        self.find(DEFAULT).and_then(|network| network.gateway).map(|gateway| gateway.to_string()).unwrap_or_default()
    }

    /// Records a network; its bridge is made by [`bridge`].
    pub fn create(&self, wanted: Wanted) -> Result<Arc<Network>> {
        let mut networks = self.networks.write();
        if networks.values().any(|network| network.name == wanted.name) {
            return Err(Error::precondition(format!("network with name {} already exists", wanted.name)));
        }
        let taken: Vec<Ipv4Net> = networks.values().filter_map(|network| network.subnet).collect();
        let subnet = match wanted.subnet {
            Some(subnet) => {
                let subnet = subnet.trunc();
                if taken.iter().any(|other| overlap(other, &subnet)) {
                    return Err(Error::denied(
                        "invalid pool request: Pool overlaps with other one on this address space",
                    ));
                }
                subnet
            }
            None => free_subnet(&taken)?,
        };
        if let Some(range) = wanted.range.filter(|range| !subnet.contains(range)) {
            return Err(Error::invalid(format!(
                "invalid network config:\ninvalid ip-range {range}: it should be within subnet {subnet}"
            )));
        }
        let first = wanted.range.unwrap_or(subnet).hosts().next();
        let gateway = match wanted.gateway {
            Some(gateway) if !subnet.contains(&gateway) => {
                return Err(Error::invalid(format!(
                    "invalid network config:\ninvalid gateway {gateway}: parent subnet {subnet} doesn't contain this address"
                )));
            }
            Some(gateway) => Some(gateway),
            None => first.filter(|_| subnet.prefix_len() < 31),
        };
        let network = Arc::new(Network {
            id: new_id(),
            name: wanted.name,
            driver: wanted.driver,
            created: jiff::Timestamp::now().to_string(),
            internal: wanted.internal,
            attachable: wanted.attachable,
            subnet: Some(subnet),
            range: wanted.range,
            gateway,
            auxiliary: wanted.auxiliary,
            subnet_given: wanted.subnet.is_some(),
            options: wanted.options,
            ipam_options: wanted.ipam_options,
            labels: wanted.labels,
        });
        networks.insert(network.id.clone(), network.clone());
        drop(networks);
        self.save()?;
        Ok(network)
    }

    /// Forgets a network. The caller knows that nobody is on it.
    pub fn remove(&self, id: &str) -> Result<()> {
        self.networks.write().remove(id);
        self.addresses.lock().remove(id);
        self.save()
    }

    /// Gives an address of the network to `owner`: the one asked for, or the next that is free.
    pub fn take_address(&self, network: &Network, owner: &str, wanted: Option<Ipv4Addr>) -> Result<Ipv4Addr> {
        let subnet =
            network.subnet.ok_or_else(|| Error::internal(format!("network {} has no subnet", network.name)))?;
        let mut addresses = self.addresses.lock();
        let allocations = addresses.entry(network.id.clone()).or_default();
        let reserved = |address: &Ipv4Addr| {
            Some(*address) == network.gateway || network.auxiliary.values().any(|other| other == address)
        };
        if let Some(wanted) = wanted {
            if !subnet.contains(&wanted) {
                return Err(Error::invalid(format!(
                    "invalid config for network {}: invalid endpoint settings:\nno configured subnet or ip-range contain the IP address {wanted}",
                    network.name
                )));
            }
            let taken = allocations.owners.get(&wanted).is_some_and(|other| other != owner);
            if taken || reserved(&wanted) {
                return Err(Error::denied("Address already in use"));
            }
            allocations.owners.insert(wanted, owner.to_owned());
            return Ok(wanted);
        }
        let range = network.range.unwrap_or(subnet);
        let (first, last) = (u32::from(range.network()), u32::from(range.broadcast()));
        let start = allocations.last.map_or(first, u32::from);
        let usable = |address: &Ipv4Addr| {
            *address != subnet.network()
                && (*address != subnet.broadcast() || subnet.prefix_len() >= 31)
                && !reserved(address)
                && !allocations.owners.contains_key(address)
        };
        // The one after the last that was given, and round again: an address that was just given back rests.
        let found = (start.saturating_add(1)..=last).chain(first..=start.min(last)).map(Ipv4Addr::from).find(usable);
        let found = found.ok_or_else(|| {
            Error::internal(format!(
                "no available IPv4 addresses on this network's address pools: {} ({})",
                network.name, network.id
            ))
        })?;
        allocations.owners.insert(found, owner.to_owned());
        allocations.last = Some(found);
        Ok(found)
    }

    /// Notes an address that a container has from an earlier daemon.
    pub fn note_address(&self, network: &Network, owner: &str, address: Ipv4Addr) {
        let mut addresses = self.addresses.lock();
        let allocations = addresses.entry(network.id.clone()).or_default();
        allocations.owners.insert(address, owner.to_owned());
        allocations.last = allocations.last.max(Some(address));
    }

    pub fn release_address(&self, network: &str, owner: &str) {
        if let Some(allocations) = self.addresses.lock().get_mut(network) {
            allocations.owners.retain(|_, other| other != owner);
        }
    }

    /// The rules for all bridges.
    pub fn rules(&self) -> nft::Table {
        let (mut forward, mut postrouting) = (Vec::new(), Vec::new());
        for network in self.list().iter().filter(|network| network.driver == "bridge") {
            use nft::Expression::{Accept, Drop, Established, InputIs, Masquerade, OutputIs, OutputIsNot, Source};
            let name = network.bridge();
            let between = if network.inter_container() { Accept } else { Drop };
            forward.push(vec![InputIs(name.clone()), OutputIs(name.clone()), between]);
            // From outside come answers only: published ports are sockets of the host.
            forward.push(vec![OutputIs(name.clone()), Established, Accept]);
            forward.push(vec![OutputIs(name.clone()), Drop]);
            if network.internal {
                forward.push(vec![InputIs(name.clone()), Drop]);
            }
            if let Some(subnet) = network.subnet.filter(|_| network.masquerades()) {
                postrouting.push(vec![Source(subnet), OutputIsNot(name), Masquerade]);
            }
        }
        nft::Table {
            name: "coracle-docker".into(),
            chains: vec![
                nft::Chain { name: "forward", kind: "filter", hook: nft::Hook::Forward, priority: 0, rules: forward },
                nft::Chain {
                    name: "postrouting",
                    kind: "nat",
                    hook: nft::Hook::Postrouting,
                    priority: 100,
                    rules: postrouting,
                },
            ],
        }
    }
}

fn overlap(a: &Ipv4Net, b: &Ipv4Net) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

/// The first of Docker's default pools that neither another network nor a route of the host uses (moby
/// `ipamutils/utils.go`).
fn free_subnet(taken: &[Ipv4Net]) -> Result<Ipv4Net> {
    let routes = host_routes();
    let sixteens = (17..=31).map(|second| Ipv4Net::new_assert(Ipv4Addr::new(172, second, 0, 0), 16));
    let twenties = (0..=15).map(|third| Ipv4Net::new_assert(Ipv4Addr::new(192, 168, third * 16, 0), 20));
    let free = |net: &Ipv4Net| !taken.iter().chain(&routes).any(|other| overlap(net, other));
    sixteens
        .chain(twenties)
        .find(free)
        .ok_or_else(|| Error::internal("all predefined address pools have been fully subnetted"))
}

/// Destinations of the routes in the daemon's network, but for the default one.
fn host_routes() -> Vec<Ipv4Net> {
    let text = fs::read_to_string("/proc/self/net/route").unwrap_or_default();
    let number = |text: &str| u32::from_str_radix(text, 16).ok().map(u32::from_be);
    let parse = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (to, mask) = (number(fields.get(1)?)?, number(fields.get(7)?)?);
        // Our own bridges are in `taken`, under the names their networks have.
        let own = fields.first().is_some_and(|link| *link == "docker0" || link.starts_with("br-"));
        (mask != 0 && !own).then(|| Ipv4Net::new(Ipv4Addr::from(to), mask.count_ones() as u8).ok()).flatten()
    };
    text.lines().skip(1).filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_have_subnets_of_their_own_and_addresses_rest() {
        let dir = tempfile::tempdir().unwrap();
        let networks = Networks::open(dir.path()).unwrap();
        let default = networks.find("bridge").unwrap();
        let own = networks.create(Wanted { name: "own".into(), driver: "bridge".into(), ..Wanted::default() }).unwrap();
        assert!(!overlap(&default.subnet.unwrap(), &own.subnet.unwrap()));
        let first = networks.take_address(&own, "a", None).unwrap();
        assert_eq!(Some(u32::from(first) - 1), own.gateway.map(u32::from));
        let second = networks.take_address(&own, "b", None).unwrap();
        networks.release_address(&own.id, "a");
        let third = networks.take_address(&own, "c", None).unwrap();
        assert!(third > second, "what was given back rests");
        assert!(networks.take_address(&own, "d", Some(second)).is_err());
        assert!(networks.take_address(&own, "d", Some("9.9.9.9".parse().unwrap())).is_err());
        let overlapping = Wanted { name: "x".into(), driver: "bridge".into(), subnet: own.subnet, ..Wanted::default() };
        assert!(networks.create(overlapping).unwrap_err().to_string().contains("Pool overlaps"));
        drop(networks);
        assert_eq!(Networks::open(dir.path()).unwrap().find("own").unwrap(), own);
    }

    #[test]
    fn a_small_range_is_used_to_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let networks = Networks::open(dir.path()).unwrap();
        let subnet = "10.77.0.0/29".parse().ok();
        let network = networks
            .create(Wanted { name: "small".into(), driver: "bridge".into(), subnet, ..Wanted::default() })
            .unwrap();
        for owner in 0..5 {
            networks.take_address(&network, &owner.to_string(), None).unwrap();
        }
        assert!(networks.take_address(&network, "x", None).is_err());
        networks.release_address(&network.id, "2");
        networks.take_address(&network, "x", None).unwrap();
    }
}
