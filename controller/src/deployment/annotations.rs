//! The annotations that carry a rollout's history and proportions.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};

pub const REVISION: &str = "deployment.kubernetes.io/revision";
pub const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
pub const MAX: &str = "deployment.kubernetes.io/max-replicas";

/// Not copied from the Deployment: they speak of the one object they are on.
const OWN: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED,
    MAX,
    "deprecated.deployment.rollback.to",
];

/// Upstream's `maxRevHistoryLengthInChars`.
const HISTORY_LIMIT: usize = 2000;

/// The revision that a ReplicaSet carries, 0 where it has none or no number.
pub fn revision(set: &ReplicaSet) -> i64 {
    number(set, REVISION).unwrap_or(0)
}

/// The number in an annotation of a ReplicaSet.
pub fn number(set: &ReplicaSet, name: &str) -> Option<i64> {
    set.metadata.annotations.as_ref()?.get(name)?.parse().ok()
}

/// Notes what the Deployment wanted and allowed when the set was last scaled. True when that changed anything.
pub fn set_replicas(set: &mut ReplicaSet, desired: i32, max: i32) -> bool {
    let annotations = set.metadata.annotations.get_or_insert_default();
    let mut changed = false;
    for (name, value) in [(DESIRED, desired.to_string()), (MAX, max.to_string())] {
        if annotations.get(name) != Some(&value) {
            annotations.insert(name.to_owned(), value);
            changed = true;
        }
    }
    changed
}

/// Brings the newest set's annotations in line with its Deployment (the change cause among them) and gives it the revision,
/// remembering the one it had: it is being rolled back to. True when that changed anything.
pub fn sync(deployment: &Deployment, set: &mut ReplicaSet, revision: i64) -> bool {
    let annotations = set.metadata.annotations.get_or_insert_default();
    let mut changed = false;
    for (name, value) in deployment.metadata.annotations.iter().flatten() {
        if !OWN.contains(&name.as_str()) && annotations.get(name) != Some(value) {
            annotations.insert(name.clone(), value.clone());
            changed = true;
        }
    }
    let old = annotations.get(REVISION).cloned();
    let old_number = match old.as_deref() {
        None | Some("") => 0,
        Some(text) => match text.parse::<i64>() {
            Ok(number) => number,
            // Somebody wrote something else there; leave it to them.
            Err(_) => return changed,
        },
    };
    if old_number >= revision {
        return changed;
    }
    annotations.insert(REVISION.to_owned(), revision.to_string());
    if let Some(old) = old {
        remember(annotations, &old);
    }
    true
}

fn remember(annotations: &mut BTreeMap<String, String>, revision: &str) {
    let history = annotations.entry(REVISION_HISTORY.to_owned()).or_default();
    if !history.is_empty() {
        history.push(',');
    }
    history.push_str(revision);
    while history.len() > HISTORY_LIMIT {
        match history.split_once(',') {
            Some((_, rest)) => *history = rest.to_owned(),
            None => history.clear(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::json::json;

    #[test]
    fn a_rollback_keeps_the_old_revisions_and_the_change_cause() {
        let deployment: Deployment = coracle_api::json::from_value(json!({"metadata": {"annotations": {
            "kubernetes.io/change-cause": "undo", "kubectl.kubernetes.io/last-applied-configuration": "{}", REVISION: "4"}}}))
        .unwrap();
        let mut set: ReplicaSet =
            coracle_api::json::from_value(json!({"metadata": {"annotations": {REVISION: "3", REVISION_HISTORY: "1"}}}))
                .unwrap();
        assert!(sync(&deployment, &mut set, 5));
        let expected = json!({"kubernetes.io/change-cause": "undo", REVISION: "5", REVISION_HISTORY: "1,3"});
        assert_eq!(json!(set.metadata.annotations), expected);
        assert!(!sync(&deployment, &mut set, 5), "nothing is left to do");
        assert!(!sync(&deployment, &mut set, 4), "a revision never falls");
    }

    #[test]
    fn the_history_is_bounded() {
        let mut annotations = BTreeMap::new();
        for revision in 0..1000 {
            remember(&mut annotations, &revision.to_string());
        }
        let history = &annotations[REVISION_HISTORY];
        assert!(history.len() <= HISTORY_LIMIT && history.ends_with("998,999"), "{history}");
    }
}
