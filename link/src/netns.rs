//! Network namespaces.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::Arc,
    thread,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
};

/// A network namespace, held open. Clones share the descriptor.
#[derive(Clone, Debug)]
pub struct Netns(Arc<OwnedFd>);

impl Netns {
    /// The calling thread's namespace.
    pub fn current() -> io::Result<Self> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// The namespace that `path` is pinned to (a bind mount or a /proc link).
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(Arc::new(File::open(path)?.into())))
    }

    /// The namespace of a process.
    pub fn of_pid(pid: i32) -> io::Result<Self> {
        Self::open(Path::new(&format!("/proc/{pid}/ns/net")))
    }

    /// A namespace from a descriptor that this process was given.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self(Arc::new(fd))
    }

    /// Makes a namespace with nothing in it but a loopback device that is down; it lives as long as it is held.
    pub fn create() -> io::Result<Self> {
        on_own_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Self::current()
        })
    }

    /// Makes a namespace and pins it to `path`, a file that is made for it and must not exist.
    pub fn create_pinned(path: &Path) -> io::Result<Self> {
        let netns = Self::create()?;
        netns.pin(path)?;
        Ok(netns)
    }

    /// Pins the namespace to `path` by a bind mount, so that it outlives every process in it.
    pub fn pin(&self, path: &Path) -> io::Result<()> {
        OpenOptions::new().write(true).create_new(true).open(path)?;
        let pinned = on_own_thread(|| {
            // A namespace file can only be bound while it is somebody's: take it, and bind one's own.
            setns(self.as_fd(), CloneFlags::CLONE_NEWNET)?;
            mount(Some("/proc/thread-self/ns/net"), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
            Ok(())
        });
        if pinned.is_err() {
            // The file is useless without the mount; the error that matters is the mount's.
            let _ = fs::remove_file(path);
        }
        pinned
    }

    /// Takes the pin at `path` away; a path without one is no error.
    pub fn unpin(path: &Path) -> io::Result<()> {
        match umount2(path, MntFlags::MNT_DETACH) {
            Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => {}
            Err(error) => return Err(error.into()),
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Runs `work` inside the namespace, on a thread of its own that ends with it.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        on_own_thread(|| {
            setns(self.as_fd(), CloneFlags::CLONE_NEWNET)?;
            work()
        })
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A thread's namespace is the thread's alone: the change dies with it and cannot leak into a thread pool.
fn on_own_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let worker = thread::Builder::new().name("netns".into()).spawn_scoped(scope, work)?;
        worker.join().unwrap_or_else(|_| Err(io::Error::other("the thread in the namespace panicked")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inode(fd: &impl AsFd) -> u64 {
        nix::sys::stat::fstat(fd.as_fd()).unwrap().st_ino
    }

    #[test]
    fn a_pinned_namespace_outlives_its_descriptor_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ns");
        let number = inode(&Netns::create_pinned(&path).unwrap());
        let opened = Netns::open(&path).unwrap();
        assert_eq!(inode(&opened), number);
        assert_ne!(inode(&Netns::current().unwrap()), number);
        Netns::unpin(&path).unwrap();
        assert!(!path.exists());
        Netns::unpin(&path).unwrap();
    }

    #[test]
    fn work_runs_inside_and_the_caller_stays_outside() {
        let before = inode(&Netns::current().unwrap());
        let netns = Netns::create().unwrap();
        let inside = netns.run(|| Ok(inode(&Netns::current()?))).unwrap();
        assert_eq!(inside, inode(&netns));
        assert_eq!(inode(&Netns::current().unwrap()), before);
    }
}
