//! `docker cp`, `export`, `diff`: a container's files as tar streams, in and out.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::fd::AsFd,
    path::{Component, Path, PathBuf},
};

use axum::body::Body;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use coracle_launcher::sys;
use http::{HeaderValue, Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{
    super::{
        archives::BodyWriter,
        http::{Answer, Call, Problem, empty, ok, stream},
        metrics::Action,
    },
    Container, filesystem,
    filesystem::Tree,
};
use crate::{
    error::{Context, Error, Result},
    snapshots::Root,
};

/// Go's `os.FileMode` of a file's mode.
fn go_mode(mode: u32) -> u32 {
    let kind = match mode & libc::S_IFMT {
        libc::S_IFDIR => 1 << 31,
        libc::S_IFLNK => 1 << 27,
        libc::S_IFBLK => 1 << 26,
        libc::S_IFIFO => 1 << 25,
        libc::S_IFSOCK => 1 << 24,
        libc::S_IFCHR => 1 << 26 | 1 << 21,
        _ => 0,
    };
    let bit = |own: u32, go: u32| if mode & own != 0 { go } else { 0 };
    kind | mode & 0o777 | bit(0o4000, 1 << 23) | bit(0o2000, 1 << 22) | bit(0o1000, 1 << 20)
}

fn missing(container: &str, path: &str) -> Problem {
    Problem::not_found(format!("Could not find the file {path} in container {container}"))
}

/// What `X-Docker-Container-Path-Stat` says of a path; its last part is not followed.
fn stat(tree: &Tree, path: &Path) -> io::Result<Value> {
    use std::os::unix::fs::MetadataExt;
    let (parent, name) = tree.parent(path)?;
    let place = match &name {
        Some(name) => Tree::path_of(&parent).join(name),
        None => Tree::path_of(&parent).join("."),
    };
    let metadata = fs::symlink_metadata(&place)?;
    let link =
        if metadata.is_symlink() { fs::read_link(&place)?.to_string_lossy().into_owned() } else { String::new() };
    let link = match (link.as_str(), path.parent()) {
        ("", _) => String::new(),
        (link, Some(parent)) => super::mounts::clean(&parent.join(link).to_string_lossy()),
        (link, None) => link.to_owned(),
    };
    let mtime = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
    Ok(json!({
        "name": name.map_or_else(|| "/".to_owned(), |name| name.to_string_lossy().into_owned()),
        "size": metadata.len(),
        "mode": go_mode(metadata.mode()),
        "mtime": jiff::Timestamp::from_nanosecond(mtime).unwrap_or_default().to_string(),
        "linkTarget": link,
    }))
}

/// The path of a query, absolute; a slash at the end asks for a directory.
fn wanted_path(call: &Call) -> Result<(PathBuf, bool), Problem> {
    let text = call.query.text("path");
    if text.is_empty() {
        return Err(Problem::bad("missing path parameter"));
    }
    Ok((super::mounts::clean(&format!("/{text}")).into(), text.ends_with('/') || text.ends_with("/.")))
}

/// The tree and the path in it; what lies in a volume of a container that does not run is found there.
fn locate(docker: &super::super::Docker, container: &Container, path: &Path) -> Result<(Tree, PathBuf)> {
    if !container.runs() {
        let points = container.with(|record| record.mounts.clone());
        let deepest = points
            .iter()
            .filter(|point| path.starts_with(&point.destination) && !point.source.is_empty())
            .max_by_key(|point| point.destination.len());
        if let Some(point) = deepest
            && Path::new(&point.source).is_dir()
            && let Ok(rest) = path.strip_prefix(&point.destination)
            && !rest.as_os_str().is_empty()
        {
            let root = sys::open(&point.source, libc::O_PATH | libc::O_DIRECTORY, 0).context("open a volume")?;
            return Ok((Tree::new(root), Path::new("/").join(rest)));
        }
    }
    Ok((docker.root_of(container)?, path.to_owned()))
}

pub async fn head(call: Call) -> Answer {
    let (path, _) = wanted_path(&call)?;
    let container = call.docker.container(call.name())?;
    let (docker, name, shown) = (call.docker.clone(), call.name().to_owned(), path.clone());
    let work = tokio::task::spawn_blocking(move || -> Result<Value, Problem> {
        let (tree, inside) = locate(&docker, &container, &path)?;
        stat(&tree, &inside).map_err(|error| path_problem(&error, &name, &shown))
    });
    let value = work.await.map_err(crate::Error::from)??;
    let mut response = Response::new(Body::empty());
    response.headers_mut().insert("X-Docker-Container-Path-Stat", stat_header(&value)?);
    Ok(response)
}

fn stat_header(value: &Value) -> Result<HeaderValue, Problem> {
    HeaderValue::try_from(BASE64_STANDARD.encode(value.to_string()))
        .map_err(|error| Problem::internal(error.to_string()))
}

fn path_problem(error: &io::Error, name: &str, path: &Path) -> Problem {
    match error.raw_os_error() {
        Some(libc::ENOENT) => missing(name, &path.to_string_lossy()),
        Some(libc::ENOTDIR) => Problem::bad("not a directory"),
        _ => Problem::internal(format!("{}: {error}", path.display())),
    }
}

pub async fn get(call: Call) -> Answer {
    let (path, directory) = wanted_path(&call)?;
    let container = call.docker.container(call.name())?;
    let (docker, name) = (call.docker.clone(), call.name().to_owned());
    let (sender, receiver) = mpsc::channel(8);
    let shown = path.clone();
    let told = container.clone();
    let work = tokio::task::spawn_blocking(move || -> Result<(Tree, PathBuf, Value), Problem> {
        let (tree, inside) = locate(&docker, &container, &path)?;
        let value = stat(&tree, &inside).map_err(|error| path_problem(&error, &name, &shown))?;
        if directory && value["mode"].as_u64().is_some_and(|mode| mode & (1 << 31 | 1 << 27) == 0) {
            return Err(Problem::bad("extraction point is not a directory"));
        }
        Ok((tree, inside, value))
    });
    let (tree, inside, value) = work.await.map_err(crate::Error::from)??;
    call.docker.tell(&told, "archive-path");
    let header = stat_header(&value)?;
    let name = inside.file_name().map_or_else(|| PathBuf::from("/"), PathBuf::from);
    tokio::task::spawn_blocking(move || {
        if let Err(error) = filesystem::pack_path(&tree, &inside, &name, BodyWriter::new(sender)) {
            tracing::debug!(%error, "an archive ended early");
        }
    });
    let mut response = stream("application/x-tar", receiver);
    response.headers_mut().insert("X-Docker-Container-Path-Stat", header);
    Ok(response)
}

pub async fn put(call: Call) -> Answer {
    let (path, _) = wanted_path(&call)?;
    let keep_type = call.query.flag("noOverwriteDirNonDir");
    let container = call.docker.container(call.name())?;
    if container.with(|record| record.host.readonly_rootfs)
        && container.with(|record| !record.mounts.iter().any(|point| point.rw && path.starts_with(&point.destination)))
    {
        return Err(Problem::denied("container rootfs is marked read-only"));
    }
    let (docker, name) = (call.docker.clone(), call.name().to_owned());
    let (daemon, told) = (docker.clone(), container.clone());
    let reader = call.reader();
    let work = tokio::task::spawn_blocking(move || -> Result<(), Problem> {
        let (tree, inside) = locate(&docker, &container, &path)?;
        let target = tree.open(&inside, libc::O_PATH).map_err(|error| path_problem(&error, &name, &path))?;
        if !fs::metadata(Tree::path_of(&target)).is_ok_and(|metadata| metadata.is_dir()) {
            return Err(Problem::bad("extraction point is not a directory"));
        }
        Ok(extract(&Tree::new(target), reader, keep_type)?)
    });
    work.await.map_err(crate::Error::from)??;
    daemon.tell(&told, "extract-to-dir");
    empty(StatusCode::OK)
}

/// Unpacks a tar stream below a tree. Names are resolved inside it, whatever links are there or come along.
pub fn extract(tree: &Tree, reader: impl Read, keep_type: bool) -> Result<()> {
    let mut archive = tar::Archive::new(io::BufReader::with_capacity(1 << 16, reader));
    // Directories get their times last: what is put into them changes them.
    let mut times: Vec<(PathBuf, u64)> = Vec::new();
    for entry in archive.entries().context("read the archive")? {
        let mut entry = entry.context("read the archive")?;
        let path: PathBuf = entry.path().context("read the archive")?.into_owned();
        let path: PathBuf = Path::new("/")
            .join(path.components().filter(|part| matches!(part, Component::Normal(_))).collect::<PathBuf>());
        let what = format!("extract {}", path.display());
        if path == Path::new("/") {
            continue;
        }
        if let Some(parent) = path.parent() {
            make_directories(tree, parent).context(&what)?;
        }
        extract_one(tree, &mut entry, &path, keep_type).context(&what)?;
        if entry.header().entry_type().is_dir() {
            times.push((path, entry.header().mtime().unwrap_or(0)));
        }
    }
    // The padding behind the end, and the end of the body: closed before, a client that still sends takes it for a failure.
    // No more than Go's server reads after an answer.
    let _ = io::copy(&mut archive.into_inner().take(256 << 10), &mut io::sink());
    for (path, mtime) in times.into_iter().rev() {
        if let Ok(fd) = tree.open(&path, libc::O_RDONLY | libc::O_DIRECTORY) {
            set_time(&File::from(fd), mtime);
        }
    }
    Ok(())
}

fn set_time(file: &File, mtime: u64) {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(mtime);
    // Times are a courtesy.
    let _ = file.set_times(fs::FileTimes::new().set_modified(time).set_accessed(time));
}

fn extract_one(tree: &Tree, entry: &mut tar::Entry<'_, impl Read>, path: &Path, keep_type: bool) -> Result<()> {
    let (parent, name) = tree.parent(path).context("find the directory")?;
    let name = name.ok_or_else(|| Error::invalid("an entry has no name"))?;
    let place = Tree::path_of(&parent).join(&name);
    let (kind, mode) = (entry.header().entry_type(), entry.header().mode().unwrap_or(0o644) & 0o7777);
    let existing = fs::symlink_metadata(&place).ok();
    if let Some(existing) = &existing {
        if keep_type && existing.is_dir() != kind.is_dir() && !existing.is_symlink() {
            let (from, to) =
                if kind.is_dir() { ("directory", "non-directory") } else { ("non-directory", "directory") };
            return Err(Error::invalid(format!("cannot overwrite {to} {path:?} with {from} {path:?}")));
        }
        if !(existing.is_dir() && kind.is_dir()) {
            if existing.is_dir() { fs::remove_dir_all(&place) } else { fs::remove_file(&place) }.context("replace")?;
        }
    }
    // O_PATH descriptors cannot be made into; their path can.
    let dir = File::open(Tree::path_of(&parent)).context("open the directory")?;
    match kind {
        tar::EntryType::Directory => {
            if !existing.is_some_and(|existing| existing.is_dir()) {
                sys::mkdirat(dir.as_fd(), &name, mode).context("make a directory")?;
            }
        }
        tar::EntryType::Symlink => {
            let target = entry.link_name().ok().flatten().ok_or_else(|| Error::invalid("a link leads nowhere"))?;
            sys::symlinkat(target.as_os_str(), dir.as_fd(), &name).context("make a link")?;
        }
        tar::EntryType::Link => {
            let target = entry.link_name().ok().flatten().ok_or_else(|| Error::invalid("a link leads nowhere"))?;
            let target = Path::new("/")
                .join(target.components().filter(|part| matches!(part, Component::Normal(_))).collect::<PathBuf>());
            let (from, last) = tree.parent(&target).context("find a link's target")?;
            let last = last.ok_or_else(|| Error::invalid("a link leads nowhere"))?;
            fs::hard_link(Tree::path_of(&from).join(last), &place).context("make a link")?;
            return Ok(());
        }
        tar::EntryType::Fifo | tar::EntryType::Char | tar::EntryType::Block => {
            let bits = match kind {
                tar::EntryType::Fifo => libc::S_IFIFO,
                tar::EntryType::Char => libc::S_IFCHR,
                _ => libc::S_IFBLK,
            };
            let number = |part: io::Result<Option<u32>>| part.ok().flatten().unwrap_or(0);
            let device = libc::makedev(number(entry.header().device_major()), number(entry.header().device_minor()));
            sys::mknodat(dir.as_fd(), &name, bits | mode, device).context("make a device")?;
        }
        tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse => {
            let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_CLOEXEC;
            let fd = sys::openat2(dir.as_fd(), Path::new(&name), flags, mode, 0).context("make a file")?;
            let mut file = File::from(fd);
            io::copy(entry, &mut file).context("write a file")?;
            own(&place, entry, Some(mode))?;
            set_time(&file, entry.header().mtime().unwrap_or(0));
            return Ok(());
        }
        // Headers that say something of others were read by the archive itself.
        _ => return Ok(()),
    }
    own(&place, entry, (kind != tar::EntryType::Symlink).then_some(mode))
}

/// Owner and mode as the archive says.
fn own(place: &Path, entry: &tar::Entry<'_, impl Read>, mode: Option<u32>) -> Result<()> {
    use std::os::unix::fs::{PermissionsExt, lchown};
    let id = |number: io::Result<u64>| number.ok().and_then(|number| u32::try_from(number).ok());
    lchown(place, id(entry.header().uid()), id(entry.header().gid())).context("set the owner")?;
    if let Some(mode) = mode {
        fs::set_permissions(place, fs::Permissions::from_mode(mode)).context("set the mode")?;
    }
    Ok(())
}

/// Makes what is missing of a path, inside the tree.
pub fn make_directories(tree: &Tree, path: &Path) -> Result<()> {
    if tree.open(path, libc::O_PATH | libc::O_DIRECTORY).is_ok() {
        return Ok(());
    }
    let mut walked = PathBuf::from("/");
    for part in path.components().filter(|part| matches!(part, Component::Normal(_))) {
        let dir = tree.open(&walked, libc::O_RDONLY | libc::O_DIRECTORY).context("open a directory")?;
        walked.push(part);
        match sys::mkdirat(dir.as_fd(), part.as_os_str(), 0o755) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(error).context(format!("make {}", walked.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

pub async fn export(call: Call) -> Answer {
    let container = call.docker.container(call.name())?;
    let docker = call.docker.clone();
    let (sender, receiver) = mpsc::channel(8);
    let exported = container.clone();
    let tree = tokio::task::spawn_blocking(move || docker.own_root(&exported)).await.map_err(crate::Error::from)??;
    tokio::task::spawn_blocking(move || {
        if let Err(error) = filesystem::pack_path(&tree, Path::new("/"), Path::new("/"), BodyWriter::new(sender)) {
            tracing::debug!(%error, "an export ended early");
        }
    });
    call.docker.tell(&container, "export");
    Ok(stream("application/x-tar", receiver))
}

pub async fn changes(call: Call) -> Answer {
    let container = call.docker.container(call.name())?;
    let (docker, began) = (call.docker.clone(), std::time::Instant::now());
    let work = tokio::task::spawn_blocking(move || -> Result<Vec<Value>> {
        let Root::Mount { options, .. } = docker.engine.root_of(&container.engine)? else { return Ok(Vec::new()) };
        let hidden = filesystem::hidden(&container.record());
        let found = filesystem::changes(&options, &hidden)?;
        Ok(found.into_iter().map(|change| json!({ "Path": change.path, "Kind": change.kind })).collect())
    });
    let list = work.await.map_err(crate::Error::from)??;
    call.docker.metrics.did(Action::Changes, began);
    ok(&if list.is_empty() { Value::Null } else { json!(list) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_stay_inside() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        let root = dir.path().join("root");
        fs::create_dir_all(&root).unwrap();
        fs::create_dir_all(&outside).unwrap();
        std::os::unix::fs::symlink(&outside, root.join("link")).unwrap();
        let mut builder = tar::Builder::new(Vec::new());
        let mut add = |name: &str, text: &str| {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o640);
            header.set_size(text.len() as u64);
            header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            builder.append(&header, text.as_bytes()).unwrap();
        };
        add("good/file", "hello");
        add("../../escape", "no");
        add("link/through", "no");
        let bytes = builder.into_inner().unwrap();
        let tree = Tree::new(sys::open(&root, libc::O_PATH | libc::O_DIRECTORY, 0).unwrap());
        // The link leads to a place that is not there inside.
        let _ = extract(&tree, &bytes[..], false);
        assert_eq!(fs::read_to_string(root.join("good/file")).unwrap(), "hello");
        assert!(root.join("escape").exists() && !dir.path().join("escape").exists());
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        let mut packed = Vec::new();
        filesystem::pack_path(&tree, Path::new("/good"), Path::new("good"), &mut packed).unwrap();
        let mut names: Vec<String> = tar::Archive::new(&packed[..])
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().to_string_lossy().into_owned())
            .collect();
        names.sort();
        assert_eq!(names, ["good/", "good/file"]);
    }

    #[test]
    fn modes_are_gos() {
        assert_eq!(go_mode(libc::S_IFDIR | 0o755), 1 << 31 | 0o755);
        assert_eq!(go_mode(libc::S_IFREG | 0o4755), 1 << 23 | 0o755);
    }
}
