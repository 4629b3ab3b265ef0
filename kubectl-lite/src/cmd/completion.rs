//! `completion`.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::{cli::Cli, error::Result};

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  source <(kubectl-lite completion bash)")]
pub struct Options {
    shell: Shell,
}

pub fn run(options: &Options) -> Result<()> {
    clap_complete::generate(options.shell, &mut Cli::command(), "kubectl-lite", &mut std::io::stdout());
    Ok(())
}
