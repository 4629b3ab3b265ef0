//! DELETE and DELETECOLLECTION: preconditions, grace, finalizers, orphans.

use super::{Call, Current, Response, allocate, list};
use crate::cache::with_revision;
use crate::http::render;
use crate::http::request::Body;
use crate::options::{self, Propagation, UNREADABLE};
use crate::registry::fields;
use crate::registry::strategy::Dependents;
use crate::server::store_status;
use crate::store::{Compare, Op, Outcome, Revision, Txn};
use coracle_api::clock::{parse_rfc3339, rfc3339};
use coracle_api::json::{Value, json};
use coracle_api::status::FieldPath;
use coracle_api::{Cause, Gvk, Gvr, Status, meta as object_meta};
use http::StatusCode;
use jiff::SignedDuration;
use std::sync::Arc;
use tokio::task::JoinSet;

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// The right to use it, besides that to delete (KEP-3926).
const UNREADABLE_VERB: &str = "unsafe-delete-ignore-read-errors";

const OPTIONS: Gvk = Gvk::of("meta.k8s.io", "v1", "DeleteOptions");

/// How often a delete that lost a race is tried again. Upstream's goes on until the request's time is over; each of these
/// waits for the store, so that they last about as long.
const ATTEMPTS: usize = 1000;

/// Deletes of a collection that run side by side, at most: they share the store's syncs, and while some are synced others are
/// read. It is begun with a few, and each that succeeds lets one more run: what cannot be deleted is mostly seen early.
const PARALLEL: usize = 512;
const AT_FIRST: usize = 16;

/// metav1.DeleteOptions and the query, together.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeleteOptions {
    grace_period: Option<i64>,
    propagation: Option<Propagation>,
    uid: Option<String>,
    pub(super) resource_version: Option<String>,
    pub(super) dry_run: bool,
    /// Dependents are to go too, in the older words.
    takes_dependents: bool,
    /// What cannot be read goes without being looked at.
    unreadable: bool,
    /// What goes is to be told whole.
    shown: bool,
}

impl DeleteOptions {
    /// Reads a body's options; the query's count where the body says nothing.
    pub(super) fn from_value(call: &Call, value: &Value) -> Result<Self, Status> {
        let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let mut found = Self {
            grace_period: value.get("gracePeriodSeconds").and_then(Value::as_i64).or(call.options.grace_period),
            propagation: None,
            uid: text("/preconditions/uid"),
            resource_version: text("/preconditions/resourceVersion"),
            dry_run: call.options.dry_run,
            takes_dependents: false,
            unreadable: value.get(UNREADABLE).and_then(Value::as_bool).unwrap_or(call.options.unreadable),
            shown: false,
        };
        let policy = value.get("propagationPolicy").and_then(Value::as_str).map(options::propagation).transpose()?;
        let orphan = value.get("orphanDependents").and_then(Value::as_bool);
        found.takes_dependents = orphan.or(call.options.orphan) == Some(false);
        found.propagation = match (policy, orphan) {
            (None, None) => options::propagation_of(call.options.propagation, call.options.orphan)?,
            _ => options::propagation_of(policy, orphan)?,
        };
        let dry_run: Vec<&str> = fields::items(value, "dryRun").iter().filter_map(Value::as_str).collect();
        if dry_run.iter().any(|word| *word != "All") {
            return Err(options::wrong_dry_run("DeleteOptions", &dry_run));
        }
        found.dry_run |= !dry_run.is_empty();
        Ok(found)
    }

    fn read(call: &Call, body: &Body) -> Result<Self, Status> {
        let value = body.delete_options()?;
        let found = Self::from_value(call, &value)?;
        if found.unreadable {
            check_unreadable(call, &value, found.dry_run)?;
        }
        Ok(found)
    }
}

/// What looks at the object cannot be asked for along with not looking at it (metav1/validation `ValidateDeleteOptions`).
fn check_unreadable(call: &Call, value: &Value, dry_run: bool) -> Result<(), Status> {
    let given = |field: &str| fields::is_set(value, field);
    let asked = &call.options;
    let together = [
        ("dryRun", dry_run),
        ("propagationPolicy", given("propagationPolicy") || asked.propagation.is_some()),
        ("orphanDependents", given("orphanDependents") || asked.orphan.is_some()),
        ("gracePeriodSeconds", given("gracePeriodSeconds") || asked.grace_period.is_some()),
        ("preconditions", given("preconditions")),
    ];
    let causes: Vec<Cause> = together
        .into_iter()
        .filter(|(_, given)| *given)
        .map(|(field, _)| of_unreadable(&format!("cannot be set together with .{field}")))
        .collect();
    if causes.is_empty() { Ok(()) } else { Err(Status::invalid(&OPTIONS, "", causes)) }
}

fn of_unreadable(why: &str) -> Cause {
    Cause::invalid(&FieldPath::new(UNREADABLE), true, why)
}

/// What a delete did.
pub(crate) enum Deleted {
    Gone(Value),
    /// The same, with what it was at last.
    Shown(bytes::Bytes),
    /// It goes when its grace has passed or its finalizers are done.
    Going(bytes::Bytes),
}

pub(super) async fn delete(mut call: Call, body: Body) -> Result<Response, Status> {
    let mut options = DeleteOptions::read(&call, &body)?;
    options.shown = call.row().shows_deleted;
    call.options.dry_run |= options.dry_run;
    if options.unreadable {
        may_delete_unreadable(&call)?;
        call.server.fresh().await?;
        let Some(record) = call.cache()?.unreadable.get(&call.cache_key()) else {
            // Registry/generic/registry `corrupt_obj_deleter.go`, which gives the resource for the kind.
            let why = "is exclusively used to delete corrupt object(s), try again by removing this option";
            let named = Gvk { kind: call.gvr().resource, ..call.gvk() };
            return Err(Status::invalid(&named, &call.name, vec![of_unreadable(why)]));
        };
        return delete_unreadable(&call, record.revision).await;
    }
    match delete_object(&call, &options).await? {
        // Others who are answered before it is gone are not told so, for the sake of old clients (handlers/delete.go).
        Deleted::Going(json) if options.takes_dependents => call.answer(StatusCode::ACCEPTED, json),
        Deleted::Going(json) | Deleted::Shown(json) => call.answer(StatusCode::OK, json),
        Deleted::Gone(object) => {
            let status = Status::deleted(&call.gvr(), &call.name, object_meta::uid(&object));
            Ok(render::status(&call.accept, &status))
        }
    }
}

/// Apiserver `endpoints/handlers/delete.go`, `authorizeUnsafeDelete`.
fn may_delete_unreadable(call: &Call) -> Result<(), Status> {
    let why = format!("not permitted to do {UNREADABLE_VERB:?}, reason: ");
    call.check_right(UNREADABLE_VERB).map_err(|_| Status::forbidden(&call.gvr(), &call.name, &why))
}

/// Removes a record that is no object. Whatever it had finalizers for is not done.
async fn delete_unreadable(call: &Call, revision: Revision) -> Result<Response, Status> {
    let key = call.store_key(&call.name);
    if !call.options.dry_run {
        let txn = Txn { compare: vec![Compare::modified(key.clone(), revision)], ops: vec![Op::delete(key)] };
        if let Outcome::Conflict(_) = call.server.store().txn(txn).await.map_err(store_status)? {
            return Err(Status::modified(&call.gvr(), &call.name));
        }
    }
    Ok(render::status(&call.accept, &Status::deleted(&call.gvr(), &call.name, "")))
}

/// Deletes the object in the call's path.
pub(crate) async fn delete_object(call: &Call, options: &DeleteOptions) -> Result<Deleted, Status> {
    for _ in 0..ATTEMPTS {
        if let Some(deleted) = delete_once(call, options, call.current().await?).await? {
            return Ok(deleted);
        }
    }
    Err(Status::conflict(&call.gvr(), &call.name, "the object is being written by others"))
}

async fn delete_once(call: &Call, options: &DeleteOptions, mut current: Current) -> Result<Option<Deleted>, Status> {
    check_preconditions(call, options, &current)?;
    if object_meta::deletion_timestamp(&current.value).is_some() && namespace_waits(call, &current.value) {
        // Nothing becomes of it by being asked for again (core/namespace/storage `Delete`).
        return Ok(Some(Deleted::Going(current.object.json())));
    }
    let strategy = &*call.row().strategy;
    strategy.check_delete(&current.value, &call.server.cacher)?;
    let period = strategy.grace_period(&current.value, options.grace_period);
    let grace = match period {
        Some(_) if object_meta::deletion_timestamp(&current.value).is_some() => {
            match sooner(&current.value, options.grace_period) {
                Some(sooner) => sooner,
                None => return Ok(Some(Deleted::Going(current.object.json()))),
            }
        }
        first => first.unwrap_or(0).max(0),
    };
    // Most objects go at once, and what they were is not looked at again.
    let mut object = current.take();
    set_finalizers(call, &mut object, options.propagation);
    let whole = strategy.prepare_delete(&mut object, &call.context()) || is_namespace(call);
    let waits = object_meta::finalizers(&object).next().is_some() || namespace_waits(call, &object);
    if !waits && grace == 0 {
        let given = allocate::release(call, &object)?;
        // What could have been given time says that it was not, to those who watch too (registry/generic/registry
        // `updateForGracefulDeletionAndFinalizers`), unless that has been said before.
        let says = period.is_some() && has_time(&object);
        if says {
            mark(call, &mut object, 0);
        }
        let encode = || current.with_parts(&object, whole).encode();
        let last = says.then(encode);
        let removed = call.remove_if(&current, last.clone(), given.compare, given.ops).await?;
        return Ok(match (removed, options.shown) {
            (None, _) => None,
            (Some(revision), true) => Some(Deleted::Shown(with_revision(&last.unwrap_or_else(encode), revision))),
            (Some(_), false) => Some(Deleted::Gone(object)),
        });
    }
    let first = object_meta::deletion_timestamp(&object).is_none();
    mark(call, &mut object, grace);
    let written = if first {
        call.put(&current, &current.with_parts(&object, whole), Vec::new()).await?
    } else {
        current.restore();
        call.replace(&current, &current.with_parts(&object, whole), Vec::new()).await?
    };
    Ok(written.map(|written| Deleted::Going(written.json)))
}

/// Whether nobody has said yet that it goes, or that it goes at once.
fn has_time(object: &Value) -> bool {
    object_meta::deletion_timestamp(object).is_none() || object_meta::deletion_grace_period(object) > Some(0)
}

/// The period that a further delete leaves an object; None when it goes no sooner than was said (rest `BeforeDelete`).
fn sooner(object: &Value, requested: Option<i64>) -> Option<i64> {
    match object_meta::deletion_grace_period(object) {
        // A negative period means the shortest there is.
        Some(standing) if standing > 0 => {
            requested.map(|period| if period < 0 { 1 } else { period }).filter(|period| *period < standing)
        }
        // It waits for its finalizers alone.
        _ => Some(0),
    }
}

fn is_namespace(call: &Call) -> bool {
    &*call.row().kind == "Namespace"
}

/// A namespace has finalizers of its own kind, in its spec; its first delete ends it in no case (core/namespace/storage).
fn namespace_waits(call: &Call, object: &Value) -> bool {
    is_namespace(call)
        && (object_meta::deletion_timestamp(object).is_none()
            || !fields::items(&object["spec"], "finalizers").is_empty())
}

pub(super) fn check_preconditions(call: &Call, options: &DeleteOptions, current: &Current) -> Result<(), Status> {
    let uid = object_meta::uid(&current.value);
    // The kind stands where others name the resource (apiserver `registry/rest/delete.go`).
    let named = Gvr { resource: call.gvk().kind, ..call.gvr() };
    if is_namespace(call) {
        return check_namespace_preconditions(call, options, current);
    }
    if let Some(wanted) = options.uid.as_deref().filter(|wanted| *wanted != uid) {
        let why = format!(
            "the UID in the precondition ({wanted}) does not match the UID in record ({uid}). The object might have been deleted and then recreated"
        );
        return Err(Status::conflict(&named, &call.name, &why));
    }
    let revision = current.revision.to_string();
    if let Some(wanted) = options.resource_version.as_deref().filter(|wanted| *wanted != revision) {
        let why = format!(
            "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record ({revision}). The object might have been modified"
        );
        return Err(Status::conflict(&named, &call.name, &why));
    }
    Ok(())
}

/// Namespaces have words of their own (core/namespace/storage `Delete`).
fn check_namespace_preconditions(call: &Call, options: &DeleteOptions, current: &Current) -> Result<(), Status> {
    let (uid, revision) = (object_meta::uid(&current.value), current.revision.to_string());
    for (what, wanted, found) in
        [("UID", &options.uid, uid), ("ResourceVersion", &options.resource_version, revision.as_str())]
    {
        if let Some(wanted) = wanted.as_deref().filter(|wanted| *wanted != found) {
            let why = format!("Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}");
            return Err(Status::conflict(&call.gvr(), &call.name, &why));
        }
    }
    Ok(())
}

/// Adds or removes the garbage collector's finalizers (registry/generic `deletionFinalizersForGarbageCollection`).
fn set_finalizers(call: &Call, object: &mut Value, propagation: Option<Propagation>) {
    let known: Vec<String> = object_meta::finalizers(object).map(str::to_owned).collect();
    let policy = match (call.row().strategy.traits().dependents, propagation) {
        (Dependents::None, _) => Propagation::Background,
        (_, Some(asked)) => asked,
        // The first finalizer that is there already decides, then the kind (registry/generic/registry
        // `shouldOrphanDependents`).
        (of_kind, None) => match (known.iter().find(|name| *name == ORPHAN || *name == FOREGROUND), of_kind) {
            (Some(name), _) if name == ORPHAN => Propagation::Orphan,
            (Some(_), _) => Propagation::Foreground,
            (None, Dependents::Orphaned) => Propagation::Orphan,
            (None, _) => Propagation::Background,
        },
    };
    let mut finalizers: Vec<String> =
        known.iter().filter(|name| *name != ORPHAN && *name != FOREGROUND).cloned().collect();
    match policy {
        Propagation::Orphan => finalizers.push(ORPHAN.to_owned()),
        Propagation::Foreground => finalizers.push(FOREGROUND.to_owned()),
        Propagation::Background => {}
    }
    if finalizers != known {
        object_meta::set(object, "finalizers", if finalizers.is_empty() { Value::Null } else { json!(finalizers) });
    }
}

/// Sets when the object goes. A further delete can only bring that forward, from when the first was asked for.
fn mark(call: &Call, object: &mut Value, grace: i64) {
    let now = call.server.config.clock.now();
    if let Some(end) = object_meta::deletion_timestamp(object) {
        let before = object_meta::deletion_grace_period(object).filter(|before| *before > grace);
        if let Some((end, before)) = parse_rfc3339(end).zip(before) {
            let end = end.checked_sub(SignedDuration::from_secs(before - grace)).unwrap_or(end);
            object_meta::set(object, "deletionTimestamp", rfc3339(end));
            object_meta::set(object, "deletionGracePeriodSeconds", grace);
        }
        return;
    }
    let end = now.checked_add(SignedDuration::from_secs(grace)).unwrap_or(now);
    object_meta::set(object, "deletionTimestamp", rfc3339(end));
    let is_namespace = is_namespace(call);
    // Upstream's namespaces have a delete of their own, which knows no grace.
    if !is_namespace {
        object_meta::set(object, "deletionGracePeriodSeconds", grace);
    }
    // Of whatever has one (rest `BeforeDelete`).
    let generation = object_meta::generation(object);
    if generation > 0 {
        object_meta::set(object, "generation", generation + 1);
    }
    if is_namespace {
        fields::object_mut(object, "status")["phase"] = "Terminating".into();
    }
}

pub(super) async fn delete_collection(mut call: Call, body: Body) -> Result<Response, Status> {
    let options = DeleteOptions::read(&call, &body)?;
    if options.unreadable {
        let why = "is not allowed with DELETECOLLECTION, try again after removing the option";
        return Err(Status::invalid(&OPTIONS, "", vec![of_unreadable(why)]));
    }
    call.options.dry_run |= options.dry_run;
    // What a list with these options would show goes, and is shown (registry/generic/registry `Store.DeleteCollection`).
    let page = list::page(&call).await?;
    let calls: Vec<Call> = page.objects().map(|object| call.on(object.namespace(), object.name())).collect();
    let options = Arc::new(options);
    let mut calls = calls.into_iter();
    // Tasks of their own: each reads and writes whole objects, on more than one processor. They end with this one.
    let mut deletes = JoinSet::new();
    let (mut failed, mut side_by_side) = (None, AT_FIRST);
    loop {
        // No more are begun after the first that fails (registry/generic/registry `Store.DeleteCollection`).
        while deletes.len() < side_by_side && failed.is_none() {
            let Some(one) = calls.next() else { break };
            let options = options.clone();
            deletes.spawn(async move { delete_object(&one, &options).await.map(drop) });
        }
        match deletes.join_next().await {
            None => break,
            Some(Ok(Ok(()))) => side_by_side = PARALLEL.min(side_by_side + 1),
            // Somebody else deleted it first.
            Some(Ok(Err(status))) if status.code == 404 => {}
            Some(Ok(Err(status))) => drop(failed.get_or_insert(status)),
            Some(Err(error)) => drop(failed.get_or_insert(Status::internal(error.to_string()))),
        }
    }
    if let Some(status) = failed {
        return Err(status);
    }
    page.answer(&call)
}
