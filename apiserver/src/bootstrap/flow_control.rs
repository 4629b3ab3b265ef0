//! The priority levels and flow schemas of every cluster: the mandatory and the suggested ones (apiserver
//! `apis/flowcontrol/bootstrap/default.go`).

use super::{change, ensure, remove};
use crate::server::Server;
use coracle_api::json::{Value, json};
use coracle_api::schema::TypeRef;
use coracle_api::{Status, decode, meta};
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

/// Those that every server needs: nobody else says what is in them.
pub const MANDATORY: [&str; 2] = ["exempt", "catch-all"];

/// Makes those that are missing, brings those up to date that nobody else has taken over, and removes those that an older
/// server had (kubernetes `flowcontrol/ensurer/strategy.go`).
pub async fn make(server: &Arc<Server>) -> Result<(), Status> {
    for (resource, object) in objects() {
        ensure(server, (GROUP, resource), "", object.clone()).await?;
        let name = meta::name(&object).to_owned();
        let revise = |current: &Value, ty: TypeRef<'_>| revised(current, &decode::completed(object, ty));
        change(server, (GROUP, resource), "", &name, revise).await?;
    }
    for resource in ["flowschemas", "prioritylevelconfigurations"] {
        remove_others(server, resource).await?;
    }
    Ok(())
}

/// What the object should be; None when it is that.
fn revised(current: &Value, wanted: &Value) -> Option<Value> {
    let own = match (MANDATORY.contains(&meta::name(current)), is_updated(current)) {
        (true, _) | (_, Some(true)) => true,
        (_, Some(false)) => false,
        // Nobody says: what was never changed is still ours.
        (_, None) => meta::generation(current) == 1,
    };
    let mut spec = wanted["spec"].clone();
    // The shares of the exempt level are anybody's.
    if meta::name(current) == "exempt"
        && spec.get("exempt").is_some()
        && let Some(exempt) = current.pointer("/spec/exempt")
    {
        spec["exempt"] = exempt.clone();
    }
    let mut revised = current.clone();
    if own && revised["spec"] != spec {
        revised["spec"] = spec;
    }
    if is_updated(current) != Some(own) {
        revised["metadata"]["annotations"][AUTO_UPDATE] = own.to_string().into();
    }
    (revised != *current).then_some(revised)
}

/// Whether the object says that the server keeps it up to date; None when it does not say (Go's `strconv.ParseBool`).
fn is_updated(object: &Value) -> Option<bool> {
    match meta::annotation(object, AUTO_UPDATE)? {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Removes what the server kept up to date and has no longer.
async fn remove_others(server: &Arc<Server>, resource: &str) -> Result<(), Status> {
    let known: Vec<String> =
        objects().filter(|(of, _)| *of == resource).map(|(_, object)| meta::name(&object).to_owned()).collect();
    let snapshot = server.cache_of(GROUP, resource)?.snapshot();
    for (name, object) in &snapshot.objects {
        if known.iter().any(|known| known == &**name) || is_updated(&object.parse()) != Some(true) {
            continue;
        }
        remove(server, (GROUP, resource), "", name).await?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(name: &str, spec: &Value, updated: Option<&str>, generation: i64) -> Value {
        let mut object = json!({"metadata": {"name": name, "generation": generation}, "spec": spec});
        if let Some(updated) = updated {
            object["metadata"]["annotations"] = json!({AUTO_UPDATE: updated});
        }
        object
    }

    #[test]
    fn what_somebody_took_over_is_left_alone() {
        let (ours, theirs) = (json!({"limited": 1}), json!({"limited": 2}));
        // Name, whose spec is there, what its annotation says, generation; then whose spec is there, and what it says.
        for (name, spec, says, generation, expected) in [
            ("workload-low", &ours, Some("true"), 1, None),
            ("workload-low", &theirs, Some("true"), 2, Some((&ours, "true"))),
            ("workload-low", &theirs, Some("T"), 2, Some((&ours, "T"))),
            ("workload-low", &theirs, Some("false"), 2, None),
            ("workload-low", &theirs, None, 2, Some((&theirs, "false"))),
            ("workload-low", &theirs, Some("perhaps"), 2, Some((&theirs, "false"))),
            ("workload-low", &theirs, None, 1, Some((&ours, "true"))),
            ("workload-low", &ours, None, 1, Some((&ours, "true"))),
            ("catch-all", &theirs, Some("false"), 5, Some((&ours, "true"))),
            ("catch-all", &ours, None, 5, Some((&ours, "true"))),
        ] {
            let expected = expected.map(|(spec, says)| stored(name, spec, Some(says), generation));
            let wanted = stored(name, &ours, Some("true"), 0);
            assert_eq!(
                revised(&stored(name, spec, says, generation), &wanted),
                expected,
                "{name} {says:?} {generation}"
            );
        }
    }

    #[test]
    fn the_shares_of_the_exempt_level_are_kept() {
        let spec = |shares: i64, kind: &str| json!({"type": kind, "exempt": {"nominalConcurrencyShares": shares}});
        let wanted = stored("exempt", &spec(0, "Exempt"), Some("true"), 0);
        assert_eq!(revised(&stored("exempt", &spec(7, "Exempt"), Some("true"), 2), &wanted), None);
        let mended = revised(&stored("exempt", &spec(7, "Other"), Some("true"), 2), &wanted).unwrap();
        assert_eq!(mended["spec"], spec(7, "Exempt"));
    }
}
