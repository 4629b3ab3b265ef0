//! /livez, /readyz, /healthz.

use crate::server::Server;
use crate::verbs::Response;
use axum::body::Body;
use http::{HeaderValue, StatusCode, header};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long the store may take to answer a probe.
const STORE_WITHIN: Duration = Duration::from_secs(2);

/// What a server does once before it is ready, under the names that upstream has for it.
pub const HOOKS: [&str; 10] = [
    "poststarthook/priority-and-fairness-config-consumer",
    "poststarthook/start-apiextensions-controllers",
    "poststarthook/crd-informer-synced",
    "poststarthook/start-system-namespaces-controller",
    "poststarthook/start-cluster-authentication-info-controller",
    "poststarthook/scheduling/bootstrap-system-priority-classes",
    "poststarthook/priority-and-fairness-config-producer",
    "poststarthook/bootstrap-controller",
    "poststarthook/kube-apiserver-autoregistration",
    "autoregister-completion",
];

/// Which of [`HOOKS`] have been done.
#[derive(Debug, Default)]
pub struct Hooks([AtomicBool; HOOKS.len()]);

impl Hooks {
    pub fn done(&self, name: &str) {
        let at = HOOKS.iter().position(|hook| *hook == name);
        debug_assert!(at.is_some(), "{name} is no hook");
        if let Some(done) = at.and_then(|at| self.0.get(at)) {
            done.store(true, Ordering::Release);
        }
    }

    fn checks(&self) -> impl Iterator<Item = Check> {
        HOOKS.iter().zip(&self.0).map(|(name, done)| {
            let result = if done.load(Ordering::Acquire) { Ok(()) } else { Err("not finished".to_owned()) };
            (*name, result)
        })
    }
}

/// Whether log lines can still be written (apiserver `healthz.LogHealthz`): a reader of standard error that reads no more
/// stops, sooner or later, everything that logs.
#[derive(Debug, Default)]
pub struct Log(Arc<Mutex<Option<Duration>>>);

/// How long a write may take (upstream's).
const LOGGED_WITHIN: Duration = Duration::from_secs(120);

impl Log {
    /// At `now`. `flush` returns when what has been logged is written. There is one such thread at most: a second check asks
    /// how the first one's does.
    fn check(&self, now: Duration, flush: impl FnOnce() + Send + 'static) -> Result<(), String> {
        let mut since = self.0.lock();
        match *since {
            Some(since) if now.saturating_sub(since) > LOGGED_WITHIN => Err("logging blocked".to_owned()),
            Some(_) => Ok(()),
            None => {
                *since = Some(now);
                let done = self.0.clone();
                tokio::task::spawn_blocking(move || {
                    flush();
                    *done.lock() = None;
                });
                Ok(())
            }
        }
    }
}

/// Takes the lock that every line takes.
fn flush_log() {
    // It is a flush of nothing where it succeeds, and what fails will be seen by whoever reads the log.
    let _ = std::io::stderr().lock().flush();
}

/// A check's name, and what is wrong if something is.
type Check = (&'static str, Result<(), String>);

/// Answers a health path; None when there is no such check.
pub async fn answer(server: &Server, path: &str, query: Option<&str>) -> Option<Response> {
    let mut parts = path.trim_matches('/').splitn(2, '/');
    let endpoint = parts.next()?;
    let only = parts.next().filter(|name| !name.is_empty());
    if !matches!(endpoint, "livez" | "readyz" | "healthz") {
        return None;
    }
    let checks = checks(server, endpoint).await;
    if let Some(only) = only {
        let (_, result) = checks.into_iter().find(|(name, _)| *name == only)?;
        return Some(match result {
            Ok(()) => text("ok".to_owned(), false),
            Err(why) => text(format!("internal server error: {why}\n"), true),
        });
    }
    let pairs = crate::options::pairs(query.unwrap_or_default());
    let mut excluded: BTreeSet<&str> =
        pairs.iter().filter(|(key, _)| key == "exclude").map(|(_, value)| value.as_str()).collect();
    let (mut report, mut failed) = (String::new(), false);
    for (name, result) in &checks {
        match result {
            _ if excluded.remove(name) => report.push_str(&format!("[+]{name} excluded: ok\n")),
            Ok(()) => report.push_str(&format!("[+]{name} ok\n")),
            Err(error) => {
                tracing::warn!(check = name, %error, "health");
                failed = true;
                // Anybody may ask.
                report.push_str(&format!("[-]{name} failed: reason withheld\n"));
            }
        }
    }
    if !excluded.is_empty() {
        let names: Vec<String> = excluded.iter().map(|name| format!("{name:?}")).collect();
        let names = names.join(", ");
        report.push_str(&format!("warn: some health checks cannot be excluded: no matches for {names}\n"));
    }
    let verbose = pairs.iter().any(|(key, _)| key == "verbose");
    Some(match failed {
        true => text(format!("{report}{endpoint} check failed\n"), true),
        false if verbose => text(format!("{report}{endpoint} check passed\n"), false),
        false => text("ok".to_owned(), false),
    })
}

/// Where each check can be asked for alone.
pub fn paths() -> impl Iterator<Item = String> {
    ["healthz", "livez", "readyz"].into_iter().flat_map(|endpoint| {
        let of_ready =
            ["etcd-readiness", "informer-sync", "shutdown"].into_iter().filter(move |_| endpoint == "readyz");
        let checks = ["ping", "log", "etcd"].into_iter().chain(HOOKS).chain(of_ready);
        std::iter::once(format!("/{endpoint}")).chain(checks.map(move |check| format!("/{endpoint}/{check}")))
    })
}

/// The checks of an endpoint, in upstream's order (apiserver `server/healthz`, `server/config.go`).
async fn checks(server: &Server, endpoint: &str) -> Vec<Check> {
    let store = store(server).await;
    // Whichever store it is: probes leave it out by this name (`exclude=etcd`).
    let log = server.log.check(server.config.clock.monotonic(), flush_log);
    let mut checks = vec![("ping", Ok(())), ("log", log), ("etcd", store.clone())];
    if endpoint == "readyz" {
        checks.push(("etcd-readiness", store));
        checks.push(("informer-sync", caught_up(server).await));
    }
    checks.extend(server.hooks.checks());
    if endpoint == "readyz" {
        let stopping = server.stop.is_cancelled();
        checks.push(("shutdown", if stopping { Err("the server is shutting down".to_owned()) } else { Ok(()) }));
    }
    checks
}

fn text(text: String, failed: bool) -> Response {
    let mut response = http::Response::new(Body::from(text));
    *response.status_mut() = if failed { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK };
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

async fn store(server: &Server) -> Result<(), String> {
    match tokio::time::timeout(STORE_WITHIN, server.store().revision()).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the store does not answer".to_owned()),
    }
}

async fn caught_up(server: &Server) -> Result<(), String> {
    let Ok(Ok(revision)) = tokio::time::timeout(STORE_WITHIN, server.store().revision()).await else {
        return Err("the store does not answer".to_owned());
    };
    if server.cacher.reached(revision, STORE_WITHIN).await {
        Ok(())
    } else {
        Err("the cache is behind the store".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[tokio::test]
    async fn a_log_that_nobody_reads_is_told_of() {
        let log = Log::default();
        let at = |seconds| Duration::from_secs(seconds);
        let (release, held) = mpsc::channel::<()>();
        assert_eq!(log.check(at(10), move || held.recv().unwrap_or_default()), Ok(()));
        let never = || unreachable!("one is on its way");
        assert_eq!(log.check(at(130), never), Ok(()));
        assert_eq!(log.check(at(131), never), Err("logging blocked".to_owned()));
        drop(release);
        while log.0.lock().is_some() {
            tokio::task::yield_now().await;
        }
        assert_eq!(log.check(at(132), || {}), Ok(()));
    }
}
