//! The shim: the one process that stays beside a pod's containers.
//!
//! ```text
//! daemon ─┬─ socket ─ shim ─┬─ launcher run … (ends at once) ─→ container, a child of the shim
//! clients ┘           │     └─ launcher exec … ─→ process
//!                     ├─ log files        (CRI format)
//!                     └─ DIR/ID.exit      (exit status, read by a daemon that comes later)
//! ```
//!
//! It holds what must not end with the daemon: standard streams, ptys, log files, exit status. It is the parent of
//! its containers, so it learns of their end, and they are killed if it dies. It has one poll loop, and
//! one thread unless a log is compressed or must not hold its process back. While it has one, the launcher is a copy of it.

pub mod exit_file;
pub mod protocol;
