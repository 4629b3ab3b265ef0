//! Processes: their making, their signals, their end, and the names of the machine they see.

use std::{
    ffi::{CStr, CString},
    io,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use super::{check, check_long, owned, prctl};

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

pub fn setsid() -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::setsid() }).map(drop)
}

pub fn sethostname(name: &str) -> io::Result<()> {
    // SAFETY: the bytes are valid for their length.
    check(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) }).map(drop)
}

pub fn setdomainname(name: &str) -> io::Result<()> {
    // SAFETY: the bytes are valid for their length.
    check(unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) }).map(drop)
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
