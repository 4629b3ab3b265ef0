//! COPY and ADD carried out: what is meant, whether it was done before, and the layer that it makes.

use std::sync::Arc;

use tokio::task::spawn_blocking;

use super::{
    super::{
        Failure, config,
        copy::{self, Wanted},
        dockerfile::{expand::Shell, instruction::Copy},
        files::{LayerWriter, NewLayer, Source, View, make_layer},
        graph::named,
        state::State,
    },
    Build, Work, seconds,
};
use crate::digest::Digest;

/// What a layer is known by that does not depend on what is below it
/// (<https://docs.docker.com/reference/dockerfile/#copy---link>).
fn link_key(wanted: &Wanted, flags: &str, sum: &str) -> String {
    let copy = &wanted.copy;
    let parts = format!(
        "{:?} {} {:?} {flags} {sum} {:?} {:?}",
        copy.add, copy.parents, copy.unpack, wanted.working_dir, copy.destination
    );
    Digest::of(parts.as_bytes()).to_string()
}

impl Build {
    pub(super) async fn copy(self: &Arc<Self>, work: &mut Work, copy: &Copy) -> Result<(), Failure> {
        let wanted = self.copy_wanted(work, copy)?;
        let (keyword, copy) = (if copy.add { "ADD" } else { "COPY" }, &wanted.copy);
        let source = match &copy.from {
            Some(name) => Some(self.source(work, name).await?),
            None => None,
        };
        let mut extra = Vec::new();
        for heredoc in &copy.heredocs {
            let mut text = heredoc.text();
            if heredoc.expand {
                text = self.expand_heredoc(work, &text)?;
            }
            extra.push(copy::inline(&heredoc.name, &text));
        }
        for url in copy.sources.iter().filter(|source| copy.add && copy::is_url(source)) {
            extra.push(self.fetched(work, url, copy).await?);
        }
        let (snapshots, dir, context) = (self.snapshots.clone(), self.dir.clone(), self.context.clone());
        let (found, top) = (wanted.clone(), source.as_ref().map(|state| state.chains.last().cloned()));
        let look = move || -> Result<_, Failure> {
            let source = match &top {
                Some(top) => Source::View(View::open(&snapshots, &dir, top.as_ref())?),
                None => Source::Context(context),
            };
            let groups = copy::find(&found, &source)?;
            Ok((source, groups))
        };
        // Files of an image do not change: what they were compared by is remembered.
        let remembered = source.as_ref().map(|state| {
            let top = state.chains.last().map_or("", Digest::as_str);
            format!("{top}\0{:?}\0{:?}\0{}", copy.sources, copy.excludes, copy.parents)
        });
        let cache = self.maker.images.build_cache();
        let known = remembered.as_ref().and_then(|key| cache.sum(key)).filter(|_| !work.missed && extra.is_empty());
        let mut groups = None;
        let (sum, look) = match known {
            Some(sum) => (sum, Some(look)),
            None => {
                let (source, mut found) = spawn_blocking(look).await??;
                found.append(&mut extra);
                if found.is_empty() {
                    return Err(Failure::new(format!("{keyword} failed: no source files were specified")));
                }
                let sum = copy::sum(&found);
                if let Some(key) = remembered {
                    cache.remember_sum(key, sum.clone());
                }
                groups = Some((source, found));
                (sum, None)
            }
        };
        let flags: String = [("chown", &copy.chown), ("chmod", &copy.chmod)]
            .into_iter()
            .filter_map(|(name, value)| value.as_ref().map(|value| format!("--{name}={value} ")))
            .collect();
        let config = work.state.config.clone();
        let told = config::told(&config, &format!("{keyword} {flags}{sum} in {} ", copy.destination));
        let more = format!("{} {:?} {}", copy.parents, copy.unpack, copy.link);
        let (config, key) = self.set_parent(work, config, &told, &more);
        if self.found(work, &config, &told, &key).await? {
            return Ok(());
        }
        let (source, groups) = match (groups, look) {
            (Some(groups), _) => groups,
            (None, Some(look)) => spawn_blocking(look).await??,
            (None, None) => return Err(Failure::cancelled()),
        };
        let top = work.state.top().cloned();
        let link = copy.link.then(|| link_key(&wanted, &flags, &sum));
        if let Some(link) = link.as_ref().filter(|_| !self.options.no_cache) {
            let (maker, link, top) = (self.maker.clone(), link.clone(), top.clone());
            if let Some(layer) = spawn_blocking(move || maker.linked(&link, top.as_ref())).await?? {
                work.output.text(" ---> Using cached layer\n").await?;
                return self.make(work, config, told, Some(layer), key).await;
            }
        }
        let (images, snapshots, dir) = (self.maker.images.clone(), self.snapshots.clone(), self.dir.clone());
        let layer = spawn_blocking(move || -> Result<_, Failure> {
            // A linked layer looks at nothing below it, so that it fits on anything.
            let view = View::open(&snapshots, &dir, top.as_ref().filter(|_| link.is_none()))?;
            let write = |layer: &mut LayerWriter<'_>| copy::write(&wanted, &groups, &source, &view, seconds(), layer);
            let made = make_layer(&images, top.as_ref(), write)?;
            Ok(made.map(|layer| NewLayer { link, ..layer }))
        });
        let layer = layer.await??;
        self.make(work, config, told, layer, key).await
    }

    fn copy_wanted(&self, work: &Work, copy: &Copy) -> Result<Wanted, Failure> {
        let config = &work.state.config;
        let expand = |text: &String| work.scope.expand(text, config).map_err(Failure::new);
        let maybe = |text: &Option<String>| text.as_ref().map(expand).transpose();
        let wanted = Copy {
            sources: copy.sources.iter().map(expand).collect::<Result<_, _>>()?,
            destination: expand(&copy.destination)?,
            chown: maybe(&copy.chown)?,
            chmod: maybe(&copy.chmod)?,
            checksum: maybe(&copy.checksum)?,
            excludes: copy.excludes.iter().map(expand).collect::<Result<_, _>>()?,
            ..copy.clone()
        };
        if wanted.keep_git_dir {
            return Err(Failure::new("ADD --keep-git-dir is for git sources, which this engine does not support"));
        }
        for source in &wanted.sources {
            let git = source.starts_with("git@") || source.starts_with("git://") || source.ends_with(".git");
            if copy.add && (git || source.contains(".git#")) {
                return Err(Failure::new(format!("ADD {source}: git sources are not supported by this engine")));
            }
            if !copy.add && copy::is_url(source) {
                return Err(Failure::new(format!("COPY {source}: source can't be a URL for COPY")));
            }
        }
        let urls = wanted.sources.iter().filter(|source| copy::is_url(source)).count();
        if wanted.checksum.is_some() && (urls != 1 || wanted.sources.len() != 1) {
            return Err(Failure::new("checksum requires a single HTTP(S) URL as source"));
        }
        Ok(Wanted { copy: wanted, working_dir: config.config.working_dir.clone() })
    }

    fn expand_heredoc(&self, work: &Work, text: &str) -> Result<String, Failure> {
        let arguments = work.scope.arguments(&work.state.config);
        let env = &work.state.config.config.env;
        let of_image = |name: &str| {
            env.iter()
                .filter_map(|entry| entry.split_once('='))
                .find(|(own, _)| *own == name)
                .map(|(_, it)| it.to_owned())
        };
        let lookup = |name: &str| of_image(name).or_else(|| arguments.get(name).cloned());
        Shell::new(self.options.escape).text(text, &lookup).map_err(Failure::new)
    }

    async fn fetched(&self, work: &Work, url: &str, copy: &Copy) -> Result<copy::Group, Failure> {
        let path = url.split(['?', '#']).next().unwrap_or(url);
        let name = path.splitn(4, '/').nth(3).unwrap_or("").rsplit('/').next().unwrap_or("").to_owned();
        if name.is_empty() && copy.destination.ends_with('/') {
            return Err(Failure::new(format!("cannot determine filename for source {url}")));
        }
        work.output.text(format!("Downloading {url}\n")).await?;
        let context = tokio::select! {
            context = self.host.fetch(url) => Arc::new(context?),
            () = self.cancel.cancelled() => return Err(Failure::cancelled()),
        };
        if let Some(expected) = &copy.checksum {
            let expected: Digest =
                expected.parse().map_err(|_| Failure::new(format!("invalid checksum digest format: {expected}")))?;
            let (held, mut hasher) = (context.clone(), expected.hasher());
            let actual = spawn_blocking(move || -> Result<Digest, Failure> {
                let entry = held.at("file").ok_or_else(|| Failure::new("what was fetched is not there"))?;
                let (mut reader, mut buffer) = (held.open(&entry.content), vec![0; 128 << 10]);
                loop {
                    let count = reader.read(&mut buffer).map_err(|error| Failure::new(error.to_string()))?;
                    if count == 0 {
                        return Ok(hasher.finish());
                    }
                    hasher.update(&buffer[..count]);
                }
            });
            let actual = actual.await??;
            if actual != expected {
                return Err(Failure::new(format!("digest mismatch {actual}: {expected}")));
            }
        }
        let unpack = copy.unpack == Some(true);
        let mut group = spawn_blocking(move || copy::fetched(&context, "file", unpack)).await??;
        group.name = name;
        Ok(group)
    }

    /// The stage or image that files are taken from.
    pub(super) async fn source(&self, work: &Work, name: &str) -> Result<State, Failure> {
        let invalid = |why: &str| Failure::new(format!("invalid from flag value {name}: {why}"));
        let own = &self.graph.stages[work.index];
        if name.parse() == Ok(work.index) || own.from.name.as_deref() == Some(&name.to_lowercase()) {
            return Err(invalid("refers to current build stage"));
        }
        if name.is_empty() {
            return Err(invalid("it is empty"));
        }
        match named(&self.graph.stages[..work.index], name) {
            // A trigger of the base may name a stage that nobody else needs.
            Some(stage) if !self.graph.wanted().contains(&stage) => Err(invalid("the stage is not built")),
            Some(stage) => self.stage_done(stage).await,
            None => {
                let image = self.named_image(name, self.options.platform.as_ref(), &work.output).await;
                image.map_err(|failure| if failure.cancelled { failure } else { invalid(&failure.message) })
            }
        }
    }
}
