//! A container without a mount namespace: what it mounts is mounted among its caller's mounts.
//!
//! | | runc 1.1 | here |
//! |---|---|---|
//! | the caller's mounts | become slaves, all of them | are left as they are |
//! | what is cloned from them | a slave with them | is made what it would be in a namespace of its own |
//! | the root | entered by chroot(2), with `--no-pivot` moved over the caller's | entered by chroot(2) |
//! | a read-only root | is not | is |
//! | masked and read-only paths | refused | refused |
//! | when it is deleted, or could not be made | all stays | the root goes, and with it what is mounted below |
//!
//! chroot(2) holds nobody who has CAP_SYS_CHROOT, and who has CAP_SYS_ADMIN can mount for the caller.

use std::{os::fd::OwnedFd, path::Path};

use super::{Rootfs, fd_path, set_propagation};
use crate::{
    error::{Context, Result},
    spec::{NamespaceKind, Spec},
    sys,
};

/// How what is cloned from the caller's mounts hangs together with them, where not all of the namespace has been made so.
pub(super) fn inherited(spec: &Spec, propagation: u64) -> Option<u64> {
    let own = spec.namespace(NamespaceKind::Mount).is_some();
    (!own && propagation & libc::MS_SHARED == 0).then_some(propagation | libc::MS_REC)
}

impl Rootfs<'_> {
    /// By which the root's mount is known.
    pub fn mount_id(&self) -> Result<u64> {
        sys::mount_id(&self.fd).context(|| "identify the mount of the root".into())
    }

    /// Nothing that is mounted in the root may be mounted elsewhere, too, as it would be below a mount that is shared.
    pub fn keep_apart(&self) -> Result<()> {
        self.cut_off(&self.fd)?;
        set_propagation(&self.fd, libc::MS_PRIVATE)
    }

    /// To be done with all that is cloned from what the container did not mount itself.
    pub(super) fn cut_off(&self, mounted: &OwnedFd) -> Result<()> {
        self.inherited.map_or(Ok(()), |flags| set_propagation(mounted, flags))
    }

    /// Takes off the root in a namespace that others are in, too, unless it has become theirs. Best effort: there is an error
    /// already.
    pub fn give_up(&self) {
        let top = sys::open("/", libc::O_PATH, 0).and_then(|root| sys::mount_id(&root));
        if let (Ok(top), Ok(own)) = (top, sys::mount_id(&self.fd))
            && top != own
        {
            let _ = take_off(&self.fd);
        }
    }
}

/// Takes the root of a container that had no mount namespace from this process's, with all that is mounted below. A mount
/// that has not this number is another's and stays, also where it lies over the container's, which it may be a copy of.
pub fn take_off_root(root: &Path, id: u64) -> Result<()> {
    let Ok(fd) = sys::open(root, libc::O_PATH | libc::O_DIRECTORY, 0) else { return Ok(()) };
    match sys::mount_id(&fd) {
        Ok(found) if found == id => take_off(&fd).context(|| format!("unmount the root {}", root.display())),
        _ => Ok(()),
    }
}

fn take_off(mounted: &OwnedFd) -> Result<()> {
    // What was cloned from a mount that is shared would be taken from that as well.
    set_propagation(mounted, libc::MS_PRIVATE | libc::MS_REC)?;
    sys::umount(fd_path(mounted), libc::MNT_DETACH).context(|| "unmount".into())
}
