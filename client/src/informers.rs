//! The process's informers: one per resource and scope, started on first use.

use std::{
    any::{Any, TypeId},
    collections::HashMap,
    sync::Arc,
};

use futures::{FutureExt, StreamExt, future::BoxFuture};
use kube::{
    Api, Client, Resource,
    core::{ApiResource, DynamicObject, NamespaceResourceScope, PartialObjectMeta},
    runtime::watcher::{self, InitialListStrategy},
};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::{
    ResourceId,
    informer::{Begin, Informer, Object, Source},
};

/// Restricts an informer to a part of its resource. The default is everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Scope {
    /// A label selector in its text form.
    pub labels: Option<String>,
    /// A field selector in its text form.
    pub fields: Option<String>,
}

impl Scope {
    /// Everything.
    pub fn all() -> Self {
        Self::default()
    }

    /// Objects whose field has this value, as `spec.nodeName` for a kubelet's pods.
    pub fn field(name: &str, value: &str) -> Self {
        Self { fields: Some(format!("{name}={value}")), ..Self::default() }
    }

    /// The objects that a label selector matches.
    pub fn labelled(selector: &str) -> Self {
        Self { labels: Some(selector.to_owned()), ..Self::default() }
    }
}

/// Hands out the one informer per resource and scope. Clones share everything.
#[derive(Clone)]
pub struct Informers {
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    default_scope: Scope,
    shutdown: CancellationToken,
    made: Mutex<HashMap<(TypeId, String, Scope), Made>>,
}

struct Made {
    informer: Arc<dyn Any + Send + Sync>,
    shutdown: CancellationToken,
    synced: Box<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Informers {
    /// Informers over `client`; `scope` holds for those that are asked for without one of their own.
    pub fn new(client: Client, scope: Scope) -> Self {
        Self::with_shutdown(client, scope, CancellationToken::new())
    }

    /// As `new`, ending when `shutdown` is cancelled. Dropping the last clone cancels it too.
    pub fn with_shutdown(client: Client, scope: Scope, shutdown: CancellationToken) -> Self {
        let shutdown = shutdown.child_token();
        let shared = Shared { client, default_scope: scope, shutdown, made: Mutex::new(HashMap::new()) };
        Self { shared: Arc::new(shared) }
    }

    /// The client that they watch with.
    pub fn client(&self) -> &Client {
        &self.shared.client
    }

    /// The informer of `K`, started by the first who asks. Needs a tokio runtime.
    pub fn get<K>(&self) -> Arc<Informer<K>>
    where
        K: Object,
        K::DynamicType: Default,
    {
        self.scoped(self.shared.default_scope.clone())
    }

    /// The informer of `K` over a part of the resource.
    pub fn scoped<K>(&self, scope: Scope) -> Arc<Informer<K>>
    where
        K: Object,
        K::DynamicType: Default,
    {
        let api = Api::<K>::all(self.shared.client.clone());
        let name = K::plural(&K::DynamicType::default()).into_owned();
        self.shared_informer(name, scope, move |config| watcher::watcher(api.clone(), config).boxed())
    }

    /// The informer of `K` over (a part of) one namespace.
    pub fn in_namespace<K>(&self, namespace: &str, scope: Scope) -> Arc<Informer<K>>
    where
        K: Object + Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        let api = Api::<K>::namespaced(self.shared.client.clone(), namespace);
        let name = format!("{namespace}/{}", K::plural(&K::DynamicType::default()));
        self.shared_informer(name, scope, move |config| watcher::watcher(api.clone(), config).boxed())
    }

    /// The informer of any resource's metadata: a tenth of the memory, for those who read no more than owners.
    pub fn metadata(&self, resource: &ApiResource, scope: Scope) -> Arc<Informer<PartialObjectMeta<DynamicObject>>> {
        let api = Api::<PartialObjectMeta<DynamicObject>>::all_with(self.shared.client.clone(), resource);
        let name = format!("{}/{}", resource.api_version, resource.plural);
        self.shared_informer(name, scope, move |config| watcher::watcher(api.clone(), config).boxed())
    }

    /// Ends the informer of a resource's metadata, which nobody serves any more: it would ask for it for ever.
    pub fn end_metadata(&self, resource: &ResourceId) {
        let id = (
            TypeId::of::<PartialObjectMeta<DynamicObject>>(),
            format!("{}/{}", resource.api_version(), resource.plural),
            Scope::all(),
        );
        if let Some(made) = self.shared.made.lock().remove(&id) {
            made.shutdown.cancel();
        }
    }

    /// Waits until every informer that was asked for so far has completed its first list.
    pub async fn synced(&self) {
        let waits: Vec<_> = self.shared.made.lock().values().map(|made| (made.synced)()).collect();
        futures::future::join_all(waits).await;
    }

    fn shared_informer<K, F>(&self, name: String, scope: Scope, open: F) -> Arc<Informer<K>>
    where
        K: Object,
        F: Fn(watcher::Config) -> futures::stream::BoxStream<'static, watcher::Result<watcher::Event<K>>>
            + Send
            + Sync
            + 'static,
    {
        let id = (TypeId::of::<K>(), name.clone(), scope.clone());
        let mut made = self.shared.made.lock();
        if let Some(have) = made.get(&id)
            && let Ok(informer) = have.informer.clone().downcast::<Informer<K>>()
        {
            return informer;
        }
        let informer = Informer::<K>::new(name);
        let source: Source<K> = Box::new(move |begin| open(configuration(&scope, begin)));
        let shutdown = self.shared.shutdown.child_token();
        tokio::spawn(informer.clone().run(source, shutdown.clone()));
        let waiting = informer.clone();
        let synced = move || {
            let informer = waiting.clone();
            async move { informer.synced().await }.boxed()
        };
        made.insert(id, Made { informer: informer.clone(), shutdown, synced: Box::new(synced) });
        informer
    }
}

fn configuration(scope: &Scope, begin: Begin) -> watcher::Config {
    watcher::Config {
        label_selector: scope.labels.clone(),
        field_selector: scope.fields.clone(),
        initial_list_strategy: match begin {
            Begin::Streaming => InitialListStrategy::StreamingList,
            Begin::Paged => InitialListStrategy::ListWatch,
        },
        page_size: Some(1000),
        ..watcher::Config::default()
    }
}
