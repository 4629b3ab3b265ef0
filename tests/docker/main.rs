//! The real `docker` CLI against `coracle runtime`, command by command as people type them.
//!
//! `CORACLE_DOCKER_PEER=/usr/sbin/dockerd` drives that program instead, so that an expectation is a fact: each test has a
//! daemon of its own of either, in namespaces that end with the test. `ours_alone` says why a test is not the peer's.

mod build;
mod check;
mod clients;
mod compose;
mod containers;
mod create_body;
mod disconnects;
mod engine;
mod images;
mod logs;
mod networks;
mod older_kernel;
mod other_kernel;
mod refusals;
mod restart;
mod terminals;
mod usage;
mod volumes;
