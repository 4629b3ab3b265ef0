//! The runtime's tests of SELinux's labels, in a machine whose kernel has it.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use coracle_vm::{Kernel, Machine, Tree};

/// Emulated, everything takes five to ten times as long.
const LIMIT: Duration = Duration::from_secs(300);

/// Runs them; fails if one fails, or if none was run.
pub fn run(kernel: Kernel, work: &Path, programs: &[PathBuf]) -> Result<()> {
    let tree = Tree::new(&work.join("selinux-tree"))?;
    tree.program("/usr/bin/unshare".as_ref(), "/bin/unshare")?;
    // The package's programs are its unit tests and its integration tests; the latter is called `it-HASH`.
    let tests =
        programs.iter().find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("it-")));
    tree.program(tests.context("the runtime has no integration tests")?, "/tests/runtime")?;
    tree.selinux("exec /tests/runtime --test-threads 2 selinux::\n")?;
    let machine = Machine::new(kernel, tree.disk(&work.join("selinux.img"), 512)?).with_selinux();
    let (lines, code) = machine.start()?.finish(LIMIT, |line| println!("vm: {line}"))?;
    if code != 0 || !lines.iter().any(|line| line.starts_with("test selinux::") && line.ends_with("... ok")) {
        bail!("the tests of SELinux failed in the machine");
    }
    Ok(())
}
