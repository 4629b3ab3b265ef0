//! Descriptors: their numbers and flags, and waiting for them.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use super::{check, check_long, fstat, owned};

/// A copy of another process's descriptor (pidfd_getfd(2)).
pub fn pidfd_getfd(pidfd: &impl AsRawFd, number: i32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    check_long(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0) })
        .map(|fd| owned(fd as RawFd))
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
