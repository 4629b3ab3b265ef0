//! The API's port on the host: one lab's alone, also when several labs come up at the same moment.

use std::{
    collections::HashSet,
    io,
    net::{Ipv4Addr, TcpListener},
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
};

use anyhow::{Context, Result, bail};

use super::spec::API_PORT;

/// How many ports of the kernel's choice are tried.
const ATTEMPTS: usize = 16;

/// A port that is free, and stays so for other labs while this is held: until the server listens there.
#[derive(Debug)]
pub struct Claim {
    port: u16,
    // An abstract socket: it is the network namespace's as the port is, and goes with the process.
    _name: UnixDatagram,
}

impl Claim {
    /// Claims the usual port, or else one that is free; none of `owned`, which are ports of labs that may not run.
    pub fn choose(owned: &HashSet<u16>) -> Result<Self> {
        if !owned.contains(&API_PORT)
            && let Some(claim) = Self::take(API_PORT)?
        {
            return Ok(claim);
        }
        for _ in 0..ATTEMPTS {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port on 127.0.0.1")?;
            let port = listener.local_addr().context("find a free port on 127.0.0.1")?.port();
            drop(listener);
            if !owned.contains(&port)
                && let Some(claim) = Self::take(port)?
            {
                return Ok(claim);
            }
        }
        bail!("no free port on 127.0.0.1 in {ATTEMPTS} attempts")
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `None` when the port is somebody's, or about to be.
    fn take(port: u16) -> Result<Option<Self>> {
        let name = SocketAddr::from_abstract_name(format!("coracle/api-port/{port}"))?;
        let name = match UnixDatagram::bind_addr(&name) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Ok(None),
            name => name.with_context(|| format!("claim port {port}"))?,
        };
        // In this order: who had the name before listens by now.
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        Ok(free.then_some(Self { port, _name: name }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_claimed_once_and_given_back() {
        // Not the usual port: labs of other tests may be about to listen there.
        let owned = HashSet::from([API_PORT]);
        let first = Claim::choose(&owned).unwrap();
        let second = Claim::choose(&owned).unwrap();
        assert_ne!(first.port(), second.port());
        assert!(Claim::take(second.port()).unwrap().is_none(), "claimed twice");
        let port = second.port();
        drop(second);
        assert_eq!(Claim::take(port).unwrap().map(|claim| claim.port()), Some(port));
    }

    #[test]
    fn a_port_of_a_lab_or_of_anybody_else_is_not_chosen() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        assert!(Claim::take(listener.local_addr().unwrap().port()).unwrap().is_none());
        assert_ne!(Claim::choose(&HashSet::from([API_PORT])).unwrap().port(), API_PORT);
    }
}
