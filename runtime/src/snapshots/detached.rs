//! A file system opened without being mounted where anybody sees it.

use std::{
    fs,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use coracle_launcher::sys;

use super::Root;
use crate::error::{Context, Error, Result};

/// Mounts a root where only the descriptor returned can reach it: at a directory, in a mount namespace of a thread's own.
///
/// The descriptor is of a copy that is mounted nowhere, and the mount stays for as long as it is open. One of the mount itself
/// would not do: when the namespace is gone, each step there changes what openat2(2) compares to see that nothing was moved
/// meanwhile (the kernel's `mntput`, which takes `mount_lock` for mounts without a namespace), and a `..` behind a link is
/// never followed (EAGAIN).
pub fn open_detached(root: &Root, target: &Path) -> Result<OwnedFd> {
    match root {
        Root::Directory(path) => {
            sys::open(path, libc::O_PATH | libc::O_DIRECTORY, 0).context(format!("open {}", path.display()))
        }
        Root::Mount { kind, options } => {
            fs::create_dir_all(target).context(format!("create {}", target.display()))?;
            let work = || -> Result<OwnedFd> {
                mount_alone(kind, options, 0, target)?;
                match sys::open_tree(&target.to_string_lossy(), false) {
                    // Before Linux 5.2.
                    Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
                        sys::open(target, libc::O_PATH | libc::O_DIRECTORY, 0)
                    }
                    opened => opened,
                }
                .context("open the container's file system")
            };
            std::thread::scope(|scope| scope.spawn(work).join())
                .map_err(|_| Error::internal("the thread that mounts ended early"))?
        }
    }
}

/// Mounts a file system in a new mount namespace of the calling thread, which ends with it.
pub fn mount_alone(kind: &str, options: &[String], flags: u64, target: &Path) -> Result<()> {
    let (base, data) = shorten(options)?;
    // The working directory is the thread's own then, too.
    sys::unshare(libc::CLONE_NEWNS).context("make a mount namespace")?;
    if let Some(base) = &base {
        std::env::set_current_dir(base).context(format!("enter {}", base.display()))?;
    }
    sys::mount("", "/", "", libc::MS_REC | libc::MS_PRIVATE, "").context("keep mounts to ourselves")?;
    sys::mount(kind, target, kind, flags, &data).context("mount the container's file system")
}

/// mount(2) takes a page of options, its end included.
const MAX_MOUNT_DATA: usize = 4095;

/// A mount's options as one text. Longer than a page, they are of an overlay of many layers: these are named from the
/// directory that they have in common, which is given too.
fn shorten(options: &[String]) -> Result<(Option<PathBuf>, String)> {
    let data = options.join(",");
    if data.len() <= MAX_MOUNT_DATA {
        return Ok((None, data));
    }
    let too_long = || Error::invalid("the options of a mount are longer than a page");
    let layers = options.iter().find_map(|option| option.strip_prefix("lowerdir=")).ok_or_else(too_long)?;
    let mut base = layers.split(':').next().unwrap_or_default();
    while !layers.split(':').all(|layer| layer.strip_prefix(base).is_some_and(|rest| rest.starts_with('/'))) {
        base = &base[..base.rfind('/').ok_or_else(too_long)?];
    }
    let short: Vec<&str> = layers.split(':').map(|layer| &layer[base.len() + 1..]).collect();
    let data = data.replace(layers, &short.join(":"));
    // A path of ours with a character that is escaped in options is not shortened: the directory has another name.
    if base.is_empty() || base.contains('\\') || data.len() > MAX_MOUNT_DATA {
        return Err(too_long());
    }
    Ok((Some(base.into()), data))
}
