//! The first process of a pid namespace that a pod's containers share: it takes orphans in and holds nothing.

use std::{ffi::CString, io, os::unix::ffi::OsStrExt, path::Path};

use coracle_launcher::sys;

use crate::os;

/// What containers see it called, as in upstream's documentation of shared processes.
const NAME: &[u8] = b"/pause";

/// Starts it as a child of this process, with which it ends. Its root is an empty directory: containers see it, and what
/// they could reach by `/proc/1` must be nothing.
///
/// `users` is the file of the user namespace that the new one belongs to, or empty.
pub fn spawn(empty: &Path, users: &str) -> io::Result<i32> {
    let empty = CString::new(empty.as_os_str().as_bytes())?;
    if !users.is_empty() {
        return spawn_in(&empty, users);
    }
    match sys::clone3(libc::CLONE_NEWPID as u64, None)? {
        0 => run(&empty, false),
        pid => Ok(pid),
    }
}

/// This process must not leave its user namespace: another one goes in, makes the first process as its sibling, and says
/// which that is.
fn spawn_in(empty: &CString, users: &str) -> io::Result<i32> {
    let namespace = sys::open(users, libc::O_RDONLY, 0)?;
    let (read, write) = sys::pipe()?;
    let between = sys::clone3(0, None)?;
    if between == 0 {
        let flags = libc::CLONE_NEWPID | libc::CLONE_PARENT;
        let made = sys::setns(&namespace, libc::CLONE_NEWUSER).and_then(|()| sys::clone3(flags as u64, None));
        let answer = match made {
            Ok(0) => run(empty, true),
            Ok(pid) => pid,
            Err(error) => -error.raw_os_error().unwrap_or(libc::EIO),
        };
        let _ = sys::write(&write, &answer.to_ne_bytes());
        sys::exit_now(0)
    }
    drop(write);
    let mut answer = [0; 4];
    let count = sys::read(&read, &mut answer);
    // It has said all it had to say, or is gone.
    let _ = sys::waitpid(between);
    match (count?, i32::from_ne_bytes(answer)) {
        (4, pid) if pid > 0 => Ok(pid),
        (4, errno) => Err(io::Error::from_raw_os_error(-errno)),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// `inside`: the process has left its users and becomes root of the others, once it has what only it may open.
fn run(empty: &CString, inside: bool) -> ! {
    show_as(NAME);
    // SAFETY: plain numbers and terminated strings; nothing is shared with the parent, which has one thread.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::prctl(libc::PR_SET_NAME, c"pause".as_ptr());
        // Ended children vanish by themselves (sigaction(2), SIGCHLD).
        libc::signal(libc::SIGCHLD, libc::SIG_IGN);
        os::close_range(0, i32::MAX);
        if libc::chroot(empty.as_ptr()) != 0 || libc::chdir(c"/".as_ptr()) != 0 {
            libc::_exit(1);
        }
        if inside && sys::become_root().is_err() {
            libc::_exit(1);
        }
        // Once more: a change of user clears it (prctl(2)).
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        loop {
            libc::pause();
        }
    }
}

/// Changes what `/proc/PID/cmdline` tells: the arguments that this process has from its parent say where things lie on the
/// host. Where it cannot be done they stay, as without it.
fn show_as(name: &[u8]) {
    let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else { return };
    let Some((start, end)) = arguments_of(&stat) else { return };
    let length = end.saturating_sub(start);
    if length < name.len() + 2 {
        return;
    }
    // SAFETY: the kernel says that the arguments lie there, on this process's own stack, which can be written; nothing
    // here reads them any more.
    let arguments = unsafe { std::slice::from_raw_parts_mut(start as *mut u8, length) };
    arguments.fill(0);
    arguments[..name.len()].copy_from_slice(name);
    // A last byte that is not 0 means that the text ends with its first 0, as after setproctitle(3) (Linux fs/proc/base.c,
    // `get_mm_cmdline`); otherwise all the zeros would be arguments, too.
    arguments[length - 1] = 1;
}

/// Where the arguments lie: fields 48 and 49 (proc_pid_stat(5)).
fn arguments_of(stat: &str) -> Option<(usize, usize)> {
    // The name, field 2, is in parentheses and may hold anything.
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace().skip(45);
    let mut next = || fields.next()?.parse().ok();
    let (start, end) = (next()?, next()?);
    (start != 0).then_some((start, end))
}
