//! One interface of one container, connected to its node.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
};

use coracle_link::{Batch, IpNet, Links, Mac, Netns, Place, Route, Socket, Veth};
use rscni_plugin::{
    error::Error,
    types::{CNIResult, Interface, IpConfig, Route as CniRoute},
};

use super::{addresses::Owner, custom, failed};
use crate::POD_ROUTES;

/// The gateway every pod believes in; no interface has it.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// An attachment as the caller names it.
pub(super) struct Attachment {
    owner: Owner,
    interface: String,
    netns: Option<PathBuf>,
}

impl Attachment {
    pub(super) fn of(container: &str, interface: &str, netns: Option<PathBuf>) -> Self {
        Self { owner: Owner::new(container, interface), interface: interface.to_owned(), netns }
    }

    pub(super) fn owner(&self) -> Owner {
        self.owner.clone()
    }

    /// Connects the container and says how.
    pub(super) fn connect(&self, address: Ipv4Addr, mtu: Option<u32>) -> Result<CNIResult, Error> {
        let netns = self.open_netns()?;
        let node = Socket::open(&Place::Current).map_err(failed)?;
        let link = link_name(&self.owner);
        let made = self.add_wire(&node, &link, &netns, address, mtu);
        let made = match made {
            Err(error) if error.errno() == Some(nix::libc::EEXIST) => {
                // Left behind by a plugin that was killed: the address was free, so nobody uses it.
                delete(&node, &link)?;
                self.add_wire(&node, &link, &netns, address, mtu)
            }
            made => made,
        };
        let connected = made.map_err(failed).and_then(|()| {
            self.set_up_container(&netns, address).map_err(failed)?;
            forward()?;
            set_up_node(&node, &link, address).map_err(failed)
        });
        if let Err(error) = connected {
            // The first error is the one to tell.
            let _ = delete(&node, &link);
            return Err(error);
        }
        Ok(self.describe(&link, address))
    }

    fn add_wire(
        &self,
        node: &Socket,
        link: &str,
        netns: &Netns,
        address: Ipv4Addr,
        mtu: Option<u32>,
    ) -> Result<(), coracle_link::Error> {
        let mut batch = Batch::default();
        batch.add_veth(&Veth {
            name: link,
            mac: Some(mac(GATEWAY)),
            peer: &self.interface,
            peer_mac: Some(mac(address)),
            peer_netns: Some(netns),
            mtu,
            bridge: None,
        });
        batch.up(link);
        batch.send(node)
    }

    fn set_up_container(&self, netns: &Netns, address: Ipv4Addr) -> Result<(), coracle_link::Error> {
        let inside = Socket::open(&Place::Netns(netns.clone()))?;
        let name = self.interface.as_str();
        let index = inside.index("set up", name)?;
        let mut batch = Batch::default();
        batch.add_address(index, host(address));
        batch.up(name);
        batch.set_neighbour(index, GATEWAY.into(), mac(GATEWAY));
        let route =
            |destination, gateway| Route { destination, gateway, link: Some(index), onlink: false, protocol: 3 };
        batch.set_route(&route(host(GATEWAY), None));
        batch.set_route(&route(everywhere(), Some(GATEWAY.into())));
        batch.send(&inside)
    }

    /// Takes the container off; one that is off already is no error (CNI SPEC, section DEL).
    pub(super) fn disconnect(&self) -> Result<(), Error> {
        remove_link(&self.owner)
    }

    /// Checks that everything is still as `connect` left it.
    pub(super) async fn check(&self, address: Ipv4Addr) -> Result<(), Error> {
        let node = Links::open(&Place::Current).map_err(failed)?;
        let link = link_name(&self.owner);
        let Some(found) = node.find(&link).await.map_err(failed)?.filter(|link| link.up) else {
            return Err(custom("the attachment is broken", format!("link {link} is missing or down")));
        };
        let expected = pod_route(found.index, address);
        if !node.routes(POD_ROUTES).await.map_err(failed)?.contains(&expected) {
            return Err(custom("the attachment is broken", format!("there is no route to {address} by {link}")));
        }
        let inside = Links::open(&Place::Netns(self.open_netns()?)).map_err(failed)?;
        if !inside.addresses(&self.interface).await.map_err(failed)?.contains(&host(address)) {
            return Err(custom("the attachment is broken", format!("{} has lost {address}", self.interface)));
        }
        Ok(())
    }

    fn open_netns(&self) -> Result<Netns, Error> {
        let path = self.netns.as_ref().ok_or_else(|| Error::missing_env(&["CNI_NETNS"]))?;
        Netns::open(path).map_err(|error| Error::InvalidNetNS(format!("open {}: {error}", path.display())))
    }

    fn describe(&self, link: &str, address: Ipv4Addr) -> CNIResult {
        let interface = |name: &str, mac: Mac, sandbox: Option<String>| Interface {
            name: name.to_owned(),
            mac: text(mac),
            mtu: None,
            sandbox,
            socket_path: None,
            pci_id: None,
        };
        let sandbox = self.netns.as_ref().map(|path| path.display().to_string());
        let route = CniRoute {
            dst: everywhere(),
            gw: Some(GATEWAY.into()),
            mtu: None,
            advmss: None,
            priority: None,
            table: None,
            scope: None,
        };
        CNIResult {
            interfaces: vec![interface(link, mac(GATEWAY), None), interface(&self.interface, mac(address), sandbox)],
            ips: vec![IpConfig { interface: Some(1), address: host(address), gateway: Some(GATEWAY.into()) }],
            routes: vec![route],
            dns: None,
        }
    }
}

/// Removes the node's end of the attachment, and with it the container's.
pub(super) fn remove_link(owner: &Owner) -> Result<(), Error> {
    delete(&Socket::open(&Place::Current).map_err(failed)?, &link_name(owner))
}

/// Removes a link; one that is gone already is no error.
fn delete(node: &Socket, link: &str) -> Result<(), Error> {
    let mut batch = Batch::default();
    batch.delete(link);
    match batch.send(node) {
        Err(error) if error.errno() == Some(nix::libc::ENODEV) => Ok(()),
        outcome => outcome.map_err(failed),
    }
}

fn set_up_node(node: &Socket, link: &str, address: Ipv4Addr) -> Result<(), coracle_link::Error> {
    let index = node.index("set route by", link)?;
    let mut batch = Batch::default();
    batch.set_neighbour(index, address.into(), mac(address));
    batch.set_route(&pod_route(index, address));
    batch.send(node)
}

fn pod_route(link: u32, address: Ipv4Addr) -> Route {
    Route { destination: host(address), gateway: None, link: Some(link), onlink: false, protocol: POD_ROUTES }
}

/// A node that does not forward connects nobody.
fn forward() -> Result<(), Error> {
    const PATH: &str = "/proc/sys/net/ipv4/ip_forward";
    let failed = |error| Error::IOFailure(format!("{PATH}: {error}"));
    if fs::read_to_string(PATH).map_err(failed)?.trim() != "1" {
        fs::write(PATH, "1").map_err(failed)?;
    }
    Ok(())
}

fn host(address: Ipv4Addr) -> IpNet {
    IpNet::from(IpAddr::from(address))
}

fn everywhere() -> IpNet {
    IpNet::V4(ipnet::Ipv4Net::default())
}

/// A locally administered Ethernet address that follows from the IP address.
fn mac(address: Ipv4Addr) -> Mac {
    let [a, b, c, d] = address.octets();
    [0x0a, 0x58, a, b, c, d]
}

fn text(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// The name of the node's end: the same each time it is asked for, within the kernel's 15 bytes. FNV-1a, 64 bits.
fn link_name(owner: &Owner) -> String {
    let bytes = owner.to_string().into_bytes();
    let hash = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    format!("cor{:012x}", hash >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_the_kernel_and_differ() {
        let one = link_name(&Owner::new("a", "eth0"));
        assert_eq!(one.len(), 15);
        assert_ne!(one, link_name(&Owner::new("a", "eth1")));
        assert_eq!(text(mac(GATEWAY)), "0a:58:a9:fe:01:01");
    }
}
