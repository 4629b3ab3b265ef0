//! Keeping the command alive, reaping orphans, and the orderly end.

use std::{
    fs::File,
    io::{self, Write},
    mem::MaybeUninit,
    os::unix::process::CommandExt,
    process::{Command, exit},
    ptr,
    time::{Duration, Instant},
};

use crate::{namespaces::is_gone, options::Options};

/// The first wait before a command that ended is started again; doubled up to `LONGEST` while it keeps ending.
const SHORTEST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(5);
/// A command that ran this long is taken to be well.
const WELL: Duration = Duration::from_secs(10);
/// How long the command, and then everything else, gets to end by itself.
const GRACE: Duration = Duration::from_secs(10);

enum State {
    Running(libc::pid_t, Instant),
    Waiting(Instant),
    /// SIGTERM was sent to the command; SIGKILL comes then.
    Ending(libc::pid_t, Instant),
    /// SIGTERM was sent to everything else; this process ends then, or as soon as nothing is left.
    Draining(Instant),
}

/// Runs until told to end.
pub fn run(options: &Options) -> ! {
    let signals = block_signals();
    let mut wait = SHORTEST;
    let mut state = start(options, wait);
    loop {
        let deadline = match &state {
            State::Running(..) => None,
            State::Waiting(until) | State::Ending(_, until) | State::Draining(until) => Some(*until),
        };
        let signal = next_signal(&signals, deadline);
        state = match (state, signal) {
            (State::Running(command, _), Some(libc::SIGTERM | libc::SIGINT)) => {
                send(options, command, libc::SIGTERM);
                State::Ending(command, Instant::now() + GRACE)
            }
            (State::Running(command, since), Some(libc::SIGHUP)) => {
                send(options, command, libc::SIGHUP);
                State::Running(command, since)
            }
            (State::Waiting(_), Some(libc::SIGTERM | libc::SIGINT)) => drain(options),
            (State::Waiting(_), None) => start(options, wait),
            (State::Ending(command, _), None) => {
                send(options, command, libc::SIGKILL);
                State::Ending(command, Instant::now() + GRACE)
            }
            (State::Draining(_), None) => exit(0),
            (state, _) => state,
        };
        state = reap(options, state, &mut wait);
    }
}

fn start(options: &Options, wait: Duration) -> State {
    let mut command = Command::new(&options.command[0]);
    command.args(&options.command[1..]);
    // SAFETY: sigprocmask is async-signal-safe, and the set is the child's own.
    unsafe {
        command.pre_exec(|| {
            let mut none = MaybeUninit::uninit();
            libc::sigemptyset(none.as_mut_ptr());
            if libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut()) != 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
    match command.spawn() {
        Ok(child) => State::Running(child.id().cast_signed(), Instant::now()),
        Err(error) => {
            say(options, &format!("start {}: {error}; trying again in {wait:?}", options.command[0]));
            State::Waiting(Instant::now() + wait)
        }
    }
}

/// Reaps every child that ended and says what follows from it.
fn reap(options: &Options, mut state: State, wait: &mut Duration) -> State {
    loop {
        let mut status = 0;
        // SAFETY: `status` outlives the call.
        let child = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
        match (child, &state) {
            (-1, State::Draining(_)) => exit(0),
            (..=0, _) => return state,
            (child, State::Running(command, since)) if child == *command => {
                *wait = if since.elapsed() >= WELL { SHORTEST } else { (*wait * 2).min(LONGEST) };
                say(options, &format!("the command ended ({}); starting it again in {wait:?}", describe(status)));
                state = State::Waiting(Instant::now() + *wait);
            }
            (child, State::Ending(command, _)) if child == *command => state = drain(options),
            _ => {}
        }
    }
}

/// Asks what is left to end: in a node that is everybody, else only the orphans that came to this process.
fn drain(options: &Options) -> State {
    if std::process::id() == 1 {
        send(options, -1, libc::SIGTERM);
    } else {
        // The server's keeper has nobody else's processes.
        exit(0);
    }
    State::Draining(Instant::now() + GRACE)
}

fn describe(status: libc::c_int) -> String {
    if libc::WIFSIGNALED(status) {
        format!("signal {}", libc::WTERMSIG(status))
    } else {
        format!("exit code {}", libc::WEXITSTATUS(status))
    }
}

fn send(options: &Options, process: libc::pid_t, signal: libc::c_int) {
    // SAFETY: no memory is involved.
    if unsafe { libc::kill(process, signal) } != 0 {
        let error = io::Error::last_os_error();
        if !is_gone(&error) {
            say(options, &format!("send signal {signal} to {process}: {error}"));
        }
    }
}

/// Says something in the log, found by its name: the command may have put the old one aside.
fn say(options: &Options, what: &str) {
    let log = File::options().create(true).append(true).open(&options.log);
    // There is nobody else to tell.
    let _ = log.and_then(|mut log| log.write_all(format!("coracle-init: {what}\n").as_bytes()));
}

fn block_signals() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the set before anything reads it.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in [libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            libc::sigaddset(set.as_mut_ptr(), signal);
        }
        libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), ptr::null_mut());
        set.assume_init()
    }
}

/// The next blocked signal, or `None` once `deadline` has passed.
fn next_signal(set: &libc::sigset_t, deadline: Option<Instant>) -> Option<libc::c_int> {
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let limit = left.map(|left| libc::timespec {
            tv_sec: left.as_secs().try_into().unwrap_or(libc::time_t::MAX),
            tv_nsec: left.subsec_nanos().into(),
        });
        let limit = limit.as_ref().map_or(ptr::null(), ptr::from_ref);
        // SAFETY: the set and the limit outlive the call; no information is asked for.
        let signal = unsafe { libc::sigtimedwait(set, ptr::null_mut(), limit) };
        if signal > 0 {
            return Some(signal);
        }
        if io::Error::last_os_error().raw_os_error() == Some(libc::EAGAIN) {
            return None;
        }
    }
}
