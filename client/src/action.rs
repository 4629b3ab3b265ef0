//! What a plan asks for: requests as data, so that a test compares them and one executor sends them.

use std::{borrow::Cow, fmt, time::Duration};

use coracle_api::json::{Value, json};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Resource, core::ApiResource};
use serde::Serialize;

use crate::{Key, recorder::EventType};

/// A resource by all the names that a request or an error needs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ResourceId {
    pub group: Cow<'static, str>,
    pub version: Cow<'static, str>,
    pub kind: Cow<'static, str>,
    pub plural: Cow<'static, str>,
}

impl ResourceId {
    /// The resource of a typed object.
    pub fn of<K: Resource>() -> Self
    where
        K::DynamicType: Default,
    {
        let kind = K::DynamicType::default();
        Self {
            group: K::group(&kind).into_owned().into(),
            version: K::version(&kind).into_owned().into(),
            kind: K::kind(&kind).into_owned().into(),
            plural: K::plural(&kind).into_owned().into(),
        }
    }

    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_string() } else { format!("{}/{}", self.group, self.version) }
    }

    /// The path of the collection, in a namespace unless that is empty.
    pub fn path(&self, namespace: &str) -> String {
        let mut path = if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        };
        if !namespace.is_empty() {
            path.push_str("/namespaces/");
            path.push_str(namespace);
        }
        path.push('/');
        path.push_str(&self.plural);
        path
    }
}

impl From<&ApiResource> for ResourceId {
    fn from(resource: &ApiResource) -> Self {
        Self {
            group: resource.group.clone().into(),
            version: resource.version.clone().into(),
            kind: resource.kind.clone().into(),
            plural: resource.plural.clone().into(),
        }
    }
}

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.group.is_empty() { f.write_str(&self.plural) } else { write!(f, "{}.{}", self.plural, self.group) }
    }
}

/// What happens to the dependents of a deleted object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    Background,
    Foreground,
    Orphan,
}

impl Propagation {
    /// The word of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Background => "Background",
            Self::Foreground => "Foreground",
            Self::Orphan => "Orphan",
        }
    }
}

/// The kind of a patch's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    Json,
    Merge,
    Strategic,
}

impl PatchKind {
    /// The content type that the API expects.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json-patch+json",
            Self::Merge => "application/merge-patch+json",
            Self::Strategic => "application/strategic-merge-patch+json",
        }
    }
}

/// The verb of an action with what it needs beside the object's name.
#[derive(Clone, Debug, PartialEq)]
pub enum Verb {
    Create(Value),
    /// A whole object with its uid and resourceVersion: the server refuses it when either has changed.
    Update {
        body: Value,
        subresource: Option<&'static str>,
    },
    /// Preconditions are part of the body: `metadata.uid` and `metadata.resourceVersion`.
    Patch {
        kind: PatchKind,
        body: Value,
        subresource: Option<&'static str>,
    },
    Delete {
        uid: Option<String>,
        version: Option<String>,
        propagation: Option<Propagation>,
        grace: Option<i64>,
    },
    DeleteCollection,
    /// A POST to a subresource: a binding, an eviction.
    CreateSubresource {
        subresource: &'static str,
        body: Value,
    },
    /// Reads the object from the server (or, without a name, one of its resource), for those who must know more than
    /// their snapshot. The reconciler's `observe` gets the answer.
    Probe,
    /// Reads all objects of the resource in a namespace from the server, for the same.
    List,
}

/// The event that is recorded about an action's outcome.
#[derive(Clone, Debug, PartialEq)]
pub struct Announcement {
    /// Whose event it is.
    pub about: ObjectReference,
    /// Reason and message on success. `{name}` stands for the name that the server gave.
    pub success: Option<(&'static str, String)>,
    /// Reason and message on failure. `{error}` stands for the server's message.
    pub failure: Option<(&'static str, String)>,
}

/// One request that a plan asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Action {
    pub resource: ResourceId,
    pub namespace: String,
    /// Empty where the server generates the name.
    pub name: String,
    pub verb: Verb,
    /// Counts `AlreadyExists` and `NotFound` (for updates and patches) as success: the wish is fulfilled or void.
    pub lenient: bool,
    pub announce: Option<Box<Announcement>>,
}

impl Action {
    fn on<K: Resource>(object: &K, verb: Verb) -> Self
    where
        K::DynamicType: Default,
    {
        let meta = object.meta();
        Self {
            resource: ResourceId::of::<K>(),
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            verb,
            lenient: false,
            announce: None,
        }
    }

    /// An action on an object that is known by its resource and key only.
    pub fn at(resource: ResourceId, key: &Key, verb: Verb) -> Self {
        let (namespace, name) = (key.namespace().to_owned(), key.name().to_owned());
        Self { resource, namespace, name, verb, lenient: false, announce: None }
    }

    /// Creates the object.
    pub fn create<K: Resource + Serialize>(object: &K) -> Self
    where
        K::DynamicType: Default,
    {
        Self::on(object, Verb::Create(body(object)))
    }

    /// Replaces the object; it carries the resourceVersion that it was read at.
    pub fn update<K: Resource + Serialize>(object: &K) -> Self
    where
        K::DynamicType: Default,
    {
        Self::on(object, Verb::Update { body: body(object), subresource: None })
    }

    /// Replaces the object's status; it carries the resourceVersion that it was read at.
    pub fn update_status<K: Resource + Serialize>(object: &K) -> Self
    where
        K::DynamicType: Default,
    {
        Self::on(object, Verb::Update { body: body(object), subresource: Some("status") })
    }

    /// Patches the object, under the condition that it is still the same one (its uid is put into the patch).
    pub fn patch<K: Resource>(object: &K, kind: PatchKind, mut patch: Value) -> Self
    where
        K::DynamicType: Default,
    {
        add_uid(&mut patch, kind, object.meta().uid.as_deref());
        Self::on(object, Verb::Patch { kind, body: patch, subresource: None })
    }

    /// Patches the object's status, under the same condition.
    pub fn patch_status<K: Resource>(object: &K, kind: PatchKind, mut patch: Value) -> Self
    where
        K::DynamicType: Default,
    {
        add_uid(&mut patch, kind, object.meta().uid.as_deref());
        Self::on(object, Verb::Patch { kind, body: patch, subresource: Some("status") })
    }

    /// Deletes the object if it is still this one, its dependents in the background.
    pub fn delete<K: Resource>(object: &K) -> Self
    where
        K::DynamicType: Default,
    {
        let uid = object.meta().uid.clone();
        Self::on(object, Verb::Delete { uid, version: None, propagation: Some(Propagation::Background), grace: None })
    }

    /// Treats `AlreadyExists` of a create, and `NotFound` of an update or patch, as success.
    pub fn lenient(mut self) -> Self {
        self.lenient = true;
        self
    }

    /// Records an event about `about` when the action succeeds.
    pub fn on_success(mut self, about: ObjectReference, reason: &'static str, message: impl Into<String>) -> Self {
        self.announcement(about).success = Some((reason, message.into()));
        self
    }

    /// Records a warning about `about` when the action fails.
    pub fn on_failure(mut self, about: ObjectReference, reason: &'static str, message: impl Into<String>) -> Self {
        self.announcement(about).failure = Some((reason, message.into()));
        self
    }

    fn announcement(&mut self, about: ObjectReference) -> &mut Announcement {
        self.announce.get_or_insert_with(|| Box::new(Announcement { about, success: None, failure: None }))
    }

    /// The key of the object acted on.
    pub fn key(&self) -> Key {
        Key::new(&self.namespace, &self.name)
    }

    /// One line for a log or a golden file: `delete pods default/web-1`.
    pub fn describe(&self) -> String {
        let (verb, subresource) = match &self.verb {
            Verb::Create(_) => ("create", None),
            Verb::Update { subresource, .. } => ("update", *subresource),
            Verb::Patch { subresource, .. } => ("patch", *subresource),
            Verb::Delete { .. } => ("delete", None),
            Verb::DeleteCollection => ("deletecollection", None),
            Verb::CreateSubresource { subresource, .. } => ("create", Some(*subresource)),
            Verb::Probe => ("get", None),
            Verb::List => ("list", None),
        };
        let slash = if subresource.is_some() { "/" } else { "" };
        format!("{verb} {}{slash}{} {}", self.resource, subresource.unwrap_or(""), self.key())
    }
}

/// The object as JSON. A k8s-openapi type always serialises: its maps have string keys.
fn body<K: Serialize>(object: &K) -> Value {
    coracle_api::json::to_value(&object).unwrap_or(Value::Null)
}

fn add_uid(patch: &mut Value, kind: PatchKind, uid: Option<&str>) {
    let Some(uid) = uid else { return };
    match (kind, patch) {
        (PatchKind::Json, Value::Array(operations)) => {
            operations.insert(0, json!({"op": "test", "path": "/metadata/uid", "value": uid}));
        }
        (_, Value::Object(map)) => {
            if let Some(meta) = map.entry("metadata").or_insert_with(|| json!({})).as_object_mut() {
                meta.insert("uid".to_owned(), uid.into());
            }
        }
        _ => {}
    }
}

/// Actions that are done together. Steps are done one after the other; a failed step ends the plan.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "plans are short-lived and mostly of single actions")]
pub enum Step {
    One(Action),
    /// All at once, up to a bound.
    Parallel(Vec<Action>),
    /// One, then two, then four …; a batch with a failure is the last (upstream's `slowStartBatch`), so that
    /// a quota that is reached costs one refused request and not a thousand.
    SlowStart(Vec<Action>),
}

impl Step {
    /// The actions in order.
    pub fn actions(&self) -> &[Action] {
        match self {
            Self::One(action) => std::slice::from_ref(action),
            Self::Parallel(actions) | Self::SlowStart(actions) => actions,
        }
    }
}

/// An event that is not tied to an action.
#[derive(Clone, Debug, PartialEq)]
pub struct Note {
    pub about: ObjectReference,
    pub kind: EventType,
    pub reason: &'static str,
    pub message: String,
}

/// What has to be done for one key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// In order.
    pub actions: Vec<Step>,
    /// Written last, whether or not the actions succeeded.
    pub status: Option<Action>,
    /// Recorded once the actions succeeded.
    pub notes: Vec<Note>,
    /// Look at the key again after this time, whatever happens.
    pub requeue_after: Option<Duration>,
}

impl Plan {
    /// Nothing to do until something changes.
    pub fn nothing() -> Self {
        Self::default()
    }

    /// A plan of one action.
    pub fn one(action: Action) -> Self {
        Self { actions: vec![Step::One(action)], ..Self::default() }
    }

    /// Adds an action as a step of its own.
    pub fn push(&mut self, action: Action) {
        self.actions.push(Step::One(action));
    }

    /// Adds an event to be recorded.
    pub fn note(&mut self, about: ObjectReference, kind: EventType, reason: &'static str, message: impl Into<String>) {
        self.notes.push(Note { about, kind, reason, message: message.into() });
    }

    /// Asks for another look no later than `after`.
    pub fn requeue(&mut self, after: Duration) {
        self.requeue_after = Some(self.requeue_after.map_or(after, |have| have.min(after)));
    }

    /// One line per action, as golden tests compare them.
    pub fn describe(&self) -> Vec<String> {
        self.actions.iter().flat_map(Step::actions).chain(&self.status).map(Action::describe).collect()
    }
}
