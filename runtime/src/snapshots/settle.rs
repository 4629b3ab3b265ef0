//! Layers that a power loss would not take.
//!
//! Syncing each file of a layer would make a pull as slow as the disk's seeks, and a layer that is kept before its files
//! are on the disk may come back empty. So a kept layer carries a mark with the identity of this boot; one flush of the
//! file system covers all layers of an image, then the marks go. A mark of an earlier boot means that power was lost
//! between the two: that layer is thrown away and unpacked again.

use std::{
    fs::{self, File},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

use parking_lot::Mutex;

use crate::error::{Context, Result};

const MARK: &str = "unsettled";
/// Another one each time the kernel starts (random(4)).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The layers of one directory whose files may not be on the disk yet.
pub(super) struct Settling {
    dir: PathBuf,
    boot: String,
    pending: Mutex<Vec<PathBuf>>,
    /// Held while a flush runs: who comes later waits for it, for it may cover their layers.
    flushing: Mutex<()>,
}

impl Settling {
    pub fn open(dir: &Path) -> Result<Settling> {
        let boot = fs::read_to_string(BOOT_ID).context(format!("read {BOOT_ID}"))?;
        Ok(Settling {
            dir: dir.to_owned(),
            boot: boot.trim().to_owned(),
            pending: Mutex::default(),
            flushing: Mutex::default(),
        })
    }

    /// Marks a draft that is about to be kept.
    pub fn mark(&self, draft: &Path) -> Result<()> {
        fs::write(draft.join(MARK), &self.boot).context(format!("write {}/{MARK}", draft.display()))
    }

    /// Remembers a layer that was kept, to be covered by the next flush.
    pub fn kept(&self, layer: PathBuf) {
        self.pending.lock().push(layer);
    }

    /// Whether a layer that an earlier process kept can be trusted.
    pub fn adopt(&self, layer: &Path) -> bool {
        match fs::read_to_string(layer.join(MARK)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
            // The process was killed, the machine was not: the kernel still has every byte.
            Ok(boot) if boot == self.boot => {
                self.kept(layer.to_owned());
                true
            }
            _ => false,
        }
    }

    /// Writes everything down; after it, every layer kept before the call survives a power loss.
    pub fn settle(&self) -> Result<()> {
        let _flushing = self.flushing.lock();
        let layers = std::mem::take(&mut *self.pending.lock());
        if layers.is_empty() {
            return Ok(());
        }
        let flushed = File::open(&self.dir).and_then(|dir| {
            // SAFETY: the descriptor is open for the length of the call.
            if unsafe { libc::syncfs(dir.as_raw_fd()) } == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
        });
        if let Err(error) = flushed {
            self.pending.lock().extend(layers);
            return Err(error).context(format!("write the file system of {} to its disk", self.dir.display()));
        }
        for layer in layers {
            match fs::remove_file(layer.join(MARK)) {
                // Removed meanwhile, with the layer.
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).context(format!("settle {}", layer.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Whether a layer was settled, or is as good as that since the machine has not been off.
pub(super) fn is_sound(layer: &Path) -> bool {
    match fs::read_to_string(layer.join(MARK)) {
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
        Ok(boot) => fs::read_to_string(BOOT_ID).is_ok_and(|now| now.trim() == boot),
    }
}

/// Removes what is below a directory of drafts.
pub(super) fn clear(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).context(format!("clean {}", dir.display()))
        }
        _ => Ok(()),
    }
}
