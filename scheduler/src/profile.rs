//! Which plugins are asked, and how much each score weighs.

use std::sync::Arc;

use crate::{
    framework::{Happened, Plugin},
    plugins::{self, Handle},
    pod_info::PodInfo,
};

/// The plugins behind one scheduler name.
pub struct Profile {
    plugins: Vec<Arc<dyn Plugin>>,
    scoring: Vec<(Arc<dyn Plugin>, i64)>,
}

impl Profile {
    /// Upstream's default plugins and weights.
    pub fn new(handle: &Handle) -> Self {
        let mut profile = Self { plugins: Vec::new(), scoring: Vec::new() };
        for row in plugins::TABLE {
            let plugin = (row.make)(handle);
            if row.weight > 0 && plugin.pre_score().is_some() {
                profile.scoring.push((plugin.clone(), row.weight));
            }
            profile.plugins.push(plugin);
        }
        profile
    }

    /// All plugins in order.
    pub fn plugins(&self) -> &[Arc<dyn Plugin>] {
        &self.plugins
    }

    /// The plugins that score, with their weights.
    pub fn scoring(&self) -> &[(Arc<dyn Plugin>, i64)] {
        &self.scoring
    }

    /// Whether what happened may help a pod that these plugins refused.
    pub fn may_help(&self, pod: &PodInfo, refused_by: &[&'static str], happened: &Happened) -> bool {
        refused_by.is_empty()
            || self.plugins.iter().any(|plugin| refused_by.contains(&plugin.name()) && plugin.may_help(pod, happened))
    }
}
