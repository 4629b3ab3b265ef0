//! Who manages which field: sets of field paths, how they are found in objects, and how an applied configuration is merged
//! (structured-merge-diff v6, apimachinery `util/managedfields`).
//!
//! ```text
//!   live ──────┐                                  ┌─► changed, removed ──► the writer's entry grows, others' shrink
//!              ├─ compare (schema) ───────────────┘
//!   new  ──────┘
//!
//!   live ──┬─ merge ──► prune what was applied before ──► new        applied ── paths ──► the applier's entry
//!   applied┘
//! ```

mod account;
mod canonical;
mod check;
mod compare;
mod created;
mod entry;
mod filter;
mod held;
mod managers;
mod merge;
mod pass;
mod paths;
mod place;
mod read;
mod reconcile;
mod set;

pub use account::{Account, updated};
pub use check::check;
pub use compare::{Comparison, compare};
pub use created::encode_created;
pub use entry::{Operation, Writer};
pub use filter::Filter;
pub use managers::{Applied, ApplyError, Conflict, Convert, How, Managers, Version, with_paths};
pub use merge::{merge, remove};
pub use paths::paths;
pub use set::{Element, Set};
