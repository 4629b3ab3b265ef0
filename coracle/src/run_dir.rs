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

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, symlink},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use sha2::{Digest, Sha256};

/// Where systems keep what does not outlive them (Filesystem Hierarchy Standard 3.0, "/run").
const VOLATILE: &str = "/run";

/// The directory of a data directory's runtime, made.
pub fn of(data_dir: &Path) -> Result<PathBuf> {
    let in_memory = statfs(VOLATILE).is_ok_and(|found| found.filesystem_type() == TMPFS_MAGIC);
    place(data_dir, in_memory.then_some(Path::new(VOLATILE)))
}

fn place(data_dir: &Path, volatile: Option<&Path>) -> Result<PathBuf> {
    fs::create_dir_all(data_dir).with_context(|| format!("create {}", data_dir.display()))?;
    let data_dir = fs::canonicalize(data_dir).with_context(|| format!("find {}", data_dir.display()))?;
    let own = data_dir.join("run");
    let name = hex::encode(&Sha256::digest(data_dir.as_os_str().as_encoded_bytes())[..8]);
    let target = volatile.map(|volatile| volatile.join("coracle").join(name));
    let what = || format!("make {} the directory of what runs", own.display());
    let linked = match fs::symlink_metadata(&own) {
        // One that was copied along with the data directory leads to another's.
        Ok(found) if found.is_symlink() => {
            let right = target.as_ref().is_some_and(|target| fs::read_link(&own).is_ok_and(|leads| leads == *target));
            if !right {
                fs::remove_file(&own).with_context(what)?;
            }
            right
        }
        // A mount point stays, too.
        Ok(_) if target.is_none() || !is_idle(&own) || fs::remove_dir_all(&own).is_err() => return Ok(own),
        Ok(_) => false,
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(error).with_context(what),
    };
    if let Some(target) = target {
        match fs::create_dir_all(&target) {
            Ok(()) => {
                if !linked {
                    symlink(&target, &own).with_context(what)?;
                }
                return Ok(target);
            }
            Err(error) => {
                tracing::warn!(dir = %target.display(), %error, "what runs is kept in the data directory");
                if linked {
                    fs::remove_file(&own).with_context(what)?;
                }
            }
        }
    }
    fs::create_dir_all(&own).with_context(what)?;
    Ok(own)
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

        fn place(&self, name: &str) -> PathBuf {
            place(&self.data(name), Some(&self.volatile())).unwrap()
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
        assert_eq!(fs::read_dir(machine.data("a").join("run")).unwrap().count(), 0);
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
        assert_eq!(place(&machine.data("a"), None).unwrap(), own);
        assert!(!own.is_symlink());
        // Nor where nothing can be made there.
        fs::write(machine.volatile().join("coracle/x"), "").unwrap();
        let taken = machine.volatile().join("coracle/x");
        assert_eq!(place(&machine.data("c"), Some(&taken)).unwrap(), machine.data("c").join("run"));
    }
}
