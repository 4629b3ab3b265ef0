//! The API server from outside: over the in-process service, and over TLS with kubectl.

mod apply;
mod bad_input;
mod custom;
mod forms;
mod fuzz_seeds;
mod harness;
mod kube_rs;
mod kubectl;
mod logs;
mod operator;
mod power_loss;
mod protobuf;
mod python;
mod restart;
mod reviews;
mod row_walk;
mod store;
mod verbs;
