//! Files in layers that lie over each other, found without mounting them, as overlayfs would show them (the kernel's
//! `filesystems/overlayfs`: "whiteouts and opaque directories").

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::fs::{FileTypeExt, MetadataExt},
    },
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use coracle_launcher::sys;

/// As many as the kernel follows (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// One directory: what of it each layer has, nearest first.
type Merged = Vec<Arc<OwnedFd>>;

/// What a name is in a merged directory.
enum Found {
    Directory(Merged),
    Link(OsString),
    /// By a descriptor that only names it.
    File(File),
}

/// Opens a plain file; `layers` are nearest first. Links lead nowhere but into the layers.
pub fn open_file(layers: &[PathBuf], path: &Path) -> Option<File> {
    let open = |dir: &PathBuf| sys::open(dir, libc::O_PATH | libc::O_DIRECTORY, 0).map(Arc::new);
    let root: Merged = layers.iter().map(open).collect::<io::Result<_>>().ok()?;
    let mut way = vec![root];
    let mut left: Vec<OsString> = Vec::new();
    push(&mut left, path);
    let mut links = 0;
    while let Some(name) = left.pop() {
        if name == ".." {
            if way.len() > 1 {
                way.pop();
            }
            continue;
        }
        match look_up(way.last()?, &name)? {
            Found::Directory(merged) => way.push(merged),
            Found::Link(_) if links == MAX_LINKS => return None,
            Found::Link(target) => {
                links += 1;
                let target = Path::new(&target);
                if target.is_absolute() {
                    way.truncate(1);
                }
                push(&mut left, target);
            }
            Found::File(file) if left.is_empty() => {
                // A plain file: opening it does nothing else.
                return File::open(format!("/proc/self/fd/{}", file.as_raw_fd())).ok();
            }
            Found::File(_) => return None,
        }
    }
    None
}

/// Puts a path's names before those that are left, the next one last.
fn push(left: &mut Vec<OsString>, path: &Path) {
    left.extend(path.components().rev().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    }));
}

fn look_up(dirs: &Merged, name: &OsStr) -> Option<Found> {
    let mut merged = Merged::new();
    for dir in dirs {
        let fd = match sys::openat(dir.as_fd(), name, libc::O_PATH | libc::O_NOFOLLOW, 0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            fd => fd.ok()?,
        };
        let file = File::from(fd);
        let metadata = file.metadata().ok()?;
        if metadata.is_dir() {
            let opaque = sys::getxattr(format!("/proc/self/fd/{}", file.as_raw_fd()), super::apply::OPAQUE_ATTRIBUTE);
            merged.push(Arc::new(file.into()));
            if opaque.is_ok_and(|value| value == b"y") {
                break;
            }
        } else if !merged.is_empty() || metadata.file_type().is_char_device() && metadata.rdev() == 0 {
            // What is not a directory hides what is below, and a whiteout is nothing itself.
            break;
        } else if metadata.is_symlink() {
            return sys::readlinkat(dir.as_fd(), name).ok().map(Found::Link);
        } else {
            return metadata.is_file().then_some(Found::File(file));
        }
    }
    (!merged.is_empty()).then_some(Found::Directory(merged))
}
