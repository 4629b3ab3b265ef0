//! A second kernel for tests: Debian's cloud kernel in an emulated machine, which has what the host may lack (cgroup v2
//! alone, AppArmor, SELinux, real power loss).
//!
//! ```text
//! Kernel ─ Debian's package, unpacked      Tree ─ files and programs with their libraries ─ Disk (ext4)
//!    └────────────────── Machine ── start ── Running: lines of the console, power cut ──────┘
//! ```
//!
//! The machine runs `/script` of its disk and ends with it. A disk outlives its machine: cut the power, start another
//! machine on the same disk, and what was written is what the next script finds.

mod disk;
mod kernel;
mod machine;
mod selinux;

pub use disk::{Disk, Tree};
pub use kernel::Kernel;
pub use machine::{Machine, Running};

use std::process::Command;

use anyhow::{Context, Result, bail};

/// Debian packages that this needs beside the kernel's, which is fetched by itself.
pub const PACKAGES: [&str; 5] = ["qemu-system-x86", "busybox-static", "cpio", "e2fsprogs", "checkpolicy"];

/// Whether the programs of [`PACKAGES`] are installed; names the first that is not.
pub fn missing() -> Option<&'static str> {
    let programs = [
        ("qemu-system-x86_64", PACKAGES[0]),
        ("/bin/busybox", PACKAGES[1]),
        ("cpio", PACKAGES[2]),
        ("mke2fs", PACKAGES[3]),
        ("checkpolicy", PACKAGES[4]),
    ];
    let found = |program: &str| {
        let path = std::env::var("PATH").unwrap_or_default() + ":/sbin:/usr/sbin";
        program.starts_with('/') && std::path::Path::new(program).exists()
            || path.split(':').any(|dir| std::path::Path::new(dir).join(program).exists())
    };
    programs.into_iter().find(|(program, _)| !found(program)).map(|(_, package)| package)
}

/// Runs a program to its end; what it wrote to standard output.
fn run(command: &mut Command) -> Result<String> {
    let what = format!("{command:?}");
    let output = command.output().with_context(|| format!("run {what}"))?;
    if !output.status.success() {
        bail!("{what} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
