//! The pod network: every pod reaches every pod on every node by address, without NAT.
//!
//! ```text
//!   pod  eth0 10.244.1.7/32 ── default via 169.254.1.1 ──┐ veth
//!   node cor… ── route 10.244.1.7/32 dev cor… ───────────┘   (cni: made by the plugin)
//!        eth0 ── route 10.244.2.0/24 via the node that has it (routes: kept from the Nodes)
//! ```
//!
//! Pods hang on routes, not on a bridge: the node forwards by address, so there is no flooding, no hairpin and no
//! bridge filter in the way, and a pod costs its node one link and one route. The gateway address is the same in every
//! pod and never asked for: both ends know each other's Ethernet address beforehand.

pub mod cni;
pub mod routes;

/// `rtm_protocol` of the routes to a node's own pods.
pub const POD_ROUTES: u8 = 67;
/// `rtm_protocol` of the routes to the other nodes' pods.
pub const NODE_ROUTES: u8 = 68;
