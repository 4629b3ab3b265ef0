//! A container's file system from outside ([`Tree`]).
//!
//! A running container's root is its process's; one that does not run is mounted for a moment in a mount namespace of a
//! thread's own, so that nothing is ever mounted where the host sees it.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use coracle_launcher::sys;

use super::{super::Docker, Container};
pub use crate::volumes::tree::Tree;
use crate::{
    error::{Context, Error, Result},
    snapshots::open_detached,
};

impl Docker {
    /// A container's own root without what is mounted into it.
    pub fn own_root(&self, container: &Container) -> Result<Tree> {
        let root = self.engine.root_of(&container.engine)?;
        open_detached(&root, &self.engine.bundle_of(&container.id).join("rootfs")).map(Tree::new)
    }

    /// The root of a container, running or not.
    pub fn root_of(&self, container: &Container) -> Result<Tree> {
        let pid = container.engine.state().pid;
        if container.runs() && pid != 0 {
            let path = format!("/proc/{pid}/root");
            let opened = sys::open(&path, libc::O_PATH | libc::O_DIRECTORY, 0);
            if let (Ok(fd), true) = (opened, container.engine.state().pid == pid) {
                return Ok(Tree::new(fd));
            }
        }
        self.own_root(container)
    }
}

/// What an image's layers never have of a container's root: the places of mounts, which the launcher makes.
pub fn hidden(record: &super::Record) -> Vec<PathBuf> {
    let fixed = [
        "/dev",
        "/proc",
        "/sys",
        "/etc/hosts",
        "/etc/hostname",
        "/etc/resolv.conf",
        "/.dockerenv",
        super::files::INIT_PATH,
    ];
    let points = record.mounts.iter().map(|point| point.destination.clone());
    let tmpfs = record.host.tmpfs.keys().cloned();
    fixed.map(str::to_owned).into_iter().chain(points).chain(tmpfs).map(PathBuf::from).collect()
}

/// The writable layer among an overlay's options.
pub fn upper_of(options: &[String]) -> Result<PathBuf> {
    let upper = options.iter().find_map(|option| option.strip_prefix("upperdir="));
    upper.map(unescape).ok_or_else(|| Error::internal("the container's file system has no writable layer"))
}

/// The layers below, nearest first.
pub fn lowers_of(options: &[String]) -> Vec<PathBuf> {
    let lowers = options.iter().find_map(|option| option.strip_prefix("lowerdir=")).unwrap_or_default();
    let mut out = vec![String::new()];
    let mut escaped = false;
    for letter in lowers.chars() {
        if letter == ':' && !escaped {
            out.push(String::new());
        } else if let Some(last) = out.last_mut() {
            last.push(letter);
        }
        escaped = letter == '\\' && !escaped;
    }
    out.iter().filter(|path| !path.is_empty()).map(|path| unescape(path)).collect()
}

fn unescape(path: &str) -> PathBuf {
    path.replace("\\:", ":").replace("\\,", ",").replace("\\\\", "\\").into()
}

fn is_whiteout(metadata: &fs::Metadata) -> bool {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    metadata.file_type().is_char_device() && metadata.rdev() == 0
}

fn is_opaque(dir: &Path) -> bool {
    let mut value = [0u8; 1];
    let (Ok(path), name) = (sys::cstr(dir), c"trusted.overlay.opaque") else { return false };
    // SAFETY: terminated strings and a buffer of the length given.
    let count = unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), 1) };
    count == 1 && value[0] == b'y'
}

/// Writes a container's own changes as a layer (image-spec, layer.md).
pub fn pack_upper(upper: &Path, hidden: &[PathBuf], writer: impl std::io::Write) -> Result<()> {
    let mut builder = tar::Builder::new(std::io::BufWriter::with_capacity(1 << 16, writer));
    let mut packer = Packer { builder: &mut builder, links: Default::default(), layer: true };
    let root = File::open(upper).context(format!("open {}", upper.display()))?;
    packer.directory(
        &root,
        Path::new(""),
        &|path| hidden.iter().any(|hidden| Path::new("/").join(path) == *hidden),
        0,
    )?;
    builder.finish().context("write the layer")?;
    builder.into_inner().and_then(|mut writer| std::io::Write::flush(&mut writer)).context("write the layer")
}

/// Writes what is at a path, under `name`, with all below it.
pub fn pack_path(tree: &Tree, path: &Path, name: &Path, writer: impl std::io::Write) -> Result<()> {
    let mut builder = tar::Builder::new(writer);
    let mut packer = Packer { builder: &mut builder, links: Default::default(), layer: false };
    let (parent, last) = tree.parent(path).context(format!("find {}", path.display()))?;
    let parent = File::from(parent);
    match last {
        Some(last) => packer.entry(&parent, &last, name, &|_| false, 0)?,
        None => {
            let root =
                File::from(tree.open(Path::new("/"), libc::O_RDONLY | libc::O_DIRECTORY).context("open the root")?);
            if !name.as_os_str().is_empty() && name != Path::new("/") && name != Path::new(".") {
                packer.header_only(&root, name)?;
            }
            let prefix = if name == Path::new("/") || name == Path::new(".") { Path::new("") } else { name };
            packer.directory(&root, prefix, &|_| false, 0)?;
        }
    }
    builder.finish().context("write the archive")
}

/// Writes directories as tar entries without ever following a link.
struct Packer<'a, W: std::io::Write> {
    builder: &'a mut tar::Builder<W>,
    /// Files with several names, by device and inode: the name written first.
    links: std::collections::HashMap<(u64, u64), PathBuf>,
    /// Whiteouts are written as layers have them.
    layer: bool,
}

type Hide<'a> = &'a dyn Fn(&Path) -> bool;

impl<W: std::io::Write> Packer<'_, W> {
    fn directory(&mut self, dir: &File, prefix: &Path, hide: Hide<'_>, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(Error::invalid("directories are nested too deeply"));
        }
        let place = Tree::path_of(dir);
        let mut names: Vec<_> =
            fs::read_dir(&place).context("read a directory")?.flatten().map(|entry| entry.file_name()).collect();
        names.sort();
        for name in names {
            self.entry(dir, &name, &prefix.join(&name), hide, depth)?;
        }
        Ok(())
    }

    fn header(metadata: &fs::Metadata) -> tar::Header {
        use std::os::unix::fs::MetadataExt;
        let mut header = tar::Header::new_gnu();
        header.set_mode(metadata.mode() & 0o7777);
        header.set_uid(u64::from(metadata.uid()));
        header.set_gid(u64::from(metadata.gid()));
        header.set_mtime(u64::try_from(metadata.mtime()).unwrap_or(0));
        header.set_size(0);
        header
    }

    fn header_only(&mut self, dir: &File, name: &Path) -> Result<()> {
        let mut header = Self::header(&dir.metadata().context("stat a directory")?);
        header.set_entry_type(tar::EntryType::Directory);
        let mut name = name.to_path_buf().into_os_string();
        name.push("/");
        self.builder.append_data(&mut header, name, std::io::empty()).context("write the archive")
    }

    fn entry(&mut self, parent: &File, name: &OsStr, path: &Path, hide: Hide<'_>, depth: usize) -> Result<()> {
        use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
        let place = Tree::path_of(parent).join(name);
        let what = || format!("archive {}", path.display());
        let metadata = match fs::symlink_metadata(&place) {
            // Removed meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound && depth > 0 => return Ok(()),
            found => found.context(what())?,
        };
        let kind = metadata.file_type();
        if hide(path) && !(kind.is_file() && metadata.len() > 0) {
            return Ok(());
        }
        let mut header = Self::header(&metadata);
        let open = |flags: i32| {
            fs::OpenOptions::new().read(true).custom_flags(flags | libc::O_NOFOLLOW | libc::O_NONBLOCK).open(&place)
        };
        if self.layer && is_whiteout(&metadata) {
            let mut whiteout = std::ffi::OsString::from(".wh.");
            whiteout.push(name);
            header.set_entry_type(tar::EntryType::Regular);
            let path = path.with_file_name(whiteout);
            return self.builder.append_data(&mut header, path, std::io::empty()).context(what());
        }
        if kind.is_dir() {
            let dir = open(libc::O_DIRECTORY).context(what())?;
            let before = self.layer.then(|| Tree::path_of(&dir));
            self.header_only(&dir, path)?;
            if before.is_some_and(|_| is_opaque(&place)) {
                let mut header = tar::Header::new_gnu();
                header.set_size(0);
                header.set_mode(0o644);
                self.builder.append_data(&mut header, path.join(".wh..wh..opq"), std::io::empty()).context(what())?;
            }
            return self.directory(&dir, path, hide, depth + 1);
        }
        if kind.is_symlink() {
            let target = fs::read_link(&place).context(what())?;
            header.set_entry_type(tar::EntryType::Symlink);
            return self.builder.append_link(&mut header, path, target).context(what());
        }
        if metadata.nlink() > 1 && kind.is_file() {
            let key = (metadata.dev(), metadata.ino());
            if let Some(first) = self.links.get(&key) {
                header.set_entry_type(tar::EntryType::Link);
                return self.builder.append_link(&mut header, path, first).context(what());
            }
            self.links.insert(key, path.to_owned());
        }
        if kind.is_file() {
            let file = open(0).context(what())?;
            // What it grows by meanwhile is left out; what it shrinks by is made up with zeros.
            let size = file.metadata().context(what())?.len();
            header.set_entry_type(tar::EntryType::Regular);
            header.set_size(size);
            let content = std::io::Read::chain(file, std::io::repeat(0));
            return self.builder.append_data(&mut header, path, std::io::Read::take(content, size)).context(what());
        }
        let device = metadata.rdev();
        header.set_entry_type(if kind.is_fifo() {
            tar::EntryType::Fifo
        } else if kind.is_char_device() {
            tar::EntryType::Char
        } else if kind.is_block_device() {
            tar::EntryType::Block
        } else {
            // Sockets are not archived.
            return Ok(());
        });
        if !kind.is_fifo() {
            header.set_device_major(libc::major(device)).context(what())?;
            header.set_device_minor(libc::minor(device)).context(what())?;
        }
        self.builder.append_data(&mut header, path, std::io::empty()).context(what())
    }
}

/// Deeper trees are no image's.
const MAX_DEPTH: usize = 256;

/// A change of a container's file system.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    pub path: PathBuf,
    /// 0 changed, 1 added, 2 deleted
    pub kind: u8,
}

/// What a container changed of its image.
pub fn changes(options: &[String], hidden: &[PathBuf]) -> Result<Vec<Change>> {
    let upper = upper_of(options)?;
    let lowers: Vec<Tree> = lowers_of(options)
        .iter()
        .filter_map(|path| sys::open(path, libc::O_PATH | libc::O_DIRECTORY, 0).ok().map(Tree::new))
        .collect();
    let mut out = Vec::new();
    compare(&upper, Path::new("/"), &lowers, hidden, &mut out, 0)?;
    Ok(out)
}

/// Whether the layers below have something at a path.
fn exists_below(lowers: &[Tree], path: &Path) -> bool {
    for lower in lowers {
        if let Ok(fd) = lower.open(path, libc::O_PATH | libc::O_NOFOLLOW) {
            return fs::metadata(Tree::path_of(&fd)).map_or(true, |metadata| !is_whiteout(&metadata));
        }
    }
    false
}

fn compare(
    dir: &Path,
    path: &Path,
    lowers: &[Tree],
    hidden: &[PathBuf],
    out: &mut Vec<Change>,
    depth: usize,
) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(Error::invalid("directories are nested too deeply"));
    }
    let mut entries: Vec<_> = fs::read_dir(dir).context(format!("read {}", dir.display()))?.flatten().collect();
    entries.sort_by_key(|entry| entry.file_name());
    for entry in entries {
        let inside = path.join(entry.file_name());
        let Ok(metadata) = fs::symlink_metadata(entry.path()) else { continue };
        if hidden.contains(&inside) && !(metadata.is_file() && metadata.len() > 0) {
            continue;
        }
        let below = exists_below(lowers, &inside);
        if is_whiteout(&metadata) {
            if below {
                out.push(Change { path: inside, kind: 2 });
            }
            continue;
        }
        let at = out.len();
        out.push(Change { path: inside.clone(), kind: u8::from(!below) });
        if metadata.is_dir() {
            compare(&entry.path(), &inside, lowers, hidden, out, depth + 1)?;
            let hides = hidden.iter().any(|hidden| hidden.starts_with(&inside));
            // Copied up for the place of a mount only.
            if out.len() == at + 1 && hides {
                out.pop();
            }
        }
    }
    Ok(())
}
