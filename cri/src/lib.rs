//! What of CRI v1 is newer than the messages of the crate k8s-cri: calls and fields by their numbers in kubernetes
//! `staging/src/k8s.io/cri-api/pkg/apis/runtime/v1/api.proto`.
//!
//! ```text
//! kubelet ─ Client ─ CreateContainer with image_sub_path ─┐
//!                  ─ UpdatePodSandboxResources ───────────┼─ Front ─ Newer
//!         ─ the generated client ─────────────────────────┘       └─ the generated service
//! ```

#![forbid(unsafe_code)]

mod client;
mod messages;
mod serve;

pub use client::Client;
pub use messages::{CreateContainer, UpdatePodSandboxResourcesRequest, UpdatePodSandboxResourcesResponse};
pub use serve::{Front, Newer};

/// The service's name, as it stands before its methods'.
const SERVICE: &str = "runtime.v1.RuntimeService";
const CREATE_CONTAINER: &str = "/runtime.v1.RuntimeService/CreateContainer";
const UPDATE_POD_SANDBOX_RESOURCES: &str = "/runtime.v1.RuntimeService/UpdatePodSandboxResources";
