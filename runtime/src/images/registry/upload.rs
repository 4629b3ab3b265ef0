//! Writing to a registry: blobs and manifests (OCI distribution specification 1.1, "Push").

use std::{
    fs::File,
    io::{Seek, SeekFrom},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::StreamExt;
use http::{
    HeaderName, Method, Response, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE},
};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use tokio_util::io::ReaderStream;
use tracing::warn;

use super::{
    Body,
    repository::{Call, Endpoint, Repository, refusal, unexpected},
};
use crate::{
    digest::Digest,
    error::{Context, Error, Kind, Result},
};

const ATTEMPTS: u32 = 5;
/// An upload that takes nothing for this long is tried again.
const STALL_LIMIT: Duration = Duration::from_secs(60);
const READ_SIZE: usize = 256 << 10;

/// A blob to upload.
pub struct Source {
    pub digest: Digest,
    pub size: u64,
    pub path: PathBuf,
    /// Repositories of the same registry that have it, to be mounted from.
    pub mount_from: Vec<String>,
}

/// How a blob came to be in the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Uploaded {
    Existed,
    Mounted { from: String },
    Sent,
}

impl Repository {
    /// Puts a blob into the repository if it is not there; `sent` hears how many bytes are on their way.
    pub async fn upload(&self, source: &Source, sent: impl Fn(u64) + Send + Sync) -> Result<Uploaded> {
        let endpoint = self.origin()?;
        if self.has_blob(endpoint, &source.digest).await? {
            return Ok(Uploaded::Existed);
        }
        for from in &source.mount_from {
            let query = format!("?mount={}&from={from}", source.digest);
            let response = self.begin(endpoint, &query).await?;
            if response.status() == StatusCode::CREATED {
                return Ok(Uploaded::Mounted { from: from.clone() });
            }
            // Not mounted, but an upload has begun.
            if let Ok(location) = location(endpoint, &endpoint.base(), &response) {
                self.send_blob(endpoint, location, source, &sent).await?;
                return Ok(Uploaded::Sent);
            }
        }
        let response = self.begin(endpoint, "").await?;
        let location = location(endpoint, &endpoint.base(), &response)?;
        self.send_blob(endpoint, location, source, &sent).await.map(|()| Uploaded::Sent)
    }

    /// Puts a manifest under a tag or its digest.
    pub async fn put_manifest(&self, name: &str, media_type: &str, bytes: &[u8]) -> Result<()> {
        let endpoint = self.origin()?;
        let content = bytes::Bytes::copy_from_slice(bytes);
        let body = move || Full::new(content.clone()).map_err(|never| match never {}).boxed_unsync();
        let call = Call {
            method: Method::PUT,
            uri: format!("{}/manifests/{name}", endpoint.base()),
            headers: vec![(CONTENT_TYPE, media_type.to_owned())],
            body: Some(&body),
        };
        let response = self.call(endpoint, &call).await?;
        if response.status().is_success() { Ok(()) } else { Err(refusal("put the manifest", response).await) }
    }

    async fn has_blob(&self, endpoint: &Endpoint, digest: &Digest) -> Result<bool> {
        let uri = format!("{}/blobs/{digest}", endpoint.base());
        let call = Call { method: Method::HEAD, uri, headers: vec![], body: None };
        let response = self.call(endpoint, &call).await?;
        match response.status() {
            status if status.is_success() => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            // An answer to HEAD has no body to say more.
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Err(Error::denied("denied: requested access to the resource is denied"))
            }
            _ => Err(Error::unavailable(unexpected(&call.method, &call.uri, response).await)),
        }
    }

    async fn begin(&self, endpoint: &Endpoint, query: &str) -> Result<Response<Incoming>> {
        let uri = format!("{}/blobs/uploads/{query}", endpoint.base());
        let headers = vec![(CONTENT_LENGTH, "0".to_owned())];
        let response = self.call(endpoint, &Call { method: Method::POST, uri, headers, body: None }).await?;
        if response.status().is_success() { Ok(response) } else { Err(refusal("begin an upload", response).await) }
    }

    /// Streams a blob into an upload; after a broken connection it asks how much arrived and goes on there.
    async fn send_blob(
        &self,
        endpoint: &Endpoint,
        mut location: String,
        source: &Source,
        sent: &(impl Fn(u64) + Send + Sync),
    ) -> Result<()> {
        let what = || format!("failed to push {}", source.digest);
        let mut offset = 0;
        for attempt in 1.. {
            match self.send_from(endpoint, &location, source, offset, sent).await {
                Ok(next) => {
                    location = next;
                    break;
                }
                Err(error)
                    if attempt < ATTEMPTS && matches!(error.kind(), Kind::Unavailable | Kind::DeadlineExceeded) =>
                {
                    warn!(blob = %source.digest, %error, "the upload is taken up again");
                    tokio::time::sleep(Duration::from_millis(200 << attempt)).await;
                    (location, offset) = self.resume(endpoint, &location).await.context(what())?;
                }
                Err(error) => return Err(error.context(what())),
            }
        }
        let separator = if location.contains('?') { '&' } else { '?' };
        let uri = format!("{location}{separator}digest={}", source.digest);
        let headers = vec![(CONTENT_LENGTH, "0".to_owned())];
        let response = self.call(endpoint, &Call { method: Method::PUT, uri, headers, body: None }).await?;
        if response.status().is_success() { Ok(()) } else { Err(refusal(&what(), response).await) }
    }

    /// One PATCH with everything from `offset` on; the address to go on with.
    async fn send_from(
        &self,
        endpoint: &Endpoint,
        address: &str,
        source: &Source,
        offset: u64,
        sent: &(impl Fn(u64) + Send + Sync),
    ) -> Result<String> {
        if offset >= source.size && source.size > 0 {
            return Ok(address.to_owned());
        }
        let mut headers: Vec<(HeaderName, String)> = vec![
            (CONTENT_TYPE, "application/octet-stream".into()),
            (CONTENT_LENGTH, (source.size - offset).to_string()),
        ];
        if offset > 0 {
            headers.push((CONTENT_RANGE, format!("{offset}-{}", source.size - 1)));
        }
        let position = Arc::new(AtomicU64::new(offset));
        let body = || stream(source, offset, position.clone());
        let call = Call { method: Method::PATCH, uri: address.to_owned(), headers, body: Some(&body) };
        let answer = self.call(endpoint, &call);
        tokio::pin!(answer);
        let mut seen = (offset, tokio::time::Instant::now());
        let mut ticks = tokio::time::interval(Duration::from_millis(100));
        let response = loop {
            tokio::select! {
                response = &mut answer => break response?,
                now = ticks.tick() => {
                    let at = position.load(Ordering::Relaxed);
                    sent(at);
                    if at != seen.0 {
                        seen = (at, now);
                    } else if now - seen.1 > STALL_LIMIT {
                        return Err(Error::deadline(format!("nothing was taken for {STALL_LIMIT:?}")));
                    }
                }
            }
        };
        if !response.status().is_success() {
            return Err(refusal("send the blob", response).await);
        }
        sent(source.size);
        location(endpoint, address, &response)
    }

    /// Where an upload stands; one that the registry has forgotten begins anew.
    async fn resume(&self, endpoint: &Endpoint, address: &str) -> Result<(String, u64)> {
        let call = Call { method: Method::GET, uri: address.to_owned(), headers: vec![], body: None };
        let response = self.call(endpoint, &call).await?;
        if !response.status().is_success() {
            let response = self.begin(endpoint, "").await?;
            return Ok((location(endpoint, &endpoint.base(), &response)?, 0));
        }
        let range = response.headers().get(RANGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let last = range.trim_start_matches("bytes=").split_once('-').and_then(|(_, last)| last.parse::<u64>().ok());
        // "0-0" is what registries say of an upload that has nothing yet, and of one that has a byte.
        let offset = last.filter(|&last| last > 0).map_or(0, |last| last.saturating_add(1));
        let next = location(endpoint, address, &response).unwrap_or_else(|_| address.to_owned());
        Ok((next, offset))
    }
}

fn location(endpoint: &Endpoint, from: &str, response: &Response<Incoming>) -> Result<String> {
    let value = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let value = value.ok_or_else(|| Error::unavailable("the registry named no place to upload to"))?;
    endpoint.absolute(from, value, false)
}

/// The blob from `offset` on, read as the connection takes it.
fn stream(source: &Source, offset: u64, position: Arc<AtomicU64>) -> Body {
    position.store(offset, Ordering::Relaxed);
    let file = File::open(&source.path).and_then(|mut file| file.seek(SeekFrom::Start(offset)).map(|_| file));
    let frames = match file {
        Ok(file) => ReaderStream::with_capacity(tokio::fs::File::from_std(file), READ_SIZE)
            .map(move |chunk| {
                let chunk = chunk?;
                position.fetch_add(chunk.len() as u64, Ordering::Relaxed);
                Ok(Frame::data(chunk))
            })
            .boxed(),
        Err(error) => futures::stream::iter([Err(error)]).boxed(),
    };
    StreamBody::new(frames).boxed_unsync()
}
