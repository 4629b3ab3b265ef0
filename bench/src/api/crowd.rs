//! Ten thousand watchers of one resource: what they cost, and how soon all of them know.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt;
use serde_json::json;
use tokio::{sync::Notify, task::JoinSet};

use super::client::Target;

const JSON: &str = "application/json";
/// Streams on a connection: fewer than any server's limit.
const STREAMS: usize = 200;
const WITHIN: Duration = Duration::from_secs(60);

/// What came of it.
pub struct Told {
    /// From the write to the last watcher's event.
    pub all_within: Vec<Duration>,
}

/// Opens so many watches, then writes `events` times; `during` is run while all of them are open.
pub async fn tell(target: &Target, watchers: usize, events: usize, during: impl FnOnce()) -> Result<Told> {
    let mut writer = target.connect().await?;
    let path = "/api/v1/namespaces/default/configmaps";
    let (seen, all) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let mut tasks = JoinSet::new();
    for first in (0..watchers).step_by(STREAMS) {
        let connection = target.connect().await?;
        for _ in first..watchers.min(first + STREAMS) {
            let (mut connection, seen, all) = (connection.clone(), seen.clone(), all.clone());
            let watch = format!("{path}?watch=true&labelSelector=bench%3Dcrowd");
            let response = connection.open(Method::GET, &watch, JSON, Bytes::new()).await?;
            tasks.spawn(async move {
                let mut body = response.into_body();
                while let Some(Ok(frame)) = body.frame().await {
                    let Ok(data) = frame.into_data() else { continue };
                    let lines = data.iter().filter(|byte| **byte == b'\n').count();
                    if (seen.fetch_add(lines, Ordering::Relaxed) + lines).is_multiple_of(watchers) {
                        all.notify_one();
                    }
                }
            });
        }
    }
    let mut all_within = Vec::with_capacity(events);
    for number in 0..events {
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"number": number.to_string()},
            "metadata": {"name": format!("crowd-{number}"), "labels": {"bench": "crowd"}}});
        let start = Instant::now();
        writer.call(Method::POST, path, JSON, object.to_string().into()).await?;
        tokio::time::timeout(WITHIN, all.notified()).await.context("watchers were not told")?;
        all_within.push(start.elapsed());
    }
    during();
    tasks.abort_all();
    Ok(Told { all_within })
}
