//! The container's file system: mounts, devices, masks, and the change of root.
//!
//! Runs in the child, in its mount namespace if it has one, while the host's root and `/proc` are still there. Targets are
//! found by openat2(2) with RESOLVE_IN_ROOT, so no symbolic link of an image leads out of it, and are mounted on by
//! `/proc/self/fd/N`: what was resolved is what is mounted on.

mod callers_mounts;
mod change;
mod devices;

use std::{
    cell::RefCell,
    ffi::OsStr,
    fs,
    io::{self, ErrorKind},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Component, Path, PathBuf},
};

use crate::{
    bind::{self, Source},
    cgroup::Cgroup,
    copy_up,
    error::{Context, Error, Result},
    identity::{self, Detached, Mappings},
    labels, mapped_overlay,
    mount_options::MountOptions,
    proc_mounts,
    spec::{MountSpec, NamespaceKind, Spec},
    sys,
};

pub use callers_mounts::take_off_root;

/// mount(2) takes one page of file system options.
const MAX_MOUNT_DATA: usize = 4095;

/// The container's root, being furnished.
pub struct Rootfs<'a> {
    spec: &'a Spec,
    path: PathBuf,
    fd: OwnedFd,
    prepared: &'a Prepared,
    /// Propagation to be given to what is cloned, where the container has no mount namespace.
    inherited: Option<u64>,
    /// Mounts that become read-only when nothing is put into them any more.
    read_only_later: RefCell<Vec<OwnedFd>>,
}

/// Mounts that only the launcher may make: sources of bind mounts where the container's root is not the host's, and
/// those whose owners are mapped. By their place in `mounts`.
#[derive(Default)]
pub struct Prepared(Vec<Option<OwnedFd>>);

impl Prepared {
    /// Copies what has to be, before the container exists.
    pub fn of(spec: &Spec) -> Result<Prepared> {
        let user = spec.namespace(NamespaceKind::User).is_some();
        if !user && spec.mounts.iter().all(|mount| mount.mappings.is_empty()) {
            return Ok(Prepared::default());
        }
        let mut joined = None;
        let prepare = |mount: &MountSpec| {
            let mappings = match mount.mappings.is_empty() {
                true if mount.options.idmap => joined_mappings(spec, &mut joined)?.as_ref(),
                true => None,
                false => Some(&mount.mappings),
            };
            match (mount.kind.as_str(), mappings) {
                ("overlay", Some(mappings)) => mapped_overlay::make(&mount.options, mappings, &spec.root).map(Some),
                ("bind", _) if mappings.is_some() || user && mount.destination != Path::new("/") => {
                    let follows = |flags: &u64| flags & (libc::MS_SLAVE | libc::MS_SHARED) != 0;
                    let wanted = Detached {
                        recursive: mount.options.flags & libc::MS_REC != 0,
                        follows: mount.options.propagation.iter().any(follows),
                        mappings,
                        map_tree: mount.options.map_tree,
                    };
                    let source = Source::of(mount).context(|| format!("find {:?}", mount.source))?;
                    identity::detached(source.path(), wanted).map(Some)
                }
                _ => Ok(None),
            }
        };
        spec.mounts.iter().map(prepare).collect::<Result<_>>().map(Prepared)
    }

    fn get(&self, index: usize) -> Option<&OwnedFd> {
        self.0.get(index).and_then(Option::as_ref)
    }
}

/// The mappings of the user namespace that the container joins, asked for once.
fn joined_mappings<'a>(spec: &Spec, known: &'a mut Option<Mappings>) -> Result<&'a Option<Mappings>> {
    if let (None, Some(path)) = (&known, spec.namespace(NamespaceKind::User).and_then(|user| user.path.as_ref())) {
        *known = Some(Mappings::of_namespace(path).context(|| format!("read the mappings of {}", path.display()))?);
    }
    Ok(known)
}

fn fd_path(fd: &impl AsRawFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

impl<'a> Rootfs<'a> {
    /// Makes the root a mount point nobody else sees changes of.
    ///
    /// A first mount on `/` *is* the root: an overlay is mounted in the container's namespace only, so that it goes
    /// with the container and nothing is left on the host.
    ///
    /// `place` is the root as it was found before this process became one of the container's users, who may have no right
    /// to go there.
    ///
    /// Without a mount namespace nothing of the caller's is changed ([`callers_mounts`]).
    pub fn open(spec: &'a Spec, prepared: &'a Prepared, place: Option<OwnedFd>) -> Result<Rootfs<'a>> {
        let propagation = match spec.propagation {
            // Of what is unbindable no mount could be made for the container; the root becomes it when it is there.
            Some(flags) if flags & libc::MS_UNBINDABLE != 0 => libc::MS_PRIVATE,
            Some(flags) => flags,
            None => libc::MS_SLAVE,
        };
        let has_namespace = spec.namespace(NamespaceKind::Mount).is_some();
        if has_namespace {
            sys::mount("", "/", "", propagation | libc::MS_REC, "")
                .context(|| "set the propagation of \"/\"".into())?;
        }
        let inherited = callers_mounts::inherited(spec, propagation);
        let is_shared = has_namespace && propagation & libc::MS_SHARED != 0;
        let first = spec.mounts.first().filter(|mount| mount.destination == Path::new("/"));
        if let Some(tree) = first.and_then(|_| prepared.get(0)) {
            let open = || sys::open(&spec.root, libc::O_PATH | libc::O_DIRECTORY, 0);
            let place = place.map_or_else(open, Ok).context(|| format!("find the root {:?}", spec.root))?;
            let path = fs::read_link(fd_path(&place)).context(|| "find the root".into())?;
            check_root(spec, &path)?;
            if is_shared {
                change::make_parent_private(&path)?;
            }
            let fd = tree.try_clone().context(|| "duplicate a descriptor".into())?;
            sys::move_mount(&fd, &place).context(|| format!("mount the root at {path:?}"))?;
            return Ok(Rootfs { spec, path, fd, prepared, inherited, read_only_later: RefCell::default() });
        }
        let path = sys::real_path(&spec.root).context(|| format!("find the root {:?}", spec.root))?;
        check_root(spec, &path)?;
        if is_shared {
            change::make_parent_private(&path)?;
        }
        match first {
            Some(mount) => mount_root(mount, &path)?,
            None => {
                let root = path.to_string_lossy();
                sys::mount(&root, &path, "", libc::MS_BIND | libc::MS_REC, "")
                    .context(|| format!("bind the root {path:?}"))?;
            }
        }
        let fd = sys::open(&path, libc::O_PATH | libc::O_DIRECTORY, 0).context(|| format!("open the root {path:?}"))?;
        Ok(Rootfs { spec, path, fd, prepared, inherited, read_only_later: RefCell::default() })
    }

    /// Mounts, devices and links; after this the container's `/proc` and `/dev` are there.
    pub fn furnish(&self, cgroup: Option<&Cgroup>) -> Result<()> {
        for (index, mount) in self.spec.mounts.iter().enumerate() {
            if mount.destination != Path::new("/") {
                self.mount(index, mount, cgroup)
                    .context(|| format!("mount {:?} at {:?}", mount.source, mount.destination))?;
            }
        }
        self.make_devices()
    }

    fn resolve(&self, path: &Path, flags: i32) -> io::Result<OwnedFd> {
        let relative = path.strip_prefix("/").unwrap_or(path);
        let relative = if relative.as_os_str().is_empty() { Path::new(".") } else { relative };
        sys::openat2(self.fd.as_fd(), relative, flags, 0, sys::RESOLVE_IN_ROOT | sys::RESOLVE_NO_MAGICLINKS)
    }

    /// Opens a mount target, making what is missing of its path.
    fn target(&self, path: &Path, directory: bool) -> Result<OwnedFd> {
        match self.resolve(path, libc::O_PATH) {
            Ok(fd) => Ok(fd),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                if let Some(made) = self.make_last(path, directory) {
                    return Ok(made);
                }
                let made = self.make(path, directory, 0)?;
                self.resolve(&made, libc::O_PATH).context(|| format!("resolve {path:?} in the root"))
            }
            Err(error) => Err(Error::io(format!("resolve {path:?} in the root"), error)),
        }
    }

    /// Makes the last part of a path whose other parts are there, which is what is missing nearly always; none where it is
    /// another, or anything else is in the way.
    fn make_last(&self, path: &Path, directory: bool) -> Option<OwnedFd> {
        let parts = plain_parts(path);
        let (name, above) = parts.split_last()?;
        let above: PathBuf = above.iter().collect();
        let parent = self.resolve(&above, libc::O_PATH | libc::O_DIRECTORY).ok()?;
        make_entry(&parent, name, directory).ok()?;
        self.resolve(&above.join(name), libc::O_PATH).ok()
    }

    /// Makes a path step by step; returns what it is without links that lead nowhere yet.
    fn make(&self, path: &Path, directory: bool, links: usize) -> Result<PathBuf> {
        const MAX_LINKS: usize = 40;
        let parts = plain_parts(path);
        let mut walked = PathBuf::from("/");
        for (index, name) in parts.iter().enumerate() {
            let parent = self
                .resolve(&walked, libc::O_PATH | libc::O_DIRECTORY)
                .context(|| format!("resolve {walked:?} in the root"))?;
            let next = walked.join(name);
            if self.resolve(&next, libc::O_PATH).is_ok() {
                walked = next;
                continue;
            }
            let last = index + 1 == parts.len();
            match make_entry(&parent, name, !last || directory) {
                Ok(()) => walked = next,
                // A link whose target is missing: that is made, inside the root.
                Err(error) if error.kind() == ErrorKind::AlreadyExists && links < MAX_LINKS => {
                    let link = fs::read_link(Path::new(&fd_path(&parent)).join(name))
                        .context(|| format!("read {next:?} in the root"))?;
                    let rest: PathBuf = parts[index + 1..].iter().collect();
                    return self.make(&walked.join(link).join(rest), directory, links + 1);
                }
                Err(error) => return Err(Error::io(format!("create {next:?} in the root"), error)),
            }
        }
        Ok(walked)
    }

    fn mount(&self, index: usize, mount: &MountSpec, cgroup: Option<&Cgroup>) -> Result<()> {
        let destination = &mount.destination;
        match mount.kind.as_str() {
            "bind" => self.bind(mount, self.prepared.get(index)),
            "overlay" if self.prepared.get(index).is_some() => {
                self.bind(mount, self.prepared.get(index))?;
                self.narrow(mount)
            }
            "cgroup" | "cgroup2" => self.mount_cgroup(mount, cgroup),
            _ => {
                let covers = mount.kind == "tmpfs" && self.resolve(destination, libc::O_PATH).is_ok();
                let target = self.mount_target(destination, true)?;
                if matches!(mount.kind.as_str(), "proc" | "sysfs") && target_is_moved(&self.path, &target, destination)
                {
                    return Err(Error::new(format!("{destination:?} leads elsewhere in the image")));
                }
                let options = &mount.options;
                let mode = if covers && !options.data.contains("mode=") {
                    // A tmpfs keeps the permissions of the directory it covers, as runc's do.
                    let mode = sys::fstat(&target).context(|| "stat the target".into())?.st_mode & 0o7777;
                    format!("{}mode={mode:o}", if options.data.is_empty() { "" } else { "," })
                } else {
                    String::new()
                };
                let source = if mount.source.is_empty() { &mount.kind } else { &mount.source };
                let label = match mount.kind.as_str() {
                    // Theirs are the kernel's, and a context that was given is not given again.
                    "proc" | "sysfs" | "mqueue" => String::new(),
                    _ if options.data.contains("context=") => String::new(),
                    _ => self.context_option(options.data.is_empty() && mode.is_empty()),
                };
                let data = format!("{}{mode}{label}", options.data);
                if options.copy_up && mount.kind == "tmpfs" {
                    return self.mount_copy(mount, &target, source, &data);
                }
                let later = self.is_filled(mount);
                let now = if later { options.flags & !libc::MS_RDONLY } else { options.flags };
                mount_data(source, Path::new(&fd_path(&target)), &mount.kind, now, &data, &mount.kind)?;
                if later {
                    let mounted = self.resolve(destination, libc::O_PATH).context(|| "open the new mount".into())?;
                    self.read_only_later.borrow_mut().push(mounted);
                }
                if let Some(label) = self.spec.mount_label.as_ref().filter(|_| mount.kind == "mqueue") {
                    // It takes no context as an option (runc `libcontainer/rootfs_linux.go`).
                    let mounted = self.resolve(destination, libc::O_PATH).context(|| "open the new mount".into())?;
                    match labels::set_file(&mounted, label) {
                        // Of a pod with users of its own, they belong to the host's root: they stay what the policy calls them.
                        Err(error) if error.raw_os_error() == Some(libc::EPERM) && self.has_users() => {}
                        result => result.context(|| "label the queues".into())?,
                    }
                }
                self.narrow(mount)?;
                self.propagate(mount)
            }
        }
    }

    /// Whether a read-only mount has to take something first: devices, other mounts' targets (runc, `mountToRootfs`: "Delay
    /// mounting the filesystem read-only").
    fn is_filled(&self, mount: &MountSpec) -> bool {
        let read_only = mount.options.flags & libc::MS_RDONLY != 0;
        read_only && (mount.kind == "tmpfs" || plain_parts(&mount.destination) == ["dev"])
    }

    /// The target of a mount, which no link of the image leads into the container's `/proc`.
    fn mount_target(&self, path: &Path, directory: bool) -> Result<OwnedFd> {
        let target = self.target(path, directory)?;
        if sys::is_procfs(&target).context(|| "stat the target".into())? {
            let real = fs::read_link(fd_path(&target)).context(|| "find the target".into())?;
            if let Ok(inside) = real.strip_prefix(&self.path) {
                proc_mounts::check_place(&Path::new("/").join(inside))?;
            }
        }
        Ok(target)
    }

    fn has_users(&self) -> bool {
        self.spec.namespace(NamespaceKind::User).is_some()
    }

    /// The option by which all of a file system is the container's (mount(8), `context=`).
    fn context_option(&self, first: bool) -> String {
        let comma = if first { "" } else { "," };
        self.spec.mount_label.as_ref().map(|label| format!("{comma}context=\"{label}\"")).unwrap_or_default()
    }

    /// Shows only a directory of what has been mounted, by a mount of that over the whole, with the same attributes.
    fn narrow(&self, mount: &MountSpec) -> Result<()> {
        let Some(part) = &mount.options.subpath else { return Ok(()) };
        let directory = libc::O_PATH | libc::O_DIRECTORY;
        let whole = self.resolve(&mount.destination, directory).context(|| "open the new mount".into())?;
        let resolve = sys::RESOLVE_BENEATH | sys::RESOLVE_NO_MAGICLINKS;
        let part = sys::openat2(whole.as_fd(), part, directory, 0, resolve).context(|| format!("subpath {part:?}"))?;
        sys::mount(&fd_path(&part), fd_path(&whole), "", libc::MS_BIND, "").context(|| "bind the subpath".into())
    }

    /// A tmpfs that begins with what it covers.
    fn mount_copy(&self, mount: &MountSpec, target: &OwnedFd, source: &str, data: &str) -> Result<()> {
        let covered = sys::openat(target.as_fd(), OsStr::new("."), libc::O_RDONLY | libc::O_DIRECTORY, 0);
        let covered = covered.context(|| "open what is covered".into())?;
        let flags = mount.options.flags;
        sys::mount(source, fd_path(target), "tmpfs", flags & !libc::MS_RDONLY, data).context(|| "tmpfs".into())?;
        let mounted = self
            .resolve(&mount.destination, libc::O_RDONLY | libc::O_DIRECTORY)
            .context(|| "open the new mount".into())?;
        copy_up::copy(covered.as_fd(), mounted.as_fd()).context(|| "tmpcopyup".into())?;
        if flags & libc::MS_RDONLY != 0 {
            self.read_only_later.borrow_mut().push(mounted);
        }
        self.propagate(mount)
    }

    /// A bind mount is made apart from the tree, gets its attributes there, and is then put where it belongs. So the source
    /// is looked up once, and who may rename directories on the way cannot have anything else changed, nor have the mount
    /// for a moment without its attributes.
    fn bind(&self, mount: &MountSpec, prepared: Option<&OwnedFd>) -> Result<()> {
        let options = &mount.options;
        let opened;
        let tree = match prepared {
            Some(tree) => tree,
            None => {
                let source = Source::of(mount).context(|| "find the source".into())?;
                match sys::open_tree(source.path(), options.flags & libc::MS_REC != 0) {
                    Ok(tree) => {
                        opened = tree;
                        &opened
                    }
                    // Before 5.2.
                    Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
                        return self.bind_by_path(mount, &source);
                    }
                    Err(error) => return Err(Error::io("open the source", error)),
                }
            }
        };
        if proc_mounts::is_proc(mount) && !sys::is_procfs(tree).context(|| "stat the source".into())? {
            return Err(proc_mounts::not_proc(&mount.destination));
        }
        let early = match bind::set_attributes(tree, options) {
            // Before 5.12: only what is mounted can be changed.
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => false,
            result => result.context(|| "set the attributes of the mount".into()).map(|()| true)?,
        };
        let kind = sys::fstat(tree).context(|| "stat the source".into())?.st_mode & libc::S_IFMT;
        let target = self.mount_target(&mount.destination, kind == libc::S_IFDIR)?;
        sys::move_mount(tree, &target).context(|| "bind".into())?;
        if !early {
            self.change_bound(mount, tree)?;
        }
        self.cut_off(tree)?;
        propagate(tree, options)
    }

    /// The same with mount(2) alone. What is found at the target afterwards has to be the source.
    fn bind_by_path(&self, mount: &MountSpec, source: &Source) -> Result<()> {
        let source = sys::open(source.path(), libc::O_PATH, 0).context(|| "open the source".into())?;
        let stat = sys::fstat(&source).context(|| "stat the source".into())?;
        let target = self.mount_target(&mount.destination, stat.st_mode & libc::S_IFMT == libc::S_IFDIR)?;
        let flags = libc::MS_BIND | mount.options.flags & libc::MS_REC;
        sys::mount(&fd_path(&source), fd_path(&target), "", flags, "").context(|| "bind".into())?;
        let mounted = self.resolve(&mount.destination, libc::O_PATH).context(|| "open the new mount".into())?;
        let found = sys::fstat(&mounted).context(|| "stat the new mount".into())?;
        if (found.st_dev, found.st_ino) != (stat.st_dev, stat.st_ino) {
            return Err(Error::new("the target moved while it was mounted on"));
        }
        self.change_bound(mount, &mounted)?;
        self.cut_off(&mounted)?;
        propagate(&mounted, &mount.options)
    }

    fn change_bound(&self, mount: &MountSpec, mounted: &OwnedFd) -> Result<()> {
        let options = &mount.options;
        let wanted = options.flags & !(libc::MS_BIND | libc::MS_REC);
        if wanted != 0 || options.cleared != 0 {
            remount(mounted, wanted, options.cleared)?;
        }
        if options.recursive != (0, 0) {
            sys::mount_setattr(mounted, true, options.recursive.0, options.recursive.1)
                .context(|| "set attributes of the whole tree (since Linux 5.12)".into())?;
        }
        Ok(())
    }

    fn propagate(&self, mount: &MountSpec) -> Result<()> {
        if mount.options.propagation.is_empty() {
            return Ok(());
        }
        let mounted = self.resolve(&mount.destination, libc::O_PATH).context(|| "open the new mount".into())?;
        propagate(&mounted, &mount.options)
    }

    /// The groups as the container sees them: on v2 one file system, whose root is that of its cgroup namespace, on v1 a tmpfs
    /// with a directory a hierarchy.
    fn mount_cgroup(&self, mount: &MountSpec, cgroup: Option<&Cgroup>) -> Result<()> {
        let target = self.target(&mount.destination, true)?;
        let group = cgroup.ok_or_else(|| Error::new("there is no cgroup to show"))?;
        let own_namespace = self.spec.namespace(NamespaceKind::Cgroup).is_some();
        let flags = mount.options.flags;
        if let Some(tree) = group.tree() {
            if own_namespace {
                match sys::mount("cgroup", fd_path(&target), "cgroup2", flags, &mount.options.data) {
                    // It belongs to another user namespace than the container's.
                    Err(error) if matches!(error.raw_os_error(), Some(libc::EPERM | libc::EBUSY)) => {}
                    result => return result.context(|| "cgroup2".into()),
                }
            }
            // Without a cgroup namespace `/proc/self/cgroup` names groups from the root of the tree, so that is shown (runc,
            // mountCgroupV2). Bound and not mounted: a mount from there would change the options of the host's (cgroup-v2.rst
            // "Mounting").
            let dir = group.dir("").filter(|_| own_namespace).unwrap_or(&tree);
            sys::mount(&dir.to_string_lossy(), fd_path(&target), "", libc::MS_BIND | libc::MS_REC, "")
                .context(|| "bind the cgroup".into())?;
        } else {
            let inner = flags & !libc::MS_RDONLY;
            let data = format!("mode=755{}", self.context_option(false));
            sys::mount("tmpfs", fd_path(&target), "tmpfs", inner, &data).context(|| "tmpfs".into())?;
            // Nobody else has put anything into it: what is made in it is what is found there.
            let mounted = self.resolve(&mount.destination, libc::O_PATH).context(|| "open the new mount".into())?;
            for (controllers, dir) in group.dirs() {
                let name = controllers.strip_prefix("name=").unwrap_or(&controllers);
                bind_group(&mounted, OsStr::new(name), dir, flags).context(|| format!("bind {}", dir.display()))?;
                // Controllers that are mounted together are looked for alone.
                for alone in name.split(',').filter(|alone| *alone != name) {
                    sys::symlinkat(name, mounted.as_fd(), OsStr::new(alone)).context(|| format!("link {alone}"))?;
                }
            }
            self.cut_off(&mounted)?;
            return remount(&mounted, flags, 0);
        }
        let mounted = self.resolve(&mount.destination, libc::O_PATH).context(|| "open the new mount".into())?;
        self.cut_off(&mounted)?;
        remount(&mounted, flags, 0)
    }

    /// Hides `maskedPaths` and makes `readonlyPaths` read-only. A path that is not there needs neither.
    pub fn mask(&self) -> Result<()> {
        for path in &self.spec.readonly_paths {
            let Some(target) = self.existing(path)? else { continue };
            self.make_readonly(path, &target).context(|| format!("make {path:?} read-only"))?;
        }
        for path in &self.spec.masked_paths {
            let Some(target) = self.existing(path)? else { continue };
            let directory =
                sys::fstat(&target).context(|| format!("stat {path:?}"))?.st_mode & libc::S_IFMT == libc::S_IFDIR;
            let result = if directory {
                let small = format!("nr_inodes=1,size=0,mode=755{}", self.context_option(false));
                sys::mount("tmpfs", fd_path(&target), "tmpfs", libc::MS_RDONLY, &small).or_else(|_| {
                    let data = self.context_option(true);
                    sys::mount("tmpfs", fd_path(&target), "tmpfs", libc::MS_RDONLY, &data)
                })
            } else {
                sys::mount("/dev/null", fd_path(&target), "", libc::MS_BIND, "")
            };
            result.context(|| format!("mask {path:?}"))?;
        }
        Ok(())
    }

    fn make_readonly(&self, path: &str, target: &OwnedFd) -> Result<()> {
        match sys::open_tree(&fd_path(target), true) {
            Ok(tree) => match sys::mount_setattr(&tree, false, bind::READ_ONLY, 0) {
                Ok(()) => return sys::move_mount(&tree, target).context(|| "bind".into()),
                Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {}
                Err(error) => return Err(Error::io("set the attributes of the mount", error)),
            },
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {}
            Err(error) => return Err(Error::io("open", error)),
        }
        sys::mount(&fd_path(target), fd_path(target), "", libc::MS_BIND | libc::MS_REC, "")
            .context(|| "bind".into())?;
        self.existing(path)?.map_or(Ok(()), |mounted| remount(&mounted, libc::MS_RDONLY, 0))
    }

    fn existing(&self, path: &str) -> Result<Option<OwnedFd>> {
        match self.resolve(Path::new(path), libc::O_PATH) {
            Ok(fd) => Ok(Some(fd)),
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => Ok(None),
            Err(error) => Err(Error::io(format!("resolve {path:?} in the root"), error)),
        }
    }

    /// Makes the working directory, as runc does. If it cannot be made, the change into it says why.
    pub fn make_cwd(&self, cwd: &str) {
        let _ = self.target(Path::new(cwd), true);
    }
}

/// Refuses a root that is a link, or is found through one in the bundle: who can change it would have another directory made a
/// root of than the one that was looked at (runc `configs/validate/validator.go`). Links on the way to a root elsewhere are
/// the caller's, whose data may lie anywhere.
fn check_root(spec: &Spec, found: &Path) -> Result<()> {
    let named: PathBuf = std::iter::once(OsStr::new("/")).chain(plain_parts(&spec.root)).collect();
    let is_link = || fs::symlink_metadata(&named).is_ok_and(|metadata| metadata.is_symlink());
    match named == found || !named.starts_with(&spec.bundle) && !is_link() {
        true => Ok(()),
        false => Err(Error::new("invalid rootfs: not an absolute path, or a symlink")),
    }
}

/// The names of a path, `..` taken out by name: above the root is the root.
pub(crate) fn plain_parts(path: &Path) -> Vec<&OsStr> {
    let mut out = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => drop(out.pop()),
            _ => {}
        }
    }
    out
}

/// Mounts the root itself.
fn mount_root(mount: &MountSpec, path: &Path) -> Result<()> {
    let what = || format!("mount the root ({}) at {path:?}", mount.kind);
    let options = &mount.options;
    if mount.kind == "bind" {
        return sys::mount(&mount.source, path, "", options.flags, "").context(what);
    }
    mount_data(&mount.source, path, &mount.kind, options.flags, &options.data, &what())
}

/// mount(2). Options longer than a page are an overlay of many layers: they are named relative to the directory they have in
/// common.
fn mount_data(source: &str, target: &Path, kind: &str, flags: u64, data: &str, what: &str) -> Result<()> {
    if data.len() <= MAX_MOUNT_DATA {
        return sys::mount(source, target, kind, flags, data).context(|| what.to_owned());
    }
    let (base, data) =
        shorten_overlay(data).ok_or_else(|| Error::new(format!("{what}: the options are longer than a page")))?;
    let here = sys::open(".", libc::O_PATH, 0).context(|| "open the working directory".into())?;
    std::env::set_current_dir(&base).context(|| format!("enter {base:?}"))?;
    let mounted = sys::mount(source, target, kind, flags, &data).context(|| what.to_owned());
    sys::fchdir(&here).context(|| "return to the working directory".into())?;
    mounted
}

/// Takes the longest common directory out of an overlay's layers.
fn shorten_overlay(data: &str) -> Option<(String, String)> {
    let layers = data.split(',').find_map(|option| option.strip_prefix("lowerdir="))?;
    let first = layers.split(':').next()?;
    let mut base = first;
    while !layers.split(':').all(|layer| layer.strip_prefix(base).is_some_and(|rest| rest.starts_with('/'))) {
        base = &base[..base.rfind('/')?];
    }
    if base.is_empty() {
        return None;
    }
    let short: Vec<&str> = layers.split(':').map(|layer| &layer[base.len() + 1..]).collect();
    let data = data.replace(layers, &short.join(":"));
    (data.len() <= MAX_MOUNT_DATA).then(|| (base.to_owned(), data))
}

/// Makes a directory, or an empty file.
fn make_entry(parent: &OwnedFd, name: &OsStr, directory: bool) -> io::Result<()> {
    if directory {
        sys::mkdirat(parent.as_fd(), name, 0o755)
    } else {
        sys::mknodat(parent.as_fd(), name, libc::S_IFREG | 0o644, 0)
    }
}

/// Shows a hierarchy's group as a directory of a fresh tmpfs.
fn bind_group(tmpfs: &OwnedFd, name: &OsStr, group: &Path, flags: u64) -> Result<()> {
    let resolve = sys::RESOLVE_IN_ROOT | sys::RESOLVE_NO_MAGICLINKS;
    make_entry(tmpfs, name, true).context(|| "make its directory".into())?;
    let wanted = MountOptions { flags, ..MountOptions::default() };
    let detached = sys::open_tree(&group.to_string_lossy(), false)
        .and_then(|tree| bind::set_attributes(&tree, &wanted).and_then(|()| sys::move_mount_at(&tree, tmpfs, name)));
    match detached {
        // Before 5.2, or 5.12: only what is mounted can be changed.
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
            let open = || {
                let opened = sys::openat2(tmpfs.as_fd(), Path::new(name), libc::O_PATH, 0, resolve);
                opened.context(|| "open its directory".into())
            };
            sys::mount(&group.to_string_lossy(), fd_path(&open()?), "", libc::MS_BIND, "").context(|| "bind".into())?;
            remount(&open()?, flags, 0)
        }
        result => result.context(|| "bind".into()),
    }
}

/// Changes the flags of a mount, keeping those it has and may not lose.
fn remount(mounted: &OwnedFd, set: u64, clear: u64) -> Result<()> {
    let has = sys::statfs_flags(mounted).context(|| "stat the mount".into())?;
    // ST_* of statfs(2) and MS_* have equal values for these.
    let keep = has
        & (libc::MS_RDONLY
            | libc::MS_NOSUID
            | libc::MS_NODEV
            | libc::MS_NOEXEC
            | libc::MS_NOATIME
            | libc::MS_NODIRATIME);
    let relatime =
        if has & 0x1000 != 0 && set & (libc::MS_NOATIME | libc::MS_STRICTATIME) == 0 { libc::MS_RELATIME } else { 0 };
    let flags = (keep & !clear) | set | relatime | libc::MS_BIND | libc::MS_REMOUNT;
    sys::mount("", fd_path(mounted), "", flags, "").context(|| "change the flags of the mount".into())
}

fn propagate(mounted: &OwnedFd, options: &MountOptions) -> Result<()> {
    options.propagation.iter().try_for_each(|&flags| set_propagation(mounted, flags))
}

fn set_propagation(mounted: &OwnedFd, flags: u64) -> Result<()> {
    let recursive = flags & libc::MS_REC != 0;
    let change = sys::MountAttributes { propagation: flags & !libc::MS_REC, ..sys::MountAttributes::default() };
    match sys::set_mount(mounted, recursive, change) {
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => sys::mount("", fd_path(mounted), "", flags, ""),
        result => result,
    }
    .context(|| "set propagation".into())
}

/// `/proc` and `/sys` must be themselves: a link in the image could put them over something else (CVE-2019-19921).
fn target_is_moved(root: &Path, target: &OwnedFd, destination: &Path) -> bool {
    let expected = root.join(destination.strip_prefix("/").unwrap_or(destination));
    fs::read_link(fd_path(target)).is_ok_and(|real| real != expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_layers_are_named_from_their_common_directory() {
        let layers: Vec<String> =
            (0..120).map(|index| format!("/var/lib/somewhere/long/snapshots/{index}/fs")).collect();
        let data = format!("lowerdir={},upperdir=/u,workdir=/w", layers.join(":"));
        assert!(data.len() > MAX_MOUNT_DATA);
        let (base, short) = shorten_overlay(&data).unwrap();
        assert_eq!(base, "/var/lib/somewhere/long/snapshots");
        assert!(short.starts_with("lowerdir=0/fs:1/fs:") && short.ends_with(",upperdir=/u,workdir=/w"));
    }
}
