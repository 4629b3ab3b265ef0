//! `cargo xtask bench NAME`: builds in release and hands over to the bench.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::cargo;

#[derive(Debug, Args)]
pub struct Options {
    /// Which bench: api, docker, lab, runtime
    name: String,
    /// Write one JSON object a figure to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// Of `api`: measure this server in the same run, too
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Of `docker`: measure this daemon in the same run, too
    #[arg(long, value_name = "URL")]
    docker_host: Option<String>,
    /// Of `lab`: also build everything in an empty directory, which takes many minutes
    #[arg(long)]
    cold_build: bool,
    /// Fewer rounds
    #[arg(long)]
    quick: bool,
}

pub fn run(options: &Options) -> Result<()> {
    // With the products in one call: alone it has other features of its dependencies, which would all be compiled again.
    let binaries = cargo::release_with(&["coracle-bench"])?;
    let mut bench = Command::new(binaries.join("coracle-bench"));
    bench.current_dir(cargo::root()).arg(&options.name).arg("--binaries").arg(binaries);
    if let Some(json) = &options.json {
        bench.arg("--json").arg(std::path::absolute(json)?);
    }
    if let Some(kubeconfig) = &options.kubeconfig {
        bench.arg("--kubeconfig").arg(std::path::absolute(kubeconfig)?);
    }
    if let Some(host) = &options.docker_host {
        bench.arg("--docker-host").arg(host);
    }
    if options.cold_build {
        bench.arg("--cold-build").arg(cargo::cold_build()?.as_secs().to_string());
    }
    if options.quick {
        bench.arg("--quick");
    }
    if !bench.status().context("run the bench")?.success() {
        bail!("the bench failed");
    }
    Ok(())
}
