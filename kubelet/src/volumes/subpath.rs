//! Parts of volumes: a container may see only one directory or file of a volume, and must not be able to point it elsewhere.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use coracle_launcher::sys;
use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat};

/// Binds `part` of the volume at `volume` to `target`. The path is resolved inside the volume, whatever symlinks are in it,
/// and what was found is bound by its descriptor: changing a link afterwards changes nothing (CVE-2017-1002101,
/// CVE-2021-25741).
pub(super) fn bind(volume: &Path, part: &str, target: &Path) -> io::Result<PathBuf> {
    let part = Path::new(part);
    if part.is_absolute()
        || part.components().any(|component| !matches!(component, Component::Normal(_) | Component::CurDir))
    {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("subPath {:?} leads out of the volume", part.display()),
        ));
    }
    let found = open_or_make(volume, part)?;
    let directory = SFlag::from_bits_truncate(fstat(found.as_fd())?.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR;
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    if directory {
        fs::create_dir_all(target)?;
    } else if !target.exists() {
        File::create(target)?;
    }
    let source = format!("/proc/self/fd/{}", found.as_raw_fd());
    mount(Some(source.as_str()), target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)?;
    Ok(target.to_owned())
}

/// Finds what is below the volume, also on kernels without openat2(2).
fn open_inside(root: &File, path: &Path) -> io::Result<OwnedFd> {
    let resolve = sys::RESOLVE_IN_ROOT | sys::RESOLVE_NO_MAGICLINKS;
    sys::openat2(root.as_fd(), path, libc::O_PATH, 0, resolve)
}

fn open_or_make(volume: &Path, part: &Path) -> io::Result<OwnedFd> {
    let root = File::open(volume)?;
    match open_inside(&root, part) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        found => return found,
    }
    // What is missing is made as directories, each in the one before it.
    let mut made = PathBuf::new();
    for component in part.components() {
        let Component::Normal(name) = component else { continue };
        let parent = open_inside(&root, if made.as_os_str().is_empty() { Path::new(".") } else { &made })?;
        match mkdirat(&parent, name, Mode::from_bits_truncate(0o750)) {
            Ok(()) | Err(nix::Error::EEXIST) => {}
            Err(error) => return Err(error.into()),
        }
        made.push(name);
    }
    open_inside(&root, part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::mount::{MntFlags, umount2};
    use std::os::unix::fs::symlink;

    #[test]
    fn links_do_not_lead_out() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("volume");
        fs::create_dir_all(volume.join("in")).unwrap();
        fs::write(dir.path().join("secret"), "x").unwrap();
        symlink("../secret", volume.join("out")).unwrap();
        symlink("in", volume.join("link")).unwrap();
        for bad in ["out", "../secret", "/etc", "in/../../secret"] {
            assert!(bind(&volume, bad, &dir.path().join("t")).is_err(), "{bad}");
        }
        let target = dir.path().join("mounted");
        bind(&volume, "link/new/deep", &target).unwrap();
        fs::write(target.join("f"), "1").unwrap();
        assert_eq!(fs::read_to_string(volume.join("in/new/deep/f")).unwrap(), "1");
        umount2(&target, MntFlags::MNT_DETACH).unwrap();
    }
}
