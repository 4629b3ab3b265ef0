use super::*;
use coracle_api::json::{Value, json};
use coracle_client::Failure;

fn set(replicas: i32) -> ReplicaSet {
    from(json!({
        "metadata": {"name": "web", "namespace": "d", "uid": "rs1", "generation": 2, "resourceVersion": "5"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
        },
    }))
}

fn pod(name: &str, owner: &str, more: Value) -> Pod {
    let owners = if owner.is_empty() {
        json!([])
    } else {
        json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": owner, "controller": true}])
    };
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "d", "uid": format!("u-{name}"), "labels": {"app": "web"}, "ownerReferences": owners},
        "spec": {"nodeName": "n1", "containers": []},
        "status": {"phase": "Running", "conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
    });
    merge(&mut pod, more);
    from(pod)
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

fn context() -> Context<'static> {
    Context::at("2026-01-01T01:00:00Z".parse().unwrap())
}

fn planned(set: ReplicaSet, pods: Vec<Pod>, context: &Context<'_>) -> Plan {
    let state = State {
        sets: Arc::new(Snapshot::of([set], &[ownership::controller_index()])),
        pods: Arc::new(Snapshot::of(pods, &[ownership::controller_index()])),
    };
    plan(&state, &Key::new("d", "web"), context)
}

fn status(plan: &Plan) -> Value {
    match &plan.status.as_ref().unwrap().verb {
        coracle_client::Verb::Update { body, .. } => body["status"].clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn missing_pods_are_created_from_the_template() {
    let plan = planned(set(3), vec![pod("a", "rs1", json!({}))], &context());
    assert_eq!(plan.describe(), ["create pods d/", "create pods d/", "update replicasets.apps/status d/web"]);
    assert!(matches!(plan.actions[0], Step::SlowStart(_)));
    let coracle_client::Verb::Create(body) = &plan.actions[0].actions()[0].verb else { panic!() };
    assert_eq!(body["metadata"]["generateName"], "web-");
    assert_eq!(body["metadata"]["ownerReferences"][0]["uid"], "rs1");
    assert_eq!(body["spec"]["containers"][0]["image"], "i");
    let expected = json!({"replicas": 1, "fullyLabeledReplicas": 1, "readyReplicas": 1, "availableReplicas": 1,
        "terminatingReplicas": 0, "observedGeneration": 2});
    assert_eq!(status(&plan), expected);
}

#[test]
fn ended_and_leaving_pods_do_not_count() {
    let pods = vec![
        pod("failed", "rs1", json!({"status": {"phase": "Failed"}})),
        pod("going", "rs1", json!({"metadata": {"deletionTimestamp": "2026-01-01T00:30:00Z"}})),
        pod("of-another", "rs2", json!({})),
    ];
    let plan = planned(set(1), pods, &context());
    assert_eq!(plan.describe(), ["create pods d/", "update replicasets.apps/status d/web"]);
    assert_eq!(status(&plan)["terminatingReplicas"], 1);
}

#[test]
fn the_least_useful_pods_go_first() {
    let cases: &[(&str, Value, Value)] = &[
        ("unassigned", json!({"spec": {"nodeName": null}}), json!({})),
        ("pending", json!({"status": {"phase": "Pending"}}), json!({})),
        ("not ready", json!({"status": {"conditions": []}}), json!({})),
        (
            "cheap",
            json!({"metadata": {"annotations": {"controller.kubernetes.io/pod-deletion-cost": "-1"}}}),
            json!({}),
        ),
        (
            "young",
            json!({"status": {"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:59:00Z"}]}}),
            json!({}),
        ),
        (
            "restarted",
            json!({"status": {"containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 3}]}}),
            json!({}),
        ),
    ];
    for (why, victim, other) in cases {
        let plan =
            planned(set(1), vec![pod("keep", "rs1", other.clone()), pod("victim", "rs1", victim.clone())], &context());
        assert_eq!(plan.describe()[0], "delete pods d/victim", "{why}");
    }
    let crowded = vec![
        pod("a", "rs1", json!({"spec": {"nodeName": "n1"}})),
        pod("b", "rs1", json!({"spec": {"nodeName": "n2"}})),
        pod("c", "rs1", json!({"spec": {"nodeName": "n2"}})),
    ];
    assert_eq!(planned(set(2), crowded, &context()).describe()[0], "delete pods d/b", "two on one node");
}

#[test]
fn orphans_are_adopted_and_strays_released() {
    let pods =
        vec![pod("orphan", "", json!({})), pod("stray", "rs1", json!({"metadata": {"labels": {"app": "other"}}}))];
    let plan = planned(set(1), pods, &context());
    assert_eq!(plan.describe(), ["patch pods d/stray", "patch pods d/orphan", "update replicasets.apps/status d/web"]);
    assert_eq!(status(&plan)["replicas"], 1);
}

#[test]
fn a_set_that_is_being_deleted_creates_nothing() {
    let mut set = set(3);
    set.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(context().now));
    assert_eq!(planned(set, vec![], &context()).describe(), ["update replicasets.apps/status d/web"]);
}

#[test]
fn a_failure_becomes_a_condition_and_goes_with_it() {
    let failure = Failure { action: String::new(), reason: Some("FailedCreate"), message: "quota".into(), code: 403 };
    let context = Context { failure: Some(&failure), ..context() };
    let plan = planned(set(1), vec![], &context);
    let condition = &status(&plan)["conditions"][0];
    assert_eq!(
        (condition["type"].as_str(), condition["reason"].as_str()),
        (Some("ReplicaFailure"), Some("FailedCreate"))
    );
    let mut failed = set(0);
    failed.status = from(status(&plan));
    assert!(status(&planned(failed, vec![], &self::context())).get("conditions").is_none());
}

#[test]
fn availability_comes_with_time() {
    let mut set = set(1);
    set.spec.as_mut().unwrap().min_ready_seconds = Some(3600 + 30);
    let plan = planned(set, vec![pod("a", "rs1", json!({}))], &context());
    assert_eq!(plan.requeue_after, Some(Duration::from_secs(30)));
    assert!(status(&plan).get("availableReplicas").is_none());
}
