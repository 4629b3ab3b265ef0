//! Container networks: bridges in the daemon's network namespace, addresses, names, published ports.
//!
//! ```text
//! Networks ─ one record a network (networks.json), its addresses in use
//!   ├─ pools   subnets, and the addresses in them
//!   ├─ bridge  the link, the veth pairs of containers
//!   ├─ vlan    containers on a link of the host: macvlan and ipvlan
//!   ├─ nft     one table: masquerade, and what may pass between bridges
//!   ├─ dns     the server that each container on a user-made network has at 127.0.0.11
//!   └─ ports   published ports; sctp: what the libraries do not know of that protocol
//! ```

pub mod bridge;
pub mod dns;
pub mod model;
pub mod nft;
pub mod pools;
pub mod ports;
mod sctp;
pub mod vlan;

use std::{
    collections::BTreeMap,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use ipnet::IpNet;
use parking_lot::{Mutex, RwLock};

pub use self::model::{Network, Wanted};
use self::pools::{Addresses, Allocations};
use crate::{
    engine::model::new_id,
    error::{Context, Error, Result},
};

/// The network that containers are on unless told otherwise.
pub const DEFAULT: &str = "bridge";

/// All networks of a data directory.
pub struct Networks {
    path: PathBuf,
    networks: RwLock<BTreeMap<String, Arc<Network>>>,
    /// Held while they are written; taken before `networks`.
    saving: Mutex<()>,
    addresses: Allocations,
    /// One change of links and rules at a time.
    pub(crate) changing: tokio::sync::Mutex<()>,
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
                let network = predefined(name, driver, &taken(&networks))?;
                networks.insert(network.id.clone(), Arc::new(network));
            }
        }
        let out = Networks {
            path,
            networks: RwLock::new(networks),
            saving: Mutex::default(),
            addresses: Allocations::default(),
            changing: tokio::sync::Mutex::new(()),
        };
        out.save()?;
        Ok(out)
    }

    fn save(&self) -> Result<()> {
        let _saving = self.saving.lock();
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
        self.find(DEFAULT).and_then(|network| network.gateway4()).map(|gateway| gateway.to_string()).unwrap_or_default()
    }

    /// Records a network; its link is made by [`bridge`] or [`vlan`].
    pub fn create(&self, wanted: Wanted) -> Result<Arc<Network>> {
        let mut networks = self.networks.write();
        if networks.values().any(|network| network.name == wanted.name) {
            return Err(Error::precondition(format!("network with name {} already exists", wanted.name)));
        }
        if let Some(bridge) = wanted.options.get("com.docker.network.bridge.name")
            && let Some(other) =
                networks.values().find(|network| network.driver == "bridge" && network.bridge() == *bridge)
        {
            return Err(Error::denied(format!(
                "cannot create network {} ({bridge}): conflicts with network {} ({bridge}): networks have same bridge name",
                wanted.name, other.id
            )));
        }
        let mut taken = taken(&networks);
        let mut made = Vec::new();
        let mut asked = wanted.pools;
        for (ipv6, on) in [(false, wanted.ipv4), (true, wanted.ipv6)] {
            if !on {
                continue;
            }
            let own =
                asked.iter().position(|pool| pool.subnet.addr().is_ipv6() == ipv6).map(|index| asked.remove(index));
            let pool = match own {
                Some(pool) => pools::judge(pool, &taken, true)?,
                None => pools::choose(ipv6, &taken)?,
            };
            taken.push(pool.subnet);
            made.push(pool);
        }
        let network = Arc::new(Network {
            id: new_id(),
            name: wanted.name,
            driver: wanted.driver,
            created: jiff::Timestamp::now().to_string(),
            internal: wanted.internal,
            attachable: wanted.attachable,
            ipv4: wanted.ipv4,
            ipv6: wanted.ipv6,
            pools: made,
            options: wanted.options,
            ipam_options: wanted.ipam_options,
            labels: wanted.labels,
            made_parent: false,
        });
        networks.insert(network.id.clone(), network.clone());
        drop(networks);
        self.save()?;
        Ok(network)
    }

    /// Forgets a network. The caller knows that nobody is on it.
    pub fn remove(&self, id: &str) -> Result<()> {
        self.networks.write().remove(id);
        self.addresses.forget(id);
        self.save()
    }

    /// Notes whether the link that a network's containers share was made for it.
    fn note_parent(&self, id: &str, made: bool) -> Result<()> {
        if let Some(network) = self.networks.write().get_mut(id) {
            Arc::make_mut(network).made_parent = made;
        }
        self.save()
    }

    /// Another network on the same link.
    fn sharing(&self, network: &Network) -> Option<Arc<Network>> {
        let parent = vlan::vlan_parent(network)?;
        self.list().into_iter().find(|other| other.id != network.id && vlan::vlan_parent(other) == Some(parent))
    }

    /// Gives an address of each family to `owner`: those asked for, or the next that are free.
    pub fn take_addresses(&self, network: &Network, owner: &str, wanted: Addresses) -> Result<Addresses> {
        self.addresses.take(network, owner, wanted)
    }

    /// Notes an address that a container has from an earlier daemon.
    pub fn note_address(&self, network: &Network, owner: &str, address: IpAddr) {
        self.addresses.note(&network.id, owner, address);
    }

    pub fn release_address(&self, network: &str, owner: &str) {
        self.addresses.release(network, owner);
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
            for pool in network.pools.iter().filter(|_| network.masquerades()) {
                postrouting.push(vec![Source(pool.subnet), OutputIsNot(name.clone()), Masquerade]);
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

/// The subnets that are in use.
fn taken(networks: &BTreeMap<String, Arc<Network>>) -> Vec<IpNet> {
    networks.values().flat_map(|network| network.pools.iter().map(|pool| pool.subnet)).collect()
}

/// One of the networks that are always there.
fn predefined(name: &str, driver: &str, taken: &[IpNet]) -> Result<Network> {
    let mut network = Network {
        id: new_id(),
        name: name.into(),
        driver: driver.into(),
        created: jiff::Timestamp::now().to_string(),
        ipv4: true,
        ..Network::default()
    };
    if driver == "bridge" {
        network.pools.push(pools::choose(false, taken)?);
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
    Ok(network)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_have_subnets_of_their_own_and_are_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let networks = Networks::open(dir.path()).unwrap();
        let default = networks.find("bridge").unwrap();
        let own = networks.create(Wanted { ipv6: true, ..Wanted::bridge("own") }).unwrap();
        assert!(!pools::overlap(&default.pools[0].subnet, &own.pools[0].subnet));
        assert!(own.gateway4().is_some() && own.gateway6().is_some());
        assert!(networks.create(Wanted::bridge("own")).unwrap_err().to_string().contains("already exists"));
        drop(networks);
        assert_eq!(Networks::open(dir.path()).unwrap().find("own").unwrap(), own);
    }
}
