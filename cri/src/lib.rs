//! CRI v1 as it is in Kubernetes 1.36: the messages of the crate k8s-cri, those that have more fields than it knows, and calls
//! it does not have, by their numbers in kubernetes `staging/src/k8s.io/cri-api/pkg/apis/runtime/v1/api.proto`.
//!
//! ```text
//! kubelet ─ the generated client ──────────────┐
//!         ─ Client, for what is newer ─────────┴─ RuntimeServer, ImageServer ─ RuntimeService, ImageService
//! ```

#![forbid(unsafe_code)]

mod client;
mod messages;
mod serve;
mod signal;

pub use client::Client;
pub use messages::{container::*, lists::*, runtime::*, sandbox::*, stats::*};
pub use serve::{ImageServer, ImageService, Items, RuntimeServer, RuntimeService};
pub use signal::Signal;
