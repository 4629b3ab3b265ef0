//! A container whose end has all containers of its pod run anew (KEP-5532; on in v1.36).

use coracle_tests::Lab;
use serde_json::Value;

/// Its second container ends at once, with CODE.
const TEAM: &str = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "NAME"}, "spec": {"restartPolicy": "Never",
    "initContainers": [{"name": "prepare", "image": "coracle/hello:v1", "args": ["print", "ready"]}], "containers": [
    {"name": "main", "image": "coracle/hello:v1", "args": ["serve", "8080"]},
    {"name": "boss", "image": "coracle/hello:v1", "args": ["exit", "CODE"], "restartPolicy": "Never",
     "restartPolicyRules": [{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}]}]}}"#;

fn apply(lab: &Lab, name: &str, code: &str) {
    lab.lite_with("apply -f -", &TEAM.replace("NAME", name).replace("CODE", code)).ok();
}

fn pod(lab: &Lab, name: &str) -> Value {
    serde_json::from_str(&lab.kubectl(&format!("get pod {name} -o json")).ok()).unwrap()
}

#[test]
fn one_end_has_all_run_anew() {
    let lab = Lab::up("team", 1);
    apply(&lab, "team", "42");
    apply(&lab, "calm", "1");
    let until = |name: &str, what: &str| {
        lab.lite(&format!("wait --for={what} pod/{name} --timeout=90s")).ok();
    };
    let runs = |count: u32| format!("jsonpath={{.status.containerStatuses[0].restartCount}}={count}");
    until("team", &runs(1));
    let first = pod(&lab, "team");
    let of = |pod: &Value, list: &str, field: &str| pod["status"][list][0][field].clone();
    assert_eq!(of(&first, "initContainerStatuses", "restartCount"), 1, "{first}");
    // It waits as a container that fails again would, and says so.
    until("team", "condition=AllContainersRestarting");
    until("team", &runs(2));
    let second = pod(&lab, "team");
    assert_eq!(of(&second, "initContainerStatuses", "restartCount"), 2, "{second}");
    assert!(of(&second, "containerStatuses", "containerID") != of(&first, "containerStatuses", "containerID"));
    let (address, uid) = (&second["status"]["podIP"], &second["metadata"]["uid"]);
    assert_eq!((address, uid), (&first["status"]["podIP"], &first["metadata"]["uid"]), "its sandbox goes on");

    // Another code is no reason.
    until("calm", "jsonpath={.status.containerStatuses[1].state.terminated.exitCode}=1");
    let calm = pod(&lab, "calm");
    let told = [of(&calm, "containerStatuses", "restartCount"), of(&calm, "initContainerStatuses", "restartCount")];
    assert_eq!((told, &calm["status"]["phase"]), ([0.into(), 0.into()], &"Running".into()), "{calm}");
}
