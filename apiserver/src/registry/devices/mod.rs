//! Devices that pods claim (resource/v1 `defaults.go`, `validation.go`).
//!
//! | file | what |
//! |---|---|
//! | `claim`, `request`, `config` | what is asked for: ResourceClaims and their templates |
//! | `claim_status` | what a claim got |
//! | `class` | DeviceClasses |
//! | `slice`, `device`, `capacity` | what drivers offer |
//! | `selectors`, `names`, `lists` | what they share |
//! | `internal` | specs as upstream's messages show them |
//!
//! All gates of v1.36 that are beta are on: partitionable devices, taints, consumable capacity, binding conditions.

mod capacity;
mod claim;
mod claim_status;
mod class;
mod config;
mod device;
mod internal;
mod lists;
mod names;
mod request;
mod selectors;
mod slice;

pub use claim::{ClaimStrategy, TemplateStrategy};
pub use class::ClassStrategy;
pub use slice::SliceStrategy;

#[cfg(test)]
fn told(check: impl FnOnce(&mut Vec<coracle_api::Cause>)) -> Vec<String> {
    let mut causes = Vec::new();
    check(&mut causes);
    causes.iter().map(ToString::to_string).collect()
}
