//! Images made here out of layers: what a build or a commit adds, and how an image came about.

use std::{io::Read, sync::Arc};

use super::{
    Images, Inner,
    catalogue::ImageRecord,
    decompress,
    import::register_named,
    manifest::{Descriptor, History, ImageConfig, MAX_DOCUMENT, Manifest, OCI_CONFIG, OCI_LAYER, OCI_MANIFEST},
};
use crate::{
    digest::{Digest, Hasher, HashingReader},
    error::{Context, Error, Result},
};

/// A layer in the content store.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct StoredLayer {
    pub descriptor: Descriptor,
    /// The digest of the uncompressed tar.
    pub diff_id: Digest,
}

/// One line of `docker history`, newest first.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryEntry {
    pub history: History,
    /// Bytes that it added, unpacked.
    pub size: u64,
}

impl Images {
    /// Stores a layer from a tar stream, compressed or not. It is dropped by the next collection if no image takes it:
    /// keep a [`super::Hold`] until then.
    pub async fn store_layer(&self, reader: impl Read + Send + 'static) -> Result<StoredLayer> {
        let inner = self.inner.clone();
        tokio::task::spawn_blocking(move || inner.store_layer(reader)).await?
    }

    /// A directory for files that are dropped at the next start, if not before.
    pub fn spool_dir(&self) -> Result<std::path::PathBuf> {
        self.inner.content.spool_dir()
    }

    /// Stores a layer that `write` writes as an uncompressed tar. For a thread that may block.
    pub fn write_layer(&self, write: impl FnOnce(&mut dyn std::io::Write) -> Result<()>) -> Result<StoredLayer> {
        let mut writer = std::io::BufWriter::with_capacity(1 << 17, self.inner.content.writer(None)?);
        write(&mut writer)?;
        let writer = writer.into_inner().map_err(|error| error.into_error()).context("write a layer")?;
        let (digest, size) = writer.commit()?;
        Ok(StoredLayer { descriptor: descriptor(OCI_LAYER, digest.clone(), size), diff_id: digest })
    }

    /// Unpacks a stored layer over `parent`, if it is not. For a thread that may block.
    pub fn unpack_layer(&self, layer: &StoredLayer, parent: Option<&Digest>, chain: &Digest) -> Result<()> {
        if self.inner.snapshots.has_layer(chain) {
            return Ok(());
        }
        let blob = self.inner.content.open_blob(&layer.descriptor.digest)?;
        self.inner.unpack(blob, &layer.descriptor, &layer.diff_id, parent, chain)
    }

    /// Unpacks a stored layer into a directory that becomes no layer. For a thread that may block.
    pub fn unpack_into(&self, layer: &StoredLayer, draft: &crate::snapshots::Draft) -> Result<()> {
        let blob = self.inner.content.open_blob(&layer.descriptor.digest)?;
        crate::snapshots::apply::apply(blob, draft, self.inner.limits).context("lay out files")
    }

    /// Stores a configuration; its digest is the image's id.
    pub fn store_config(&self, config: &ImageConfig) -> Result<Digest> {
        let bytes = serde_json::to_vec(config)
            .map_err(|error| Error::internal(format!("encode image configuration: {error}")))?;
        self.inner.content.put(&bytes)
    }

    /// A stored configuration.
    pub fn stored_config(&self, id: &Digest) -> Result<ImageConfig> {
        ImageConfig::parse(&self.inner.content.read(id, MAX_DOCUMENT)?)
    }

    /// Whether everything of an image that is not recorded is there.
    pub fn has_content(&self, id: &Digest, layers: &[StoredLayer], chains: &[Digest]) -> bool {
        self.inner.content.contains(id)
            && layers.iter().all(|layer| self.inner.content.contains(&layer.descriptor.digest))
            && chains.iter().all(|chain| self.inner.snapshots.has_layer(chain))
    }

    /// Records an image whose configuration and layers are stored; without a name.
    pub fn record_stored(&self, id: &Digest, layers: &[StoredLayer]) -> Result<Arc<ImageRecord>> {
        let size = self.inner.content.open_blob(id)?.metadata().context("stat a configuration")?.len();
        let config = descriptor(OCI_CONFIG, id.clone(), size);
        let layers = layers.iter().map(|layer| layer.descriptor.clone()).collect();
        let manifest = Manifest { schema_version: 2, media_type: OCI_MANIFEST.into(), config, layers };
        register_named(&self.inner, &manifest, &[])
    }

    /// The layers of an image, to build on.
    pub fn layers(&self, image: &ImageRecord) -> Result<Vec<StoredLayer>> {
        let (_, _, manifest) = self.inner.manifest_of(image)?;
        let config = self.config(image)?;
        config.check_layers(&manifest)?;
        let pairs = manifest.layers.into_iter().zip(config.rootfs.diff_ids);
        Ok(pairs.map(|(descriptor, diff_id)| StoredLayer { descriptor, diff_id }).collect())
    }

    /// Makes an image of stored layers, bottom first, and unpacks what is not. `config.rootfs` is filled in. Without a
    /// name it is found by its id.
    pub async fn assemble(
        &self,
        mut config: ImageConfig,
        layers: Vec<StoredLayer>,
        names: &[String],
    ) -> Result<Arc<ImageRecord>> {
        config.rootfs.kind = "layers".into();
        config.rootfs.diff_ids = layers.iter().map(|layer| layer.diff_id.clone()).collect();
        let (inner, names) = (self.inner.clone(), names.to_vec());
        let hold = self.hold().await;
        let made = tokio::task::spawn_blocking(move || {
            let bytes = serde_json::to_vec(&config)
                .map_err(|error| Error::internal(format!("encode image configuration: {error}")))?;
            let config = descriptor(OCI_CONFIG, inner.content.put(&bytes)?, bytes.len() as u64);
            let layers = layers.into_iter().map(|layer| layer.descriptor).collect();
            let manifest = Manifest { schema_version: 2, media_type: OCI_MANIFEST.into(), config, layers };
            register_named(&inner, &manifest, &names.iter().map(String::as_str).collect::<Vec<_>>())
        });
        let made = made.await?;
        drop(hold);
        made
    }

    /// How the image came about, newest first. Layers that the configuration says nothing of are named too.
    pub fn history(&self, image: &ImageRecord) -> Result<Vec<HistoryEntry>> {
        let config = self.config(image)?;
        let mut sizes = image.chains.iter().map(|chain| self.inner.snapshots.layer_usage(chain).content);
        let mut out: Vec<HistoryEntry> = Vec::new();
        for history in config.history {
            let size = if history.empty_layer { 0 } else { sizes.next().unwrap_or(0) };
            out.push(HistoryEntry { history, size });
        }
        out.extend(sizes.map(|size| HistoryEntry { history: History::default(), size }));
        out.reverse();
        Ok(out)
    }
}

impl Inner {
    /// Stores a layer as it comes; one in a form that no layer may have, unpacked.
    pub(super) fn store_layer(&self, reader: impl Read) -> Result<StoredLayer> {
        let (form, stream) = decompress::form(reader)?;
        match form.layer_type() {
            Some(OCI_LAYER) => self.store_plain(stream),
            Some(media_type) => self.store_packed(stream, media_type),
            None => self.store_plain(decompress::reader(stream)?),
        }
    }

    fn store_plain(&self, mut reader: impl Read) -> Result<StoredLayer> {
        let mut writer = self.content.writer(None)?;
        std::io::copy(&mut reader, &mut writer).context("read layer")?;
        let (digest, size) = writer.commit()?;
        Ok(StoredLayer { descriptor: descriptor(OCI_LAYER, digest.clone(), size), diff_id: digest })
    }

    fn store_packed(&self, reader: impl Read, media_type: &str) -> Result<StoredLayer> {
        let mut writer = self.content.writer(None)?;
        // What goes through is stored as it is and hashed unpacked.
        let mut tee = Tee { reader, writer: &mut writer };
        let tar = decompress::reader(&mut tee)?;
        let (diff_id, _) = HashingReader::new(tar, Hasher::sha256()).finish().context("read layer")?;
        // A decompressor may leave padding behind its end.
        std::io::copy(&mut tee, &mut std::io::sink()).context("read layer")?;
        let (digest, size) = writer.commit()?;
        Ok(StoredLayer { descriptor: descriptor(media_type, digest, size), diff_id })
    }
}

fn descriptor(media_type: &str, digest: Digest, size: u64) -> Descriptor {
    Descriptor {
        media_type: media_type.into(),
        digest,
        size,
        platform: None,
        annotations: Default::default(),
        urls: vec![],
    }
}

/// Writes down what is read through it.
struct Tee<'a, R, W> {
    reader: R,
    writer: &'a mut W,
}

impl<R: Read, W: std::io::Write> Read for Tee<'_, R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.writer.write_all(&buffer[..count])?;
        Ok(count)
    }
}
