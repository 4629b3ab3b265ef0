//! Namespaces that a container joins instead of having its own (config-linux "Namespaces", `path`).

use std::{
    fs,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
};

use crate::{
    error::{Context, Error, Result},
    spec::{Namespace, NamespaceKind, Spec},
    sys,
    sysctl::Sysctl,
};

/// A namespace to join, opened while its path can be seen.
pub struct Joined {
    kind: NamespaceKind,
    path: PathBuf,
    fd: OwnedFd,
}

impl Joined {
    pub fn enter(&self) -> Result<()> {
        sys::setns(&self.fd, self.kind.flag())
            .context(|| format!("join the {:?} namespace {}", self.kind, self.path.display()))
    }

    /// Whether it is the one of a process of this name in `/proc`; not where that cannot be seen.
    fn is_of(&self, process: &str, name: &str) -> Result<bool> {
        let Ok(other) = sys::open(format!("/proc/{process}/ns/{name}"), libc::O_PATH, 0) else { return Ok(false) };
        let stat = |fd: &OwnedFd| sys::fstat(fd).context(|| format!("compare the {name} namespaces"));
        let (other, this) = (stat(&other)?, stat(&self.fd)?);
        Ok((other.st_dev, other.st_ino) == (this.st_dev, this.st_ino))
    }
}

/// Opens them all before one is joined: that of the mounts takes all paths along.
pub fn open(namespaces: &[Namespace]) -> Result<Vec<Joined>> {
    let joined = namespaces.iter().filter_map(|namespace| Some((namespace.kind, namespace.path.as_ref()?)));
    joined
        .map(|(kind, path)| {
            let fd = sys::open(path, libc::O_RDONLY, 0)
                .context(|| format!("open the {kind:?} namespace {}", path.display()))?;
            Ok(Joined { kind, path: path.clone(), fd })
        })
        .collect()
}

/// Refuses what would change the machine and not the container: a namespace that is joined may be the one this process is in.
pub fn check(spec: &Spec, joined: &[Joined]) -> Result<()> {
    let find = |kind| joined.iter().find(|namespace| namespace.kind == kind);
    // runc's isHostNetNS.
    if let Some(sysctl) = spec.sysctls.iter().find(|sysctl| sysctl.namespace == NamespaceKind::Network)
        && let Some(network) = find(NamespaceKind::Network)
        && network.is_of("self", "net")?
    {
        return Err(sysctl.refused());
    }
    // All who are in it get the container's root (pivot_root(2), NOTES). runc does that to its caller, too.
    if let Some(mounts) = find(NamespaceKind::Mount)
        && (mounts.is_of("self", "mnt")? || mounts.is_of("1", "mnt")?)
    {
        return Err(Error::new(
            "linux.namespaces: the mount namespace to join is the host's, which would lose its root: a container without one uses it",
        ));
    }
    Ok(())
}

/// Refuses a mount namespace that was joined and has no `/proc` of the kernel's that shows this process, with nothing mounted
/// where it is used: what is found in a container's root is mounted on by `/proc/self/fd`, and values are written.
pub fn check_proc(spec: &Spec) -> Result<()> {
    let what = || "open /proc of the mount namespace that was joined".to_owned();
    let proc = sys::open("/proc", libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW, 0).context(what)?;
    /// `PROC_ROOT_INO` (linux/proc_fs.h).
    const ROOT: u64 = 1;
    if !sys::is_procfs(&proc).context(what)? || sys::fstat(&proc).context(what)?.st_ino != ROOT {
        return Err(Error::new("/proc of the mount namespace that was joined is not the kernel's"));
    }
    let values = spec.sysctls.iter().map(Sysctl::path);
    std::iter::once("self/fd".into()).chain(values).try_for_each(|part| {
        sys::openat2(proc.as_fd(), &part, libc::O_PATH, 0, sys::RESOLVE_NO_XDEV)
            .map(drop)
            .context(|| format!("find {} in /proc of the mount namespace that was joined", part.display()))
    })
}

pub fn take(joined: &mut Vec<Joined>, kind: NamespaceKind) -> Option<Joined> {
    let index = joined.iter().position(|namespace| namespace.kind == kind)?;
    Some(joined.remove(index))
}

/// Namespaces that only one's children enter.
pub struct ForChildren<'a> {
    pub pid: Option<Joined>,
    pub time: Option<Joined>,
    pub new_time: bool,
    pub offsets: &'a str,
}

impl ForChildren<'_> {
    pub fn enter(&self) -> Result<()> {
        self.pid.iter().chain(&self.time).try_for_each(Joined::enter)?;
        if self.new_time {
            sys::unshare(NamespaceKind::Time.flag()).context(|| "unshare the time namespace".into())?;
            if !self.offsets.is_empty() {
                fs::write("/proc/self/timens_offsets", self.offsets).context(|| "set linux.timeOffsets".into())?;
            }
        }
        Ok(())
    }
}
