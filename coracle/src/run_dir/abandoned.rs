//! Directories of what ran for data directories that are gone: nobody will come back to them.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::AsRawFd,
        unix::{ffi::OsStrExt, fs::FileTypeExt},
    },
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::FlockArg,
    sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket},
};

use super::{OWNER, lock, name};

/// Deeper than what a runtime makes.
const DEPTH: usize = 8;

/// Removes those below `base`, whose lock the caller has. What cannot be told stays.
pub fn remove(base: &Path) {
    let Ok(mounts) = fs::read_to_string("/proc/self/mountinfo") else { return };
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let dir = entry.path();
        if !is_orphan(&dir) {
            continue;
        }
        // A daemon has it shared.
        let Ok(_lock) = lock(&dir, FlockArg::LockExclusiveNonblock) else { continue };
        if is_mounted_in(&mounts, &dir) || has_listener(&dir, DEPTH) {
            continue;
        }
        match fs::remove_dir_all(&dir) {
            Ok(()) => tracing::info!(dir = %dir.display(), "removed what ran for a data directory that is gone"),
            Err(error) => {
                tracing::warn!(dir = %dir.display(), %error, "what ran for a data directory that is gone stays")
            }
        }
    }
}

/// Whether it says whose it is, and that is gone.
fn is_orphan(dir: &Path) -> bool {
    let Ok(owner) = fs::read_link(dir.join(OWNER)) else { return false };
    let gone = fs::symlink_metadata(&owner).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    gone && dir.file_name().is_some_and(|found| found == name(&owner).as_str())
}

/// Whether something is mounted on a directory or below it (proc_pid_mountinfo(5)).
pub fn is_mounted_in(mounts: &str, dir: &Path) -> bool {
    // The base and the names are our own: nothing in them is written as an octal number there.
    mounts.lines().filter_map(|line| line.split(' ').nth(4)).any(|point| Path::new(point).starts_with(dir))
}

/// Whether a shim, or a daemon that knows nothing of locks, listens on a socket below; one that is deeper than anything here
/// counts as one.
fn has_listener(dir: &Path, depth: usize) -> bool {
    let Some(deeper) = depth.checked_sub(1) else { return true };
    let Ok(entries) = fs::read_dir(dir) else { return true };
    entries.into_iter().any(|entry| match entry.and_then(|entry| entry.file_type().map(|kind| (entry, kind))) {
        Ok((entry, kind)) if kind.is_dir() => has_listener(&entry.path(), deeper),
        Ok((entry, kind)) if kind.is_socket() => listens(dir, &entry.file_name()),
        Ok(_) => false,
        Err(_) => true,
    })
}

fn listens(dir: &Path, name: &std::ffi::OsStr) -> bool {
    let tried = || -> nix::Result<()> {
        // By way of the directory's descriptor: an address has room for 107 bytes.
        let dir = File::open(dir).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
        let address =
            UnixAddr::new(Path::new(&format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name).as_os_str().as_bytes())?;
        // A backlog that is full is not waited for.
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let client = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        connect(client.as_raw_fd(), &address)
    };
    tried() != Err(Errno::ECONNREFUSED)
}
