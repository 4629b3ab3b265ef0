//! Images made here from bytes: one layer, the same input giving the same digests.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use super::{
    Inner,
    catalogue::ImageRecord,
    import::register_named,
    manifest::{Descriptor, ImageConfig, Manifest, OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Platform, RootFs, RunConfig},
    reference::Reference,
};
use crate::{
    digest::Digest,
    error::{Context, Error, Result},
};

/// What goes into an image.
#[derive(Clone, Debug, Default)]
pub struct PackedImage {
    pub files: Vec<PackedFile>,
    /// How its containers start.
    pub config: RunConfig,
}

/// A file, owned by root.
#[derive(Clone, Debug)]
pub struct PackedFile {
    /// From the image's root; directories are made on the way.
    pub path: String,
    /// Permissions.
    pub mode: u32,
    pub content: PackedContent,
}

#[derive(Clone, Debug)]
pub enum PackedContent {
    File(Vec<u8>),
    Directory,
    Symlink(String),
}

pub(super) fn pack(inner: &Inner, reference: &Reference, image: &PackedImage) -> Result<Arc<ImageRecord>> {
    let tar = layer(&image.files).context("pack image")?;
    let platform = Platform::own();
    let config = ImageConfig {
        architecture: platform.architecture,
        os: platform.os,
        created: Some("1970-01-01T00:00:00Z".into()),
        config: image.config.clone(),
        rootfs: RootFs { kind: "layers".into(), diff_ids: vec![Digest::of(&tar)] },
        ..ImageConfig::default()
    };
    let config =
        serde_json::to_vec(&config).map_err(|error| Error::internal(format!("encode image configuration: {error}")))?;
    let store = |bytes: &[u8], media_type: &str| -> Result<Descriptor> {
        let digest = Digest::of(bytes);
        if !inner.content.contains(&digest) {
            inner.content.put(bytes)?;
        }
        Ok(Descriptor {
            media_type: media_type.into(),
            digest,
            size: bytes.len() as u64,
            platform: None,
            annotations: Default::default(),
            urls: vec![],
        })
    };
    let layers = vec![store(&tar, OCI_LAYER)?];
    let manifest =
        Manifest { schema_version: 2, media_type: OCI_MANIFEST.into(), config: store(&config, OCI_CONFIG)?, layers };
    register_named(inner, &manifest, &[&reference.to_string()])
}

fn layer(files: &[PackedFile]) -> std::io::Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut made = BTreeSet::new();
    let header = |kind: tar::EntryType, mode: u32, size: u64| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        header
    };
    for file in files {
        let path = Path::new(file.path.trim_start_matches('/'));
        let parents: Vec<&Path> = path.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()).collect();
        for parent in parents.into_iter().rev() {
            if made.insert(parent.to_owned()) {
                builder.append_data(&mut header(tar::EntryType::Directory, 0o755, 0), parent, std::io::empty())?;
            }
        }
        match &file.content {
            PackedContent::File(bytes) => builder.append_data(
                &mut header(tar::EntryType::Regular, file.mode, bytes.len() as u64),
                path,
                &bytes[..],
            )?,
            PackedContent::Directory if !made.insert(path.to_owned()) => {}
            PackedContent::Directory => {
                builder.append_data(&mut header(tar::EntryType::Directory, file.mode, 0), path, std::io::empty())?
            }
            PackedContent::Symlink(target) => {
                builder.append_link(&mut header(tar::EntryType::Symlink, 0o777, 0), path, target)?
            }
        }
    }
    builder.into_inner()
}
