//! A process, and never another one that got its number later.

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    time::{Duration, Instant},
};

use crate::sys;

/// How long a look at two things lasts where the kernel cannot wait for both.
const SLICE: i32 = 50;

/// Names of `/proc/PID/ns` and what setns(2) calls them; users last, since who has joined them has lost the rights to the
/// others, and mounts right before, since they take `/proc` along.
const NAMESPACES: [(&str, i32); 8] = [
    ("net", libc::CLONE_NEWNET),
    ("ipc", libc::CLONE_NEWIPC),
    ("uts", libc::CLONE_NEWUTS),
    ("pid", libc::CLONE_NEWPID),
    ("cgroup", libc::CLONE_NEWCGROUP),
    ("time", 0x80),
    ("mnt", libc::CLONE_NEWNS),
    ("user", libc::CLONE_NEWUSER),
];

/// A handle of a process.
#[derive(Debug)]
pub struct ProcessFd {
    pid: i32,
    fd: OwnedFd,
    /// A pidfd; before Linux 5.3 the process's directory, which is empty when the process is gone.
    pidfd: bool,
}

impl ProcessFd {
    /// Opens the process that has the number now.
    pub fn open(pid: i32) -> io::Result<ProcessFd> {
        match sys::pidfd_open(pid) {
            Ok(fd) => Ok(ProcessFd { pid, fd, pidfd: true }),
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
                let fd = sys::open(format!("/proc/{pid}"), libc::O_RDONLY | libc::O_DIRECTORY, 0);
                let gone = |error: io::Error| match error.kind() {
                    io::ErrorKind::NotFound => io::Error::from_raw_os_error(libc::ESRCH),
                    _ => error,
                };
                Ok(ProcessFd { pid, fd: fd.map_err(gone)?, pidfd: false })
            }
            Err(error) => Err(error),
        }
    }

    /// The pidfd; a kernel without them says so.
    pub fn pidfd(&self) -> io::Result<&OwnedFd> {
        if self.pidfd { Ok(&self.fd) } else { Err(io::Error::from_raw_os_error(libc::ENOSYS)) }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        match sys::pidfd_send_signal(&self.fd, signal) {
            // Before 5.1, between the look and the signal the number may change hands, as it may for everybody there.
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) && !self.has_ended() => {
                sys::kill(self.pid, signal)
            }
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Err(io::Error::from_raw_os_error(libc::ESRCH)),
            result => result,
        }
    }

    fn has_ended(&self) -> bool {
        if self.pidfd {
            return sys::poll_in(&self.fd, 0);
        }
        let stat = sys::openat(self.fd.as_fd(), "stat".as_ref(), libc::O_RDONLY, 0);
        let stat = stat.and_then(|fd| io::read_to_string(fs::File::from(fd)));
        // The name in parentheses may contain anything.
        let state = stat.ok().and_then(|text| text[text.rfind(')')? + 1..].trim_start().chars().next());
        matches!(state, None | Some('Z' | 'X'))
    }

    /// Waits until the process has ended, or the time is over.
    pub fn ends_within(&self, milliseconds: i32) -> bool {
        self.poll(None, milliseconds).0
    }

    /// Waits until the process has ended, another descriptor is ready, or the time is over: which of both it was.
    pub fn poll(&self, other: Option<&OwnedFd>, milliseconds: i32) -> (bool, bool) {
        if self.pidfd {
            return sys::poll_two(Some(&self.fd), other, milliseconds);
        }
        let end = Instant::now() + Duration::from_millis(milliseconds.max(0) as u64);
        loop {
            let left = i32::try_from(end.saturating_duration_since(Instant::now()).as_millis()).unwrap_or(i32::MAX);
            let (_, ready) = sys::poll_two(None, other, left.min(SLICE));
            let ended = self.has_ended();
            if ended || ready || left == 0 {
                return (ended, ready);
            }
        }
    }

    /// Joins namespaces of the process (`CLONE_NEW*`), all at once where the kernel can (5.8). The host's `/proc` has to be
    /// there still.
    pub fn join(&self, flags: i32) -> io::Result<()> {
        if self.pidfd {
            match sys::setns(&self.fd, flags) {
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
                result => return result,
            }
        }
        let wanted = NAMESPACES.iter().filter(|(_, flag)| flags & flag != 0);
        let open = |&(name, flag): &(&str, i32)| {
            fs::File::open(format!("/proc/{}/ns/{name}", self.pid)).map(|file| (file, flag))
        };
        let opened = wanted.map(open).collect::<io::Result<Vec<_>>>()?;
        // It lives yet, so the number was its own all the time.
        if self.has_ended() {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        opened.iter().try_for_each(|(file, flag)| sys::setns(&file.as_raw_fd(), *flag))
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    fn by_directory(child: &Child) -> ProcessFd {
        let pid = child.id() as i32;
        let fd = sys::open(format!("/proc/{pid}"), libc::O_RDONLY | libc::O_DIRECTORY, 0).unwrap();
        ProcessFd { pid, fd, pidfd: false }
    }

    #[test]
    fn the_end_of_a_process_is_seen_without_pidfds() {
        let mut child = Command::new("/bin/sleep").arg("1000").spawn().unwrap();
        let process = by_directory(&child);
        let readable = sys::eventfd().unwrap();
        assert_eq!(process.poll(Some(&readable), 10), (false, false));
        sys::write(&readable, &1u64.to_ne_bytes()).unwrap();
        assert_eq!(process.poll(Some(&readable), 10_000), (false, true));
        process.signal(libc::SIGKILL).unwrap();
        // Nobody has waited for it: it is a zombie, and ended.
        assert!(process.ends_within(10_000));
        child.wait().unwrap();
        assert!(process.ends_within(0));
        assert_eq!(process.signal(0).unwrap_err().raw_os_error(), Some(libc::ESRCH));
    }
}
