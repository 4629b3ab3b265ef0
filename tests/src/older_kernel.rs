//! A kernel that has none of the calls that Linux 4.18 lacks: a filter answers for them, to a program and all it starts.

use std::{io, os::unix::process::CommandExt, process::Command};

use nix::libc;

/// Of 5.1, 5.2 (the mount calls), 5.3, 5.6, 5.8, 5.9, 5.11 and 5.12.
const NEWER: [libc::c_long; 15] = [
    libc::SYS_pidfd_send_signal,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_clone3,
    libc::SYS_pidfd_open,
    libc::SYS_openat2,
    libc::SYS_pidfd_getfd,
    libc::SYS_faccessat2,
    libc::SYS_close_range,
    libc::SYS_epoll_pwait2,
    libc::SYS_mount_setattr,
];

/// A program of seccomp(2): the number is compared with each, and ENOSYS is the answer to those.
fn program() -> Vec<libc::sock_filter> {
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    // The number is the first word of the data.
    let mut out = vec![statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0)];
    for (index, number) in NEWER.iter().enumerate() {
        let to_the_end = (NEWER.len() - index) as u8;
        let code = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
        out.push(libc::sock_filter { code, jt: to_the_end, jf: 0, k: *number as u32 });
    }
    out.push(statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW));
    out.push(statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32));
    out
}

fn install(program: &[libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    // SAFETY: the program lives until the call returns; root needs no PR_SET_NO_NEW_PRIVS.
    match unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The command will run on such a kernel.
pub fn on_an_older_kernel(command: &mut Command) -> &mut Command {
    let filter = program();
    // SAFETY: one system call on a program made before.
    unsafe { command.pre_exec(move || install(&filter)) }
}
