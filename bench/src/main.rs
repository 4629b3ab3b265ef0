//! Benches: figures as a table, and as JSON, one object a figure. They compare and print; they assert nothing.

mod figures;
mod lab;
mod memory;
mod pods;
mod runtime;

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Parser;

#[derive(Debug, Parser)]
struct Options {
    /// Which bench: lab, runtime
    name: String,
    /// Where the release binaries are
    #[arg(long)]
    binaries: PathBuf,
    /// Write one JSON object a figure to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// Fewer rounds
    #[arg(long)]
    quick: bool,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let executor = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let figures = match options.name.as_str() {
        "lab" => executor.block_on(lab::run(&options.binaries, options.quick))?,
        "runtime" => executor.block_on(runtime::run(&options.binaries, options.quick))?,
        other => bail!("there is no bench {other:?}; there are: lab, runtime"),
    };
    figures.print()?;
    if let Some(path) = &options.json {
        figures.write_json(path)?;
    }
    Ok(())
}
