//! The first process of a pid namespace that a pod's containers share: it takes orphans in and holds nothing.

use std::{ffi::CString, io, os::unix::ffi::OsStrExt, path::Path};

use coracle_launcher::sys;

/// Starts it as a child of this process, with which it ends. Its root is an empty directory: containers see it, and what
/// they could reach by `/proc/1` must be nothing.
pub fn spawn(empty: &Path) -> io::Result<i32> {
    let empty = CString::new(empty.as_os_str().as_bytes())?;
    match sys::clone3(libc::CLONE_NEWPID as u64, None)? {
        0 => run(&empty),
        pid => Ok(pid),
    }
}

fn run(empty: &CString) -> ! {
    // SAFETY: plain numbers and terminated strings; nothing is shared with the parent, which has one thread.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::prctl(libc::PR_SET_NAME, c"pod-init".as_ptr());
        // Ended children vanish by themselves (sigaction(2), SIGCHLD).
        libc::signal(libc::SIGCHLD, libc::SIG_IGN);
        if libc::syscall(libc::SYS_close_range, 0u32, u32::MAX, 0u32) != 0 {
            close_listed();
        }
        if libc::chroot(empty.as_ptr()) != 0 || libc::chdir(c"/".as_ptr()) != 0 {
            libc::_exit(1);
        }
        loop {
            libc::pause();
        }
    }
}

/// Before close_range(2) (5.9): one by one, as `/proc` lists them.
fn close_listed() {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return };
    let listed: Vec<i32> = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for number in listed {
        // SAFETY: a number; nothing in this process uses what it had open. That of the listing itself is closed already.
        unsafe { libc::close(number) };
    }
}
