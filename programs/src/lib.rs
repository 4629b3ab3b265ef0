//! The small static programs, embedded: OCI launcher, shim and the hello image
