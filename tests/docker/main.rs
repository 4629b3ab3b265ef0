//! The real `docker` CLI against `coracle runtime`, command by command as people type them.
//!
//! `CORACLE_DOCKER_PEER=unix:///…` drives that daemon instead, so that an expectation can be checked against dockerd.

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
