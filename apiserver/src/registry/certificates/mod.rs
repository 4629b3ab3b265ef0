//! Kinds of certificates.k8s.io/v1.

mod certificate;
mod request;
pub mod signing_request;
