//! `exec` and `attach`: a process in a container, with the user's streams.

use clap::Args;
use coracle_api::meta;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;

use crate::{
    error::{Error, Result},
    pods,
    session::Session,
    terminal::{self, Wanted},
};

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  kubectl-lite exec web-0 -- cat /etc/hosts\n  kubectl-lite exec -it deployment/web -- sh\n  echo hello | kubectl-lite exec -i web-0 -- cat"
)]
pub struct Options {
    /// POD or TYPE/NAME
    resource: String,
    #[command(flatten)]
    streams: Streams,
    /// The command and its arguments
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  kubectl-lite attach web-0\n  kubectl-lite attach -it web-0")]
pub struct Attach {
    /// POD or TYPE/NAME
    resource: String,
    #[command(flatten)]
    streams: Streams,
}

#[derive(Debug, Args)]
pub struct Streams {
    /// The container
    #[arg(short, long)]
    pub container: Option<String>,
    /// Pass standard input on
    #[arg(short = 'i', long)]
    pub stdin: bool,
    /// Standard input is a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Print only what the process prints
    #[arg(short, long)]
    pub quiet: bool,
}

impl Streams {
    fn wanted(&self) -> Wanted {
        Wanted { stdin: self.stdin, tty: self.tty }.checked()
    }
}

pub async fn run(session: &Session, options: &Options) -> Result<()> {
    let pod = pods::of(session, &options.resource, "exec into").await?;
    let container = pods::container(&pod, options.streams.container.as_deref(), options.streams.quiet)?;
    if let phase @ ("Succeeded" | "Failed") = pod["status"]["phase"].as_str().unwrap_or_default() {
        let name = meta::name(&pod);
        return Err(Error::usage(format!(
            "cannot exec into a container in a completed pod; current phase is {phase} of pod {name}"
        )));
    }
    let wanted = options.streams.wanted();
    let process = api(session).exec(meta::name(&pod), &options.command, &wanted.parameters(&container)).await?;
    terminal::join(process, wanted).await
}

pub async fn attach(session: &Session, options: &Attach) -> Result<()> {
    let pod = pods::of(session, &options.resource, "attach to").await?;
    let container = pods::container(&pod, options.streams.container.as_deref(), options.streams.quiet)?;
    join(session, meta::name(&pod), &container, options.streams.wanted(), options.streams.quiet).await
}

/// Attaches to a container's first process.
pub async fn join(session: &Session, pod: &str, container: &str, wanted: Wanted, quiet: bool) -> Result<()> {
    let process = api(session).attach(pod, &wanted.parameters(container)).await?;
    if wanted.tty && !quiet {
        eprintln!("If you don't see a command prompt, try pressing enter.");
    }
    terminal::join(process, wanted).await
}

/// The pods of the session's namespace.
pub fn api(session: &Session) -> Api<Pod> {
    Api::namespaced(session.client(), session.namespace())
}
