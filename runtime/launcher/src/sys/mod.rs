//! The system calls that std has no words for, a file a kind. Every `unsafe` of the launcher is here.

mod descriptors;
mod files;
mod mounts;
mod processes;
mod rights;
mod scheduling;
mod sockets;
mod terminals;

use std::{
    ffi::{CStr, CString, OsStr},
    io,
    os::{
        fd::{FromRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
};

pub use {descriptors::*, files::*, mounts::*, processes::*, rights::*, scheduling::*, sockets::*, terminals::*};

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
