use super::*;
use crate::catalog::{Change, Handler, Objects};
use coracle_api::json::{Value, json};
use coracle_client::{Key, ResourceId, Subscription, Verb};
use futures::future::BoxFuture;
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet},
        core::v1::{Node as ClusterNode, Pod},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

struct Nothing;

impl Objects for Nothing {
    fn subscribe(&self, _: Handler) -> Subscription {
        unreachable!("tests feed the graph themselves")
    }
    fn in_namespace(&self, _: &str) -> Vec<(Key, Vec<String>)> {
        Vec::new()
    }
    fn any_in(&self, _: &str) -> bool {
        false
    }
    fn synced(&self) -> BoxFuture<'static, ()> {
        Box::pin(async {})
    }
}

const PODS: usize = 0;
const SETS: usize = 1;
const DEPLOYMENTS: usize = 2;
const NODES: usize = 3;

struct World {
    state: State,
    queued: Vec<Uid>,
    now: Timestamp,
}

impl World {
    fn new() -> Self {
        let entry =
            |resource, namespaced| Entry { resource: Arc::new(resource), namespaced, objects: Some(Arc::new(Nothing)) };
        let entries = vec![
            entry(ResourceId::of::<Pod>(), true),
            entry(ResourceId::of::<ReplicaSet>(), true),
            entry(ResourceId::of::<Deployment>(), true),
            entry(ResourceId::of::<ClusterNode>(), false),
        ];
        Self {
            state: State { graph: Graph::default(), entries: Arc::new(entries), verdicts: Verdicts::default() },
            queued: Vec::new(),
            now: Timestamp::UNIX_EPOCH,
        }
    }

    fn observe(&mut self, entry: usize, meta: Value, deleted: bool) {
        let mut full = json!({"namespace": "d", "resourceVersion": "1"});
        full.as_object_mut().unwrap().extend(meta.as_object().unwrap().clone());
        full["uid"] = full["name"].clone();
        let meta: ObjectMeta = coracle_api::json::from_value(full).unwrap();
        let queued = &mut self.queued;
        let resource = self.state.entries[entry].resource.clone();
        self.state.graph.observe(&resource, &Change { meta: &meta, deleted }, &mut |uid| queued.push(uid));
    }

    fn add(&mut self, entry: usize, meta: Value) {
        self.observe(entry, meta, false);
    }

    fn plan(&self, uid: &str) -> Plan {
        plan::plan(&self.state, &Uid::new(uid), self.now)
    }

    /// What the server says of the ReplicaSet that pods of `d` call so.
    fn said(&mut self, owner: &str, is_present: bool) {
        self.state.verdicts.insert(Uid::new(owner), set("d", owner), is_present, self.now);
    }

    fn queued(&mut self) -> Vec<String> {
        let mut queued: Vec<String> = std::mem::take(&mut self.queued).iter().map(Uid::to_string).collect();
        queued.sort();
        queued.dedup();
        queued
    }
}

fn set(namespace: &str, name: &str) -> Named {
    let [api_version, kind, namespace, name] = ["apps/v1", "ReplicaSet", namespace, name].map(str::to_owned);
    Named { api_version, kind, namespace, name }
}

fn owned_by(kind: &str, names: &[&str]) -> Value {
    let api_version = if kind == "Node" { "v1" } else { "apps/v1" };
    json!(names.iter().map(|name| json!({"apiVersion": api_version, "kind": kind, "name": name, "uid": name, "blockOwnerDeletion": true})).collect::<Vec<_>>())
}

fn propagation(plan: &Plan) -> Option<&'static str> {
    match &plan.actions[0].actions()[0].verb {
        Verb::Delete { propagation, .. } => propagation.map(|propagation| propagation.as_str()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn dependents_follow_an_owner_that_is_gone() {
    let mut world = World::new();
    world.add(SETS, json!({"name": "rs"}));
    world.add(PODS, json!({"name": "p", "ownerReferences": owned_by("ReplicaSet", &["rs"])}));
    assert_eq!(world.queued(), ["p"]);
    assert_eq!(world.plan("p"), Plan::nothing(), "its owner is there");
    world.observe(SETS, json!({"name": "rs"}), true);
    assert_eq!(world.queued(), ["p"]);
    assert_eq!(
        world.plan("p").describe(),
        ["get replicasets.apps d/rs"],
        "the graph may be behind: the server is asked"
    );
    world.said("rs", false);
    let plan = world.plan("p");
    assert_eq!((plan.describe(), propagation(&plan)), (vec!["delete pods d/p".to_owned()], Some("Background")));
    // What is there and not in the graph is asked for again, if less and less often: nobody would tell that it goes.
    world.state.verdicts = Verdicts::default();
    for seconds in [2, 4, 8, 16, 32, 64, 128, 256, 512, 1000, 1000] {
        world.said("rs", true);
        let plan = world.plan("p");
        assert_eq!((plan.actions.len(), plan.requeue_after), (0, Some(Duration::from_secs(seconds))));
        world.now += Duration::from_secs(seconds);
        assert_eq!(world.plan("p").describe(), ["get replicasets.apps d/rs"]);
    }
}

#[test]
fn one_owner_left_is_enough() {
    let mut world = World::new();
    world.add(SETS, json!({"name": "rs"}));
    world.add(PODS, json!({"name": "p", "ownerReferences": owned_by("ReplicaSet", &["gone", "rs"])}));
    world.said("gone", false);
    let plan = world.plan("p");
    assert_eq!(plan.describe(), ["patch pods d/p"]);
    let Verb::Patch { body, .. } = &plan.actions[0].actions()[0].verb else { panic!() };
    let owners = &body["metadata"]["ownerReferences"];
    assert_eq!(
        (owners.as_array().unwrap().len(), &owners[0]["uid"], &body["metadata"]["resourceVersion"]),
        (1, &json!("rs"), &json!("1"))
    );
}

#[test]
fn foreground_goes_from_the_leaves_up() {
    let mut world = World::new();
    let going = json!("2026-01-01T00:00:00Z");
    world.add(DEPLOYMENTS, json!({"name": "dep"}));
    world.add(SETS, json!({"name": "rs", "ownerReferences": owned_by("Deployment", &["dep"])}));
    world.add(PODS, json!({"name": "p", "ownerReferences": owned_by("ReplicaSet", &["rs"])}));
    world.queued();
    world.add(DEPLOYMENTS, json!({"name": "dep", "deletionTimestamp": going, "finalizers": ["foregroundDeletion"]}));
    assert_eq!(world.queued(), ["dep", "rs"]);
    assert_eq!(world.plan("dep"), Plan::nothing(), "it is blocked");
    assert_eq!(propagation(&world.plan("rs")), Some("Foreground"));
    world.add(SETS, json!({"name": "rs", "deletionTimestamp": going, "finalizers": ["foregroundDeletion"], "ownerReferences": owned_by("Deployment", &["dep"])}));
    assert_eq!(world.queued(), ["p", "rs"]);
    assert_eq!(propagation(&world.plan("p")), Some("Background"), "nothing is below it");
    world.observe(PODS, json!({"name": "p", "ownerReferences": owned_by("ReplicaSet", &["rs"])}), true);
    assert_eq!(world.queued(), ["rs"]);
    let plan = world.plan("rs");
    let Verb::Patch { body, .. } = &plan.actions[0].actions()[0].verb else { panic!() };
    assert_eq!(body["metadata"]["finalizers"], Value::Null);
}

#[test]
fn orphans_are_freed_before_their_owner_goes() {
    let mut world = World::new();
    world.add(PODS, json!({"name": "p", "ownerReferences": owned_by("ReplicaSet", &["rs"])}));
    world.add(
        SETS,
        json!({"name": "rs", "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["orphan", "mine"]}),
    );
    assert_eq!(world.plan("rs").describe(), ["patch pods d/p", "patch replicasets.apps d/rs"]);
}

#[test]
fn owners_in_other_namespaces_are_refused() {
    let mut world = World::new();
    let told = |plan: &Plan| -> Vec<(String, String)> {
        plan.notes.iter().map(|note| (note.reason.to_owned(), note.message.clone())).collect()
    };
    let words = |message: &str| vec![("OwnerRefInvalidNamespace".to_owned(), message.to_owned())];
    // A cluster's object names a namespaced owner that is not seen: nothing can be said of it.
    world.add(NODES, json!({"name": "n", "namespace": null, "ownerReferences": owned_by("ReplicaSet", &["rs"])}));
    assert_eq!(world.plan("n"), Plan::nothing());
    world.queued();
    world.add(SETS, json!({"name": "rs", "namespace": "other"}));
    assert_eq!(world.queued(), ["n"], "who named it before it was seen");
    let plan = world.plan("n");
    assert_eq!(plan.describe(), Vec::<String>::new());
    let message = "ownerRef [apps/v1/ReplicaSet, namespace: , name: rs, uid: rs] does not exist in namespace \"\"";
    assert_eq!(told(&plan), words(message));

    world.add(PODS, json!({"name": "p", "ownerReferences": owned_by("ReplicaSet", &["rs"])}));
    let plan = world.plan("p");
    assert_eq!(plan.describe(), ["delete pods d/p"]);
    let message = "ownerRef [apps/v1/ReplicaSet, namespace: d, name: rs, uid: rs] does not exist in namespace \"d\"";
    assert_eq!(told(&plan), words(message));
    let about = &plan.notes[0].about;
    assert_eq!(
        [&about.kind, &about.namespace, &about.name].map(|text| text.as_deref()),
        [Some("Pod"), Some("d"), Some("p")]
    );
    // What has an owner that is there, too, is kept, and told the same.
    world.add(SETS, json!({"name": "own"}));
    world.add(PODS, json!({"name": "both", "ownerReferences": owned_by("ReplicaSet", &["own", "rs"])}));
    let plan = world.plan("both");
    assert_eq!((plan.describe(), told(&plan)), (vec!["patch pods d/both".to_owned()], words(message)));

    world.add(PODS, json!({"name": "q", "ownerReferences": owned_by("Node", &["n"])}));
    assert_eq!(world.plan("q"), Plan::nothing(), "an owner without a namespace is fine");
    world.add(PODS, json!({"name": "r", "namespace": "other", "ownerReferences": owned_by("ReplicaSet", &["rs"])}));
    assert_eq!(world.plan("r"), Plan::nothing(), "and one in its own");
}

#[test]
fn what_is_absent_under_a_wrong_name_may_be_there() {
    let mut world = World::new();
    // Somebody says so in another namespace, of a uid that he has read.
    world.state.verdicts.insert(Uid::new("rs"), set("other", "rs"), false, world.now);
    world.state.verdicts.insert(Uid::new("rs"), set("d", "wrong"), false, world.now);
    world.add(PODS, json!({"name": "p", "ownerReferences": owned_by("ReplicaSet", &["rs"])}));
    assert_eq!(world.plan("p").describe(), ["get replicasets.apps d/rs"]);
}

/// pkg/controller/garbagecollector `isDangling`.
#[test]
fn owners_are_found_by_all_that_they_are_called() {
    let mut world = World::new();
    let named = |api_version: &str, kind: &str, name: &str| {
        let reference = json!({"apiVersion": api_version, "kind": kind, "name": name, "uid": "rs"});
        json!({"name": "p", "ownerReferences": [reference]})
    };
    let (misnamed, of_another_kind) = (named("apps/v1", "ReplicaSet", "other"), named("apps/v1", "Deployment", "rs"));
    world.add(PODS, misnamed.clone());
    world.queued();
    world.add(SETS, json!({"name": "rs"}));
    assert_eq!(world.queued(), ["p"], "it named another before this one was seen");
    for (object, probe) in [(misnamed, "get replicasets.apps d/other"), (of_another_kind, "get deployments.apps d/rs")]
    {
        world.add(PODS, object);
        let plan = world.plan("p");
        assert_eq!(plan.describe(), [probe]);
        let probed = plan::probed(&world.state.graph, &Uid::new("p"), &plan.actions[0].actions()[0]);
        let [(uid, name)] = &probed[..] else { panic!("{probed:?}") };
        world.state.verdicts.insert(uid.clone(), name.clone(), false, world.now);
        let plan = world.plan("p");
        assert_eq!((plan.describe(), propagation(&plan)), (vec!["delete pods d/p".to_owned()], Some("Background")));
        // Who is in two groups is found in either.
        world.state.verdicts.insert(uid.clone(), name.clone(), true, world.now);
        assert_eq!(world.plan("p"), Plan::nothing());
    }
    world.add(PODS, named("apps/v1beta9", "ReplicaSet", "rs"));
    assert_eq!(world.plan("p"), Plan::nothing(), "in any version");
    // Of a kind that is not known nothing can be said, also not that it is elsewhere.
    for namespace in ["d", "other"] {
        world.add(SETS, json!({"name": "rs", "namespace": namespace}));
        world.add(PODS, named("example.com/v1", "Boat", "rs"));
        let plan = world.plan("p");
        assert_eq!((plan.actions.len(), plan.requeue_after.is_some()), (0, true), "{namespace}");
    }
}

#[test]
fn owners_of_one_name_are_told_apart_by_uid() {
    let mut world = World::new();
    let mut owners = owned_by("ReplicaSet", &["old", "new"]);
    owners[0]["name"] = json!("rs");
    owners[1]["name"] = json!("rs");
    world.add(PODS, json!({"name": "p", "ownerReferences": owners}));
    let plan = world.plan("p");
    let probe = &plan.actions[0].actions()[0];
    let probed = plan::probed(&world.state.graph, &Uid::new("p"), probe);
    assert_eq!(probed, [(Uid::new("old"), set("d", "rs")), (Uid::new("new"), set("d", "rs"))]);
    let other_group = Action { resource: ResourceId::of::<Pod>(), ..probe.clone() };
    assert_eq!(plan::probed(&world.state.graph, &Uid::new("p"), &other_group), []);
}

#[test]
fn owners_that_wait_for_each_other_are_let_go() {
    let mut world = World::new();
    let going = json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["foregroundDeletion"]});
    let mut waiting = json!({"name": "rs", "ownerReferences": owned_by("ReplicaSet", &["other"])});
    waiting.as_object_mut().unwrap().extend(going.as_object().unwrap().clone());
    world.add(SETS, waiting);
    world.add(SETS, json!({"name": "other", "ownerReferences": owned_by("ReplicaSet", &["rs"])}));
    let plan = world.plan("other");
    assert_eq!(plan.describe(), ["patch replicasets.apps d/other"]);
    let Verb::Patch { body, .. } = &plan.actions[0].actions()[0].verb else { panic!() };
    assert_eq!(body["metadata"]["ownerReferences"][0]["blockOwnerDeletion"], json!(false));
    let mut freed = owned_by("ReplicaSet", &["rs"]);
    freed[0]["blockOwnerDeletion"] = json!(false);
    world.add(SETS, json!({"name": "other", "ownerReferences": freed}));
    assert_eq!(propagation(&world.plan("other")), Some("Foreground"));
}

/// A resource whose list comes when it is told to.
#[derive(Default)]
struct Late {
    handlers: Mutex<Vec<Handler>>,
    listed: Arc<tokio::sync::Notify>,
}

impl Objects for Late {
    fn subscribe(&self, handler: Handler) -> Subscription {
        self.handlers.lock().push(handler);
        Subscription::none()
    }
    fn in_namespace(&self, _: &str) -> Vec<(Key, Vec<String>)> {
        Vec::new()
    }
    fn any_in(&self, _: &str) -> bool {
        false
    }
    fn synced(&self) -> BoxFuture<'static, ()> {
        let listed = self.listed.clone();
        Box::pin(async move { listed.notified().await })
    }
}

impl Late {
    fn tell(&self, meta: Value) {
        let meta: ObjectMeta = coracle_api::json::from_value(meta).unwrap();
        self.handlers.lock().iter().for_each(|handler| handler(Change { meta: &meta, deleted: false }));
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_decided_before_all_is_here() {
    let catalog = Catalog::fixed();
    let garbage = Garbage::new(&catalog, Arc::new(coracle_api::clock::SystemClock::new()));
    let queue = Arc::new(WorkQueue::new(Arc::new(coracle_api::clock::SystemClock::new())));
    let (sets, pods) = (Arc::new(Late::default()), Arc::new(Late::default()));
    let entry = |resource, objects: &Arc<Late>| Entry {
        resource: Arc::new(resource),
        namespaced: true,
        objects: Some(objects.clone()),
    };
    catalog.set(vec![entry(ResourceId::of::<ReplicaSet>(), &sets), entry(ResourceId::of::<Pod>(), &pods)]);
    garbage.follow(queue.clone());
    tokio::task::yield_now().await;
    let owner = json!({"name": "rs", "namespace": "d", "uid": "rs", "deletionTimestamp": "2026-01-01T00:00:00Z",
        "finalizers": ["orphan"]});
    sets.tell(owner);
    sets.listed.notify_one();
    tokio::task::yield_now().await;
    assert!(queue.is_empty(), "its pods are not here yet");
    pods.tell(json!({"name": "p", "namespace": "d", "uid": "p", "ownerReferences": owned_by("ReplicaSet", &["rs"])}));
    pods.listed.notify_one();
    assert!(queue.get().await.is_some());
    assert_eq!(
        plan::plan(&garbage.snapshot(), &Uid::new("rs"), Timestamp::UNIX_EPOCH).describe(),
        ["patch pods d/p", "patch replicasets.apps d/rs"]
    );

    // A resource that cannot be listed holds the others up for a while only; one that is no longer served is forgotten.
    let broken = Arc::new(Late::default());
    catalog.set(vec![entry(ResourceId::of::<Deployment>(), &broken)]);
    tokio::task::yield_now().await;
    broken.tell(json!({"name": "dep", "namespace": "d", "uid": "dep", "deletionTimestamp": "2026-01-01T00:00:00Z",
        "finalizers": ["orphan"]}));
    while queue.get().await != Some(Uid::new("dep")) {}
    assert!(garbage.graph.lock().get(&Uid::new("p")).is_none());
}
