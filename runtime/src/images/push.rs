//! Pushes: what the registry has not, then the manifest.

use futures::{StreamExt, TryStreamExt};
use parking_lot::Mutex;
use tracing::info;

use super::{
    Images, Inner,
    catalogue::ImageRecord,
    events::{Event, Meter, Sink, Step, tell},
    manifest::{self, Descriptor, Document, MAX_DOCUMENT, Manifest, OCI_MANIFEST},
    pull::retry,
    reference::Reference,
    registry::{Credentials, Repository, Source, Uploaded},
};
use crate::{
    digest::Digest,
    error::{Error, Result},
};

/// As dockerd.
const PARALLEL_UPLOADS: usize = 5;
/// Repositories that a layer is tried to be mounted from.
const MAX_SOURCES: usize = 3;

/// How an image is pushed.
#[derive(Clone, Default)]
pub struct PushOptions {
    pub credentials: Credentials,
    pub events: Option<Sink>,
}

/// What the registry has now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    pub tag: String,
    /// The manifest's.
    pub digest: Digest,
    /// The manifest's, in bytes.
    pub size: u64,
}

impl Images {
    /// Pushes the image that has this name to the registry that the name says.
    pub async fn push(&self, name: &str, options: PushOptions) -> Result<Pushed> {
        let reference: Reference = name.parse()?;
        let tag = reference
            .tag
            .clone()
            .filter(|_| reference.digest.is_none())
            .ok_or_else(|| Error::invalid("cannot push a digest reference"))?;
        let missing =
            || Error::not_found(format!("An image does not exist locally with the tag: {}", reference.name()));
        let image = self.find(&reference.to_string()).ok_or_else(missing)?;
        let _lease = self.lease_image(&image).await;
        let inner = &self.inner;
        let (digest, bytes, manifest) = inner.manifest_of(&image)?;
        let mut repository = inner.registry.writable_repository(&reference, options.credentials)?;
        for source in inner.sources(&manifest, &reference) {
            repository = repository.with_source(&source);
        }
        let blobs = manifest.layers.iter().map(|layer| (layer, true)).chain([(&manifest.config, false)]);
        // An image may have the same layer twice.
        let mut seen = std::collections::HashSet::new();
        let blobs: Vec<(&Descriptor, bool)> = blobs.filter(|(blob, _)| seen.insert(blob.digest.clone())).collect();
        for (blob, _) in blobs.iter().filter(|(_, layer)| *layer) {
            tell(options.events.as_ref(), &blob.digest, Step::Waiting);
        }
        let mut uploads = Vec::with_capacity(blobs.len());
        for (blob, layer) in blobs {
            uploads.push(inner.upload(&repository, &reference, blob, options.events.as_ref().filter(|_| layer)));
        }
        futures::stream::iter(uploads).buffer_unordered(PARALLEL_UPLOADS).try_collect::<Vec<()>>().await?;
        let media_type = if manifest.media_type.is_empty() { OCI_MANIFEST } else { &manifest.media_type };
        retry(|| repository.put_manifest(&tag, media_type, &bytes)).await?;
        if let Some(events) = &options.events {
            events(Event::Resolved { digest: digest.clone() });
        }
        inner.catalogue.add(ImageRecord {
            tags: vec![],
            repo_digests: vec![reference.with_digest(&digest)],
            ..(*image).clone()
        })?;
        info!(%reference, %digest, "image pushed");
        Ok(Pushed { tag, digest, size: bytes.len() as u64 })
    }
}

impl Inner {
    /// The image's manifest: digest, bytes, and what they say.
    pub fn manifest_of(&self, image: &ImageRecord) -> Result<(Digest, Vec<u8>, Manifest)> {
        let bytes = self.content.read(&image.manifest, MAX_DOCUMENT)?;
        match manifest::parse(&bytes, "")? {
            Document::Manifest(manifest) => Ok((image.manifest.clone(), bytes, manifest)),
            Document::Index(_) => Err(Error::internal(format!("image {} is recorded with an index", image.id))),
        }
    }

    /// Repositories of the same registry that have one of the layers, as far as is known here.
    fn sources(&self, manifest: &Manifest, target: &Reference) -> Vec<String> {
        let mut out = Vec::new();
        for layer in &manifest.layers {
            for source in self.sources_of(&layer.digest, target) {
                if !out.contains(&source) && out.len() < MAX_SOURCES {
                    out.push(source);
                }
            }
        }
        out
    }

    fn sources_of(&self, layer: &Digest, target: &Reference) -> Vec<String> {
        let images = self.catalogue.list();
        let names = images.iter().filter(|image| image.layers.contains(layer)).flat_map(|image| &image.repo_digests);
        let references = names.filter_map(|name| name.parse::<Reference>().ok());
        let mut out: Vec<String> = references
            .filter(|reference| reference.registry == target.registry && reference.repository != target.repository)
            .map(|reference| reference.repository)
            .collect();
        out.dedup();
        out.truncate(MAX_SOURCES);
        out
    }

    async fn upload(
        &self,
        repository: &Repository,
        target: &Reference,
        blob: &Descriptor,
        events: Option<&Sink>,
    ) -> Result<()> {
        let source = Source {
            digest: blob.digest.clone(),
            size: blob.size,
            path: self.content.path(&blob.digest),
            mount_from: if events.is_some() { self.sources_of(&blob.digest, target) } else { Vec::new() },
        };
        let uploading = |current, total| Step::Uploading { current, total };
        let meter = Mutex::new(Meter::new(events.cloned(), &blob.digest, blob.size, uploading));
        let uploaded = retry(|| repository.upload(&source, |at| meter.lock().at(at))).await?;
        let step = match uploaded {
            Uploaded::Existed => Step::Exists,
            Uploaded::Mounted { from } => Step::Mounted { from },
            Uploaded::Sent => Step::Done,
        };
        tell(events, &blob.digest, step);
        Ok(())
    }
}
