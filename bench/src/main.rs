//! Benches: figures as a table, and as JSON, one object a figure. They compare and print; they assert nothing.

mod figures;
mod lab;
mod memory;
mod pods;

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Parser;

#[derive(Debug, Parser)]
struct Options {
    /// Which bench: lab
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
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let figures = match options.name.as_str() {
        "lab" => runtime.block_on(lab::run(&options.binaries, options.quick))?,
        other => bail!("there is no bench {other:?}; there is: lab"),
    };
    figures.print()?;
    if let Some(path) = &options.json {
        figures.write_json(path)?;
    }
    Ok(())
}
