//! The Python client from PyPI.

use crate::harness::Served;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::process::Command;

const PACKAGE: &str = "kubernetes==36.0.2";
/// The packages come over the network.
const INSTALLED_WITHIN: Duration = Duration::from_secs(300);

/// A directory with an interpreter and what a package of PyPI brings along: made once, below the target directory. None
/// where PyPI cannot be reached.
pub async fn virtual_environment(name: &str, package: &str) -> Option<PathBuf> {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if home.join("bin/python").exists() {
        return Some(home);
    }
    let made = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let venv = made.path().join("venv");
    let install = async {
        let made = Command::new("python3").args(["-m", "venv"]).arg(&venv).kill_on_drop(true).output().await.ok()?;
        made.status.success().then_some(())?;
        let mut pip = Command::new(venv.join("bin/python"));
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", package]).kill_on_drop(true);
        let installed = pip.output().await.ok()?;
        if !installed.status.success() {
            eprintln!("pip: {}", String::from_utf8_lossy(&installed.stderr));
        }
        installed.status.success().then_some(())
    };
    tokio::time::timeout(INSTALLED_WITHIN, install).await.ok()??;
    // The interpreter finds its packages from where it stands, so the whole can be moved; whoever is first wins.
    let _ = std::fs::rename(&venv, &home);
    home.join("bin/python").exists().then_some(home)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_python_client() {
    let Some(home) = virtual_environment("python-kubernetes-36.0.2", PACKAGE).await else {
        eprintln!("skipped: there is no python3 with venv, or PyPI cannot be reached");
        return;
    };
    let served = Served::start().await;
    let mut command = Command::new(home.join("bin/python"));
    command
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/client.py"))
        .arg(served.directory.path().join("config"));
    let output =
        tokio::time::timeout(Duration::from_secs(60), command.kill_on_drop(true).output()).await.unwrap().unwrap();
    let (said, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.ends_with("done\n"), "{said}{error}");
}
