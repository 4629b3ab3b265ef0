//! The controllers: each a plan from a snapshot, all on one driver.
//!
//! ```text
//! informers ─► (Driver: queue, expectations) ─► plan(&Snapshot, key, context) ─► actions ─► API server
//! ```
//!
//! To add a controller: a folder with its `Reconciler`, and a row in the table of `run`.

#![forbid(unsafe_code)]

pub mod catalog;
pub mod certificates;
pub mod claim_protection;
pub mod deployment;
pub mod endpoint_slices;
pub mod garbage;
pub mod namespace;
pub mod node_ipam;
pub mod node_lifecycle;
pub mod ownership;
pub mod pod_gc;
mod pod_template;
pub mod pods;
mod protection;
pub mod replica_set;
mod run;
pub mod service_account;
pub mod service_cidrs;
pub mod stateful_set;
pub mod taint_eviction;
pub mod volume_protection;

pub use node_lifecycle::Grace;
pub use run::{Clients, Config, run};
