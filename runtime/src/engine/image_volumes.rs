//! Directories of a container's own that its image asks for (`VOLUME`): with what the image has there, below the container's
//! directory, gone with it (containerd `internal/cri/server`, `volumeMounts`).
//!
//! Names and places are the image's, which may mean harm: places are found within the container's file system, no two
//! volumes are at one place, and all of them together hold no more than the image ([`crate::volumes::copy_up`]).

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{
    Engine,
    model::{IdMappings, Mount},
};
use crate::{
    error::{Context, Error, Result},
    snapshots::Root,
    volumes::{
        clean,
        copy_up::copy_up,
        tree::{Identity, Tree, mounted},
    },
};

/// Each one is a mount of every start; images of use have a handful.
const MOST_VOLUMES: usize = 256;

impl Engine {
    /// Makes the volumes of a container's image where nothing else is mounted, `owners` being the container's own users;
    /// what is to be mounted.
    pub(super) fn make_image_volumes(
        &self,
        id: &str,
        root: &Root,
        volumes: &BTreeMap<String, Value>,
        given: &[Mount],
        owners: &IdMappings,
    ) -> Result<Vec<Mount>> {
        let mut places: Vec<String> = volumes.keys().map(|place| clean(place)).collect();
        places.sort();
        places.dedup();
        places.retain(|place| !given.iter().any(|mount| clean(&mount.container_path) == *place));
        if places.is_empty() {
            return Ok(Vec::new());
        }
        if places.len() > MOST_VOLUMES {
            return Err(Error::invalid(format!("the image has {} volumes: {MOST_VOLUMES} at most", places.len())));
        }
        let dir = self.paths.container(id).join("volumes");
        mounted(root, &self.bundle_of(id).join("rootfs"), |tree| fill(tree, places, given, &dir, owners))
    }
}

/// Makes a directory of `dir` for each place, with what is there.
fn fill(tree: &Tree, places: Vec<String>, given: &[Mount], dir: &Path, owners: &IdMappings) -> Result<Vec<Mount>> {
    // Where links of the image lead is where the mounts will be: what covers what is told by those places.
    let taken: HashSet<PathBuf> =
        given.iter().filter_map(|mount| Some(resolve(tree, &clean(&mount.container_path)).ok()?.0)).collect();
    let mut wanted = BTreeMap::new();
    for place in places {
        let (place, found) = resolve(tree, &place)?;
        if place == Path::new("/") {
            return Err(Error::invalid("the image has a volume that leads to its root"));
        }
        if !taken.contains(&place) {
            wanted.insert(place, found);
        }
    }
    let covered: HashSet<Identity> = wanted.values().flatten().copied().collect();
    let mut out = Vec::new();
    for (number, place) in wanted.into_keys().enumerate() {
        let volume = dir.join(number.to_string());
        fs::create_dir_all(&volume).context(format!("create {}", volume.display()))?;
        copy_up(tree, &place, &volume, &covered)
            .map_err(|error| error.context(format!("failed to copy what the image has at volume {place:?}")))?;
        out.push(Mount {
            container_path: place.to_string_lossy().into_owned(),
            host_path: volume.to_string_lossy().into_owned(),
            relabel: true,
            owners: owners.clone(),
            ..Mount::default()
        });
    }
    Ok(out)
}

/// Where a place is when links are followed within the image, and what is there; what is not there yet is as it was written.
fn resolve(tree: &Tree, place: &str) -> Result<(PathBuf, Option<Identity>)> {
    let what = || format!("find volume {place:?} in the image");
    let top = tree.path(Path::new("/")).context(what())?.0;
    for ancestor in Path::new(place).ancestors() {
        let (path, identity) = match tree.path(ancestor) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => continue,
            found => found.context(what())?,
        };
        let inside = path.strip_prefix(&top).map_err(|_| Error::invalid(format!("volume {place:?} leads nowhere")))?;
        let rest = Path::new(place).strip_prefix(ancestor).unwrap_or(Path::new(""));
        let whole: PathBuf = Path::new("/").join(inside).join(rest).components().collect();
        return Ok((whole, rest.as_os_str().is_empty().then_some(identity)));
    }
    Err(Error::invalid(format!("volume {place:?} is no place")))
}
