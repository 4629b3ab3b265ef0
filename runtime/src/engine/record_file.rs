//! Files that hold one record: a reader sees all of it or all of the one before.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, RenameFlags, renameat_with};

fn paths(dir: &Path, name: &str) -> (PathBuf, PathBuf) {
    (dir.join(name), dir.join(format!(".{name}.part")))
}

/// Replaces a record that others may be reading meanwhile; a power loss takes it, with what it is for.
pub(super) fn replace(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let (path, part) = paths(dir, name);
    fs::write(&part, bytes)?;
    fs::rename(part, path)
}

/// Replaces a record that is read only where nobody writes it any more, so that a power loss does not take it.
///
/// The file of the record before stays, and takes the next one: so no block is given back to the file system. On one that is
/// mounted with `discard` and has no journal, each that is costs a command to the disk that is waited for, and `rename` over
/// a file also waits for what of the new one is not on the disk yet (ext4(5), `auto_da_alloc`).
pub(crate) fn exchange(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let (path, part) = paths(dir, name);
    let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(&part)?;
    file.write_all(bytes)?;
    let length = bytes.len() as u64;
    if file.metadata()?.len() != length {
        file.set_len(length)?;
    }
    file.sync_data()?;
    match renameat_with(CWD, &part, CWD, &path, RenameFlags::EXCHANGE) {
        // There is no record yet; or a file system, or a kernel, that cannot.
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            fs::rename(&part, &path)?;
        }
        result => result?,
    }
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn the_file_of_the_record_before_takes_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r");
        let mut inodes = Vec::new();
        for text in ["first", "the second, which is longer", "3", "fourth"] {
            exchange(dir.path(), "r", text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            inodes.push(fs::metadata(&path).unwrap().ino());
        }
        assert!(inodes[0] == inodes[2] && inodes[1] == inodes[3] && inodes[0] != inodes[1], "{inodes:?}");
    }

    #[test]
    fn who_reads_a_record_that_is_replaced_reads_on_in_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        replace(dir.path(), "r", b"old").unwrap();
        let reader = File::open(dir.path().join("r")).unwrap();
        for text in ["new", "newer"] {
            replace(dir.path(), "r", text.as_bytes()).unwrap();
        }
        assert_eq!(io::read_to_string(reader).unwrap(), "old");
    }

    #[test]
    fn what_a_kill_left_of_a_longer_record_does_not_show() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(".r.part"), "half of something much longer").unwrap();
        exchange(dir.path(), "r", b"{}").unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("r")).unwrap(), "{}");
    }
}
