//! The controllers: each a plan from a snapshot, all on one driver.
//!
//! ```text
//! informers ─► (Driver: queue, expectations) ─► plan(&Snapshot, key, context) ─► actions ─► API server
//! ```
//!
//! To add a controller: a folder with its `Reconciler`, and a row in `table`.

#![forbid(unsafe_code)]

pub mod deployment;
pub mod ownership;
pub mod pods;
pub mod replica_set;
