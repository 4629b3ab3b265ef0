//! What a lab is made of, as it is kept on disk.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::paths::Paths;

/// The server's address inside every lab; labs do not see each other, so it is the same in all.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 89, 0, 1);
/// The prefix length of the lab's segment.
pub const PREFIX: u8 = 16;
/// The port of the API, inside the lab and, if it is free, on the host.
pub const API_PORT: u16 = 6443;
/// The most nodes a lab has.
pub const MAX_NODES: u32 = 250;

/// A lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// The lab's name.
    pub name: String,
    /// The API's port on the host's 127.0.0.1.
    pub api_port: u16,
    /// The etcd behind the API server; empty for the embedded store.
    pub etcd: Vec<String>,
    /// How many API servers; more than one need the etcd.
    #[serde(default = "one")]
    pub servers: u32,
    /// The nodes in the order they were added.
    pub nodes: Vec<Node>,
    /// Ports of the host that lead to node ports.
    pub publish: Vec<Publish>,
    /// The number of the next node.
    pub next: u32,
    /// Further options of the nodes' agents.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub agent: Vec<String>,
}

/// A node of a lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Node {
    /// LAB-NUMBER
    pub name: String,
    /// Decides the address.
    pub number: u32,
    /// The user stopped it; `lab up` leaves it alone.
    #[serde(default)]
    pub stopped: bool,
}

/// A published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Publish {
    /// On the host's 127.0.0.1.
    pub host: u16,
    /// On the nodes.
    pub node: u16,
}

impl std::str::FromStr for Publish {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = |port: &str| port.parse().ok().filter(|port| *port != 0);
        let ports = text.split_once(':').and_then(|(host, node)| Some((parse(host)?, parse(node)?)));
        let (host, node) = ports.ok_or_else(|| format!("{text:?} is not HOSTPORT:NODEPORT"))?;
        Ok(Self { host, node })
    }
}

impl Node {
    /// The node's address in the lab.
    pub fn address(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 89, 1, 0)) + self.number)
    }
}

impl Spec {
    /// A new lab without nodes.
    pub fn new(name: &str, api_port: u16, etcd: Vec<String>, servers: u32) -> Self {
        Self {
            name: name.to_owned(),
            api_port,
            etcd,
            servers,
            nodes: Vec::new(),
            publish: Vec::new(),
            next: 1,
            agent: Vec::new(),
        }
    }

    /// Reads the lab's spec; `None` when there is no such lab.
    pub fn load(paths: &Paths) -> Result<Option<Self>> {
        let path = paths.spec();
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            bytes => bytes.with_context(|| format!("read {}", path.display()))?,
        };
        let spec = serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", path.display()))?;
        Ok(Some(spec))
    }

    /// The lab's spec, or what to do when there is none.
    pub fn require(paths: &Paths) -> Result<Self> {
        let name = paths.name();
        let create = if name == "default" { String::new() } else { format!(" --name {name}") };
        Self::load(paths)?.with_context(|| format!("there is no lab {name:?}; create it with: coracle lab up{create}"))
    }

    /// Writes the spec, whole or not at all.
    pub fn save(&self, paths: &Paths) -> Result<()> {
        let path = paths.spec();
        coracle_pki::write_private(&path, &serde_json::to_vec_pretty(self)?)?;
        Ok(())
    }

    /// Adds `count` nodes.
    pub fn add_nodes(&mut self, count: u32) -> Result<Vec<Node>> {
        if self.next.saturating_add(count) > MAX_NODES + 1 {
            bail!("a lab has at most {MAX_NODES} nodes");
        }
        let added: Vec<_> = (self.next..self.next + count)
            .map(|number| Node { name: format!("{}-{number}", self.name), number, stopped: false })
            .collect();
        self.next += count;
        self.nodes.extend(added.iter().cloned());
        Ok(added)
    }

    /// The node called `name`.
    pub fn node(&self, name: &str) -> Result<&Node> {
        let found = self.nodes.iter().find(|node| node.name == name);
        found.with_context(|| {
            let names: Vec<_> = self.nodes.iter().map(|node| node.name.as_str()).collect();
            format!("lab {:?} has no node {name:?}; it has: {}", self.name, names.join(", "))
        })
    }

    /// The names of the server processes: `server`, `server2`, … No node is called that.
    pub fn server_names(&self) -> impl Iterator<Item = String> + use<> {
        (1..=self.servers).map(|number| if number == 1 { "server".into() } else { format!("server{number}") })
    }

    /// The API's address on the host; several servers share it.
    pub fn api_address(&self) -> SocketAddr {
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, self.api_port).into()
    }

    /// The API's address inside the lab.
    pub fn lab_api_address(&self) -> SocketAddr {
        SocketAddrV4::new(SERVER, API_PORT).into()
    }
}

/// What the spec at `file` publishes, and the nodes it may lead to.
pub fn published(file: &std::path::Path) -> Result<(Vec<Publish>, Vec<Ipv4Addr>)> {
    let bytes = fs::read(file).with_context(|| format!("read {}", file.display()))?;
    let spec: Spec = serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", file.display()))?;
    Ok((spec.publish, spec.nodes.iter().map(Node::address).collect()))
}

/// How many servers the specs of older labs have.
fn one() -> u32 {
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_numbered_and_numbers_are_never_reused() {
        let mut spec = Spec::new("lab", API_PORT, Vec::new(), 1);
        spec.add_nodes(2).unwrap();
        spec.nodes.pop();
        let added = spec.add_nodes(1).unwrap();
        assert_eq!((added[0].name.as_str(), added[0].address().to_string().as_str()), ("lab-3", "10.89.1.3"));
        assert!(spec.add_nodes(MAX_NODES).is_err());
        assert!(spec.node("lab-2").unwrap_err().to_string().ends_with("it has: lab-1, lab-3"));
    }

    #[test]
    fn published_ports_are_two_numbers() {
        assert_eq!("80:30080".parse(), Ok(Publish { host: 80, node: 30080 }));
        for bad in ["80", "80:", "0:1", "a:b", "1:65536"] {
            assert!(bad.parse::<Publish>().is_err(), "{bad}");
        }
    }
}
