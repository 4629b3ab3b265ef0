//! Every chore of the project: `cargo xtask check|test|e2e|bench|dist|schema|protobuf`.

mod bench;
mod cargo;
mod dist;
mod go_types;
mod protobuf;
mod pypi;
mod schema;
mod vm;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Every chore of the project.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Formatting, lints and licences
    Check,
    /// All tests, or those of one part (a package without its coracle- prefix; `vm`: on another kernel)
    Test {
        /// Only the package coracle-PART, or `vm`
        part: Option<String>,
    },
    /// The end-to-end tests alone
    E2e,
    /// Benches: figures as a table, and as JSON with --json
    Bench(bench::Options),
    /// The release binaries with checksums in target/dist
    Dist,
    /// Generate the schema table from upstream's published definitions
    Schema,
    /// Generate the table of protobuf field numbers
    Protobuf,
}

fn main() -> Result<()> {
    match Cli::parse().chore {
        Chore::Check => cargo::check(),
        Chore::Test { part } if part.as_deref() == Some("vm") => vm::run(),
        Chore::Test { part } => {
            cargo::test(part.as_deref())?;
            match (part, coracle_vm::missing()) {
                (None, None) => vm::run(),
                (None, Some(package)) => {
                    eprintln!("{package} is not installed: nothing was tested on another kernel");
                    Ok(())
                }
                _ => Ok(()),
            }
        }
        Chore::E2e => cargo::e2e(),
        Chore::Bench(options) => bench::run(&options),
        Chore::Dist => dist::run(),
        Chore::Schema => schema::run(),
        Chore::Protobuf => protobuf::run(),
    }
}
