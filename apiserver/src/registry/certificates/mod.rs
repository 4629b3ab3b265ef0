//! Kinds of certificates.k8s.io/v1.

mod certificate;
pub mod signing_request;
