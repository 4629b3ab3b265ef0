//! The first process of a container with `--init`: `docker-init -- COMMAND…`.
//!
//! It starts the command in a process group of its own that has the terminal, passes every signal on to it, reaps what
//! is orphaned, and ends with the command's exit code; 128 and the signal's number where a signal ended it (the contract
//! of Docker's init, tini 0.19, without its options).

use std::{ffi::CString, io, mem::MaybeUninit, os::unix::ffi::OsStringExt, process::exit, ptr};

/// Signals that a fault of this process itself raises, and those that mean something to it alone.
const OWN_SIGNALS: [libc::c_int; 8] = [
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGABRT,
    libc::SIGTRAP,
    libc::SIGSYS,
    libc::SIGTTIN,
];

fn main() {
    let mut arguments: Vec<_> = std::env::args_os().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "--") {
        arguments.remove(0);
    }
    let command: Option<Vec<CString>> =
        arguments.into_iter().map(|argument| CString::new(argument.into_vec()).ok()).collect();
    let Some(command) = command.filter(|command| !command.is_empty()) else {
        eprintln!("docker-init: usage: docker-init -- COMMAND [ARGUMENT…]");
        exit(1);
    };
    let (blocked, before) = block_signals();
    // Inside a pid namespace of others orphans come here all the same.
    // SAFETY: plain numbers.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
    // SAFETY: this process has one thread.
    match unsafe { libc::fork() } {
        -1 => {
            eprintln!("docker-init: fork: {}", io::Error::last_os_error());
            exit(1);
        }
        0 => become_command(&command, &before),
        child => supervise(child, &blocked),
    }
}

/// Blocks what is to be passed on; with the mask there was before.
fn block_signals() -> (libc::sigset_t, libc::sigset_t) {
    let (mut set, mut before) = (MaybeUninit::uninit(), MaybeUninit::uninit());
    // SAFETY: sigfillset and sigprocmask initialise both sets before anything reads them; the actions are plain numbers.
    unsafe {
        libc::sigfillset(set.as_mut_ptr());
        for signal in OWN_SIGNALS {
            libc::sigdelset(set.as_mut_ptr(), signal);
        }
        libc::sigprocmask(libc::SIG_SETMASK, set.as_ptr(), before.as_mut_ptr());
        // Giving the terminal away must not stop the giver (tcsetpgrp(3)).
        libc::signal(libc::SIGTTIN, libc::SIG_IGN);
        libc::signal(libc::SIGTTOU, libc::SIG_IGN);
        (set.assume_init(), before.assume_init())
    }
}

fn become_command(command: &[CString], mask: &libc::sigset_t) -> ! {
    let mut pointers: Vec<*const libc::c_char> = command.iter().map(|word| word.as_ptr()).collect();
    pointers.push(ptr::null());
    // SAFETY: the words outlive the call and the list ends with a null pointer.
    unsafe {
        libc::setpgid(0, 0);
        // Without a terminal there is none to give (ENOTTY).
        libc::tcsetpgrp(0, libc::getpgrp());
        libc::signal(libc::SIGTTIN, libc::SIG_DFL);
        libc::signal(libc::SIGTTOU, libc::SIG_DFL);
        libc::sigprocmask(libc::SIG_SETMASK, mask, ptr::null_mut());
        libc::execvp(pointers[0], pointers.as_ptr());
    }
    let error = io::Error::last_os_error();
    eprintln!("docker-init: exec {}: {error}", command[0].to_string_lossy());
    // As a shell says it.
    exit(if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 })
}

/// Passes signals on and reaps until the command has ended, and then what ended with it.
fn supervise(child: libc::pid_t, signals: &libc::sigset_t) -> ! {
    let mut code = None;
    loop {
        loop {
            let mut status = 0;
            // SAFETY: `status` outlives the call.
            let ended = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
            if ended <= 0 {
                break;
            }
            if ended == child {
                code = Some(if libc::WIFSIGNALED(status) {
                    128 + libc::WTERMSIG(status)
                } else {
                    libc::WEXITSTATUS(status)
                });
            }
        }
        if let Some(code) = code {
            exit(code);
        }
        // SAFETY: the set outlives the call; no information is asked for.
        let signal = unsafe { libc::sigwaitinfo(signals, ptr::null_mut()) };
        if signal > 0 && signal != libc::SIGCHLD {
            // One that has just ended needs no signal.
            // SAFETY: plain numbers.
            unsafe { libc::kill(child, signal) };
        }
    }
}
