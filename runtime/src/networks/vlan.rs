//! The macvlan and ipvlan drivers: containers on a link of the host, without a bridge (libnetwork `drivers/macvlan`).
//!
//! The option `parent` names the link. `eth0.50` is VLAN 50 on eth0: made with the first network that names it and removed
//! with the last, unless it was there before. Without a parent, or on an internal network, the containers share a wire
//! that leads nowhere: a pair `dm-…` and `dp-…` (dockerd's is a dummy).

use coracle_link::{IpVlanKind, IpVlanReach, Links, Mac, MacVlanKind, Netns, Place, SubLink, SubLinkKind, Veth};

use super::{
    Network, Networks,
    bridge::{Endpoint, failed},
};
use crate::error::{Context, Error, Result};

/// Options of both drivers, by driver.
pub fn options(driver: &str) -> &'static [&'static str] {
    match driver {
        "macvlan" => &["parent", "macvlan_mode", "com.docker.network.driver.mtu"],
        _ => &["parent", "ipvlan_mode", "ipvlan_flag", "com.docker.network.driver.mtu"],
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
    let kind = match mode("ipvlan_mode") {
        "" | "l2" => IpVlanKind::L2,
        "l3" => IpVlanKind::L3,
        "l3s" => IpVlanKind::L3S,
        other => return Err(unknown(other)),
    };
    let reach = match mode("ipvlan_flag") {
        "" | "bridge" => IpVlanReach::Bridge,
        "private" => IpVlanReach::Private,
        "vepa" => IpVlanReach::Vepa,
        other => {
            return Err(Error::invalid(format!(
                "requested ipvlan flag '{other}' is not valid, 'bridge' is the ipvlan driver default"
            )));
        }
    };
    Ok(SubLinkKind::IpVlan(kind, reach))
}

/// The link of the host that the network is on, if it names one.
pub(super) fn vlan_parent(network: &Network) -> Option<&str> {
    let named = matches!(network.driver.as_str(), "macvlan" | "ipvlan") && !network.internal;
    network.options.get("parent").map(String::as_str).filter(|parent| named && !parent.is_empty())
}

/// The link whose wire is shared.
fn parent(network: &Network) -> String {
    vlan_parent(network).map_or_else(|| format!("dm-{}", &network.id[..12]), str::to_owned)
}

impl Networks {
    /// Makes the link that containers share unless it is there: a wire that leads nowhere, or a VLAN of a link of the host.
    pub(super) async fn set_up_vlan(&self, network: &Network) -> Result<()> {
        kind(network, [0; 6])?;
        let links = Links::open(&Place::Current).map_err(failed)?;
        let name = parent(network);
        let found = links.find(&name).await.map_err(failed)?;
        let made = found.is_none();
        if found.is_some_and(|link| link.loopback) {
            return Err(Error::internal(format!("loopback interface is not a valid {} parent link", network.driver)));
        }
        if made {
            match vlan_parent(network) {
                None => make_wire(&links, network, &name).await?,
                Some(name) => {
                    let (on, id) = parse_vlan(&links, name).await?;
                    // Noted first: what is made is taken away even if nobody is there to note it afterwards.
                    self.note_parent(&network.id, true)?;
                    make_vlan(&links, name, on, id).await?;
                }
            }
        }
        let tried = match links.up(&name).await.map_err(failed) {
            Ok(()) => try_out(&links, network, &name).await,
            refused => refused,
        };
        if tried.is_err() && made {
            links.delete(&name).await.map_err(failed)?;
        }
        tried
    }

    /// Takes away what was made for a network, which is forgotten already. A link that another network is on as well is
    /// that network's from now on.
    pub(super) async fn tear_down_vlan(&self, network: &Network) -> Result<()> {
        if vlan_parent(network).is_some() {
            if !network.made_parent {
                return Ok(());
            }
            if let Some(heir) = self.sharing(network) {
                return self.note_parent(&heir.id, true);
            }
        }
        let links = Links::open(&Place::Current).map_err(failed)?;
        links.delete(&parent(network)).await.map_err(failed)
    }
}

async fn make_wire(links: &Links, network: &Network, name: &str) -> Result<()> {
    // A bridge without ports has no carrier, and what shares its wire then neither.
    let peer = format!("dp-{}", &network.id[..12]);
    let pair = Veth { name, peer: &peer, mtu: network.mtu(), ..Veth::default() };
    links.add_veth(&pair).await.map_err(failed)?;
    links.up(&peer).await.map_err(failed)
}

/// `eth0.50`: VLAN 50 on eth0. In dockerd's words where it is not that (libnetwork `drivers/macvlan/macvlan_setup.go`).
async fn parse_vlan<'a>(links: &Links, name: &'a str) -> Result<(&'a str, u16)> {
    let wrong = |why: String| Err(Error::invalid(why));
    let Some((on, id)) = name.split_once('.') else {
        return wrong(format!("invalid subinterface vlan name {name}, example formatting is eth0.10"));
    };
    if id.contains('.') {
        return wrong(format!(
            "required interface name format is: name.vlan_id, ex. eth0.10 for vlan 10, instead received {name}"
        ));
    }
    let Ok(number) = id.parse::<i64>() else {
        return wrong(format!("unable to parse a valid vlan id from: {id} (ex. eth0.10 for vlan 10)"));
    };
    if links.find(on).await.map_err(failed)?.is_none() {
        return wrong(format!("-o parent interface does was not found on the host: {on}"));
    }
    match u16::try_from(number).ok().filter(|id| (1..=4094).contains(id)) {
        Some(id) => Ok((on, id)),
        None => wrong(format!("vlan id must be between 1-4094, received: {number}")),
    }
}

async fn make_vlan(links: &Links, name: &str, on: &str, id: u16) -> Result<()> {
    links.add_vlan(name, on, id).await.map_err(|error| match error.errno() {
        Some(libc::EOPNOTSUPP) => Error::internal(format!(
            "failed to create {name} vlan link: operation not supported: the kernel of this host has no VLANs (8021q)"
        )),
        _ => Error::internal(format!("failed to create {name} vlan link: {error}")),
    })
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

/// Makes the container's interface on the parent.
pub async fn join(endpoint: &Endpoint<'_>) -> Result<()> {
    let network = endpoint.network;
    let name = parent(network);
    let links = Links::open(&Place::Current).map_err(failed)?;
    add(&links, network, &name, &endpoint.inside.netns, endpoint.interface, endpoint.mac).await
}
