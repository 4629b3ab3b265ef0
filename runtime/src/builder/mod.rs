//! The image builder, apart from the protocol that asks for builds.
//!
//! ```text
//! Dockerfile ─ lines ─ instructions ─ graph of stages ─┬─ stage ─ step ─ step ─ image
//! context (tar → index + one unnamed file) ────────────┘    │
//!                                          cache (parent image + what a step does → image)
//! ```
//!
//! A step makes an image out of an image, as dockerd's classic builder does it: its identity is the parent's id together
//! with what is done, files by their content. Stages that nobody needs are not built; those that do not need each other
//! are built at the same time, and told of one after the other.

pub mod config;
pub mod context;
pub mod copy;
pub mod dockerfile;
pub mod execute;
pub mod files;
pub mod graph;
pub mod ignore;
pub mod mounts;
pub mod pattern;
pub mod state;

use std::{future::Future, path::PathBuf, pin::Pin, sync::Arc};

use tokio::sync::mpsc;

use self::{context::Context, files::NewLayer, state::State};
use crate::{
    error::Error,
    images::{catalogue::ImageRecord, manifest::Platform},
};

/// Why a build ended without an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failure {
    pub message: String,
    /// The exit code of a command that failed.
    pub code: Option<i32>,
    /// The lines of the Dockerfile that it failed at.
    pub lines: Option<(usize, usize)>,
    /// Somebody gave up; there is nothing to tell.
    pub cancelled: bool,
}

impl Failure {
    pub fn new(message: impl Into<String>) -> Failure {
        Failure { message: message.into(), ..Failure::default() }
    }

    pub fn cancelled() -> Failure {
        Failure { message: "the build was cancelled".into(), cancelled: true, ..Failure::default() }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::new(error.to_string())
    }
}

impl From<tokio::task::JoinError> for Failure {
    fn from(error: tokio::task::JoinError) -> Failure {
        Failure::from(Error::from(error))
    }
}

/// What a build says while it goes on.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    Text(String),
    /// A command's standard error.
    Stderr(String),
    /// Progress that is not text.
    Value(serde_json::Value),
}

/// Where a build says it. Who listens slowly is waited for; when nobody listens any more, the build ends.
#[derive(Clone)]
pub struct Output(mpsc::Sender<Said>);

impl Output {
    pub fn new(sender: mpsc::Sender<Said>) -> Output {
        Output(sender)
    }

    pub async fn say(&self, said: Said) -> Result<(), Failure> {
        self.0.send(said).await.map_err(|_| Failure::cancelled())
    }

    pub async fn text(&self, text: impl Into<String>) -> Result<(), Failure> {
        self.say(Said::Text(text.into())).await
    }

    /// Says something that may as well be missed.
    pub fn hint(&self, value: serde_json::Value) {
        let _ = self.0.try_send(Said::Value(value));
    }
}

/// A command to be run over an image.
#[derive(Clone, Debug)]
pub struct RunStep {
    pub image: Arc<ImageRecord>,
    pub arguments: Vec<String>,
    /// `NAME=VALUE`, beside the image's own.
    pub environment: Vec<String>,
    pub network: String,
    pub mounts: Vec<StepMount>,
    /// How the command is shown where it fails.
    pub shown: String,
}

/// What is mounted while a command runs.
#[derive(Clone, Debug)]
pub enum StepMount {
    Bind { source: PathBuf, target: String, read_only: bool },
    Tmpfs { target: String, size: Option<u64> },
}

pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a build needs of where it runs.
pub trait Host: Send + Sync {
    /// The image of a name: one that is here, or pulled.
    fn image<'a>(
        &'a self,
        name: &'a str,
        platform: Option<&'a Platform>,
        output: &'a Output,
    ) -> Pending<'a, Result<Arc<ImageRecord>, Failure>>;

    /// Runs a command in a container and keeps what it changed.
    fn run<'a>(&'a self, step: RunStep, output: &'a Output) -> Pending<'a, Result<Option<NewLayer>, Failure>>;

    /// Fetches a file of the web into a context, under the name `file`.
    fn fetch<'a>(&'a self, url: &'a str) -> Pending<'a, Result<Context, Failure>>;

    /// The directory that a cache mount of this name has, kept for as long as the answer is.
    fn cache_mount<'a>(&'a self, mount: &'a mounts::Mount) -> Pending<'a, Result<CacheMount, Failure>>;
}

/// A cache mount in use.
pub struct CacheMount {
    pub path: PathBuf,
    /// New, so that it may be filled.
    pub fresh: bool,
    pub guard: Box<dyn std::any::Any + Send + Sync>,
}

/// A finished build.
#[derive(Clone, Debug)]
pub struct Built {
    pub state: State,
    /// Arguments that were given and that nothing asked for.
    pub unused: Vec<String>,
}
