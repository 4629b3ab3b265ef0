//! `bench runtime`: the launcher beside crun and runc where they are installed, and the whole runtime through CRI.
//!
//! Everything happens in namespaces of the bench's own: there the v2 tree that has no controllers is not mounted beside
//! those of v1 (crun refuses it), and no network of the host's is touched.

mod cri;
mod images;
mod launcher;

use std::{
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result};

use crate::figures::Figures;

const INSIDE: &str = "CORACLE_BENCH_INSIDE";

/// Measures.
pub async fn run(binaries: &Path, quick: bool) -> Result<Figures> {
    if std::env::var_os(INSIDE).is_none() {
        let mut inside = Command::new("unshare");
        inside.args(["--pid", "--fork", "--kill-child", "--mount", "--mount-proc", "--net", "--uts", "--ipc"]);
        inside.arg(std::env::current_exe()?).args(std::env::args_os().skip(1)).env(INSIDE, "1");
        // As `coracle runtime` has its allocator, whose figures these are to be.
        inside.envs([("MIMALLOC_ARENA_EAGER_COMMIT", "0"), ("MIMALLOC_PURGE_DELAY", "0")]);
        // Nothing is left to do out here.
        return Err(inside.exec()).context("run unshare");
    }
    // It is there on hybrid systems only.
    let _ = Command::new("umount").arg("/sys/fs/cgroup/unified").stderr(Stdio::null()).status();
    let mut figures = Figures::default();
    launcher::run(quick, &mut figures)?;
    cri::run(quick, &mut figures).await?;
    images::run(binaries, quick, &mut figures).await?;
    Ok(figures)
}
