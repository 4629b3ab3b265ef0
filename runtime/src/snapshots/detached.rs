//! A file system opened without being mounted where anybody sees it.

use std::{fs, os::fd::OwnedFd, path::Path};

use coracle_launcher::sys;

use super::Root;
use crate::error::{Context, Error, Result};

/// Mounts a root where only the descriptor returned can reach it: at a directory, in a mount namespace of a thread's own.
pub fn open_detached(root: &Root, target: &Path) -> Result<OwnedFd> {
    match root {
        Root::Directory(path) => {
            sys::open(path, libc::O_PATH | libc::O_DIRECTORY, 0).context(format!("open {}", path.display()))
        }
        Root::Mount { kind, options } => {
            fs::create_dir_all(target).context(format!("create {}", target.display()))?;
            let data = options.join(",");
            let work = || -> Result<OwnedFd> {
                sys::unshare(libc::CLONE_NEWNS).context("make a mount namespace")?;
                sys::mount("", "/", "", libc::MS_REC | libc::MS_PRIVATE, "").context("keep mounts to ourselves")?;
                sys::mount(kind, target, kind, 0, &data).context("mount the container's file system")?;
                sys::open(target, libc::O_PATH | libc::O_DIRECTORY, 0).context("open the container's file system")
            };
            // The namespace ends with the thread; the mount stays for as long as the descriptor is open.
            std::thread::scope(|scope| scope.spawn(work).join())
                .map_err(|_| Error::internal("the thread that mounts ended early"))?
        }
    }
}
