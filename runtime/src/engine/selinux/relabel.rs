//! Files get the contexts of the containers that use them.

use std::{
    ffi::OsString,
    fs,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use coracle_launcher::{
    labels::{self, SELINUX},
    sys,
};

use super::{Context, Labels, Selinux};
use crate::{
    engine::model::{ContainerConfig, Mount},
    error::{Context as _, Error, Result},
};

/// Nobody's files are put below each other as deep.
const MAX_DEPTH: usize = 512;

impl Selinux {
    /// Gives a directory of ours, and what will be made in it, the context of files that containers read. Without it they could
    /// not run what their images hold: that a program is mapped from a layer is asked of the layer, too.
    pub fn label_read_only(&self, path: &Path) -> Result<()> {
        let Some(contexts) = &self.contexts else { return Ok(()) };
        let label = contexts.read_only.text();
        // Whatever is made in a directory that has it gets it, too.
        let top = sys::open(path, libc::O_PATH, 0).context(format!("open {}", path.display()))?;
        if has_label(&top, &label) { Ok(()) } else { relabel_tree(path, &label) }
    }

    /// Gives a pod's container its mounts: those that are to be relabelled, and the sandbox's files that nothing else is
    /// mounted in place of (containerd `internal/cri/server`, `linuxContainerMounts`). `volumes` are its image's; `shm` is the sandbox's shared memory;
    /// what a container in the host's IPC namespace has is the host's.
    pub fn label_mounts(
        &self,
        labels: &Labels,
        config: &ContainerConfig,
        volumes: &[Mount],
        files: &Path,
        shm: Option<&Path>,
    ) -> Result<()> {
        if labels.mount.is_empty() {
            return Ok(());
        }
        for mount in config.mounts.iter().chain(volumes).filter(|mount| mount.relabel && mount.image.is_none()) {
            let source = fs::canonicalize(&mount.host_path).context(format!("find {:?}", mount.host_path))?;
            self.relabel(&source, &labels.mount, false)?;
        }
        let given = |path: &str| config.mounts.iter().any(|mount| Path::new(&mount.container_path) == Path::new(path));
        for name in ["hosts", "hostname", "resolv.conf"].iter().filter(|name| !given(&format!("/etc/{name}"))) {
            self.relabel(&files.join(name), &labels.mount, false)?;
        }
        if let Some(shm) = shm.filter(|_| !given("/dev/shm")) {
            self.relabel(shm, &labels.mount, false)?;
        }
        Ok(())
    }

    /// Gives a file, or a directory with all in it, a context; `shared` is for all containers. What everybody's machine lives
    /// of is refused, and a file system without contexts has none.
    pub fn relabel(&self, path: &Path, label: &str, shared: bool) -> Result<()> {
        if !self.enabled || label.is_empty() {
            return Ok(());
        }
        refuse_system(path)?;
        let mut context =
            Context::parse(label).ok_or_else(|| Error::invalid(format!("bad SELinux label {label:?}")))?;
        if shared && !context.level.is_empty() {
            context.level = "s0".into();
        }
        relabel_tree(path, &context.text())
    }
}

/// What is not relabelled, with all in it (opencontainers/selinux, `Chcon`).
fn refuse_system(path: &Path) -> Result<()> {
    const SYSTEM: [&str; 24] = [
        "/",
        "/bin",
        "/boot",
        "/dev",
        "/etc",
        "/etc/passwd",
        "/etc/pki",
        "/etc/shadow",
        "/home",
        "/lib",
        "/lib64",
        "/media",
        "/opt",
        "/proc",
        "/root",
        "/run",
        "/sbin",
        "/srv",
        "/sys",
        "/tmp",
        "/usr",
        "/var",
        "/var/lib",
        "/var/log",
    ];
    let is_home = std::env::var_os("HOME").is_some_and(|home| !home.is_empty() && Path::new(&home) == path);
    if SYSTEM.iter().any(|system| Path::new(system) == path) || is_home {
        return Err(Error::invalid(format!("SELinux relabeling of {} is not allowed", path.display())));
    }
    Ok(())
}

/// Walks a tree by descriptors and follows no link in it: a container may have it in its hands and change it meanwhile.
fn relabel_tree(path: &Path, label: &str) -> Result<()> {
    let what = |path: &Path| format!("relabel {:?} with {label:?} failed", path.display().to_string());
    let top = sys::open(path, libc::O_PATH, 0).context(what(path))?;
    // When the top is called so, only what is not is changed: that keeps times as they are.
    let spared = has_label(&top, label);
    let mut pending = vec![Level { dir: top, names: Vec::new(), path: path.to_owned(), read: false }];
    while let Some(level) = pending.last_mut() {
        if !level.read {
            level.read = true;
            level.names = names_in(&level.dir).context(what(&level.path))?;
        }
        if let Some(name) = level.names.pop() {
            let path = level.path.join(&name);
            let flags = libc::O_PATH | libc::O_NOFOLLOW;
            match sys::openat(level.dir.as_fd(), &name, flags, 0) {
                Ok(dir) if pending.len() < MAX_DEPTH => {
                    pending.push(Level { dir, names: Vec::new(), path, read: false })
                }
                Ok(_) => return Err(Error::invalid(format!("{}: too deep", what(&path)))),
                // Removed meanwhile.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                Err(error) => return Err(error).context(what(&path)),
            }
            continue;
        }
        // The top is the last: only when all is done it is called so.
        if let Some(done) = pending.pop()
            && !(spared && has_label(&done.dir, label))
        {
            match labels::set_file(&done.dir, label) {
                // The file system has no contexts of its own.
                Err(error) if error.raw_os_error() == Some(libc::ENOTSUP) => return Ok(()),
                result => result.context(what(&done.path))?,
            }
        }
    }
    Ok(())
}

/// A directory (or anything else) on the way, and what of it is to be done.
struct Level {
    dir: OwnedFd,
    names: Vec<OsString>,
    path: PathBuf,
    read: bool,
}

fn has_label(file: &OwnedFd, label: &str) -> bool {
    let found = sys::getxattr(format!("/proc/self/fd/{}", file.as_raw_fd()), SELINUX);
    found.is_ok_and(|found| found.strip_suffix(b"\0").unwrap_or(&found) == label.as_bytes())
}

/// The names in a directory; none in anything else.
fn names_in(file: &OwnedFd) -> std::io::Result<Vec<OsString>> {
    if sys::fstat(file)?.st_mode & libc::S_IFMT != libc::S_IFDIR {
        return Ok(Vec::new());
    }
    fs::read_dir(format!("/proc/self/fd/{}", file.as_raw_fd()))?
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_machine_lives_of_is_not_relabelled() {
        let selinux = Selinux { enabled: true, contexts: None, levels: Default::default() };
        for path in ["/", "/etc", "/usr/", "/var/lib", "/etc/shadow"] {
            let refused = selinux.relabel(Path::new(path), "a:b:c", false).unwrap_err();
            assert!(refused.to_string().contains("is not allowed"), "{refused}");
        }
    }
}
