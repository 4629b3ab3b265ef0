//! Coracle: Kubernetes and Docker in one small boat.
//!
//! The binary only wires: every subcommand builds the configuration of a component and runs it.

mod agent;
mod allocator;
mod api;
mod cni;
mod components;
mod images;
mod lab;
mod logging;
mod node_socket;
mod oci;
mod readiness;
mod residency;
mod run_dir;
mod server;
mod shutdown;

use std::{process::ExitCode, time::Duration};

use anyhow::Result;
use clap::{CommandFactory, Parser, Subcommand};

/// Kubernetes and Docker in one small boat
#[derive(Parser)]
#[command(
    name = "coracle",
    version,
    propagate_version = true,
    after_help = "Start here:\n  coracle lab up\n  coracle kubectl get nodes"
)]
struct Cli {
    #[command(flatten)]
    logging: logging::Options,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// A cluster of several nodes on this machine
    Lab(lab::Command),
    /// The control plane: API server, scheduler, controllers
    Server(server::Options),
    /// One node: kubelet, container runtime, network
    Agent(agent::Options),
    /// The API server alone
    Apiserver(api::Options),
    /// The scheduler alone, against any Kubernetes
    Scheduler(components::Scheduler),
    /// The controllers alone, against any Kubernetes
    ControllerManager(components::ControllerManager),
    /// The kubelet alone, against any Kubernetes and any CRI runtime
    Kubelet(components::Kubelet),
    /// The container runtime alone
    Runtime(components::Runtime),
    /// The OCI launcher, as runc is used
    #[command(disable_help_flag = true)]
    Oci {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<std::ffi::OsString>,
    },
    /// The CNI plugin: command in the environment, configuration on standard input
    Cni,
    /// kubectl-lite
    #[command(disable_help_flag = true)]
    Kubectl {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<std::ffi::OsString>,
    },
    /// Print a completion script for a shell
    Completion { shell: clap_complete::Shell },
}

fn main() -> ExitCode {
    // A runtime starts the plugin by the name it is installed as, without arguments.
    if cni::called_as_plugin() {
        return coracle_network::cni::main();
    }
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("coracle: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode> {
    let logging = cli.logging;
    match cli.command {
        Command::Lab(command) => {
            logging.start_quiet()?;
            lab::run(command)
        }
        Command::Server(options) => long_running(&logging, server::run(options)),
        Command::Agent(options) => {
            allocator::keep_nothing();
            long_running(&logging, agent::run(options))
        }
        Command::Apiserver(options) => long_running(&logging, api::run(options)),
        Command::Scheduler(options) => long_running(&logging, components::scheduler(options)),
        Command::ControllerManager(options) => long_running(&logging, components::controller_manager(options)),
        Command::Kubelet(options) => long_running(&logging, components::kubelet(options)),
        Command::Runtime(options) => {
            allocator::keep_nothing();
            long_running(&logging, components::runtime(options))
        }
        Command::Oci { arguments } => oci::run(arguments),
        Command::Cni => Ok(coracle_network::cni::main()),
        Command::Kubectl { arguments } => Ok(kubectl_lite::main(arguments)),
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "coracle", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Runs a component until it ends or is told to; its logs go to standard error.
fn long_running(logging: &logging::Options, work: impl Future<Output = Result<()>>) -> Result<ExitCode> {
    logging.start()?;
    coracle_client::install_crypto();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        // Threads that waited for disks in a busy moment: each holds a stack and a heap while it waits for more.
        .thread_keep_alive(Duration::from_secs(1))
        .on_thread_start(residency::thread_began)
        .on_thread_stop(residency::thread_ended)
        .build()?;
    runtime.spawn(residency::keep_small());
    let outcome = runtime.block_on(work);
    if let Err(error) = &outcome {
        readiness::failed(&format!("{error:#}"));
    }
    // What is acknowledged is on disk; what is still blocked in a system call must not keep the process.
    runtime.shutdown_background();
    outcome.map(|()| ExitCode::SUCCESS)
}
