//! `coracle apiserver`: the API server alone.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use anyhow::{Context, Result};
use clap::Args;
use coracle_api::clock::{Clock, SystemClock};
use coracle_link::Place;

use crate::{
    readiness,
    server::{ControlPlane, Credentials, Etcd},
    shutdown,
};

#[derive(Debug, Args)]
pub struct Options {
    /// Where the cluster's state and keys are kept
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Where the API is served
    #[arg(long, default_value = "127.0.0.1:6443")]
    bind: SocketAddr,
    #[command(flatten)]
    etcd: Etcd,
}

/// Runs the API server until it is told to stop.
pub async fn run(options: Options) -> Result<()> {
    let stop = shutdown::on_signal()?;
    let clock = Arc::new(SystemClock::new());
    let credentials = Credentials::prepare(&options.data_dir, options.bind, &[], clock.now())?;
    let place = Place::Current;
    let plane =
        ControlPlane::start(&options.data_dir, &options.etcd, &credentials, place.clone(), options.bind, clock).await?;
    let listener = place.listen_tcp(options.bind).with_context(|| format!("listen at {}", options.bind))?;
    let serving = plane.serve(listener, &credentials, &stop)?;
    plane.admit_nodes(&credentials).await?;
    credentials.write_kubeconfig(options.bind)?;
    readiness::ready(&format!("ready https://{}", options.bind));
    stop.cancelled().await;
    plane.stop().await;
    Ok(serving.await?)
}
