//! Images made while the power goes: what was acknowledged is whole afterwards.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use coracle_vm::{Kernel, Machine, Tree};

const LIMIT: Duration = Duration::from_secs(300);
const IMAGES: u32 = 12;

const SCRIPT: &str = r#"
export CORACLE_TEST_POWER_DIR=/var/lib/runtime
export CORACLE_TEST_POWER_MADE=$(sed -n 's/.*made=\([0-9]*\).*/\1/p' /proc/cmdline)
if [ -n "$CORACLE_TEST_POWER_MADE" ]; then
    exec /tests/runtime durability::finds_what_was_made_before_the_power_went --exact --nocapture
fi
mkdir -p /var/lib/runtime /tmp
sync
# The kernel writes nothing down by itself in this time: what is there afterwards is there because somebody asked.
echo 360000 > /proc/sys/vm/dirty_writeback_centisecs
echo 360000 > /proc/sys/vm/dirty_expire_centisecs
exec /tests/runtime durability::makes_images_until_the_power_goes --exact --nocapture
"#;

/// Cuts the power of a machine that makes images, and looks for them on the same disk.
pub fn run(kernel: Kernel, work: &Path, programs: &[PathBuf]) -> Result<()> {
    let tree = Tree::new(&work.join("power-tree"))?;
    // The package's programs are its unit tests and its integration tests; the latter is called `it-HASH`.
    let tests =
        programs.iter().find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("it-")));
    tree.program(tests.context("the runtime has no integration tests")?, "/tests/runtime")?;
    tree.file("/script", SCRIPT, 0o755)?;
    let mut machine = Machine::new(kernel, tree.disk(&work.join("power.img"), 512)?);
    let see = |line: &str| println!("vm: {line}");
    let mut running = machine.start()?;
    let mut made = None;
    running.until(LIMIT, |line| {
        see(line);
        made = line.strip_prefix("@@made ").and_then(|number| number.trim().parse::<u32>().ok()).or(made);
        made == Some(IMAGES) || line.starts_with("@@exit")
    })?;
    running.cut_power()?;
    let Some(made) = made.filter(|made| *made == IMAGES) else { bail!("no images were made in the machine") };
    println!("vm: the power was cut");
    // Not a file on the disk: nothing may write there before the journal was replayed.
    machine.command_line = format!("made={made}");
    let (lines, code) = machine.start()?.finish(LIMIT, see).context("start again after the power cut")?;
    if code != 0 || !lines.iter().any(|line| line.starts_with("@@found")) {
        bail!("what was acknowledged before the power cut is not there after it");
    }
    println!("vm: test result: ok. 1 passed; images go through a power cut");
    Ok(())
}
