//! The seats of a priority level and the queues before them: shuffle sharding deals each flow a hand of the queues, and a
//! request joins the shortest of its hand (apiserver `util/flowcontrol/fairqueuing/queueset`, `util/shufflesharding`).

use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// How long a request may wait: a quarter of the time it has for its answer (upstream).
const WAIT: Duration = Duration::from_secs(15);

/// This part of the seats is never a single flow's, so that who sends bodies that do not end keeps nobody else out.
const OTHERS: usize = 4;

/// Queues in a hand, at most (flowcontrol/v1 validation holds handSize below what a 64-bit hash can deal).
const MOST_IN_HAND: usize = 64;

/// How a level is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    pub seats: usize,
    /// None: who finds no seat is turned away.
    pub queues: usize,
    pub hand: usize,
    /// The most in a queue.
    pub length: usize,
}

/// Seats and queues of a level.
#[derive(Debug, Default)]
pub struct Turns(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    settings: Settings,
    running: usize,
    waiting: usize,
    /// How many seats each flow that is distinguished from others has.
    taken: HashMap<u64, usize>,
    /// Those with somebody in them, by number: a level may have millions.
    queues: HashMap<usize, VecDeque<Waiting>>,
    /// Queues with somebody in them, in the order of their turns.
    order: VecDeque<usize>,
}

#[derive(Debug)]
struct Waiting {
    flow: Option<u64>,
    sender: oneshot::Sender<Seat>,
}

/// A seat that is taken; given on when dropped.
#[derive(Debug)]
pub struct Seat(Option<(Arc<Turns>, Option<u64>)>);

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some((turns, flow)) = self.0.take() {
            turns.pass_on(flow);
        }
    }
}

/// There is no seat free: whether there is a place to wait, and which.
#[derive(Debug)]
pub struct Full(Option<oneshot::Receiver<Seat>>);

impl State {
    /// Whether a flow may have one more seat.
    fn may(&self, flow: Option<u64>) -> bool {
        let share = self.settings.seats - self.settings.seats / OTHERS;
        self.running < self.settings.seats && flow.is_none_or(|flow| self.taken.get(&flow).is_none_or(|n| *n < share))
    }

    fn begin(&mut self, flow: Option<u64>) {
        self.running += 1;
        if let Some(flow) = flow {
            *self.taken.entry(flow).or_default() += 1;
        }
    }

    fn end(&mut self, flow: Option<u64>) {
        self.running -= 1;
        if let Some(flow) = flow
            && let Some(count) = self.taken.get_mut(&flow)
        {
            *count -= 1;
            if *count == 0 {
                self.taken.remove(&flow);
            }
        }
    }

    /// Whoever is next and may have a seat.
    fn pop(&mut self) -> Option<Waiting> {
        let front = |queue: &usize| self.queues.get(queue).and_then(VecDeque::front);
        let at = self.order.iter().position(|queue| front(queue).is_some_and(|next| self.may(next.flow)))?;
        let queue = self.order.remove(at)?;
        let line = self.queues.get_mut(&queue)?;
        let next = line.pop_front()?;
        if line.is_empty() {
            self.queues.remove(&queue);
        } else {
            self.order.push_back(queue);
        }
        self.waiting -= 1;
        Some(next)
    }

    /// The shortest queue of a flow's hand that is not full.
    fn place(&self, hash: u64) -> Option<usize> {
        let Settings { queues, hand, length, .. } = self.settings;
        let waiting = |queue: &usize| self.queues.get(queue).map_or(0, VecDeque::len);
        let shortest = deal(hash, queues, hand).min_by_key(waiting)?;
        (waiting(&shortest) < length).then_some(shortest)
    }
}

/// Deals `hand` different ones of `queues` queues by a flow's hash.
fn deal(mut hash: u64, queues: usize, hand: usize) -> impl Iterator<Item = usize> {
    let mut dealt = [0_usize; MOST_IN_HAND];
    let hand = hand.clamp(1, MOST_IN_HAND).min(queues);
    for nth in 0..hand {
        let left = (queues - nth) as u64;
        let mut card = usize::try_from(hash % left).unwrap_or(0);
        hash /= left;
        // The card's place among those that are left; `dealt` is kept in order up to here.
        for earlier in &dealt[..nth] {
            card += usize::from(card >= *earlier);
        }
        dealt[nth] = card;
        dealt[..=nth].sort_unstable();
    }
    dealt.into_iter().take(hand)
}

impl Turns {
    pub fn configure(&self, settings: Settings) {
        // Who waits in a queue that is no more waits on there.
        self.0.lock().settings = settings;
    }

    /// A seat if one is free, or a place in a queue.
    pub fn take_now(self: &Arc<Self>, hash: u64, distinguished: bool) -> Result<Seat, Full> {
        let flow = distinguished.then_some(hash);
        let mut guard = self.0.lock();
        let state = &mut *guard;
        if state.may(flow) {
            state.begin(flow);
            return Ok(Seat(Some((self.clone(), flow))));
        }
        let Some(queue) = state.place(hash) else { return Err(Full(None)) };
        let (sender, turn) = oneshot::channel();
        let line = state.queues.entry(queue).or_default();
        if line.is_empty() {
            state.order.push_back(queue);
        }
        line.push_back(Waiting { flow, sender });
        state.waiting += 1;
        Err(Full(Some(turn)))
    }

    /// Waits for a seat. None when there is no place to wait, or it took too long.
    pub async fn wait(&self, full: Full) -> Option<Seat> {
        tokio::time::timeout(WAIT, full.0?).await.ok()?.ok()
    }

    /// Hands a seat that has become free to the next one that still waits.
    fn pass_on(self: &Arc<Self>, flow: Option<u64>) {
        let mut state = self.0.lock();
        state.end(flow);
        while let Some(next) = state.pop() {
            state.begin(next.flow);
            // Whoever does not wait any longer gives it back; not by dropping it, which would pass it on again.
            if let Err(mut back) = next.sender.send(Seat(Some((self.clone(), next.flow)))) {
                back.0 = None;
                state.end(next.flow);
            }
        }
    }

    #[cfg(test)]
    pub fn load(&self) -> (usize, usize) {
        let state = self.0.lock();
        (state.running, state.waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::task::JoinHandle;

    fn turns(seats: usize, queues: usize, length: usize) -> Arc<Turns> {
        let turns = Arc::new(Turns::default());
        turns.configure(Settings { seats, queues, hand: 1, length });
        turns
    }

    async fn take(turns: &Arc<Turns>, flow: u64) -> Option<Seat> {
        match turns.take_now(flow, true) {
            Ok(seat) => Some(seat),
            Err(full) => turns.wait(full).await,
        }
    }

    /// A request that is over as soon as it has had its turn.
    fn request(turns: &Arc<Turns>, flow: u64) -> JoinHandle<bool> {
        let turns = turns.clone();
        tokio::spawn(async move { take(&turns, flow).await.is_some() })
    }

    async fn waiting(turns: &Turns, count: usize) {
        while turns.load().1 != count {
            tokio::task::yield_now().await;
        }
    }

    #[test]
    fn hands_are_different_queues() {
        for hash in [0, 1, 7, 1 << 40, u64::MAX] {
            let mut hand: Vec<usize> = deal(hash, 64, 6).collect();
            hand.dedup();
            assert!(hand.len() == 6 && hand.iter().all(|queue| *queue < 64), "{hand:?}");
        }
        assert_eq!(deal(5, 1, 8).collect::<Vec<_>>(), [0]);
        assert_eq!(deal(5, 0, 8).count(), 0);
    }

    #[tokio::test]
    async fn beyond_the_queue_requests_are_turned_away() {
        let turns = turns(1, 1, 2);
        let first = take(&turns, 1).await.unwrap();
        let others = [request(&turns, 1), request(&turns, 1)];
        waiting(&turns, 2).await;
        assert!(take(&turns, 1).await.is_none());
        drop(first);
        for other in others {
            assert!(other.await.unwrap());
        }
        assert_eq!(turns.load(), (0, 0));
    }

    #[tokio::test]
    async fn a_level_without_queues_turns_away_at_once() {
        let turns = turns(1, 0, 0);
        let first = take(&turns, 1).await.unwrap();
        assert!(take(&turns, 2).await.is_none());
        drop(first);
        assert!(take(&turns, 2).await.is_some());
    }

    #[tokio::test]
    async fn queues_take_turns() {
        let turns = turns(1, 2, 9);
        let first = take(&turns, 0).await.unwrap();
        let (told, mut order) = tokio::sync::mpsc::unbounded_channel();
        for (nth, flow) in [0_u64, 0, 1, 0].into_iter().enumerate() {
            let (own, told) = (turns.clone(), told.clone());
            tokio::spawn(async move {
                let seat = take(&own, flow).await.unwrap();
                told.send((flow, nth)).unwrap();
                drop(seat);
            });
            waiting(&turns, nth + 1).await;
        }
        drop((first, told));
        let mut served = Vec::new();
        while let Some(next) = order.recv().await {
            served.push(next);
        }
        assert_eq!(served, [(0, 0), (1, 2), (0, 1), (0, 3)]);
    }

    #[tokio::test]
    async fn no_flow_has_every_seat() {
        let turns = turns(4, 2, 9);
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(take(&turns, 0).await.unwrap());
        }
        let more = request(&turns, 0);
        waiting(&turns, 1).await;
        drop(take(&turns, 1).await.unwrap());
        assert_eq!(turns.load(), (3, 1));
        held.pop();
        assert!(more.await.unwrap());
        drop(held);
        assert_eq!(turns.load(), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever() {
        let turns = turns(1, 1, 9);
        let first = take(&turns, 1).await.unwrap();
        assert!(take(&turns, 2).await.is_none());
        // Whoever went away is passed over.
        let gone = request(&turns, 3);
        waiting(&turns, 2).await;
        gone.abort();
        drop(first);
        assert!(take(&turns, 4).await.is_some());
        assert_eq!(turns.load(), (0, 0));
    }
}
