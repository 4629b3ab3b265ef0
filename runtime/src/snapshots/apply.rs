//! Unpacks a layer's tar stream into a draft (OCI image specification, layer.md).
//!
//! Layers are hostile. Every path is taken apart; its directory is opened with openat2 RESOLVE_IN_ROOT, so that links
//! made by earlier entries stay inside, and the entry itself is made relative to that directory without following
//! anything. Counts and sizes are bounded; attributes that overlayfs itself believes in are not accepted from outside.

use std::{
    ffi::{CString, OsStr, OsString},
    fs::{self, File},
    io::{self, Read},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::{
            ffi::{OsStrExt, OsStringExt},
            fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt},
        },
    },
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use coracle_launcher::sys;
use tar::{Archive, Entry, EntryType};

use super::{Draft, Whiteouts};
use crate::{
    error::{Context, Error, Result},
    tar_headers::{Allowance, number},
};

/// Most files of one layer, most bytes they may have together, and most bytes of the names of its directories, which are
/// remembered until the end: more is a bomb, not an image.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub entries: u64,
    pub bytes: u64,
    pub names: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { entries: 1_000_000, bytes: 64 << 30, names: 64 << 20 }
    }
}

/// Bytes of a file that are written at once.
const PIECE: usize = 256 << 10;

const OPAQUE: &[u8] = b".wh..wh..opq";
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE_ATTRIBUTE: &str = "trusted.overlay.opaque";

/// Unpacks a tar stream; reads exactly the archive.
pub fn apply(tar: impl Read, draft: &Draft, limits: Limits) -> Result<()> {
    let root = File::open(draft.root()).context(format!("open {}", draft.root().display()))?;
    let mut layer = Layer {
        draft,
        root: root.into(),
        limits,
        entries: 0,
        bytes: 0,
        names: 0,
        directory_times: Vec::new(),
        last: None,
        buffer: vec![0; PIECE],
    };
    let allowance = Allowance::new();
    let mut archive = Archive::new(allowance.metered(tar));
    archive.set_ignore_zeros(false);
    for entry in archive.entries().context("read layer")? {
        let mut entry = entry.context("read layer")?;
        allowance.content();
        layer.entry(&mut entry)?;
        layer.drain(&mut entry)?;
        allowance.headers();
    }
    layer.finish()
}

struct Layer<'a> {
    draft: &'a Draft,
    root: OwnedFd,
    limits: Limits,
    entries: u64,
    bytes: u64,
    names: u64,
    /// Directories get their times last: filling them changes them.
    directory_times: Vec<(PathBuf, i64)>,
    /// The directory of the entry before, which most entries share.
    last: Option<(PathBuf, Arc<OwnedFd>)>,
    /// For the content of files.
    buffer: Vec<u8>,
}

/// Owner, permissions and time of an entry.
struct Attributes {
    uid: u32,
    gid: u32,
    mode: u32,
    mtime: i64,
}

impl Layer<'_> {
    fn entry(&mut self, entry: &mut Entry<'_, impl Read>) -> Result<()> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(Error::invalid(format!("layer has more than {} files", self.limits.entries)));
        }
        if matches!(entry.header().entry_type(), EntryType::XGlobalHeader) {
            return Ok(());
        }
        let path = clean(&OsString::from_vec(entry.path_bytes().into_owned()))?;
        let what = || format!("unpack {path:?}");
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            // The root itself: its attributes only.
            let attributes = attributes(entry)?;
            return self.set_root(&attributes);
        };
        let (parent, name) = (parent.to_owned(), name.to_owned());
        if is_pax_sparse(entry).context(what())? {
            return Err(Error::invalid("sparse files of the PAX format are not supported")).context(what());
        }
        if name.as_bytes().starts_with(WHITEOUT) {
            return self.whiteout(&parent, &name).context(what());
        }
        self.make(entry, &parent, &name, &path).context(what())
    }

    fn make(&mut self, entry: &mut Entry<'_, impl Read>, parent: &Path, name: &OsStr, path: &Path) -> Result<()> {
        let attributes = attributes(entry)?;
        let kind = entry.header().entry_type();
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
                self.directory_times.push((path.to_owned(), attributes.mtime));
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let file = self.write_file(entry, dir, name)?;
                set_file_attributes(&file, &attributes)?;
                return self.set_extended(entry, dir, name);
            }
            EntryType::Symlink => {
                let target = entry.link_name_bytes().ok_or_else(|| Error::invalid("link without a target"))?;
                let target = OsStr::from_bytes(&target);
                self.place("symlink", dir, name, false, || sys::symlinkat(target, dir, name))?;
            }
            EntryType::Link => {
                let target = entry.link_name_bytes().ok_or_else(|| Error::invalid("link without a target"))?;
                return self.hard_link(&OsString::from_vec(target.into_owned()), dir, name);
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                let (mode, device) = node(entry.header(), kind)?;
                self.place("mknod", dir, name, false, || sys::mknodat(dir, name, mode, device))?;
            }
            kind => return Err(Error::invalid(format!("unsupported tar entry type {kind:?}"))),
        }
        set_attributes(dir, name, &attributes, kind.is_symlink())?;
        self.set_extended(entry, dir, name)
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

    /// Directories that the layer does not mention are as in the layers below, or plain.
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
            let lower = self
                .draft
                .lowers
                .iter()
                .find_map(|lower| fs::symlink_metadata(lower.join(&walked)).ok().filter(fs::Metadata::is_dir));
            if let Some(lower) = lower {
                let attributes = Attributes {
                    uid: lower.uid(),
                    gid: lower.gid(),
                    mode: lower.mode() & 0o7777,
                    mtime: lower.mtime(),
                };
                set_attributes(parent.as_fd(), name.as_os_str(), &attributes, false)?;
            }
        }
        Ok(())
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
        make().context(what)
    }

    fn write_file(&mut self, entry: &mut Entry<'_, impl Read>, dir: BorrowedFd<'_>, name: &OsStr) -> Result<File> {
        // Before anything is written: a header of 512 bytes can announce as much as it likes.
        if entry.size() > self.left() {
            return Err(self.too_large());
        }
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
        let create = || sys::openat2(dir, Path::new(name), flags, 0o600, sys::RESOLVE_NO_SYMLINKS).map(Some);
        let fd =
            self.place("create", dir, name, false, create)?.ok_or_else(|| Error::internal("no file was created"))?;
        let mut file = File::from(fd);
        let sparse = entry.header().entry_type() == EntryType::GNUSparse;
        self.bytes += copy(entry, &mut file, &mut self.buffer, sparse).context("write")?;
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
        let target = clean(target)?;
        let (Some(parent), Some(file)) = (target.parent(), target.file_name()) else {
            return Err(Error::invalid("hard link to the root"));
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
                Whiteouts::Overlay => set_attribute(&fd_path(dir.as_fd()), OPAQUE_ATTRIBUTE, b"y", true),
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
        self.last = None;
        let path = fd_join(dir.as_fd(), hidden);
        if let Ok(metadata) = fs::symlink_metadata(&path) {
            remove(&path, &metadata)?;
        }
        match self.draft.whiteouts {
            Whiteouts::Overlay => sys::mknodat(dir.as_fd(), hidden, libc::S_IFCHR, 0).context("make whiteout"),
            Whiteouts::Remove => Ok(()),
        }
    }

    /// Extended attributes come as PAX records `SCHILY.xattr.NAME`.
    fn set_extended(&mut self, entry: &mut Entry<'_, impl Read>, dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
        let Some(records) = entry.pax_extensions().context("read PAX records")? else { return Ok(()) };
        for record in records {
            let record = record.context("read PAX record")?;
            let Some(attribute) = record.key().ok().and_then(|key| key.strip_prefix("SCHILY.xattr.")) else { continue };
            // `trusted.*` steers overlayfs, `user.overlay.*` does in user namespaces; SELinux labels are the host's.
            if attribute.starts_with("trusted.")
                || attribute.starts_with("user.overlay.")
                || attribute == "security.selinux"
            {
                continue;
            }
            set_attribute(&fd_join(dir, name), attribute, record.value_bytes(), false)?;
        }
        Ok(())
    }

    fn set_root(&mut self, attributes: &Attributes) -> Result<()> {
        let path = self.draft.root();
        fs::set_permissions(&path, fs::Permissions::from_mode(attributes.mode)).context("set the root's mode")?;
        std::os::unix::fs::chown(&path, Some(attributes.uid), Some(attributes.gid)).context("set the root's owner")
    }

    fn finish(mut self) -> Result<()> {
        for (path, mtime) in std::mem::take(&mut self.directory_times).into_iter().rev() {
            // It may have been replaced by a later entry.
            if let Ok(dir) = self.resolve(&path) {
                set_time(dir.as_fd(), OsStr::new("."), mtime)?;
            }
        }
        Ok(())
    }
}

/// GNU tar's sparse files in PAX headers (tar manual, "Sparse Formats"): the content begins with a map.
fn is_pax_sparse(entry: &mut Entry<'_, impl Read>) -> Result<bool> {
    let Some(records) = entry.pax_extensions().context("read PAX records")? else { return Ok(false) };
    Ok(records.flatten().any(|record| record.key().is_ok_and(|key| key.starts_with("GNU.sparse."))))
}

/// Copies a file's content; of a sparse one what is not zero: the rest takes no room on the disk.
fn copy(from: &mut impl Read, to: &mut File, buffer: &mut [u8], sparse: bool) -> io::Result<u64> {
    let mut length = 0;
    loop {
        let count = match from.read(buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if !sparse || buffer[..count].iter().any(|&byte| byte != 0) {
            to.write_all_at(&buffer[..count], length)?;
        }
        length += count as u64;
    }
    if sparse {
        to.set_len(length)?;
    }
    Ok(length)
}

/// What mknod(2) is to make.
fn node(header: &tar::Header, kind: EntryType) -> Result<(u32, u64)> {
    let number = |value: io::Result<Option<u32>>| value.ok().flatten().unwrap_or(0);
    let device = libc::makedev(number(header.device_major()), number(header.device_minor()));
    let (bits, device) = match kind {
        EntryType::Char => (libc::S_IFCHR, device),
        EntryType::Block => (libc::S_IFBLK, device),
        _ => (libc::S_IFIFO, 0),
    };
    // A character device 0/0 would be a whiteout that the layer did not write as one.
    if bits == libc::S_IFCHR && device == 0 {
        return Err(Error::invalid("character device 0/0"));
    }
    Ok((bits | 0o600, device))
}

/// Takes a path apart: no `..`, no root, no `.`. A path that would leave the layer is an error, not a shorter path.
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
            Component::ParentDir => return Err(Error::invalid(format!("layer path {path:?} leads out of the root"))),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(out)
}

fn attributes(entry: &Entry<'_, impl Read>) -> Result<Attributes> {
    let header = entry.header();
    let fields = header.as_old();
    let number = |what: &str, field: &[u8], value| number(field, value).context(format!("read the {what}"));
    let id = |what: &str, field: &[u8], value| {
        u32::try_from(number(what, field, value)?).map_err(|_| Error::invalid(format!("malformed {what}")))
    };
    Ok(Attributes {
        uid: id("owner", &fields.uid, header.uid())?,
        gid: id("group", &fields.gid, header.gid())?,
        mode: number("mode", &fields.mode, header.mode().map(u64::from))? as u32 & 0o7777,
        // A binary field holds times before 1970 as two's complement.
        mtime: number("time", &fields.mtime, header.mtime())? as i64,
    })
}

fn set_attributes(dir: BorrowedFd<'_>, name: &OsStr, attributes: &Attributes, symlink: bool) -> Result<()> {
    // The owner first: changing it clears set-id bits.
    sys::fchownat(dir, name, attributes.uid, attributes.gid).context("chown")?;
    if !symlink {
        sys::fchmodat(dir, name, attributes.mode).context("chmod")?;
    }
    set_time(dir, name, attributes.mtime)
}

/// The same for a file that is open.
fn set_file_attributes(file: &File, attributes: &Attributes) -> Result<()> {
    sys::fchown(file, attributes.uid, attributes.gid).context("chown")?;
    file.set_permissions(fs::Permissions::from_mode(attributes.mode)).context("chmod")?;
    let times = times(attributes.mtime);
    // SAFETY: the descriptor is open, two times are given.
    let result = unsafe { libc::futimens(file.as_raw_fd(), times.as_ptr()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()).context("set times") }
}

fn times(seconds: i64) -> [libc::timespec; 2] {
    [libc::timespec { tv_sec: seconds, tv_nsec: 0 }; 2]
}

fn set_time(dir: BorrowedFd<'_>, name: &OsStr, seconds: i64) -> Result<()> {
    let name = cstring(name)?;
    let times = times(seconds);
    // SAFETY: the name is terminated, two times are given.
    let result = unsafe { libc::utimensat(dir.as_raw_fd(), name.as_ptr(), times.as_ptr(), libc::AT_SYMLINK_NOFOLLOW) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()).context("set times") }
}

fn set_attribute(path: &Path, name: &str, value: &[u8], follow: bool) -> Result<()> {
    let (path, attribute) = (cstring(path.as_os_str())?, cstring(OsStr::new(name))?);
    let set = if follow { libc::setxattr } else { libc::lsetxattr };
    // SAFETY: both strings are terminated, the value is valid for its length.
    let result = unsafe { set(path.as_ptr(), attribute.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    match result {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            // `user.*` cannot be set on links and devices, and some file systems have none: as other unpackers, go on.
            error if matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOTSUP)) && name.starts_with("user.") => {
                Ok(())
            }
            error => Err(error).context(format!("set attribute {name:?}")),
        },
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
    let attributes = Attributes {
        uid: metadata.uid(),
        gid: metadata.gid(),
        mode: metadata.mode() & 0o7777,
        mtime: metadata.mtime(),
    };
    let here = File::open("/").context("open \"/\"")?;
    set_attributes(here.as_fd(), target.as_os_str(), &attributes, metadata.file_type().is_symlink())?;
    for name in attribute_names(source)? {
        if let Some(value) = attribute_value(source, &name)? {
            set_attribute(target, &name, &value, false)?;
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
