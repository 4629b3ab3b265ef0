//! An image on its way: what steps make of each other, found in the cache or made and put there.

use std::sync::Arc;

use super::{
    Failure, config,
    files::{NewLayer, chain_of},
};
use crate::{
    digest::{Digest, Hasher},
    engine::model::now,
    error::Result,
    images::{
        Images,
        build_cache::CachedStep,
        catalogue::ImageRecord,
        layers::StoredLayer,
        manifest::{History, ImageConfig, Platform},
    },
};

/// An image so far.
#[derive(Clone, Debug)]
pub struct State {
    /// The configuration's digest; none for nothing at all.
    pub id: Option<Digest>,
    pub config: ImageConfig,
    pub layers: Vec<StoredLayer>,
    pub chains: Vec<Digest>,
}

/// An image whose builds' steps may be taken over (`--cache-from`).
pub struct Donor {
    pub config: ImageConfig,
    pub layers: Vec<StoredLayer>,
    pub chains: Vec<Digest>,
}

impl State {
    /// Nothing.
    pub fn scratch(platform: &Platform) -> State {
        let mut config = ImageConfig {
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            variant: platform.variant.clone(),
            ..ImageConfig::default()
        };
        config.rootfs.kind = "layers".into();
        config::begin(&mut config);
        State { id: None, config, layers: Vec::new(), chains: Vec::new() }
    }

    /// An image to build on.
    pub fn of(images: &Images, image: &ImageRecord) -> Result<State> {
        let mut config = images.config(image)?;
        let layers = images.layers(image)?;
        config::begin(&mut config);
        Ok(State { id: Some(image.id.clone()), config, layers, chains: image.chains.clone() })
    }

    pub fn top(&self) -> Option<&Digest> {
        self.chains.last()
    }

    /// As the classic builder shows it.
    pub fn short(&self) -> String {
        self.id.as_ref().map(|id| id.hex()[..12].to_owned()).unwrap_or_default()
    }

    /// The image as a container is made of it; its configuration is stored.
    pub fn record(&self, id: Digest) -> ImageRecord {
        ImageRecord {
            manifest: id.clone(),
            id,
            layers: self.layers.iter().map(|layer| layer.descriptor.digest.clone()).collect(),
            chains: self.chains.clone(),
            size: 0,
            user: self.config.config.user.clone(),
            tags: Vec::new(),
            repo_digests: Vec::new(),
            created: String::new(),
            pinned: false,
        }
    }

    /// What a step over this image is known by. `more` is what neither history nor configuration tells.
    pub fn key(&self, told: &str, config: &ImageConfig, more: &str) -> String {
        let mut hasher = Hasher::sha256();
        let parent = self.id.as_ref().map_or("", Digest::as_str);
        let run = serde_json::to_string(&config.config).unwrap_or_default();
        for part in [parent, told, &run, &config.author, &config.architecture, more] {
            hasher.update(format!("{}\0", part.len()).as_bytes());
            hasher.update(part.as_bytes());
        }
        hasher.finish().hex().to_owned()
    }
}

/// Finds steps in the cache and makes images of steps.
#[derive(Clone)]
pub struct Maker {
    pub images: Images,
    pub donors: Arc<Vec<Donor>>,
}

impl Maker {
    /// What an earlier build made of the same.
    pub fn cached(&self, key: &str) -> Result<Option<State>> {
        let Some(step) = self.images.build_cache().find(key, now()) else { return Ok(None) };
        if !self.images.has_content(&step.image, &step.layers, &step.chains) {
            return Ok(None);
        }
        let config = self.images.stored_config(&step.image)?;
        Ok(Some(State { id: Some(step.image), config, layers: step.layers, chains: step.chains }))
    }

    /// The same step in the history of an image that was named for it (moby `image/cache`).
    pub fn donated(
        &self,
        before: &State,
        config: &ImageConfig,
        told: &str,
        key: &str,
    ) -> Result<Option<State>, Failure> {
        for donor in self.donors.iter() {
            let (have, count) = (&donor.config.history, before.config.history.len());
            let same = have.len() > count
                && have[..count] == before.config.history[..]
                && donor.chains.starts_with(&before.chains)
                && have[count].created_by == told;
            if !same {
                continue;
            }
            let entry = have[count].clone();
            let at = before.layers.len();
            let layer = match (entry.empty_layer, donor.layers.get(at), donor.chains.get(at)) {
                (true, ..) => None,
                (false, Some(stored), Some(chain)) => {
                    Some(NewLayer { stored: stored.clone(), chain: chain.clone(), link: None })
                }
                _ => continue,
            };
            return self.make_with(before, config.clone(), entry, layer, key).map(Some);
        }
        Ok(None)
    }

    /// A layer that an earlier build made over something else, on top of `parent`. For a thread that may block.
    pub fn linked(&self, link: &str, parent: Option<&Digest>) -> Result<Option<NewLayer>> {
        let Some(step) = self.images.build_cache().linked(link) else { return Ok(None) };
        let Some(stored) = step.layers.last().filter(|_| step.added).cloned() else { return Ok(None) };
        if !self.images.has_content(&step.image, &step.layers, &step.chains) {
            return Ok(None);
        }
        let chain = chain_of(parent, &stored.diff_id);
        self.images.unpack_layer(&stored, parent, &chain)?;
        Ok(Some(NewLayer { stored, chain, link: Some(link.to_owned()) }))
    }

    /// Makes an image of a step that was done.
    pub fn make(
        &self,
        before: &State,
        config: ImageConfig,
        told: &str,
        layer: Option<NewLayer>,
        key: &str,
    ) -> Result<State, Failure> {
        let entry = History {
            created: Some(jiff::Timestamp::now().to_string()),
            created_by: told.to_owned(),
            author: config.author.clone(),
            comment: String::new(),
            empty_layer: layer.is_none(),
        };
        self.make_with(before, config, entry, layer, key)
    }

    fn make_with(
        &self,
        before: &State,
        mut config: ImageConfig,
        entry: History,
        layer: Option<NewLayer>,
        key: &str,
    ) -> Result<State, Failure> {
        let told = entry.created_by.clone();
        config.created.clone_from(&entry.created);
        config.history.push(entry);
        config.rootfs.kind = "layers".into();
        // Of the container that the base was committed from.
        for field in ["container", "container_config", "docker_version", "id", "parent"] {
            config.other.remove(field);
        }
        let added = layer.is_some();
        let link = layer.as_ref().and_then(|layer| layer.link.clone());
        let (mut layers, mut chains) = (before.layers.clone(), before.chains.clone());
        if let Some(layer) = layer {
            // An overlay holds no more (moby `layer.maxLayerDepth`, and two are taken by the container itself).
            if layers.len() >= 125 {
                return Err(Failure::new("max depth exceeded"));
            }
            layers.push(layer.stored);
            chains.push(layer.chain);
        }
        config.rootfs.diff_ids = layers.iter().map(|layer| layer.diff_id.clone()).collect();
        let id = self.images.store_config(&config)?;
        let at = now();
        self.images.build_cache().add(CachedStep {
            key: key.to_owned(),
            image: id.clone(),
            parent: before.id.clone(),
            description: told,
            layers: layers.clone(),
            chains: chains.clone(),
            added,
            link,
            created: at,
            used: at,
            uses: 0,
        });
        Ok(State { id: Some(id), config, layers, chains })
    }
}
