//! The terminal of a process in the foreground: `run` and `exec` without `--detach` stand between it and the caller's.
//!
//! ```text
//! caller's terminal (raw) ─ standard input ──→ master ═ slave: the process
//!                         ←─ standard output ─
//! ```
//!
//! As runc (`tty.go`): the master is nobody else's, sizes follow the caller's terminal, and lines get their carriage return
//! from that one, so that output which goes to a file has none.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use crate::{
    error::{Context, Result},
    sys,
};

/// What is read at once, and what a pipe that is ready takes without blocking (pipe(7), PIPE_BUF).
const CHUNK: usize = 4096;
/// The most that the kernel holds for a terminal (drivers/tty/tty_buffer.c, TTYB_DEFAULT_MEM_LIMIT).
const LEFT: usize = 128 << 10;

/// Bytes on their way in one direction; no more are read before they are written.
struct Flow {
    from: RawFd,
    to: RawFd,
    held: Vec<u8>,
    ended: bool,
}

impl Flow {
    fn new(from: RawFd, to: RawFd) -> Flow {
        Flow { from, to, held: Vec::new(), ended: false }
    }

    /// What it waits for: a descriptor, and whether to write there.
    fn waits(&self) -> (RawFd, i16) {
        match (self.held.is_empty(), self.ended) {
            (false, _) => (self.to, libc::POLLOUT),
            (true, false) => (self.from, libc::POLLIN),
            (true, true) => (-1, 0),
        }
    }

    /// Moves what can be moved without waiting.
    fn go_on(&mut self) {
        if self.held.is_empty() {
            let mut buffer = [0; CHUNK];
            match sys::read(&self.from, &mut buffer) {
                Ok(count @ 1..) => self.held.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // The end; of a master whose slaves are closed it is EIO.
                Ok(_) | Err(_) => self.ended = true,
            }
        } else {
            match sys::write(&self.to, &self.held) {
                Ok(count) => drop(self.held.drain(..count)),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                // Nobody takes it any more.
                Err(_) => {
                    self.held.clear();
                    self.ended = true;
                }
            }
        }
    }

    /// What was said last. Others that hold the terminal still are not waited for, nor heard without end.
    fn finish(&mut self) {
        for _ in 0..2 * LEFT / CHUNK {
            if self.held.is_empty() {
                self.go_on();
            }
            while !self.held.is_empty() {
                sys::poll_all([self.waits()]);
                self.go_on();
            }
            if self.ended {
                return;
            }
        }
    }
}

/// A process's terminal.
pub struct Terminal {
    master: OwnedFd,
    /// The caller's terminal; none if it has none, where runc refuses to go on.
    caller: Option<BorrowedFd<'static>>,
    /// Its settings as they were.
    before: Option<libc::termios>,
}

impl Terminal {
    /// Takes the process's master, before its program begins: it finds the right size.
    pub fn take(master: OwnedFd) -> Result<Terminal> {
        let what = || "set up the terminal".to_owned();
        sys::change_terminal(&master, |settings| settings.c_oflag &= !libc::ONLCR).context(what)?;
        sys::set_nonblocking(&master).context(what)?;
        // Any of the three may be redirected.
        let caller = [2, 1, 0].into_iter().map(sys::borrow).find(|fd| sys::terminal(fd).is_ok());
        let terminal = Terminal { master, caller, before: None };
        terminal.resize();
        Ok(terminal)
    }

    fn resize(&self) {
        if let Some(fd) = &self.caller {
            // As good as it can be: the caller's terminal may just be going away.
            let _ = sys::copy_window_size(fd, &self.master);
        }
    }

    /// Relays until `wait` tells how the process ended. It is asked after each signal but the change of size.
    pub fn relay<T>(mut self, signals: &OwnedFd, mut wait: impl FnMut(Option<i32>) -> Result<Option<T>>) -> Result<T> {
        if let Some(fd) = &self.caller {
            let what = || "set the terminal to raw".to_owned();
            self.before = Some(sys::terminal(fd).context(what)?);
            // Keys go through unseen; what comes back is still fit for a screen (containerd/console, SetRaw).
            let raw = |settings: &mut libc::termios| {
                sys::make_raw(settings);
                settings.c_oflag |= libc::OPOST;
            };
            sys::change_terminal(fd, raw).context(what)?;
        }
        let master = self.master.as_raw_fd();
        let (mut input, mut output) = (Flow::new(0, master), Flow::new(master, 1));
        let mut reader = File::from(signals.try_clone().context(|| "duplicate a descriptor".into())?);
        let mut ended = wait(None)?;
        let code = loop {
            if let Some(code) = ended {
                break code;
            }
            let ready = sys::poll_all([(signals.as_raw_fd(), libc::POLLIN), input.waits(), output.waits()]);
            if ready[0] {
                ended = match read_signal(&mut reader)? {
                    libc::SIGWINCH => {
                        self.resize();
                        None
                    }
                    signal => wait(Some(signal))?,
                };
            }
            for (flow, _) in [&mut input, &mut output].into_iter().zip(&ready[1..]).filter(|(_, ready)| **ready) {
                flow.go_on();
            }
        };
        output.finish();
        Ok(code)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let (Some(fd), Some(before)) = (&self.caller, &self.before) {
            let _ = sys::change_terminal(fd, |settings| *settings = *before);
        }
    }
}

/// The next signal's number: struct signalfd_siginfo has 128 bytes and begins with it.
pub fn read_signal(signals: &mut File) -> Result<i32> {
    let mut info = [0; 128];
    signals.read_exact(&mut info).context(|| "read a signal".into())?;
    Ok(i32::from_ne_bytes([info[0], info[1], info[2], info[3]]))
}
