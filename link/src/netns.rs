//! Network namespaces.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::Arc,
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
        visit(&["net"], || {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Self::current()
        })?
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
        // A namespace file can only be bound while it is somebody's: take it, and bind one's own.
        let pinned = self
            .run(|| Ok(mount(Some("/proc/thread-self/ns/net"), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?));
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

    /// Runs `work` inside the namespace, on this thread. It must start no threads: they would stay there.
    pub fn run<T>(&self, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        visit(&["net"], || {
            setns(self.as_fd(), CloneFlags::CLONE_NEWNET)?;
            work()
        })?
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Runs `work`, which may take this thread into other namespaces of these kinds (`net`, `ipc`, `uts`), and brings the thread
/// back: a namespace is a thread's own (setns(2)), and going there and back costs a few calls where a thread for it costs
/// twenty and the wait for a processor. What `work` starts on other threads runs where those are.
///
/// Ends the process if there is no way back: what this thread did next would happen in somebody else's namespace.
pub fn visit<T>(kinds: &[&str], work: impl FnOnce() -> T) -> io::Result<T> {
    struct Back(Vec<File>);
    impl Drop for Back {
        fn drop(&mut self) {
            if self.0.iter().any(|home| setns(home, CloneFlags::empty()).is_err()) {
                std::process::abort();
            }
        }
    }
    let homes = kinds.iter().map(|kind| File::open(format!("/proc/thread-self/ns/{kind}")));
    let back = Back(homes.collect::<io::Result<_>>()?);
    let outcome = work();
    drop(back);
    Ok(outcome)
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
        let other = Netns::create().unwrap();
        let nested = netns.run(|| {
            let there = other.run(|| Ok(inode(&Netns::current()?)))?;
            Ok((there, inode(&Netns::current()?)))
        });
        assert_eq!(nested.unwrap(), (inode(&other), inode(&netns)), "each visit ends where it began");
        let failed = netns.run(|| Err::<(), _>(io::Error::other("no")));
        assert!(failed.is_err());
        let died = std::panic::catch_unwind(|| netns.run(|| -> io::Result<()> { panic!("the work dies") }));
        assert!(died.is_err());
        assert_eq!(inode(&Netns::current().unwrap()), before, "also when the work failed or died");
    }
}
