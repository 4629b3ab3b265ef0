//! Taints keep pods away that do not tolerate them; soft ones only cost points.

use k8s_openapi::api::core::v1::{Taint, Toleration};

use crate::{
    framework::{Filter, Filtering, Happened, Plugin, PreFilter, PreScore, Score, Unfit, normalize},
    node_info::NodeInfo,
    pod_info::PodInfo,
    selectors::tolerates,
    snapshot::Snapshot,
};

pub struct TaintToleration;

fn untolerated<'a>(taints: &'a [Taint], tolerations: &[Toleration]) -> Option<&'a Taint> {
    let mut hard = taints.iter().filter(|taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute"));
    hard.find(|taint| !tolerations.iter().any(|toleration| tolerates(toleration, taint)))
}

impl Plugin for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn may_help(&self, pod: &PodInfo, happened: &Happened) -> bool {
        happened.node().is_some_and(|node| {
            let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
            untolerated(taints, pod.tolerations()).is_none()
        })
    }

    fn pre_filter(&self) -> Option<&dyn PreFilter> {
        Some(self)
    }

    fn pre_score(&self) -> Option<&dyn PreScore> {
        Some(self)
    }
}

impl PreFilter for TaintToleration {
    fn prepare<'a>(&self, pod: &'a PodInfo, _: &'a Snapshot) -> Result<Filtering<'a>, Unfit> {
        Ok(Filtering::Each(Box::new(Tolerated(pod.tolerations()))))
    }
}

struct Tolerated<'a>(&'a [Toleration]);

impl Filter for Tolerated<'_> {
    fn check(&self, node: &NodeInfo) -> Result<(), Unfit> {
        if !node.hard_taints {
            return Ok(());
        }
        match untolerated(node.taints(), self.0) {
            None => Ok(()),
            Some(taint) => {
                let value = taint.value.as_deref().unwrap_or_default();
                Err(Unfit::unresolvable(format!("node(s) had untolerated taint {{{}: {value}}}", taint.key)))
            }
        }
    }
}

impl PreScore for TaintToleration {
    fn prepare<'a>(
        &self,
        pod: &'a PodInfo,
        snapshot: &'a Snapshot,
        fitting: &'a [usize],
    ) -> Option<Box<dyn Score + 'a>> {
        // Without a soft taint anywhere all nodes score the same.
        let any = fitting.iter().any(|at| snapshot.nodes[*at].soft_taints);
        any.then(|| Box::new(FewestTaints(pod.tolerations())) as Box<dyn Score>)
    }
}

struct FewestTaints<'a>(&'a [Toleration]);

impl Score for FewestTaints<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        let soft = node.taints().iter().filter(|taint| taint.effect == "PreferNoSchedule");
        let counted = soft.filter(|taint| !self.0.iter().any(|toleration| tolerates(toleration, taint))).count();
        i64::try_from(counted).unwrap_or(i64::MAX)
    }

    fn normalize(&self, scores: &mut [i64]) {
        normalize(scores, true);
    }
}
