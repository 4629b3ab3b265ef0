//! `bench docker`: the real CLI against our runtime and, where it is installed, against Debian's dockerd in the same run;
//! with `--docker-host` against any other daemon too. The daemons take turns, command by command.

mod content;
mod daemon;

use std::{
    path::Path,
    process::Output,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use self::{content::IMAGE, daemon::Daemon};
use crate::figures::Figures;

/// How long a daemon has had nothing to do when its memory is looked at.
const IDLE: Duration = Duration::from_secs(20);
/// Megabytes of the image that is pushed and pulled.
const BIG: usize = 200;

/// Measures.
pub fn run(binaries: &Path, host: Option<&str>, quick: bool) -> Result<Figures> {
    let dir = tempfile::tempdir().context("make a directory")?;
    let mut daemons = vec![Daemon::ours(dir.path(), binaries)?];
    daemons.extend(Daemon::dockerd(dir.path())?);
    daemons.extend(host.map(Daemon::at));
    let archive = content::small(dir.path())?;
    for daemon in &daemons {
        daemon.ok(&["import", "-c", "CMD [\"/bin/sh\"]", &archive, IMAGE])?;
    }
    let mut figures = Figures::default();
    let rounds = if quick { 5 } else { 21 };
    commands(&daemons, rounds, &mut figures)?;
    many(&daemons, if quick { 1 } else { 3 }, &mut figures)?;
    builds(&daemons, dir.path(), if quick { 1 } else { 5 }, &mut figures)?;
    registry(&daemons, dir.path(), &mut figures)?;
    Ok(figures)
}

/// Times one command on each daemon in turn, `rounds` times; `before` and `after` are not timed.
fn alternate(
    daemons: &[Daemon],
    rounds: usize,
    mut before: impl FnMut(&Daemon) -> Result<()>,
    mut timed: impl FnMut(&Daemon) -> Result<()>,
    mut after: impl FnMut(&Daemon) -> Result<()>,
) -> Result<Vec<Vec<Duration>>> {
    let mut times = vec![Vec::new(); daemons.len()];
    for _ in 0..rounds {
        for (daemon, times) in daemons.iter().zip(&mut times) {
            before(daemon)?;
            let start = Instant::now();
            timed(daemon)?;
            times.push(start.elapsed());
            after(daemon)?;
        }
    }
    Ok(times)
}

fn report(figures: &mut Figures, name: &str, daemons: &[Daemon], times: &[Vec<Duration>], goal: f64) {
    for (daemon, times) in daemons.iter().zip(times) {
        figures.median(&format!("{name}, {}", daemon.name()), times, daemon.is_ours().then_some(goal));
    }
}

/// The commands that people wait for.
fn commands(daemons: &[Daemon], rounds: usize, figures: &mut Figures) -> Result<()> {
    let nothing = |_: &Daemon| Ok(());
    let remove = |daemon: &Daemon| daemon.ok(&["rm", "-f", "timed"]).map(drop);
    let start = |daemon: &Daemon| daemon.ok(&["run", "-d", "--name", "timed", IMAGE, "sleep", "1000"]).map(drop);
    let bridge = |daemon: &Daemon| daemon.ok(&["run", "--rm", IMAGE, "true"]).map(drop);
    report(figures, "run --rm, bridge", daemons, &alternate(daemons, rounds, nothing, bridge, nothing)?, 35.0);
    let none = |daemon: &Daemon| daemon.ok(&["run", "--rm", "--network", "none", IMAGE, "true"]).map(drop);
    report(figures, "run --rm, network none", daemons, &alternate(daemons, rounds, nothing, none, nothing)?, 25.0);
    report(figures, "run -d", daemons, &alternate(daemons, rounds, nothing, start, remove)?, 28.0);
    report(figures, "rm -f, running", daemons, &alternate(daemons, rounds, start, remove, nothing)?, 20.0);
    for daemon in daemons {
        start(daemon)?;
    }
    let exec = |daemon: &Daemon| daemon.ok(&["exec", "timed", "true"]).map(drop);
    report(figures, "exec true", daemons, &alternate(daemons, rounds, nothing, exec, nothing)?, 18.0);
    daemons.iter().try_for_each(remove)
}

/// Fifty containers, eight at a time, and what they cost when they do nothing.
fn many(daemons: &[Daemon], rounds: usize, figures: &mut Figures) -> Result<()> {
    const COUNT: usize = 50;
    const AT_A_TIME: usize = 8;
    let start_all = |daemon: &Daemon| -> Result<()> {
        let next = std::sync::atomic::AtomicUsize::new(0);
        let work = || -> Result<()> {
            while next.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < COUNT {
                daemon.ok(&["run", "-d", "--label", "many", IMAGE, "sleep", "1000"])?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..AT_A_TIME).map(|_| scope.spawn(work)).collect();
            workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| anyhow::anyhow!("a worker died"))?)
        })
    };
    let nothing = |_: &Daemon| Ok(());
    let remove_all = |daemon: &Daemon| {
        let ids = daemon.ok(&["ps", "-aq", "--filter", "label=many"])?;
        let ids: Vec<&str> = ids.split_whitespace().collect();
        daemon.ok(&[&["rm", "-f"], &ids[..]].concat()).map(drop)
    };
    let times = alternate(daemons, rounds, nothing, start_all, remove_all)?;
    report(figures, "50 starts, 8 at a time", daemons, &times, 600.0);
    daemons.iter().try_for_each(start_all)?;
    std::thread::sleep(IDLE);
    for daemon in daemons {
        let mebibytes = |kibibytes: u64| {
            #[allow(clippy::cast_precision_loss, reason = "mebibytes are shown with one digit")]
            let value = kibibytes as f64 / 1024.0;
            value
        };
        let Some(memory) = daemon.memory() else { continue };
        let name = format!("50 running idle, engine and helpers PSS, {}", daemon.name());
        figures.value(&name, mebibytes(memory.proportional), "MiB", daemon.is_ours().then_some(40.0));
        let name = format!("50 running idle, engine resident, {}", daemon.name());
        figures.value(&name, mebibytes(memory.resident), "MiB", daemon.is_ours().then_some(25.0));
    }
    daemons.iter().try_for_each(remove_all)
}

/// Five steps, with and without the cache; a daemon that serves no builds has no figure.
fn builds(daemons: &[Daemon], dir: &Path, rounds: usize, figures: &mut Figures) -> Result<()> {
    let context = content::build_context(dir)?;
    let build = |daemon: &Daemon, more: &[&str]| -> Result<Output> {
        daemon
            .command(&[&["build", "-q", "-t", "built"], more, &[context.as_str()]].concat())
            .output()
            .context("run docker")
    };
    let mut served = Vec::new();
    for daemon in daemons {
        let tried = build(daemon, &[])?;
        if tried.status.success() {
            served.push(daemon);
        } else {
            eprintln!("builds, {}: not served: {}", daemon.name(), String::from_utf8_lossy(&tried.stderr).trim());
        }
    }
    for (name, more, goal) in
        [("5-step build, cold", &["--no-cache"][..], None), ("5-step build, cached", &[], Some(20.0))]
    {
        for daemon in &served {
            let mut times = Vec::new();
            for _ in 0..rounds {
                let start = Instant::now();
                ensure!(build(daemon, more)?.status.success(), "a build failed");
                times.push(start.elapsed());
            }
            figures.median(&format!("{name}, {}", daemon.name()), &times, goal.filter(|_| daemon.is_ours()));
        }
    }
    Ok(())
}

/// Push to and pull from a registry on each daemon's own loopback.
fn registry(daemons: &[Daemon], dir: &Path, figures: &mut Figures) -> Result<()> {
    if !Path::new(daemon::REGISTRY).exists() {
        eprintln!("push and pull: docker-registry is not installed");
        return Ok(());
    }
    let archive = content::big(dir, BIG)?;
    for daemon in daemons.iter().filter(|daemon| daemon.is_own()) {
        let _registry = daemon.start_registry(dir)?;
        let name = "127.0.0.1:5000/big:1";
        daemon.ok(&["import", &archive, name])?;
        for verb in ["push", "pull"] {
            let start = Instant::now();
            daemon.ok(&[verb, name])?;
            #[allow(clippy::cast_precision_loss, reason = "a small number")]
            let rate = BIG as f64 / start.elapsed().as_secs_f64();
            figures.value(&format!("{verb} of {BIG} MB unpacked, {}", daemon.name()), rate, "MB/s", None);
            daemon.ok(&["rmi", name])?;
        }
    }
    Ok(())
}
