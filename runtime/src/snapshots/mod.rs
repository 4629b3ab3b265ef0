//! Layers unpacked, and the file systems of containers over them.
//!
//! A *layer* is unpacked once per chain id and never changes. A container's file system is its own writable part over
//! a chain of layers. Life of a layer: `draft` → files written into [`Draft::dir`] → `commit` (atomic) → `remove_layer`
//! when nothing uses it, and `settle` before anything on the disk names it. A draft that is dropped leaves nothing; what a killed process leaves is dropped at the next start.

pub mod apply;
pub mod copy;
mod detached;
mod members;
mod merged;
pub mod overlay;
mod settle;

pub use detached::{mount_alone, open_detached};

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use crate::{
    digest::Digest,
    error::{Context, Result},
};

/// How a container's root comes to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Root {
    /// A directory that is the root.
    Directory(PathBuf),
    /// A file system to mount: type and options.
    Mount { kind: String, options: Vec<String> },
}

/// What something takes on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Of whole blocks.
    pub bytes: u64,
    pub inodes: u64,
    /// Of the files' content alone, as Docker counts (moby `pkg/directory`).
    pub content: u64,
}

/// How removed files of lower layers are written down in a layer's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whiteouts {
    /// As overlayfs reads them: a character device 0/0, and an attribute on opaque directories.
    Overlay,
    /// By removing the files: the directory has the lower layers' content.
    Remove,
}

/// A layer being unpacked.
pub struct Draft {
    dir: PathBuf,
    /// The layers below, nearest first; where a parent directory's attributes are found.
    pub lowers: Vec<PathBuf>,
    pub whiteouts: Whiteouts,
}

impl Draft {
    /// Makes the directory of a draft.
    fn create(dir: PathBuf, lowers: Vec<PathBuf>, whiteouts: Whiteouts) -> Result<Draft> {
        fs::create_dir_all(dir.join("fs")).context(format!("create {}", dir.display()))?;
        Ok(Draft { dir, lowers, whiteouts })
    }

    /// Where the files go.
    pub fn root(&self) -> PathBuf {
        self.dir.join("fs")
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // After the commit it has another name; else the next start drops it too.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Keeps layers and containers' file systems.
pub trait Snapshotter: Send + Sync {
    fn name(&self) -> &'static str;

    fn has_layer(&self, chain: &Digest) -> bool;

    /// Begins a layer over `parent`, which must exist.
    fn draft(&self, parent: Option<&Digest>) -> Result<Draft>;

    /// Keeps a draft as `chain`. If somebody was faster, theirs stays.
    fn commit(&self, draft: Draft, parent: Option<&Digest>, chain: &Digest) -> Result<()>;

    /// Makes every layer that was kept survive a power loss. What names a layer is written after it.
    fn settle(&self) -> Result<()>;

    /// Removes a layer; the caller knows that nothing uses it.
    fn remove_layer(&self, chain: &Digest) -> Result<()>;

    fn layers(&self) -> Vec<Digest>;

    fn layer_usage(&self, chain: &Digest) -> Usage;

    /// The directories that make up an image's file system, nearest first, to be mounted and never written to.
    fn lowers(&self, top: Option<&Digest>) -> Result<Vec<PathBuf>>;

    /// Makes a container's file system over `top`, or finds the one there is.
    fn prepare(&self, key: &str, top: Option<&Digest>) -> Result<Root>;

    /// Keeps the writable part of a container that does not run any more as a layer, without copying it; the container
    /// has none afterwards. False where that cannot be done, and nothing happened.
    fn adopt(&self, _key: &str, _parent: Option<&Digest>, _chain: &Digest) -> Result<bool> {
        Ok(false)
    }

    /// The writable part of a container.
    fn usage(&self, key: &str) -> Usage;

    fn remove(&self, key: &str) -> Result<()>;

    /// Moves what [`Snapshotter::remove`] would remove to a path that nothing is at.
    fn take_away(&self, key: &str, to: &Path) -> Result<()>;

    /// The containers that have a file system.
    fn keys(&self) -> Vec<String>;

    /// Opens a file of a container that may not be mounted, as its processes would see it; none if there is none.
    fn open_file(&self, key: &str, top: Option<&Digest>, path: &Path) -> Option<File>;
}

/// Counts a tree without following links, nor counting a hard link twice.
pub fn measure(dir: &Path) -> Usage {
    use std::os::unix::fs::MetadataExt;
    let mut usage = Usage::default();
    let mut links = std::collections::HashSet::new();
    let mut pending = vec![dir.to_owned()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.nlink() > 1 && !metadata.is_dir() && !links.insert(metadata.ino()) {
                continue;
            }
            usage.inodes += 1;
            usage.bytes += metadata.blocks() * 512;
            if metadata.is_dir() {
                pending.push(entry.path());
            } else {
                usage.content += metadata.len();
            }
        }
    }
    usage
}

/// Container keys are ids; a check keeps them file names.
fn check_key(key: &str) -> Result<()> {
    if key.is_empty() || key.contains('/') || key.starts_with('.') {
        return Err(crate::error::Error::invalid(format!("{key:?} is not a snapshot key")));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
