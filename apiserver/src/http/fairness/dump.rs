//! What waits for its turn, for people: `/debug/api_priority_and_fairness/` (apiserver `util/flowcontrol`,
//! `apf_controller_debug.go`).
//!
//! Queues take turns here, without upstream's virtual time, and a request that has its seats is in no queue any more: where
//! upstream tells of those, there is `<none>`, and the list of requests is of those that wait.

use super::meters::Why;
use super::table::{Level, Schema, Table};
use super::turns::Waiters;
use super::work::Estimate;
use jiff::Timestamp;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

const PREFIX: &str = "/debug/api_priority_and_fairness/";

/// Of a level that has more queues than this, only those with somebody in them are listed.
const MOST_QUEUES: usize = 1024;

const NONE: &str = "<none>";

/// Who asks, and for what.
#[derive(Clone, Debug, Default)]
pub struct Asker {
    pub arrived: Timestamp,
    pub user: String,
    pub verb: &'static str,
    pub path: String,
    pub namespace: String,
    pub name: String,
    /// Group and version.
    pub version: String,
    pub resource: String,
    pub subresource: String,
}

/// A request that waits.
#[derive(Debug)]
pub struct Told {
    pub schema: Arc<Schema>,
    pub estimate: Estimate,
    pub asker: Asker,
}

/// The page at a path; None when there is none.
pub fn page(table: &Table, path: &str, query: Option<&str>) -> Option<String> {
    match path.strip_prefix(PREFIX)? {
        "dump_priority_levels" => Some(levels(table)),
        "dump_queues" => Some(queues(table)),
        "dump_requests" => {
            let mut pairs = query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
            let is_detailed = pairs.any(|(name, value)| name == "includeRequestDetails" && !value.is_empty());
            Some(requests(table, is_detailed))
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

fn queues(table: &Table) -> String {
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
        let waiters = waiters(level);
        let count = level.turns.as_ref().map_or(0, |turns| turns.settings().queues);
        let some = waiters.iter().map(|(index, _)| *index);
        let indices: Vec<usize> = if count > MOST_QUEUES { some.collect() } else { (0..count).collect() };
        for index in indices {
            let queue = waiters.iter().find(|(other, _)| *other == index).map_or(&[][..], |(_, queue)| queue);
            let sum = |of: fn(&Estimate) -> usize| {
                let told = queue.iter().flatten();
                told.map(|told| of(&told.estimate)).sum::<usize>().to_string()
            };
            let (index, pending) = (index.to_string(), queue.len().to_string());
            let (first, most) = (sum(|estimate| estimate.first), sum(|estimate| estimate.width()));
            rows.push(row(&[&level.name, &index, &pending, NONE, NONE, NONE, &first, &most, NONE]));
        }
    }
    aligned(&rows)
}

fn requests(table: &Table, is_detailed: bool) -> String {
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
        for (queue, requests) in waiters(level) {
            for (nth, told) in requests.iter().enumerate() {
                let Some(Told { schema, estimate, asker }) = told.as_deref() else { continue };
                let mut cells = row(&[
                    &level.name,
                    &schema.name,
                    &queue.to_string(),
                    &nth.to_string(),
                    schema.distinguish(&asker.user, &asker.namespace),
                    &asker.arrived.to_string(),
                    &estimate.first.to_string(),
                    &estimate.last.to_string(),
                    &duration(estimate.after),
                    // It has not begun: Go's zero time.
                    "0001-01-01T00:00:00Z",
                ]);
                if is_detailed {
                    cells.extend(row(&[
                        &asker.user,
                        asker.verb,
                        &asker.path,
                        &asker.namespace,
                        &asker.name,
                        &asker.version,
                        &asker.resource,
                        &asker.subresource,
                    ]));
                }
                rows.push(cells);
            }
        }
    }
    aligned(&rows)
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
