//! Snapshots by overlayfs: each layer unpacked alone, put together by the kernel in the container's mount namespace.
//!
//! ```text
//! l/N/{fs, chain, parent}   layer number N; short names, since all of an image's must fit one page of mount options
//! c/KEY/{fs, work}          a container's writable part
//! t/N                       drafts
//! ```

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use parking_lot::Mutex;

use super::{
    Draft, Root, Snapshotter, Usage, Whiteouts, check_key, measure, merged,
    settle::{self, Settling, clear},
};
use crate::{
    digest::Digest,
    error::{Context, Error, Result},
    placement,
};

pub struct Overlay {
    dir: PathBuf,
    layers: Mutex<HashMap<Digest, Layer>>,
    settling: Settling,
    next: AtomicU64,
}

#[derive(Clone)]
struct Layer {
    number: u64,
    parent: Option<Digest>,
    usage: Usage,
}

impl Overlay {
    /// Opens the directory, dropping drafts of an earlier process and layers that a power loss took parts of.
    pub fn open(dir: &Path) -> Result<Overlay> {
        clear(&dir.join("t"))?;
        for name in ["l", "c", "t"] {
            placement::create_unrelated(&dir.join(name))?;
        }
        let settling = Settling::open(dir)?;
        let (mut layers, mut lost, mut next) = (HashMap::new(), Vec::new(), 0);
        for entry in fs::read_dir(dir.join("l")).context(format!("read {}/l", dir.display()))?.flatten() {
            let number = entry.file_name().to_str().and_then(|name| name.parse::<u64>().ok());
            next = next.max(number.map_or(0, |number| number + 1));
            let known =
                number.and_then(|number| read_layer(&entry.path(), number)).filter(|_| settling.adopt(&entry.path()));
            match known {
                Some((chain, layer)) => drop(layers.insert(chain, layer)),
                None => lost.push(entry.path()),
            }
        }
        let overlay = Overlay { dir: dir.to_owned(), layers: Mutex::new(layers), settling, next: AtomicU64::new(next) };
        lost.extend(overlay.forget_torn_chains());
        for path in lost {
            tracing::warn!(layer = %path.display(), "a layer is not whole and is thrown away");
            let doomed = dir.join("t").join(format!("lost{}", overlay.next.fetch_add(1, Ordering::Relaxed)));
            fs::rename(&path, &doomed).context(format!("throw {} away", path.display()))?;
        }
        clear(&dir.join("t"))?;
        placement::create_unrelated(&dir.join("t"))?;
        Ok(overlay)
    }

    /// Forgets layers over one that is not there; returns their directories.
    fn forget_torn_chains(&self) -> Vec<PathBuf> {
        let mut out = Vec::new();
        let mut layers = self.layers.lock();
        loop {
            let torn = |layer: &Layer| layer.parent.as_ref().is_some_and(|parent| !layers.contains_key(parent));
            let Some(chain) = layers.iter().find(|(_, layer)| torn(layer)).map(|(chain, _)| chain.clone()) else {
                return out;
            };
            out.extend(layers.remove(&chain).map(|layer| self.layer_dir(layer.number)));
        }
    }

    fn layer_dir(&self, number: u64) -> PathBuf {
        self.dir.join("l").join(number.to_string())
    }

    /// Directories of a chain, nearest first.
    fn chain(&self, top: Option<&Digest>) -> Result<Vec<PathBuf>> {
        let layers = self.layers.lock();
        let mut out = Vec::new();
        let mut next = top.cloned();
        while let Some(chain) = next {
            let layer = layers.get(&chain).ok_or_else(|| Error::not_found(format!("layer {chain} is not unpacked")))?;
            out.push(self.layer_dir(layer.number).join("fs"));
            next = layer.parent.clone();
        }
        Ok(out)
    }
}

impl Snapshotter for Overlay {
    fn name(&self) -> &'static str {
        "overlayfs"
    }

    fn has_layer(&self, chain: &Digest) -> bool {
        self.layers.lock().contains_key(chain)
    }

    fn draft(&self, parent: Option<&Digest>) -> Result<Draft> {
        let lowers = self.chain(parent)?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Draft::create(self.dir.join("t").join(number.to_string()), lowers, Whiteouts::Overlay)
    }

    fn commit(&self, draft: Draft, parent: Option<&Digest>, chain: &Digest) -> Result<()> {
        let usage = measure(&draft.root());
        let write = |name: &str, text: String| {
            fs::write(draft.dir.join(name), text).context(format!("write {}/{name}", draft.dir.display()))
        };
        write("chain", chain.to_string())?;
        write("usage", format!("{} {} {}", usage.bytes, usage.inodes, usage.content))?;
        if let Some(parent) = parent {
            write("parent", parent.to_string())?;
        }
        self.settling.mark(&draft.dir)?;
        let mut layers = self.layers.lock();
        if layers.contains_key(chain) {
            return Ok(());
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        fs::rename(&draft.dir, self.layer_dir(number)).context(format!("keep layer {chain}"))?;
        layers.insert(chain.clone(), Layer { number, parent: parent.cloned(), usage });
        self.settling.kept(self.layer_dir(number));
        Ok(())
    }

    fn settle(&self) -> Result<()> {
        self.settling.settle()
    }

    fn remove_layer(&self, chain: &Digest) -> Result<()> {
        let Some(layer) = self.layers.lock().remove(chain) else { return Ok(()) };
        let path = self.layer_dir(layer.number);
        // Out of the way in one step; a half removed layer must not be found again.
        let doomed = self.dir.join("t").join(format!("rm{}", layer.number));
        fs::rename(&path, &doomed).context(format!("remove layer {chain}"))?;
        fs::remove_dir_all(&doomed).context(format!("remove layer {chain}"))
    }

    fn layers(&self) -> Vec<Digest> {
        self.layers.lock().keys().cloned().collect()
    }

    fn layer_usage(&self, chain: &Digest) -> Usage {
        self.layers.lock().get(chain).map(|layer| layer.usage).unwrap_or_default()
    }

    fn lowers(&self, top: Option<&Digest>) -> Result<Vec<PathBuf>> {
        self.chain(top)
    }

    fn prepare(&self, key: &str, top: Option<&Digest>) -> Result<Root> {
        check_key(key)?;
        let dir = self.dir.join("c").join(key);
        for name in ["fs", "work"] {
            fs::create_dir_all(dir.join(name)).context(format!("create {}", dir.display()))?;
        }
        let lowers = self.chain(top)?;
        if lowers.is_empty() {
            return Ok(Root::Directory(dir.join("fs")));
        }
        let lowers: Vec<String> = lowers.iter().map(|path| escape(path)).collect();
        let options = vec![
            format!("lowerdir={}", lowers.join(":")),
            format!("upperdir={}", escape(&dir.join("fs"))),
            format!("workdir={}", escape(&dir.join("work"))),
        ];
        Ok(Root::Mount { kind: "overlay".into(), options })
    }

    fn adopt(&self, key: &str, parent: Option<&Digest>, chain: &Digest) -> Result<bool> {
        check_key(key)?;
        let draft = self.draft(parent)?;
        // The draft's own directory makes room for the container's.
        let from = self.dir.join("c").join(key).join("fs");
        fs::rename(&from, draft.root()).context(format!("adopt the files of {key}"))?;
        self.commit(draft, parent, chain)?;
        Ok(true)
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

    fn open_file(&self, key: &str, top: Option<&Digest>, path: &Path) -> Option<File> {
        check_key(key).ok()?;
        let mut dirs = vec![self.dir.join("c").join(key).join("fs")];
        dirs.extend(self.chain(top).ok()?);
        merged::open_file(&dirs, path)
    }
}

/// What the layer in a directory is called; none if it is not whole.
pub fn chain_of(layer: &Path) -> Option<Digest> {
    let (chain, _) = read_layer(layer, 0)?;
    settle::is_sound(layer).then_some(chain)
}

/// What a layer's directory says of it; none if it does not say it all.
fn read_layer(dir: &Path, number: u64) -> Option<(Digest, Layer)> {
    let read = |name: &str| fs::read_to_string(dir.join(name));
    let chain = read("chain").ok()?.trim().parse().ok()?;
    let parent = match read("parent") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        text => Some(text.ok()?.trim().parse().ok()?),
    };
    let numbers = read("usage").unwrap_or_default();
    let mut numbers = numbers.split_whitespace().filter_map(|word| word.parse().ok());
    let mut next = || numbers.next().unwrap_or(0);
    let usage = Usage { bytes: next(), inodes: next(), content: next() };
    Some((chain, Layer { number, parent, usage }))
}

/// Overlayfs separates layers by colons, and mount options are separated by commas.
pub fn escape(path: &Path) -> String {
    path.to_string_lossy().replace('\\', "\\\\").replace(':', "\\:").replace(',', "\\,")
}
