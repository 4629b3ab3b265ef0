//! The priority levels and flow schemas of every cluster: the mandatory and the suggested ones (apiserver
//! `apis/flowcontrol/bootstrap/default.go`).

use super::ensure;
use crate::server::Server;
use coracle_api::Status;
use coracle_api::json::{Value, json};
use std::sync::Arc;

pub const GROUP: &str = "flowcontrol.apiserver.k8s.io";
const VERSION: &str = "flowcontrol.apiserver.k8s.io/v1";

/// Upstream keeps the suggested ones up to date while this says so.
const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

/// Name, shares, lendable percent, queues (none: turned away), hand.
type Level = (&'static str, u32, u32, u32, u32);

const LEVELS: [Level; 7] = [
    ("catch-all", 5, 0, 0, 0),
    ("system", 30, 33, 64, 6),
    ("node-high", 40, 25, 64, 6),
    ("leader-election", 10, 0, 16, 4),
    ("workload-high", 40, 50, 128, 6),
    ("workload-low", 100, 90, 128, 6),
    ("global-default", 20, 50, 128, 6),
];

/// Makes those that are missing.
pub async fn make(server: &Arc<Server>) -> Result<(), Status> {
    for (resource, object) in objects() {
        ensure(server, (GROUP, resource), "", object).await?;
    }
    Ok(())
}

/// The resources' plurals and the objects, levels first.
pub fn objects() -> impl Iterator<Item = (&'static str, Value)> {
    let levels = std::iter::once(exempt()).chain(LEVELS.map(limited));
    let levels = levels.map(|level| ("prioritylevelconfigurations", level));
    levels.chain(schemas().into_iter().map(|schema| ("flowschemas", schema)))
}

fn level(name: &str, spec: Value) -> Value {
    json!({"kind": "PriorityLevelConfiguration", "apiVersion": VERSION,
        "metadata": {"name": name, "annotations": {AUTO_UPDATE: "true"}}, "spec": spec})
}

fn exempt() -> Value {
    level("exempt", json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}}))
}

fn limited((name, shares, lendable, queues, hand): Level) -> Value {
    let response = match queues {
        0 => json!({"type": "Reject"}),
        _ => json!({"type": "Queue", "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": 50}}),
    };
    let limited = json!({"nominalConcurrencyShares": shares, "lendablePercent": lendable, "limitResponse": response});
    level(name, json!({"type": "Limited", "limited": limited}))
}

fn group(name: &str) -> Value {
    json!({"kind": "Group", "group": {"name": name}})
}

fn user(name: &str) -> Value {
    json!({"kind": "User", "user": {"name": name}})
}

/// A service account of the system.
fn account(name: &str) -> Value {
    json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "kube-system", "name": name}})
}

fn resources(verbs: &[&str], group: &str, resources: &[&str], cluster: bool) -> Value {
    let mut rule = json!({"verbs": verbs, "apiGroups": [group], "resources": resources, "namespaces": ["*"]});
    if cluster {
        rule["clusterScope"] = true.into();
    }
    rule
}

fn rule(subjects: &[Value], resources: &[Value]) -> Value {
    json!({"subjects": subjects, "resourceRules": resources})
}

fn everything(subjects: &[Value]) -> Value {
    json!({"subjects": subjects, "resourceRules": [resources(&["*"], "*", &["*"], true)],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]})
}

fn schema(name: &str, level: &str, precedence: u32, by: &str, rules: Vec<Value>) -> Value {
    let mut spec =
        json!({"priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence, "rules": rules});
    if !by.is_empty() {
        spec["distinguisherMethod"] = json!({"type": by});
    }
    json!({"kind": "FlowSchema", "apiVersion": VERSION,
        "metadata": {"name": name, "annotations": {AUTO_UPDATE: "true"}}, "spec": spec})
}

fn schemas() -> Vec<Value> {
    const MANAGER: &str = "system:kube-controller-manager";
    const SCHEDULER: &str = "system:kube-scheduler";
    const LEADS: [&str; 3] = ["get", "create", "update"];
    let all = [group("system:unauthenticated"), group("system:authenticated")];
    let nodes = [group("system:nodes")];
    let leases = |verbs: &[&str]| resources(verbs, "coordination.k8s.io", &["leases"], false);
    let probes = json!({"subjects": all,
        "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}]});
    let endpoints = [user(MANAGER), account("endpoint-controller"), account("endpointslicemirroring-controller")];
    let own_election = rule(&[user(MANAGER), user(SCHEDULER)], &[leases(&LEADS)]);
    vec![
        schema("exempt", "exempt", 1, "", vec![everything(&[group("system:masters")])]),
        schema("probes", "exempt", 2, "", vec![probes]),
        schema("system-leader-election", "leader-election", 100, "ByUser", vec![own_election]),
        schema(
            "endpoint-controller",
            "workload-high",
            150,
            "ByUser",
            vec![rule(&endpoints, &[resources(&LEADS, "", &["endpoints"], false)])],
        ),
        schema(
            "workload-leader-election",
            "leader-election",
            200,
            "ByUser",
            vec![rule(&[account("*")], &[leases(&LEADS)])],
        ),
        schema(
            "system-node-high",
            "node-high",
            400,
            "ByUser",
            vec![rule(&nodes, &[resources(&["*"], "", &["nodes", "nodes/status"], true), leases(&["*"])])],
        ),
        schema("system-nodes", "system", 500, "ByUser", vec![everything(&nodes)]),
        schema("kube-controller-manager", "workload-high", 800, "ByNamespace", vec![everything(&[user(MANAGER)])]),
        schema("kube-scheduler", "workload-high", 800, "ByNamespace", vec![everything(&[user(SCHEDULER)])]),
        schema("kube-system-service-accounts", "workload-high", 900, "ByNamespace", vec![everything(&[account("*")])]),
        schema(
            "service-accounts",
            "workload-low",
            9000,
            "ByUser",
            vec![everything(&[group("system:serviceaccounts")])],
        ),
        schema("global-default", "global-default", 9900, "ByUser", vec![everything(&all)]),
        schema("catch-all", "catch-all", 10_000, "ByUser", vec![everything(&all)]),
    ]
}
