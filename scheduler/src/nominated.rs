//! Pods that room was made for, and that wait for it: it is not given to less important ones meanwhile.

use std::{collections::HashMap, sync::Arc};

use crate::pod_info::PodInfo;

/// The nominated pods by node. There are few at any time.
#[derive(Clone, Debug, Default)]
pub struct Nominated {
    nodes: HashMap<Arc<str>, Vec<Arc<PodInfo>>>,
    pods: HashMap<Arc<str>, Arc<str>>,
}

impl Nominated {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }

    /// The node that a pod waits for.
    pub fn node_of(&self, uid: &str) -> Option<&str> {
        self.pods.get(uid).map(|node| &**node)
    }

    /// The pods for which room on this node is kept from `pod`: the others that are no less important.
    pub fn ahead_of<'a>(&'a self, pod: &'a PodInfo, node: &str) -> impl Iterator<Item = &'a Arc<PodInfo>> {
        let waiting = self.nodes.get(node).into_iter().flatten();
        waiting.filter(|waiting| waiting.uid != pod.uid && waiting.priority >= pod.priority)
    }

    /// The pod waits for the node.
    pub fn set(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.remove(&pod.uid);
        let node: Arc<str> = node.into();
        self.pods.insert(pod.uid.clone(), node.clone());
        self.nodes.entry(node).or_default().push(pod);
    }

    /// The pod waits no more.
    pub fn remove(&mut self, uid: &str) {
        let Some(node) = self.pods.remove(uid) else { return };
        if let Some(pods) = self.nodes.get_mut(&node) {
            pods.retain(|pod| &*pod.uid != uid);
            if pods.is_empty() {
                self.nodes.remove(&node);
            }
        }
    }
}
