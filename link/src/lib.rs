//! The kernel's network: namespaces, links, addresses and routes, and in whose network a socket is opened.
//!
//! ```text
//! Netns   a network namespace, held by a descriptor, optionally pinned to a path
//!   └─ Place   where a dial or a listen happens: here, or in a namespace
//!        ├─ Links   rtnetlink inside a place: veth, bridge, addresses, routes, neighbours
//!        └─ Batch   the same, several changes in one message
//! ```
//!
//! Nothing here knows what a node, a pod or a container is.

mod batch;
mod links;
mod netns;
mod place;

pub use batch::{Batch, Socket};
pub use ipnet::{IpNet, Ipv4Net, Ipv6Net};
pub use links::{Error, IpVlanKind, IpVlanReach, LinkInfo, Links, Mac, MacVlanKind, Route, SubLink, SubLinkKind, Veth};
pub use netns::{Netns, visit};
pub use place::Place;
