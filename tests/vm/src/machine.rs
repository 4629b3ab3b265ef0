//! The emulated machine.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};

use crate::{Disk, Kernel, Tree};

/// What the kernel needs to see its disk, and what containers need.
const MODULES: [&str; 3] = ["virtio_pci", "virtio_blk", "overlay"];

/// The first program of all: loads modules and goes to the disk.
const INIT: &str = "#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /disk
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
for module in /modules/*; do /bin/busybox insmod $module; done
/bin/busybox mount -t ext4 /dev/vda /disk
for dir in proc sys dev; do /bin/busybox mount -o move /$dir /disk/$dir; done
exec /bin/busybox switch_root /disk /vm-init
";

/// A machine to be started.
#[derive(Clone, Debug)]
pub struct Machine {
    pub kernel: Kernel,
    pub disk: Disk,
    /// Further modules to load, by name.
    pub modules: Vec<&'static str>,
    pub memory_mebibytes: u32,
    /// Further words of the kernel's command line.
    pub command_line: String,
}

impl Machine {
    pub fn new(kernel: Kernel, disk: Disk) -> Machine {
        Machine { kernel, disk, modules: Vec::new(), memory_mebibytes: 1024, command_line: String::new() }
    }

    /// Switches the machine on.
    pub fn start(&self) -> Result<Running> {
        let initramfs = self.initramfs()?;
        let mut qemu = Command::new("qemu-system-x86_64");
        // Not KVM: a machine that is itself emulated may have the device and hang in it.
        qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2"]);
        qemu.args(["-m", &self.memory_mebibytes.to_string(), "-nodefaults", "-no-user-config", "-display", "none"]);
        qemu.args(["-serial", "stdio", "-no-reboot", "-nic", "none"]);
        qemu.arg("-kernel").arg(&self.kernel.image).arg("-initrd").arg(&initramfs);
        qemu.arg("-append").arg(format!("console=ttyS0 loglevel=3 panic=-1 random.trust_cpu=on {}", self.command_line));
        qemu.arg("-drive").arg(format!("file={},if=virtio,format=raw", self.disk.path.display()));
        qemu.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // SAFETY: prctl with plain numbers is safe between fork and exec. The machine must not outlive who uses it.
        unsafe {
            qemu.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let mut child = qemu.spawn().context("run qemu-system-x86_64")?;
        let (sender, lines) = channel();
        let outputs: [Option<Box<dyn std::io::Read + Send>>; 2] =
            [child.stdout.take().map(|out| Box::new(out) as _), child.stderr.take().map(|out| Box::new(out) as _)];
        for output in outputs.into_iter().flatten() {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                    let line = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
                    if sender.send(line).is_err() {
                        return;
                    }
                }
            });
        }
        Ok(Running { child, lines, initramfs })
    }

    fn initramfs(&self) -> Result<PathBuf> {
        let dir = self.disk.path.with_extension("initramfs.d");
        let tree = Tree::new(&dir)?;
        tree.file("/init", INIT, 0o755)?;
        let names: Vec<&str> = MODULES.iter().chain(&self.modules).copied().collect();
        for (index, module) in self.kernel.modules(&names)?.iter().enumerate() {
            tree.copy(module, &format!("/modules/{index:03}.ko"))?;
        }
        let path = self.disk.path.with_extension("initramfs");
        let mut cpio = Command::new("cpio");
        cpio.args(["--quiet", "--null", "-o", "-H", "newc"]).current_dir(&dir);
        cpio.stdin(Stdio::piped()).stdout(fs::File::create(&path)?);
        let mut cpio = cpio.spawn().context("run cpio")?;
        let mut names = Vec::new();
        list(&dir, Path::new(""), &mut names)?;
        cpio.stdin.take().ok_or_else(|| anyhow!("cpio has no input"))?.write_all(&names)?;
        if !cpio.wait()?.success() {
            bail!("cpio failed");
        }
        fs::remove_dir_all(dir)?;
        Ok(path)
    }
}

fn list(root: &Path, dir: &Path, out: &mut Vec<u8>) -> Result<()> {
    for entry in fs::read_dir(root.join(dir))?.flatten() {
        let path = dir.join(entry.file_name());
        out.extend_from_slice(path.as_os_str().as_encoded_bytes());
        out.push(0);
        if entry.file_type()?.is_dir() {
            list(root, &path, out)?;
        }
    }
    Ok(())
}

/// A machine that runs. Dropped, its power is cut.
pub struct Running {
    child: Child,
    lines: Receiver<String>,
    initramfs: PathBuf,
}

impl Running {
    /// The console's lines up to the one that `last` accepts, which is the last of them. None of them is lost for the next
    /// call. An error tells what was said until then.
    pub fn until(&mut self, limit: Duration, mut last: impl FnMut(&str) -> bool) -> Result<Vec<String>> {
        let end = Instant::now() + limit;
        let mut out = Vec::new();
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    let found = last(&line);
                    out.push(line);
                    if found {
                        return Ok(out);
                    }
                }
                Err(RecvTimeoutError::Timeout) => bail!("the machine took longer than {limit:?}:\n{}", out.join("\n")),
                Err(RecvTimeoutError::Disconnected) => bail!("the machine went off:\n{}", out.join("\n")),
            }
        }
    }

    /// The lines until the script ends, and its exit code; `see` is shown each as it comes.
    pub fn finish(mut self, limit: Duration, see: impl Fn(&str)) -> Result<(Vec<String>, i32)> {
        let mut lines = self.until(limit, |line| {
            see(line);
            line.starts_with("@@exit ")
        })?;
        let code = lines.pop().and_then(|line| line.strip_prefix("@@exit ")?.trim().parse().ok());
        self.child.wait()?;
        Ok((lines, code.ok_or_else(|| anyhow!("the script has no exit code"))?))
    }

    /// As if somebody pulled the plug: what the machine had not written is lost.
    pub fn cut_power(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Already off is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.initramfs);
    }
}
