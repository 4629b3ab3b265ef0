//! exec, attach and port-forward: streams between a client and a container, over whatever protocol the client speaks.
//!
//! ```text
//! kubectl ── TLS ── API server ── TLS ── kubelet ── server::Server ── Backend: the container's streams
//!            (proxy: bytes pass through)             (websocket | spdy: unpacked here, once)
//! ```
//!
//! Only the end of the chain reads a protocol: WebSocket with channels (`v5.channel.k8s.io` and older ones, also in base64),
//! SPDY/3.1 (older clients), and SPDY inside a WebSocket (`kubectl port-forward`). Every queue between is bounded: a peer that
//! does not read stops the one that writes. Connections that nobody uses are closed after four hours.

#![forbid(unsafe_code)]

mod activity;
pub mod command;
mod forward;
pub mod messages;
pub mod proxy;
pub mod server;
pub mod spdy;
mod upgrade;
mod websocket;

pub use command::{Outcome, Size, Streams, Wanted};
pub use server::{Backend, Duplex, Request, Server};
