//! A pod that names its node goes there or nowhere.

use crate::{
    framework::{Filter, Filtering, Happened, Plugin, PreFilter, Unfit},
    node_info::NodeInfo,
    pod_info::PodInfo,
    snapshot::Snapshot,
};

pub struct NodeName;

fn wanted(pod: &PodInfo) -> Option<&str> {
    pod.pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

impl Plugin for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }

    fn may_help(&self, pod: &PodInfo, happened: &Happened) -> bool {
        matches!(happened, Happened::NodeAdded(node) if node.metadata.name.as_deref() == wanted(pod))
    }

    fn pre_filter(&self) -> Option<&dyn PreFilter> {
        Some(self)
    }
}

impl PreFilter for NodeName {
    fn prepare<'a>(&self, pod: &'a PodInfo, _: &'a Snapshot) -> Result<Filtering<'a>, Unfit> {
        Ok(wanted(pod).map_or(Filtering::Skip, |name| Filtering::Each(Box::new(Named(name)))))
    }
}

struct Named<'a>(&'a str);

impl Filter for Named<'_> {
    fn check(&self, node: &NodeInfo) -> Result<(), Unfit> {
        if node.name.as_ref() == self.0 {
            Ok(())
        } else {
            Err(Unfit::unresolvable("node(s) didn't match the requested node name"))
        }
    }
}
