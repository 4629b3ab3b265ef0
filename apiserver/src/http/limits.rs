//! How much the server takes on at a time, and whose turn it is.
//!
//! ```text
//! request ─► free turn? ──────────────────────────► runs
//!              └► queue of its user ─► next of each user in turn ─┘
//!                   └► full: the longest queue loses its last, or this one is turned away (429)
//! ```
//!
//! Reads and writes have turns of their own (upstream `--max-requests-inflight`, `--max-mutating-requests-inflight`), so
//! that neither starves the other; and no user has them all, so that who sends bodies that do not end keeps nobody else
//! from having a turn. Streams (watches, logs, connections) take no turn, but there is a most of them.

use crate::auth::UserInfo;
use coracle_api::Status;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// Requests in flight, beside streams.
pub const READS: usize = 400;
pub const WRITES: usize = 200;

/// How many requests may wait for their turn, for each that is in flight.
const QUEUED: usize = 4;

/// This part of the turns is never a single user's.
const OTHERS: usize = 4;

/// How long a request may wait: a quarter of the time it has for its answer (upstream's API Priority and Fairness).
const WAIT: Duration = Duration::from_secs(15);

/// Watches and other streams, at most.
pub const STREAMS: usize = 20_000;

/// Turns of one kind of request.
#[derive(Debug)]
struct Turns {
    state: Mutex<State>,
    /// The most that may wait.
    queue: usize,
    running: usize,
    /// The most that one user may have.
    share: usize,
}

#[derive(Debug, Default)]
struct State {
    free: usize,
    waiting: usize,
    /// How many turns each user has.
    taken: HashMap<Arc<str>, usize>,
    /// Users with somebody in their queue, in the order of their turns.
    order: VecDeque<Arc<str>>,
    queues: HashMap<Arc<str>, VecDeque<oneshot::Sender<Permit>>>,
}

impl State {
    /// Whoever is next and may have one more turn.
    fn pop(&mut self, share: usize) -> Option<(Arc<str>, oneshot::Sender<Permit>)> {
        let at = self.order.iter().position(|user| self.has(user) < share)?;
        let user = self.order.remove(at)?;
        let queue = self.queues.get_mut(&user)?;
        let next = queue.pop_front()?;
        self.waiting -= 1;
        if queue.is_empty() {
            self.queues.remove(&user);
        } else {
            self.order.push_back(user.clone());
        }
        Some((user, next))
    }

    fn has(&self, user: &str) -> usize {
        self.taken.get(user).copied().unwrap_or(0)
    }

    fn begin(&mut self, user: &Arc<str>) {
        self.free -= 1;
        *self.taken.entry(user.clone()).or_default() += 1;
    }

    fn end(&mut self, user: &str) {
        self.free += 1;
        if let Some(count) = self.taken.get_mut(user) {
            *count -= 1;
            if *count == 0 {
                self.taken.remove(user);
            }
        }
    }

    /// Takes the last of the longest queue away, if that is longer than one more of `user` would make theirs.
    fn shed_for(&mut self, user: &str) -> bool {
        let own = self.queues.get(user).map_or(0, VecDeque::len);
        let longest = self.queues.iter().max_by_key(|(_, queue)| queue.len());
        let Some((longest, _)) = longest.filter(|(_, queue)| queue.len() > own + 1) else { return false };
        let longest = longest.clone();
        // Its sender gone, it hears that it is turned away.
        let shed = self.queues.get_mut(&longest).and_then(VecDeque::pop_back);
        self.waiting -= usize::from(shed.is_some());
        shed.is_some()
    }

    fn push(&mut self, user: Arc<str>, sender: oneshot::Sender<Permit>) {
        let queue = self.queues.entry(user.clone()).or_default();
        if queue.is_empty() {
            self.order.push_back(user);
        }
        queue.push_back(sender);
        self.waiting += 1;
    }
}

impl Turns {
    fn new(running: usize) -> Arc<Self> {
        let state = State { free: running, ..State::default() };
        Arc::new(Self { state: Mutex::new(state), queue: running * QUEUED, running, share: running - running / OTHERS })
    }

    /// A turn, at once or after those before it.
    async fn take(self: &Arc<Self>, user: &str) -> Result<Permit, Status> {
        let turn = {
            let mut state = self.state.lock();
            if state.free > 0 && state.has(user) < self.share {
                let user: Arc<str> = user.into();
                state.begin(&user);
                return Ok(Permit { turn: Some((self.clone(), user)), _stream: None });
            }
            if state.waiting >= self.queue && !state.shed_for(user) {
                return Err(too_many());
            }
            let (sender, turn) = oneshot::channel();
            state.push(user.into(), sender);
            turn
        };
        match tokio::time::timeout(WAIT, turn).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(too_many()),
        }
    }

    /// Hands a turn that has become free to the next one that still waits.
    fn pass_on(self: &Arc<Self>, user: &str) {
        let mut state = self.state.lock();
        state.end(user);
        while state.free > 0
            && let Some((user, next)) = state.pop(self.share)
        {
            state.begin(&user);
            // Whoever does not wait any longer gives it back; not by dropping it, which would pass it on again.
            if let Err(mut back) = next.send(Permit { turn: Some((self.clone(), user.clone())), _stream: None }) {
                back.turn = None;
                state.end(&user);
            }
        }
    }

    fn load(&self) -> Load {
        let state = self.state.lock();
        Load { running: self.running - state.free, waiting: state.waiting }
    }
}

/// How many of a kind are in flight, and how many wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    pub running: usize,
    pub waiting: usize,
}

/// What a request holds while it runs.
#[derive(Debug, Default)]
pub struct Permit {
    turn: Option<(Arc<Turns>, Arc<str>)>,
    _stream: Option<OwnedSemaphorePermit>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some((turns, user)) = self.turn.take() {
            turns.pass_on(&user);
        }
    }
}

/// The server's limits.
#[derive(Debug)]
pub struct Limits {
    reads: Arc<Turns>,
    writes: Arc<Turns>,
    streams: Arc<Semaphore>,
}

impl Default for Limits {
    fn default() -> Self {
        Self::new(READS, WRITES)
    }
}

impl Limits {
    pub fn new(reads: usize, writes: usize) -> Self {
        Self { reads: Turns::new(reads), writes: Turns::new(writes), streams: Arc::new(Semaphore::new(STREAMS)) }
    }

    /// A turn to read.
    ///
    /// # Errors
    /// 429 when too many wait, or this one waited too long.
    pub async fn read(&self, user: &UserInfo) -> Result<Permit, Status> {
        self.reads.take(&user.name).await
    }

    /// A turn to write.
    ///
    /// # Errors
    /// As [`read`](Limits::read).
    pub async fn write(&self, user: &UserInfo) -> Result<Permit, Status> {
        self.writes.take(&user.name).await
    }

    /// A place for a stream that lasts.
    ///
    /// # Errors
    /// 429 when there are too many.
    pub fn stream(&self) -> Result<Permit, Status> {
        let stream = self.streams.clone().try_acquire_owned().map_err(|_| too_many())?;
        Ok(Permit { turn: None, _stream: Some(stream) })
    }

    /// Reads and writes.
    pub fn load(&self) -> [(&'static str, Load); 2] {
        [("readOnly", self.reads.load()), ("mutating", self.writes.load())]
    }
}

fn too_many() -> Status {
    Status::too_many_requests("Too many requests, please try again later.", 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::task::JoinHandle;

    /// A request that is over as soon as it has had its turn.
    fn request(turns: &Arc<Turns>, user: &'static str) -> JoinHandle<Result<(), Status>> {
        let turns = turns.clone();
        tokio::spawn(async move { turns.take(user).await.map(drop) })
    }

    async fn waiting(turns: &Turns, count: usize) {
        while turns.load().waiting != count {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn beyond_the_queue_requests_are_turned_away() {
        let turns = Turns::new(1);
        let first = turns.take("a").await.unwrap();
        let mut others = Vec::new();
        for nth in 0..QUEUED {
            others.push(request(&turns, "a"));
            waiting(&turns, nth + 1).await;
        }
        let status = turns.take("a").await.unwrap_err();
        assert_eq!((status.code, status.retry_after()), (429, Some(1)));
        drop(first);
        for other in others {
            other.await.unwrap().unwrap();
        }
        assert_eq!(turns.load(), Load { running: 0, waiting: 0 });
        assert!(turns.take("a").await.is_ok());
    }

    #[tokio::test]
    async fn users_take_turns() {
        let turns = Turns::new(1);
        let first = turns.take("greedy").await.unwrap();
        let (told, mut order) = tokio::sync::mpsc::unbounded_channel();
        for (nth, user) in ["greedy", "greedy", "modest", "greedy"].into_iter().enumerate() {
            let (own, told) = (turns.clone(), told.clone());
            tokio::spawn(async move {
                let permit = own.take(user).await.unwrap();
                told.send((user, nth)).unwrap();
                drop(permit);
            });
            waiting(&turns, nth + 1).await;
        }
        drop((first, told));
        let mut served = Vec::new();
        while let Some(next) = order.recv().await {
            served.push(next);
        }
        assert_eq!(served, [("greedy", 0), ("modest", 2), ("greedy", 1), ("greedy", 3)]);
    }

    #[tokio::test]
    async fn a_full_queue_sheds_the_longest() {
        let turns = Turns::new(1);
        let first = turns.take("greedy").await.unwrap();
        let mut greedy = Vec::new();
        for nth in 0..QUEUED {
            greedy.push(request(&turns, "greedy"));
            waiting(&turns, nth + 1).await;
        }
        let modest = request(&turns, "modest");
        assert_eq!(greedy.pop().unwrap().await.unwrap().unwrap_err().code, 429);
        assert_eq!(turns.load().waiting, QUEUED);
        drop(first);
        modest.await.unwrap().unwrap();
        for one in greedy {
            one.await.unwrap().unwrap();
        }
        assert_eq!(turns.load(), Load { running: 0, waiting: 0 });
    }

    #[tokio::test]
    async fn no_user_has_every_turn() {
        let turns = Turns::new(4);
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(turns.take("greedy").await.unwrap());
        }
        let more = request(&turns, "greedy");
        waiting(&turns, 1).await;
        drop(turns.take("modest").await.unwrap());
        assert_eq!(turns.load(), Load { running: 3, waiting: 1 });
        held.pop();
        more.await.unwrap().unwrap();
        drop(held);
        assert_eq!(turns.load(), Load { running: 0, waiting: 0 });
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever() {
        let turns = Turns::new(1);
        let first = turns.take("a").await.unwrap();
        assert_eq!(turns.take("b").await.unwrap_err().code, 429);
        // Whoever went away is passed over.
        let gone = request(&turns, "c");
        waiting(&turns, 2).await;
        gone.abort();
        drop(first);
        drop(turns.take("d").await.unwrap());
        assert_eq!(turns.load(), Load { running: 0, waiting: 0 });
    }
}
