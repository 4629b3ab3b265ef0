//! The system calls that std has no words for. Every `unsafe` of the launcher is here.

use std::{
    ffi::{CStr, CString, OsStr, OsString},
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Path, PathBuf},
    sync::OnceLock,
};

use crate::beneath;

/// A path or name as C wants it.
pub fn cstr(text: impl AsRef<OsStr>) -> io::Result<CString> {
    CString::new(text.as_ref().as_bytes()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

fn check(value: libc::c_int) -> io::Result<libc::c_int> {
    if value < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
}

fn check_long(value: libc::c_long) -> io::Result<libc::c_long> {
    if value < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
}

/// The C library's words for an error number.
pub fn strerror(errno: i32) -> String {
    let mut buffer = [0 as libc::c_char; 128];
    // SAFETY: the buffer is valid for its length; the XSI form writes a terminated string into it.
    unsafe {
        libc::strerror_r(errno, buffer.as_mut_ptr(), buffer.len());
        CStr::from_ptr(buffer.as_ptr()).to_string_lossy().to_lowercase()
    }
}

fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: called with a descriptor that a system call has just returned to this process.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// clone3(2) without a new stack: like fork(2) with namespaces. Returns 0 in the child, else its pid. Where the kernel has
/// none (before 5.3), clone(2) does what does not need a group.
///
/// The launcher has one thread, so the child may go on using the heap.
pub fn clone3(flags: u64, into_cgroup: Option<BorrowedFd<'_>>) -> io::Result<libc::pid_t> {
    #[repr(C)]
    #[derive(Default)]
    struct CloneArgs {
        flags: u64,
        pidfd: u64,
        child_tid: u64,
        parent_tid: u64,
        exit_signal: u64,
        stack: u64,
        stack_size: u64,
        tls: u64,
        set_tid: u64,
        set_tid_size: u64,
        cgroup: u64,
    }
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    let mut args = CloneArgs { flags, ..CloneArgs::default() };
    // With CLONE_PARENT the signal is the caller's own, and clone3 refuses another.
    if flags & libc::CLONE_PARENT as u64 == 0 {
        args.exit_signal = libc::SIGCHLD as u64;
    }
    if let Some(fd) = into_cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = fd.as_raw_fd() as u64;
    }
    // SAFETY: `args` is the kernel's structure with its size; no memory is shared with the child.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &mut args, size_of::<CloneArgs>()) };
    match check_long(pid) {
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) && into_cgroup.is_none() => {
            // SAFETY: as above; no stack of its own, and nothing is written anywhere.
            check_long(unsafe { libc::syscall(libc::SYS_clone, args.flags | args.exit_signal, 0, 0, 0, 0) })
        }
        result => result,
    }
    .map(|pid| pid as libc::pid_t)
}

pub fn unshare(flags: libc::c_int) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::unshare(flags) }).map(drop)
}

pub fn setns(fd: &impl AsRawFd, flags: libc::c_int) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::setns(fd.as_raw_fd(), flags) }).map(drop)
}

pub fn pidfd_open(pid: libc::pid_t) -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    check_long(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) }).map(|fd| owned(fd as RawFd))
}

pub fn pidfd_send_signal(fd: &impl AsRawFd, signal: i32) -> io::Result<()> {
    // SAFETY: a null siginfo is allowed.
    let result =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd.as_raw_fd(), signal, std::ptr::null::<u8>(), 0) };
    check_long(result).map(drop)
}

/// Never follow a path out of `dir`: `/`, `..` and symbolic links all stay inside (openat2(2)).
pub const RESOLVE_IN_ROOT: u64 = 0x10;
pub const RESOLVE_NO_MAGICLINKS: u64 = 0x02;
/// The same, but what would lead out is an error (EXDEV).
pub const RESOLVE_BENEATH: u64 = 0x08;
pub const RESOLVE_NO_SYMLINKS: u64 = 0x04;

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

pub fn fchdir(fd: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::fchdir(fd.as_raw_fd()) }).map(drop)
}

pub fn chroot(path: &str) -> io::Result<()> {
    let path = cstr(path)?;
    // SAFETY: `path` is terminated.
    check(unsafe { libc::chroot(path.as_ptr()) }).map(drop)
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

/// Two connected sockets that keep messages apart.
pub fn message_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: the array holds two descriptors.
    check(unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0, ends.as_mut_ptr()) })?;
    Ok((owned(ends[0]), owned(ends[1])))
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

/// A copy of another process's descriptor (pidfd_getfd(2)).
pub fn pidfd_getfd(pidfd: &impl AsRawFd, number: i32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    check_long(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0) })
        .map(|fd| owned(fd as RawFd))
}

/// Begins a session keyring of one's own, so that the caller's keys stay with the caller (keyctl(2)).
pub fn join_session_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: i32 = 1;
    // SAFETY: a null name makes an anonymous keyring.
    check_long(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<u8>()) })
        .map(drop)
}

/// personality(2).
pub fn personality(domain: u64) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::personality(domain as _) }).map(drop)
}

/// ioprio_set(2) for this process.
pub fn ioprio_set(priority: u16) -> io::Result<()> {
    const IOPRIO_WHO_PROCESS: i32 = 1;
    // SAFETY: no pointers.
    check_long(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, i32::from(priority)) }).map(drop)
}

/// What sched_setattr(2) takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scheduler {
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

/// sched_setattr(2) for this process.
pub fn sched_setattr(scheduler: &Scheduler) -> io::Result<()> {
    #[repr(C)]
    struct Attributes {
        size: u32,
        policy: u32,
        flags: u64,
        nice: i32,
        priority: u32,
        runtime: u64,
        deadline: u64,
        period: u64,
    }
    let attributes = Attributes {
        size: size_of::<Attributes>() as u32,
        policy: scheduler.policy,
        flags: scheduler.flags,
        nice: scheduler.nice,
        priority: scheduler.priority,
        runtime: scheduler.runtime,
        deadline: scheduler.deadline,
        period: scheduler.period,
    };
    // SAFETY: the kernel's structure of version 0, with its size in it.
    check_long(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &attributes, 0) }).map(drop)
}

/// Most processors that [`set_affinity`] can name.
pub const MAX_PROCESSORS: usize = 8192;

/// Processors, a bit each.
pub type ProcessorMask = [u64; MAX_PROCESSORS / 64];

/// Of which the kernel takes those that there are and the group has.
pub const ALL_PROCESSORS: ProcessorMask = [u64::MAX; MAX_PROCESSORS / 64];

/// sched_getaffinity(2) for this process.
pub fn affinity() -> io::Result<ProcessorMask> {
    let mut mask = [0; MAX_PROCESSORS / 64];
    // SAFETY: the mask is valid for its length.
    check_long(unsafe { libc::syscall(libc::SYS_sched_getaffinity, 0, size_of_val(&mask), mask.as_mut_ptr()) })?;
    Ok(mask)
}

/// sched_setaffinity(2) for this process.
pub fn set_affinity(processors: &[usize]) -> io::Result<()> {
    let mut mask = [0u64; MAX_PROCESSORS / 64];
    for &processor in processors.iter().filter(|&&processor| processor < MAX_PROCESSORS) {
        mask[processor / 64] |= 1 << (processor % 64);
    }
    set_affinity_mask(&mask)
}

pub fn set_affinity_mask(mask: &ProcessorMask) -> io::Result<()> {
    // SAFETY: the mask is valid for its length.
    check_long(unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(mask), mask.as_ptr()) }).map(drop)
}

pub fn setsid() -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::setsid() }).map(drop)
}

pub fn prctl(option: i32, argument: u64) -> io::Result<i32> {
    // SAFETY: the options used here take a number, not a pointer.
    check(unsafe { libc::prctl(option, argument, 0 as libc::c_ulong, 0 as libc::c_ulong, 0 as libc::c_ulong) })
}

/// prctl(PR_CAP_AMBIENT, …).
pub fn prctl_ambient(operation: i32, capability: u64) -> io::Result<i32> {
    // SAFETY: no pointers.
    check(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, operation, capability, 0 as libc::c_ulong, 0 as libc::c_ulong) })
}

/// capset(2): effective, permitted and inheritable sets.
pub fn capset(effective: u64, permitted: u64, inheritable: u64) -> io::Result<()> {
    // _LINUX_CAPABILITY_VERSION_3, this thread
    let header: [u32; 2] = [0x2008_0522, 0];
    let half = |set: u64, high: bool| if high { (set >> 32) as u32 } else { set as u32 };
    let data: [u32; 6] = [
        half(effective, false),
        half(permitted, false),
        half(inheritable, false),
        half(effective, true),
        half(permitted, true),
        half(inheritable, true),
    ];
    // SAFETY: version 3 takes a two-word header and two structures of three words.
    check_long(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) }).map(drop)
}

pub fn setgroups(groups: &[u32]) -> io::Result<()> {
    // SAFETY: the slice is valid for its length. The raw call, since libc's signals other threads and there are none.
    check_long(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) }).map(drop)
}

pub fn setgid(gid: u32) -> io::Result<()> {
    // SAFETY: no pointers.
    check_long(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) }).map(drop)
}

/// The first user of a user namespace, with the rights over its own `/proc` files that a change of user takes away.
pub fn become_root() -> io::Result<()> {
    setgid(0)?;
    setuid(0)?;
    prctl(libc::PR_SET_DUMPABLE, 1).map(drop)
}

pub fn setuid(uid: u32) -> io::Result<()> {
    // SAFETY: no pointers.
    check_long(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop)
}

pub fn umask(mask: u32) {
    // SAFETY: cannot fail.
    unsafe { libc::umask(mask) };
}

pub fn getrlimit(resource: u32) -> io::Result<(u64, u64)> {
    // SAFETY: the structure is plain data that the kernel fills.
    unsafe {
        let mut out: libc::rlimit64 = std::mem::zeroed();
        check(libc::getrlimit64(resource as _, &mut out))?;
        Ok((out.rlim_cur, out.rlim_max))
    }
}

pub fn setrlimit(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: the structure is valid.
    check(unsafe { libc::setrlimit64(resource as _, &limit) }).map(drop)
}

pub fn sethostname(name: &str) -> io::Result<()> {
    // SAFETY: the bytes are valid for their length.
    check(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) }).map(drop)
}

pub fn setdomainname(name: &str) -> io::Result<()> {
    // SAFETY: the bytes are valid for their length.
    check(unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) }).map(drop)
}

/// Brings the loopback interface of this process's network namespace up (netdevice(7)).
pub fn raise_loopback() -> io::Result<()> {
    // SAFETY: the structure is plain data that names an interface and its flags. Any socket will do.
    unsafe {
        let socket = owned(check(libc::socket(libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0))?);
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[..2].copy_from_slice(&[b'l' as libc::c_char, b'o' as libc::c_char]);
        request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
        check(libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &request)).map(drop)
    }
}

pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: the array holds two descriptors.
    check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
    Ok((owned(ends[0]), owned(ends[1])))
}

/// Puts a descriptor at a number, not close-on-exec (also when it is there already).
pub fn place_fd(fd: RawFd, number: RawFd) -> io::Result<()> {
    // SAFETY: no pointers.
    unsafe {
        if fd == number {
            let flags = check(libc::fcntl(fd, libc::F_GETFD))?;
            return check(libc::fcntl(fd, libc::F_SETFD, flags & !libc::FD_CLOEXEC)).map(drop);
        }
        check(libc::dup2(fd, number)).map(drop)
    }
}

/// Marks every descriptor from `first` on close-on-exec, so that none leaks into the container (close_range(2)); false if
/// the kernel cannot (before 5.11).
pub fn close_on_exec_from(first: u32) -> io::Result<bool> {
    const CLOSE_RANGE_CLOEXEC: u32 = 4;
    // SAFETY: no pointers.
    match check_long(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, CLOSE_RANGE_CLOEXEC) }) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL)) => Ok(false),
        result => result.map(|_| true),
    }
}

/// The same, one by one, as `/proc` lists them: the host's `/proc`, since a container's may be anything.
pub fn close_on_exec_listed(first: u32) -> io::Result<()> {
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let number = entry?.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok());
        if let Some(number) = number.filter(|number| i64::from(*number) >= i64::from(first)) {
            // SAFETY: no pointers.
            check(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) })?;
        }
    }
    Ok(())
}

pub fn set_controlling_tty(fd: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: TIOCSCTTY takes a number.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCSCTTY, 0) }).map(drop)
}

/// Unlocks a pty and opens its other end without going through any path (TIOCGPTPEER).
pub fn pty_peer(master: &impl AsRawFd) -> io::Result<OwnedFd> {
    let unlock: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK takes a pointer to an int, TIOCGPTPEER open flags.
    unsafe {
        check(libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &unlock))?;
        check(libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC))
            .map(owned)
    }
}

pub fn set_window_size(fd: &impl AsRawFd, rows: u16, columns: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ takes a pointer to this structure.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCSWINSZ, &size) }).map(drop)
}

/// The size of one terminal for another.
pub fn copy_window_size(from: &impl AsRawFd, to: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: both take a pointer to this structure, which is plain data.
    unsafe {
        let mut size: libc::winsize = std::mem::zeroed();
        check(libc::ioctl(from.as_raw_fd(), libc::TIOCGWINSZ, &mut size))?;
        check(libc::ioctl(to.as_raw_fd(), libc::TIOCSWINSZ, &size)).map(drop)
    }
}

/// A terminal's settings; an error for what is none.
pub fn terminal(fd: &impl AsRawFd) -> io::Result<libc::termios> {
    // SAFETY: the structure is plain data that the C library fills.
    unsafe {
        let mut settings: libc::termios = std::mem::zeroed();
        check(libc::tcgetattr(fd.as_raw_fd(), &mut settings)).map(|_| settings)
    }
}

/// Changes a terminal's settings; of a pty both ends have the same.
pub fn change_terminal(fd: &impl AsRawFd, change: impl FnOnce(&mut libc::termios)) -> io::Result<()> {
    let mut settings = terminal(fd)?;
    change(&mut settings);
    // SAFETY: the structure is valid.
    check(unsafe { libc::tcsetattr(fd.as_raw_fd(), libc::TCSANOW, &settings) }).map(drop)
}

/// Settings by which every byte goes through as it is (cfmakeraw(3)).
pub fn make_raw(settings: &mut libc::termios) {
    // SAFETY: the structure is valid.
    unsafe { libc::cfmakeraw(settings) };
}

/// Reads one message of a unix socket, and the descriptor that comes with it; 0 bytes are the end.
pub fn receive_with_fd(socket: &impl AsRawFd, buffer: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut iov = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut control = [0u64; 4];
    // SAFETY: the message points at live buffers of the given lengths; a descriptor in it is new and this process's own.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &mut iov;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control) as _;
        let count = loop {
            let count = libc::recvmsg(socket.as_raw_fd(), &mut message, libc::MSG_CMSG_CLOEXEC);
            match check_long(count as libc::c_long) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result? as usize,
            }
        };
        let header = libc::CMSG_FIRSTHDR(&message);
        let given =
            !header.is_null() && (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS;
        let fd = given.then(|| owned(std::ptr::read_unaligned(libc::CMSG_DATA(header).cast::<RawFd>())));
        Ok((count, fd))
    }
}

/// Sends bytes, and a descriptor with them, over a unix socket.
pub fn send_with_fd(socket: RawFd, bytes: &[u8], fd: Option<RawFd>) -> io::Result<()> {
    let mut iov = libc::iovec { iov_base: bytes.as_ptr() as *mut _, iov_len: bytes.len() };
    let mut control = [0u64; 4];
    // SAFETY: the message points at live buffers of the given lengths; one control header with one descriptor fits.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &mut iov;
        message.msg_iovlen = 1;
        if let Some(fd) = fd {
            message.msg_control = control.as_mut_ptr().cast();
            message.msg_controllen = libc::CMSG_SPACE(size_of::<RawFd>() as u32) as _;
            let header = libc::CMSG_FIRSTHDR(&message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(size_of::<RawFd>() as u32) as _;
            std::ptr::write_unaligned(libc::CMSG_DATA(header).cast::<RawFd>(), fd);
        }
        check_long(libc::sendmsg(socket, &message, libc::MSG_NOSIGNAL) as libc::c_long).map(drop)
    }
}

/// Runs another program in place of this one; returns only when that failed.
pub fn execve(path: &CStr, arguments: &[CString], environment: &[CString]) -> io::Error {
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings.iter().map(|text| text.as_ptr()).chain(std::iter::once(std::ptr::null())).collect()
    };
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    // SAFETY: both lists end with null and their strings live until the call returns.
    unsafe { libc::execve(path.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    io::Error::last_os_error()
}

pub fn access_executable(path: &CStr) -> io::Result<()> {
    // SAFETY: `path` is terminated. AT_EACCESS: by the effective user, as execve judges.
    check(unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), libc::X_OK, libc::AT_EACCESS) }).map(drop)
}

/// Waits for one child; returns its wait status.
pub fn waitpid(pid: libc::pid_t) -> io::Result<i32> {
    let mut status = 0;
    loop {
        // SAFETY: the pointer is valid.
        match check(unsafe { libc::waitpid(pid, &mut status, 0) }) {
            Ok(_) => return Ok(status),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

pub fn kill(pid: libc::pid_t, signal: i32) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// Makes orphans of this process's descendants its children.
pub fn become_subreaper() -> io::Result<()> {
    prctl(libc::PR_SET_CHILD_SUBREAPER, 1).map(drop)
}

/// Blocks the signals that a foreground run passes on, and opens a descriptor that reports them.
pub fn signalfd(signals: &[i32]) -> io::Result<OwnedFd> {
    // SAFETY: the set is plain data, filled before use.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        for &signal in signals {
            libc::sigaddset(&mut set, signal);
        }
        check(libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()))?;
        check(libc::signalfd(-1, &set, libc::SFD_CLOEXEC)).map(owned)
    }
}

/// Signals at their defaults and none blocked: what a container starts with, whatever the caller had.
pub fn reset_signals() {
    // SAFETY: the set is plain data; SIG_DFL is a valid handler; failures (SIGKILL, SIGSTOP) are meant to be ignored.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &set, std::ptr::null_mut());
        // std ignores SIGPIPE at start; nothing else of ours is changed.
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
}

/// seccomp(SECCOMP_SET_MODE_FILTER): puts a BPF program before every later system call of this process.
///
/// With SECCOMP_FILTER_FLAG_NEW_LISTENER it returns the number of the listener's descriptor, else 0.
pub fn seccomp_filter(program: &[[u8; 8]], flags: u64) -> io::Result<i32> {
    #[repr(C)]
    struct Program {
        length: u16,
        filter: *const [u8; 8],
    }
    let length = u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
    let program = Program { length, filter: program.as_ptr() };
    const SECCOMP_SET_MODE_FILTER: i32 = 1;
    // SAFETY: the program points at `length` instructions of eight bytes, the kernel's layout.
    check_long(unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program) })
        .map(|fd| fd as i32)
}

/// bpf(2).
pub fn bpf(command: i32, attributes: &mut [u8]) -> io::Result<i64> {
    // SAFETY: the attribute block is valid for its length; what it points at is the caller's and alive.
    check_long(unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_mut_ptr(), attributes.len()) })
}

/// Takes ownership of a descriptor that bpf(2) returned.
pub fn adopt(fd: i64) -> OwnedFd {
    owned(fd as RawFd)
}

/// Borrows one of the process's own open descriptors (0–2, or one given on the command line).
pub fn borrow(fd: RawFd) -> BorrowedFd<'static> {
    // SAFETY: only called with descriptors that stay open for the life of the process.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// Waits until a descriptor can be read (a pidfd: until its process has ended), or the time is over.
pub fn poll_in(fd: &impl AsRawFd, milliseconds: i32) -> bool {
    let mut entry = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry, alive for the call.
    unsafe { libc::poll(&mut entry, 1, milliseconds) > 0 }
}

/// Waits until one of two descriptors is ready (a pidfd: ended; a file of cgroupfs: changed), or the time is over.
pub fn poll_two(first: Option<&OwnedFd>, second: Option<&OwnedFd>, milliseconds: i32) -> (bool, bool) {
    let entry = |fd: RawFd, events| libc::pollfd { fd, events, revents: 0 };
    // poll(2) passes over negative numbers. cgroupfs announces by POLLPRI, an eventfd by POLLIN; asking a regular file
    // for POLLIN would always be answered.
    let changes = second.map_or(0, |fd| match fstat(fd) {
        Ok(stat) if stat.st_mode & libc::S_IFMT == libc::S_IFREG => libc::POLLPRI,
        _ => libc::POLLIN,
    });
    let mut entries = [
        entry(first.map_or(-1, AsRawFd::as_raw_fd), libc::POLLIN),
        entry(second.map_or(-1, AsRawFd::as_raw_fd), changes),
    ];
    // SAFETY: two entries, alive for the call.
    unsafe { libc::poll(entries.as_mut_ptr(), 2, milliseconds) };
    (entries[0].revents != 0, entries[1].revents & changes != 0)
}

/// Waits until something can be done with one of several descriptors; negative ones are passed over.
pub fn poll_all<const N: usize>(wanted: [(RawFd, i16); N]) -> [bool; N] {
    let mut entries = wanted.map(|(fd, events)| libc::pollfd { fd, events, revents: 0 });
    // SAFETY: so many entries, alive for the call.
    unsafe { libc::poll(entries.as_mut_ptr(), N as libc::nfds_t, -1) };
    entries.map(|entry| entry.revents != 0)
}

pub fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) }).map(owned)
}

/// Reads from the beginning of a file.
pub fn read_at(fd: &impl AsRawFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the buffer is valid for its length.
    let count = unsafe { libc::pread(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
    check_long(count as libc::c_long).map(|count| count as usize)
}

/// Waits for a child without blocking; its wait status if it has ended.
pub fn try_wait(pid: libc::pid_t) -> io::Result<Option<i32>> {
    let mut status = 0;
    // SAFETY: the pointer is valid.
    match check(unsafe { libc::waitpid(pid, &mut status, libc::WNOHANG) })? {
        0 => Ok(None),
        _ => Ok(Some(status)),
    }
}

/// Ends the process at once, running no destructor: how a child that must not return leaves.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: never returns.
    unsafe { libc::_exit(code) }
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

/// Makes `target` another name of `source`, closing what it was; both stay close-on-exec.
pub fn replace_fd(source: &impl AsRawFd, target: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::dup3(source.as_raw_fd(), target.as_raw_fd(), libc::O_CLOEXEC) }).map(drop)
}

pub fn set_nonblocking(fd: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: no pointers.
    unsafe {
        let flags = check(libc::fcntl(fd.as_raw_fd(), libc::F_GETFL))?;
        check(libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK)).map(drop)
    }
}

pub fn set_blocking(fd: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: no pointers.
    unsafe {
        let flags = check(libc::fcntl(fd.as_raw_fd(), libc::F_GETFL))?;
        check(libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags & !libc::O_NONBLOCK)).map(drop)
    }
}
