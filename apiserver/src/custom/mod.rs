//! Custom resources: each served version of a CustomResourceDefinition is a row, and goes the way of every other row.
//!
//! ```text
//!  definition ─► check (structural?) ─► names accepted? ─► rows + cache ─► status: Established
//!                                                            │
//!  object ─► prune ─► defaults ─► validate, rules ─► stored ◄┘        definition deleted ─► its objects first
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`definition`] | the strategy of definitions themselves |
//! | [`check`], [`check_schema`], `check_structural`, `check_rules` | what is wrong with a definition |
//! | [`cel`] | the language of rules: types and costs |
//! | [`structural`] | a schema as a tree |
//! | [`prune`], [`defaults`], [`validate`], [`rules`], [`formats`], [`patterns`] | what a schema does to objects |
//! | [`types`] | the same schema for merging and applying |
//! | [`strategy`] | one served version |
//! | [`controller`] | names, conditions, rows, and the end of a definition |

pub mod cel;
pub mod check;
mod check_relaxed;
mod check_rules;
pub mod check_schema;
mod check_structural;
pub mod controller;
pub mod defaults;
pub mod definition;
mod field_path;
pub mod formats;
pub mod patterns;
pub mod prune;
pub mod rules;
pub mod strategy;
pub mod structural;
pub mod types;
pub mod validate;

pub use controller::{Definitions, run};
