//! Every resource of the cluster that can be listed, watched and deleted, each with an informer of its metadata: what the
//! garbage collector's graph and the emptying of namespaces stand on.

use std::{collections::HashSet, sync::Arc, time::Duration};

use coracle_client::{Event, Informer, Informers, Key, ResourceId, Scope, Subscription};
use futures::future::BoxFuture;
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet},
        core::v1::{Namespace, Node, Pod, Service},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Resource,
    core::ApiResource,
    discovery::{Discovery, Scope as Scoping, verbs},
};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often it is asked which resources there are (upstream's garbage collector syncs as often).
const REFRESH: Duration = Duration::from_secs(30);
const DEADLINE: Duration = Duration::from_secs(30);

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
    fn synced(&self) -> BoxFuture<'static, ()>;
    fn has_synced(&self) -> bool;
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

    fn synced(&self) -> BoxFuture<'static, ()> {
        let informer = self.0.clone();
        Box::pin(async move { informer.synced().await })
    }

    fn has_synced(&self) -> bool {
        self.0.has_synced()
    }
}

/// One resource.
#[derive(Clone)]
pub struct Entry {
    pub resource: ResourceId,
    pub namespaced: bool,
    pub objects: Arc<dyn Objects>,
}

/// The resources that are known now. Grows while the process runs; clones share it.
#[derive(Clone)]
pub struct Catalog {
    entries: watch::Sender<Arc<Vec<Entry>>>,
    known: Arc<Mutex<HashSet<ResourceId>>>,
    informers: Informers,
}

impl Catalog {
    /// An empty catalog; `follow` fills it.
    pub fn new(informers: &Informers) -> Self {
        Self { entries: watch::Sender::new(Arc::default()), known: Arc::default(), informers: informers.clone() }
    }

    /// The resources known now.
    pub fn entries(&self) -> Arc<Vec<Entry>> {
        self.entries.borrow().clone()
    }

    /// Wakes with every change of the list.
    pub fn changes(&self) -> watch::Receiver<Arc<Vec<Entry>>> {
        self.entries.subscribe()
    }

    /// The resource of an owner reference.
    pub fn find(entries: &[Entry], api_version: &str, kind: &str) -> Option<usize> {
        let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
        // Owners may be named by any served version of their group.
        entries.iter().position(|entry| entry.resource.kind == kind && entry.resource.group == group)
    }

    /// Asks the server for its resources again and again, until `shutdown`.
    pub async fn follow(self, shutdown: CancellationToken) {
        let mut refresh = tokio::time::interval(REFRESH);
        let mut retry = Duration::from_millis(100);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = refresh.tick() => {}
            }
            loop {
                // Informers that end with the process never become synced.
                let learnt = tokio::select! {
                    () = shutdown.cancelled() => return,
                    learnt = self.refresh() => learnt,
                };
                let Err(error) = learnt else { break };
                tracing::debug!(error, "cannot learn the resources of the cluster");
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = tokio::time::sleep(retry) => retry = (retry * 2).min(REFRESH),
                }
            }
        }
    }

    async fn refresh(&self) -> Result<(), String> {
        let discovery = Discovery::new(self.informers.client().clone()).run();
        let discovery = match tokio::time::timeout(DEADLINE, discovery).await {
            Ok(Ok(discovery)) => discovery,
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err("no answer in time".to_owned()),
        };
        let mut added = Vec::new();
        for group in discovery.groups() {
            for (resource, capabilities) in group.recommended_resources() {
                let usable =
                    [verbs::LIST, verbs::WATCH, verbs::DELETE].iter().all(|verb| capabilities.supports_operation(verb));
                let id = ResourceId::from(&resource);
                // Events are many, own nothing and end by themselves; those of the new group are the same objects.
                if !usable || id.kind == "Event" || !self.known.lock().insert(id.clone()) {
                    continue;
                }
                let namespaced = capabilities.scope == Scoping::Namespaced;
                added.push(Entry { resource: id, namespaced, objects: self.objects(&resource) });
            }
        }
        if !added.is_empty() {
            futures::future::join_all(added.iter().map(|entry| entry.objects.synced())).await;
            self.entries.send_modify(|entries| Arc::make_mut(entries).extend(added));
        }
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
            _ => Arc::new(Typed(informers.metadata(resource, Scope::all()))),
        }
    }
}
