//! Pods that wait for a node.
//!
//! ```text
//! new, or helped by an event ─► active ─► in flight ─► bound
//!                                 ▲          │ no node fits
//!            back-off over ── backing off ◄──┼─ something happened meanwhile that may help
//!                                 ▲          ▼
//!                 event may help ─┴── unschedulable (for five minutes at most)
//! ```

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use coracle_api::clock::Clock;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{framework::Happened, pod_info::PodInfo};

const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);
/// Nothing waits for an event longer than this (upstream's `podMaxInUnschedulablePodsDuration`).
const LONGEST_WAIT: Duration = Duration::from_secs(5 * 60);
/// Events that are remembered for pods in flight; beyond it every one of them is taken as helped.
const EVENTS: usize = 4096;

/// Decides whether what happened may help a pod that these plugins refused.
pub type Hint = Arc<dyn Fn(&PodInfo, &[&'static str], &Happened) -> bool + Send + Sync>;

/// A pod on its way.
#[derive(Clone, Debug)]
pub struct Queued {
    pub pod: Arc<PodInfo>,
    /// How often it was tried.
    pub attempts: u32,
    /// When it was first seen.
    pub since: Duration,
    /// Events up to this one were known when it was taken.
    seen: u64,
}

/// The order of the active queue: priority, then age (upstream's PrioritySort).
type Rank = (Reverse<i32>, Duration, u64);

#[derive(Debug)]
enum Place {
    Active(Rank),
    BackingOff(Duration),
    Unschedulable { refused_by: Vec<&'static str>, until: Duration },
    InFlight,
}

#[derive(Debug)]
struct Entry {
    queued: Queued,
    place: Place,
    /// The pod changed or was deleted while in flight.
    stale: bool,
    sequence: u64,
}

/// The scheduling queue. Bounded by the number of pods that wait.
pub struct Queue {
    state: Mutex<State>,
    ready: Notify,
    clock: Arc<dyn Clock>,
    hint: Hint,
}

#[derive(Default)]
struct State {
    entries: HashMap<Arc<str>, Entry>,
    active: BTreeMap<Rank, Arc<str>>,
    /// By the end of the back-off, or of the wait.
    timers: BTreeSet<(Duration, Arc<str>)>,
    /// The unschedulable ones, which every event is held against.
    waiting: HashSet<Arc<str>>,
    events: VecDeque<(u64, Happened)>,
    next_event: u64,
    in_flight: usize,
    sequence: u64,
    closed: bool,
}

impl Queue {
    /// An empty queue; `hint` decides which events help which pods.
    pub fn new(clock: Arc<dyn Clock>, hint: Hint) -> Self {
        Self { state: Mutex::default(), ready: Notify::new(), clock, hint }
    }

    /// A pod that wants a node, new or changed. A change gets it another try, except that back-off goes on.
    pub fn set(&self, pod: Arc<PodInfo>) {
        let now = self.clock.monotonic();
        let mut state = self.state.lock();
        if let Some(entry) = state.entries.get_mut(&pod.uid) {
            entry.queued.pod = pod.clone();
            match &entry.place {
                Place::InFlight => entry.stale = true,
                Place::Unschedulable { .. } => state.requeue(&pod.uid, now),
                Place::Active(_) | Place::BackingOff(_) => {}
            }
        } else {
            state.sequence += 1;
            let sequence = state.sequence;
            let rank = (Reverse(pod.priority), now, sequence);
            let queued = Queued { pod: pod.clone(), attempts: 0, since: now, seen: 0 };
            state.active.insert(rank, pod.uid.clone());
            state.entries.insert(pod.uid.clone(), Entry { queued, place: Place::Active(rank), stale: false, sequence });
        }
        drop(state);
        self.ready.notify_one();
    }

    /// The pod is gone, or has a node.
    pub fn remove(&self, uid: &str) {
        let mut state = self.state.lock();
        let in_flight = state.entries.get(uid).is_some_and(|entry| matches!(entry.place, Place::InFlight));
        // One in flight is dropped when its cycle ends.
        if !in_flight {
            state.take(uid);
        } else if let Some(entry) = state.entries.remove(uid) {
            drop(entry);
            state.in_flight -= 1;
            state.trim();
        }
    }

    /// The next pod to place. None once the queue is closed.
    pub async fn pop(&self) -> Option<Queued> {
        loop {
            let notified = self.ready.notified();
            let wait = {
                let mut state = self.state.lock();
                if state.closed {
                    return None;
                }
                let now = self.clock.monotonic();
                state.tick(now);
                if let Some(queued) = state.pop() {
                    return Some(queued);
                }
                state.timers.first().map(|(at, _)| at.saturating_sub(now).max(Duration::from_millis(1)))
            };
            match wait {
                None => notified.await,
                Some(wait) => tokio::select! {
                    () = notified => {}
                    () = tokio::time::sleep(wait) => {}
                },
            }
        }
    }

    /// The pod in flight has its node, or is not wanted any more.
    pub fn done(&self, uid: &str) {
        let mut state = self.state.lock();
        if state.entries.get(uid).is_some_and(|entry| matches!(entry.place, Place::InFlight)) {
            state.entries.remove(uid);
            state.in_flight -= 1;
            state.trim();
        }
    }

    /// No node fits the pod in flight. It waits for an event that helps one of the plugins that refused it; where none did
    /// (an error, a failed binding), it backs off.
    pub fn unschedulable(&self, uid: &str, refused_by: Vec<&'static str>) {
        let now = self.clock.monotonic();
        let mut state = self.state.lock();
        let State { entries, events, .. } = &mut *state;
        let Some(entry) = entries.get_mut(uid).filter(|entry| matches!(entry.place, Place::InFlight)) else { return };
        let oldest = events.front().map_or(u64::MAX, |(number, _)| *number);
        let missed = entry.queued.seen < oldest && oldest != u64::MAX && oldest > entry.queued.seen + 1;
        let pod = entry.queued.pod.clone();
        let seen = entry.queued.seen;
        let mut later = events.iter().filter(|(number, _)| *number > seen);
        let helped = refused_by.is_empty()
            || std::mem::take(&mut entry.stale)
            || missed
            || later.any(|(_, happened)| (self.hint)(&pod, &refused_by, happened));
        let until = now + LONGEST_WAIT;
        entry.place = Place::Unschedulable { refused_by, until };
        let uid = entry.queued.pod.uid.clone();
        state.timers.insert((until, uid.clone()));
        state.waiting.insert(uid.clone());
        state.in_flight -= 1;
        state.trim();
        if helped {
            state.requeue(&uid, now);
        }
        drop(state);
        self.ready.notify_one();
    }

    /// Something happened that may help pods that wait.
    pub fn happened(&self, happened: Happened) {
        let now = self.clock.monotonic();
        let mut state = self.state.lock();
        let helps = |uid: &&Arc<str>| match state.entries.get(*uid) {
            Some(Entry { queued, place: Place::Unschedulable { refused_by, .. }, .. }) => {
                (self.hint)(&queued.pod, refused_by, &happened)
            }
            _ => false,
        };
        let helped: Vec<Arc<str>> = state.waiting.iter().filter(helps).cloned().collect();
        for uid in &helped {
            state.requeue(uid, now);
        }
        state.next_event += 1;
        if state.in_flight > 0 {
            let number = state.next_event;
            state.events.push_back((number, happened));
            if state.events.len() > EVENTS {
                state.events.pop_front();
            }
        }
        drop(state);
        if !helped.is_empty() {
            self.ready.notify_one();
        }
    }

    /// Pods that are active, backing off, and unschedulable.
    pub fn lengths(&self) -> (usize, usize, usize) {
        let state = self.state.lock();
        let count = |wanted: fn(&Place) -> bool| state.entries.values().filter(|entry| wanted(&entry.place)).count();
        (
            state.active.len(),
            count(|place| matches!(place, Place::BackingOff(_))),
            count(|place| matches!(place, Place::Unschedulable { .. })),
        )
    }

    /// Hands out nothing more.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.ready.notify_one();
    }
}

impl State {
    fn pop(&mut self) -> Option<Queued> {
        let (_, uid) = self.active.pop_first()?;
        let seen = self.next_event;
        let entry = self.entries.get_mut(&uid)?;
        entry.place = Place::InFlight;
        entry.stale = false;
        entry.queued.attempts += 1;
        entry.queued.seen = seen;
        self.in_flight += 1;
        Some(entry.queued.clone())
    }

    /// Moves what waited long enough.
    fn tick(&mut self, now: Duration) {
        while let Some((at, uid)) = self.timers.first().cloned() {
            if at > now {
                return;
            }
            self.timers.remove(&(at, uid.clone()));
            match self.entries.get(&uid).map(|entry| &entry.place) {
                Some(Place::BackingOff(until)) if *until == at => self.activate(&uid),
                Some(Place::Unschedulable { until, .. }) if *until == at => self.requeue(&uid, now),
                _ => {}
            }
        }
    }

    /// Gives an unschedulable pod another try, after its back-off.
    fn requeue(&mut self, uid: &Arc<str>, now: Duration) {
        let Some(entry) = self.entries.get_mut(uid) else { return };
        if let Place::Unschedulable { until, .. } = entry.place {
            self.timers.remove(&(until, uid.clone()));
        }
        self.waiting.remove(uid);
        let doublings = entry.queued.attempts.saturating_sub(1).min(10);
        let until = now + FIRST_BACKOFF.saturating_mul(1 << doublings).min(LONGEST_BACKOFF);
        entry.place = Place::BackingOff(until);
        self.timers.insert((until, uid.clone()));
    }

    fn activate(&mut self, uid: &Arc<str>) {
        let Some(entry) = self.entries.get_mut(uid) else { return };
        let rank = (Reverse(entry.queued.pod.priority), entry.queued.since, entry.sequence);
        entry.place = Place::Active(rank);
        self.active.insert(rank, uid.clone());
    }

    fn take(&mut self, uid: &str) {
        let Some((uid, entry)) = self.entries.remove_entry(uid) else { return };
        match entry.place {
            Place::Active(rank) => {
                self.active.remove(&rank);
            }
            Place::BackingOff(at) | Place::Unschedulable { until: at, .. } => {
                self.waiting.remove(&uid);
                self.timers.remove(&(at, uid));
            }
            Place::InFlight => {}
        }
    }

    /// Events are kept only while a pod is in flight that may have missed them.
    fn trim(&mut self) {
        if self.in_flight == 0 {
            self.events.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::json::json;
    use coracle_client::clock::TokioClock;
    use futures::FutureExt;

    fn pod(name: &str, priority: i32) -> Arc<PodInfo> {
        let pod = json!({"metadata": {"name": name, "namespace": "d", "uid": name}, "spec": {"containers": [], "priority": priority}});
        Arc::new(PodInfo::new(Arc::new(coracle_api::json::from_value(pod).unwrap())))
    }

    /// Pods called "picky" are helped by nothing.
    fn queue() -> Queue {
        let hint: Hint = Arc::new(|pod, _, _| pod.key.name() != "picky");
        Queue::new(Arc::new(TokioClock::starting_at(jiff::Timestamp::UNIX_EPOCH)), hint)
    }

    fn gone() -> Happened {
        Happened::PodGone(pod("gone", 0))
    }

    async fn next(queue: &Queue) -> String {
        queue.pop().await.unwrap().pod.key.name().to_owned()
    }

    #[tokio::test(start_paused = true)]
    async fn priority_then_age() {
        let queue = queue();
        for (name, priority) in [("a", 0), ("b", 5), ("c", 0), ("d", 5)] {
            queue.set(pod(name, priority));
        }
        let order = [next(&queue).await, next(&queue).await, next(&queue).await, next(&queue).await];
        assert_eq!(order, ["b", "d", "a", "c"]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_that_helps_ends_the_wait_after_the_back_off() {
        let queue = queue();
        queue.set(pod("a", 0));
        queue.set(pod("picky", 0));
        for name in ["a", "picky"] {
            assert_eq!(next(&queue).await, name);
            queue.unschedulable(name, vec!["Fit"]);
        }
        assert!(queue.pop().now_or_never().is_none());
        let begun = tokio::time::Instant::now();
        queue.happened(gone());
        assert_eq!(queue.lengths(), (0, 1, 1));
        assert_eq!(next(&queue).await, "a");
        assert_eq!(begun.elapsed().as_secs(), 1);
        queue.done("a");
        assert_eq!(next(&queue).await, "picky", "nothing waits for ever");
        assert_eq!(begun.elapsed().as_secs(), 301);
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_during_the_cycle_is_not_missed() {
        let queue = queue();
        queue.set(pod("a", 0));
        next(&queue).await;
        queue.happened(gone());
        queue.unschedulable("a", vec!["Fit"]);
        assert_eq!(queue.lengths(), (0, 1, 0));
        next(&queue).await;
        queue.unschedulable("a", vec!["Fit"]);
        assert_eq!(queue.lengths(), (0, 0, 1), "that event was before this cycle");
    }

    #[tokio::test(start_paused = true)]
    async fn a_removed_pod_does_not_come_back() {
        let queue = queue();
        queue.set(pod("a", 0));
        next(&queue).await;
        queue.remove("a");
        queue.unschedulable("a", vec!["Fit"]);
        queue.set(pod("b", 0));
        queue.remove("b");
        assert_eq!(queue.lengths(), (0, 0, 0));
        assert!(queue.pop().now_or_never().is_none());
    }
}
