//! The agent's own socket, for who manages the node: `POST /images/load` takes an image archive.

use std::{fs, io, os::unix::fs::PermissionsExt, path::Path, sync::Arc};

use anyhow::{Context, Result};
use axum::{Json, Router, body::Body, extract::State, http::StatusCode, response::IntoResponse, routing::post};
use coracle_runtime::Runtime;
use futures::TryStreamExt;
use serde_json::json;
use tokio::net::UnixListener;
use tokio_util::{
    io::{StreamReader, SyncIoBridge},
    sync::CancellationToken,
};

/// Serves at `path`, mode 0600, until `stop`.
pub async fn serve(path: &Path, runtime: Arc<Runtime>, stop: CancellationToken) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("remove {}", path.display()));
        }
        _ => {}
    }
    let listener = UnixListener::bind(path).with_context(|| format!("listen at {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
        .with_context(|| format!("protect {}", path.display()))?;
    let router = Router::new().route("/images/load", post(load)).with_state(runtime);
    Ok(axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await?)
}

async fn load(State(runtime): State<Arc<Runtime>>, body: Body) -> impl IntoResponse {
    let stream = StreamReader::new(body.into_data_stream().map_err(io::Error::other));
    // The archive is read as it comes; nothing of it is held in memory.
    match runtime.images().import(SyncIoBridge::new(stream), None).await {
        Ok(images) => {
            let names: Vec<_> = images.iter().flat_map(|image| image.tags.iter().cloned()).collect();
            (StatusCode::OK, Json(json!({"names": names})))
        }
        Err(error) => (StatusCode::BAD_REQUEST, Json(json!({"message": error.to_string()}))),
    }
}
