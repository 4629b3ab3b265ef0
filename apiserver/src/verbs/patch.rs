//! PATCH: read, patch, write, and again when somebody else wrote meanwhile.

use super::manage::Managing;
use super::{Call, Response, apply, update};
use crate::http::request::{Body, unknown_fields};
use crate::registry::meta;
use coracle_api::decode::FieldValidation;
use coracle_api::json::Value;
use coracle_api::patch::{self, PatchType};
use coracle_api::status::FieldPath;
use coracle_api::{Cause, Gvk, Status, meta as object_meta};
use http::StatusCode;
use std::borrow::Cow;

/// Which patch a content type means; an apply has a way of its own.
pub(super) fn patch_type(call: &Call, content_type: &str) -> Result<PatchType, Status> {
    const TAKEN: [&str; 4] = [
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
        apply::MEDIA_TYPE,
    ];
    let kind = PatchType::of_media_type(content_type).ok_or_else(|| Status::unsupported_media_type(&TAKEN))?;
    if call.options.force.is_some() {
        let cause = Cause::forbidden(&FieldPath::new("force"), "may not be specified for non-apply patch");
        return Err(Status::invalid(&apply::PATCH_OPTIONS, "", vec![cause]));
    }
    Ok(kind)
}

pub(super) async fn patch(call: Call, body: Body) -> Result<Response, Status> {
    if body.content_type == apply::MEDIA_TYPE {
        return apply::apply(call, body).await;
    }
    let kind = patch_type(&call, &body.content_type)?;
    let gvk = call.gvk();
    let row = call.row().clone();
    if kind == PatchType::Strategic && row.strategy.custom().is_some() {
        // Custom resources have no patch strategies (apiextensions `customresource_handler.go`).
        return Err(Status::unsupported_media_type(&[
            "application/json-patch+json",
            "application/merge-patch+json",
            apply::MEDIA_TYPE,
        ]));
    }
    let type_ref = row.reading_type(call.resolved.served)?;
    for _ in 0..update::ATTEMPTS {
        let current = call.current().await?;
        let mut shown = match kind {
            // It may read what it does not name.
            PatchType::Json => Cow::Owned(current.whole()),
            _ if names_managers(&body.bytes) => Cow::Owned(current.whole()),
            _ => Cow::Borrowed(&current.value),
        };
        let converted = call.resolved.served != 0 || row.strategy.custom().is_some();
        if converted {
            row.to_served(shown.to_mut(), call.resolved.served);
        }
        let validation = call.options.field_validation;
        let mut patched = patch::apply(kind, &shown, &body.bytes, type_ref, validation != FieldValidation::Ignore)?;
        if row.strategy.custom().is_some() {
            check_kind(patched.object(), &gvk)?;
        }
        // The result goes through the same reading as any body: unknown fields are found here.
        // What is stored was read so before, and is not looked at again where it is not patched.
        let mut object = if converted {
            patched.read(type_ref, validation)?
        } else {
            patched.read_again(&shown, type_ref, validation)?
        };
        patched.problems.extend(unknown_fields(&call, &mut object));
        call.warn(patched.settle(&object, validation)?);
        call.warn(meta::merge_owners(&mut object, " after mutating admission happens"));
        if object_meta::resource_version(&shown) == object_meta::resource_version(&object) {
            // The patch says nothing about it: whatever version is there is meant, and a lost race is run again.
            object_meta::set(&mut object, "resourceVersion", current.revision.to_string());
        }
        meta::check_name(&call, &object)?;
        let empty = std::mem::take(&mut patched.empty);
        let managing = if empty.is_empty() { Managing::Tracked } else { Managing::With(empty) };
        if let Some(written) = update::write(&call, &current, object, true, managing).await? {
            return call.answer(StatusCode::OK, written.json);
        }
    }
    Err(Status::modified(&call.gvr(), &call.name))
}

/// What a custom resource is cannot be patched (apiextensions `registry/customresource/validator.go`).
fn check_kind(object: &Value, gvk: &Gvk) -> Result<(), Status> {
    let (kind, version, expected) = (object_meta::kind(object), object_meta::api_version(object), gvk.api_version());
    let mut causes = Vec::new();
    if kind != &*gvk.kind {
        causes.push(Cause::invalid(&FieldPath::new("kind"), kind, format!("must be {}", gvk.kind)));
    }
    if version != expected {
        causes.push(Cause::invalid(&FieldPath::new("apiVersion"), version, format!("must be {expected}")));
    }
    if causes.is_empty() {
        return Ok(());
    }
    let group = version.split_once('/').map_or("", |(group, _)| group);
    let given = Gvk { group: group.into(), version: gvk.version.clone(), kind: kind.into() };
    Err(Status::invalid(&given, object_meta::name(object), causes))
}

/// Whether a patch may say something of `metadata.managedFields`.
fn names_managers(patch: &[u8]) -> bool {
    // A name can be written with escapes, too.
    memchr::memmem::find(patch, b"managedFields").is_some() || memchr::memmem::find(patch, b"\\u").is_some()
}
