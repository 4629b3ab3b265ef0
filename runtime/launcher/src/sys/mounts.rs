//! Mounts, and the change of root.

use std::{
    ffi::{CStr, OsStr},
    io,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd},
    sync::OnceLock,
};

use super::{check, check_long, cstr, owned};

pub fn mount(source: &str, target: impl AsRef<OsStr>, kind: &str, flags: u64, data: &str) -> io::Result<()> {
    let (source, target, kind, data) = (cstr(source)?, cstr(target)?, cstr(kind)?, cstr(data)?);
    let data = if data.is_empty() { std::ptr::null() } else { data.as_ptr().cast() };
    // SAFETY: all strings are terminated; a null data is allowed.
    check(unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, data) }).map(drop)
}

pub fn umount(target: impl AsRef<OsStr>, flags: i32) -> io::Result<()> {
    let target = cstr(target)?;
    // SAFETY: `target` is terminated.
    check(unsafe { libc::umount2(target.as_ptr(), flags) }).map(drop)
}

const AT_RECURSIVE: i32 = 0x8000;

/// open_tree(2) with OPEN_TREE_CLONE: a copy of the mount at a path (and of those below it), attached nowhere.
pub fn open_tree(path: &str, recursive: bool) -> io::Result<OwnedFd> {
    const OPEN_TREE_CLONE: i32 = 1;
    let path = cstr(path)?;
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC | if recursive { AT_RECURSIVE } else { 0 };
    // SAFETY: `path` is terminated.
    check_long(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })
        .map(|fd| owned(fd as RawFd))
}

/// move_mount(2): attaches a mount that is attached nowhere to an open file or directory.
pub fn move_mount(mount: &impl AsRawFd, target: &impl AsRawFd) -> io::Result<()> {
    const TO_EMPTY_PATH: u32 = 0x40;
    move_mount_to(mount, target, c"", TO_EMPTY_PATH)
}

/// The same, to what has this name in an open directory. No symbolic link is followed there, but parts of a path are.
pub fn move_mount_at(mount: &impl AsRawFd, dir: &impl AsRawFd, name: &OsStr) -> io::Result<()> {
    move_mount_to(mount, dir, &cstr(name)?, 0)
}

fn move_mount_to(mount: &impl AsRawFd, dir: &impl AsRawFd, path: &CStr, flags: u32) -> io::Result<()> {
    const FROM_EMPTY_PATH: u32 = 0x4;
    let (from, flags) = (c"".as_ptr(), flags | FROM_EMPTY_PATH);
    // SAFETY: both paths are terminated; that of the source is empty, which the flag allows.
    check_long(unsafe {
        libc::syscall(libc::SYS_move_mount, mount.as_raw_fd(), from, dir.as_raw_fd(), path.as_ptr(), flags)
    })
    .map(drop)
}

/// Mounts a file system that needs no device, attached nowhere: fsopen(2), fsconfig(2), fsmount(2) (5.2).
pub fn mount_detached(kind: &str) -> io::Result<OwnedFd> {
    const CLOEXEC: u32 = 1;
    const CONFIG_CREATE: u32 = 6;
    let kind = cstr(kind)?;
    let none = std::ptr::null::<libc::c_char>();
    // SAFETY: `kind` is terminated; creation takes neither key nor value; the descriptors are ours.
    unsafe {
        let context = owned(check_long(libc::syscall(libc::SYS_fsopen, kind.as_ptr(), CLOEXEC))? as RawFd);
        check_long(libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), CONFIG_CREATE, none, none, 0))?;
        let mount = libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), CLOEXEC, 0);
        check_long(mount).map(|fd| owned(fd as RawFd))
    }
}

/// Whether the kernel has mount_setattr(2) (5.12). To change nothing always succeeds there.
pub fn has_mount_setattr() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| {
        let result = set_mount(&-1, false, MountAttributes::default());
        result.err().and_then(|error| error.raw_os_error()) != Some(libc::ENOSYS)
    })
}

/// What [`set_mount`] changes.
#[derive(Clone, Copy, Default)]
pub struct MountAttributes<'a> {
    /// `MOUNT_ATTR_*`
    pub set: u64,
    pub clear: u64,
    /// `MS_PRIVATE` and the like; 0 leaves it.
    pub propagation: u64,
    /// A user namespace whose mappings the owners of files go through.
    pub owners: Option<BorrowedFd<'a>>,
}

/// mount_setattr(2) on an open mount: sets and clears attributes, on the whole tree when `recursive`.
pub fn mount_setattr(fd: &impl AsRawFd, recursive: bool, set: u64, clear: u64) -> io::Result<()> {
    set_mount(fd, recursive, MountAttributes { set, clear, ..MountAttributes::default() })
}

/// mount_setattr(2) with all that it can.
pub fn set_mount(fd: &impl AsRawFd, recursive: bool, change: MountAttributes<'_>) -> io::Result<()> {
    const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;
    let (owners, mapped) = change.owners.map_or((0, 0), |fd| (fd.as_raw_fd() as u64, MOUNT_ATTR_IDMAP));
    let attributes: [u64; 4] = [change.set | mapped, change.clear, change.propagation, owners];
    let flags = libc::AT_EMPTY_PATH | if recursive { AT_RECURSIVE } else { 0 };
    // SAFETY: an empty path with AT_EMPTY_PATH, and the kernel's four-word structure with its size.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            c"".as_ptr(),
            flags,
            attributes.as_ptr(),
            size_of_val(&attributes),
        )
    };
    check_long(result).map(drop)
}

/// Makes the working directory the root and puts the old root on top of it (pivot_root(2), NOTES).
pub fn pivot_here() -> io::Result<()> {
    // SAFETY: both paths are terminated.
    check_long(unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) }).map(drop)
}

pub fn chroot(path: &str) -> io::Result<()> {
    let path = cstr(path)?;
    // SAFETY: `path` is terminated.
    check(unsafe { libc::chroot(path.as_ptr()) }).map(drop)
}

/// Which mount a descriptor is on: a number that no other ever has (6.8), else one that none has while it is there.
pub fn mount_id(fd: &impl AsRawFd) -> io::Result<u64> {
    const WANTED: u32 = libc::STATX_MNT_ID | libc::STATX_MNT_ID_UNIQUE;
    // SAFETY: an empty path with AT_EMPTY_PATH; the structure is plain data that the kernel fills.
    let found = unsafe {
        let mut out: libc::statx = std::mem::zeroed();
        check(libc::statx(fd.as_raw_fd(), c"".as_ptr(), libc::AT_EMPTY_PATH, WANTED, &mut out)).map(|_| out)
    };
    match found {
        Ok(out) if out.stx_mask & WANTED != 0 => Ok(out.stx_mnt_id),
        // Before 5.8.
        _ => {
            let text = super::read_file(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))?;
            let id = text.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
            id.ok_or_else(|| io::ErrorKind::InvalidData.into())
        }
    }
}

/// The `ST_*` flags of the mount that a descriptor is on.
pub fn statfs_flags(fd: &impl AsRawFd) -> io::Result<u64> {
    // SAFETY: the structure is plain data that the kernel fills.
    unsafe {
        let mut out: libc::statvfs = std::mem::zeroed();
        check(libc::fstatvfs(fd.as_raw_fd(), &mut out))?;
        Ok(out.f_flag)
    }
}

/// The kind of a file system by its number (statfs(2)), and the `ST_*` flags of its mount at a path.
pub fn statfs(path: impl AsRef<OsStr>) -> io::Result<(i64, u64)> {
    let path = cstr(path)?;
    // SAFETY: `path` is terminated, the structures are plain data that the kernel fills.
    unsafe {
        let mut kind: libc::statfs = std::mem::zeroed();
        check(libc::statfs(path.as_ptr(), &mut kind))?;
        let mut flags: libc::statvfs = std::mem::zeroed();
        check(libc::statvfs(path.as_ptr(), &mut flags))?;
        Ok((kind.f_type, flags.f_flag))
    }
}
