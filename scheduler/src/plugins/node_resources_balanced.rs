//! Nodes whose CPU and memory are used to the same degree waste neither.

use crate::{
    framework::{MAX_SCORE, Plugin, PreScore, Score},
    node_info::NodeInfo,
    pod_info::PodInfo,
    resources::Resources,
    snapshot::Snapshot,
};

pub struct BalancedAllocation;

impl Plugin for BalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    fn pre_score(&self) -> Option<&dyn PreScore> {
        Some(self)
    }
}

impl PreScore for BalancedAllocation {
    fn prepare<'a>(&self, pod: &'a PodInfo, _: &'a Snapshot, _: &'a [usize]) -> Option<Box<dyn Score + 'a>> {
        // A pod that asks for nothing changes no balance.
        let asks = pod.requests.milli_cpu != 0 || pod.requests.memory != 0;
        asks.then(|| Box::new(Balance(&pod.requests)) as Box<dyn Score>)
    }
}

struct Balance<'a>(&'a Resources);

impl Score for Balance<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        let fraction =
            |asked: i64, used: i64, have: i64| (have > 0).then(|| ((asked + used) as f64 / have as f64).min(1.0));
        let cpu = fraction(self.0.milli_cpu, node.requested.milli_cpu, node.allocatable.milli_cpu);
        let memory = fraction(self.0.memory, node.requested.memory, node.allocatable.memory);
        // The standard deviation of two numbers is half their distance.
        let deviation = match (cpu, memory) {
            (Some(cpu), Some(memory)) => (cpu - memory).abs() / 2.0,
            _ => 0.0,
        };
        ((1.0 - deviation) * MAX_SCORE as f64) as i64
    }
}
