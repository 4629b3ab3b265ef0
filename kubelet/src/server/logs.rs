//! `GET /containerLogs/{namespace}/{pod}/{container}`

use std::collections::HashMap;
use std::path::PathBuf;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::{SignedDuration, Timestamp};
use k8s_cri::v1 as cri;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{App, text};
use crate::cri::Cri;
use crate::logs::{self, Liveness, Options};
use crate::observed::{Observer, State as RunState};
use crate::pod;

struct Run {
    cri: Cri,
    id: String,
}

impl Liveness for Run {
    async fn running(&self) -> bool {
        let request = cri::ContainerStatusRequest { container_id: self.id.clone(), verbose: false };
        let status = self.cri.container_status(request).await.ok().and_then(|answer| answer.status);
        status.is_some_and(|status| status.state == cri::ContainerState::ContainerRunning as i32)
    }
}

/// The options of a query (v1.PodLogOptions).
fn options(query: &HashMap<String, String>, now: Timestamp) -> Result<(Options, bool), String> {
    let flag = |name: &str| matches!(query.get(name).map(String::as_str), Some("true" | "1" | "True" | "t"));
    let number = |name: &str| match query.get(name) {
        None => Ok(None),
        Some(text) => text.parse::<u64>().map(Some).map_err(|_| format!("invalid value for \"{name}\": {text:?}")),
    };
    let since = match (number("sinceSeconds")?, query.get("sinceTime")) {
        (Some(seconds), _) => {
            let seconds = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
            Some(now.saturating_sub(seconds).unwrap_or(Timestamp::MIN))
        }
        (None, Some(time)) => Some(time.parse().map_err(|_| format!("invalid value for \"sinceTime\": {time:?}"))?),
        (None, None) => None,
    };
    let options = Options {
        follow: flag("follow"),
        timestamps: flag("timestamps"),
        tail: number("tailLines")?,
        since,
        limit: number("limitBytes")?,
    };
    Ok((options, flag("previous")))
}

pub(super) async fn get(
    State(app): State<App>,
    Path((namespace, name, container)): Path<(String, String, String)>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let (options, previous) = match options(&query, app.shared.clock.now()) {
        Ok(options) => options,
        Err(why) => return text(StatusCode::BAD_REQUEST, why),
    };
    let (path, id) = match find(&app, &namespace, &name, &container, previous).await {
        Ok(found) => found,
        Err((code, why)) => return text(code, why),
    };
    let (sender, receiver) = mpsc::channel(16);
    let run = Run { cri: app.shared.cri.clone(), id };
    tokio::spawn(logs::read(path, options, run, app.changes.clone(), sender));
    ([(header::CONTENT_TYPE, "text/plain")], Body::from_stream(ReceiverStream::new(receiver))).into_response()
}

async fn find(
    app: &App,
    namespace: &str,
    name: &str,
    container: &str,
    previous: bool,
) -> Result<(PathBuf, String), (StatusCode, String)> {
    let not_found = || (StatusCode::NOT_FOUND, format!("pod \"{name}\" does not exist"));
    let found = app.pods.find(namespace, name).ok_or_else(not_found)?;
    if pod::container(&found, container).is_none() {
        return Err((StatusCode::NOT_FOUND, format!("container {container} not found in pod {name}")));
    }
    let observed = Observer::default().observe(&app.shared.cri, pod::uid(&found)).await;
    let observed = observed.map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    let mut runs = observed.instances.iter().filter(|run| run.name == container && run.state != RunState::Created);
    let run = if previous {
        let waiting =
            observed.latest(container).is_some_and(|latest| latest.ended() && will_restart(&found, container));
        // While the next run waits for its back-off, the one that ended is the previous one.
        let mut ended = runs.filter(|run| run.ended());
        let missing = || {
            (
                StatusCode::BAD_REQUEST,
                format!("previous terminated container \"{container}\" in pod \"{name}\" not found"),
            )
        };
        if waiting || observed.latest(container).is_some_and(|latest| !latest.ended()) {
            ended.next()
        } else {
            ended.nth(1)
        }
        .ok_or_else(missing)?
    } else {
        let waiting = || {
            (
                StatusCode::BAD_REQUEST,
                format!(
                    "container \"{container}\" in pod \"{name}\" is waiting to start: {}",
                    waiting_for(&found, container)
                ),
            )
        };
        runs.next().ok_or_else(waiting)?
    };
    Ok((PathBuf::from(&run.log_path), run.id.clone()))
}

fn status<'p>(
    found: &'p k8s_openapi::api::core::v1::Pod,
    container: &str,
) -> Option<&'p k8s_openapi::api::core::v1::ContainerStatus> {
    let status = found.status.as_ref()?;
    let mut all = status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten());
    all.find(|status| status.name == container)
}

/// Whether the container's status says that another run comes.
fn will_restart(found: &k8s_openapi::api::core::v1::Pod, container: &str) -> bool {
    status(found, container).and_then(|status| status.state.as_ref()).is_some_and(|state| state.waiting.is_some())
}

/// What the container's status says that it waits for; upstream says only the last part of it.
fn waiting_for(found: &k8s_openapi::api::core::v1::Pod, container: &str) -> String {
    let waiting = status(found, container).and_then(|status| status.state.as_ref()?.waiting.as_ref());
    match waiting.and_then(|waiting| waiting.reason.as_deref()) {
        Some(reason @ ("ErrImagePull" | "ImagePullBackOff")) => {
            if reason == "ErrImagePull" {
                "image can't be pulled".into()
            } else {
                "trying and failing to pull image".into()
            }
        }
        Some(reason) => reason.to_owned(),
        None => "ContainerCreating".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        let read = |text: &str| {
            let query = text
                .split('&')
                .filter_map(|pair| pair.split_once('='))
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .collect();
            options(&query, Timestamp::UNIX_EPOCH + SignedDuration::from_secs(100))
        };
        let (all, previous) =
            read("follow=true&previous=true&timestamps=true&tailLines=5&limitBytes=9&sinceSeconds=40").unwrap();
        assert!(previous && all.follow && all.timestamps);
        assert_eq!((all.tail, all.limit, all.since.map(Timestamp::as_second)), (Some(5), Some(9), Some(60)));
        assert!(read("tailLines=x").is_err() && read("tailLines=-1").is_err() && read("sinceTime=now").is_err());
        assert_eq!(read("").unwrap(), (Options::default(), false));
    }
}
