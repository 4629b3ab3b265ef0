//! The bridge driver: a bridge a network, a veth pair an endpoint.

use std::net::{IpAddr, Ipv4Addr};

use coracle_link::{IpNet, Links, Mac, Netns, Place, Route, Veth};

use super::{Network, Networks, nft};
use crate::error::{Context, Error, Result};

fn failed(error: coracle_link::Error) -> Error {
    Error::internal(error.to_string())
}

/// Docker's addresses of interfaces: 02:42 and the IPv4 address.
pub fn mac_of(address: Ipv4Addr) -> Mac {
    let [a, b, c, d] = address.octets();
    [0x02, 0x42, a, b, c, d]
}

pub fn mac_text(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// `02:42:…` as bytes.
pub fn parse_mac(text: &str) -> Option<Mac> {
    let bytes: Vec<u8> = text.split(':').map(|part| u8::from_str_radix(part, 16).ok()).collect::<Option<_>>()?;
    bytes.try_into().ok()
}

/// Where an endpoint goes.
pub struct Endpoint<'a> {
    pub network: &'a Network,
    pub netns: &'a Netns,
    /// The name inside, `eth0`.
    pub interface: &'a str,
    /// The name outside.
    pub outside: &'a str,
    pub address: Ipv4Addr,
    pub mac: Mac,
    /// The way out leads through this network.
    pub default_route: bool,
}

impl Networks {
    /// Makes a network's bridge unless it is there, and the rules of all.
    pub async fn set_up(&self, network: &Network) -> Result<()> {
        if network.driver != "bridge" {
            return Ok(());
        }
        let _changing = self.changing.lock().await;
        let links = Links::open(&Place::Current).map_err(failed)?;
        let name = network.bridge();
        if links.find(&name).await.map_err(failed)?.is_none() {
            // Fixed: a bridge that takes the address of a port has another one when ports come and go.
            let mac = network.gateway.map_or([0x02, 0x42, 0, 0, 0, 1], |gateway| {
                let mut mac = mac_of(gateway);
                mac[1] = 0x43;
                mac
            });
            links.add_bridge(&name, mac).await.map_err(failed)?;
        }
        if let (Some(subnet), Some(gateway)) = (network.subnet, network.gateway) {
            let address = IpNet::new(gateway.into(), subnet.prefix_len())
                .map_err(|error| Error::internal(format!("{subnet}: {error}")))?;
            links.add_address(&name, address).await.map_err(failed)?;
        }
        links.up(&name).await.map_err(failed)?;
        // Containers reach the world through this host.
        if !network.internal {
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("forward packets between networks")?;
        }
        self.apply_rules()
    }

    /// Writes the rules for the networks there are.
    fn apply_rules(&self) -> Result<()> {
        nft::replace(&self.rules()).context("write the rules of the container networks")
    }

    /// Removes a network's bridge; the network is forgotten already.
    pub async fn tear_down(&self, network: &Network) -> Result<()> {
        if network.driver != "bridge" {
            return Ok(());
        }
        let _changing = self.changing.lock().await;
        let links = Links::open(&Place::Current).map_err(failed)?;
        links.delete(&network.bridge()).await.map_err(failed)?;
        self.apply_rules()
    }

    /// Puts an interface into a container's namespace and onto the bridge.
    pub async fn join(&self, endpoint: &Endpoint<'_>) -> Result<()> {
        let network = endpoint.network;
        let subnet =
            network.subnet.ok_or_else(|| Error::internal(format!("network {} has no subnet", network.name)))?;
        let links = Links::open(&Place::Current).map_err(failed)?;
        let inside = Links::open(&Place::Netns(endpoint.netns.clone())).map_err(failed)?;
        let pair = Veth {
            name: endpoint.outside,
            mac: None,
            peer: endpoint.interface,
            peer_mac: Some(endpoint.mac),
            peer_netns: Some(endpoint.netns),
            mtu: network.mtu(),
        };
        links.add_veth(&pair).await.map_err(failed)?;
        let outside = async {
            links.set_bridge(endpoint.outside, Some(&network.bridge())).await?;
            links.up(endpoint.outside).await
        };
        let own = async {
            let address = IpNet::new(endpoint.address.into(), subnet.prefix_len()).ok();
            if let Some(address) = address {
                inside.add_address(endpoint.interface, address).await?;
            }
            inside.up(endpoint.interface).await?;
            if let Some(gateway) = network.gateway.filter(|_| endpoint.default_route) {
                inside.set_route(&default_route(gateway)).await?;
            }
            Ok(())
        };
        let joined = tokio::try_join!(outside, own).map(drop);
        if joined.is_err() {
            // The error is what matters; the pair would go with the namespace too.
            let _ = links.delete(endpoint.outside).await;
        }
        joined.map_err(failed)
    }

    /// Takes an interface away again.
    pub async fn leave(&self, outside: &str) -> Result<()> {
        let links = Links::open(&Place::Current).map_err(failed)?;
        links.delete(outside).await.map_err(failed)
    }

    /// Leads a container's way out through this gateway.
    pub async fn route_through(&self, netns: &Netns, gateway: Ipv4Addr) -> Result<()> {
        let inside = Links::open(&Place::Netns(netns.clone())).map_err(failed)?;
        inside.set_route(&default_route(gateway)).await.map_err(failed)
    }
}

fn default_route(gateway: Ipv4Addr) -> Route {
    /// RTPROT_STATIC
    const STATIC: u8 = 4;
    Route {
        destination: IpNet::V4(coracle_link::Ipv4Net::default()),
        gateway: Some(IpAddr::V4(gateway)),
        link: None,
        onlink: false,
        protocol: STATIC,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_addresses_are_written_and_read() {
        let mac = mac_of(Ipv4Addr::new(172, 17, 0, 2));
        assert_eq!(mac_text(mac), "02:42:ac:11:00:02");
        assert_eq!(parse_mac("02:42:ac:11:00:02"), Some(mac));
        assert_eq!(parse_mac("02:42"), None);
        assert_eq!(parse_mac("zz:42:ac:11:00:02"), None);
    }
}
