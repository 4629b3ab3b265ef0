//! The verbs: each exists once, for every row.

mod apply;
mod bind;
mod budget_count;
mod create;
mod delete;
mod evict;
mod get;
mod list;
mod manage;
mod patch;
mod scale;
mod token;
mod twins;
mod update;
mod watch;

pub mod allocate;
pub mod service_ranges;
pub(crate) use create::create_object;
pub(crate) use delete::{DeleteOptions, delete_object};
pub(crate) use manage::{Managing, manager_of};
pub use twins::Twins;

use crate::auth::{Attributes, Decision, UserInfo, authorize, forbidden};
use crate::cache::unreadable::checked;
use crate::cache::{Change, Object, ResourceCache, Selection, encode_before, store_key, with_revision};
use crate::http::fairness::Permit;
use crate::http::negotiate::Accept;
use crate::http::render;
use crate::http::request::Body;
use crate::options::Options;
use crate::registry::strategy::WriteContext;
use crate::registry::warnings::Warnings;
use crate::registry::{Resolved, Row, Subresource};
use crate::server::{ONE_FRESH_WITHIN, Reached, Server, store_status};
use crate::store::{Compare, Op, Outcome, Revision, Txn};
use bytes::Bytes;
use coracle_api::json::{Map, Value};
use coracle_api::{Gvk, Gvr, Status, json};
use futures::future::BoxFuture;
use http::StatusCode;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

pub type Response = http::Response<axum::body::Body>;

/// A request for a resource, parsed and authorized.
pub struct Call {
    pub server: Arc<Server>,
    pub resolved: Resolved,
    pub namespace: String,
    pub name: String,
    pub subresource: Option<Subresource>,
    pub user: Arc<UserInfo>,
    pub options: Options,
    pub accept: Accept,
    /// Whether the client takes gzip.
    pub gzip: bool,
    /// The field manager of a client that names none.
    pub agent: Arc<str>,
    /// The object is written because its scale is.
    pub of_scale: bool,
    /// What the client is told besides the answer.
    pub warnings: Arc<Mutex<Warnings>>,
    /// What a watch holds until it has begun.
    pub begins: Option<Box<Permit>>,
}

/// The verbs, as authorization and metrics name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
}

impl Verb {
    pub fn as_str(self) -> &'static str {
        match self {
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Watch => "watch",
            Verb::Create => "create",
            Verb::Update => "update",
            Verb::Patch => "patch",
            Verb::Delete => "delete",
            Verb::DeleteCollection => "deletecollection",
        }
    }

    pub fn writes(self) -> bool {
        !matches!(self, Verb::Get | Verb::List | Verb::Watch)
    }
}

/// Answers a call.
///
/// Each verb's future is made where it stays. The future of a request is moved several times before it runs, and would be as
/// large as that of the largest verb: moving it took a tenth of a GET.
pub fn dispatch(call: Call, verb: Verb, body: Body) -> BoxFuture<'static, Result<Response, Status>> {
    match (verb, call.subresource) {
        (verb, Some(subresource)) if !subresource.verbs().contains(&verb.as_str()) => {
            Box::pin(std::future::ready(Err(Status::method_not_allowed())))
        }
        _ if !call.row().is_stored() => Box::pin(crate::registry::reviews::answer(call, verb, body)),
        (Verb::Create, Some(Subresource::Token)) => Box::pin(token::create(call, body)),
        (Verb::Get, Some(Subresource::Log)) => Box::pin(crate::http::logs::log(call)),
        (Verb::Get, Some(Subresource::Scale)) => Box::pin(scale::get(call)),
        (Verb::Update, Some(Subresource::Scale)) => Box::pin(scale::update(call, body)),
        (Verb::Patch, Some(Subresource::Scale)) => Box::pin(scale::patch(call, body)),
        (Verb::Create, Some(Subresource::Binding)) => dispatch_binding(call, body),
        (Verb::Create, Some(Subresource::Eviction)) => Box::pin(evict::evict(call, body)),
        (Verb::Get, _) => Box::pin(get::get(call)),
        (Verb::List, _) => Box::pin(list::list(call)),
        (Verb::Watch, _) => Box::pin(watch::watch(call)),
        (Verb::Create, None) => Box::pin(create::create(call, body)),
        (Verb::Update, _) => Box::pin(update::update(call, body)),
        (Verb::Patch, _) => Box::pin(patch::patch(call, body)),
        (Verb::Delete, None) => Box::pin(delete::delete(call, body)),
        (Verb::DeleteCollection, None) => Box::pin(delete::delete_collection(call, body)),
        (Verb::Create | Verb::Delete | Verb::DeleteCollection, Some(_)) => {
            Box::pin(std::future::ready(Err(Status::method_not_allowed())))
        }
    }
}

/// `POST …/bindings` of core: a pod's binding under its older path.
pub fn dispatch_binding(call: Call, body: Body) -> BoxFuture<'static, Result<Response, Status>> {
    Box::pin(bind::bind(call, body))
}

/// An object as it was found: its document, and the revision that wrote it.
#[derive(Clone)]
pub struct Current {
    object: Arc<Object>,
    /// Without `metadata.managedFields`: they are half of an object, and few writes look into them.
    pub value: Value,
    /// `metadata.managedFields`, as JSON.
    pub managed_fields: Option<Bytes>,
    pub revision: Revision,
    pub created: Revision,
}

impl Current {
    fn of(object: &Arc<Object>) -> Self {
        let (revision, created) = (object.revision, object.created);
        let (value, managed_fields) = object.parse_unmanaged();
        Self { object: object.clone(), value, managed_fields, revision, created }
    }

    /// What takes its place when a component writes it whose writes are not kept account of.
    pub fn with<'r>(&'r self, value: &'r Value) -> Replacement<'r> {
        Replacement { value, managed_fields: self.managed_fields.as_ref(), behind: None }
    }

    /// As [`with`](Self::with); unless `whole`, nothing but the metadata is another, and nothing else is encoded again.
    pub fn with_parts<'r>(&'r self, value: &'r Value, whole: bool) -> Replacement<'r> {
        let managed_fields = self.managed_fields.as_ref().filter(|_| !whole);
        Replacement { behind: managed_fields.and_then(|known| self.object.behind_metadata(known)), ..self.with(value) }
    }

    /// The whole document.
    fn whole(&self) -> Value {
        self.object.parse()
    }

    /// Gives the document away, to be changed.
    fn take(&mut self) -> Value {
        std::mem::take(&mut self.value)
    }

    /// Reads again what was given away.
    fn restore(&mut self) {
        self.value = self.object.parse_unmanaged().0;
    }
}

/// What became of an object that was written.
pub struct Written {
    pub json: Bytes,
}

/// Whether two documents differ in nothing but the revision they carry.
fn is_same(a: &Value, b: &Value) -> bool {
    let (Some(a), Some(b)) = (a.as_object(), b.as_object()) else { return false };
    let same = |name: &str, value: &Value| match (name, value, b.get(name)) {
        ("metadata", Value::Object(a), Some(Value::Object(b))) => same_metadata(a, b),
        (_, value, other) => other.is_some_and(|other| json::same(other, value)),
    };
    a.len() == b.len() && a.iter().all(|(name, value)| same(name, value))
}

fn same_metadata(a: &Map, b: &Map) -> bool {
    let count = |map: &Map| map.len() - usize::from(map.contains_key("resourceVersion"));
    let same = |name: &str, value: &Value| b.get(name).is_some_and(|other| json::same(other, value));
    count(a) == count(b) && a.iter().all(|(name, value)| name == "resourceVersion" || same(name, value))
}

/// Whether two accounts of field managers differ in nothing but times.
fn same_managers(a: Option<&Bytes>, b: Option<&Bytes>) -> bool {
    let timeless = |account: Option<&Bytes>| -> Vec<Value> {
        let mut entries: Vec<Value> =
            account.and_then(|account| serde_json::from_slice(account).ok()).unwrap_or_default();
        entries.iter_mut().filter_map(Value::as_object_mut).for_each(|entry| drop(entry.remove("time")));
        entries
    };
    a == b || timeless(a) == timeless(b)
}

/// What is written in the place of an object.
pub struct Replacement<'r> {
    /// Without `metadata.managedFields`.
    pub value: &'r Value,
    /// `metadata.managedFields`, as JSON.
    pub managed_fields: Option<&'r Bytes>,
    /// What stands behind the metadata, as JSON, where that stays as it was.
    behind: Option<&'r [u8]>,
}

impl<'r> Replacement<'r> {
    fn encode(&self) -> Bytes {
        encode_before(self.value, self.managed_fields.map(|json| &**json), self.behind)
    }

    fn is(&self, current: &Current) -> bool {
        is_same(self.value, &current.value) && same_managers(self.managed_fields, current.managed_fields.as_ref())
    }
}

/// 500: an object's record is broken.
fn unreadable(key: &str, why: &str) -> Status {
    Status::internal(format!("the stored object {key:?} cannot be read: {why}"))
}

impl Call {
    pub fn row(&self) -> &Arc<Row> {
        &self.resolved.row
    }

    pub fn gvr(&self) -> Gvr {
        self.row().gvr(self.resolved.served)
    }

    pub fn gvk(&self) -> Gvk {
        self.row().gvk(self.resolved.served)
    }

    pub fn cache(&self) -> Result<Arc<ResourceCache>, Status> {
        self.server.cache(self.row())
    }

    /// What a list, a watch or a delete of a collection is about.
    fn selection(&self) -> Result<Selection, Status> {
        let (labels, fields) = (self.options.labels.clone(), &self.options.fields);
        Selection::new(self.row(), self.resolved.served, &self.namespace, labels, fields)
    }

    /// The cache's key of the object in the path.
    pub fn cache_key(&self) -> String {
        self.cache_key_of(&self.name)
    }

    /// That of an object beside it.
    fn cache_key_of(&self, name: &str) -> String {
        if self.row().namespaced { format!("{}/{name}", self.namespace) } else { name.to_owned() }
    }

    /// The store's key of an object of this resource.
    pub fn store_key(&self, name: &str) -> Arc<str> {
        store_key(self.row(), &self.namespace, name)
    }

    pub fn context(&self) -> WriteContext<'_> {
        WriteContext { user: &self.user, now: self.server.config.clock.now(), names: &*self.server.config.names }
    }

    /// The same call, but on the object that it is the scale of.
    fn of_spec(&self) -> Call {
        Call { subresource: None, of_scale: true, ..self.on(&self.namespace, &self.name) }
    }

    /// The same call, but on another object of the resource.
    fn on(&self, namespace: &str, name: &str) -> Call {
        Call {
            server: self.server.clone(),
            resolved: self.resolved.clone(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            subresource: None,
            user: self.user.clone(),
            options: self.options.clone(),
            accept: self.accept.clone(),
            gzip: false,
            agent: self.agent.clone(),
            of_scale: false,
            warnings: self.warnings.clone(),
            begins: None,
        }
    }

    /// Tells the client something, whatever becomes of the call; each thing once.
    pub fn warn(&self, warnings: impl IntoIterator<Item = String>) {
        let mut told = self.warnings.lock();
        warnings.into_iter().for_each(|warning| told.add(warning));
    }

    /// Refuses what upstream could not read (apiserver `transformDecodeError`), unless an older server let it in.
    fn check_fit(&self, object: &Value, old: Option<&Value>) -> Result<(), Status> {
        let strategy = &self.row().strategy;
        let Some(why) = strategy.misfit(object) else { return Ok(()) };
        if old.is_some_and(|old| strategy.misfit(old).is_some()) {
            return Ok(());
        }
        let Gvk { kind, version, .. } = self.gvk();
        Err(Status::bad_request(format!("{kind} in version \"{version}\" cannot be handled as a {kind}: {why}")))
    }

    pub fn not_found(&self) -> Status {
        Status::not_found(&self.gvr(), &self.name)
    }

    /// Why there is no object in the path: there is none, or its record cannot be read.
    pub fn absent(&self) -> Status {
        let record = self.cache().ok().and_then(|cache| cache.unreadable.get(&self.cache_key()));
        record.map_or_else(|| self.not_found(), |record| unreadable(&self.cache_key(), &record.why))
    }

    /// Refuses to tell of all objects below a prefix when the record of one cannot be read.
    fn check_readable(&self, prefix: &str) -> Result<(), Status> {
        match self.cache()?.unreadable.first(prefix) {
            None => Ok(()),
            Some((key, record)) => Err(unreadable(&key, &record.why)),
        }
    }

    /// Refuses who may do what was asked for, but not `verb`, which it comes to as well.
    pub fn check_right(&self, verb: &str) -> Result<(), Status> {
        let Gvr { group, version, resource } = &self.gvr();
        let (namespace, name) = (self.namespace.as_str(), self.name.as_str());
        let asked = Attributes { verb, group, version, resource, namespace, name, ..Attributes::default() };
        match authorize(&self.user, &asked) {
            Decision::Allow => Ok(()),
            Decision::Deny => Err(forbidden(&self.user, &asked)),
        }
    }

    /// The object in the path as every write acknowledged so far left it.
    pub async fn current(&self) -> Result<Current, Status> {
        self.newest().await.map(|object| Current::of(&object))
    }

    /// The same, as it is kept.
    pub(crate) async fn newest(&self) -> Result<Arc<Object>, Status> {
        if self.server.reach_newest(ONE_FRESH_WITHIN).await? == Reached::Behind {
            return self.stored().await;
        }
        let snapshot = self.cache()?.snapshot();
        snapshot.get(&self.cache_key()).cloned().ok_or_else(|| self.absent())
    }

    /// The object in the path from the store itself: what upstream's reads of one object, and its writes, always ask
    /// (apiserver `storage/cacher/delegator.go`, `storage/etcd3` GuaranteedUpdate).
    async fn stored(&self) -> Result<Arc<Object>, Status> {
        let record = self.server.store().get(&self.store_key(&self.name)).await.map_err(store_status)?;
        let Some(record) = record else { return Err(self.not_found()) };
        let key: Arc<str> = self.cache_key().into();
        let (created, modified) = (record.created, record.modified);
        let lacks = self.server.cacher.defaults().lack_now();
        let object = checked(&key, &record.value, created, modified, Change::Modified, &self.cache()?.row, lacks);
        object.map(Arc::new).map_err(|why| unreadable(&key, &why))
    }

    /// Answers with an object in its stored encoding.
    pub fn answer(&self, code: StatusCode, json: Bytes) -> Result<Response, Status> {
        render::object(self, code, json)
    }

    /// Writes over `current`, with further writes in the same transaction. None when somebody else wrote meanwhile.
    pub async fn replace(
        &self,
        current: &Current,
        new: &Replacement<'_>,
        extra: Vec<Op>,
    ) -> Result<Option<Written>, Status> {
        if extra.is_empty() && new.is(current) {
            // What changes nothing is not written, and keeps its revision (apiserver `storage/etcd3`).
            return Ok(Some(Written { json: current.object.json() }));
        }
        self.put(current, new, extra).await
    }

    /// As [`replace`](Call::replace), where something is known to change.
    async fn put(&self, current: &Current, new: &Replacement<'_>, extra: Vec<Op>) -> Result<Option<Written>, Status> {
        let key = self.store_key(&self.name);
        let stored = new.encode();
        if self.options.dry_run {
            return Ok(Some(Written { json: with_revision(&stored, current.revision) }));
        }
        let ttl = self.row().strategy.traits().ttl.map(Duration::from_secs);
        let mut ops = vec![Op::Put { key: key.clone(), value: stored.clone(), ttl }];
        ops.extend(extra);
        let txn = Txn { compare: vec![Compare::modified(key, current.revision)], ops };
        match self.server.store().txn(txn).await.map_err(store_status)? {
            Outcome::Committed(revision) => Ok(Some(Written { json: with_revision(&stored, revision) })),
            Outcome::Conflict(_) => Ok(None),
        }
    }

    /// As [`replace`](Call::replace), when these hold too.
    pub async fn replace_if(
        &self,
        current: &Current,
        new: &Replacement<'_>,
        compare: Vec<Compare>,
        extra: Vec<Op>,
    ) -> Result<Option<Written>, Status> {
        let key = self.store_key(&self.name);
        let stored = new.encode();
        if self.options.dry_run {
            return Ok(Some(Written { json: with_revision(&stored, current.revision) }));
        }
        let mut txn = Txn {
            compare: vec![Compare::modified(key.clone(), current.revision)],
            ops: vec![Op::put(key, stored.clone())],
        };
        txn.compare.extend(compare);
        txn.ops.extend(extra);
        match self.server.store().txn(txn).await.map_err(store_status)? {
            Outcome::Committed(revision) => Ok(Some(Written { json: with_revision(&stored, revision) })),
            Outcome::Conflict(_) => Ok(None),
        }
    }

    /// Removes the object, with further writes in the same transaction, and gives the revision it went at. None when somebody
    /// else wrote meanwhile.
    pub async fn remove(&self, current: &Current) -> Result<Option<Revision>, Status> {
        self.remove_if(current, None, Vec::new(), Vec::new()).await
    }

    /// As [`remove`](Call::remove), when these hold too. What was `last` is written before it goes, so that whoever watches
    /// is shown it.
    pub async fn remove_if(
        &self,
        current: &Current,
        last: Option<Bytes>,
        compare: Vec<Compare>,
        extra: Vec<Op>,
    ) -> Result<Option<Revision>, Status> {
        if self.options.dry_run {
            return Ok(Some(current.revision));
        }
        let key = self.store_key(&self.name);
        let mut removal = vec![Op::delete(key.clone())];
        removal.extend(extra);
        let mut txn = Txn { compare: vec![Compare::modified(key.clone(), current.revision)], ops: Vec::new() };
        txn.compare.extend(compare);
        let store = self.server.store();
        let outcome = match last {
            None => {
                txn.ops = removal;
                store.txn(txn).await
            }
            Some(last) => {
                txn.ops.push(Op::put(key, last));
                store.txn_then(txn, removal).await
            }
        };
        Ok(match outcome.map_err(store_status)? {
            Outcome::Committed(revision) => Some(revision),
            Outcome::Conflict(_) => None,
        })
    }
}
