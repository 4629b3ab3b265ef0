//! The scheduler: gives every pod a node.
//!
//! ```text
//! queue ─► cycle (filter, score) on a snapshot of the cache ─► assume ─► bind
//! ```
//!
//! To add a plugin: a file in `plugins`, and a row in its table.

#![forbid(unsafe_code)]

pub mod affinity;
pub mod cache;
pub mod cycle;
pub mod framework;
pub mod node_info;
pub mod nominated;
pub mod plugins;
pub mod pod_info;
pub mod preemption;
pub mod profile;
pub mod queue;
pub mod resources;
mod run;
pub mod selectors;
pub mod snapshot;
pub mod spread;
pub mod terms;

pub use run::{Config, run};
