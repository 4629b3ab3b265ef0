//! Kinds of apps/v1.

pub mod controller_revision;
pub mod daemon_set;
pub mod deployment;
pub mod replica_set;
pub mod rolling;
pub mod stateful_set;
pub mod workload;
