//! The two ways from one template to the next, and what is kept of the past (upstream's rolling.go, recreate.go and sync.go).

use super::{
    annotations, conditions, math,
    rollout::{Member, Rollout},
};
use crate::{ownership, pods};

impl Rollout<'_> {
    /// RollingUpdate: the newest set grows as far as the surge lets it, the others shrink as far as availability lets them.
    pub fn roll(&mut self) {
        if !self.find_new(true) {
            return self.sync_status();
        }
        if !self.grow_new() && !self.shrink_old() {
            self.clean_up_when_complete();
        }
        self.sync_rollout_status();
    }

    /// Recreate: the newest set starts when the last pod of every other has ended.
    pub fn recreate(&mut self) {
        self.find_new(false);
        let mut shrunk = false;
        for index in self.old() {
            if self.members[index].replicas() > 0 {
                self.resize(index, 0);
                shrunk = true;
            }
        }
        if shrunk || self.old_pods_run() {
            return self.sync_rollout_status();
        }
        if self.newest.is_none() && !self.find_new(true) {
            return self.sync_status();
        }
        if let Some(index) = self.newest
            && self.members[index].replicas() != math::wanted(self.spec)
        {
            self.resize(index, math::wanted(self.spec));
        }
        self.clean_up_when_complete();
        self.sync_rollout_status();
    }

    fn old_pods_run(&self) -> bool {
        let old = self.old();
        if self.sum(&old, Member::actual) > 0 {
            return true;
        }
        old.iter().any(|index| {
            let uid = self.members[*index].set.metadata.uid.as_deref().unwrap_or_default();
            self.state.pods.by_index(ownership::BY_CONTROLLER, uid).any(|pod| !pods::is_terminal(pod))
        })
    }

    fn grow_new(&mut self) -> bool {
        let Some(index) = self.newest else { return false };
        let (current, wanted) = (self.members[index].replicas(), math::wanted(self.spec));
        let size = if current > wanted { wanted } else { self.new_replicas(index) };
        if size != current {
            self.resize(index, size);
        }
        size != current
    }

    fn shrink_old(&mut self) -> bool {
        let Some(newest) = self.newest else { return false };
        let active: Vec<usize> = self.old().into_iter().filter(|index| self.members[*index].replicas() > 0).collect();
        if active.is_empty() {
            return false;
        }
        let least_available = math::wanted(self.spec) - math::max_unavailable(self.spec);
        let new_missing = self.members[newest].replicas() - self.members[newest].available();
        let surplus = self.sum(&self.all(), Member::replicas) - least_available - new_missing;
        if surplus <= 0 {
            return false;
        }
        let unhealthy = self.drop_unhealthy(&active, surplus);
        let healthy = self.drop_healthy(&active, least_available);
        unhealthy + healthy > 0
    }

    /// Pods that are not available go first: their going costs nothing.
    fn drop_unhealthy(&mut self, active: &[usize], limit: i32) -> i32 {
        let mut dropped = 0;
        for index in active {
            let member = &self.members[*index];
            let unhealthy = member.replicas() - member.available();
            if dropped >= limit || unhealthy <= 0 {
                continue;
            }
            let count = unhealthy.min(limit - dropped);
            let size = member.replicas() - count;
            self.resize(*index, size);
            dropped += count;
        }
        dropped
    }

    fn drop_healthy(&mut self, active: &[usize], least_available: i32) -> i32 {
        let budget = self.sum(&self.all(), Member::available) - least_available;
        let mut dropped = 0;
        for index in active {
            let replicas = self.members[*index].replicas();
            if dropped >= budget || replicas == 0 {
                continue;
            }
            let count = replicas.min(budget - dropped);
            self.resize(*index, replicas - count);
            dropped += count;
        }
        dropped
    }

    fn clean_up_when_complete(&mut self) {
        let status = self.deployment.status.clone().unwrap_or_default();
        if conditions::is_complete(self.deployment, self.spec, &status) {
            self.clean_up();
        }
    }

    /// Deletes the sets of the oldest revisions beyond the history limit, if they are empty.
    pub fn clean_up(&mut self) {
        let Some(limit) = self.spec.revision_history_limit.filter(|limit| *limit != i32::MAX) else { return };
        let mut old: Vec<usize> = self.old();
        old.retain(|index| self.members[*index].set.metadata.deletion_timestamp.is_none());
        let surplus = old.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        // The order is by age already, which settles equal revisions.
        old.sort_by_key(|index| annotations::revision(&self.members[*index].set));
        for index in old.into_iter().take(surplus) {
            let member = &mut self.members[index];
            let observed = member.set.status.as_ref().and_then(|status| status.observed_generation).unwrap_or(0);
            let settled = member.set.metadata.generation.unwrap_or(0) <= observed;
            if member.actual() == 0 && member.replicas() == 0 && settled {
                member.delete = true;
            }
        }
    }
}
