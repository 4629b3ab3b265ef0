//! Nodes that are cordoned take no pods but those that tolerate it.

use k8s_openapi::api::core::v1::{Node, Taint};

use crate::{
    framework::{Filter, Filtering, Happened, Plugin, PreFilter, Unfit},
    node_info::NodeInfo,
    pod_info::PodInfo,
    selectors::tolerates,
    snapshot::Snapshot,
};

pub struct NodeUnschedulable;

fn tolerated(pod: &PodInfo) -> bool {
    let key = "node.kubernetes.io/unschedulable".to_owned();
    let taint = Taint { key, effect: "NoSchedule".to_owned(), ..Taint::default() };
    pod.tolerations().iter().any(|toleration| tolerates(toleration, &taint))
}

fn cordoned(node: &Node) -> bool {
    node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true)
}

impl Plugin for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn may_help(&self, _: &PodInfo, happened: &Happened) -> bool {
        happened.node().is_some_and(|node| !cordoned(node))
    }

    fn pre_filter(&self) -> Option<&dyn PreFilter> {
        Some(self)
    }
}

impl PreFilter for NodeUnschedulable {
    fn prepare<'a>(&self, pod: &'a PodInfo, _: &'a Snapshot) -> Result<Filtering<'a>, Unfit> {
        Ok(if tolerated(pod) { Filtering::Skip } else { Filtering::Each(Box::new(NotCordoned)) })
    }
}

struct NotCordoned;

impl Filter for NotCordoned {
    fn check(&self, node: &NodeInfo) -> Result<(), Unfit> {
        if node.cordoned { Err(Unfit::unresolvable("node(s) were unschedulable")) } else { Ok(()) }
    }
}
