//! One command at a time changes a lab.

use std::{
    fs::{self, File},
    os::unix::fs::{DirBuilderExt, MetadataExt},
};

use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};

use super::paths::Paths;

/// Holds the lab's directory; other commands that change the lab wait for it.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code, reason = "held, not read")] Flock<File>);

impl Lock {
    /// Makes the lab's directory if need be and waits for it.
    pub fn create(paths: &Paths) -> Result<Self> {
        loop {
            let dir = paths.state();
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir);
            made.with_context(|| format!("make {}", dir.display()))?;
            if let Some(lock) = Self::take(paths)? {
                return Ok(lock);
            }
        }
    }

    /// Waits for the lab's directory; `None` when there is none.
    pub fn open(paths: &Paths) -> Result<Option<Self>> {
        loop {
            if !paths.state().exists() {
                return Ok(None);
            }
            if let Some(lock) = Self::take(paths)? {
                return Ok(Some(lock));
            }
        }
    }

    /// `None` when the directory went away while this waited for it.
    fn take(paths: &Paths) -> Result<Option<Self>> {
        let dir = paths.state();
        let file = match File::open(&dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            file => file.with_context(|| format!("open {}", dir.display()))?,
        };
        let inode = file.metadata()?.ino();
        let lock = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno);
        let lock = lock.with_context(|| format!("lock {}", dir.display()))?;
        let same = fs::metadata(&dir).is_ok_and(|metadata| metadata.ino() == inode);
        Ok(same.then_some(Self(lock)))
    }
}
