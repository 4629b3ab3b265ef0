//! `POST /build` and what belongs to it: the classic builder's protocol over [`crate::builder`].

mod git;
mod host;
pub mod prune;
mod request;

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::{host::BuildHost, request::Request};
use super::{
    Docker,
    http::{Answer, Call, Problem, line, stream},
    metrics::{BuildFailure, count},
    server::Peer,
    types::Map,
};
use crate::{
    builder::{
        Built, Failure, Output, Said,
        context::Context,
        dockerfile::{self, Document, Kind, Mistake, excerpt},
        execute::{self, Build, Options},
        graph::Graph,
        ignore::Ignore,
        state::{Donor, Maker},
    },
    images::{manifest::Platform, reference::Reference},
};

pub use host::Mounts;

/// Messages on their way to a client.
const BACKLOG: usize = 64;
/// The same for what `-q` holds back until it is needed.
const MAX_HELD_BACK: usize = 1 << 20;

/// What is read of a context that is refused: a client that is still sending does not read why.
const MAX_REFUSED: u64 = 64 << 20;

pub async fn build(call: Call) -> Answer {
    let request = match Request::read(&call) {
        Ok(request) => request,
        Err(problem) => {
            let reader = call.reader();
            // The answer is the same if the rest cannot be read.
            let _ = tokio::task::spawn_blocking(move || drain(reader)).await;
            return Err(problem);
        }
    };
    let docker = call.docker.clone();
    count(&docker.metrics.builds);
    let peer = call.request.extensions().get::<Peer>().cloned();
    let (context, text) = receive(call, &request).await?;
    let metrics = &docker.metrics;
    let shown = |mistake: Mistake| {
        metrics.build_failed(match mistake.kind {
            Kind::Syntax => BuildFailure::Syntax,
            Kind::Empty => BuildFailure::Empty,
            Kind::UnknownInstruction => BuildFailure::Instruction,
            Kind::EmptyOnbuild => BuildFailure::Onbuild,
            Kind::NoTarget => BuildFailure::Target,
        });
        Problem::bad(mistake.describe(&request.dockerfile, &text))
    };
    let document = dockerfile::lines::read(&text).map_err(shown)?;
    let graph = graph(&document, &request).map_err(shown)?;
    let (sender, receiver) = mpsc::channel::<Bytes>(BACKLOG);
    tokio::spawn(carry_out(docker, request, Arc::new(context), document, graph, text, sender, peer));
    Ok(stream("application/json", receiver))
}

fn graph(document: &Document, request: &Request) -> Result<Graph, Mistake> {
    let all = dockerfile::parse(document)?;
    let known = platform_arguments(request.platform.as_ref());
    Graph::of(all, document.escape, &request.arguments, &known, &request.target)
}

/// `TARGETPLATFORM` and its kin (<https://docs.docker.com/reference/dockerfile/#automatic-platform-args-in-the-global-scope>).
fn platform_arguments(target: Option<&Platform>) -> BTreeMap<String, String> {
    let own = Platform::own();
    let mut out = BTreeMap::new();
    for (prefix, platform) in [("BUILD", &own), ("TARGET", target.unwrap_or(&own))] {
        out.insert(format!("{prefix}PLATFORM"), platform.to_string());
        out.insert(format!("{prefix}OS"), platform.os.clone());
        out.insert(format!("{prefix}ARCH"), platform.architecture.clone());
        out.insert(format!("{prefix}VARIANT"), platform.variant.clone().unwrap_or_default());
    }
    out
}

/// The context, from the body or from elsewhere, and the Dockerfile's text.
async fn receive(call: Call, request: &Request) -> Result<(Context, String), Problem> {
    let docker = call.docker.clone();
    let (remote, name, given) = (request.remote.clone(), request.dockerfile.clone(), request.dockerfile_given);
    if remote.is_empty() {
        let reader = call.reader();
        let work = move || -> Result<_, Problem> {
            let dir = docker.build_dir()?;
            let mut reader = reader;
            let context = Context::receive(&dir, &mut reader, docker.engine.images().limits());
            drain(reader);
            take_dockerfile(context?, &name, given)
        };
        return tokio::task::spawn_blocking(work).await.map_err(crate::Error::from)?;
    }
    let context = docker.remote_context(&remote, &name).await?;
    tokio::task::spawn_blocking(move || take_dockerfile(context, &name, given)).await.map_err(crate::Error::from)?
}

/// Reads what is left of a request.
fn drain(reader: impl std::io::Read) {
    // A client that went away sends no more.
    let _ = std::io::copy(&mut reader.take(MAX_REFUSED), &mut std::io::sink());
}

/// Reads the Dockerfile, then leaves out what `.dockerignore` says, which may be the Dockerfile itself.
fn take_dockerfile(mut context: Context, name: &str, given: bool) -> Result<(Context, String), Problem> {
    const MAX: u64 = dockerfile::lines::MAX_SIZE as u64;
    let path = crate::builder::ignore::clean(name);
    if path == ".." || path.starts_with("../") {
        return Err(Problem::bad(format!(
            "failed to read dockerfile: forbidden path outside the build context: {name}"
        )));
    }
    let mut bytes = context.read(&path, MAX)?;
    if bytes.is_none() && !given {
        bytes = context.read("dockerfile", MAX)?;
    }
    let Some(bytes) = bytes else {
        return Err(Problem::bad(format!("Cannot locate specified Dockerfile: {name}")));
    };
    if bytes.is_empty() {
        return Err(Problem::bad(format!("the Dockerfile ({name}) cannot be empty")));
    }
    let text = String::from_utf8(bytes).map_err(|_| Problem::bad(format!("the Dockerfile ({name}) is not UTF-8")))?;
    let own = context.read(&format!("{path}.dockerignore"), MAX)?;
    let ignore = match own {
        Some(own) => Some(own),
        None => context.read(".dockerignore", MAX)?,
    };
    if let Some(ignore) = ignore {
        let ignore = Ignore::read(&String::from_utf8_lossy(&ignore)).map_err(Problem::bad)?;
        context.leave_out(&ignore);
    }
    Ok((context, text))
}

/// Says what happens in the shape that clients read.
fn message(said: Said) -> Value {
    match said {
        Said::Text(text) => json!({ "stream": text }),
        // As dockerd's formatter marks it.
        Said::Stderr(text) => json!({ "stream": format!("\u{1b}[91m{text}\u{1b}[0m") }),
        Said::Value(value) => value,
    }
}

#[expect(clippy::too_many_arguments, reason = "one call, of the parts that were just made")]
async fn carry_out(
    docker: Arc<Docker>,
    request: Request,
    context: Arc<Context>,
    document: Document,
    graph: Graph,
    text: String,
    sender: mpsc::Sender<Bytes>,
    peer: Option<Peer>,
) {
    let (speak, mut listen) = mpsc::channel(BACKLOG);
    let (quiet, client) = (request.quiet, sender.clone());
    let forward = tokio::spawn(async move {
        let mut held: Vec<Bytes> = Vec::new();
        let mut size = 0;
        while let Some(said) = listen.recv().await {
            let bytes = line(&message(said));
            if quiet {
                size += bytes.len();
                if size <= MAX_HELD_BACK {
                    held.push(bytes);
                }
            } else if client.send(bytes).await.is_err() {
                break;
            }
        }
        held
    });
    let output = Output::new(speak);
    let cancel = CancellationToken::new();
    let name = request.dockerfile.clone();
    let gone = async {
        match &peer {
            Some(peer) => peer.gone().await,
            None => std::future::pending().await,
        }
    };
    let built = {
        let work = docker.carry_out(request, context, document, graph, &output, cancel.clone());
        tokio::pin!(work, gone);
        loop {
            tokio::select! {
                built = &mut work => break built,
                () = &mut gone, if !cancel.is_cancelled() => cancel.cancel(),
                () = sender.closed(), if !cancel.is_cancelled() => cancel.cancel(),
                () = docker.stopping.cancelled(), if !cancel.is_cancelled() => cancel.cancel(),
            }
        }
    };
    drop(output);
    let held = forward.await.unwrap_or_default();
    match built {
        Ok(id) if quiet => drop(sender.send(line(&json!({ "stream": format!("{id}\n") }))).await),
        Ok(_) => {}
        Err(failure) => {
            let why = if failure.cancelled { BuildFailure::Cancelled } else { BuildFailure::Step };
            docker.metrics.build_failed(why);
            for bytes in held {
                let _ = sender.send(bytes).await;
            }
            let _ = sender.send(line(&failed(&failure, &name, &text))).await;
        }
    }
}

/// A failure as clients read it: what went wrong first, then where.
fn failed(failure: &Failure, name: &str, text: &str) -> Value {
    let mut message = failure.message.clone();
    if let Some((first, last)) = failure.lines {
        message = format!("{message}\n{}", excerpt(name, text, first, last));
    }
    let mut detail = json!({ "message": message });
    if let Some(code) = failure.code {
        detail["code"] = json!(code);
    }
    json!({ "errorDetail": detail, "error": message })
}

impl Docker {
    /// Builds, and names what was built; the image's id.
    async fn carry_out(
        self: &Arc<Docker>,
        request: Request,
        context: Arc<Context>,
        document: Document,
        graph: Graph,
        output: &Output,
        cancel: CancellationToken,
    ) -> Result<String, Failure> {
        execute::tell_all(output, &document.warnings).await?;
        let images = self.engine.images().clone();
        let hold = images.hold().await;
        let donors = Arc::new(self.donors(&request.cache_from));
        let host = Arc::new(BuildHost::new(self.clone(), &request, cancel.clone()));
        let options = Options {
            arguments: request.arguments.clone(),
            labels: request.labels.clone(),
            no_cache: request.no_cache,
            network: request.network.clone(),
            platform: request.platform.clone(),
            escape: document.escape,
        };
        let maker = Maker { images: images.clone(), donors };
        let snapshots = self.engine.snapshots().clone();
        let dir = self.build_dir().map_err(|problem| Failure::new(problem.message))?;
        let build = Build::new(
            maker,
            snapshots,
            dir,
            host.clone(),
            context,
            graph,
            options,
            cancel.clone(),
            self.build_slots.clone(),
        );
        let built = Arc::new(build).run(output).await;
        // Nothing of a build may be left when it has ended.
        host.settle().await;
        let finished = match built {
            Ok(built) if !cancel.is_cancelled() => self.finish_build(&request, built, output).await,
            Ok(_) => Err(Failure::cancelled()),
            Err(failure) => Err(failure),
        };
        drop(hold);
        let docker = self.clone();
        tokio::task::spawn_blocking(move || docker.keep_build_cache_small());
        finished
    }

    /// Images whose steps may be taken over; one that is not here gives nothing, as with dockerd.
    fn donors(&self, names: &[String]) -> Vec<Donor> {
        let images = self.engine.images();
        let donor = |name: &String| {
            let image = images.find(name)?;
            let (config, layers) = (images.config(&image).ok()?, images.layers(&image).ok()?);
            Some(Donor { config, layers, chains: image.chains.clone() })
        };
        names.iter().filter_map(donor).collect()
    }

    async fn finish_build(&self, request: &Request, built: Built, output: &Output) -> Result<String, Failure> {
        if !built.unused.is_empty() {
            let names = built.unused.join(" ");
            output.text(format!("[Warning] One or more build-args [{names}] were not consumed\n")).await?;
        }
        let state = built.state;
        let id = state.id.clone().ok_or_else(|| Failure::new("No image was generated. Is your Dockerfile empty?"))?;
        let (images, tags) = (self.engine.images().clone(), request.tags.clone());
        let (layers, named) = (state.layers.clone(), id.clone());
        let work = tokio::task::spawn_blocking(move || -> crate::Result<()> {
            let image = match images.find(named.as_str()) {
                Some(image) => image,
                None => images.record_stored(&named, &layers)?,
            };
            let new = tags.iter().filter(|tag| !image.tags.contains(tag));
            new.into_iter().try_for_each(|tag| images.tag(image.id.as_str(), tag).map(drop))
        });
        work.await??;
        output.say(Said::Value(json!({ "aux": { "ID": id } }))).await?;
        output.text(format!("Successfully built {}\n", state.short())).await?;
        for tag in &request.tags {
            let familiar = tag.parse::<Reference>().map_or_else(|_| tag.clone(), |tag| tag.familiar());
            self.events.tell("image", "tag", id.as_str(), Map::from([("name".to_owned(), familiar.clone())]));
            output.text(format!("Successfully tagged {familiar}\n")).await?;
        }
        self.events.tell("builder", "build", id.as_str(), Map::new());
        Ok(id.to_string())
    }
}
