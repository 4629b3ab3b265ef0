//! What is known about images: records in redb, all of them in memory too.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use parking_lot::RwLock;
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};

use super::{Removed, reference::Reference};
use crate::{
    digest::Digest,
    error::{Error, Result},
};

/// Image id → record as JSON.
const IMAGES: TableDefinition<&str, &[u8]> = TableDefinition::new("images");

/// One image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// Digest of the configuration.
    pub id: Digest,
    pub manifest: Digest,
    /// Digests of the layers as they were transferred.
    pub layers: Vec<Digest>,
    /// What the layers are unpacked as, bottom first.
    pub chains: Vec<Digest>,
    /// Bytes as transferred.
    pub size: u64,
    /// `user[:group]` of the configuration.
    pub user: String,
    /// Whole names with tags: `docker.io/library/busybox:latest`.
    pub tags: Vec<String>,
    /// Whole names with digests.
    pub repo_digests: Vec<String>,
    pub created: String,
    /// Never collected by the kubelet.
    pub pinned: bool,
}

impl ImageRecord {
    /// The layer that containers are made over.
    pub fn top(&self) -> Option<&Digest> {
        self.chains.last()
    }

    /// What the content store holds of it.
    pub fn blobs(&self) -> impl Iterator<Item = &Digest> {
        [&self.id, &self.manifest].into_iter().chain(&self.layers)
    }
}

pub struct Catalogue {
    database: Arc<Database>,
    images: RwLock<BTreeMap<Digest, Arc<ImageRecord>>>,
}

impl Catalogue {
    /// Fails if a runtime works in the directory of `path`: the database is locked by who has it open.
    pub fn open(path: &Path) -> Result<Catalogue> {
        let database = Database::create(path).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => Error::precondition(format!(
                "a runtime works in {}: stop it first; its containers go on",
                path.parent().unwrap_or(path).display()
            )),
            error => error.into(),
        })?;
        let write = database.begin_write()?;
        write.open_table(IMAGES)?;
        write.commit()?;
        let mut images = BTreeMap::new();
        for row in database.begin_read()?.open_table(IMAGES)?.iter()? {
            let (_, value) = row?;
            match serde_json::from_slice::<ImageRecord>(value.value()) {
                Ok(record) => drop(images.insert(record.id.clone(), Arc::new(record))),
                Err(error) => tracing::warn!(%error, "an image record cannot be read and is left out"),
            }
        }
        Ok(Catalogue { database: Arc::new(database), images: RwLock::new(images) })
    }

    /// Where others keep what belongs to images.
    pub fn database(&self) -> Arc<Database> {
        self.database.clone()
    }

    pub fn list(&self) -> Vec<Arc<ImageRecord>> {
        self.images.read().values().cloned().collect()
    }

    /// Adds an image, or names to one that is there; a tag moves from the image that had it.
    pub fn add(&self, record: ImageRecord) -> Result<Arc<ImageRecord>> {
        let mut images = self.images.write();
        let mut changed: Vec<ImageRecord> = Vec::new();
        for other in images.values().filter(|other| other.id != record.id) {
            if other.tags.iter().any(|tag| record.tags.contains(tag)) {
                let mut other = (**other).clone();
                other.tags.retain(|tag| !record.tags.contains(tag));
                changed.push(other);
            }
        }
        let mut merged = record;
        if let Some(before) = images.get(&merged.id) {
            let mut tags = before.tags.clone();
            tags.extend(merged.tags.iter().filter(|tag| !before.tags.contains(tag)).cloned());
            let mut digests = before.repo_digests.clone();
            digests.extend(merged.repo_digests.iter().filter(|digest| !before.repo_digests.contains(digest)).cloned());
            merged.tags = tags;
            merged.repo_digests = digests;
            merged.created = before.created.clone();
            merged.pinned |= before.pinned;
        }
        changed.push(merged.clone());
        self.store(&changed, &[])?;
        for record in changed {
            images.insert(record.id.clone(), Arc::new(record));
        }
        images.get(&merged.id).cloned().ok_or_else(|| Error::internal("image was not stored"))
    }

    /// By id, by a unique beginning of one (as Docker's clients give it), or by name.
    pub fn find(&self, name: &str) -> Option<Arc<ImageRecord>> {
        find(&self.images.read(), name)
    }

    /// Removes a name, or by id all of them; the image goes with the last, unless it is to be kept.
    pub fn remove(&self, name: &str, keep: bool) -> Result<Removed> {
        let mut images = self.images.write();
        let Some(image) = find(&images, name) else { return Ok(Removed::default()) };
        let mut left = (*image).clone();
        match name.parse::<Reference>() {
            Ok(reference) if is_named(&image, &reference) => {
                let tagged = reference.tagged();
                let named = reference.digest.as_ref().map(|digest| reference.with_digest(digest)).unwrap_or_default();
                left.tags.retain(|tag| Some(tag) != tagged.as_ref());
                left.repo_digests.retain(|digest| *digest != named);
                // A tag takes its digest name along when no other tag of the repository is left.
                let repository = format!("{}:", reference.name());
                if !left.tags.iter().any(|tag| tag.starts_with(&repository)) && reference.digest.is_none() {
                    let prefix = format!("{}@", reference.name());
                    left.repo_digests.retain(|digest| !digest.starts_with(&prefix));
                }
            }
            _ => {
                left.tags.clear();
                left.repo_digests.clear();
            }
        }
        let gone = |before: &[String], left: &[String]| -> Vec<String> {
            before.iter().filter(|name| !left.contains(name)).cloned().collect()
        };
        let mut removed = Removed { names: gone(&image.tags, &left.tags), ..Removed::default() };
        removed.names.extend(gone(&image.repo_digests, &left.repo_digests));
        if left.tags.is_empty() && left.repo_digests.is_empty() && !keep {
            self.store(&[], std::slice::from_ref(&left.id))?;
            images.remove(&left.id);
            removed.image = Some(image.id.clone());
        } else {
            self.store(std::slice::from_ref(&left), &[])?;
            images.insert(left.id.clone(), Arc::new(left));
        }
        Ok(removed)
    }

    fn store(&self, changed: &[ImageRecord], removed: &[Digest]) -> Result<()> {
        let write = self.database.begin_write()?;
        {
            let mut table = write.open_table(IMAGES)?;
            for record in changed {
                let bytes = serde_json::to_vec(record)
                    .map_err(|error| Error::internal(format!("encode image record: {error}")))?;
                table.insert(record.id.as_str(), &bytes[..])?;
            }
            for id in removed {
                table.remove(id.as_str())?;
            }
        }
        write.commit()?;
        Ok(())
    }
}

fn is_id(name: &str) -> bool {
    let hash = name.strip_prefix("sha256:").unwrap_or(name);
    hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether the image has this name; else it was found by (the beginning of) its id.
fn is_named(image: &ImageRecord, reference: &Reference) -> bool {
    match &reference.digest {
        Some(digest) => image.repo_digests.contains(&reference.with_digest(digest)),
        None => reference.tagged().is_some_and(|tag| image.tags.contains(&tag)),
    }
}

fn find(images: &BTreeMap<Digest, Arc<ImageRecord>>, name: &str) -> Option<Arc<ImageRecord>> {
    let hash = name.strip_prefix("sha256:").unwrap_or(name);
    if is_id(name) {
        return images.get(&format!("sha256:{hash}").parse::<Digest>().ok()?).cloned();
    }
    if let Ok(reference) = name.parse::<Reference>() {
        let named = reference.to_string();
        let by_name = images.values().find(|image| match &reference.digest {
            Some(digest) => {
                let by_digest = reference.with_digest(digest);
                image.repo_digests.contains(&by_digest)
            }
            None => image.tags.contains(&named),
        });
        if by_name.is_some() {
            return by_name.cloned();
        }
    }
    if hash.len() < 4 || !hash.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut beginning = images.values().filter(|image| image.id.hex().starts_with(hash));
    beginning.next().filter(|_| beginning.next().is_none()).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(seed: &str, tag: &str) -> ImageRecord {
        let id = Digest::of(seed.as_bytes());
        let reference: Reference = tag.parse().unwrap();
        ImageRecord {
            manifest: id.clone(),
            layers: vec![],
            chains: vec![],
            size: 1,
            user: String::new(),
            tags: vec![reference.to_string()],
            repo_digests: vec![reference.with_digest(&id)],
            created: String::new(),
            pinned: false,
            id,
        }
    }

    #[test]
    fn names_move_and_the_last_takes_the_image_along() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("images.redb");
        let catalogue = Catalogue::open(&path).unwrap();
        let first = catalogue.add(record("1", "a:v1")).unwrap();
        let second = catalogue.add(record("2", "a:v1")).unwrap();
        assert_eq!(catalogue.find("a:v1").unwrap().id, second.id);
        assert!(catalogue.find(first.id.as_str()).unwrap().tags.is_empty());
        assert_eq!(catalogue.find(&second.id.hex()[..12]).unwrap().id, second.id);
        catalogue.add(record("2", "b:v2")).unwrap();
        // A tag beside a digest is not meant.
        let by_digest = catalogue.find("b:v2").unwrap().repo_digests.last().unwrap().replace('@', ":any@");
        catalogue.remove(&by_digest, false).unwrap();
        assert_eq!(catalogue.find("a:v1").unwrap().tags.len(), 2);
        catalogue.remove("a:v1", false).unwrap();
        assert_eq!(catalogue.find("b:v2").unwrap().tags, ["docker.io/library/b:v2"]);
        assert!(catalogue.find("a:v1").is_none());
        catalogue.remove(first.id.as_str(), false).unwrap();
        drop(catalogue);
        let again = Catalogue::open(&path).unwrap();
        assert_eq!(again.list().len(), 1);
        assert_eq!(again.remove("b:v2", true).unwrap().image, None);
        let nameless = again.find(second.id.as_str()).unwrap();
        assert!(nameless.tags.is_empty() && nameless.repo_digests.is_empty());
        again.remove(second.id.as_str(), false).unwrap();
        assert!(again.list().is_empty());
    }
}
