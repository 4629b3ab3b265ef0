//! The CLI at a terminal: `-it`, its size, and the keys that let go of a container.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::OwnedFd,
    os::unix::process::CommandExt,
    process::{Child, Stdio},
    time::Duration,
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    pty::{Winsize, openpty},
    unistd::setsid,
};
use wait_timeout::ChildExt;

use crate::engine::{Engine, IMAGE};

/// No step of a conversation takes longer.
const LIMIT: Duration = Duration::from_secs(60);
/// The shell's prompt ends in a question to the terminal; what is typed before it may get lost.
const PROMPT: &str = "\x1b[6n";

/// A CLI at a terminal of its own.
struct Terminal {
    child: Child,
    master: File,
    said: String,
}

impl Terminal {
    fn open(engine: &Engine, arguments: &[&str]) -> Terminal {
        let size = Winsize { ws_row: 33, ws_col: 77, ws_xpixel: 0, ws_ypixel: 0 };
        let pair = openpty(Some(&size), None).unwrap();
        let stream = |fd: &OwnedFd| Stdio::from(fd.try_clone().unwrap());
        let mut command = engine.client("docker");
        command.args(arguments).stdin(stream(&pair.slave)).stdout(stream(&pair.slave)).stderr(stream(&pair.slave));
        // SAFETY: both calls are async-signal-safe (signal-safety(7)) and touch nothing of the parent.
        unsafe {
            command.pre_exec(|| {
                setsid()?;
                match nix::libc::ioctl(0, nix::libc::TIOCSCTTY, 0) {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                }
            });
        }
        Terminal { child: command.spawn().unwrap(), master: pair.master.into(), said: String::new() }
    }

    fn press(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until it shows something, and forgets what was shown up to there.
    #[track_caller]
    fn expect(&mut self, words: &str) {
        loop {
            if let Some(at) = self.said.find(words) {
                self.said.drain(..at + words.len());
                return;
            }
            let mut ready = [PollFd::new(std::os::fd::AsFd::as_fd(&self.master), PollFlags::POLLIN)];
            let timeout = PollTimeout::try_from(LIMIT).unwrap();
            assert_ne!(poll(&mut ready, timeout).unwrap(), 0, "no {words:?} in {:?}", self.said);
            let mut buffer = [0; 4096];
            let count = self.master.read(&mut buffer).unwrap_or(0);
            assert_ne!(count, 0, "the terminal closed without {words:?}: {:?}", self.said);
            self.said += &String::from_utf8_lossy(&buffer[..count]);
        }
    }

    /// The exit code.
    fn end(mut self) -> Option<i32> {
        let status = self.child.wait_timeout(LIMIT).unwrap();
        if status.is_none() {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
        status.unwrap_or_else(|| panic!("the CLI goes on: {:?}", self.said)).code()
    }
}

#[test]
fn a_shell_at_a_terminal_has_its_size_and_says_how_it_ended() {
    let engine = Engine::start();
    let mut terminal = Terminal::open(&engine, &["run", "--rm", "-it", IMAGE, "sh"]);
    terminal.expect(PROMPT);
    // The CLI sends the size after the start; ask until it is there.
    terminal.press("while [ \"$(stty size)\" != '33 77' ]; do :; done; echo si''zed\n");
    terminal.expect("sized");
    terminal.expect(PROMPT);
    // Ctrl-C goes to what runs there, not to the CLI; it may come before the first sleep has begun, or between two.
    terminal.press("trap 'echo inter''rupted; over=1' INT; echo re''ady; while [ -z \"$over\" ]; do sleep 1; done\n");
    terminal.expect("ready");
    terminal.press("\x03");
    terminal.expect("interrupted");
    terminal.expect(PROMPT);
    terminal.press("exit 7\n");
    assert_eq!(terminal.end(), Some(7));
    // Ctrl-D is the end of the input.
    let mut terminal = Terminal::open(&engine, &["run", "--rm", "-it", IMAGE, "sh"]);
    terminal.expect(PROMPT);
    terminal.press("\x04");
    assert_eq!(terminal.end(), Some(0));
    assert_eq!(engine.ok(&["ps", "-aq"]), "");
}

#[test]
fn keys_let_go_of_a_container_and_leave_it_running() {
    let engine = Engine::start();
    let mut terminal = Terminal::open(&engine, &["run", "-it", "--name", "box", IMAGE, "sh"]);
    terminal.expect(PROMPT);
    terminal.press("\x10\x11");
    assert_eq!(terminal.end(), Some(0));
    assert_eq!(engine.ok(&["inspect", "-f", "{{.State.Running}}", "box"]), "true");
    // The same shell, by keys of one's own; ctrl-p alone is a key like any other then.
    let mut terminal = Terminal::open(&engine, &["attach", "--detach-keys", "ctrl-x,x", "box"]);
    terminal.press("echo a''gain\n");
    terminal.expect("again");
    terminal.press("\x18x");
    terminal.expect("read escape sequence");
    terminal.end();
    let mut terminal = Terminal::open(&engine, &["exec", "-it", "--detach-keys", "a", "box", "sh"]);
    terminal.expect(PROMPT);
    terminal.press("a");
    terminal.end();
    assert_eq!(engine.ok(&["inspect", "-f", "{{.State.Running}} {{len .ExecIDs}}", "box"]), "true 1");
    let refused = engine.post("/containers/box/attach?stream=1&detachKeys=nonsense");
    assert!(refused.contains("nvalid detach keys"), "{refused}");
}
