//! The container runtime: content, snapshots, OCI launcher, shim, engine and CRI
