//! The verbs: one file and one row each.

mod annotate;
mod api_resources;
mod apply;
mod completion;
mod config;
mod cp;
mod create;
mod delete;
mod describe;
mod exec;
mod explain;
pub(crate) mod get;
mod logs;
mod patch;
mod port_forward;
mod rollout;
mod run;
mod scale;
mod schedulable;
mod set;
mod version;
mod wait;

use clap::Subcommand;

use crate::{
    cli::{Cli, Connection},
    error::Result,
    session::Session,
};

/// The table of verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Display one or many resources
    Get(get::Options),
    /// Show what there is to know about a resource
    Describe(describe::Options),
    /// Show what the fields of a resource are
    Explain(explain::Options),
    /// Create a resource from a file, or one of the usual kinds from flags
    Create(create::Options),
    /// Run an image in a pod
    Run(run::Options),
    /// Create or change resources as files say
    Apply(apply::Options),
    /// Delete resources
    Delete(delete::Options),
    /// Set a new size for a deployment, replica set, stateful set or replication controller
    Scale(scale::Options),
    /// Set something of a resource: image, env
    #[command(subcommand)]
    Set(set::Action),
    /// Manage the rollout of a deployment
    #[command(subcommand)]
    Rollout(rollout::Action),
    /// Print the logs of a container in a pod
    Logs(logs::Options),
    /// Execute a command in a container
    Exec(exec::Options),
    /// Attach to the first process of a container
    Attach(exec::Attach),
    /// Forward local ports to a pod
    PortForward(port_forward::Options),
    /// Copy files to a container and back
    Cp(cp::Options),
    /// Change fields of a resource
    Patch(patch::Options),
    /// Change the labels of a resource
    Label(annotate::Options),
    /// Change the annotations of a resource
    Annotate(annotate::Options),
    /// Wait for a condition of resources
    Wait(wait::Options),
    /// Mark a node as unschedulable
    Cordon(schedulable::Options),
    /// Mark a node as schedulable
    Uncordon(schedulable::Options),
    /// List the resources that the server serves
    ApiResources(api_resources::Options),
    /// List the versions that the server serves
    ApiVersions,
    /// Show where the control plane is
    ClusterInfo,
    /// Show the kubeconfig and choose a context
    #[command(subcommand)]
    Config(config::Action),
    /// Show the versions of client and server
    Version(version::Options),
    /// Print a completion script for a shell
    Completion(completion::Options),
}

/// Runs a verb.
pub async fn run(cli: Cli) -> Result<()> {
    let connection = &cli.connection;
    match cli.verb {
        Verb::Completion(options) => completion::run(&options),
        Verb::Config(action) => config::run(connection, &action),
        Verb::Version(options) => version::run(connection, &options).await,
        verb => on_server(connection, verb).await,
    }
}

async fn on_server(connection: &Connection, verb: Verb) -> Result<()> {
    let session = &Session::connect(connection).await?;
    let said = connection.namespace.as_deref();
    match verb {
        Verb::Get(options) => get::run(session, &options).await,
        Verb::Describe(options) => describe::run(session, &options).await,
        Verb::Explain(options) => explain::run(session, &options).await,
        Verb::Create(options) => create::run(session, said, &options).await,
        Verb::Run(options) => run::run(session, &options).await,
        Verb::Apply(options) => apply::run(session, said, &options).await,
        Verb::Delete(options) => delete::run(session, said, &options).await,
        Verb::Scale(options) => scale::run(session, &options).await,
        Verb::Set(action) => set::run(session, &action).await,
        Verb::Rollout(action) => rollout::run(session, &action).await,
        Verb::Logs(options) => logs::run(session, &options).await,
        Verb::Exec(options) => exec::run(session, &options).await,
        Verb::Attach(options) => exec::attach(session, &options).await,
        Verb::PortForward(options) => port_forward::run(session, &options).await,
        Verb::Cp(options) => cp::run(session, &options).await,
        Verb::Patch(options) => patch::run(session, &options).await,
        Verb::Label(options) => annotate::run(session, &options, annotate::What::Labels).await,
        Verb::Annotate(options) => annotate::run(session, &options, annotate::What::Annotations).await,
        Verb::Wait(options) => wait::run(session, &options).await,
        Verb::Cordon(options) => schedulable::run(session, &options, false).await,
        Verb::Uncordon(options) => schedulable::run(session, &options, true).await,
        Verb::ApiResources(options) => api_resources::resources(session, &options).await,
        Verb::ApiVersions => api_resources::versions(session).await,
        Verb::ClusterInfo => version::cluster_info(session).await,
        // Handled before there is a connection.
        Verb::Config(_) | Verb::Version(_) | Verb::Completion(_) => Ok(()),
    }
}
