//! A container's file system from outside: opened by a descriptor and never followed out of it.
//!
//! A running container's root is its process's; one that does not run is mounted for a moment in a mount namespace of a
//! thread's own, so that nothing is ever mounted where the host sees it. Paths are resolved by openat2(2) with
//! RESOLVE_IN_ROOT: a symbolic link of the container leads to where it leads inside.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Component, Path, PathBuf},
};

use coracle_launcher::sys;

use super::{super::Docker, Container};
use crate::{
    error::{Context, Error, Result},
    snapshots::Root,
};

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

/// Mounts a root where only the descriptor returned can reach it.
fn open_detached(root: &Root, bundle: &Path) -> Result<OwnedFd> {
    match root {
        Root::Directory(path) => {
            sys::open(path, libc::O_PATH | libc::O_DIRECTORY, 0).context(format!("open {}", path.display()))
        }
        Root::Mount { kind, options } => {
            let target = bundle.join("rootfs");
            fs::create_dir_all(&target).context(format!("create {}", target.display()))?;
            let data = options.join(",");
            let work = || -> Result<OwnedFd> {
                sys::unshare(libc::CLONE_NEWNS).context("make a mount namespace")?;
                sys::mount("", "/", "", libc::MS_REC | libc::MS_PRIVATE, "").context("keep mounts to ourselves")?;
                sys::mount(kind, &target, kind, 0, &data).context("mount the container's file system")?;
                sys::open(&target, libc::O_PATH | libc::O_DIRECTORY, 0).context("open the container's file system")
            };
            // The namespace ends with the thread; the mount stays for as long as the descriptor is open.
            std::thread::scope(|scope| scope.spawn(work).join())
                .map_err(|_| Error::internal("the thread that mounts ended early"))?
        }
    }
}

impl Docker {
    /// The root of a container, running or not.
    pub fn root_of(&self, container: &Container) -> Result<Tree> {
        let pid = container.engine.state().pid;
        if container.runs() && pid != 0 {
            let path = format!("/proc/{pid}/root");
            let opened = sys::open(&path, libc::O_PATH | libc::O_DIRECTORY, 0);
            if let (Ok(fd), true) = (opened, container.engine.state().pid == pid) {
                return Ok(Tree::new(fd));
            }
        }
        let root = self.engine.root_of(&container.engine)?;
        open_detached(&root, &self.engine.bundle_of(&container.id)).map(Tree::new)
    }
}

/// Copies what an image has at a path into an empty volume, with owners, modes and times. Nothing there is fine.
pub fn copy_up(tree: &Tree, path: &Path, volume: &Path) -> Result<()> {
    let source = match tree.open(path, libc::O_RDONLY | libc::O_DIRECTORY) {
        Ok(source) => source,
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => return Ok(()),
        Err(error) => return Err(error).context(format!("open {}", path.display())),
    };
    let from = Tree::path_of(&source);
    copy_attributes(&from, volume)?;
    copy_directory(&from, volume, 0)
}

/// Deeper trees are no image's.
const MAX_DEPTH: usize = 256;

fn copy_directory(from: &Path, to: &Path, depth: usize) -> Result<()> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    if depth > MAX_DEPTH {
        return Err(Error::invalid("directories are nested too deeply"));
    }
    for entry in fs::read_dir(from).context(format!("read {}", from.display()))? {
        let entry = entry.context(format!("read {}", from.display()))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let what = || format!("copy {}", target.display());
        let metadata = fs::symlink_metadata(&source).context(what())?;
        let kind = metadata.file_type();
        if kind.is_dir() {
            fs::create_dir(&target).context(what())?;
            copy_directory(&source, &target, depth + 1)?;
        } else if kind.is_symlink() {
            let link = fs::read_link(&source).context(what())?;
            std::os::unix::fs::symlink(link, &target).context(what())?;
        } else if kind.is_file() {
            fs::copy(&source, &target).context(what())?;
        } else if kind.is_fifo() || kind.is_char_device() || kind.is_block_device() {
            let parent = File::open(to).context(what())?;
            sys::mknodat(parent.as_fd(), &entry.file_name(), metadata.mode(), metadata.rdev()).context(what())?;
        } else {
            continue;
        }
        copy_attributes(&source, &target)?;
    }
    Ok(())
}

/// Owner, mode, times; of a link the owner only.
fn copy_attributes(from: &Path, to: &Path) -> Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
    let what = || format!("set the attributes of {}", to.display());
    let followed = from.starts_with("/proc/self/fd") && from.components().count() == 5;
    let metadata = if followed { fs::metadata(from) } else { fs::symlink_metadata(from) }.context(what())?;
    lchown(to, Some(metadata.uid()), Some(metadata.gid())).context(what())?;
    if metadata.file_type().is_symlink() {
        return Ok(());
    }
    fs::set_permissions(to, fs::Permissions::from_mode(metadata.mode() & 0o7777)).context(what())?;
    if let (Ok(accessed), Ok(modified)) = (metadata.accessed(), metadata.modified()) {
        let times = fs::FileTimes::new().set_accessed(accessed).set_modified(modified);
        if let Ok(file) = File::open(to) {
            // Times are a courtesy.
            let _ = file.set_times(times);
        }
    }
    Ok(())
}
