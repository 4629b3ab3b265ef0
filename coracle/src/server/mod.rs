//! `coracle server`: the control plane in one process.

mod backup;
mod control_plane;
mod credentials;
mod etcd;
mod listen;
mod publish;

use std::{net::SocketAddr, path::PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use coracle_api::clock::{Clock, SystemClock};
use coracle_link::Place;

use crate::{readiness, shutdown};

pub use control_plane::ControlPlane;
pub use credentials::Credentials;
pub use etcd::Etcd;
pub use listen::{LabBind, inherited_netns};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Options {
    #[command(subcommand)]
    command: Option<backup::Command>,
    #[command(flatten)]
    serve: Serve,
}

#[derive(Debug, Args)]
struct Serve {
    /// Where the cluster's state and keys are kept
    #[arg(long, value_name = "DIR", required = true)]
    data_dir: Option<PathBuf>,
    /// Where the API is served
    #[arg(long, default_value = "127.0.0.1:6443")]
    bind: SocketAddr,
    #[command(flatten)]
    etcd: Etcd,
    /// Be one of several servers on one etcd: let the scheduler and the controllers act only while this one leads, by
    /// this name of its own
    #[arg(long, value_name = "NAME", requires = "servers")]
    leader_elect: Option<String>,
    /// Share the address with the other servers of the cluster on this machine
    #[arg(long)]
    reuse_port: bool,
    /// More names and addresses for the server's certificate
    #[arg(long, value_name = "NAME")]
    certificate_name: Vec<String>,
    /// Serve in another network namespace, too, and reach nodes from there
    #[arg(long, value_name = "FD=ADDRESS", hide = true)]
    lab_bind: Option<LabBind>,
    /// Forward the ports that a lab's spec publishes
    #[arg(long, hide = true)]
    publish_file: Option<PathBuf>,
}

/// Runs the control plane until it is told to stop.
pub async fn run(options: Options) -> Result<()> {
    match options.command {
        Some(command) => backup::run(command).await,
        None => serve(options.serve).await,
    }
}

async fn serve(options: Serve) -> Result<()> {
    let data_dir = options.data_dir.context("--data-dir is needed")?;
    let stop = shutdown::on_signal()?;
    let clock = std::sync::Arc::new(SystemClock::new());
    let credentials = Credentials::prepare(&data_dir, options.bind, &options.certificate_name, clock.now())?;
    let lab = options.lab_bind.as_ref().map(LabBind::place).transpose()?;
    let place = lab.clone().unwrap_or_default();
    // Nodes reach the API where the lab is, if there is one.
    let advertise = options.lab_bind.as_ref().map_or(options.bind, LabBind::address);
    let plane = ControlPlane::start(&data_dir, &options.etcd, &credentials, place.clone(), advertise, clock).await?;
    let listen = |place: &Place, address| {
        let listener = if options.reuse_port { place.share_tcp(address) } else { place.listen_tcp(address) };
        listener.with_context(|| format!("listen at {address}"))
    };
    let listener = listen(&Place::Current, options.bind)?;
    let mut serving = vec![plane.serve(listener, &credentials, &stop)?];
    if let (Some(place), Some(bind)) = (&lab, &options.lab_bind) {
        let listener = listen(place, bind.address()).context("serve in the lab")?;
        serving.push(plane.serve(listener, &credentials, &stop)?);
    }
    plane.admit_nodes(&credentials).await?;
    let components = plane.run_components(&credentials, options.leader_elect.as_deref(), lab.clone(), &stop)?;
    if let Some(file) = options.publish_file {
        tokio::spawn(publish::run(file, place, stop.clone()));
    }
    credentials.write_kubeconfig(options.bind)?;
    readiness::ready(&format!("ready https://{}", options.bind));
    stop.cancelled().await;
    // Watches end first: a connection with one on it does not close by itself.
    tokio::join!(plane.stop(), components);
    for task in serving {
        // A listener that panicked has said so in the log.
        let _ = task.await;
    }
    Ok(())
}
