//! Images in and out as tar streams: save, load, import, commit.

use std::{io::Write, sync::Arc};

use bytes::Bytes;
use futures::TryStreamExt;
use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::{
    Docker,
    containers::{Container, filesystem},
    http::{Answer, Call, Problem, created, line, stream, stream_or_break},
    metrics::Action,
    types::{Config, Map},
};
use crate::{
    images::{
        catalogue::ImageRecord,
        layers::StoredLayer,
        manifest::{History, ImageConfig, Platform, RunConfig},
        reference::Reference,
    },
    snapshots::Root,
};

/// A platform as clients name it; none if they name none.
pub fn platform(text: &str) -> Result<Option<Platform>, Problem> {
    let parsed = Some(text).filter(|text| !text.is_empty()).map(str::parse);
    parsed.transpose().map_err(|error: crate::Error| Problem::bad(error.to_string()))
}

/// A blocking writer whose bytes become a response's body.
pub struct BodyWriter {
    sender: mpsc::Sender<Bytes>,
    buffer: Vec<u8>,
}

const CHUNK: usize = 64 << 10;

impl BodyWriter {
    pub fn new(sender: mpsc::Sender<Bytes>) -> BodyWriter {
        BodyWriter { sender, buffer: Vec::with_capacity(CHUNK) }
    }
}

impl Write for BodyWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        if !self.buffer.is_empty() {
            let full = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK));
            self.sender.blocking_send(full.into()).map_err(|_| std::io::ErrorKind::BrokenPipe)?;
        }
        Ok(())
    }
}

impl Drop for BodyWriter {
    fn drop(&mut self) {
        // A client that is gone needs no more.
        let _ = self.flush();
    }
}

pub async fn save(call: Call) -> Answer {
    let mut names: Vec<String> = call.query.all("names").map(str::to_owned).collect();
    if names.is_empty() {
        names.extend(call.parameters.first().cloned());
    }
    if names.is_empty() {
        return Err(Problem::bad("no image was named"));
    }
    for name in &names {
        let image = call.docker.find_image(name)?;
        call.docker.tell_image(image.id.as_str(), "save", name);
    }
    // What is known to fail fails with a status; what fails later breaks the connection off, and never looks whole.
    call.docker.engine.images().can_save(&names)?;
    let (sender, receiver) = mpsc::channel(8);
    let (ended, outcome) = tokio::sync::oneshot::channel();
    let docker = call.docker.clone();
    tokio::spawn(async move {
        let saved = docker.engine.images().save(&names, BodyWriter::new(sender)).await;
        if let Err(error) = &saved {
            tracing::warn!(%error, "images could not be saved");
        }
        // Nobody hears it if the client is gone.
        let _ = ended.send(saved.is_ok());
    });
    Ok(stream_or_break("application/x-tar", receiver, outcome))
}

pub async fn load(call: Call) -> Answer {
    let docker = call.docker.clone();
    let quiet = call.query.flag("quiet");
    let (sender, receiver) = mpsc::channel(64);
    let reader = call.reader();
    tokio::spawn(async move {
        let _ = quiet;
        match docker.engine.images().load(reader).await {
            Ok(loaded) => {
                for one in loaded {
                    if one.names.is_empty() {
                        let text = format!("Loaded image ID: {}\n", one.image.id);
                        let _ = sender.send(line(&json!({ "stream": text }))).await;
                    }
                    for name in &one.names {
                        let familiar = name.parse::<Reference>().map_or_else(|_| name.clone(), |name| name.familiar());
                        let _ = sender.send(line(&json!({ "stream": format!("Loaded image: {familiar}\n") }))).await;
                    }
                    docker.events.tell("image", "load", one.image.id.as_str(), Map::new());
                }
            }
            Err(error) => {
                let text = error.to_string();
                let _ = sender.send(line(&json!({ "errorDetail": { "message": text }, "error": text }))).await;
            }
        }
    });
    Ok(stream("application/json", receiver))
}

/// `POST /images/create?fromSrc=`: a file system as an image.
pub async fn import(call: Call, source: &str) -> Answer {
    let name = named(call.query.text("repo"), call.query.text("tag"))?;
    let message = call.query.text("message").to_owned();
    let changes: Vec<String> = call.query.all("changes").map(str::to_owned).collect();
    let platform = platform(call.query.text("platform"))?;
    let docker = call.docker.clone();
    let (sender, receiver) = mpsc::channel(8);
    let (url, reader): (_, Box<dyn std::io::Read + Send>) = match source {
        "-" => (None, Box::new(call.reader())),
        source => {
            let url = if source.contains("://") { source.to_owned() } else { format!("http://{source}") };
            let response = docker.engine.images().fetch(&url).await?;
            let body = response.into_body().into_data_stream().map_err(std::io::Error::other);
            (Some(url), Box::new(SyncIoBridge::new(StreamReader::new(body))))
        }
    };
    let source = source.to_owned();
    tokio::spawn(async move {
        if let Some(url) = url {
            let _ = sender.send(line(&json!({ "status": format!("Downloading from {url}") }))).await;
        }
        let mut config = ImageConfig { config: RunConfig::default(), ..docker.blank() };
        if let Some(platform) = platform {
            (config.architecture, config.os) = (platform.architecture, platform.os);
        }
        let comment = if message.is_empty() { format!("Imported from {source}") } else { message };
        let made = async {
            super::changes::apply(&mut config.config, &changes)?;
            let _hold = docker.engine.images().hold().await;
            let layer = docker.engine.images().store_layer(reader).await?;
            docker.assemble(config, vec![layer], name, comment, String::new()).await
        };
        let last = match made.await {
            Ok(image) => {
                docker.events.tell("image", "import", image.id.as_str(), Map::new());
                json!({ "status": image.id })
            }
            Err(problem) => json!({ "errorDetail": { "message": problem.message }, "error": problem.message }),
        };
        let _ = sender.send(line(&last)).await;
    });
    Ok(stream("application/json", receiver))
}

fn named(repository: &str, tag: &str) -> Result<Option<String>, Problem> {
    if repository.is_empty() {
        return Ok(None);
    }
    let name = if tag.is_empty() { repository.to_owned() } else { format!("{repository}:{tag}") };
    let reference: Reference = name.parse().map_err(|_| Problem::bad("invalid reference format"))?;
    Ok(Some(reference.to_string()))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CommitBody {
    #[serde(flatten)]
    config: Config,
}

pub async fn commit(mut call: Call) -> Answer {
    let container = call.docker.container(call.query.text("container"))?;
    let name = named(call.query.text("repo"), call.query.text("tag"))?;
    let (comment, author) = (call.query.text("comment").to_owned(), call.query.text("author").to_owned());
    let changes: Vec<String> = call.query.all("changes").map(str::to_owned).collect();
    let pause = call.query.flag_or("pause", true);
    let body: CommitBody = call.json_or(Some(CommitBody::default())).await?;
    let docker = call.docker.clone();
    let work = async move {
        let config = run_config(&container, body.config, &changes)?;
        docker.commit(&container, config, name, comment, author, pause).await
    };
    let began = std::time::Instant::now();
    let image = tokio::spawn(work).await.map_err(crate::Error::from)??;
    call.docker.metrics.did(Action::Commit, began);
    created(&json!({ "Id": image.id }))
}

/// The container's configuration as an image's, with what the request changes.
fn run_config(container: &Container, request: Config, changes: &[String]) -> Result<RunConfig, Problem> {
    let own = container.with(|record| record.config.clone());
    let merged = |mine: Option<Vec<String>>, theirs: Option<Vec<String>>| {
        mine.filter(|list| !list.is_empty()).or(theirs).unwrap_or_default()
    };
    let mut labels = own.labels;
    labels.extend(request.labels);
    let mut config = RunConfig {
        user: if request.user.is_empty() { own.user } else { request.user },
        env: merged(request.env, own.env),
        entrypoint: merged(request.entrypoint, own.entrypoint),
        cmd: merged(request.cmd, own.cmd),
        working_dir: if request.working_dir.is_empty() { own.working_dir } else { request.working_dir },
        labels,
        exposed_ports: own.exposed_ports,
        volumes: own.volumes.unwrap_or_default(),
        stop_signal: own.stop_signal,
        healthcheck: own.healthcheck.and_then(|check| serde_json::to_value(check).ok()),
        ..RunConfig::default()
    };
    super::changes::apply(&mut config, changes)?;
    Ok(config)
}

impl Docker {
    fn blank(&self) -> ImageConfig {
        let own = Platform::own();
        ImageConfig { architecture: own.architecture, os: own.os, ..ImageConfig::default() }
    }

    async fn assemble(
        &self,
        mut config: ImageConfig,
        layers: Vec<StoredLayer>,
        name: Option<String>,
        comment: String,
        created_by: String,
    ) -> Result<Arc<ImageRecord>, Problem> {
        let now = jiff::Timestamp::now().to_string();
        config.created = Some(now.clone());
        config.history.push(History { created: Some(now), created_by, comment, ..History::default() });
        let names: Vec<String> = name.into_iter().collect();
        Ok(self.engine.images().assemble(config, layers, &names).await?)
    }

    async fn commit(
        self: &Arc<Docker>,
        container: &Arc<Container>,
        run: RunConfig,
        name: Option<String>,
        comment: String,
        author: String,
        pause: bool,
    ) -> Result<Arc<ImageRecord>, Problem> {
        let images = self.engine.images();
        let _hold = images.hold().await;
        let base = images
            .find(&container.with(|record| record.image_id.clone()))
            .ok_or_else(|| Problem::not_found("the container's image is gone, and with it what it stands on"))?;
        let mut config = images.config(&base)?;
        config.config = run;
        config.author = author;
        let mut layers = images.layers(&base)?;
        let root = self.engine.root_of(&container.engine)?;
        let Root::Mount { options, .. } = root else {
            return Err(Problem::internal("this container's file system cannot be committed"));
        };
        let upper = filesystem::upper_of(&options)?;
        let hidden = filesystem::hidden(&container.record());
        let frozen = pause && container.runs() && !container.live.lock().paused;
        if frozen {
            self.engine.freeze(&container.engine, true).await?;
            self.tell(container, "pause");
        }
        let (reader, writer) = std::io::pipe().map_err(|error| Problem::internal(format!("make a pipe: {error}")))?;
        let packing = tokio::task::spawn_blocking(move || filesystem::pack_upper(&upper, &hidden, writer));
        let stored = images.store_layer(reader).await;
        let packed = packing.await.map_err(crate::Error::from);
        if frozen {
            self.engine.freeze(&container.engine, false).await?;
            self.tell(container, "unpause");
        }
        packed??;
        layers.push(stored?);
        let command = super::containers::spec::arguments(&container.record()).join(" ");
        let image = self.assemble(config, layers, name.clone(), comment, command).await?;
        if let Some(name) = name.and_then(|name| name.parse::<Reference>().ok()) {
            self.tell_image(image.id.as_str(), "tag", &name.familiar());
        }
        self.tell_with(container, "commit", &[("imageID", image.id.to_string())]);
        Ok(image)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_read() {
        assert_eq!(platform("").unwrap(), None);
        let arm = platform("linux/arm64/v8").unwrap().unwrap();
        assert_eq!(
            (arm.os.as_str(), arm.architecture.as_str(), arm.variant.as_deref()),
            ("linux", "arm64", Some("v8"))
        );
        assert_eq!(platform("arm64").unwrap().unwrap().to_string(), "linux/arm64");
        assert!(platform("nonsense").is_err());
    }
}
