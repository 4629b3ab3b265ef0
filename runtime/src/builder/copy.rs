//! COPY and ADD: which files are meant, what they are compared by, and where they go.

use std::{
    collections::HashSet,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    context::{Context, Entry, Kind, Meta},
    dockerfile::instruction::Copy,
    files::{From, Item, LayerWriter, Source, View, digest_of},
    ignore::{Ignore, clean},
    pattern::{Pattern, is_pattern},
};
use crate::{
    digest::{Digest, Hasher},
    error::{Context as _, Error, Result},
    images::decompress,
};

/// Files that one instruction may take.
const MAX_ITEMS: usize = 1_000_000;
const MAX_DEPTH: usize = 256;

/// What one source of an instruction gives.
#[derive(Debug)]
pub struct Group {
    /// The name that a single file keeps in a directory.
    pub name: String,
    pub kind: GroupKind,
    pub items: Vec<Item>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupKind {
    File,
    Directory,
    /// An archive's content, whose files keep their owners.
    Archive,
}

/// COPY and ADD with their variables replaced.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub copy: Copy,
    pub working_dir: String,
}

fn keyword(copy: &Copy) -> &'static str {
    if copy.add { "ADD" } else { "COPY" }
}

/// What the groups are compared by, as history shows it.
pub fn sum(groups: &[Group]) -> String {
    let one = |group: &Group| match (group.kind, &group.items[..]) {
        // In a directory it keeps its name, so another name is another file.
        (GroupKind::File, [item]) => {
            format!("file:{}", Digest::of(format!("{}\0{}", group.name, item.digest).as_bytes()).hex())
        }
        _ => format!("dir:{}", digest_of(&group.items).hex()),
    };
    match groups {
        [group] => one(group),
        groups => {
            let mut hasher = Hasher::sha256();
            groups.iter().for_each(|group| hasher.update(format!("{}\0{}\0", group.name, one(group)).as_bytes()));
            format!("multi:{}", hasher.finish().hex())
        }
    }
}

/// A heredoc as a file.
pub fn inline(name: &str, text: &str) -> Group {
    let meta = Meta { kind: Kind::File, mode: 0o644, ..Meta::directory() };
    let digest = meta.digest(text.len() as u64, Some(&Digest::of(text.as_bytes())));
    let item = Item { path: String::new(), meta, content: From::Bytes(Arc::from(text.as_bytes())), digest };
    Group { name: name.to_owned(), kind: GroupKind::File, items: vec![item] }
}

/// The one file of a context that was fetched for it.
pub fn fetched(context: &Arc<Context>, name: &str, unpack: bool) -> Result<Group> {
    let entry = context.at(name).ok_or_else(|| Error::internal("what was fetched is not there"))?;
    if unpack && let Some(items) = unpacked(context, &entry)? {
        return Ok(Group { name: name.to_owned(), kind: GroupKind::Archive, items });
    }
    let items = vec![of_entry(context, String::new(), &entry)];
    Ok(Group { name: name.to_owned(), kind: GroupKind::File, items })
}

/// Finds what an instruction means of a source. For a thread that may block.
pub fn find(wanted: &Wanted, source: &Source) -> Result<Vec<Group>> {
    let copy = &wanted.copy;
    let excludes: Vec<&str> = copy.excludes.iter().map(String::as_str).collect();
    let excludes = Ignore::of(&excludes).map_err(Error::invalid)?;
    let mut groups = Vec::new();
    for text in copy.sources.iter().filter(|text| !is_url(text)) {
        let path = inside(text, copy)?;
        let found = if is_pattern(&path) { matching(&path, source)? } else { vec![path.clone()] };
        let before = groups.len();
        for path in found {
            groups.extend(group(&path, text, copy, source, &excludes)?);
        }
        if groups.len() == before && !is_pattern(&path) && excludes.is_empty() {
            return Err(missing(copy, text));
        }
    }
    Ok(groups)
}

pub fn is_url(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

fn missing(copy: &Copy, text: &str) -> Error {
    Error::invalid(format!(
        "{} failed: file not found in build context or excluded by .dockerignore: stat {}: file does not exist",
        keyword(copy),
        text.trim_start_matches('/')
    ))
}

/// A source's path, which stays inside of what is copied from.
fn inside(text: &str, copy: &Copy) -> Result<String> {
    let path = if text.starts_with('/') { clean(text) } else { clean(text.trim_start_matches("./")) };
    if path == ".." || path.starts_with("../") {
        return Err(Error::invalid(format!(
            "{} failed: forbidden path outside the build context: {text} ()",
            keyword(copy)
        )));
    }
    Ok(if path == "." { String::new() } else { path })
}

/// Everything whose path fits a pattern.
fn matching(pattern: &str, source: &Source) -> Result<Vec<String>> {
    let compiled = Pattern::glob(pattern).map_err(Error::invalid)?;
    match source {
        Source::Context(context) => {
            let mut paths: Vec<String> = Vec::new();
            // Directories may be there by what is in them alone.
            for path in context.entries().keys() {
                let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
                paths.extend(ends.map(|end| path[..end].to_owned()).filter(|path| compiled.fits(path)));
            }
            paths.sort();
            paths.dedup();
            Ok(paths)
        }
        Source::View(view) => {
            let mut level = vec![String::new()];
            for part in pattern.split('/') {
                let compiled = Pattern::glob(part).map_err(Error::invalid)?;
                let mut next = Vec::new();
                for dir in &level {
                    if !view.is_directory(&rooted(dir)) {
                        continue;
                    }
                    let names = view.names(&rooted(dir))?.into_iter().filter(|name| compiled.fits(name));
                    next.extend(names.map(|name| join(dir, &name)));
                }
                if next.len() > MAX_ITEMS {
                    return Err(Error::invalid(format!("a pattern stands for more than {MAX_ITEMS} files")));
                }
                level = next;
            }
            Ok(level)
        }
    }
}

fn join(dir: &str, name: &str) -> String {
    if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") }
}

fn rooted(path: &str) -> PathBuf {
    Path::new("/").join(path)
}

fn base_name(path: &str) -> String {
    path.rsplit('/').next().unwrap_or_default().to_owned()
}

/// What is at one path, if something is.
fn group(path: &str, text: &str, copy: &Copy, source: &Source, excludes: &Ignore) -> Result<Option<Group>> {
    let mut items = Vec::new();
    let kind = match source {
        Source::Context(context) => {
            let Some((real, entry)) = context.find(path) else { return Ok(None) };
            if entry.meta.kind != Kind::Directory {
                if copy.add
                    && copy.unpack != Some(false)
                    && let Some(archive) = unpacked(context, &entry)?
                {
                    return Ok(Some(Group { name: base_name(path), kind: GroupKind::Archive, items: archive }));
                }
                items.push(of_entry(context, String::new(), &entry));
                GroupKind::File
            } else {
                for (below, entry) in context.below(&real) {
                    let relative = if real.is_empty() { below.as_str() } else { &below[real.len() + 1..] };
                    if !excludes.leaves_out(relative) && !excludes.leaves_out(below) {
                        items.push(of_entry(context, relative.to_owned(), entry));
                    }
                }
                GroupKind::Directory
            }
        }
        Source::View(view) => {
            let real = view.resolve(&rooted(path))?;
            let Some((meta, size)) = view.meta(&real) else { return Ok(None) };
            if meta.kind == Kind::Directory {
                walk(view, &real, "", excludes, &mut items, 0)?;
                GroupKind::Directory
            } else {
                items.push(of_view(view, &real, String::new(), meta, size)?);
                GroupKind::File
            }
        }
    };
    if kind == GroupKind::File && (excludes.leaves_out(path) || excludes.leaves_out(&base_name(path))) {
        return Ok(None);
    }
    if items.len() > MAX_ITEMS {
        return Err(Error::invalid(format!("more than {MAX_ITEMS} files are copied at once")));
    }
    if copy.parents {
        return Ok(Some(with_parents(path, text, kind, items)));
    }
    Ok(Some(Group { name: base_name(path), kind, items }))
}

/// `--parents`: the path is kept, from `/./` on if that is in it.
fn with_parents(path: &str, text: &str, kind: GroupKind, items: Vec<Item>) -> Group {
    let pivot = text.find("/./").map_or(0, |at| clean(&text[..at]).len() + 1);
    let kept = path.get(pivot..).unwrap_or(path).trim_start_matches('/').to_owned();
    let items = items
        .into_iter()
        .map(|item| Item { path: if item.path.is_empty() { kept.clone() } else { join(&kept, &item.path) }, ..item })
        .collect::<Vec<_>>();
    let mut all = Vec::new();
    if kind == GroupKind::Directory && !kept.is_empty() {
        let meta = Meta::directory();
        all.push(Item { digest: meta.digest(0, None), path: kept, meta, content: From::Nothing });
    }
    all.extend(items);
    Group { name: String::new(), kind: GroupKind::Directory, items: all }
}

fn of_entry(context: &Arc<Context>, path: String, entry: &Entry) -> Item {
    let content = From::Context(context.clone(), entry.content.clone());
    Item { path, meta: entry.meta.clone(), content, digest: entry.digest.clone() }
}

fn of_view(view: &View, real: &Path, path: String, meta: Meta, size: u64) -> Result<Item> {
    let content = if meta.kind == Kind::File {
        let mut file = view.open_file(real)?;
        let (mut hasher, mut buffer) = (Hasher::sha256(), vec![0; 128 << 10]);
        loop {
            let count = file.read(&mut buffer).context(format!("read {}", real.display()))?;
            if count == 0 {
                break;
            }
            hasher.update(&buffer[..count]);
        }
        Some(hasher.finish())
    } else {
        None
    };
    let digest = meta.digest(size, content.as_ref());
    Ok(Item { path, content: From::View(real.to_owned(), size), digest, meta })
}

fn walk(view: &View, dir: &Path, prefix: &str, excludes: &Ignore, out: &mut Vec<Item>, depth: usize) -> Result<()> {
    if depth > MAX_DEPTH || out.len() > MAX_ITEMS {
        return Err(Error::invalid("directories are nested too deeply, or hold too many files"));
    }
    for name in view.names(dir)? {
        let (real, path) = (dir.join(&name), join(prefix, &name));
        let Some((meta, size)) = view.meta(&real) else { continue };
        if excludes.leaves_out(&path) {
            continue;
        }
        let directory = meta.kind == Kind::Directory;
        out.push(of_view(view, &real, path.clone(), meta, size)?);
        if directory {
            walk(view, &real, &path, excludes, out, depth + 1)?;
        }
    }
    Ok(())
}

/// The files of an archive, if a file is one, whatever it is packed with.
fn unpacked(context: &Arc<Context>, entry: &Entry) -> Result<Option<Vec<Item>>> {
    if !is_archive(context, entry)? {
        return Ok(None);
    }
    let inner = Arc::new(context.unpack(&entry.content).context("unpack an archive")?);
    Ok(Some(inner.entries().iter().map(|(path, entry)| of_entry(&inner, path.clone(), entry)).collect()))
}

fn is_archive(context: &Context, entry: &Entry) -> Result<bool> {
    if entry.meta.kind != Kind::File || entry.content.length() == 0 {
        return Ok(false);
    }
    let stream = decompress::reader(context.open(&entry.content)).context("unpack an archive")?;
    let mut head = Vec::new();
    if stream.take(512).read_to_end(&mut head).is_err() || head.len() < 512 {
        return Ok(false);
    }
    let mut header = tar::Header::new_old();
    header.as_mut_bytes().copy_from_slice(&head);
    let sum: u32 = head[..148].iter().chain(&head[156..]).map(|byte| u32::from(*byte)).sum::<u32>() + 8 * 32;
    Ok(header.cksum().is_ok_and(|own| own == sum))
}

/// Writes what was found into a layer over an image whose file system `view` shows.
pub fn write(
    wanted: &Wanted,
    groups: &[Group],
    source: &Source,
    view: &View,
    now: u64,
    layer: &mut LayerWriter<'_>,
) -> Result<()> {
    let copy = &wanted.copy;
    let destination = &copy.destination;
    let slash = destination.ends_with('/') || destination == "." || destination.ends_with("/.") || copy.parents;
    if groups.len() > 1 && !slash {
        return Err(Error::invalid(format!(
            "When using {} with more than one source file, the destination must be a directory and end with a /",
            keyword(copy)
        )));
    }
    let owner = copy.chown.as_deref().map(|chown| owner_of(chown, view)).transpose()?;
    let mode = copy.chmod.as_deref().map(mode_of).transpose()?;
    let target = view.resolve(&Path::new("/").join(&wanted.working_dir).join(destination))?;
    let is_directory = view.is_directory(&target);
    let exists = is_directory || view.stat(&target).is_some();
    let mut writer = Writer { view, layer, owner: owner.unwrap_or((0, 0)), now, made: HashSet::new() };
    for group in groups {
        let keep_owner = group.kind == GroupKind::Archive && owner.is_none();
        let attributes = |meta: &Meta| {
            let mut meta = meta.clone();
            if !keep_owner {
                (meta.uid, meta.gid) = owner.unwrap_or((0, 0));
            }
            if let (Some(mode), false) = (mode, matches!(meta.kind, Kind::Symlink(_))) {
                meta.mode = mode;
            }
            meta
        };
        if group.kind == GroupKind::File {
            let Some(item) = group.items.first() else { continue };
            let path = if slash || is_directory { target.join(&group.name) } else { target.clone() };
            if writer.view.is_directory(&path) {
                return Err(Error::invalid(format!(
                    "{} failed: cannot overwrite directory {} with a file",
                    keyword(copy),
                    path.display()
                )));
            }
            writer.parents(&path)?;
            writer.layer.item(&path, item, &attributes(&item.meta), source)?;
            continue;
        }
        if exists && !is_directory {
            return Err(Error::invalid(format!("cannot copy to non-directory: {}", target.display())));
        }
        writer.directory(&target)?;
        for item in &group.items {
            let path = target.join(&item.path);
            writer.parents(&path)?;
            if item.meta.kind == Kind::Directory {
                writer.made.insert(path.clone());
            } else if writer.view.is_directory(&path) {
                return Err(Error::invalid(format!(
                    "{} failed: cannot overwrite directory {} with a file",
                    keyword(copy),
                    path.display()
                )));
            }
            writer.layer.item(&path, item, &attributes(&item.meta), source)?;
        }
    }
    Ok(())
}

struct Writer<'a, 'b> {
    view: &'a View,
    layer: &'a mut LayerWriter<'b>,
    owner: (u32, u32),
    now: u64,
    /// Directories that the layer has already.
    made: HashSet<PathBuf>,
}

impl Writer<'_, '_> {
    /// Makes a directory that is not there, and those above it.
    fn directory(&mut self, path: &Path) -> Result<()> {
        let mut missing = Vec::new();
        for dir in path.ancestors().filter(|dir| dir.parent().is_some()) {
            if self.made.contains(dir) || self.view.is_directory(dir) {
                break;
            }
            missing.push(dir.to_owned());
        }
        for dir in missing.into_iter().rev() {
            let meta = Meta { uid: self.owner.0, gid: self.owner.1, mtime: self.now, ..Meta::directory() };
            self.layer.directory(&dir, &meta)?;
            self.made.insert(dir);
        }
        Ok(())
    }

    fn parents(&mut self, path: &Path) -> Result<()> {
        path.parent().map_or(Ok(()), |parent| self.directory(parent))
    }
}

/// Makes a working directory where there is none.
pub fn write_directory(path: &str, view: &View, now: u64, layer: &mut LayerWriter<'_>) -> Result<()> {
    let path = view.resolve(Path::new(path))?;
    if view.stat(&path).is_some() && !view.is_directory(&path) {
        return Err(Error::invalid(format!("Cannot mkdir: {} is not a directory", path.display())));
    }
    Writer { view, layer, owner: (0, 0), now, made: HashSet::new() }.directory(&path)
}

/// `user[:group]` as numbers; a user alone is also the group, as COPY has it.
fn owner_of(text: &str, view: &View) -> Result<(u32, u32)> {
    let (user, group) = text.split_once(':').unwrap_or((text, text));
    let find = |name: &str, file: &str, what: &str| -> Result<u32> {
        if let Ok(number) = name.parse::<u32>() {
            return Ok(number);
        }
        let mut lines = String::new();
        if let Some(file) = view.read(file) {
            // One that is not text names nobody.
            let _ = file.take(1 << 20).read_to_string(&mut lines);
        }
        let found = lines.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
        });
        let id = if what == "user" { "uid" } else { "gid" };
        found.ok_or_else(|| {
            Error::invalid(format!(
                "unable to convert uid/gid chown string to host mapping: can't find {id} for {what} {name}: no such {what}: {name}"
            ))
        })
    };
    let or_root = |name: &str| if name.is_empty() { "0".to_owned() } else { name.to_owned() };
    Ok((find(&or_root(user), "/etc/passwd", "user")?, find(&or_root(group), "/etc/group", "group")?))
}

fn mode_of(text: &str) -> Result<u32> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777);
    mode.ok_or_else(|| {
        Error::invalid(format!("invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777"))
    })
}
