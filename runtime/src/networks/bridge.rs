//! The bridge driver: a bridge a network, a veth pair an endpoint.

use std::{
    fs::File,
    net::{IpAddr, Ipv4Addr},
    os::unix::fs::FileExt,
};

use coracle_link::{Batch, IpNet, Links, Mac, Netns, Place, Route, Socket, Veth};

use super::{Network, Networks, nft, pools::Addresses, vlan};
use crate::error::{Context, Error, Result};

pub(super) fn failed(error: coracle_link::Error) -> Error {
    Error::internal(error.to_string())
}

/// Docker's addresses of interfaces: 02:42 and the IPv4 address.
pub fn mac_of(address: Ipv4Addr) -> Mac {
    let [a, b, c, d] = address.octets();
    [0x02, 0x42, a, b, c, d]
}

/// The address of an endpoint that asks for none: from its IPv4 address, or at random and locally administered.
pub fn mac_for(addresses: Addresses) -> Mac {
    addresses.v4.map(mac_of).unwrap_or_else(|| {
        let [a, b, c, d] = fastrand::u32(..).to_be_bytes();
        [0x02, 0x42, a, b, c, d]
    })
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
    pub inside: &'a Inside,
    /// The name inside, `eth0`.
    pub interface: &'a str,
    /// The name outside.
    pub outside: &'a str,
    pub addresses: Addresses,
    /// Addresses for the wire alone, which no network gives (RFC 3927, RFC 4291).
    pub link_locals: &'a [IpAddr],
    pub mac: Mac,
    /// Whether the way out leads through this network: of IPv4, of IPv6.
    pub default_routes: [bool; 2],
}

/// A container's network namespace with what sets up its interfaces: opened inside, used from anywhere.
pub struct Inside {
    pub netns: Netns,
    socket: Socket,
    /// `net.ipv6.conf.default.disable_ipv6`; a kernel without IPv6 has none.
    no_ipv6: Option<File>,
}

impl Inside {
    /// Of the namespace that the calling thread is in.
    pub fn here() -> Result<Inside> {
        let path = "/proc/sys/net/ipv6/conf/default/disable_ipv6";
        let no_ipv6 = match File::options().read(true).write(true).open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            file => Some(file.context(format!("open {path}"))?),
        };
        let netns = Netns::current().context("open the container's network namespace")?;
        Ok(Inside { netns, socket: Socket::open(&Place::Current).map_err(failed)?, no_ipv6 })
    }

    pub fn of(netns: &Netns) -> Result<Inside> {
        netns.run(|| Ok(Inside::here())).context("enter the container's network namespace")?
    }

    /// Sets whether interfaces that are made from now on have no IPv6, and returns what it was. An interface's own setting
    /// would have to wait for everybody who changes interfaces anywhere, and again and again (kernel, addrconf.c,
    /// `addrconf_disable_ipv6`).
    fn disable_ipv6(&self, off: bool) -> Result<bool> {
        let Some(file) = &self.no_ipv6 else {
            return if off { Ok(true) } else { Err(Error::internal("the kernel of this host has no IPv6")) };
        };
        let what = || "set IPv6 of a container's interface".to_owned();
        let mut text = [0; 8];
        let count = file.read_at(&mut text, 0).context(what())?;
        let before = text[..count].first() == Some(&b'1');
        if before != off {
            file.write_all_at(if off { b"1" } else { b"0" }, 0).context(what())?;
        }
        Ok(before)
    }
}

impl Networks {
    /// Makes what a network needs on the host unless it is there, and the rules of all.
    pub async fn set_up(&self, network: &Network) -> Result<()> {
        let _changing = self.changing.lock().await;
        match network.driver.as_str() {
            "bridge" => make_bridge(network).await?,
            "macvlan" | "ipvlan" => return self.set_up_vlan(network).await,
            _ => return Ok(()),
        }
        // Containers reach the world through this host.
        if !network.internal {
            if network.ipv4 {
                std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("forward packets between networks")?;
            }
            if network.ipv6 {
                for which in ["default", "all"] {
                    let path = format!("/proc/sys/net/ipv6/conf/{which}/forwarding");
                    std::fs::write(path, "1").context("forward IPv6 packets between networks")?;
                }
            }
        }
        self.apply_rules()
    }

    /// Writes the rules for the networks there are.
    fn apply_rules(&self) -> Result<()> {
        nft::replace(&self.rules()).context("write the rules of the container networks")
    }

    /// Writes the rules again where somebody flushed them.
    pub async fn keep_rules(&self) -> Result<()> {
        let _changing = self.changing.lock().await;
        let wanted = self.rules();
        let there = nft::count_rules(&wanted.name).context("count the rules of the container networks")?;
        if there == wanted.chains.iter().map(|chain| chain.rules.len()).sum::<usize>() {
            return Ok(());
        }
        tracing::info!("the rules of the container networks were changed by somebody, and are written again");
        self.apply_rules()
    }

    /// Removes a network's bridge; the network is forgotten already.
    pub async fn tear_down(&self, network: &Network) -> Result<()> {
        let _changing = self.changing.lock().await;
        match network.driver.as_str() {
            "bridge" => {}
            "macvlan" | "ipvlan" => return self.tear_down_vlan(network).await,
            _ => return Ok(()),
        }
        let links = Links::open(&Place::Current).map_err(failed)?;
        links.delete(&network.bridge()).await.map_err(failed)?;
        self.apply_rules()
    }

    /// Puts an interface into a container's namespace and onto the network. May wait for the kernel: not for a thread that
    /// serves others.
    pub async fn join(&self, endpoint: &Endpoint<'_>) -> Result<()> {
        // An interface without IPv6 addresses has none of its own making either, as dockerd has it.
        let before = endpoint.inside.disable_ipv6(endpoint.addresses.v6.is_none())?;
        let joined = match endpoint.network.driver.as_str() {
            "bridge" => join_bridge(endpoint),
            _ => join_vlan(endpoint).await,
        };
        joined.and(endpoint.inside.disable_ipv6(before).map(drop))
    }

    /// Takes an interface away again.
    pub async fn leave(&self, outside: &str) -> Result<()> {
        let links = Links::open(&Place::Current).map_err(failed)?;
        links.delete(outside).await.map_err(failed)
    }

    /// Takes an interface of a container away that has no other end here.
    pub async fn leave_inside(&self, netns: &Netns, interface: &str) -> Result<()> {
        let inside = Links::open(&Place::Netns(netns.clone())).map_err(failed)?;
        inside.delete(interface).await.map_err(failed)
    }

    /// Leads a container's way out through this gateway.
    pub async fn route_through(&self, netns: &Netns, gateway: IpAddr) -> Result<()> {
        let inside = Links::open(&Place::Netns(netns.clone())).map_err(failed)?;
        inside.set_route(&default_route(gateway)).await.map_err(failed)
    }
}

async fn make_bridge(network: &Network) -> Result<()> {
    let links = Links::open(&Place::Current).map_err(failed)?;
    let name = network.bridge();
    if links.find(&name).await.map_err(failed)?.is_none() {
        // Fixed: a bridge that takes the address of a port has another one when ports come and go.
        let mac = network.gateway4().map_or([0x02, 0x43, 0, 0, 0, 1], |gateway| {
            let mut mac = mac_of(gateway);
            mac[1] = 0x43;
            mac
        });
        links.add_bridge(&name, mac).await.map_err(failed)?;
    }
    if network.ipv6 {
        // A host that has IPv6 off for new links has it off for this one too.
        let path = format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6");
        std::fs::write(&path, "0").context(format!("enable IPv6 on bridge {name}"))?;
    }
    for pool in &network.pools {
        let Some(gateway) = pool.gateway.filter(|gateway| gateway.is_ipv6() || !network.inhibits_ipv4()) else {
            continue;
        };
        let address = IpNet::new(gateway, pool.subnet.prefix_len())
            .map_err(|error| Error::internal(format!("{}: {error}", pool.subnet)))?;
        links.add_address(&name, address).await.map_err(failed)?;
    }
    links.up(&name).await.map_err(failed)
}

fn join_bridge(endpoint: &Endpoint<'_>) -> Result<()> {
    let network = endpoint.network;
    let here = Socket::open(&Place::Current).map_err(failed)?;
    let mut batch = Batch::default();
    batch.add_veth(&Veth {
        name: endpoint.outside,
        mac: None,
        peer: endpoint.interface,
        peer_mac: Some(endpoint.mac),
        peer_netns: Some(&endpoint.inside.netns),
        mtu: network.mtu(),
        bridge: Some(here.index("attach to bridge", &network.bridge()).map_err(failed)?),
    });
    if !network.inter_container() {
        // On the bridge itself: packets between its ports pass no rule unless br_netfilter is there.
        batch.isolate(endpoint.outside);
    }
    batch.up(endpoint.outside);
    let joined = batch.send(&here).map_err(failed).and_then(|()| configure(endpoint));
    if joined.is_err() {
        let mut undo = Batch::default();
        undo.delete(endpoint.outside);
        // The error is what matters; the pair would go with the namespace too.
        let _ = undo.send(&here);
    }
    joined
}

async fn join_vlan(endpoint: &Endpoint<'_>) -> Result<()> {
    vlan::join(endpoint).await?;
    let configured = configure(endpoint);
    if configured.is_err() {
        let mut undo = Batch::default();
        undo.delete(endpoint.interface);
        let _ = undo.send(&endpoint.inside.socket);
    }
    configured
}

/// Addresses and routes of a container's interface.
fn configure(endpoint: &Endpoint<'_>) -> Result<()> {
    let (network, name, inside) = (endpoint.network, endpoint.interface, &endpoint.inside.socket);
    let index = inside.index("set up", name).map_err(failed)?;
    let mut batch = Batch::default();
    let addresses = [endpoint.addresses.v4.map(IpAddr::V4), endpoint.addresses.v6.map(IpAddr::V6)];
    let with_length =
        addresses.into_iter().flatten().map(|address| (address, network.prefix_length(address.is_ipv6())));
    let link_locals = endpoint.link_locals.iter().map(|address| (*address, if address.is_ipv6() { 64 } else { 16 }));
    for (address, length) in with_length.chain(link_locals) {
        let address = IpNet::new(address, length).map_err(|error| Error::internal(format!("{address}: {error}")))?;
        batch.add_address(index, address);
    }
    batch.up(name);
    for (ipv6, leads) in [false, true].into_iter().zip(endpoint.default_routes) {
        if let Some(gateway) = network.pool(ipv6).and_then(|pool| pool.gateway).filter(|_| leads) {
            batch.set_route(&default_route(gateway));
        }
    }
    batch.send(inside).map_err(failed)
}

fn default_route(gateway: IpAddr) -> Route {
    /// RTPROT_STATIC
    const STATIC: u8 = 4;
    let destination = match gateway {
        IpAddr::V4(_) => IpNet::V4(coracle_link::Ipv4Net::default()),
        IpAddr::V6(_) => IpNet::V6(coracle_link::Ipv6Net::default()),
    };
    Route { destination, gateway: Some(gateway), link: None, onlink: false, protocol: STATIC }
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
