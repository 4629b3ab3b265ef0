//! Every pod reaches every pod by address, without translation; a cut node is cut, and healed again.

use std::time::{Duration, Instant};

use coracle_tests::Lab;

#[test]
fn pods_reach_each_other_across_nodes() {
    let lab = Lab::up("net", 2);
    lab.lite("create deployment web --image=coracle/hello:v1 --replicas=4").ok();
    lab.lite("rollout status deployment/web --timeout=60s").ok();
    let pods = lab.get("pods -l app=web");
    let addresses: Vec<String> = pods["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pod| pod["status"]["podIP"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(addresses.len(), 4);
    for node in ["net-1", "net-2"] {
        for address in &addresses {
            let manifest = client(node, address);
            lab.lite_with("create -f -", &manifest).ok();
            lab.lite("wait --for=jsonpath={.status.phase}=Succeeded pod/client --timeout=30s").ok();
            assert!(lab.lite("logs client").ok().starts_with("version v1\n"));
            lab.lite("delete pod client --now").ok();
        }
    }
}

#[test]
fn a_node_is_cut_off_and_healed_and_no_name_of_a_stateful_set_runs_twice() {
    let lab = Lab::up("split", 2);
    let manifest = "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: identity}\nspec:\n  replicas: 2\n  serviceName: identity\n  selector: {matchLabels: {app: identity}}\n  template:\n    metadata: {labels: {app: identity}}\n    spec:\n      terminationGracePeriodSeconds: 1\n      affinity:\n        podAntiAffinity:\n          requiredDuringSchedulingIgnoredDuringExecution:\n          - {topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {app: identity}}}\n      tolerations:\n      - {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 1}\n      containers: [{name: hello, image: \"coracle/hello:v1\"}]\n";
    lab.lite_with("apply -f -", manifest).ok();
    lab.lite("rollout status statefulset/identity --timeout=60s").ok();
    let pods = lab.get("pods -l app=identity");
    let there = |pod: &&serde_json::Value| pod["spec"]["nodeName"] == "split-2";
    let pod = pods["items"].as_array().unwrap().iter().find(there).expect("one on each node").clone();
    let (name, uid) = (pod["metadata"]["name"].as_str().unwrap(), &pod["metadata"]["uid"]);
    assert_eq!(lab.running_as(name), 1);

    let twice = lab.lab(&["partition", "split-1", "split-1,server"]).fails();
    assert_eq!(twice, "coracle: \"split-1\" is in two groups\n");
    lab.lab(&["partition", "split-2", "split-1,server"]).ok();
    lab.lite("wait --for=condition=Ready=Unknown node/split-2 --timeout=90s").ok();
    lab.lite(&format!("wait --for=jsonpath={{.metadata.deletionTimestamp}} pod/{name} --timeout=60s")).ok();
    lab.lite("wait --for=condition=Ready node/split-1 --timeout=5s").ok();
    // It is to go, but its node does not hear of it: it runs there still, so it may run nowhere else.
    assert_eq!(lab.running_as(name), 1);
    assert_eq!(&lab.get(&format!("pod {name}"))["metadata"]["uid"], uid);

    lab.lab(&["heal"]).ok();
    let deadline = Instant::now() + Duration::from_secs(90);
    loop {
        assert!(lab.running_as(name) <= 1, "{name} runs twice");
        let now = lab.lite(&format!("get pod {name} -o json"));
        let now: serde_json::Value = serde_json::from_str(&now.stdout).unwrap_or_default();
        if now["metadata"]["uid"].is_string() && &now["metadata"]["uid"] != uid && now["status"]["phase"] == "Running" {
            break;
        }
        assert!(Instant::now() < deadline, "{name} does not come back: {now}");
    }
    assert_eq!(lab.running_as(name), 1);
    lab.lite("rollout status statefulset/identity --timeout=60s").ok();
    lab.lite("wait --for=condition=Ready node --all --timeout=60s").ok();
}

/// A pod on `node` that asks `address` once.
fn client(node: &str, address: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: client}}\nspec:\n  nodeName: {node}\n  restartPolicy: Never\n  containers:\n  - name: client\n    image: coracle/hello:v1\n    args: [get, \"http://{address}:8080/\"]\n"
    )
}
