//! The command line: flags that every verb has, and the table of verbs.

use std::path::PathBuf;

use clap::{Args, Parser};

use crate::cmd::Verb;

/// kubectl-lite: what people type every day at kubectl
#[derive(Debug, Parser)]
#[command(
    name = "kubectl-lite",
    version,
    after_help = "Examples:
  kubectl-lite get pods -o wide
  kubectl-lite create deployment web --image=coracle/hello:v1 --replicas=3
  kubectl-lite rollout undo deployment/web
  kubectl-lite apply -f manifests/"
)]
pub struct Cli {
    #[command(flatten)]
    pub connection: Connection,
    #[command(subcommand)]
    pub verb: Verb,
}

/// Which server, as whom, and where in it.
#[derive(Debug, Args)]
pub struct Connection {
    /// Path to the kubeconfig file [default: $KUBECONFIG, then ~/.kube/config]
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig to use
    #[arg(long, global = true)]
    pub context: Option<String>,
    /// The cluster of the kubeconfig to use
    #[arg(long, global = true)]
    pub cluster: Option<String>,
    /// The user of the kubeconfig to use
    #[arg(long, global = true)]
    pub user: Option<String>,
    /// The namespace to work in
    #[arg(short, long, global = true)]
    pub namespace: Option<String>,
}

/// How results are printed.
#[derive(Debug, Args, Clone, Default)]
pub struct Output {
    /// json, yaml, name, wide, jsonpath=TEMPLATE, jsonpath-file=FILE, custom-columns=SPEC
    #[arg(short, long, value_name = "FORMAT")]
    pub output: Option<String>,
    /// Show managedFields in JSON and YAML
    #[arg(long)]
    pub show_managed_fields: bool,
}

/// Where manifests come from.
#[derive(Debug, Args, Clone)]
pub struct Files {
    /// A file, a directory, or - for standard input
    #[arg(short, long = "filename", value_name = "FILE")]
    pub filename: Vec<String>,
    /// Read directories below directories, too
    #[arg(short = 'R', long)]
    pub recursive: bool,
}

/// Whether anything is really done.
#[derive(Debug, Args, Clone, Default)]
pub struct DryRun {
    /// none, client (print what would be sent) or server (send it, keep nothing)
    #[arg(long, default_value = "none", default_missing_value = "client", num_args = 0..=1, require_equals = true, value_parser = ["none", "client", "server"])]
    pub dry_run: String,
}

impl DryRun {
    /// Only print.
    pub fn client(&self) -> bool {
        self.dry_run == "client"
    }

    /// What the request's path needs.
    pub fn query(&self) -> &'static str {
        if self.dry_run == "server" { "?dryRun=All" } else { "" }
    }

    /// What kubectl puts behind its messages.
    pub fn suffix(&self) -> &'static str {
        match self.dry_run.as_str() {
            "client" => " (dry run)",
            "server" => " (server dry run)",
            _ => "",
        }
    }
}
