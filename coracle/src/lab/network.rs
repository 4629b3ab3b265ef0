//! The lab's segment: a bridge in a namespace of the lab's own, a cable to every node.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result};
use coracle_link::{IpNet, Links, Mac, Netns, Place, Route, Veth};

use super::spec::{Node, PREFIX, SERVER, Spec};

const BRIDGE: &str = "lab0";
const NODE_LINK: &str = "eth0";
/// Nobody's Ethernet address: what is sent to it is lost.
const NOBODY: Mac = [0x0a, 0x58, 0, 0, 0, 0];

/// The lab's segment.
pub struct Segment {
    netns: Netns,
    links: Links,
}

impl Segment {
    /// Makes the segment, with the server's address on it.
    pub async fn create() -> Result<Self> {
        let netns = Netns::create().context("make the lab's network namespace")?;
        let links = Links::open(&Place::Netns(netns.clone()))?;
        links.up("lo").await?;
        links.add_bridge(BRIDGE, mac(SERVER)).await?;
        links.add_address(BRIDGE, network(SERVER.into())).await?;
        Ok(Self { netns, links })
    }

    /// A segment that exists.
    pub fn open(netns: Netns) -> Result<Self> {
        let links = Links::open(&Place::Netns(netns.clone()))?;
        Ok(Self { netns, links })
    }

    /// The namespace of the segment.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// A network namespace for `node`, plugged in.
    pub async fn plug(&self, node: &Node) -> Result<Netns> {
        let netns = Netns::create().with_context(|| format!("make the network namespace of {}", node.name))?;
        let cable = cable(node);
        // The cable of a node that was killed may outlive it for a moment.
        self.links.delete(&cable).await?;
        let veth = Veth {
            name: &cable,
            peer: NODE_LINK,
            peer_mac: Some(mac(node.address())),
            peer_netns: Some(&netns),
            ..Veth::default()
        };
        self.links.add_veth(&veth).await?;
        self.links.set_bridge(&cable, Some(BRIDGE)).await?;
        self.links.up(&cable).await?;
        let inside = Links::open(&Place::Netns(netns.clone()))?;
        inside.up("lo").await?;
        inside.add_address(NODE_LINK, network(node.address().into())).await?;
        inside.up(NODE_LINK).await?;
        let default = Route {
            destination: IpNet::V4(ipnet::Ipv4Net::default()),
            gateway: Some(SERVER.into()),
            link: None,
            onlink: false,
            protocol: 4,
        };
        inside.set_route(&default).await?;
        Ok(netns)
    }
}

/// One end of a partition: a node, or the server.
#[derive(Clone)]
pub struct Member {
    address: IpAddr,
    link: &'static str,
    links: std::rc::Rc<Links>,
}

impl Member {
    /// The server's end.
    pub fn server(segment: &Netns) -> Result<Self> {
        let links = Links::open(&Place::Netns(segment.clone()))?;
        Ok(Self { address: SERVER.into(), link: BRIDGE, links: links.into() })
    }

    /// A running node's end.
    pub fn node(node: &Node, pid: i32) -> Result<Self> {
        let netns = Netns::of_pid(pid).with_context(|| format!("open the network namespace of {}", node.name))?;
        let links = Links::open(&Place::Netns(netns))?;
        Ok(Self { address: node.address().into(), link: NODE_LINK, links: links.into() })
    }

    /// Cuts what this end sends to `other`, by address or through it as a gateway: frames go to nobody.
    pub async fn cut(&self, other: &Self) -> Result<()> {
        Ok(self.links.set_neighbour(self.link, other.address, NOBODY).await?)
    }

    /// Undoes every cut of this end.
    pub async fn heal(&self) -> Result<()> {
        Ok(self.links.delete_neighbours(self.link, NOBODY).await?)
    }
}

/// The addresses that the lab's server certificate must hold.
pub fn server_names(spec: &Spec) -> Vec<String> {
    vec![SERVER.to_string(), spec.api_address().ip().to_string()]
}

fn network(address: IpAddr) -> IpNet {
    IpNet::new_assert(address, PREFIX)
}

fn cable(node: &Node) -> String {
    format!("node{}", node.number)
}

/// A locally administered Ethernet address that follows from the IP address.
fn mac(address: Ipv4Addr) -> Mac {
    let [a, b, c, d] = address.octets();
    [0x0a, 0x58, a, b, c, d]
}
