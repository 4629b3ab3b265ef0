//! A container's published ports.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use super::{
    super::{
        super::{
            Docker,
            http::Problem,
            types::{Map, PortBinding},
        },
        Container, Record,
    },
    Attached,
};
use crate::networks::{
    Network,
    ports::{self, Protocol, Published},
};

impl Docker {
    /// Opens the ports that are to be published, on the network that leads out: an internal one leads nowhere, and on one
    /// without a bridge the container is reached by its own address.
    pub(super) fn publish(
        &self,
        container: &Container,
        record: &Record,
        network: Option<&Network>,
    ) -> Result<Vec<Published>, Problem> {
        let Some(network) = network.filter(|network| network.driver == "bridge") else {
            self.change(container, |record| record.ports.clear())?;
            return Ok(Vec::new());
        };
        let endpoint = container.with(|record| record.networks.get(&network.name).cloned()).unwrap_or_default();
        let address = endpoint.addresses().next();
        let address = address.ok_or_else(|| Problem::internal(format!("no address on network {}", network.name)))?;
        let mut wanted: Map<Vec<PortBinding>> = record.host.port_bindings.clone().unwrap_or_default();
        if record.host.publish_all_ports {
            for port in record.config.exposed_ports.keys() {
                wanted.entry(whole(port)).or_insert_with(|| vec![PortBinding::default()]);
            }
        }
        let (mut open, mut shown) = (Vec::new(), Map::new());
        for (port, bindings) in wanted {
            let (number, protocol) = ports::parse_port(&port).map_err(Problem::bad)?;
            let target = SocketAddr::new(address, number);
            let mut list: Vec<PortBinding> = Vec::new();
            for binding in bindings {
                let published = open_binding(network, protocol, &binding, target).map_err(|refusal| {
                    let problem = self.name_refusal(container, protocol, &binding, target, &refusal);
                    Problem::new(
                        problem.status,
                        format!(
                            "failed to set up container networking: driver failed programming external connectivity on endpoint {} ({}): {}",
                            record.name, endpoint.endpoint_id, problem.message,
                        ),
                    )
                })?;
                list.extend(published.iter().map(|published| PortBinding {
                    host_ip: published.address.ip().to_string(),
                    host_port: published.address.port().to_string(),
                }));
                open.extend(published);
            }
            shown.insert(whole(&port), list);
        }
        self.change(container, |record| record.ports = shown)?;
        Ok(open)
    }

    /// Leads the published ports to another network of the container, which its way out leads through from now on.
    pub(super) fn publish_again(&self, container: &Container, network: Option<&Network>) {
        let record = container.record();
        let fixed = fixed_ports(&record);
        let before = container.live.lock().network.as_mut().map(|held| std::mem::take(&mut held.ports));
        // Closed first: the same ports are opened again.
        drop(before);
        match self.publish(container, &fixed, network) {
            Ok(ports) => {
                if let Some(Attached { ports: held, .. }) = container.live.lock().network.as_mut() {
                    *held = ports;
                }
            }
            Err(problem) => tracing::warn!(
                container = container.id,
                error = problem.message,
                "a port cannot be published on another network"
            ),
        }
    }
}

fn whole(port: &str) -> String {
    if port.contains('/') { port.to_owned() } else { format!("{port}/tcp") }
}

/// Why a port could not be opened.
enum Refusal {
    Asked(Problem),
    Host(IpAddr, io::Error),
}

fn open_binding(
    network: &Network,
    protocol: Protocol,
    binding: &PortBinding,
    target: SocketAddr,
) -> Result<Vec<Published>, Refusal> {
    let bad = |message: String| Refusal::Asked(Problem::bad(message));
    let host = match binding.host_ip.as_str() {
        "" => network.host_binding(),
        text => Some(text.parse::<IpAddr>().map_err(|_| bad(format!("invalid IP address: {text}")))?),
    };
    let range = ports::parse_range(&binding.host_port).map_err(bad)?;
    let unspecified = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    ports::publish(protocol, host, range, target).map_err(|error| Refusal::Host(host.unwrap_or(unspecified), error))
}

impl Docker {
    /// The refusal in dockerd's words: a port that another container has, or one that something else has.
    fn name_refusal(
        &self,
        container: &Container,
        protocol: Protocol,
        binding: &PortBinding,
        target: SocketAddr,
        refusal: &Refusal,
    ) -> Problem {
        let (host, error) = match refusal {
            Refusal::Asked(problem) => return Problem::new(problem.status, problem.message.clone()),
            Refusal::Host(host, error) => (host, error),
        };
        let port = &binding.host_port;
        let theirs = |record: &Record| {
            let same = |(key, bindings): (&String, &Vec<PortBinding>)| {
                key.ends_with(&format!("/{}", protocol.name()))
                    && bindings.iter().any(|other| !port.is_empty() && other.host_port == *port)
            };
            record.ports.iter().any(same)
        };
        let taken = self.store.all().iter().any(|other| other.id != container.id && other.with(theirs));
        if taken && error.kind() == io::ErrorKind::AddrInUse {
            return Problem::internal(format!("Bind for {host}:{port} failed: port is already allocated"));
        }
        let why = match error.kind() {
            io::ErrorKind::AddrInUse => "address already in use".to_owned(),
            io::ErrorKind::AddrNotAvailable => "cannot assign requested address".to_owned(),
            io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
            _ => error.to_string(),
        };
        let protocol = protocol.name();
        Problem::internal(format!("failed to bind host port for {host}:{port}:{target}/{protocol}: {why}"))
    }
}

/// The record with the ports that were open, which must be the same again.
pub fn fixed_ports(record: &Record) -> Record {
    let mut out = record.clone();
    let unspecified = |binding: &PortBinding| binding.host_ip == "::";
    let fixed = record.ports.iter().map(|(port, bindings)| {
        // Open at both families, they were asked for as one.
        let both = bindings.iter().any(|binding| binding.host_ip == "0.0.0.0") && bindings.iter().any(unspecified);
        let bindings = bindings.iter().filter(|binding| !(both && unspecified(binding))).map(|binding| PortBinding {
            host_ip: if both && binding.host_ip == "0.0.0.0" { String::new() } else { binding.host_ip.clone() },
            host_port: binding.host_port.clone(),
        });
        (port.clone(), bindings.collect())
    });
    out.host.port_bindings = Some(fixed.collect());
    out.host.publish_all_ports = false;
    out
}
