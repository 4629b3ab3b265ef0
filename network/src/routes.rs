//! The node's routes to the other nodes' pod ranges, kept as the Nodes say (host-gw: nodes share one segment).

use std::{collections::HashSet, net::IpAddr, time::Duration};

use coracle_client::Informers;
use coracle_link::{Error, IpNet, Links, Place, Route};
use futures::{FutureExt, future::BoxFuture};
use k8s_openapi::api::core::v1::Node;
use tokio_util::sync::CancellationToken;

use crate::NODE_ROUTES;

/// How long to wait before a change that the kernel refused is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Keeps the routes of the node `name`, whose network is `place`, until `shutdown`. The routes stay behind: pods that
/// outlive the agent keep their network.
///
/// Boxed, so that it is compiled once, here, and not in every program that awaits it.
pub fn run<'a>(
    informers: &'a Informers,
    name: &'a str,
    place: &'a Place,
    shutdown: CancellationToken,
) -> BoxFuture<'a, Result<(), Error>> {
    follow(informers, name, place, shutdown).boxed()
}

async fn follow(informers: &Informers, name: &str, place: &Place, shutdown: CancellationToken) -> Result<(), Error> {
    let links = Links::open(place)?;
    let nodes = informers.get::<Node>();
    let mut changes = nodes.changes();
    tokio::select! {
        () = nodes.synced() => {}
        () = shutdown.cancelled() => return Ok(()),
    }
    loop {
        changes.mark_unchanged();
        let wanted = plan(nodes.snapshot().iter().map(AsRef::as_ref), name);
        let settled = match sync(&links, &wanted).await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, "the routes to the other nodes are not as they should be; trying again");
                false
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            changed = changes.changed() => if changed.is_err() { return Ok(()) },
            () = tokio::time::sleep(RETRY), if !settled => {}
        }
    }
}

/// The routes that the node `me` needs: to each other node's pod ranges, through that node.
pub fn plan<'a>(nodes: impl IntoIterator<Item = &'a Node>, me: &str) -> Vec<Route> {
    let mut routes = Vec::new();
    for node in nodes {
        if node.metadata.name.as_deref() == Some(me) {
            continue;
        }
        for range in pod_ranges(node) {
            let gateway = addresses(node).find(|address| address.is_ipv4() == range.addr().is_ipv4());
            let Some(gateway) = gateway else { continue };
            routes.push(Route {
                destination: range,
                gateway: Some(gateway),
                link: None,
                onlink: false,
                protocol: NODE_ROUTES,
            });
        }
    }
    routes.sort_by_key(|route| route.destination);
    // Two nodes that claim one range are somebody's mistake; the same one of them wins on every node.
    routes.dedup_by_key(|route| route.destination);
    routes
}

fn pod_ranges(node: &Node) -> Vec<IpNet> {
    let Some(spec) = &node.spec else { return Vec::new() };
    let ranges = match &spec.pod_cidrs {
        Some(ranges) if !ranges.is_empty() => ranges.clone(),
        _ => spec.pod_cidr.iter().cloned().collect(),
    };
    ranges.iter().filter_map(|range| range.parse::<IpNet>().ok()).map(|range| range.trunc()).collect()
}

fn addresses(node: &Node) -> impl Iterator<Item = IpAddr> + '_ {
    let addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    addresses.filter(|address| address.type_ == "InternalIP").filter_map(|address| address.address.parse().ok())
}

async fn sync(links: &Links, wanted: &[Route]) -> Result<(), Error> {
    let present = links.routes(NODE_ROUTES).await?;
    // The kernel says by which link it goes, which the plan leaves to it.
    let key = |route: &Route| (route.destination, route.gateway);
    let there: HashSet<_> = present.iter().map(key).collect();
    let needed: HashSet<_> = wanted.iter().map(key).collect();
    let destinations: HashSet<_> = wanted.iter().map(|route| route.destination).collect();
    for route in
        present.iter().filter(|route| !needed.contains(&key(route)) && !destinations.contains(&route.destination))
    {
        links.delete_route(route).await?;
        tracing::info!(destination = %route.destination, "removed the route to a node's pods");
    }
    for route in wanted.iter().filter(|route| !there.contains(&key(route))) {
        links.set_route(route).await?;
        tracing::info!(destination = %route.destination, gateway = ?route.gateway, "set the route to a node's pods");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use coracle_link::{Netns, Veth};
    use k8s_openapi::{
        api::core::v1::{NodeAddress, NodeSpec, NodeStatus},
        apimachinery::pkg::apis::meta::v1::ObjectMeta,
    };

    use super::*;

    fn node(name: &str, range: Option<&str>, address: &str) -> Node {
        let address = NodeAddress { type_: "InternalIP".into(), address: address.into() };
        Node {
            metadata: ObjectMeta { name: Some(name.into()), ..Default::default() },
            spec: Some(NodeSpec { pod_cidr: range.map(Into::into), ..Default::default() }),
            status: Some(NodeStatus { addresses: Some(vec![address]), ..Default::default() }),
        }
    }

    #[test]
    fn a_node_routes_to_the_others_and_only_once() {
        let nodes = [
            node("a", Some("10.244.0.0/24"), "10.0.0.1"),
            node("b", Some("10.244.1.0/24"), "10.0.0.2"),
            node("c", None, "10.0.0.3"),
            node("d", Some("10.244.1.0/24"), "10.0.0.4"),
            node("e", Some("nonsense"), "10.0.0.5"),
            node("f", Some("10.244.2.0/24"), "fd00::1"),
        ];
        let planned: Vec<_> =
            plan(&nodes, "a").iter().map(|route| (route.destination.to_string(), route.gateway)).collect();
        assert_eq!(planned, [("10.244.1.0/24".to_owned(), Some("10.0.0.2".parse().unwrap()))]);
    }

    #[tokio::test]
    async fn routes_follow_the_nodes() {
        let place = Place::Netns(Netns::create().unwrap());
        let links = Links::open(&place).unwrap();
        let pair = Veth { name: "eth0", peer: "peer", ..Veth::default() };
        links.add_veth(&pair).await.unwrap();
        links.up("eth0").await.unwrap();
        links.add_address("eth0", "10.0.0.1/24".parse().unwrap()).await.unwrap();

        let (b, moved) = (node("b", Some("10.244.1.0/24"), "10.0.0.2"), node("b", Some("10.244.1.0/24"), "10.0.0.9"));
        let c = node("c", Some("10.244.2.0/24"), "10.0.0.3");
        for nodes in [vec![&b, &c], vec![&moved], vec![]] {
            let wanted = plan(nodes, "a");
            sync(&links, &wanted).await.unwrap();
            let mut present = links.routes(NODE_ROUTES).await.unwrap();
            present.sort_by_key(|route| route.destination);
            present.iter_mut().for_each(|route| route.link = None);
            assert_eq!(present, wanted);
        }
    }
}
