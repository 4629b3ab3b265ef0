//! The seats of a priority level and the queues before them: shuffle sharding deals each flow a hand of the queues, and a
//! request joins the shortest of its hand (apiserver `util/flowcontrol/fairqueuing/queueset`, `util/shufflesharding`).

use super::dump::Told;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// How long a request may wait: a quarter of the time it has for its answer (upstream).
const WAIT: Duration = Duration::from_secs(15);

/// This part of the seats is never a single flow's, so that who sends bodies that do not end keeps nobody else out.
const OTHERS: usize = 4;

/// Queues in a hand, at most (flowcontrol/v1 validation holds handSize below what a 64-bit hash can deal).
const MOST_IN_HAND: usize = 64;

/// How a level is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Those of its own; those it does not lend; the most it has, with what it borrows.
    pub seats: usize,
    pub least: usize,
    pub most: usize,
    /// None: who finds no seat is turned away.
    pub queues: usize,
    pub hand: usize,
    /// The most in a queue.
    pub length: usize,
}

/// Seats and queues of a level.
#[derive(Debug, Default)]
pub struct Turns(Mutex<State>);

/// A request for seats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    pub hash: u64,
    /// It is of a flow that is told apart from others, by its hash.
    pub distinguished: bool,
    /// The seats that it takes.
    pub width: usize,
}

impl Request {
    fn flow(self) -> Option<u64> {
        self.distinguished.then_some(self.hash)
    }
}

/// How many seats were wanted in a period: taken or waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Demand {
    pub high: f64,
    pub average: f64,
    pub deviation: f64,
}

/// Adds up a number that changes over time.
#[derive(Debug, Default)]
struct Sum {
    since: Option<Instant>,
    last: Option<Instant>,
    sum: f64,
    squares: f64,
    high: f64,
}

impl Sum {
    /// It was `value` until now.
    fn was(&mut self, value: usize) {
        let (now, value) = (Instant::now(), value as f64);
        let last = *self.last.get_or_insert(now);
        self.since.get_or_insert(now);
        let seconds = now.duration_since(last).as_secs_f64();
        self.sum += value * seconds;
        self.squares += value * value * seconds;
        self.high = self.high.max(value);
        self.last = Some(now);
    }

    fn take(&mut self) -> Demand {
        let Self { since, last, sum, squares, high } = std::mem::take(self);
        self.since = last;
        self.last = last;
        let seconds = since.zip(last).map_or(0.0, |(since, last)| last.duration_since(since).as_secs_f64());
        if seconds <= 0.0 {
            return Demand { high, average: high, deviation: 0.0 };
        }
        let average = sum / seconds;
        Demand { high, average, deviation: (squares / seconds - average * average).max(0.0).sqrt() }
    }
}

#[derive(Debug, Default)]
struct State {
    settings: Settings,
    /// Seats that there are now.
    current: usize,
    /// Seats that are taken.
    taken: usize,
    /// Seats that are waited for.
    wanted: usize,
    /// How many seats each flow that is distinguished from others has.
    taken_by: HashMap<u64, usize>,
    /// Those with somebody in them, by number: a level may have millions.
    queues: HashMap<usize, VecDeque<Waiting>>,
    /// Queues with somebody in them, in the order of their turns.
    order: VecDeque<usize>,
    tickets: u64,
    demand: Sum,
}

#[derive(Debug)]
struct Waiting {
    ticket: u64,
    request: Request,
    sender: oneshot::Sender<Seat>,
    /// What people are told of it.
    told: Option<Arc<Told>>,
}

/// Who waits, by queue, in the order of the queues' numbers.
pub type Waiters = Vec<(usize, Vec<Option<Arc<Told>>>)>;

/// Seats that are taken; given on when dropped.
#[derive(Debug)]
pub struct Seat(Option<(Arc<Turns>, Request)>);

impl Seat {
    /// Gives on what is more than `width`.
    pub fn narrow(&mut self, width: usize) {
        let Some((turns, request)) = &mut self.0 else { return };
        let mut state = turns.0.lock();
        state.note();
        state.end(*request);
        request.width = request.width.min(width);
        state.begin(*request);
        turns.serve(&mut state);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some((turns, request)) = self.0.take() {
            turns.pass_on(request);
        }
    }
}

/// What a request finds.
#[derive(Debug)]
pub enum Entry {
    Seat(Seat),
    Place(Place),
    /// There is no place to wait; whether that is because the queue is full.
    Full {
        queued: bool,
    },
}

/// A place in a queue; left when dropped.
#[derive(Debug)]
pub struct Place {
    turns: Arc<Turns>,
    queue: usize,
    ticket: u64,
    turn: oneshot::Receiver<Seat>,
}

impl Place {
    /// The queue that it is in.
    pub fn queue(&self) -> usize {
        self.queue
    }

    /// Says who has this place.
    pub fn tell(&self, told: Arc<Told>) {
        let mut state = self.turns.0.lock();
        let mut line = state.queues.get_mut(&self.queue).into_iter().flatten();
        // Who is not there any more has had its turn meanwhile.
        if let Some(waiting) = line.find(|waiting| waiting.ticket == self.ticket) {
            waiting.told = Some(told);
        }
    }

    /// Waits for the seats. None when it took too long.
    pub async fn seat(mut self) -> Option<Seat> {
        tokio::time::timeout(WAIT, &mut self.turn).await.ok()?.ok()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.turns.leave(self.queue, self.ticket);
    }
}

impl State {
    /// Whether there are seats for a request. One that wants more than there are gets them when nobody else has any.
    fn fits(&self, request: Request) -> bool {
        self.taken + request.width <= self.current || (self.taken == 0 && self.current > 0)
    }

    /// Whether its flow may have more.
    fn may(&self, request: Request) -> bool {
        let share = self.current - self.current / OTHERS;
        let taken = request.flow().and_then(|flow| self.taken_by.get(&flow));
        taken.is_none_or(|taken| taken + request.width <= share)
    }

    /// Whether somebody waits for nothing but seats: then nobody who comes later has any before.
    fn is_awaited(&self) -> bool {
        self.order.iter().filter_map(|queue| self.queues.get(queue)?.front()).any(|next| self.may(next.request))
    }

    fn begin(&mut self, request: Request) {
        self.taken += request.width;
        if let Some(flow) = request.flow() {
            *self.taken_by.entry(flow).or_default() += request.width;
        }
    }

    fn end(&mut self, request: Request) {
        self.taken -= request.width;
        if let Some(flow) = request.flow()
            && let Some(count) = self.taken_by.get_mut(&flow)
        {
            *count -= request.width;
            if *count == 0 {
                self.taken_by.remove(&flow);
            }
        }
    }

    /// Whoever is next, if there are seats.
    fn pop(&mut self) -> Option<Waiting> {
        let front = |queue: &usize| self.queues.get(queue).and_then(VecDeque::front);
        let at = self.order.iter().position(|queue| front(queue).is_some_and(|next| self.may(next.request)))?;
        // One that takes many seats is not passed by those that take few: it would wait for ever.
        front(&self.order[at]).filter(|next| self.fits(next.request))?;
        let queue = self.order.remove(at)?;
        let line = self.queues.get_mut(&queue)?;
        let next = line.pop_front()?;
        if line.is_empty() {
            self.queues.remove(&queue);
        } else {
            self.order.push_back(queue);
        }
        self.wanted -= next.request.width;
        Some(next)
    }

    /// The shortest queue of a flow's hand that is not full.
    fn place(&self, hash: u64) -> Option<usize> {
        let Settings { queues, hand, length, .. } = self.settings;
        let waiting = |queue: &usize| self.queues.get(queue).map_or(0, VecDeque::len);
        let shortest = deal(hash, queues, hand).min_by_key(waiting)?;
        (waiting(&shortest) < length).then_some(shortest)
    }

    fn note(&mut self) {
        let wanted = self.taken + self.wanted;
        self.demand.was(wanted);
    }

    /// Takes somebody out of a queue; false when they are not in it any more.
    fn remove(&mut self, queue: usize, ticket: u64) -> bool {
        let Some(line) = self.queues.get_mut(&queue) else { return false };
        let Some(at) = line.iter().position(|waiting| waiting.ticket == ticket) else { return false };
        let gone = line.remove(at);
        if line.is_empty() {
            self.queues.remove(&queue);
            self.order.retain(|other| *other != queue);
        }
        self.wanted -= gone.map_or(0, |gone| gone.request.width);
        true
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
    pub fn configure(self: &Arc<Self>, settings: Settings) {
        let mut state = self.0.lock();
        if state.settings.seats == settings.seats {
            state.current = state.current.clamp(settings.least, settings.most.max(settings.least));
        } else {
            state.current = settings.seats;
        }
        // Who waits in a queue that is no more waits on there.
        state.settings = settings;
        self.serve(&mut state);
    }

    pub fn settings(&self) -> Settings {
        self.0.lock().settings
    }

    /// Seats that there are now.
    pub fn current(&self) -> usize {
        self.0.lock().current
    }

    /// From now on there are so many seats. Who has one keeps it.
    pub fn set_current(self: &Arc<Self>, seats: usize) {
        let mut state = self.0.lock();
        state.current = seats;
        self.serve(&mut state);
    }

    /// What was wanted since the last time.
    pub fn demand(&self) -> Demand {
        let mut state = self.0.lock();
        state.note();
        let demand = state.demand.take();
        state.note();
        demand
    }

    /// Seats if they are free, or a place in a queue.
    pub fn enter(self: &Arc<Self>, request: Request) -> Entry {
        let mut guard = self.0.lock();
        let state = &mut *guard;
        state.note();
        if state.fits(request) && state.may(request) && !state.is_awaited() {
            state.begin(request);
            state.note();
            return Entry::Seat(Seat(Some((self.clone(), request))));
        }
        let Some(queue) = state.place(request.hash) else { return Entry::Full { queued: state.settings.queues > 0 } };
        let (sender, turn) = oneshot::channel();
        let line = state.queues.entry(queue).or_default();
        if line.is_empty() {
            state.order.push_back(queue);
        }
        state.tickets += 1;
        let ticket = state.tickets;
        line.push_back(Waiting { ticket, request, sender, told: None });
        state.wanted += request.width;
        state.note();
        Entry::Place(Place { turns: self.clone(), queue, ticket, turn })
    }

    /// Somebody does not wait any longer.
    fn leave(self: &Arc<Self>, queue: usize, ticket: u64) {
        let mut state = self.0.lock();
        state.note();
        if state.remove(queue, ticket) {
            // Who stood behind may find seats enough.
            self.serve(&mut state);
        }
    }

    /// Hands seats that have become free to the next ones that still wait.
    fn pass_on(self: &Arc<Self>, request: Request) {
        let mut state = self.0.lock();
        state.note();
        state.end(request);
        self.serve(&mut state);
    }

    fn serve(self: &Arc<Self>, state: &mut State) {
        while let Some(next) = state.pop() {
            state.begin(next.request);
            // Whoever does not wait any longer gives it back; not by dropping it, which would pass it on again.
            if let Err(mut back) = next.sender.send(Seat(Some((self.clone(), next.request)))) {
                back.0 = None;
                state.end(next.request);
            }
        }
    }

    /// The first queue of a flow's hand, which somebody joins of whom nobody is before; none where there are no queues.
    pub fn first_queue(&self, hash: u64) -> Option<usize> {
        let Settings { queues, hand, .. } = self.settings();
        deal(hash, queues, hand).next()
    }

    /// Who waits now.
    pub fn waiters(&self) -> Waiters {
        let state = self.0.lock();
        let told = |line: &VecDeque<Waiting>| line.iter().map(|waiting| waiting.told.clone()).collect();
        let mut waiters: Waiters = state.queues.iter().map(|(queue, line)| (*queue, told(line))).collect();
        waiters.sort_by_key(|(queue, _)| *queue);
        waiters
    }

    /// Seats that are taken, and requests that wait.
    #[cfg(test)]
    pub fn load(&self) -> (usize, usize) {
        let state = self.0.lock();
        (state.taken, state.queues.values().map(VecDeque::len).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::task::JoinHandle;

    fn turns(seats: usize, queues: usize, length: usize) -> Arc<Turns> {
        let turns = Arc::new(Turns::default());
        turns.configure(Settings { seats, least: seats, most: seats, queues, hand: 1, length });
        turns
    }

    async fn wide(turns: &Arc<Turns>, flow: u64, width: usize) -> Option<Seat> {
        match turns.enter(Request { hash: flow, distinguished: true, width }) {
            Entry::Seat(seat) => Some(seat),
            Entry::Place(place) => place.seat().await,
            Entry::Full { .. } => None,
        }
    }

    async fn take(turns: &Arc<Turns>, flow: u64) -> Option<Seat> {
        wide(turns, flow, 1).await
    }

    /// A request that is over as soon as it has had its turn.
    fn request(turns: &Arc<Turns>, flow: u64) -> JoinHandle<bool> {
        let turns = turns.clone();
        tokio::spawn(async move { take(&turns, flow).await.is_some() })
    }

    #[tokio::test]
    async fn seats_that_are_not_needed_any_more_are_given_on() {
        let turns = turns(4, 1, 10);
        let mut seat = wide(&turns, 1, 3).await.unwrap();
        let other = tokio::spawn({
            let turns = turns.clone();
            async move { wide(&turns, 2, 3).await }
        });
        waiting(&turns, 1).await;
        seat.narrow(1);
        let other = other.await.unwrap().unwrap();
        assert_eq!(turns.load(), (4, 0));
        drop((seat, other));
        assert_eq!(turns.load(), (0, 0));
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
        // Whoever goes away makes room in the queue at once.
        let gone = request(&turns, 3);
        waiting(&turns, 1).await;
        gone.abort();
        waiting(&turns, 0).await;
        drop(first);
        assert!(take(&turns, 4).await.is_some());
        assert_eq!(turns.load(), (0, 0));
    }

    #[tokio::test]
    async fn one_that_takes_many_seats_is_not_passed() {
        let turns = turns(4, 2, 9);
        let (first, second) = (take(&turns, 0).await.unwrap(), take(&turns, 1).await.unwrap());
        let (own, told) = (turns.clone(), Arc::new(Mutex::new(Vec::new())));
        let many = told.clone();
        let many = tokio::spawn(async move {
            let seats = wide(&own, 2, 3).await.unwrap();
            many.lock().push((3, own.load().0));
            drop(seats);
        });
        waiting(&turns, 1).await;
        let (own, few) = (turns.clone(), told.clone());
        let few = tokio::spawn(async move {
            let _seat = take(&own, 3).await.unwrap();
            few.lock().push((1, 0));
        });
        waiting(&turns, 2).await;
        drop(first);
        // Three of four are free now, and two would be for the second one.
        many.await.unwrap();
        few.await.unwrap();
        assert_eq!(told.lock()[0], (3, 4));
        drop(second);
        // More than there are: alone.
        assert_eq!(wide(&turns, 5, 9).await.map(|seats| (turns.load().0, drop(seats)).0), Some(9));
        assert_eq!(turns.load(), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn seats_come_and_go_while_requests_wait() {
        let turns = turns(1, 2, 9);
        let first = take(&turns, 0).await.unwrap();
        let second = request(&turns, 1);
        waiting(&turns, 1).await;
        tokio::time::advance(Duration::from_secs(2)).await;
        let demand = turns.demand();
        assert!(demand.high == 2.0 && demand.average > 1.9, "{demand:?}");
        turns.set_current(2);
        assert!(second.await.unwrap());
        assert_eq!(turns.current(), 2);
        drop(first);
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(turns.demand().average, 0.0);
        assert_eq!(turns.demand().high, 0.0);
    }
}
