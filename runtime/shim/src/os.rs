//! The system calls that std has no words for. Every `unsafe` of the shim is here.

use std::{
    fs::File,
    io,
    mem::{size_of, zeroed},
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};

fn check(value: libc::c_int) -> io::Result<libc::c_int> {
    if value < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
}

/// Takes over a standard stream that the caller put something else on, and puts `/dev/null` there.
pub fn take_stream(number: RawFd) -> io::Result<OwnedFd> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    // SAFETY: duplicates an open descriptor; the copy is this function's own.
    unsafe {
        let copy = check(libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3))?;
        check(libc::dup2(null.as_raw_fd(), number))?;
        Ok(OwnedFd::from_raw_fd(copy))
    }
}

/// A session of its own, orphans to itself, a name for process lists, and SIGCHLD as something to read.
pub fn settle() -> io::Result<OwnedFd> {
    // SAFETY: plain numbers, a terminated string, and a set that is filled before use.
    unsafe {
        // Fails only for a leader of a process group, which has a session of its own already.
        libc::setsid();
        check(libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))?;
        check(libc::prctl(libc::PR_SET_NAME, c"coracle-shim".as_ptr(), 0, 0, 0))?;
        let mut set: libc::sigset_t = zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGCHLD);
        check(libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()))?;
        let fd = check(libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// A child that ended, if one did: pid and wait status.
pub fn reap() -> Option<(i32, i32)> {
    let mut status = 0;
    // SAFETY: the pointer is valid.
    let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) };
    (pid > 0).then_some((pid, status))
}

/// 128 + N after signal N.
pub fn exit_code(status: i32) -> u32 {
    if libc::WIFSIGNALED(status) { 128 + libc::WTERMSIG(status) as u32 } else { libc::WEXITSTATUS(status) as u32 }
}

pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// Nanoseconds since 1970.
pub fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

pub fn set_nonblocking(fd: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: no pointers.
    unsafe {
        let flags = check(libc::fcntl(fd.as_raw_fd(), libc::F_GETFL))?;
        check(libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK)).map(drop)
    }
}

/// Whether this process has the one thread that it began with.
pub fn has_one_thread() -> bool {
    use std::os::unix::fs::MetadataExt;
    // A directory a thread, and every directory has two more names (Linux fs/proc/base.c, `proc_task_getattr`).
    std::fs::metadata("/proc/self/task").is_ok_and(|task| task.nlink() == 3)
}

/// Makes a copy of this process the launcher: with the streams of what it starts, and of all else only where it reports.
pub fn become_launcher(streams: &[OwnedFd; 3], report: &impl AsRawFd) -> io::Result<()> {
    let report = report.as_raw_fd();
    // SAFETY: plain numbers, a terminated string, and a set that is filled before use. The standard streams are open, so that
    // neither a stream of the new process nor the report is one of them; who owns what is closed here is never dropped.
    unsafe {
        check(libc::prctl(libc::PR_SET_NAME, c"coracle-oci".as_ptr(), 0, 0, 0))?;
        let mut set: libc::sigset_t = zeroed();
        libc::sigemptyset(&mut set);
        check(libc::sigprocmask(libc::SIG_SETMASK, &set, std::ptr::null_mut()))?;
        for (number, stream) in (0..).zip(streams) {
            check(libc::dup2(stream.as_raw_fd(), number))?;
        }
        close_range(3, report - 1);
        close_range(report + 1, RawFd::MAX);
    }
    Ok(())
}

/// Closes descriptors from `first` to `last`.
///
/// # Safety
/// Nothing in this process may use them, or think it owns them, afterwards.
pub unsafe fn close_range(first: RawFd, last: RawFd) {
    // SAFETY: plain numbers.
    if first > last || unsafe { libc::syscall(libc::SYS_close_range, first, last, 0u32) } == 0 {
        return;
    }
    // Before close_range(2) (5.9): one by one, as `/proc` lists them.
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return };
    let listed: Vec<RawFd> = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for number in listed.into_iter().filter(|number| (first..=last).contains(number)) {
        // SAFETY: a number. That of the listing itself is closed already.
        unsafe { libc::close(number) };
    }
}

/// Lets the next program keep a descriptor, or not.
pub fn inherit(fd: &impl AsRawFd, yes: bool) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, if yes { 0 } else { libc::FD_CLOEXEC }) }).map(drop)
}

/// A pipe: reading end, writing end.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: the array holds two descriptors, owned from here on.
    unsafe {
        check(libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC))?;
        Ok((OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])))
    }
}

/// Two sockets that keep messages apart.
pub fn message_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: the array holds two descriptors, owned from here on.
    unsafe {
        check(libc::socketpair(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0, ends.as_mut_ptr()))?;
        Ok((OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])))
    }
}

/// Reads without waiting; 0 is the end.
pub fn read(fd: &impl AsRawFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the buffer is valid for its length.
    let count = unsafe { libc::read(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
    if count < 0 { Err(io::Error::last_os_error()) } else { Ok(count as usize) }
}

pub fn write(fd: &impl AsRawFd, data: &[u8]) -> io::Result<usize> {
    // SAFETY: the data is valid for its length.
    let count = unsafe { libc::write(fd.as_raw_fd(), data.as_ptr().cast(), data.len()) };
    if count < 0 { Err(io::Error::last_os_error()) } else { Ok(count as usize) }
}

/// Receives one message and a descriptor that may come with it, without waiting. An empty message is the end.
pub fn receive(socket: &impl AsRawFd, buffer: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut iov = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut control = [0u64; 4];
    // SAFETY: the message points at live buffers of the given lengths; a received descriptor is owned from here on.
    unsafe {
        let mut message: libc::msghdr = zeroed();
        message.msg_iov = &mut iov;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of::<[u64; 4]>() as _;
        let count = libc::recvmsg(socket.as_raw_fd(), &mut message, libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC);
        if count < 0 {
            return Err(io::Error::last_os_error());
        }
        let header = libc::CMSG_FIRSTHDR(&message);
        let passed =
            !header.is_null() && (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS;
        let fd =
            passed.then(|| OwnedFd::from_raw_fd(std::ptr::read_unaligned(libc::CMSG_DATA(header).cast::<RawFd>())));
        Ok((count as usize, fd))
    }
}

pub fn resize(terminal: &impl AsRawFd, rows: u16, columns: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ takes a pointer to this structure.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &size) }).map(drop)
}

/// Waits until one of the descriptors has what it is asked for.
pub fn poll(entries: &mut [libc::pollfd]) -> io::Result<()> {
    loop {
        // SAFETY: the slice is valid for its length.
        match check(unsafe { libc::poll(entries.as_mut_ptr(), entries.len() as libc::nfds_t, -1) }) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Whether a descriptor can be read without waiting.
pub fn ready_now(entries: &mut [libc::pollfd]) -> bool {
    // SAFETY: the slice is valid for its length.
    unsafe { libc::poll(entries.as_mut_ptr(), entries.len() as libc::nfds_t, 0) > 0 }
}
