//! Files and directories.

use std::{
    ffi::{CStr, OsStr, OsString},
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd},
        unix::ffi::OsStringExt,
    },
    path::{Path, PathBuf},
};

use super::{check, check_long, cstr, owned};
use crate::beneath;

/// Never follow a path out of `dir`: `/`, `..` and symbolic links all stay inside (openat2(2)).
pub const RESOLVE_IN_ROOT: u64 = 0x10;
pub const RESOLVE_NO_MAGICLINKS: u64 = 0x02;
/// The same, but what would lead out is an error (EXDEV).
pub const RESOLVE_BENEATH: u64 = 0x08;
pub const RESOLVE_NO_SYMLINKS: u64 = 0x04;
/// Never go to another mount.
pub const RESOLVE_NO_XDEV: u64 = 0x01;
/// openat2(2); before 5.6 the same is done step by step ([`beneath`]).
pub fn openat2(dir: BorrowedFd<'_>, target: &Path, flags: i32, mode: u32, resolve: u64) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct OpenHow {
        flags: u64,
        mode: u64,
        resolve: u64,
    }
    let path = cstr(target)?;
    let how = OpenHow { flags: (flags | libc::O_CLOEXEC) as u64, mode: u64::from(mode), resolve };
    // A rename elsewhere in the system makes the kernel give up with EAGAIN; a few tries are enough (openat2(2)).
    for _ in 0..128 {
        // SAFETY: `path` is terminated, `how` is the kernel's structure with its size.
        let fd =
            unsafe { libc::syscall(libc::SYS_openat2, dir.as_raw_fd(), path.as_ptr(), &how, size_of::<OpenHow>()) };
        match check_long(fd) {
            Ok(fd) => return Ok(owned(fd as RawFd)),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
                return match resolve {
                    0 => openat(dir, target.as_os_str(), flags, mode),
                    _ => beneath::open(dir, target, flags, mode, resolve),
                };
            }
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::from_raw_os_error(libc::EAGAIN))
}

pub fn openat(dir: BorrowedFd<'_>, path: &OsStr, flags: i32, mode: u32) -> io::Result<OwnedFd> {
    let path = cstr(path)?;
    // SAFETY: `path` is terminated.
    check(unsafe { libc::openat(dir.as_raw_fd(), path.as_ptr(), flags | libc::O_CLOEXEC, mode) }).map(owned)
}

/// What a symbolic link says; EINVAL if the name is none.
pub fn readlinkat(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<OsString> {
    let name = cstr(name)?;
    // Longer ones do not exist (symlink(2), ENAMETOOLONG).
    let mut buffer = vec![0; libc::PATH_MAX as usize];
    // SAFETY: `name` is terminated, the buffer valid for its length.
    let count = unsafe { libc::readlinkat(dir.as_raw_fd(), name.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) };
    let count = check_long(count as libc::c_long)? as usize;
    buffer.truncate(count);
    Ok(OsString::from_vec(buffer))
}

/// Whether a descriptor leads into procfs.
pub fn is_procfs(fd: &impl AsRawFd) -> io::Result<bool> {
    // SAFETY: the structure is plain data that the kernel fills.
    unsafe {
        let mut out: libc::statfs = std::mem::zeroed();
        check(libc::fstatfs(fd.as_raw_fd(), &mut out))?;
        Ok(out.f_type == libc::PROC_SUPER_MAGIC)
    }
}

pub fn open(path: impl AsRef<OsStr>, flags: i32, mode: u32) -> io::Result<OwnedFd> {
    let path = cstr(path)?;
    // SAFETY: `path` is terminated.
    check(unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC, mode) }).map(owned)
}

/// Reads a file of the kernel's, whose size is not known before, with few calls.
pub fn read_file(path: impl AsRef<OsStr>) -> io::Result<String> {
    let fd = open(path, libc::O_RDONLY, 0)?;
    let mut out = Vec::new();
    loop {
        let start = out.len();
        out.resize(start + 8192, 0);
        let count = read(&fd, &mut out[start..])?;
        out.truncate(start + count);
        if count == 0 {
            return String::from_utf8(out).map_err(|_| io::ErrorKind::InvalidData.into());
        }
    }
}

pub fn mkdirat(dir: BorrowedFd<'_>, name: &OsStr, mode: u32) -> io::Result<()> {
    let name = cstr(name)?;
    // SAFETY: `name` is terminated.
    check(unsafe { libc::mkdirat(dir.as_raw_fd(), name.as_ptr(), mode) }).map(drop)
}

pub fn mknodat(dir: BorrowedFd<'_>, name: &OsStr, mode: u32, device: u64) -> io::Result<()> {
    let name = cstr(name)?;
    // SAFETY: `name` is terminated.
    check(unsafe { libc::mknodat(dir.as_raw_fd(), name.as_ptr(), mode, device) }).map(drop)
}

/// Of what has this name, no link followed.
pub fn fstatat(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<libc::stat> {
    let name = cstr(name)?;
    // SAFETY: `name` is terminated, the structure is plain data that the kernel fills.
    unsafe {
        let mut out: libc::stat = std::mem::zeroed();
        check(libc::fstatat(dir.as_raw_fd(), name.as_ptr(), &mut out, libc::AT_SYMLINK_NOFOLLOW))?;
        Ok(out)
    }
}

pub fn symlinkat(target: impl AsRef<OsStr>, dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    let (target, name) = (cstr(target)?, cstr(name)?);
    // SAFETY: both are terminated.
    check(unsafe { libc::symlinkat(target.as_ptr(), dir.as_raw_fd(), name.as_ptr()) }).map(drop)
}

pub fn unlinkat(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    let name = cstr(name)?;
    // SAFETY: `name` is terminated.
    check(unsafe { libc::unlinkat(dir.as_raw_fd(), name.as_ptr(), 0) }).map(drop)
}

pub fn fchmodat(dir: BorrowedFd<'_>, name: &OsStr, mode: u32) -> io::Result<()> {
    let name = cstr(name)?;
    // SAFETY: `name` is terminated.
    check(unsafe { libc::fchmodat(dir.as_raw_fd(), name.as_ptr(), mode, 0) }).map(drop)
}

pub fn fchownat(dir: BorrowedFd<'_>, name: &OsStr, uid: u32, gid: u32) -> io::Result<()> {
    let name = cstr(name)?;
    // SAFETY: `name` is terminated.
    check(unsafe { libc::fchownat(dir.as_raw_fd(), name.as_ptr(), uid, gid, libc::AT_SYMLINK_NOFOLLOW) }).map(drop)
}

pub fn fchown(fd: &impl AsRawFd, uid: u32, gid: u32) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::fchown(fd.as_raw_fd(), uid, gid) }).map(drop)
}

pub fn fchdir(fd: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::fchdir(fd.as_raw_fd()) }).map(drop)
}

/// Sets an extended attribute; a link at the path's end is followed.
pub fn setxattr(path: impl AsRef<OsStr>, name: &str, value: &[u8]) -> io::Result<()> {
    let (path, name) = (cstr(path)?, cstr(name)?);
    // SAFETY: both strings are terminated, the value is valid for its length.
    check(unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) }).map(drop)
}

/// An extended attribute of at most 4 KiB; a link at the path's end is followed.
pub fn getxattr(path: impl AsRef<OsStr>, name: &str) -> io::Result<Vec<u8>> {
    let (path, name) = (cstr(path)?, cstr(name)?);
    let mut out = vec![0; 4096];
    // SAFETY: both strings are terminated, the buffer is valid for its length.
    let size = unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), out.as_mut_ptr().cast(), out.len()) };
    if size < 0 {
        return Err(io::Error::last_os_error());
    }
    out.truncate(size as usize);
    Ok(out)
}

pub fn fstat(fd: &impl AsRawFd) -> io::Result<libc::stat> {
    // SAFETY: the structure is plain data that the kernel fills.
    unsafe {
        let mut out: libc::stat = std::mem::zeroed();
        check(libc::fstat(fd.as_raw_fd(), &mut out))?;
        Ok(out)
    }
}

/// A file in memory.
pub fn memfd() -> io::Result<OwnedFd> {
    // SAFETY: the name is terminated.
    check(unsafe { libc::memfd_create(c"coracle".as_ptr(), libc::MFD_CLOEXEC) }).map(owned)
}

/// Reads once; 0 is the end.
pub fn read(fd: &impl AsRawFd, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        // SAFETY: the buffer is valid for its length.
        let count = unsafe { libc::read(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
        match check_long(count as libc::c_long) {
            Ok(count) => return Ok(count as usize),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

pub fn write(fd: &impl AsRawFd, data: &[u8]) -> io::Result<usize> {
    // SAFETY: the data is valid for its length.
    let count = unsafe { libc::write(fd.as_raw_fd(), data.as_ptr().cast(), data.len()) };
    check_long(count as libc::c_long).map(|count| count as usize)
}

pub fn access_executable(path: &CStr) -> io::Result<()> {
    // SAFETY: `path` is terminated. AT_EACCESS: by the effective user, as execve judges.
    check(unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), libc::X_OK, libc::AT_EACCESS) }).map(drop)
}

/// Reads from the beginning of a file.
pub fn read_at(fd: &impl AsRawFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the buffer is valid for its length.
    let count = unsafe { libc::pread(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
    check_long(count as libc::c_long).map(|count| count as usize)
}

/// Where a path leads, as the kernel names it: two calls, where asking about each part of it takes one a part.
pub fn real_path(path: impl AsRef<OsStr>) -> io::Result<PathBuf> {
    let place = open(path, libc::O_PATH, 0)?;
    std::fs::read_link(format!("/proc/self/fd/{}", place.as_raw_fd()))
}

pub fn mkfifo(path: impl AsRef<OsStr>, mode: u32) -> io::Result<()> {
    let path = cstr(path)?;
    // SAFETY: `path` is terminated.
    check(unsafe { libc::mkfifo(path.as_ptr(), mode) }).map(drop)
}
