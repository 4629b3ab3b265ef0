//! Becoming a member of the cluster, and the kubelet's configuration that follows from it.

use std::{collections::BTreeMap, fs, path::PathBuf, sync::Arc};

use anyhow::{Context, Result};
use coracle_api::clock::SystemClock;
use coracle_kubelet::{
    Config, Progress,
    bootstrap::{self, Join, Joined},
};
use coracle_link::Place;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Node, Options};

/// The port of the kubelet's server, by custom.
const KUBELET_PORT: u16 = 10250;
/// The most pods on a node, by custom.
const MAX_PODS: u32 = 110;

/// Joins with the token, or with the certificates of an earlier time.
pub async fn join(options: &Options, node: &Node, stop: CancellationToken) -> Result<Joined> {
    let path = &options.token_file;
    let token = fs::read_to_string(path).with_context(|| format!("read the join token {}", path.display()))?;
    let join = Join {
        server: options.server.clone(),
        token: Some(token.trim().to_owned()),
        node_name: node.name.clone(),
        addresses: vec![node.address],
        place: Place::Current,
        root_dir: kubelet_dir(options),
        clock: Arc::new(SystemClock::new()),
    };
    bootstrap::join(join, stop).await.with_context(|| format!("join the cluster at {}", options.server))
}

/// The kubelet of a node that has joined, and how far it is.
pub fn kubelet(
    options: &Options,
    node: &Node,
    joined: &Joined,
    cri_socket: PathBuf,
) -> (Config, watch::Receiver<Progress>) {
    let (progress, told) = watch::channel(Progress::default());
    let config = Config {
        node_name: node.name.clone(),
        node_ip: node.address,
        place: Place::Current,
        port: KUBELET_PORT,
        root_dir: kubelet_dir(options),
        cri_socket,
        client: joined.client.clone(),
        serving: joined.serving.clone(),
        client_ca: joined.ca_pem.clone(),
        labels: BTreeMap::new(),
        taints: Vec::new(),
        max_pods: MAX_PODS,
        clock: Arc::new(SystemClock::new()),
        cgroup_parent: options.cgroup_parent.clone(),
        reserved: options.system_reserved.plus(options.kube_reserved),
        allowed_unsafe_sysctls: options.allowed_unsafe_sysctls.clone(),
        cluster_dns: Vec::new(),
        cluster_domain: "cluster.local".into(),
        progress,
    };
    (config, told)
}

fn kubelet_dir(options: &Options) -> PathBuf {
    options.data_dir.join("kubelet")
}
