//! Health checks: a command run in the container now and then, and what is made of its answers (moby `daemon/health.go`).

use std::{collections::VecDeque, sync::Arc, time::Duration};

use coracle_shim::protocol::{Reply, Request};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    super::{Docker, http::Problem, metrics::count, types::Healthcheck},
    Container,
    exec::ExecConfig,
    inspect::time,
};
use crate::engine::model::now;

const INTERVAL: i64 = 30_000_000_000;
const TIMEOUT: i64 = 30_000_000_000;
const START_INTERVAL: i64 = 5_000_000_000;
const RETRIES: i64 = 3;
const LOG_ENTRIES: usize = 5;
const MAX_OUTPUT: usize = 4096;

/// What the checks said so far.
#[derive(Debug, Default)]
pub struct Health {
    status: Option<&'static str>,
    failing: i64,
    log: VecDeque<Probe>,
}

#[derive(Debug)]
struct Probe {
    start: i64,
    end: i64,
    code: i32,
    output: String,
}

impl Health {
    pub fn status(&self) -> &'static str {
        self.status.unwrap_or("starting")
    }

    pub fn json(&self) -> Value {
        let log: Vec<Value> = self
            .log
            .iter()
            .map(|probe| {
                json!({ "Start": time(probe.start), "End": time(probe.end), "ExitCode": probe.code, "Output": probe.output })
            })
            .collect();
        json!({ "Status": self.status(), "FailingStreak": self.failing, "Log": log })
    }

    /// Takes a result; the new status if it changed.
    fn take(&mut self, probe: Probe, retries: i64, in_start_period: bool) -> Option<&'static str> {
        let before = self.status();
        let failed = probe.code != 0;
        if self.log.len() == LOG_ENTRIES {
            self.log.pop_front();
        }
        self.log.push_back(probe);
        if !failed {
            self.failing = 0;
            self.status = Some("healthy");
        } else if !(in_start_period && before == "starting") {
            self.failing += 1;
            if self.failing >= retries {
                self.status = Some("unhealthy");
            }
        }
        Some(self.status()).filter(|status| *status != before)
    }
}

/// Judges what was asked for.
pub fn check_config(check: &Healthcheck) -> Result<(), Problem> {
    for (name, value) in [
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
        ("StartInterval", check.start_interval),
    ] {
        if value < 0 || value > 0 && value < 1_000_000 {
            return Err(Problem::bad(format!("{name} in Healthcheck cannot be less than 1ms")));
        }
    }
    if check.retries < 0 {
        return Err(Problem::bad("Retries in Healthcheck cannot be negative"));
    }
    match check.test.first().map(String::as_str) {
        None | Some("NONE" | "CMD" | "CMD-SHELL" | "") => Ok(()),
        Some(other) => Err(Problem::bad(format!("Unknown healthcheck type '{other}' (expected 'CMD')"))),
    }
}

/// The command of a check; none where there is nothing to check.
fn command(container: &Container) -> Option<(Healthcheck, Vec<String>)> {
    let (check, shell) = container.with(|record| (record.config.healthcheck.clone(), record.config.shell.clone()));
    let check = check?;
    let words = match check.test.first().map(String::as_str)? {
        "CMD" => check.test[1..].to_vec(),
        "CMD-SHELL" => {
            let mut words = shell.unwrap_or_else(|| vec!["/bin/sh".into(), "-c".into()]);
            words.extend(check.test.get(1).cloned());
            words
        }
        _ => return None,
    };
    (!words.is_empty()).then_some((check, words))
}

impl Docker {
    /// Checks a container from now on, until it ends.
    pub fn watch_health(self: &Arc<Docker>, container: &Arc<Container>) {
        let Some((check, words)) = command(container) else { return };
        let stop = CancellationToken::new();
        {
            let mut live = container.live.lock();
            live.health = Some(Health::default());
            if let Some(before) = live.health_stop.replace(stop.clone()) {
                before.cancel();
            }
        }
        let (docker, container) = (self.clone(), container.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = docker.check_health(&container, &check, &words) => {}
            }
        });
    }

    async fn check_health(self: &Arc<Docker>, container: &Arc<Container>, check: &Healthcheck, words: &[String]) {
        let or = |value: i64, otherwise: i64| if value > 0 { value } else { otherwise };
        let (interval, limit) = (or(check.interval, INTERVAL), or(check.timeout, TIMEOUT));
        let began = now();
        loop {
            let starting = now() - began < check.start_period
                && container.live.lock().health.as_ref().is_some_and(|health| health.status() == "starting");
            let wait = if starting { or(check.start_interval, START_INTERVAL.min(interval)) } else { interval };
            tokio::time::sleep(Duration::from_nanos(wait as u64)).await;
            if container.live.lock().paused {
                continue;
            }
            let start = now();
            let (code, output) = self.probe(container, words, Duration::from_nanos(limit as u64)).await;
            count(&self.metrics.health_checks);
            if code != 0 {
                count(&self.metrics.health_checks_failed);
            }
            let probe = Probe { start, end: now(), code, output };
            let in_start_period = now() - began < check.start_period;
            let changed = {
                let mut live = container.live.lock();
                live.health.as_mut().and_then(|health| health.take(probe, or(check.retries, RETRIES), in_start_period))
            };
            if let Some(status) = changed {
                self.tell(container, format!("health_status: {status}"));
            }
        }
    }

    /// Runs the command once: its exit code and what it said.
    async fn probe(self: &Arc<Docker>, container: &Arc<Container>, words: &[String], limit: Duration) -> (i32, String) {
        let config =
            ExecConfig { cmd: words.to_vec(), attach_stdout: true, attach_stderr: true, ..ExecConfig::default() };
        let exec = self.add_exec(container.clone(), config);
        let mut session = match self.run_exec(&exec, None, false).await {
            Ok(session) => session,
            Err(problem) => {
                self.execs.lock().remove(&exec.id);
                return (-1, problem.message);
            }
        };
        let mut output = Vec::new();
        let listen = async {
            loop {
                match session.next().await {
                    Ok(Reply::Stdout { data } | Reply::Stderr { data }) => {
                        let room = MAX_OUTPUT - output.len();
                        output.extend_from_slice(&data[..data.len().min(room)]);
                    }
                    Ok(Reply::Exited { exit, .. }) => return exit.code as i32,
                    Ok(_) => {}
                    Err(_) => return -1,
                }
            }
        };
        let result = match tokio::time::timeout(limit, listen).await {
            Ok(code) => (code, String::from_utf8_lossy(&output).into_owned()),
            Err(_) => {
                let kill = Request::Signal { id: exec.shim_id(), signal: libc::SIGKILL as u32 };
                // It may have ended in this moment.
                let _ = self.engine.ask_shim(&container.engine, &kill).await;
                // Its end is waited for, so that nothing is left behind.
                let gone = async { while !matches!(session.next().await, Ok(Reply::Exited { .. }) | Err(_)) {} };
                let _ = tokio::time::timeout(Duration::from_secs(5), gone).await;
                let seconds = limit.as_secs_f64();
                (-1, format!("Health check exceeded timeout ({seconds}s)"))
            }
        };
        self.exec_ended(&exec, result.0).await;
        self.execs.lock().remove(&exec.id);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(code: i32) -> Probe {
        Probe { start: 0, end: 0, code, output: String::new() }
    }

    #[test]
    fn streaks_make_a_status() {
        let mut health = Health::default();
        assert_eq!(health.status(), "starting");
        assert_eq!(health.take(probe(1), 2, true), None, "the start period forgives");
        assert_eq!(health.take(probe(1), 2, false), None);
        assert_eq!(health.take(probe(1), 2, false), Some("unhealthy"));
        assert_eq!(health.take(probe(0), 2, false), Some("healthy"));
        assert_eq!(health.take(probe(0), 2, false), None);
        for _ in 0..10 {
            health.take(probe(0), 2, false);
        }
        assert_eq!(health.json()["Log"].as_array().unwrap().len(), LOG_ENTRIES);
    }
}
