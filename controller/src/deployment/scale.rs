//! Changing the sizes of ReplicaSets (upstream's pkg/controller/deployment/sync.go, `scale`).

use super::{
    annotations, math,
    rollout::{Member, Rollout},
};

impl Rollout<'_> {
    /// Whether the Deployment's size was changed: an active set still carries another wish.
    pub fn is_scaling(&mut self) -> bool {
        let wanted = i64::from(math::wanted(self.spec));
        let mut active = self.members.iter().filter(|member| member.replicas() > 0);
        active.any(|member| {
            annotations::number(&member.set, annotations::DESIRED).is_some_and(|desired| desired != wanted)
        })
    }

    /// Sets the size of one set and notes what was wanted at that time.
    pub fn resize(&mut self, index: usize, replicas: i32) {
        let desired = math::wanted(self.spec);
        let max = desired + math::max_surge(self.spec);
        let member = &mut self.members[index];
        let resized = member.replicas() != replicas;
        if let Some(spec) = member.set.spec.as_mut() {
            spec.replicas = Some(replicas);
        }
        let noted = annotations::set_replicas(&mut member.set, desired, max);
        member.changed |= resized || noted;
    }

    /// How many pods the newest set may ask for now.
    pub fn new_replicas(&self, newest: usize) -> i32 {
        let wanted = math::wanted(self.spec);
        if !math::is_rolling(self.spec) {
            return wanted;
        }
        let current = self.members[newest].replicas();
        let total = self.sum(&self.all(), Member::replicas);
        let limit = wanted + math::max_surge(self.spec);
        if total >= limit { current } else { current + (limit - total).min(wanted - current) }
    }

    /// Brings the sets to the Deployment's new size: the one that is active, or in the middle of a rollout all of them
    /// in proportion, so that a bad template does not get more than its share.
    pub fn scale(&mut self) {
        let wanted = math::wanted(self.spec);
        if let Some(index) = self.active_or_latest() {
            if self.members[index].replicas() != wanted {
                self.resize(index, wanted);
            }
            return;
        }
        if self.is_saturated() {
            for index in self.old() {
                if self.members[index].replicas() > 0 {
                    self.resize(index, 0);
                }
            }
            return;
        }
        if math::is_rolling(self.spec) {
            self.scale_in_proportion();
        }
    }

    /// The one active set; where none is active, the newest or else the youngest. None where several are active.
    fn active_or_latest(&self) -> Option<usize> {
        let active: Vec<usize> = self.all().into_iter().filter(|index| self.members[*index].replicas() > 0).collect();
        match active.as_slice() {
            [] => self.newest.or_else(|| self.members.len().checked_sub(1)),
            [one] => Some(*one),
            _ => None,
        }
    }

    /// The newest set has all pods, available, and was last scaled for the present size.
    fn is_saturated(&self) -> bool {
        let wanted = math::wanted(self.spec);
        self.newest.is_some_and(|index| {
            let member = &self.members[index];
            let desired = annotations::number(&member.set, annotations::DESIRED);
            member.replicas() == wanted && desired == Some(i64::from(wanted)) && member.available() == wanted
        })
    }

    fn scale_in_proportion(&mut self) {
        let wanted = math::wanted(self.spec);
        let mut active: Vec<usize> =
            self.all().into_iter().filter(|index| self.members[*index].replicas() > 0).collect();
        let allowed = if wanted > 0 { wanted + math::max_surge(self.spec) } else { 0 };
        let to_add = allowed - self.sum(&active, Member::replicas);
        // The largest first; of equals, growing prefers the youngest and shrinking the oldest.
        active.sort_by_key(|index| {
            let age = i64::try_from(*index).unwrap_or(i64::MAX);
            (-self.members[*index].replicas(), if to_add > 0 { -age } else { age })
        });
        let mut added = 0;
        let mut sizes = Vec::with_capacity(active.len());
        for index in &active {
            let share = self.share(*index, to_add, added);
            added += share;
            sizes.push(self.members[*index].replicas() + share);
        }
        if let Some(first) = sizes.first_mut() {
            *first = (*first + to_add - added).max(0);
        }
        for (index, size) in active.into_iter().zip(sizes) {
            self.resize(index, size);
        }
    }

    /// A set's share of the pods to add (or remove), no more than is left of them.
    fn share(&self, index: usize, to_add: i32, added: i32) -> i32 {
        let member = &self.members[index];
        if member.replicas() == 0 || to_add == added {
            return 0;
        }
        let fraction = self.fraction(member);
        let left = to_add - added;
        if to_add > 0 { fraction.min(left) } else { fraction.max(left) }
    }

    fn fraction(&self, member: &Member) -> i32 {
        let (wanted, replicas) = (math::wanted(self.spec), member.replicas());
        if wanted == 0 {
            return -replicas;
        }
        let now = i64::from(wanted + math::max_surge(self.spec));
        let before = annotations::number(&member.set, annotations::MAX).filter(|max| *max > 0);
        let before = before.unwrap_or_else(|| i64::from(self.status.replicas.unwrap_or(0)));
        if before <= 0 {
            return 0;
        }
        // Rounded half away from zero, as Go's math.Round.
        let product = i64::from(replicas).saturating_mul(now);
        let size = product.saturating_mul(2).saturating_add(before) / (before.saturating_mul(2));
        i32::try_from(size).unwrap_or(i32::MAX) - replicas
    }
}
