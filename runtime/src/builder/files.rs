//! The file systems of images while a build looks into them, and layers made out of files.

use std::{
    fs, io,
    io::{Read, Write},
    os::fd::{AsFd, OwnedFd},
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use coracle_launcher::sys;

use super::context::{Content, Context, Kind, Meta};
use crate::{
    digest::{Digest, Hasher},
    docker::containers::filesystem::{Tree, lowers_of, pack_upper, upper_of},
    error::{Context as _, Error, Result},
    images::{Images, layers::StoredLayer},
    snapshots::{Root, Snapshotter, open_detached},
};

/// A layer that a step made, and what it is unpacked as.
#[derive(Clone, Debug)]
pub struct NewLayer {
    pub stored: StoredLayer,
    pub chain: Digest,
    /// What a layer that fits on any other is found again by.
    pub link: Option<String>,
}

/// The identity of a layer over others (config.md, "Layer ChainID").
pub fn chain_of(parent: Option<&Digest>, diff: &Digest) -> Digest {
    parent.map_or_else(|| diff.clone(), |parent| Digest::of(format!("{parent} {diff}").as_bytes()))
}

/// The file system of an image, mounted where nobody else sees it.
pub struct View {
    pub tree: Tree,
    snapshots: Arc<dyn Snapshotter>,
    key: String,
    dir: PathBuf,
}

impl View {
    /// Opens the file system over `top`; `dir` is where a mount point may be made. For a thread that may block.
    pub fn open(snapshots: &Arc<dyn Snapshotter>, dir: &Path, top: Option<&Digest>) -> Result<View> {
        let key = format!("build-{}", &crate::engine::model::new_id()[..16]);
        let root = snapshots.prepare(&key, top)?;
        let dir = dir.join(&key);
        let opened = open_detached(&root, &dir);
        let opened = opened.inspect_err(|_| drop(snapshots.remove(&key)));
        Ok(View { tree: Tree::new(opened?), snapshots: snapshots.clone(), key, dir })
    }

    /// Reads a small file of the image.
    pub fn read(&self, path: &str) -> Option<fs::File> {
        let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY;
        let file = fs::File::from(self.tree.open(Path::new(path), flags).ok()?);
        file.metadata().is_ok_and(|metadata| metadata.is_file()).then_some(file)
    }

    /// Where a path leads: the same place without links. What is not there is taken as written.
    pub fn resolve(&self, path: &Path) -> Result<PathBuf> {
        const MAX_LINKS: usize = 40;
        let mut todo: Vec<PathBuf> = parts(path);
        let (mut here, mut links) = (PathBuf::from("/"), 0);
        while let Some(part) = todo.pop() {
            if part == Path::new("..") {
                here.pop();
                continue;
            }
            let next = here.join(&part);
            let link = self.tree.open(&next, libc::O_PATH | libc::O_NOFOLLOW).ok();
            let target = link.and_then(|fd| rustix::fs::readlinkat(fd.as_fd(), c"", Vec::new()).ok());
            let Some(target) = target else {
                here = next;
                continue;
            };
            links += 1;
            if links > MAX_LINKS {
                return Err(Error::invalid(format!("too many links in {}", path.display())));
            }
            let target = target.to_str().map_err(|_| Error::invalid("a link's target is not UTF-8"))?;
            if target.starts_with('/') {
                here = PathBuf::from("/");
            }
            todo.extend(parts(Path::new(target)));
        }
        Ok(here)
    }

    /// What is at a path; its last part is not followed.
    pub fn stat(&self, path: &Path) -> Option<libc::stat> {
        let fd = self.tree.open(path, libc::O_PATH | libc::O_NOFOLLOW).ok()?;
        sys::fstat(&fd).ok()
    }

    pub fn is_directory(&self, path: &Path) -> bool {
        self.stat(path).is_some_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFDIR)
    }

    /// What there is to know of a file.
    pub fn meta(&self, path: &Path) -> Option<(Meta, u64)> {
        let fd = self.tree.open(path, libc::O_PATH | libc::O_NOFOLLOW).ok()?;
        let stat = sys::fstat(&fd).ok()?;
        let numbers = (libc::major(stat.st_rdev), libc::minor(stat.st_rdev));
        let kind = match stat.st_mode & libc::S_IFMT {
            libc::S_IFREG => Kind::File,
            libc::S_IFDIR => Kind::Directory,
            libc::S_IFLNK => {
                let target = rustix::fs::readlinkat(fd.as_fd(), c"", Vec::new()).ok()?;
                Kind::Symlink(target.to_str().ok()?.to_owned())
            }
            libc::S_IFIFO => Kind::Fifo,
            libc::S_IFCHR => Kind::Device(true, numbers.0, numbers.1),
            libc::S_IFBLK => Kind::Device(false, numbers.0, numbers.1),
            // Sockets are nobody's files.
            _ => return None,
        };
        let size = if kind == Kind::File { u64::try_from(stat.st_size).unwrap_or(0) } else { 0 };
        let meta = Meta {
            xattrs: if matches!(kind, Kind::File | Kind::Directory) { xattrs(&fd) } else { Vec::new() },
            kind,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: u64::try_from(stat.st_mtime).unwrap_or(0),
        };
        Some((meta, size))
    }

    /// Opens a file whose bytes are wanted.
    pub fn open_file(&self, path: &Path) -> Result<fs::File> {
        let flags = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
        Ok(self.tree.open(path, flags).context(format!("open {}", path.display()))?.into())
    }

    /// The names in a directory, sorted.
    pub fn names(&self, dir: &Path) -> Result<Vec<String>> {
        let what = || format!("read {}", dir.display());
        let fd = self.tree.open(dir, libc::O_RDONLY | libc::O_DIRECTORY).context(what())?;
        let mut names = Vec::new();
        for entry in fs::read_dir(Tree::path_of(&fd)).context(what())? {
            let name = entry.context(what())?.file_name();
            names.push(name.into_string().map_err(|name| Error::invalid(format!("the name {name:?} is not UTF-8")))?);
        }
        names.sort();
        Ok(names)
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // The descriptor goes after this; the mount it holds needs no path.
        let _ = fs::remove_dir(&self.dir);
        if let Err(error) = self.snapshots.remove(&self.key) {
            tracing::warn!(key = self.key, %error, "what a build looked into stays until the next start");
        }
    }
}

/// The parts of a path, last first.
fn parts(path: &Path) -> Vec<PathBuf> {
    let parts = path.components().filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
    let mut out: Vec<PathBuf> = parts.map(|part| PathBuf::from(part.as_os_str())).collect();
    out.reverse();
    out
}

/// Attributes that an image may carry along; those that steer the host's own overlay or labels are not among them.
fn xattrs(fd: &OwnedFd) -> Vec<(String, Vec<u8>)> {
    let path = Tree::path_of(fd);
    let mut names = vec![0u8; 4096];
    let Ok(count) = rustix::fs::listxattr(&path, &mut names[..]) else { return Vec::new() };
    let mut out = Vec::new();
    for name in names[..count].split(|byte| *byte == 0).filter_map(|name| std::str::from_utf8(name).ok()) {
        if !(name.starts_with("user.") && !name.starts_with("user.overlay.") || name == "security.capability") {
            continue;
        }
        let mut value = vec![0u8; 64 << 10];
        if let Ok(count) = rustix::fs::getxattr(&path, name, &mut value[..]) {
            out.push((name.to_owned(), value[..count].to_vec()));
        }
    }
    out.sort();
    out
}

/// A file on its way into a layer.
#[derive(Clone, Debug)]
pub struct Item {
    /// Where it goes, below the destination.
    pub path: String,
    pub meta: Meta,
    pub content: From,
    /// Of its attributes and bytes.
    pub digest: Digest,
}

/// Where an item's bytes come from.
#[derive(Clone, Debug)]
pub enum From {
    Context(Arc<Context>, Content),
    Bytes(Arc<[u8]>),
    /// A path of the view that is copied from, and how many bytes are there.
    View(PathBuf, u64),
    Nothing,
}

/// Where items are looked for.
pub enum Source {
    Context(Arc<Context>),
    View(View),
}

impl Source {
    fn open<'a>(&'a self, content: &'a From) -> Result<(Box<dyn Read + 'a>, u64)> {
        match (content, self) {
            (From::Nothing, _) => Ok((Box::new(io::empty()), 0)),
            (From::Bytes(bytes), _) => Ok((Box::new(&bytes[..]), bytes.len() as u64)),
            (From::Context(context, content), _) => Ok((context.open(content), content.length())),
            (From::View(path, length), Source::View(view)) => {
                // What it shrinks by meanwhile is made up with zeros; nothing changes it, though.
                let file = view.open_file(path)?;
                Ok((Box::new(file.chain(io::repeat(0)).take(*length)), *length))
            }
            (From::View(path, _), Source::Context(_)) => {
                Err(Error::internal(format!("{} is looked for in the context", path.display())))
            }
        }
    }
}

/// Writes files as a layer's tar.
pub struct LayerWriter<'a> {
    builder: tar::Builder<&'a mut dyn Write>,
    pub count: usize,
}

impl<'a> LayerWriter<'a> {
    pub fn new(writer: &'a mut dyn Write) -> LayerWriter<'a> {
        LayerWriter { builder: tar::Builder::new(writer), count: 0 }
    }

    pub fn directory(&mut self, path: &Path, meta: &Meta) -> Result<()> {
        self.entry(path, meta, io::empty(), 0)
    }

    pub fn item(&mut self, path: &Path, item: &Item, meta: &Meta, source: &Source) -> Result<()> {
        let (reader, length) = source.open(&item.content)?;
        self.entry(path, meta, reader, length)
    }

    fn entry(&mut self, path: &Path, meta: &Meta, reader: impl Read, length: u64) -> Result<()> {
        let what = || format!("write {} into the layer", path.display());
        let name = path.strip_prefix("/").unwrap_or(path);
        if name.as_os_str().is_empty() {
            return Ok(());
        }
        // In a layer such a name removes a file (image-spec, layer.md).
        if name.components().any(|part| part.as_os_str().to_string_lossy().starts_with(".wh.")) {
            return Err(Error::invalid(format!(
                "{}: names that begin with .wh. are reserved in images",
                path.display()
            )));
        }
        self.count += 1;
        let mut header = tar::Header::new_gnu();
        header.set_mode(meta.mode);
        header.set_uid(meta.uid.into());
        header.set_gid(meta.gid.into());
        header.set_mtime(meta.mtime);
        header.set_size(0);
        if !meta.xattrs.is_empty() {
            let names: Vec<String> = meta.xattrs.iter().map(|(name, _)| format!("SCHILY.xattr.{name}")).collect();
            let pairs = names.iter().map(String::as_str).zip(meta.xattrs.iter().map(|(_, value)| value.as_slice()));
            self.builder.append_pax_extensions(pairs).context(what())?;
        }
        let kind = match &meta.kind {
            Kind::File => {
                header.set_entry_type(tar::EntryType::Regular);
                header.set_size(length);
                return self.builder.append_data(&mut header, name, reader.take(length)).context(what());
            }
            Kind::Symlink(target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                return self.builder.append_link(&mut header, name, target).context(what());
            }
            Kind::Directory => {
                header.set_entry_type(tar::EntryType::Directory);
                let mut name = name.to_path_buf().into_os_string();
                name.push("/");
                return self.builder.append_data(&mut header, name, io::empty()).context(what());
            }
            Kind::Fifo => tar::EntryType::Fifo,
            Kind::Device(true, ..) => tar::EntryType::Char,
            Kind::Device(false, ..) => tar::EntryType::Block,
        };
        header.set_entry_type(kind);
        if let Kind::Device(_, major, minor) = meta.kind {
            header.set_device_major(major).context(what())?;
            header.set_device_minor(minor).context(what())?;
        }
        self.builder.append_data(&mut header, name, io::empty()).context(what())
    }

    pub fn finish(mut self) -> Result<()> {
        self.builder.finish().context("write the layer")
    }
}

/// Makes a layer of what `write` writes, unpacked over `parent`; none if it wrote nothing. For a thread that may block.
pub fn make_layer(
    images: &Images,
    parent: Option<&Digest>,
    write: impl FnOnce(&mut LayerWriter<'_>) -> Result<()>,
) -> Result<Option<NewLayer>> {
    let mut count = 0;
    let stored = images.write_layer(|writer| {
        let mut layer = LayerWriter::new(writer);
        write(&mut layer)?;
        count = layer.count;
        layer.finish()
    })?;
    if count == 0 {
        return Ok(None);
    }
    let chain = chain_of(parent, &stored.diff_id);
    images.unpack_layer(&stored, parent, &chain)?;
    Ok(Some(NewLayer { stored, chain, link: None }))
}

/// Makes a layer of what a container changed; the container has no files of its own afterwards. `hidden` are the places
/// of mounts, which no layer has. For a thread that may block.
pub fn keep_changes(
    images: &Images,
    snapshots: &Arc<dyn Snapshotter>,
    key: &str,
    root: &Root,
    hidden: &[PathBuf],
    parent: Option<&Digest>,
) -> Result<Option<NewLayer>> {
    let (upper, lowers) = match root {
        Root::Mount { options, .. } => (upper_of(options)?, lowers_of(options)),
        Root::Directory(path) => (path.clone(), Vec::new()),
    };
    let clean = strip(&upper, &lowers, hidden)?;
    if fs::read_dir(&upper).context("read a container's changes")?.next().is_none() {
        return Ok(None);
    }
    let stored = images.write_layer(|writer| pack_upper(&upper, hidden, writer))?;
    let chain = chain_of(parent, &stored.diff_id);
    if !clean || snapshots.has_layer(&chain) || !snapshots.adopt(key, parent, &chain)? {
        images.unpack_layer(&stored, parent, &chain)?;
    }
    Ok(Some(NewLayer { stored, chain, link: None }))
}

/// Takes the places of mounts out of a container's changes, and directories that are there for their sake only;
/// false if something is left that no layer may have.
fn strip(upper: &Path, lowers: &[PathBuf], hidden: &[PathBuf]) -> Result<bool> {
    let mut clean = true;
    let root = fs::File::open(upper).context(format!("open {}", upper.display()))?;
    for path in hidden {
        let mut path = path.strip_prefix("/").unwrap_or(path).to_owned();
        let mut first = true;
        while let (Some(parent), Some(name)) = (path.parent(), path.file_name()) {
            let from = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            let resolve = sys::RESOLVE_IN_ROOT | sys::RESOLVE_NO_SYMLINKS;
            let flags = libc::O_RDONLY | libc::O_DIRECTORY;
            let Ok(dir) = sys::openat2(root.as_fd(), from, flags, 0, resolve) else { break };
            let place = Tree::path_of(&dir).join(name);
            let Ok(metadata) = fs::symlink_metadata(&place) else { break };
            let gone = if first {
                let kept = metadata.is_file() && metadata.len() > 0;
                // A mount's place is empty: what is in it is in what is mounted there.
                let remove = || if metadata.is_dir() { fs::remove_dir(&place) } else { fs::remove_file(&place) };
                let gone = !kept && remove().is_ok();
                clean &= gone || kept;
                gone
            } else {
                same_below(lowers, &path, &metadata) && fs::remove_dir(&place).is_ok()
            };
            if !gone {
                break;
            }
            first = false;
            path = parent.to_owned();
        }
    }
    Ok(clean)
}

/// Whether a directory is as the layers below have it, or is not there at all.
fn same_below(lowers: &[PathBuf], path: &Path, metadata: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    for lower in lowers {
        let Ok(root) = fs::File::open(lower) else { continue };
        let resolve = sys::RESOLVE_IN_ROOT | sys::RESOLVE_NO_SYMLINKS;
        if let Ok(fd) = sys::openat2(root.as_fd(), path, libc::O_PATH | libc::O_NOFOLLOW, 0, resolve)
            && let Ok(stat) = sys::fstat(&fd)
        {
            return (stat.st_mode, stat.st_uid, stat.st_gid) == (metadata.mode(), metadata.uid(), metadata.gid());
        }
    }
    true
}

/// One digest for several files by their places.
pub fn digest_of(items: &[Item]) -> Digest {
    let mut hasher = Hasher::sha256();
    for item in items {
        hasher.update(format!("{}\0{}\0", item.path, item.digest).as_bytes());
    }
    hasher.finish()
}
