//! Serving in a lab's network as well as in the host's.

use std::{
    net::SocketAddr,
    os::fd::{FromRawFd, OwnedFd, RawFd},
    str::FromStr,
};

use anyhow::{Context, Result};
use coracle_link::{Netns, Place};
use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    libc,
};

/// A descriptor of a network namespace, inherited, and an address in it.
#[derive(Clone, Debug)]
pub struct LabBind {
    fd: RawFd,
    address: SocketAddr,
}

impl FromStr for LabBind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('=').and_then(|(fd, address)| Some((fd.parse().ok()?, address.parse().ok()?)));
        let (fd, address) = parts.ok_or_else(|| format!("{text:?} is not FD=ADDRESS:PORT"))?;
        Ok(Self { fd, address })
    }
}

impl LabBind {
    /// The place; must be called once.
    pub fn place(&self) -> Result<Place> {
        inherited_netns(self.fd).map(Place::Netns)
    }

    /// The address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Takes over a network namespace that this process was given; its children are not given it.
pub fn inherited_netns(fd: RawFd) -> Result<Netns> {
    // SAFETY: asking for a descriptor's flags involves no memory.
    if fd <= 2 || unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
        anyhow::bail!("descriptor {fd} is not open");
    }
    // SAFETY: it is open, and was given to this process for this purpose alone.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).context("take over a network namespace")?;
    Ok(Netns::from_fd(fd))
}
