use super::*;
use coracle_api::json::Value;
use coracle_client::Verb;

fn now() -> Timestamp {
    "2026-01-01T01:00:00Z".parse().unwrap()
}

fn node(name: &str, ready: &str, taints: Value) -> Node {
    coracle_api::json::from_value(json!({
        "metadata": {"name": name, "uid": name, "resourceVersion": "9"},
        "spec": {"taints": taints},
        "status": {"conditions": [{"type": "Ready", "status": ready, "lastHeartbeatTime": "2026-01-01T00:00:00Z"}]},
    }))
    .unwrap()
}

fn pod(name: &str, node: &str) -> Pod {
    coracle_api::json::from_value(
        json!({"metadata": {"name": name, "namespace": "d"}, "spec": {"nodeName": node, "containers": []},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}),
    )
    .unwrap()
}

fn planned(nodes: Vec<Node>, pods: Vec<Pod>, silent_for: u64) -> Plan {
    let seen = now().checked_sub(Duration::from_secs(silent_for)).unwrap();
    let state = State {
        beats: nodes.iter().map(|node| (node.metadata.name.clone().unwrap(), seen)).collect(),
        nodes: Arc::new(Snapshot::of(nodes, &[])),
        pods: Arc::new(Snapshot::of(pods, &[(BY_NODE, by_node)])),
        grace: Grace::default(),
    };
    plan(&state, &Key::cluster("a"), &Context::at(now()))
}

fn taints(plan: &Plan) -> Vec<String> {
    let Verb::Patch { body, .. } = &plan.actions[0].actions()[0].verb else { panic!() };
    let text = |taint: &Value| format!("{}:{}", taint["key"].as_str().unwrap(), taint["effect"].as_str().unwrap());
    body["spec"]["taints"].as_array().unwrap().iter().map(text).collect()
}

#[test]
fn a_live_node_is_left_alone_and_looked_at_again() {
    let plan = planned(vec![node("a", "True", json!([]))], vec![pod("p", "a")], 15);
    assert_eq!(plan.describe(), Vec::<String>::new());
    assert_eq!(plan.requeue_after, Some(Duration::from_secs(25)));
}

#[test]
fn a_silent_node_becomes_unknown_and_its_pods_unready() {
    let plan = planned(
        vec![node("a", "True", json!([])), node("b", "True", json!([]))],
        vec![pod("p", "a"), pod("q", "b")],
        40,
    );
    assert_eq!(plan.describe(), ["patch nodes/status a", "patch pods/status d/p"]);
    assert_eq!(plan.notes[0].message, "Node a status is now: NodeNotReady");
    let Verb::Patch { body, .. } = &plan.actions[0].actions()[0].verb else { panic!() };
    let kinds: Vec<_> = body["status"]["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| (c["type"].clone(), c["status"].clone()))
        .collect();
    assert_eq!(
        json!(kinds),
        json!([
            ["Ready", "Unknown"],
            ["MemoryPressure", "Unknown"],
            ["DiskPressure", "Unknown"],
            ["PIDPressure", "Unknown"]
        ])
    );
}

#[test]
fn taints_follow_conditions() {
    let own = json!([{"key": "mine", "effect": "NoSchedule"}]);
    let others = || vec![node("b", "True", json!([]))];
    let mut down = others();
    let mut unknown = node("a", "Unknown", own.clone());
    conditions::declare_unknown(&mut unknown, now());
    down.push(unknown);
    let expected =
        ["mine:NoSchedule", "node.kubernetes.io/unreachable:NoSchedule", "node.kubernetes.io/unreachable:NoExecute"];
    assert_eq!(taints(&planned(down, vec![], 100)), expected);

    let mut back = others();
    back.push(node("a", "True", json!([{"key": UNREACHABLE, "effect": "NoExecute"}, {"key": NOT_READY, "effect": "NoSchedule"}, {"key": "mine", "effect": "NoSchedule"}])));
    assert_eq!(taints(&planned(back, vec![], 1)), ["mine:NoSchedule"]);

    let mut alone = node("a", "Unknown", json!([]));
    conditions::declare_unknown(&mut alone, now());
    assert_eq!(
        taints(&planned(vec![alone], vec![], 100)),
        ["node.kubernetes.io/unreachable:NoSchedule"],
        "nobody is driven from the last node"
    );
}

use taints::{NOT_READY, UNREACHABLE};

#[test]
fn a_new_node_keeps_its_taint_until_it_reports() {
    let mut new = node("a", "True", json!([{"key": NOT_READY, "effect": "NoSchedule"}]));
    new.status = None;
    assert_eq!(planned(vec![new], vec![], 5).describe(), Vec::<String>::new());
}
