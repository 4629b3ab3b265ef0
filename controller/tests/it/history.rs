//! What must hold of every write that was ever made, whatever the order of events was.

use std::collections::{BTreeMap, BTreeSet};

use coracle_apiserver::store::Event;
use serde_json::Value;

use crate::{number, text};

/// What the check has to know beside the history.
pub struct Bounds<'a> {
    /// The uids of pods that their kubelet said have ended.
    pub ended: &'a BTreeSet<String>,
    /// Whether a controller may make a pod too many because it could not know that the first was made.
    pub surplus: bool,
}

#[derive(Default)]
struct Seen {
    uids: BTreeSet<String>,
    /// Pods that count, by the uid of their replica set.
    active: BTreeMap<String, BTreeSet<String>>,
    /// The most replicas that a set was ever asked for.
    asked: BTreeMap<String, i64>,
    /// Pods that have a node, with the keys of the claims that they name.
    placed: BTreeMap<String, BTreeSet<String>>,
    /// By the key of a claim that is to go: the pods that had a node by then and name it.
    users: BTreeMap<String, BTreeSet<String>>,
}

/// Looks at all writes in their order.
///
/// # Errors
/// What was broken, with the key and the revision.
pub fn check(history: &[Event], bounds: &Bounds) -> Result<(), String> {
    let mut seen = Seen::default();
    for event in history {
        let parse = |bytes: &Option<bytes::Bytes>| {
            bytes.as_ref().map(|bytes| serde_json::from_slice::<Value>(bytes).unwrap_or_default())
        };
        let (before, after) = (parse(&event.previous), parse(&event.value));
        seen.follow(&event.key, before.as_ref(), after.as_ref(), bounds)
            .map_err(|broken| format!("{} at revision {}: {broken}", event.key, event.modified))?;
    }
    Ok(())
}

impl Seen {
    fn follow(
        &mut self,
        key: &str,
        before: Option<&Value>,
        after: Option<&Value>,
        bounds: &Bounds,
    ) -> Result<(), String> {
        lives(&mut self.uids, before, after)?;
        if key.starts_with("/registry/pods/") {
            pod(before, after, bounds)?;
            self.count(before, after, bounds)?;
            self.place(before, after);
        } else if key.starts_with("/registry/persistentvolumeclaims/") {
            self.protect(before, after)?;
        } else if key.starts_with("/registry/replicasets/")
            && let Some(set) = after
        {
            let asked = self.asked.entry(text(set, "/metadata/uid").to_owned()).or_default();
            *asked = (*asked).max(number(set, "/spec/replicas"));
        }
        if let (Some(before), Some(after)) = (before, after) {
            forward(before, after, "/metadata/generation")?;
            forward(before, after, "/status/observedGeneration")?;
            if number(after, "/status/observedGeneration") > number(after, "/metadata/generation") {
                return Err("the status is ahead of what was asked".to_owned());
            }
        }
        Ok(())
    }

    /// Follows which pods may run, and what they use then.
    fn place(&mut self, before: Option<&Value>, after: Option<&Value>) {
        let Some(pod) = after.or(before) else { return };
        let uid = text(pod, "/metadata/uid").to_owned();
        if after.is_none() {
            self.placed.remove(&uid);
        } else if !text(pod, "/spec/nodeName").is_empty() {
            let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
            let names =
                volumes.map(|volume| text(volume, "/persistentVolumeClaim/claimName")).filter(|name| !name.is_empty());
            let namespace = text(pod, "/metadata/namespace");
            self.placed.insert(uid, names.map(|name| format!("{namespace}/{name}")).collect());
        }
    }

    /// No claim goes before those who used it when it was to go.
    fn protect(&mut self, before: Option<&Value>, after: Option<&Value>) -> Result<(), String> {
        let Some(claim) = after.or(before) else { return Ok(()) };
        let key = format!("{}/{}", text(claim, "/metadata/namespace"), text(claim, "/metadata/name"));
        if after.is_some_and(|claim| claim["metadata"].get("deletionTimestamp").is_some()) {
            let users = self.placed.iter().filter(|(_, claims)| claims.contains(&key)).map(|(pod, _)| pod.clone());
            self.users.entry(key.clone()).or_insert_with(|| users.collect());
        } else if after.is_none() {
            let users = self.users.remove(&key).unwrap_or_default();
            if let Some(pod) = users.iter().find(|pod| self.placed.contains_key(*pod)) {
                return Err(format!("the claim is gone while pod {pod} uses it"));
            }
        }
        Ok(())
    }

    /// No replica set makes more pods than it was ever asked for.
    fn count(&mut self, before: Option<&Value>, after: Option<&Value>, bounds: &Bounds) -> Result<(), String> {
        let Some(pod) = after.or(before) else { return Ok(()) };
        if text(pod, "/metadata/ownerReferences/0/kind") != "ReplicaSet" {
            return Ok(());
        }
        let owner = text(pod, "/metadata/ownerReferences/0/uid").to_owned();
        let uid = text(pod, "/metadata/uid").to_owned();
        let counts = after.is_some_and(|pod| pod["metadata"].get("deletionTimestamp").is_none());
        let active = self.active.entry(owner.clone()).or_default();
        if !counts {
            active.remove(&uid);
        } else if active.insert(uid) {
            let asked = self.asked.get(&owner).copied().unwrap_or_default();
            if active.len() as i64 > asked && !bounds.surplus {
                return Err(format!("{} pods of a set that was asked for {asked}", active.len()));
            }
        }
        Ok(())
    }
}

/// A uid belongs to one life of one key, and stays the same in it.
fn lives(uids: &mut BTreeSet<String>, before: Option<&Value>, after: Option<&Value>) -> Result<(), String> {
    let uid = |object: Option<&Value>| object.map(|object| text(object, "/metadata/uid").to_owned());
    match (uid(before), uid(after)) {
        (Some(before), Some(after)) if before != after => Err("the uid changed".to_owned()),
        (None, Some(uid)) if !uid.is_empty() && !uids.insert(uid.clone()) => Err(format!("uid {uid} lives twice")),
        _ => Ok(()),
    }
}

fn pod(before: Option<&Value>, after: Option<&Value>, bounds: &Bounds) -> Result<(), String> {
    let Some(before) = before else { return Ok(()) };
    let node = text(before, "/spec/nodeName");
    match after {
        Some(after) if !node.is_empty() && node != text(after, "/spec/nodeName") => {
            Err(format!("it moved from {node} to {:?}", text(after, "/spec/nodeName")))
        }
        Some(after) if !text(before, "/metadata/deletionTimestamp").is_empty() => {
            match text(after, "/metadata/deletionTimestamp") {
                "" => Err("it was to be deleted, and is not any more".to_owned()),
                _ => Ok(()),
            }
        }
        None if !node.is_empty() && !bounds.ended.contains(text(before, "/metadata/uid")) => {
            Err(format!("it is gone before {node} ended it"))
        }
        _ => Ok(()),
    }
}

fn forward(before: &Value, after: &Value, pointer: &str) -> Result<(), String> {
    if number(after, pointer) < number(before, pointer) {
        return Err(format!("{pointer} went back"));
    }
    Ok(())
}
