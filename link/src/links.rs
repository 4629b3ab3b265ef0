//! rtnetlink inside a place.

use std::{
    io,
    net::IpAddr,
    os::fd::{AsFd, AsRawFd},
};

use futures::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::{
    Handle, LinkBridge, LinkBridgePort, LinkIpVlan, LinkMacVlan, LinkUnspec, LinkVeth, LinkVlan, RouteMessageBuilder,
    packet_route::{
        address::{AddressAttribute, AddressHeaderFlags},
        link::{InfoData, InfoVeth, IpVlanFlags, IpVlanMode, LinkAttribute, LinkFlags, LinkMessage, MacVlanMode},
        neighbour::{NeighbourAttribute, NeighbourState},
        route::{RouteAddress, RouteAttribute, RouteProtocol, RouteScope},
    },
};
use tokio::task::JoinHandle;

use crate::{Netns, Place};

/// An Ethernet address.
pub type Mac = [u8; 6];

/// What the kernel said to a change or a question, with what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The netlink socket could not be opened.
    #[error("open a netlink socket: {0}")]
    Open(#[source] io::Error),
    /// There is no link by that name.
    #[error("{operation}: there is no link {name}")]
    NoLink { operation: &'static str, name: String },
    /// The kernel refused.
    #[error("{operation} {object}: {source}")]
    Refused {
        operation: &'static str,
        object: String,
        #[source]
        source: rtnetlink::Error,
    },
}

impl Error {
    /// The errno of the kernel's refusal.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { source: rtnetlink::Error::NetlinkError(message), .. } => Some(-message.raw_code()),
            _ => None,
        }
    }
}

/// A link as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkInfo {
    /// The interface index.
    pub index: u32,
    /// The interface name.
    pub name: String,
    /// The Ethernet address, where it has one.
    pub mac: Option<Mac>,
    /// Whether it is administratively up.
    pub up: bool,
    /// Bytes.
    pub mtu: u32,
    /// A loopback interface.
    pub loopback: bool,
}

/// A veth pair to make.
#[derive(Clone, Debug, Default)]
pub struct Veth<'a> {
    /// The end that stays here.
    pub name: &'a str,
    /// The Ethernet address of this end, else the kernel's choice.
    pub mac: Option<Mac>,
    /// The other end's name.
    pub peer: &'a str,
    /// The Ethernet address of the other end, else the kernel's choice.
    pub peer_mac: Option<Mac>,
    /// Where the other end goes, else it stays here too.
    pub peer_netns: Option<&'a Netns>,
    /// Bytes, for both ends, else the kernel's 1500.
    pub mtu: Option<u32>,
    /// The index of the bridge that this end is a port of.
    pub bridge: Option<u32>,
}

impl Veth<'_> {
    pub(crate) fn message(&self) -> LinkMessage {
        let mut peer = LinkUnspec::new_with_name(self.peer);
        if let Some(mac) = self.peer_mac {
            peer = peer.address(mac.to_vec());
        }
        if let Some(mtu) = self.mtu {
            peer = peer.mtu(mtu);
        }
        if let Some(netns) = self.peer_netns {
            peer = peer.setns_by_fd(netns.as_fd().as_raw_fd());
        }
        let mut peer = peer.build();
        // The kernel makes a queue for each processor there may be, and shows each in sysfs: on a large machine that takes
        // longer than all the rest. A packet that crosses waits in no queue of the link (`netif_rx` puts it into the
        // processor's), so one does.
        let queues = [LinkAttribute::NumTxQueues(1), LinkAttribute::NumRxQueues(1)];
        peer.attributes.extend(queues.clone());
        let mut link = LinkVeth::new(self.name, self.peer).set_info_data(InfoData::Veth(InfoVeth::Peer(peer)));
        if let Some(mac) = self.mac {
            link = link.address(mac.to_vec());
        }
        if let Some(mtu) = self.mtu {
            link = link.mtu(mtu);
        }
        if let Some(bridge) = self.bridge {
            link = link.controller(bridge);
        }
        let mut link = link.build();
        link.attributes.extend(queues);
        link
    }
}

/// A link that shares another one's wire, in another namespace.
#[derive(Clone, Debug)]
pub struct SubLink<'a> {
    /// Its name there.
    pub name: &'a str,
    /// The link here whose wire it shares.
    pub parent: &'a str,
    pub kind: SubLinkKind,
    /// Where it goes.
    pub netns: &'a Netns,
    /// Bytes, else the parent's.
    pub mtu: Option<u32>,
}

/// How the wire is shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubLinkKind {
    /// By an Ethernet address of its own.
    MacVlan(MacVlanKind, Mac),
    /// With the parent's Ethernet address.
    IpVlan(IpVlanKind, IpVlanReach),
}

/// Whom a macvlan reaches on its parent (ip-link(8)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MacVlanKind {
    Private,
    Vepa,
    Bridge,
    Passthru,
}

/// On which layer an ipvlan forwards (ip-link(8)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpVlanKind {
    L2,
    L3,
    L3S,
}

/// Whom an ipvlan reaches on its parent (ip-link(8)). All on one parent have what the last one was made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpVlanReach {
    Bridge,
    Private,
    Vepa,
}

/// A route, or the pattern of one to remove.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Route {
    /// Where to.
    pub destination: IpNet,
    /// Through whom; none for what is on the link itself.
    pub gateway: Option<IpAddr>,
    /// Out of which interface.
    pub link: Option<u32>,
    /// The gateway is on the link though no address says so.
    pub onlink: bool,
    /// Who made it (rtm_protocol); ours are told from others by it.
    pub protocol: u8,
}

/// A netlink connection that lives in a place.
pub struct Links {
    handle: Handle,
    connection: JoinHandle<()>,
}

impl Drop for Links {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Links {
    /// Opens a connection in `place`; must be called within a Tokio runtime.
    pub fn open(place: &Place) -> Result<Self, Error> {
        let runtime = tokio::runtime::Handle::current();
        let (connection, handle, _) = place
            .run(|| {
                let _entered = runtime.enter();
                rtnetlink::new_connection()
            })
            .map_err(Error::Open)?;
        Ok(Self { handle, connection: tokio::spawn(connection) })
    }

    /// The link called `name`, if there is one.
    pub async fn find(&self, name: &str) -> Result<Option<LinkInfo>, Error> {
        match self.handle.link().get().match_name(name).execute().try_next().await {
            Ok(found) => Ok(found.map(describe)),
            Err(error) if is(&error, nix::libc::ENODEV) => Ok(None),
            Err(error) => Err(refused("look up link", name)(error)),
        }
    }

    /// Every link of the place.
    pub async fn list(&self) -> Result<Vec<LinkInfo>, Error> {
        let links = self.handle.link().get().execute().map_ok(describe);
        links.try_collect().await.map_err(refused("list", "links"))
    }

    /// Makes a veth pair, both ends down.
    pub async fn add_veth(&self, veth: &Veth<'_>) -> Result<(), Error> {
        self.handle.link().add(veth.message()).execute().await.map_err(refused("make veth pair", veth.name))
    }

    /// Makes `name`, which carries the packets of a VLAN (IEEE 802.1Q) on the wire of `parent`, down.
    pub async fn add_vlan(&self, name: &str, parent: &str, id: u16) -> Result<(), Error> {
        let parent = self.index("make a VLAN on", parent).await?;
        self.handle
            .link()
            .add(LinkVlan::new(name, parent, id).build())
            .execute()
            .await
            .map_err(refused("make VLAN", name))
    }

    /// Makes a macvlan or an ipvlan in another namespace, down.
    pub async fn add_sub_link(&self, link: &SubLink<'_>) -> Result<(), Error> {
        let parent = self.index("share the wire of", link.parent).await?;
        let netns = link.netns.as_fd().as_raw_fd();
        let message = match link.kind {
            SubLinkKind::MacVlan(kind, mac) => {
                let mode = match kind {
                    MacVlanKind::Private => MacVlanMode::Private,
                    MacVlanKind::Vepa => MacVlanMode::Vepa,
                    MacVlanKind::Bridge => MacVlanMode::Bridge,
                    MacVlanKind::Passthru => MacVlanMode::Passthrough,
                };
                let mut message = LinkMacVlan::new(link.name, parent, mode).setns_by_fd(netns);
                // One that takes the parent over has the parent's address (macvlan.c, MACVLAN_MODE_PASSTHRU).
                if kind != MacVlanKind::Passthru {
                    message = message.address(mac.to_vec());
                }
                if let Some(mtu) = link.mtu {
                    message = message.mtu(mtu);
                }
                message.build()
            }
            SubLinkKind::IpVlan(kind, reach) => {
                let mode = match kind {
                    IpVlanKind::L2 => IpVlanMode::L2,
                    IpVlanKind::L3 => IpVlanMode::L3,
                    IpVlanKind::L3S => IpVlanMode::L3S,
                };
                let flags = match reach {
                    IpVlanReach::Bridge => IpVlanFlags::empty(),
                    IpVlanReach::Private => IpVlanFlags::Private,
                    IpVlanReach::Vepa => IpVlanFlags::Vepa,
                };
                let mut message = LinkIpVlan::new(link.name, parent, mode).flag(flags).setns_by_fd(netns);
                if let Some(mtu) = link.mtu {
                    message = message.mtu(mtu);
                }
                message.build()
            }
        };
        self.handle.link().add(message).execute().await.map_err(refused("make link", link.name))
    }

    /// Makes a bridge, up. One without an address of its own takes that of a port, and another when ports come and go:
    /// whoever had asked for the old one speaks to nobody from then on.
    pub async fn add_bridge(&self, name: &str, mac: Mac) -> Result<(), Error> {
        let bridge = LinkBridge::new(name).address(mac.to_vec()).build();
        self.handle.link().add(bridge).execute().await.map_err(refused("make bridge", name))
    }

    /// Makes `name` a port of `bridge`; `None` takes it off again.
    pub async fn set_bridge(&self, name: &str, bridge: Option<&str>) -> Result<(), Error> {
        let link = LinkUnspec::new_with_index(self.index("attach to bridge", name).await?);
        let link = match bridge {
            Some(bridge) => link.controller(self.index("attach to bridge", bridge).await?),
            None => link.nocontroller(),
        };
        self.handle.link().change(link.build()).execute().await.map_err(refused("attach to bridge", name))
    }

    /// Sets whether the bridge port `name` is cut off from the other isolated ports.
    pub async fn set_isolated(&self, name: &str, isolated: bool) -> Result<(), Error> {
        let index = self.index("isolate", name).await?;
        let port = LinkBridgePort::new(index).isolated(isolated).build();
        self.handle.link().set_port(port).execute().await.map_err(refused("isolate bridge port", name))
    }

    /// Sets the link up.
    pub async fn up(&self, name: &str) -> Result<(), Error> {
        let link = LinkUnspec::new_with_name(name).up().build();
        self.handle.link().change(link).execute().await.map_err(refused("set up link", name))
    }

    /// Sets the link down.
    pub async fn down(&self, name: &str) -> Result<(), Error> {
        let link = LinkUnspec::new_with_name(name).down().build();
        self.handle.link().change(link).execute().await.map_err(refused("set down link", name))
    }

    /// Removes the link; one that is gone already is no error.
    pub async fn delete(&self, name: &str) -> Result<(), Error> {
        let Some(link) = self.find(name).await? else { return Ok(()) };
        match self.handle.link().del(link.index).execute().await {
            Err(error) if is(&error, nix::libc::ENODEV) => Ok(()),
            outcome => outcome.map_err(refused("delete link", name)),
        }
    }

    /// Gives the link an address; one that it has already is no error. Who gives addresses here knows that nobody else
    /// has them, so an IPv6 address is usable at once (no duplicate address detection, RFC 4862).
    pub async fn add_address(&self, name: &str, address: IpNet) -> Result<(), Error> {
        let index = self.index("add address to", name).await?;
        let mut request = self.handle.address().add(index, address.addr(), address.prefix_len()).replace();
        if address.addr().is_ipv6() {
            request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        }
        request.execute().await.map_err(refused("add address to", name))
    }

    /// The addresses of the link.
    pub async fn addresses(&self, name: &str) -> Result<Vec<IpNet>, Error> {
        let index = self.index("list addresses of", name).await?;
        let request = self.handle.address().get().set_link_index_filter(index);
        let messages: Vec<_> = request.execute().try_collect().await.map_err(refused("list addresses of", name))?;
        let address = |message: &rtnetlink::packet_route::address::AddressMessage| {
            let length = message.header.prefix_len;
            message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Address(ip) => IpNet::new(*ip, length).ok(),
                _ => None,
            })
        };
        Ok(messages.iter().filter_map(address).collect())
    }

    /// Adds the route, or puts it in the place of one to the same destination.
    pub async fn set_route(&self, route: &Route) -> Result<(), Error> {
        let object = || route.destination.to_string();
        let message = route.message();
        self.handle.route().add(message).replace().execute().await.map_err(refused("set route to", object()))
    }

    /// Removes the route; one that is gone already is no error.
    pub async fn delete_route(&self, route: &Route) -> Result<(), Error> {
        match self.handle.route().del(route.message()).execute().await {
            Err(error) if is(&error, nix::libc::ESRCH) => Ok(()),
            outcome => outcome.map_err(refused("delete route to", route.destination.to_string())),
        }
    }

    /// The IPv4 routes of the main table that `protocol` made.
    pub async fn routes(&self, protocol: u8) -> Result<Vec<Route>, Error> {
        let all = RouteMessageBuilder::<std::net::Ipv4Addr>::new().build();
        let messages: Vec<_> =
            self.handle.route().get(all).execute().try_collect().await.map_err(refused("list", "routes"))?;
        Ok(messages
            .iter()
            .filter(|message| u8::from(message.header.protocol) == protocol)
            .filter_map(Route::read)
            .collect())
    }

    /// Makes the neighbour entry of `address` on the link permanent, so that nobody has to ask for it.
    pub async fn set_neighbour(&self, name: &str, address: IpAddr, mac: Mac) -> Result<(), Error> {
        let index = self.index("set neighbour on", name).await?;
        let request = self.handle.neighbours().add(index, address).link_layer_address(&mac);
        let request = request.state(NeighbourState::Permanent).replace();
        request.execute().await.map_err(refused("set neighbour on", name))
    }

    /// Removes the neighbour entries of the link that point to `mac`.
    pub async fn delete_neighbours(&self, name: &str, mac: Mac) -> Result<(), Error> {
        let index = self.index("delete neighbours of", name).await?;
        let entries = self.handle.neighbours().get().execute();
        let entries: Vec<_> = entries.try_collect().await.map_err(refused("list neighbours of", name))?;
        for entry in entries.into_iter().filter(|entry| entry.header.ifindex == index) {
            let points_there = |attribute: &NeighbourAttribute| matches!(attribute, NeighbourAttribute::LinkLayerAddress(address) if address[..] == mac);
            if entry.attributes.iter().any(points_there) {
                self.handle.neighbours().del(entry).execute().await.map_err(refused("delete neighbour of", name))?;
            }
        }
        Ok(())
    }

    /// The index of the link called `name`.
    pub async fn index(&self, operation: &'static str, name: &str) -> Result<u32, Error> {
        let found = self.find(name).await?;
        found.map(|link| link.index).ok_or_else(|| Error::NoLink { operation, name: name.to_owned() })
    }
}

impl Route {
    pub(crate) fn message(&self) -> rtnetlink::packet_route::route::RouteMessage {
        let scope = if self.gateway.is_some() { RouteScope::Universe } else { RouteScope::Link };
        let mut builder = RouteMessageBuilder::<IpAddr>::new()
            .scope(scope)
            .protocol(RouteProtocol::from(self.protocol))
            .destination_prefix(self.destination.network(), self.destination.prefix_len())
            .expect("a network's prefix length fits its family");
        if let Some(link) = self.link {
            builder = builder.output_interface(link);
        }
        if let Some(gateway) = self.gateway {
            builder = builder.gateway(gateway).expect("routes are made within one family");
        }
        if self.onlink {
            builder = builder.onlink();
        }
        builder.build()
    }

    fn read(message: &rtnetlink::packet_route::route::RouteMessage) -> Option<Self> {
        let length = message.header.destination_prefix_length;
        let address = |address: &RouteAddress| match address {
            RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
            RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
            _ => None,
        };
        let (mut destination, mut gateway, mut link) = (None, None, None);
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(to) => destination = address(to),
                RouteAttribute::Gateway(via) => gateway = address(via),
                RouteAttribute::Oif(index) => link = Some(*index),
                _ => {}
            }
        }
        let destination = destination.unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED));
        let destination = IpNet::new(destination, length).ok()?;
        let onlink = message.header.flags.contains(rtnetlink::packet_route::route::RouteFlags::Onlink);
        Some(Self { destination, gateway, link, onlink, protocol: message.header.protocol.into() })
    }
}

fn describe(message: LinkMessage) -> LinkInfo {
    let mut link = LinkInfo {
        index: message.header.index,
        name: String::new(),
        mac: None,
        up: message.header.flags.contains(LinkFlags::Up),
        loopback: message.header.flags.contains(LinkFlags::Loopback),
        mtu: 0,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Address(bytes) => link.mac = bytes.try_into().ok(),
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            _ => {}
        }
    }
    link
}

fn is(error: &rtnetlink::Error, errno: i32) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(message) if message.raw_code() == -errno)
}

fn refused(operation: &'static str, object: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> Error {
    let object = object.into();
    move |source| Error::Refused { operation, object, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = [0x0e, 0, 0, 0, 0, 1];

    #[tokio::test]
    async fn a_pair_carries_addresses_routes_and_neighbours() {
        let (here, there) = (Netns::create().unwrap(), Netns::create().unwrap());
        let links = Links::open(&Place::Netns(here.clone())).unwrap();
        let pair = Veth {
            name: "a",
            peer: "b",
            peer_mac: Some(MAC),
            peer_netns: Some(&there),
            mtu: Some(1400),
            ..Veth::default()
        };
        links.add_veth(&pair).await.unwrap();
        assert_eq!(links.add_veth(&pair).await.unwrap_err().errno(), Some(nix::libc::EEXIST));
        links.up("a").await.unwrap();
        links.add_address("a", "10.9.0.1/24".parse().unwrap()).await.unwrap();
        links.add_address("a", "10.9.0.1/24".parse().unwrap()).await.unwrap();
        assert_eq!(links.addresses("a").await.unwrap(), ["10.9.0.1/24".parse().unwrap()]);

        let beyond = there.clone();
        let far = Links::open(&Place::Netns(there)).unwrap();
        let end = far.find("b").await.unwrap().unwrap();
        assert_eq!((end.mac, end.mtu, end.up), (Some(MAC), 1400, false));
        far.up("b").await.unwrap();
        for (netns, name) in [(&here, "a"), (&beyond, "b")] {
            // What a program is started with, it keeps: it looks where it is started.
            let mut ip = std::process::Command::new("ip");
            let shown = netns.run(|| ip.args(["-details", "link", "show", name]).output()).unwrap();
            let shown = String::from_utf8(shown.stdout).unwrap();
            assert!(shown.contains("numtxqueues 1 ") && shown.contains("numrxqueues 1 "), "{shown}");
        }

        let index = links.index("test", "a").await.unwrap();
        let route = Route {
            destination: "10.8.0.0/16".parse().unwrap(),
            gateway: Some("10.9.0.2".parse().unwrap()),
            link: Some(index),
            onlink: false,
            protocol: 99,
        };
        links.set_route(&route).await.unwrap();
        let moved = Route { gateway: Some("10.9.0.3".parse().unwrap()), ..route };
        links.set_route(&moved).await.unwrap();
        assert_eq!(links.routes(99).await.unwrap(), std::slice::from_ref(&moved));
        links.delete_route(&moved).await.unwrap();
        links.delete_route(&moved).await.unwrap();
        assert_eq!(links.routes(99).await.unwrap(), []);
        links.set_neighbour("a", "10.9.0.2".parse().unwrap(), MAC).await.unwrap();
        links.delete_neighbours("a", MAC).await.unwrap();
        links.delete("a").await.unwrap();
        links.delete("a").await.unwrap();
        assert_eq!(far.find("b").await.unwrap(), None);
    }

    #[tokio::test]
    async fn ports_join_and_leave_a_bridge() {
        let links = Links::open(&Place::Netns(Netns::create().unwrap())).unwrap();
        links.add_bridge("br", MAC).await.unwrap();
        let pair = Veth { name: "a", peer: "b", ..Veth::default() };
        links.add_veth(&pair).await.unwrap();
        links.set_bridge("a", Some("br")).await.unwrap();
        links.set_isolated("a", true).await.unwrap();
        assert_eq!(links.find("br").await.unwrap().unwrap().mac, Some(MAC), "the bridge keeps its own address");
        links.set_bridge("a", None).await.unwrap();
        let missing = links.set_bridge("c", Some("br")).await.unwrap_err();
        assert_eq!(missing.to_string(), "attach to bridge: there is no link c");
    }
}
