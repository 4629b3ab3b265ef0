//! `run true` and `exec true` of the launcher, crun and runc in turns, each with the same bundles.

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::figures::Figures;

/// What `runc spec` writes, without its limit on files, which not every root may set, and what Docker 20.10 gives a
/// container by default, with its seccomp profile.
const SPECS: [(&str, &str, f64); 2] = [
    ("runc spec", include_str!("../../specs/runc.json"), 0.55),
    ("docker's spec", include_str!("../../specs/docker.json"), 0.6),
];

/// A runtime's command line.
struct Peer {
    name: &'static str,
    program: OsString,
}

pub fn run(quick: bool, figures: &mut Figures) -> Result<()> {
    let launcher = coracle_programs::LAUNCHER.memfd()?;
    let mut peers = vec![Peer { name: "coracle", program: coracle_programs::exec_path(&launcher).into() }];
    for name in ["crun", "runc"] {
        if Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok() {
            peers.push(Peer { name, program: name.into() });
        }
    }
    let rounds = if quick { 15 } else { 100 };
    let dir = tempfile::Builder::new().prefix("bench").tempdir_in("/tmp")?;
    for (name, spec, goal) in SPECS {
        let bundle = bundle(&dir.path().join(name.replace([' ', '\''], "-")), spec)?;
        let mut times = vec![Vec::new(); peers.len()];
        for round in 0..rounds {
            for (index, peer) in peers.iter().enumerate() {
                let id = format!("bench-{}-{round}", std::process::id());
                let root = dir.path().join(peer.name);
                times[index].push(time(peer, &root, &["run", "--bundle", &bundle.to_string_lossy(), &id])?);
            }
        }
        compare(&format!("run true, {name}"), &peers, &times, goal, figures);
    }
    Ok(())
}

/// Figures of each, and the ratio to crun.
fn compare(what: &str, peers: &[Peer], times: &[Vec<Duration>], goal: f64, figures: &mut Figures) {
    for (peer, times) in peers.iter().zip(times) {
        figures.median(&format!("{what}: {}", peer.name), times, None);
    }
    let median = |times: &[Duration]| {
        let mut sorted = times.to_vec();
        sorted.sort();
        sorted[sorted.len() / 2].as_secs_f64()
    };
    if let Some(crun) = peers.iter().position(|peer| peer.name == "crun") {
        figures.value(&format!("{what}: of crun's time"), median(&times[0]) / median(&times[crun]), "", Some(goal));
    }
}

fn time(peer: &Peer, root: &Path, arguments: &[&str]) -> Result<Duration> {
    let mut command = Command::new(&peer.program);
    command.arg("--root").arg(root).args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
    let start = Instant::now();
    let output = command.stderr(Stdio::null()).status().with_context(|| format!("run {}", peer.name))?;
    let time = start.elapsed();
    ensure!(output.success(), "{} {}: {output}", peer.name, arguments.join(" "));
    Ok(time)
}

fn bundle(dir: &Path, spec: &str) -> Result<PathBuf> {
    let rootfs = dir.join("rootfs");
    for name in ["bin", "proc", "sys", "dev", "etc"] {
        fs::create_dir_all(rootfs.join(name))?;
    }
    fs::copy("/bin/busybox", rootfs.join("bin/busybox")).context("the package busybox-static is needed")?;
    symlink("busybox", rootfs.join("bin/true"))?;
    fs::write(dir.join("config.json"), spec)?;
    Ok(dir.to_owned())
}
