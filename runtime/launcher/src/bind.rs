//! The source of a bind mount, and what mount_setattr(2) makes of its options.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use crate::{mount_options::MountOptions, spec::MountSpec, sys};

pub const READ_ONLY: u64 = 0x1;
const NO_ATIME: u64 = 0x10;
const STRICT_ATIME: u64 = 0x20;
/// The times of access are one field, which has to be cleared to be changed; 0 in it is relatime.
const ATIME_FIELD: u64 = 0x70;

/// `MS_*` of mount(2) and what the same is called for a mount. Other flags are the file system's, of which a bind mount
/// changes nothing.
const ATTRIBUTES: [(u64, u64); 6] = [
    (libc::MS_RDONLY, READ_ONLY),
    (libc::MS_NOSUID, 0x2),
    (libc::MS_NODEV, 0x4),
    (libc::MS_NOEXEC, 0x8),
    (libc::MS_NODIRATIME, 0x80),
    (256, 0x20_0000),
];

/// What is to be bound, found once.
pub struct Source {
    path: String,
    /// Keeps the path alive where it is a descriptor's.
    _part: Option<OwnedFd>,
}

impl Source {
    pub fn of(mount: &MountSpec) -> io::Result<Source> {
        let Some(part) = &mount.options.subpath else {
            return Ok(Source { path: mount.source.clone(), _part: None });
        };
        let whole = sys::open(&mount.source, libc::O_PATH | libc::O_DIRECTORY, 0)?;
        // Who shares the whole may put a link anywhere in it, at any time.
        let resolve = sys::RESOLVE_BENEATH | sys::RESOLVE_NO_MAGICLINKS;
        let part = sys::openat2(whole.as_fd(), part, libc::O_PATH, 0, resolve)?;
        Ok(Source { path: format!("/proc/self/fd/{}", part.as_raw_fd()), _part: Some(part) })
    }

    pub fn path(&self) -> &str {
        &self.path
    }
}

/// Gives a mount that is mounted nowhere yet its attributes, and those of the whole tree that are asked for.
pub fn set_attributes(tree: &OwnedFd, options: &MountOptions) -> io::Result<()> {
    let no_atime = sys::statfs_flags(tree)? & libc::MS_NOATIME != 0;
    let (set, clear) = attributes(options, no_atime);
    if (set, clear) != (0, 0) {
        sys::mount_setattr(tree, false, set, clear)?;
    }
    match options.recursive {
        (0, 0) => Ok(()),
        (set, clear) => sys::mount_setattr(tree, true, set, clear),
    }
}

/// `MOUNT_ATTR_*` to set and to clear on a mount that has `noatime` or not.
fn attributes(options: &MountOptions, no_atime: bool) -> (u64, u64) {
    let named =
        |flags: u64| ATTRIBUTES.iter().filter(|(flag, _)| flags & flag != 0).fold(0, |all, (_, name)| all | name);
    let (mut set, mut clear) = (named(options.flags), named(options.cleared));
    let times = if options.flags & libc::MS_NOATIME != 0 {
        Some(NO_ATIME)
    } else if options.flags & libc::MS_STRICTATIME != 0 {
        Some(STRICT_ATIME)
    } else if options.flags & libc::MS_RELATIME != 0 || options.cleared & libc::MS_NOATIME != 0 && no_atime {
        Some(0)
    } else {
        None
    };
    if let Some(times) = times {
        set |= times;
        clear |= ATIME_FIELD;
    }
    (set, clear)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_become_attributes() {
        let of = |words: &[&str], no_atime| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            attributes(&MountOptions::parse(&words).unwrap(), no_atime)
        };
        assert_eq!(of(&["rbind", "ro", "nosuid", "exec", "nosymfollow"], false), (0x20_0003, 0x8));
        assert_eq!(of(&["bind", "rw", "sync"], false), (0, 0x1));
        assert_eq!(of(&["bind", "relatime"], true), (0, 0x70));
        assert_eq!(of(&["bind", "noatime", "nodiratime"], false), (0x90, 0x70));
        assert_eq!(of(&["bind", "strictatime"], false), (0x20, 0x70));
        assert_eq!((of(&["bind", "atime"], false), of(&["bind", "atime"], true)), ((0, 0), (0, 0x70)));
    }
}
