//! Who runs, for people.

use super::dump::Told;
use jiff::Timestamp;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The requests that run, in the order in which they began.
#[derive(Debug, Default)]
pub struct Roll(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    begun: u64,
    running: BTreeMap<u64, Arc<Runs>>,
}

/// A request that runs.
#[derive(Debug)]
pub struct Runs {
    pub told: Arc<Told>,
    pub since: Timestamp,
    /// The queue that it has waited in.
    pub queue: Option<usize>,
    /// Of its flow.
    pub hash: u64,
}

/// Takes a request off the roll when dropped.
#[derive(Debug)]
pub struct Listed(Arc<Roll>, u64);

impl Roll {
    pub fn list(self: &Arc<Self>, runs: Runs) -> Listed {
        let mut state = self.0.lock();
        state.begun += 1;
        let number = state.begun;
        state.running.insert(number, Arc::new(runs));
        Listed(self.clone(), number)
    }

    pub fn all(&self) -> Vec<Arc<Runs>> {
        self.0.lock().running.values().cloned().collect()
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        // Not under the lock: what is told of it may be the last of a schema.
        let gone = self.0.0.lock().running.remove(&self.1);
        drop(gone);
    }
}
