//! The launcher's tests of groups that systemd makes, in a machine with a systemd: never on the host, where it would take the
//! control groups for its own.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use coracle_vm::{Kernel, Machine, Tree};

/// Emulated, everything takes five to ten times as long.
const LIMIT: Duration = Duration::from_secs(300);

const TARGET: &str = "[Unit]
DefaultDependencies=no
Wants=tests.service
";

/// How the tests end is how systemd ends.
const SERVICE: &str = "[Unit]
DefaultDependencies=no
SuccessAction=exit-force
FailureAction=exit-force
[Service]
Type=oneshot
Environment=PATH=/bin:/sbin HOME=/root
ExecStart=/tests/runtime --ignored --test-threads 1 systemd::
StandardOutput=file:/dev/ttyS0
StandardError=file:/dev/ttyS0
";

const SCRIPT: &str = "export container=vm SYSTEMD_UNIT_PATH=/units:
exec /bin/unshare --pid --fork --kill-child --mount --mount-proc --uts --ipc --net \
    /lib/systemd/systemd --system --log-target=console --log-level=notice --show-status=false
";

/// Runs them; fails if one fails, or if none was run.
pub fn run(kernel: Kernel, work: &Path, programs: &[PathBuf]) -> Result<()> {
    let tree = Tree::new(&work.join("systemd-tree"))?;
    tree.program("/usr/bin/unshare".as_ref(), "/bin/unshare")?;
    for program in ["/lib/systemd/systemd", "/lib/systemd/systemd-shutdown", "/bin/systemctl"] {
        tree.program(program.as_ref(), program).context("the tests need the Debian package systemd")?;
    }
    // The package's programs are its unit tests and its integration tests; the latter is called `it-HASH`.
    let tests =
        programs.iter().find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("it-")));
    tree.program(tests.context("the runtime has no integration tests")?, "/tests/runtime")?;
    tree.file("/units/default.target", TARGET, 0o644)?;
    tree.file("/units/tests.service", SERVICE, 0o644)?;
    tree.file("/script", SCRIPT, 0o755)?;
    let machine = Machine::new(kernel, tree.disk(&work.join("systemd.img"), 512)?);
    let (lines, code) = machine.start()?.finish(LIMIT, |line| println!("vm: {line}"))?;
    if code != 0 || !lines.iter().any(|line| line.starts_with("test result: ok. ") && !line.contains(" 0 passed")) {
        bail!("the tests of systemd's groups failed in the machine");
    }
    Ok(())
}
