//! Pulls: manifest, configuration, layers in parallel; each layer is unpacked while it is downloaded.
//!
//! A download writes into the content store; the unpacker reads the same file behind it and gets its end only after the
//! digest was found right. Work is shared by locks on what is made: a blob, an unpacked chain.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read, Write},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{StatusCode, header::CONTENT_RANGE};
use http_body_util::BodyExt;
use parking_lot::{Condvar, Mutex};
use tokio::{sync::Semaphore, task::JoinSet, task::spawn_blocking, time::timeout};
use tracing::{info, warn};

use super::{
    Images, Inner,
    catalogue::ImageRecord,
    decompress,
    events::{Event, Meter, Sink, Step, tell},
    leases::Lease,
    manifest::{self, Descriptor, Document, ImageConfig, MAX_DOCUMENT, Manifest, Platform},
    reference::Reference,
    registry::{Credentials, Repository, Served},
};
use crate::{
    digest::{Digest, HashingReader},
    error::{Context, Error, Kind, Result},
};

/// As dockerd and containerd.
const PARALLEL_DOWNLOADS: usize = 3;
const ATTEMPTS: u32 = 5;
/// A download that brings nothing for this long is tried again.
const STALL_LIMIT: Duration = Duration::from_secs(60);
/// An index may point at an index.
const MAX_DEPTH: usize = 3;

/// Locks by name, forgotten when nobody holds them.
pub(crate) struct Locks<T> {
    map: Mutex<HashMap<Digest, Weak<T>>>,
}

impl<T: Default> Default for Locks<T> {
    fn default() -> Locks<T> {
        Locks { map: Mutex::new(HashMap::new()) }
    }
}

impl<T: Default> Locks<T> {
    pub fn of(&self, digest: &Digest) -> Arc<T> {
        let mut map = self.map.lock();
        if let Some(lock) = map.get(digest).and_then(Weak::upgrade) {
            return lock;
        }
        map.retain(|_, lock| lock.strong_count() > 0);
        let lock = Arc::new(T::default());
        map.insert(digest.clone(), Arc::downgrade(&lock));
        lock
    }
}

/// How an image is pulled.
#[derive(Clone, Default)]
pub struct PullOptions {
    pub credentials: Credentials,
    /// This machine's, if none is asked for.
    pub platform: Option<Platform>,
    pub events: Option<Sink>,
}

impl Images {
    /// Pulls an image by name. The same image pulled twice at once is pulled once. It goes on when the caller gives up:
    /// the kubelet comes back and finds what is there by then.
    pub async fn pull(&self, name: &str, credentials: Credentials) -> Result<Arc<ImageRecord>> {
        let (images, name) = (self.clone(), name.to_owned());
        let options = PullOptions { credentials, ..PullOptions::default() };
        tokio::spawn(async move { images.pull_with(&name, options).await }).await?
    }

    /// Pulls an image by name for any platform, telling how it goes on. Dropped, it ends: what others pull, too, they
    /// then pull themselves. What came so far is kept for the next for a while, unless it is of no use.
    pub async fn pull_with(&self, name: &str, options: PullOptions) -> Result<Arc<ImageRecord>> {
        let reference: Reference = name.parse()?;
        let mut remains = self.remains();
        // Dropped before the remains are.
        let lease = Arc::new(self.lease());
        let pulled = pull(&self.inner, &lease, &reference, options).await;
        match &pulled {
            Ok(_) => remains.recorded(),
            Err(error) if !is_passing(error) => remains.useless(),
            Err(_) => {}
        }
        pulled.map_err(|error| error.context(format!("failed to pull and unpack image \"{reference}\"")))
    }
}

async fn pull(
    inner: &Arc<Inner>,
    lease: &Arc<Lease>,
    reference: &Reference,
    options: PullOptions,
) -> Result<Arc<ImageRecord>> {
    let PullOptions { credentials, platform, events } = options;
    let repository = Arc::new(inner.registry.repository(reference, credentials)?);
    let wanted = platform.clone().unwrap_or_else(Platform::host);
    let Resolved { named, digest, manifest } = resolve(inner, lease, &repository, reference, &wanted).await?;
    if let Some(events) = &events {
        events(Event::Resolved { digest: named.clone() });
    }
    lease.add(manifest.blobs().map(|blob| blob.digest.clone()), []).await;
    fetch_small(inner, &repository, &manifest.config).await?;
    let config = ImageConfig::parse(&inner.content.read(&manifest.config.digest, MAX_DOCUMENT)?)?;
    config.check_layers(&manifest)?;
    if let Some(wanted) = platform
        && !config.platform().fits(&wanted)
    {
        return Err(Error::not_found(format!(
            "image with reference {reference} was found but does not match the specified platform: wanted {wanted}, actual: {}",
            config.platform()
        )));
    }
    let known = inner.catalogue.find(manifest.config.digest.as_str());
    let blobs = known.iter().flat_map(|known| known.blobs().cloned().collect::<Vec<_>>());
    lease.add(blobs, config.chain_ids()).await;
    fetch_layers(inner, lease, &repository, &manifest, &config, events.as_ref()).await?;
    let (inner, reference, lease) = (inner.clone(), reference.clone(), lease.clone());
    let record = move || {
        let _lease = lease;
        inner.record(&digest, &named, &manifest, &config, Some(&reference))
    };
    let record = spawn_blocking(record).await??;
    info!(image = %record.id, names = ?record.tags, "image pulled");
    Ok(record)
}

/// What a name stands for.
struct Resolved {
    /// The digest that the name has in the registry: the index's, where there is one.
    named: Digest,
    /// The manifest's own.
    digest: Digest,
    manifest: Manifest,
}

/// Finds the manifest for a platform and keeps what was read on the way.
async fn resolve(
    inner: &Inner,
    lease: &Lease,
    repository: &Repository,
    reference: &Reference,
    platform: &Platform,
) -> Result<Resolved> {
    let unresolved = |error: Error| {
        let name = if error.kind() == Kind::NotFound {
            format!("failed to resolve reference \"{reference}\": {reference}")
        } else {
            format!("failed to resolve reference \"{reference}\"")
        };
        error.context(name)
    };
    if let Some(resolved) = unchanged(inner, repository, reference, platform).await {
        return Ok(resolved);
    }
    let mut wanted = reference.manifest();
    let mut announced = None;
    let mut first = None;
    for _ in 0..MAX_DEPTH {
        let stored = wanted.parse().ok().filter(|digest| first.is_some() && inner.content.contains(digest));
        let served = match stored {
            // Of an index that the registry just gave out: it stands for the same bytes here.
            Some(digest) => {
                let bytes = inner.content.read(&digest, MAX_DOCUMENT)?;
                Served { bytes, media_type: String::new(), digest }
            }
            None => retry(|| repository.manifest(&wanted)).await.map_err(unresolved)?,
        };
        let size = served.bytes.len() as u64;
        if announced.is_some_and(|announced| announced != size) {
            return Err(Error::invalid(format!("manifest {wanted} has {size} bytes, its index says otherwise")));
        }
        let digest = Digest::of(&served.bytes);
        lease.add([digest.clone()], []).await;
        inner.content.put(&served.bytes)?;
        let named = first.get_or_insert(served.digest.clone()).clone();
        match manifest::parse(&served.bytes, &served.media_type)? {
            Document::Manifest(manifest) => {
                manifest.check_types()?;
                inner.check_layers(&manifest)?;
                return Ok(Resolved { named, digest, manifest });
            }
            Document::Index(index) => {
                let chosen = index.choose(platform)?;
                (wanted, announced) = (chosen.digest.to_string(), Some(chosen.size));
            }
        }
    }
    Err(Error::invalid("indexes are nested too deeply"))
}

/// What the name stands for if that is an image that is here already: the registry is asked for a digest then and for
/// nothing else. A registry that counts pulls counts none (Docker Hub's documentation, "pull usage").
async fn unchanged(
    inner: &Inner,
    repository: &Repository,
    reference: &Reference,
    platform: &Platform,
) -> Option<Resolved> {
    let named = reference.digest.as_ref().map_or_else(|| reference.to_string(), |digest| reference.with_digest(digest));
    let known = inner.catalogue.find(&named).filter(|known| inner.is_whole(known) && inner.has_blobs(known))?;
    // A registry that says nothing of it, or nothing at all, is asked as if nothing were here.
    let digest = repository.digest(&reference.manifest()).await.ok().flatten()?;
    let config = ImageConfig::parse(&inner.content.read(&known.id, MAX_DOCUMENT).ok()?).ok()?;
    let same = known.manifest == digest || known.repo_digests.contains(&reference.with_digest(&digest));
    if !same || !config.platform().fits(platform) {
        return None;
    }
    let (manifest_digest, _, manifest) = inner.manifest_of(&known).ok()?;
    Some(Resolved { named: digest, digest: manifest_digest, manifest })
}

/// Whether the next try may go better.
fn is_passing(error: &Error) -> bool {
    matches!(error.kind(), Kind::Unavailable | Kind::DeadlineExceeded)
}

/// Tries again what may be different the next time.
pub(super) async fn retry<T, F: Future<Output = Result<T>>>(attempt: impl Fn() -> F) -> Result<T> {
    let mut wait = Duration::from_millis(200);
    for _ in 1..ATTEMPTS {
        match attempt().await {
            // Nobody listens there, and nobody will in a second.
            Err(error) if is_passing(&error) && !error.to_string().contains("refused") => {
                warn!(%error, "trying again");
            }
            result => return result,
        }
        tokio::time::sleep(wait).await;
        wait *= 2;
    }
    attempt().await
}

async fn fetch_small(inner: &Arc<Inner>, repository: &Repository, descriptor: &Descriptor) -> Result<()> {
    if descriptor.size > MAX_DOCUMENT {
        return Err(Error::invalid(format!("image configuration is larger than {MAX_DOCUMENT} bytes")));
    }
    if !inner.content.contains(&descriptor.digest) {
        download(inner, repository, descriptor, &Arc::new(Progress::default()), None).await?;
    }
    Ok(())
}

/// Downloads and unpacks what is missing. A download of several answers that do not fit together is begun anew, once: the
/// registry may have given out something else in between (moby's `pull_v2.go`).
async fn fetch_layers(
    inner: &Arc<Inner>,
    lease: &Arc<Lease>,
    repository: &Arc<Repository>,
    manifest: &Manifest,
    config: &ImageConfig,
    events: Option<&Sink>,
) -> Result<()> {
    match try_layers(inner, lease, repository, manifest, config, events).await {
        Err((error, true)) => {
            warn!(%error, "layers whose downloads were broken are downloaded anew");
            try_layers(inner, lease, repository, manifest, config, events).await.map_err(|(error, _)| error)
        }
        result => result.map_err(|(error, _)| error),
    }
}

/// The same, without a second try; an error comes with whether a download was put together wrong.
async fn try_layers(
    inner: &Arc<Inner>,
    lease: &Arc<Lease>,
    repository: &Arc<Repository>,
    manifest: &Manifest,
    config: &ImageConfig,
    events: Option<&Sink>,
) -> std::result::Result<(), (Error, bool)> {
    let chains = config.chain_ids();
    // Its content stays, and the record with it: what is unpacked need not be fetched again in another form.
    let whole = inner.whole(&manifest.config.digest).is_some();
    let slots = Arc::new(Semaphore::new(PARALLEL_DOWNLOADS));
    let mut downloads = JoinSet::new();
    let mut steps = Vec::new();
    let mut started: HashMap<Digest, Arc<Progress>> = HashMap::new();
    for (index, layer) in manifest.layers.iter().enumerate() {
        let unpacked = inner.snapshots.has_layer(&chains[index]);
        if unpacked && (whole || inner.content.contains(&layer.digest)) {
            tell(events, &layer.digest, Step::Exists);
            continue;
        }
        tell(events, &layer.digest, Step::Waiting);
        // An image may have the same layer twice.
        let progress = started.entry(layer.digest.clone()).or_insert_with(|| {
            let progress = Arc::new(Progress::default());
            let (inner, repository, layer, slots, shared) =
                (inner.clone(), repository.clone(), layer.clone(), slots.clone(), progress.clone());
            let events = events.cloned();
            let given_up = GivenUp(progress.clone());
            downloads.spawn(async move {
                let _given_up = given_up;
                let _slot = slots.acquire_owned().await;
                let lock = inner.blob_locks.of(&layer.digest);
                let _held = lock.lock().await;
                let result = if inner.content.contains(&layer.digest) {
                    tell(events.as_ref(), &layer.digest, Step::Downloaded);
                    shared.present(&inner, &layer)
                } else {
                    download(&inner, &repository, &layer, &shared, events.as_ref()).await
                };
                if let Err(error) = &result {
                    shared.fail(&error.to_string());
                }
                result
            });
            progress
        });
        let parent = index.checked_sub(1).map(|parent| chains[parent].clone());
        steps.push((
            layer.clone(),
            config.rootfs.diff_ids[index].clone(),
            parent,
            chains[index].clone(),
            progress.clone(),
            unpacked,
        ));
    }
    let (unpacker, events) = (inner.clone(), events.cloned());
    // Held by the thread itself: it may still run when its pull was dropped.
    let lease = lease.clone();
    let unpack = spawn_blocking(move || {
        let _lease = lease;
        for (layer, diff_id, parent, chain, progress, unpacked) in steps {
            let lock = unpacker.chain_locks.of(&chain);
            let _held = lock.lock();
            let extracting = |current, total| Step::Extracting { current, total };
            let meter = Meter::new(events.clone(), &layer.digest, layer.size, extracting);
            let follower = Follower { progress, file: None, position: 0, meter };
            if unpacked {
                check_layer(follower, &layer, &diff_id)?;
            } else if !unpacker.snapshots.has_layer(&chain) {
                unpacker.unpack(follower, &layer, &diff_id, parent.as_ref(), &chain)?;
            }
            tell(events.as_ref(), &layer.digest, Step::Done);
        }
        Ok(())
    });
    let mut failure = None;
    while let Some(result) = downloads.join_next().await {
        if let Err(error) = result.map_err(Error::from).flatten() {
            // The first is the cause; the unpacker fails of it too.
            failure.get_or_insert(error);
        }
    }
    let unpacked: Result<()> = unpack.await.map_err(Error::from).flatten();
    let torn = started.values().any(|progress| progress.torn.load(Ordering::Relaxed));
    failure.map_or(unpacked, Err).map_err(|error| (error, torn))
}

/// Sees to it that a layer that is unpacked already came in a form that is the same unpacked: it will be saved and pushed
/// as this image's.
fn check_layer(stream: impl Read, layer: &Descriptor, diff_id: &Digest) -> Result<()> {
    let tar = HashingReader::new(decompress::reader(stream)?, diff_id.hasher());
    let (digest, _) = tar.finish().context("read layer")?;
    if digest == *diff_id { Ok(()) } else { Err(wrong_layer(layer, diff_id, &digest)) }
}

/// A layer that is not what the configuration says.
pub(super) fn wrong_layer(layer: &Descriptor, expected: &Digest, got: &Digest) -> Error {
    Error::invalid(format!(
        "wrong diff id calculated on extraction of layer {}: expected {expected}, got {got}",
        layer.digest
    ))
}

/// How far a download is, for whoever reads behind it.
#[derive(Default)]
pub(crate) struct Progress {
    state: Mutex<State>,
    changed: Condvar,
    /// It came in several answers, and they do not make what was asked for.
    torn: AtomicBool,
}

#[derive(Default)]
struct State {
    file: Option<File>,
    written: u64,
    /// Set once, at the end: verified, or why not.
    end: Option<std::result::Result<(), String>>,
}

impl Progress {
    fn begin(&self, file: File) {
        self.state.lock().file = Some(file);
        self.changed.notify_all();
    }

    fn advance(&self, count: u64) {
        self.state.lock().written += count;
        self.changed.notify_all();
    }

    fn finish(&self) {
        self.state.lock().end = Some(Ok(()));
        self.changed.notify_all();
    }

    fn fail(&self, why: &str) {
        self.state.lock().end.get_or_insert(Err(why.to_owned()));
        self.changed.notify_all();
    }

    /// The blob was there already.
    fn present(&self, inner: &Inner, layer: &Descriptor) -> Result<()> {
        let file = inner.content.open_blob(&layer.digest)?;
        let mut state = self.state.lock();
        state.written = file.metadata().context("stat content")?.len();
        state.file = Some(file);
        drop(state);
        self.finish();
        Ok(())
    }
}

/// Tells who reads behind a download that it was dropped before its end.
struct GivenUp(Arc<Progress>);

impl Drop for GivenUp {
    fn drop(&mut self) {
        self.0.fail("the pull was given up");
    }
}

/// Reads a file behind the download that writes it. Its end comes only after the digest was found right.
struct Follower {
    progress: Arc<Progress>,
    file: Option<File>,
    position: u64,
    meter: Meter,
}

impl Read for Follower {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = {
            let mut state = self.progress.state.lock();
            loop {
                if let Some(Err(why)) = &state.end {
                    return Err(io::Error::other(why.clone()));
                }
                if state.written > self.position {
                    break state.written - self.position;
                }
                if state.end.is_some() {
                    return Ok(0);
                }
                self.progress.changed.wait(&mut state);
            }
        };
        if self.file.is_none() {
            let state = self.progress.state.lock();
            self.file = state.file.as_ref().map(File::try_clone).transpose()?;
        }
        let file = self.file.as_ref().ok_or_else(|| io::Error::other("the download has no file"))?;
        let wanted = buffer.len().min(usize::try_from(available).unwrap_or(usize::MAX));
        // By position: the descriptor's own is shared with the others who follow.
        let count = std::os::unix::fs::FileExt::read_at(file, &mut buffer[..wanted], self.position)?;
        self.position += count as u64;
        self.meter.at(self.position);
        Ok(count)
    }
}

/// Downloads a blob into the content store, going on where a broken connection left off.
async fn download(
    inner: &Arc<Inner>,
    repository: &Repository,
    descriptor: &Descriptor,
    progress: &Arc<Progress>,
    events: Option<&Sink>,
) -> Result<()> {
    let downloading = |current, total| Step::Downloading { current, total };
    let mut meter = Meter::new(events.cloned(), &descriptor.digest, descriptor.size, downloading);
    let what = || format!("failed to copy: {}", descriptor.digest);
    let mut writer = inner.content.writer(Some(&descriptor.digest))?;
    progress.begin(File::open(writer.path()).context(what())?);
    let mut written = 0;
    let mut failures = 0;
    let mut resumed = false;
    while written < descriptor.size {
        let before = written;
        match transfer(repository, descriptor, &mut writer, &mut written, progress, &mut meter).await {
            Ok(()) => {}
            Err(error) if failures + 1 < ATTEMPTS && is_passing(&error) => {
                // As often as it likes, so long as something comes (containerd's `httpReadSeeker`).
                failures = if written > before { 1 } else { failures + 1 };
                resumed |= written > 0;
                warn!(blob = %descriptor.digest, %error, "the download is taken up again");
                tokio::time::sleep(Duration::from_millis(200 << failures)).await;
            }
            Err(error) => return Err(error.context(what())),
        }
    }
    let committed = writer.commit();
    progress.torn.store(resumed && committed.is_err(), Ordering::Relaxed);
    let (_, size) = committed.context(what())?;
    if size != descriptor.size {
        return Err(Error::invalid(format!("{}: {size} bytes instead of {}", what(), descriptor.size)));
    }
    // Before whoever unpacks it can be done with it.
    tell(events, &descriptor.digest, Step::Downloaded);
    progress.finish();
    Ok(())
}

/// One answer's worth of a blob.
async fn transfer(
    repository: &Repository,
    descriptor: &Descriptor,
    writer: &mut impl Write,
    written: &mut u64,
    progress: &Progress,
    meter: &mut Meter,
) -> Result<()> {
    let response = repository.blob(&descriptor.digest, *written).await?;
    let mut skip = match (response.status(), response.headers().get(CONTENT_RANGE)) {
        (StatusCode::PARTIAL_CONTENT, Some(range)) => {
            // `bytes FIRST-LAST/ALL`: what was asked for, or more.
            let first =
                range.to_str().ok().and_then(|range| range.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok());
            let skip = first.and_then(|first: u64| written.checked_sub(first));
            skip.ok_or_else(|| Error::invalid(format!("another range than that from {written} on came: {range:?}")))?
        }
        (StatusCode::PARTIAL_CONTENT, None) => 0,
        // A registry without ranges begins anew.
        _ => *written,
    };
    let mut body = response.into_body();
    loop {
        let frame = timeout(STALL_LIMIT, body.frame())
            .await
            .map_err(|_| Error::deadline(format!("nothing came for {STALL_LIMIT:?}")))?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| Error::unavailable(format!("connection broken: {error}")))?;
        let Ok(mut data) = frame.into_data() else { continue };
        let skipped = data.len().min(usize::try_from(skip).unwrap_or(usize::MAX));
        skip -= skipped as u64;
        let data = data.split_off(skipped);
        if *written + data.len() as u64 > descriptor.size {
            return Err(Error::invalid(format!("more than the announced {} bytes", descriptor.size)));
        }
        writer.write_all(&data).context("write content")?;
        *written += data.len() as u64;
        progress.advance(data.len() as u64);
        meter.at(*written);
    }
    if *written < descriptor.size { Err(Error::unavailable("connection closed early")) } else { Ok(()) }
}
