//! SPDY/3.1 as Kubernetes uses it: streams over one connection, the client opens them, the server accepts all.
//!
//! Flow control by windows is not used: the Go library at the other end (moby/spdystream) neither keeps nor grants them.
//! What is not taken stops the whole connection, as there.

#[cfg(test)]
pub mod client;
mod dictionary;
mod frame;
mod headers;
mod session;

pub use session::{Session, Stream, Writer};
