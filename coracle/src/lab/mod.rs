//! `coracle lab`: a cluster of several nodes on one machine, which leaves the machine as it was.
//!
//! ```text
//!  host ── 127.0.0.1:6443 ── server (keeper: init)
//!                              │ 10.89.0.1
//!  lab's network namespace ── lab0 ──┬── node1 ── LAB-1: net, mount, uts, ipc, pid namespaces + cgroup (first process: init)
//!                                    └── node2 ── LAB-2: …                     └─ agent: kubelet, runtime, network
//! ```
//!
//! There is no daemon: what a lab is stands in its spec, what runs stands in process records, and every command compares
//! the two. Nothing is made in the host's network namespace.

mod cgroups;
mod cluster;
mod command;
mod demo;
mod down;
mod inspect;
mod load;
mod lock;
mod network;
mod nodes;
mod notify;
mod partition;
mod paths;
mod port;
mod process;
mod progress;
mod publish;
mod spec;
mod story;
mod up;

pub use command::{Command, run};
pub use spec::{Publish, published};
