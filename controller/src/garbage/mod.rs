//! Deletes what is left without an owner, and lets owners go before or after their dependents, as they ask
//! (upstream's pkg/controller/garbagecollector).
//!
//! ```text
//! metadata of everything ─► Graph (owner ─► dependents) ─► plan per object: keep, cut a dangling reference,
//!                                                          delete, orphan dependents, release a finalizer
//! ```

mod graph;
mod plan;

use std::{collections::HashMap, fmt, sync::Arc};

use coracle_client::{Action, Context, Plan, Reconciler, Subscription, Wires, WorkQueue, executor::Outcome};
use parking_lot::Mutex;

use crate::catalog::{Catalog, Entry};
pub use graph::{Graph, Node, Owner};

/// An object's uid.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uid(pub Arc<str>);

impl Uid {
    /// The uid of this text.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the server said about an owner that the graph does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Absent,
    Present,
}

/// Verdicts remembered; beyond it all are asked for again.
const VERDICTS: usize = 5000;

/// Collects garbage.
pub struct Garbage {
    catalog: Catalog,
    graph: Arc<Mutex<Graph>>,
    verdicts: Arc<Mutex<HashMap<Uid, Verdict>>>,
    subscriptions: Arc<Mutex<Vec<Subscription>>>,
}

/// What a plan reads.
pub struct State {
    pub graph: Graph,
    pub entries: Arc<Vec<Entry>>,
    pub verdicts: HashMap<Uid, Verdict>,
}

impl Garbage {
    /// The collector over all resources of the catalog.
    pub fn new(catalog: &Catalog) -> Self {
        Self {
            catalog: catalog.clone(),
            graph: Arc::default(),
            verdicts: Arc::default(),
            subscriptions: Arc::default(),
        }
    }

    /// Subscribes to what the catalog has and will have.
    fn follow(&self, queue: Arc<WorkQueue<Uid>>) {
        let (graph, verdicts, subscriptions) =
            (self.graph.clone(), self.verdicts.clone(), Arc::downgrade(&self.subscriptions));
        let mut changes = self.catalog.changes();
        tokio::spawn(async move {
            let mut known = 0;
            loop {
                let entries = changes.borrow_and_update().clone();
                for (index, entry) in entries.iter().enumerate().skip(known) {
                    let Some(subscriptions) = subscriptions.upgrade() else { return };
                    let (graph, verdicts, queue) = (graph.clone(), verdicts.clone(), queue.clone());
                    let subscription = entry.objects.subscribe(Box::new(move |change| {
                        if change.deleted {
                            // What was present is not any more.
                            verdicts.lock().remove(&Uid::new(change.meta.uid.as_deref().unwrap_or_default()));
                        }
                        graph.lock().observe(index, &change, &mut |uid| queue.add(uid));
                    }));
                    subscriptions.lock().push(subscription);
                }
                known = entries.len();
                drop(entries);
                if changes.changed().await.is_err() || subscriptions.strong_count() == 0 {
                    return;
                }
            }
        });
    }
}

impl Reconciler for Garbage {
    type Key = Uid;
    type Snapshot = State;

    fn name(&self) -> &'static str {
        "generic-garbage-collector"
    }

    fn wire(&self, wires: &mut Wires<Uid>) {
        self.follow(wires.queue().clone());
    }

    fn snapshot(&self) -> State {
        State {
            graph: self.graph.lock().clone(),
            entries: self.catalog.entries(),
            verdicts: self.verdicts.lock().clone(),
        }
    }

    fn plan(&self, state: &State, key: &Uid, _: &Context<'_>) -> Plan {
        plan::plan(state, key)
    }

    fn observe(&self, key: &Uid, action: &Action, outcome: &Outcome) {
        let Some(owner) = plan::probed(&self.graph.lock(), key, action) else { return };
        let verdict = match outcome {
            Ok(object) if coracle_api::meta::uid(object) == &*owner.0 => Verdict::Present,
            Ok(_) => Verdict::Absent,
            Err(error) if error.is_not_found() => Verdict::Absent,
            Err(_) => return,
        };
        let mut verdicts = self.verdicts.lock();
        if verdicts.len() >= VERDICTS {
            verdicts.clear();
        }
        verdicts.insert(owner, verdict);
    }

    fn workers(&self) -> usize {
        20
    }
}

#[cfg(test)]
mod tests;
