//! The API server from outside: over the in-process service, and over TLS with kubectl.

mod answers;
mod apply;
mod bad_input;
mod cluster;
mod custom;
mod forms;
mod fuzz_seeds;
mod harness;
mod kills;
mod kube_rs;
mod kubectl;
mod logs;
mod model;
mod operator;
mod overload;
mod pods;
mod power_loss;
mod protobuf;
mod proxy;
mod python;
mod restart;
mod reviews;
mod row_walk;
mod store;
mod validation;
mod verbs;
