use super::*;
use coracle_api::json::{Value, json};
use coracle_client::Verb;

fn set(more: Value) -> StatefulSet {
    let mut set = json!({
        "metadata": {"name": "db", "namespace": "d", "uid": "s1", "generation": 1, "resourceVersion": "5"},
        "spec": {
            "replicas": 3,
            "serviceName": "db",
            "selector": {"matchLabels": {"app": "db"}},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
            "template": {"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [{"name": "c", "image": "v1"}]}},
        },
    });
    merge(&mut set, more);
    from(set)
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

fn from<T: serde::de::DeserializeOwned>(value: Value) -> T {
    coracle_api::json::from_value(value).unwrap()
}

/// A world in which plans are carried out.
struct World {
    set: StatefulSet,
    pods: Vec<Pod>,
    claims: Vec<PersistentVolumeClaim>,
    revisions: Vec<ControllerRevision>,
}

impl World {
    fn new(more: Value) -> Self {
        Self { set: set(more), pods: Vec::new(), claims: Vec::new(), revisions: Vec::new() }
    }

    fn plan(&self) -> Plan {
        let state = State {
            sets: Arc::new(Snapshot::of([self.set.clone()], &[])),
            pods: Arc::new(Snapshot::of(self.pods.clone(), &[ownership::controller_index()])),
            claims: Arc::new(Snapshot::of(self.claims.clone(), &[])),
            revisions: Arc::new(Snapshot::of(self.revisions.clone(), &[ownership::controller_index()])),
        };
        plan(&state, &Key::new("d", "db"), &Context::at("2026-01-01T01:00:00Z".parse().unwrap()))
    }

    /// Carries one plan out; new pods are Pending, deleted ones are gone. Returns what was done about pods and claims.
    fn step(&mut self) -> Vec<String> {
        let plan = self.plan();
        let mut done = Vec::new();
        for action in plan.actions.iter().flat_map(Step::actions) {
            match (&action.verb, action.resource.kind.as_ref()) {
                (Verb::Create(body), "Pod") => {
                    let mut pod: Pod = from(body.clone());
                    pod.metadata.uid = Some(format!("u-{}-{}", action.name, self.pods.len()));
                    pod.status = Some(from(json!({"phase": "Pending"})));
                    self.pods.push(pod);
                }
                (Verb::Create(body), "ControllerRevision") => self.revisions.push(from(body.clone())),
                (Verb::Create(body), "PersistentVolumeClaim") => self.claims.push(from(body.clone())),
                (Verb::Delete { .. }, "Pod") => {
                    self.pods.retain(|pod| pod.metadata.name.as_deref() != Some(&action.name))
                }
                (Verb::Update { body, .. }, "PersistentVolumeClaim") => {
                    self.claims.retain(|claim| claim.metadata.name.as_deref() != Some(&action.name));
                    self.claims.push(from(body.clone()));
                }
                (Verb::Patch { body, .. }, "ControllerRevision") => {
                    for revision in &mut self.revisions {
                        if revision.metadata.name.as_deref() == Some(&action.name) {
                            revision.revision = body["revision"].as_i64().unwrap();
                        }
                    }
                }
                other => panic!("{other:?}"),
            }
            if action.resource.kind != "ControllerRevision" {
                done.push(action.describe());
            }
        }
        if let Some(Verb::Update { body, .. }) = plan.status.map(|status| status.verb) {
            self.set.status = Some(from(body["status"].clone()));
        }
        done
    }

    fn run(&mut self, name: &str) {
        let ready = json!({"phase": "Running", "conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
        self.pod(name).status = Some(from(ready));
    }

    fn pod(&mut self, name: &str) -> &mut Pod {
        self.pods.iter_mut().find(|pod| pod.metadata.name.as_deref() == Some(name)).unwrap()
    }

    /// Steps and runs what is new until nothing happens; what was done, in order.
    fn settle(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        for _ in 0..50 {
            let done = self.step();
            let names: Vec<_> = self.pods.iter().filter_map(|pod| pod.metadata.name.clone()).collect();
            names.iter().for_each(|name| self.run(name));
            if done.is_empty() && self.plan().status.is_none() {
                return all;
            }
            all.extend(done);
        }
        panic!("no end: {all:?}");
    }
}

fn images(world: &World) -> Vec<(String, String)> {
    let mut images: Vec<_> = world
        .pods
        .iter()
        .map(|pod| {
            let image = pod.spec.as_ref().unwrap().containers[0].image.as_deref().unwrap();
            (pod.metadata.name.clone().unwrap(), image.to_owned())
        })
        .collect();
    images.sort();
    images
}

#[test]
fn pods_are_made_one_after_the_other_with_names_of_their_own() {
    let mut world = World::new(json!({}));
    assert_eq!(world.step(), ["create pods d/db-0"]);
    assert_eq!(world.step(), Vec::<String>::new(), "the first is not ready");
    world.run("db-0");
    assert_eq!(world.step(), ["create pods d/db-1"]);
    let pod = world.pod("db-1").clone();
    let spec = pod.spec.unwrap();
    assert_eq!((spec.hostname.as_deref(), spec.subdomain.as_deref()), (Some("db-1"), Some("db")));
    let labels = pod.metadata.labels.unwrap();
    assert_eq!(labels["statefulset.kubernetes.io/pod-name"], "db-1");
    assert_eq!(labels["apps.kubernetes.io/pod-index"], "1");
    assert_eq!(Some(&labels["controller-revision-hash"]), world.revisions[0].metadata.name.as_ref());
    world.settle();
    let status = world.set.status.unwrap();
    assert_eq!((status.replicas, status.ready_replicas, status.current_replicas), (3, Some(3), Some(3)));
    assert_eq!(status.current_revision, status.update_revision);
}

#[test]
fn parallel_sets_make_all_at_once() {
    let mut world = World::new(json!({"spec": {"podManagementPolicy": "Parallel", "ordinals": {"start": 5}}}));
    assert_eq!(world.step(), ["create pods d/db-5", "create pods d/db-6", "create pods d/db-7"]);
}

#[test]
fn a_name_that_is_still_there_is_not_used_again() {
    let mut world = World::new(json!({}));
    world.settle();
    // Its node is silent: the object stays, being deleted, for nobody can say that nothing runs.
    world.pod("db-1").metadata.deletion_timestamp = Some(from(json!("2026-01-01T00:30:00Z")));
    assert_eq!(world.step(), Vec::<String>::new());
    world.pods.retain(|pod| pod.metadata.name.as_deref() != Some("db-1"));
    assert_eq!(world.step(), ["create pods d/db-1"]);
}

#[test]
fn an_ended_pod_is_deleted_and_made_again() {
    let mut world = World::new(json!({}));
    world.settle();
    world.pod("db-0").status = Some(from(json!({"phase": "Failed"})));
    assert_eq!(world.settle(), ["delete pods d/db-0", "create pods d/db-0"]);
}

#[test]
fn scaling_down_takes_the_highest_first_and_waits_for_the_rest_to_be_well() {
    let mut world = World::new(json!({}));
    world.settle();
    world.set.spec.as_mut().unwrap().replicas = Some(1);
    assert_eq!(world.step(), ["delete pods d/db-2"]);
    world.pod("db-0").status = Some(from(json!({"phase": "Running"})));
    assert_eq!(world.step(), Vec::<String>::new(), "db-0 is not well");
    world.run("db-0");
    assert_eq!(world.step(), ["delete pods d/db-1"]);
    assert_eq!(world.settle(), Vec::<String>::new());
}

#[test]
fn an_update_goes_from_the_highest_down_to_the_partition() {
    let mut world = World::new(json!({}));
    world.settle();
    let spec = world.set.spec.as_mut().unwrap();
    spec.template.spec.as_mut().unwrap().containers[0].image = Some("v2".into());
    spec.update_strategy.as_mut().unwrap().rolling_update.as_mut().unwrap().partition = Some(1);
    let done = world.settle();
    assert_eq!(done, ["delete pods d/db-2", "create pods d/db-2", "delete pods d/db-1", "create pods d/db-1"]);
    assert_eq!(images(&world).iter().map(|(_, image)| image.as_str()).collect::<Vec<_>>(), ["v1", "v2", "v2"]);
    let status = world.set.status.clone().unwrap();
    assert_eq!((status.current_replicas, status.updated_replicas), (Some(1), Some(2)));
    assert_ne!(status.current_revision, status.update_revision);
    // A pod below the partition that is lost comes back as it was.
    world.pods.retain(|pod| pod.metadata.name.as_deref() != Some("db-0"));
    world.settle();
    assert_eq!(images(&world)[0].1, "v1");
    // Back to the first template: its revision becomes the newest again, and there are still two.
    world.set.spec.as_mut().unwrap().template.spec.as_mut().unwrap().containers[0].image = Some("v1".into());
    world.settle();
    assert!(images(&world).iter().all(|(_, image)| image == "v1"));
    let mut numbers: Vec<_> = world.revisions.iter().map(|revision| revision.revision).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [2, 3]);
}

#[test]
fn a_broken_update_can_be_taken_back() {
    let mut world = World::new(json!({}));
    world.settle();
    let image = |world: &mut World, image: &str| {
        world.set.spec.as_mut().unwrap().template.spec.as_mut().unwrap().containers[0].image = Some(image.into());
    };
    image(&mut world, "broken");
    assert_eq!(world.step(), ["delete pods d/db-2"]);
    assert_eq!(world.step(), ["create pods d/db-2"]);
    assert_eq!(world.step(), Vec::<String>::new(), "it never becomes ready");
    // In order, upstream waits for the broken pod; all at once it does not have to.
    world.set.spec.as_mut().unwrap().pod_management_policy = Some("Parallel".into());
    image(&mut world, "v1");
    assert_eq!(world.step(), ["delete pods d/db-2"]);
    world.settle();
    assert!(images(&world).iter().all(|(_, image)| image == "v1"));
}

#[test]
fn max_unavailable_updates_several_at_a_time() {
    let mut world = World::new(json!({"spec": {"updateStrategy": {"rollingUpdate": {"maxUnavailable": "50%"}}}}));
    world.settle();
    world.set.spec.as_mut().unwrap().template.spec.as_mut().unwrap().containers[0].image = Some("v2".into());
    assert_eq!(world.step(), ["delete pods d/db-2", "delete pods d/db-1"]);
}

#[test]
fn claims_come_before_their_pod_and_go_as_the_policy_says() {
    let mut world = World::new(json!({"spec": {
        "replicas": 2,
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Delete"},
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}],
    }}));
    assert_eq!(world.step(), ["create persistentvolumeclaims d/data-db-0", "create pods d/db-0"]);
    let volumes = world.pod("db-0").spec.clone().unwrap().volumes.unwrap();
    let claim = volumes[0].persistent_volume_claim.as_ref().unwrap();
    assert_eq!((&*volumes[0].name, &*claim.claim_name), ("data", "data-db-0"));
    world.settle();
    world.set.spec.as_mut().unwrap().replicas = Some(1);
    assert_eq!(world.step(), ["update persistentvolumeclaims d/data-db-1", "delete pods d/db-1"]);
    let owner = world.claims.iter().find_map(|claim| claim.metadata.owner_references.clone()).unwrap().remove(0);
    assert_eq!((owner.kind.as_str(), owner.name.as_str(), owner.controller), ("Pod", "db-1", None));
}

#[test]
fn old_revisions_beyond_the_limit_are_deleted() {
    let mut world = World::new(json!({"spec": {"revisionHistoryLimit": 1}}));
    for image in ["v1", "v2", "v3"] {
        world.set.spec.as_mut().unwrap().template.spec.as_mut().unwrap().containers[0].image = Some(image.into());
        for _ in 0..20 {
            let plan = world.plan();
            let deletes = |action: &&Action| {
                action.resource.kind == "ControllerRevision" && matches!(action.verb, Verb::Delete { .. })
            };
            if let Some(delete) = plan.actions.iter().flat_map(Step::actions).find(deletes) {
                assert_eq!((image, Some(&delete.name)), ("v3", world.revisions[0].metadata.name.as_ref()));
                return;
            }
            world.step();
            let names: Vec<_> = world.pods.iter().filter_map(|pod| pod.metadata.name.clone()).collect();
            names.iter().for_each(|name| world.run(name));
        }
    }
    panic!("no revision was deleted");
}

#[test]
fn a_pod_that_lost_its_identity_is_patched() {
    let mut world = World::new(json!({"spec": {
        "replicas": 1, "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}],
    }}));
    world.settle();
    assert!(world.plan().actions.is_empty(), "nothing is wrong with it");
    let pod = world.pod("db-0");
    pod.metadata.labels.as_mut().unwrap().remove("apps.kubernetes.io/pod-index");
    pod.spec.as_mut().unwrap().volumes = Some(from(json!([{"name": "data", "emptyDir": {}}, {"name": "other"}])));
    let plan = world.plan();
    let patches: Vec<&Action> = plan.actions.iter().flat_map(Step::actions).collect();
    let [Action { verb: Verb::Patch { body, .. }, name, .. }] = patches.as_slice() else { panic!("{patches:?}") };
    assert_eq!(name, "db-0");
    let volume = json!({"$retainKeys": ["name", "persistentVolumeClaim"], "name": "data",
        "persistentVolumeClaim": {"claimName": "data-db-0"}});
    let labels = json!({"apps.kubernetes.io/pod-index": "0"});
    assert_eq!(body["metadata"]["labels"], labels);
    assert_eq!(body["spec"], json!({"volumes": [volume]}));
}
