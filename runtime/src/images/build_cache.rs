//! What builds made and may make use of again: images by what they were made of.
//!
//! A step's key is a digest over its parent's id and what it does, so a step is found only where all before it were.
//! Entries keep their layers and configurations from being collected. The cache has a size; what was not used for the
//! longest time goes first, and a step never before those that stand on it, since those were not used later.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use parking_lot::Mutex;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};

use super::layers::StoredLayer;
use crate::{digest::Digest, error::Result};

/// Key → step as JSON.
const STEPS: TableDefinition<&str, &[u8]> = TableDefinition::new("build_steps");
/// A bound of its own, for steps that take no space.
const MAX_STEPS: usize = 20_000;
/// Remembered digests of files in images.
const MAX_SUMS: usize = 10_000;

/// An image that a step made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CachedStep {
    pub key: String,
    /// The digest of the configuration.
    pub image: Digest,
    pub parent: Option<Digest>,
    /// What the image's history says of the step.
    pub description: String,
    pub layers: Vec<StoredLayer>,
    pub chains: Vec<Digest>,
    /// The last layer is the step's own.
    pub added: bool,
    /// What that layer is known by where it does not depend on those below it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// Nanoseconds since 1970.
    pub created: i64,
    pub used: i64,
    pub uses: u64,
}

/// The steps of one data directory.
pub struct BuildCache {
    database: Arc<Database>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    steps: HashMap<String, CachedStep>,
    /// Not written yet. A step that is lost is made again, so one write at the end of a build will do.
    changed: HashSet<String>,
    sums: HashMap<String, String>,
}

impl BuildCache {
    pub fn open(database: Arc<Database>) -> Result<BuildCache> {
        let write = database.begin_write()?;
        write.open_table(STEPS)?;
        write.commit()?;
        let mut state = State::default();
        for row in database.begin_read()?.open_table(STEPS)?.iter()? {
            let (_, value) = row?;
            match serde_json::from_slice::<CachedStep>(value.value()) {
                Ok(step) => drop(state.steps.insert(step.key.clone(), step)),
                Err(error) => tracing::warn!(%error, "a step of the build cache cannot be read and is left out"),
            }
        }
        Ok(BuildCache { database, state: Mutex::new(state) })
    }

    /// A step by its key; finding it counts as a use.
    pub fn find(&self, key: &str, now: i64) -> Option<CachedStep> {
        let mut state = self.state.lock();
        let step = state.steps.get_mut(key)?;
        step.used = now;
        step.uses += 1;
        let found = step.clone();
        state.changed.insert(key.to_owned());
        Some(found)
    }

    /// The last step whose own layer is known by this.
    pub fn linked(&self, link: &str) -> Option<CachedStep> {
        let state = self.state.lock();
        let steps = state.steps.values().filter(|step| step.link.as_deref() == Some(link));
        steps.max_by_key(|step| step.created).cloned()
    }

    pub fn add(&self, step: CachedStep) {
        let mut state = self.state.lock();
        state.changed.insert(step.key.clone());
        state.steps.insert(step.key.clone(), step);
    }

    /// A step by the image it made: its id, or a unique beginning of one.
    pub fn by_image(&self, hash: &str) -> Option<CachedStep> {
        let state = self.state.lock();
        let mut found = state.steps.values().filter(|step| step.image.hex().starts_with(hash));
        let first = found.next()?;
        found.all(|other| other.image == first.image).then(|| first.clone())
    }

    pub fn list(&self) -> Vec<CachedStep> {
        let mut steps: Vec<CachedStep> = self.state.lock().steps.values().cloned().collect();
        steps.sort_by(|a, b| a.created.cmp(&b.created).then_with(|| a.key.cmp(&b.key)));
        steps
    }

    /// Forgets steps; their content goes with the next collection.
    pub fn remove(&self, keys: &[String]) -> Result<()> {
        let mut state = self.state.lock();
        for key in keys {
            state.steps.remove(key);
            state.changed.insert(key.clone());
        }
        drop(state);
        self.write()
    }

    /// Writes what changed.
    pub fn write(&self) -> Result<()> {
        let changed: Vec<(String, Option<Vec<u8>>)> = {
            let mut state = self.state.lock();
            let keys = std::mem::take(&mut state.changed);
            let bytes = |key: &String| state.steps.get(key).and_then(|step| serde_json::to_vec(step).ok());
            keys.into_iter().map(|key| (bytes(&key), key)).map(|(bytes, key)| (key, bytes)).collect()
        };
        if changed.is_empty() {
            return Ok(());
        }
        let write = self.database.begin_write()?;
        {
            let mut table = write.open_table(STEPS)?;
            for (key, bytes) in &changed {
                match bytes {
                    Some(bytes) => drop(table.insert(key.as_str(), bytes.as_slice())?),
                    None => drop(table.remove(key.as_str())?),
                }
            }
        }
        write.commit()?;
        Ok(())
    }

    /// The content and the layers that steps stand on.
    pub fn kept(&self) -> (Vec<Digest>, Vec<Digest>) {
        let state = self.state.lock();
        let blobs = |step: &CachedStep| {
            let layers = step.layers.iter().map(|layer| layer.descriptor.digest.clone());
            layers.chain([step.image.clone()]).collect::<Vec<_>>()
        };
        let chains = state.steps.values().flat_map(|step| step.chains.clone()).collect();
        (state.steps.values().flat_map(blobs).collect(), chains)
    }

    /// The steps to forget so that the space of those that only the cache keeps is at most `limit` bytes. `own` says how
    /// much a step takes that nothing else needs.
    pub fn excess(&self, limit: u64, own: impl Fn(&CachedStep) -> u64) -> Vec<String> {
        let mut steps = self.list();
        steps.sort_by(|a, b| a.used.cmp(&b.used).then_with(|| b.created.cmp(&a.created)));
        let mut left: u64 = steps.iter().map(&own).sum();
        let mut count = steps.len();
        let mut out = Vec::new();
        for step in steps {
            if left <= limit && count <= MAX_STEPS {
                break;
            }
            left -= own(&step).min(left);
            count -= 1;
            out.push(step.key);
        }
        out
    }

    /// The remembered digest of files of an image that does not change.
    pub fn sum(&self, key: &str) -> Option<String> {
        self.state.lock().sums.get(key).cloned()
    }

    pub fn remember_sum(&self, key: String, sum: String) {
        let mut state = self.state.lock();
        if state.sums.len() >= MAX_SUMS {
            state.sums.clear();
        }
        state.sums.insert(key, sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(name: &str, used: i64) -> CachedStep {
        CachedStep {
            key: name.into(),
            image: Digest::of(name.as_bytes()),
            parent: None,
            description: name.into(),
            layers: vec![],
            chains: vec![Digest::of(b"chain")],
            added: true,
            link: None,
            created: used,
            used,
            uses: 0,
        }
    }

    #[test]
    fn steps_are_kept_found_and_the_oldest_use_goes_first() {
        let dir = tempfile::tempdir().unwrap();
        let database = Arc::new(Database::create(dir.path().join("x.redb")).unwrap());
        let cache = BuildCache::open(database.clone()).unwrap();
        for (name, used) in [("a", 1), ("b", 2), ("c", 3)] {
            cache.add(step(name, used));
        }
        assert!(cache.find("a", 10).is_some() && cache.find("z", 10).is_none());
        assert_eq!(cache.excess(20, |_| 10), ["b"]);
        assert_eq!(cache.excess(0, |_| 10), ["b", "c", "a"]);
        assert!(cache.excess(30, |_| 10).is_empty());
        cache.write().unwrap();
        cache.remove(&["b".to_owned()]).unwrap();
        drop(cache);
        let again = BuildCache::open(database).unwrap();
        let names: Vec<String> = again.list().into_iter().map(|step| step.key).collect();
        assert_eq!(names, ["a", "c"]);
        assert_eq!(again.find("a", 11).unwrap().uses, 2);
        assert_eq!(again.by_image(Digest::of(b"c").hex()).unwrap().key, "c");
        assert!(again.kept().1.contains(&Digest::of(b"chain")));
    }
}
