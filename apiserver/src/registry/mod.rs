//! The registry: which resources there are.
//!
//! To add a resource: write `registry/<group>/<kind>.rs` with its [`Strategy`] (or use [`strategy::PLAIN`]) and add one
//! row to [`table`].

pub mod admission_configs;
pub mod aggregation;
pub mod apps;
pub mod autoscaling;
mod autoscaling_v1;
pub mod batch;
pub mod certificates;
pub mod conditions;
pub mod coordination;
pub mod core;
pub mod devices;
pub mod events;
pub mod fields;
pub mod flow_control;
pub mod meta;
pub mod networking;
pub mod policy;
pub mod rbac;
pub mod reviews;
mod row;
mod scaling;
mod storage;
pub mod strategy;
mod table;
pub mod warnings;
mod webhook_url;

pub use row::{Row, Subresource, VERBS, VERBS_OF_CUSTOM, VERBS_WHILE_ENDING, reading_name};
pub use strategy::Strategy;

use arc_swap::ArcSwap;
use coracle_api::gvk::{Symbol, compare_versions};
use std::collections::HashMap;
use std::sync::Arc;

/// A row and the group and version it was asked for in.
#[derive(Clone, Debug)]
pub struct Resolved {
    pub row: Arc<Row>,
    /// Index into [`Row::served`].
    pub served: usize,
}

/// All rows as they are now: the built-in ones, and those of custom resources, which come and go.
#[derive(Debug)]
pub struct Registry {
    builtin: Vec<Arc<Row>>,
    current: ArcSwap<Rows>,
}

impl Registry {
    /// The built-in resources.
    pub fn builtin() -> Self {
        let builtin: Vec<_> = table::rows().into_iter().map(Arc::new).collect();
        let current = ArcSwap::from_pointee(Rows::of(builtin.clone(), 0));
        Self { builtin, current }
    }

    /// What is served now; it stays as it is while it is looked at.
    pub fn current(&self) -> Arc<Rows> {
        self.current.load_full()
    }

    /// The row behind a path: one atomic load, no lock.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<Resolved> {
        self.current.load().find(group, version, plural).cloned()
    }

    /// Whether a group is one of the server's own.
    pub fn has_own(&self, group: &str) -> bool {
        self.builtin.iter().flat_map(|row| &row.served).any(|(known, _)| *known == group)
    }

    /// Serves these custom resources, and no others, beside the built-in ones.
    pub fn set_custom(&self, custom: impl IntoIterator<Item = Arc<Row>>) {
        let rows = self.builtin.iter().cloned().chain(custom).collect();
        let generation = self.current.load().generation + 1;
        self.current.store(Arc::new(Rows::of(rows, generation)));
    }
}

/// Rows, found by group, version and plural.
#[derive(Debug)]
pub struct Rows {
    rows: Vec<Arc<Row>>,
    by_plural: HashMap<Symbol, Vec<Resolved>>,
    /// Counts the changes of what is served.
    pub generation: u64,
}

/// The order in which clients try groups for a name that stands in several (kubernetes `pkg/controlplane/apiserver`,
/// DefaultGenericAPIServicePriorities); then come those of custom resources.
const GROUPS: [&str; 21] = [
    "",
    "apiregistration.k8s.io",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
    "resource.k8s.io",
    "flowcontrol.apiserver.k8s.io",
];

impl Rows {
    fn of(rows: Vec<Arc<Row>>, generation: u64) -> Self {
        let mut by_plural: HashMap<Symbol, Vec<Resolved>> = HashMap::new();
        for row in &rows {
            for served in 0..row.served.len() {
                by_plural.entry(row.plural.clone()).or_default().push(Resolved { row: row.clone(), served });
            }
        }
        Self { rows, by_plural, generation }
    }

    pub fn rows(&self) -> impl Iterator<Item = &Arc<Row>> {
        self.rows.iter()
    }

    /// The row behind a path.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Resolved> {
        self.by_plural.get(plural)?.iter().find(|resolved| {
            let (g, v) = &resolved.row.served[resolved.served];
            *g == group && *v == version
        })
    }

    /// Whether any row is served in this group and version.
    pub fn serves(&self, group: &str, version: &str) -> bool {
        self.rows.iter().flat_map(|row| &row.served).any(|(g, v)| *g == group && *v == version)
    }

    /// Groups with their versions, the preferred one first.
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
            versions.sort_by(|a, b| compare_versions(a, b));
        }
        let place = |group: &str| GROUPS.iter().position(|known| *known == group).unwrap_or(GROUPS.len());
        groups.sort_by(|(a, _), (b, _)| (place(a), a).cmp(&(place(b), b)));
        groups
    }
}

#[cfg(test)]
pub(crate) fn pods() -> &'static Row {
    static ROW: std::sync::LazyLock<Row> =
        std::sync::LazyLock::new(|| Row::new("", "v1", "Pod", "pods", core::pod::PodStrategy));
    &ROW
}
