//! `HOME` of a process that was given none: its user's directory by the container's `/etc/passwd`, as runc has it
//! (`libcontainer/env.go`, `init_linux.go`). That file is whatever the image, or who runs in the container, made of it.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use crate::{spec::Process, sys};

const NAME: &str = "HOME=";
/// No further than this is the file read.
const MAX_PASSWD: u64 = 4 << 20;

impl Process {
    /// Whether the environment says where home is.
    pub fn has_home(&self) -> bool {
        let given = self.env.iter().rev().find_map(|entry| entry.strip_prefix(NAME));
        given.is_some_and(|home| !home.is_empty())
    }

    /// The environment with a home in it, found from the root that this process is in.
    pub fn env_with_home(&self) -> Vec<String> {
        let root = sys::open("/", libc::O_PATH | libc::O_DIRECTORY, 0).ok();
        let home = root.and_then(|root| open_passwd(&root)).and_then(|file| home_of(file, self.uid));
        let mut env: Vec<String> = self.env.iter().filter(|entry| !entry.starts_with(NAME)).cloned().collect();
        env.push(format!("{NAME}{}", home.as_deref().unwrap_or("/")));
        env
    }
}

/// A regular file, or nothing: no opening waits for anybody, and no link leads to what this process has open.
fn open_passwd(root: &OwnedFd) -> Option<File> {
    let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY;
    let resolve = sys::RESOLVE_IN_ROOT | sys::RESOLVE_NO_MAGICLINKS;
    let file = sys::openat2(root.as_fd(), Path::new("etc/passwd"), flags, 0, resolve).ok()?;
    let regular = sys::fstat(&file).ok()?.st_mode & libc::S_IFMT == libc::S_IFREG;
    regular.then(|| File::from(file))
}

/// The sixth field of the user's first line (passwd(5)); none if there is none that can be a variable.
pub fn home_of(passwd: impl Read, uid: u32) -> Option<String> {
    let lines = BufReader::new(passwd.take(MAX_PASSWD)).split(b'\n').map_while(Result::ok);
    for line in lines {
        let mut fields = line.split(|&byte| byte == b':');
        let number = fields.nth(2).and_then(|field| std::str::from_utf8(field).ok()?.parse::<u32>().ok());
        if number == Some(uid) {
            let home = fields.nth(2).and_then(|field| std::str::from_utf8(field).ok());
            return home.filter(|home| !home.is_empty() && !home.contains('\0')).map(str::to_owned);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_of_a_user_counts() {
        let passwd: &[u8] = b"# x\nroot:x:0:0:r:/root:/bin/sh\nbad:x:y\n\xff:x:5:5::/five:\na:x:7:7::/seven:\nb:x:7:7::/other:\nc:x:8:8:::\nd:x:9:9::/n\0:\ne:x:10:10::/late";
        for (uid, home) in [
            (0, Some("/root")),
            (5, Some("/five")),
            (7, Some("/seven")),
            (8, None),
            (9, None),
            (10, Some("/late")),
            (11, None),
        ] {
            assert_eq!(home_of(passwd, uid).as_deref(), home, "{uid}");
        }
        let mut long = vec![b'\n'; MAX_PASSWD as usize];
        long.extend_from_slice(b"z:x:12:12::/far:\n");
        assert_eq!(home_of(&long[..], 12), None);
    }

    #[test]
    fn only_a_file_below_the_root_is_read() {
        let dir = std::env::temp_dir().join(format!("home-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("etc")).unwrap();
        let root = || sys::open(&dir, libc::O_PATH | libc::O_DIRECTORY, 0).unwrap();
        let passwd = dir.join("etc/passwd");
        let found = || open_passwd(&root()).is_some();
        let none = found();
        // Nobody writes to it.
        sys::mkfifo(&passwd, 0o600).unwrap();
        let fifo = found();
        std::fs::remove_file(&passwd).unwrap();
        std::os::unix::fs::symlink("/etc/other", &passwd).unwrap();
        let outside = found();
        std::fs::write(dir.join("etc/other"), "").unwrap();
        let inside = found();
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!((none, fifo, outside, inside), (false, false, false, true));
    }
}
