//! Calls of cargo.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// The root of the workspace.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Formatting, lints with warnings as errors, and licences where cargo-deny is installed.
pub fn check() -> Result<()> {
    cargo(&["fmt", "--all", "--check"])?;
    cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"])?;
    if has("deny") {
        cargo(&["deny", "check"])?;
    } else {
        eprintln!("cargo-deny is not installed: licences and advisories were not checked");
    }
    Ok(())
}

/// All tests, or those of one package. The end-to-end tests drive both binaries, so these are built first.
pub fn test(part: Option<&str>) -> Result<()> {
    // The object model and the server: the row walk, the contract of the stores, the clients' stories. None of it drives a
    // binary.
    if part == Some("api") {
        return run_tests(&["--package", "coracle-api", "--package", "coracle-apiserver"]);
    }
    binaries()?;
    match part {
        None => run_tests(&["--workspace"]),
        // The Docker CLI against the runtime is a target of the end-to-end tests.
        Some("docker") => run_tests(&["--package", "coracle-tests", "--test", "docker"]),
        Some(part) if package_exists(&format!("coracle-{part}")) => {
            run_tests(&["--package", &format!("coracle-{part}")])
        }
        Some(part) if package_exists(part) => run_tests(&["--package", part]),
        Some(part) => bail!("there is no package coracle-{part} and none called {part}"),
    }
}

/// The end-to-end tests alone.
pub fn e2e() -> Result<()> {
    binaries()?;
    run_tests(&["--package", "coracle-tests"])
}

/// Where the binaries are that tests drive: those that `CORACLE_BINARIES` names, else those of the tests' own profile, built.
/// Its checks of arithmetic and its assertions find what a release would pass over, and nothing has to be compiled twice.
pub fn binaries() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("CORACLE_BINARIES") {
        return Ok(root().join(dir));
    }
    // All of the workspace, as for the tests: a part of it has other features of its dependencies.
    cargo(&["build", "--locked", "--workspace"])?;
    Ok(target().join("debug"))
}

/// Builds both binaries as the user runs them, and says where they are.
pub fn release() -> Result<PathBuf> {
    release_with(&[])
}

/// The same as [`release`], with other packages.
pub fn release_with(packages: &[&str]) -> Result<PathBuf> {
    let mut arguments = vec!["build", "--release", "--locked"];
    if !packages.is_empty() {
        arguments.extend(["--package", "coracle", "--package", "kubectl-lite"]);
        arguments.extend(packages.iter().flat_map(|package| ["--package", *package]));
    }
    cargo(&arguments)?;
    Ok(target().join("release"))
}

/// Builds both binaries in an empty directory, which is removed again, and says how long that took. What has been downloaded
/// is not downloaded once more.
pub fn cold_build() -> Result<Duration> {
    let dir = target().join("cold");
    if dir.exists() {
        std::fs::remove_dir_all(&dir).with_context(|| format!("empty {}", dir.display()))?;
    }
    let start = Instant::now();
    cargo(&["build", "--release", "--locked", "--target-dir", &dir.to_string_lossy()])?;
    let took = start.elapsed();
    std::fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))?;
    Ok(took)
}

/// Where everything is built.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// nextest where it is installed, else cargo's own runner; labs are brought up one at a time in both.
fn run_tests(selection: &[&str]) -> Result<()> {
    let runner: &[&str] = if has("nextest") { &["nextest", "run", "--locked"] } else { &["test", "--locked"] };
    cargo(&[runner, selection].concat())
}

fn package_exists(name: &str) -> bool {
    let mut command = command();
    command.args(["pkgid", "--package", name]).current_dir(root()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn has(subcommand: &str) -> bool {
    let mut command = command();
    command.args([subcommand, "--version"]).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn cargo(arguments: &[&str]) -> Result<()> {
    let line = format!("cargo {}", arguments.join(" "));
    eprintln!("$ {line}");
    let status = command().args(arguments).current_dir(root()).status();
    let status = status.with_context(|| format!("run {line}"))?;
    if !status.success() {
        bail!("{line} failed");
    }
    Ok(())
}

/// The cargo that runs this, without what it says of this package: build scripts that look at it (ring's does) would be run
/// again, and all that depends on them compiled again, whenever cargo was called in another way before.
pub fn command() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        let of_package = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
        if name.to_str().is_some_and(of_package) {
            command.env_remove(name);
        }
    }
    command
}

/// The name in a package id as cargo prints it: `path+file:///tree/link#coracle-link@0.1.0`, or without the name where the
/// folder is called the same (cargo's reference, "Package ID Specifications").
pub fn package_of(id: &str) -> String {
    let (place, fragment) = id.rsplit_once('#').unwrap_or(("", id));
    match fragment.split_once('@') {
        Some((name, _)) => name.to_owned(),
        None => place.rsplit('/').next().unwrap_or_default().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::package_of;

    #[test]
    fn packages_are_named_by_their_ids() {
        assert_eq!(package_of("path+file:///tree/runtime/launcher#coracle-launcher@0.1.0"), "coracle-launcher");
        assert_eq!(package_of("path+file:///tree/kubectl-lite#0.1.0"), "kubectl-lite");
    }
}
