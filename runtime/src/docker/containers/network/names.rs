//! What names stand for, as one container sees them.

use std::{net::IpAddr, sync::Weak};

use super::{
    super::{super::Docker, Container},
    endpoints::split_link,
};
use crate::networks::dns::Names;

/// The names of a container's networks, as it sees them.
pub struct View {
    pub docker: Weak<Docker>,
    pub container: Weak<Container>,
}

impl Names for View {
    fn addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
        let (docker, own) = (self.docker.upgrade()?, self.container.upgrade()?);
        let (networks, links) = own.with(|record| {
            let mut links: Vec<String> = record.host.links.clone().unwrap_or_default();
            links.extend(record.networks.values().flat_map(|endpoint| endpoint.links.iter().flatten().cloned()));
            let networks: Vec<String> =
                record.networks.keys().filter(|name| name.as_str() != "bridge").cloned().collect();
            (networks, links)
        });
        let linked = links.iter().map(|link| split_link(link)).find(|(_, alias)| alias.eq_ignore_ascii_case(name));
        let linked = linked.and_then(|(target, _)| docker.container(target).ok()).map(|container| container.id.clone());
        let mut found = Vec::new();
        let mut known = linked.is_some();
        for container in docker.store.all() {
            container.with(|record| {
                for network in &networks {
                    let Some(endpoint) = record.networks.get(network).filter(|endpoint| endpoint.is_joined()) else {
                        continue;
                    };
                    let named = endpoint.dns_names.iter().flatten().any(|own| {
                        name.eq_ignore_ascii_case(own)
                            || name
                                .strip_suffix(network.as_str())
                                .and_then(|name| name.strip_suffix('.'))
                                .is_some_and(|name| name.eq_ignore_ascii_case(own))
                    });
                    if named || linked.as_deref() == Some(container.id.as_str()) {
                        known = true;
                        found.extend(endpoint.addresses());
                    }
                }
            });
        }
        // Those under one name take turns.
        fastrand::shuffle(&mut found);
        known.then_some(found)
    }

    fn name(&self, address: IpAddr) -> Option<String> {
        let (docker, own) = (self.docker.upgrade()?, self.container.upgrade()?);
        let networks: Vec<String> = own.with(|record| record.networks.keys().cloned().collect());
        docker.store.all().iter().find_map(|container| {
            container.with(|record| {
                let network = networks.iter().find(|network| {
                    record.networks.get(*network).is_some_and(|endpoint| endpoint.addresses().any(|own| own == address))
                })?;
                Some(format!("{}.{network}", record.name))
            })
        })
    }
}
