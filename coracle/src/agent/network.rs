//! The CNI plugin's configuration: as soon as the node has its pod range, and again should the range change.

use anyhow::{Context, Result};
use coracle_client::Informers;
use coracle_network::cni::{Paths, install};
use k8s_openapi::api::core::v1::Node;
use tokio_util::sync::CancellationToken;

/// Watches the node `name` until `stop`.
pub async fn install_plugin(informers: &Informers, name: &str, paths: &Paths, stop: CancellationToken) -> Result<()> {
    let program = std::env::current_exe().context("find this program")?;
    let nodes = informers.get::<Node>();
    let mut changes = nodes.changes();
    let mut installed = None;
    loop {
        changes.mark_unchanged();
        let range = nodes.find("", name).and_then(|node| node.spec.as_ref()?.pod_cidr.as_ref()?.parse().ok());
        if let Some(range) = range.filter(|range| Some(*range) != installed) {
            install(paths, &program, range, None).context("install the CNI plugin")?;
            installed = Some(range);
            tracing::info!(%range, "pods get their addresses from this range");
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            changed = changes.changed() => if changed.is_err() { return Ok(()) },
        }
    }
}
