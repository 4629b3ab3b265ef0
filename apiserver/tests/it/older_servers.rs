//! What an older server of ours wrote is shown, and treated, as today's defaults have it (`cache/defaults.rs`).

use crate::harness::{Client, Harness, LIMIT};
use crate::model::ModelStore;
use crate::row_walk::least;
use bytes::Bytes;
use coracle_api::clock::SystemClock;
use coracle_api::json as own;
use coracle_api::schema::{Kind, TypeRef};
use coracle_apiserver::cache::MARK;
use coracle_apiserver::registry::strategy::DEFAULTS;
use coracle_apiserver::registry::{Registry, Row};
use coracle_apiserver::store::embedded::Embedded;
use coracle_apiserver::store::{
    Batches, FIRST_REVISION, Op, Outcome, Page, Range, Record, Revision, Store, StoreError, Txn, Watch,
};
use futures::future::BoxFuture;
use http::StatusCode;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::watch;

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

/// A store in memory that holds some writes back until it is told to let them through, and remembers all of them.
struct Holding {
    store: Arc<Embedded>,
    holds: watch::Sender<Hold>,
    written: Mutex<Vec<Op>>,
    asked: Mutex<Vec<String>>,
}

/// Whether a write is held back.
type Hold = fn(&Op) -> bool;

impl Holding {
    fn new(holds: Hold) -> Arc<Self> {
        let store = Arc::new(Embedded::in_memory(Arc::new(SystemClock::new())).unwrap());
        Self::on(store, holds)
    }

    fn on(store: Arc<Embedded>, holds: Hold) -> Arc<Self> {
        Arc::new(Self { store, holds: watch::Sender::new(holds), written: Mutex::default(), asked: Mutex::default() })
    }

    fn let_through(&self) {
        self.holds.send_replace(|_| false);
    }
}

impl Store for Holding {
    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<Outcome, StoreError>> {
        Box::pin(async move {
            let free = |holds: &Hold| !txn.ops.iter().any(holds);
            self.holds.subscribe().wait_for(free).await.unwrap();
            self.written.lock().unwrap().extend(txn.ops.iter().cloned());
            self.store.txn(txn).await
        })
    }

    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Record>, StoreError>> {
        self.asked.lock().unwrap().push(key.to_owned());
        self.store.get(key)
    }

    fn range(&self, range: Range) -> BoxFuture<'_, Result<Page, StoreError>> {
        self.store.range(range)
    }

    fn watch(&self, watch: Watch) -> BoxFuture<'_, Result<Batches, StoreError>> {
        self.store.watch(watch)
    }

    fn revision(&self) -> BoxFuture<'_, Result<Revision, StoreError>> {
        self.store.revision()
    }

    fn revision_now(&self) -> Option<Revision> {
        self.store.revision_now()
    }

    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<(), StoreError>> {
        self.store.compact(revision)
    }

    fn expire(&self) -> BoxFuture<'_, Result<usize, StoreError>> {
        self.store.expire()
    }
}

/// A Deployment as a server wrote it that knew of no strategy.
fn deployment(name: &str) -> Value {
    let managed = json!([{"manager": "m", "operation": "Update", "apiVersion": "apps/v1", "time": "2026-01-01T00:00:00Z",
        "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:replicas": {}}}}]);
    json!({"kind": "Deployment", "apiVersion": "apps/v1",
        "metadata": {"name": name, "namespace": "default", "uid": format!("u-{name}"), "generation": 3,
            "creationTimestamp": "2026-01-01T00:00:00Z", "managedFields": managed},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}},
        "status": {}})
}

async fn put(store: &dyn Store, key: &str, value: impl Into<Bytes>) -> Revision {
    match store.txn(Txn { compare: Vec::new(), ops: vec![Op::put(key, value)] }).await.unwrap() {
        Outcome::Committed(revision) => revision,
        conflict => panic!("{conflict:?}"),
    }
}

async fn put_deployment(store: &dyn Store, name: &str) -> Revision {
    put(store, &key(name), deployment(name).to_string()).await
}

fn key(name: &str) -> String {
    format!("/registry/deployments/default/{name}")
}

async fn record(store: &dyn Store, key: &str) -> (Revision, Value) {
    let record = store.get(key).await.unwrap().unwrap();
    (record.modified, serde_json::from_slice(&record.value).unwrap())
}

/// Waits for the mark, and gives its revision.
async fn marked(store: &dyn Store) -> Revision {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(mark) = store.get(MARK).await.unwrap()
            && *mark.value == *DEFAULTS.to_string().as_bytes()
        {
            return mark.modified;
        }
        assert!(Instant::now() < deadline, "no mark in time");
        tokio::task::yield_now().await;
    }
}

async fn got(client: &Client, name: &str) -> Value {
    let (code, found) = client.get(&format!("{DEPLOYMENTS}/{name}")).await;
    assert_eq!(code, StatusCode::OK, "{found}");
    found
}

fn has_defaults(deployment: &Value) -> bool {
    let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}});
    let (spec, pod) = (&deployment["spec"], &deployment["spec"]["template"]["spec"]);
    spec["strategy"] == strategy && spec["progressDeadlineSeconds"] == 600 && pod["dnsPolicy"] == "ClusterFirst"
}

fn version(object: &Value) -> Revision {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn what_an_older_server_left_out_is_filled_in_as_it_is_read_and_then_written() {
    // What is written to fill it in waits; what a client asks for does not.
    let store = Holding::new(|op| {
        let (Op::Put { key, .. } | Op::Delete { key }) = op;
        let asked = matches!(op, Op::Put { value, .. } if value.windows(7).any(|part| part == b"patched"));
        key.starts_with("/registry/deployments/") && !asked
    });
    let mut written = Vec::new();
    // One that is gone, and was never filled in.
    let first = put_deployment(&*store.store, "gone").await;
    store.store.txn(Txn { compare: Vec::new(), ops: vec![Op::delete(key("gone"))] }).await.unwrap();
    for name in ["a", "b"] {
        written.push(put(&*store.store, &key(name), deployment(name).to_string()).await);
    }
    let service = json!({"kind": "Service", "apiVersion": "v1", "metadata": {"name": "s", "namespace": "default", "uid": "u",
        "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"ports": [{"port": 80}], "clusterIP": "None", "clusterIPs": ["None"]}});
    put(&*store.store, "/registry/services/default/s", service.to_string()).await;
    let event = json!({"kind": "Event", "apiVersion": "v1", "metadata": {"name": "e", "namespace": "default"}});
    put(&*store.store, "/registry/events/default/e", event.to_string()).await;
    let wrong = json!({"kind": "ReplicaSet", "apiVersion": "apps/v1", "metadata": {"name": "w", "namespace": "default"}, "spec": "x"});
    let at_wrong = put(&*store.store, "/registry/replicasets/default/w", wrong.to_string()).await;

    let harness = Harness::on(store.clone()).await;
    let client = harness.admin();
    let (_, list) = client.get(DEPLOYMENTS).await;
    let exact = format!("{DEPLOYMENTS}?resourceVersion={}&resourceVersionMatch=Exact", written[1]);
    let (_, past) = client.get(&exact).await;
    let since = format!("{DEPLOYMENTS}?watch=1&resourceVersion={}", first - 1);
    let mut news = client.watch(&since).await;
    for change in ["ADDED", "DELETED"] {
        let seen = news.next().await.unwrap();
        assert!(seen["type"] == change && has_defaults(&seen["object"]), "{seen}");
    }
    for (nth, name) in ["a", "b"].into_iter().enumerate() {
        let seen = news.next().await.unwrap()["object"].take();
        for found in [&got(&client, name).await, &list["items"][nth], &past["items"][nth], &seen] {
            assert!(has_defaults(found), "{found}");
            assert_eq!(version(found), written[nth]);
            assert_eq!(found["metadata"]["managedFields"], deployment(name)["metadata"]["managedFields"]);
        }
    }
    let (_, found) = client.get("/api/v1/namespaces/default/services/s").await;
    assert_eq!((&found["spec"]["type"], &found["spec"]["ports"][0]["targetPort"]), (&json!("ClusterIP"), &json!(80)));

    // What changes something else changes nothing of that.
    let labels = json!({"metadata": {"labels": {"patched": "yes"}}});
    let (code, patched) = client.merge(&format!("{DEPLOYMENTS}/a"), &labels).await;
    assert_eq!((code, &patched["metadata"]["generation"]), (StatusCode::OK, &json!(3)), "{patched}");
    assert!(has_defaults(&patched), "{patched}");
    let (at_patch, _) = record(&*store.store, &key("a")).await;
    assert!(at_patch > written[0]);

    assert!(store.store.get(MARK).await.unwrap().is_none());
    store.let_through();
    let mark = marked(&*store.store).await;
    let (at, b) = record(&*store.store, &key("b")).await;
    assert!(written[1] < at && at < mark && has_defaults(&b), "{b}");
    let before = deployment("b");
    for field in ["managedFields", "generation", "uid"] {
        assert_eq!(b["metadata"][field], before["metadata"][field]);
    }
    assert_eq!(record(&*store.store, &key("a")).await.0, at_patch, "whoever wrote it has filled it in");
    assert_eq!(version(&got(&client, "b").await), at);
    // An event lives no longer than others.
    let lives = |op: &Op| match op {
        Op::Put { key, ttl, .. } if **key == *"/registry/events/default/e" => Some(*ttl),
        _ => None,
    };
    let ttl = store.written.lock().unwrap().iter().find_map(lives);
    assert_eq!(ttl, Some(Some(Duration::from_secs(3600))));
    // What is no such object stays what it is.
    assert_eq!(record(&*store.store, "/registry/replicasets/default/w").await, (at_wrong, wrong));
    // The past is still read as it was shown.
    assert_eq!(client.get(&exact).await.1, past);

    // The next server writes nothing of it again.
    drop((client, news, harness));
    let again = Harness::on(store.clone()).await;
    let client = again.admin();
    assert_eq!(client.get(&exact).await.1, past);
    let mut news = client.watch(&since).await;
    for _ in 0..6 {
        let seen = news.next().await.unwrap()["object"].take();
        assert!(has_defaults(&seen), "{seen}");
    }
    assert_eq!(record(&*store.store, &key("b")).await.0, at);
    assert_eq!(marked(&*store.store).await, mark);
}

#[tokio::test]
async fn with_the_mark_nothing_is_looked_at() {
    let store = Holding::new(|_| false);
    let mark = put(&*store.store, MARK, DEFAULTS.to_string()).await;
    // So that whoever parsed it would be found out.
    let written = put_deployment(&*store.store, "a").await;
    let harness = Harness::on(store.clone()).await;
    let client = harness.admin();
    assert_eq!(got(&client, "a").await["spec"], deployment("a")["spec"]);
    put_deployment(&*store.store, "b").await;
    assert_eq!(got(&client, "b").await["spec"], deployment("b")["spec"]);
    let mut news = client.watch(&format!("{DEPLOYMENTS}?watch=1&resourceVersion={mark}")).await;
    for name in ["a", "b"] {
        assert_eq!(news.next().await.unwrap()["object"]["spec"], deployment(name)["spec"]);
    }
    let exact = format!("{DEPLOYMENTS}?resourceVersion={written}&resourceVersionMatch=Exact");
    assert_eq!(client.get(&exact).await.1["items"][0]["spec"], deployment("a")["spec"]);
    let asked = store.asked.lock().unwrap().iter().filter(|key| **key == MARK).count();
    assert_eq!((asked, marked(&*store.store).await), (1, mark));
    assert!(!store.written.lock().unwrap().iter().any(|op| op.key().starts_with("/registry/deployments/")));
}

#[tokio::test]
async fn a_new_store_has_the_mark_before_anything_else() {
    let store = Holding::new(|_| false);
    let _harness = Harness::on(store.clone()).await;
    assert_eq!(store.store.get(MARK).await.unwrap().unwrap().modified, FIRST_REVISION + 1);
}

#[tokio::test]
async fn a_mark_of_other_defaults_goes_before_anything_is_written() {
    for other in ["0", "4294967296"] {
        let store = Holding::new(|op| op.key().starts_with("/registry/"));
        put_deployment(&*store.store, "a").await;
        let before = put(&*store.store, MARK, other).await;
        let starts = tokio::spawn(Harness::on(store.clone()));
        let deadline = Instant::now() + LIMIT;
        while store.store.get(MARK).await.unwrap().is_some() {
            assert!(Instant::now() < deadline);
            tokio::task::yield_now().await;
        }
        let all = Range { prefix: "/registry/".to_owned(), ..Range::default() };
        let all = store.store.range(all).await.unwrap().records;
        assert!(all.iter().all(|record| record.modified < before), "{all:?}");
        store.let_through();
        let harness = starts.await.unwrap();
        assert!(has_defaults(&got(&harness.admin(), "a").await));
        assert!(marked(&*store.store).await > before);
    }
}

#[tokio::test]
async fn a_server_that_ends_before_it_is_done_leaves_it_to_the_next() {
    // It ends when one of two is written, or both, but not the mark.
    let holds: [(Hold, usize); 2] =
        [(|op| **op.key() == *"/registry/deployments/default/b", 1), (|op| &**op.key() == MARK, 2)];
    for (holds, done) in holds {
        let disk = Arc::new(Embedded::in_memory(Arc::new(SystemClock::new())).unwrap());
        let before = [put_deployment(&*disk, "a").await, put_deployment(&*disk, "b").await];
        let harness = Harness::on(Holding::on(disk.clone(), holds)).await;
        let deadline = Instant::now() + LIMIT;
        let changed = async || {
            let now = [record(&*disk, &key("a")).await.0, record(&*disk, &key("b")).await.0];
            (now, now.iter().zip(before).filter(|(now, before)| *now != before).count())
        };
        while changed().await.1 < done {
            assert!(Instant::now() < deadline);
            tokio::task::yield_now().await;
        }
        assert!(disk.get(MARK).await.unwrap().is_none());
        // What it holds goes nowhere any more.
        drop(harness);
        let (then, _) = changed().await;
        let store = Holding::on(disk.clone(), |_| false);
        let again = Harness::on(store.clone()).await;
        marked(&*disk).await;
        for name in ["a", "b"] {
            assert!(has_defaults(&record(&*disk, &key(name)).await.1));
            assert!(has_defaults(&got(&again.admin(), name).await));
        }
        // What had been written is not written again.
        let writes = |name: &str| store.written.lock().unwrap().iter().filter(|op| **op.key() == *key(name)).count();
        assert_eq!((writes("a"), writes("b"), changed().await.0[0]), (0, 2 - done, then[0]));
    }
}

#[tokio::test(start_paused = true)]
async fn servers_that_fill_in_other_defaults_are_waited_for() {
    const OTHER: &str = "/registry/masterleases/10.9.9.9:6443";
    /// Longer than the time between two looks at who is there.
    const A_LOOK: Duration = Duration::from_secs(15);
    let store = ModelStore::new(Arc::new(SystemClock::new()), 1);
    let other = json!({"kind": "Endpoints", "apiVersion": "v1", "metadata": {}});
    put(&*store, OTHER, other.to_string()).await;
    put_deployment(&*store, "a").await;
    let harness = Harness::on(store.clone()).await;
    let client = harness.admin();
    assert!(has_defaults(&got(&client, "a").await));
    tokio::time::sleep(A_LOOK).await;
    assert!(store.get(MARK).await.unwrap().is_none());
    // What it writes is filled in, too.
    let written = put_deployment(&*store, "b").await;
    let found = got(&client, "b").await;
    assert_eq!((has_defaults(&found), version(&found)), (true, written));
    let gone = || store.txn(Txn { compare: Vec::new(), ops: vec![Op::delete(OTHER)] });
    gone().await.unwrap();
    tokio::time::sleep(A_LOOK).await;
    marked(&*store).await;
    assert!(has_defaults(&record(&*store, &key("b")).await.1));

    // It comes back, and writes before it is seen: that is written anew, and all that follows is looked at again.
    put(&*store, OTHER, other.to_string()).await;
    put_deployment(&*store, "c").await;
    tokio::time::sleep(A_LOOK).await;
    assert!(store.get(MARK).await.unwrap().is_none());
    assert!(has_defaults(&got(&client, "c").await));
    assert!(has_defaults(&record(&*store, &key("c")).await.1));
    put_deployment(&*store, "d").await;
    assert!(has_defaults(&got(&client, "d").await));
    // One that fills in the same, too, says so.
    let same = json!({"kind": "Endpoints", "apiVersion": "v1",
        "metadata": {"annotations": {"coracle/defaults": DEFAULTS.to_string()}}});
    put(&*store, OTHER, same.to_string()).await;
    tokio::time::sleep(A_LOOK).await;
    marked(&*store).await;
    assert!(has_defaults(&record(&*store, &key("d")).await.1));
}

/// The number of the defaults, and a digest of what they fill in.
const KNOWN: (u32, &str) = (1, "d8f6a82d909d77b8");

#[test]
fn whoever_changes_a_default_raises_their_number() {
    let mut digest = Sha256::new();
    for row in Registry::builtin().current().rows().filter(|row| row.is_stored()) {
        for sample in samples(row) {
            let mut filled = own::read(sample.to_string().as_bytes()).unwrap();
            row.strategy.default(&mut filled);
            let filled: Value = serde_json::from_str(&filled.to_string()).unwrap();
            let (mut before, mut after) = (BTreeMap::new(), BTreeMap::new());
            leaves(&sample, String::new(), &mut before);
            leaves(&filled, String::new(), &mut after);
            let gone = before.iter().filter(|(path, _)| !after.contains_key(*path)).map(|(path, _)| format!("-{path}"));
            let set = after.iter().filter(|(path, value)| before.get(*path) != Some(*value));
            for line in gone.chain(set.map(|(path, value)| format!("{path}={value}"))) {
                digest.update(format!("{} {line}\n", row.storage));
            }
        }
    }
    let digest: String = digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        (DEFAULTS, digest.as_str()),
        KNOWN,
        "What kinds fill in has changed, so what is stored lacks it: raise DEFAULTS in registry/strategy.rs, and KNOWN here to it and {digest:?}."
    );
}

/// Values without members, by their path.
fn leaves(value: &Value, path: String, into: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            fields.iter().for_each(|(name, value)| leaves(value, format!("{path}/{name}"), into));
        }
        Value::Array(items) if !items.is_empty() => {
            items.iter().enumerate().for_each(|(nth, value)| leaves(value, format!("{path}/{nth}"), into));
        }
        value => drop(into.insert(path, value.clone())),
    }
}

/// Objects that a kind has something to fill in of: one with nothing, the least that is valid, one with a structure wherever
/// there can be one, and what decides between defaults.
fn samples(row: &Row) -> Vec<Value> {
    let metadata = json!({"name": "n", "labels": {"a": "b"}});
    let with = |part: Value| {
        let mut sample = json!({"metadata": metadata});
        json_patch::merge(&mut sample, &part);
        sample
    };
    let mut whole = structures(row.type_ref(0).unwrap(), &mut Vec::new());
    whole["metadata"] = metadata.clone();
    let mut samples = vec![with(json!({})), least(&row.kind), whole];
    let port = json!([{"port": 80}]);
    let limits = json!({"limits": {"cpu": "1.0005", "memory": "1Gi"}});
    let containers = json!([
        {"name": "a", "image": "a", "ports": [{"containerPort": 80}], "resources": limits, "lifecycle": {"stopSignal": "SIGTERM"}},
        {"name": "b", "image": "a:1", "livenessProbe": {"timeoutSeconds": 0}},
    ]);
    let pod =
        json!({"hostNetwork": true, "serviceAccountName": "s", "containers": containers, "volumes": [{"name": "v"}]});
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": pod});
    samples.extend(match &*row.kind {
        "Pod" => vec![with(json!({"spec": pod})), with(json!({"spec": {"containers": [], "resources": limits}}))],
        "PodTemplate" => vec![with(json!({"template": template}))],
        "Deployment" | "DaemonSet" | "StatefulSet" | "ReplicaSet" | "ReplicationController" => {
            let strategy = json!({"type": if &*row.kind == "Deployment" { "Recreate" } else { "OnDelete" }});
            vec![with(json!({"spec": {"template": template, "strategy": strategy, "updateStrategy": strategy}}))]
        }
        "Job" => ["completions", "parallelism", "backoffLimitPerIndex"]
            .map(|field| with(json!({"spec": {"template": template, "manualSelector": true, field: 2}})))
            .into(),
        "Service" => ["NodePort", "LoadBalancer", "ExternalName"]
            .map(|kind| with(json!({"spec": {"type": kind, "ports": port, "sessionAffinity": "ClientIP", "externalIPs": ["192.0.2.1"]}})))
            .into(),
        "PriorityLevelConfiguration" => ["Limited", "Exempt"]
            .map(|kind| with(json!({"spec": {"type": kind, "limited": {"limitResponse": {"queuing": {}}}}})))
            .into(),
        "LimitRange" => vec![with(json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "1"}, "min": {"cpu": "100u"}}]}}))],
        "Node" => vec![
            with(json!({"spec": {"podCIDRs": ["10.0.0.0/24"]}, "status": {"capacity": {"cpu": "1.0005"}}})),
            with(json!({"spec": {"podCIDR": "10.0.0.0/24"}})),
        ],
        "RoleBinding" | "ClusterRoleBinding" => vec![with(json!({"subjects": [{"kind": "User"}, {"kind": "ServiceAccount"}]}))],
        "NetworkPolicy" => vec![with(json!({"spec": {"egress": []}}))],
        "CustomResourceDefinition" => {
            let versions = json!([{"name": "v1", "storage": true}]);
            vec![with(json!({"spec": {"names": {"kind": "Thing"}, "versions": versions}, "status": {}}))]
        }
        _ => Vec::new(),
    });
    samples
}

/// An object with a structure wherever its type can have one, and no other values.
fn structures<'s>(ty: TypeRef<'s>, within: &mut Vec<&'s str>) -> Value {
    let mut object = json!({});
    within.push(ty.full_name());
    for field in ty.fields() {
        let mut value = field.value();
        let wrap: fn(Value) -> Value = match value.kind() {
            Kind::List(item) => {
                value = item;
                |item| json!([item])
            }
            Kind::Map(item) => {
                value = item;
                |item| json!({"k": item})
            }
            _ => |value| value,
        };
        if let Some(inner) = value.object().filter(|inner| !within.contains(&inner.full_name())) {
            object[field.name()] = wrap(structures(inner, within));
        }
    }
    within.pop();
    object
}
