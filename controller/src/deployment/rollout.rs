//! The working copy of a Deployment and its ReplicaSets while a plan is made.

use std::{collections::BTreeMap, sync::Arc};

use coracle_api::decode;
use coracle_api::json::json;
use coracle_client::{Action, Context, Plan, Step, action::PatchKind, recorder::reference};
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec, DeploymentStatus, ReplicaSet, ReplicaSetSpec},
        core::v1::PodTemplateSpec,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{State, annotations, conditions, math};
use crate::{ownership, pod_template};

const SCALING: &str = "ScalingReplicaSet";
const CREATE_ERROR: &str = "ReplicaSetCreateError";

/// A ReplicaSet as it was and as it is to be.
pub(super) struct Member {
    pub set: ReplicaSet,
    original: Option<Arc<ReplicaSet>>,
    pub changed: bool,
    pub delete: bool,
}

impl Member {
    /// Pods asked for.
    pub fn replicas(&self) -> i32 {
        self.set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
    }

    /// Pods that are there.
    pub fn actual(&self) -> i32 {
        self.set.status.as_ref().map_or(0, |status| status.replicas)
    }

    /// Pods that are available.
    pub fn available(&self) -> i32 {
        self.set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
    }

    pub fn name(&self) -> &str {
        self.set.metadata.name.as_deref().unwrap_or_default()
    }
}

pub(super) struct Rollout<'a> {
    pub deployment: &'a Deployment,
    pub spec: &'a DeploymentSpec,
    pub state: &'a State,
    pub context: &'a Context<'a>,
    /// Oldest first.
    pub members: Vec<Member>,
    /// Which of the members has the Deployment's template.
    pub newest: Option<usize>,
    /// The status while it is worked out; conditions are kept here between steps.
    pub status: DeploymentStatus,
    /// The revision that the Deployment itself is to show.
    revision: Option<String>,
    pub plan: Plan,
}

impl<'a> Rollout<'a> {
    pub fn new(
        deployment: &'a Deployment,
        spec: &'a DeploymentSpec,
        owned: &[Arc<ReplicaSet>],
        state: &'a State,
        context: &'a Context<'a>,
    ) -> Self {
        let member = |set: &Arc<ReplicaSet>| Member {
            set: set.as_ref().clone(),
            original: Some(set.clone()),
            changed: false,
            delete: false,
        };
        let mut members: Vec<Member> = owned.iter().map(member).collect();
        members.sort_by_key(|member| age(&member.set));
        let status = deployment.status.clone().unwrap_or_default();
        Self { deployment, spec, state, context, members, newest: None, status, revision: None, plan: Plan::default() }
    }

    /// The indexes of all members but the newest, oldest first.
    pub fn old(&self) -> Vec<usize> {
        (0..self.members.len()).filter(|index| Some(*index) != self.newest).collect()
    }

    /// Pods asked for over some members.
    pub fn sum(&self, members: &[usize], of: impl Fn(&Member) -> i32) -> i32 {
        members.iter().map(|index| of(&self.members[*index])).sum()
    }

    /// All indexes.
    pub fn all(&self) -> Vec<usize> {
        (0..self.members.len()).collect()
    }

    /// Finds the set of the Deployment's template and brings it up to date, or makes one where that is wanted.
    /// False where its name is taken: the next plan tries another.
    pub fn find_new(&mut self, create: bool) -> bool {
        self.newest = self.members.iter().position(|member| {
            let theirs = member.set.spec.as_ref().and_then(|spec| spec.template.as_ref());
            theirs.is_some_and(|theirs| pod_template::same(theirs, &self.spec.template))
        });
        let old = self.old();
        let revision = old.iter().map(|index| annotations::revision(&self.members[*index].set)).max().unwrap_or(0) + 1;
        match self.newest {
            Some(index) => self.update_new(index, revision),
            None if create => return self.create_new(revision),
            None => {}
        }
        true
    }

    fn update_new(&mut self, index: usize, revision: i64) {
        let member = &mut self.members[index];
        member.changed |= annotations::sync(self.deployment, &mut member.set, revision);
        if let Some(spec) = member.set.spec.as_mut()
            && spec.min_ready_seconds.unwrap_or(0) != self.spec.min_ready_seconds.unwrap_or(0)
        {
            spec.min_ready_seconds = self.spec.min_ready_seconds;
            member.changed = true;
        }
        self.revision = Some(annotations::revision(&self.members[index].set).to_string());
        if conditions::deadline(self.spec).is_some()
            && conditions::find(&self.status, conditions::PROGRESSING).is_none()
        {
            let message = format!("Found new replica set {:?}", self.members[index].name());
            self.set_progressing("True", "FoundNewReplicaSet", &message);
        }
    }

    fn create_new(&mut self, revision: i64) -> bool {
        let hash = pod_template::hash(&self.spec.template, self.status.collision_count);
        let name = format!("{}-{hash}", self.deployment.metadata.name.as_deref().unwrap_or_default());
        let namespace = self.deployment.metadata.namespace.as_deref().unwrap_or_default();
        if self.state.sets.find(namespace, &name).is_some() {
            // Ours with this template it is not, or it would have been found.
            self.status.collision_count = Some(self.status.collision_count.unwrap_or(0) + 1);
            return false;
        }
        let mut set = self.blank(&name, &hash);
        annotations::sync(self.deployment, &mut set, revision);
        let desired = math::wanted(self.spec);
        annotations::set_replicas(&mut set, desired, desired + math::max_surge(self.spec));
        self.members.push(Member { set, original: None, changed: false, delete: false });
        let index = self.members.len() - 1;
        self.newest = Some(index);
        let replicas = self.new_replicas(index);
        if let Some(spec) = self.members[index].set.spec.as_mut() {
            spec.replicas = Some(replicas);
        }
        self.revision = Some(revision.to_string());
        if conditions::deadline(self.spec).is_some() {
            self.set_progressing("True", "NewReplicaSetCreated", &format!("Created new replica set {name:?}"));
        }
        true
    }

    /// A set of the Deployment's template without pods.
    fn blank(&self, name: &str, hash: &str) -> ReplicaSet {
        let hashed = |labels: &mut Option<BTreeMap<String, String>>| {
            labels.get_or_insert_default().insert(pod_template::HASH_LABEL.to_owned(), hash.to_owned());
        };
        let mut template: PodTemplateSpec = self.spec.template.clone();
        hashed(&mut template.metadata.get_or_insert_default().labels);
        let mut selector = self.spec.selector.clone();
        hashed(&mut selector.match_labels);
        let metadata = ObjectMeta {
            name: Some(name.to_owned()),
            namespace: self.deployment.metadata.namespace.clone(),
            labels: template.metadata.as_ref().and_then(|metadata| metadata.labels.clone()),
            owner_references: Some(vec![ownership::controlled_by(self.deployment)]),
            ..ObjectMeta::default()
        };
        let spec = ReplicaSetSpec {
            replicas: Some(0),
            min_ready_seconds: self.spec.min_ready_seconds,
            selector,
            template: Some(template),
        };
        ReplicaSet { metadata, spec: Some(spec), status: None }
    }

    pub fn set_progressing(&mut self, status: &str, reason: &str, message: &str) {
        let condition = conditions::new(conditions::PROGRESSING, status, reason, message, self.context.now);
        conditions::set(&mut self.status, condition);
    }

    /// While paused the clock of the deadline stands still, which the condition shows.
    pub fn check_paused(&mut self) {
        if conditions::deadline(self.spec).is_none() {
            return;
        }
        let reason =
            conditions::find(&self.status, conditions::PROGRESSING).and_then(|condition| condition.reason.as_deref());
        let (paused, shown) = (self.spec.paused == Some(true), reason == Some(conditions::PAUSED));
        if reason == Some(conditions::TIMED_OUT) || paused == shown {
            return;
        }
        if paused {
            self.set_progressing("Unknown", conditions::PAUSED, "Deployment is paused");
        } else {
            self.set_progressing("Unknown", "DeploymentResumed", "Deployment is resumed");
        }
    }

    /// The counts of the sets and the availability that follows.
    fn calculated(&self) -> DeploymentStatus {
        let all = self.all();
        let available = self.sum(&all, Member::available);
        let total = self.sum(&all, Member::actual);
        let of = |field: fn(&k8s_openapi::api::apps::v1::ReplicaSetStatus) -> Option<i32>| {
            self.sum(&all, |member| member.set.status.as_ref().and_then(field).unwrap_or(0))
        };
        let unless_zero = |number: i32| Some(number).filter(|number| *number != 0);
        let mut status = DeploymentStatus {
            observed_generation: self.deployment.metadata.generation,
            replicas: unless_zero(total),
            updated_replicas: unless_zero(self.newest.map_or(0, |index| self.members[index].actual())),
            ready_replicas: unless_zero(of(|status| status.ready_replicas)),
            available_replicas: unless_zero(available),
            unavailable_replicas: unless_zero((total - available).max(0)),
            terminating_replicas: Some(of(|status| status.terminating_replicas)),
            collision_count: self.status.collision_count,
            conditions: self.status.conditions.clone(),
        };
        conditions::set(&mut status, conditions::availability(self.spec, available, self.context.now));
        status
    }

    /// The status of a Deployment that is scaled, paused or deleted: its progress is not judged.
    pub fn sync_status(&mut self) {
        self.status = self.calculated();
    }

    /// The status of a Deployment that is rolled out.
    pub fn sync_rollout_status(&mut self) {
        let old = self.deployment.status.clone().unwrap_or_default();
        let mut status = self.calculated();
        let deadline = conditions::deadline(self.spec);
        if deadline.is_none() {
            conditions::remove(&mut status, conditions::PROGRESSING);
        }
        let current = conditions::find(&self.status, conditions::PROGRESSING).cloned();
        let settled = status.replicas == status.updated_replicas
            && current
                .as_ref()
                .is_some_and(|condition| condition.reason.as_deref() == Some(conditions::NEW_SET_AVAILABLE));
        if deadline.is_some() && !settled {
            self.judge_progress(&old, &mut status, current.as_ref());
        }
        let sets: Vec<ReplicaSet> = self.old().iter().map(|index| self.members[*index].set.clone()).collect();
        conditions::remove(&mut status, conditions::REPLICA_FAILURE);
        if let Some(failure) = conditions::failure(&sets, self.newest.map(|index| &self.members[index].set)) {
            let kept = conditions::find(&old, conditions::REPLICA_FAILURE)
                .filter(|have| have.reason == failure.reason)
                .cloned();
            conditions::set(&mut status, kept.unwrap_or(failure));
        }
        if let Some(after) = conditions::check_in(self.deployment, self.spec, &status, self.context.now) {
            self.plan.requeue(after);
        }
        self.status = status;
    }

    fn judge_progress(
        &self,
        old: &DeploymentStatus,
        status: &mut DeploymentStatus,
        current: Option<&k8s_openapi::api::apps::v1::DeploymentCondition>,
    ) {
        let subject = match self.newest {
            Some(index) => format!("ReplicaSet {:?}", self.members[index].name()),
            None => format!("Deployment {:?}", self.deployment.metadata.name.as_deref().unwrap_or_default()),
        };
        let now = self.context.now;
        let condition = |verdict: &str, reason: &str, words: &str| {
            conditions::new(conditions::PROGRESSING, verdict, reason, &format!("{subject} {words}"), now)
        };
        if conditions::is_complete(self.deployment, self.spec, status) {
            conditions::set(status, condition("True", conditions::NEW_SET_AVAILABLE, "has successfully progressed."));
        } else if conditions::is_progressing(old, status) {
            // Replaced even where it says the same: the deadline counts from the last progress.
            let mut progressing = condition("True", "ReplicaSetUpdated", "is progressing.");
            if let Some(current) = current.filter(|current| current.status == "True") {
                progressing.last_transition_time = current.last_transition_time.clone();
            }
            conditions::remove(status, conditions::PROGRESSING);
            conditions::set(status, progressing);
        } else if conditions::is_timed_out(self.spec, status, now) {
            conditions::set(status, condition("False", conditions::TIMED_OUT, "has timed out progressing."));
        }
    }

    /// Turns what was worked out into actions.
    pub fn into_plan(mut self, claims: Vec<Action>) -> Plan {
        let mut plan = std::mem::take(&mut self.plan);
        if !claims.is_empty() {
            plan.actions.push(Step::Parallel(claims));
        }
        let creating = self.members.iter().any(|member| member.original.is_none());
        for member in &self.members {
            plan.actions.extend(self.action(member).map(Step::One));
        }
        plan.actions.extend(self.show_revision().map(Step::One));
        let refused =
            self.context.failure.filter(|failure| failure.reason == Some(CREATE_ERROR) && failure.code != 409);
        if creating {
            // "Created" is written only after the creation, its failure whatever happens.
            let status = self.write_status().map(Step::One);
            if let Some(failure) = refused {
                let name = self.newest.map_or("", |index| self.members[index].name());
                let message = format!("Failed to create new replica set {name:?}: {}", failure.message);
                self.status = self.deployment.status.clone().unwrap_or_default();
                self.set_progressing("False", CREATE_ERROR, &message);
                plan.status = self.write_status();
            } else {
                plan.actions.extend(status);
            }
        } else {
            plan.status = self.write_status();
        }
        plan
    }

    fn action(&self, member: &Member) -> Option<Action> {
        let about = || reference(self.deployment);
        let name = member.name();
        match &member.original {
            None => {
                let create = Action::create(&member.set).on_failure(
                    about(),
                    CREATE_ERROR,
                    format!("Failed to create new replica set {name:?}: {{error}}"),
                );
                let replicas = member.replicas();
                let message = format!("Scaled up replica set {name} from 0 to {replicas}");
                Some(if replicas > 0 { create.on_success(about(), SCALING, message) } else { create })
            }
            Some(_) if member.delete => Some(Action::delete(&member.set)),
            Some(original) if member.changed => {
                let before = original.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
                let after = member.replicas();
                let direction = if after > before { "up" } else { "down" };
                let message = format!("Scaled {direction} replica set {name} from {before} to {after}");
                let update = Action::update(&member.set);
                Some(if before == after { update } else { update.on_success(about(), SCALING, message) })
            }
            Some(_) => None,
        }
    }

    /// Shows the newest set's revision on the Deployment, where kubectl looks for it.
    fn show_revision(&self) -> Option<Action> {
        let revision = self.revision.as_ref()?;
        let shown = self.deployment.metadata.annotations.as_ref().and_then(|all| all.get(annotations::REVISION));
        if shown == Some(revision) {
            return None;
        }
        let patch = json!({"metadata": {"annotations": {annotations::REVISION: revision}}});
        Some(Action::patch(self.deployment, PatchKind::Merge, patch))
    }

    /// The status as a patch: its writer owns all of it, and the revision's patch before it has changed the version.
    fn write_status(&self) -> Option<Action> {
        // What counts nothing is told of by some counts only.
        let same = |known| decode::same(known, &self.status, "io.k8s.api.apps.v1.DeploymentStatus");
        if self.deployment.status.as_ref().is_some_and(same) {
            return None;
        }
        let old = json!(self.deployment.status);
        let mut patch = json!(self.status);
        if let (Some(old), Some(new)) = (old.as_object(), patch.as_object_mut()) {
            for field in old.keys() {
                if !new.contains_key(field) {
                    // A merge patch removes what is null.
                    new.insert(field.clone(), coracle_api::json::Value::Null);
                }
            }
        }
        Some(Action::patch_status(self.deployment, PatchKind::Merge, json!({"status": patch})))
    }
}

/// The order of age: creation time, then name. What is not made yet is the youngest.
fn age(set: &ReplicaSet) -> (bool, Option<jiff::Timestamp>, Option<String>) {
    let created = set.metadata.creation_timestamp.as_ref().map(|time| time.0);
    (created.is_none(), created, set.metadata.name.clone())
}
