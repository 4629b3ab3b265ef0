//! A port of the node's own address can be had once.

use crate::{
    framework::{Filter, Filtering, Happened, Plugin, PreFilter, Unfit},
    node_info::NodeInfo,
    pod_info::{HostPort, PodInfo},
    snapshot::Snapshot,
};

pub struct NodePorts;

impl Plugin for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn may_help(&self, pod: &PodInfo, happened: &Happened) -> bool {
        match happened {
            Happened::PodGone(gone) => {
                gone.ports.iter().any(|freed| pod.ports.iter().any(|wanted| wanted.conflicts(freed)))
            }
            Happened::NodeAdded(_) => true,
            _ => false,
        }
    }

    fn pre_filter(&self) -> Option<&dyn PreFilter> {
        Some(self)
    }
}

impl PreFilter for NodePorts {
    fn prepare<'a>(&self, pod: &'a PodInfo, _: &'a Snapshot) -> Result<Filtering<'a>, Unfit> {
        Ok(if pod.ports.is_empty() { Filtering::Skip } else { Filtering::Each(Box::new(Free(&pod.ports))) })
    }
}

struct Free<'a>(&'a [HostPort]);

impl Filter for Free<'_> {
    fn check(&self, node: &NodeInfo) -> Result<(), Unfit> {
        if node.conflicts(self.0) {
            Err(Unfit::because("node(s) didn't have free ports for the requested pod ports"))
        } else {
            Ok(())
        }
    }
}
