//! Blobs that are not what they are called, images and layers that are not whole, and what nothing names.

use std::{
    collections::HashSet,
    fs::{self, File},
    io,
    path::Path,
};

use super::{Finding, Known, Remedy, What, leftovers::names};
use crate::{
    digest::{Digest, HashingReader},
    images::{build_cache::BuildCache, catalogue::Catalogue},
    snapshots::overlay,
};

pub fn find(data_dir: &Path, catalogue: &Catalogue, build_cache: &BuildCache, known: &Known) -> Vec<Finding> {
    let images = catalogue.list();
    let mut named = HashSet::new();
    let mut chains: HashSet<Digest> = known.chains.iter().cloned().collect();
    for image in &images {
        named.extend([image.id.clone(), image.manifest.clone()]);
        named.extend(image.layers.iter().cloned());
        chains.extend(image.chains.iter().cloned());
    }
    let (kept_blobs, kept_chains) = build_cache.kept();
    named.extend(kept_blobs);
    chains.extend(kept_chains);
    let mut out = Vec::new();
    let blobs = blobs(data_dir, &named, &mut out);
    let layers = layers(&data_dir.join("snapshots"), &chains, &mut out);
    for image in &images {
        let name = image.tags.first().map_or_else(|| image.id.to_string(), Clone::clone);
        let mut problem = |text: String, remedy| out.push(Finding::new(What::Image, name.clone(), text, remedy));
        let forget = || Remedy::Forget(image.id.to_string());
        if let Some(blob) = [&image.id, &image.manifest].into_iter().find(|blob| !blobs.contains(blob)) {
            problem(format!("its blob {blob} is missing or wrong"), forget());
        } else if let Some(blob) = image.layers.iter().find(|blob| !blobs.contains(blob)) {
            problem(format!("its layer {blob} is missing or wrong: it cannot be pushed or saved"), forget());
        } else if let Some(chain) = image.chains.iter().find(|chain| !layers.contains(chain)) {
            problem(format!("its layer {chain} is not unpacked"), Remedy::Start);
        }
    }
    for chain in known.chains.iter().filter(|chain| !layers.contains(chain)) {
        if !images.iter().any(|image| image.chains.contains(chain)) {
            let problem = "is lost, but a container is made over it: remove the container";
            out.push(Finding::new(What::Layer, chain.to_string(), problem, Remedy::ByHand));
        }
    }
    out
}

/// The blobs that are what they are called.
fn blobs(data_dir: &Path, named: &HashSet<Digest>, out: &mut Vec<Finding>) -> HashSet<Digest> {
    let mut good = HashSet::new();
    for algorithm in ["sha256", "sha512"] {
        let dir = data_dir.join("content").join(algorithm);
        for name in names(&dir) {
            let path = dir.join(&name);
            let subject = format!("{algorithm}:{name}");
            let mut found = |problem: String| {
                out.push(Finding::new(What::Blob, subject.clone(), problem, Remedy::Remove(path.clone())));
            };
            let Ok(digest) = subject.parse::<Digest>() else {
                found("is not called as a digest".into());
                continue;
            };
            match hash(&path, &digest) {
                Ok(actual) if actual == digest && named.contains(&digest) => drop(good.insert(digest)),
                Ok(actual) if actual == digest => found("is named by no image".into()),
                Ok(actual) => found(format!("has the digest {actual}")),
                Err(error) => found(format!("cannot be read: {error}")),
            }
        }
    }
    good
}

fn hash(path: &Path, digest: &Digest) -> io::Result<Digest> {
    HashingReader::new(File::open(path)?, digest.hasher()).finish().map(|(digest, _)| digest)
}

/// The layers that are whole.
fn layers(snapshots: &Path, used: &HashSet<Digest>, out: &mut Vec<Finding>) -> HashSet<Digest> {
    let mut whole = HashSet::new();
    for name in names(&snapshots.join("l")) {
        let path = snapshots.join("l").join(&name);
        let mut found = |problem: &str, remedy| {
            out.push(Finding::new(What::Layer, path.display().to_string(), problem, remedy));
        };
        match overlay::chain_of(&path).filter(|_| fs::metadata(path.join("fs")).is_ok_and(|fs| fs.is_dir())) {
            None => found("is not whole", Remedy::Remove(path.clone())),
            Some(chain) if !used.contains(&chain) => {
                found("is used by no image and no container", Remedy::Remove(path.clone()));
            }
            Some(chain) => drop(whole.insert(chain)),
        }
    }
    whole
}
