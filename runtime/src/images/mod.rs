//! Images: how they get here (import, pull, pack), what is known about them, how they go.
//!
//! ```text
//! registry / tar / bytes ─→ content store (blobs by digest) ─→ snapshotter (layers by chain id)
//!                                   └─→ catalogue (records by image id, in redb)
//! ```
//!
//! An image's id is the digest of its configuration. A record is written last: what it names is there.

mod ahead;
pub mod build_cache;
pub mod catalogue;
pub mod decompress;
pub mod events;
pub mod import;
pub mod layers;
mod leases;
mod login;
pub mod manifest;
mod mend;
pub mod pack;
mod platform;
pub mod pull;
pub mod push;
pub mod reference;
pub mod registry;
pub mod save;

use std::{io::Read, path::Path, sync::Arc};

use coracle_link::Place;
use tracing::warn;

pub use self::leases::Hold;
use self::{
    ahead::ReadAhead,
    build_cache::BuildCache,
    catalogue::{Catalogue, ImageRecord},
    manifest::{Descriptor, ImageConfig, MAX_DOCUMENT, Manifest},
    pack::PackedImage,
    reference::Reference,
    registry::{Registries, RegistryClient},
};
use crate::{
    content::ContentStore,
    digest::{Digest, HashingReader},
    error::{Context, Error, Result},
    snapshots::{
        Snapshotter,
        apply::{self, Limits},
    },
};

/// The images of one data directory. Cheap to clone.
#[derive(Clone)]
pub struct Images {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub content: ContentStore,
    pub snapshots: Arc<dyn Snapshotter>,
    pub catalogue: Catalogue,
    pub build_cache: BuildCache,
    pub limits: Limits,
    pub registry: RegistryClient,
    pub blob_locks: pull::Locks<tokio::sync::Mutex<()>>,
    pub chain_locks: pull::Locks<parking_lot::Mutex<()>>,
    leases: leases::Leases,
}

/// What a removal took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Names that stand for nothing now.
    pub names: Vec<String>,
    /// The image, if it went with its last name, and the unpacked layers (by chain id) that went with it.
    pub image: Option<Digest>,
    pub layers: Vec<Digest>,
}

impl Images {
    /// Opens content, records and layers below `data_dir`.
    pub fn open(
        data_dir: &Path,
        snapshots: Arc<dyn Snapshotter>,
        place: Place,
        registries: Registries,
        limits: Limits,
    ) -> Result<Images> {
        let content = ContentStore::open(&data_dir.join("content"))?;
        let catalogue = Catalogue::open(&data_dir.join("images.redb"))?;
        let build_cache = BuildCache::open(catalogue.database())?;
        let registry = RegistryClient::new(place, registries)?;
        let inner = Inner {
            content,
            snapshots,
            catalogue,
            build_cache,
            limits,
            registry,
            blob_locks: pull::Locks::default(),
            chain_locks: pull::Locks::default(),
            leases: leases::Leases::default(),
        };
        Ok(Images { inner: Arc::new(inner) })
    }

    /// What of layers, archives and build contexts is too much.
    pub fn limits(&self) -> Limits {
        self.inner.limits
    }

    /// What builds made and may make use of again.
    pub fn build_cache(&self) -> &BuildCache {
        &self.inner.build_cache
    }

    /// Asks any web server for something, on behalf of a build; redirects are followed.
    pub async fn fetch(&self, url: &str) -> Result<http::Response<hyper::body::Incoming>> {
        self.inner.registry.fetch(url).await
    }

    /// Every image.
    pub fn list(&self) -> Vec<Arc<ImageRecord>> {
        self.inner.catalogue.list()
    }

    /// Finds an image by id, by a unique beginning of one, or by any of its names.
    pub fn find(&self, name: &str) -> Option<Arc<ImageRecord>> {
        self.inner.catalogue.find(name)
    }

    /// The image's configuration.
    pub fn config(&self, image: &ImageRecord) -> Result<ImageConfig> {
        ImageConfig::parse(&self.inner.content.read(&image.id, MAX_DOCUMENT)?)
    }

    /// Makes `name` another name of the image; it moves there if it was another's.
    pub fn tag(&self, image: &str, name: &str) -> Result<Arc<ImageRecord>> {
        let reference: Reference = name.parse()?;
        let tag = reference
            .tagged()
            .filter(|_| reference.digest.is_none())
            .ok_or_else(|| Error::invalid("refusing to create a tag with a digest reference"))?;
        let image = self.find(image).ok_or_else(|| Error::not_found(format!("No such image: {image}")))?;
        self.inner.catalogue.add(ImageRecord { tags: vec![tag], repo_digests: vec![], ..(*image).clone() })
    }

    /// Bytes that the image's layers take unpacked.
    pub fn unpacked_size(&self, image: &ImageRecord) -> u64 {
        image.chains.iter().map(|chain| self.inner.snapshots.layer_usage(chain).content).sum()
    }

    /// Reads a docker-archive or an OCI layout as a tar stream, compressed or not; returns the images in it. `name` is
    /// for a layout whose index gives a tag only, or nothing.
    pub async fn import(
        &self,
        reader: impl Read + Send + 'static,
        name: Option<&str>,
    ) -> Result<Vec<Arc<ImageRecord>>> {
        let (inner, name) = (self.inner.clone(), name.map(str::to_owned));
        let hold = self.hold().await;
        let result = tokio::task::spawn_blocking(move || import::import(&inner, reader, name.as_deref())).await?;
        drop(hold);
        Ok(result?.into_iter().map(|loaded| loaded.image).collect())
    }

    /// The same, with the names that each image was given.
    pub async fn load(&self, reader: impl Read + Send + 'static) -> Result<Vec<import::Loaded>> {
        let inner = self.inner.clone();
        let hold = self.hold().await;
        let result = tokio::task::spawn_blocking(move || import::import(&inner, reader, None)).await?;
        drop(hold);
        result
    }

    /// Reads an OCI layout directory.
    pub async fn import_layout(&self, dir: &Path, name: Option<&str>) -> Result<Vec<Arc<ImageRecord>>> {
        let (inner, name, dir) = (self.inner.clone(), name.map(str::to_owned), dir.to_owned());
        let hold = self.hold().await;
        let result =
            tokio::task::spawn_blocking(move || import::import_directory(&inner, &dir, name.as_deref())).await?;
        drop(hold);
        Ok(result?.into_iter().map(|loaded| loaded.image).collect())
    }

    /// Makes an image of one layer from bytes. The same bytes give the same image.
    pub async fn pack(&self, name: &str, image: PackedImage) -> Result<Arc<ImageRecord>> {
        let reference: Reference = name.parse()?;
        let inner = self.inner.clone();
        let hold = self.hold().await;
        let result = tokio::task::spawn_blocking(move || pack::pack(&inner, &reference, &image)).await?;
        drop(hold);
        result
    }

    /// Removes a name, or by id the image with all its names; content that nothing needs goes too. `in_use` gives the
    /// layers (chain ids) of all containers; it is asked when no container can be made any more.
    pub async fn remove(&self, name: &str, in_use: impl FnOnce() -> Vec<Digest> + Send + 'static) -> Result<Removed> {
        let mut removed = self.inner.catalogue.remove(name, false)?;
        removed.layers = self.collect(in_use).await?;
        Ok(removed)
    }

    /// Removes a name and leaves the image, without one if it was its last.
    pub fn untag(&self, name: &str) -> Result<Removed> {
        self.inner.catalogue.remove(name, true)
    }

    /// Drops content and layers that no image, no container and no pull needs; returns the layers. While something is
    /// being added ([`Images::hold`]), it is put off until that is done, and nothing is returned.
    pub async fn collect(&self, in_use: impl FnOnce() -> Vec<Digest> + Send + 'static) -> Result<Vec<Digest>> {
        let Some(_guard) = self.inner.leases.exclusively() else { return Ok(vec![]) };
        let inner = self.inner.clone();
        tokio::task::spawn_blocking(move || inner.sweep(&in_use())).await?
    }
}

impl Inner {
    /// Unpacks what is missing of an image and writes its record.
    pub fn register(
        &self,
        manifest_digest: &Digest,
        manifest: &Manifest,
        reference: Option<&Reference>,
    ) -> Result<Arc<ImageRecord>> {
        let config = ImageConfig::parse(&self.content.read(&manifest.config.digest, MAX_DOCUMENT)?)?;
        config.check_layers(manifest)?;
        self.unpack_missing(manifest, &config)?;
        self.record(manifest_digest, manifest_digest, manifest, &config, reference)
    }

    /// Unpacks the layers that are not, from the content that is there.
    fn unpack_missing(&self, manifest: &Manifest, config: &ImageConfig) -> Result<()> {
        let chains = config.chain_ids();
        for (index, layer) in manifest.layers.iter().enumerate() {
            if self.snapshots.has_layer(&chains[index]) {
                continue;
            }
            let blob = self.content.open_blob(&layer.digest)?;
            let parent = index.checked_sub(1).map(|parent| &chains[parent]);
            self.unpack(blob, layer, &config.rootfs.diff_ids[index], parent, &chains[index])?;
        }
        Ok(())
    }

    /// Unpacks one layer from its (compressed) stream, which is read to its end.
    pub fn unpack(
        &self,
        stream: impl Read + Send,
        layer: &Descriptor,
        diff_id: &Digest,
        parent: Option<&Digest>,
        chain: &Digest,
    ) -> Result<()> {
        let what = || format!("failed to extract layer {diff_id}");
        let draft = self.snapshots.draft(parent).context(what())?;
        let unpacked = std::thread::scope(|scope| {
            let inflated = ReadAhead::start(scope, || decompress::open(stream))?;
            let mut tar = HashingReader::new(inflated, diff_id.hasher());
            apply::apply(&mut tar, &draft, self.limits)?;
            tar.finish().context("read layer")
        });
        let (digest, _) = unpacked.context(what())?;
        if digest != *diff_id {
            return Err(pull::wrong_layer(layer, diff_id, &digest));
        }
        self.snapshots.commit(draft, parent, chain).context(what())
    }

    /// Writes the record of an image whose layers are there; `named` is what the reference stands for. An image that is
    /// known by another manifest keeps that one if all of its content is there: the layers of this may not be.
    pub fn record(
        &self,
        manifest_digest: &Digest,
        named: &Digest,
        manifest: &Manifest,
        config: &ImageConfig,
        reference: Option<&Reference>,
    ) -> Result<Arc<ImageRecord>> {
        self.check_layers(manifest)?;
        // The manifest counts, and an index above it (containerd's `core/images/usage`, WithManifestUsage).
        let above = if named == manifest_digest { vec![named] } else { vec![named, manifest_digest] };
        let documents = above.into_iter().filter_map(|digest| self.content.open_blob(digest).ok()?.metadata().ok());
        let documents: u64 = documents.map(|metadata| metadata.len()).sum();
        let mut record = ImageRecord {
            id: manifest.config.digest.clone(),
            manifest: manifest_digest.clone(),
            layers: manifest.layers.iter().map(|layer| layer.digest.clone()).collect(),
            chains: config.chain_ids(),
            size: manifest.layers.iter().map(|layer| layer.size).sum::<u64>() + manifest.config.size + documents,
            user: config.config.user.clone(),
            tags: reference.and_then(Reference::tagged).into_iter().collect(),
            repo_digests: reference.map(|reference| reference.with_digest(named)).into_iter().collect(),
            created: jiff::Timestamp::now().to_string(),
            pinned: false,
        };
        if let Some(known) = self.whole(&manifest.config.digest).filter(|_| !self.has_blobs(&record)) {
            record.manifest = known.manifest.clone();
            record.layers = known.layers.clone();
            record.size = known.size;
        }
        // A record must never stand for content or layers that a power loss took.
        self.content.settle()?;
        self.snapshots.settle()?;
        self.catalogue.add(record)
    }

    /// Whether an image has more layers than it may.
    pub fn check_layers(&self, manifest: &Manifest) -> Result<()> {
        match self.limits.layers {
            most if manifest.layers.len() > most => {
                Err(Error::invalid(format!("max depth exceeded: image has more than {most} layers")))
            }
            _ => Ok(()),
        }
    }

    /// The image of an id, if it is there with everything that is needed to save and to push it.
    fn whole(&self, id: &Digest) -> Option<Arc<ImageRecord>> {
        self.catalogue.find(id.as_str()).filter(|image| self.has_blobs(image))
    }

    fn has_blobs(&self, image: &ImageRecord) -> bool {
        image.blobs().all(|blob| self.content.contains(blob))
    }

    fn sweep(&self, in_use: &[Digest]) -> Result<Vec<Digest>> {
        let (leased_blobs, leased_chains) = self.leases.leased();
        let images = self.catalogue.list();
        let mut blobs: std::collections::HashSet<Digest> = leased_blobs.into_iter().collect();
        let mut chains: std::collections::HashSet<Digest> = leased_chains.into_iter().collect();
        for image in &images {
            blobs.extend(image.blobs().cloned());
            chains.extend(image.chains.iter().cloned());
        }
        let (kept_blobs, kept_chains) = self.build_cache.kept();
        blobs.extend(kept_blobs);
        chains.extend(kept_chains);
        // Layers of images that are gone by name but not by use are remembered by the containers themselves.
        chains.extend(in_use.iter().cloned());
        let mut removed = Vec::new();
        for chain in self.snapshots.layers() {
            if chains.contains(&chain) {
                continue;
            }
            match self.snapshots.remove_layer(&chain) {
                Ok(()) => removed.push(chain),
                Err(error) => warn!(%chain, %error, "cannot remove a layer"),
            }
        }
        for digest in self.content.digests() {
            if !blobs.contains(&digest) {
                self.content.remove(&digest)?;
            }
        }
        Ok(removed)
    }

    /// Stores a stream whose length and digest are known.
    pub fn store_exact(&self, mut stream: impl Read, descriptor: &Descriptor) -> Result<()> {
        if self.content.contains(&descriptor.digest) {
            return Ok(());
        }
        let mut writer = self.content.writer(Some(&descriptor.digest))?;
        let count = std::io::copy(&mut (&mut stream).take(descriptor.size.saturating_add(1)), &mut writer)
            .context(format!("store content {}", descriptor.digest))?;
        if count != descriptor.size {
            return Err(Error::invalid(format!(
                "content {} has not the announced {} bytes",
                descriptor.digest, descriptor.size
            )));
        }
        writer.commit().map(drop)
    }
}
