//! Staying with a process until its end.

use std::{fs, os::fd::OwnedFd};

use crate::{
    error::{Context, Result},
    sys,
    terminal::{Terminal, read_signal},
};

/// Signals that a foreground process passes on to the container.
pub fn forwarded_signals() -> Result<OwnedFd> {
    let signals = [
        libc::SIGCHLD,
        libc::SIGHUP,
        libc::SIGINT,
        libc::SIGQUIT,
        libc::SIGTERM,
        libc::SIGUSR1,
        libc::SIGUSR2,
        libc::SIGWINCH,
        libc::SIGCONT,
        libc::SIGTSTP,
    ];
    sys::signalfd(&signals).context(|| "open a signal descriptor".into())
}

/// Waits for the process, passing signals on; 128 + N if it died of signal N.
pub fn wait_forwarding(pid: i32, signals: &OwnedFd, terminal: Option<Terminal>) -> Result<u8> {
    let turn = |signal: Option<i32>| {
        if let Some(signal) = signal.filter(|&signal| signal != libc::SIGCHLD) {
            // It may have ended just now, which is found out next; nobody else has waited for it.
            let _ = sys::kill(pid, signal);
        }
        Ok(sys::try_wait(pid).context(|| format!("wait for process {pid}"))?.map(exit_code))
    };
    if let Some(terminal) = terminal {
        return terminal.relay(signals, turn);
    }
    let mut file = fs::File::from(signals.try_clone().context(|| "duplicate a descriptor".into())?);
    let mut ended = turn(None)?;
    loop {
        if let Some(code) = ended {
            return Ok(code);
        }
        ended = turn(Some(read_signal(&mut file)?))?;
    }
}

fn exit_code(status: i32) -> u8 {
    if libc::WIFSIGNALED(status) {
        128u8.wrapping_add(libc::WTERMSIG(status) as u8)
    } else {
        libc::WEXITSTATUS(status) as u8
    }
}
