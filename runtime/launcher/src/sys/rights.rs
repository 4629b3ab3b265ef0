//! What a process may do: users, capabilities, limits, keys, filters.

use std::io;

use super::{check, check_long};

/// Begins a session keyring of one's own, so that the caller's keys stay with the caller (keyctl(2)).
pub fn join_session_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: i32 = 1;
    // SAFETY: a null name makes an anonymous keyring.
    check_long(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<u8>()) })
        .map(drop)
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

pub fn effective_user() -> u32 {
    // SAFETY: cannot fail.
    unsafe { libc::geteuid() }
}

pub fn effective_group() -> u32 {
    // SAFETY: cannot fail.
    unsafe { libc::getegid() }
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
