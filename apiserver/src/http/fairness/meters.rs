//! What is counted of each flow schema and level, under upstream's names (apiserver `util/flowcontrol/metrics`).

use super::lending::Wanted;
use super::turns::Settings;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    priority_level: String,
    flow_schema: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Rejected {
    priority_level: String,
    flow_schema: String,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Waited {
    priority_level: String,
    flow_schema: String,
    execute: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfLevel {
    priority_level: String,
}

type Figure = Gauge<f64, AtomicU64>;

/// Bounds of waiting and running times, as upstream has them.
const SECONDS: [f64; 14] = [0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0];
const SEATS: [f64; 5] = [1.0, 2.0, 4.0, 10.0, 100.0];

/// Why a request did not get a seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Its queue was full.
    QueueFull,
    /// The level was, and has no queues.
    ConcurrencyLimit,
    TimeOut,
    /// Its client went away.
    Cancelled,
}

impl Why {
    const ALL: [(Self, &'static str); 4] = [
        (Self::QueueFull, "queue-full"),
        (Self::ConcurrencyLimit, "concurrency-limit"),
        (Self::TimeOut, "time-out"),
        (Self::Cancelled, "cancelled"),
    ];
}

type Times = Family<Waited, Histogram, fn() -> Histogram>;
type Amounts = Family<Of, Histogram, fn() -> Histogram>;

/// All figures.
#[derive(Debug)]
pub struct Meters {
    dispatched: Family<Of, Counter>,
    rejected: Family<Rejected, Counter>,
    inqueue: Family<Of, Gauge>,
    inqueue_seats: Family<Of, Gauge>,
    executing: Family<Of, Gauge>,
    executing_seats: Family<Of, Gauge>,
    waits: Times,
    runs: Amounts,
    estimates: Amounts,
    /// By level: `nominal_limit_seats` and the others, in the order of [`LEVEL`].
    levels: [Family<OfLevel, Figure>; LEVEL.len()],
}

/// What is told of each level.
const LEVEL: [(&str, &str); 8] = [
    ("nominal_limit_seats", "Seats that are a level's own"),
    ("lower_limit_seats", "Seats that a level does not lend"),
    ("upper_limit_seats", "Seats that a level has at most, with what it borrows"),
    ("current_limit_seats", "Seats that a level has now"),
    ("demand_seats_high_watermark", "Most seats wanted at a time, in the last period"),
    ("demand_seats_average", "Seats wanted, averaged over the last period"),
    ("demand_seats_stdev", "Standard deviation of the seats wanted in the last period"),
    ("demand_seats_smoothed", "Seats wanted, smoothed"),
];

impl Default for Meters {
    fn default() -> Self {
        let seconds: fn() -> Histogram = || Histogram::new(SECONDS);
        let seats: fn() -> Histogram = || Histogram::new(SEATS);
        Self {
            dispatched: Family::default(),
            rejected: Family::default(),
            inqueue: Family::default(),
            inqueue_seats: Family::default(),
            executing: Family::default(),
            executing_seats: Family::default(),
            waits: Family::new_with_constructor(seconds),
            runs: Family::new_with_constructor(seconds),
            estimates: Family::new_with_constructor(seats),
            levels: std::array::from_fn(|_| Family::default()),
        }
    }
}

impl Meters {
    /// Adds the figures to what is told.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("apiserver_flowcontrol");
        registry.register("dispatched_requests", "Requests that got seats", self.dispatched.clone());
        registry.register("rejected_requests", "Requests that got none, by reason", self.rejected.clone());
        registry.register("current_inqueue_requests", "Requests that wait", self.inqueue.clone());
        registry.register("current_inqueue_seats", "Seats that are waited for", self.inqueue_seats.clone());
        registry.register("current_executing_requests", "Requests that have seats", self.executing.clone());
        registry.register("current_executing_seats", "Seats that are taken", self.executing_seats.clone());
        registry.register("request_wait_duration_seconds", "Time spent waiting for seats", self.waits.clone());
        registry.register("request_execution_seconds", "Time that seats were taken", self.runs.clone());
        registry.register("work_estimated_seats", "Seats that requests take", self.estimates.clone());
        for ((name, help), family) in LEVEL.iter().zip(&self.levels) {
            registry.register(*name, *help, family.clone());
        }
    }

    /// Those of one flow schema.
    pub fn of(&self, schema: &str, level: &str) -> Meter {
        let of = Of { priority_level: level.to_owned(), flow_schema: schema.to_owned() };
        let Of { priority_level, flow_schema } = of.clone();
        let waits = |execute| {
            let of = Waited { priority_level: priority_level.clone(), flow_schema: flow_schema.clone(), execute };
            self.waits.get_or_create(&of).clone()
        };
        let rejected = Why::ALL.map(|(_, reason)| {
            let of = Rejected { priority_level: priority_level.clone(), flow_schema: flow_schema.clone(), reason };
            self.rejected.get_or_create(&of).clone()
        });
        Meter {
            dispatched: self.dispatched.get_or_create(&of).clone(),
            rejected,
            inqueue: self.inqueue.get_or_create(&of).clone(),
            inqueue_seats: self.inqueue_seats.get_or_create(&of).clone(),
            executing: self.executing.get_or_create(&of).clone(),
            executing_seats: self.executing_seats.get_or_create(&of).clone(),
            waited: waits("true"),
            waited_in_vain: waits("false"),
            ran: self.runs.get_or_create(&of).clone(),
            estimated: self.estimates.get_or_create(&of).clone(),
        }
    }

    /// Tells what a level may have, has and wants.
    pub fn level(&self, name: &str, settings: &Settings, current: usize, wanted: &Wanted) {
        let own = [settings.seats, settings.least, settings.most, current].map(|seats| seats as f64);
        let wanted = [wanted.high, wanted.average, wanted.deviation, wanted.smoothed];
        for (family, value) in self.levels.iter().zip(own.into_iter().chain(wanted)) {
            family.get_or_create(&OfLevel { priority_level: name.to_owned() }).set(value);
        }
    }
}

/// The figures of one flow schema.
#[derive(Clone, Debug)]
pub struct Meter {
    pub dispatched: Counter,
    rejected: [Counter; Why::ALL.len()],
    inqueue: Gauge,
    inqueue_seats: Gauge,
    executing: Gauge,
    executing_seats: Gauge,
    /// Seconds until there was a seat.
    pub waited: Histogram,
    /// Seconds until there was none after all.
    pub waited_in_vain: Histogram,
    pub ran: Histogram,
    pub estimated: Histogram,
}

impl Meter {
    pub fn reject(&self, why: Why) {
        let counters = Why::ALL.iter().zip(&self.rejected);
        counters.filter(|((known, _), _)| *known == why).for_each(|(_, counter)| _ = counter.inc());
    }

    /// How many have not got a seat, for a reason.
    pub fn rejections(&self, why: Why) -> u64 {
        let counters = Why::ALL.iter().zip(&self.rejected);
        counters.filter(|((known, _), _)| *known == why).map(|(_, counter)| counter.get()).sum()
    }

    /// How many have seats.
    pub fn executing(&self) -> i64 {
        self.executing.get()
    }

    /// A request waits for as long as this is there.
    pub fn waiting(&self, width: usize) -> Raised {
        Raised::new([&self.inqueue, &self.inqueue_seats], width)
    }

    /// A request has seats for as long as this is there.
    pub fn running(&self, width: usize) -> Raised {
        Raised::new([&self.executing, &self.executing_seats], width)
    }
}

/// Requests and seats that are counted.
#[derive(Debug)]
pub struct Raised([Gauge; 2], i64);

impl Raised {
    fn new([requests, seats]: [&Gauge; 2], width: usize) -> Self {
        let width = i64::try_from(width).unwrap_or(1);
        requests.inc();
        seats.inc_by(width);
        Self([requests.clone(), seats.clone()], width)
    }
}

impl Drop for Raised {
    fn drop(&mut self) {
        self.0[0].dec();
        self.0[1].dec_by(self.1);
    }
}
