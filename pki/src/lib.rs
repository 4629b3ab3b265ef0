//! Certificates: the cluster's authority, what it issues, and requests for more.
//!
//! ```text
//! Authority ── issue(Subject, names, Usage, validity) ──▶ Identity { cert_pem, key_pem }
//!     └─────── sign(CertificateRequest, …) ─────────────▶ certificate PEM   (the key stays with the requester)
//! ```
//!
//! Keys are ECDSA P-256. Key files are 0600, written beside their place and renamed into it.

mod authority;
mod file;
mod identity;
mod request;
mod subject;
pub mod unchecked;

use std::{io, path::PathBuf};

pub use authority::Authority;
pub use file::write_private;
pub use identity::{Identity, Validity, certificate_names};
pub use request::{CertificateRequest, request};

/// What a certificate may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// A server's side of TLS.
    Server,
    /// A client's side of TLS.
    Client,
}

/// Who a certificate speaks for. In a client certificate the common name is the user and the organizations its groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// CN
    pub common_name: String,
    /// Every O.
    pub organizations: Vec<String>,
}

impl Subject {
    /// A user without a group.
    pub fn user(name: impl Into<String>) -> Self {
        Self { common_name: name.into(), organizations: Vec::new() }
    }

    /// A user in one group.
    pub fn member(name: impl Into<String>, group: impl Into<String>) -> Self {
        Self { common_name: name.into(), organizations: vec![group.into()] }
    }
}

/// Why a certificate could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error("{operation} {}: {source}", path.display())]
    File {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The cryptography refused.
    #[error("{operation}: {source}")]
    Crypto {
        operation: &'static str,
        #[source]
        source: rcgen::Error,
    },
    /// The input is not a certificate, key or request.
    #[error("not a valid {0}")]
    Invalid(&'static str),
}

fn crypto(operation: &'static str) -> impl FnOnce(rcgen::Error) -> Error {
    move |source| Error::Crypto { operation, source }
}
