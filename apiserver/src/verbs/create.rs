//! CREATE.

use super::allocate::{self, Allocated};
use super::manage::{self, Managing};
use super::twins::Draft;
use super::{Call, Response, Written};
use crate::admission::{self, Grounds};
use crate::cache::{encode_managed, store_key, with_revision};
use crate::http::request::Body;
use crate::registry::meta;
use crate::registry::strategy::Allocation;
use crate::server::store_status;
use crate::store::{Compare, Op, Outcome, Revision, Txn};
use bytes::Bytes;
use coracle_api::json::Value;
use coracle_api::{Reason, Status, meta as object_meta};
use http::StatusCode;
use std::time::Duration;

/// How often a taken generated name is replaced (upstream's RetryGenerateName: 8), and a lost race is run again.
const ATTEMPTS: usize = 8;

/// What the store says of an object that was read from it (apiserver `storage`, ErrResourceVersionSetOnCreate); it is asked last.
const VERSION_SET: &str = "resourceVersion should not be set on objects to be created";

pub(super) async fn create(call: Call, body: Body) -> Result<Response, Status> {
    if let Some(Draft { name, prefix, stored }) = call.server.twins.draft(&call, &body) {
        let (stored, revision) = store(&call, New::Encoded { name, stored }, &prefix).await?;
        return call.answer(StatusCode::CREATED, shown(&stored, revision));
    }
    let (mut object, empty) = body.object_and_empty(&call)?;
    call.warn(meta::merge_owners(&mut object, ""));
    let managing = if empty.is_empty() { Managing::Tracked } else { Managing::With(empty) };
    let made = make(&call, object, managing).await?;
    let json = shown(&made.stored, made.revision);
    call.server.twins.remember(&call, &body, made);
    call.answer(StatusCode::CREATED, json)
}

/// Creates an object: the whole way from defaulting to the store.
pub(crate) async fn create_object(call: &Call, object: Value, managing: Managing) -> Result<Written, Status> {
    let made = make(call, object, managing).await?;
    Ok(Written { json: shown(&made.stored, made.revision) })
}

/// What the client is shown: what is not kept has no revision.
fn shown(stored: &Bytes, revision: Option<Revision>) -> Bytes {
    revision.map_or_else(|| stored.clone(), |revision| with_revision(stored, revision))
}

/// An object that was created.
pub(super) struct Made {
    pub stored: Bytes,
    /// None of a dry run.
    pub revision: Option<Revision>,
    /// What its name was generated from; empty when the client chose it.
    pub prefix: String,
    /// What admission's answers rest on.
    pub grounds: Grounds,
    /// Another one asked for in the same words would be made of the same parts ([`Strategy::repeats`]).
    ///
    /// [`Strategy::repeats`]: crate::registry::strategy::Strategy::repeats
    pub repeats: bool,
}

async fn make(call: &Call, mut object: Value, managing: Managing) -> Result<Made, Status> {
    let row = call.row().clone();
    let strategy = &*row.strategy;
    let versioned = !matches!(managing, Managing::Applied(_))
        && object_meta::resource_version(&object).parse::<u64>().is_ok_and(|version| version != 0);
    meta::check_location(call, &mut object)?;
    if strategy.traits().allocation != Allocation::None
        || admission::namespace_of(call, object_meta::name(&object)).is_err()
    {
        // What is taken, and which namespaces there are, must be known as of now before the answer can be no.
        call.server.fresh().await?;
    }
    row.to_stored(&mut object, call.resolved.served);
    call.check_fit(&object, None)?;
    strategy.default(&mut object);
    let managed_fields = match managing {
        Managing::Tracked => manage::created(call, &object, &[])?,
        Managing::With(empty) => manage::created(call, &object, &empty)?,
        Managing::Applied(managed_fields) => managed_fields,
    };
    if row.is_ending() {
        // Apiextensions `forbidCreateAdmission`: whichever way an object comes.
        let why = "create not allowed while custom resource definition is terminating";
        return Err(Status::forbidden(&call.gvr(), object_meta::name(&object), why));
    }
    let mut grounds = Grounds::default();
    admission::mutate_create(call, &mut object, &mut grounds)?;
    // A name that the client chose is never replaced.
    let prefix =
        if object_meta::name(&object).is_empty() { object_meta::generate_name(&object) } else { "" }.to_owned();
    call.warn(strategy.early_warnings(&object));
    {
        let context = call.context();
        meta::prepare_create(&row, &mut object, &context);
        strategy.prepare_create(&mut object, &context);
    }
    let mut causes = Vec::new();
    meta::validate(&row, &object, &mut causes);
    strategy.validate_create(&object, &mut causes);
    strategy.validate_served(&object, None, call.resolved.served, &mut causes);
    if !causes.is_empty() {
        return Err(Status::invalid(&call.gvk(), object_meta::name(&object), causes));
    }
    call.warn(strategy.warnings(&object, None));
    call.warn(meta::finalizer_warnings(&row, &object, None));
    admission::validate_create(call, &object, &mut grounds)?;
    if versioned {
        return Err(Status::new(500, Reason::Unknown, VERSION_SET));
    }
    let repeats = strategy.repeats(&object);
    let (stored, revision) = store(call, New::Read { object, managed_fields }, &prefix).await?;
    Ok(Made { stored, revision, prefix, grounds, repeats })
}

/// A finished object.
enum New {
    Read {
        object: Value,
        managed_fields: Option<Bytes>,
    },
    /// In its stored encoding, with nothing to allocate.
    Encoded {
        name: String,
        stored: Bytes,
    },
}

impl New {
    fn name(&self) -> &str {
        match self {
            New::Read { object, .. } => object_meta::name(object),
            New::Encoded { name, .. } => name,
        }
    }

    /// The stored encoding, and what is written with it.
    fn finish(self, call: &Call) -> Result<(Bytes, Allocated), Status> {
        match self {
            New::Read { mut object, managed_fields } => {
                let allocated = allocate::for_create(call, &mut object)?;
                Ok((encode_managed(&object, managed_fields.as_deref()), allocated))
            }
            New::Encoded { stored, .. } => Ok((stored, Allocated::default())),
        }
    }
}

/// Writes a finished object, with what it is allocated, and again when it loses a race that it can win. Gives its stored
/// encoding, and the revision of what is kept.
async fn store(call: &Call, mut new: New, prefix: &str) -> Result<(Bytes, Option<Revision>), Status> {
    let row = call.row();
    for _ in 0..ATTEMPTS {
        let name = new.name().to_owned();
        let key = store_key(row, &call.namespace, &name);
        let mut txn = Txn { compare: vec![Compare::absent(key.clone())], ops: Vec::new() };
        // The namespace must not end between the check and the write.
        if let Some(namespace) = admission::namespace_of(call, &name)? {
            txn.compare.push(namespace);
        }
        let fixed = txn.compare.len();
        // Many creates wait for the store at a time, hardly one runs again: it reads its object anew then.
        let (stored, allocated) = new.finish(call)?;
        txn.compare.extend(allocated.compare);
        if call.options.dry_run {
            if call.cache()?.snapshot().get(&call.cache_key_of(&name)).is_some() {
                return Err(Status::already_exists(&call.gvr(), &name));
            }
            return Ok((stored, None));
        }
        let ttl = row.strategy.traits().ttl.map(Duration::from_secs);
        txn.ops.push(Op::Put { key, value: stored.clone(), ttl });
        txn.ops.extend(allocated.ops);
        let object = match call.server.store().txn(txn).await.map_err(store_status)? {
            Outcome::Committed(revision) => return Ok((stored, Some(revision))),
            Outcome::Conflict(current) if current.first().is_some_and(Option::is_some) => {
                if prefix.is_empty() {
                    return Err(Status::already_exists(&call.gvr(), &name));
                }
                let mut object = read(&stored)?;
                let name = row.strategy.generate_name(prefix, &*call.server.config.names);
                object_meta::set(&mut object, "name", name);
                object
            }
            Outcome::Conflict(current) => {
                // The namespace changed, or somebody took what was to be allocated: see what there is now.
                if let Some(newest) = current.iter().flatten().map(|record| record.modified).max() {
                    call.server.not_older_than(newest).await?;
                }
                call.server.fresh().await?;
                let mut object = read(&stored)?;
                if current.len() > fixed {
                    allocated.undo.undo(&mut object);
                }
                object
            }
        };
        new = New::Read { object, managed_fields: None };
    }
    if prefix.is_empty() {
        Err(Status::server_timeout(&call.gvr(), "create", 1))
    } else {
        Err(Status::generate_name_conflict(&call.gvr(), new.name()))
    }
}

/// What was to be stored, for another attempt: with its managed fields by now.
fn read(stored: &[u8]) -> Result<Value, Status> {
    serde_json::from_slice(stored).map_err(|error| Status::internal(error.to_string()))
}
