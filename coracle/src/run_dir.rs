//! Where a runtime keeps what is gone with a power loss anyway, unless it is told: sockets, namespaces, the bundles of what
//! runs.
//!
//! ```text
//! DATA_DIR/run ─► /run/coracle/NAME          where /run is in memory
//! DATA_DIR/run                               elsewhere, and where an earlier version left something in it
//! ```
//!
//! The link keeps every path that leads there; the name is made of the data directory's, so that no two share one. A restart
//! of the machine leaves the link and an empty `/run`, and with that none of what belonged to containers that ran.
//!
//! Locks, in this order: `/run/coracle` while a directory in it is made or removed, the runtime's database while its directory
//! is moved, and `/run/coracle/NAME`, shared, for as long as a daemon works in it.

mod abandoned;

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{FileTypeExt, symlink},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    sys::statfs::{TMPFS_MAGIC, statfs},
};
use sha2::{Digest, Sha256};

/// Where systems keep what does not outlive them (Filesystem Hierarchy Standard 3.0, "/run").
const VOLATILE: &str = "/run";

/// In a directory of what runs: leads to the data directory that it belongs to.
const OWNER: &str = "data-dir";

/// A directory of what runs. Nobody removes it while this lives.
pub struct RunDir {
    pub path: PathBuf,
    _held: Option<Flock<File>>,
}

impl RunDir {
    /// One that somebody else named.
    pub fn at(path: PathBuf) -> RunDir {
        RunDir { path, _held: None }
    }

    /// The directory of a data directory's runtime, made. Those of data directories that are gone are removed beside it.
    pub fn of(data_dir: &Path) -> Result<RunDir> {
        let in_memory = statfs(VOLATILE).is_ok_and(|found| found.filesystem_type() == TMPFS_MAGIC);
        place(data_dir, in_memory.then_some(Path::new(VOLATILE)))
    }
}

fn place(data_dir: &Path, volatile: Option<&Path>) -> Result<RunDir> {
    let base = volatile.map(|volatile| volatile.join("coracle"));
    // Before the data directory is there: who cleans up must not take a new one for one that is gone.
    let base = base.and_then(|base| match lock_base(&base) {
        Ok(lock) => Some((base, lock)),
        Err(error) => {
            tracing::warn!(dir = %base.display(), %error, "what runs is kept in the data directory");
            None
        }
    });
    fs::create_dir_all(data_dir).with_context(|| format!("create {}", data_dir.display()))?;
    let data_dir = fs::canonicalize(data_dir).with_context(|| format!("find {}", data_dir.display()))?;
    let own = data_dir.join("run");
    // A daemon that works there is found by what it has there; this one is refused when it opens the database.
    let Some(_idle) = lock_databases(&data_dir) else { return Ok(RunDir::at(own)) };
    let Some((base, _lock)) = base else { return stay(own) };
    abandoned::remove(&base);
    let target = base.join(name(&data_dir));
    let what = || format!("make {} the directory of what runs", own.display());
    let linked = match fs::symlink_metadata(&own) {
        // One that was copied along with the data directory leads to another's.
        Ok(found) if found.is_symlink() => {
            let right = fs::read_link(&own).is_ok_and(|leads| leads == target);
            if !right {
                fs::remove_file(&own).with_context(what)?;
            }
            right
        }
        // A mount point stays, too.
        Ok(_) if !is_idle(&own) || fs::remove_dir_all(&own).is_err() => return Ok(RunDir::at(own)),
        Ok(_) => false,
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(error).with_context(what),
    };
    match hold(&target, &data_dir) {
        Ok(held) => {
            if !linked {
                symlink(&target, &own).with_context(what)?;
            }
            Ok(RunDir { path: target, _held: Some(held) })
        }
        Err(error) => {
            tracing::warn!(dir = %target.display(), %error, "what runs is kept in the data directory");
            stay(own)
        }
    }
}

/// The directory in the data directory itself, made.
fn stay(own: PathBuf) -> Result<RunDir> {
    let what = || format!("make {} the directory of what runs", own.display());
    if own.is_symlink() {
        fs::remove_file(&own).with_context(what)?;
    }
    fs::create_dir_all(&own).with_context(what)?;
    Ok(RunDir::at(own))
}

fn name(data_dir: &Path) -> String {
    hex::encode(&Sha256::digest(data_dir.as_os_str().as_encoded_bytes())[..8])
}

/// Who has it makes and removes directories there; it is had for a moment only.
fn lock_base(base: &Path) -> io::Result<Flock<File>> {
    fs::create_dir_all(base)?;
    lock(base, FlockArg::LockExclusive)
}

/// Makes a directory and keeps it from being removed.
fn hold(target: &Path, data_dir: &Path) -> io::Result<Flock<File>> {
    fs::create_dir_all(target)?;
    let held = lock(target, FlockArg::LockShared)?;
    let owner = target.join(OWNER);
    if fs::read_link(&owner).is_ok_and(|leads| leads == data_dir) {
        return Ok(held);
    }
    match fs::remove_file(&owner) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => symlink(data_dir, owner)?,
    }
    Ok(held)
}

fn lock(path: &Path, how: FlockArg) -> io::Result<Flock<File>> {
    Flock::lock(File::open(path)?, how).map_err(|(_, errno)| errno.into())
}

/// Keeps runtimes from opening the databases that are there: a node's lies a level deeper. `None` if one of them is in use.
/// Daemons that know nothing of the other locks have this one.
fn lock_databases(data_dir: &Path) -> Option<Vec<Flock<File>>> {
    let mut held = Vec::new();
    for database in ["images.redb", "runtime/images.redb"] {
        match lock(&data_dir.join(database), FlockArg::LockExclusiveNonblock) {
            Ok(lock) => held.push(lock),
            Err(error) if error.raw_os_error() == Some(Errno::EWOULDBLOCK as i32) => return None,
            // None is there yet; or it cannot be opened, which its owner will tell.
            Err(_) => {}
        }
    }
    Some(held)
}

/// Whether nothing is left of what ran: only sockets that a daemon made for itself, and directories with nothing in them.
fn is_idle(dir: &Path) -> bool {
    const OURS: [&str; 4] = ["containers", "oci", "runtime", "sandboxes"];
    let Ok(mut entries) = fs::read_dir(dir) else { return false };
    entries.all(|entry| {
        let Ok((entry, kind)) = entry.and_then(|entry| entry.file_type().map(|kind| (entry, kind))) else {
            return false;
        };
        kind.is_socket()
            || kind.is_dir() && OURS.iter().any(|name| entry.file_name() == *name) && is_idle(&entry.path())
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    struct Machine(tempfile::TempDir);

    impl Machine {
        fn new() -> Machine {
            let machine = Machine(tempfile::tempdir().unwrap());
            fs::create_dir(machine.volatile()).unwrap();
            machine
        }

        fn volatile(&self) -> PathBuf {
            self.0.path().join("volatile")
        }

        fn data(&self, name: &str) -> PathBuf {
            fs::canonicalize(self.0.path()).unwrap().join(name)
        }

        fn start(&self, name: &str) -> RunDir {
            place(&self.data(name), Some(&self.volatile())).unwrap()
        }

        /// Where a daemon works that has ended again.
        fn place(&self, name: &str) -> PathBuf {
            self.start(name).path
        }
    }

    #[test]
    fn what_runs_is_kept_in_memory_and_found_from_the_data_directory() {
        let machine = Machine::new();
        let first = machine.place("a");
        assert!(first.starts_with(machine.volatile()));
        fs::write(first.join("cri.sock"), "here").unwrap();
        assert_eq!(fs::read_to_string(machine.data("a").join("run/cri.sock")).unwrap(), "here");
        assert_eq!(machine.place("a"), first);
        assert_ne!(machine.place("b"), first);
        // By another name it is the same one.
        symlink(machine.data("a"), machine.data("alias")).unwrap();
        assert_eq!(machine.place("alias"), first);
        // After a restart of the machine nothing is there, and the same place is used.
        fs::remove_dir_all(machine.volatile().join("coracle")).unwrap();
        assert_eq!(machine.place("a"), first);
        let left: Vec<_> =
            fs::read_dir(machine.data("a").join("run")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, [OWNER]);
    }

    #[test]
    fn what_an_earlier_version_left_stays_in_use() {
        let machine = Machine::new();
        let own = machine.data("a").join("run");
        let shim = own.join("runtime/sandboxes/x/shim");
        fs::create_dir_all(&shim).unwrap();
        fs::create_dir(own.join("runtime/oci")).unwrap();
        let _sockets = [own.join("cri.sock"), shim.join("shim.sock")].map(|path| UnixListener::bind(path).unwrap());
        assert_eq!(machine.place("a"), own);
        assert!(shim.join("shim.sock").exists() && own.join("cri.sock").exists());
        // Once nothing of a sandbox is left there it moves.
        fs::remove_dir_all(own.join("runtime/sandboxes/x")).unwrap();
        assert!(machine.place("a").starts_with(machine.volatile()));
        assert!(own.is_symlink());
    }

    #[test]
    fn a_copied_data_directory_does_not_share_it() {
        let machine = Machine::new();
        let first = machine.place("a");
        fs::create_dir(machine.data("b")).unwrap();
        symlink(&first, machine.data("b").join("run")).unwrap();
        assert_ne!(machine.place("b"), first);
        assert_eq!(
            fs::canonicalize(machine.data("b").join("run")).unwrap(),
            fs::canonicalize(machine.place("b")).unwrap()
        );
    }

    #[test]
    fn without_memory_it_is_in_the_data_directory() {
        let machine = Machine::new();
        machine.place("a");
        let own = machine.data("a").join("run");
        assert_eq!(place(&machine.data("a"), None).unwrap().path, own);
        assert!(!own.is_symlink());
        // Nor where nothing can be made there.
        fs::write(machine.volatile().join("coracle/x"), "").unwrap();
        let taken = machine.volatile().join("coracle/x");
        assert_eq!(place(&machine.data("c"), Some(&taken)).unwrap().path, machine.data("c").join("run"));
        fs::write(machine.volatile().join("coracle").join(name(&machine.data("d"))), "").unwrap();
        assert_eq!(machine.place("d"), machine.data("d").join("run"));
    }

    #[test]
    fn what_a_runtime_works_in_does_not_move() {
        for database in ["images.redb", "runtime/images.redb"] {
            let machine = Machine::new();
            let (own, database) = (machine.data("a").join("run"), machine.data("a").join(database));
            fs::create_dir_all(&own).unwrap();
            fs::create_dir_all(database.parent().unwrap()).unwrap();
            fs::write(&database, "").unwrap();
            let _socket = UnixListener::bind(own.join("cri.sock")).unwrap();
            let works = lock(&database, FlockArg::LockShared).unwrap();
            assert_eq!(machine.place("a"), own);
            assert!(own.join("cri.sock").exists() && !own.is_symlink());
            drop(works);
            assert!(machine.place("a").starts_with(machine.volatile()));
        }
    }

    #[test]
    fn directories_of_data_that_is_gone_are_removed() {
        let machine = Machine::new();
        let gone = |name: &str| {
            fs::remove_dir_all(machine.data(name)).unwrap();
        };
        let (idle, kept) = (machine.place("idle"), machine.place("kept"));
        fs::create_dir_all(idle.join("runtime/sandboxes/x/ns")).unwrap();
        drop(UnixListener::bind(idle.join("cri.sock")).unwrap());
        let works = machine.start("works");
        // Somebody listens, at a path that no address has room for.
        let listens = machine.place("listens");
        let shim = listens.join("runtime/sandboxes").join("x".repeat(64)).join("shim");
        fs::create_dir_all(&shim).unwrap();
        let elsewhere = machine.volatile().join("shim.sock");
        let socket = UnixListener::bind(&elsewhere).unwrap();
        fs::rename(elsewhere, shim.join("shim.sock")).unwrap();
        // What tells no owner, or another's, is not ours to judge.
        let (other, copied) = (machine.volatile().join("coracle/oci"), machine.volatile().join("coracle/copied"));
        fs::create_dir(&other).unwrap();
        fs::create_dir(&copied).unwrap();
        symlink(machine.data("never"), copied.join(OWNER)).unwrap();
        for name in ["idle", "works", "listens"] {
            gone(name);
        }

        machine.place("next");
        assert!(!idle.exists());
        for dir in [&kept, &works.path, &listens, &other, &copied] {
            assert!(dir.exists(), "{}", dir.display());
        }
        drop((works, socket));
        machine.place("next");
        assert!(!listens.exists());
        assert_eq!(fs::read_dir(machine.volatile().join("coracle")).unwrap().count(), 4);
    }

    #[test]
    fn one_with_a_mount_in_it_is_not_abandoned() {
        let dir = Path::new("/run/coracle/0123");
        let line = |point: &str| format!("36 35 98:0 / {point} rw,noatime - ext3 /dev/root rw\n");
        assert!(abandoned::is_mounted_in(&line("/run/coracle/0123/sandboxes/x/ns/net"), dir));
        assert!(abandoned::is_mounted_in(&line("/run/coracle/0123"), dir));
        assert!(!abandoned::is_mounted_in(&line("/run/coracle/01234/shm"), dir));
        assert!(!abandoned::is_mounted_in(&line("/run"), dir));
    }
}
