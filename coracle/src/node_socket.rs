//! Talking to an agent's socket.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{net::UnixStream, time::timeout};

/// How long an agent may take for an image.
const LOAD_LIMIT: Duration = Duration::from_secs(300);

/// Loads an image archive; returns the names of what was in it.
pub async fn load_image(socket: &Path, archive: Bytes) -> Result<Vec<String>> {
    let work = async {
        let stream = UnixStream::connect(socket).await.with_context(|| format!("connect to {}", socket.display()))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let request = Request::post("/images/load").header("host", "agent").body(Full::new(archive))?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        connection.abort();
        let answer: serde_json::Value = serde_json::from_slice(&body).context("the agent's answer is not JSON")?;
        if !status.is_success() {
            bail!("{}", answer["message"].as_str().unwrap_or("the agent refused"));
        }
        Ok(serde_json::from_value(answer["names"].clone())?)
    };
    timeout(LOAD_LIMIT, work).await.context("the agent did not answer in time")?
}
