//! A store as simple as the contract lets it be, in one thread, with its whole history: what others are compared with,
//! and what a simulation runs on. It can be told to fail.

use coracle_api::clock::Clock;
use coracle_apiserver::store::{
    Batch, Batches, Event, FIRST_REVISION, Op, Outcome, Page, Range, Record, Revision, Store, StoreError, Txn, Watch,
};
use futures::StreamExt;
use futures::future::BoxFuture;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::watch;

/// How often, in thousands, requests fail, and for how long they are held up.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// The request did nothing, and says so.
    pub before: u32,
    /// The write happened, and its answer is an error.
    pub after: u32,
    /// The longest delay of a request.
    pub delay: Duration,
    /// How late a watch is at most.
    pub lag: Duration,
}

pub struct ModelStore {
    state: Arc<Mutex<State>>,
    /// The newest revision, and how often the watches were broken.
    news: watch::Sender<(Revision, u64)>,
    clock: Arc<dyn Clock>,
}

struct State {
    records: BTreeMap<Arc<str>, Record>,
    log: Vec<Event>,
    revision: Revision,
    compacted: Revision,
    expiries: BTreeMap<Arc<str>, Duration>,
    faults: Faults,
    random: fastrand::Rng,
}

impl ModelStore {
    pub fn new(clock: Arc<dyn Clock>, seed: u64) -> Arc<Self> {
        let state = State {
            records: BTreeMap::new(),
            log: Vec::new(),
            revision: FIRST_REVISION,
            compacted: 0,
            expiries: BTreeMap::new(),
            faults: Faults::default(),
            random: fastrand::Rng::with_seed(seed),
        };
        Arc::new(Self { state: Arc::new(Mutex::new(state)), news: watch::Sender::new((FIRST_REVISION, 0)), clock })
    }

    /// From now on requests fail like this; says how they did before.
    #[allow(dead_code, reason = "the contract suite runs without faults")]
    pub fn fail(&self, faults: Faults) -> Faults {
        std::mem::replace(&mut self.state().faults, faults)
    }

    /// Every watch ends with an error.
    #[allow(dead_code, reason = "the contract suite runs without faults")]
    pub fn break_watches(&self) {
        self.news.send_modify(|(_, breaks)| *breaks += 1);
    }

    /// Everything that was ever written, in order.
    #[allow(dead_code, reason = "the contract suite looks at watches")]
    pub fn history(&self) -> Vec<Event> {
        self.state().log.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    async fn held_up(&self) -> Result<(), StoreError> {
        let (delay, fails) = {
            let mut state = self.state();
            let Faults { delay, before, .. } = state.faults;
            (state.draw(delay), state.random.u32(..1000) < before)
        };
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if fails { Err(StoreError::Unavailable("it was told to fail".to_owned())) } else { Ok(()) }
    }

    fn told(&self, state: MutexGuard<'_, State>) {
        let revision = state.revision;
        drop(state);
        self.news.send_modify(|(newest, _)| *newest = revision);
    }
}

impl State {
    /// A time up to `most`.
    fn draw(&mut self, most: Duration) -> Duration {
        match most.as_micros() as u64 {
            0 => Duration::ZERO,
            most => Duration::from_micros(self.random.u64(..most)),
        }
    }

    fn commit(&mut self, ops: Vec<Op>, now: Duration) -> Revision {
        let next = self.revision + 1;
        for op in ops {
            match op {
                Op::Put { key, value, ttl } => self.put(key, value, ttl.map(|ttl| now + ttl), next),
                Op::Delete { key } => self.delete(&key, next),
            }
        }
        if self.log.last().is_some_and(|event| event.modified == next) {
            self.revision = next;
        }
        self.revision
    }

    fn put(&mut self, key: Arc<str>, value: bytes::Bytes, until: Option<Duration>, revision: Revision) {
        let before = self.records.get(&key);
        let created = before.map_or(revision, |record| record.created);
        let previous = before.map(|record| record.value.clone());
        match until {
            Some(until) => self.expiries.insert(key.clone(), until),
            None => self.expiries.remove(&key),
        };
        let event = Event { key: key.clone(), value: Some(value.clone()), previous, created, modified: revision };
        self.log.push(event);
        self.records.insert(key.clone(), Record { key, value, created, modified: revision });
    }

    fn delete(&mut self, key: &Arc<str>, revision: Revision) {
        self.expiries.remove(key);
        let Some(before) = self.records.remove(key) else { return };
        let (previous, created) = (Some(before.value), before.created);
        self.log.push(Event { key: key.clone(), value: None, previous, created, modified: revision });
    }

    /// All records as they stood at `at`.
    fn records_at(&self, at: Revision) -> BTreeMap<Arc<str>, Record> {
        if at == self.revision {
            return self.records.clone();
        }
        let mut records = BTreeMap::new();
        for event in self.log.iter().take_while(|event| event.modified <= at) {
            let Event { key, created, modified, .. } = event.clone();
            match event.value.clone() {
                Some(value) => records.insert(key.clone(), Record { key, value, created, modified }),
                None => records.remove(&key),
            };
        }
        records
    }
}

/// A watch on its way through the log.
struct Follow {
    state: Arc<Mutex<State>>,
    watch: Watch,
    next: Revision,
    news: watch::Receiver<(Revision, u64)>,
    breaks: u64,
}

impl Follow {
    /// The next batch, and the watch after it; an error ends it.
    async fn batch(this: Option<Self>) -> Option<(Result<Batch, StoreError>, Option<Self>)> {
        let mut this = this?;
        loop {
            let (_, breaks) = *this.news.borrow_and_update();
            if breaks != this.breaks {
                return Some((Err(StoreError::Unavailable("the watch was broken".to_owned())), None));
            }
            let lag = this.lag();
            if !lag.is_zero() {
                tokio::time::sleep(lag).await;
            }
            let batch = this.written();
            if batch.revision >= this.next {
                this.next = batch.revision + 1;
                return Some((Ok(batch), Some(this)));
            }
            this.news.changed().await.ok()?;
        }
    }

    fn lag(&self) -> Duration {
        let mut state = self.state.lock().unwrap();
        let most = state.faults.lag;
        state.draw(most)
    }

    fn written(&self) -> Batch {
        let state = self.state.lock().unwrap();
        let start = state.log.partition_point(|event| event.modified < self.next);
        let ours = state.log[start..].iter().filter(|event| event.key.starts_with(&self.watch.prefix)).cloned();
        let without = |event| if self.watch.previous { event } else { Event { previous: None, ..event } };
        Batch { revision: state.revision, events: ours.map(without).collect() }
    }
}

impl Store for ModelStore {
    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<Outcome, StoreError>> {
        Box::pin(async move {
            for (index, op) in txn.ops.iter().enumerate() {
                if txn.ops[..index].iter().any(|other| other.key() == op.key()) {
                    return Err(StoreError::Invalid(format!("the transaction writes {} twice", op.key())));
                }
            }
            self.held_up().await?;
            let mut state = self.state();
            let current: Vec<_> = txn.compare.iter().map(|compare| state.records.get(&compare.key).cloned()).collect();
            let holds = txn.compare.iter().zip(&current);
            if holds.clone().any(|(compare, record)| record.as_ref().map_or(0, |it| it.modified) != compare.modified) {
                return Ok(Outcome::Conflict(current));
            }
            let revision = state.commit(txn.ops, self.clock.monotonic());
            let after = state.faults.after;
            let lost = state.random.u32(..1000) < after;
            self.told(state);
            if lost {
                Err(StoreError::Unavailable("the answer was lost".to_owned()))
            } else {
                Ok(Outcome::Committed(revision))
            }
        })
    }

    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Record>, StoreError>> {
        Box::pin(async move {
            self.held_up().await?;
            Ok(self.state().records.get(key).cloned())
        })
    }

    fn range(&self, range: Range) -> BoxFuture<'_, Result<Page, StoreError>> {
        Box::pin(async move {
            self.held_up().await?;
            let state = self.state();
            let at = range.at.unwrap_or(state.revision);
            if at > state.revision {
                return Err(StoreError::Future { asked: at, current: state.revision });
            }
            if at < state.compacted {
                return Err(StoreError::Compacted { asked: at, oldest: state.compacted });
            }
            let from = range.from.unwrap_or_default();
            let found = state.records_at(at);
            let mut records: Vec<_> = found
                .into_values()
                .filter(|record| record.key.starts_with(&range.prefix) && *record.key >= *from)
                .collect();
            let more = range.limit > 0 && records.len() > range.limit;
            if more {
                records.truncate(range.limit);
            }
            Ok(Page { records, revision: at, more })
        })
    }

    fn watch(&self, watch: Watch) -> BoxFuture<'_, Result<Batches, StoreError>> {
        Box::pin(async move {
            self.held_up().await?;
            let news = self.news.subscribe();
            let compacted = self.state().compacted;
            if watch.from <= compacted {
                return Err(StoreError::Compacted { asked: watch.from, oldest: compacted });
            }
            let breaks = news.borrow().1;
            let follow = Follow { state: self.state.clone(), next: watch.from, watch, news, breaks };
            Ok(futures::stream::unfold(Some(follow), Follow::batch).boxed())
        })
    }

    fn revision(&self) -> BoxFuture<'_, Result<Revision, StoreError>> {
        Box::pin(async move {
            self.held_up().await?;
            Ok(self.state().revision)
        })
    }

    fn announce(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.news.send_modify(|_| ());
        Box::pin(std::future::ready(Ok(())))
    }

    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<(), StoreError>> {
        let mut state = self.state();
        let done = match (state.compacted, state.revision) {
            (oldest, _) if revision <= oldest => Err(StoreError::Compacted { asked: revision, oldest }),
            (_, current) if revision > current => Err(StoreError::Future { asked: revision, current }),
            _ => {
                state.compacted = revision;
                Ok(())
            }
        };
        Box::pin(std::future::ready(done))
    }

    fn expire(&self) -> BoxFuture<'_, Result<usize, StoreError>> {
        let now = self.clock.monotonic();
        let mut state = self.state();
        let over: Vec<_> =
            state.expiries.iter().filter(|(_, until)| **until <= now).map(|(key, _)| key.clone()).collect();
        let count = over.len();
        for key in over {
            state.commit(vec![Op::Delete { key }], now);
        }
        self.told(state);
        Box::pin(std::future::ready(Ok(count)))
    }
}
