//! Where builds run: containers of commands, pulls of bases, cache mounts, and contexts that are elsewhere.

use std::{collections::HashMap, path::PathBuf, sync::Arc};

use coracle_shim::protocol::Reply;
use futures::StreamExt;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use serde_json::json;
use tokio::{
    sync::oneshot,
    task::{JoinHandle, spawn_blocking},
};
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        Docker,
        containers::{Container, filesystem},
        http::Problem,
        images::pull_step,
        pulls::pull_problem,
        types::{Config, CreateBody, Healthcheck, HostConfig, Map, Mount as ContainerMount},
    },
    request::{RegistryConfig, Request},
};
use crate::{
    builder::{
        CacheMount, Failure, Host, Output, Pending, RunStep, Said, StepMount,
        context::Context,
        files::{NewLayer, keep_changes},
        mounts::Mount,
    },
    digest::Digest,
    engine::standalone::PendingAttach,
    error::{Context as _, Error},
    images::{catalogue::ImageRecord, events::Event, manifest::Platform, pull::PullOptions, reference::Reference},
};

/// The most that is fetched from the web for one build step or context.
const MAX_FETCHED: u64 = 16 << 30;

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Failure {
        Failure::new(problem.message)
    }
}

/// One build's view of the daemon.
pub struct BuildHost {
    docker: Arc<Docker>,
    credentials: RegistryConfig,
    pull: bool,
    remove: bool,
    force_remove: bool,
    host: HostConfig,
    cancel: CancellationToken,
    /// Containers that go while the build goes on.
    going: Mutex<Vec<JoinHandle<()>>>,
}

impl BuildHost {
    pub fn new(docker: Arc<Docker>, request: &Request, cancel: CancellationToken) -> BuildHost {
        BuildHost {
            docker,
            credentials: request.credentials.clone(),
            pull: request.pull,
            remove: request.remove,
            force_remove: request.force_remove,
            host: request.host.clone(),
            cancel,
            going: Mutex::default(),
        }
    }

    /// Waits until every container that was to go is gone.
    pub async fn settle(&self) {
        loop {
            let going = std::mem::take(&mut *self.going.lock());
            if going.is_empty() {
                return;
            }
            for task in going {
                // One that ended early has said why.
                let _ = task.await;
            }
        }
    }

    /// Removes a container while the build goes on.
    fn let_go(&self, container: Arc<Container>) {
        let docker = self.docker.clone();
        self.going.lock().push(tokio::spawn(async move {
            if let Err(problem) = docker.remove(&container, true, true).await {
                tracing::warn!(container = container.id, error = problem.message, "a build's container stays");
            }
        }));
    }

    async fn find_or_pull(
        &self,
        name: &str,
        platform: Option<&Platform>,
        output: &Output,
    ) -> Result<Arc<ImageRecord>, Failure> {
        let images = self.docker.engine.images();
        let reference = name.parse::<Reference>();
        if !self.pull || reference.is_err() {
            match self.docker.find_image(name) {
                Ok(image) => {
                    let own = images.config(&image)?.platform();
                    if platform.is_none_or(|platform| own.fits(platform)) {
                        return Ok(image);
                    }
                }
                Err(problem) if reference.is_err() => return Err(problem.into()),
                Err(_) => {}
            }
        }
        let reference = reference?;
        let credentials = self.credentials.of(&reference.registry)?;
        let repository = reference.name();
        let repository = repository.strip_prefix("docker.io/").unwrap_or(&repository).to_owned();
        let label = reference.tag.clone().or_else(|| reference.digest.as_ref().map(Digest::to_string));
        output.say(Said::Value(json!({ "status": format!("Pulling from {repository}"), "id": label }))).await?;
        let progress = output.clone();
        let sink = Arc::new(move |event: Event| match event {
            Event::Resolved { digest } => progress.hint(json!({ "status": format!("Digest: {digest}") })),
            Event::Layer { digest, step } => {
                if let Some(value) = pull_step(&digest, &step) {
                    progress.hint(value);
                }
            }
        });
        let options = PullOptions { credentials, platform: platform.cloned(), events: Some(sink) };
        let pulled = images.pull_with(&reference.to_string(), options).await;
        let image = pulled.map_err(|error| Failure::new(pull_problem(&reference, &error).message))?;
        let familiar = reference.familiar();
        self.docker.events.tell("image", "pull", &familiar, Map::from([("name".to_owned(), familiar.clone())]));
        let status = format!("Status: Downloaded newer image for {familiar}");
        output.say(Said::Value(json!({ "status": status }))).await?;
        Ok(image)
    }

    async fn run_step(&self, step: RunStep, output: &Output) -> Result<Option<NewLayer>, Failure> {
        let body = self.body(&step);
        let (docker, image) = (self.docker.clone(), step.image.clone());
        // A build that is given up must not leave a container half made.
        let made = tokio::spawn(async move { docker.create_container_of("", image, body).await });
        let (container, _) = made.await??;
        self.docker.change(&container, |record| record.step = true)?;
        let outcome = self.run_container(&container, &step, output).await;
        let keep = match &outcome {
            Ok(_) => !self.remove,
            Err(failure) => !self.force_remove && !failure.cancelled,
        };
        let short = container.id[..12].to_owned();
        if keep {
            self.docker.change(&container, |record| record.step = false)?;
        } else {
            self.let_go(container);
        }
        if !keep && !outcome.as_ref().is_err_and(|failure| failure.cancelled) {
            output.text(format!("Removing intermediate container {short}\n")).await?;
        }
        outcome
    }

    fn body(&self, step: &RunStep) -> CreateBody {
        let mut host = self.host.clone();
        host.network_mode = step.network.clone();
        for mount in &step.mounts {
            match mount {
                StepMount::Bind { source, target, read_only } => host.mounts.push(ContainerMount {
                    kind: "bind".into(),
                    source: source.to_string_lossy().into_owned(),
                    target: target.clone(),
                    read_only: *read_only,
                    ..ContainerMount::default()
                }),
                StepMount::Tmpfs { target, size } => {
                    let size = size.map(|size| format!("size={size}")).unwrap_or_default();
                    host.tmpfs.insert(target.clone(), size);
                }
            }
        }
        let config = Config {
            image: step.image.id.hex()[..12].to_owned(),
            // The command as it is: the image's own entry point has no part in it.
            entrypoint: Some(vec![String::new()]),
            cmd: Some(step.arguments.clone()),
            env: Some(step.environment.clone()),
            attach_stdout: true,
            attach_stderr: true,
            // A step is not a service whose health anybody asks for.
            healthcheck: Some(Healthcheck { test: vec!["NONE".into()], ..Healthcheck::default() }),
            ..Config::default()
        };
        CreateBody { config, host_config: host, ..CreateBody::default() }
    }

    /// Runs a container that was made to its end, and keeps what it changed.
    async fn run_container(
        &self,
        container: &Arc<Container>,
        step: &RunStep,
        output: &Output,
    ) -> Result<Option<NewLayer>, Failure> {
        output.text(format!(" ---> Running in {}\n", &container.id[..12])).await?;
        let (ready, session) = oneshot::channel();
        container.live.lock().pending.push(PendingAttach { stdin: false, output: true, ready });
        let (docker, starting) = (self.docker.clone(), container.clone());
        tokio::spawn(async move { docker.start(&starting).await }).await??;
        let session = session.await.map_err(|_| Failure::new("the command's output cannot be read"))??;
        // The writer keeps the connection whole.
        let (_writer, mut reader) = session.split();
        let (mut said, mut complained) = (Text::default(), Text::default());
        let code = loop {
            let reply = tokio::select! {
                reply = reader.next() => reply,
                () = self.cancel.cancelled() => return Err(Failure::cancelled()),
            };
            match reply.context("read a command's output")? {
                Reply::Stdout { data } => output.text(said.take(&data)).await?,
                Reply::Stderr { data } => output.say(Said::Stderr(complained.take(&data))).await?,
                Reply::Exited { exit, .. } => break exit.code as i32,
                _ => {}
            }
        };
        if code != 0 {
            return Err(Failure {
                message: format!("The command '{}' returned a non-zero code: {code}", step.shown),
                code: Some(code),
                ..Failure::default()
            });
        }
        let (docker, ended) = (self.docker.clone(), container.clone());
        let parent = step.image.chains.last().cloned();
        let kept = spawn_blocking(move || {
            let root = docker.engine.root_of(&ended.engine)?;
            let hidden = filesystem::hidden(&ended.record());
            let (images, snapshots) = (docker.engine.images(), docker.engine.snapshots());
            keep_changes(images, snapshots, &ended.id, &root, &hidden, parent.as_ref())
        });
        Ok(kept.await??)
    }

    async fn fetch_file(&self, url: &str) -> Result<Context, Failure> {
        let docker = self.docker.clone();
        Ok(docker.fetch(url).await?.0)
    }
}

impl Host for BuildHost {
    fn image<'a>(
        &'a self,
        name: &'a str,
        platform: Option<&'a Platform>,
        output: &'a Output,
    ) -> Pending<'a, Result<Arc<ImageRecord>, Failure>> {
        Box::pin(self.find_or_pull(name, platform, output))
    }

    fn run<'a>(&'a self, step: RunStep, output: &'a Output) -> Pending<'a, Result<Option<NewLayer>, Failure>> {
        Box::pin(self.run_step(step, output))
    }

    fn fetch<'a>(&'a self, url: &'a str) -> Pending<'a, Result<Context, Failure>> {
        Box::pin(self.fetch_file(url))
    }

    fn cache_mount<'a>(&'a self, mount: &'a Mount) -> Pending<'a, Result<CacheMount, Failure>> {
        Box::pin(async move {
            tokio::select! {
                mount = self.docker.build_mounts.take(&self.docker, mount) => mount,
                () = self.cancel.cancelled() => Err(Failure::cancelled()),
            }
        })
    }
}

/// Bytes as text; a letter that came in part waits for its rest.
#[derive(Default)]
struct Text(Vec<u8>);

impl Text {
    fn take(&mut self, data: &[u8]) -> String {
        self.0.extend_from_slice(data);
        let whole = match std::str::from_utf8(&self.0) {
            Ok(_) => self.0.len(),
            // Without a length the rest may still come; three bytes are all that can be missing.
            Err(error) if error.error_len().is_none() && self.0.len() - error.valid_up_to() < 4 => error.valid_up_to(),
            Err(_) => self.0.len(),
        };
        let rest = self.0.split_off(whole);
        let text = String::from_utf8_lossy(&self.0).into_owned();
        self.0 = rest;
        text
    }
}

/// The directories of cache mounts, and which are in use.
#[derive(Default)]
pub struct Mounts {
    used: Arc<Mutex<HashMap<String, usize>>>,
    locks: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

/// A cache mount in use; it may not be removed.
struct Used {
    all: Arc<Mutex<HashMap<String, usize>>>,
    name: String,
    _lock: Option<tokio::sync::OwnedMutexGuard<()>>,
}

impl Drop for Used {
    fn drop(&mut self) {
        let mut all = self.all.lock();
        if let Some(count) = all.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.name);
            }
        }
    }
}

/// A private mount that so many builds use at once is not made.
const MAX_PRIVATE: usize = 64;

impl Mounts {
    pub fn is_used(&self, name: &str) -> bool {
        self.used.lock().contains_key(name)
    }

    async fn take(&self, docker: &Docker, mount: &Mount) -> Result<CacheMount, Failure> {
        let id = mount.id.as_deref().filter(|id| !id.is_empty()).unwrap_or(&mount.target);
        let base = Digest::of(id.as_bytes()).hex()[..32].to_owned();
        let lock = match mount.sharing.as_deref() {
            Some("locked") => {
                let lock = {
                    let mut locks = self.locks.lock();
                    locks.retain(|_, lock| Arc::strong_count(lock) > 1);
                    locks.entry(base.clone()).or_default().clone()
                };
                Some(lock.lock_owned().await)
            }
            _ => None,
        };
        let name = {
            let mut used = self.used.lock();
            let private = mount.sharing.as_deref() == Some("private");
            let names =
                (0..MAX_PRIVATE).map(|number| if number == 0 { base.clone() } else { format!("{base}.{number}") });
            let name = names.into_iter().find(|name| !private || !used.contains_key(name));
            let name = name.ok_or_else(|| Failure::new("a private cache mount is used by too many builds at once"))?;
            *used.entry(name.clone()).or_default() += 1;
            name
        };
        let guard = Used { all: self.used.clone(), name: name.clone(), _lock: lock };
        let path = docker.build_mounts_dir().join(&name);
        let (made, mode, owner) = (path.clone(), mount.mode.unwrap_or(0o755), (mount.uid, mount.gid));
        let fresh = spawn_blocking(move || -> Result<bool, Error> {
            use std::os::unix::fs::{PermissionsExt, chown};
            let what = || format!("make the cache mount {}", made.display());
            if made.exists() {
                return Ok(false);
            }
            std::fs::create_dir_all(&made).context(what())?;
            std::fs::set_permissions(&made, std::fs::Permissions::from_mode(mode)).context(what())?;
            chown(&made, Some(owner.0), Some(owner.1)).context(what())?;
            Ok(true)
        });
        Ok(CacheMount { path, fresh: fresh.await??, guard: Box::new(guard) })
    }
}

impl Docker {
    pub fn build_mounts_dir(&self) -> PathBuf {
        self.engine.data_dir().join("docker").join("build-mounts")
    }

    /// Where builds keep what does not outlive them.
    pub fn build_dir(&self) -> Result<PathBuf, Problem> {
        let mut dir = self.build_spool.lock();
        if let Some(dir) = dir.as_ref().filter(|dir| dir.exists()) {
            return Ok(dir.clone());
        }
        let made = self.engine.images().spool_dir()?;
        *dir = Some(made.clone());
        Ok(made)
    }

    /// Fetches from the web into a context with one file of the name `file`; also its content type.
    async fn fetch(self: &Arc<Docker>, url: &str) -> Result<(Context, String), Problem> {
        let response = self.engine.images().fetch(url).await?;
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or("").to_owned();
        let kind = header(http::header::CONTENT_TYPE);
        let modified = jiff::fmt::rfc2822::parse(&header(http::header::LAST_MODIFIED)).ok();
        let modified = modified.and_then(|time| u64::try_from(time.timestamp().as_second()).ok()).unwrap_or(0);
        let stream = response.into_body().into_data_stream().map(|part| part.map_err(std::io::Error::other));
        let reader = tokio_util::io::SyncIoBridge::new(tokio_util::io::StreamReader::new(stream));
        let dir = self.build_dir()?;
        let work = move || -> Result<Context, Error> {
            let mut context = Context::new(&dir)?;
            // As dockerd gives a file that was fetched.
            context.add_file("file", 0o600, modified, reader, MAX_FETCHED)?;
            Ok(context)
        };
        let context = spawn_blocking(work).await.map_err(Error::from)??;
        Ok((context, kind))
    }

    /// A context that the daemon fetches itself: an archive, a Dockerfile, or a git repository.
    pub async fn remote_context(self: &Arc<Docker>, remote: &str, dockerfile: &str) -> Result<Context, Problem> {
        let dir = self.build_dir()?;
        if is_git(remote) {
            let remote = remote.to_owned();
            let limits = self.engine.images().limits();
            let work = move || super::git::context(&remote, &dir, limits);
            return spawn_blocking(work).await.map_err(Error::from)?;
        }
        if !remote.starts_with("http://") && !remote.starts_with("https://") {
            return Err(Problem::bad(format!("unable to detect remote context: {remote:?} is no address")));
        }
        let (fetched, kind) = self.fetch(remote).await?;
        let name = dockerfile.to_owned();
        let work = move || -> Result<Context, Error> {
            let Some(entry) = fetched.at("file") else { return Err(Error::internal("what was fetched is not there")) };
            if kind.starts_with("text/") {
                let mut context = Context::new(&dir)?;
                let text = fetched.open(&entry.content);
                context.add_file(&name, 0o644, 0, text, crate::builder::dockerfile::lines::MAX_SIZE as u64)?;
                return Ok(context);
            }
            fetched.unpack(&entry.content)
        };
        Ok(spawn_blocking(work).await.map_err(Error::from)??)
    }
}

/// moby `urlutil.IsGitURL`
fn is_git(remote: &str) -> bool {
    let path = remote.split('#').next().unwrap_or(remote);
    let web = remote.starts_with("http://") || remote.starts_with("https://");
    web && path.ends_with(".git")
        || ["git://", "git@", "github.com/", "ssh://"].iter().any(|prefix| remote.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_not_torn() {
        let mut text = Text::default();
        assert_eq!(text.take("a\u{e9}".as_bytes().split_at(2).0), "a");
        assert_eq!(text.take(&"a\u{e9}".as_bytes()[2..]), "\u{e9}");
        assert_eq!(text.take(b"\xff\xffx"), "\u{fffd}\u{fffd}x");
    }

    #[test]
    fn git_addresses_are_known() {
        for (remote, git) in [
            ("https://example.org/a.git", true),
            ("https://example.org/a.git#main:sub", true),
            ("git@example.org:a", true),
            ("github.com/a/b", true),
            ("https://example.org/a.tar.gz", false),
        ] {
            assert_eq!(is_git(remote), git, "{remote}");
        }
    }
}
