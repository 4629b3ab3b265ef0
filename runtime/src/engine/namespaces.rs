//! A sandbox's namespaces: made by a thread that goes back to its own, kept by bind mounts. No process holds them.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use coracle_launcher::{identity::Mappings, spec::NamespaceKind, sys, sysctl::Sysctl};

use crate::error::{Context, Error, Result};

/// Where a sandbox's namespaces are pinned; a kind that is the host's own has no path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pins {
    dir: PathBuf,
}

/// What a sandbox has of its own.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    pub net: bool,
    pub ipc: bool,
    pub uts: bool,
    pub hostname: String,
    /// Of the user namespace that the others belong to; none for the host's.
    pub users: Option<Mappings>,
    /// Of the namespaces above only: others are refused.
    pub sysctls: Vec<(String, String)>,
}

const KINDS: [(&str, i32); 3] = [("net", libc::CLONE_NEWNET), ("ipc", libc::CLONE_NEWIPC), ("uts", libc::CLONE_NEWUTS)];
/// statfs(2) type of namespace files.
const NSFS_MAGIC: i64 = 0x6e73_6673;

impl Pins {
    pub fn new(dir: PathBuf) -> Pins {
        Pins { dir }
    }

    /// The file of a kind (`net`, `ipc`, `uts`, `user`, `pid`).
    pub fn path(&self, kind: &str) -> PathBuf {
        self.dir.join(kind)
    }

    /// Whether a namespace of this kind is pinned.
    pub fn holds(&self, kind: &str) -> bool {
        nix::sys::statfs::statfs(&self.path(kind)).is_ok_and(|stat| stat.filesystem_type().0 == NSFS_MAGIC)
    }

    /// Makes the namespaces, brings the loopback up, and pins them.
    pub fn create(&self, wanted: &Wanted) -> Result<()> {
        self.create_with(wanted, || Ok(()))
    }

    /// The same, with something to be done inside.
    pub fn create_with<T>(&self, wanted: &Wanted, inside: impl FnOnce() -> Result<T>) -> Result<T> {
        let sysctls = wanted.sysctls()?;
        fs::create_dir_all(&self.dir).context(format!("create {}", self.dir.display()))?;
        let kinds: Vec<(&str, i32)> = KINDS.into_iter().filter(|(kind, _)| wanted.has(kind)).collect();
        for (kind, _) in &kinds {
            File::create(self.path(kind)).context(format!("create {}", self.path(kind).display()))?;
        }
        let flags = kinds.iter().fold(0, |flags, (_, flag)| flags | flag);
        if flags == 0 {
            return inside();
        }
        let held = wanted.users.as_ref().map(|users| users.hold(flags)).transpose();
        let held = held.context("make the sandbox's user namespace")?;
        let work = || -> Result<T> {
            match &held {
                None => sys::unshare(flags).context("make the sandbox's namespaces")?,
                Some(held) => kinds.iter().try_for_each(|(kind, flag)| {
                    let what = || format!("join the sandbox's {kind} namespace");
                    let namespace = File::open(held.path(kind)).context(what())?;
                    sys::setns(&namespace, *flag).context(what())
                })?,
            }
            if wanted.uts && !wanted.hostname.is_empty() {
                sys::sethostname(&wanted.hostname).context(format!("set hostname {:?}", wanted.hostname))?;
            }
            if wanted.net {
                sys::raise_loopback().context("bring the loopback up")?;
            }
            for sysctl in &sysctls {
                sysctl.write().context("set the sandbox's kernel parameters")?;
            }
            for (kind, _) in &kinds {
                let from = format!("/proc/thread-self/ns/{kind}");
                sys::mount(&from, self.path(kind), "", libc::MS_BIND, "")
                    .context(format!("pin the {kind} namespace"))?;
            }
            inside()
        };
        let names: Vec<&str> = kinds.iter().map(|(kind, _)| *kind).collect();
        let done = coracle_link::visit(&names, work).context("find the way back from new namespaces")??;
        let Some(held) = held else { return Ok(done) };
        let path = self.path("user");
        File::create(&path).context(format!("create {}", path.display()))?;
        sys::mount(&held.path("user"), &path, "", libc::MS_BIND, "").context("pin the user namespace")?;
        Ok(done)
    }

    /// Pins a namespace of a process.
    pub fn pin(&self, kind: &str, pid: u32) -> Result<()> {
        let path = self.path(kind);
        self.release_kind(kind)?;
        File::create(&path).context(format!("create {}", path.display()))?;
        sys::mount(&format!("/proc/{pid}/ns/{kind}"), &path, "", libc::MS_BIND, "")
            .context(format!("pin the {kind} namespace"))
    }

    /// Lets go of one namespace.
    pub fn release_kind(&self, kind: &str) -> Result<()> {
        let path = self.path(kind);
        while self.holds(kind) {
            sys::umount(&path, libc::MNT_DETACH).context(format!("release {}", path.display()))?;
        }
        Ok(())
    }

    /// Lets go of the namespaces; they end with their last process.
    pub fn release(&self) -> Result<()> {
        for kind in KINDS.map(|(kind, _)| kind).into_iter().chain(["pid", "user"]) {
            self.release_kind(kind)?;
        }
        match fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).context(format!("remove {}", self.dir.display()))
            }
            _ => Ok(()),
        }
    }
}

impl Wanted {
    fn has(&self, kind: &str) -> bool {
        match kind {
            "net" => self.net,
            "ipc" => self.ipc,
            _ => self.uts,
        }
    }

    /// The parameters to be set; any that is not of these namespaces would be the host's.
    fn sysctls(&self) -> Result<Vec<Sysctl>> {
        let judge = |(key, value): &(String, String)| {
            let sysctl = Sysctl::parse(key, value)?;
            let own = match sysctl.namespace {
                NamespaceKind::Ipc => self.ipc,
                NamespaceKind::Network => self.net,
                NamespaceKind::Uts => self.uts,
                _ => false,
            };
            if own { Ok(sysctl) } else { Err(sysctl.refused()) }
        };
        let judged = self.sysctls.iter().map(judge).collect::<std::result::Result<_, coracle_launcher::error::Error>>();
        judged.map_err(|error| Error::invalid(error.to_string()))
    }
}

/// In a network of their own, all users may listen on any port and send pings, unless something else is asked for (moby
/// `daemon/oci_linux.go`, `WithSysctls`; containerd's `enable_unprivileged_ports` and `enable_unprivileged_icmp`). The kernel
/// takes only groups that there are: not so many in a user namespace.
pub fn open_to_everybody(sysctls: &mut BTreeMap<String, String>, all_groups: bool) {
    let ping = all_groups.then_some(("net.ipv4.ping_group_range", "0 2147483647"));
    for (key, value) in [("net.ipv4.ip_unprivileged_port_start", "0")].into_iter().chain(ping) {
        sysctls.entry(key.into()).or_insert_with(|| value.into());
    }
}

/// Whether sandboxes can have users of their own: overlayfs takes layers whose owners are mapped since Linux 5.19.
pub fn can_map_users() -> bool {
    let release = nix::sys::utsname::uname().map(|name| name.release().to_string_lossy().into_owned());
    let release = release.unwrap_or_default();
    let mut numbers = release.split(|character: char| !character.is_ascii_digit()).map(str::parse::<u32>);
    let mut next = || numbers.next().and_then(std::result::Result::ok).unwrap_or(0);
    (next(), next()) >= (5, 19) && sys::has_mount_setattr() && Path::new("/proc/self/ns/user").exists()
}
