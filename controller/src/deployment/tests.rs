//! Whole rollouts against a model of the API server and the ReplicaSet controller, and single plans where a state is hard to reach.

use std::time::Duration;

use super::*;
use coracle_api::json::{Value, json};
use coracle_client::{Action, Failure, Step, Verb};
use jiff::Timestamp;

/// Applies actions as the server would, and lets ReplicaSets reach their sizes.
struct Model {
    deployment: Value,
    sets: Vec<Value>,
    now: Timestamp,
    events: Vec<String>,
    least_available: i64,
    most: i64,
    version: u64,
}

impl Model {
    fn new(spec: Value) -> Self {
        let deployment = json!({
            "metadata": {"name": "web", "namespace": "d", "uid": "d1", "generation": 1, "resourceVersion": "1"},
            "spec": {"selector": {"matchLabels": {"app": "web"}}, "progressDeadlineSeconds": 600, "revisionHistoryLimit": 10,
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
                "template": template("v1")},
        });
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut model =
            Self { deployment, sets: Vec::new(), now, events: Vec::new(), least_available: 0, most: 0, version: 1 };
        model.edit(spec);
        model
    }

    fn edit(&mut self, spec: Value) {
        merge(&mut self.deployment["spec"], &spec);
        let generation = self.deployment["metadata"]["generation"].as_i64().unwrap();
        self.deployment["metadata"]["generation"] = (generation + 1).into();
    }

    fn plan(&self, failure: Option<&Failure>) -> Plan {
        let sets: Vec<ReplicaSet> =
            self.sets.iter().map(|set| coracle_api::json::from_value(set.clone()).unwrap()).collect();
        let deployment: Deployment = coracle_api::json::from_value(self.deployment.clone()).unwrap();
        let state = State {
            deployments: Arc::new(Snapshot::of([deployment], &[])),
            sets: Arc::new(Snapshot::of(sets, &[ownership::controller_index()])),
            pods: Arc::new(Snapshot::of(Vec::<Pod>::new(), &[ownership::controller_index()])),
        };
        plan(&state, &Key::new("d", "web"), &Context { now: self.now, failure })
    }

    /// Plans and applies once; true when anything was done.
    fn step(&mut self) -> bool {
        let plan = self.plan(None);
        let actions: Vec<Action> = plan.actions.iter().flat_map(Step::actions).chain(&plan.status).cloned().collect();
        for action in &actions {
            self.apply(action);
        }
        self.now = self.now.checked_add(Duration::from_secs(1)).unwrap();
        !actions.is_empty()
    }

    fn apply(&mut self, action: &Action) {
        if let Some((reason, message)) = action.announce.as_ref().and_then(|announce| announce.success.as_ref()) {
            assert_eq!(*reason, "ScalingReplicaSet");
            self.events.push(self.shorten(message));
        }
        self.version += 1;
        let version = self.version.to_string();
        match &action.verb {
            Verb::Create(body) => {
                let mut set = body.clone();
                set["metadata"]["uid"] = format!("u{version}").into();
                set["metadata"]["generation"] = 1.into();
                set["metadata"]["resourceVersion"] = version.into();
                set["metadata"]["creationTimestamp"] =
                    json!(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(self.now));
                self.sets.push(set);
            }
            Verb::Update { body, .. } => {
                let set = self.sets.iter_mut().find(|set| set["metadata"]["name"] == action.name.as_str()).unwrap();
                *set = body.clone();
            }
            Verb::Delete { .. } => self.sets.retain(|set| set["metadata"]["name"] != action.name.as_str()),
            Verb::Patch { body, .. } => merge(&mut self.deployment, body),
            other => panic!("{other:?}"),
        }
    }

    /// Names of sets differ by hash; events name them by their image.
    fn shorten(&self, message: &str) -> String {
        message.replace("replica set web-", "")
    }

    /// ReplicaSets have as many pods as asked for, available where `healthy` says so.
    fn pods(&mut self, healthy: impl Fn(&str) -> bool) {
        for set in &mut self.sets {
            let replicas = set["spec"]["replicas"].as_i64().unwrap();
            let image = set["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap();
            let good = if healthy(image) { replicas } else { 0 };
            set["status"] = json!({"replicas": replicas, "readyReplicas": good, "availableReplicas": good, "observedGeneration": 1});
        }
        let total: i64 = self.sets.iter().map(|set| set["status"]["replicas"].as_i64().unwrap()).sum();
        let available: i64 = self.sets.iter().map(|set| set["status"]["availableReplicas"].as_i64().unwrap()).sum();
        self.most = self.most.max(total);
        self.least_available = self.least_available.min(available);
    }

    fn settle(&mut self, healthy: impl Fn(&str) -> bool + Copy) {
        self.least_available = i64::MAX;
        self.most = 0;
        for _ in 0..100 {
            let acted = self.step();
            self.pods(healthy);
            if !acted && !self.step() {
                return;
            }
        }
        panic!("never settles: {:?}", self.plan(None).describe());
    }

    fn sizes(&self) -> Vec<(String, i64)> {
        let image =
            |set: &Value| set["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap().to_owned();
        self.sets.iter().map(|set| (image(set), set["spec"]["replicas"].as_i64().unwrap())).collect()
    }

    fn condition(&self, kind: &str) -> (String, String, String) {
        let conditions = self.deployment["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let condition = conditions.into_iter().find(|condition| condition["type"] == kind).unwrap_or_default();
        let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
        (text("status"), text("reason"), text("message"))
    }

    fn revision(&self) -> &str {
        self.deployment["metadata"]["annotations"][annotations::REVISION].as_str().unwrap()
    }
}

fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}})
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                if value.is_null() {
                    into.remove(key);
                } else {
                    merge(into.entry(key.clone()).or_insert(Value::Null), value);
                }
            }
        }
        (into, from) => *into = from.clone(),
    }
}

fn sizes(expected: &[(&str, i64)]) -> Vec<(String, i64)> {
    expected.iter().map(|(image, size)| ((*image).to_owned(), *size)).collect()
}

#[test]
fn a_new_deployment_comes_up() {
    let mut model = Model::new(json!({"replicas": 3}));
    assert_eq!(
        model.plan(None).describe(),
        [
            "create replicasets.apps d/web-".to_owned() + &hash("v1"),
            "patch deployments.apps d/web".to_owned(),
            "patch deployments.apps/status d/web".to_owned()
        ]
    );
    assert!(model.step());
    assert_eq!(model.condition("Progressing").1, "NewReplicaSetCreated");
    assert_eq!(model.condition("Available").1, "MinimumReplicasUnavailable");
    model.settle(|_| true);
    assert_eq!(model.sizes(), sizes(&[("v1", 3)]));
    let (status, reason, message) = model.condition("Progressing");
    assert_eq!((status.as_str(), reason.as_str()), ("True", "NewReplicaSetAvailable"));
    assert_eq!(message, format!("ReplicaSet \"web-{}\" has successfully progressed.", hash("v1")));
    assert_eq!(model.events, [format!("Scaled up {} from 0 to 3", hash("v1"))]);
    assert_eq!(model.revision(), "1");
    assert_eq!(model.deployment["status"]["observedGeneration"], model.deployment["metadata"]["generation"]);
}

fn hash(image: &str) -> String {
    crate::pod_template::hash(&coracle_api::json::from_value(template(image)).unwrap(), None)
}

#[test]
fn a_rolling_update_keeps_its_bounds() {
    for (replicas, surge, unavailable, least, most) in [
        (4, json!("25%"), json!("25%"), 3, 5),
        (10, json!(3), json!(0), 10, 13),
        (10, json!(0), json!(2), 8, 10),
        (1, json!("25%"), json!("25%"), 1, 2),
        (100, json!("10%"), json!("20%"), 80, 110),
    ] {
        let mut model = Model::new(json!({"replicas": replicas,
            "strategy": {"rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}}));
        model.settle(|_| true);
        model.edit(json!({"template": template("v2")}));
        model.settle(|_| true);
        assert_eq!(model.sizes(), sizes(&[("v1", 0), ("v2", replicas)]));
        assert!(
            model.least_available >= least && model.most <= most,
            "{replicas}: {} {}",
            model.least_available,
            model.most
        );
        assert_eq!(model.revision(), "2");
    }
}

#[test]
fn a_bad_image_stops_at_the_bounds_and_is_reported() {
    let mut model = Model::new(json!({"replicas": 4}));
    model.settle(|_| true);
    model.edit(json!({"template": template("bad")}));
    model.settle(|image| image != "bad");
    assert_eq!(model.sizes(), sizes(&[("v1", 3), ("bad", 2)]));
    assert_eq!(model.condition("Progressing").1, "ReplicaSetUpdated");
    assert_eq!(model.condition("Available").0, "True");
    let wait = model.plan(None).requeue_after.unwrap();
    assert!(wait > Duration::from_secs(580) && wait <= Duration::from_secs(601), "{wait:?}");
    model.now = model.now.checked_add(wait).unwrap();
    model.settle(|image| image != "bad");
    let (status, reason, message) = model.condition("Progressing");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "ProgressDeadlineExceeded"));
    assert!(message.ends_with("has timed out progressing."));
    // kubectl rollout undo writes the old template back.
    model.edit(json!({"template": template("v1")}));
    model.settle(|image| image != "bad");
    assert_eq!(model.sizes(), sizes(&[("v1", 4), ("bad", 0)]));
    assert_eq!(model.revision(), "3");
    assert_eq!(model.sets[0]["metadata"]["annotations"][annotations::REVISION_HISTORY], "1");
    assert_eq!(model.condition("Progressing").1, "NewReplicaSetAvailable");
}

#[test]
fn scaling_in_the_middle_of_a_rollout_is_proportional() {
    let mut model =
        Model::new(json!({"replicas": 10, "strategy": {"rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}}}));
    model.settle(|_| true);
    model.edit(json!({"template": template("bad")}));
    model.settle(|image| image != "bad");
    assert_eq!(model.sizes(), sizes(&[("v1", 8), ("bad", 5)]));
    model.edit(json!({"replicas": 15}));
    assert!(model.step());
    // The example of the Kubernetes documentation, "Proportional scaling".
    assert_eq!(model.sizes(), sizes(&[("v1", 11), ("bad", 7)]));
}

#[test]
fn recreate_never_mixes_versions() {
    let mut model = Model::new(json!({"replicas": 3, "strategy": {"type": "Recreate", "rollingUpdate": null}}));
    model.settle(|_| true);
    model.edit(json!({"template": template("v2")}));
    model.step();
    assert_eq!(model.sizes(), sizes(&[("v1", 0)]), "nothing new while the old runs");
    model.step();
    assert_eq!(model.sizes(), sizes(&[("v1", 0)]), "its pods are still there");
    model.settle(|_| true);
    assert_eq!(model.sizes(), sizes(&[("v1", 0), ("v2", 3)]));
}

#[test]
fn paused_scales_but_does_not_roll() {
    let mut model = Model::new(json!({"replicas": 2}));
    model.settle(|_| true);
    model.edit(json!({"paused": true, "template": template("v2"), "replicas": 4}));
    model.settle(|_| true);
    assert_eq!(model.sizes(), sizes(&[("v1", 4)]));
    assert_eq!(model.condition("Progressing").1, "DeploymentPaused");
    model.edit(json!({"paused": false}));
    model.settle(|_| true);
    assert_eq!(model.sizes(), sizes(&[("v1", 0), ("v2", 4)]));
    assert_eq!(model.condition("Progressing").1, "NewReplicaSetAvailable");
}

#[test]
fn history_is_kept_to_its_limit() {
    let mut model = Model::new(json!({"replicas": 1, "revisionHistoryLimit": 2}));
    for version in 1..=5 {
        model.edit(json!({"template": template(&format!("v{version}"))}));
        model.settle(|_| true);
    }
    assert_eq!(model.sizes(), sizes(&[("v3", 0), ("v4", 0), ("v5", 1)]));
    assert_eq!(model.revision(), "5");
}

#[test]
fn a_taken_name_is_a_collision() {
    let mut model = Model::new(json!({"replicas": 1}));
    let name = format!("web-{}", hash("v1"));
    model.sets.push(json!({"metadata": {"name": name, "namespace": "d", "uid": "x", "creationTimestamp": null},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "other"}}, "template": template("v1")}}));
    assert_eq!(model.plan(None).describe(), ["patch deployments.apps/status d/web"]);
    model.step();
    assert_eq!(model.deployment["status"]["collisionCount"], 1);
    model.step();
    assert_eq!(model.sets.len(), 2);
    assert_ne!(model.sets[1]["metadata"]["name"], name.as_str());
}

#[test]
fn an_orphan_with_the_template_is_adopted_not_doubled() {
    let mut model = Model::new(json!({"replicas": 1}));
    model.settle(|_| true);
    model.sets[0]["metadata"]["ownerReferences"] = json!([]);
    let plan = model.plan(None);
    assert_eq!(plan.describe(), [format!("patch replicasets.apps d/web-{}", hash("v1"))]);
}

#[test]
fn a_refused_creation_is_shown() {
    let model = Model::new(json!({"replicas": 1}));
    let failure =
        Failure { action: String::new(), reason: Some("ReplicaSetCreateError"), message: "quota".into(), code: 403 };
    let plan = model.plan(Some(&failure));
    let Verb::Patch { body, .. } = &plan.status.as_ref().unwrap().verb else { panic!() };
    let condition = &body["status"]["conditions"][0];
    assert_eq!(
        (condition["status"].as_str(), condition["reason"].as_str()),
        (Some("False"), Some("ReplicaSetCreateError"))
    );
    assert_eq!(condition["message"], format!("Failed to create new replica set \"web-{}\": quota", hash("v1")));
}
