//! What a network is, and what it is asked to be.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Addresses of one family that a network gives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pool {
    pub subnet: IpNet,
    /// Where addresses are given from, within the subnet.
    pub range: Option<IpNet>,
    pub gateway: Option<IpAddr>,
    /// Addresses that are somebody else's.
    pub auxiliary: BTreeMap<String, IpAddr>,
    /// The subnet was asked for, not chosen here.
    pub given: bool,
    /// So was the gateway.
    pub gateway_given: bool,
}

/// A network.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Network {
    pub id: String,
    pub name: String,
    /// `bridge`, `macvlan`, `ipvlan`, `host` or `null`
    pub driver: String,
    /// RFC 3339 with nanoseconds.
    pub created: String,
    pub internal: bool,
    pub attachable: bool,
    pub ipv4: bool,
    pub ipv6: bool,
    /// At most one of each family, IPv4 first.
    pub pools: Vec<Pool>,
    pub options: BTreeMap<String, String>,
    pub ipam_options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    /// The link that its containers share was made for it, and goes with it.
    #[serde(default)]
    pub made_parent: bool,
}

impl Network {
    /// Networks that are always there.
    pub fn is_predefined(&self) -> bool {
        matches!(self.name.as_str(), "bridge" | "host" | "none")
    }

    pub fn pool(&self, ipv6: bool) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.subnet.addr().is_ipv6() == ipv6)
    }

    pub fn gateway4(&self) -> Option<Ipv4Addr> {
        match self.pool(false)?.gateway? {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        }
    }

    pub fn gateway6(&self) -> Option<Ipv6Addr> {
        match self.pool(true)?.gateway? {
            IpAddr::V6(address) => Some(address),
            IpAddr::V4(_) => None,
        }
    }

    pub fn prefix_length(&self, ipv6: bool) -> u8 {
        self.pool(ipv6).map_or(0, |pool| pool.subnet.prefix_len())
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

    /// The host has no IPv4 address of its own on the bridge.
    pub fn inhibits_ipv4(&self) -> bool {
        self.option("com.docker.network.bridge.inhibit_ipv4", false)
    }

    pub fn mtu(&self) -> Option<u32> {
        self.options.get("com.docker.network.driver.mtu").and_then(|mtu| mtu.parse().ok())
    }

    /// What interfaces in containers are called before their number.
    pub fn interface_prefix(&self) -> &str {
        self.options.get("com.docker.network.container_iface_prefix").map_or("eth", String::as_str)
    }

    /// Where ports are published unless told otherwise.
    pub fn host_binding(&self) -> Option<IpAddr> {
        let address = self.options.get("com.docker.network.bridge.host_binding_ipv4")?;
        address.parse().ok().filter(|address: &IpAddr| !address.is_unspecified())
    }
}

/// A pool as asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct WantedPool {
    pub subnet: IpNet,
    pub range: Option<IpNet>,
    pub gateway: Option<IpAddr>,
    pub auxiliary: BTreeMap<String, IpAddr>,
}

/// What a network is asked to be.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub name: String,
    pub driver: String,
    pub internal: bool,
    pub attachable: bool,
    pub ipv4: bool,
    pub ipv6: bool,
    pub pools: Vec<WantedPool>,
    pub options: BTreeMap<String, String>,
    pub ipam_options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
}

impl Wanted {
    /// A network on a bridge with IPv4 addresses of its own choice.
    pub fn bridge(name: &str) -> Wanted {
        Wanted {
            name: name.to_owned(),
            driver: "bridge".into(),
            internal: false,
            attachable: false,
            ipv4: true,
            ipv6: false,
            pools: Vec::new(),
            options: BTreeMap::new(),
            ipam_options: BTreeMap::new(),
            labels: BTreeMap::new(),
        }
    }
}
