//! Terminals.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use super::{check, owned};

pub fn set_controlling_tty(fd: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: TIOCSCTTY takes a number.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCSCTTY, 0) }).map(drop)
}

/// Unlocks a pty and opens its other end without going through any path (TIOCGPTPEER).
pub fn pty_peer(master: &impl AsRawFd) -> io::Result<OwnedFd> {
    let unlock: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK takes a pointer to an int, TIOCGPTPEER open flags.
    unsafe {
        check(libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &unlock))?;
        check(libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC))
            .map(owned)
    }
}

pub fn set_window_size(fd: &impl AsRawFd, rows: u16, columns: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ takes a pointer to this structure.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCSWINSZ, &size) }).map(drop)
}

/// The size of one terminal for another.
pub fn copy_window_size(from: &impl AsRawFd, to: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: both take a pointer to this structure, which is plain data.
    unsafe {
        let mut size: libc::winsize = std::mem::zeroed();
        check(libc::ioctl(from.as_raw_fd(), libc::TIOCGWINSZ, &mut size))?;
        check(libc::ioctl(to.as_raw_fd(), libc::TIOCSWINSZ, &size)).map(drop)
    }
}

/// A terminal's settings; an error for what is none.
pub fn terminal(fd: &impl AsRawFd) -> io::Result<libc::termios> {
    // SAFETY: the structure is plain data that the C library fills.
    unsafe {
        let mut settings: libc::termios = std::mem::zeroed();
        check(libc::tcgetattr(fd.as_raw_fd(), &mut settings)).map(|_| settings)
    }
}

/// Changes a terminal's settings; of a pty both ends have the same.
pub fn change_terminal(fd: &impl AsRawFd, change: impl FnOnce(&mut libc::termios)) -> io::Result<()> {
    let mut settings = terminal(fd)?;
    change(&mut settings);
    // SAFETY: the structure is valid.
    check(unsafe { libc::tcsetattr(fd.as_raw_fd(), libc::TCSANOW, &settings) }).map(drop)
}

/// Settings by which every byte goes through as it is (cfmakeraw(3)).
pub fn make_raw(settings: &mut libc::termios) {
    // SAFETY: the structure is valid.
    unsafe { libc::cfmakeraw(settings) };
}
