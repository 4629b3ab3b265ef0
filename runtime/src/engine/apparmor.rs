//! AppArmor: the profile of containers that name none. It lies compiled in the program, so that nothing of AppArmor's is
//! needed on the machine; `apparmor/compile.sh` makes it from its text.

use std::{
    ffi::OsStr,
    fs::File,
    io::{Read, Write},
    os::fd::{AsFd, OwnedFd},
};

use coracle_launcher::{labels::has_apparmor, sys};

use super::model::Security;
use crate::error::{Context, Error, Result};

/// What the profile is called in the kernel.
pub const DEFAULT: &str = "coracle-default";
pub const UNCONFINED: &str = "unconfined";
const COMPILED: &[u8] = include_bytes!("apparmor/coracle-default.bin");
/// A profile's name and mode take a line; no machine has as many.
const MAX_LIST: u64 = 4 << 20;

/// Whether containers get profiles here. Not by a runtime in a container, whose kernel's profiles are not its own (systemd's
/// `container=`, as runc and Docker have it).
pub fn enabled() -> bool {
    has_apparmor() && std::env::var_os("container").is_none_or(|name| name.is_empty())
}

/// The profile to start a container under, which the kernel has if it is the default one; none leaves things as they are. A
/// named one is passed on where there is no AppArmor: the launcher refuses it, by name.
pub fn profile(security: &Security) -> Result<Option<String>> {
    match security.apparmor.as_str() {
        _ if security.privileged => Ok(None),
        "" | DEFAULT if !enabled() => Ok(None),
        "" | DEFAULT => {
            load_default().context(format!("load the AppArmor profile {DEFAULT}"))?;
            Ok(Some(DEFAULT.to_owned()))
        }
        UNCONFINED if !enabled() => Ok(None),
        named => Ok(Some(named.to_owned())),
    }
}

/// Loads the default profile unless one of its name is there: it is looked for at each start, as whoever reloads the machine's
/// profiles may drop it.
fn load_default() -> Result<()> {
    let dir = policy()?;
    if is_loaded(&dir, DEFAULT)? {
        return Ok(());
    }
    // The kernel wants a whole profile in one write.
    open(&dir, ".replace", libc::O_WRONLY)?.write_all(COMPILED).context("write the profile")?;
    tracing::info!(profile = DEFAULT, "loaded the AppArmor profile of containers");
    Ok(())
}

fn is_loaded(dir: &OwnedFd, profile: &str) -> Result<bool> {
    let mut list = String::new();
    let file = open(dir, "profiles", libc::O_RDONLY)?;
    file.take(MAX_LIST).read_to_string(&mut list).context("list AppArmor's profiles")?;
    Ok(list.lines().any(|line| line.rsplit_once(" (").is_some_and(|(name, _)| name == profile)))
}

fn open(dir: &OwnedFd, name: &str, flags: i32) -> Result<File> {
    let file = sys::openat(dir.as_fd(), OsStr::new(name), flags | libc::O_CLOEXEC, 0);
    file.map(File::from).context(format!("open AppArmor's {name}"))
}

/// Whether the kernel has the profile that a container names: one that it lacks is told when the container is made (containerd
/// `generateApparmorSpecOpts`, whose words these are). Docker's containers fail when they start, as dockerd's do.
pub fn check_loaded(security: &Security) -> Result<()> {
    let profile = security.apparmor.as_str();
    // The default one is loaded when it is missing, and without AppArmor there is nothing to look in: that was refused.
    if security.privileged || matches!(profile, "" | DEFAULT | UNCONFINED) || !enabled() {
        return Ok(());
    }
    if is_loaded(&policy()?, profile)? {
        return Ok(());
    }
    Err(Error::invalid(format!("failed to generate apparmor spec opts: apparmor profile not found {profile}")))
}

/// The kernel's directory of AppArmor. A mount namespace need not have its file system: then one is mounted for us alone.
fn policy() -> Result<OwnedFd> {
    const DIRECTORY: i32 = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
    if let Ok(dir) = sys::open("/sys/kernel/security/apparmor", DIRECTORY, 0) {
        return Ok(dir);
    }
    let own = sys::mount_detached("securityfs").context("mount securityfs")?;
    sys::openat(own.as_fd(), OsStr::new("apparmor"), DIRECTORY, 0).context("find AppArmor in securityfs")
}

/// A name that a client gave may be looked for in the kernel's list.
pub fn check_name(name: &str) -> Result<()> {
    if name.is_empty() || name.contains(['\n', '\0']) {
        return Err(Error::invalid(format!("{name:?} is no name of an AppArmor profile")));
    }
    Ok(())
}
