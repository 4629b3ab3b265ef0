//! What an image has at a volume's place, copied into the volume (moby `volume/mounts`, containerd `internal/cri/opts`,
//! `WithVolumes`): with owners, modes, times and attributes, links as links, and holes as holes.
//!
//! An image says what is copied, so no copy is larger than the image: hard links stay links, and a directory that another
//! volume covers is copied into that one alone.

use std::{
    collections::{HashMap, HashSet},
    ffi::CString,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    os::{
        fd::AsFd,
        unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, lchown, symlink},
    },
    path::{Path, PathBuf},
};

use coracle_launcher::sys;
use rustix::fs::SeekFrom as Part;

use super::tree::{Identity, Tree};
use crate::error::{Context, Error, Result};

/// Deeper trees are no image's.
const MAX_DEPTH: usize = 256;
/// The kernel's own bounds (xattr(7)).
const MAX_ATTRIBUTE_NAMES: usize = 64 << 10;
const MAX_ATTRIBUTE: usize = 64 << 10;

/// Copies what is at a path into an empty volume. Nothing there, or no directory, is fine.
pub fn copy_up(tree: &Tree, path: &Path, volume: &Path, covered: &HashSet<Identity>) -> Result<()> {
    let source = match tree.open(path, libc::O_RDONLY | libc::O_DIRECTORY) {
        Ok(source) => source,
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => return Ok(()),
        Err(error) => return Err(error).context(format!("open {}", path.display())),
    };
    let from = Tree::path_of(&source);
    let metadata = fs::metadata(&from).context(format!("stat {}", path.display()))?;
    CopyUp { covered, links: HashMap::new() }.directory(&from, volume, 0)?;
    copy_attributes(&from, &metadata, volume)
}

struct CopyUp<'a> {
    /// Directories whose content is not copied.
    covered: &'a HashSet<Identity>,
    /// Files with several names: the name copied first.
    links: HashMap<Identity, PathBuf>,
}

impl CopyUp<'_> {
    fn directory(&mut self, from: &Path, to: &Path, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(Error::invalid("directories are nested too deeply"));
        }
        for entry in fs::read_dir(from).context(format!("read {}", from.display()))? {
            let entry = entry.context(format!("read {}", from.display()))?;
            let (source, target) = (entry.path(), to.join(entry.file_name()));
            let metadata = fs::symlink_metadata(&source).context(format!("stat {}", target.display()))?;
            self.entry(&source, &metadata, &target, depth).context(format!("copy {}", target.display()))?;
        }
        Ok(())
    }

    fn entry(&mut self, source: &Path, metadata: &fs::Metadata, target: &Path, depth: usize) -> Result<()> {
        let (kind, identity) = (metadata.file_type(), (metadata.dev(), metadata.ino()));
        if kind.is_dir() {
            fs::create_dir(target).context("mkdir")?;
            if !self.covered.contains(&identity) {
                self.directory(source, target, depth + 1)?;
            }
            return copy_attributes(source, metadata, target);
        }
        if metadata.nlink() > 1 {
            if let Some(first) = self.links.get(&identity) {
                return fs::hard_link(first, target).context("link");
            }
            self.links.insert(identity, target.to_owned());
        }
        if kind.is_symlink() {
            symlink(fs::read_link(source).context("read the link")?, target).context("symlink")?;
        } else if kind.is_file() {
            copy_content(source, target).context("copy the content")?;
        } else if kind.is_fifo() || kind.is_char_device() || kind.is_block_device() {
            let parent = File::open(target.parent().unwrap_or(target)).context("open the directory")?;
            let name = target.file_name().unwrap_or_default();
            sys::mknodat(parent.as_fd(), name, metadata.mode(), metadata.rdev()).context("mknod")?;
        } else {
            // A socket is its program's.
            return Ok(());
        }
        copy_attributes(source, metadata, target)
    }
}

/// Copies what is written of a file; what never was takes no room in the copy either.
fn copy_content(from: &Path, to: &Path) -> io::Result<()> {
    let mut from = File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(from)?;
    let mut to = File::options().write(true).create_new(true).mode(0o600).open(to)?;
    to.set_len(from.metadata()?.len())?;
    let mut at = 0;
    loop {
        let start = match rustix::fs::seek(&from, Part::Data(at)) {
            Ok(start) => start,
            // Nothing is written from here on (lseek(2)).
            Err(rustix::io::Errno::NXIO) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let end = rustix::fs::seek(&from, Part::Hole(start))?;
        from.seek(SeekFrom::Start(start))?;
        to.seek(SeekFrom::Start(start))?;
        io::copy(&mut (&mut from).take(end - start), &mut to)?;
        at = end;
    }
}

/// Owner, attributes, mode, times; of a link the owner only.
fn copy_attributes(from: &Path, metadata: &fs::Metadata, to: &Path) -> Result<()> {
    let what = || format!("set the attributes of {}", to.display());
    lchown(to, Some(metadata.uid()), Some(metadata.gid())).context(what())?;
    let kind = metadata.file_type();
    if kind.is_symlink() {
        return Ok(());
    }
    if kind.is_file() || kind.is_dir() {
        copy_extended(from, to).context(what())?;
    }
    // After the owner, whose change takes the bits that lend rights.
    fs::set_permissions(to, fs::Permissions::from_mode(metadata.mode() & 0o7777)).context(what())?;
    if let (Ok(accessed), Ok(modified)) = (metadata.accessed(), metadata.modified())
        && (kind.is_file() || kind.is_dir())
        && let Ok(file) = File::open(to)
    {
        // Times are a courtesy.
        let _ = file.set_times(fs::FileTimes::new().set_accessed(accessed).set_modified(modified));
    }
    Ok(())
}

/// Capabilities, access lists and users' own attributes. SELinux's label is the volume's, and overlayfs keeps its own.
fn copy_extended(from: &Path, to: &Path) -> io::Result<()> {
    let mut names = vec![0u8; MAX_ATTRIBUTE_NAMES];
    let count = match rustix::fs::listxattr(from, &mut names[..]) {
        Ok(count) => count,
        // A file system without any.
        Err(rustix::io::Errno::NOTSUP) => 0,
        Err(error) => return Err(error.into()),
    };
    for name in names[..count].split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        if name == b"security.selinux" || name.starts_with(b"trusted.overlay.") {
            continue;
        }
        let name = CString::new(name)?;
        let mut value = vec![0u8; MAX_ATTRIBUTE];
        let length = rustix::fs::getxattr(from, &name, &mut value[..])?;
        rustix::fs::setxattr(to, &name, &value[..length], rustix::fs::XattrFlags::empty())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_no_larger_than_what_is_copied() {
        let dir = tempfile::tempdir().unwrap();
        let (image, volume) = (dir.path().join("image"), dir.path().join("volume"));
        fs::create_dir_all(image.join("data/covered")).unwrap();
        fs::create_dir(&volume).unwrap();
        fs::write(image.join("data/covered/file"), "x").unwrap();
        fs::write(image.join("data/one"), "content").unwrap();
        fs::hard_link(image.join("data/one"), image.join("data/two")).unwrap();
        let sparse = File::create(image.join("data/sparse")).unwrap();
        sparse.set_len(1 << 40).unwrap();
        std::os::unix::fs::FileExt::write_at(&sparse, b"end", (1 << 40) - 3).unwrap();
        symlink("/etc/passwd", image.join("data/link")).unwrap();
        fs::set_permissions(image.join("data"), fs::Permissions::from_mode(0o1750)).unwrap();
        rustix::fs::setxattr(image.join("data/one"), c"user.note", b"kept", rustix::fs::XattrFlags::empty()).unwrap();
        // Links of the image lead inside.
        symlink("/data", image.join("way")).unwrap();
        let tree = Tree::new(sys::open(&image, libc::O_PATH | libc::O_DIRECTORY, 0).unwrap());
        let covered = fs::metadata(image.join("data/covered")).unwrap();
        let covered = HashSet::from([(covered.dev(), covered.ino())]);
        copy_up(&tree, Path::new("/way"), &volume, &covered).unwrap();
        let stat = |name: &str| fs::symlink_metadata(volume.join(name)).unwrap();
        assert_eq!(stat("").mode() & 0o7777, 0o1750);
        assert_eq!((stat("one").ino(), stat("one").nlink()), (stat("two").ino(), 2));
        assert_eq!(stat("sparse").len(), 1 << 40);
        assert!(stat("sparse").blocks() < 1000, "{}", stat("sparse").blocks());
        assert_eq!(fs::read_link(volume.join("link")).unwrap(), Path::new("/etc/passwd"));
        assert_eq!(fs::read_dir(volume.join("covered")).unwrap().count(), 0);
        let mut value = [0; 8];
        assert_eq!(rustix::fs::getxattr(volume.join("one"), c"user.note", &mut value[..]), Ok(4));
        copy_up(&tree, Path::new("/nowhere"), &volume, &covered).unwrap();
        copy_up(&tree, Path::new("/data/one"), &volume, &covered).unwrap();
    }
}
