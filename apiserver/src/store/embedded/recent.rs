//! The newest events in memory, and the watches that pull them.

use super::super::{Batch, Batches, Event, Revision, StoreError, Watch};
use super::read::unavailable;
use super::tables::{LOG, LogRecord, position, revision_of};
use super::{Command, Shared, catch_up};
use futures::StreamExt;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::mpsc;

/// How many events, and how many bytes of values, are kept for watchers; older ones come from the log.
const MAX_EVENTS: usize = 2048;
const MAX_BYTES: usize = 2 << 20;

/// How many events a watcher takes from the log at a time, rounded up to a whole revision.
const LOG_CHUNK: usize = 256;

/// Every event after `floor`, oldest first.
pub(super) struct Recent {
    events: VecDeque<Event>,
    floor: Revision,
    bytes: usize,
}

impl Recent {
    pub(super) fn starting_after(floor: Revision) -> Self {
        Self { events: VecDeque::new(), floor, bytes: 0 }
    }

    /// Adds the events of committed revisions and drops the oldest beyond the bounds, by whole revisions.
    pub(super) fn extend(&mut self, events: impl IntoIterator<Item = Event>) {
        for event in events {
            self.bytes += event.value.as_ref().map_or(0, |value| value.len());
            self.events.push_back(event);
        }
        while self.events.len() > MAX_EVENTS || self.bytes > MAX_BYTES {
            let Some(event) = self.events.pop_front() else { break };
            self.bytes -= event.value.as_ref().map_or(0, |value| value.len());
            self.floor = event.modified;
        }
        while self.events.front().is_some_and(|event| event.modified <= self.floor) {
            if let Some(event) = self.events.pop_front() {
                self.bytes -= event.value.as_ref().map_or(0, |value| value.len());
            }
        }
    }

    /// The events in `from..=to` under the prefix, or None when some of them are no longer here.
    fn slice(&self, prefix: &str, from: Revision, to: Revision) -> Option<Vec<Event>> {
        if from <= self.floor {
            return None;
        }
        let start = self.events.partition_point(|event| event.modified < from);
        let wanted = self.events.range(start..).take_while(|event| event.modified <= to);
        Some(wanted.filter(|event| event.key.starts_with(prefix)).cloned().collect())
    }
}

struct Puller {
    shared: Arc<Shared>,
    /// Not one that keeps the writer from ending.
    queue: mpsc::WeakSender<Command>,
    watch: Watch,
    revision: tokio::sync::watch::Receiver<Revision>,
    failed: bool,
}

/// A stream over `shared` that keeps nothing but its position.
pub(super) fn watch(
    shared: Arc<Shared>,
    queue: mpsc::WeakSender<Command>,
    mut watch: Watch,
) -> Result<Batches, StoreError> {
    let compacted = shared.compacted.load(Ordering::Acquire);
    watch.from = watch.from.max(1);
    if watch.from <= compacted {
        return Err(StoreError::Compacted { asked: watch.from, oldest: compacted });
    }
    let revision = shared.revision.subscribe();
    let puller = Puller { shared, queue, watch, revision, failed: false };
    Ok(futures::stream::unfold(puller, |mut puller| async move {
        if puller.failed {
            return None;
        }
        let batch = puller.next().await;
        puller.failed = batch.is_err();
        Some((batch, puller))
    })
    .boxed())
}

impl Puller {
    async fn next(&mut self) -> Result<Batch, StoreError> {
        let from = self.watch.from;
        let committed = self
            .revision
            .wait_for(|committed| *committed >= from)
            .await
            .map(|committed| *committed)
            .map_err(|_| StoreError::Unavailable("the store is closed".to_owned()))?;
        let recent = self.shared.recent.read().slice(&self.watch.prefix, from, committed);
        let mut batch = match recent {
            Some(events) => Batch { revision: committed, events },
            None => {
                catch_up(&self.shared, &self.queue).await?;
                self.read_log(committed)?
            }
        };
        if self.watch.previous {
            catch_up(&self.shared, &self.queue).await?;
            self.add_previous(&mut batch.events)?;
        }
        self.watch.from = batch.revision + 1;
        Ok(batch)
    }

    /// A chunk of the log, cut at a whole revision.
    fn read_log(&self, committed: Revision) -> Result<Batch, StoreError> {
        let from = self.watch.from;
        let read = self.shared.begin()?;
        let log = read.open_table(LOG).map_err(unavailable)?;
        // After the transaction has begun: what compaction removes later is still in this snapshot.
        let compacted = self.shared.compacted.load(Ordering::Acquire);
        if from <= compacted {
            return Err(StoreError::Compacted { asked: from, oldest: compacted });
        }
        let mut batch = Batch { revision: committed, events: Vec::new() };
        let mut seen = (0usize, from);
        for row in log.range(position(from, 0)..position(committed + 1, 0)).map_err(unavailable)? {
            let (place, row) = row.map_err(unavailable)?;
            let revision = revision_of(place.value());
            if seen.0 >= LOG_CHUNK && revision != seen.1 {
                batch.revision = seen.1;
                break;
            }
            seen = (seen.0 + 1, revision);
            let record = LogRecord::decode(row.value())?;
            if record.key.starts_with(&self.watch.prefix) {
                batch.events.push(Event {
                    key: record.key.into(),
                    value: record.bytes(),
                    previous: None,
                    created: record.created,
                    modified: revision,
                });
            }
        }
        Ok(batch)
    }

    /// Looks up the value before each event in the log; one that was compacted away stays absent.
    fn add_previous(&self, events: &mut [Event]) -> Result<(), StoreError> {
        if events.is_empty() {
            return Ok(());
        }
        let read = self.shared.begin()?;
        let log = read.open_table(LOG).map_err(unavailable)?;
        for event in events {
            for row in log.range(position(event.modified, 0)..position(event.modified + 1, 0)).map_err(unavailable)? {
                let (_, row) = row.map_err(unavailable)?;
                let record = LogRecord::decode(row.value())?;
                if record.key != &*event.key || record.previous == 0 {
                    continue;
                }
                if let Some(previous) = log.get(record.previous).map_err(unavailable)? {
                    event.previous = LogRecord::decode(previous.value())?.bytes();
                }
            }
        }
        Ok(())
    }
}
