//! `lab publish`: a port of the host's 127.0.0.1 that leads to a port of the nodes.

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use super::{
    lock::Lock,
    paths::Paths,
    process::Process,
    spec::{Publish, Spec},
};

/// Publishes ports, or with `remove` takes them back. The server forwards them; it is told to look again.
pub fn publish(paths: &Paths, ports: &[Publish], remove: bool) -> Result<()> {
    let lock = Lock::open(paths)?;
    let mut spec = Spec::require(paths)?;
    let _lock = lock.context("the lab went away")?;
    for port in ports {
        spec.publish.retain(|known| known.host != port.host);
        if !remove {
            spec.publish.push(*port);
        }
    }
    spec.save(paths)?;
    let server = Process::find(paths, "server")?.context("the server does not run")?;
    server.signal(Signal::SIGHUP)?;
    for port in &spec.publish {
        println!("127.0.0.1:{} -> port {} of every node", port.host, port.node);
    }
    Ok(())
}
