//! The first process of a lab's node, and the keeper of a lab's server.
//!
//! ```text
//! coracle-init [--node HOSTNAME --netns FD] [--cgroup DIR]… --status FD --log FILE -- COMMAND…
//! ```
//!
//! It moves itself into the cgroups, forks into the background, and (with `--node`) into a mount, uts, ipc and pid
//! namespace of its own inside the given network namespace. It writes `PID\n` or `error: …\n` to the status descriptor
//! and closes it. Then it runs COMMAND, again whenever it ends, reaps what is orphaned, and outlives the command: the
//! node's namespaces last as long as this process. SIGTERM ends the command, then everything else in the node, then
//! this process; SIGHUP is passed on. Other descriptors above 2 are handed to the command as they are.

mod namespaces;
mod options;
mod supervise;
mod system;

use std::{fs, io, process::ExitCode};

use options::Options;
use system::{Fork, Result, context};

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("coracle-init: {error}");
            return ExitCode::from(2);
        }
    };
    match start(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            system::report(options.status, &format!("error: {error}\n"));
            ExitCode::FAILURE
        }
    }
}

/// Goes into the background; the foreground tells who went there.
fn start(options: &Options) -> Result<()> {
    for cgroup in &options.cgroups {
        let procs = format!("{cgroup}/cgroup.procs");
        fs::write(&procs, "0").map_err(context(format!("join cgroup {procs}")))?;
    }
    if let Some(node) = &options.node {
        namespaces::enter(node.netns)?;
    }
    // The child tells of trouble by itself; here only its pid, as the host sees it, is known.
    let (told, tell) = system::pipe()?;
    match system::fork()? {
        Fork::Parent(child) => {
            drop(tell);
            let answer = io::read_to_string(told).map_err(context("wait for the background process".into()))?;
            let line = if answer.is_empty() { format!("{child}\n") } else { answer };
            system::report(options.status, &line);
            Ok(())
        }
        Fork::Child => {
            drop(told);
            let prepared = prepare(options);
            if let Err(error) = &prepared {
                let mut tell = tell;
                // Nobody is left to be told that telling failed.
                let _ = io::Write::write_all(&mut tell, format!("error: {error}\n").as_bytes());
                std::process::exit(1);
            }
            system::close(options.status);
            drop(tell);
            supervise::run(options)
        }
    }
}

fn prepare(options: &Options) -> Result<()> {
    system::detach(&options.log)?;
    match &options.node {
        Some(node) => namespaces::set_up(&node.hostname),
        None => system::become_subreaper(),
    }
}
