//! Every resource of the cluster that can be listed, watched and deleted, each with an informer of its metadata: what the
//! garbage collector's graph and the emptying of namespaces stand on.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use coracle_client::{Event, Informer, Informers, Key, ResourceId, Scope, Subscription, outline::Pod};
use futures::future::BoxFuture;
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet},
        core::v1::{Namespace, Node, Service},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Resource,
    core::ApiResource,
    discovery::{ApiCapabilities, ApiGroup, Discovery, Scope as Scoping, verbs},
};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// How often it is asked which resources there are, beside every change of a definition (upstream's garbage collector syncs as
/// often).
const REFRESH: Duration = Duration::from_secs(30);
const DEADLINE: Duration = Duration::from_secs(30);
const RETRY: Duration = Duration::from_millis(100);

/// A change of some object's metadata.
pub struct Change<'a> {
    pub meta: &'a ObjectMeta,
    pub deleted: bool,
}

/// Calls with each change; see `Informer::subscribe`.
pub type Handler = Box<dyn Fn(Change<'_>) + Send + Sync>;

/// An informer of which only the metadata is read.
pub trait Objects: Send + Sync {
    fn subscribe(&self, handler: Handler) -> Subscription;
    /// The keys of the objects in a namespace, with whether each waits for finalizers, which are given.
    fn in_namespace(&self, namespace: &str) -> Vec<(Key, Vec<String>)>;
    /// Whether there is any object in a namespace.
    fn any_in(&self, namespace: &str) -> bool;
    fn synced(&self) -> BoxFuture<'static, ()>;
}

struct Typed<K>(Arc<Informer<K>>);

impl<K: Resource + Send + Sync + 'static> Objects for Typed<K> {
    fn subscribe(&self, handler: Handler) -> Subscription {
        self.0.subscribe(move |event: &Event<K>| {
            handler(Change { meta: event.object().meta(), deleted: event.is_deleted() })
        })
    }

    fn in_namespace(&self, namespace: &str) -> Vec<(Key, Vec<String>)> {
        let snapshot = self.0.snapshot();
        let described =
            |object: &Arc<K>| (Key::of(object.meta()), object.meta().finalizers.clone().unwrap_or_default());
        snapshot.namespace(namespace).map(described).collect()
    }

    fn any_in(&self, namespace: &str) -> bool {
        self.0.snapshot().namespace(namespace).next().is_some()
    }

    fn synced(&self) -> BoxFuture<'static, ()> {
        let informer = self.0.clone();
        Box::pin(async move { informer.synced().await })
    }
}

/// The resources that somebody follows, until they are dropped.
pub type Followed = Vec<(Arc<ResourceId>, Subscription)>;

/// One resource.
#[derive(Clone)]
pub struct Entry {
    pub resource: Arc<ResourceId>,
    pub namespaced: bool,
    /// None for events: they are many, own nothing, and end by themselves.
    pub objects: Option<Arc<dyn Objects>>,
}

/// How far the catalog has asked.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// The number of the last time that was answered.
    pub answered: u64,
    /// Why the last time was not.
    pub failure: Option<String>,
}

/// The resources that are known now. Clones share it.
#[derive(Clone)]
pub struct Catalog {
    shared: Arc<Shared>,
    informers: Informers,
}

struct Shared {
    entries: watch::Sender<Arc<Vec<Entry>>>,
    progress: watch::Sender<Progress>,
    /// How many times the server was asked.
    begun: AtomicU64,
    wanted: Notify,
}

impl Catalog {
    /// An empty catalog; `follow` fills it.
    pub fn new(informers: &Informers) -> Self {
        let shared = Shared {
            entries: watch::Sender::default(),
            progress: watch::Sender::default(),
            begun: AtomicU64::new(0),
            wanted: Notify::new(),
        };
        Self { shared: Arc::new(shared), informers: informers.clone() }
    }

    /// The resources known now. Their objects may still be on their way.
    pub fn entries(&self) -> Arc<Vec<Entry>> {
        self.shared.entries.borrow().clone()
    }

    /// Wakes with every change of the list.
    pub fn changes(&self) -> watch::Receiver<Arc<Vec<Entry>>> {
        self.shared.entries.subscribe()
    }

    /// Has the server asked anew; the number that `Progress::answered` reaches when what is asked from now on is answered.
    pub fn ask(&self) -> u64 {
        let next = self.shared.begun.load(Ordering::SeqCst) + 1;
        self.shared.wanted.notify_one();
        next
    }

    /// How far it has asked.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.shared.progress.subscribe()
    }

    /// The resource of an owner reference.
    pub fn find<'e>(entries: &'e [Entry], api_version: &str, kind: &str) -> Option<&'e Entry> {
        let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
        // Owners may be named by any served version of their group.
        entries.iter().find(|entry| entry.resource.kind == kind && entry.resource.group == group)
    }

    /// Asks the server for its resources again and again, until `shutdown`.
    pub async fn follow(self, shutdown: CancellationToken) {
        let mut refresh = tokio::time::interval(REFRESH);
        let mut retry = RETRY;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = refresh.tick() => {}
                () = self.shared.wanted.notified() => {}
            }
            loop {
                let number = self.shared.begun.fetch_add(1, Ordering::SeqCst) + 1;
                let learnt = tokio::select! {
                    () = shutdown.cancelled() => return,
                    learnt = self.refresh() => learnt,
                };
                let Err(error) = learnt else {
                    retry = RETRY;
                    self.shared.progress.send_replace(Progress { answered: number, failure: None });
                    break;
                };
                tracing::debug!(error, "cannot learn the resources of the cluster");
                self.shared.progress.send_modify(|progress| progress.failure = Some(error));
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = tokio::time::sleep(retry) => retry = (retry * 2).min(REFRESH),
                }
            }
        }
    }

    async fn refresh(&self) -> Result<(), String> {
        let discovery = Discovery::new(self.informers.client().clone()).run_aggregated();
        let discovery = match tokio::time::timeout(DEADLINE, discovery).await {
            Ok(Ok(discovery)) => discovery,
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err("no answer in time".to_owned()),
        };
        let mut served: HashMap<ResourceId, (ApiResource, bool)> = HashMap::new();
        for (resource, capabilities) in discovery.groups().flat_map(preferred) {
            let usable =
                [verbs::LIST, verbs::WATCH, verbs::DELETE].iter().all(|verb| capabilities.supports_operation(verb));
            if usable {
                let namespaced = capabilities.scope == Scoping::Namespaced;
                served.insert(ResourceId::from(&resource), (resource, namespaced));
            }
        }
        let entries = self.entries();
        let (kept, gone): (Vec<Entry>, Vec<Entry>) = entries.iter().cloned().partition(|entry| {
            let is_as_it_was =
                served.get(&*entry.resource).is_some_and(|(_, namespaced)| *namespaced == entry.namespaced);
            is_as_it_was && served.remove(&*entry.resource).is_some()
        });
        if served.is_empty() && gone.is_empty() {
            return Ok(());
        }
        for entry in &gone {
            self.informers.end_metadata(&entry.resource);
        }
        let added = served.into_iter().map(|(id, (resource, namespaced))| {
            let objects = (!is_event(&id)).then(|| self.objects(&resource));
            Entry { resource: Arc::new(id), namespaced, objects }
        });
        self.shared.entries.send_replace(Arc::new(kept.into_iter().chain(added).collect()));
        Ok(())
    }

    /// The typed informer where the process has one anyway.
    fn objects(&self, resource: &ApiResource) -> Arc<dyn Objects> {
        let informers = &self.informers;
        match (resource.group.as_str(), resource.kind.as_str()) {
            ("", "Pod") => Arc::new(Typed(informers.get::<Pod>())),
            ("", "Node") => Arc::new(Typed(informers.get::<Node>())),
            ("", "Namespace") => Arc::new(Typed(informers.get::<Namespace>())),
            ("", "Service") => Arc::new(Typed(informers.get::<Service>())),
            ("apps", "ReplicaSet") => Arc::new(Typed(informers.get::<ReplicaSet>())),
            ("apps", "Deployment") => Arc::new(Typed(informers.get::<Deployment>())),
            ("discovery.k8s.io", "EndpointSlice") => Arc::new(Typed(informers.get::<EndpointSlice>())),
            ("apiextensions.k8s.io", "CustomResourceDefinition") => {
                let definitions = informers.metadata(resource, Scope::all());
                let shared = Arc::downgrade(&self.shared);
                let changed = move |_: &Event<_>| {
                    if let Some(shared) = shared.upgrade() {
                        shared.wanted.notify_one();
                    }
                };
                definitions.subscribe(changed).forever();
                Arc::new(Typed(definitions))
            }
            _ => Arc::new(Typed(informers.metadata(resource, Scope::all()))),
        }
    }
}

#[cfg(test)]
impl Catalog {
    /// A catalog that holds what it is given.
    pub fn fixed() -> Self {
        let nobody = tower::service_fn(async |_: http::Request<kube::client::Body>| {
            Err::<http::Response<kube::client::Body>, _>(std::io::Error::other("nobody is asked"))
        });
        Self::new(&Informers::new(kube::Client::new(nobody, "default"), Scope::all()))
    }

    pub fn set(&self, entries: Vec<Entry>) {
        self.shared.entries.send_replace(Arc::new(entries));
    }
}

/// Each resource of a group in the best version that has it, the preferred one first: newer kinds are often in a lesser version
/// alone (client-go discovery `ServerPreferredResources`).
fn preferred(group: &ApiGroup) -> Vec<(ApiResource, ApiCapabilities)> {
    let best = group.preferred_version_or_latest();
    let others = group.versions().filter(|version| *version != best);
    let mut chosen = BTreeMap::new();
    for (resource, capabilities) in std::iter::once(best).chain(others).flat_map(|v| group.versioned_resources(v)) {
        chosen.entry(resource.plural.clone()).or_insert((resource, capabilities));
    }
    chosen.into_values().collect()
}

/// An event of Kubernetes itself, in either group (pkg/controller/garbagecollector `ignoredResources`).
fn is_event(resource: &ResourceId) -> bool {
    resource.kind == "Event" && matches!(&*resource.group, "" | "events.k8s.io")
}
