//! PATCH: read, patch, write, and again when somebody else wrote meanwhile.

use super::{Call, Response, update};
use crate::http::render;
use crate::http::request::{Body, drop_unknown};
use coracle_api::decode::{self, FieldValidation};
use coracle_api::patch::{self, PatchType};
use coracle_api::{Status, meta as object_meta};
use http::StatusCode;

/// Which patch a content type means. Server-side apply is refused by name until the server can merge fields by manager.
pub(super) fn patch_type(content_type: &str) -> Result<PatchType, Status> {
    const TAKEN: [&str; 3] =
        ["application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json"];
    match content_type {
        "application/json-patch+json" => Ok(PatchType::Json),
        "application/merge-patch+json" => Ok(PatchType::Merge),
        "application/strategic-merge-patch+json" => Ok(PatchType::Strategic),
        _ => Err(Status::unsupported_media_type(&TAKEN)),
    }
}

pub(super) async fn patch(call: Call, body: Body) -> Result<Response, Status> {
    let kind = patch_type(&body.content_type)?;
    let gvk = call.gvk();
    let row = call.row().clone();
    if kind == PatchType::Strategic && row.strategy.custom().is_some() {
        // Custom resources have no patch strategies (apiextensions `customresource_handler.go`).
        return Err(Status::unsupported_media_type(&["application/json-patch+json", "application/merge-patch+json"]));
    }
    let type_ref = row.reading_type(call.resolved.served)?;
    for _ in 0..update::ATTEMPTS {
        let current = call.current().await?;
        let mut shown = current.value.clone();
        call.row().strategy.to_served(&mut shown, call.resolved.served);
        let patched = patch::apply(kind, &shown, &body.bytes, type_ref)?;
        // The result goes through the same reading as any body: unknown fields are found here.
        let mut decoded = decode::check(patched, type_ref, call.options.field_validation)?;
        let mut object = decoded.object;
        decoded.warnings.extend(drop_unknown(&call, &mut object)?);
        if object_meta::resource_version(&shown) == object_meta::resource_version(&object) {
            // The patch says nothing about it: whatever version is there is meant, and a lost race is run again.
            object_meta::set(&mut object, "resourceVersion", current.revision.to_string());
        }
        if object_meta::name(&object) != call.name {
            let path = coracle_api::status::FieldPath::new("metadata.name");
            let cause = coracle_api::Cause::immutable(&path, object_meta::name(&object));
            return Err(Status::invalid(&gvk, &call.name, vec![cause]));
        }
        if let Some(written) = update::write(&call, &current, object, true).await? {
            let mut response = call.answer(StatusCode::OK, written.json)?;
            if call.options.field_validation != FieldValidation::Ignore {
                render::warn(&mut response, &decoded.warnings);
            }
            return Ok(response);
        }
    }
    Err(Status::modified(&call.gvr(), &call.name))
}
