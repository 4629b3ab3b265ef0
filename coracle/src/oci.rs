//! Being the OCI launcher: this process becomes the small static program.

use std::{
    ffi::{OsStr, OsString},
    os::{fd::AsFd, unix::process::CommandExt},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result};
use coracle_programs::{LAUNCHER, exec_path};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};

/// Executes the launcher with `arguments`; only returns when that fails.
pub fn run(arguments: Vec<OsString>) -> Result<ExitCode> {
    let program = LAUNCHER.memfd().context("load the launcher")?;
    // The program is reached by its descriptor while it is executed.
    fcntl(program.as_fd(), FcntlArg::F_SETFD(FdFlag::empty())).context("hand over the launcher")?;
    let error = Command::new(exec_path(&program)).arg0(OsStr::new("coracle-oci")).args(arguments).exec();
    Err(error).context("run the launcher")
}
