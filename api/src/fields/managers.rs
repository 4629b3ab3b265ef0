//! `metadata.managedFields`: who owns what, and how a write changes that.

use std::borrow::Cow;
use std::sync::LazyLock;

use crate::json::{Value, json};
use jiff::Timestamp;

use super::compare::{Comparison, compare};
use super::entry::{Entry, Operation, Writer};
use super::filter::Filter;
use super::merge::{merge, remove};
use super::paths::paths;
use super::read;
use super::reconcile::reconciled;
use super::set::Set;
use crate::json::same;
use crate::schema::TypeRef;

/// What most accounts fit in without growing.
pub(super) const ROOM: usize = 2048;
/// The only way in which sets of fields are written.
pub(super) const FIELDS_V1: &str = "FieldsV1";
/// Most entries of updates; the oldest of more are merged into one (fieldmanager `DefaultMaxUpdateManagers`).
const MAX_UPDATERS: usize = 10;
/// The name of the entry that they are merged into.
const ANCIENT: &str = "ancient-changes";

/// What nobody owns: the server writes it, or it names the object (managedfields `stripmeta.go`).
static STRIPPED: LazyLock<Value> = LazyLock::new(|| {
    json!({"f:apiVersion": {}, "f:kind": {}, "f:metadata": {".": {}, "f:clusterName": {}, "f:creationTimestamp": {}, "f:generation": {},
        "f:managedFields": {}, "f:name": {}, "f:namespace": {}, "f:resourceVersion": {}, "f:selfLink": {}, "f:uid": {}}})
});
pub(super) static STRIPPED_SET: LazyLock<Set<'static>> = LazyLock::new(|| Set::decode(&STRIPPED).unwrap_or_default());

/// An object before and after a write, in one version.
#[derive(Clone, Debug)]
pub struct Version<'a> {
    /// `apps/v1`
    pub api_version: Cow<'a, str>,
    /// The kind's schema in this version.
    pub ty: TypeRef<'a>,
    /// Before.
    pub old: Cow<'a, Value>,
    /// After.
    pub new: Cow<'a, Value>,
}

/// A field that an applier sets, and somebody else owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// `"kubectl-client-side-apply" using apps/v1`
    pub owner: String,
    /// `.spec.replicas`
    pub path: String,
}

/// What came of an apply.
#[derive(Clone, Debug)]
pub struct Applied {
    /// The object as it is to be.
    pub object: Value,
    /// Its `managedFields`, as JSON; None when nobody owns anything.
    pub managed_fields: Option<Vec<u8>>,
}

/// Why an apply fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApplyError {
    /// Others own what is applied.
    Conflicts(Vec<Conflict>),
}

/// The owners of an object's fields.
#[derive(Clone, Debug, Default)]
pub struct Managers<'a> {
    entries: Vec<Entry<'a>>,
}

impl<'a> Managers<'a> {
    /// Owners whose account is read, if they are few enough for another to come without any being merged.
    pub(super) fn of(entries: Vec<Entry<'a>>) -> Option<Self> {
        let updaters = entries.iter().filter(|entry| entry.operation == Operation::Update).count();
        (updaters < MAX_UPDATERS).then_some(Self { entries })
    }

    /// Reads `metadata.managedFields`, which are JSON.
    ///
    /// # Errors
    /// Why they cannot be read (managedfields `DecodeManagedFields`).
    pub fn decode(managed_fields: &'a [u8]) -> Result<Self, String> {
        let general = || serde_json::from_slice(managed_fields);
        let entries: Vec<Entry<'a>> = match read::entries(managed_fields) {
            Some(entries) => entries,
            None => general().map_err(|error: serde_json::Error| unreadable(managed_fields, &error.to_string()))?,
        };
        let is_whole = |entry: &Entry<'_>| !entry.api_version.is_empty() && entry.fields_type == FIELDS_V1;
        if entries.iter().all(is_whole) { Ok(Self { entries }) } else { Err(unreadable(managed_fields, "")) }
    }

    /// Whether nobody owns anything.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The versions that owners speak of.
    pub fn versions(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| entry.api_version.as_ref())
    }

    /// As `metadata.managedFields`, in upstream's order; None when nobody owns anything.
    pub fn encode(mut self) -> Option<Vec<u8>> {
        self.entries.retain(|entry| !entry.held.is_empty());
        self.entries.sort_by(|a, b| {
            let key = |entry: &Entry<'_>| (entry.operation, seconds(&entry.time));
            key(a).cmp(&key(b)).then_with(|| {
                (&a.manager, &a.api_version, &a.subresource).cmp(&(&b.manager, &b.api_version, &b.subresource))
            })
        });
        let mut out = Vec::with_capacity(ROOM);
        for (nth, entry) in self.entries.iter().enumerate() {
            out.push(if nth == 0 { b'[' } else { b',' });
            entry.put(&mut out);
        }
        out.push(b']');
        (!self.entries.is_empty()).then_some(out)
    }

    /// A write that is no apply: what it changed is the writer's now, what it removed is nobody's. The first version is the
    /// writer's own. False when nothing changed that is owned.
    pub fn update(&mut self, versions: &'a [Version<'a>], writer: &Writer<'a>, filter: &Filter<'_>) -> bool {
        self.follow(versions, &comparisons(versions, filter), writer)
    }

    /// The same, by what was found of each version.
    pub(super) fn follow(
        &mut self,
        versions: &'a [Version<'a>],
        comparisons: &[Comparison<'a>],
        writer: &Writer<'a>,
    ) -> bool {
        let Some(own) = comparisons.first().filter(|_| comparisons.iter().any(|each| !each.is_empty())) else {
            return false;
        };
        let changed = own.changed.clone();
        for entry in &mut self.entries {
            if let Some(version) = versions.iter().find(|version| version.api_version == entry.api_version)
                && let Some(set) = reconciled(entry.held.set(), &version.old, version.ty)
            {
                entry.held.replace(set);
            }
            entry.give_up(versions, comparisons);
        }
        self.entries
            .retain(|entry| !entry.held.is_empty() && versions.iter().any(|v| v.api_version == entry.api_version));
        if !changed.is_empty() {
            match self.entries.iter_mut().find(|entry| entry.is(Operation::Update, writer)) {
                Some(entry) => {
                    entry.held.add(changed);
                    entry.time = writer.now.into();
                }
                None => self.entries.push(new_entry(Operation::Update, writer, changed)),
            }
        }
        self.cap();
        true
    }

    /// Gives these paths to a writer that is no applier, and takes them from all others. False when it had them already.
    pub fn give(&mut self, paths: Set<'a>, writer: &Writer<'a>) -> bool {
        let own = self.entries.iter().position(|entry| entry.is(Operation::Update, writer));
        let new = own.map_or_else(|| paths.clone(), |own| paths.difference(self.entries[own].held.set()));
        if new.is_empty() {
            return false;
        }
        for (_, entry) in self.entries.iter_mut().enumerate().filter(|(nth, _)| Some(*nth) != own) {
            entry.held.subtract(&new);
        }
        match own {
            Some(own) => {
                let entry = &mut self.entries[own];
                entry.held.add(new);
                entry.time = writer.now.into();
            }
            None => self.entries.push(new_entry(Operation::Update, writer, new)),
        }
        self.entries.retain(|entry| !entry.held.is_empty());
        self.cap();
        true
    }

    /// Merges the oldest updates when there are too many.
    fn cap(&mut self) {
        let mut updaters: Vec<usize> =
            (0..self.entries.len()).filter(|at| self.entries[*at].operation == Operation::Update).collect();
        if updaters.len() <= MAX_UPDATERS {
            return;
        }
        updaters.sort_by_key(|at| seconds(&self.entries[*at].time));
        let mut excess = updaters.len() - MAX_UPDATERS;
        let mut first_of: Vec<(String, usize)> = Vec::new();
        for at in updaters {
            if excess == 0 {
                break;
            }
            let version = self.entries[at].api_version.to_string();
            match first_of.iter().find(|(known, _)| *known == version).map(|(_, first)| *first) {
                None => first_of.push((version, at)),
                Some(first) => {
                    let set = std::mem::take(&mut self.entries[at].held).into_set();
                    let time = self.entries[at].time.clone();
                    let bucket = &mut self.entries[first];
                    bucket.manager = ANCIENT.into();
                    bucket.subresource = "".into();
                    bucket.held.add(set);
                    bucket.time = time;
                    excess -= 1;
                }
            }
        }
        self.entries.retain(|entry| !entry.held.is_empty());
    }

    /// Applies a configuration. What `filter` leaves out this way of writing cannot set; conflicts within `allowed` count as none.
    /// `versions` converts what was before and what comes out to the versions of other owners.
    ///
    /// # Errors
    /// Conflicts, unless forced.
    pub fn apply(
        &self,
        live: &Value,
        applied: &Value,
        ty: TypeRef<'_>,
        writer: &Writer<'_>,
        how: &How<'_, '_>,
    ) -> Result<Applied, ApplyError> {
        let lives = self.lives(live, ty, writer, how);
        let this = Managers { entries: self.entries.iter().map(|entry| entry.reconciled(&lives)).collect() };
        let own = this.entries.iter().find(|entry| entry.is(Operation::Apply, writer));
        let set = how.filter.of(paths(applied, ty)).difference(&STRIPPED_SET);
        let object = merge(live, applied, ty);
        let object = match own {
            Some(last) if !last.held.set().is_empty() => this.pruned(object, &set, last, ty, writer, how),
            _ => object,
        };
        let versions: Vec<Version<'_>> = lives
            .iter()
            .filter_map(|Version { api_version, ty, old, .. }| {
                let new = if *api_version == writer.api_version {
                    Cow::Borrowed(&object)
                } else {
                    Cow::Owned((how.convert)(writer.api_version, api_version, &object)?.1)
                };
                Some(Version { api_version: api_version.clone(), ty: *ty, old: Cow::Borrowed(old), new })
            })
            .collect();
        let comparisons = comparisons(&versions, how.filter);
        let conflicts = this.conflicts(&versions, &comparisons, writer, how.allowed);
        if !conflicts.is_empty() && !how.force {
            return Err(ApplyError::Conflicts(conflicts));
        }
        // An apply that leaves the object as it is has no time of its own (fieldmanager `managedfieldsupdater.go`).
        let time = same(live, &object).then(|| own.map(|last| last.time.clone()).unwrap_or_default());
        let mut entries = this.entries;
        entries.retain(|entry| !entry.is(Operation::Apply, writer));
        for entry in &mut entries {
            entry.give_up(&versions, &comparisons);
        }
        entries.retain(|entry| versions.iter().any(|version| version.api_version == entry.api_version));
        let mut entry = new_entry(Operation::Apply, writer, set);
        entry.time = time.unwrap_or(entry.time);
        entries.push(entry);
        let managed_fields = Managers { entries }.encode();
        drop(comparisons);
        drop(versions);
        Ok(Applied { object, managed_fields })
    }

    /// The live object in the writer's version, and in those that owners speak of.
    fn lives<'l, 'h: 'l>(
        &self,
        live: &'l Value,
        ty: TypeRef<'l>,
        writer: &Writer<'l>,
        how: &How<'_, 'h>,
    ) -> Vec<Version<'l>> {
        let version = |api_version: Cow<'l, str>, ty, old| Version { api_version, ty, old, new: Cow::Borrowed(live) };
        let mut lives = vec![version(writer.api_version.into(), ty, Cow::Borrowed(live))];
        for api_version in self.versions() {
            if !lives.iter().any(|known| known.api_version == api_version)
                && let Some((ty, old)) = (how.convert)(writer.api_version, api_version, live)
            {
                lives.push(version(api_version.to_owned().into(), ty, Cow::Owned(old)));
            }
        }
        lives
    }

    /// A merged object without what the applier set the `last` time, sets no more, and nobody else owns. Everybody's paths are
    /// those of a version, and count in that one (structured-merge-diff `Updater.prune`).
    fn pruned(
        &self,
        merged: Value,
        set: &Set<'_>,
        last: &Entry<'_>,
        ty: TypeRef<'_>,
        writer: &Writer<'_>,
        how: &How<'_, '_>,
    ) -> Value {
        let own = writer.api_version;
        let others = || self.entries.iter().filter(|entry| !entry.is(Operation::Apply, writer));
        // What is owned in a version, this apply included.
        let owned = |version: &str, ty: TypeRef<'_>| {
            let first = if version == own { set.clone() } else { Set::default() };
            let those = others().filter(|entry| entry.api_version == version);
            those.fold(first, |all, entry| all.union(entry.held.set().clone())).with_named_fields(Some(ty.value()))
        };
        let then = &*last.api_version;
        let (ty, converted) = match (then == own).then_some(ty) {
            Some(ty) => (ty, None),
            None => match (how.convert)(own, then, &merged) {
                Some((ty, converted)) => (ty, Some(converted)),
                // That version is no more: what was set in it stays.
                None => return merged,
            },
        };
        let object = converted.as_ref().unwrap_or(&merged);
        let there = named(object, ty);
        let gone = there.intersection(&last.held.set().with_named_fields(Some(ty.value())));
        // Metadata itself stays: what names the object is owned by nobody.
        let mut gone = gone.difference(&owned(then, ty)).difference(&STRIPPED_SET);
        let mut seen = vec![then];
        for version in std::iter::once(own).chain(others().map(|entry| &*entry.api_version)) {
            if gone.is_empty() || seen.contains(&version) {
                continue;
            }
            seen.push(version);
            let less = remove(object, &gone, ty);
            let (Some((ty_there, all)), Some((_, less))) =
                ((how.convert)(then, version, object), (how.convert)(then, version, &less))
            else {
                continue;
            };
            let lost = named(&all, ty_there).difference(&named(&less, ty_there));
            let kept = remove(&all, &lost.difference(&owned(version, ty_there)), ty_there);
            if let Some((_, kept)) = (how.convert)(version, then, &kept) {
                gone = gone.difference(&named(&kept, ty));
            }
        }
        if gone.is_empty() {
            return merged;
        }
        let less = remove(object, &gone, ty);
        if then == own {
            return less;
        }
        (how.convert)(then, own, &less).map_or(merged, |(_, less)| less)
    }

    fn conflicts(
        &self,
        versions: &[Version<'_>],
        comparisons: &[Comparison<'_>],
        writer: &Writer<'_>,
        allowed: &Set<'_>,
    ) -> Vec<Conflict> {
        let mut found = Vec::new();
        for entry in self.entries.iter().filter(|entry| !entry.is(Operation::Apply, writer)) {
            let Some(changed) = entry.comparison(versions, comparisons).map(|comparison| &comparison.changed) else {
                continue;
            };
            let conflicting = entry.held.set().intersection(changed).difference(allowed);
            let owner = entry.describe();
            found.extend(conflicting.list().into_iter().map(|path| Conflict { owner: owner.clone(), path }));
        }
        found.sort_by(|a, b| a.owner.cmp(&b.owner));
        found
    }
}

/// An account with paths that its one owner owns beside it; a new one where there is none yet.
pub fn with_paths(account: Option<Vec<u8>>, paths: Set<'_>, writer: &Writer<'_>) -> Option<Vec<u8>> {
    if paths.is_empty() {
        return account;
    }
    let known = account.as_deref().and_then(|account| Managers::decode(account).ok()).unwrap_or_default();
    let Managers { mut entries } = known;
    match entries.first_mut() {
        Some(entry) => entry.held.add(paths),
        None => entries.push(new_entry(Operation::Update, writer, paths)),
    }
    Managers { entries }.encode()
}

/// What is wrong with the first entry that something is wrong with; `why` where none of it is what upstream looks at.
fn unreadable(managed_fields: &[u8], why: &str) -> String {
    let entries: Vec<Value> = serde_json::from_slice(managed_fields).unwrap_or_default();
    let wrong = entries.iter().enumerate().find_map(|(nth, entry)| {
        let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
        match (text("operation"), text("apiVersion"), text("fieldsType")) {
            ("Apply" | "Update", version, FIELDS_V1) if !version.is_empty() => None,
            ("Apply" | "Update", "", _) => Some("apiVersion must not be empty".to_owned()),
            ("Apply" | "Update", _, "") => Some(format!("missing fieldsType in managed fields entry {nth}")),
            ("Apply" | "Update", _, other) => {
                Some(format!("invalid fieldsType {other:?} in managed fields entry {nth}"))
            }
            _ => Some("operation must be `Apply` or `Update`".to_owned()),
        }
    });
    wrong.unwrap_or_else(|| format!("error decoding set: {why}"))
}

/// How a configuration is applied.
pub struct How<'h, 'c> {
    /// Take what others own.
    pub force: bool,
    /// What this way of writing can set.
    pub filter: &'h Filter<'h>,
    /// Paths that may be taken from others without force.
    pub allowed: &'h Set<'h>,
    /// An object of one version in another, with that one's schema.
    pub convert: &'h Convert<'c>,
}

/// Converts an object of the first version to the second.
pub type Convert<'h> = dyn Fn(&str, &str, &Value) -> Option<(TypeRef<'h>, Value)> + 'h;

impl<'a> Entry<'a> {
    fn comparison<'c, 'v>(
        &self,
        versions: &[Version<'_>],
        comparisons: &'c [Comparison<'v>],
    ) -> Option<&'c Comparison<'v>> {
        let at = versions.iter().position(|version| version.api_version == self.api_version)?;
        comparisons.get(at)
    }

    /// The owner, with paths as the schema has them now; `lives` is the object before the write.
    fn reconciled<'r>(&'r self, lives: &'r [Version<'_>]) -> Entry<'r> {
        let mut entry = self.clone();
        if let Some(live) = lives.iter().find(|live| live.api_version == entry.api_version)
            && let Some(set) = reconciled(entry.held.set(), &live.old, live.ty)
        {
            entry.held = set.into();
        }
        entry
    }

    /// Loses what somebody else changed or removed.
    fn give_up(&mut self, versions: &[Version<'_>], comparisons: &[Comparison<'_>]) {
        if let Some(comparison) = self.comparison(versions, comparisons).filter(|comparison| !comparison.is_empty()) {
            self.held.subtract(&comparison.changed);
            self.held.subtract(&comparison.removed);
        }
    }
}

/// The paths of an object, and those of the structures on the way to them.
fn named<'v>(object: &'v Value, ty: TypeRef<'_>) -> Set<'v> {
    paths(object, ty).with_named_fields(Some(ty.value()))
}

fn new_entry<'a>(operation: Operation, writer: &Writer<'a>, set: Set<'a>) -> Entry<'a> {
    Entry {
        manager: writer.manager.into(),
        operation,
        api_version: writer.api_version.into(),
        time: writer.now.into(),
        fields_type: FIELDS_V1.into(),
        subresource: writer.subresource.into(),
        held: set.into(),
    }
}

pub(super) fn comparisons<'v>(versions: &'v [Version<'_>], filter: &Filter<'_>) -> Vec<Comparison<'v>> {
    let each = versions.iter().map(|version| {
        let found = compare(&version.old, &version.new, version.ty);
        let owned = |set: Set<'v>| filter.of(set).difference(&STRIPPED_SET);
        Comparison { changed: owned(found.changed), removed: owned(found.removed) }
    });
    each.collect()
}

fn seconds(time: &str) -> i64 {
    time.parse::<Timestamp>().map_or(0, Timestamp::as_second)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::encode_created;
    use crate::gvk::Gvk;
    use crate::schema;

    const T1: &str = "2026-01-01T00:00:01Z";
    const T2: &str = "2026-01-01T00:00:02Z";

    fn ty() -> TypeRef<'static> {
        schema::of(&Gvk::of("apps", "v1", "Deployment")).unwrap()
    }

    fn writer(manager: &'static str, now: &'static str) -> Writer<'static> {
        Writer { manager, api_version: "apps/v1", subresource: "", now }
    }

    fn apply(
        live: &Value,
        managed: &Option<Vec<u8>>,
        config: &Value,
        manager: &'static str,
        force: bool,
    ) -> Result<Applied, ApplyError> {
        let none = Set::default();
        let how = How { force, filter: &Filter::All, allowed: &none, convert: &|_, _, _| None };
        decoded(managed).apply(live, config, ty(), &writer(manager, T1), &how)
    }

    fn decoded(managed: &Option<Vec<u8>>) -> Managers<'_> {
        managed.as_deref().map_or_else(Managers::default, |managed| Managers::decode(managed).unwrap())
    }

    fn document(managed: &Option<Vec<u8>>) -> Value {
        serde_json::from_slice(managed.as_deref().unwrap()).unwrap()
    }

    fn update(old: &Value, new: &Value, managed: &Option<Vec<u8>>, manager: &'static str) -> Option<Vec<u8>> {
        let versions =
            [Version { api_version: "apps/v1".into(), ty: ty(), old: Cow::Borrowed(old), new: Cow::Borrowed(new) }];
        let mut managers = decoded(managed);
        managers.update(&versions, &writer(manager, T2), &Filter::All);
        managers.encode()
    }

    /// Manager, operation and fields of each entry.
    fn brief(managed: &Option<Vec<u8>>) -> Vec<(String, String, Value)> {
        let managed = document(managed);
        let text = |entry: &Value, name: &str| entry[name].as_str().unwrap().to_owned();
        let entries = managed.as_array().unwrap().iter();
        entries.map(|entry| (text(entry, "manager"), text(entry, "operation"), entry["fieldsV1"].clone())).collect()
    }

    fn own(manager: &str, operation: &str, fields: Value) -> (String, String, Value) {
        (manager.to_owned(), operation.to_owned(), fields)
    }

    #[test]
    fn applies_conflict_share_and_let_go() {
        let first = json!({"metadata": {"name": "web", "labels": {"a": "1"}}, "spec": {"replicas": 2, "paused": true}});
        let made = apply(&json!({}), &None, &first, "one", false).unwrap();
        assert_eq!(made.object, first);
        assert_eq!(
            brief(&made.managed_fields),
            [own(
                "one",
                "Apply",
                json!({"f:metadata": {"f:labels": {"f:a": {}}}, "f:spec": {"f:paused": {}, "f:replicas": {}}})
            )]
        );
        // The same value is shared, another is a conflict.
        let second = json!({"spec": {"replicas": 2}});
        let shared = apply(&made.object, &made.managed_fields, &second, "two", false).unwrap();
        assert_eq!(brief(&shared.managed_fields).len(), 2);
        let other = json!({"spec": {"replicas": 3}});
        let ApplyError::Conflicts(conflicts) =
            apply(&shared.object, &shared.managed_fields, &other, "three", false).unwrap_err();
        let conflict = |owner: &str| Conflict { owner: owner.into(), path: ".spec.replicas".into() };
        assert_eq!(conflicts, [conflict("\"one\""), conflict("\"two\"")]);
        let forced = apply(&shared.object, &shared.managed_fields, &other, "three", true).unwrap();
        assert_eq!(forced.object["spec"]["replicas"], 3);
        assert_eq!(
            brief(&forced.managed_fields),
            [
                own("one", "Apply", json!({"f:metadata": {"f:labels": {"f:a": {}}}, "f:spec": {"f:paused": {}}})),
                own("three", "Apply", json!({"f:spec": {"f:replicas": {}}})),
            ]
        );
        // What is no longer applied goes, unless another owns it too.
        let less = json!({"metadata": {"name": "web"}, "spec": {"paused": true}});
        let left = apply(&shared.object, &shared.managed_fields, &less, "one", false).unwrap();
        assert_eq!(left.object, json!({"metadata": {"name": "web"}, "spec": {"replicas": 2, "paused": true}}));
        let gone = apply(&made.object, &made.managed_fields, &less, "one", false).unwrap();
        assert_eq!(gone.object, json!({"metadata": {"name": "web"}, "spec": {"paused": true}}));
    }

    #[test]
    fn an_apply_that_changes_nothing_keeps_its_time() {
        let config = json!({"spec": {"replicas": 2}});
        let none = Set::default();
        let how = How { force: false, filter: &Filter::All, allowed: &none, convert: &|_, _, _| None };
        let made = Managers::default().apply(&json!({}), &config, ty(), &writer("one", T1), &how).unwrap();
        let again = decoded(&made.managed_fields).apply(&made.object, &config, ty(), &writer("one", T2), &how).unwrap();
        assert_eq!(again.managed_fields, made.managed_fields);
        assert_eq!(document(&again.managed_fields)[0]["time"], T1);
    }

    #[test]
    fn updates_take_over() {
        let live = json!({"metadata": {"labels": {"a": "1"}}, "spec": {"replicas": 2, "paused": true}});
        let made = apply(&json!({}), &None, &live, "one", false).unwrap();
        let new = json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"replicas": 3}});
        let managed = update(&live, &new, &made.managed_fields, "two");
        assert_eq!(
            brief(&managed),
            [
                own("one", "Apply", json!({"f:metadata": {"f:labels": {"f:a": {}}}})),
                own("two", "Update", json!({"f:metadata": {"f:labels": {"f:b": {}}}, "f:spec": {"f:replicas": {}}})),
            ]
        );
        // Nothing changed: nothing is touched.
        assert_eq!(update(&new, &new.clone(), &managed, "three"), managed);
    }

    #[test]
    fn a_removed_item_is_kept_while_another_owns_part_of_it() {
        let config = json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "y"}]}}}});
        let made = apply(&json!({}), &None, &config, "one", false).unwrap();
        let less = json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "image": "x"}]}}}});
        let gone = apply(&made.object, &made.managed_fields, &less, "one", false).unwrap();
        assert_eq!(gone.object, less);
        // Fields that nobody owns go with the item.
        let mut defaulted = made.object.clone();
        defaulted["spec"]["template"]["spec"]["containers"][1]["imagePullPolicy"] = "Always".into();
        let gone = apply(&defaulted, &made.managed_fields, &less, "one", false).unwrap();
        assert_eq!(gone.object, less);
    }

    #[test]
    fn old_updates_are_merged() {
        let mut object = json!({"metadata": {"labels": {}}});
        let mut managed = None;
        for nth in 0..12 {
            let before = object.clone();
            object["metadata"]["labels"][&format!("l{nth}")] = "x".into();
            let manager: &'static str = Box::leak(format!("m{nth:02}").into_boxed_str());
            managed = update(&before, &object, &managed, manager);
        }
        let names: Vec<_> = brief(&managed).into_iter().map(|(name, ..)| name).collect();
        assert_eq!(names.len(), MAX_UPDATERS);
        assert_eq!(names[0], ANCIENT);
    }

    #[test]
    fn a_create_owns_all_it_brings() {
        let object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a", "labels": {"a": "b"}}, "spec": {"replicas": 1}, "status": {"replicas": 3}});
        let ignored = json!({"f:status": {}});
        let managed = encode_created(&object, ty(), &writer("m", T1), &Set::decode(&ignored).unwrap());
        assert_eq!(
            brief(&managed),
            [own(
                "m",
                "Update",
                json!({"f:metadata": {"f:labels": {".": {}, "f:a": {}}}, "f:spec": {"f:replicas": {}}})
            )]
        );
        assert_eq!(document(&managed)[0]["time"], T1);
    }

    #[test]
    fn what_cannot_be_read() {
        let read = |change: fn(&mut Value)| {
            let mut entry = json!({"manager": "m", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:a": {}}});
            let whole = entry.clone();
            change(&mut entry);
            let entries = json!([whole, entry]).to_string();
            Managers::decode(entries.as_bytes()).map(|managers| managers.entries.len())
        };
        assert_eq!(read(|_| {}), Ok(2));
        assert_eq!(read(|entry| entry["operation"] = "x".into()), Err("operation must be `Apply` or `Update`".into()));
        assert_eq!(read(|entry| entry["apiVersion"] = "".into()), Err("apiVersion must not be empty".into()));
        assert_eq!(
            read(|entry| entry["fieldsType"] = "".into()),
            Err("missing fieldsType in managed fields entry 1".into())
        );
        assert_eq!(
            read(|entry| entry["fieldsType"] = "V2".into()),
            Err("invalid fieldsType \"V2\" in managed fields entry 1".into())
        );
        assert!(
            read(|entry| entry["fieldsV1"] = json!({"x": {}}))
                .is_err_and(|why| why.starts_with("error decoding set: "))
        );
    }
}
