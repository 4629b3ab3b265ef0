use std::sync::Arc;

use super::*;
use crate::{cache::Cache, plugins::Handle};
use coracle_api::json::{Value, json};

struct Cluster {
    cache: Cache,
    snapshot: Snapshot,
    search: Search,
    profile: Profile,
}

impl Cluster {
    fn new(nodes: &[Value]) -> Self {
        let mut cluster = Self {
            cache: Cache::default(),
            snapshot: Snapshot::default(),
            search: Search::new(7),
            profile: Profile::new(&Handle { client: None }),
        };
        for more in nodes {
            let mut node =
                json!({"metadata": {}, "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "10"}}});
            merge(&mut node, more);
            let name = node["metadata"]["name"].clone();
            merge(&mut node, &json!({"metadata": {"labels": {"kubernetes.io/hostname": name}}}));
            cluster.cache.set_node(&Arc::new(coracle_api::json::from_value(node).unwrap()));
        }
        cluster
    }

    /// The name of the node the pod is given (and from then on takes room of), or why there is none.
    fn place(&mut self, pod: &Arc<PodInfo>) -> Result<String, String> {
        self.cache.count_terms(pod);
        self.cache.update(&mut self.snapshot);
        match self.search.place(&self.profile, pod, &self.snapshot) {
            Ok(at) => {
                let name = self.snapshot.nodes[at].name.to_string();
                self.cache.assume(pod.clone(), &name);
                Ok(name)
            }
            Err(refusal) => {
                let prospects = crate::preemption::look(&self.profile, pod, &self.snapshot, &refusal);
                if let Some(room) = prospects.room {
                    self.cache.nominate(pod.clone(), &room.node);
                    let mut victims: Vec<&str> = room.victims.iter().map(|victim| victim.key.name()).collect();
                    victims.sort_unstable();
                    return Err(format!("{} without {}", room.node, victims.join(" and ")));
                }
                Err(refusal.message() + &prospects.message)
            }
        }
    }
}

fn node(name: &str, more: Value) -> Value {
    let mut node = json!({"metadata": {"name": name}});
    merge(&mut node, &more);
    node
}

fn pod(name: &str, spec: Value) -> Arc<PodInfo> {
    pod_with(name, json!({"spec": spec}))
}

fn pod_with(name: &str, more: Value) -> Arc<PodInfo> {
    let mut pod = json!({"metadata": {"name": name, "namespace": "d", "uid": name, "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}]}});
    merge(&mut pod, &more);
    Arc::new(PodInfo::new(Arc::new(coracle_api::json::from_value(pod).unwrap())))
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

#[test]
fn pods_of_one_controller_are_spread() {
    let mut cluster = Cluster::new(&[node("a", json!({})), node("b", json!({})), node("c", json!({}))]);
    let mut counts = BTreeMap::new();
    for number in 0..9 {
        let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "w", "uid": "w", "controller": true});
        let owned = json!({"metadata": {"ownerReferences": [owner]}});
        let pod = pod_with(&format!("p{number}"), owned);
        *counts.entry(cluster.place(&pod).unwrap()).or_insert(0) += 1;
    }
    assert_eq!(counts.values().collect::<Vec<_>>(), [&3, &3, &3]);
}

#[test]
fn every_reason_is_counted_and_worded_as_users_know_it() {
    let taint = json!({"spec": {"taints": [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]}});
    let nodes = [
        node("a", taint),
        node("b", json!({"spec": {"unschedulable": true}})),
        node("c", json!({"status": {"allocatable": {"cpu": "500m"}}})),
        node("d", json!({"status": {"allocatable": {"pods": "0", "memory": "1Mi"}}})),
    ];
    let refused = Cluster::new(&nodes).place(&pod("p", json!({}))).unwrap_err();
    assert_eq!(
        refused,
        "0/4 nodes are available: 1 Insufficient cpu, 1 Insufficient memory, 1 Too many pods, \
         1 node(s) had untolerated taint {gpu: yes}, 1 node(s) were unschedulable. \
         preemption: 0/4 nodes are available: 4 Preemption is not helpful for scheduling."
    );
    assert_eq!(Cluster::new(&[]).place(&pod("p", json!({}))).unwrap_err(), "no nodes available to schedule pods");
}

#[test]
fn a_full_cluster_says_that_there_are_no_victims() {
    let mut cluster = Cluster::new(&[node("a", json!({}))]);
    for number in 0..4 {
        cluster.place(&pod(&format!("p{number}"), json!({}))).unwrap();
    }
    let refused = cluster.place(&pod("late", json!({}))).unwrap_err();
    assert_eq!(
        refused,
        "0/1 nodes are available: 1 Insufficient cpu. \
        preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
    );
}

#[test]
fn filters_send_pods_where_they_may_go() {
    let nodes = [
        node("a", json!({"metadata": {"labels": {"disk": "hdd"}}})),
        node("b", json!({"metadata": {"labels": {"disk": "ssd"}}})),
        node("c", json!({"spec": {"taints": [{"key": "only", "effect": "NoSchedule"}]}})),
    ];
    let cases = [
        (json!({"nodeSelector": {"disk": "ssd"}}), Ok("b")),
        (json!({"nodeName": "a"}), Ok("a")),
        (json!({"tolerations": [{"key": "only", "operator": "Exists"}], "nodeName": "c"}), Ok("c")),
        (json!({"nodeSelector": {"disk": "tape"}}), Err("3 node(s) didn't match Pod's node affinity/selector")),
        (
            json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["a"]}]}]}}}}),
            Ok("a"),
        ),
        (
            json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 10, "preference": {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}}]}}}),
            Ok("b"),
        ),
    ];
    for (spec, expected) in cases {
        let mut spec_of_one = spec.clone();
        if spec.get("nodeSelector").is_some_and(|selector| selector["disk"] == "tape") {
            // All three nodes are to give the same reason.
            spec_of_one["tolerations"] = json!([{"operator": "Exists"}]);
        }
        match (Cluster::new(&nodes).place(&pod("p", spec_of_one)), expected) {
            (Ok(node), Ok(expected)) => assert_eq!(node, expected, "{spec}"),
            (Err(message), Err(expected)) => assert!(message.contains(expected), "{message}"),
            (got, expected) => panic!("{spec}: {got:?} instead of {expected:?}"),
        }
    }
}

#[test]
fn a_pod_goes_where_its_features_are_declared() {
    let rules = json!([{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}]);
    let asks = || json!({"containers": [{"name": "c", "restartPolicy": "Never", "restartPolicyRules": rules}]});
    let declares = |names: &[&str]| json!({"status": {"declaredFeatures": names}});
    let all = declares(&["ExtendWebSocketsToKubelet", "RestartAllContainersOnContainerExits"]);
    let old = node("a", json!({}));
    let other = node("b", declares(&["ExtendWebSocketsToKubelet"]));
    let nodes = [old, other, node("c", all)];
    assert_eq!(Cluster::new(&nodes).place(&pod("p", asks())).unwrap(), "c");
    let refused = Cluster::new(&nodes[..2]).place(&pod("p", asks())).unwrap_err();
    assert!(refused.contains("2 node(s) didn't match Pod's required features"), "{refused}");
    assert!(refused.contains("2 Preemption is not helpful for scheduling"), "{refused}");
    assert!(Cluster::new(&nodes[..2]).place(&pod("p", json!({}))).is_ok());
}

#[test]
fn host_ports_are_had_once() {
    let mut cluster = Cluster::new(&[node("a", json!({}))]);
    let with_port = |address: &str| json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80, "hostIP": address}]}]});
    assert!(cluster.place(&pod("p", with_port("127.0.0.1"))).is_ok());
    assert!(cluster.place(&pod("q", with_port("10.0.0.1"))).is_ok());
    let refused = cluster.place(&pod("r", with_port(""))).unwrap_err();
    assert!(refused.contains("1 node(s) didn't have free ports for the requested pod ports"), "{refused}");
}

#[test]
fn hard_constraints_bound_the_skew() {
    let zone = |zone: &str| json!({"metadata": {"labels": {"zone": zone}}});
    let mut cluster =
        Cluster::new(&[node("a", zone("x")), node("b", zone("x")), node("c", zone("y")), node("d", json!({}))]);
    let constraint = json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "web"}}}]});
    let mut zones = BTreeMap::new();
    for number in 0..6 {
        let node = cluster.place(&pod(&format!("p{number}"), constraint.clone())).unwrap();
        *zones.entry(if node == "c" { "y" } else { "x" }).or_insert(0) += 1;
        assert!(
            zones.get("x").copied().unwrap_or(0i32).abs_diff(zones.get("y").copied().unwrap_or(0)) <= 1,
            "{zones:?}"
        );
        assert_ne!(node, "d", "it is in no zone");
    }
}

#[test]
fn pods_keep_together_and_apart() {
    let mut cluster = Cluster::new(&[node("a", json!({})), node("b", json!({}))]);
    let rule = |kind: &str| {
        json!({"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "web"}}}]}}})
    };
    let first = cluster.place(&pod("p", rule("podAntiAffinity"))).unwrap();
    let second = cluster.place(&pod("q", rule("podAntiAffinity"))).unwrap();
    assert_ne!(first, second);
    let refused = cluster.place(&pod("r", rule("podAntiAffinity"))).unwrap_err();
    assert!(refused.contains("2 node(s) didn't match pod anti-affinity rules"), "{refused}");
    let refused = cluster.place(&pod("s", json!({}))).unwrap_err();
    assert!(refused.contains("2 node(s) didn't satisfy existing pods anti-affinity rules"), "{refused}");

    let mut cluster = Cluster::new(&[node("a", json!({})), node("b", json!({}))]);
    let first = cluster.place(&pod("p", rule("podAffinity"))).unwrap();
    for name in ["q", "r"] {
        assert_eq!(cluster.place(&pod(name, rule("podAffinity"))).unwrap(), first);
    }
}

#[test]
fn the_same_seed_makes_the_same_choices() {
    let nodes: Vec<Value> = (0..20).map(|number| node(&format!("n{number}"), json!({}))).collect();
    let choices = || {
        let mut cluster = Cluster::new(&nodes);
        (0..20).map(|number| cluster.place(&pod(&format!("p{number}"), json!({}))).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(choices(), choices());
}

#[test]
fn large_clusters_are_searched_in_part() {
    let cases = [(3, 3), (100, 100), (200, 100), (1000, 420), (5000, 500), (20000, 1000)];
    for (nodes, expected) in cases {
        assert_eq!(enough(nodes), expected, "{nodes}");
    }
}

#[test]
fn the_least_important_pods_make_room_and_nobody_takes_it() {
    let mut cluster = Cluster::new(&[node("a", json!({})), node("b", json!({}))]);
    let with = |name: &str, priority: i32, cpu: &str, node: &str| {
        let requests = json!({"cpu": cpu});
        let mut spec =
            json!({"priority": priority, "containers": [{"name": "c", "resources": {"requests": requests}}]});
        if !node.is_empty() {
            spec["nodeName"] = node.into();
        }
        pod(name, spec)
    };
    for (name, priority, cpu, node) in
        [("a1", 1, "2", "a"), ("a2", 5, "2", "a"), ("b1", 3, "3", "b"), ("b2", 3, "1", "b")]
    {
        assert_eq!(cluster.place(&with(name, priority, cpu, node)).unwrap(), node);
    }
    let urgent = with("urgent", 10, "2", "");
    assert_eq!(cluster.place(&urgent).unwrap_err(), "a without a1", "the lowest priority, and no more than needed");
    cluster.cache.remove_pod("a1");
    let refused = cluster.place(&with("thief", 1, "2", "")).unwrap_err();
    assert!(refused.contains("0/2 nodes are available: 2 Insufficient cpu."), "{refused}");
    assert_eq!(cluster.place(&urgent).unwrap(), "a");
    let polite = json!({"priority": 99, "preemptionPolicy": "Never", "containers": [{"name": "c", "resources": {"requests": {"cpu": "4"}}}]});
    let refused = cluster.place(&pod("polite", polite)).unwrap_err();
    assert!(refused.ends_with("preemption: not eligible due to preemptionPolicy=Never."), "{refused}");
}
