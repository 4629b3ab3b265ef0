//! Snapshots by plain copies, where overlayfs cannot be had: each layer's directory is the whole file system so far.

use std::{
    collections::HashSet,
    fs::{self, File},
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use coracle_launcher::sys;
use parking_lot::Mutex;

use super::{
    Draft, Root, Snapshotter, Usage, Whiteouts, check_key, measure,
    settle::{Settling, clear},
};
use crate::{
    digest::Digest,
    error::{Context, Error, Result},
    placement,
};

pub struct Copy {
    dir: PathBuf,
    layers: Mutex<HashSet<Digest>>,
    settling: Settling,
    next: AtomicU64,
}

impl Copy {
    /// Opens the directory, dropping drafts of an earlier process and layers that a power loss took parts of.
    pub fn open(dir: &Path) -> Result<Copy> {
        clear(&dir.join("t"))?;
        for name in ["l", "c", "t"] {
            placement::create_unrelated(&dir.join(name))?;
        }
        let settling = Settling::open(dir)?;
        let mut layers = HashSet::new();
        for entry in fs::read_dir(dir.join("l")).context(format!("read {}/l", dir.display()))?.flatten() {
            let chain = entry.file_name().to_str().and_then(|name| name.replacen('-', ":", 1).parse::<Digest>().ok());
            match chain.filter(|_| settling.adopt(&entry.path())) {
                Some(chain) => drop(layers.insert(chain)),
                None => {
                    tracing::warn!(layer = %entry.path().display(), "a layer is not whole and is thrown away");
                    let doomed = dir.join("t").join(entry.file_name());
                    fs::rename(entry.path(), &doomed).context(format!("throw {} away", entry.path().display()))?;
                    fs::remove_dir_all(&doomed).context(format!("remove {}", doomed.display()))?;
                }
            }
        }
        Ok(Copy { dir: dir.to_owned(), layers: Mutex::new(layers), settling, next: AtomicU64::new(0) })
    }

    fn layer_dir(&self, chain: &Digest) -> PathBuf {
        self.dir.join("l").join(chain.as_str().replacen(':', "-", 1))
    }
}

impl Snapshotter for Copy {
    fn name(&self) -> &'static str {
        "copy"
    }

    fn has_layer(&self, chain: &Digest) -> bool {
        self.layers.lock().contains(chain)
    }

    fn draft(&self, parent: Option<&Digest>) -> Result<Draft> {
        if let Some(parent) = parent.filter(|parent| !self.has_layer(parent)) {
            return Err(Error::not_found(format!("layer {parent} is not unpacked")));
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let draft = Draft::create(self.dir.join("t").join(number.to_string()), Vec::new(), Whiteouts::Remove)?;
        if let Some(parent) = parent {
            copy_tree(&self.layer_dir(parent).join("fs"), &draft.root())?;
        }
        Ok(draft)
    }

    fn commit(&self, draft: Draft, _parent: Option<&Digest>, chain: &Digest) -> Result<()> {
        self.settling.mark(&draft.dir)?;
        let mut layers = self.layers.lock();
        if !layers.contains(chain) {
            fs::rename(&draft.dir, self.layer_dir(chain)).context(format!("keep layer {chain}"))?;
            layers.insert(chain.clone());
            self.settling.kept(self.layer_dir(chain));
        }
        Ok(())
    }

    fn settle(&self) -> Result<()> {
        self.settling.settle()
    }

    fn remove_layer(&self, chain: &Digest) -> Result<()> {
        if !self.layers.lock().remove(chain) {
            return Ok(());
        }
        let doomed = self.dir.join("t").join(format!("rm{}", chain.hex()));
        fs::rename(self.layer_dir(chain), &doomed).context(format!("remove layer {chain}"))?;
        fs::remove_dir_all(&doomed).context(format!("remove layer {chain}"))
    }

    fn layers(&self) -> Vec<Digest> {
        self.layers.lock().iter().cloned().collect()
    }

    fn layer_usage(&self, chain: &Digest) -> Usage {
        measure(&self.layer_dir(chain).join("fs"))
    }

    fn lowers(&self, top: Option<&Digest>) -> Result<Vec<PathBuf>> {
        match top {
            Some(top) if !self.has_layer(top) => Err(Error::not_found(format!("layer {top} is not unpacked"))),
            top => Ok(top.map(|top| self.layer_dir(top).join("fs")).into_iter().collect()),
        }
    }

    fn prepare(&self, key: &str, top: Option<&Digest>) -> Result<Root> {
        check_key(key)?;
        let dir = self.dir.join("c").join(key);
        if !dir.exists() {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let draft = Draft::create(self.dir.join("t").join(number.to_string()), Vec::new(), Whiteouts::Remove)?;
            if let Some(top) = top {
                if !self.has_layer(top) {
                    return Err(Error::not_found(format!("layer {top} is not unpacked")));
                }
                copy_tree(&self.layer_dir(top).join("fs"), &draft.root())?;
            }
            fs::rename(&draft.dir, &dir).context(format!("keep snapshot {key}"))?;
        }
        Ok(Root::Directory(dir.join("fs")))
    }

    fn usage(&self, key: &str) -> Usage {
        if check_key(key).is_err() { Usage::default() } else { measure(&self.dir.join("c").join(key).join("fs")) }
    }

    fn remove(&self, key: &str) -> Result<()> {
        check_key(key)?;
        match fs::remove_dir_all(self.dir.join("c").join(key)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).context(format!("remove snapshot {key}"))
            }
            _ => Ok(()),
        }
    }

    fn take_away(&self, key: &str, to: &Path) -> Result<()> {
        check_key(key)?;
        fs::rename(self.dir.join("c").join(key), to).context(format!("take snapshot {key} away"))
    }

    fn keys(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir.join("c")).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    fn open_file(&self, key: &str, _top: Option<&Digest>, path: &Path) -> Option<File> {
        check_key(key).ok()?;
        let root = File::open(self.dir.join("c").join(key).join("fs")).ok()?;
        let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY;
        let resolve = sys::RESOLVE_IN_ROOT | sys::RESOLVE_NO_MAGICLINKS;
        let file =
            File::from(sys::openat2(root.as_fd(), path.strip_prefix("/").unwrap_or(path), flags, 0, resolve).ok()?);
        file.metadata().is_ok_and(|metadata| metadata.is_file()).then_some(file)
    }
}

/// Copies a tree with everything that a layer can hold, as a stream of tar entries through the code that unpacks layers:
/// one place that knows links, devices, owners and attributes.
fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    super::apply::copy_tree(from, to)
}
