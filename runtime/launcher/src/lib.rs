//! The OCI launcher: from a bundle's `config.json` (OCI runtime specification 1.2) to a running process.
//!
//! ```text
//! create ─ spec ─ cgroup ─ clone3 ─┬─ parent: id mappings, hooks, state.json, report
//!                                  └─ child: groups → namespaces → rootfs → rights → [exec.fifo] → execve
//! exec   ─ state ─ setns ─ clone3 ─── child: groups → namespaces → rights → execve
//! ```
//!
//! The program is single-threaded and never returns to its caller's code in the child. The engine uses the library
//! for what needs no new process: groups, state, deletion.

mod beneath;
mod bind;
pub mod capabilities;
pub mod cgroup;
pub mod cli;
pub mod copy_up;
pub mod create;
pub mod defaults;
pub mod error;
pub mod events;
pub mod exec;
pub mod home;
pub mod hooks;
pub mod identity;
mod joined;
pub mod json;
pub mod labels;
pub mod log;
mod mapped_overlay;
pub mod mount_options;
mod notify;
mod proc_mounts;
pub mod process;
pub mod process_fd;
pub mod rdt;
pub mod rootfs;
pub mod scheduling;
pub mod seccomp;
pub mod spec;
pub mod state;
pub mod sys;
pub mod sysctl;
pub mod systemd;
pub mod terminal;
