//! GET of one object.

use super::{Call, Response};
use coracle_api::Status;

pub(super) async fn get(call: Call) -> Result<Response, Status> {
    call.options.version_of_object()?;
    match call.options.resource_version {
        None => return crate::http::render::cached(&call, &*call.newest().await?),
        Some(0) => {}
        Some(revision) => drop(call.server.not_older_than(revision).await?),
    }
    let snapshot = call.cache()?.snapshot();
    let object = snapshot.get(&call.cache_key()).ok_or_else(|| call.absent())?;
    crate::http::render::cached(&call, object)
}
