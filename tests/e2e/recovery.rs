//! Things that are killed come back, and what runs goes on.

use coracle_tests::Lab;

#[test]
fn the_server_and_the_agent_restart_and_containers_go_on() {
    let lab = Lab::up("lazarus", 1);
    lab.lite("create deployment web --image=coracle/hello:v1 --replicas=2").ok();
    lab.lite("rollout status deployment/web --timeout=60s").ok();
    let before = containers(&lab);

    for process in ["server", "lazarus-1"] {
        lab.kill_command(process);
        // Back by itself: the next write needs the server, the next pod the agent.
        lab.until_ok("get nodes");
        let name = format!("after-{process}");
        lab.until_ok(&format!("run {name} --image=coracle/hello:v1"));
        lab.lite(&format!("wait --for=condition=Ready pod/{name} --timeout=60s")).ok();
    }
    assert_eq!(containers(&lab), before, "containers were started anew");
}

#[test]
fn a_killed_shim_is_reported_and_its_containers_restarted() {
    let lab = Lab::up("shim", 1);
    lab.lite("run one --image=coracle/hello:v1").ok();
    lab.lite("wait --for=condition=Ready pod/one --timeout=30s").ok();
    lab.kill_in_node("shim-1", "coracle-shim");
    lab.lite("wait --for=jsonpath={.status.containerStatuses[0].restartCount}=1 pod/one --timeout=60s").ok();
    lab.lite("wait --for=condition=Ready pod/one --timeout=60s").ok();
}

#[test]
fn the_pods_of_a_killed_node_run_elsewhere() {
    let lab = Lab::up("wreck", 2);
    let manifest = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  replicas: 2\n  selector: {matchLabels: {app: web}}\n  template:\n    metadata: {labels: {app: web}}\n    spec:\n      tolerations:\n      - {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 1}\n      - {key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 1}\n      containers: [{name: hello, image: \"coracle/hello:v1\"}]\n";
    lab.lite_with("apply -f -", manifest).ok();
    lab.lite("rollout status deployment/web --timeout=60s").ok();
    lab.lab(&["node", "kill", "wreck-2"]).ok();
    lab.lite("wait --for=condition=Ready=Unknown node/wreck-2 --timeout=90s").ok();
    lab.lite("wait --for=condition=Available=True deployment/web --timeout=60s").ok();
    lab.lite("wait --for=jsonpath={.status.availableReplicas}=2 deployment/web --timeout=60s").ok();
    let nodes = lab.lite("get pods -l app=web --field-selector=status.phase=Running -o wide").ok();
    assert!(nodes.lines().filter(|line| line.contains(" wreck-1 ")).count() >= 2, "{nodes}");
    lab.lab(&["node", "start", "wreck-2"]).ok();
    assert_eq!(lab.lite("get nodes").ok().lines().filter(|line| line.contains(" Ready ")).count(), 2);
}

fn containers(lab: &Lab) -> String {
    lab.lite("get pods -l app=web -o jsonpath={.items[*].status.containerStatuses[*].containerID}{.items[*].status.containerStatuses[*].restartCount}").ok()
}
