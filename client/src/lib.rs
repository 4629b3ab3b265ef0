//! The client of the Kubernetes API that every component stands on.
//!
//! ```text
//! connect / in_process ─► kube::Client ─► Informers ─► snapshot ─► plan ─► actions ─► executor ─► kube::Client
//!                                            │ events                ▲
//!                                            └──► WorkQueue ─────────┘   (Driver)
//! ```
//!
//! A component subscribes to shared informers, turns their events into keys, and plans each key on a snapshot.
//! The plan is synchronous and does no I/O; the driver owns everything around it.

#![forbid(unsafe_code)]

pub mod action;
pub mod clock;
pub mod connection;
pub mod correlator;
pub mod driver;
pub mod executor;
pub mod expectations;
pub mod informer;
pub mod informers;
pub mod key;
pub mod lease;
pub mod metrics;
pub mod outline;
pub mod queue;
pub mod reconciler;
pub mod recorder;
pub mod store;
pub mod supervise;

pub use action::{Action, Announcement, Plan, ResourceId, Step, Verb};
pub use connection::{ConnectError, connect, connect_kubeconfig, connect_with, in_process, install_crypto};
pub use driver::Driver;
pub use expectations::Expectations;
pub use informer::{Event, Informer, Object, Subscription};
pub use informers::{Informers, Scope};
pub use key::Key;
pub use kube::Client;
pub use lease::LeaderLease;
pub use metrics::Metrics;
pub use queue::WorkQueue;
pub use reconciler::{Context, Failure, Reconciler, Wires};
pub use recorder::{EventType, Recorder};
pub use store::Snapshot;
