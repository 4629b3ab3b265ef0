//! Images into a tar stream that is an OCI layout and, for older readers, a docker-archive too (as `docker save` writes
//! since 25.0): the layout has the manifests, `manifest.json` points at the same blobs.

use std::{
    collections::HashSet,
    io::{self, Write},
    sync::Arc,
};

use serde_json::json;

use super::{
    Images, Inner,
    catalogue::ImageRecord,
    manifest::{OCI_INDEX, OCI_MANIFEST},
    reference::{Reference, is_name_only},
};
use crate::{
    digest::Digest,
    error::{Context, Error, Result},
};

/// An image and the names that go with it.
type Chosen = (Arc<ImageRecord>, Vec<String>);

impl Images {
    /// Writes images, each by a name (a repository alone: all its tags) or an id (without names).
    pub async fn save(&self, names: &[String], writer: impl Write + Send + 'static) -> Result<()> {
        let chosen = self.choose(names)?;
        let inner = self.inner.clone();
        let mut leases = Vec::new();
        for (image, _) in &chosen {
            leases.push(self.lease_image(image).await);
        }
        let result = tokio::task::spawn_blocking(move || inner.save(&chosen, writer)).await?;
        drop(leases);
        result
    }

    /// Whether all that saving them takes is there.
    pub fn can_save(&self, names: &[String]) -> Result<()> {
        for (image, _) in self.choose(names)? {
            if let Some(blob) = image.blobs().find(|blob| !self.inner.content.contains(blob)) {
                return Err(Error::internal(format!("image {} is not whole: {blob} is missing", image.id)));
            }
        }
        Ok(())
    }

    fn choose(&self, names: &[String]) -> Result<Vec<Chosen>> {
        let mut out: Vec<Chosen> = Vec::new();
        let mut add =
            |image: Arc<ImageRecord>, tag: Option<String>| match out.iter_mut().find(|(it, _)| it.id == image.id) {
                Some((_, tags)) => tags.extend(tag.filter(|tag| !tags.contains(tag)).into_iter().collect::<Vec<_>>()),
                None => out.push((image, tag.into_iter().collect())),
            };
        for name in names {
            let reference = name.parse::<Reference>().ok();
            let of_repository: Vec<_> = match &reference {
                Some(reference) if is_name_only(name) => {
                    let prefix = format!("{}:", reference.name());
                    let images = self.list();
                    let tags = |image: &Arc<ImageRecord>| {
                        let tags = image.tags.iter().filter(|tag| tag.starts_with(&prefix)).cloned();
                        tags.map(|tag| (image.clone(), tag)).collect::<Vec<_>>()
                    };
                    images.iter().flat_map(tags).collect()
                }
                _ => Vec::new(),
            };
            if !of_repository.is_empty() {
                of_repository.into_iter().for_each(|(image, tag)| add(image, Some(tag)));
                continue;
            }
            let image = self.find(name).ok_or_else(|| Error::not_found(format!("No such image: {name}")))?;
            let tag = reference.and_then(|reference| reference.tagged()).filter(|tag| image.tags.contains(tag));
            add(image, tag);
        }
        Ok(out)
    }
}

impl Inner {
    fn save(&self, images: &[Chosen], writer: impl Write) -> Result<()> {
        let mut tar = Archive { builder: tar::Builder::new(writer), written: HashSet::new() };
        let (mut manifests, mut archive) = (Vec::new(), Vec::new());
        for (image, tags) in images {
            let (digest, bytes, manifest) = self.manifest_of(image)?;
            for blob in manifest.blobs() {
                tar.blob(&blob.digest, || self.content.open_blob(&blob.digest).map(|file| (file, blob.size)))?;
            }
            tar.blob(&digest, || Ok((&bytes[..], bytes.len() as u64)))?;
            let media_type = if manifest.media_type.is_empty() { OCI_MANIFEST } else { &manifest.media_type };
            let entry = json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() });
            if tags.is_empty() {
                manifests.push(entry.clone());
            }
            for tag in tags {
                let mut entry = entry.clone();
                let short = tag.rsplit_once(':').map_or("", |(_, short)| short);
                entry["annotations"] =
                    json!({ "io.containerd.image.name": tag, "org.opencontainers.image.ref.name": short });
                manifests.push(entry);
            }
            let familiar: Vec<String> =
                tags.iter().filter_map(|tag| Some(tag.parse::<Reference>().ok()?.familiar())).collect();
            archive.push(json!({
                "Config": path_of(&image.id),
                "RepoTags": familiar,
                "Layers": manifest.layers.iter().map(|layer| path_of(&layer.digest)).collect::<Vec<_>>(),
            }));
        }
        let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests }).to_string();
        let archive = serde_json::Value::from(archive).to_string();
        for (name, text) in
            [("index.json", &*index), ("manifest.json", &*archive), ("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#)]
        {
            tar.file(name, text.as_bytes(), text.len() as u64)?;
        }
        let mut writer = tar.builder.into_inner().context("write image archive")?;
        writer.flush().context("write image archive")
    }
}

fn path_of(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

struct Archive<W: Write> {
    builder: tar::Builder<W>,
    written: HashSet<Digest>,
}

impl<W: Write> Archive<W> {
    fn blob<R: io::Read>(&mut self, digest: &Digest, open: impl FnOnce() -> Result<(R, u64)>) -> Result<()> {
        if !self.written.insert(digest.clone()) {
            return Ok(());
        }
        let (reader, size) = open()?;
        self.file(&path_of(digest), reader, size)
    }

    fn file(&mut self, name: &str, reader: impl io::Read, size: u64) -> Result<()> {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_size(size);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        let mut exact = reader.take(size);
        self.builder.append_data(&mut header, name, &mut exact).context("write image archive")?;
        match exact.limit() {
            0 => Ok(()),
            missing => Err(Error::internal(format!("write image archive: {name} is {missing} bytes too short"))),
        }
    }
}
