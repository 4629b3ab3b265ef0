//! The framework: what a plugin can do, and in which order plugins are asked.
//!
//! ```text
//! PreFilter ─► Filter (per node) ─► PreScore ─► Score (per node) ─► normalise ─► Reserve ─► PreBind ─► Bind
//!     └──────────────┴─ no node: preemption
//! ```
//!
//! A PreFilter or PreScore works out what depends on the pod alone and hands back an object that is asked node by node:
//! no state is passed through untyped.

use std::{borrow::Cow, sync::Arc};

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Node;

use crate::{node_info::NodeInfo, pod_info::PodInfo, snapshot::Snapshot};

/// Highest score of a plugin before its weight.
pub const MAX_SCORE: i64 = 100;

/// Why a node does not fit a pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Unfit {
    /// As users read them, counted over all nodes.
    pub reasons: Vec<Cow<'static, str>>,
    /// Whether removing other pods could help.
    pub resolvable: bool,
}

impl Unfit {
    /// A reason that goes away when other pods do.
    pub fn because(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { reasons: vec![reason.into()], resolvable: true }
    }

    /// A reason that other pods have nothing to do with.
    pub fn unresolvable(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { reasons: vec![reason.into()], resolvable: false }
    }
}

/// What may have made room for a pod.
#[derive(Clone, Debug)]
pub enum Happened {
    NodeAdded(Arc<Node>),
    NodeUpdated {
        old: Arc<Node>,
        new: Arc<Node>,
    },
    /// A pod is on a node now.
    PodPlaced(Arc<PodInfo>),
    /// A pod that was on a node is gone.
    PodGone(Arc<PodInfo>),
    /// A pod on a node takes less than before.
    PodShrunk,
}

impl Happened {
    /// The node that came or changed.
    pub fn node(&self) -> Option<&Arc<Node>> {
        match self {
            Self::NodeAdded(node) | Self::NodeUpdated { new: node, .. } => Some(node),
            _ => None,
        }
    }
}

/// A plugin: a name, and the extension points that it takes part in.
pub trait Plugin: Send + Sync {
    /// As in upstream's configuration.
    fn name(&self) -> &'static str;

    /// Whether what happened may make a pod fit that this plugin refused. When in doubt, true.
    fn may_help(&self, pod: &PodInfo, happened: &Happened) -> bool {
        let _ = (pod, happened);
        true
    }

    fn pre_filter(&self) -> Option<&dyn PreFilter> {
        None
    }
    fn pre_score(&self) -> Option<&dyn PreScore> {
        None
    }
    fn reserve(&self) -> Option<&dyn Reserve> {
        None
    }
    fn pre_bind(&self) -> Option<&dyn PreBind> {
        None
    }
    fn bind(&self) -> Option<&dyn Bind> {
        None
    }
}

/// What a PreFilter found.
pub enum Filtering<'a> {
    /// The plugin has nothing to say about this pod.
    Skip,
    /// Ask this for every node.
    Each(Box<dyn Filter + 'a>),
    /// Only these nodes, by name, can fit; and of them those that the filter, if any, admits.
    Only(Vec<String>, Option<Box<dyn Filter + 'a>>),
}

/// Looks at the pod before the nodes; an error refuses the pod as a whole.
pub trait PreFilter: Send + Sync {
    fn prepare<'a>(&self, pod: &'a PodInfo, snapshot: &'a Snapshot) -> Result<Filtering<'a>, Unfit>;
}

/// Says whether a node fits.
pub trait Filter {
    fn check(&self, node: &NodeInfo) -> Result<(), Unfit>;
}

/// Looks at the pod before the nodes that fit are scored.
pub trait PreScore: Send + Sync {
    fn prepare<'a>(
        &self,
        pod: &'a PodInfo,
        snapshot: &'a Snapshot,
        fitting: &'a [usize],
    ) -> Option<Box<dyn Score + 'a>>;
}

/// Says how well a node fits.
pub trait Score {
    /// Any number; brought into 0 to [`MAX_SCORE`] by `normalize`.
    fn score(&self, node: &NodeInfo) -> i64;

    /// Brings the scores of all fitting nodes, in their order, into 0 to [`MAX_SCORE`].
    fn normalize(&self, scores: &mut [i64]) {
        let _ = scores;
    }
}

/// Keeps something for the pod on its node, and gives it back when binding fails.
pub trait Reserve: Send + Sync {
    fn reserve(&self, pod: &PodInfo, node: &str) -> Result<(), Unfit>;
    fn unreserve(&self, pod: &PodInfo, node: &str);
}

/// Does what has to be done before the pod is bound.
pub trait PreBind: Send + Sync {
    fn pre_bind<'a>(&'a self, pod: &'a PodInfo, node: &'a str) -> BoxFuture<'a, Result<(), String>>;
}

/// Binds the pod to the node.
pub trait Bind: Send + Sync {
    fn bind<'a>(&'a self, pod: &'a PodInfo, node: &'a str) -> BoxFuture<'a, Result<(), String>>;
}

/// Scales scores so that the largest becomes [`MAX_SCORE`]; `reverse` makes the smallest the best.
pub fn normalize(scores: &mut [i64], reverse: bool) {
    let largest = scores.iter().copied().max().unwrap_or(0);
    for score in scores {
        let scaled = if largest == 0 { 0 } else { *score * MAX_SCORE / largest };
        *score = if reverse { MAX_SCORE - scaled } else { scaled };
    }
}
