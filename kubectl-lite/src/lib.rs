//! kubectl-lite: what people type every day at kubectl, in a small program.
//!
//! ```text
//! arguments ─ cli ─▶ cmd::VERB ─▶ Session (one connection) ─▶ API server
//!                        │ names, files: targets, manifests, discovery
//!                        └ output: table, JSON, YAML, name, JSONPath, templates
//! ```
//!
//! Every verb is one file in `cmd` and one row in its table. Words and exit codes are kubectl's.

mod cli;
mod cmd;
mod discovery;
mod error;
mod jsonpath;
mod manifests;
mod output;
mod pods;
mod session;
mod targets;
mod terminal;

use std::{ffi::OsString, process::ExitCode};

use clap::{CommandFactory, FromArgMatches};

pub use error::Error;

/// Runs kubectl-lite with the arguments behind the program's name, and prints what went wrong as kubectl does.
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    let command = cli::Cli::command();
    let matches = match command.try_get_matches_from(std::iter::once("kubectl-lite".into()).chain(arguments)) {
        Ok(matches) => matches,
        Err(error) => {
            // Nothing is left to be done when even this cannot be printed.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(1) } else { ExitCode::SUCCESS };
        }
    };
    let cli = match cli::Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(cmd::run(cli));
    // A read of the terminal that waits for a key must not keep the program.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Error::Quiet(code)) => ExitCode::from(code),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
