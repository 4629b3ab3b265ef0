//! A file system from outside: opened by a descriptor and never followed out of it.
//!
//! Paths are resolved by openat2(2) with RESOLVE_IN_ROOT: a symbolic link of the container leads to where it leads inside.

use std::{
    ffi::OsStr,
    fs, io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Component, Path, PathBuf},
};

use coracle_launcher::sys;

use crate::{
    error::{Context, Error, Result},
    snapshots::{Root, mount_alone},
};

/// Device and inode: which file it is.
pub type Identity = (u64, u64);

/// An opened root.
pub struct Tree {
    root: OwnedFd,
}

impl Tree {
    pub fn new(root: OwnedFd) -> Tree {
        Tree { root }
    }

    /// Opens what a path leads to, links followed inside.
    pub fn open(&self, path: &Path, flags: i32) -> io::Result<OwnedFd> {
        let relative: PathBuf = path.components().filter(|part| !matches!(part, Component::RootDir)).collect();
        let relative = if relative.as_os_str().is_empty() { PathBuf::from(".") } else { relative };
        let resolve = sys::RESOLVE_IN_ROOT | sys::RESOLVE_NO_MAGICLINKS;
        sys::openat2(self.root.as_fd(), &relative, flags | libc::O_CLOEXEC, 0, resolve)
    }

    /// A path by which the kernel finds what was opened; no link of the container is followed by using it.
    pub fn path_of(fd: &impl AsRawFd) -> PathBuf {
        format!("/proc/self/fd/{}", fd.as_raw_fd()).into()
    }

    /// Where a path leads, links followed inside, as the kernel calls it: places of one tree begin with that of its root. And
    /// which file it is.
    pub fn path(&self, path: &Path) -> io::Result<(PathBuf, Identity)> {
        let found = self.open(path, libc::O_PATH)?;
        let metadata = fs::metadata(Tree::path_of(&found))?;
        Ok((fs::read_link(Tree::path_of(&found))?, (metadata.dev(), metadata.ino())))
    }

    /// Opens the directory that holds the last part of a path; the part itself is not followed.
    pub fn parent(&self, path: &Path) -> io::Result<(OwnedFd, Option<std::ffi::OsString>)> {
        let name = path.file_name().map(OsStr::to_owned);
        let parent = match &name {
            Some(_) => path.parent().unwrap_or(Path::new("/")),
            None => path,
        };
        Ok((self.open(parent, libc::O_PATH | libc::O_DIRECTORY)?, name))
    }
}

/// Mounts a root where nobody else sees it, for as long as `work` takes, and to be read alone: what is mounted for writing is
/// flushed to the disk at its end.
pub fn mounted<T: Send>(root: &Root, target: &Path, work: impl FnOnce(&Tree) -> Result<T> + Send) -> Result<T> {
    let open = |path: &Path| {
        sys::open(path, libc::O_PATH | libc::O_DIRECTORY, 0).map(Tree::new).context(format!("open {}", path.display()))
    };
    let (kind, options) = match root {
        Root::Directory(path) => return work(&open(path)?),
        Root::Mount { kind, options } => (kind, options),
    };
    fs::create_dir_all(target).context(format!("create {}", target.display()))?;
    let work = || {
        mount_alone(kind, options, libc::MS_RDONLY, target)?;
        work(&open(target)?)
    };
    // The namespace, and the mount, end with the thread.
    std::thread::scope(|scope| scope.spawn(work).join())
        .map_err(|_| Error::internal("the thread that mounts ended early"))?
}
