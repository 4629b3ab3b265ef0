//! Empties namespaces that are being deleted, then lets them go (upstream's pkg/controller/namespace).

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use coracle_client::{
    Action, Context, Informer, Informers, Key, Plan, Reconciler, ResourceId, Snapshot, Step, Verb, Wires, WorkQueue,
    executor::Outcome,
};
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Namespace, NamespaceCondition, NamespaceStatus},
    apimachinery::pkg::apis::meta::v1::Time,
};
use parking_lot::Mutex;

use crate::catalog::{Catalog, Followed, Progress};

/// The finalizer that is ours, in the namespace's spec.
const FINALIZER: &str = "kubernetes";
/// What the informers do not see ends by itself, as events.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// The last word is the server's, and it is asked soon.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Empties namespaces.
pub struct Namespaces {
    namespaces: Arc<Informer<Namespace>>,
    catalog: Catalog,
    /// By the uid of the namespace.
    going: Arc<Mutex<HashMap<String, Going>>>,
    subscriptions: Arc<Mutex<Followed>>,
}

/// What was learnt of a namespace that is being deleted.
#[derive(Clone, Debug, Default)]
pub struct Going {
    /// The catalog has to have got as far as this: a resource that it did not know may be in the namespace.
    pub since: u64,
    /// What the server itself said is left, of each resource that was asked for.
    pub empty: BTreeMap<String, bool>,
    /// Why a resource could not be emptied.
    pub failures: BTreeMap<String, String>,
}

/// What is left of one resource in a namespace, by the informer.
#[derive(Clone, Debug)]
pub struct Content {
    pub resource: Arc<ResourceId>,
    pub count: usize,
    /// How many objects wait for each finalizer.
    pub finalizers: BTreeMap<String, usize>,
}

/// What a plan reads.
pub struct State {
    pub namespaces: Arc<Snapshot<Namespace>>,
    /// The namespaced resources.
    pub resources: Vec<Arc<ResourceId>>,
    /// How far the catalog has asked for them.
    pub progress: Progress,
    /// What is left in the namespaces that are being deleted.
    pub content: HashMap<String, Vec<Content>>,
    /// See `Namespaces::going`.
    pub going: HashMap<String, Going>,
}

impl Namespaces {
    /// The controller over the catalog's resources.
    pub fn new(informers: &Informers, catalog: &Catalog) -> Self {
        Self {
            namespaces: informers.get(),
            catalog: catalog.clone(),
            going: Arc::default(),
            subscriptions: Arc::default(),
        }
    }

    /// Wakes a namespace when the last object of a resource in it is gone, and all that go when the catalog has asked anew.
    fn follow(&self, queue: Arc<WorkQueue<Key>>) {
        let (namespaces, subscriptions) = (self.namespaces.clone(), Arc::downgrade(&self.subscriptions));
        let (mut changes, mut progress) = (self.catalog.changes(), self.catalog.progress());
        tokio::spawn(async move {
            let mut known: Vec<Arc<ResourceId>> = Vec::new();
            loop {
                let entries = changes.borrow_and_update().clone();
                let is_known = |resource| known.iter().any(|have| Arc::ptr_eq(have, resource));
                for entry in entries.iter().filter(|entry| entry.namespaced && !is_known(&entry.resource)) {
                    let Some(objects) = &entry.objects else { continue };
                    let Some(subscriptions) = subscriptions.upgrade() else { return };
                    let (namespaces, queue, left) = (namespaces.clone(), queue.clone(), Arc::downgrade(objects));
                    let subscription = objects.subscribe(Box::new(move |change| {
                        let namespace = change.meta.namespace.as_deref().unwrap_or_default();
                        let is_last = || left.upgrade().is_some_and(|objects| !objects.any_in(namespace));
                        if change.deleted && is_going(&namespaces, namespace) && is_last() {
                            queue.add(Key::cluster(namespace));
                        }
                    }));
                    subscriptions.lock().push((entry.resource.clone(), subscription));
                }
                if let Some(subscriptions) = subscriptions.upgrade() {
                    let is_there =
                        |resource: &Arc<ResourceId>| entries.iter().any(|entry| Arc::ptr_eq(resource, &entry.resource));
                    subscriptions.lock().retain(|(resource, _)| is_there(resource));
                }
                known = entries.iter().map(|entry| entry.resource.clone()).collect();
                drop(entries);
                let waited = tokio::select! {
                    changed = changes.changed() => changed,
                    asked = progress.changed() => asked,
                };
                if waited.is_err() || subscriptions.strong_count() == 0 {
                    return;
                }
                let snapshot = namespaces.snapshot();
                let going = snapshot.iter().filter(|namespace| namespace.metadata.deletion_timestamp.is_some());
                going.for_each(|namespace| queue.add(Key::of(&namespace.metadata)));
            }
        });
    }
}

fn is_going(namespaces: &Informer<Namespace>, name: &str) -> bool {
    namespaces.find("", name).is_some_and(|namespace| namespace.metadata.deletion_timestamp.is_some())
}

impl Reconciler for Namespaces {
    type Key = Key;
    type Snapshot = State;

    fn name(&self) -> &'static str {
        "namespace"
    }

    fn wire(&self, wires: &mut Wires<Key>) {
        let (going, catalog) = (self.going.clone(), self.catalog.clone());
        wires.on(&self.namespaces, move |event, emit| {
            let meta = &event.object().metadata;
            let uid = meta.uid.as_deref().unwrap_or_default();
            if event.is_deleted() {
                going.lock().remove(uid);
            } else if meta.deletion_timestamp.is_some() {
                let new = || Going { since: catalog.ask(), ..Going::default() };
                going.lock().entry(uid.to_owned()).or_insert_with(new);
                emit(Key::of(meta));
            }
        });
        self.follow(wires.queue().clone());
    }

    fn snapshot(&self) -> State {
        // Before the resources: what is as far as this knows all that were asked for by then.
        let progress = self.catalog.progress().borrow().clone();
        let namespaces = self.namespaces.snapshot();
        let entries = self.catalog.entries();
        let namespaced = || entries.iter().filter(|entry| entry.namespaced);
        let going = namespaces.iter().filter(|namespace| namespace.metadata.deletion_timestamp.is_some());
        let content = going
            .filter_map(|namespace| namespace.metadata.name.clone())
            .map(|name| {
                let content = namespaced().filter_map(|entry| {
                    let objects = entry.objects.as_ref()?.in_namespace(&name);
                    let mut finalizers = BTreeMap::new();
                    for finalizer in objects.iter().flat_map(|(_, finalizers)| finalizers) {
                        *finalizers.entry(finalizer.clone()).or_default() += 1;
                    }
                    (!objects.is_empty()).then(|| Content {
                        resource: entry.resource.clone(),
                        count: objects.len(),
                        finalizers,
                    })
                });
                (name.clone(), content.collect())
            })
            .collect();
        let resources = namespaced().map(|entry| entry.resource.clone()).collect();
        State { resources, progress, content, going: self.going.lock().clone(), namespaces }
    }

    fn plan(&self, state: &State, key: &Key, context: &Context<'_>) -> Plan {
        plan(state, key, context.now)
    }

    fn observe(&self, key: &Key, action: &Action, outcome: &Outcome) {
        let empty = match (&action.verb, outcome) {
            (Verb::Probe, Ok(list)) => list.get("items").and_then(|items| items.as_array()).is_some_and(Vec::is_empty),
            // The resource is not served any more.
            (Verb::Probe, Err(error)) => error.is_not_found(),
            // What is deleted again has to be asked for again.
            (Verb::DeleteCollection, _) => false,
            _ => return,
        };
        let Some(namespace) = self.namespaces.find("", key.name()) else { return };
        let uid = namespace.metadata.uid.as_deref().unwrap_or_default();
        let mut going = self.going.lock();
        // A namespace that is gone has nothing to remember.
        let Some(going) = going.get_mut(uid) else { return };
        let resource = action.resource.to_string();
        match outcome {
            Err(error) if !error.is_not_found() => {
                going.failures.insert(resource.clone(), error.to_string());
            }
            _ if matches!(action.verb, Verb::DeleteCollection) => drop(going.failures.remove(&resource)),
            _ => {}
        }
        going.empty.insert(resource, empty);
    }
}

/// What has to be done for one namespace.
pub fn plan(state: &State, key: &Key, now: Timestamp) -> Plan {
    let Some(namespace) = state.namespaces.get(key) else { return Plan::nothing() };
    let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_deref()).unwrap_or_default();
    if namespace.metadata.deletion_timestamp.is_none() || !finalizers.iter().any(|have| have == FINALIZER) {
        return Plan::nothing();
    }
    let mut plan = Plan::default();
    let going = state.going.get(namespace.metadata.uid.as_deref().unwrap_or_default());
    let is_whole = going.is_some_and(|going| state.progress.answered >= going.since);
    let empty = |resource: &ResourceId| going.and_then(|going| going.empty.get(&resource.to_string())) == Some(&true);
    let all = state.content.get(key.name()).map(Vec::as_slice).unwrap_or_default();
    let unsure: Vec<&ResourceId> =
        state.resources.iter().map(|resource| &**resource).filter(|resource| !empty(resource)).collect();
    if all.is_empty() && unsure.is_empty() && is_whole {
        plan.push(finalize(namespace));
        return plan;
    }
    // Pods go first, or they would end their lives without what they rely on, as the network policies that hold them (KEP-5080).
    let is_pods = |resource: &ResourceId| resource.group.is_empty() && resource.plural == "pods";
    let pods_first = unsure.iter().any(|resource| is_pods(resource));
    let now_is_the_turn_of = |resource: &ResourceId| !pods_first || is_pods(resource);
    let content: Vec<&Content> = all.iter().filter(|content| now_is_the_turn_of(&content.resource)).collect();
    let unsure: Vec<&ResourceId> = unsure.into_iter().filter(|resource| now_is_the_turn_of(resource)).collect();

    let at = Key::new(key.name(), "");
    let each = |verb: Verb, of: Vec<&ResourceId>| {
        Step::Parallel(of.into_iter().map(|resource| Action::at(resource.clone(), &at, verb.clone())).collect())
    };
    plan.status = status(namespace, &content, going, state.progress.failure.as_deref(), now);
    if !unsure.is_empty() {
        plan.actions.push(each(Verb::DeleteCollection, unsure.clone()));
    }
    if !content.is_empty() {
        plan.requeue(LOOK_AGAIN);
    } else if !unsure.is_empty() {
        // By our informers it is empty; the last word is the server's.
        let is_first = going.is_none_or(|going| !going.empty.contains_key(&unsure[0].to_string()));
        plan.actions.push(each(Verb::Probe, unsure));
        plan.requeue(if is_first { Duration::from_millis(1) } else { ASK_AGAIN });
    }
    plan
}

fn finalize(namespace: &Namespace) -> Action {
    let mut done = namespace.clone();
    if let Some(finalizers) = done.spec.as_mut().and_then(|spec| spec.finalizers.as_mut()) {
        finalizers.retain(|have| have != FINALIZER);
    }
    let mut action = Action::update(&done).lenient();
    if let Verb::Update { subresource, .. } = &mut action.verb {
        *subresource = Some("finalize");
    }
    action
}

/// What keeps the namespace, as its conditions say it (pkg/controller/namespace/deletion `status_condition_utils.go`).
fn status(
    namespace: &Namespace,
    content: &[&Content],
    going: Option<&Going>,
    undiscovered: Option<&str>,
    now: Timestamp,
) -> Option<Action> {
    let remaining: Vec<String> = content
        .iter()
        // Of the core group, too, with the dot.
        .map(|content| {
            let ResourceId { plural, group, .. } = &*content.resource;
            format!("{plural}.{group} has {} resource instances", content.count)
        })
        .collect();
    let mut waits: BTreeMap<&str, usize> = BTreeMap::new();
    for (finalizer, count) in content.iter().flat_map(|content| &content.finalizers) {
        *waits.entry(finalizer).or_default() += count;
    }
    let waits: Vec<String> =
        waits.iter().map(|(finalizer, count)| format!("{finalizer} in {count} resource instances")).collect();
    let discovery = match undiscovered {
        Some(error) => ("True", "DiscoveryFailed", format!("Discovery failed for some groups, 1 failing: {error}")),
        None => ("False", "ResourcesDiscovered", "All resources successfully discovered".to_owned()),
    };
    let mut failures: Vec<&str> = going.iter().flat_map(|going| going.failures.values().map(String::as_str)).collect();
    failures.sort_unstable();
    let deletion = if failures.is_empty() {
        ("False", "ContentDeleted", "All content successfully deleted, may be waiting on finalization".to_owned())
    } else {
        let message =
            format!("Failed to delete all resource types, {} remaining: {}", failures.len(), failures.join(", "));
        ("True", "ContentDeletionFailed", message)
    };
    let content_remains = if remaining.is_empty() {
        ("False", "ContentRemoved", "All content successfully removed".to_owned())
    } else {
        ("True", "SomeResourcesRemain", format!("Some resources are remaining: {}", remaining.join(", ")))
    };
    let finalizers_remain = if waits.is_empty() {
        ("False", "ContentHasNoFinalizers", "All content-preserving finalizers finished".to_owned())
    } else {
        (
            "True",
            "SomeFinalizersRemain",
            format!("Some content in the namespace has finalizers remaining: {}", waits.join(", ")),
        )
    };
    let wanted = [
        ("NamespaceDeletionDiscoveryFailure", discovery),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            ("False", "ParsedGroupVersions", "All legacy kube types successfully parsed".to_owned()),
        ),
        ("NamespaceDeletionContentFailure", deletion),
        ("NamespaceContentRemaining", content_remains),
        ("NamespaceFinalizersRemaining", finalizers_remain),
    ];
    let old = namespace.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let conditions: Vec<NamespaceCondition> = wanted
        .into_iter()
        .map(|(kind, (status, reason, message))| {
            let before = old.iter().find(|condition| condition.type_ == kind && condition.status == status);
            NamespaceCondition {
                type_: kind.to_owned(),
                status: status.to_owned(),
                reason: Some(reason.to_owned()),
                message: Some(message),
                last_transition_time: before
                    .and_then(|condition| condition.last_transition_time.clone())
                    .or(Some(Time(now))),
            }
        })
        .collect();
    if old == conditions {
        return None;
    }
    let mut changed = namespace.clone();
    changed.status = Some(NamespaceStatus { phase: Some("Terminating".to_owned()), conditions: Some(conditions) });
    Some(Action::update_status(&changed).lenient())
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::json::json;
    use k8s_openapi::api::core::v1::{ConfigMap, Pod};

    fn state(content: Vec<Content>, empty: &[(&str, bool)]) -> State {
        let namespace: Namespace = coracle_api::json::from_value(json!({
            "metadata": {"name": "n", "uid": "u", "deletionTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"finalizers": ["kubernetes", "other"]}}))
        .unwrap();
        let empty = empty.iter().map(|(name, empty)| ((*name).to_owned(), *empty)).collect();
        State {
            namespaces: Arc::new(Snapshot::of([namespace], &[])),
            resources: vec![Arc::new(ResourceId::of::<Pod>()), Arc::new(ResourceId::of::<ConfigMap>())],
            progress: Progress { answered: 7, failure: None },
            content: [("n".to_owned(), content)].into(),
            going: [("u".to_owned(), Going { since: 7, empty, ..Going::default() })].into(),
        }
    }

    fn content<K: kube::Resource<DynamicType = ()>>(count: usize) -> Content {
        Content { resource: Arc::new(ResourceId::of::<K>()), count, finalizers: [("f".to_owned(), 1)].into() }
    }

    fn planned(state: &State) -> Plan {
        plan(state, &Key::cluster("n"), Timestamp::UNIX_EPOCH)
    }

    fn messages(plan: Plan) -> Vec<String> {
        let Verb::Update { body, .. } = plan.status.unwrap().verb else { panic!() };
        let conditions = body["status"]["conditions"].as_array().unwrap();
        conditions.iter().map(|condition| condition["message"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn pods_go_first_and_are_told_about() {
        let pods = planned(&state(vec![content::<Pod>(2), content::<ConfigMap>(1)], &[("pods", false)]));
        assert_eq!(pods.describe(), ["deletecollection pods n/", "update namespaces/status n"]);
        let told = messages(pods);
        assert_eq!(told[3], "Some resources are remaining: pods. has 2 resource instances");
        assert_eq!(told[4], "Some content in the namespace has finalizers remaining: f in 1 resource instances");
        // The server has not said that they are gone.
        let asked = planned(&state(vec![content::<ConfigMap>(1)], &[]));
        assert_eq!(asked.describe(), ["deletecollection pods n/", "get pods n/", "update namespaces/status n"]);
        let rest = planned(&state(vec![content::<ConfigMap>(1)], &[("pods", true)]));
        assert_eq!(rest.describe(), ["deletecollection configmaps n/", "update namespaces/status n"]);
    }

    #[test]
    fn the_server_is_asked_before_the_namespace_goes() {
        let asked = planned(&state(vec![], &[("pods", true)]));
        assert_eq!(
            asked.describe(),
            ["deletecollection configmaps n/", "get configmaps n/", "update namespaces/status n"]
        );
        let all = [("pods", true), ("configmaps", true)];
        let done = planned(&state(vec![], &all));
        assert_eq!(done.describe(), ["update namespaces/finalize n"]);
        let Verb::Update { body, .. } = &done.actions[0].actions()[0].verb else { panic!() };
        assert_eq!(body["spec"]["finalizers"], json!(["other"]));
        // There may be resources that are not known yet.
        let mut early = state(vec![], &all);
        early.progress.answered = 6;
        assert_eq!(planned(&early).describe(), ["update namespaces/status n"]);
    }

    #[test]
    fn what_fails_is_told() {
        let mut state = state(vec![], &[("pods", true)]);
        state.progress.failure = Some("no answer in time".to_owned());
        let failures = &mut state.going.get_mut("u").unwrap().failures;
        failures.insert("configmaps".to_owned(), "denied".to_owned());
        let told = messages(planned(&state));
        assert_eq!(told[0], "Discovery failed for some groups, 1 failing: no answer in time");
        assert_eq!(told[2], "Failed to delete all resource types, 1 remaining: denied");
    }
}
