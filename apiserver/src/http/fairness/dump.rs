//! What waits for its turn and what runs, for people: `/debug/api_priority_and_fairness/` (apiserver `util/flowcontrol`,
//! `apf_controller_debug.go`).
//!
//! Queues take turns here, without upstream's virtual time, which orders by the work that it expects: where upstream tells of
//! those, there is `<none>`. A request that found its seats free was in no queue; as upstream has every request go through
//! one, it counts with the queue that it would have joined.

use super::meters::Why;
use super::roll::{Roll, Runs};
use super::table::{Level, Schema, Table};
use super::turns::Waiters;
use super::work::Estimate;
use crate::auth::UserInfo;
use crate::registry::{Resolved, Subresource};
use coracle_api::Gvk;
use http::Uri;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

const PREFIX: &str = "/debug/api_priority_and_fairness/";

/// Of a level that has more queues than this, only those with somebody in them are listed.
const MOST_QUEUES: usize = 1024;

const NONE: &str = "<none>";

/// Go's zero time, of what has not begun.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// Who asks, and for what. It is made of every request, so that nothing is written out before somebody looks.
#[derive(Debug)]
pub struct Asker {
    pub arrived: Timestamp,
    pub user: Arc<UserInfo>,
    pub verb: &'static str,
    pub uri: Uri,
    pub namespace: String,
    pub name: String,
    /// None for what is no resource.
    pub resource: Option<(Resolved, Option<Subresource>)>,
}

/// A request.
#[derive(Debug)]
pub struct Told {
    pub schema: Arc<Schema>,
    pub estimate: Estimate,
    pub asker: Asker,
}

/// The requests of a queue, or of none.
#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<Option<Arc<Told>>>,
    running: Vec<Arc<Runs>>,
}

/// By number; the last, those that run in a level without queues.
type Queues = (BTreeMap<usize, Queue>, Vec<Arc<Runs>>);

/// The page at a path; None when there is none.
pub fn page(table: &Table, roll: &Roll, path: &str, query: Option<&str>) -> Option<String> {
    match path.strip_prefix(PREFIX)? {
        "dump_priority_levels" => Some(levels(table)),
        "dump_queues" => Some(queues(table, roll)),
        "dump_requests" => {
            let mut pairs = query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
            let is_detailed = pairs.any(|(name, value)| name == "includeRequestDetails" && !value.is_empty());
            Some(requests(table, roll, is_detailed))
        }
        _ => None,
    }
}

fn levels(table: &Table) -> String {
    let mut rows = vec![row(&[
        "PriorityLevelName",
        "ActiveQueues",
        "IsIdle",
        "IsQuiescing",
        "WaitingRequests",
        "ExecutingRequests",
        "DispatchedRequests",
        "RejectedRequests",
        "TimedoutRequests",
        "CancelledRequests",
    ])];
    for level in table.levels() {
        let waiters = waiters(level);
        let waiting: usize = waiters.iter().map(|(_, queue)| queue.len()).sum();
        let meters: Vec<_> = table.schemas_of(level).map(|schema| &schema.meter).collect();
        let executing: i64 = meters.iter().map(|meter| meter.executing()).sum();
        let rejected = |why| meters.iter().map(|meter| meter.rejections(why)).sum::<u64>();
        let numbers = [
            waiting as u64,
            executing.max(0).cast_unsigned(),
            meters.iter().map(|meter| meter.dispatched.get()).sum(),
            rejected(Why::QueueFull) + rejected(Why::ConcurrencyLimit),
            rejected(Why::TimeOut),
            rejected(Why::Cancelled),
        ];
        let is_idle = waiting == 0 && executing <= 0;
        // A level that is deleted is gone at once.
        let mut cells = vec![level.name.clone(), waiters.len().to_string(), is_idle.to_string(), "false".to_owned()];
        cells.extend(numbers.map(|number| number.to_string()));
        rows.push(cells);
    }
    aligned(&rows)
}

fn queues(table: &Table, roll: &Roll) -> String {
    let mut rows = vec![row(&[
        "PriorityLevelName",
        "Index",
        "PendingRequests",
        "ExecutingRequests",
        "SeatsInUse",
        "NextDispatchR",
        "InitialSeatsSum",
        "MaxSeatsSum",
        "TotalWorkSum",
    ])];
    for level in table.levels() {
        let (busy, _) = by_queue(level, roll);
        let count = level.turns.as_ref().map_or(0, |turns| turns.settings().queues);
        let indices: Vec<usize> =
            if count > MOST_QUEUES { busy.keys().copied().collect() } else { (0..count).collect() };
        let idle = Queue::default();
        for index in indices {
            let Queue { waiting, running } = busy.get(&index).unwrap_or(&idle);
            let sum = |of: fn(&Estimate) -> usize| {
                let told = waiting.iter().flatten();
                told.map(|told| of(&told.estimate)).sum::<usize>().to_string()
            };
            let in_use: usize = running.iter().map(|runs| runs.told.estimate.width()).sum();
            let [index, pending, executing, in_use] =
                [index, waiting.len(), running.len(), in_use].map(|number| number.to_string());
            let (first, most) = (sum(|estimate| estimate.first), sum(|estimate| estimate.width()));
            rows.push(row(&[&level.name, &index, &pending, &executing, &in_use, NONE, &first, &most, NONE]));
        }
    }
    aligned(&rows)
}

/// Who waits and who runs in a level.
fn by_queue(level: &Level, roll: &Roll) -> Queues {
    let waiters = waiters(level).into_iter();
    let mut queues: BTreeMap<usize, Queue> =
        waiters.map(|(index, waiting)| (index, Queue { waiting, running: Vec::new() })).collect();
    let mut queueless = Vec::new();
    for runs in roll.all().into_iter().filter(|runs| runs.told.schema.level.name == level.name) {
        let would_have_joined = || level.turns.as_ref()?.first_queue(runs.hash);
        match runs.queue.or_else(would_have_joined) {
            Some(queue) => queues.entry(queue).or_default().running.push(runs),
            None => queueless.push(runs),
        }
    }
    (queues, queueless)
}

fn requests(table: &Table, roll: &Roll, is_detailed: bool) -> String {
    let mut head = row(&[
        "PriorityLevelName",
        "FlowSchemaName",
        "QueueIndex",
        "RequestIndexInQueue",
        "FlowDistingsher",
        "ArriveTime",
        "InitialSeats",
        "FinalSeats",
        "AdditionalLatency",
        "StartTime",
    ]);
    if is_detailed {
        let details = ["UserName", "Verb", "APIPath", "Namespace", "Name", "APIVersion", "Resource", "SubResource"];
        head.extend(row(&details));
    }
    let mut rows = vec![head];
    for level in table.levels() {
        let (queues, queueless) = by_queue(level, roll);
        let mut list = |queue: Option<usize>, place: Option<usize>, told: &Told, since: &str| {
            rows.push(request(level, [queue, place], told, since, is_detailed));
        };
        for (index, queue) in queues {
            for (nth, told) in queue.waiting.iter().enumerate() {
                told.iter().for_each(|told| list(Some(index), Some(nth), told, NEVER));
            }
            for runs in queue.running {
                list(Some(index), None, &runs.told, &runs.since.to_string());
            }
        }
        for runs in queueless {
            list(None, None, &runs.told, &runs.since.to_string());
        }
    }
    aligned(&rows)
}

/// A line of a request, with its queue and its place in that.
fn request(level: &Level, places: [Option<usize>; 2], told: &Told, since: &str, is_detailed: bool) -> Vec<String> {
    let Told { schema, estimate, asker } = told;
    let [queue, place] = places.map(|place| place.map_or_else(|| "-1".to_owned(), |place| place.to_string()));
    let mut cells = row(&[
        &level.name,
        &schema.name,
        &queue,
        &place,
        schema.distinguish(&asker.user.name, &asker.namespace),
        &asker.arrived.to_string(),
        &estimate.first.to_string(),
        &estimate.last.to_string(),
        &duration(estimate.after),
        since,
    ]);
    if is_detailed {
        let (version, resource, subresource) = asker.resource.as_ref().map(named).unwrap_or_default();
        cells.extend(row(&[
            &asker.user.name,
            asker.verb,
            asker.uri.path(),
            &asker.namespace,
            &asker.name,
            &version,
            &resource,
            &subresource,
        ]));
    }
    cells
}

/// Group and version, resource and subresource.
fn named((resolved, subresource): &(Resolved, Option<Subresource>)) -> (String, String, String) {
    let Gvk { group, version, .. } = resolved.row.gvk(resolved.served);
    let version = if group.is_empty() { version.to_string() } else { format!("{group}/{version}") };
    let subresource = subresource.map(|subresource| subresource.path().to_owned());
    (version, resolved.row.plural.to_string(), subresource.unwrap_or_default())
}

fn waiters(level: &Level) -> Waiters {
    level.turns.as_ref().map(|turns| turns.waiters()).unwrap_or_default()
}

fn row(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|cell| (*cell).to_owned()).collect()
}

/// As Go shows a duration of less than a minute.
fn duration(duration: Duration) -> String {
    match duration.as_secs_f64() {
        0.0 => "0s".to_owned(),
        seconds if seconds < 1.0 => format!("{}ms", (seconds * 1e6).round() / 1e3),
        seconds => format!("{}s", (seconds * 1e6).round() / 1e6),
    }
}

/// Cells with commas behind them, in columns that are at least eight wide (`text/tabwriter`, `NewWriter(w, 8, 0, 1, ' ', 0)`).
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count() + 2).max().unwrap_or(0).max(8);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        for (nth, (cell, width)) in row.iter().zip(&widths).enumerate() {
            // Writing to a String does not fail.
            let _ =
                if nth + 1 == columns { writeln!(out, "{cell}") } else { write!(out, "{:width$}", format!("{cell},")) };
        }
    }
    out
}
