//! `tmpcopyup`: a fresh tmpfs begins with what it covers.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::Path,
};

use crate::sys;

/// An image's directories nest less deeply; a limit guards the recursion.
const MAX_DEPTH: usize = 64;

/// Copies the files below one directory into another, with owners and permissions. Links are copied as links; devices,
/// sockets and fifos are left out.
pub fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    copy_directory(from, to, 0)
}

fn path_of(dir: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", dir.as_raw_fd())
}

fn open_at(dir: BorrowedFd<'_>, name: &OsStr, flags: i32, mode: u32) -> io::Result<OwnedFd> {
    sys::openat2(dir, Path::new(name), flags | libc::O_NOFOLLOW | libc::O_NONBLOCK, mode, sys::RESOLVE_IN_ROOT)
}

fn copy_directory(from: BorrowedFd<'_>, to: BorrowedFd<'_>, depth: usize) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(io::Error::from_raw_os_error(libc::ELOOP));
    }
    for entry in fs::read_dir(path_of(from))? {
        let entry = entry?;
        let (name, metadata) = (entry.file_name(), entry.metadata()?);
        if metadata.is_dir() {
            sys::mkdirat(to, &name, 0o700)?;
            let source = open_at(from, &name, libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
            let target = open_at(to, &name, libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
            copy_directory(source.as_fd(), target.as_fd(), depth + 1)?;
        } else if metadata.is_symlink() {
            let target = fs::read_link(Path::new(&path_of(from)).join(&name))?;
            sys::symlinkat(&target, to, &name)?;
        } else if metadata.is_file() {
            let mut source = File::from(open_at(from, &name, libc::O_RDONLY, 0)?);
            let mut target = File::from(open_at(to, &name, libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL, 0o600)?);
            io::copy(&mut source, &mut target)?;
        } else {
            continue;
        }
        sys::fchownat(to, &name, metadata.uid(), metadata.gid())?;
        if !metadata.is_symlink() {
            sys::fchmodat(to, &name, metadata.mode() & 0o7777)?;
        }
    }
    Ok(())
}
