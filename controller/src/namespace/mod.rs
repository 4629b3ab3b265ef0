//! Empties namespaces that are being deleted, then lets them go (upstream's pkg/controller/namespace).

use std::{collections::BTreeMap, collections::HashMap, sync::Arc, time::Duration};

use coracle_client::{
    Action, Context, Informer, Informers, Key, Plan, Reconciler, ResourceId, Snapshot, Step, Verb, Wires,
    executor::Outcome,
};
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Namespace, NamespaceCondition, NamespaceStatus},
    apimachinery::pkg::apis::meta::v1::Time,
};
use parking_lot::Mutex;

use crate::catalog::Catalog;

/// The finalizer that is ours, in the namespace's spec.
const FINALIZER: &str = "kubernetes";
/// Pods end by themselves within their grace; their deletion wakes us only for what informers see.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Empties namespaces.
pub struct Namespaces {
    namespaces: Arc<Informer<Namespace>>,
    catalog: Catalog,
    /// By the uid of the namespace: what the server itself said is left, of each resource that was asked for.
    answers: Arc<Mutex<HashMap<String, BTreeMap<String, bool>>>>,
}

/// What is left of one resource in a namespace, by the informer.
#[derive(Clone, Debug)]
pub struct Content {
    pub resource: ResourceId,
    pub count: usize,
    /// How many objects wait for each finalizer.
    pub finalizers: BTreeMap<String, usize>,
}

/// What a plan reads.
pub struct State {
    pub namespaces: Arc<Snapshot<Namespace>>,
    /// The namespaced resources.
    pub resources: Vec<ResourceId>,
    /// What is left in the namespaces that are being deleted.
    pub content: HashMap<String, Vec<Content>>,
    /// See `Namespaces::answers`.
    pub answers: HashMap<String, BTreeMap<String, bool>>,
}

impl Namespaces {
    /// The controller over the catalog's resources.
    pub fn new(informers: &Informers, catalog: &Catalog) -> Self {
        Self { namespaces: informers.get(), catalog: catalog.clone(), answers: Arc::default() }
    }
}

impl Reconciler for Namespaces {
    type Key = Key;
    type Snapshot = State;

    fn name(&self) -> &'static str {
        "namespace"
    }

    fn wire(&self, wires: &mut Wires<Key>) {
        let answers = self.answers.clone();
        wires.on(&self.namespaces, move |event, emit| {
            let meta = &event.object().metadata;
            if event.is_deleted() {
                answers.lock().remove(meta.uid.as_deref().unwrap_or_default());
            } else if meta.deletion_timestamp.is_some() {
                emit(Key::of(meta));
            }
        });
    }

    fn snapshot(&self) -> State {
        let namespaces = self.namespaces.snapshot();
        let entries = self.catalog.entries();
        let namespaced = || entries.iter().filter(|entry| entry.namespaced);
        let going = namespaces.iter().filter(|namespace| namespace.metadata.deletion_timestamp.is_some());
        let content = going
            .filter_map(|namespace| namespace.metadata.name.clone())
            .map(|name| {
                let content = namespaced().filter_map(|entry| {
                    let objects = entry.objects.in_namespace(&name);
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
        State { resources, content, answers: self.answers.lock().clone(), namespaces }
    }

    fn plan(&self, state: &State, key: &Key, context: &Context<'_>) -> Plan {
        plan(state, key, context.now)
    }

    fn observe(&self, key: &Key, action: &Action, outcome: &Outcome) {
        let Some(namespace) = self.namespaces.find("", key.name()) else { return };
        let uid = namespace.metadata.uid.clone().unwrap_or_default();
        let empty = match (&action.verb, outcome) {
            (Verb::Probe, Ok(list)) => list.get("items").and_then(|items| items.as_array()).is_some_and(Vec::is_empty),
            // The resource is not served any more.
            (Verb::Probe, Err(error)) => error.is_not_found(),
            // What is deleted again has to be asked for again.
            (Verb::DeleteCollection, _) => false,
            _ => return,
        };
        self.answers.lock().entry(uid).or_default().insert(action.resource.to_string(), empty);
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
    if state.resources.is_empty() {
        // What is not known cannot be emptied.
        plan.requeue(LOOK_AGAIN);
        return plan;
    }
    let content = state.content.get(key.name()).map(Vec::as_slice).unwrap_or_default();
    let answers = state.answers.get(namespace.metadata.uid.as_deref().unwrap_or_default());
    let empty = |resource: &ResourceId| answers.and_then(|answers| answers.get(&resource.to_string())) == Some(&true);
    if content.is_empty() && state.resources.iter().all(empty) {
        plan.push(finalize(namespace));
        return plan;
    }
    let at = Key::new(key.name(), "");
    let each = |verb: Verb, of: Vec<&ResourceId>| {
        Step::Parallel(of.into_iter().map(|resource| Action::at(resource.clone(), &at, verb.clone())).collect())
    };
    let unsure: Vec<&ResourceId> = state.resources.iter().filter(|resource| !empty(resource)).collect();
    plan.actions.push(each(Verb::DeleteCollection, unsure.clone()));
    plan.status = status(namespace, content, now);
    if content.is_empty() {
        // By our informers it is empty; the last word is the server's.
        plan.actions.push(each(Verb::Probe, unsure));
        plan.requeue(if answers.is_none() { Duration::from_millis(1) } else { LOOK_AGAIN.min(Duration::from_secs(1)) });
    } else {
        plan.requeue(LOOK_AGAIN);
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

/// What keeps the namespace, as its conditions say it.
fn status(namespace: &Namespace, content: &[Content], now: Timestamp) -> Option<Action> {
    let remaining: Vec<String> = content
        .iter()
        .map(|content| format!("{} has {} resource instances", content.resource, content.count))
        .collect();
    let mut waits: BTreeMap<&str, usize> = BTreeMap::new();
    for (finalizer, count) in content.iter().flat_map(|content| &content.finalizers) {
        *waits.entry(finalizer).or_default() += count;
    }
    let waits: Vec<String> =
        waits.iter().map(|(finalizer, count)| format!("{finalizer} in {count} resource instances")).collect();
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
        (
            "NamespaceDeletionDiscoveryFailure",
            ("False", "ResourcesDiscovered", "All resources successfully discovered".to_owned()),
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            ("False", "ParsedGroupVersions", "All legacy kube types successfully parsed".to_owned()),
        ),
        (
            "NamespaceDeletionContentFailure",
            ("False", "ContentDeleted", "All content successfully deleted, may be waiting on finalization".to_owned()),
        ),
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
    use k8s_openapi::api::core::v1::Pod;

    fn state(content: Vec<Content>, answers: &[(&str, bool)]) -> State {
        let namespace: Namespace = coracle_api::json::from_value(json!({
            "metadata": {"name": "n", "uid": "u", "deletionTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"finalizers": ["kubernetes", "other"]}}))
        .unwrap();
        let answers: BTreeMap<String, bool> =
            answers.iter().map(|(name, empty)| ((*name).to_owned(), *empty)).collect();
        State {
            namespaces: Arc::new(Snapshot::of([namespace], &[])),
            resources: vec![ResourceId::of::<Pod>()],
            content: [("n".to_owned(), content)].into(),
            answers: if answers.is_empty() { HashMap::new() } else { [("u".to_owned(), answers)].into() },
        }
    }

    fn planned(state: &State) -> Plan {
        plan(state, &Key::cluster("n"), Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn content_goes_first_and_is_told_about() {
        let content = Content { resource: ResourceId::of::<Pod>(), count: 2, finalizers: [("f".to_owned(), 1)].into() };
        let plan = planned(&state(vec![content], &[("pods", false)]));
        assert_eq!(plan.describe(), ["deletecollection pods n/", "update namespaces/status n"]);
        let Verb::Update { body, .. } = &plan.status.unwrap().verb else { panic!() };
        let message = |at: usize| body["status"]["conditions"][at]["message"].as_str().unwrap().to_owned();
        assert_eq!(message(3), "Some resources are remaining: pods has 2 resource instances");
        assert_eq!(message(4), "Some content in the namespace has finalizers remaining: f in 1 resource instances");
    }

    #[test]
    fn the_server_is_asked_before_the_namespace_goes() {
        let asked = planned(&state(vec![], &[]));
        assert_eq!(asked.describe(), ["deletecollection pods n/", "get pods n/", "update namespaces/status n"]);
        let done = planned(&state(vec![], &[("pods", true)]));
        assert_eq!(done.describe(), ["update namespaces/finalize n"]);
        let Verb::Update { body, .. } = &done.actions[0].actions()[0].verb else { panic!() };
        assert_eq!(body["spec"]["finalizers"], json!(["other"]));
    }
}
