//! How much the server takes on at a time, and whose turn it is: priority and fairness, as flow schemas and priority levels
//! say (apiserver `util/flowcontrol`, KEP-1040).
//!
//! ```text
//! request ─► first schema that matches ─► its level ─► free seat? ──────────────► runs
//!                 (Table, one load)                      └► a queue of its flow ─► each queue in turn ─┘
//!                                                             └► full, or the level has none: 429
//! ```
//!
//! A list takes more than one seat, and a write those of its watchers for a moment after it (`work`). Every ten seconds,
//! levels that want fewer seats than they have lend them to others.
//!
//! The table is immutable and swapped as a whole when a schema or a level changes; the levels' seats and queues live on.
//! A watch takes seats until it has begun. Other streams (logs, connections) take none, but there is a most of all of them.

mod dangling;
mod dropped;
mod dump;
mod lending;
mod marks;
mod meters;
mod roll;
mod table;
mod turns;
mod work;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use coracle_api::Status;
use coracle_api::json::Value;
use dropped::Dropped;
pub use dump::Asker;
use dump::Told;
use http::HeaderMap;
use lending::Wanted;
use marks::Marked;
pub use meters::Meters;
use meters::{Raised, Why};
use parking_lot::Mutex;
use prometheus_client::metrics::histogram::Histogram;
use roll::{Listed, Roll, Runs};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::auth::{Attributes, UserInfo};
use crate::http::metrics;
use crate::server::Server;
pub use table::Schema;
use table::Table;
use turns::{Entry, Request, Seat, Turns};
pub use work::{Kept, Work};

/// What all levels share (upstream: `--max-requests-inflight` and `--max-mutating-requests-inflight` together).
pub const SEATS: usize = 600;

/// Watches and other streams, at most.
pub const STREAMS: usize = 20_000;

/// How often levels lend and borrow anew (upstream's borrowingAdjustmentPeriod).
const LEND_EVERY: Duration = Duration::from_secs(10);

const GROUP: &str = "flowcontrol.apiserver.k8s.io";

/// How many of a kind were in flight at most in the last second, and how many waited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    pub running: usize,
    pub waiting: usize,
}

/// Counts of one kind of request.
#[derive(Debug, Default)]
struct Count {
    running: Marked,
    waiting: Marked,
}

/// Counts something for as long as it is there.
#[derive(Debug)]
struct Counted(Arc<Count>, fn(&Count) -> &Marked);

impl Counted {
    fn new(count: &Arc<Count>, which: fn(&Count) -> &Marked) -> Self {
        which(count).raise();
        Self(count.clone(), which)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.1)(&self.0).lower();
    }
}

/// Where a request belongs.
#[derive(Debug)]
pub struct Flow {
    pub schema: Arc<Schema>,
    /// Of the schema and what it tells flows apart by.
    hash: u64,
    /// How long the request has waited for its turn, in nanoseconds.
    waited: AtomicU64,
    /// Where the size of its answer goes.
    sizes: OnceLock<metrics::Sizes>,
}

impl Flow {
    /// How long the request has waited for its turn.
    pub fn waited(&self) -> Duration {
        Duration::from_nanos(self.waited.load(Ordering::Relaxed))
    }

    /// The size of the request's answer goes there.
    pub fn measured_by(&self, sizes: Option<metrics::Sizes>) {
        // There is one answer to a request.
        let _ = sizes.map(|sizes| self.sizes.set(sizes));
    }

    /// Where the size of the request's answer goes.
    pub fn sizes(&self) -> Option<metrics::Sizes> {
        self.sizes.get().cloned()
    }

    /// Says in an answer which schema and level the request was of.
    pub fn mark(&self, headers: &mut HeaderMap) {
        headers.insert("x-kubernetes-pf-flowschema-uid", self.schema.uid.clone());
        headers.insert("x-kubernetes-pf-prioritylevel-uid", self.schema.level.uid.clone());
    }
}

/// What a request holds while it runs.
#[derive(Debug, Default)]
pub struct Permit {
    _seat: Option<Lingering>,
    _stream: Option<OwnedSemaphorePermit>,
    _counted: Option<(Counted, Raised, Running, Listed)>,
    _lasting: Option<metrics::Guard>,
}

impl Permit {
    /// The same, of something that lasts and is counted for as long.
    pub fn counted_by(self, guard: metrics::Guard) -> Self {
        Self { _lasting: Some(guard), ..self }
    }
}

/// Seats, some of which are kept for a while after the request: its watchers are told then.
#[derive(Debug)]
struct Lingering {
    seat: Option<Seat>,
    last: usize,
    after: Duration,
}

impl Drop for Lingering {
    fn drop(&mut self) {
        let Some(mut seat) = self.seat.take().filter(|_| !self.after.is_zero()) else { return };
        // Without a runtime the server is gone, and so are the watchers.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let after = self.after;
        seat.narrow(self.last);
        runtime.spawn(async move {
            tokio::time::sleep(after).await;
            drop(seat);
        });
    }
}

/// Tells how long something took.
#[derive(Debug)]
struct Running(Histogram, Instant);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.observe(self.1.elapsed().as_secs_f64());
    }
}

/// A request that waits: one that goes away before its turn was cancelled.
struct Waiting<'a> {
    flow: &'a Flow,
    since: Instant,
    served: bool,
}

impl Waiting<'_> {
    fn end(&mut self, why: Option<Why>) {
        self.served = true;
        let meter = &self.flow.schema.meter;
        let waited = self.since.elapsed();
        self.flow.waited.store(u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        let waited = waited.as_secs_f64();
        match why {
            None => meter.waited.observe(waited),
            Some(why) => {
                meter.waited_in_vain.observe(waited);
                meter.reject(why);
            }
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.served {
            self.end(Some(Why::Cancelled));
        }
    }
}

/// A request that gets no seat, and when it may come again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany {
    pub retry_after: Duration,
}

/// The server's limits.
#[derive(Debug)]
pub struct Limits {
    table: ArcSwap<Table>,
    /// By level, what it wanted lately. Also the lock of whoever changes the table.
    wanted: Mutex<BTreeMap<String, Wanted>>,
    dropped: Dropped,
    meters: Meters,
    reads: Arc<Count>,
    writes: Arc<Count>,
    roll: Arc<Roll>,
    streams: Arc<Semaphore>,
}

impl Default for Limits {
    fn default() -> Self {
        let meters = Meters::default();
        let table = Table::compile(&[], &[], &BTreeMap::new(), &meters, SEATS);
        Self {
            table: ArcSwap::from_pointee(table),
            wanted: Mutex::default(),
            dropped: Dropped::default(),
            meters,
            reads: Arc::default(),
            writes: Arc::default(),
            roll: Arc::default(),
            streams: Arc::new(Semaphore::new(STREAMS)),
        }
    }
}

impl Limits {
    /// Where a request belongs.
    pub fn classify(&self, user: &UserInfo, request: &Attributes) -> Flow {
        let table = self.table.load();
        let (schema, hash) = table.find(user, request);
        Flow { schema: schema.clone(), hash, waited: AtomicU64::new(0), sizes: OnceLock::new() }
    }

    /// Seats at the request's level, at once or after those before it.
    ///
    /// # Errors
    /// When too many wait, or this one waited too long.
    pub async fn seat(&self, flow: &Flow, writes: bool, work: Work, asker: Asker) -> Result<Permit, TooMany> {
        let count = if writes { &self.writes } else { &self.reads };
        let schema = &flow.schema;
        let estimate = work.estimate(schema.level.widest);
        let width = estimate.width();
        schema.meter.estimated.observe(width as f64);
        let mut waiting = Waiting { flow, since: Instant::now(), served: false };
        let arrived = asker.arrived;
        let told = Arc::new(Told { schema: schema.clone(), estimate, asker });
        let mut queue = None;
        let seat = match &schema.level.turns {
            None => None,
            Some(turns) => {
                let request = Request { hash: flow.hash, distinguished: schema.is_distinguished(), width };
                match turns.enter(request) {
                    Entry::Seat(seat) => Some(seat),
                    Entry::Full { queued } => {
                        waiting.end(Some(if queued { Why::QueueFull } else { Why::ConcurrencyLimit }));
                        return Err(self.too_many(schema));
                    }
                    Entry::Place(place) => {
                        queue = Some(place.queue());
                        place.tell(told.clone());
                        let _counted = (Counted::new(count, |count| &count.waiting), schema.meter.waiting(width));
                        let Some(seat) = place.seat().await else {
                            waiting.end(Some(Why::TimeOut));
                            return Err(self.too_many(schema));
                        };
                        Some(seat)
                    }
                }
            }
        };
        waiting.end(None);
        schema.meter.dispatched.inc();
        let counted = Counted::new(count, |count| &count.running);
        let running = Running(schema.meter.ran.clone(), Instant::now());
        let since = arrived.saturating_add(flow.waited()).unwrap_or(arrived);
        let listed = self.roll.list(Runs { told, since, queue, hash: flow.hash });
        let lingering = seat.map(|seat| Lingering { seat: Some(seat), last: estimate.last, after: estimate.after });
        let counted = Some((counted, schema.meter.running(width), running, listed));
        Ok(Permit { _seat: lingering, _counted: counted, ..Permit::default() })
    }

    fn too_many(&self, schema: &Schema) -> TooMany {
        TooMany { retry_after: self.dropped.note(&schema.level.name) }
    }

    /// A place for a stream that lasts.
    ///
    /// # Errors
    /// 429 when there are too many, which upstream knows no bound of.
    pub fn stream(&self) -> Result<Permit, Status> {
        let too_many = |_| Status::too_many_requests("Too many requests, please try again later.", 1);
        let stream = self.streams.clone().try_acquire_owned().map_err(too_many)?;
        Ok(Permit { _stream: Some(stream), ..Permit::default() })
    }

    /// Reads and writes, at their most (apiserver `server/filters/maxinflight.go`, `requestWatermark`).
    pub fn load(&self) -> [(&'static str, Load); 2] {
        let of = |count: &Count| Load { running: count.running.last(), waiting: count.waiting.last() };
        [("readOnly", of(&self.reads)), ("mutating", of(&self.writes))]
    }

    /// What is counted of schemas and levels.
    pub fn meters(&self) -> &Meters {
        &self.meters
    }

    /// What waits and what runs, for people; None for paths where that is not told.
    pub fn page(&self, path: &str, query: Option<&str>) -> Option<String> {
        dump::page(&self.table.load(), &self.roll, path, query)
    }

    /// Goes by these schemas and levels from now on.
    fn configure(&self, schemas: &[Value], levels: &[Value]) {
        let mut wanted = self.wanted.lock();
        let known: BTreeMap<String, Arc<Turns>> = self.table.load().turns();
        let table = Table::compile(schemas, levels, &known, &self.meters, SEATS);
        wanted.retain(|level, _| table.has_level(level));
        self.dropped.keep(|level| table.has_level(level));
        self.table.store(Arc::new(table));
    }

    /// Lets levels lend what they do not want to those that want more.
    fn lend(&self) {
        let mut wanted = self.wanted.lock();
        let table = self.table.load();
        let turns = table.turns();
        let levels: Vec<_> = turns
            .iter()
            .map(|(name, turns)| {
                let wanted = wanted.entry(name.clone()).or_default();
                *wanted = wanted.then(turns.demand());
                (turns.settings(), *wanted)
            })
            .collect();
        let shares = lending::share_out(SEATS.saturating_sub(table.kept()), &levels);
        for (((name, turns), (settings, wanted)), seats) in turns.iter().zip(&levels).zip(shares) {
            turns.set_current(seats);
            self.meters.level(name, settings, seats, wanted);
        }
    }
}

/// Takes the schemas and levels that there are now.
///
/// # Errors
/// When the server does not keep them.
pub fn configure(server: &Server) -> Result<(), Status> {
    let all = |plural: &str| -> Result<Vec<Value>, Status> {
        let snapshot = server.cache_of(GROUP, plural)?.snapshot();
        Ok(snapshot.objects.values().map(|object| object.parse()).collect())
    };
    server.limits.configure(&all("flowschemas")?, &all("prioritylevelconfigurations")?);
    Ok(())
}

/// Follows the schemas and levels until the server stops.
pub async fn follow(server: Arc<Server>) {
    let caches = server.cache_of(GROUP, "flowschemas").and_then(|schemas| {
        Ok((schemas.subscribe(), server.cache_of(GROUP, "prioritylevelconfigurations")?.subscribe()))
    });
    let Ok((mut schemas, mut levels)) = caches else { return };
    let mut lend = tokio::time::interval(LEND_EVERY);
    lend.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    lend.reset();
    let (mut changed, mut failed) = (true, false);
    loop {
        if changed {
            schemas.borrow_and_update();
            levels.borrow_and_update();
            let done = match configure(&server) {
                Ok(()) => dangling::tell(&server).await,
                failed => failed,
            };
            // Tried again at the next look.
            failed = done.inspect_err(|status| tracing::warn!(%status, "priority and fairness")).is_err();
        }
        changed = tokio::select! {
            () = server.stop.cancelled() => return,
            changed = schemas.changed() => if changed.is_err() { return } else { true },
            changed = levels.changed() => if changed.is_err() { return } else { true },
            _ = lend.tick() => {
                server.limits.lend();
                failed
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use turns::Settings;

    #[tokio::test(start_paused = true)]
    async fn seats_linger_for_those_who_are_told() {
        let turns = Arc::new(Turns::default());
        turns.configure(Settings { seats: 4, least: 4, most: 4, queues: 1, hand: 1, length: 1 });
        let request = Request { hash: 1, distinguished: false, width: 3 };
        let Entry::Seat(seat) = turns.enter(request) else { panic!("it is free") };
        let after = Duration::from_millis(5);
        drop(Lingering { seat: Some(seat), last: 2, after });
        assert_eq!(turns.load(), (2, 0));
        tokio::time::sleep(after * 2).await;
        assert_eq!(turns.load(), (0, 0));
        let Entry::Seat(seat) = turns.enter(request) else { panic!("it is free") };
        drop(Lingering { seat: Some(seat), last: 2, after: Duration::ZERO });
        assert_eq!(turns.load(), (0, 0));
    }
}
