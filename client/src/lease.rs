//! Leader election on a Lease of coordination.k8s.io, compatible with client-go's `leaderelection`.

use std::{sync::Arc, time::Duration};

use coracle_api::clock::Clock;
use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio_util::sync::CancellationToken;

use crate::Metrics;

/// How long a lease holds, how long its holder tries to renew it, and how often anyone looks.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    pub lease: Duration,
    pub renew_deadline: Duration,
    pub retry: Duration,
}

impl Default for Timing {
    /// The defaults of kube-controller-manager and kube-scheduler.
    fn default() -> Self {
        Self { lease: Duration::from_secs(15), renew_deadline: Duration::from_secs(10), retry: Duration::from_secs(2) }
    }
}

/// One candidate for the leadership that a Lease object stands for.
pub struct LeaderLease {
    api: Api<Lease>,
    name: String,
    identity: String,
    clock: Arc<dyn Clock>,
    timing: Timing,
    metrics: Metrics,
}

/// What a candidate remembers of the Lease. Another's clock is never compared with ours: its lease is over when it
/// has not changed for a lease's time on our own clock.
struct Observed {
    lease: Option<Lease>,
    since: Duration,
}

impl LeaderLease {
    /// A candidate called `identity` for the Lease `name` in `namespace`.
    pub fn new(client: Client, namespace: &str, name: &str, identity: &str, clock: Arc<dyn Clock>) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity: identity.to_owned(),
            clock,
            timing: Timing::default(),
            metrics: Metrics::default(),
        }
    }

    /// With other times than upstream's 15, 10 and 2 seconds.
    pub fn with_timing(mut self, timing: Timing) -> Self {
        self.timing = timing;
        self
    }

    /// Shows the leadership in `metrics`.
    pub fn with_metrics(mut self, metrics: Metrics) -> Self {
        self.metrics = metrics;
        self
    }

    /// Runs `lead` while this candidate holds the lease, and again each time it gains it, until `shutdown`; then gives the
    /// lease back. The token that `lead` gets is cancelled when the lease is lost; it has to end then.
    pub async fn run<F, Fut>(self, shutdown: CancellationToken, mut lead: F)
    where
        F: FnMut(CancellationToken) -> Fut,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let mut observed = Observed { lease: None, since: Duration::ZERO };
        while self.acquire(&mut observed, &shutdown).await {
            tracing::info!(lease = self.name, identity = self.identity, "leading");
            self.metrics.leading.get_or_create(&Metrics::of(&self.name)).set(1);
            let term = shutdown.child_token();
            let task = tokio::spawn(lead(term.clone()));
            self.hold(&mut observed, &shutdown).await;
            term.cancel();
            if let Err(error) = task.await {
                tracing::error!(lease = self.name, error = %error, "the leader crashed");
            }
            self.metrics.leading.get_or_create(&Metrics::of(&self.name)).set(0);
            if shutdown.is_cancelled() {
                self.release(&observed).await;
                return;
            }
            tracing::warn!(lease = self.name, "lost the lease");
        }
    }

    /// False when it is time to go.
    async fn acquire(&self, observed: &mut Observed, shutdown: &CancellationToken) -> bool {
        loop {
            let attempt = tokio::time::timeout(self.timing.renew_deadline, self.try_acquire(observed));
            tokio::select! {
                () = shutdown.cancelled() => return false,
                held = attempt => if held == Ok(true) { return true },
            }
            // Jittered as upstream's `JitterUntil(…, JitterFactor 1.2)`, so that candidates do not move in step.
            let pause = self.timing.retry.mul_f64(1.0 + 1.2 * fastrand::f64());
            tokio::select! {
                () = shutdown.cancelled() => return false,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Renews until a renewal has not succeeded for the renew deadline.
    async fn hold(&self, observed: &mut Observed, shutdown: &CancellationToken) {
        let mut renewed = self.clock.monotonic();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(self.timing.retry) => {}
            }
            let left = (renewed + self.timing.renew_deadline).saturating_sub(self.clock.monotonic());
            match tokio::time::timeout(left, self.try_acquire(observed)).await {
                Ok(true) => renewed = self.clock.monotonic(),
                _ if self.clock.monotonic() >= renewed + self.timing.renew_deadline => return,
                _ => {}
            }
        }
    }

    async fn try_acquire(&self, observed: &mut Observed) -> bool {
        let lease = match self.api.get_opt(&self.name).await {
            Ok(lease) => lease,
            Err(error) => {
                tracing::debug!(lease = self.name, error = %error, "cannot read the lease");
                return false;
            }
        };
        let now = self.clock.monotonic();
        if spec(observed.lease.as_ref()) != spec(lease.as_ref()) {
            observed.since = now;
        }
        observed.lease = lease;
        let Some(wanted) = self.claim(observed, now, self.clock.now()) else { return false };
        let written = match &observed.lease {
            None => self.api.create(&PostParams::default(), &wanted).await,
            Some(_) => self.api.replace(&self.name, &PostParams::default(), &wanted).await,
        };
        match written {
            Ok(lease) => {
                *observed = Observed { lease: Some(lease), since: now };
                true
            }
            Err(error) => {
                tracing::debug!(lease = self.name, error = %error, "cannot write the lease");
                false
            }
        }
    }

    /// The Lease as it is to be written to hold it, or None while another holds it.
    fn claim(&self, observed: &Observed, now: Duration, wall: Timestamp) -> Option<Lease> {
        let current = spec(observed.lease.as_ref());
        let holder = current.and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
        let ours = holder == self.identity;
        let term = current
            .and_then(|spec| spec.lease_duration_seconds)
            .map_or(self.timing.lease, |seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or(0)));
        if !holder.is_empty() && !ours && now < observed.since + term {
            return None;
        }
        let transitions = current.and_then(|spec| spec.lease_transitions).unwrap_or(0);
        let gained = current.is_some() && !ours;
        let acquired = current.filter(|_| ours).and_then(|spec| spec.acquire_time.clone());
        let metadata = observed.lease.as_ref().map_or_else(
            || ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
            |lease| lease.metadata.clone(),
        );
        let spec = LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(i32::try_from(self.timing.lease.as_secs()).unwrap_or(i32::MAX).max(1)),
            acquire_time: Some(acquired.unwrap_or(MicroTime(wall))),
            renew_time: Some(MicroTime(wall)),
            lease_transitions: Some(transitions + i32::from(gained)),
            ..LeaseSpec::default()
        };
        Some(Lease { metadata, spec: Some(spec) })
    }

    /// Gives the lease back, so that the next leader need not wait for it to run out (`ReleaseOnCancel`).
    async fn release(&self, observed: &Observed) {
        let Some(mut lease) = observed.lease.clone() else { return };
        let Some(spec) = lease.spec.as_mut() else { return };
        if spec.holder_identity.as_deref() != Some(self.identity.as_str()) {
            return;
        }
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        spec.renew_time = Some(MicroTime(self.clock.now()));
        let parameters = PostParams::default();
        let written = self.api.replace(&self.name, &parameters, &lease);
        if !matches!(tokio::time::timeout(Duration::from_secs(2), written).await, Ok(Ok(_))) {
            tracing::debug!(lease = self.name, "could not give the lease back");
        }
    }
}

fn spec(lease: Option<&Lease>) -> Option<&LeaseSpec> {
    lease.and_then(|lease| lease.spec.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::clock::ManualClock;

    fn candidate() -> (LeaderLease, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH));
        let refused = tower::service_fn(|_: http::Request<kube::client::Body>| async {
            Err::<http::Response<kube::client::Body>, _>(std::io::Error::other("not in this test"))
        });
        (LeaderLease::new(crate::in_process(refused), "kube-system", "scheduler", "a", clock.clone()), clock)
    }

    fn held_by(holder: &str, seconds: i32) -> Observed {
        let spec = LeaseSpec {
            holder_identity: Some(holder.into()),
            lease_duration_seconds: Some(seconds),
            lease_transitions: Some(3),
            ..LeaseSpec::default()
        };
        Observed { lease: Some(Lease { spec: Some(spec), ..Lease::default() }), since: Duration::ZERO }
    }

    #[tokio::test]
    async fn a_lease_is_claimed_when_free_ours_or_run_out() {
        let (lease, _) = candidate();
        let wall = Timestamp::UNIX_EPOCH;
        let transitions = |observed: &Observed, at: u64| {
            lease
                .claim(observed, Duration::from_secs(at), wall)
                .map(|lease| lease.spec.unwrap().lease_transitions.unwrap())
        };
        let free = Observed { lease: None, since: Duration::ZERO };
        assert_eq!(transitions(&free, 0), Some(0), "nobody made it yet");
        assert_eq!(transitions(&held_by("", 1), 0), Some(4), "given back");
        assert_eq!(transitions(&held_by("a", 15), 0), Some(3), "ours");
        assert_eq!(transitions(&held_by("b", 15), 14), None, "held by another");
        assert_eq!(transitions(&held_by("b", 15), 15), Some(4), "run out");
    }
}
