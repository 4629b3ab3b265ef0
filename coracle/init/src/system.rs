//! The system calls, with what was tried in their errors.

use std::{
    ffi::CString,
    fmt,
    fs::File,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};

/// What was tried and why it failed.
#[derive(Debug)]
pub struct Error(String);

pub type Result<T> = std::result::Result<T, Error>;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub fn context(operation: String) -> impl FnOnce(io::Error) -> Error {
    move |error| Error(format!("{operation}: {error}"))
}

/// The result of a call that answers -1 on failure.
pub fn check(result: libc::c_int, operation: impl Into<String>) -> Result<libc::c_int> {
    if result < 0 { Err(context(operation.into())(io::Error::last_os_error())) } else { Ok(result) }
}

/// Which side of a fork this is.
pub enum Fork {
    Parent(libc::pid_t),
    Child,
}

/// Forks. The program has one thread, so the child may do anything.
pub fn fork() -> Result<Fork> {
    // SAFETY: one thread.
    match check(unsafe { libc::fork() }, "fork")? {
        0 => Ok(Fork::Child),
        child => Ok(Fork::Parent(child)),
    }
}

/// A pipe, close-on-exec: reading end, writing end.
pub fn pipe() -> Result<(File, File)> {
    let mut ends = [0; 2];
    // SAFETY: `ends` has room for two descriptors, which are new and nobody else's.
    check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) }, "make a pipe")?;
    // SAFETY: as above.
    Ok(unsafe { (File::from_raw_fd(ends[0]), File::from_raw_fd(ends[1])) })
}

/// Writes to a descriptor that the caller gave and closes it.
pub fn report(fd: RawFd, text: &str) {
    // SAFETY: the descriptor was given for this, once.
    let mut file = unsafe { File::from_raw_fd(fd) };
    // A caller that went away does not want to know.
    let _ = io::Write::write_all(&mut file, text.as_bytes());
}

pub fn close(fd: RawFd) {
    // SAFETY: the descriptor was given for this process, and nothing uses it after.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
}

/// A session of its own, no input, output to `log`.
pub fn detach(log: &str) -> Result<()> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::setsid() }, "start a session")?;
    let null = File::open("/dev/null").map_err(context("open /dev/null".into()))?;
    let output = File::options().create(true).append(true).open(log).map_err(context(format!("open {log}")))?;
    for (from, to) in [(&null, 0), (&output, 1), (&output, 2)] {
        // SAFETY: both descriptors are open.
        check(unsafe { libc::dup2(from.as_raw_fd(), to) }, "redirect")?;
    }
    // SAFETY: the name is a C string.
    check(unsafe { libc::prctl(libc::PR_SET_NAME, c"coracle-init".as_ptr()) }, "set the process's name").map(drop)
}

/// Orphans of the command become children of this process.
pub fn become_subreaper() -> Result<()> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) }, "become the reaper of orphans").map(drop)
}

pub fn c_string(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error(format!("a NUL byte in {text:?}")))
}
