//! `cargo xtask dist`: what a release consists of.

use std::{fs, process::Command};

use anyhow::{Context, Result, ensure};

use crate::cargo;

/// Copies the stripped binaries, the licence and the change log to target/dist and writes their checksums.
pub fn run() -> Result<()> {
    let binaries = cargo::release()?;
    let dist = binaries.parent().context("target/release has a parent")?.join("dist");
    if dist.exists() {
        fs::remove_dir_all(&dist).with_context(|| format!("empty {}", dist.display()))?;
    }
    fs::create_dir_all(&dist)?;
    let mut names = Vec::new();
    for path in ["coracle", "kubectl-lite"]
        .map(|name| binaries.join(name))
        .into_iter()
        .chain(["LICENSE", "CHANGELOG.md"].map(|name| cargo::root().join(name)))
    {
        let name = path.file_name().context("a file has a name")?.to_owned();
        fs::copy(&path, dist.join(&name)).with_context(|| format!("copy {}", path.display()))?;
        names.push(name);
    }
    let sums = Command::new("sha256sum").args(&names).current_dir(&dist).output().context("run sha256sum")?;
    ensure!(sums.status.success(), "sha256sum failed");
    fs::write(dist.join("SHA256SUMS"), sums.stdout)?;
    println!("{}", dist.display());
    Ok(())
}
