//! Benches: figures as a table, and as JSON, one object a figure. They compare and print; they assert nothing.

mod api;
mod cgroups;
mod docker;
mod figures;
mod lab;
mod memory;
mod pods;
mod runtime;

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Parser;

/// As the products: what is measured is not to be told apart by its allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Parser)]
struct Options {
    /// Which bench: api, docker, lab, runtime (and `ceiling`, `slow`: servers of its own)
    name: String,
    /// Where the release binaries are
    #[arg(long)]
    binaries: PathBuf,
    /// Write one JSON object a figure to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// Of `api`: measure this server in the same run, too
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Of `docker`: measure this daemon in the same run, too
    #[arg(long, value_name = "URL")]
    docker_host: Option<String>,
    /// Of `lab`: how many seconds a cold build took, to be printed with the rest
    #[arg(long, value_name = "SECONDS")]
    cold_build: Option<u32>,
    /// Fewer rounds
    #[arg(long)]
    quick: bool,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let executor = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    coracle_client::install_crypto();
    let mut figures = match options.name.as_str() {
        "api" => executor.block_on(api::run(&options.binaries, options.kubeconfig.as_deref(), options.quick))?,
        // Its kubeconfig goes where the binaries of others are.
        "ceiling" => return executor.block_on(api::serve_ceiling(&options.binaries)),
        "docker" => docker::run(&options.binaries, options.docker_host.as_deref(), options.quick)?,
        "inside" => return executor.block_on(api::run_inside(if options.quick { 100 } else { 1000 })),
        "slow" => return executor.block_on(api::serve_slow(&options.binaries)),
        "lab" => executor.block_on(lab::run(&options.binaries, options.quick))?,
        "runtime" => executor.block_on(runtime::run(&options.binaries, options.quick))?,
        other => bail!("there is no bench {other:?}; there are: api, docker, lab, runtime"),
    };
    if let Some(seconds) = options.cold_build {
        figures.value("cold build, release", seconds.into(), "s", None);
    }
    figures.print()?;
    if let Some(path) = &options.json {
        figures.write_json(path)?;
    }
    Ok(())
}
