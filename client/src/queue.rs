//! The work queue: each key is worked on by one worker at a time, and a key that is added while it is worked on comes again.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet, VecDeque},
    hash::Hash,
    sync::Arc,
    time::Duration,
};

use coracle_api::clock::Clock;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Upstream's default controller rate limiter (client-go util/workqueue, `DefaultControllerRateLimiter`).
const BASE_DELAY: Duration = Duration::from_millis(5);
const MAX_DELAY: Duration = Duration::from_secs(1000);

/// A queue of keys with the semantics of client-go's rate limiting work queue. Bounded by the number of distinct keys.
pub struct WorkQueue<T> {
    state: Mutex<State<T>>,
    ready: Notify,
    clock: Arc<dyn Clock>,
    base_delay: Duration,
    max_delay: Duration,
}

struct State<T> {
    /// In the order in which they are handed out. Every key here is in `dirty` and not in `processing`.
    order: VecDeque<T>,
    /// Needs work.
    dirty: HashSet<T>,
    /// Is worked on; a key in both sets is queued again when its worker is done.
    processing: HashSet<T>,
    delayed: BinaryHeap<Reverse<Due<T>>>,
    /// The earliest time at which each delayed key comes; later entries in the heap are stale.
    due: HashMap<T, Duration>,
    failures: HashMap<T, u32>,
    sequence: u64,
    closed: bool,
}

struct Due<T> {
    at: Duration,
    sequence: u64,
    item: T,
}

impl<T> PartialEq for Due<T> {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.sequence) == (other.at, other.sequence)
    }
}
impl<T> Eq for Due<T> {}
impl<T> PartialOrd for Due<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<T> Ord for Due<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

enum Poll<T> {
    Item(T),
    Wait(Option<Duration>),
    Closed,
}

impl<T: Clone + Eq + Hash> WorkQueue<T> {
    /// An empty queue whose delays run on `clock`.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self::with_delays(clock, BASE_DELAY, MAX_DELAY)
    }

    /// As `new`, with other bounds of the exponential back-off than 5 ms to 1000 s.
    pub fn with_delays(clock: Arc<dyn Clock>, base_delay: Duration, max_delay: Duration) -> Self {
        let state = State {
            order: VecDeque::new(),
            dirty: HashSet::new(),
            processing: HashSet::new(),
            delayed: BinaryHeap::new(),
            due: HashMap::new(),
            failures: HashMap::new(),
            sequence: 0,
            closed: false,
        };
        Self { state: Mutex::new(state), ready: Notify::new(), clock, base_delay, max_delay }
    }

    /// Asks for work on `item`; once is enough until a worker takes it.
    pub fn add(&self, item: T) {
        if self.state.lock().add(item) {
            self.ready.notify_one();
        }
    }

    /// Asks for work on `item` after a delay. Of several delays for one item the shortest counts.
    pub fn add_after(&self, item: T, delay: Duration) {
        if delay.is_zero() {
            return self.add(item);
        }
        let at = self.clock.monotonic() + delay;
        self.state.lock().delay(item, at);
        self.ready.notify_one();
    }

    /// Asks for work on `item` after its own delay, which doubles with every call until `forget`.
    pub fn add_rate_limited(&self, item: T) {
        let delay = {
            let mut state = self.state.lock();
            let failures = state.failures.entry(item.clone()).or_default();
            let delay = self.base_delay.saturating_mul(1 << (*failures).min(30)).min(self.max_delay);
            *failures = failures.saturating_add(1);
            delay
        };
        self.add_after(item, delay);
    }

    /// The item succeeded: its next failure starts from the shortest delay again.
    pub fn forget(&self, item: &T) {
        self.state.lock().failures.remove(item);
    }

    /// How often the item was rate limited since it was last forgotten.
    pub fn failures(&self, item: &T) -> u32 {
        self.state.lock().failures.get(item).copied().unwrap_or(0)
    }

    /// The next item to work on; call `done` with it afterwards. None once the queue is closed and drained.
    pub async fn get(&self) -> Option<T> {
        loop {
            let notified = self.ready.notified();
            let poll = self.state.lock().poll(self.clock.monotonic());
            match poll {
                Poll::Item(item) => {
                    // Others may wait for what is left.
                    self.ready.notify_one();
                    return Some(item);
                }
                Poll::Closed => {
                    self.ready.notify_one();
                    return None;
                }
                Poll::Wait(None) => notified.await,
                Poll::Wait(Some(pause)) => {
                    tokio::select! {
                        () = notified => {}
                        () = tokio::time::sleep(pause) => {}
                    }
                }
            }
        }
    }

    /// The worker is finished with the item; where it was added meanwhile, it is queued again.
    pub fn done(&self, item: &T) {
        let mut state = self.state.lock();
        state.processing.remove(item);
        if state.dirty.contains(item) {
            state.order.push_back(item.clone());
            drop(state);
            self.ready.notify_one();
        }
    }

    /// Items that wait for a worker now, without the delayed ones.
    pub fn len(&self) -> usize {
        self.state.lock().order.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes nothing more in and ends every `get` once what is queued has been handed out; delayed items are dropped.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.ready.notify_one();
    }
}

impl<T: Clone + Eq + Hash> State<T> {
    /// True when the item is newly queued.
    fn add(&mut self, item: T) -> bool {
        if self.closed || !self.dirty.insert(item.clone()) {
            return false;
        }
        let queued = !self.processing.contains(&item);
        if queued {
            self.order.push_back(item);
        }
        queued
    }

    fn delay(&mut self, item: T, at: Duration) {
        if self.closed || self.due.get(&item).is_some_and(|have| *have <= at) {
            return;
        }
        self.due.insert(item.clone(), at);
        self.sequence += 1;
        self.delayed.push(Reverse(Due { at, sequence: self.sequence, item }));
    }

    fn poll(&mut self, now: Duration) -> Poll<T> {
        while let Some(Reverse(first)) = self.delayed.peek() {
            let stale = self.due.get(&first.item) != Some(&first.at);
            if !stale && first.at > now {
                break;
            }
            if let Some(Reverse(Due { item, .. })) = self.delayed.pop()
                && !stale
            {
                self.due.remove(&item);
                self.add(item);
            }
        }
        if let Some(item) = self.order.pop_front() {
            self.dirty.remove(&item);
            self.processing.insert(item.clone());
            return Poll::Item(item);
        }
        if self.closed {
            return Poll::Closed;
        }
        Poll::Wait(self.delayed.peek().map(|Reverse(first)| first.at.saturating_sub(now).max(Duration::from_millis(1))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::TokioClock;
    use futures::FutureExt;

    fn queue() -> WorkQueue<&'static str> {
        WorkQueue::new(Arc::new(TokioClock::starting_at(jiff::Timestamp::UNIX_EPOCH)))
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_is_worked_on_once_at_a_time() {
        let queue = queue();
        queue.add("a");
        queue.add("a");
        assert_eq!(queue.get().await, Some("a"));
        queue.add("a");
        assert!(queue.get().now_or_never().is_none(), "a is being worked on");
        queue.done(&"a");
        assert_eq!(queue.get().await, Some("a"), "it was added meanwhile");
        queue.done(&"a");
        assert!(queue.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn delays_count_from_the_shortest() {
        let queue = queue();
        let begun = tokio::time::Instant::now();
        queue.add_after("slow", Duration::from_secs(9));
        queue.add_after("a", Duration::from_secs(5));
        queue.add_after("a", Duration::from_secs(2));
        queue.add_after("a", Duration::from_secs(7));
        assert_eq!(queue.get().await, Some("a"));
        assert_eq!(begun.elapsed().as_secs(), 2);
        queue.done(&"a");
        assert_eq!(queue.get().await, Some("slow"));
        assert_eq!(begun.elapsed().as_secs(), 9);
        assert!(queue.get().now_or_never().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn failures_double_the_delay_until_forgotten() {
        let queue = queue();
        let mut waited = Vec::new();
        for round in 0..5 {
            if round == 4 {
                queue.forget(&"a");
            }
            let begun = tokio::time::Instant::now();
            queue.add_rate_limited("a");
            queue.get().await;
            queue.done(&"a");
            waited.push(begun.elapsed().as_millis());
        }
        assert_eq!(waited, [5, 10, 20, 40, 5]);
    }

    #[tokio::test(start_paused = true)]
    async fn closing_drains_what_is_queued() {
        let queue = Arc::new(queue());
        queue.add("a");
        queue.add_after("never", Duration::from_secs(1));
        queue.close();
        queue.add("late");
        assert_eq!(queue.get().await, Some("a"));
        assert_eq!(queue.get().await, None);
        assert_eq!(queue.get().await, None);
    }
}
