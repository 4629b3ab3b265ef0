//! Where a file system puts directories.

use std::{
    fs::{self, File},
    path::Path,
};

use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};

use crate::error::{Context, Result};

/// Makes a directory whose subdirectories have nothing to do with each other, and tells the file system so.
///
/// ext4 puts a directory and what is in it near its parent; below a directory with this flag each gets an area of its own
/// (chattr(1), `T`). That matters where directories come and go: without a journal ext4 gives nobody the inode of a file
/// removed within the last minute, and finds a free one by looking at each of those in the area (`recently_deleted` in
/// fs/ext4/ialloc.c), so that making a container after fifty were removed took ten times as long. File systems that know no
/// such flag refuse it, and need none.
pub fn create_unrelated(dir: &Path) -> Result<()> {
    let what = || format!("create {}", dir.display());
    fs::create_dir_all(dir).context(what())?;
    let handle = File::open(dir).context(what())?;
    if let Ok(flags) = ioctl_getflags(&handle)
        && !flags.contains(IFlags::TOPDIR)
        && let Err(error) = ioctl_setflags(&handle, flags | IFlags::TOPDIR)
    {
        tracing::debug!(dir = %dir.display(), %error, "the file system places directories as it likes");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subdirectories_are_placed_apart_where_the_file_system_can() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("a/b");
        create_unrelated(&dir).unwrap();
        create_unrelated(&dir).unwrap();
        let ext4 = nix::sys::statfs::statfs(&dir).unwrap().filesystem_type() == nix::sys::statfs::EXT4_SUPER_MAGIC;
        let flagged =
            |dir: &Path| ioctl_getflags(File::open(dir).unwrap()).is_ok_and(|flags| flags.contains(IFlags::TOPDIR));
        assert_eq!(flagged(&dir), ext4);
        fs::create_dir(dir.join("c")).unwrap();
        assert!(!flagged(&dir.join("c")) && !flagged(&parent.path().join("a")));
    }
}
