//! What is removed goes out of sight at once, and off the disk afterwards.
//!
//! Giving blocks back may mean to wait for the disk, file by file (a file system mounted with `discard`), and whoever removes
//! a container waits for its end, not for that.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::warn;

use crate::error::{Context, Result};

/// Removals that may be under way; who begins more waits for the disk.
const BACKLOG: usize = 64;

/// Where things wait for their end.
pub(super) struct Removals {
    dir: Arc<PathBuf>,
    backlog: Arc<Semaphore>,
    /// One after the other: they are in nobody's way so.
    turn: Arc<Semaphore>,
}

/// What one removal takes away.
pub(super) struct Removal {
    dir: Arc<PathBuf>,
    place: Option<OwnedSemaphorePermit>,
    turn: Arc<Semaphore>,
    taken: Vec<PathBuf>,
}

impl Removals {
    pub fn open(dir: PathBuf) -> Result<Removals> {
        fs::create_dir_all(&dir).context(format!("create {}", dir.display()))?;
        Ok(Removals {
            dir: Arc::new(dir),
            backlog: Arc::new(Semaphore::new(BACKLOG)),
            turn: Arc::new(Semaphore::new(1)),
        })
    }

    pub fn begin(&self) -> Removal {
        Removal {
            dir: self.dir.clone(),
            place: self.backlog.clone().try_acquire_owned().ok(),
            turn: self.turn.clone(),
            taken: Vec::new(),
        }
    }

    /// Goes on with what an earlier daemon did not come to.
    pub fn go_on(&self) {
        let mut removal = self.begin();
        let left = fs::read_dir(&*self.dir).into_iter().flatten().flatten();
        removal.taken = left.map(|entry| entry.path()).collect();
        removal.finish();
    }
}

impl Removal {
    /// Has something moved to where it waits; false if it has to be removed from where it is.
    pub fn take(&mut self, name: &str, moved: impl FnOnce(&Path) -> Result<()>) -> bool {
        let to = self.dir.join(name);
        let taken = self.place.is_some() && moved(&to).is_ok();
        if taken {
            self.taken.push(to);
        }
        taken
    }

    /// Removes what was taken, after this has returned.
    pub fn finish(self) {
        let Removal { place, turn, taken, .. } = self;
        if taken.is_empty() {
            return;
        }
        tokio::spawn(async move {
            let _place = place;
            let Ok(_turn) = turn.acquire().await else { return };
            let work = move || taken.iter().for_each(|path| remove(path));
            if let Err(error) = tokio::task::spawn_blocking(work).await {
                warn!(%error, "what was removed stays until the next start");
            }
        });
    }
}

fn remove(path: &Path) {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            warn!(path = %path.display(), %error, "what was removed cannot be taken off the disk");
        }
        _ => {}
    }
}
