//! Kinds of core/v1, and of groups that grew out of it.

pub mod config;
mod container;
pub mod endpoints;
mod families;
pub mod limits;
pub mod namespace;
pub mod node;
pub mod pod;
pub mod pod_defaults;
mod pod_resources;
mod pod_security;
pub mod pod_spec;
pub mod pod_template;
mod pod_update;
pub mod pod_warnings;
pub mod priority;
mod probe;
pub mod replication_controller;
pub mod resources;
mod restarts;
pub(super) mod scheduling;
pub mod service;
pub mod volume;
mod volume_source;
mod windows;
