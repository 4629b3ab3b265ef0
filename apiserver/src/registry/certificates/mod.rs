//! Kinds of certificates.k8s.io/v1.

pub mod signing_request;
