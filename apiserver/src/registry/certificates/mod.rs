//! Kinds of certificates.k8s.io/v1.

mod certificate;
pub mod key_pair;
pub mod request;
pub mod signing_request;
