//! Deletes what is left without an owner, and lets owners go before or after their dependents, as they ask
//! (upstream's pkg/controller/garbagecollector).
//!
//! ```text
//! metadata of everything ─► Graph (owner ─► dependents) ─► plan per object: keep, cut a dangling reference,
//!                                                          delete, orphan dependents, release a finalizer
//! ```

mod graph;
mod plan;

use std::{collections::HashSet, fmt, sync::Arc, time::Duration};

use coracle_api::clock::Clock;
use coracle_client::{Action, Context, Plan, Reconciler, ResourceId, Wires, WorkQueue, executor::Outcome};
use jiff::Timestamp;
use parking_lot::Mutex;

use crate::catalog::{Catalog, Entry, Followed};
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

/// An owner as an object of some namespace names it. Who writes a reference may name a uid with coordinates of which nothing
/// is true, so what the server says of these is true for whoever names the same alone
/// (pkg/controller/garbagecollector `absentOwnerCache`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    pub api_version: String,
    pub kind: String,
    pub namespace: String,
    pub name: String,
}

impl Named {
    /// What an object in `namespace` calls its owner.
    pub fn of(owner: &Owner, namespace: &str) -> Self {
        let reference = &owner.reference;
        Self {
            api_version: reference.api_version.clone(),
            kind: reference.kind.clone(),
            namespace: namespace.to_owned(),
            name: reference.name.clone(),
        }
    }
}

/// What the server said about an owner that the graph does not have, or not by that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Absent,
    /// For what the graph never has, as it is of a resource that nobody follows or came and went unseen, that is true for a while
    /// only.
    Present {
        until: Timestamp,
        pause: Duration,
    },
}

impl Verdict {
    /// What is true after the server has said so, and `before` was.
    fn after(before: Option<Self>, is_present: bool, now: Timestamp) -> Self {
        if !is_present {
            return Self::Absent;
        }
        let pause = match before {
            Some(Self::Present { pause, .. }) => (2 * pause).min(LONGEST_PAUSE),
            _ => SHORTEST_PAUSE,
        };
        Self::Present { until: now.saturating_add(pause).unwrap_or(now), pause }
    }

    /// How long an owner is still taken to be there. A clock that is set back does not make that longer.
    pub fn present_for(self, now: Timestamp) -> Option<Duration> {
        let Self::Present { until, pause } = self else { return None };
        let left = Duration::try_from(until.duration_since(now)).ok()?;
        (!left.is_zero() && left <= pause).then_some(left)
    }
}

/// How long an owner that is there is not asked for again: longer each time, to the most of upstream's queues
/// (client-go `DefaultTypedControllerRateLimiter`).
const SHORTEST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(1000);

/// What the server said about owners, by uid.
#[derive(Clone, Debug, Default)]
pub struct Verdicts(imbl::HashMap<Uid, Vec<(Named, Verdict)>>);

/// Owners of which verdicts are remembered, and names of one of them; beyond it all are asked for again.
const VERDICTS: usize = 5000;
const NAMES: usize = 16;

impl Verdicts {
    /// What is known of an owner by this name.
    pub fn get(&self, owner: &Uid, named: &Named) -> Option<Verdict> {
        self.0.get(owner)?.iter().find(|(have, _)| have == named).map(|(_, verdict)| *verdict)
    }

    /// Remembers what the server said.
    pub fn insert(&mut self, owner: Uid, named: Named, is_present: bool, now: Timestamp) {
        let verdict = Verdict::after(self.get(&owner, &named), is_present, now);
        if self.0.len() >= VERDICTS && !self.0.contains_key(&owner) {
            self.0.clear();
        }
        let names = self.0.entry(owner).or_default();
        names.retain(|(have, _)| *have != named);
        if names.len() >= NAMES {
            names.clear();
        }
        names.push((named, verdict));
    }

    fn forget(&mut self, owner: &Uid) {
        self.0.remove(owner);
    }
}

/// Keys of resources that are not all here yet: a plan on a part of a graph takes dependents for strangers. Open once all are
/// here.
struct Gate {
    held: Mutex<Option<HashSet<Uid>>>,
    queue: Arc<WorkQueue<Uid>>,
}

impl Gate {
    fn new(queue: &Arc<WorkQueue<Uid>>) -> Arc<Self> {
        Arc::new(Self { held: Mutex::new(Some(HashSet::new())), queue: queue.clone() })
    }

    fn add(&self, uid: Uid) {
        match &mut *self.held.lock() {
            Some(held) => drop(held.insert(uid)),
            None => self.queue.add(uid),
        }
    }

    fn open(&self) {
        // Not under the lock's guard of a `for`: a handler may be waiting for it.
        let held = self.held.lock().take();
        held.into_iter().flatten().for_each(|uid| self.queue.add(uid));
    }
}

/// How long the others wait for a resource that cannot be listed (pkg/controller/garbagecollector, `initialSyncTimeout`).
const SYNCED_WITHIN: Duration = Duration::from_secs(30);

/// Collects garbage.
pub struct Garbage {
    catalog: Catalog,
    clock: Arc<dyn Clock>,
    graph: Arc<Mutex<Graph>>,
    verdicts: Arc<Mutex<Verdicts>>,
    subscriptions: Arc<Mutex<Followed>>,
}

/// What a plan reads.
pub struct State {
    pub graph: Graph,
    pub entries: Arc<Vec<Entry>>,
    pub verdicts: Verdicts,
}

impl Garbage {
    /// The collector over all resources of the catalog.
    pub fn new(catalog: &Catalog, clock: Arc<dyn Clock>) -> Self {
        Self {
            catalog: catalog.clone(),
            clock,
            graph: Arc::default(),
            verdicts: Arc::default(),
            subscriptions: Arc::default(),
        }
    }

    /// Follows what the catalog has and will have.
    fn follow(&self, queue: Arc<WorkQueue<Uid>>) {
        let (graph, verdicts, subscriptions) =
            (self.graph.clone(), self.verdicts.clone(), Arc::downgrade(&self.subscriptions));
        let mut changes = self.catalog.changes();
        tokio::spawn(async move {
            let mut known: Vec<Arc<ResourceId>> = Vec::new();
            loop {
                let entries = changes.borrow_and_update().clone();
                let is_new = |entry: &&Entry| !known.iter().any(|have| Arc::ptr_eq(have, &entry.resource));
                let gate = Gate::new(&queue);
                let mut waits = Vec::new();
                for entry in entries.iter().filter(is_new) {
                    let Some(objects) = &entry.objects else { continue };
                    let Some(subscriptions) = subscriptions.upgrade() else { return };
                    let (graph, verdicts, gate) = (graph.clone(), verdicts.clone(), gate.clone());
                    let resource = entry.resource.clone();
                    let subscription = objects.subscribe(Box::new(move |change| {
                        if change.deleted {
                            // What was present is not any more.
                            verdicts.lock().forget(&Uid::new(change.meta.uid.as_deref().unwrap_or_default()));
                        }
                        graph.lock().observe(&resource, &change, &mut |uid| gate.add(uid));
                    }));
                    subscriptions.lock().push((entry.resource.clone(), subscription));
                    waits.push(objects.synced());
                }
                if tokio::time::timeout(SYNCED_WITHIN, futures::future::join_all(waits)).await.is_err() {
                    tracing::warn!("not all resources could be listed in time; garbage is collected without them");
                }
                gate.open();
                let is_there =
                    |resource: &Arc<ResourceId>| entries.iter().any(|entry| Arc::ptr_eq(resource, &entry.resource));
                if let Some(subscriptions) = subscriptions.upgrade() {
                    subscriptions.lock().retain(|(resource, _)| is_there(resource));
                }
                if known.iter().any(|resource| !is_there(resource)) {
                    // Those of a version that is no longer served are here as objects of another one by now.
                    graph.lock().forget(&|resource| !is_there(resource), &mut |uid| queue.add(uid));
                }
                known = entries.iter().map(|entry| entry.resource.clone()).collect();
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

    fn plan(&self, state: &State, key: &Uid, context: &Context<'_>) -> Plan {
        plan::plan(state, key, context.now)
    }

    fn observe(&self, key: &Uid, action: &Action, outcome: &Outcome) {
        let found = match outcome {
            Ok(object) => coracle_api::meta::uid(object),
            Err(error) if error.is_not_found() => "",
            Err(_) => return,
        };
        let probed = plan::probed(&self.graph.lock(), key, action);
        let mut verdicts = self.verdicts.lock();
        for (owner, named) in probed {
            let is_present = *owner.0 == *found;
            verdicts.insert(owner, named, is_present, self.clock.now());
        }
    }

    fn workers(&self) -> usize {
        20
    }
}

#[cfg(test)]
mod tests;
