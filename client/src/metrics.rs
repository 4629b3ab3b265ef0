//! Counts of what queues and reconcilers do, under upstream's metric names.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

/// The queue or controller that a figure belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Name {
    pub name: String,
}

/// Figures shared by all drivers of a process. Clones share the numbers.
#[derive(Clone)]
pub struct Metrics {
    pub(crate) depth: Family<Name, Gauge>,
    pub(crate) processed: Family<Name, Counter>,
    pub(crate) retries: Family<Name, Counter>,
    pub(crate) conflicts: Family<Name, Counter>,
    pub(crate) panics: Family<Name, Counter>,
    pub(crate) work: Family<Name, Histogram>,
    pub(crate) leading: Family<Name, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            depth: Family::default(),
            processed: Family::default(),
            retries: Family::default(),
            conflicts: Family::default(),
            panics: Family::default(),
            work: Family::new_with_constructor(|| Histogram::new([0.0001, 0.001, 0.01, 0.1, 1.0, 10.0])),
            leading: Family::default(),
        }
    }
}

impl Metrics {
    /// Adds all figures to a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("workqueue_depth", "Keys that wait for a worker", self.depth.clone());
        registry.register("workqueue_adds", "Keys handed to workers", self.processed.clone());
        registry.register("workqueue_retries", "Keys that failed and wait to be tried again", self.retries.clone());
        registry.register("workqueue_work_duration_seconds", "Time from key to done", self.work.clone());
        registry.register("reconcile_conflicts", "Writes refused because the snapshot was old", self.conflicts.clone());
        registry.register("reconcile_panics", "Plans that panicked", self.panics.clone());
        registry.register("leader_election_master_status", "1 while this process leads", self.leading.clone());
    }

    pub(crate) fn of(name: &str) -> Name {
        Name { name: name.to_owned() }
    }
}
