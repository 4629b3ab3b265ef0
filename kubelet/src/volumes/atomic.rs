//! Files that change all at once (kubernetes `pkg/volume/util/atomic_writer.go`).
//!
//! The files are in a directory of their own, `..data` is a symlink to it, and each name in the volume is a symlink through
//! `..data`. A new set is written beside the old one, then `..data` is replaced by a rename.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::{Component, Path, PathBuf};

use super::payload::Payload;

const DATA: &str = "..data";
const DATA_NEW: &str = "..data_tmp";

/// Makes the directory hold exactly the payload. Whether anything changed.
pub fn write(directory: &Path, payload: &Payload, group: Option<u32>) -> io::Result<bool> {
    for name in payload.keys() {
        check_name(name)?;
    }
    let old = fs::read_link(directory.join(DATA)).ok().filter(|old| old.components().count() == 1);
    if old.as_ref().is_some_and(|old| holds(&directory.join(old), payload)) {
        link_names(directory, payload)?;
        return Ok(false);
    }
    let version = make_version(directory)?;
    write_files(&directory.join(&version), payload, group)?;
    let new = directory.join(DATA_NEW);
    // One that a crash left behind.
    let _ = fs::remove_file(&new);
    symlink(&version, &new)?;
    fs::rename(&new, directory.join(DATA))?;
    link_names(directory, payload)?;
    if let Some(old) = old {
        fs::remove_dir_all(directory.join(old))?;
    }
    Ok(true)
}

/// A file's name stays inside the volume, and does not pass for one of the writer's own.
fn check_name(name: &str) -> io::Result<()> {
    let path = Path::new(name);
    let inside = path.components().all(|part| matches!(part, Component::Normal(_)));
    if name.is_empty() || !inside || name.starts_with("..") {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("invalid path: {name:?}")));
    }
    Ok(())
}

/// A new directory beside the others; the name says nothing, the order of numbers keeps it unique.
fn make_version(directory: &Path) -> io::Result<PathBuf> {
    for number in 1..=u32::MAX {
        let name = PathBuf::from(format!("..{number}"));
        match DirBuilder::new().mode(0o755).create(directory.join(&name)) {
            Ok(()) => return Ok(name),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < 1_000_000 => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("no name is free"))
}

fn write_files(version: &Path, payload: &Payload, group: Option<u32>) -> io::Result<()> {
    fs::set_permissions(version, Permissions::from_mode(0o755))?;
    for (name, file) in payload {
        let path = version.join(name);
        if let Some(parent) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
        }
        let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        out.write_all(&file.content)?;
        // With a group the group may read whatever the owner may.
        let mode = if group.is_some() { file.mode | 0o440 } else { file.mode };
        out.set_permissions(Permissions::from_mode(mode & 0o7777))?;
        if group.is_some() || file.owner.is_some() {
            chown(&path, file.owner, group)?;
        }
    }
    Ok(())
}

fn holds(version: &Path, payload: &Payload) -> bool {
    let same = |(name, file): (&String, &super::payload::File)| {
        fs::read(version.join(name)).is_ok_and(|content| content == file.content)
    };
    payload.iter().all(same) && files(version, Path::new("")).is_ok_and(|have| have.len() == payload.len())
}

fn files(base: &Path, below: &Path) -> io::Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(base.join(below))? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            found.extend(files(base, &path)?);
        } else {
            found.insert(path);
        }
    }
    Ok(found)
}

/// A symlink for each first part of a name, and none for names that are gone.
fn link_names(directory: &Path, payload: &Payload) -> io::Result<()> {
    let first = |name: &String| name.split('/').next().unwrap_or_default().to_owned();
    let wanted: BTreeSet<String> = payload.keys().map(first).collect();
    for name in &wanted {
        match symlink(Path::new(DATA).join(name), directory.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let ours = name.to_str().is_some_and(|name| name.starts_with("..") || wanted.contains(name));
        if !ours && entry.file_type()?.is_symlink() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::payload::File;
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        files
            .iter()
            .map(|(name, content)| {
                ((*name).to_owned(), File { content: content.as_bytes().to_vec(), mode: 0o644, owner: None })
            })
            .collect()
    }

    #[test]
    fn a_set_replaces_another_at_once() {
        let dir = tempfile::tempdir().unwrap();
        assert!(write(dir.path(), &payload(&[("a", "1"), ("d/e", "2"), ("gone", "x")]), None).unwrap());
        assert!(!write(dir.path(), &payload(&[("a", "1"), ("d/e", "2"), ("gone", "x")]), None).unwrap());
        let before = fs::read_link(dir.path().join(DATA)).unwrap();
        assert!(write(dir.path(), &payload(&[("a", "3"), ("d/e", "2")]), None).unwrap());
        assert_eq!(fs::read_to_string(dir.path().join("a")).unwrap(), "3");
        assert_eq!(fs::read_to_string(dir.path().join("d/e")).unwrap(), "2");
        assert!(fs::symlink_metadata(dir.path().join("gone")).is_err() && !dir.path().join(before).exists());
        assert_eq!(fs::metadata(dir.path().join("a")).unwrap().permissions().mode() & 0o777, 0o644);
    }

    #[test]
    fn names_stay_inside() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["../x", "/etc/x", "a/../../x", "..data", "", "a/./../b"] {
            assert!(write(dir.path(), &payload(&[(name, "")]), None).is_err(), "{name}");
        }
    }
}
