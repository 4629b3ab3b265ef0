//! The macvlan and ipvlan drivers: containers on a link of the host, without a bridge (libnetwork `drivers/macvlan`).
//!
//! The option `parent` names the link, which must be there (dockerd makes VLANs `eth0.50` itself). Without a parent, or on
//! an internal network, the containers share a wire that leads nowhere: a pair `dm-…` and `dp-…` (dockerd's is a dummy).

use coracle_link::{IpVlanKind, Links, Mac, MacVlanKind, Netns, Place, SubLink, SubLinkKind, Veth};

use super::{
    Network,
    bridge::{Endpoint, failed},
};
use crate::error::{Context, Error, Result};

/// Options of both drivers, by driver.
pub fn options(driver: &str) -> &'static [&'static str] {
    match driver {
        "macvlan" => &["parent", "macvlan_mode", "com.docker.network.driver.mtu"],
        _ => &["parent", "ipvlan_mode", "com.docker.network.driver.mtu"],
    }
}

/// How containers share the parent, if the mode is one that there is.
fn kind(network: &Network, mac: Mac) -> Result<SubLinkKind> {
    let mode = |key: &str| network.options.get(key).map(String::as_str).unwrap_or_default();
    let unknown = |mode: &str| Error::invalid(format!("requested {} mode '{mode}' is not valid", network.driver));
    if network.driver == "macvlan" {
        let kind = match mode("macvlan_mode") {
            "" | "bridge" => MacVlanKind::Bridge,
            "private" => MacVlanKind::Private,
            "vepa" => MacVlanKind::Vepa,
            "passthru" => MacVlanKind::Passthru,
            other => return Err(unknown(other)),
        };
        return Ok(SubLinkKind::MacVlan(kind, mac));
    }
    Ok(SubLinkKind::IpVlan(match mode("ipvlan_mode") {
        "" | "l2" => IpVlanKind::L2,
        "l3" => IpVlanKind::L3,
        "l3s" => IpVlanKind::L3S,
        other => return Err(unknown(other)),
    }))
}

/// The link whose wire is shared, and whether it was made for this network.
fn parent(network: &Network) -> (String, bool) {
    match network.options.get("parent").filter(|parent| !parent.is_empty() && !network.internal) {
        Some(parent) => (parent.clone(), false),
        None => (format!("dm-{}", &network.id[..12]), true),
    }
}

pub async fn set_up(network: &Network) -> Result<()> {
    kind(network, [0; 6])?;
    let links = Links::open(&Place::Current).map_err(failed)?;
    let (name, own) = parent(network);
    let there = links.find(&name).await.map_err(failed)?.is_some();
    if own && !there {
        // A bridge without ports has no carrier, and what shares its wire then neither.
        let peer = format!("dp-{}", &network.id[..12]);
        let pair = Veth { name: &name, peer: &peer, mtu: network.mtu(), ..Veth::default() };
        links.add_veth(&pair).await.map_err(failed)?;
        links.up(&peer).await.map_err(failed)?;
    }
    if own || there {
        links.up(&name).await.map_err(failed)?;
        let tried = try_out(&links, network, &name).await;
        if tried.is_err() && own && !there {
            links.delete(&name).await.map_err(failed)?;
        }
        return tried;
    }
    Err(Error::invalid(format!(
        "invalid parent interface {name}: it does not exist on this host, and VLANs are not made by this engine"
    )))
}

/// Makes an interface and drops it, so that a kernel without the driver is known before a container wants one.
async fn try_out(links: &Links, network: &Network, parent: &str) -> Result<()> {
    if network.driver == "macvlan" {
        // It is there wherever bridges are; and one that takes its parent over must not do so for a trial.
        return Ok(());
    }
    let netns = Netns::create().context("make a network namespace")?;
    add(links, network, parent, &netns, "trial", [0; 6]).await
}

async fn add(links: &Links, network: &Network, parent: &str, netns: &Netns, name: &str, mac: Mac) -> Result<()> {
    let link = SubLink { name, parent, kind: kind(network, mac)?, netns, mtu: network.mtu() };
    links.add_sub_link(&link).await.map_err(|error| match error.errno() {
        Some(libc::EOPNOTSUPP) => Error::internal(format!("the kernel of this host has no {}", network.driver)),
        _ => failed(error),
    })
}

pub async fn tear_down(network: &Network) -> Result<()> {
    let (name, own) = parent(network);
    if !own {
        return Ok(());
    }
    let links = Links::open(&Place::Current).map_err(failed)?;
    links.delete(&name).await.map_err(failed)
}

/// Makes the container's interface on the parent.
pub async fn join(endpoint: &Endpoint<'_>) -> Result<()> {
    let network = endpoint.network;
    let (name, _) = parent(network);
    let links = Links::open(&Place::Current).map_err(failed)?;
    add(&links, network, &name, &endpoint.inside.netns, endpoint.interface, endpoint.mac).await
}
