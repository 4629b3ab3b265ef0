//! A node's namespaces.

use std::{io, os::fd::RawFd, ptr};

use crate::system::{self, Result, c_string, check};

/// Leaves the host: the next child is the first process of the node.
pub fn enter(netns: RawFd) -> Result<()> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::setns(netns, libc::CLONE_NEWNET) }, "enter the network namespace")?;
    system::close(netns);
    let namespaces = libc::CLONE_NEWNS | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC | libc::CLONE_NEWPID;
    // SAFETY: one thread.
    check(unsafe { libc::unshare(namespaces) }, "make namespaces").map(drop)
}

/// Sets the node up from inside.
pub fn set_up(hostname: &str) -> Result<()> {
    // What the host unmounts goes away here too and keeps nothing busy; what is mounted here stays here.
    mount(None, "/", None, libc::MS_REC | libc::MS_SLAVE)?;
    mount(Some("proc"), "/proc", Some("proc"), libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC)?;
    // SAFETY: pointer and length are of one string.
    let named = unsafe { libc::sethostname(hostname.as_ptr().cast(), hostname.len()) };
    check(named, format!("set the host name to {hostname}")).map(drop)
}

fn mount(source: Option<&str>, target: &str, kind: Option<&str>, flags: libc::c_ulong) -> Result<()> {
    let source = source.map(c_string).transpose()?;
    let kind = kind.map(c_string).transpose()?;
    let target_c = c_string(target)?;
    let pointer = |text: &Option<std::ffi::CString>| text.as_ref().map_or(ptr::null(), |text| text.as_ptr());
    // SAFETY: every pointer is null or a C string that lives until after the call.
    let result = unsafe { libc::mount(pointer(&source), target_c.as_ptr(), pointer(&kind), flags, ptr::null()) };
    check(result, format!("mount {target}")).map(drop)
}

/// Whether an error says that a process is gone.
pub fn is_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ESRCH)
}
