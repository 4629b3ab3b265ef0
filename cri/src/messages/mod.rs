//! Messages with fields that k8s-cri lacks, whole, and those of calls that it lacks.

pub mod container;
pub mod lists;
pub mod runtime;
pub mod sandbox;
pub mod stats;
