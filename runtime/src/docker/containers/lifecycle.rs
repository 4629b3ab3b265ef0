//! Start, end, stop, kill, restart, pause, wait: what changes whether a container runs.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use axum::body::Body;
use coracle_launcher::cli::signal_number;
use coracle_shim::protocol::{JsonFile, LogDriver};
use http::StatusCode;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        Docker,
        http::{Answer, Call, Problem, empty, no_content},
        metrics::Action,
    },
    Container, Moments, Record,
    log_options::{self, Attributes},
    mounts::MountPlan,
    spec::{self, Borrowed},
};
use crate::{
    engine::{model::Status, standalone::Launch},
    error::Error,
};

/// Grace between SIGTERM and SIGKILL unless told otherwise.
const STOP_TIMEOUT: i64 = 10;
/// The first wait before a restart by policy, doubled each time up to the last (moby `restartmanager`).
const FIRST_BACKOFF: u64 = 100;
const LAST_BACKOFF: u64 = 60_000;
/// A run of this long was a good one: the next wait begins anew.
const GOOD_RUN: i64 = 10_000_000_000;

pub async fn start(call: Call) -> Answer {
    if !call.query.text("checkpoint").is_empty() {
        return Err(Problem::bad("checkpoint is not supported by this engine"));
    }
    let container = call.docker.own_container(call.name())?;
    let docker = call.docker.clone();
    // A client that goes away does not stop what it began.
    let started = tokio::spawn(async move { docker.start(&container).await }).await.map_err(Error::from)??;
    empty(if started { StatusCode::NO_CONTENT } else { StatusCode::NOT_MODIFIED })
}

pub async fn stop(call: Call) -> Answer {
    let timeout = call.query.number("t")?;
    let signal = signal_of(call.query.text("signal"))?;
    let container = call.docker.container(call.name())?;
    let docker = call.docker.clone();
    let stopped = tokio::spawn(async move { docker.stop(&container, signal, timeout).await });
    empty(if stopped.await.map_err(Error::from)?? { StatusCode::NO_CONTENT } else { StatusCode::NOT_MODIFIED })
}

pub async fn restart(call: Call) -> Answer {
    let timeout = call.query.number("t")?;
    let signal = signal_of(call.query.text("signal"))?;
    let container = call.docker.own_container(call.name())?;
    let docker = call.docker.clone();
    let work = async move {
        docker.stop(&container, signal, timeout).await?;
        docker.start(&container).await?;
        docker.tell(&container, "restart");
        Ok::<_, Problem>(())
    };
    tokio::spawn(work).await.map_err(Error::from)??;
    no_content()
}

pub async fn kill(call: Call) -> Answer {
    let word = call.query.text("signal");
    let signal = signal_of(word)?.unwrap_or(libc::SIGKILL);
    let container = call.docker.container(call.name()).map_err(|problem| {
        Problem::new(problem.status, format!("cannot kill container: {}: {}", call.name(), problem.message))
    })?;
    if !container.runs() {
        return Err(Problem::conflict(format!(
            "cannot kill container: {}: container {} is not running",
            call.name(),
            container.id
        )));
    }
    let stops = signal == libc::SIGKILL || signal == stop_signal(&container);
    if stops && !container.pod {
        container.live.lock().stop_requested = true;
        call.docker.change(&container, |record| record.manually_stopped = true)?;
    }
    call.docker.engine.signal(&container.engine, signal).await?;
    if signal == libc::SIGKILL {
        if container.live.lock().paused {
            thaw(&call.docker, &container).await?;
        }
        // As dockerd, which answers when the container has ended.
        wait_ended(&call.docker, &container).await;
    }
    call.docker.tell_with(&container, "kill", &[("signal", signal.to_string())]);
    no_content()
}

pub async fn pause(call: Call) -> Answer {
    let container = call.docker.container(call.name())?;
    let _changing = container.changing.lock().await;
    if !container.runs() {
        return Err(Problem::conflict(format!("Container {} is not running", container.id)));
    }
    if container.live.lock().paused {
        return Err(Problem::conflict(format!("Container {} is already paused", container.id)));
    }
    call.docker.engine.freeze(&container.engine, true).await?;
    container.live.lock().paused = true;
    call.docker.tell(&container, "pause");
    no_content()
}

pub async fn unpause(call: Call) -> Answer {
    let container = call.docker.container(call.name())?;
    let _changing = container.changing.lock().await;
    let paused = container.live.lock().paused || container.pod && call.docker.engine.is_frozen(&container.engine);
    if !paused {
        return Err(Problem::conflict(format!("Container {} is not paused", container.id)));
    }
    thaw(&call.docker, &container).await?;
    call.docker.tell(&container, "unpause");
    no_content()
}

async fn thaw(docker: &Docker, container: &Container) -> Result<(), Problem> {
    docker.engine.freeze(&container.engine, false).await?;
    container.live.lock().paused = false;
    Ok(())
}

pub async fn wait(call: Call) -> Answer {
    let condition = match call.query.text("condition") {
        "" | "not-running" => Condition::NotRunning,
        "next-exit" => Condition::NextExit,
        "removed" => Condition::Removed,
        other => return Err(Problem::bad(format!("invalid condition: \"{other}\""))),
    };
    let container = call.docker.container(call.name())?;
    let mut moments = container.moments.subscribe();
    let before = *moments.borrow_and_update();
    let runs = container.runs() || container.live.lock().restarting;
    let answered = condition == Condition::NotRunning && !runs;
    let docker = call.docker.clone();
    // The head goes out at once: a client starts the container only after it has it.
    let body = async move {
        let code = if answered {
            container.engine.state().exit_code
        } else if container.pod {
            wait_ended(&docker, &container).await;
            container.engine.state().exit_code
        } else {
            let met = moments.wait_for(|now| match condition {
                Condition::Removed => now.removed,
                _ => now.ends > before.ends || now.removed,
            });
            met.await.map_or(0, |moments| moments.code)
        };
        let mut text = json!({ "StatusCode": code }).to_string();
        text.push('\n');
        Ok::<_, std::convert::Infallible>(text)
    };
    let mut response = http::Response::new(Body::from_stream(futures::stream::once(body)));
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    Ok(response)
}

/// Why a container is started.
#[derive(Clone, Copy, PartialEq)]
enum Cause {
    Request,
    Policy,
}

#[derive(Clone, Copy, PartialEq)]
enum Condition {
    NotRunning,
    NextExit,
    Removed,
}

/// A signal's number from its name or number; none where none is given.
pub fn signal_of(word: &str) -> Result<Option<i32>, Problem> {
    match word {
        "" => Ok(None),
        word => match signal_number(&word.to_uppercase()) {
            Ok(signal) if signal > 0 => Ok(Some(signal)),
            _ => Err(Problem::bad(format!("invalid signal: {word}"))),
        },
    }
}

pub fn stop_signal(container: &Container) -> i32 {
    let word = match container.engine.image.stop_signal.as_str() {
        "" => container.with(|record| record.config.stop_signal.clone()),
        word => word.to_owned(),
    };
    signal_number(&word.to_uppercase()).unwrap_or(libc::SIGTERM)
}

/// Waits until a container has ended and its end was dealt with.
pub async fn wait_ended(docker: &Docker, container: &Container) {
    let mut state = container.engine.watch();
    // The sender lives in the container that is borrowed here.
    let _ = state.wait_for(|state| state.status != Status::Running).await;
    if !container.pod && docker.store.get(&container.id).is_some() {
        let runs = container.live.lock().runs;
        let _ = container.moments.subscribe().wait_for(|moments| moments.settled >= runs).await;
    }
}

impl Docker {
    /// Runs a container; false if it runs already. Its policy counts anew.
    pub async fn start(self: &Arc<Docker>, container: &Arc<Container>) -> Result<bool, Problem> {
        self.start_for(container, Cause::Request).await
    }

    async fn start_for(self: &Arc<Docker>, container: &Arc<Container>, cause: Cause) -> Result<bool, Problem> {
        if let Some(waiting) = container.live.lock().waiting.take() {
            waiting.cancel();
        }
        let _changing = container.changing.lock().await;
        if self.store.get(&container.id).is_none() || container.live.lock().removing {
            return Err(Problem::conflict("container is marked for removal and cannot be started"));
        }
        if container.live.lock().paused {
            return Err(Problem::conflict("cannot start a paused container, try unpause instead"));
        }
        if container.runs() {
            return Ok(false);
        }
        let began = Instant::now();
        let pending = std::mem::take(&mut container.live.lock().pending);
        let outcome = self.launch(container, pending, cause).await;
        if let Err(problem) = outcome {
            self.give_back(container).await;
            if let Err(error) = self.change(container, |record| record.error = problem.message.clone()) {
                tracing::warn!(container = container.id, %error, "a failed start could not be recorded");
            }
            if let Err(error) = self.engine.rest_standalone(&container.engine).await {
                tracing::warn!(container = container.id, %error, "cannot clean up after a failed start");
            }
            let code = if problem.status == StatusCode::BAD_REQUEST { start_code(&problem.message) } else { 128 };
            container.moments.send_modify(|moments| {
                moments.ends += 1;
                moments.code = code;
            });
            if container.with(|record| record.host.auto_remove) {
                let (docker, container) = (self.clone(), container.clone());
                tokio::spawn(async move { docker.remove_after_end(&container).await });
            }
            return Err(problem);
        }
        self.supervise(container.clone());
        self.tell(container, "start");
        self.metrics.did(Action::Start, began);
        Ok(true)
    }

    async fn launch(
        self: &Arc<Docker>,
        container: &Arc<Container>,
        attach: Vec<crate::engine::standalone::PendingAttach>,
        cause: Cause,
    ) -> Result<(), Problem> {
        let record = container.record();
        let (attached, shim) =
            tokio::join!(self.attach_networks(container, &record), self.engine.prepare_shim(&container.engine));
        let attached = attached?;
        let launcher = shim.map_err(start_problem)?;
        let netns = attached.netns.as_ref().map(|path| path.to_string_lossy().into_owned());
        let mut borrowed = self.borrow(&record)?;
        let (docker, this, shared) = (self.clone(), container.clone(), record.clone());
        let addresses = attached.addresses.clone();
        let (peers, embedded) = (attached.peers.clone(), attached.embedded_dns);
        let prepared = self.engine.blocking(move || -> Result<serde_json::Value, Problem> {
            let record = shared;
            if !record.host.network_mode.starts_with("container:") {
                docker.write_files(&this, &record, &addresses, &peers, embedded)?;
            }
            docker.acquire_volumes(&this, &record)?;
            this.live.lock().holds_volumes = true;
            let mounts = docker.mount_plans(&this, &record)?;
            let is_shm = |mount: &MountPlan| Path::new(&mount.destination) == Path::new("/dev/shm");
            if record.host.ipc_mode == "shareable" && !mounts.iter().any(is_shm) {
                let options = spec::shm_options(&record.host, &this.engine.labels);
                borrowed.shm = Some(docker.engine.make_shm(&this.engine, &options)?);
            }
            let groups = record.host.group_add.clone().unwrap_or_default();
            let user = docker.resolve_user(&this, &record.config.user, &groups)?;
            spec::build(&spec::Inputs {
                record: &record,
                user: &user,
                root: &docker.engine.root_of(&this.engine)?,
                labels: &this.engine.labels,
                cgroups_path: &this.engine.cgroups_path,
                netns: netns.as_deref(),
                borrowed: &borrowed,
                mounts: &mounts,
                files: &docker.engine.files_of(&this.id),
                cgroup_v2: docker.engine.cgroup_is_v2(),
                launcher,
            })
        });
        let config = prepared.await??;
        let launch = Launch { config, log: self.log_driver(container, &record)?, attach };
        self.engine.start_standalone(&container.engine, launch).await.map_err(start_problem)?;
        {
            let mut live = container.live.lock();
            live.stop_requested = false;
            live.restarting = false;
            live.paused = false;
            if cause == Cause::Request {
                live.backoff = 0;
            }
        }
        self.change(container, |record| {
            if cause == Cause::Request {
                record.restart_count = 0;
            }
            record.manually_stopped = false;
            record.error.clear();
        })?;
        Ok(())
    }

    /// Where the shim writes the container's output.
    fn log_driver(&self, container: &Container, record: &Record) -> Result<LogDriver, Problem> {
        let options = log_options::read(&record.host.log_config)?;
        if record.host.log_config.kind == "none" {
            return Ok(LogDriver::None);
        }
        let attributes = Attributes { id: &container.id, record }.json(&options)?;
        Ok(LogDriver::JsonFile(JsonFile {
            path: self.log_path(container).to_string_lossy().into_owned(),
            max_size: options.max_size,
            max_files: options.max_files,
            compress: options.compress,
            buffer: options.buffer,
            attributes,
        }))
    }

    pub fn log_path(&self, container: &Container) -> PathBuf {
        if container.pod {
            return container.engine.log_path.clone().into();
        }
        self.engine.files_of(&container.id).join(format!("{}-json.log", container.id))
    }

    fn borrow(&self, record: &Record) -> Result<Borrowed, Problem> {
        let pid_of = |mode: &str, what: &str| -> Result<Option<u32>, Problem> {
            let Some(target) = mode.strip_prefix("container:") else { return Ok(None) };
            let other = self.container(target)?;
            if !other.runs() {
                return Err(Problem::conflict(format!(
                    "cannot join {what} namespace of a non running container: container {} is not running",
                    other.id
                )));
            }
            if what == "IPC" && other.with(|record| record.host.ipc_mode == "private" && !other.pod) {
                return Err(Problem::conflict(format!(
                    "cannot join IPC of container {}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)",
                    other.id
                )));
            }
            Ok(Some(other.engine.state().pid))
        };
        let ipc = pid_of(&record.host.ipc_mode, "IPC")?;
        Ok(Borrowed {
            pid: pid_of(&record.host.pid_mode, "PID")?,
            shm: match record.host.ipc_mode.strip_prefix("container:") {
                Some(target) => Some(self.shm_of(&*self.container(target)?)?),
                None => None,
            },
            ipc,
        })
    }

    /// The `/dev/shm` that goes with the IPC namespace of a container that runs.
    fn shm_of(&self, container: &Container) -> Result<PathBuf, Problem> {
        let shm = self.engine.shm_of(&container.engine);
        if shm.exists() {
            return Ok(shm);
        }
        let mode = container.with(|record| record.host.ipc_mode.clone());
        match mode.strip_prefix("container:") {
            // Whose namespace was joined was there before: this ends.
            Some(target) => self.shm_of(&*self.container(target)?),
            None if mode == "host" => Ok("/dev/shm".into()),
            // It mounted something there itself, or runs since another version of the daemon.
            None => Ok(format!("/proc/{}/root/dev/shm", container.engine.state().pid).into()),
        }
    }

    fn acquire_volumes(&self, container: &Container, record: &Record) -> Result<(), Problem> {
        for (index, point) in record.mounts.iter().enumerate() {
            if point.kind != "volume" {
                continue;
            }
            if let Err(error) = self.volumes.acquire(&point.name) {
                for earlier in record.mounts[..index].iter().filter(|point| point.kind == "volume") {
                    self.volumes.release(&earlier.name);
                }
                return Err(Problem::internal(format!("error while mounting volume '{}': {error}", point.source)));
            }
        }
        for point in record.mounts.iter().filter(|point| point.kind == "volume") {
            let attributes = [
                ("container", container.id.clone()),
                ("destination", point.destination.clone()),
                ("driver", point.driver.clone()),
                ("propagation", point.propagation.clone()),
                ("read/write", point.rw.to_string()),
            ];
            let attributes = attributes.map(|(key, value)| (key.to_owned(), value));
            self.events.tell("volume", "mount", &point.name, attributes.into());
        }
        Ok(())
    }

    /// Gives back what only a running container has: network, volumes.
    pub async fn give_back(self: &Arc<Docker>, container: &Arc<Container>) {
        let attached = container.live.lock().network.take();
        if let Some(attached) = attached {
            self.detach_networks(container, attached).await;
        }
        if std::mem::take(&mut container.live.lock().holds_volumes) {
            for point in container.with(|record| record.mounts.clone()).iter().filter(|point| point.kind == "volume") {
                self.volumes.release(&point.name);
                let attributes = [("container", container.id.clone()), ("driver", point.driver.clone())];
                let attributes = attributes.map(|(key, value)| (key.to_owned(), value));
                self.events.tell("volume", "unmount", &point.name, attributes.into());
            }
        }
    }

    /// Follows a run to its end.
    pub fn supervise(self: &Arc<Docker>, container: Arc<Container>) {
        let mut state = container.engine.watch();
        container.live.lock().runs += 1;
        self.watch_health(&container);
        let docker = self.clone();
        tokio::spawn(async move {
            // The sender lives in the container that the task holds.
            let _ = state.wait_for(|state| state.status != Status::Running).await;
            docker.ended(&container).await;
            container.moments.send_modify(|moments| moments.settled += 1);
        });
    }

    /// A container's process ended: tells everybody, gives back, and starts it again where its policy says so.
    async fn ended(self: &Arc<Docker>, container: &Arc<Container>) {
        let _changing = container.changing.lock().await;
        let state = container.engine.state();
        if let Some(health) = container.live.lock().health_stop.take() {
            health.cancel();
        }
        if state.reason == "OOMKilled" {
            self.tell(container, "oom");
        }
        let duration = (state.finished_at - state.started_at).max(0);
        let more =
            [("exitCode", state.exit_code.to_string()), ("execDuration", (duration / 1_000_000_000).to_string())];
        self.tell_with(container, "die", &more);
        container.live.lock().paused = false;
        let again = self.wants_restart(container, state.exit_code);
        let auto_remove = container.with(|record| record.host.auto_remove);
        if again {
            let stop = CancellationToken::new();
            let delay = {
                let mut live = container.live.lock();
                // Before it is counted: one that ended is never seen with a restart that is still to come.
                live.restarting = true;
                live.backoff = match live.backoff {
                    _ if duration > GOOD_RUN => FIRST_BACKOFF,
                    0 => FIRST_BACKOFF,
                    before => (before * 2).min(LAST_BACKOFF),
                };
                live.waiting = Some(stop.clone());
                Duration::from_millis(live.backoff)
            };
            if self.count_restart(container) {
                // An end like any other to those who wait for one (moby `container/state.go`, `SetRestarting`).
                container.moments.send_modify(|moments| {
                    moments.ends += 1;
                    moments.code = state.exit_code;
                });
                self.give_back(container).await;
                let (docker, container) = (self.clone(), container.clone());
                tokio::spawn(async move { docker.restart_later(&container, delay, stop).await });
                return;
            }
            container.live.lock().waiting = None;
        }
        if auto_remove {
            // Whoever waits for the removal hears of both at once.
            container.moments.send_modify(|moments| moments.code = state.exit_code);
        }
        self.finish(container, state.exit_code);
        self.give_back(container).await;
        if auto_remove {
            let (docker, container) = (self.clone(), container.clone());
            tokio::spawn(async move { docker.remove_after_end(&container).await });
        } else if let Err(error) = self.engine.rest_standalone(&container.engine).await {
            tracing::warn!(container = container.id, %error, "a container that ended could not be cleaned up after");
        }
    }

    /// Notes a restart that will be; without that a container would be started for ever.
    fn count_restart(&self, container: &Container) -> bool {
        let counted = self.change(container, |record| record.restart_count += 1);
        if let Err(error) = &counted {
            tracing::warn!(container = container.id, %error, "a restart by policy cannot be recorded, so there is none");
        }
        counted.is_ok()
    }

    fn finish(&self, container: &Container, code: i32) {
        container.live.lock().restarting = false;
        container.moments.send_modify(|moments| *moments = Moments { ends: moments.ends + 1, code, ..*moments });
    }

    fn wants_restart(&self, container: &Container, code: i32) -> bool {
        if self.stopping.is_cancelled() || container.live.lock().stop_requested {
            return false;
        }
        container.with(|record| match record.host.restart_policy.name.as_str() {
            "always" | "unless-stopped" => true,
            "on-failure" => {
                let most = record.host.restart_policy.maximum_retry_count;
                code != 0 && (most == 0 || i64::from(record.restart_count) < most)
            }
            _ => false,
        })
    }

    async fn restart_later(self: &Arc<Docker>, container: &Arc<Container>, delay: Duration, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {
                if !container.runs() {
                    self.finish(container, container.engine.state().exit_code);
                }
                return;
            }
            () = tokio::time::sleep(delay) => {}
        }
        container.live.lock().waiting = None;
        if let Err(error) = self.start_for(container, Cause::Policy).await {
            tracing::warn!(container = container.id, error = error.message, "a restart by policy failed");
            container.live.lock().restarting = false;
        }
    }

    /// Asks a container to end, and kills it when it has not in time; false if it does not run. -1 waits for ever.
    pub async fn stop(
        self: &Arc<Docker>,
        container: &Arc<Container>,
        signal: Option<i32>,
        timeout: Option<i64>,
    ) -> Result<bool, Problem> {
        let waiting = container.live.lock().waiting.take();
        if !container.pod {
            container.live.lock().stop_requested = true;
            self.change(container, |record| record.manually_stopped = true)?;
        }
        if let Some(waiting) = waiting {
            waiting.cancel();
            container.live.lock().restarting = false;
            return Ok(true);
        }
        if !container.runs() {
            return Ok(false);
        }
        let configured = container.with(|record| record.config.stop_timeout);
        let timeout = timeout.or(configured).unwrap_or(STOP_TIMEOUT);
        let signal = signal.unwrap_or_else(|| stop_signal(container));
        if container.live.lock().paused {
            thaw(self, container).await?;
        }
        self.engine.signal(&container.engine, signal).await?;
        self.tell_with(container, "kill", &[("signal", signal.to_string())]);
        let ended = wait_ended(self, container);
        let in_time = if timeout < 0 {
            ended.await;
            true
        } else {
            tokio::time::timeout(Duration::from_secs(timeout as u64), ended).await.is_ok()
        };
        if !in_time {
            self.engine.kill_container(&container.engine).await?;
            self.tell_with(container, "kill", &[("signal", libc::SIGKILL.to_string())]);
            wait_ended(self, container).await;
        }
        self.tell(container, "stop");
        Ok(true)
    }

    /// A container of an earlier daemon: follows it if it runs, starts it if its policy wants it to run.
    pub async fn take_up(self: &Arc<Docker>, container: &Arc<Container>) {
        if container.with(|record| record.step) {
            if let Err(problem) = self.remove(container, true, true).await {
                tracing::warn!(container = container.id, error = problem.message, "a build's container stays");
            }
            return;
        }
        if container.runs() {
            container.live.lock().paused = self.engine.is_frozen(&container.engine);
            let record = container.record();
            for point in record.mounts.iter().filter(|point| point.kind == "volume") {
                if let Err(error) = self.volumes.acquire(&point.name) {
                    tracing::warn!(volume = point.name, %error, "a volume in use cannot be found");
                }
            }
            container.live.lock().holds_volumes = true;
            self.take_up_networks(container, &record).await;
            self.supervise(container.clone());
            return;
        }
        if let Err(error) = self.engine.rest_standalone(&container.engine).await {
            tracing::warn!(container = container.id, %error, "a container that ended could not be cleaned up after");
        }
        let ran = container.engine.state().started_at != 0;
        let record = container.record();
        if record.host.auto_remove && ran {
            self.remove_after_end(container).await;
            return;
        }
        let wanted = match record.host.restart_policy.name.as_str() {
            "always" => ran,
            "unless-stopped" => ran && !record.manually_stopped,
            "on-failure" => ran && !record.manually_stopped && container.engine.state().exit_code != 0,
            _ => false,
        };
        if wanted && let Err(problem) = self.start(container).await {
            tracing::warn!(container = container.id, error = problem.message, "a container could not be started again");
        }
    }
}

/// dockerd's exit codes of a container that did not start.
fn start_code(message: &str) -> i32 {
    let has = |words: &[&str]| words.iter().any(|word| message.contains(word));
    if has(&["executable file not found", "no such file or directory"]) {
        127
    } else if has(&["permission denied", "is a directory"]) {
        126
    } else {
        128
    }
}

/// Why a process did not start, without the words that stand before it anyway.
pub fn launcher_words(error: &Error) -> String {
    let text = error.to_string();
    text.strip_prefix("unable to start container process: ").unwrap_or(&text).to_owned()
}

/// The launcher's words in the wrapping that clients know; what is the user's mistake is a 400.
fn start_problem(error: Error) -> Problem {
    let text = launcher_words(&error);
    let message = format!(
        "failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: {text}: unknown"
    );
    let status = if start_code(&text) == 128 { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::BAD_REQUEST };
    Problem::new(status, message)
}
