//! What openat2(2) does, one name at a time, for kernels before 5.6.
//!
//! Every directory on the way is held open, so that `..` goes back to where the walk came from, wherever that directory
//! has been moved meanwhile, and never above the root. Names are opened with O_NOFOLLOW; links are read and followed here.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use crate::sys::{self, RESOLVE_BENEATH, RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS};

/// As many as the kernel follows (path_resolution(7)).
const MAX_LINKS: usize = 40;
/// A name that changes between a look at it and its opening is looked at again this often.
const MAX_TRIES: usize = 128;

/// openat2(2): `flags` are those of open(2), `resolve` is at least one of the restrictions.
pub fn open(root: BorrowedFd<'_>, path: &Path, flags: i32, mode: u32, resolve: u64) -> io::Result<OwnedFd> {
    let mut walk = Walk { root, dirs: Vec::new(), left: Vec::new(), links: 0, resolve };
    walk.push(path.as_os_str())?;
    walk.open(flags, mode)
}

fn errno(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}

struct Walk<'a> {
    root: BorrowedFd<'a>,
    /// The directories below the root, down to where the walk is.
    dirs: Vec<OwnedFd>,
    /// Names still to go, the next one last.
    left: Vec<OsString>,
    links: usize,
    resolve: u64,
}

impl Walk<'_> {
    fn here(&self) -> BorrowedFd<'_> {
        self.dirs.last().map_or(self.root, AsFd::as_fd)
    }

    /// Puts the names of a path before those that are left.
    fn push(&mut self, path: &OsStr) -> io::Result<()> {
        let bytes = path.as_bytes();
        match bytes.first() {
            None => return Err(errno(libc::ENOENT)),
            Some(b'/') if self.resolve & RESOLVE_IN_ROOT != 0 => self.dirs.clear(),
            Some(b'/') => return Err(errno(libc::EXDEV)),
            Some(_) => {}
        }
        // What ends with a slash is a directory.
        if bytes.ends_with(b"/") {
            self.left.push(".".into());
        }
        let names = bytes.split(|&byte| byte == b'/').filter(|name| !name.is_empty());
        self.left.extend(names.rev().map(|name| OsStr::from_bytes(name).to_owned()));
        Ok(())
    }

    fn open(&mut self, flags: i32, mode: u32) -> io::Result<OwnedFd> {
        while let Some(name) = self.left.pop() {
            let last = self.left.is_empty();
            match name.as_bytes() {
                b"." if !last => {}
                b".." => {
                    if self.dirs.pop().is_none() && self.resolve & RESOLVE_BENEATH != 0 {
                        return Err(errno(libc::EXDEV));
                    }
                }
                b"." => break,
                _ if last => match self.open_last(&name, flags, mode)? {
                    Some(fd) => return Ok(fd),
                    None => continue,
                },
                _ => self.enter(&name)?,
            }
        }
        sys::openat(self.here(), OsStr::new("."), flags, mode)
    }

    /// Goes into a directory, or puts what a link says before the names that are left.
    fn enter(&mut self, name: &OsStr) -> io::Result<()> {
        for _ in 0..MAX_TRIES {
            if self.follow(name)? {
                return Ok(());
            }
            let dir = sys::openat(self.here(), name, libc::O_PATH | libc::O_NOFOLLOW, 0)?;
            match sys::fstat(&dir)?.st_mode & libc::S_IFMT {
                libc::S_IFDIR => {
                    self.dirs.push(dir);
                    return Ok(());
                }
                // It has become one.
                libc::S_IFLNK => {}
                _ => return Err(errno(libc::ENOTDIR)),
            }
        }
        Err(errno(libc::EAGAIN))
    }

    /// Opens the last name; nothing if it was a link that is to be followed.
    fn open_last(&mut self, name: &OsStr, flags: i32, mode: u32) -> io::Result<Option<OwnedFd>> {
        let never = libc::O_CREAT | libc::O_EXCL;
        if flags & libc::O_NOFOLLOW != 0 || flags & never == never {
            return sys::openat(self.here(), name, flags | libc::O_NOFOLLOW, mode).map(Some);
        }
        for _ in 0..MAX_TRIES {
            if self.follow(name)? {
                return Ok(None);
            }
            match sys::openat(self.here(), name, flags | libc::O_NOFOLLOW, mode) {
                Ok(fd) if flags & libc::O_PATH == 0 || sys::fstat(&fd)?.st_mode & libc::S_IFMT != libc::S_IFLNK => {
                    return Ok(Some(fd));
                }
                Err(error) if !matches!(error.raw_os_error(), Some(libc::ELOOP | libc::ENOTDIR)) => return Err(error),
                // Not a link when it was looked at: it has become one, unless it is a file where a directory is wanted.
                Err(error) if sys::readlinkat(self.here(), name).is_err() => return Err(error),
                _ => {}
            }
        }
        Err(errno(libc::EAGAIN))
    }

    /// Reads a link and goes on with what it says; false if the name is none.
    fn follow(&mut self, name: &OsStr) -> io::Result<bool> {
        let target = match sys::readlinkat(self.here(), name) {
            Ok(target) => target,
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOENT)) => return Ok(false),
            Err(error) => return Err(error),
        };
        self.links += 1;
        let refused = self.resolve & RESOLVE_NO_SYMLINKS != 0
            || self.resolve & RESOLVE_NO_MAGICLINKS != 0 && self.is_magic(&target)?;
        if self.links > MAX_LINKS || refused {
            return Err(errno(libc::ELOOP));
        }
        self.push(&target)?;
        Ok(true)
    }

    /// Links of procfs that lead to an object and not to a name read as an absolute path or as `kind:[number]`; its
    /// others (`self`, `mounts`) are relative.
    fn is_magic(&self, target: &OsStr) -> io::Result<bool> {
        let looks_so = target.as_bytes().starts_with(b"/") || target.as_bytes().contains(&b':');
        Ok(looks_so && sys::is_procfs(&self.here())?)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::{fd::AsRawFd, unix::fs::symlink},
        path::PathBuf,
    };

    use super::*;

    const IN_ROOT: u64 = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;

    /// Where a descriptor leads, or why there is none.
    fn place(result: io::Result<OwnedFd>) -> Result<PathBuf, i32> {
        let fd = result.map_err(|error| error.raw_os_error().unwrap_or(0))?;
        Ok(fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap())
    }

    fn tree() -> PathBuf {
        let dir = std::env::temp_dir().join(format!("coracle-beneath-{}", std::process::id()));
        let root = dir.join("root");
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/file"), "inside").unwrap();
        fs::write(dir.join("secret"), "outside").unwrap();
        let links = [
            ("out", "../secret"),
            ("absolute", "/a/file"),
            ("a/up", "../../../../a/b/../file"),
            ("round", "round"),
            ("nowhere", "a/missing"),
            ("slash", "a/"),
            ("plain", "a/file"),
            ("file-slash", "a/file/"),
        ];
        for (name, target) in links {
            symlink(target, root.join(name)).unwrap();
        }
        dir
    }

    /// The kernel's own answers are the expectation.
    #[test]
    fn walks_as_the_kernel_does() {
        let dir = tree();
        let root = sys::open(dir.join("root"), libc::O_PATH | libc::O_DIRECTORY, 0).unwrap();
        let proc = sys::open("/proc", libc::O_PATH | libc::O_DIRECTORY, 0).unwrap();
        let paths = [
            "a",
            "a/b",
            "a/file",
            "a/file/",
            "a/file/x",
            "a/b/../file",
            "..",
            "../..",
            ".",
            "a/.",
            "a/..",
            "/",
            "/a/b",
            "out",
            "absolute",
            "a/up",
            "round",
            "nowhere",
            "nowhere/x",
            "slash",
            "slash/b",
            "plain",
            "file-slash",
            "missing",
            "missing/x",
            "a//b",
            "./a/./b/",
            "",
        ];
        let flags = [
            libc::O_PATH,
            libc::O_PATH | libc::O_NOFOLLOW,
            libc::O_PATH | libc::O_DIRECTORY,
            libc::O_RDONLY,
            libc::O_RDONLY | libc::O_NOFOLLOW,
            libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW,
        ];
        let resolves = [IN_ROOT, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS, RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS];
        let proc_paths = ["self/status", "self/cwd", "self/exe", "self/ns/mnt", "mounts", "self/fd/0", "self/root/etc"];
        let cases = paths.map(|path| (&root, path)).into_iter().chain(proc_paths.map(|path| (&proc, path)));
        for (root, path) in cases {
            for (flags, resolve) in flags.iter().flat_map(|flags| resolves.map(|resolve| (*flags, resolve))) {
                let ours = place(open(root.as_fd(), Path::new(path), flags, 0, resolve));
                let kernels = place(sys::openat2(root.as_fd(), Path::new(path), flags, 0, resolve));
                assert_eq!(ours, kernels, "{path:?}, flags {flags:#o}, resolve {resolve:#x}");
            }
        }
        let make = |path: &str, flags: i32| {
            place(open(root.as_fd(), Path::new(path), libc::O_WRONLY | libc::O_CREAT | flags, 0o600, IN_ROOT))
        };
        assert_eq!(make("out", libc::O_EXCL), Err(libc::EEXIST));
        assert_eq!(make("nowhere", 0), Ok(dir.join("root/a/missing")));
        assert_eq!(make("a/new", libc::O_EXCL), Ok(dir.join("root/a/new")));
        assert_eq!(fs::read_to_string(dir.join("secret")).unwrap(), "outside");
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_directory_that_is_moved_on_the_way_is_not_left_upwards() {
        let dir = std::env::temp_dir().join(format!("coracle-moved-{}", std::process::id()));
        fs::create_dir_all(dir.join("root/a/b")).unwrap();
        fs::create_dir_all(dir.join("outside")).unwrap();
        let root = sys::open(dir.join("root"), libc::O_PATH | libc::O_DIRECTORY, 0).unwrap();
        let mut walk = Walk { root: root.as_fd(), dirs: Vec::new(), left: Vec::new(), links: 0, resolve: IN_ROOT };
        walk.enter(OsStr::new("a")).unwrap();
        walk.enter(OsStr::new("b")).unwrap();
        fs::rename(dir.join("root/a/b"), dir.join("outside/b")).unwrap();
        walk.push(OsStr::new("../..")).unwrap();
        assert_eq!(place(walk.open(libc::O_PATH, 0)), Ok(dir.join("root")));
        fs::remove_dir_all(dir).unwrap();
    }
}
