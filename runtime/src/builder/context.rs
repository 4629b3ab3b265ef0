//! A build context: an index of what a tar stream holds, its files' bytes in one file without a name.
//!
//! Nothing of the stream becomes a path of this host, so nothing in it can lead anywhere. Files are hashed while they
//! come; the file with their bytes goes with the build, even when the daemon is killed.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use coracle_launcher::sys;

use super::ignore::Ignore;
use crate::{
    digest::{Digest, Hasher},
    error::{Context as _, Error, Result},
    images::decompress,
    snapshots::apply::Limits,
};

/// As many links in a path as Linux follows.
const MAX_LINKS: usize = 40;

/// What a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    File,
    Directory,
    Symlink(String),
    Fifo,
    /// Character (true) or block device, and its numbers.
    Device(bool, u32, u32),
}

/// What there is to know of a file beside its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    pub kind: Kind,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since 1970.
    pub mtime: u64,
    pub xattrs: Vec<(String, Vec<u8>)>,
}

impl Meta {
    pub fn directory() -> Meta {
        Meta { kind: Kind::Directory, mode: 0o755, uid: 0, gid: 0, mtime: 0, xattrs: Vec::new() }
    }

    /// What counts of a file when builds are compared: all but its times and its name.
    pub fn digest(&self, size: u64, content: Option<&Digest>) -> Digest {
        let mut hasher = Hasher::sha256();
        let kind = match &self.kind {
            Kind::File => "file".to_owned(),
            Kind::Directory => "directory".to_owned(),
            Kind::Symlink(target) => format!("link {target}"),
            Kind::Fifo => "fifo".to_owned(),
            Kind::Device(character, major, minor) => format!("device {character} {major} {minor}"),
        };
        // A link's mode means nothing, a directory's size neither.
        let mode = if matches!(self.kind, Kind::Symlink(_)) { 0o777 } else { self.mode };
        hasher.update(format!("{kind}\0{mode:o} {} {} {size}\0", self.uid, self.gid).as_bytes());
        for (name, value) in &self.xattrs {
            hasher.update(format!("{name}\0{}\0", value.len()).as_bytes());
            hasher.update(value);
        }
        if let Some(content) = content {
            hasher.update(content.as_str().as_bytes());
        }
        hasher.finish()
    }
}

/// Where the bytes of a file are.
#[derive(Clone, Debug)]
pub enum Content {
    None,
    /// In the context's file.
    Spool {
        offset: u64,
        length: u64,
    },
}

impl Content {
    pub fn length(&self) -> u64 {
        match self {
            Content::None => 0,
            Content::Spool { length, .. } => *length,
        }
    }
}

/// One file of a context.
#[derive(Clone, Debug)]
pub struct Entry {
    pub meta: Meta,
    pub content: Content,
    pub digest: Digest,
}

/// A context that came whole.
#[derive(Debug)]
pub struct Context {
    dir: PathBuf,
    spool: File,
    /// Of archives in it, too.
    limits: Limits,
    /// By path, without slashes at either end.
    entries: BTreeMap<String, Entry>,
}

impl Context {
    /// A context with nothing in it; the bytes of what comes go into an unnamed file in `dir`.
    pub fn new(dir: &Path) -> Result<Context> {
        let flags = libc::O_TMPFILE | libc::O_RDWR;
        let spool = sys::open(dir, flags, 0o600).context(format!("make a file in {}", dir.display()))?;
        let limits = Limits::default().within(dir);
        Ok(Context { dir: dir.to_owned(), spool: spool.into(), limits, entries: BTreeMap::new() })
    }

    /// Receives a tar stream, compressed or not.
    pub fn receive(dir: &Path, stream: impl Read, limits: Limits) -> Result<Context> {
        let limits = limits.within(dir);
        let mut context = Context { limits, ..Context::new(dir)? };
        let mut receiver = Receiver { offset: 0, left: limits.bytes, buffer: vec![0; 128 << 10] };
        let mut archive = tar::Archive::new(decompress::reader(stream).context("read the build context")?);
        let mut count = 0;
        for entry in archive.entries().context("read the build context")? {
            let mut entry = entry.context("read the build context")?;
            count += 1;
            if count > limits.entries {
                return Err(Error::invalid(format!("the build context has more than {} files", limits.entries)));
            }
            receiver.entry(&mut context, &mut entry)?;
        }
        Ok(context)
    }

    /// Adds a file that comes from elsewhere.
    pub fn add_file(&mut self, path: &str, mode: u32, mtime: u64, stream: impl Read, limit: u64) -> Result<()> {
        let offset = self.entries.values().map(|entry| match entry.content {
            Content::Spool { offset, length } => offset + length,
            _ => 0,
        });
        let mut receiver = Receiver { offset: offset.max().unwrap_or(0), left: limit, buffer: vec![0; 128 << 10] };
        let meta = Meta { kind: Kind::File, mode, uid: 0, gid: 0, mtime, xattrs: Vec::new() };
        let entry = receiver.file(&self.spool, meta, stream)?;
        self.entries.insert(path.to_owned(), entry);
        Ok(())
    }

    /// Leaves out what `.dockerignore` says.
    pub fn leave_out(&mut self, ignore: &Ignore) {
        if !ignore.is_empty() {
            self.entries.retain(|path, _| !ignore.leaves_out(path));
        }
    }

    /// Receives an archive that is a file here.
    pub fn unpack(&self, content: &Content) -> Result<Context> {
        Context::receive(&self.dir, self.open(content), self.limits)
    }

    pub fn entries(&self) -> &BTreeMap<String, Entry> {
        &self.entries
    }

    /// What is at a path, links followed as inside a root. The root itself, and directories that are only implied, are
    /// plain directories.
    pub fn find(&self, path: &str) -> Option<(String, Entry)> {
        let mut todo: Vec<String> = split(path);
        todo.reverse();
        let (mut here, mut links) = (String::new(), 0);
        while let Some(part) = todo.pop() {
            if part == ".." {
                here.truncate(here.rfind('/').unwrap_or(0));
                continue;
            }
            let next = join(&here, &part);
            if let Some(Entry { meta: Meta { kind: Kind::Symlink(target), .. }, .. }) = self.entries.get(&next) {
                links += 1;
                if links > MAX_LINKS {
                    return None;
                }
                if target.starts_with('/') {
                    here.clear();
                }
                todo.extend(split(target).into_iter().rev());
                continue;
            }
            here = next;
        }
        self.at(&here).map(|entry| (here, entry))
    }

    /// What is at a path whose links are not followed.
    pub fn at(&self, path: &str) -> Option<Entry> {
        if let Some(entry) = self.entries.get(path) {
            return Some(entry.clone());
        }
        let implied = path.is_empty() || self.below(path).next().is_some();
        let meta = Meta::directory();
        implied.then(|| Entry { digest: meta.digest(0, None), meta, content: Content::None })
    }

    /// Everything below a directory.
    pub fn below<'a>(&'a self, dir: &str) -> impl Iterator<Item = (&'a String, &'a Entry)> {
        let prefix = if dir.is_empty() { String::new() } else { format!("{dir}/") };
        let from = self.entries.range::<str, _>((std::ops::Bound::Included(&*prefix), std::ops::Bound::Unbounded));
        from.take_while(move |(path, _)| path.starts_with(&prefix))
    }

    /// Reads a small file whole.
    pub fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let Some((_, entry)) = self.find(path) else { return Ok(None) };
        if entry.meta.kind != Kind::File {
            return Ok(None);
        }
        let mut out = Vec::new();
        self.open(&entry.content).take(limit + 1).read_to_end(&mut out).context(format!("read {path}"))?;
        if out.len() as u64 > limit {
            return Err(Error::invalid(format!("{path} is larger than {limit} bytes")));
        }
        Ok(Some(out))
    }

    /// The bytes of a file.
    pub fn open<'a>(&'a self, content: &'a Content) -> Box<dyn Read + 'a> {
        match content {
            Content::None => Box::new(io::empty()),
            Content::Spool { offset, length } => {
                Box::new(Part { file: &self.spool, at: *offset, end: offset + length })
            }
        }
    }
}

/// A part of a file, read where it is.
struct Part<'a> {
    file: &'a File,
    at: u64,
    end: u64,
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read_at(&mut buffer[..most], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

fn split(path: &str) -> Vec<String> {
    path.split('/').filter(|part| !part.is_empty() && *part != ".").map(str::to_owned).collect()
}

fn join(dir: &str, name: &str) -> String {
    if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") }
}

struct Receiver {
    offset: u64,
    left: u64,
    buffer: Vec<u8>,
}

impl Receiver {
    fn entry(&mut self, context: &mut Context, entry: &mut tar::Entry<'_, impl Read>) -> Result<()> {
        use tar::EntryType;
        let kind = entry.header().entry_type();
        if kind == EntryType::XGlobalHeader {
            return Ok(());
        }
        let path = plain(&entry.path_bytes())?;
        let what = || format!("read {path:?} of the build context");
        let link = |entry: &tar::Entry<'_, _>| -> Result<String> {
            let target = entry.link_name_bytes().ok_or_else(|| Error::invalid("a link without a target"))?;
            String::from_utf8(target.into_owned()).map_err(|_| Error::invalid("a link's target is not UTF-8"))
        };
        let header = entry.header();
        let number = |value: io::Result<Option<u32>>| value.ok().flatten().unwrap_or(0);
        let device = |character| Kind::Device(character, number(header.device_major()), number(header.device_minor()));
        let kind = match kind {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Kind::File,
            EntryType::Directory => Kind::Directory,
            EntryType::Symlink => Kind::Symlink(link(entry).context(what())?),
            EntryType::Link => {
                let target = plain(link(entry).context(what())?.as_bytes())?;
                let same = context.entries.get(&target).cloned();
                let same = same.ok_or_else(|| Error::invalid(format!("{path:?} is a link to nothing: {target:?}")))?;
                context.entries.insert(path, same);
                return Ok(());
            }
            EntryType::Fifo => Kind::Fifo,
            EntryType::Char => device(true),
            EntryType::Block => device(false),
            kind => return Err(Error::invalid(format!("unsupported tar entry type {kind:?}")).context(what())),
        };
        let id = |value: io::Result<u64>| value.ok().and_then(|id| u32::try_from(id).ok()).unwrap_or(0);
        let mut meta = Meta {
            kind,
            mode: crate::tar_headers::number(&header.as_old().mode, header.mode().map(u64::from)).context(what())?
                as u32
                & 0o7777,
            uid: id(header.uid()),
            gid: id(header.gid()),
            mtime: header.mtime().unwrap_or(0),
            xattrs: Vec::new(),
        };
        meta.xattrs = xattrs(entry).context(what())?;
        if path.is_empty() {
            return Ok(());
        }
        let made = if meta.kind == Kind::File {
            self.file(&context.spool, meta, entry).context(what())?
        } else {
            Entry { digest: meta.digest(0, None), meta, content: Content::None }
        };
        // As an unpacked archive has it: what was below a file's name before is gone.
        if made.meta.kind != Kind::Directory {
            let below: Vec<String> = context.below(&path).map(|(path, _)| path.clone()).collect();
            below.iter().for_each(|path| drop(context.entries.remove(path)));
        }
        context.entries.insert(path, made);
        Ok(())
    }

    /// Writes a file's bytes down and hashes them.
    fn file(&mut self, mut spool: &File, meta: Meta, mut stream: impl Read) -> Result<Entry> {
        let (offset, mut hasher) = (self.offset, Hasher::sha256());
        loop {
            let count = stream.read(&mut self.buffer).context("read")?;
            if count == 0 {
                break;
            }
            self.left = self
                .left
                .checked_sub(count as u64)
                .ok_or_else(|| Error::invalid("the build context is larger than this engine takes"))?;
            hasher.update(&self.buffer[..count]);
            spool.write_all(&self.buffer[..count]).context("write")?;
            self.offset += count as u64;
        }
        let length = self.offset - offset;
        let digest = meta.digest(length, Some(&hasher.finish()));
        Ok(Entry { meta, digest, content: Content::Spool { offset, length } })
    }
}

/// A path of an archive: without a root and dots; one that leads out is an error.
fn plain(path: &[u8]) -> Result<String> {
    let text = std::str::from_utf8(path)
        .map_err(|_| Error::invalid(format!("the name {:?} is not UTF-8", String::from_utf8_lossy(path))))?;
    if text.len() > 4096 {
        return Err(Error::invalid("the build context has a path longer than 4096 bytes"));
    }
    let parts = split(text);
    if parts.iter().any(|part| part == "..") {
        return Err(Error::invalid(format!("path {text:?} leads out of the build context")));
    }
    Ok(parts.join("/"))
}

/// Attributes that may be in an image.
fn xattrs(entry: &mut tar::Entry<'_, impl Read>) -> Result<Vec<(String, Vec<u8>)>> {
    let mut out = Vec::new();
    let Some(records) = entry.pax_extensions().context("read PAX records")? else { return Ok(out) };
    for record in records {
        let record = record.context("read PAX record")?;
        if let Some(name) = record.key().ok().and_then(|key| key.strip_prefix("SCHILY.xattr.")) {
            out.push((name.to_owned(), record.value_bytes().to_vec()));
        }
    }
    out.sort();
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(write: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        write(&mut builder);
        builder.into_inner().unwrap()
    }

    fn file(builder: &mut tar::Builder<Vec<u8>>, path: &str, text: &str, mtime: u64) {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(mtime);
        // `append_data` refuses what hostile archives have.
        header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        builder.append(&header, text.as_bytes()).unwrap();
    }

    fn link(builder: &mut tar::Builder<Vec<u8>>, path: &str, target: &str) {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        builder.append_link(&mut header, path, target).unwrap();
    }

    fn received(bytes: &[u8]) -> Result<Context> {
        Context::receive(&std::env::temp_dir(), bytes, Limits { entries: 100, bytes: 1000, ..Limits::default() })
    }

    #[test]
    fn files_are_found_through_links_and_never_outside() {
        let context = received(&archive(|builder| {
            file(builder, "d/a", "hello", 5);
            link(builder, "l", "d");
            link(builder, "out", "../../../etc");
            link(builder, "abs", "/d/a");
            link(builder, "loop", "loop");
        }))
        .unwrap();
        assert_eq!(context.read("l/a", 10).unwrap().unwrap(), b"hello");
        assert_eq!(context.read("/abs", 10).unwrap().unwrap(), b"hello");
        assert_eq!(context.find("l/../d/./a").unwrap().0, "d/a");
        assert!(context.find("out/passwd").is_none() && context.find("loop").is_none());
        assert_eq!(context.find("d").unwrap().1.meta.kind, Kind::Directory);
        assert!(context.read("d/a", 3).is_err());
    }

    #[test]
    fn times_do_not_count_but_modes_and_bytes_do() {
        let digest = |text: &str, mtime: u64| {
            received(&archive(|builder| file(builder, "a", text, mtime))).unwrap().entries()["a"].digest.clone()
        };
        assert_eq!(digest("x", 1), digest("x", 2));
        assert_ne!(digest("x", 1), digest("y", 1));
        let mut other = Meta { kind: Kind::File, ..Meta::directory() };
        let before = other.digest(1, None);
        other.mode = 0o700;
        assert_ne!(before, other.digest(1, None));
    }

    #[test]
    fn hostile_archives_are_refused() {
        for (path, text, word) in
            [("../x", "", "leads out"), ("a/../../b", "", "leads out"), ("big", &*"x".repeat(2000), "larger")]
        {
            let error = received(&archive(|builder| file(builder, path, text, 0))).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
        let many = archive(|builder| (0..101).for_each(|index| file(builder, &format!("f{index}"), "", 0)));
        assert!(received(&many).unwrap_err().to_string().contains("more than 100 files"));
        assert!(received(b"no tar at all, but long enough to be looked at").is_err());
    }
}
