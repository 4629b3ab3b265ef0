//! `linux.sysctl`: values of the kernel that a namespace of the container's has for itself.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    error::{Context, Error, Result},
    spec::NamespaceKind,
};

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub struct Sysctl {
    key: String,
    value: String,
    /// Below `/proc/sys`.
    path: String,
    /// Whose it is.
    pub namespace: NamespaceKind,
}

impl Sysctl {
    /// Only what belongs to a namespace may be set (runc's `validate/validator.go` sysctl).
    pub fn parse(key: &str, value: &str) -> Result<Sysctl> {
        const IPC: [&str; 8] = [
            "kernel/msgmax",
            "kernel/msgmnb",
            "kernel/msgmni",
            "kernel/sem",
            "kernel/shmall",
            "kernel/shmmax",
            "kernel/shmmni",
            "kernel/shm_rmid_forced",
        ];
        let path = path(key);
        let namespace = match path.split_once('/') {
            _ if IPC.contains(&path.as_str()) || path.starts_with("fs/mqueue/") => NamespaceKind::Ipc,
            Some(("net", _)) => NamespaceKind::Network,
            _ if path == "kernel/domainname" => NamespaceKind::Uts,
            _ if path == "kernel/hostname" => {
                return Err(Error::new(format!(
                    "sysctl {key:?} is not allowed as it conflicts with the OCI \"hostname\" field"
                )));
            }
            _ => return Err(Error::new(format!("sysctl {key:?} is not in a separate kernel namespace"))),
        };
        if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(Error::new(format!("sysctl {key:?} leads elsewhere")));
        }
        Ok(Sysctl { key: key.to_owned(), value: value.to_owned(), path, namespace })
    }

    /// It may not be set where the namespace is the host's.
    pub fn refused(&self) -> Error {
        let why = match self.namespace {
            NamespaceKind::Ipc => "is not allowed in the hosts ipc namespace",
            NamespaceKind::Network => "not allowed in host network namespace",
            _ => "is not in a separate kernel namespace",
        };
        Error::new(format!("sysctl {:?} {why}", self.key))
    }

    /// Where it is in `/proc`.
    pub fn path(&self) -> PathBuf {
        Path::new("sys").join(&self.path)
    }

    /// The kernel shows each process its own namespaces' values.
    pub fn write(&self) -> Result<()> {
        fs::write(Path::new("/proc").join(self.path()), &self.value).context(|| format!("write sysctl {:?}", self.key))
    }
}

/// The first separator of a key says which one is meant: after a dot, slashes are dots of a name (sysctl(8)).
fn path(key: &str) -> String {
    let swap = |letter| match letter {
        '.' => '/',
        '/' => '.',
        letter => letter,
    };
    match key.find(['.', '/']) {
        Some(at) if key[at..].starts_with('.') => key.chars().map(swap).collect(),
        _ => key.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_paths_of_a_namespace() {
        for (key, path, namespace) in [
            ("net.ipv4.ip_forward", "net/ipv4/ip_forward", NamespaceKind::Network),
            ("net.ipv4.conf.eno2/100.rp_filter", "net/ipv4/conf/eno2.100/rp_filter", NamespaceKind::Network),
            ("net/ipv4/conf/eno2.100/rp_filter", "net/ipv4/conf/eno2.100/rp_filter", NamespaceKind::Network),
            ("kernel.shmmax", "kernel/shmmax", NamespaceKind::Ipc),
            ("fs/mqueue/msg_max", "fs/mqueue/msg_max", NamespaceKind::Ipc),
            ("kernel.domainname", "kernel/domainname", NamespaceKind::Uts),
        ] {
            let sysctl = Sysctl::parse(key, "1").unwrap();
            assert_eq!((sysctl.path.as_str(), sysctl.namespace), (path, namespace), "{key}");
        }
        for bad in ["kernel.panic", "kernel.hostname", "net", "net.//.kernel.panic", "net/../kernel/panic", "net..x"] {
            assert!(Sysctl::parse(bad, "1").is_err(), "{bad}");
        }
    }
}
