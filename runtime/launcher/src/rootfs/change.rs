//! The change of root.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{Rootfs, remount};
use crate::{
    error::{Context, Result},
    spec::NamespaceKind,
    sys,
};

impl Rootfs<'_> {
    /// Changes into the root and lets go of the old one.
    pub fn enter(&self, no_pivot: bool) -> Result<()> {
        for mounted in self.read_only_later.take() {
            remount(&mounted, libc::MS_RDONLY, 0).context(|| "make a mount read-only".into())?;
        }
        if self.spec.root_readonly {
            remount(&self.fd, libc::MS_RDONLY, 0).context(|| "make the root read-only".into())?;
        }
        if self.spec.namespace(NamespaceKind::Mount).is_none() {
            // All else would change the root of the host.
            self.chroot()
        } else if no_pivot {
            self.move_over()
        } else {
            self.pivot()
        }?;
        std::env::set_current_dir("/").context(|| "enter \"/\"".into())?;
        if let Some(propagation) =
            self.spec.propagation.filter(|flags| flags & (libc::MS_SHARED | libc::MS_UNBINDABLE) != 0)
        {
            sys::mount("", "/", "", propagation, "").context(|| "set the propagation of the root".into())?;
        }
        Ok(())
    }

    fn chroot(&self) -> Result<()> {
        sys::fchdir(&self.fd).context(|| "enter the root".into())?;
        sys::chroot(".").context(|| "enter the root".into())
    }

    fn pivot(&self) -> Result<()> {
        sys::fchdir(&self.fd).context(|| "enter the root".into())?;
        sys::pivot_here().context(|| format!("pivot_root to {:?}", self.path))?;
        // The old root lies on top of the new one; its mounts must not carry the unmounting back to the host. "." alone would be
        // what lies below, whose mounts stay as they were asked for; a way up is a way to what lies on top.
        sys::mount("", "..", "", libc::MS_SLAVE | libc::MS_REC, "").context(|| "cut the old root off".into())?;
        sys::umount(".", libc::MNT_DETACH).context(|| "unmount the old root".into())
    }

    /// Moves the root over the host's. That stays below it, so its views of the kernel go first: a mount of them that shows
    /// everything would let one be made that does (runc's msMoveRoot).
    fn move_over(&self) -> Result<()> {
        let table = fs::read_to_string("/proc/self/mountinfo").context(|| "read /proc/self/mountinfo".into())?;
        let views = table.lines().rev().filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let point = PathBuf::from(crate::cgroup::unescape(left.split(' ').nth(4)?));
            let view = right.starts_with("proc ") || right.starts_with("sysfs ");
            (view && !point.starts_with(&self.path)).then_some(point)
        });
        for point in views {
            sys::mount("", &point, "", libc::MS_SLAVE | libc::MS_REC, "")
                .context(|| format!("keep {} to this namespace", point.display()))?;
            match sys::umount(&point, libc::MNT_DETACH) {
                // Locked by a user namespace: hidden instead.
                Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EPERM)) => {
                    sys::mount("tmpfs", &point, "tmpfs", 0, "").context(|| format!("hide {}", point.display()))?;
                }
                result => result.context(|| format!("unmount {}", point.display()))?,
            }
        }
        sys::fchdir(&self.fd).context(|| "enter the root".into())?;
        sys::mount(&self.path.to_string_lossy(), "/", "", libc::MS_MOVE, "").context(|| "move the root".into())?;
        sys::chroot(".").context(|| "enter the root".into())
    }
}

/// pivot_root(2) refuses a root whose parent mount is shared.
pub(super) fn make_parent_private(path: &Path) -> Result<()> {
    let text = fs::read_to_string("/proc/self/mountinfo").context(|| "read /proc/self/mountinfo".into())?;
    let points = text.lines().filter_map(|line| line.split(' ').nth(4));
    let parent = points.filter(|point| path.starts_with(point)).max_by_key(|point| point.len()).unwrap_or("/");
    sys::mount("", parent, "", libc::MS_PRIVATE, "").context(|| format!("make {parent:?} private"))
}
