//! What is in the machine: a tree of files, made into an ext4 disk.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::run;

/// The first program of the disk's system. `/script` is what it is for.
const INIT: &str = "#!/bin/sh
export PATH=/bin:/sbin HOME=/root TERM=dumb
mount -t tmpfs tmpfs /run
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t securityfs securityfs /sys/kernel/security
ip link set lo up
cd /root
sh /script
echo \"@@exit $?\"
sync
poweroff -f
";

/// A tree of files.
pub struct Tree {
    dir: PathBuf,
}

impl Tree {
    /// Begins a tree with a shell, in a directory that is emptied.
    pub fn new(dir: &Path) -> Result<Tree> {
        let _ = fs::remove_dir_all(dir);
        for name in ["bin", "sbin", "dev", "proc", "sys", "run", "tmp", "root", "etc", "lib64", "var/lib"] {
            fs::create_dir_all(dir.join(name))?;
        }
        fs::set_permissions(dir.join("tmp"), fs::Permissions::from_mode(0o1777))?;
        let tree = Tree { dir: dir.to_owned() };
        tree.copy(Path::new("/bin/busybox"), "/bin/busybox")?;
        for applet in run(Command::new("/bin/busybox").arg("--list"))?.lines() {
            symlink("busybox", dir.join("bin").join(applet)).or_else(|error| match error.kind() {
                std::io::ErrorKind::AlreadyExists => Ok(()),
                _ => Err(error),
            })?;
        }
        tree.file("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n", 0o644)?;
        tree.file("/etc/group", "root:x:0:\n", 0o644)?;
        tree.file("/vm-init", INIT, 0o755)?;
        Ok(tree)
    }

    /// A file that is not on the disk.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.dir.with_extension(name)
    }

    fn inside(&self, path: &str) -> PathBuf {
        self.dir.join(path.trim_start_matches('/'))
    }

    /// A file of the host.
    pub fn copy(&self, from: &Path, to: &str) -> Result<()> {
        let to = self.inside(to);
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent)?;
        }
        // A link of that name (an applet) gives way.
        let _ = fs::remove_file(&to);
        fs::copy(from, &to).with_context(|| format!("copy {} to {}", from.display(), to.display()))?;
        Ok(())
    }

    pub fn file(&self, path: &str, content: &str, mode: u32) -> Result<()> {
        let path = self.inside(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, content)?;
        Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode))?)
    }

    /// A program of the host with the libraries it is linked to (ldd(1)), without what only a debugger reads.
    pub fn program(&self, from: &Path, to: &str) -> Result<()> {
        self.copy(from, to)?;
        // Best effort: the tools may be missing, and the program runs all the same.
        let _ = Command::new("strip").arg("--strip-debug").arg(self.inside(to)).output();
        let linked = Command::new("ldd").arg(from).output().context("run ldd")?;
        for line in String::from_utf8_lossy(&linked.stdout).lines() {
            let library = line.split_whitespace().find(|word| word.starts_with('/'));
            if let Some(library) = library.filter(|library| !self.inside(library).exists()) {
                self.copy(Path::new(library), library)?;
            }
        }
        Ok(())
    }

    /// Makes a disk of the tree.
    pub fn disk(&self, path: &Path, mebibytes: u32) -> Result<Disk> {
        let _ = fs::remove_file(path);
        let mut mke2fs = Command::new("mke2fs");
        mke2fs.env("PATH", "/sbin:/usr/sbin:/bin:/usr/bin");
        mke2fs.args(["-q", "-F", "-t", "ext4", "-L", "coracle", "-E", "root_owner=0:0", "-d"]);
        run(mke2fs.arg(&self.dir).arg(path).arg(format!("{mebibytes}M")))?;
        Ok(Disk { path: path.to_owned() })
    }
}

/// A disk, as a file of the host.
#[derive(Clone, Debug)]
pub struct Disk {
    pub path: PathBuf,
}

impl Disk {
    /// Puts a file onto the disk of a machine that is off.
    pub fn write(&self, from: &Path, to: &str) -> Result<()> {
        // debugfs writes into an image without mounting it; an old file of the name goes first.
        for request in [format!("rm {to}"), format!("write {} {to}", from.display())] {
            let mut debugfs = Command::new("debugfs");
            debugfs.env("PATH", "/sbin:/usr/sbin:/bin:/usr/bin").args(["-w", "-R", &request]);
            run(debugfs.arg(&self.path))?;
        }
        Ok(())
    }
}
