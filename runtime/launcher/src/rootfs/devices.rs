//! Devices, and the console.

use std::{
    ffi::OsStr,
    io::{self, ErrorKind},
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use super::{Rootfs, fd_path};
use crate::{
    error::{Context, Error, Result},
    spec::DeviceNode,
    sys,
};

impl Rootfs<'_> {
    /// The devices and links every container has (config-linux.md "Default Devices"), then those asked for.
    pub(super) fn make_devices(&self) -> Result<()> {
        const STANDARD: [(&str, u32, u32); 6] =
            [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
        const LINKS: [(&str, &str); 4] = [
            ("fd", "/proc/self/fd"),
            ("stdin", "/proc/self/fd/0"),
            ("stdout", "/proc/self/fd/1"),
            ("stderr", "/proc/self/fd/2"),
        ];
        // As runc has it, where the kernel shows its memory (`rootfs_linux.go`, setupDevSymlinks).
        const CORE: (&str, &str) = ("core", "/proc/kcore");
        // A /dev bound from the host is not ours to fill.
        let bound = self.spec.mounts.iter().any(|mount| mount.destination == Path::new("/dev") && mount.kind == "bind");
        if bound {
            return Ok(());
        }
        let dev = self.target(Path::new("/dev"), true)?;
        for (name, major, minor) in STANDARD {
            self.make_device(
                &dev,
                &DeviceNode {
                    path: format!("/dev/{name}"),
                    mode: libc::S_IFCHR | 0o666,
                    number: libc::makedev(major, minor),
                    uid: 0,
                    gid: 0,
                },
            )?;
        }
        for device in &self.spec.devices {
            self.make_device(&dev, device)?;
        }
        let core = Path::new(CORE.1).exists().then_some(CORE);
        for (name, to) in LINKS.into_iter().chain(core) {
            match sys::symlinkat(to, dev.as_fd(), OsStr::new(name)) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                    return Err(Error::io(format!("create /dev/{name}"), error));
                }
                _ => {}
            }
        }
        link_multiplexer(&dev).context(|| "create /dev/ptmx".into())
    }

    fn make_device(&self, dev: &OwnedFd, device: &DeviceNode) -> Result<()> {
        let path = Path::new(&device.path);
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Error::new(format!("linux.devices: {:?} is not a path of a device", device.path)));
        };
        let own;
        let parent = if parent == Path::new("/dev") {
            dev
        } else {
            own = self.target(parent, true)?;
            &own
        };
        match sys::mknodat(parent.as_fd(), name, device.mode, device.number) {
            Ok(()) => {
                // mknod's mode is subject to the umask.
                sys::fchmodat(parent.as_fd(), name, device.mode & 0o7777)
                    .context(|| format!("set the mode of {path:?}"))?;
                if device.uid != 0 || device.gid != 0 {
                    sys::fchownat(parent.as_fd(), name, device.uid, device.gid)
                        .context(|| format!("set the owner of {path:?}"))?;
                }
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let found = sys::fstatat(parent.as_fd(), name).context(|| format!("stat {path:?}"))?;
                let kind = found.st_mode & libc::S_IFMT;
                let is_pipe = kind == libc::S_IFIFO;
                if kind == device.mode & libc::S_IFMT && (is_pipe || found.st_rdev == device.number) {
                    return Ok(());
                }
                // What an earlier container of this root had a device bound on.
                if self.has_users() && kind == libc::S_IFREG {
                    return self.bind_device(path);
                }
                // config-linux "Devices": "If a file already exists at path that does not match".
                Err(Error::new(format!("linux.devices: {path:?} is there already and another file")))
            }
            // No right to make devices: the host's own is bound in.
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => self.bind_device(path),
            Err(error) => Err(Error::io(format!("create the device {path:?}"), error)),
        }
    }

    fn bind_device(&self, path: &Path) -> Result<()> {
        let target = self.target(path, false)?;
        sys::mount(&path.to_string_lossy(), fd_path(&target), "", libc::MS_BIND, "")
            .context(|| format!("bind the device {path:?}"))?;
        if self.inherited.is_none() {
            return Ok(());
        }
        let mounted = self.resolve(path, libc::O_PATH).context(|| format!("open the device {path:?}"))?;
        self.cut_off(&mounted)
    }

    /// Opens a pty of the container's own devpts; returns both ends and shows the slave as `/dev/console`.
    pub fn open_console(&self) -> Result<(OwnedFd, OwnedFd)> {
        let master = self
            .resolve(Path::new("/dev/ptmx"), libc::O_RDWR | libc::O_NOCTTY)
            .context(|| "open /dev/ptmx of the container".into())?;
        let slave = sys::pty_peer(&master).context(|| "open the console".into())?;
        let target = self.target(Path::new("/dev/console"), false)?;
        sys::mount(&fd_path(&slave), fd_path(&target), "", libc::MS_BIND, "").context(|| "bind /dev/console".into())?;
        Ok((master, slave))
    }
}

/// `/dev/ptmx` leads to the container's own terminals, whatever the image has there (config-linux "Default Devices").
fn link_multiplexer(dev: &OwnedFd) -> io::Result<()> {
    let (name, to) = (OsStr::new("ptmx"), "pts/ptmx");
    match sys::symlinkat(to, dev.as_fd(), name) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            if sys::readlinkat(dev.as_fd(), name).is_ok_and(|there| there == to) {
                return Ok(());
            }
            match sys::unlinkat(dev.as_fd(), name) {
                // Somebody has mounted something there.
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => return Ok(()),
                result => result?,
            }
            sys::symlinkat(to, dev.as_fd(), name)
        }
        result => result,
    }
}
