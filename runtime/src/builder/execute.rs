//! Stages carried out: one task a stage, their output in the order of the Dockerfile.

mod copying;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::{JoinSet, spawn_blocking},
};
use tokio_util::sync::CancellationToken;

use super::{
    Built, CacheMount, Failure, Host, Output, RunStep, Said, StepMount,
    config::{self, Scope},
    context::Context,
    copy::{self, Wanted},
    dockerfile::{
        self,
        instruction::{Command, Copy, Instruction, Placed, Run},
    },
    files::{NewLayer, Source, View, make_layer},
    graph::{Graph, Stage},
    mounts::{self, Mount},
    state::{Maker, State},
};
use crate::{
    digest::Digest,
    images::manifest::{ImageConfig, Platform},
    snapshots::{Snapshotter, apply},
};

/// What a stage that has to wait for its turn may have said before it waits.
const BACKLOG: usize = 256;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Options {
    pub arguments: BTreeMap<String, Option<String>>,
    pub labels: BTreeMap<String, String>,
    pub no_cache: bool,
    pub network: String,
    pub platform: Option<Platform>,
    pub escape: char,
}

/// A build.
pub struct Build {
    pub maker: Maker,
    pub snapshots: Arc<dyn Snapshotter>,
    /// Where mount points and files for a moment may be made.
    pub dir: PathBuf,
    pub host: Arc<dyn Host>,
    pub context: Arc<Context>,
    pub graph: Graph,
    pub options: Options,
    pub cancel: CancellationToken,
    /// Commands that may run at once, of all builds.
    pub slots: Arc<Semaphore>,
    finished: Vec<watch::Sender<Option<Option<State>>>>,
    /// The stage that is heard now: it needs no slot, since those that hold one may wait for it to be heard out.
    turn: watch::Sender<usize>,
    used: Mutex<BTreeSet<String>>,
}

/// A stage while it is carried out.
struct Work {
    index: usize,
    state: State,
    scope: Scope,
    /// A step was not in the cache, so none after it can be.
    missed: bool,
    output: Output,
}

impl Build {
    #[expect(clippy::too_many_arguments, reason = "a build has these parts, each given once")]
    pub fn new(
        maker: Maker,
        snapshots: Arc<dyn Snapshotter>,
        dir: PathBuf,
        host: Arc<dyn Host>,
        context: Arc<Context>,
        graph: Graph,
        options: Options,
        cancel: CancellationToken,
        slots: Arc<Semaphore>,
    ) -> Build {
        let finished = graph.stages.iter().map(|_| watch::Sender::new(None)).collect();
        Build {
            maker,
            snapshots,
            dir,
            host,
            context,
            graph,
            options,
            cancel,
            slots,
            turn: watch::Sender::new(0),
            finished,
            used: Mutex::default(),
        }
    }

    /// Carries out what the target needs.
    pub async fn run(self: Arc<Self>, output: &Output) -> Result<Built, Failure> {
        let wanted = self.graph.wanted();
        let steps = |stage: usize| self.graph.stages[stage].steps.len() + 1;
        let total = self.graph.global_steps.len()
            + wanted.iter().map(|&stage| steps(stage)).sum::<usize>()
            + self.options.labels.len();
        for (index, placed) in self.graph.global_steps.iter().enumerate() {
            output.text(format!("Step {}/{total} : {}\n", index + 1, placed.text)).await?;
            if let Instruction::Arg(arguments) = &placed.instruction {
                self.used.lock().extend(arguments.iter().map(|(name, _)| name.clone()));
            }
        }
        let mut tasks = JoinSet::new();
        let mut heard = Vec::new();
        let mut next = self.graph.global_steps.len() + 1;
        for &stage in &wanted {
            let (sender, receiver) = mpsc::channel(BACKLOG);
            heard.push(receiver);
            let (build, first) = (self.clone(), next);
            next += steps(stage);
            tasks.spawn(async move {
                let made = build.stage(stage, first, total, Output::new(sender)).await;
                build.finished[stage].send_replace(Some(made.as_ref().ok().cloned()));
                if made.is_err() {
                    build.cancel.cancel();
                }
                (stage, made)
            });
        }
        let mut lost = None;
        'stages: for (receiver, stage) in heard.iter_mut().zip(&wanted) {
            self.turn.send_replace(*stage);
            while let Some(said) = receiver.recv().await {
                if let Err(failure) = output.say(said).await {
                    lost = Some(failure);
                    break 'stages;
                }
            }
        }
        if lost.is_some() {
            self.cancel.cancel();
        }
        // Stages that still speak find nobody listening; they end, and nothing of theirs is left.
        drop(heard);
        let (mut state, mut failure) = (None, lost);
        while let Some(ended) = tasks.join_next().await {
            match ended.map_err(Failure::from) {
                Ok((stage, Ok(made))) if stage == self.graph.target => state = Some(made),
                Ok((_, Ok(_))) => {}
                Ok((_, Err(error))) | Err(error) => {
                    // What a stage ended for because another failed is not why the build failed.
                    if failure.as_ref().is_none_or(|other: &Failure| other.cancelled) {
                        failure = Some(error);
                    }
                }
            }
        }
        match (failure, state) {
            (Some(failure), _) => Err(failure),
            (None, Some(state)) => Ok(Built { state, unused: self.unused() }),
            (None, None) => Err(Failure::new("the build ended without an image")),
        }
    }

    fn unused(&self) -> Vec<String> {
        let used = self.used.lock();
        let names = self.options.arguments.keys();
        names.filter(|name| !used.contains(*name) && !config::is_predefined(name)).cloned().collect()
    }

    /// The image of a stage that was begun, once it is done.
    async fn stage_done(&self, stage: usize) -> Result<State, Failure> {
        let mut finished = self.finished[stage].subscribe();
        let waited = tokio::select! {
            done = finished.wait_for(Option::is_some) => done.ok().and_then(|done| done.clone()).flatten(),
            () = self.cancel.cancelled() => None,
        };
        waited.ok_or_else(Failure::cancelled)
    }

    async fn stage(
        self: &Arc<Self>,
        index: usize,
        first: usize,
        total: usize,
        output: Output,
    ) -> Result<State, Failure> {
        let stage = &self.graph.stages[index];
        output.text(format!("Step {first}/{total} : {}\n", stage.placed.text)).await?;
        let at = |lines: &Placed| (lines.first, lines.last);
        let state = self.base(stage, &output).await.map_err(|failure| located(failure, at(&stage.placed)))?;
        let triggers = state.config.config.on_build.clone();
        if triggers.is_empty() {
            output.text(format!(" ---> {}\n", state.short())).await?;
        }
        let scope = Scope::new(self.options.escape, &self.options.arguments, &self.graph.global);
        let mut work = Work { index, state, scope, missed: self.options.no_cache, output };
        if !triggers.is_empty() {
            self.triggers(&mut work, &triggers).await.map_err(|failure| located(failure, at(&stage.placed)))?;
        }
        let mut number = first;
        for step in &stage.steps {
            number += 1;
            work.output.text(format!("Step {number}/{total} : {}\n", step.text)).await?;
            self.step(&mut work, &step.instruction).await.map_err(|failure| located(failure, at(step)))?;
            work.output.text(format!(" ---> {}\n", work.state.short())).await?;
        }
        if index == self.graph.target {
            for (name, value) in &self.options.labels {
                number += 1;
                work.output.text(format!("Step {number}/{total} : LABEL {name}={value}\n")).await?;
                self.label(&mut work, name, value).await?;
                work.output.text(format!(" ---> {}\n", work.state.short())).await?;
            }
        }
        if work.state.id.is_none() {
            return Err(Failure::new("No image was generated. Is your Dockerfile empty?"));
        }
        Ok(work.state)
    }

    /// What a stage begins with.
    async fn base(&self, stage: &Stage, output: &Output) -> Result<State, Failure> {
        if let Some(parent) = stage.parent {
            return self.stage_done(parent).await;
        }
        let platform = match stage.platform.as_deref() {
            Some(text) => Some(text.parse::<Platform>()?),
            None => self.options.platform.clone(),
        };
        if stage.base == "scratch" {
            return Ok(State::scratch(&platform.unwrap_or_else(Platform::own)));
        }
        self.named_image(&stage.base, platform.as_ref(), output).await
    }

    async fn named_image(&self, name: &str, platform: Option<&Platform>, output: &Output) -> Result<State, Failure> {
        let image = tokio::select! {
            image = self.host.image(name, platform, output) => image?,
            () = self.cancel.cancelled() => return Err(Failure::cancelled()),
        };
        let images = self.maker.images.clone();
        Ok(spawn_blocking(move || State::of(&images, &image)).await??)
    }

    /// What the base wants done by those who build on it.
    async fn triggers(self: &Arc<Self>, work: &mut Work, triggers: &[String]) -> Result<(), Failure> {
        let word = if triggers.len() == 1 { "trigger" } else { "triggers" };
        work.output.text(format!("# Executing {} build {word}\n", triggers.len())).await?;
        work.state.config.config.on_build.clear();
        for trigger in triggers {
            let wrong = |mistake: dockerfile::Mistake| Failure::new(format!("ONBUILD {trigger}: {mistake}"));
            let all = dockerfile::lines::read(trigger).and_then(|document| dockerfile::parse(&document));
            for placed in all.map_err(wrong)? {
                if matches!(placed.instruction, Instruction::From(_) | Instruction::Onbuild(_)) {
                    return Err(Failure::new(format!("ONBUILD {trigger} isn't allowed as an ONBUILD trigger")));
                }
                self.step(work, &placed.instruction).await?;
            }
        }
        work.output.text(format!(" ---> {}\n", work.state.short())).await
    }

    async fn step(self: &Arc<Self>, work: &mut Work, instruction: &Instruction) -> Result<(), Failure> {
        if self.cancel.is_cancelled() {
            return Err(Failure::cancelled());
        }
        match instruction {
            Instruction::Run(run) => self.run_command(work, run).await,
            Instruction::Copy(copy) => self.copy(work, copy).await,
            Instruction::Workdir(path) => self.working_dir(work, path).await,
            Instruction::From(_) => Err(Failure::new("FROM inside of a stage")),
            other => {
                if let Instruction::Arg(arguments) = other {
                    self.used.lock().extend(arguments.iter().map(|(name, _)| name.clone()));
                }
                let mut config = work.state.config.clone();
                let told = config::apply(other, &mut config, &mut work.scope).map_err(Failure::new)?;
                self.settle(work, config, told).await
            }
        }
    }

    async fn label(self: &Arc<Self>, work: &mut Work, name: &str, value: &str) -> Result<(), Failure> {
        let mut config = work.state.config.clone();
        config.config.labels.insert(name.into(), value.into());
        let told = config::told(&config, &format!(" LABEL {name}={value}"));
        self.settle(work, config, told).await
    }

    /// A step that changes the configuration alone: found, or made.
    async fn settle(&self, work: &mut Work, config: ImageConfig, told: String) -> Result<(), Failure> {
        let key = self.set_parent(work, config, &told, "");
        if self.found(work, &key.0, &told, &key.1).await? {
            return Ok(());
        }
        self.make(work, key.0, told, None, key.1).await
    }

    /// The configuration with its parent's id, as dockerd writes it down, and the step's key.
    fn set_parent(&self, work: &Work, mut config: ImageConfig, told: &str, more: &str) -> (ImageConfig, String) {
        let parent = work.state.id.as_ref().map(Digest::to_string).unwrap_or_default();
        config.config.other.insert("Image".into(), parent.into());
        let key = work.state.key(told, &config, more);
        (config, key)
    }

    /// Takes a step's image from the cache, if it is there.
    async fn found(&self, work: &mut Work, config: &ImageConfig, told: &str, key: &str) -> Result<bool, Failure> {
        if work.missed {
            return Ok(false);
        }
        let (maker, before, config) = (self.maker.clone(), work.state.clone(), config.clone());
        let (told, key) = (told.to_owned(), key.to_owned());
        let found = spawn_blocking(move || -> Result<Option<State>, Failure> {
            match maker.cached(&key)? {
                Some(state) => Ok(Some(state)),
                None => maker.donated(&before, &config, &told, &key),
            }
        });
        let Some(state) = found.await?? else {
            work.missed = true;
            return Ok(false);
        };
        work.state = state;
        work.output.text(" ---> Using cache\n").await?;
        Ok(true)
    }

    async fn make(
        &self,
        work: &mut Work,
        config: ImageConfig,
        told: String,
        layer: Option<NewLayer>,
        key: String,
    ) -> Result<(), Failure> {
        let (maker, before) = (self.maker.clone(), work.state.clone());
        work.state = spawn_blocking(move || maker.make(&before, config, &told, layer, &key)).await??;
        Ok(())
    }

    async fn working_dir(&self, work: &mut Work, path: &str) -> Result<(), Failure> {
        let mut config = work.state.config.clone();
        let path = work.scope.expand(path, &config).map_err(Failure::new)?;
        if path.is_empty() {
            return Err(Failure::new("cannot normalize nothing"));
        }
        let whole = format!("/{}/{path}", if path.starts_with('/') { "" } else { &*config.config.working_dir });
        config.config.working_dir = crate::docker::containers::mounts::clean(&whole);
        let path = config.config.working_dir.clone();
        let told = config::told(&config, &format!("WORKDIR {path}"));
        let (config, key) = self.set_parent(work, config, &told, "");
        if self.found(work, &config, &told, &key).await? {
            return Ok(());
        }
        let (images, snapshots, dir) = (self.maker.images.clone(), self.snapshots.clone(), self.dir.clone());
        let top = work.state.top().cloned();
        let layer = spawn_blocking(move || -> Result<_, Failure> {
            let view = View::open(&snapshots, &dir, top.as_ref())?;
            Ok(make_layer(&images, top.as_ref(), |layer| copy::write_directory(&path, &view, seconds(), layer))?)
        });
        let layer = layer.await??;
        self.make(work, config, told, layer, key).await
    }

    async fn run_command(self: &Arc<Self>, work: &mut Work, run: &Run) -> Result<(), Failure> {
        let config = work.state.config.clone();
        let network = match run.network.as_deref() {
            None | Some("default") => self.options.network.clone(),
            Some(mode @ ("none" | "host")) => mode.to_owned(),
            Some(other) => return Err(Failure::new(format!("invalid network mode {other:?}"))),
        };
        match run.security.as_deref() {
            None | Some("sandbox") => {}
            Some(other) => return Err(Failure::new(format!("RUN --security={other} is not supported by this engine"))),
        }
        let (arguments, script) = command_of(run, &config);
        let told = {
            let values = work.scope.told_arguments(&config);
            let prefix = if values.is_empty() { vec![] } else { vec![format!("|{}", values.len())] };
            prefix.into_iter().chain(values).chain(arguments.clone()).collect::<Vec<_>>().join(" ")
        };
        let mut wanted = Vec::new();
        for text in &run.mounts {
            let text = work.scope.expand(text, &config).map_err(Failure::new)?;
            wanted
                .push(mounts::parse(&text).map_err(|error| Failure::new(format!("invalid --mount={text}: {error}")))?);
        }
        let (mut sources, mut sums) = (Vec::new(), Vec::new());
        for mount in &wanted {
            let files = self.mount_files(work, mount).await?;
            sums.push(files.as_ref().map(|files| files.sum.clone()).unwrap_or_default());
            sources.push(files);
        }
        let more = format!("{:?} {network} {:?} {script:?} {sums:?}", run.mounts, run.security);
        let (config, key) = self.set_parent(work, config, &told, &more);
        if self.found(work, &config, &told, &key).await? {
            return Ok(());
        }
        let (mut mounted, mut kept) = (Vec::new(), Vec::new());
        for (mount, files) in wanted.iter().zip(sources) {
            self.mount(mount, files, &config, &mut mounted, &mut kept).await?;
        }
        if let Some(script) = script {
            let file = Script::write(&self.dir, &script)?;
            mounted.push(StepMount::Bind { source: file.0.clone(), target: SCRIPT.to_owned(), read_only: true });
            kept.push(Kept::Script { _file: file });
        }
        let id = match &work.state.id {
            Some(id) => id.clone(),
            None => self.maker.images.store_config(&work.state.config)?,
        };
        // The container is made of the image as it is, and its command sees the arguments too.
        let values = work.scope.arguments(&config);
        let step = RunStep {
            image: Arc::new(work.state.record(id)),
            shown: arguments.join(" "),
            arguments,
            environment: values.iter().map(|(name, value)| format!("{name}={value}")).collect(),
            network,
            mounts: mounted,
        };
        let mut turn = self.turn.subscribe();
        let _slot = tokio::select! {
            slot = self.slots.clone().acquire_owned() => slot.ok(),
            _ = turn.wait_for(|stage| *stage == work.index) => None,
            () = self.cancel.cancelled() => return Err(Failure::cancelled()),
        };
        let layer = self.host.run(step, &work.output).await?;
        drop(kept);
        self.make(work, config, told, layer, key).await
    }

    /// The files that a mount shows.
    async fn mount_files(&self, work: &Work, mount: &Mount) -> Result<Option<MountFiles>, Failure> {
        let filled = mount.kind == "bind" || mount.kind == "cache" && mount.from.is_some();
        if !filled {
            return Ok(None);
        }
        let top = match &mount.from {
            Some(name) => Some(self.source(work, name).await?.chains.last().cloned()),
            None => None,
        };
        let path = if mount.source.is_empty() { "/".to_owned() } else { mount.source.clone() };
        let copy = Copy { sources: vec![path.clone()], destination: "/".into(), ..Copy::default() };
        let wanted = Wanted { copy, working_dir: "/".into() };
        let (snapshots, dir, context) = (self.snapshots.clone(), self.dir.clone(), self.context.clone());
        let found = spawn_blocking(move || -> Result<_, Failure> {
            let source = match &top {
                Some(top) => Source::View(View::open(&snapshots, &dir, top.as_ref())?),
                None => Source::Context(context),
            };
            let groups = copy::find(&wanted, &source)?;
            Ok(MountFiles { sum: copy::sum(&groups), source, groups })
        });
        Ok(Some(found.await??))
    }

    async fn mount(
        &self,
        mount: &Mount,
        files: Option<MountFiles>,
        config: &ImageConfig,
        mounted: &mut Vec<StepMount>,
        kept: &mut Vec<Kept>,
    ) -> Result<(), Failure> {
        let whole = format!("/{}/{}", config.config.working_dir, mount.target);
        let target = if mount.target.starts_with('/') { mount.target.clone() } else { whole };
        let target = crate::docker::containers::mounts::clean(&target);
        match mount.kind.as_str() {
            "tmpfs" => mounted.push(StepMount::Tmpfs { target, size: mount.size }),
            "cache" => {
                let named = Mount { target: target.clone(), ..mount.clone() };
                let cache = self.host.cache_mount(&named).await?;
                let source = cache.path.clone();
                if let (true, Some(files)) = (cache.fresh, files) {
                    let (_, draft) = self.lay_out(files).await?;
                    let (from, to) = (draft.root(), source.clone());
                    spawn_blocking(move || apply::copy_tree(&from, &to)).await??;
                }
                let read_only = mount.read_only.unwrap_or(false);
                mounted.push(StepMount::Bind { source, target, read_only });
                kept.push(Kept::Cache { _mount: cache });
            }
            _ => {
                let Some(files) = files else { return Err(Failure::new("a bind mount without files")) };
                let (name, draft) = self.lay_out(files).await?;
                let read_only = mount.read_only.unwrap_or(true);
                let source = name.map_or_else(|| draft.root(), |name| draft.root().join(name));
                mounted.push(StepMount::Bind { source, target, read_only });
                kept.push(Kept::Files { _draft: draft });
            }
        }
        Ok(())
    }

    /// Puts files into a directory of their own; the name of the one if there is one only.
    async fn lay_out(&self, files: MountFiles) -> Result<(Option<String>, crate::snapshots::Draft), Failure> {
        let (images, snapshots, dir) = (self.maker.images.clone(), self.snapshots.clone(), self.dir.clone());
        let laid = spawn_blocking(move || -> Result<_, Failure> {
            let draft = snapshots.draft(None)?;
            let single = match &files.groups[..] {
                [group] if group.kind == copy::GroupKind::File => Some(group.name.clone()),
                _ => None,
            };
            let copy = Copy { destination: "/".into(), ..Copy::default() };
            let wanted = Wanted { copy, working_dir: "/".into() };
            let view = View::open(&snapshots, &dir, None)?;
            let mut written = Ok(());
            // Through a layer's tar, so that nothing is ever made but by the one that unpacks safely.
            let stored = images.write_layer(|writer| {
                let mut layer = super::files::LayerWriter::new(writer);
                written = copy::write(&wanted, &files.groups, &files.source, &view, seconds(), &mut layer);
                layer.finish()
            })?;
            written?;
            images.unpack_into(&stored, &draft)?;
            Ok((single, draft))
        });
        laid.await?
    }
}

/// What a mount shows before it is mounted.
struct MountFiles {
    sum: String,
    source: Source,
    groups: Vec<copy::Group>,
}

/// What lasts as long as a command runs.
enum Kept {
    Files { _draft: crate::snapshots::Draft },
    Cache { _mount: CacheMount },
    Script { _file: Script },
}

/// Where a heredoc with an interpreter of its own is run from.
const SCRIPT: &str = "/dev/pipes/EOF";

/// A heredoc as a program.
struct Script(PathBuf);

impl Script {
    fn write(dir: &std::path::Path, text: &str) -> Result<Script, Failure> {
        use std::os::unix::fs::PermissionsExt;
        let path = dir.join(format!("script-{}", &crate::engine::model::new_id()[..16]));
        let script = Script(path);
        std::fs::write(&script.0, text)
            .and_then(|()| std::fs::set_permissions(&script.0, std::fs::Permissions::from_mode(0o755)))
            .map_err(|error| Failure::new(format!("write a heredoc: {error}")))?;
        Ok(script)
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // What is left goes with the next start.
        let _ = std::fs::remove_file(&self.0);
    }
}

fn located(failure: Failure, lines: (usize, usize)) -> Failure {
    Failure { lines: failure.lines.or(Some(lines)), ..failure }
}

fn seconds() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0)
}

/// The words of a command; and a script that is mounted for it, where a heredoc names its own interpreter
/// (<https://docs.docker.com/reference/dockerfile/#here-documents>).
fn command_of(run: &Run, config: &ImageConfig) -> (Vec<String>, Option<String>) {
    let Command::Shell(line) = &run.command else { return (config::words(&run.command, config), None) };
    let with_shell = |text: String| config::words(&Command::Shell(text), config);
    match &run.heredocs[..] {
        [] => (with_shell(line.clone()), None),
        [heredoc] if line.starts_with("<<") && !line.contains(char::is_whitespace) => {
            let text = heredoc.text();
            if text.starts_with("#!") { (vec![SCRIPT.into()], Some(text)) } else { (with_shell(text), None) }
        }
        heredocs => {
            // The shell reads them itself.
            let bodies: String =
                heredocs.iter().map(|heredoc| format!("\n{}{}", heredoc.content, heredoc.name)).collect();
            (with_shell(format!("{line}{bodies}")), None)
        }
    }
}

/// For those who tell a whole text at once.
pub async fn tell_all(output: &Output, lines: &[String]) -> Result<(), Failure> {
    for line in lines {
        output.say(Said::Stderr(format!("{line}\n"))).await?;
    }
    Ok(())
}
