//! Kinds of certificates.k8s.io/v1.

mod certificate;
pub mod key_pair;
mod request;
pub mod signing_request;
