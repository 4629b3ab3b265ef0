//! Endpoints of images.

use std::{collections::HashMap, sync::Arc};

use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{
    Docker,
    http::{Answer, Call, Filters, Problem, line, ok, stream},
    types::Config,
};
use crate::{
    digest::Digest,
    images::{
        catalogue::ImageRecord,
        events::{Event, Step},
        manifest::RunConfig,
        push::PushOptions,
        reference::Reference,
        registry::Credentials,
    },
};

impl Docker {
    /// The image of a name or id, or dockerd's 404.
    pub fn find_image(&self, name: &str) -> Result<Arc<ImageRecord>, Problem> {
        if let Some(image) = self.engine.images().find(name) {
            return Ok(image);
        }
        // What a build made on its way is an image for whoever names it by its id.
        let hash = name.strip_prefix("sha256:").unwrap_or(name);
        if hash.len() >= 4
            && let Some(step) = self.engine.images().build_cache().by_image(hash)
            && self.engine.images().has_content(&step.image, &step.layers, &step.chains)
        {
            return Ok(self.engine.images().record_stored(&step.image, &step.layers)?);
        }
        // An id that nothing has is no name, but it is not malformed either.
        if name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(Problem::not_found(format!("No such image: {name}")));
        }
        let reference: Reference = name.parse().map_err(|_| Problem::bad("invalid reference format"))?;
        Err(Problem::not_found(format!("No such image: {}", reference.familiar())))
    }

    /// The image's part of a container's configuration.
    pub fn image_config(&self, image: &ImageRecord) -> Result<Config, Problem> {
        Ok(run_config(self.engine.images().config(image)?.config))
    }

    /// Bytes of unpacked layers.
    pub fn layers_size(&self, chains: &[Digest]) -> u64 {
        chains.iter().map(|chain| self.engine.snapshots().layer_usage(chain).content).sum()
    }

    /// Containers made from an image, or with one mounted, of both edges.
    fn image_users(&self, image: &ImageRecord) -> Vec<Arc<super::containers::Container>> {
        let id = image.id.to_string();
        let uses = |container: &Arc<super::containers::Container>| {
            let mut mounts = container.engine.config.mounts.iter().filter_map(|mount| mount.image.as_ref());
            container.with(|record| record.image_id == id) || mounts.any(|mounted| mounted.chains == image.chains)
        };
        self.containers().into_iter().filter(uses).collect()
    }

    pub fn image_summary(&self, image: &ImageRecord, usage: bool) -> Value {
        let config = self.engine.images().config(image).unwrap_or_default();
        let created = config.created.as_deref().and_then(|text| text.parse::<jiff::Timestamp>().ok());
        json!({
            "Id": image.id,
            "ParentId": "",
            "RepoTags": familiar(&image.tags),
            "RepoDigests": familiar(&image.repo_digests),
            "Created": created.unwrap_or_default().as_second(),
            "Size": self.layers_size(&image.chains),
            "SharedSize": if usage { self.shared_size(image) as i64 } else { -1 },
            "Labels": if config.config.labels.is_empty() { Value::Null } else { json!(config.config.labels) },
            "Containers": if usage { self.image_users(image).len() as i64 } else { -1 },
        })
    }

    fn shared_size(&self, image: &ImageRecord) -> u64 {
        let others: Vec<_> = self.engine.images().list().into_iter().filter(|other| other.id != image.id).collect();
        let shared = image.chains.iter().filter(|chain| others.iter().any(|other| other.chains.contains(chain)));
        shared.map(|chain| self.engine.snapshots().layer_usage(chain).content).sum()
    }

    /// Layers that must stay for containers' sake.
    fn in_use(self: &Arc<Docker>) -> impl FnOnce() -> Vec<Digest> + Send + 'static {
        let docker = self.clone();
        move || docker.engine.chains_in_use()
    }

    pub(super) fn tell_image(&self, id: &str, action: &str, name: &str) {
        self.events.tell("image", action, id, [("name".to_owned(), name.to_owned())].into());
    }
}

/// The configuration of an image as a container's.
fn run_config(run: RunConfig) -> Config {
    let list = |list: Vec<String>| if list.is_empty() { None } else { Some(list) };
    Config {
        user: run.user,
        exposed_ports: run.exposed_ports,
        env: list(run.env),
        cmd: list(run.cmd),
        healthcheck: run.healthcheck.and_then(|check| serde_json::from_value(check).ok()),
        args_escaped: run.args_escaped,
        volumes: if run.volumes.is_empty() { None } else { Some(run.volumes) },
        working_dir: run.working_dir,
        entrypoint: list(run.entrypoint),
        on_build: list(run.on_build),
        labels: run.labels,
        stop_signal: run.stop_signal,
        stop_timeout: run.stop_timeout,
        shell: list(run.shell),
        ..Config::default()
    }
}

/// Names as people write them.
fn familiar(names: &[String]) -> Vec<String> {
    names.iter().map(|name| familiar_one(name)).collect()
}

pub(super) fn familiar_one(name: &str) -> String {
    name.parse::<Reference>().map_or_else(|_| name.to_owned(), |reference| reference.familiar())
}

const FILTERS: [&str; 8] = ["before", "dangling", "label", "label!", "reference", "since", "until", "containerd"];

pub async fn list(call: Call) -> Answer {
    let filters = call.query.filters(&FILTERS)?;
    let docker = call.docker.clone();
    let usage = call.query.flag("shared-size");
    let work = tokio::task::spawn_blocking(move || -> Result<Vec<Value>, Problem> {
        let mut shown: Vec<Value> =
            docker.filtered(&filters)?.iter().map(|image| docker.image_summary(image, usage)).collect();
        shown.sort_by_key(|image| std::cmp::Reverse(image["Created"].as_i64()));
        Ok(shown)
    });
    ok(&work.await.map_err(crate::Error::from)??)
}

/// `reference` filters are patterns over familiar names, a tag left out meaning any (Go's `path.Match`).
fn matches(pattern: &str, name: &str) -> bool {
    let repository = name.rsplit_once(':').map_or(name, |(repository, _)| repository);
    glob(pattern, name) || glob(pattern, repository)
}

/// `*` and `?` within one path component.
pub fn glob(pattern: &str, text: &str) -> bool {
    let mut regex = String::from("^");
    for letter in pattern.chars() {
        match letter {
            '*' => regex.push_str("[^/]*"),
            '?' => regex.push_str("[^/]"),
            letter => regex.push_str(&regex::escape(&letter.to_string())),
        }
    }
    regex.push('$');
    regex::Regex::new(&regex).is_ok_and(|regex| regex.is_match(text))
}

impl Docker {
    fn filtered(&self, filters: &Filters) -> Result<Vec<Arc<ImageRecord>>, Problem> {
        let images = self.engine.images();
        let created = |image: &ImageRecord| {
            let text = images.config(image).ok().and_then(|config| config.created);
            text.and_then(|text| text.parse::<jiff::Timestamp>().ok()).unwrap_or_default()
        };
        let bound = |key: &str| -> Result<Option<jiff::Timestamp>, Problem> {
            filters.get(key).first().map(|name| self.find_image(name).map(|image| created(&image))).transpose()
        };
        let (before, since) = (bound("before")?, bound("since")?);
        let until = super::system::until(filters)?;
        let dangling = filters.truth("dangling")?;
        let mut out = Vec::new();
        for image in images.list() {
            let at = created(&image);
            let labels = || images.config(&image).map(|config| config.config.labels).unwrap_or_default();
            let named = |pattern: &str| familiar(&image.tags).iter().any(|name| matches(pattern, name));
            let fits = before.is_none_or(|before| at < before)
                && since.is_none_or(|since| at > since)
                && until.is_none_or(|until| at.as_nanosecond() < i128::from(until))
                && dangling.is_none_or(|dangling| image.tags.is_empty() == dangling)
                && filters.any("reference", named)
                && (!filters.has("label") && !filters.has("label!") || filters.labels(&labels()));
            if fits {
                out.push(image);
            }
        }
        Ok(out)
    }
}

pub async fn inspect(call: Call) -> Answer {
    let image = call.docker.find_image(call.name())?;
    let config = call.docker.engine.images().config(&image)?;
    let platform = config.platform();
    let diffs = config.rootfs.diff_ids.clone();
    let layers: Vec<String> = diffs.iter().map(Digest::to_string).collect();
    let shown = run_config(config.config);
    let mut value = json!({
        "Id": image.id,
        "RepoTags": familiar(&image.tags),
        "RepoDigests": familiar(&image.repo_digests),
        "Parent": "",
        "Comment": config.history.last().map(|entry| entry.comment.clone()).unwrap_or_default(),
        "Created": config.created.unwrap_or_default(),
        "DockerVersion": "",
        "Author": config.author,
        "Config": shown,
        "Architecture": platform.architecture,
        "Variant": platform.variant.unwrap_or_default(),
        "Os": platform.os,
        "Size": call.docker.layers_size(&image.chains),
        "GraphDriver": { "Name": "overlay2", "Data": null },
        "RootFS": { "Type": "layers", "Layers": layers },
        "Metadata": { "LastTagTime": image.created },
    });
    // Fields that later versions have not, and that clients of then read. docker-compose 1.29 takes the newest version
    // there is and then fails without them, with dockerd since 25 too: `KeyError: 'ContainerConfig'`.
    let agent = call.request.headers().get(http::header::USER_AGENT).and_then(|agent| agent.to_str().ok());
    if call.version < 45 || agent.is_some_and(|agent| agent.starts_with("docker-compose/1.")) {
        value["Container"] = json!("");
        value["ContainerConfig"] = json!(shown);
    }
    if call.version < 44 {
        value["VirtualSize"] = value["Size"].clone();
    }
    ok(&value)
}

pub async fn history(call: Call) -> Answer {
    let image = call.docker.find_image(call.name())?;
    let entries = call.docker.engine.images().history(&image)?;
    let mut out = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let created = entry.history.created.as_deref().and_then(|text| text.parse::<jiff::Timestamp>().ok());
        out.push(json!({
            "Id": if index == 0 { image.id.to_string() } else { "<missing>".into() },
            "Created": created.unwrap_or_default().as_second(),
            "CreatedBy": entry.history.created_by,
            "Tags": if index == 0 && !image.tags.is_empty() { json!(familiar(&image.tags)) } else { Value::Null },
            "Size": entry.size,
            "Comment": entry.history.comment,
        }));
    }
    ok(&out)
}

pub async fn tag(call: Call) -> Answer {
    let (repository, tag) = (call.query.text("repo"), call.query.text("tag"));
    let image = call.docker.find_image(call.name())?;
    let name = if tag.is_empty() { repository.to_owned() } else { format!("{repository}:{tag}") };
    name.parse::<Reference>().map_err(|_| Problem::bad("invalid reference format"))?;
    call.docker.engine.images().tag(image.id.as_str(), &name)?;
    call.docker.tell_image(image.id.as_str(), "tag", &familiar_one(&name));
    super::http::empty(http::StatusCode::CREATED)
}

pub async fn remove(call: Call) -> Answer {
    let (force, name) = (call.query.flag("force"), call.name().to_owned());
    let image = call.docker.find_image(&name)?;
    let by_id = is_id(&name, &image);
    let removed = call.docker.remove_image(&image, &name, by_id, force).await?;
    ok(&removed)
}

fn is_id(name: &str, image: &ImageRecord) -> bool {
    let hash = name.strip_prefix("sha256:").unwrap_or(name);
    // A name that is there comes before an id that begins so.
    let named = name.parse::<Reference>().ok().is_some_and(|reference| image.tags.contains(&reference.to_string()));
    !named && hash.len() >= 4 && image.id.hex().starts_with(hash)
}

impl Docker {
    /// dockerd's rules (`daemon/images/image_delete.go`): a name is untagged, and the last name takes the image along
    /// unless containers need it: one that runs keeps it even when forced, without a name. An id removes the image with
    /// its one name.
    async fn remove_image(
        self: &Arc<Docker>,
        image: &ImageRecord,
        name: &str,
        by_id: bool,
        force: bool,
    ) -> Result<Vec<Value>, Problem> {
        let short = |id: &str| id.chars().take(12).collect::<String>();
        let users = self.image_users(image);
        let mut names: Vec<String> = Vec::new();
        if by_id {
            let repositories: std::collections::BTreeSet<String> = image
                .tags
                .iter()
                .filter_map(|tag| tag.parse::<Reference>().ok())
                .map(|reference| reference.name())
                .collect();
            if !force && (repositories.len() > 1 || image.tags.len() > 1) {
                return Err(Problem::conflict(format!(
                    "conflict: unable to delete {} (must be forced) - image is referenced in multiple repositories",
                    short(image.id.hex())
                )));
            }
            self.check_users(image, &users, force)?;
            names.extend(image.tags.iter().chain(&image.repo_digests).cloned());
        } else {
            let reference: Reference = name.parse().map_err(|_| Problem::bad("invalid reference format"))?;
            let last = image.tags.len() <= 1;
            if last && !users.is_empty() && !force {
                let container = &users[0];
                return Err(Problem::conflict(format!(
                    "conflict: unable to remove repository reference \"{name}\" (must force) - container {} is using its referenced image {}",
                    short(&container.id),
                    short(image.id.hex())
                )));
            }
            names.push(reference.to_string());
        }
        let mut out: Vec<Value> = Vec::new();
        let removing: Vec<String> = if by_id { vec![image.id.to_string()] } else { names };
        for target in removing {
            let removed = if users.iter().any(|container| container.runs()) {
                self.engine.images().untag(&target)?
            } else {
                self.engine.images().remove(&target, self.in_use()).await?
            };
            for name in &removed.names {
                out.push(json!({ "Untagged": familiar_one(name) }));
                self.tell_image(image.id.as_str(), "untag", &familiar_one(name));
            }
            if let Some(id) = &removed.image {
                out.push(json!({ "Deleted": id }));
                out.extend(removed.layers.iter().rev().map(|layer| json!({ "Deleted": layer })));
                self.tell_image(id.as_str(), "delete", id.as_str());
            }
        }
        Ok(out)
    }

    fn check_users(
        &self,
        image: &ImageRecord,
        users: &[Arc<super::containers::Container>],
        force: bool,
    ) -> Result<(), Problem> {
        let short = |id: &str| id.chars().take(12).collect::<String>();
        if let Some(container) = users.iter().find(|container| container.runs()) {
            return Err(Problem::conflict(format!(
                "conflict: unable to delete {} (cannot be forced) - image is being used by running container {}",
                short(image.id.hex()),
                short(&container.id)
            )));
        }
        if let Some(container) = users.first().filter(|_| !force) {
            return Err(Problem::conflict(format!(
                "conflict: unable to delete {} (must be forced) - image is being used by stopped container {}",
                short(image.id.hex()),
                short(&container.id)
            )));
        }
        Ok(())
    }
}

pub async fn prune(call: Call) -> Answer {
    let filters = call.query.filters(&["dangling", "until", "label", "label!"])?;
    let only_dangling = filters.truth("dangling")?.unwrap_or(true);
    let docker = call.docker.clone();
    let mut deleted = Vec::new();
    let taken = || -> u64 {
        let snapshots = docker.engine.snapshots();
        snapshots.layers().iter().map(|layer| snapshots.layer_usage(layer).content).sum()
    };
    let before = taken();
    let until = super::system::until(&filters)?;
    for image in docker.engine.images().list() {
        let config = docker.engine.images().config(&image)?;
        let created =
            config.created.as_deref().and_then(|text| text.parse::<jiff::Timestamp>().ok()).unwrap_or_default();
        let wanted = (!only_dangling || image.tags.is_empty())
            && filters.labels(&config.config.labels)
            && until.is_none_or(|until| created.as_nanosecond() < i128::from(until))
            && !image.pinned
            && docker.image_users(&image).is_empty();
        if wanted && let Ok(removed) = docker.remove_image(&image, image.id.as_str(), true, true).await {
            deleted.extend(removed);
        }
    }
    let reclaimed = before.saturating_sub(taken());
    docker.events.tell("image", "prune", "", [("reclaimed".to_owned(), reclaimed.to_string())].into());
    let deleted = if deleted.is_empty() { Value::Null } else { json!(deleted) };
    ok(&json!({ "ImagesDeleted": deleted, "SpaceReclaimed": reclaimed }))
}

/// What `X-Registry-Auth` carries. What cannot be read is nothing, as dockerd has it for the sake of old clients.
pub fn credentials(call: &Call) -> Credentials {
    let header = call.request.headers().get("X-Registry-Auth").map(http::HeaderValue::as_bytes).unwrap_or_default();
    decode_credentials(header).unwrap_or_else(|| {
        tracing::warn!("a client's X-Registry-Auth header cannot be read; going on without credentials");
        Credentials::Anonymous
    })
}

fn decode_credentials(header: &[u8]) -> Option<Credentials> {
    if header.is_empty() {
        return Some(Credentials::Anonymous);
    }
    // Specified is the alphabet for URLs; some clients send the other, or no padding.
    let engines = [BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD, BASE64_STANDARD, BASE64_STANDARD_NO_PAD];
    let decoded = engines.iter().find_map(|engine| engine.decode(header).ok())?;
    if decoded.is_empty() { Some(Credentials::Anonymous) } else { Credentials::from_docker_json(&decoded).ok() }
}

fn short(digest: &Digest) -> String {
    digest.hex().chars().take(12).collect()
}

/// One step of a layer as the CLI draws it.
pub fn pull_step(digest: &Digest, step: &Step) -> Option<Value> {
    let id = short(digest);
    let plain = |status: &str| json!({ "status": status, "progressDetail": {}, "id": id });
    let bar = |status: &str, current: &u64, total: &u64| {
        json!({
            "status": status, "progressDetail": { "current": current, "total": total },
            "progress": progress_bar(*current, *total), "id": id,
        })
    };
    Some(match step {
        Step::Waiting => plain("Pulling fs layer"),
        Step::Exists => plain("Already exists"),
        Step::Downloading { current, total } => bar("Downloading", current, total),
        Step::Downloaded => plain("Download complete"),
        Step::Extracting { current, total } => bar("Extracting", current, total),
        Step::Done => plain("Pull complete"),
        Step::Uploading { .. } | Step::Mounted { .. } => return None,
    })
}

fn push_step(digest: &Digest, step: &Step) -> Option<Value> {
    let id = short(digest);
    let plain = |status: String| json!({ "status": status, "progressDetail": {}, "id": id });
    Some(match step {
        Step::Waiting => plain("Preparing".into()),
        Step::Exists => plain("Layer already exists".into()),
        Step::Uploading { current, total } => json!({
            "status": "Pushing", "progressDetail": { "current": current, "total": total },
            "progress": progress_bar(*current, *total), "id": id,
        }),
        Step::Mounted { from } => plain(format!("Mounted from {from}")),
        Step::Done => plain("Pushed".into()),
        _ => return None,
    })
}

/// `[=====>     ]  1.5MB/3MB`
fn progress_bar(current: u64, total: u64) -> String {
    let human = |bytes: u64| -> String {
        let units = ["B", "kB", "MB", "GB", "TB"];
        let (mut value, mut unit) = (bytes as f64, 0);
        while value >= 1000.0 && unit + 1 < units.len() {
            value /= 1000.0;
            unit += 1;
        }
        let digits = if value >= 100.0 || unit == 0 {
            0
        } else if value >= 10.0 {
            1
        } else {
            2
        };
        format!("{value:.digits$}{}", units[unit])
    };
    if total == 0 {
        return human(current);
    }
    let filled = (current.min(total) * 50 / total) as usize;
    let bar = if filled >= 50 { "=".repeat(50) + ">" } else { "=".repeat(filled) + ">" + &" ".repeat(50 - filled) };
    format!("[{bar}]  {}/{}", human(current), human(total))
}

pub async fn push(call: Call) -> Answer {
    let tag = call.query.text("tag").to_owned();
    let name = call.name().to_owned();
    let credentials = credentials(&call);
    let base: Reference = name.parse().map_err(|_| Problem::bad("invalid reference format"))?;
    let mut names = Vec::new();
    if tag.is_empty() && !name.rsplit('/').next().unwrap_or_default().contains(':') {
        for image in call.docker.engine.images().list() {
            let own =
                image.tags.iter().filter(|tag| tag.parse::<Reference>().is_ok_and(|tag| tag.name() == base.name()));
            names.extend(own.cloned());
        }
    } else {
        names.push(if tag.is_empty() { base.to_string() } else { format!("{}:{tag}", base.name()) });
    }
    if names.is_empty() {
        return Err(Problem::not_found(format!(
            "An image does not exist locally with the tag: {}",
            base.familiar().trim_end_matches(":latest")
        )));
    }
    for name in &names {
        if call.docker.engine.images().find(name).is_none() {
            let familiar = familiar_one(name);
            let without = familiar.rsplit_once(':').map_or(familiar.as_str(), |(name, _)| name);
            return Err(Problem::not_found(format!("An image does not exist locally with the tag: {without}")));
        }
    }
    let docker = call.docker.clone();
    let (sender, receiver) = mpsc::channel::<Bytes>(1024);
    tokio::spawn(async move { push_all(docker, base, names, credentials, sender).await });
    Ok(stream("application/json", receiver))
}

async fn push_all(
    docker: Arc<Docker>,
    base: Reference,
    names: Vec<String>,
    credentials: Credentials,
    sender: mpsc::Sender<Bytes>,
) {
    let _ = sender.try_send(line(&json!({ "status": format!("The push refers to repository [{}]", base.name()) })));
    for name in names {
        let progress = sender.clone();
        let told: Mutex<HashMap<Digest, ()>> = Mutex::default();
        let sink = Arc::new(move |event: Event| {
            if let Event::Layer { digest, step } = event {
                told.lock().insert(digest.clone(), ());
                if let Some(value) = push_step(&digest, &step) {
                    let _ = progress.try_send(line(&value));
                }
            }
        });
        let options = PushOptions { credentials: credentials.clone(), events: Some(sink) };
        match docker.engine.images().push(&name, options).await {
            Ok(pushed) => {
                let text = format!("{}: digest: {} size: {}", pushed.tag, pushed.digest, pushed.size);
                let _ = sender.send(line(&json!({ "status": text }))).await;
                let aux = json!({ "Tag": pushed.tag, "Digest": pushed.digest, "Size": pushed.size });
                let _ = sender.send(line(&json!({ "progressDetail": {}, "aux": aux }))).await;
                docker.tell_image(&familiar_one(&name), "push", &familiar_one(&name));
            }
            Err(error) => {
                let text = error.to_string();
                let last = json!({ "errorDetail": { "message": text }, "error": text });
                let _ = sender.send(line(&last)).await;
                return;
            }
        }
    }
}

pub async fn search(_: Call) -> Answer {
    Err(Problem::new(
        http::StatusCode::NOT_IMPLEMENTED,
        "search is not supported: the registry protocol has no search, and this engine speaks no other",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_come_in_every_alphabet() {
        // Bytes whose base64 has the letters that the alphabets differ in, and needs padding.
        let json = br#"{"username":"u","password":"p>?\u00ff>>>??"}"#;
        let expected = Credentials::from_docker_json(json).unwrap();
        let standard = BASE64_STANDARD.encode(json);
        assert!(standard.contains(['+', '/']) && standard.ends_with('='), "{standard}");
        for text in [
            standard,
            BASE64_STANDARD_NO_PAD.encode(json),
            BASE64_URL_SAFE.encode(json),
            BASE64_URL_SAFE_NO_PAD.encode(json),
        ] {
            assert_eq!(decode_credentials(text.as_bytes()).as_ref(), Some(&expected), "{text}");
        }
        assert_eq!(decode_credentials(b""), Some(Credentials::Anonymous));
        // What cannot be read is for the caller to pass over.
        assert!(decode_credentials(b"***").is_none() && decode_credentials(b"bm9uZQ==").is_none());
    }

    #[test]
    fn references_match_patterns() {
        assert!(matches("busybox", "busybox:latest"));
        assert!(matches("busy*:lat*", "busybox:latest"));
        assert!(!matches("busybox", "other/busybox:latest"));
        assert!(matches("*/busybox", "other/busybox:1"));
    }

    #[test]
    fn bars_grow() {
        assert_eq!(progress_bar(0, 100).matches('=').count(), 0);
        assert!(progress_bar(50, 100).starts_with(&format!("[{}>", "=".repeat(25))));
        assert!(progress_bar(1_500_000, 3_000_000).ends_with("1.50MB/3.00MB"));
    }
}
