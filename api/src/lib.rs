//! The Kubernetes object model: schemas, Status, selectors, quantities, patches and printing, without I/O.
//!
//! ```text
//!   bytes ── decode (schema) ──► Value ── patch ──► Value ── meta, selector ──► index
//!                │                                   │
//!                └── Status ◄── every refusal        └── printing ──► table cells
//! ```
//!
//! Objects are JSON documents ([`crate::json::Value`]) checked against the compact [`schema`] table; typed structs
//! (`k8s_openapi`) are used where logic needs them. Nothing here opens a file or a socket, reads a clock or draws a
//! random number unless it is handed one ([`clock`], [`names`]).

pub mod clock;
pub mod decode;
pub mod fields;
pub mod go;
pub mod gvk;
pub mod json;
pub mod json_path;
pub mod meta;
pub mod names;
pub mod node_features;
pub mod patch;
pub mod printing;
pub mod quantity;
pub mod resources;
pub mod schema;
pub mod selector;
pub mod status;
pub mod validation;
pub mod yaml;

pub use gvk::{Gvk, Gvr};
pub use status::{Cause, Reason, Status};
