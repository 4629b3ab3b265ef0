//! `metadata.managedFields`: keeping account of who wrote what (apimachinery `util/managedfields`).

use super::{Call, Current};
use crate::registry::strategy::ThroughStatus;
use crate::registry::{Row, Subresource, fields as field};
use bytes::Bytes;
use coracle_api::Status;
use coracle_api::fields::{self, Account, Filter, Managers, Set, Version, Writer, encode_created, with_paths};
use coracle_api::json::{self, Value};
use coracle_api::schema::TypeRef;
use coracle_api::{Gvk, schema};
use http::{HeaderMap, header};
use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

/// The longest name of a field manager (apimachinery `validation.FieldManagerMaxLength`).
const LONGEST: usize = 128;

/// How a write's `managedFields` come about.
#[derive(Clone, Debug)]
pub(crate) enum Managing {
    /// They follow from what the write changes.
    Tracked,
    /// The same of an object of which more was set than is seen of it: lists and maps that were given empty, and are null.
    With(Vec<Vec<String>>),
    /// An apply has found them already, as JSON.
    Applied(Option<Bytes>),
}

/// The field manager that a client is when it names none: the first word of its User-Agent, or, for a component that sends
/// none, its name.
pub fn manager_of(headers: &HeaderMap, user: &str) -> String {
    let agent = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut name: String = agent.split('/').next().unwrap_or_default().chars().filter(|c| !c.is_control()).collect();
    while name.len() > LONGEST {
        name.pop();
    }
    if !name.is_empty() {
        return name;
    }
    match user.strip_prefix("system:") {
        Some(node) if node.starts_with("node:") => "kubelet".to_owned(),
        Some(component) if !component.is_empty() && !component.contains(':') => component.to_owned(),
        _ => "unknown".to_owned(),
    }
}

/// What only an update of the status sets.
static STATUS: LazyLock<Set<'static>> = LazyLock::new(|| Set::of(&[&["status"]]));

/// What an update of the status cannot set, by what of the metadata it can.
static NOT_STATUS: LazyLock<[(ThroughStatus, Set<'static>); 4]> = LazyLock::new(|| {
    use ThroughStatus::{All, NotLabels, NotOwners, Nothing};
    [All, NotOwners, NotLabels, Nothing].map(|through| {
        let kept = through.kept().iter().map(|name| Set::of(&[&["metadata", name]]));
        let metadata =
            if through == Nothing { Set::of(&[&["metadata"]]) } else { kept.fold(Set::default(), Set::union) };
        // Whatever else custom resources have at their root, their status is applied with it.
        (through, metadata.union(Set::of(&[&["spec"]])))
    })
});

/// What alone a write through a path sets that takes little else (registry/core/pod `GetResetFieldsFilter`).
fn parts(subresource: Subresource) -> Option<&'static [&'static [&'static str]]> {
    match subresource {
        Subresource::EphemeralContainers => Some(&[&["spec", "ephemeralContainers"]]),
        Subresource::Resize => Some(&[
            &["spec", "containers", "*", "resources"],
            &["spec", "containers", "*", "resizePolicy"],
            &["spec", "initContainers", "*", "resources"],
            &["spec", "initContainers", "*", "resizePolicy"],
        ]),
        _ => None,
    }
}

/// What a write through this path can own: but for what it cannot set (upstream's `GetResetFields`).
pub(super) fn filter(call: &Call) -> Filter<'static> {
    let strategy = &call.row().strategy;
    let not_status = |through| NOT_STATUS.iter().find(|(known, _)| *known == through).map(|(_, fields)| fields);
    if let Some(parts) = call.subresource.and_then(parts) {
        return Filter::Only(parts);
    }
    let ignored: Option<&'static Set<'static>> = match (strategy.reset_fields(call.subresource), call.subresource) {
        (Some(own), _) => Some(own),
        (None, Some(Subresource::Status)) => not_status(strategy.traits().through_status),
        (None, Some(Subresource::Finalize)) => Some(&STATUS),
        (None, None) if call.row().has(Subresource::Status) => Some(&STATUS),
        _ => None,
    };
    ignored.map_or(Filter::All, Filter::AllBut)
}

impl Call {
    /// The name under which this call's fields are owned.
    pub fn manager(&self) -> &str {
        match self.options.field_manager.as_deref() {
            Some(name) if !name.is_empty() => name,
            _ => &self.agent,
        }
    }

    fn writer<'c>(&'c self, api_version: &'c str, now: &'c str) -> Writer<'c> {
        let subresource = if self.of_scale { Some(Subresource::Scale) } else { self.subresource };
        let subresource = subresource.map_or("", Subresource::path);
        Writer { manager: self.manager(), api_version, subresource, now }
    }

    /// Runs with who writes, in which version, and when.
    pub(super) fn as_writer<T>(&self, run: impl FnOnce(&Writer<'_>) -> T) -> T {
        let api_version = self.gvk().api_version();
        let now = coracle_api::clock::rfc3339(self.server.config.clock.now());
        run(&self.writer(&api_version, &now))
    }

    /// Which of the versions it is served in this one is.
    pub(super) fn served_as(&self, api_version: &str) -> Option<usize> {
        let row = self.row();
        (0..row.served.len()).find(|served| row.gvk(*served).api_version() == api_version)
    }

    /// The rows of these versions that are not the call's own: each version of a custom resource has one.
    pub(super) fn siblings<'v>(&self, versions: impl Iterator<Item = &'v str>) -> Vec<Arc<Row>> {
        let row = self.row();
        if row.strategy.custom().is_none() {
            return Vec::new();
        }
        let mut found: Vec<Arc<Row>> = Vec::new();
        for (group, version) in versions.filter_map(|version| version.split_once('/')) {
            let (own_group, own_version) = &row.served[0];
            let is_known = |row: &Arc<Row>| row.served[0].1 == version;
            if group == own_group && version != own_version && !found.iter().any(is_known) {
                found.extend(self.server.registry.find(group, version, &row.plural).map(|resolved| resolved.row));
            }
        }
        found
    }

    /// A stored object as it is in one of the versions it is served in, with its schema there.
    pub(super) fn in_version<'r>(
        &'r self,
        siblings: &'r [Arc<Row>],
        stored: &Value,
        api_version: &str,
    ) -> Option<(TypeRef<'r>, Value)> {
        let is = |row: &&Arc<Row>| row.gvk(0).api_version() == api_version;
        let (row, served) = match (self.served_as(api_version), siblings.iter().find(is)) {
            (Some(served), _) => (self.row(), served),
            (None, sibling) => (sibling?, 0),
        };
        let mut object = stored.clone();
        row.to_served(&mut object, served);
        Some((row.type_ref(served).ok()?, object))
    }
}

/// The `managedFields` of a new object, which is in the stored version, as JSON; None when nobody owns anything. `empty` is
/// owned beside what the object shows: Go tells lists that are empty from those that are none, before they are stored.
pub(super) fn created(call: &Call, object: &Value, empty: &[Vec<String>]) -> Result<Option<Bytes>, Status> {
    let ty = call.row().type_ref(call.resolved.served)?;
    let none = Set::default();
    // Parts that are written apart are not made apart.
    let ignored = match filter(call) {
        Filter::AllBut(ignored) => ignored,
        Filter::All | Filter::Only(_) => &none,
    };
    let shown = if call.resolved.served == 0 {
        Cow::Borrowed(object)
    } else {
        let mut shown = object.clone();
        call.row().to_served(&mut shown, call.resolved.served);
        Cow::Owned(shown)
    };
    let account = call.as_writer(|writer| {
        let account = encode_created(&shown, ty, writer, ignored);
        if empty.is_empty() {
            return account;
        }
        let paths: Vec<Vec<&str>> = empty.iter().map(|path| path.iter().map(String::as_str).collect()).collect();
        let paths: Vec<&[&str]> = paths.iter().map(Vec::as_slice).collect();
        with_paths(account, Set::of(&paths).without(ignored), writer)
    });
    Ok(account.map(Bytes::from))
}

/// The same of what is answered and not kept, which has a kind of its own.
pub(super) fn answered(call: &Call, object: &Value, kind: &Gvk) -> Option<Value> {
    let (api_version, now) = (kind.api_version(), coracle_api::clock::rfc3339(call.server.config.clock.now()));
    let account = encode_created(object, schema::of(kind)?, &call.writer(&api_version, &now), &Set::default())?;
    serde_json::from_slice(&account).ok()
}

/// The `managedFields` of an object that takes the place of `current`, as JSON; both are in the stored version. `given` is what
/// the client sent as such: it may say itself who owns what, but not through a subresource. `empty` is as for [`created`].
pub(super) fn updated(
    call: &Call,
    object: &Value,
    current: &Current,
    given: Option<Value>,
    empty: &[Vec<String>],
) -> Option<Bytes> {
    let given = given.filter(|_| call.subresource.is_none() && !call.of_scale);
    let known = current.managed_fields.as_ref();
    if given.as_ref().is_some_and(is_reset) {
        return None;
    }
    let given = given.filter(is_valid).map(|given| encode(&given)).filter(|given| !is_same(given, known));
    if given.is_none() {
        match followed(call, object, current, empty) {
            Some(Account::Same) => return known.cloned(),
            Some(Account::Other(account)) => return account.map(Bytes::from),
            None => {}
        }
    }
    let read = |account| Managers::decode(account).ok().filter(|managers| !managers.is_empty());
    let owners = given.as_deref().and_then(read);
    let replaced = owners.is_some();
    // Where nobody kept account so far, or what was kept cannot be read, that begins with the first apply (fieldmanager
    // `skipnonapplied.go`).
    let mut owners = owners.or_else(|| read(known?))?;
    let (api_version, now) = (call.gvk().api_version(), coracle_api::clock::rfc3339(call.server.config.clock.now()));
    let others: Vec<String> = owners.versions().map(str::to_owned).collect();
    let siblings = call.siblings(others.iter().map(String::as_str));
    let versions = versions(call, &siblings, &current.value, object, &api_version, &others);
    let (writer, filter) = (call.writer(&api_version, &now), filter(call));
    let changed =
        owners.update(&versions, &writer, &filter) | owners.give(emptied(empty, &current.value, &filter), &writer);
    if changed || replaced { owners.encode().map(Bytes::from) } else { known.cloned() }
}

/// What becomes of the account that is kept, if that is found without reading all of it: mostly all owners speak of the stored
/// version, and a write touches little.
fn followed(call: &Call, object: &Value, current: &Current, empty: &[Vec<String>]) -> Option<Account> {
    let (known, row) = (current.managed_fields.as_ref()?, call.row());
    let api_version = call.gvk().api_version();
    if row.stored_api_version() != api_version {
        return None;
    }
    let (ty, old, new) = (row.type_ref(0).ok()?, Cow::Borrowed(&current.value), Cow::Borrowed(object));
    let version = Version { api_version: api_version.as_str().into(), ty, old, new };
    let filter = filter(call);
    let given = emptied(empty, &current.value, &filter);
    call.as_writer(|writer| fields::updated(known, &version, writer, &filter, given))
}

/// What is empty by a write and was null before: to structured-merge-diff (`typed/compare.go`, doList) that is another value.
fn emptied<'e>(empty: &'e [Vec<String>], old: &Value, filter: &Filter<'_>) -> Set<'e> {
    let ignored = match filter {
        Filter::AllBut(ignored) => Some(*ignored),
        Filter::All => None,
        Filter::Only(_) => return Set::default(),
    };
    let was_null = |path: &&Vec<String>| {
        path.iter().try_fold(old, |value, name| value.get(name.as_str())).is_none_or(Value::is_null)
    };
    let paths: Vec<Vec<&str>> =
        empty.iter().filter(was_null).map(|path| path.iter().map(String::as_str).collect()).collect();
    let paths = Set::of(&paths.iter().map(Vec::as_slice).collect::<Vec<_>>());
    match ignored {
        Some(ignored) => paths.without(ignored),
        None => paths,
    }
}

fn encode(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    json::put(&mut out, value);
    out
}

/// Whether a client gave back the account that it was shown: mostly byte for byte.
fn is_same(given: &[u8], known: Option<&Bytes>) -> bool {
    let read = |account| json::read(account).unwrap_or_default();
    known.is_some_and(|known| given == known || json::same(&read(given), &read(known)))
}

/// Both objects in the writer's version and in those that owners speak of.
fn versions<'v>(
    call: &'v Call,
    siblings: &'v [Arc<Row>],
    old: &'v Value,
    new: &'v Value,
    own: &str,
    others: &[String],
) -> Vec<Version<'v>> {
    let mut versions: Vec<Version<'v>> = Vec::with_capacity(1);
    let row = call.row();
    for api_version in std::iter::once(own).chain(others.iter().map(String::as_str)) {
        if versions.iter().any(|known| known.api_version == api_version) {
            continue;
        }
        let both = if row.stored_api_version() == api_version {
            row.type_ref(0).ok().map(|ty| (ty, Cow::Borrowed(old), Cow::Borrowed(new)))
        } else {
            let within = |object| call.in_version(siblings, object, api_version);
            let (old, new) = (within(old), within(new));
            old.zip(new).map(|((ty, old), (_, new))| (ty, Cow::Owned(old), Cow::Owned(new)))
        };
        if let Some((ty, old, new)) = both {
            versions.push(Version { api_version: api_version.to_owned().into(), ty, old, new });
        }
    }
    versions
}

/// No entry, or an empty one: a client's way to forget all owners (fieldmanager `isResetManagedFields`).
fn is_reset(given: &Value) -> bool {
    match given.as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([Value::Object(entry)]) => entry.is_empty(),
        _ => false,
    }
}

/// What a client says about owners is taken only when it could be the server's own account.
fn is_valid(given: &Value) -> bool {
    given.as_array().is_some_and(|entries| {
        entries.iter().all(|entry| {
            let text = |name: &str| field::text(entry, name);
            text("manager").len() <= LONGEST && text("subresource").len() <= 2 * LONGEST
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn managers_from_agents() {
        let of = |agent: &str, user: &str| {
            let mut headers = HeaderMap::new();
            if !agent.is_empty() {
                headers.insert(header::USER_AGENT, agent.parse().unwrap());
            }
            manager_of(&headers, user)
        };
        assert_eq!(of("kubectl/v1.32.0 (linux/amd64) kubernetes/abc", "admin"), "kubectl");
        assert_eq!(of("curl", "admin"), "curl");
        assert_eq!(of(&"x".repeat(200), "admin").len(), LONGEST);
        assert_eq!(of("", "system:node:n1"), "kubelet");
        assert_eq!(of("", "system:kube-scheduler"), "kube-scheduler");
        assert_eq!((of("", "system:serviceaccount:a:b"), of("", "admin")), ("unknown".into(), "unknown".into()));
    }
}
