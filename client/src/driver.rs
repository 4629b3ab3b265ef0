//! Runs one reconciler: its queue, expectations, workers, retries and figures.
//!
//! ```text
//! informer event ─► key ─► queue ─► all own writes seen? ─► snapshot ─► plan ─► actions ─► status
//!                            ▲ no: the write's own event brings the key back   │ failed: back-off
//!                            └─────────────────────────────────────────────────┘
//! ```

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use coracle_api::clock::Clock;
use coracle_api::json::Value;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    Expectations, Key, Metrics, WorkQueue,
    action::{Action, Plan, Step, Verb},
    executor::{ActionError, Executor},
    expectations::{EXPECTATIONS_TTL, Expected},
    reconciler::{Context, Failure, Reconciler, Wires},
};

/// How many requests of one step are in flight.
const IN_FLIGHT: usize = 32;

/// A key whose writes are not seen is looked at again this often, in case no event brings it back.
const UNSEEN_RECHECK: Duration = Duration::from_secs(5);

/// Drives a reconciler.
pub struct Driver<R: Reconciler> {
    reconciler: R,
    executor: Executor,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    queue: Arc<WorkQueue<R::Key>>,
    expectations: Expectations<R::Key>,
    failures: Mutex<std::collections::HashMap<R::Key, Failure>>,
}

/// How a plan's execution ended.
enum End {
    Done,
    Conflict,
    Failed(Failure),
}

impl<R: Reconciler> Driver<R> {
    /// A driver that acts through `executor`.
    pub fn new(reconciler: R, executor: Executor, clock: Arc<dyn Clock>, metrics: Metrics) -> Self {
        let queue = Arc::new(WorkQueue::new(clock.clone()));
        Self {
            reconciler,
            executor,
            clock,
            metrics,
            queue,
            expectations: Expectations::default(),
            failures: Mutex::default(),
        }
    }

    /// Works until `shutdown`. Subscriptions are made here and end here.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut wires = Wires::new(self.queue.clone());
        self.reconciler.wire(&mut wires);
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = wires.synced() => {}
        }
        tracing::debug!(controller = self.reconciler.name(), "started");
        let (driver, wires) = (Arc::new(self), Arc::new(wires));
        // Ends its tasks when dropped, whichever way this function is left.
        let mut workers = JoinSet::new();
        for _ in 0..driver.reconciler.workers().max(1) {
            let (driver, wires) = (driver.clone(), wires.clone());
            workers.spawn(async move { driver.work(&wires).await });
        }
        tokio::select! {
            () = shutdown.cancelled() => driver.queue.close(),
            _ = workers.join_next() => {}
        }
    }

    async fn work(&self, wires: &Wires<R::Key>) {
        let name = Metrics::of(self.reconciler.name());
        while let Some(key) = self.queue.get().await {
            let begun = self.clock.monotonic();
            self.metrics.processed.get_or_create(&name).inc();
            self.metrics.depth.get_or_create(&name).set(i64::try_from(self.queue.len()).unwrap_or(i64::MAX));
            self.reconcile(&key, wires, &name).await;
            self.queue.done(&key);
            let took = self.clock.monotonic().saturating_sub(begun);
            self.metrics.work.get_or_create(&name).observe(took.as_secs_f64());
        }
    }

    async fn reconcile(&self, key: &R::Key, wires: &Wires<R::Key>, name: &crate::metrics::Name) {
        if !self.expectations.satisfied(key, self.clock.monotonic()) {
            self.queue.add_after(key.clone(), UNSEEN_RECHECK.min(EXPECTATIONS_TTL));
            return;
        }
        let Some(plan) = self.plan(key) else {
            self.metrics.panics.get_or_create(name).inc();
            self.queue.add_rate_limited(key.clone());
            return;
        };
        let requeue = plan.requeue_after;
        match self.execute(key, plan, wires).await {
            End::Done => {
                self.queue.forget(key);
                self.failures.lock().remove(key);
            }
            End::Conflict => {
                self.metrics.conflicts.get_or_create(name).inc();
                self.queue.add_rate_limited(key.clone());
            }
            End::Failed(failure) => {
                let (controller, attempt) = (self.reconciler.name(), self.queue.failures(key));
                tracing::warn!(controller, %key, action = failure.action, attempt, error = failure.message, "failed, trying again");
                self.metrics.retries.get_or_create(name).inc();
                self.failures.lock().insert(key.clone(), failure);
                self.queue.add_rate_limited(key.clone());
            }
        }
        if let Some(after) = requeue {
            self.queue.add_after(key.clone(), after);
        }
    }

    /// None where the plan panicked: the key is at fault, not the controller, and the others go on.
    fn plan(&self, key: &R::Key) -> Option<Plan> {
        let failure = self.failures.lock().get(key).cloned();
        let context = Context { now: self.clock.now(), failure: failure.as_ref() };
        let snapshot = self.reconciler.snapshot();
        let planned = catch_unwind(AssertUnwindSafe(|| self.reconciler.plan(&snapshot, key, &context)));
        if planned.is_err() {
            tracing::error!(controller = self.reconciler.name(), %key, "the plan panicked");
        }
        planned.ok()
    }

    async fn execute(&self, key: &R::Key, plan: Plan, wires: &Wires<R::Key>) -> End {
        let mut end = End::Done;
        for step in &plan.actions {
            end = self.step(key, step, wires).await;
            if !matches!(end, End::Done) {
                break;
            }
        }
        if let Some(status) = &plan.status
            && !matches!(end, End::Conflict)
        {
            let written = self.act(key, status, wires).await;
            if matches!(end, End::Done) {
                end = written;
            }
        }
        if matches!(end, End::Done) {
            for note in &plan.notes {
                self.executor.recorder().record(&note.about, note.kind, note.reason, &note.message);
            }
        }
        end
    }

    async fn step(&self, key: &R::Key, step: &Step, wires: &Wires<R::Key>) -> End {
        match step {
            Step::One(action) => self.act(key, action, wires).await,
            Step::Parallel(actions) => self.batch(key, actions, wires).await,
            Step::SlowStart(actions) => {
                let (mut rest, mut size) = (actions.as_slice(), 1);
                while !rest.is_empty() {
                    let (batch, after) = rest.split_at(size.min(rest.len()));
                    let end = self.batch(key, batch, wires).await;
                    if !matches!(end, End::Done) {
                        return end;
                    }
                    (rest, size) = (after, size * 2);
                }
                End::Done
            }
        }
    }

    async fn batch(&self, key: &R::Key, actions: &[Action], wires: &Wires<R::Key>) -> End {
        let requests: Vec<BoxFuture<'_, End>> =
            actions.iter().map(|action| self.act(key, action, wires).boxed()).collect();
        let mut ends = stream::iter(requests).buffer_unordered(IN_FLIGHT);
        let mut worst = End::Done;
        while let Some(end) = ends.next().await {
            worst = match (worst, end) {
                (End::Failed(failure), _) | (_, End::Failed(failure)) => End::Failed(failure),
                (End::Conflict, _) | (_, End::Conflict) => End::Conflict,
                _ => End::Done,
            };
        }
        worst
    }

    async fn act(&self, key: &R::Key, action: &Action, wires: &Wires<R::Key>) -> End {
        let outcome = self.executor.execute(action).await;
        self.reconciler.observe(key, action, &outcome);
        match outcome {
            Ok(object) => {
                self.expect(key, action, &object, wires);
                End::Done
            }
            Err(error) if error.is_conflict() => End::Conflict,
            Err(error) if error.is_namespace_terminating() => End::Done,
            // A probe's answer, whatever it is, is for the reconciler.
            Err(ActionError::Refused(_)) if matches!(action.verb, Verb::Probe) => End::Done,
            Err(error) => End::Failed(Failure {
                action: action.describe(),
                reason: action
                    .announce
                    .as_ref()
                    .and_then(|announce| announce.failure.as_ref())
                    .map(|(reason, _)| *reason),
                message: error.to_string(),
                code: error.code(),
            }),
        }
    }

    fn expect(&self, key: &R::Key, action: &Action, object: &Value, wires: &Wires<R::Key>) {
        let Some(view) = wires.view(&action.resource) else { return };
        let expected = match &action.verb {
            Verb::Delete { uid: Some(uid), .. } => {
                Expected::Going { view: view.clone(), key: Key::new(&action.namespace, &action.name), uid: uid.clone() }
            }
            Verb::Create(_) | Verb::Update { .. } | Verb::Patch { .. } => {
                match coracle_api::meta::resource_version(object).parse() {
                    Ok(version) => Expected::Version { view: view.clone(), version },
                    Err(_) => return,
                }
            }
            _ => return,
        };
        self.expectations.expect(key, expected, self.clock.monotonic());
    }
}
