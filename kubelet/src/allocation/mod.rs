//! What each pod of the node has been given of its CPU and memory. A pod asks by its specification, which may change while it
//! runs (KEP-1287); here it is decided whether the node has room (kubernetes `pkg/kubelet/allocation`).
//!
//! ```text
//! spec ──offer──► allocated (recorded on disk) ──resize over CRI──► actuated
//!        └─► no room now: Deferred, never: Infeasible
//! ```
//!
//! A pod that was never resized has no record: what it was given is in its containers' annotations, or is its specification.

mod record;

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use coracle_api::resources::Amounts as _;
use k8s_openapi::api::core::v1::{Pod, ResourceRequirements};
use parking_lot::Mutex;
use tokio::sync::watch;

pub use record::{Record, annotation, annotation_of_pod};

use crate::pod::qos::{self, Qos};
use crate::pod::requests::{self, Amounts, Resources};
use crate::pod::{self};
use crate::volumes::Paths;

/// Why a pod does not get what it asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// `Deferred` or `Infeasible`.
    pub reason: &'static str,
    pub message: String,
}

/// Where a pod's resize stands.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Resize {
    pub pending: Option<Pending>,
    /// The pod's generation whose resources it has been given.
    pub generation: Option<i64>,
    /// What a run has, where that is not what it was started with, with the limits that are its pod's. By run.
    pub actuated: BTreeMap<String, ResourceRequirements>,
}

/// A pod of the node.
#[derive(Debug)]
struct Entry {
    desired: Arc<Pod>,
    /// Not known before the pod's worker has looked what runs: what it asks for counts until then.
    allocated: Option<Resources>,
    resize: Resize,
    /// Rises with every pod that has to wait: who waits longest goes first.
    since: u64,
}

impl Entry {
    fn given(&self) -> Arc<Pod> {
        match &self.allocated {
            Some(allocated) => requests::with_allocated(&self.desired, allocated),
            None => self.desired.clone(),
        }
    }

    fn record(&self) -> Record {
        Record {
            generation: self.resize.generation,
            allocated: self.allocated.clone().unwrap_or_default(),
            actuated: self.resize.actuated.clone(),
        }
    }

    /// Asks for something that it has not been given and that may be given later.
    fn waits(&self) -> bool {
        self.resize.pending.as_ref().is_some_and(|pending| pending.reason == "Deferred")
    }
}

/// What all pods of the node have been given.
#[derive(Debug)]
pub struct Allocations {
    paths: Paths,
    capacity: Amounts,
    // By uid. Held while a record is written, so that nothing is given twice; never across an await.
    entries: Mutex<HashMap<String, Entry>>,
    /// Rises when a pod that waited was given something.
    changes: watch::Sender<u64>,
}

impl Allocations {
    /// For a node that pods can have `capacity` of.
    pub fn new(paths: Paths, capacity: Amounts) -> Self {
        Self { paths, capacity, entries: Mutex::default(), changes: watch::Sender::new(0) }
    }

    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Counts a pod whose worker has not looked yet with what it asks for.
    pub fn register(&self, pod: &Arc<Pod>) {
        if pod.spec.is_none() || pod::is_terminal(pod) {
            return;
        }
        let entry = || Entry { desired: pod.clone(), allocated: None, resize: Resize::default(), since: 0 };
        self.entries.lock().entry(pod::uid(pod).to_owned()).or_insert_with(entry);
    }

    /// Says what a pod was given before this kubelet was started. The first word counts.
    pub fn recover(&self, pod: &Arc<Pod>, record: Record) {
        self.register(pod);
        let mut entries = self.entries.lock();
        if let Some(entry) = entries.get_mut(pod::uid(pod)).filter(|entry| entry.allocated.is_none()) {
            entry.allocated = Some(record.allocated);
            entry.resize.generation = record.generation;
            entry.resize.actuated = record.actuated;
        }
    }

    /// Gives the pod what it asks for if there is room. The pod with what it has been given, and where its resize stands.
    pub fn offer(&self, pod: &Arc<Pod>) -> (Arc<Pod>, Resize) {
        let mut entries = self.entries.lock();
        let Some(entry) = entries.get_mut(pod::uid(pod)) else { return (pod.clone(), Resize::default()) };
        let news = !Arc::ptr_eq(&entry.desired, pod);
        entry.desired = pod.clone();
        let differs = entry.allocated.as_ref().is_some_and(|allocated| requests::differs(pod, allocated));
        if !differs {
            entry.resize.pending = None;
        } else if news || entry.resize.pending.is_none() {
            self.consider(&mut entries, pod::uid(pod));
            // It may have given something back.
            self.settle(&mut entries);
        }
        match entries.get(pod::uid(pod)) {
            Some(entry) => (entry.given(), entry.resize.clone()),
            None => (pod.clone(), Resize::default()),
        }
    }

    /// The pod with what it has been given, asking for nothing.
    pub fn given(&self, pod: &Arc<Pod>) -> (Arc<Pod>, Resize) {
        match self.entries.lock().get(pod::uid(pod)) {
            Some(Entry { allocated: Some(allocated), resize, .. }) => {
                (requests::with_allocated(pod, allocated), Resize { pending: None, ..resize.clone() })
            }
            _ => (pod.clone(), Resize::default()),
        }
    }

    /// A run has been given other resources.
    pub fn actuated(&self, uid: &str, run: &str, resources: ResourceRequirements, runs: &[String]) {
        let mut entries = self.entries.lock();
        let Some(entry) = entries.get_mut(uid) else { return };
        entry.resize.actuated.retain(|known, _| runs.contains(known));
        entry.resize.actuated.insert(run.to_owned(), resources);
        if let Err(error) = entry.record().save(&self.paths.resources(uid)) {
            // Done once more after a restart then, which changes nothing.
            tracing::warn!(uid, error = %error, "a resize could not be recorded");
        }
    }

    /// The pod takes nothing any more.
    pub fn forget(&self, uid: &str) {
        let mut entries = self.entries.lock();
        if entries.remove(uid).is_some() {
            self.settle(&mut entries);
        }
    }

    /// Gives those who wait what there is room for now: first who asks for less than he has, then by priority, class and time
    /// (kubernetes `sortPendingResizes`).
    fn settle(&self, entries: &mut HashMap<String, Entry>) {
        let mut waiting: Vec<_> = entries
            .iter()
            .filter(|(_, entry)| entry.waits())
            .map(|(uid, entry)| {
                let priority = entry.desired.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0);
                let guaranteed = qos::of(&entry.desired) == Qos::Guaranteed;
                let more = increases(requests::of_pod(&entry.desired), requests::of_pod(&entry.given()));
                ((more, Reverse(priority), !guaranteed, entry.since), uid.clone())
            })
            .collect();
        waiting.sort();
        let mut given = false;
        for (_, uid) in waiting {
            self.consider(entries, &uid);
            given |= entries.get(&uid).is_some_and(|entry| !entry.waits());
        }
        if given {
            self.changes.send_modify(|level| *level += 1);
        }
    }

    /// Gives one pod what it asks for, or says why not.
    fn consider(&self, entries: &mut HashMap<String, Entry>, uid: &str) {
        let others = entries.iter().filter(|(other, _)| *other != uid);
        let mut used = Amounts::default();
        others.for_each(|(_, entry)| used.add(&requests::of_pod(&entry.given())));
        let last = entries.values().map(|entry| entry.since).max().unwrap_or(0);
        let Some(entry) = entries.get_mut(uid) else { return };
        let (wanted, has) = (requests::of_pod(&entry.desired), requests::of_pod(&entry.given()));
        let pending = refusal(wanted, has, used, self.capacity);
        if let Some(pending) = pending {
            if !entry.waits() {
                entry.since = last + 1;
            }
            entry.resize.pending = Some(pending);
            return;
        }
        let given = Record {
            generation: entry.desired.metadata.generation,
            allocated: requests::desired(&entry.desired),
            actuated: entry.resize.actuated.clone(),
        };
        // Recorded before anything is done by it: a kubelet that is started again must not take back what was given.
        match given.save(&self.paths.resources(uid)) {
            Ok(()) => {
                entry.allocated = Some(given.allocated);
                entry.resize.generation = given.generation;
                entry.resize.pending = None;
            }
            Err(error) => tracing::warn!(uid, error = %error, "an allocation could not be recorded"),
        }
    }
}

fn increases(wanted: Amounts, has: Amounts) -> bool {
    wanted.cpu_millis > has.cpu_millis || wanted.memory > has.memory
}

/// Why a pod that has `has` cannot have `wanted` beside the others' `used`; in upstream's words (`pkg/kubelet/lifecycle/predicate.go`).
fn refusal(wanted: Amounts, has: Amounts, used: Amounts, capacity: Amounts) -> Option<Pending> {
    let rows = [
        ("cpu", wanted.cpu_millis, has.cpu_millis, used.cpu_millis, capacity.cpu_millis),
        ("memory", wanted.memory, has.memory, used.memory, capacity.memory),
    ];
    let never = rows.into_iter().find(|(_, wanted, _, _, capacity)| wanted > capacity);
    if let Some((name, wanted, _, _, capacity)) = never {
        let message = format!("Node didn't have enough capacity: {name}, requested: {wanted}, capacity: {capacity}");
        return Some(Pending { reason: "Infeasible", message });
    }
    let lacks = rows.into_iter().find(|(_, wanted, has, used, capacity)| {
        // What asks for less than it has is never refused, however full the node is.
        wanted > has && *wanted > capacity.saturating_sub(*used)
    });
    let (name, wanted, _, used, capacity) = lacks?;
    let message =
        format!("Node didn't have enough resource: {name}, requested: {wanted}, used: {used}, capacity: {capacity}");
    Some(Pending { reason: "Deferred", message })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    struct Node {
        allocations: Allocations,
        _dir: tempfile::TempDir,
    }

    fn node() -> Node {
        let dir = tempfile::tempdir().unwrap();
        let capacity = Amounts { cpu_millis: 4000, memory: 1 << 30 };
        Node { allocations: Allocations::new(Paths::new(dir.path()), capacity), _dir: dir }
    }

    fn pod(uid: &str, cpu: &str, priority: i32) -> Arc<Pod> {
        let pod = json!({"metadata": {"uid": uid, "generation": 1}, "spec": {"priority": priority, "containers":
            [{"name": "a", "resources": {"requests": {"cpu": cpu}}}]}});
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    impl Node {
        fn start(&self, pod: &Arc<Pod>) {
            let allocated = requests::desired(pod);
            self.allocations.recover(pod, Record { allocated, ..Record::default() });
        }
        fn offer(&self, pod: &Arc<Pod>) -> (i64, String) {
            let (given, resize) = self.allocations.offer(pod);
            let pending = resize.pending.map(|pending| format!("{}: {}", pending.reason, pending.message));
            (requests::of_pod(&given).cpu_millis, pending.unwrap_or_default())
        }
    }

    #[test]
    fn room_decides() {
        let node = node();
        node.start(&pod("a", "1", 0));
        node.start(&pod("b", "2", 0));
        assert_eq!(node.offer(&pod("a", "2", 0)), (2000, String::new()));
        let deferred = "Deferred: Node didn't have enough resource: cpu, requested: 3000, used: 2000, capacity: 4000";
        assert_eq!(node.offer(&pod("a", "3", 0)), (2000, deferred.into()));
        let infeasible = "Infeasible: Node didn't have enough capacity: cpu, requested: 5000, capacity: 4000";
        assert_eq!(node.offer(&pod("a", "5", 0)), (2000, infeasible.into()));
        assert_eq!(node.offer(&pod("a", "1", 0)), (1000, String::new()), "less is always given");
    }

    #[test]
    fn who_waits_is_served_by_priority() {
        let node = node();
        for uid in ["a", "b", "c"] {
            node.start(&pod(uid, "1", 0));
        }
        let (low, high) = (pod("a", "2500m", 0), pod("b", "2500m", 7));
        assert!(node.offer(&low).1.starts_with("Deferred") && node.offer(&high).1.starts_with("Deferred"));
        let mut changes = node.allocations.changes();
        changes.mark_unchanged();
        node.allocations.forget("c");
        assert!(changes.has_changed().unwrap());
        assert_eq!(node.offer(&high), (2500, String::new()));
        assert_eq!(node.offer(&low).0, 1000);
        node.allocations.forget("b");
        assert_eq!(node.offer(&low), (2500, String::new()));
    }

    #[test]
    fn what_was_given_outlives_the_kubelet() {
        let node = node();
        let small = pod("a", "1", 0);
        node.start(&small);
        node.offer(&pod("a", "2", 0));
        let record = Record::load(&node.allocations.paths.resources("a")).unwrap();
        assert_eq!(requests::of_pod(&requests::with_allocated(&small, &record.allocated)).cpu_millis, 2000);
        assert_eq!(record.generation, Some(1));
    }
}
