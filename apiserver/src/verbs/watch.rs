//! WATCH: a stream of frames.

use super::{Call, Response};
use crate::auth::Attributes;
use crate::cache::watcher::{WatchStart, Watcher, error_frame};
use crate::http::negotiate::Format;
use crate::http::render;
use axum::body::Body;
use coracle_api::{Gvr, Status};
use http::{StatusCode, header};
use std::convert::Infallible;
use std::time::Duration;

/// How long a watch lasts when the client does not say: 30 minutes, and up to as much again so that clients do not all
/// come back at once (upstream `--min-request-timeout`).
const DEFAULT_SECONDS: u64 = 1800;

/// What frames can be written in.
const STREAMED: [&str; 2] = ["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"];

pub(super) async fn watch(mut call: Call) -> Result<Response, Status> {
    call.options.version_of_object()?;
    if call.accept.format == Format::Yaml {
        return Err(Status::not_acceptable(&STREAMED));
    }
    if !call.name.is_empty() {
        // A watch of one object: the old form of a field selector on its name, which another must name too (apiserver
        // `endpoints/handlers/get.go`).
        let name = std::mem::take(&mut call.name);
        let given = call.options.fields.required_value("metadata.name").map(str::to_owned);
        if call.options.fields.is_empty() {
            call.options.fields = coracle_api::selector::FieldSelector::equals("metadata.name", &name);
        } else if given.is_none_or(|given| given != name) {
            return Err(Status::bad_request("fieldSelector metadata.name doesn't match requested name"));
        }
    }
    let selection = call.selection()?;
    let options = &call.options;
    let cache = call.cache()?.clone();
    let wants_state = options.send_initial_events.unwrap_or(matches!(options.resource_version, None | Some(0)));
    let mut start = WatchStart {
        selection,
        after: 0,
        initial: None,
        mark_initial_end: false,
        bookmarks: options.bookmarks,
        timeout: timeout(options.timeout_seconds),
        encoder: render::frame_encoder(&call)?,
        events: call.server.metrics.events(&call.gvr()),
        begins: call.begins.take().map(|permit| permit as Box<dyn Send>),
        stop: call.server.stop.clone(),
    };
    if wants_state {
        let progress = match options.resource_version {
            None => call.server.fresh().await?,
            Some(0) => call.server.cacher.progress(),
            Some(revision) => call.server.not_older_than(revision).await?,
        };
        let snapshot = cache.snapshot();
        start.after = snapshot.revision.max(progress);
        start.initial = Some(snapshot);
        // Of a watch that says nothing of it, too (apimachinery `internalversion/defaults.go`, SetListOptionsDefaults).
        start.mark_initial_end = options.bookmarks;
    } else {
        start.after = match options.resource_version {
            None | Some(0) => call.server.fresh().await?,
            Some(revision) => revision,
        };
        if let Err(gap) = cache.since(start.after, 1) {
            let status = Status::expired(format!("too old resource version: {} ({})", start.after, gap.oldest));
            let frame = start.encoder.as_ref().map_or_else(|| error_frame(&status), |encoder| encoder.error(&status));
            return Ok(respond(&call, Body::from(frame)));
        }
    }
    let watcher = Watcher::new(call.server.cacher.clone(), cache, start);
    let Gvr { group, version, resource } = &call.gvr();
    let (namespace, name) = (&*call.namespace, &*call.name);
    let about = Attributes { verb: "watch", group, version, resource, namespace, name, ..Attributes::default() };
    let guard = call.server.metrics.lasting(&about);
    let frames = futures::stream::unfold((watcher, guard), |(mut watcher, guard)| async move {
        let frame = watcher.next().await?;
        Some((Ok::<_, Infallible>(frame), (watcher, guard)))
    });
    Ok(respond(&call, Body::from_stream(frames)))
}

/// Below zero is over at once (apiserver `endpoints/handlers/get.go`).
fn timeout(seconds: Option<i64>) -> Duration {
    let seconds = seconds.filter(|seconds| *seconds != 0).map(|seconds| u64::try_from(seconds).unwrap_or(0));
    Duration::from_secs(seconds.unwrap_or_else(|| DEFAULT_SECONDS + fastrand::u64(0..DEFAULT_SECONDS)))
}

fn respond(call: &Call, body: Body) -> Response {
    let mut response = http::Response::new(body);
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, call.accept.stream_type());
    headers.insert(header::CACHE_CONTROL, http::HeaderValue::from_static("no-cache, private"));
    response
}
