//! Networks that come and go while a container runs.

use std::sync::Arc;

use super::{
    super::{
        super::{Docker, http::Problem, types::Endpoint},
        Container,
    },
    open, published_on, ways_out,
};
use crate::networks::{Network, bridge::Inside};

impl Docker {
    /// Puts a container on a further network, now if it runs.
    pub async fn connect(
        self: &Arc<Docker>,
        container: &Arc<Container>,
        network: &Network,
        endpoint: Endpoint,
    ) -> Result<(), Problem> {
        let _changing = container.changing.lock().await;
        let mode = container.with(|record| record.host.network_mode.clone());
        if mode == "host" || network.driver == "host" {
            return Err(Problem::denied(
                "container cannot be connected to host network or disconnected from it: it uses the host's own",
            ));
        }
        if mode.starts_with("container:") {
            return Err(Problem::denied(
                "container sharing network namespace with another container or host cannot be connected to any other network",
            ));
        }
        if mode == "none" || network.driver == "null" {
            return Err(Problem::denied(
                "container cannot be connected to multiple networks with one of the networks in private (none) mode",
            ));
        }
        if container.with(|record| record.networks.contains_key(&network.name)) {
            return Err(Problem::denied(format!(
                "endpoint with name {} already exists in network {}",
                container.name(),
                network.name
            )));
        }
        let endpoint = self.check_endpoint(network, endpoint)?;
        self.change(container, |record| drop(record.networks.insert(network.name.clone(), endpoint)))?;
        if !container.runs() {
            return Ok(());
        }
        let joined = self.join_running(container, network).await;
        if joined.is_err() {
            self.change(container, |record| drop(record.networks.remove(&network.name)))?;
        }
        joined
    }

    async fn join_running(self: &Arc<Docker>, container: &Arc<Container>, network: &Network) -> Result<(), Problem> {
        let record = container.record();
        let inside = Inside::of(&open(&self.engine.netns_of(&container.id))?)?;
        let index = {
            let live = container.live.lock();
            let used: Vec<String> =
                live.network.iter().flat_map(|held| held.links.values()).map(|link| link.inside.clone()).collect();
            (0..).find(|index| !used.contains(&format!("{}{index}", network.interface_prefix()))).unwrap_or(0)
        };
        // The way out is settled below, when the network is there.
        let (endpoint, link) = self.join_network(container, &record, network, &inside, index, &[None, None]).await?;
        self.change(container, |record| drop(record.networks.insert(network.name.clone(), endpoint)))?;
        let needs_dns = {
            let mut live = container.live.lock();
            let held = live.network.get_or_insert_default();
            held.links.insert(network.id.clone(), link);
            !network.is_predefined() && held.dns.is_none()
        };
        if needs_dns {
            let server = self.start_dns(container, &record, &inside.netns)?;
            let mut live = container.live.lock();
            let held = live.network.get_or_insert_default();
            (held.dns, held.embedded_dns) = (Some(server), true);
        }
        self.settle_ways_out(container).await;
        Ok(())
    }

    /// Takes a container off a network.
    pub async fn disconnect(
        self: &Arc<Docker>,
        container: &Arc<Container>,
        network: &Network,
        force: bool,
    ) -> Result<(), Problem> {
        let _changing = container.changing.lock().await;
        if network.driver == "host" {
            return Err(Problem::denied(
                "container cannot be disconnected from host network or connected to host network",
            ));
        }
        if !container.with(|record| record.networks.contains_key(&network.name)) {
            if force {
                return Ok(());
            }
            return Err(Problem::denied(format!(
                "container {} is not connected to network {}",
                container.id, network.name
            )));
        }
        let link = {
            let mut live = container.live.lock();
            live.network.as_mut().and_then(|held| held.links.remove(&network.id))
        };
        if let Some(link) = link {
            match &link.outside {
                Some(outside) => self.networks.leave(outside).await?,
                None => {
                    let netns = open(&self.engine.netns_of(&container.id))?;
                    self.networks.leave_inside(&netns, &link.inside).await?;
                }
            }
            self.tell_network(network, "disconnect", container);
        }
        self.networks.release_address(&network.id, &container.id);
        self.change(container, |record| drop(record.networks.remove(&network.name)))?;
        self.settle_ways_out(container).await;
        Ok(())
    }

    /// Leads packets and published ports through the networks that they leave by from now on.
    async fn settle_ways_out(&self, container: &Container) {
        if !container.runs() {
            return;
        }
        let record = container.record();
        let names = record.networks.iter().filter(|(_, endpoint)| endpoint.is_joined()).map(|(name, _)| name);
        let networks: Vec<Arc<Network>> = names.filter_map(|name| self.networks.find(name)).collect();
        let now = ways_out(&record, &networks);
        let before = match container.live.lock().network.as_mut() {
            Some(held) => std::mem::replace(&mut held.ways_out, now.clone()),
            None => return,
        };
        let published = published_on(&now, &networks);
        if published.map(|network| &network.id) != before.iter().flatten().next() {
            self.publish_again(container, published);
        }
        for (ipv6, way) in [(false, &now[0]), (true, &now[1])] {
            let network = networks.iter().find(|network| Some(&network.id) == way.as_ref());
            let gateway = network.and_then(|network| network.pool(ipv6)?.gateway);
            let Some(gateway) = gateway.filter(|_| *way != before[usize::from(ipv6)]) else { continue };
            let led = match open(&self.engine.netns_of(&container.id)) {
                Ok(netns) => self.networks.route_through(&netns, gateway).await.map_err(Problem::from),
                Err(problem) => Err(problem),
            };
            if let Err(problem) = led {
                tracing::warn!(container = container.id, error = problem.message, "the container has no way out");
            }
        }
    }
}
