//! Unpacks a layer's tar stream into a draft (OCI image specification, layer.md).
//!
//! Layers are hostile. Every path is taken apart; its directory is opened with openat2 RESOLVE_IN_ROOT, so that links
//! made by earlier entries stay inside, and the entry itself is made relative to that directory without following
//! anything. Counts and sizes are bounded; attributes that overlayfs itself believes in are not accepted from outside.

use std::{
    ffi::{CString, OsStr},
    fs::{self, File},
    io::{self, Read},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::{
            ffi::OsStrExt,
            fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt},
        },
    },
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use coracle_launcher::sys;
use tar::EntryType;

use super::{
    Draft, Whiteouts,
    members::{Member, Members},
};
use crate::error::{Context, Error, Result};

/// What is a bomb, not an image. containerd and moby have no such limits but that of layers, which is moby's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most files of one layer.
    pub entries: u64,
    /// Most bytes that they may have together, holes included. What is written is always bounded by the room there is.
    pub bytes: u64,
    /// Most bytes of the names of its directories, which are remembered until the end.
    pub names: u64,
    /// Most layers of an image.
    pub layers: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { entries: 10_000_000, bytes: u64::MAX, names: 64 << 20, layers: 127 }
    }
}

impl Limits {
    /// The same where all bytes are written: no more than there is room for.
    pub fn within(self, dir: &Path) -> Limits {
        Limits { bytes: self.bytes.min(room(dir)), ..self }
    }
}

/// How many bytes may be written below a directory: what is free there, but for a sixteenth that others may need meanwhile.
fn room(dir: &Path) -> u64 {
    // What cannot be asked will say itself that it is full.
    rustix::fs::statvfs(dir).map_or(u64::MAX, |found| {
        let free = found.f_bavail.saturating_mul(found.f_frsize);
        free - free / 16
    })
}

/// Bytes of a file that are written at once.
const PIECE: usize = 256 << 10;

const OPAQUE: &[u8] = b".wh..wh..opq";
const WHITEOUT: &[u8] = b".wh.";
/// By which overlayfs knows a directory that hides what is below it.
pub(super) const OPAQUE_ATTRIBUTE: &str = "trusted.overlay.opaque";

/// Unpacks a tar stream; reads exactly the archive.
pub fn apply(tar: impl Read, draft: &Draft, limits: Limits) -> Result<()> {
    let root = File::open(draft.root()).context(format!("open {}", draft.root().display()))?;
    let mut layer = Layer {
        draft,
        root: root.into(),
        limits,
        room: room(&draft.root()),
        entries: 0,
        bytes: 0,
        written: 0,
        names: 0,
        directory_times: Vec::new(),
        last: None,
        buffer: vec![0; PIECE],
    };
    let mut members = Members::new(tar);
    while let Some(member) = members.next().context("read layer")? {
        layer.member(&member, &mut members)?;
        layer.drain(&mut members)?;
    }
    layer.finish()
}

struct Layer<'a> {
    draft: &'a Draft,
    root: OwnedFd,
    limits: Limits,
    /// Most bytes that are written.
    room: u64,
    entries: u64,
    bytes: u64,
    written: u64,
    names: u64,
    /// Directories get their times last: filling them changes them.
    directory_times: Vec<(PathBuf, Times)>,
    /// The directory of the entry before, which most entries share.
    last: Option<(PathBuf, Arc<OwnedFd>)>,
    /// For the content of files.
    buffer: Vec<u8>,
}

/// Of access and modification: seconds since 1970 and nanoseconds.
type Times = [(i64, u32); 2];

/// Owner, permissions and times of an entry.
struct Attributes {
    uid: u32,
    gid: u32,
    mode: u32,
    times: Times,
}

impl Layer<'_> {
    fn member(&mut self, member: &Member, content: &mut impl Read) -> Result<()> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(Error::invalid(format!("layer has more than {} files", self.limits.entries)));
        }
        if member.kind == EntryType::XGlobalHeader {
            return Ok(());
        }
        let path = clean(OsStr::from_bytes(&member.path))?;
        let what = || format!("unpack {path:?}");
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            // The root itself: its attributes only.
            return self.set_root(&attributes(member)?);
        };
        if name.as_bytes().starts_with(WHITEOUT) {
            return self.whiteout(parent, name).context(what());
        }
        self.make(member, content, parent, name, &path).context(what())
    }

    fn make(
        &mut self,
        member: &Member,
        content: &mut impl Read,
        parent: &Path,
        name: &OsStr,
        path: &Path,
    ) -> Result<()> {
        let attributes = attributes(member)?;
        let kind = member.kind;
        let directory = self.directory(parent)?;
        let dir = directory.as_fd();
        match kind {
            EntryType::Directory => {
                self.place("mkdir", dir, name, true, || sys::mkdirat(dir, name, 0o700))?;
                self.names += path.as_os_str().len() as u64;
                if self.names > self.limits.names {
                    let limit = self.limits.names;
                    return Err(Error::invalid(format!("layer's directories have more than {limit} bytes of names")));
                }
                self.directory_times.push((path.to_owned(), attributes.times));
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let file = self.write_file(member, content, dir, name)?;
                set_file_attributes(&file, &attributes)?;
                return set_extended(member, dir, name);
            }
            EntryType::Symlink => {
                let target = target(member)?;
                self.place("symlink", dir, name, false, || sys::symlinkat(target, dir, name))?;
            }
            EntryType::Link => {
                return self.hard_link(target(member)?, dir, name);
            }
            // A whiteout as overlayfs has it, by whoever packed the storage of another overlay; containerd and moby make it.
            EntryType::Char if member.device() == (0, 0) => return self.hide(dir, name),
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                let (mode, device) = node(member);
                self.place("mknod", dir, name, false, || sys::mknodat(dir, name, mode, device))?;
            }
            kind => return Err(Error::invalid(format!("unsupported tar entry type {kind:?}"))),
        }
        set_attributes(dir, name, &attributes, kind.is_symlink())?;
        set_extended(member, dir, name)
    }

    /// Opens the directory that an entry goes to, making what is missing of it.
    fn directory(&mut self, path: &Path) -> Result<Arc<OwnedFd>> {
        if let Some((last, fd)) = &self.last
            && last == path
        {
            return Ok(fd.clone());
        }
        let fd = match self.resolve(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.make_parents(path)?;
                self.resolve(path)
            }
            result => result,
        };
        let fd = Arc::new(fd.context(format!("open directory {path:?}"))?);
        self.last = Some((path.to_owned(), fd.clone()));
        Ok(fd)
    }

    fn resolve(&self, path: &Path) -> io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        sys::openat2(
            self.root.as_fd(),
            path,
            libc::O_RDONLY | libc::O_DIRECTORY,
            0,
            sys::RESOLVE_IN_ROOT | sys::RESOLVE_NO_MAGICLINKS,
        )
    }

    /// Directories that the layer does not mention are as in the layers below, or plain (containerd's `mkparent`).
    fn make_parents(&mut self, path: &Path) -> Result<()> {
        let mut walked = PathBuf::new();
        for name in path.components() {
            let parent = self.resolve(&walked).context(format!("open directory {walked:?}"))?;
            walked.push(name);
            if self.resolve(&walked).is_ok() {
                continue;
            }
            match sys::mkdirat(parent.as_fd(), name.as_os_str(), 0o755) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(error).context(format!("create directory {walked:?}"));
                }
                _ => {}
            }
            match self.below(&walked)? {
                Some(lower) => copy_directory_attributes(&lower, parent.as_fd(), name.as_os_str())?,
                // Whatever the process's umask is.
                None => sys::fchmodat(parent.as_fd(), name.as_os_str(), 0o755).context("chmod")?,
            }
        }
        Ok(())
    }

    /// The directory that a path is in the nearest layer below that has it; none where that is something else. Each layer
    /// is its own root: its links lead nowhere else.
    fn below(&self, path: &Path) -> Result<Option<File>> {
        for lower in &self.draft.lowers {
            let root = File::open(lower).context(format!("open {}", lower.display()))?;
            let resolve = sys::RESOLVE_IN_ROOT | sys::RESOLVE_NO_MAGICLINKS;
            match sys::openat2(root.as_fd(), path, libc::O_PATH, 0, resolve) {
                Ok(found) => {
                    let found = File::from(found);
                    return Ok(found.metadata().is_ok_and(|metadata| metadata.is_dir()).then_some(found));
                }
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP)) => {}
                Err(error) => return Err(error).context(format!("look up {path:?} in the layers below")),
            }
        }
        Ok(None)
    }

    /// Makes what an entry is. A later entry replaces an earlier one (or the lower layer's copy); a directory over a
    /// directory is the same one.
    fn place<T: Default>(
        &mut self,
        what: &str,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        directory: bool,
        make: impl Fn() -> io::Result<T>,
    ) -> Result<T> {
        // Nearly always there is room: looking first would double the work.
        match make() {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            result => return result.context(what),
        }
        let path = fd_join(dir, name);
        let metadata = fs::symlink_metadata(&path).context("stat")?;
        if metadata.is_dir() && directory {
            return Ok(T::default());
        }
        self.last = None;
        remove(&path, &metadata)?;
        let made = make().context(what)?;
        // A directory behind its own whiteout has nothing of those below.
        if directory && metadata.file_type().is_char_device() && metadata.rdev() == 0 {
            make_opaque(&path)?;
        }
        Ok(made)
    }

    fn write_file(
        &mut self,
        member: &Member,
        content: &mut impl Read,
        dir: BorrowedFd<'_>,
        name: &OsStr,
    ) -> Result<File> {
        // Before anything is written: a header of 512 bytes can announce as much as it likes.
        let written = member.pieces.as_ref().map_or(member.size, |pieces| pieces.iter().map(|piece| piece.1).sum());
        if member.size > self.left() {
            return Err(self.too_large());
        }
        if written > self.room - self.written {
            let room = self.room;
            return Err(Error::internal(format!("layer is larger than the {room} bytes that there is room for")));
        }
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
        let create = || sys::openat2(dir, Path::new(name), flags, 0o600, sys::RESOLVE_NO_SYMLINKS).map(Some);
        let fd =
            self.place("create", dir, name, false, create)?.ok_or_else(|| Error::internal("no file was created"))?;
        let file = File::from(fd);
        match &member.pieces {
            None => copy(content, &file, 0, &mut self.buffer).context("write")?,
            // What is not in a piece takes no room on the disk.
            Some(pieces) => {
                for &(offset, length) in pieces {
                    copy(&mut Read::take(&mut *content, length), &file, offset, &mut self.buffer).context("write")?;
                }
                file.set_len(member.size).context("write")?;
            }
        }
        self.bytes += member.size;
        self.written += written;
        Ok(file)
    }

    fn left(&self) -> u64 {
        self.limits.bytes.saturating_sub(self.bytes)
    }

    fn too_large(&self) -> Error {
        Error::invalid(format!("layer is larger than {} bytes unpacked", self.limits.bytes))
    }

    /// What an entry brings that is no file's content counts all the same.
    fn drain(&mut self, entry: &mut impl Read) -> Result<()> {
        let left = self.left();
        let count = io::copy(&mut entry.take(left.saturating_add(1)), &mut io::sink()).context("read layer")?;
        if count > left {
            return Err(self.too_large());
        }
        self.bytes += count;
        Ok(())
    }

    /// The target is looked up inside the root; the link is to what lies there, never to what that points at.
    fn hard_link(&mut self, target: &OsStr, dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
        // Up is up from where the links on the way lead, and at the root there is no up.
        let target = Path::new(target);
        let (parent, Some(file)) = (target.parent().unwrap_or(Path::new("")), target.file_name()) else {
            return Err(Error::invalid("hard link to a directory"));
        };
        let parent = self.resolve(parent).context(format!("open directory of hard link target {target:?}"))?;
        let (from, to) = (cstring(file)?, cstring(name)?);
        let link = || {
            // SAFETY: both names are terminated, both descriptors open.
            let result = unsafe { libc::linkat(parent.as_raw_fd(), from.as_ptr(), dir.as_raw_fd(), to.as_ptr(), 0) };
            if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
        };
        self.place(&format!("hard link to {target:?}"), dir, name, false, link)
    }

    fn whiteout(&mut self, parent: &Path, name: &OsStr) -> Result<()> {
        let dir = self.directory(parent)?;
        if name.as_bytes() == OPAQUE {
            return match self.draft.whiteouts {
                Whiteouts::Overlay => make_opaque(&fd_path(dir.as_fd())),
                Whiteouts::Remove => {
                    fs::read_dir(fd_path(dir.as_fd())).context("read")?.flatten().try_for_each(|entry| {
                        let metadata = entry.metadata().context("stat")?;
                        remove(&entry.path(), &metadata)
                    })
                }
            };
        }
        // AUFS's own bookkeeping.
        if name.as_bytes().starts_with(b".wh..wh.") {
            return Ok(());
        }
        let hidden = OsStr::from_bytes(&name.as_bytes()[WHITEOUT.len()..]);
        if hidden.is_empty() || hidden == "." || hidden == ".." {
            return Err(Error::invalid("whiteout of no file"));
        }
        self.hide(dir.as_fd(), hidden)
    }

    /// Makes what layers below have of a name invisible. What this layer has of it stays (layer.md, "Whiteouts"), where
    /// the two can be told apart.
    fn hide(&mut self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
        let path = fd_join(dir, name);
        match self.draft.whiteouts {
            Whiteouts::Overlay => match sys::mknodat(dir, name, libc::S_IFCHR, 0) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    let metadata = fs::symlink_metadata(&path).context("stat")?;
                    if metadata.is_dir() { make_opaque(&path) } else { Ok(()) }
                }
                result => result.context("make whiteout"),
            },
            Whiteouts::Remove => {
                self.last = None;
                let metadata = fs::symlink_metadata(&path);
                metadata.map_or(Ok(()), |metadata| remove(&path, &metadata))
            }
        }
    }

    fn set_root(&mut self, attributes: &Attributes) -> Result<()> {
        let path = self.draft.root();
        fs::set_permissions(&path, fs::Permissions::from_mode(attributes.mode)).context("set the root's mode")?;
        std::os::unix::fs::chown(&path, Some(attributes.uid), Some(attributes.gid)).context("set the root's owner")
    }

    fn finish(mut self) -> Result<()> {
        for (path, times) in std::mem::take(&mut self.directory_times).into_iter().rev() {
            // It may have been replaced by a later entry.
            if let Ok(dir) = self.resolve(&path) {
                set_times(dir.as_fd(), OsStr::new("."), times)?;
            }
        }
        Ok(())
    }
}

/// Copies content into a file from an offset on.
fn copy(from: &mut impl Read, to: &File, mut offset: u64, buffer: &mut [u8]) -> io::Result<()> {
    loop {
        let count = match from.read(buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        to.write_all_at(&buffer[..count], offset)?;
        offset += count as u64;
    }
}

fn make_opaque(dir: &Path) -> Result<()> {
    sys::setxattr(dir, OPAQUE_ATTRIBUTE, b"y").context("make opaque")
}

/// What a link is to.
fn target(member: &Member) -> Result<&OsStr> {
    match &member.link[..] {
        b"" => Err(Error::invalid("link without a target")),
        link => Ok(OsStr::from_bytes(link)),
    }
}

/// What mknod(2) is to make.
fn node(member: &Member) -> (u32, u64) {
    let (major, minor) = member.device();
    let device = libc::makedev(major, minor);
    let (bits, device) = match member.kind {
        EntryType::Char => (libc::S_IFCHR, device),
        EntryType::Block => (libc::S_IFBLK, device),
        _ => (libc::S_IFIFO, 0),
    };
    (bits | 0o600, device)
}

/// Extended attributes come as PAX records `SCHILY.xattr.NAME`.
fn set_extended(member: &Member, dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
    let plain = matches!(member.kind, EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse);
    for (attribute, value) in member.records.with_prefix("SCHILY.xattr.") {
        // `trusted.*` steers overlayfs, `user.overlay.*` does in user namespaces; SELinux labels are the host's.
        if attribute.starts_with("trusted.")
            || attribute.starts_with("user.overlay.")
            || attribute == "security.selinux"
        {
            continue;
        }
        set_attribute(&fd_join(dir, name), attribute, value, plain || member.kind == EntryType::Directory)?;
    }
    Ok(())
}

/// Takes a path apart: no root, no `.`, and `..` taken out by name; what leads above the root ends there (Go's
/// `filepath.Clean`, containerd's `fs.RootPath`).
fn clean(path: &OsStr) -> Result<PathBuf> {
    if path.len() > 4096 {
        return Err(Error::invalid("layer has a path longer than 4096 bytes"));
    }
    let mut out = PathBuf::new();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) if name.len() > 255 => {
                return Err(Error::invalid("layer has a name longer than 255 bytes"));
            }
            Component::Normal(name) => out.push(name),
            Component::ParentDir => drop(out.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(out)
}

fn attributes(member: &Member) -> Result<Attributes> {
    let id = |what: &str, value: io::Result<u64>| {
        let value = value.context(format!("read the {what}"))?;
        u32::try_from(value).map_err(|_| Error::invalid(format!("malformed {what}")))
    };
    let modified = member.mtime().context("read the time")?;
    // As containerd: never before the modification.
    let accessed = member.atime().context("read the time")?.map_or(modified, |accessed| accessed.max(modified));
    Ok(Attributes {
        uid: id("owner", member.uid())?,
        gid: id("group", member.gid())?,
        mode: member.mode().context("read the mode")? & 0o7777,
        times: [accessed, modified],
    })
}

/// Those of something that is there.
fn attributes_of(metadata: &fs::Metadata) -> Attributes {
    let nanoseconds = |value: i64| u32::try_from(value).unwrap_or(0);
    Attributes {
        uid: metadata.uid(),
        gid: metadata.gid(),
        mode: metadata.mode() & 0o7777,
        times: [
            (metadata.atime(), nanoseconds(metadata.atime_nsec())),
            (metadata.mtime(), nanoseconds(metadata.mtime_nsec())),
        ],
    }
}

/// Makes a directory what one of another layer is, but for what overlayfs keeps of that.
fn copy_directory_attributes(from: &File, dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
    let metadata = from.metadata().context("stat a directory below")?;
    set_attributes(dir, name, &attributes_of(&metadata), false)?;
    let (from, to) = (fd_join(from.as_fd(), OsStr::new(".")), fd_join(dir, name));
    for attribute in attribute_names(&from)? {
        if !attribute.starts_with("trusted.overlay.")
            && !attribute.starts_with("user.overlay.")
            && let Some(value) = attribute_value(&from, &attribute)?
        {
            set_attribute(&to, &attribute, &value, true)?;
        }
    }
    Ok(())
}

fn set_attributes(dir: BorrowedFd<'_>, name: &OsStr, attributes: &Attributes, symlink: bool) -> Result<()> {
    // The owner first: changing it clears set-id bits.
    sys::fchownat(dir, name, attributes.uid, attributes.gid).context("chown")?;
    if !symlink {
        sys::fchmodat(dir, name, attributes.mode).context("chmod")?;
    }
    set_times(dir, name, attributes.times)
}

/// The same for a file that is open.
fn set_file_attributes(file: &File, attributes: &Attributes) -> Result<()> {
    sys::fchown(file, attributes.uid, attributes.gid).context("chown")?;
    file.set_permissions(fs::Permissions::from_mode(attributes.mode)).context("chmod")?;
    let times = attributes.times.map(timespec);
    // SAFETY: the descriptor is open, two times are given.
    let result = unsafe { libc::futimens(file.as_raw_fd(), times.as_ptr()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()).context("set times") }
}

fn timespec((seconds, nanoseconds): (i64, u32)) -> libc::timespec {
    libc::timespec { tv_sec: seconds, tv_nsec: i64::from(nanoseconds) }
}

fn set_times(dir: BorrowedFd<'_>, name: &OsStr, times: Times) -> Result<()> {
    let name = cstring(name)?;
    let times = times.map(timespec);
    // SAFETY: the name is terminated, two times are given.
    let result = unsafe { libc::utimensat(dir.as_raw_fd(), name.as_ptr(), times.as_ptr(), libc::AT_SYMLINK_NOFOLLOW) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()).context("set times") }
}

/// Sets an attribute, as containerd does (`createTarFile`): what a file system has none of is left out; so is `user.*`
/// of what is neither a file nor a directory, for the kernel knows it of nothing else (xattr(7)).
fn set_attribute(path: &Path, name: &str, value: &[u8], file_or_directory: bool) -> Result<()> {
    let (path, attribute) = (cstring(path.as_os_str())?, cstring(OsStr::new(name))?);
    // SAFETY: both strings are terminated, the value is valid for its length.
    let result = unsafe { libc::lsetxattr(path.as_ptr(), attribute.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    let error = io::Error::last_os_error();
    match (result, error.raw_os_error()) {
        (0, _) | (_, Some(libc::ENOTSUP)) => Ok(()),
        (_, Some(libc::EPERM)) if name.starts_with("user.") && !file_or_directory => Ok(()),
        _ => Err(error).context(format!("set attribute {name:?}")),
    }
}

fn remove(path: &Path, metadata: &fs::Metadata) -> Result<()> {
    // remove_dir_all follows no links (CVE-2022-21658).
    if metadata.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
        .context(format!("remove {}", path.display()))
}

fn fd_path(dir: BorrowedFd<'_>) -> PathBuf {
    format!("/proc/self/fd/{}", dir.as_raw_fd()).into()
}

/// A name in an open directory, as a path whose last part is not followed by calls that do not follow links.
fn fd_join(dir: BorrowedFd<'_>, name: &OsStr) -> PathBuf {
    fd_path(dir).join(name)
}

fn cstring(text: &OsStr) -> Result<CString> {
    CString::new(text.as_bytes()).map_err(|_| Error::invalid("layer has a name with a NUL byte"))
}

/// Copies a tree with links, devices, owners, times and attributes, for snapshots without overlayfs.
pub fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    let mut links = std::collections::HashMap::new();
    copy_directory(from, to, &mut links)
}

type Links = std::collections::HashMap<(u64, u64), PathBuf>;

fn copy_directory(from: &Path, to: &Path, links: &mut Links) -> Result<()> {
    for entry in fs::read_dir(from).context(format!("read {}", from.display()))? {
        let entry = entry.context(format!("read {}", from.display()))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        copy_entry(&source, &target, links).context(format!("copy {}", source.display()))?;
    }
    copy_attributes(from, to)
}

fn copy_entry(source: &Path, target: &Path, links: &mut Links) -> Result<()> {
    let metadata = fs::symlink_metadata(source).context("stat")?;
    let kind = metadata.file_type();
    if metadata.nlink() > 1 && !kind.is_dir() {
        match links.entry((metadata.dev(), metadata.ino())) {
            std::collections::hash_map::Entry::Occupied(first) => {
                return fs::hard_link(first.get(), target).context("link");
            }
            std::collections::hash_map::Entry::Vacant(place) => drop(place.insert(target.to_owned())),
        }
    }
    if kind.is_dir() {
        fs::create_dir(target).context("mkdir")?;
        return copy_directory(source, target, links);
    }
    if kind.is_file() {
        fs::copy(source, target).context("copy")?;
    } else if kind.is_symlink() {
        let link = fs::read_link(source).context("read link")?;
        std::os::unix::fs::symlink(link, target).context("symlink")?;
    } else if kind.is_socket() {
        return Ok(());
    } else {
        let name = cstring(target.as_os_str())?;
        // SAFETY: the name is terminated.
        let result = unsafe { libc::mknod(name.as_ptr(), metadata.mode(), metadata.rdev()) };
        if result != 0 {
            return Err(io::Error::last_os_error()).context("mknod");
        }
    }
    copy_attributes(source, target)
}

fn copy_attributes(source: &Path, target: &Path) -> Result<()> {
    let metadata = fs::symlink_metadata(source).context("stat")?;
    let attributes = attributes_of(&metadata);
    let here = File::open("/").context("open \"/\"")?;
    set_attributes(here.as_fd(), target.as_os_str(), &attributes, metadata.file_type().is_symlink())?;
    for name in attribute_names(source)? {
        if let Some(value) = attribute_value(source, &name)? {
            set_attribute(target, &name, &value, metadata.is_file() || metadata.is_dir())?;
        }
    }
    Ok(())
}

fn attribute_names(path: &Path) -> Result<Vec<String>> {
    let path = cstring(path.as_os_str())?;
    let mut buffer = vec![0u8; 64 << 10];
    // SAFETY: the path is terminated, the buffer valid for its length.
    let count = unsafe { libc::llistxattr(path.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) };
    if count < 0 {
        return Ok(Vec::new());
    }
    let names = buffer[..count as usize].split(|&byte| byte == 0).filter(|name| !name.is_empty());
    Ok(names
        .filter_map(|name| std::str::from_utf8(name).ok())
        .filter(|name| *name != "security.selinux")
        .map(str::to_owned)
        .collect())
}

fn attribute_value(path: &Path, name: &str) -> Result<Option<Vec<u8>>> {
    let (path, name) = (cstring(path.as_os_str())?, cstring(OsStr::new(name))?);
    let mut buffer = vec![0u8; 64 << 10];
    // SAFETY: both strings are terminated, the buffer valid for its length.
    let count = unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) };
    Ok(usize::try_from(count).ok().map(|count| buffer[..count].to_vec()))
}
