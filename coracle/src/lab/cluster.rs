//! The lab's API, as an administrator sees it.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, bail};
use coracle_client::{Client, Informers};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api,
    api::{DeleteParams, ListParams},
};
use tokio::time::timeout;

use super::paths::Paths;

/// How long a single question may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection to the lab's API.
pub struct Cluster {
    client: Client,
}

impl Cluster {
    /// Connects with the administrator's kubeconfig.
    pub async fn connect(paths: &Paths) -> Result<Self> {
        let path = paths.kubeconfig();
        let client =
            coracle_client::connect(&path).await.with_context(|| format!("connect with {}", path.display()))?;
        Ok(Self { client })
    }

    /// Waits until every node of `names` is Ready; `told` hears how many are.
    pub async fn wait_ready(&self, names: &[String], limit: Duration, told: impl Fn(usize)) -> Result<()> {
        let informers = Informers::new(self.client.clone(), coracle_client::Scope::all());
        let nodes = informers.get::<Node>();
        let mut changes = nodes.changes();
        let waiting = async {
            loop {
                changes.mark_unchanged();
                let snapshot = nodes.snapshot();
                let ready =
                    names.iter().filter(|name| snapshot.find("", name).is_some_and(|node| is_ready(node))).count();
                told(ready);
                if ready == names.len() {
                    return Ok(());
                }
                changes.changed().await.context("the watch of nodes ended")?;
            }
        };
        if let Ok(outcome) = timeout(limit, waiting).await {
            return outcome;
        }
        let snapshot = nodes.snapshot();
        let late: Vec<_> =
            names.iter().filter_map(|name| reason(name, snapshot.find("", name).map(AsRef::as_ref))).collect();
        bail!("not Ready within {limit:?}: {}", late.join("; "))
    }

    /// What the API says of each node: whether it is Ready, and how many pods it has.
    pub async fn nodes(&self) -> Result<BTreeMap<String, (bool, usize)>> {
        let nodes = Api::<Node>::all(self.client.clone());
        let pods = Api::<Pod>::all(self.client.clone());
        let all = ListParams::default();
        let (nodes, pods) = timeout(PATIENCE, async { tokio::try_join!(nodes.list(&all), pods.list(&all)) })
            .await
            .context("the API did not answer")?
            .context("list nodes and pods")?;
        let mut found: BTreeMap<_, _> =
            nodes.iter().filter_map(|node| Some((node.metadata.name.clone()?, (is_ready(node), 0)))).collect();
        for pod in &pods {
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref());
            if let Some((_, count)) = node.and_then(|node| found.get_mut(node)) {
                *count += 1;
            }
        }
        Ok(found)
    }

    /// Removes a node from the cluster, and its pods, for which nobody has to wait: it does not come back. What is gone
    /// already is no error.
    pub async fn forget(&self, node: &str) -> Result<()> {
        let nodes = Api::<Node>::all(self.client.clone());
        let deleted = timeout(PATIENCE, nodes.delete(node, &DeleteParams::default())).await;
        unless_gone(deleted.context("the API did not answer")?).with_context(|| format!("delete node {node}"))?;
        let on_it = ListParams::default().fields(&format!("spec.nodeName={node}"));
        let pods = timeout(PATIENCE, Api::<Pod>::all(self.client.clone()).list(&on_it)).await;
        let pods = pods.context("the API did not answer")?.with_context(|| format!("list the pods of node {node}"))?;
        let at_once = DeleteParams::default().grace_period(0);
        for pod in pods {
            let (namespace, name) = (pod.metadata.namespace.unwrap_or_default(), pod.metadata.name.unwrap_or_default());
            let api = Api::<Pod>::namespaced(self.client.clone(), &namespace);
            let deleted = timeout(PATIENCE, api.delete(&name, &at_once)).await;
            unless_gone(deleted.context("the API did not answer")?)
                .with_context(|| format!("delete pod {namespace}/{name}"))?;
        }
        Ok(())
    }
}

fn unless_gone<T>(outcome: kube::Result<T>) -> kube::Result<()> {
    match outcome {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        outcome => outcome.map(drop),
    }
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn reason(name: &str, node: Option<&Node>) -> Option<String> {
    let Some(node) = node else { return Some(format!("{name} has not registered")) };
    if is_ready(node) {
        return None;
    }
    let mut conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions.find(|condition| condition.type_ == "Ready");
    let message = ready.and_then(|condition| condition.message.clone());
    Some(format!("{name}: {}", message.unwrap_or_else(|| "has not told its state".into())))
}
