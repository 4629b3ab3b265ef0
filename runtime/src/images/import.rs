//! Images out of files: docker-archive (`docker save`) and OCI image layout, as a tar stream or a directory.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::Read,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use serde::Deserialize;

use super::{
    Inner,
    catalogue::ImageRecord,
    decompress,
    manifest::{
        self, Descriptor, Document, ImageConfig, Index, MAX_DOCUMENT, Manifest, OCI_CONFIG, OCI_MANIFEST, Platform,
    },
    reference::Reference,
};
use crate::{
    digest::Digest,
    error::{Context, Error, Result},
    tar_headers::Allowance,
};

/// More files than any archive of images has.
const MAX_FILES: usize = 20_000;
/// An index may point at indexes, but not for ever.
const MAX_DEPTH: usize = 4;

/// An image that an archive brought.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub image: Arc<ImageRecord>,
    /// Whole names with tags that the archive gave it.
    pub names: Vec<String>,
}

/// Spools a tar stream into a directory and reads that.
pub(super) fn import(inner: &Inner, reader: impl Read, name: Option<&str>) -> Result<Vec<Loaded>> {
    let reader = decompress::reader(reader)?;
    let spool = Spool::receive(inner, reader)?;
    spool.import(inner, name)
}

/// Reads an OCI layout (or an unpacked docker-archive) from a directory.
pub(super) fn import_directory(inner: &Inner, dir: &Path, name: Option<&str>) -> Result<Vec<Loaded>> {
    let spool = Spool { dir: dir.to_owned(), links: HashMap::new(), temporary: false };
    spool.import(inner, name)
}

/// The files of an archive, by their names in it.
struct Spool {
    dir: PathBuf,
    /// Symbolic links of the archive (`docker save` shares layers by them), resolved by name only.
    links: HashMap<PathBuf, PathBuf>,
    temporary: bool,
}

impl Drop for Spool {
    fn drop(&mut self) {
        if self.temporary {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

#[derive(Deserialize)]
struct ArchiveImage {
    #[serde(rename = "Config")]
    config: String,
    #[serde(rename = "RepoTags", default)]
    repo_tags: Option<Vec<String>>,
    #[serde(rename = "Layers", default)]
    layers: Option<Vec<String>>,
}

impl Spool {
    fn receive(inner: &Inner, reader: impl Read) -> Result<Spool> {
        let dir = inner.content.spool_dir()?;
        let mut spool = Spool { dir, links: HashMap::new(), temporary: true };
        let allowance = Allowance::new();
        let mut archive = tar::Archive::new(allowance.metered(reader));
        let most = inner.limits.within(&spool.dir).bytes;
        let mut left = most;
        for (index, entry) in archive.entries().context("read image archive")?.enumerate() {
            let mut entry = entry.context("read image archive")?;
            allowance.content();
            if index >= MAX_FILES {
                return Err(Error::invalid(format!("image archive has more than {MAX_FILES} files")));
            }
            let path = plain(&entry.path().context("read image archive")?)?;
            match entry.header().entry_type() {
                kind if kind.is_file() => {
                    let target = spool.dir.join(&path);
                    if let Some(parent) = target.parent() {
                        fs::create_dir_all(parent).context(format!("create {}", parent.display()))?;
                    }
                    left = left
                        .checked_sub(entry.size())
                        .ok_or_else(|| Error::invalid(format!("image archive is larger than {most} bytes")))?;
                    let mut file = File::create(&target).context(format!("create {}", target.display()))?;
                    std::io::copy(&mut entry, &mut file).context("read image archive")?;
                }
                kind if kind.is_symlink() || kind.is_hard_link() => {
                    let target = entry.link_name().context("read image archive")?.unwrap_or_default();
                    let base = if kind.is_symlink() { path.parent().unwrap_or(Path::new("")) } else { Path::new("") };
                    let target = normal(&base.join(target));
                    spool.links.insert(path, target);
                }
                _ => {}
            }
            allowance.headers();
        }
        Ok(spool)
    }

    fn open(&self, name: &str) -> Result<File> {
        let mut path = plain(Path::new(name))?;
        for _ in 0..8 {
            match self.links.get(&path) {
                Some(target) => path = target.clone(),
                None => break,
            }
        }
        File::open(self.dir.join(&path)).context(format!("image archive has no file {name:?}"))
    }

    fn read(&self, name: &str) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        self.open(name)?.take(MAX_DOCUMENT + 1).read_to_end(&mut out).context(format!("read {name:?}"))?;
        if out.len() as u64 > MAX_DOCUMENT {
            Err(Error::invalid(format!("{name:?} is larger than {MAX_DOCUMENT} bytes")))
        } else {
            Ok(out)
        }
    }

    fn import(&self, inner: &Inner, name: Option<&str>) -> Result<Vec<Loaded>> {
        // Docker 25 and later write both; the layout keeps the manifests, and with them the digests.
        if self.dir.join("index.json").exists() {
            return self.import_layout(inner, name);
        }
        if self.dir.join("manifest.json").exists() {
            return self.import_archive(inner, name);
        }
        Err(Error::invalid("neither a docker-archive (manifest.json) nor an OCI layout (index.json)"))
    }

    fn import_layout(&self, inner: &Inner, name: Option<&str>) -> Result<Vec<Loaded>> {
        let Document::Index(index) = manifest::parse(&self.read("index.json")?, manifest::OCI_INDEX)? else {
            return Err(Error::invalid("index.json is not an index"));
        };
        let mut named: Vec<(&Descriptor, Option<Reference>)> = Vec::new();
        for entry in &index.manifests {
            named.push((entry, layout_name(entry, name, index.manifests.len() == 1)?));
        }
        let mut out = Vec::new();
        for (entry, reference) in for_this_platform(named) {
            if let Some(image) = self.import_descriptor(inner, entry, reference.as_ref(), 0)? {
                let names: Vec<String> = reference.as_ref().and_then(Reference::tagged).into_iter().collect();
                // One entry for each of an image's names.
                match out.iter_mut().find(|loaded: &&mut Loaded| loaded.image.id == image.id) {
                    Some(loaded) => loaded.names.extend(names),
                    None => out.push(Loaded { image, names }),
                }
            }
        }
        if out.is_empty() { Err(Error::not_found("the OCI layout has no image for this platform")) } else { Ok(out) }
    }

    fn import_descriptor(
        &self,
        inner: &Inner,
        entry: &Descriptor,
        reference: Option<&Reference>,
        depth: usize,
    ) -> Result<Option<Arc<ImageRecord>>> {
        if depth > MAX_DEPTH {
            return Err(Error::invalid("indexes are nested too deeply"));
        }
        let bytes = self.read(&blob_name(&entry.digest))?;
        let mut hasher = entry.digest.hasher();
        hasher.update(&bytes);
        let digest = hasher.finish();
        if digest != entry.digest {
            return Err(Error::invalid(format!("unexpected digest: expected {}, got {digest}", entry.digest)));
        }
        if bytes.len() as u64 != entry.size {
            return Err(Error::invalid(format!(
                "content {digest} has {} bytes instead of the announced {}",
                bytes.len(),
                entry.size
            )));
        }
        match manifest::parse(&bytes, &entry.media_type)? {
            // A signature, an attestation, a chart: kept beside images.
            Document::Manifest(manifest) if manifest.check_types().is_err() => Ok(None),
            Document::Index(index) => match choose_present(&index, self) {
                Some(chosen) => self.import_descriptor(inner, chosen, reference, depth + 1),
                None => Ok(None),
            },
            Document::Manifest(manifest) => {
                for descriptor in manifest.blobs() {
                    inner.store_exact(self.open(&blob_name(&descriptor.digest))?, descriptor)?;
                }
                let digest = inner.content.put(&bytes)?;
                inner.register(&digest, &manifest, reference).map(Some)
            }
        }
    }

    fn import_archive(&self, inner: &Inner, name: Option<&str>) -> Result<Vec<Loaded>> {
        let images: Vec<ArchiveImage> = serde_json::from_slice(&self.read("manifest.json")?)
            .map_err(|error| Error::invalid(format!("malformed manifest.json: {error}")))?;
        images.iter().map(|image| self.import_archive_image(inner, image, name)).collect()
    }

    fn import_archive_image(&self, inner: &Inner, image: &ArchiveImage, name: Option<&str>) -> Result<Loaded> {
        let config_bytes = self.read(&image.config)?;
        let parsed = ImageConfig::parse(&config_bytes)?;
        let files = image.layers.clone().unwrap_or_default();
        let mut layers = Vec::new();
        for file in &files {
            layers.push(inner.store_layer(self.open(file)?)?.descriptor);
        }
        let digest = inner.content.put(&config_bytes)?;
        let config = Descriptor {
            media_type: OCI_CONFIG.into(),
            digest,
            size: config_bytes.len() as u64,
            platform: None,
            annotations: Default::default(),
            urls: vec![],
        };
        let manifest = Manifest { schema_version: 2, media_type: OCI_MANIFEST.into(), config, layers };
        parsed.check_layers(&manifest)?;
        let tags = image.repo_tags.clone().unwrap_or_default();
        let names: Vec<&str> =
            if tags.is_empty() { name.into_iter().collect() } else { tags.iter().map(String::as_str).collect() };
        let image = register_named(inner, &manifest, &names)?;
        let names = names.iter().filter_map(|name| name.parse::<Reference>().ok()?.tagged()).collect();
        Ok(Loaded { image, names })
    }
}

/// Stores a manifest made here and registers the image under each name.
pub(super) fn register_named(inner: &Inner, manifest: &Manifest, names: &[&str]) -> Result<Arc<ImageRecord>> {
    let bytes = serde_json::to_vec(manifest).map_err(|error| Error::internal(format!("encode manifest: {error}")))?;
    let digest = inner.content.put(&bytes)?;
    let mut record = inner.register(&digest, manifest, None)?;
    for name in names {
        record = inner.register(&digest, manifest, Some(&name.parse()?))?;
    }
    Ok(record)
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

/// Of several platforms an archive often holds one.
fn choose_present<'a>(index: &'a Index, spool: &Spool) -> Option<&'a Descriptor> {
    let present = |entry: &&Descriptor| spool.open(&blob_name(&entry.digest)).is_ok();
    index.choose(&Platform::host()).ok().filter(present)
}

/// Of entries with one name that differ in their platform, the nearest to this machine, as if they were an index of their
/// own; where none fits, all of them: an archive of one image for another machine is loaded, too.
fn for_this_platform(entries: Vec<(&Descriptor, Option<Reference>)>) -> Vec<(&Descriptor, Option<Reference>)> {
    let distance = |entry: &Descriptor| entry.platform.as_ref().and_then(|own| own.distance(&Platform::host()));
    let nearest = |name: &Option<Reference>| {
        let same = entries.iter().filter(|(_, other)| other == name);
        same.filter_map(|(entry, _)| Some((distance(entry)?, &entry.digest))).min_by_key(|(distance, _)| *distance)
    };
    let wanted = |(entry, name): &(&Descriptor, Option<Reference>)| match (&entry.platform, nearest(name)) {
        (Some(platform), None) => !platform.is_unknown(),
        (Some(_), Some((_, digest))) => *digest == entry.digest,
        (None, _) => true,
    };
    entries.iter().filter(|entry| wanted(entry)).cloned().collect()
}

/// The name of an entry: containerd's annotation holds a whole one, OCI's may hold a tag alone.
fn layout_name(entry: &Descriptor, given: Option<&str>, only: bool) -> Result<Option<Reference>> {
    if let Some(name) = entry.annotations.get("io.containerd.image.name") {
        return name.parse().map(Some);
    }
    let tag = entry.annotations.get("org.opencontainers.image.ref.name");
    match (tag, given) {
        (Some(name), _) if name.contains(['/', ':']) => name.parse().map(Some),
        (Some(tag), Some(given)) if !only => {
            let mut reference: Reference = given.parse()?;
            reference.tag = Some(tag.clone());
            Ok(Some(reference))
        }
        (_, Some(given)) => given.parse().map(Some),
        (_, None) => Ok(None),
    }
}

/// A path of plain names, or an error.
fn plain(path: &Path) -> Result<PathBuf> {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::CurDir => {}
            _ => return Err(Error::invalid(format!("image archive has a file {path:?}"))),
        }
    }
    Ok(out)
}

/// A link's target with its `..` taken out by name; one that leads outside ends at the root, where nothing is found.
fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => drop(out.pop()),
            _ => {}
        }
    }
    out
}
