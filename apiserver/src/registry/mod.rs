//! The registry: which resources there are.
//!
//! To add a resource: write `registry/<group>/<kind>.rs` with its [`Strategy`] (or use [`strategy::PLAIN`]) and add one
//! row to [`table`].

pub mod apps;
pub mod autoscaling;
pub mod certificates;
pub mod coordination;
pub mod core;
pub mod events;
pub mod fields;
pub mod meta;
pub mod rbac;
mod row;
pub mod strategy;
mod table;

pub use row::{Row, Subresource, VERBS};
pub use strategy::Strategy;

use coracle_api::gvk::Symbol;
use std::collections::HashMap;
use std::sync::Arc;

/// A row and the group and version it was asked for in.
#[derive(Clone, Debug)]
pub struct Resolved {
    pub row: Arc<Row>,
    /// Index into [`Row::served`].
    pub served: usize,
}

/// All rows, found by group, version and plural.
#[derive(Debug)]
pub struct Registry {
    rows: Vec<Arc<Row>>,
    by_name: HashMap<(Symbol, Symbol, Symbol), Resolved>,
}

impl Registry {
    /// The built-in resources.
    pub fn builtin() -> Self {
        Self::of(table::rows())
    }

    fn of(rows: Vec<Row>) -> Self {
        let rows: Vec<_> = rows.into_iter().map(Arc::new).collect();
        let mut by_name = HashMap::new();
        for row in &rows {
            for (served, (group, version)) in row.served.iter().enumerate() {
                let resolved = Resolved { row: row.clone(), served };
                by_name.insert((group.clone(), version.clone(), row.plural.clone()), resolved);
            }
        }
        Self { rows, by_name }
    }

    pub fn rows(&self) -> impl Iterator<Item = &Arc<Row>> {
        self.rows.iter()
    }

    /// The row behind a path.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Resolved> {
        self.by_name.get(&(group.into(), version.into(), plural.into()))
    }

    /// Whether any row is served in this group and version.
    pub fn serves(&self, group: &str, version: &str) -> bool {
        self.rows.iter().flat_map(|row| &row.served).any(|(g, v)| *g == group && *v == version)
    }

    /// Groups with their versions, in the order of discovery.
    pub fn groups(&self) -> Vec<(Symbol, Vec<Symbol>)> {
        let mut groups: Vec<(Symbol, Vec<Symbol>)> = Vec::new();
        for (group, version) in self.rows.iter().flat_map(|row| &row.served) {
            match groups.iter_mut().find(|(known, _)| known == group) {
                Some((_, versions)) if versions.contains(version) => {}
                Some((_, versions)) => versions.push(version.clone()),
                None => groups.push((group.clone(), vec![version.clone()])),
            }
        }
        for (_, versions) in &mut groups {
            // Newest first: it is the preferred one.
            versions.sort_by(|a, b| b.cmp(a));
        }
        groups
    }
}

#[cfg(test)]
pub(crate) fn pods() -> &'static Row {
    static ROW: std::sync::LazyLock<Row> =
        std::sync::LazyLock::new(|| Row::new("", "v1", "Pod", "pods", core::pod::PodStrategy));
    &ROW
}
