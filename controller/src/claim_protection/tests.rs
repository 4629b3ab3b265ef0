use super::*;
use coracle_api::json::json;

fn claim(name: &str, finalizers: &[&str], going: bool) -> PersistentVolumeClaim {
    let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "p", "controller": true});
    coracle_api::json::from_value(
        json!({"metadata": {"name": name, "namespace": "d", "uid": name, "finalizers": finalizers,
        "ownerReferences": [owner], "deletionTimestamp": going.then_some("2026-01-01T00:00:00Z")}}),
    )
    .unwrap()
}

fn pod(node: Option<&str>, volume: Value, status: Value) -> Pod {
    let mut volume = volume;
    volume["name"] = "v".into();
    let mut pod = json!({"metadata": {"name": "p", "namespace": "d", "uid": "p"},
        "spec": {"containers": [], "volumes": [{"name": "e", "emptyDir": {}}, volume]}, "status": status});
    if let Some(node) = node {
        pod["spec"]["nodeName"] = node.into();
    }
    coracle_api::json::from_value(pod).unwrap()
}

fn named(name: &str) -> Value {
    json!({"persistentVolumeClaim": {"claimName": name}})
}

fn ephemeral() -> Value {
    json!({"ephemeral": {"volumeClaimTemplate": {"spec": {}}}})
}

fn describe(claims: Vec<PersistentVolumeClaim>, pods: Vec<Pod>, unused: &[&str]) -> Vec<String> {
    let state = State {
        claims: Arc::new(Snapshot::of(claims, &[(BY_NEED, by_need)])),
        pods: Arc::new(Snapshot::of(pods, &[(BY_CLAIM, by_claim)])),
        answers: unused.iter().map(|uid| ((*uid).to_owned(), false)).collect(),
    };
    plan(&state, "d").describe()
}

const LIST: &str = "list pods d/";

#[test]
fn the_server_is_asked_before_a_claim_goes() {
    let claims =
        || vec![claim("a", &[FINALIZER], true), claim("b", &[FINALIZER], true), claim("c", &[FINALIZER], false)];
    assert_eq!(describe(claims(), vec![], &[]), [LIST], "once for all claims");
    assert_eq!(describe(claims(), vec![], &["a"]), ["patch persistentvolumeclaims d/a", LIST]);
    assert_eq!(
        describe(claims(), vec![], &["a", "b"]),
        ["patch persistentvolumeclaims d/a", "patch persistentvolumeclaims d/b"]
    );
    let Verb::Patch { body, .. } = protection::release(&claims()[0], FINALIZER).verb else { panic!() };
    assert_eq!(body["metadata"]["finalizers"], json!([]));
    assert_eq!(describe(vec![claim("a", &["other.example/f"], true)], vec![], &[]), [""; 0], "it is not held by us");
}

#[test]
fn a_claim_from_before_is_protected() {
    assert_eq!(describe(vec![claim("a", &[], false)], vec![], &[]), ["patch persistentvolumeclaims d/a"]);
}

#[test]
fn a_claim_stays_while_a_pod_uses_it() {
    let running = json!({"phase": "Running"});
    let asked = |claim, pod| describe(vec![claim], vec![pod], &[]) == [LIST];
    let a = || claim("a", &[FINALIZER], true);
    assert!(!asked(a(), pod(Some("n"), named("a"), running.clone())));
    assert!(
        !asked(a(), pod(Some("n"), named("a"), json!({"phase": "Succeeded"}))),
        "it is there, and may be run again"
    );
    assert!(asked(a(), pod(Some("n"), named("b"), running.clone())), "another's");
    assert!(asked(a(), pod(None, named("a"), json!({}))), "nobody runs it");
    let own = || claim("p-v", &[FINALIZER], true);
    assert!(!asked(own(), pod(Some("n"), ephemeral(), running.clone())));
    let mut other = own();
    other.metadata.owner_references = None;
    assert!(asked(other, pod(Some("n"), ephemeral(), running.clone())), "it has the name by chance");
    let mut ended = pod(Some("n"), ephemeral(), running.clone());
    ended.metadata.deletion_timestamp = own().metadata.deletion_timestamp;
    ended.metadata.deletion_grace_period_seconds = Some(30);
    assert!(!asked(own(), ended.clone()));
    ended.metadata.deletion_grace_period_seconds = Some(0);
    assert!(asked(own(), ended), "only finalizers keep the pod");
    let mut ended = pod(Some("n"), named("a"), running);
    ended.metadata.deletion_timestamp = own().metadata.deletion_timestamp;
    ended.metadata.deletion_grace_period_seconds = Some(0);
    assert!(!asked(a(), ended), "a named claim waits for the pod itself");
}
